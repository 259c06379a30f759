//! Core threads: each owns one core and is the only one to touch it.
//!
//! What it is not: nothing is decided here. Requests and messages of other nodes are brought to the core that owns
//! their shard, in batches; when a core has too much waiting in front of it, requests are refused at once and messages
//! are held back, then dropped (links may lose).
//!
//! Invariants: every request that is submitted is answered exactly once; what waits in front of a core is bounded.
//!
//! Read `thread` for the loop, `deliver` for what comes out, `replies` for where answers go, `own` for what cores of the
//! node say to one another.

mod deliver;
mod own;
mod pacing;
pub(crate) mod replies;
mod stall;
mod thread;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use meridian_core::Error;
use meridian_core::address;
use meridian_core::catalog::Catalog;
use meridian_core::ids::{NodeId, ShardId};
use meridian_core::message::PeerMessage;
use meridian_core::request::Request;

use crate::convert::transactions;
use crate::limits::{CORE_PEER_BYTES_MAX, CORE_REQUESTS_MAX, TURN_BYTES_MAX};
use crate::shared::Shared;

pub(crate) use replies::{Done, Kind, Replies, Ticket};
pub(crate) use thread::{StartError, start};

/// How long messages of another node may wait for room in front of a core before they are dropped.
const PEER_PATIENCE: Duration = Duration::from_millis(500);

/// How often room is looked for meanwhile.
const PEER_RETRY: Duration = Duration::from_millis(1);

/// A request on its way to a core.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) request: Request,
    pub(crate) ticket: Ticket,
}

impl Submission {
    /// Bytes of the key and the value.
    fn bytes(&self) -> usize {
        self.ticket.key.len() + value_bytes(&self.request)
    }
}

/// Bytes of the value that a request brings.
fn value_bytes(request: &Request) -> usize {
    match request {
        Request::Write(write)
        | Request::LeasedWrite { write, .. }
        | Request::WriteAt { write, .. } => write.content.value().map_or(0, bytes::Bytes::len),
        Request::Transact(transaction) => transactions::size_bytes(transaction),
        Request::Read(_)
        | Request::KeyspaceCreate(_)
        | Request::KeyspaceDelete { .. }
        | Request::KeyspaceAlter(_)
        | Request::AlterReport { .. }
        | Request::Reincarnate { .. }
        | Request::Lag { .. }
        | Request::ViewOpen { .. }
        | Request::ViewClose { .. }
        | Request::Inner(_)
        | Request::LeaseAcquire(_)
        | Request::LeaseRenew { .. }
        | Request::LeaseEnd { .. }
        | Request::Mirrors { .. }
        | Request::Groups => 0,
        Request::AtHome(inner) => value_bytes(inner),
    }
}

/// What a core thread is sent.
#[derive(Debug)]
enum Work {
    Requests(Vec<Submission>),
    Peer {
        from: NodeId,
        messages: Vec<PeerMessage>,
        bytes: usize,
    },
    Catalog(Arc<Catalog>),
    Disk {
        full: bool,
    },
    Stop,
}

/// The way to one core.
#[derive(Debug)]
struct Inbox {
    sender: Sender<Work>,
    depth: Arc<Depth>,
}

/// How much waits in front of a core.
#[derive(Debug, Default)]
pub(crate) struct Depth {
    requests: AtomicUsize,
    peer_bytes: AtomicUsize,
}

/// The way to all cores of the node.
#[derive(Debug)]
pub(crate) struct Cores {
    inboxes: Vec<Inbox>,
    shared: Arc<Shared>,
}

impl Cores {
    /// How many cores there are.
    pub(crate) fn count(&self) -> usize {
        self.inboxes.len()
    }

    /// The core that owns a shard.
    pub(crate) fn index_of(&self, shard: ShardId) -> usize {
        usize::from(shard.0) % self.inboxes.len().max(1)
    }

    /// Requests that wait in front of each core, and bytes of messages that do.
    pub(crate) fn depths(&self) -> Vec<(usize, usize)> {
        let read = |depth: &Depth| {
            (
                depth.requests.load(Ordering::Relaxed),
                depth.peer_bytes.load(Ordering::Relaxed),
            )
        };
        self.inboxes
            .iter()
            .map(|inbox| read(&inbox.depth))
            .collect()
    }

