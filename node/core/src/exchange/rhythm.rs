//! When the groups of a core speak to other zones: together, [`EXCHANGE_EVERY_MS`] apart.
//!
//! A message costs both ends more than the small effects in it: its frame, its wake-ups, at the other end a turn with a
//! write of the disk. So what groups apply while the last word is fresh leaves with the next one, all groups together.
//! After a silence nothing waits, nor does the effect of a write that is to reach other zones before it is answered.
//!
//! What it is not: what is said (`sender`, `receiver`). A comparison asks and answers without it, and time's own
//! subscriptions come with ticks.

use std::collections::BTreeSet;

use crate::core::Core;
use crate::group::Group;
use crate::ids::GroupId;
use crate::limits::EXCHANGE_EVERY_MS;
use crate::output::Outputs;
use crate::time::Now;

/// Which groups have something to say, and since when they may.
#[derive(Debug, Default)]
pub(crate) struct Rhythm {
    unsaid: BTreeSet<GroupId>,
    due_ns: u64,
}

impl Core {
    /// When a turn is to be taken although nothing came in, in monotonic nanoseconds.
    pub fn wakes_at_ns(&self) -> Option<u64> {
        let speaks = !self.rhythm.unsaid.is_empty() && !self.poisoned;
        speaks.then_some(self.rhythm.due_ns)
    }

    /// A group's part of a turn is written: what it has to say leaves at once, or soon.
    pub(crate) fn has_to_say(&mut self, now: Now, id: GroupId, out: &mut Outputs) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        if group.is_in_comparison() || self.levels.reaches(id) {
            self.rhythm.unsaid.remove(&id);
            self.with_exchange(now, id, out, Group::exchange_flush);
        } else if group.has_news() {
            self.rhythm.unsaid.insert(id);
        }
    }

    /// Lets all groups speak that have something to say, if it is time.
    pub(crate) fn speak_if_due(&mut self, now: Now, out: &mut Outputs) {
        if self.rhythm.unsaid.is_empty() || now.mono_ns < self.rhythm.due_ns {
            return;
        }
        for id in std::mem::take(&mut self.rhythm.unsaid) {
            self.with_exchange(now, id, out, Group::exchange_flush);
        }
        self.rhythm.due_ns = now.after_ms(EXCHANGE_EVERY_MS);
    }
}
