//! A group's part in a turn: `collect` before the write, `settle` after it.
//!
//! Merges wait aside (`merges`): in each turn some of them are proposed, after what clients have asked for and in entries of their
//! own. Where both can be applied clients' come first, in a turn of their own: who writes waits for the disk, and not besides for
//! what other zones have written meanwhile. A group of one replica applies all at once (`unlogged`); there, a turn that answers
//! clients takes no portion of a backlog.
//!
//! Order inside `collect`: propose, take Raft's ready, store entries and hard state, apply what is committed and
//! persisted, cut the log, save. raft 0.7.0 hands out only entries up to min(committed, persisted), so applying in the
//! batch that appends later entries is safe (protocol rule 31).

use meridian_causal::Hlc;
use raft::eraftpb::Entry;

use super::Pace;
use super::{Group, Machine, Outcome, addressed};
use crate::command::{Command, Op, Waiter};
use crate::config::Bounds;
use crate::error::Error;
use crate::ids::RequestId;
use crate::limits::{ENTRY_BYTES_MAX, ENTRY_OPS_MAX, MERGES_PER_WRITE};
use crate::output::Outputs;
use crate::shard::Resolved;
use crate::time::Now;
use crate::workspace::Workspace;

/// Entries that are gathered before a log is cut: a cut is one more record in a batch.
const CUT_ENTRIES_MIN: u64 = 128;
/// Bytes of log for which it is cut before: what is deleted while it is in a write buffer never reaches the disk, nor leaves the
/// processor's caches.
const CUT_BYTES_MIN: u64 = 128 << 10;
/// Entries that are gathered even so.
const CUT_LARGE_ENTRIES_MIN: u64 = 8;

/// What a group put into a turn.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// It must be on disk before `settle`.
    pub(crate) sync: bool,
    /// The group takes part in this turn.
    pub(crate) active: bool,
    /// Writes that could not be proposed.
    pub(crate) refused: Vec<Waiter>,
    /// The catalog changed.
    pub(crate) catalog_changed: bool,
}

/// What `settle` lets go.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) reads: Vec<RequestId>,
    /// Prepared parts that were resolved.
    pub(crate) resolved: Vec<Resolved>,
    /// The group has more to do in the next turn.
    pub(crate) again: bool,
}

/// What all groups of a turn need.
pub(crate) struct TurnContext<'a, 'w> {
    pub(crate) now: Now,
    pub(crate) bounds: &'a Bounds,
    pub(crate) observe: bool,
    pub(crate) work: &'a mut Workspace<'w>,
    pub(crate) out: &'a mut Outputs,
    /// Bytes of merges that each group may propose; `None`: not in this turn.
    pub(crate) merge_bytes: Option<usize>,
    /// Which of them may.
    pub(crate) pace: &'a mut Pace,
}

