//! Where answers go: a queue per stream or call, filled by core threads in batches and emptied by the task that words
//! the answers. Whatever is ready by then leaves in one message.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use meridian_causal::OpId;
use meridian_core::Error;
use meridian_core::ids::{KeyspaceId, NodeId, ShardId};
use meridian_core::request::{ReadLevel, Response};
use tokio::sync::Notify;

use crate::convert::transactions::ActionKeys;

/// What a request is, for its answer and for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A read of one key.
    Get,
    /// A put.
    Put,
    /// A delete.
    Delete,
    /// A transaction.
    Transact,
    /// One shard's part of a validation.
    Validate,
    /// Opening or closing a view.
    View,
    /// Anything about a lease.
    Lease,
    /// One shard's part of a scan.
    Page,
    /// One shard's part of a digest.
    Digest,
    /// Anything of admin.v1.
    Admin,
}

/// What is needed to word the answer of one request.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) replies: Arc<Replies>,
    /// The client's number for it, or its position in a call.
    pub(crate) slot: u64,
    pub(crate) kind: Kind,
    pub(crate) started: Instant,
    pub(crate) deadline_ns: u64,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) shard: ShardId,
    pub(crate) key: Bytes,
    pub(crate) session: Bytes,
    pub(crate) level: ReadLevel,
    pub(crate) op_id: Option<OpId>,
    /// The keys of a transaction's actions.
    pub(crate) action_keys: Option<Box<ActionKeys>>,
}

/// A request with its answer.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) ticket: Ticket,
    /// The node that answered, where it was another one.
    pub(crate) by: Option<NodeId>,
    pub(crate) result: Result<Response, Error>,
}

/// Answers that are ready and not yet taken.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    ready: Mutex<Vec<Done>>,
    some: Notify,
}

impl Replies {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Adds an answer. True: it is the first, and [`Replies::wake`] is due once the others are in.
    pub(crate) fn push(&self, done: Done) -> bool {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.push(done);
        ready.len() == 1
    }

    /// Wakes whoever takes the answers.
    pub(crate) fn wake(&self) {
        self.some.notify_one();
    }

    /// Waits until there is an answer, and takes all there are.
    pub(crate) async fn take(&self) -> Vec<Done> {
        loop {
            let taken = self.take_ready();
            if !taken.is_empty() {
                return taken;
            }
            self.some.notified().await;
        }
    }

    /// Waits until somebody calls [`Replies::wake`]; a call that nobody waited for counts.
    pub(crate) async fn changed(&self) {
        self.some.notified().await;
    }

    /// Takes what there is.
    pub(crate) fn take_ready(&self) -> Vec<Done> {
        std::mem::take(&mut *self.ready.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Done {
    /// Hands the answer to whoever waits, alone.
    pub(crate) fn deliver(self) {
        let replies = Arc::clone(&self.ticket.replies);
        if replies.push(self) {
            replies.wake();
        }
    }
}
