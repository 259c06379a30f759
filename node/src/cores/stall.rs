//! A full disk: the thread stalls until there is room. Nothing is lost meanwhile: what is being written is tried again,
//! what asks is answered `DISK_FULL`, what waits past its deadline is answered that its outcome is unknown.

use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use meridian_core::error::{EffectOf, Error};
use meridian_storage::{Batch, Durability, StorageError};

use super::replies::Done;
use super::replies::Ticket;
use super::thread::{CoreThread, Flow};
use super::{Submission, Work};

/// How often a write that found the disk full is tried again.
const DISK_FULL_RETRY: Duration = Duration::from_millis(200);

impl CoreThread {
    /// Tries again until there is room, the node is told to stop, or something worse happens.
    pub(super) fn wait_for_room(
        &mut self,
        batch: &Batch,
        durability: Durability,
    ) -> Result<(), StorageError> {
        tracing::error!(
            core = self.index,
            "the disk is full: writes stop until there is room"
        );
        self.shared.disk_full(true);
        loop {
            match self.refuse_for(DISK_FULL_RETRY) {
                Flow::Stop => break Err(StorageError::Poisoned),
                Flow::Go => {}
            }
            match self.engine.write(batch, durability) {
                Err(StorageError::DiskFull { .. }) => {}
                outcome => {
                    tracing::info!(core = self.index, "the disk has room again");
                    self.shared.disk_full(false);
                    break outcome;
                }
            }
        }
    }

    /// Answers what comes in for a while: nothing can be begun. What waits past its deadline is answered too.
    fn refuse_for(&mut self, patience: Duration) -> Flow {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left) {
                Ok(Work::Requests(part)) => {
                    self.depth.requests.fetch_sub(part.len(), Ordering::Relaxed);
                    for Submission { ticket, .. } in part {
                        self.answer(ticket, Error::DiskFull);
                    }
                }
                Ok(Work::Peer { bytes, .. }) => {
                    self.depth.peer_bytes.fetch_sub(bytes, Ordering::Relaxed);
                }
                Ok(later @ (Work::Catalog(_) | Work::Disk { .. })) => self.deferred.push(later),
                Ok(Work::Stop) | Err(RecvTimeoutError::Disconnected) => return Flow::Stop,
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        self.expire_waiting();
        Flow::Go
    }

    fn expire_waiting(&mut self) {
        let now = self.shared.clock.mono_ns();
        let late: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, ticket)| ticket.deadline_ns <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some(ticket) = self.waiting.remove(&id) {
                let error = match ticket.op_id {
                    Some(op_id) => Error::OutcomeUnknown { op_id },
                    None => Error::DeadlineExceeded {
                        effect: EffectOf::Unknown,
                    },
                };
                self.answer(ticket, error);
            }
        }
    }

    pub(super) fn answer(&self, ticket: Ticket, error: Error) {
        self.shared.finished(1);
        Done {
            ticket,
            by: None,
            result: Err(error),
        }
        .deliver();
    }
}
