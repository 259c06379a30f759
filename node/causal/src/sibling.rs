//! One version's record: what a write left on a key.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Dot, Hlc, OpId};

/// What a write says of a key. A tombstone is greater than any value: of two records of one dot, the expired one wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Content {
    /// The key has this value.
    Value(Bytes),
    /// The key is deleted, or its value has expired.
    Tombstone,
}

impl Content {
    /// The value, unless deleted.
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Value(value) => Some(value),
            Self::Tombstone => None,
        }
    }
}

/// Names the transaction a write belongs to, and how many parts to expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransactionTag {
    /// Which transaction.
    pub id: u128,
    /// How many shards take part.
    pub parts: u16,
}

/// One write that no later write has seen.
///
/// The dot decides all other fields, except that [`Content`] turns from a value into a tombstone when a logged expiry
/// says so. The order is that of dots; of two records of one dot the greater one is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sibling {
    /// Which write.
    pub dot: Dot,
    /// What it said.
    pub content: Content,
    /// When, by the clock of the zone that took it.
    pub written_at: Hlc,
    /// From when on a logged expiry may turn it into a tombstone.
    pub expires_at_ms: Option<u64>,
    /// The operation it belongs to; dots of one operation are one version.
    pub op_id: Option<OpId>,
    /// The transaction it belongs to.
    pub transaction: Option<TransactionTag>,
}

impl Sibling {
    /// Whether it is a value.
    pub fn is_live(&self) -> bool {
        self.content.value().is_some()
    }

    /// Whether it was a value once, which a logged expiry has ended.
    pub fn is_expired(&self) -> bool {
        !self.is_live() && self.expires_at_ms.is_some()
    }
}
