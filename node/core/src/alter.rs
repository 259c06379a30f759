//! What a group's leader does for an alter of its keyspace: seal an old group, see when a new one has everything, and tell
//! the control group.
//!
//! The data itself moves by the exchange, which takes the groups of a keyspace and those of its successor for ends of one
//! shard. What each report does to the catalog is in `control::alter`.
//!
//! Invariants:
//! * `Final` is reported of a group that is sealed for good, with a vector that covers the last write it ever makes;
//! * `Ready` is reported of a group whose vector covers the final vectors of all old groups of its shard.

use crate::catalog::{Alter, AlterReport};
use crate::command::Op;
use crate::core::Core;
use crate::exchange;
use crate::group::Group;
use crate::ids::{GroupId, KeyspaceId};
use crate::output::Outputs;
use crate::request::Request;
use crate::time::Now;

/// Between two reports of a group: a control group without a leader is not to be flooded.
const REPORT_MS: u64 = 300;

/// Effects a group may lack and still count as filled: what it takes over in well under a second once writing stops.
const FILLED_BEHIND_MAX: u64 = 4_096;

/// What a group has told of an alter.
#[derive(Debug, Default)]
pub(crate) struct Told {
    due_ns: u64,
    attempts: usize,
}

/// A round of sealing that is not done after this long is given up: the old groups refuse writes meanwhile, and whoever is
/// missing may be so for good.
const SEALING_MS_MAX: u64 = 5_000;

impl Core {
    /// Of the control group's leader: the rounds of sealing that have taken too long, to be given up.
    pub(crate) fn overdue_sealing(&mut self) -> Vec<(KeyspaceId, u64)> {
        let rounds = self.catalog.keyspaces.values().filter_map(|keyspace| {
            let round = keyspace.alter.as_ref()?.sealing;
            (round > 0).then_some((keyspace.id, round))
        });
        let rounds: Vec<_> = rounds.collect();
        self.sealing_since.retain(|round, _| rounds.contains(round));
        let mut overdue = Vec::new();
        for round in rounds {
            let since = self.sealing_since.entry(round).or_insert(self.now);
            if self.now.mono_ns >= since.after_ms(SEALING_MS_MAX) {
                overdue.push(round);
            }
        }
        overdue
    }

    /// Time passed for a group of a keyspace that may be on its way.
    pub(crate) fn tick_alter(&mut self, now: Now, id: GroupId, out: &mut Outputs) {
        let Some(report) = self.alter_report(id) else {
            return;
        };
        let Some(told) = self.groups.get_mut(&id).map(|group| &mut group.told) else {
            return;
        };
        if now.mono_ns < told.due_ns {
            return;
        }
        told.due_ns = now.after_ms(REPORT_MS);
        told.attempts = told.attempts.wrapping_add(1);
        let attempt = told.attempts;
        let request = Request::AlterReport {
            group: id,
            report,
            passed: false,
        };
        self.ask_control(now, attempt, request, out);
    }

    fn alter_report(&mut self, id: GroupId) -> Option<AlterReport> {
        let leads = self.groups.get(&id).is_some_and(Group::is_current);
        let keyspace = self.catalog.keyspaces.get(&id.keyspace).filter(|_| leads)?;
        match (&keyspace.alter, keyspace.before) {
            (Some(alter), _) if alter.sealing > 0 && !alter.finals.contains_key(&id) => {
                self.last_write(id, alter.sealing)
            }
            (Some(alter), _) if alter.sealing > 0 => {
                if self.config.planted.unseal_in_round {
                    let revision = alter.sealing.saturating_add(1);
                    self.queue(id, |group| group.enqueue(Op::Unseal { revision }));
                }
                None
            }
            (None, Some(before)) => self.taken_over(id, before),
            (_, _) => {
                self.serve_on(id);
                None
            }
        }
    }

    /// Of a group whose keyspace does not move, or not yet: unseals it if it was sealed for a round that was given up.
    fn serve_on(&mut self, id: GroupId) {
        let revision = self.catalog.revision;
        let sealed = self.groups.get(&id).and_then(Group::shard);
        let sealed = sealed.map_or(0, |shard| shard.meta().sealed);
        if (1..revision).contains(&sealed) {
            self.queue(id, |group| group.enqueue(Op::Unseal { revision }));
        }
    }

    /// Of an old group that is to be sealed: its last write, or another step towards it.
    fn last_write(&mut self, id: GroupId, round: u64) -> Option<AlterReport> {
        let group = self.groups.get_mut(&id)?;
        let shard = group.shard()?;
        if shard.meta().quarantined.is_some() {
            // Its writes are about to get other names.
            return None;
        }
        // What cannot be read is not said to be done; the read is tried again at the next tick.
        let last = shard.last_vector(&*self.engine).ok().flatten();
        let last = last.filter(|_| shard.meta().sealed == round);
        if last.is_none() && group.queued() == 0 {
            self.queue(id, |group| group.enqueue(Op::Seal { round }));
        }
        last.map(|received| AlterReport::Final { round, received })
    }

    /// Of a group that takes over: how far it is.
    fn taken_over(&self, id: GroupId, before: KeyspaceId) -> Option<AlterReport> {
        let alter = self.catalog.keyspaces.get(&before)?.alter.as_ref()?;
        let group = self.groups.get(&id)?;
        let meta = group.shard()?.meta();
        if meta.compare.is_some() {
            return None;
        }
        if alter.sealing > 0 {
            let done = !alter.ready.contains(&id) && self.has_all(id, before, alter)?;
            let round = alter.sealing;
            return done.then_some(AlterReport::Ready { round });
        }
        let near = !alter.filled.contains(&id)
            && group.hears_all(&self.catalog, before, self.now)
            && exchange::behind(&self.catalog, group, before)? <= FILLED_BEHIND_MAX;
        near.then_some(AlterReport::Filled)
    }

    /// Whether a group holds the last writes of all old groups of its shard.
    fn has_all(&self, id: GroupId, before: KeyspaceId, alter: &Alter) -> Option<bool> {
        if self.config.planted.move_before_final {
            return Some(true);
        }
        let received = &self.groups.get(&id)?.shard()?.meta().received;
        let old = self.catalog.keyspaces.get(&before)?.groups.iter();
        let mut old = old.filter(|group| group.id.shard == id.shard);
        Some(old.all(|group| {
            let last = alter.finals.get(&group.id);
            last.is_some_and(|last| received.includes(last))
        }))
    }
}