impl Group {
    /// The group's writes of this turn. `settle` must follow once they are written, before anything else is called.
    pub(crate) fn collect(
        &mut self,
        context: &mut TurnContext<'_, '_>,
    ) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        self.queue_merges(context);
        self.propose_queue(context.now, &mut collected);
        self.ask_read_index();
        let mut save = false;
        if self.raft.has_ready() {
            collected.active = true;
            save |= self.take_ready(context, &mut collected);
        }
        let before = self.machine.applied();
        let seen = self.changes();
        self.apply_committed(context, &mut collected)?;
        if self.changes() != seen {
            context.out.changed.push(self.id);
        }
        if self.machine.applied() != before {
            self.raft.mut_store().raise_commit(self.machine.applied());
            self.cut_log(context.bounds, context.work);
            self.save_machine(context.work);
            save = true;
        }
        if save {
            self.raft.mut_store().save(context.work);
            collected.active = true;
        }
        collected.active |= self.has_confirmed_reads();
        Ok(collected)
    }

    /// Changes that a watcher may have seen.
    fn changes(&self) -> u64 {
        self.shard().map_or(0, |shard| shard.meta().changes)
    }

    fn propose_queue(&mut self, now: Now, collected: &mut Collected) {
        if self.queue.is_empty() && self.control_queue.is_empty() {
            return;
        }
        let commands = std::mem::take(&mut self.control_queue);
        let leads = self.leads();
        for command in commands {
            if !leads || self.raft.propose(Vec::new(), command.encode()).is_err() {
                collected.refused.push(command.waiter);
            }
        }
        let mut ops = std::mem::take(&mut self.queue).into_iter().peekable();
        let mut accepted = true;
        // Where all is applied at once nothing is gained by keeping merges apart.
        let together = self.is_only_member();
        while ops.peek().is_some() {
            let mut entry = Vec::new();
            let mut bytes = 0_usize;
            while let Some(op) = ops.next_if(|op| {
                entry.first().is_none_or(|first| {
                    (together || is_merge(first) == is_merge(op))
                        && entry.len() < ENTRY_OPS_MAX
                        && bytes.saturating_add(op.encoded_bytes()) <= ENTRY_BYTES_MAX
                })
            }) {
                bytes = bytes.saturating_add(op.encoded_bytes());
                entry.push(op);
            }
            let merges = !together && entry.first().is_some_and(is_merge);
            let refused = if accepted {
                self.propose(now, entry)
            } else {
                entry
            };
            if merges && refused.is_empty() {
                let last = self.raft.raft.raft_log.last_index();
                self.merge_entries.push_back(last);
            }
            if !refused.is_empty() {
                accepted = false;
                self.merges.clear();
                self.exchange.proposals_lost();
                collected
                    .refused
                    .extend(refused.iter().filter_map(waiter_of));
            }
        }
    }

    /// Queues merges behind what clients and this group itself have asked for.
    fn queue_merges(&mut self, context: &mut TurnContext<'_, '_>) {
        if !self.leads() {
            // Nothing is merged here any more: the next leader is sent all of it.
            self.merges.clear();
            self.merge_entries.clear();
        }
        let is_any = !self.merges.is_empty();
        let Some(bytes_max) = context.merge_bytes.filter(|_| is_any) else {
            return;
        };
        let asked: usize = self.queue.iter().map(Op::encoded_bytes).sum();
        let bytes_max = bytes_max.max(asked.saturating_mul(MERGES_PER_WRITE));
        self.queue.extend(self.merges.take(bytes_max, context.pace));
    }

    /// Proposes one entry, or hands its operations back. Once one is refused, so are those queued behind it: the end of
    /// a comparison must not enter the log without its joins. A replica that no longer leads proposes nothing (raft-rs
    /// would pass it on).
    fn propose(&mut self, now: Now, ops: Vec<Op>) -> Vec<Op> {
        if !self.leads() {
            return ops;
        }
        let applied = self
            .shard()
            .map_or(Hlc::default(), |shard| shard.meta().hlc);
        self.hlc = self.hlc.max(applied).tick(now.wall_ms);
        let command = Command { hlc: self.hlc, ops };
        match self.raft.propose(Vec::new(), command.encode()) {
            Ok(()) => Vec::new(),
            Err(_refusal) => command.ops,
        }
    }

    /// Takes what Raft has ready; true when the Raft state must be saved.
    fn take_ready(&mut self, context: &mut TurnContext<'_, '_>, collected: &mut Collected) -> bool {
        let mut ready = self.raft.ready();
        context.out.messages.extend(
            ready
                .take_messages()
                .into_iter()
                .map(|message| addressed(self.id, message)),
        );
        self.take_read_states(ready.take_read_states());
        collected.sync |= ready.must_sync();
        let mut save = false;
        if !ready.snapshot().is_empty() {
            let snapshot = ready.snapshot().clone();
            self.raft.mut_store().reset_to(&snapshot, context.work);
            self.apply_to = self.apply_to.max(snapshot.get_metadata().index);
            save = true;
        }
        let entries = ready.take_entries();
        if !entries.is_empty() {
            if context.observe {
                self.note_entries(&entries);
            }
            self.take_entries(entries, context.work);
            save = true;
        }
        if let Some(hard) = ready.hs() {
            let hard = hard.clone();
            self.raft.mut_store().set_hard(hard);
            save = true;
        }
        self.hand_out(&ready.take_committed_entries());
        self.ready = Some(ready);
        save
    }

    /// Raft says these are committed and persisted here.
    pub(super) fn hand_out(&mut self, entries: &[Entry]) {
        if let Some(last) = entries.last() {
            self.apply_to = self.apply_to.max(last.index);
        }
    }

    fn save_machine(&mut self, work: &mut Workspace<'_>) {
        match &mut self.machine {
            Machine::Data(shard) => shard.save(work),
            Machine::Control(control) => control.save(work),
        }
    }

    /// Cuts what every member has, or, past the bounds, what lags.
    fn cut_log(&mut self, bounds: &Bounds, work: &mut Workspace<'_>) {
        if self.log().is_unlogged(self.machine.applied()) {
            // All of it counts as cut.
            return;
        }
        let applied = self.machine.applied();
        let log = self.log();
        let first = log.truncated().index;
        let everyone = if self.leads() {
            let matched = self
                .raft
                .raft
                .prs()
                .iter()
                .map(|(_, progress)| progress.matched);
            matched.min().unwrap_or(applied).min(applied)
        } else if self.alone() {
            applied
        } else {
            // A follower that keeps as much as its bounds allow can serve as leader without sending images.
            first
        };
        let over = log.len() > bounds.log_entries_max || log.bytes() > bounds.log_bytes_max;
        let cut = if over {
            applied
                .saturating_sub(bounds.log_entries_max / 4)
                .max(everyone)
        } else {
            everyone
        };
        let cut = cut.min(applied);
        let entries_min = if log.bytes() < CUT_BYTES_MIN {
            CUT_ENTRIES_MIN
        } else {
            CUT_LARGE_ENTRIES_MIN
        };
        let entries_min = entries_min.min(bounds.log_entries_max / 2).max(1);
        if cut >= first.saturating_add(entries_min) || (over && cut > first) {
            self.raft.mut_store().cut(cut, work);
        }
    }

    /// The turn's batch is written: everything that depended on it may go.
    pub(crate) fn settle(&mut self, out: &mut Outputs) -> Settled {
        if let Some(mut ready) = self.ready.take() {
            let persisted = ready.take_persisted_messages();
            out.messages.extend(
                persisted
                    .into_iter()
                    .map(|message| addressed(self.id, message)),
            );
            let mut light = self.raft.advance_append(ready);
            out.messages.extend(
                light
                    .take_messages()
                    .into_iter()
                    .map(|message| addressed(self.id, message)),
            );
            self.hand_out(&light.take_committed_entries());
            self.commit_alone();
        }
        self.tell_durable(out);
        // Right after an image is installed the machine is ahead of what Raft has seen persisted: the next turn tells it.
        let log = &self.raft.raft.raft_log;
        let applied = self.machine.applied().min(log.committed).min(log.persisted);
        if applied > self.raft.raft.raft_log.applied {
            self.raft.advance_apply_to(applied);
        }
        self.forget_unlogged();
        Settled {
            outcomes: std::mem::take(&mut self.outcomes),
            reads: self.release_reads(),
            resolved: self.take_resolved(),
            again: self.has_work(),
        }
    }

    /// Something would happen in a turn.
    pub(crate) fn has_work(&self) -> bool {
        self.has_applicable() || self.queued() > 0 || self.raft.has_ready()
    }

    /// Entries of clients, and of merges, that would be applied in a turn.
    pub(crate) fn applicable(&self) -> (u64, u64) {
        let merges = self.merge_entries.iter();
        let merges = merges.filter(|index| **index <= self.apply_to).count();
        let merges = u64::try_from(merges).unwrap_or(u64::MAX);
        let all = self.apply_to.saturating_sub(self.machine.applied());
        (all.saturating_sub(merges), merges)
    }

    /// An entry would be applied in a turn.
    pub(crate) fn has_applicable(&self) -> bool {
        let next = self.machine.applied().saturating_add(1);
        !self.log().installing()
            && self.machine.applied() < self.apply_to
            && self.log().entry(next).is_some()
    }
}

const fn is_merge(op: &Op) -> bool {
    matches!(op, Op::Merge { .. })
}

fn waiter_of(op: &Op) -> Option<Waiter> {
    match op {
        Op::Write(write) | Op::LeasedWrite { write, .. } => Some(write.waiter),
        Op::LeaseAcquire(acquire) => Some(acquire.waiter),
        Op::LeaseEnd { waiter, .. } => *waiter,
        Op::Merge { .. }
        | Op::CompareBegin { .. }
        | Op::CompareJoin { .. }
        | Op::CompareEnd { .. }
        | Op::CompareRemember { .. }
        | Op::Trim { .. }
        | Op::DropTombstones { .. }
        | Op::EvictOpIds { .. }
        | Op::Quarantine { .. }
        | Op::TakeIncarnation { .. }
        | Op::LeaseGone { .. }
        | Op::Expire { .. }
        | Op::Degrade { .. }
        | Op::Seal { .. }
        | Op::Unseal { .. }
        | Op::Found { .. }
        | Op::Forget { .. } => None,
        Op::Transact(op) => Some(op.waiter),
        Op::Prepare(op) => Some(op.waiter),
        Op::Decide(op) => Some(op.waiter),
        Op::Resolve(op) => Some(op.waiter),
    }
}
