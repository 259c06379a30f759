//! Linearizable reads of one group: batched read indexes.
//!
//! A read waits until the leader has confirmed, after the read arrived, that it still leads (its read index), and until
//! that index is applied and written. All reads of a turn share one confirmation. raft-rs drops a read index silently
//! on a change of leader: then `fail` hands the tickets back, and each also has a deadline at the core.
//!
//! Source: Ongaro, "Consensus: Bridging Theory and Practice" (2014), section 6.4.

use std::collections::BTreeMap;

use super::Group;
use crate::ids::RequestId;

/// Reads on their way.
#[derive(Default)]
pub(crate) struct Reads {
    /// Arrived since the last turn.
    pub(super) waiting: Vec<RequestId>,
    /// Sent for confirmation, by the number of the request.
    asked: BTreeMap<u64, Vec<RequestId>>,
    next: u64,
    /// Confirmed: released once the index is applied and written.
    confirmed: Vec<(u64, Vec<RequestId>)>,
}

impl Group {
    /// Asks for the read index of everything that waits. A leader that has not committed in its term yet lets it wait.
    pub(super) fn ask_read_index(&mut self) {
        if self.reads.waiting.is_empty() || !self.established() {
            return;
        }
        let tickets = std::mem::take(&mut self.reads.waiting);
        if self.alone() {
            self.reads
                .confirmed
                .push((self.raft.raft.raft_log.committed, tickets));
            return;
        }
        self.reads.next = self.reads.next.saturating_add(1);
        self.reads.asked.insert(self.reads.next, tickets);
        self.raft.read_index(self.reads.next.to_be_bytes().to_vec());
    }

    /// Takes the confirmations Raft has ready.
    pub(super) fn take_read_states(&mut self, states: Vec<raft::ReadState>) {
        for state in states {
            let Ok(number) =
                <[u8; 8]>::try_from(state.request_ctx.as_slice()).map(u64::from_be_bytes)
            else {
                continue;
            };
            if let Some(tickets) = self.reads.asked.remove(&number) {
                self.reads.confirmed.push((state.index, tickets));
            }
        }
    }

    /// The reads whose index is applied and written.
    pub(super) fn release_reads(&mut self) -> Vec<RequestId> {
        if self.reads.confirmed.is_empty() {
            return Vec::new();
        }
        let applied = self.machine.applied();
        let mut released = Vec::new();
        self.reads.confirmed.retain_mut(|(index, tickets)| {
            let done = *index <= applied;
            if done {
                released.append(tickets);
            }
            !done
        });
        released
    }

    /// This replica no longer leads: the tickets that will not be confirmed.
    pub(crate) fn fail_reads(&mut self) -> Vec<RequestId> {
        let mut tickets = std::mem::take(&mut self.reads.waiting);
        for asked in std::mem::take(&mut self.reads.asked).into_values() {
            tickets.extend(asked);
        }
        tickets
    }

    /// Reads or queued operations wait for a turn.
    pub(super) fn has_confirmed_reads(&self) -> bool {
        !self.reads.confirmed.is_empty()
    }
}
