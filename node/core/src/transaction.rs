//! What a transaction asks and is answered: the core's own words for it.
//!
//! A transaction is a list of comparisons and two lists of actions: if all comparisons hold, the first list is done,
//! otherwise the second, as one, at one point in time. An interactive transaction is the same with the reads it made as
//! comparisons and an empty second list.
//!
//! What it is not: it reads nothing and decides nothing. `shard::transact` does, in apply; `coordinator` brings shards
//! together. Read `docs/transactions.md`.

use bytes::Bytes;
use meridian_causal::{CausalContext, Content, Dot, OpId, SiblingSet, ZoneId};
use serde::{Deserialize, Serialize};

use crate::command::WriteIntent;
use crate::ids::{KeyspaceId, NodeId, ShardId};

/// Names one attempt to bring a transaction about; a retry of the same operation is another attempt.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct TransactionId(pub u128);

/// A transaction as a client sends it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transaction {
    /// The keyspace of all its keys.
    pub keyspace: KeyspaceId,
    /// Makes retries take effect once.
    pub op_id: OpId,
    /// What must hold.
    pub compare: Vec<Compare>,
    /// What is done when it does.
    pub then: Vec<Action>,
    /// What is done when it does not. Empty: the transaction is refused with `CONFLICT`.
    pub otherwise: Vec<Action>,
}

/// Identifies the state of one key as it was read: the log index of its last change in its group, `None` when it has no
/// record.
pub type Stamp = Option<u64>;

/// Something that must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// The key is as it was when it was read.
    Unchanged {
        /// The key.
        key: Bytes,
        /// What the read said.
        stamp: Stamp,
    },
    /// The keys of a range of one shard are those that were read, and as they were.
    RangeUnchanged {
        /// The shard.
        shard: ShardId,
        /// First key.
        from: Bytes,
        /// End, exclusive; empty: to the end of the shard.
        to: Bytes,
        /// What the read said: a hash over keys and stamps.
        stamp: u128,
    },
    /// The key has no live version.
    Absent {
        /// The key.
        key: Bytes,
    },
    /// The key has a live version.
    Exists {
        /// The key.
        key: Bytes,
    },
    /// The key holds exactly one version, with this value.
    Value {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// The context covers every sibling of the key.
    Context {
        /// The key.
        key: Bytes,
        /// The context.
        context: CausalContext,
    },
}

/// Something to be done to one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Reads it. It shows the state before the transaction's own writes.
    Get {
        /// The key.
        key: Bytes,
    },
    /// Writes it. A key is written at most once in a list.
    Write {
        /// The key.
        key: Bytes,
        /// The value, or a tombstone.
        content: Content,
        /// What it replaces. A condition counts as a comparison of the list's own: when it does not hold, the
        /// transaction is refused.
        intent: WriteIntent,
        /// Absolute wall-clock milliseconds at which the version expires.
        expires_at_ms: Option<u64>,
    },
}

/// The answer to a transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transacted {
    /// All comparisons held: `then` was done. Otherwise `otherwise` was.
    pub succeeded: bool,
    /// One per action of the list that was done, in its order. Empty when `repeated`.
    pub results: Vec<ActionResult>,
    /// Shards it took part in.
    pub parts: u16,
    /// The zones that hold it durably.
    pub zones: Vec<ZoneId>,
    /// The op id it was sent with.
    pub op_id: OpId,
    /// An earlier attempt with the same op id had already taken effect; what it read is no longer known.
    pub repeated: bool,
    /// `ack = all` was relaxed to a majority when this was said: zones are missing.
    pub degraded: bool,
}

/// What one action did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ActionResult {
    /// What was read.
    Got(SiblingSet),
    /// It was written. The dot and the context to go on with are known where the decision was taken; in other shards
    /// the write is certain and gets its dot a moment later.
    Written(Option<(Dot, CausalContext)>),
}

/// Where a consistent view of a keyspace is held open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenView {
    /// Names the view.
    pub id: u64,
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// Per shard, the node that holds it.
    pub pins: Vec<NodeId>,
}

impl Compare {
    /// The key, unless a range is compared.
    pub const fn key(&self) -> Option<&Bytes> {
        match self {
            Self::Unchanged { key, .. }
            | Self::Absent { key }
            | Self::Exists { key }
            | Self::Value { key, .. }
            | Self::Context { key, .. } => Some(key),
            Self::RangeUnchanged { .. } => None,
        }
    }
}

impl Action {
    /// The key.
    pub const fn key(&self) -> &Bytes {
        match self {
            Self::Get { key } | Self::Write { key, .. } => key,
        }
    }

    /// Whether it changes anything.
    pub const fn is_write(&self) -> bool {
        match self {
            Self::Write { .. } => true,
            Self::Get { .. } => false,
        }
    }
}

impl Transaction {
    /// The shard whose group decides: that of the first key written, else of the first thing compared or read.
    pub fn anchor(&self, shard_of: impl Fn(&[u8]) -> ShardId) -> ShardId {
        let actions = || self.then.iter().chain(&self.otherwise);
        if let Some(write) = actions().find(|action| action.is_write()) {
            return shard_of(write.key());
        }
        let compared = self.compare.first().map(|compare| match compare {
            Compare::RangeUnchanged { shard, .. } => *shard,
            Compare::Unchanged { key, .. }
            | Compare::Absent { key }
            | Compare::Exists { key }
            | Compare::Value { key, .. }
            | Compare::Context { key, .. } => shard_of(key),
        });
        compared
            .or_else(|| actions().next().map(|action| shard_of(action.key())))
            .unwrap_or_default()
    }
}
