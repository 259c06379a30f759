//! The turn: what all groups of a core write together, and what leaves once it is written.

//! What it is not: the order inside a group's part, which is in `group/collect`.
//!
//! Invariant: between a turn that gave a batch and `wrote`, nothing else is called.

use std::sync::Arc;

use meridian_storage::{Batch, Durability};

use crate::core::Core;
use crate::error::Error;
use crate::group::{Group, Said, TurnContext};
use crate::ids::GroupId;
use crate::limits::{BACKLOG_TURN_BYTES, MERGE_TURN_BYTES};
use crate::output::{Notice, Outputs, Turn};
use crate::record_cache::Recent;
use crate::time::Now;
use crate::workspace::Workspace;

impl Core {
    /// What is to be written, if anything is to be done. [`Core::wrote`] must follow before any other call.
    pub fn turn(&mut self, now: Now, out: &mut Outputs) -> Option<Turn> {
        self.now = now;
        if self.poisoned {
            return None;
        }
        self.speak_if_due(now, out);
        let collected = self.collect(now, out);
        self.take_inner(now, out);
        match collected {
            Ok(turn) => turn,
            Err(error) => {
                // State that does not apply here would apply elsewhere: going on would let replicas drift apart.
                out.notices.push(Notice::Damaged {
                    detail: error.to_string(),
                });
                self.failed(now, out);
                None
            }
        }
    }

    fn collect(&mut self, now: Now, out: &mut Outputs) -> Result<Option<Turn>, Error> {
        self.open_wanted_images(now);
        let engine = Arc::clone(&self.engine);
        let mut records = std::mem::take(&mut self.records);
        let known = Recent::of(&*engine, &records);
        let work = Workspace::new(&known, self.config.observe);
        let turn = self.collect_into(work, now, out);
        // It is written next, or nothing is read any more.
        if let Ok(Some(turn)) = &turn {
            records.follow(&turn.batch);
        }
        self.records = records;
        turn
    }

    fn collect_into(
        &mut self,
        mut work: Workspace<'_>,
        now: Now,
        out: &mut Outputs,
    ) -> Result<Option<Turn>, Error> {
        let mut sync = false;
        for (from, to) in self.dropped.drain(..) {
            work.delete_range(from, to);
        }
        if let Some(admission) = self
            .admission
            .as_mut()
            .filter(|admission| admission.has_writes())
        {
            admission.collect(&mut work);
            sync = true;
        }
        sync |= self.collect_mirrors(&mut work)?;
        let mut catalog_changed = false;
        self.pace.begin(now, self.is_answered_at_once());
        self.wake_merging();
        let merge_bytes = self.merge_bytes();
        let beside = self.has_clients_beside_merges();
        self.pace.defer_beside(beside);
        for id in std::mem::take(&mut self.active) {
            let Some(group) = self.groups.get_mut(&id) else {
                continue;
            };
            if group.has_pages() {
                sync = true;
                group.write_pages(&mut work)?;
            }
            let mut context = TurnContext {
                now,
                bounds: &self.config.bounds,
                observe: self.config.observe,
                work: &mut work,
                out,
                merge_bytes,
                pace: &mut self.pace,
            };
            let collected = group.collect(&mut context)?;
            sync |= collected.sync;
            catalog_changed |= collected.catalog_changed;
            self.writing.push(id);
            for waiter in collected.refused {
                self.refused(now, waiter, out);
            }
        }
        if catalog_changed {
            self.read_catalog(now, out)?;
        }
        if self.writing.is_empty() && work.is_empty() {
            return Ok(None);
        }
        let batch: Batch = work.into_batch();
        let sync = sync && !self.config.planted.reply_before_durable;
        let durability = if sync {
            Durability::Synced
        } else {
            Durability::Buffered
        };
        Ok(Some(Turn { batch, durability }))
    }

    /// Groups with merges that may go now take part in this turn; and in the next, while any are left.
    fn wake_merging(&mut self) {
        let (groups, pace) = (&self.groups, &self.pace);
        let merges = |id: &GroupId| groups.get(id).map(|group| &group.merges);
        self.merging
            .retain(|id| merges(id).is_some_and(|merges| !merges.is_empty()));
        let due = |id: &&GroupId| merges(id).is_some_and(|merges| merges.is_due(pace));
        self.active.extend(self.merging.iter().filter(due));
    }

    /// Whether clients wait for what this very turn applies, and would wait for merges in it as well.
    fn is_answered_at_once(&self) -> bool {
        let mut active = self.active.iter().filter_map(|id| self.groups.get(id));
        active.any(|group| group.queued() > 0 && group.is_only_member())
    }

    /// Whether entries of clients could be applied in this turn, and of merges too.
    fn has_clients_beside_merges(&self) -> bool {
        let active = self.active.iter().filter_map(|id| self.groups.get(id));
        let entries = active.map(Group::applicable);
        let all = entries.reduce(|(c, m), (clients, merges)| (c.max(clients), m.max(merges)));
        matches!(all, Some((1.., 1..)))
    }

    /// Bytes of merges that each group may propose in this turn. None where that would make a turn wait for the disk that
    /// only applies what is there already: whoever waits for that is not to wait for merges as well.
    fn merge_bytes(&self) -> Option<usize> {
        let active = || self.active.iter().filter_map(|id| self.groups.get(id));
        let applies = active().any(Group::has_applicable);
        if applies && active().all(|group| group.queued() == 0) {
            return None;
        }
        let merging = active().filter(|group| !group.merges.is_empty()).count();
        let bytes = if self.pace.is_portion_due() {
            BACKLOG_TURN_BYTES
        } else {
            MERGE_TURN_BYTES
        };
        Some(bytes / merging.max(1))
    }

    /// The turn's batch is written as it asked for: everything that waited for it leaves.
    pub fn wrote(&mut self, now: Now, out: &mut Outputs) {
        self.now = now;
        if let Some(admission) = &mut self.admission {
            admission.settle(out);
        }
        for id in std::mem::take(&mut self.writing) {
            let Some(group) = self.groups.get_mut(&id) else {
                continue;
            };
            let settled = group.settle(out);
            // Only now: Raft takes no message between a ready and its advance.
            self.finish_image(now, id, out);
            let Some(group) = self.groups.get_mut(&id) else {
                continue;
            };
            group.impose_timeout(&mut self.rng);
            // After Raft's ready is settled: a message stepped in between would be taken for one of that ready.
            self.finish_image(now, id, out);
            if settled.again {
                self.active.insert(id);
            }
            let said = Said {
                outcomes: settled.outcomes,
                reads: settled.reads,
            };
            let said = match self.groups.get_mut(&id) {
                Some(group) => group.holds.pass(said),
                None => said,
            };
            self.release_acks(now, id, out);
            for outcome in said.outcomes {
                self.said(now, id, outcome, out);
            }
            for ticket in said.reads {
                self.release(now, (ticket, id), out);
            }
            if !settled.resolved.is_empty() {
                self.resolved(id, &settled.resolved, out);
            }
            self.offer_freed(now, id, out);
            self.after_raft(id, out);
            self.has_to_say(now, id, out);
            self.level_reads(now, id, out);
        }
        self.speak_if_due(now, out);
        self.pace.end();
        self.wake_merging();
        self.settle_mirrors(now, out);
        self.join_cluster(now, out);
        self.take_inner(now, out);
    }
}
