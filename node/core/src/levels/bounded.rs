//! The level `bounded(max_age)`: a replica that surely lacks nothing that was acknowledged longer ago than that.
//!
//! A replica that is too old, or does not know its age, measures at once and lets the read wait for the outcome; many
//! reads share one question. When that does not help within a short time, the read fails with the age that is known.

use crate::core::Core;
use crate::output::Outputs;
use crate::request::Read;
use crate::route::Routed;
use crate::time::Now;

/// Longest time that a read waits for its replica to be young enough, in milliseconds: a zone that is cut off says so
/// at once, whatever the caller's deadline.
const BOUNDED_WAIT_MS_MAX: u64 = 1_000;

impl Core {
    pub(super) fn read_bounded(
        &mut self,
        now: Now,
        routed: Routed,
        read: Box<Read>,
        out: &mut Outputs,
    ) {
        let deadline_ns = routed.deadline_ns.min(now.after_ms(BOUNDED_WAIT_MS_MAX));
        let routed = Routed {
            deadline_ns,
            ..routed
        };
        if self.whole_replica(routed.group).is_none() {
            self.forward_leveled(&routed, *read, out);
            return;
        }
        if self.is_ready(now, routed.group, &read) {
            self.serve(routed.origin, *read, (None, 0), out);
            return;
        }
        let group = routed.group;
        self.wait_for_replica(now, &routed, read, out);
        self.measure(now, group, out);
    }
}
