//! What cores ask one another for transactions and views, wherever their shards are led.
//!
//! What it is not: no driver sends or sees any of it. Read `coordinator`, `recovery` and `views` for who asks what when.

use bytes::Bytes;
use meridian_causal::{Incarnation, OpId, VersionVector, ZoneId};
use serde::{Deserialize, Serialize};

use crate::ids::{KeyspaceId, NodeId, ShardId};
use crate::keys::MirrorPointer;
use crate::levels::Held;
use crate::mirror::{Cut, MirrorPage, Order, PartReport, ZoneReport};
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
    /// To a node: what its zone holds of a key, in a keyspace whose zones go by one log.
    Held {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The shard.
        shard: ShardId,
        /// The key.
        key: Bytes,
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
    /// From the holder of a mirror zone: what the zone shows; what is the newest cut? To the leader of the first shard.
    MirrorCut {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The zone that asks.
        zone: ZoneId,
        /// What it shows and receives.
        report: ZoneReport,
    },
    /// To the node that holds a shard's part of a cut.
    MirrorFetch(MirrorFetch),
    /// From the holder of a mirror zone to the node that mirrors a shard.
    MirrorReceive {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The shard.
        shard: ShardId,
        /// What is to be received.
        order: Option<Order>,
        /// The generation that the zone shows.
        pointed: u64,
    },
    /// Inside a mirror zone: what does the holder show?
    MirrorPointer {
        /// The keyspace.
        keyspace: KeyspaceId,
    },
}

/// Asks for a page of what changed in a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MirrorFetch {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The shard.
    pub shard: ShardId,
    /// The cut.
    pub view: u64,
    /// The zone that asks.
    pub zone: ZoneId,
    /// The log and the index of the generation that it has; `None`: nothing.
    pub since: Option<(Incarnation, u64)>,
    /// First key.
    pub from: Bytes,
    /// Of a zone that has no generation yet, but something of the keyspace before: ranges from `from` on, each by its end
    /// (exclusive; empty: the end of the shard) and the hash of what the zone has in it.
    pub known: Vec<(Bytes, u128)>,
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
    /// What a replica holds of a key.
    Held(Box<Held>),
    /// The newest cut that the zone does not show, and how old it is in milliseconds.
    MirrorCut {
        /// Both, if there is one.
        offer: Option<(Cut, u64)>,
    },
    /// A page of a shard.
    MirrorPage(Box<MirrorPage>),
    /// Something is prepared in the shard and not resolved: come again.
    MirrorWait,
    /// How far a shard's mirror is.
    MirrorPart(PartReport),
    /// What the zone shows, and how old it is at most, in milliseconds, if that is known.
    MirrorPointed(Option<(MirrorPointer, Option<u64>)>),
}

impl InnerRequest {
    /// Whether it is a step towards the end of a transaction whose parts are prepared.
    pub const fn ends_transaction(&self) -> bool {
        matches!(self, Self::Resolve { .. } | Self::Inquire { .. })
    }

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
            | Self::Held {
                keyspace, shard, ..
            }
            | Self::ViewDrop {
                keyspace, shard, ..
            }
            | Self::MirrorReceive {
                keyspace, shard, ..
            } => (*keyspace, *shard),
            Self::MirrorFetch(fetch) => fetch.place(),
            Self::MirrorCut { keyspace, .. } | Self::MirrorPointer { keyspace } => {
                (*keyspace, ShardId(0))
            }
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
