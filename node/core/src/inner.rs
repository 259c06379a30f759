//! What cores ask one another for transactions and views, wherever their shards are led.
//!
//! What it is not: no driver sends or sees any of it. Read `coordinator`, `recovery` and `views` for who asks what when.

use meridian_causal::{OpId, VersionVector, ZoneId};
use serde::{Deserialize, Serialize};

use crate::ids::{KeyspaceId, NodeId, ShardId};
use crate::request::{Read, Request, Response};
use crate::transaction::TransactionId;
use crate::two_phase::{Part, Verdict, Vote};

/// A question of one core to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum InnerRequest {
    /// Prepares a shard's part of a transaction.
    Prepare(Prepare),
    /// Says what became of a transaction.
    Resolve {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The shard that prepared a part.
        shard: ShardId,
        /// The attempt.
        id: TransactionId,
        /// What became of it.
        verdict: Verdict,
    },
    /// Asks the shard that decides what became of a transaction.
    Inquire {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The shard that decides.
        shard: ShardId,
        /// The attempt.
        id: TransactionId,
    },
    /// Takes a shard's part of a view, and holds back what the group would say from now on.
    ViewPin {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The shard.
        shard: ShardId,
        /// The view.
        id: u64,
    },
    /// All parts are taken: what was held back may be said. Answered once it is sure that nobody else led the group.
    ///
    ViewConfirm {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The shard.
        shard: ShardId,
        /// The view.
        id: u64,
        /// Per shard, the node that holds its part and the log index it was taken at.
        pins: Vec<(NodeId, u64)>,
    },
    /// Asks the leader of a shard in its zone what it has received, once it is sure that it leads.
    Measure {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The shard.
        shard: ShardId,
    },
    /// A read in another zone.
    Read {
        /// The shard.
        shard: ShardId,
        /// What is read.
        read: Box<Read>,
    },
    /// A shard's part of a view is no longer needed.
    ViewDrop {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The shard.
        shard: ShardId,
        /// The view.
        id: u64,
    },
}

/// A shard's part of a transaction that another shard decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prepare {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The shard.
    pub shard: ShardId,
    /// The attempt.
    pub id: TransactionId,
    /// Of the transaction.
    pub op_id: OpId,
    /// The shard that decides.
    pub anchor: ShardId,
    /// Shards that take part.
    pub parts: u16,
    /// What is asked of this shard.
    pub part: Part,
    /// The transaction has nothing to do when a comparison does not hold.
    pub refuse: bool,
}

/// The answer to an [`InnerRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum InnerResponse {
    /// A part of a transaction is prepared.
    Voted(Vote),
    /// A part of a transaction is resolved.
    Resolved,
    /// What became of a transaction; `None` while it is not decided.
    Inquired(Option<Verdict>),
    /// A shard's part of a view is taken at this log index.
    ViewPinned {
        /// The index.
        index: u64,
    },
    /// The shard was led by the same leader all the while.
    ViewConfirmed,
    /// What a leader has, after it was sure to lead.
    Measured {
        /// The last entry of its log that it has applied.
        index: u64,
        /// What it has received.
        received: VersionVector,
        /// How old its data is as to each other zone it knows that of, in milliseconds.
        ages: Vec<(ZoneId, u64)>,
    },
}

impl InnerRequest {
    /// The keyspace and shard it is about.
    pub fn place(&self) -> (KeyspaceId, ShardId) {
        match self {
            Self::Prepare(prepare) => (prepare.keyspace, prepare.shard),
            Self::Read { shard, read } => (read.keyspace, *shard),
            Self::Resolve {
                keyspace, shard, ..
            }
            | Self::Inquire {
                keyspace, shard, ..
            }
            | Self::ViewPin {
                keyspace, shard, ..
            }
            | Self::ViewConfirm {
                keyspace, shard, ..
            }
            | Self::Measure { keyspace, shard }
            | Self::ViewDrop {
                keyspace, shard, ..
            } => (*keyspace, *shard),
        }
    }
}

impl From<InnerRequest> for Request {
    fn from(inner: InnerRequest) -> Self {
        Self::Inner(Box::new(inner))
    }
}

impl From<InnerResponse> for Response {
    fn from(inner: InnerResponse) -> Self {
        Self::Inner(Box::new(inner))
    }
}