    /// Brings each request to the core of its shard. What finds no room is answered `OVERLOADED` at once.
    pub(crate) fn submit(&self, batch: Vec<Submission>) {
        let mut parts: Vec<Vec<Submission>> = Vec::new();
        parts.resize_with(self.inboxes.len(), Vec::new);
        for submission in batch {
            let index = self.index_of(submission.ticket.shard);
            if let Some(part) = parts.get_mut(index) {
                part.push(submission);
            }
        }
        for (index, part) in parts.into_iter().enumerate() {
            for piece in pieces(part) {
                self.submit_to(index, piece);
            }
        }
    }

    /// Brings requests to one core, whatever their shard.
    pub(crate) fn submit_to(&self, index: usize, part: Vec<Submission>) {
        let Some(inbox) = self.inboxes.get(index) else {
            return;
        };
        if part.is_empty() {
            return;
        }
        let count = part.len();
        let before = inbox.depth.requests.fetch_add(count, Ordering::Relaxed);
        self.shared.began(count);
        let refused = if before.saturating_add(count) > CORE_REQUESTS_MAX {
            Some((
                part,
                Error::Overloaded {
                    what: "the queue of the core".to_owned(),
                },
            ))
        } else {
            unsent_requests(inbox.sender.send(Work::Requests(part)).err())
                .map(|part| (part, Error::Poisoned))
        };
        if let Some((part, error)) = refused {
            inbox.depth.requests.fetch_sub(count, Ordering::Relaxed);
            self.shared.finished(count);
            for submission in part {
                // Nothing was begun: the store's failure did not touch this request.
                Done {
                    ticket: submission.ticket,
                    by: None,
                    result: Err(error.clone()),
                }
                .deliver();
            }
        }
    }

    /// Brings messages of another node to the cores of their shards, waiting for room as long as the sender's stream
    /// may be held up. `bytes` is what they took on the wire.
    pub(crate) async fn deliver(&self, from: NodeId, messages: Vec<PeerMessage>, bytes: usize) {
        let count = messages.len().max(1);
        let mut parts: Vec<Vec<PeerMessage>> = Vec::new();
        parts.resize_with(self.inboxes.len(), Vec::new);
        let catalog = self.shared.catalog();
        for message in messages {
            let (index, message) = address::incoming(message, &catalog, self.inboxes.len());
            if let Some(part) = parts.get_mut(index) {
                part.push(message);
            }
        }
        for (inbox, part) in self.inboxes.iter().zip(parts) {
            let share = bytes.saturating_mul(part.len()) / count;
            self.deliver_to(inbox, from, part, share).await;
        }
    }

    async fn deliver_to(
        &self,
        inbox: &Inbox,
        from: NodeId,
        messages: Vec<PeerMessage>,
        bytes: usize,
    ) {
        if messages.is_empty() {
            return;
        }
        let waiting = &inbox.depth.peer_bytes;
        let mut waited = Duration::ZERO;
        while waiting.load(Ordering::Relaxed) > CORE_PEER_BYTES_MAX {
            if waited >= PEER_PATIENCE {
                self.shared.metrics.dropped_incoming(messages.len());
                return;
            }
            tokio::time::sleep(PEER_RETRY).await;
            waited += PEER_RETRY;
        }
        waiting.fetch_add(bytes, Ordering::Relaxed);
        if inbox
            .sender
            .send(Work::Peer {
                from,
                messages,
                bytes,
            })
            .is_err()
        {
            waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Tells every core whether the disk has too little room for client writes.
    pub(crate) fn disk(&self, full: bool) {
        for inbox in &self.inboxes {
            // A thread that has ended writes nothing.
            drop(inbox.sender.send(Work::Disk { full }));
        }
    }

    /// Tells every core thread to end.
    pub(crate) fn stop(&self) {
        for inbox in &self.inboxes {
            // A thread that has ended needs no telling.
            drop(inbox.sender.send(Work::Stop));
        }
    }
}

/// The same requests in pieces that each fit a turn.
fn pieces(part: Vec<Submission>) -> Vec<Vec<Submission>> {
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    let mut bytes = 0;
    for submission in part {
        bytes += submission.bytes();
        piece.push(submission);
        if bytes >= TURN_BYTES_MAX {
            pieces.push(std::mem::take(&mut piece));
            bytes = 0;
        }
    }
    pieces.push(piece);
    pieces
}

/// The requests that a failed send hands back.
fn unsent_requests(error: Option<std::sync::mpsc::SendError<Work>>) -> Option<Vec<Submission>> {
    match error?.0 {
        Work::Requests(part) => Some(part),
        Work::Peer { .. } | Work::Catalog(_) | Work::Disk { .. } | Work::Stop => None,
    }
}
