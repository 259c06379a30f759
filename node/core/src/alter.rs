//! What a group's leader does for an alter of its keyspace: seal an old group, see when a new one has everything, and tell
//! the control group.
//!
//! The data itself moves by the exchange, which takes the groups of a keyspace and those of its successor for ends of one
//! shard. What each report does to the catalog is in `control::alter`.
//!
//! Invariants:
//! * `Final` is reported of a group that is sealed for good, with a vector that covers the last write it ever makes;
//! * `Ready` is reported of a group whose vector covers the final vectors of all old groups of its shard.

use std::sync::Arc;

use crate::catalog::{Alter, AlterReport, GroupRecord, Keyspace};
use crate::command::Op;
use crate::core::Core;
use crate::exchange;
use crate::group::Group;
use crate::ids::{GroupId, KeyspaceId, ShardId};
use crate::output::Outputs;
use crate::request::Request;
use crate::shard::Shard;
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
            (round > 0 && !keyspace.is_deposed()).then_some((keyspace.id, round))
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
        let lost = self.groups.get(&id).is_some_and(|group| group.disk_lost);
        let report = if lost {
            self.is_refilled(id).then_some(AlterReport::Refilled)
        } else {
            self.alter_report(id)
        };
        let Some(report) = report else {
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
        let catalog = Arc::clone(&self.catalog);
        let keyspace = catalog.keyspaces.get(&keyspace.id)?;
        let before = keyspace.before;
        let sealing = keyspace.alter.as_ref().filter(|alter| alter.sealing > 0);
        let Some(alter) = sealing else {
            if keyspace.is_open() {
                self.serve_on(id);
            }
            return before.and_then(|before| self.taken_over(id, before));
        };
        let last = if alter.finals.contains_key(&id) {
            if self.config.planted.unseal_in_round {
                let revision = alter.sealing.saturating_add(1);
                self.queue(id, |group| group.enqueue(Op::Unseal { revision }));
            }
            None
        } else {
            self.last_write(id, alter.sealing)
        };
        // Its last vector covers what a deposed home zone before it still has to hand over.
        match before {
            Some(before) => self.taken_over(id, before),
            None => last,
        }
    }

    /// Of a group whose disk was lost: whether it has all that another zone said it has. A zone that has lost as much is no
    /// measure, unless all have. Nobody else has what a home zone had acknowledged, but as a mirror, and that is promoted.
    fn is_refilled(&self, id: GroupId) -> bool {
        let Some(group) = self.groups.get(&id).filter(|group| group.is_current()) else {
            return false;
        };
        let Some(meta) = group.shard().map(Shard::meta) else {
            return false;
        };
        let whole = |other: &&GroupRecord| !other.disk_lost;
        let has = |other: &GroupRecord| {
            let known = group.exchange.known(other.incarnation);
            known.is_some_and(|known| meta.received.includes(known))
        };
        let mut others = exchange::others(&self.catalog, id).filter(whole).peekable();
        let shared = exchange::others(&self.catalog, id).next().is_some();
        shared && meta.compare.is_none() && (others.peek().is_none() || others.any(has))
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
        let unfenced = self.config.planted.deposed_home_serves;
        let is_deposed = || {
            self.catalog
                .keyspaces
                .get(&id.keyspace)
                .is_some_and(Keyspace::is_deposed)
        };
        if unfenced && is_deposed() {
            let received = shard.meta().received.clone();
            return Some(AlterReport::Final { round, received });
        }
        let last = last.filter(|_| shard.meta().sealed == round);
        if last.is_none() && group.queued() == 0 {
            self.queue(id, |group| group.enqueue(Op::Seal { round }));
        }
        last.map(|received| AlterReport::Final { round, received })
    }

    /// Of a group that takes over: how far it is.
    fn taken_over(&mut self, id: GroupId, before: KeyspaceId) -> Option<AlterReport> {
        let catalog = Arc::clone(&self.catalog);
        let alter = catalog.keyspaces.get(&before)?.alter.as_ref()?;
        let group = self.groups.get(&id)?;
        let meta = group.shard()?.meta();
        if meta.compare.is_some() {
            return None;
        }
        if alter.ready.contains(&id) {
            return self
                .is_mirrored_back(id, before)
                .then_some(AlterReport::Mirrored);
        }
        if alter.sealing > 0 {
            let done = self.has_all(id, before, alter)?;
            let round = alter.sealing;
            return done.then_some(AlterReport::Ready { round });
        }
        if let Some(promotion) = &alter.promotion {
            let base = group.seeded()?.clone();
            let is_founded = meta.base.is_some();
            if !is_founded && group.queued() == 0 && promotion.shown.is_some() {
                self.queue(id, |group| group.enqueue(Op::Found { base }));
            }
            let is_new = !alter.filled.contains(&id);
            return (is_founded && is_new).then_some(AlterReport::Filled);
        }
        let near = !alter.filled.contains(&id)
            && group.has_recalled(&catalog)
            && group.hears_all(&self.catalog, before, self.now)
            && exchange::behind(&self.catalog, group, before)? <= FILLED_BEHIND_MAX;
        near.then_some(AlterReport::Filled)
    }

    /// Of the first shard's group: whether the zone that was home shows something of the successor.
    fn is_mirrored_back(&self, id: GroupId, before: KeyspaceId) -> bool {
        let old = self.catalog.keyspaces.get(&before);
        let old_home = old.and_then(|old| old.policy.home);
        let shown = old_home.is_some_and(|home| self.is_shown_in(id.keyspace, home));
        id.shard == ShardId(0) && shown
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
