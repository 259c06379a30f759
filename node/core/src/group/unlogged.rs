//! A group without any other member applies what it proposes in the turn that proposes it, and keeps no log.
//!
//! One batch holds the effects and the place in the log up to which they are applied. It is whole on the disk or
//! not at all, so a crash leaves nothing to replay: an entry that was lost was never acknowledged, and gives its index and its
//! dots to another one. That is one write of the disk for a put instead of two, and no record of the entry.
//!
//! Why Raft agrees: such a leader's entry is committed as soon as it has persisted it, so what is applied in the same batch is
//! committed whenever it exists. raft-rs hears of it in the usual order, persisted, committed, applied, once the batch is
//! written; the entry stays in memory until then.
//!
//! What it is not: for the catalog, which core and shell adopt while they apply; for changes of members; for a group with a
//! learner, which needs the log.
//!
//! Invariant: an entry without a record is applied in the turn that brings it.

use raft::eraftpb::{Entry, EntryType};

use super::{Group, Machine};
use crate::workspace::Workspace;

impl Group {
    /// No replica but this one takes part, and it leads a shard.
    pub(crate) fn is_only_member(&self) -> bool {
        let is_data = matches!(self.machine, Machine::Data(_));
        is_data && self.leads() && self.log().is_of(self.replica)
    }

    /// Whether entries that follow the log may be applied in this turn.
    fn applies_at_once(&self, entries: &[Entry]) -> bool {
        let Some(first) = entries.first() else {
            return false;
        };
        let is_whole = !self.log().installing() && !self.installed();
        let is_next = self.machine.applied().saturating_add(1) == first.index
            && self.log().last().saturating_add(1) == first.index;
        let is_normal = |entry: &Entry| entry.get_entry_type() == EntryType::EntryNormal;
        is_whole && is_next && self.is_only_member() && entries.iter().all(is_normal)
    }

    /// New entries of Raft's.
    pub(super) fn take_entries(&mut self, entries: Vec<Entry>, work: &mut Workspace<'_>) {
        if !self.applies_at_once(&entries) {
            self.raft.mut_store().append(entries, work);
            return;
        }
        self.hand_out(&entries);
        self.raft.mut_store().append_unlogged(entries, work);
    }

    /// The turn's batch is written, and Raft knows what is applied.
    pub(super) fn forget_unlogged(&mut self) {
        let last = self.log().last();
        if self.log().is_unlogged(last) {
            assert!(
                self.raft.raft.raft_log.applied == last,
                "an entry without a record is applied in the turn that brings it"
            );
            self.raft.mut_store().forget_unlogged();
        }
    }
}
