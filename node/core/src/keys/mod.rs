//! What stands where on the disk: `[kind u8][keyspace u32 BE][shard u16 BE][rest]`, one file per kind.
//!
//! Kinds below 0x80 are lasting state, the others live in the engine's log family: written once, read seldom, deleted
//! soon. A node stands in one zone, so a shard has one group on it at a time, and state needs no zone in its key;
//! records that name a group do.
//!
//! Invariants:
//! * a number of [`Kind`] is never used for anything else;
//! * every value begins with the frame of [`crate::record`], except those of [`raft_log`], which the groups frame
//!   themselves;
//! * keys of a kind and shard are adjacent, and sort as their rest does.

mod catalog;
mod change;
mod conflict;
mod decision;
mod expiry;
mod identity;
mod intent;
mod lease;
pub(crate) mod mirror;
mod op_id;
mod op_order;
mod outbox;
mod peer_stores;
mod returned;
mod shard_meta;
mod tombstone;
mod version;

pub mod raft_log;

pub use catalog::CatalogKey;
pub use change::{ChangeKey, LocalChange};
pub use conflict::ConflictKey;
pub use decision::DecisionKey;
pub use expiry::ExpiryKey;
pub use identity::{NodeIdentity, NodeIdentityKey};
pub use intent::IntentKey;
pub use lease::{LeaseKey, LeaseRecord, LeasedKey};
pub use mirror::{
    HeldGeneration, MirrorChangeKey, MirrorPart, MirrorPartKey, MirrorPointer, MirrorPointerKey,
    MirrorVersionKey, PartialGeneration, mirror_ranges,
};
pub use op_id::OpIdRecord;
pub use op_order::{OpOrder, OpOrderKey, OpOrderSummary, StoredOpOrder};
pub use outbox::{OutboxFrame, OutboxKey, OutboxRecord};
pub use peer_stores::PeerStoreKey;
pub use returned::{Became, ReturnedCounts, ReturnedKey, ReturnedWrite};
pub use shard_meta::ShardMetaKey;
pub use tombstone::TombstoneKey;
pub use version::VersionKey;

use meridian_storage::prefix_end;

use crate::error::Error;
use crate::ids::{GroupId, KeyspaceId, ShardId};
use crate::record::RecordError;

/// What a record is. The numbers are on disk for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A key's sibling set: rest is the key.
    Version = 0x01,
    /// The key is in conflict: rest is the key.
    Conflict = 0x02,
    /// A tombstone of a key that holds nothing else: rest is its dot, the value names the key.
    Tombstone = 0x03,
    /// Reserved: what a remembered operation did, by its id.
    OpId = 0x04,
    /// What the operations of a log entry did: rest is its index.
    OpOrder = 0x05,
    /// What a group knows of its shard: rest is zone and epoch.
    ShardMeta = 0x06,
    /// The catalog, at the control group.
    Catalog = 0x07,
    /// Who this node is.
    NodeIdentity = 0x08,
    /// Stores of other nodes as they were told here: rest is the node.
    PeerStore = 0x09,
    /// Writes of a deposed home zone came back to the key: rest is the key.
    Returned = 0x10,
    /// Reserved: keys by log index of their last change.
    ChangeIndex = 0x11,
    /// A lease that stands: rest is its name.
    Lease = 0x12,
    /// A key holds a version that expires: rest is the time, then the key.
    Expiry = 0x13,
    /// A prepared part of a transaction: rest is its attempt.
    Intent = 0x14,
    /// A transaction decided here: rest is its attempt.
    Decision = 0x15,
    /// A key is attached to a lease: rest is the lease's name and token, then the key.
    LeasedKey = 0x16,
    /// What a mirror holds of a key in a generation: rest is the key, escaped, and the generation, inverted.
    MirrorVersion = 0x20,
    /// How far a shard is mirrored.
    MirrorPart = 0x21,
    /// Which generation of a keyspace is shown.
    MirrorPointer = 0x22,
    /// An effect kept for other zones and for watchers: rest is its dot.
    Outbox = 0x80,
    /// An entry of a Raft log: rest is zone, epoch, index.
    RaftEntry = 0x81,
    /// What Raft must not forget: rest is zone and epoch.
    RaftState = 0x82,
    /// A change that no effect tells of: rest is its number.
    Change = 0x83,
    /// A key that a generation of a mirror changed: rest is the generation, then the key.
    MirrorChange = 0x90,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 24] = [
        Self::Version,
        Self::Conflict,
        Self::Tombstone,
        Self::OpId,
        Self::OpOrder,
        Self::ShardMeta,
        Self::Catalog,
        Self::NodeIdentity,
        Self::PeerStore,
        Self::Returned,
        Self::ChangeIndex,
        Self::Lease,
        Self::Expiry,
        Self::Intent,
        Self::Decision,
        Self::LeasedKey,
        Self::MirrorVersion,
        Self::MirrorPart,
        Self::MirrorPointer,
        Self::Outbox,
        Self::RaftEntry,
        Self::RaftState,
        Self::Change,
        Self::MirrorChange,
    ];

    /// Its number on disk.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The kind with that number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// The shard a key belongs to. The zone is not part of it: see the module's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The shard.
    pub shard: ShardId,
}

impl Place {
    /// Where records of the whole node, and of the control group, stand.
    pub const NODE: Self = Self {
        keyspace: KeyspaceId::CONTROL,
        shard: ShardId(0),
    };
}

impl From<GroupId> for Place {
    fn from(group: GroupId) -> Self {
        Self {
            keyspace: group.keyspace,
            shard: group.shard,
        }
    }
}

/// Bytes of kind, keyspace and shard.
const PREFIX_BYTES: usize = 1 + 4 + 2;

/// Kind, keyspace and shard, with room for `rest_bytes` more.
fn prefix(kind: Kind, place: Place, rest_bytes: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(PREFIX_BYTES + rest_bytes);
    key.push(kind.number());
    key.extend_from_slice(&place.keyspace.0.to_be_bytes());
    key.extend_from_slice(&place.shard.0.to_be_bytes());
    key
}

/// Kind, keyspace, shard and `rest`.
fn key(kind: Kind, place: Place, rest: &[u8]) -> Vec<u8> {
    let mut key = prefix(kind, place, rest.len());
    key.extend_from_slice(rest);
    key
}

/// What follows kind, keyspace and shard.
fn rest(stored: &[u8]) -> Result<&[u8], Error> {
    stored
        .get(PREFIX_BYTES..)
        .ok_or_else(|| corrupt(stored, "the key is truncated"))
}

/// All keys of a kind and shard.
fn range(kind: Kind, place: Place) -> (Vec<u8>, Vec<u8>) {
    let from = prefix(kind, place, 0);
    let to = prefix_end(&from);
    (from, to)
}

/// The key that follows `key` with nothing in between.
pub fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// The kinds of state that belong to a shard and travel in its group image.
const SHARD_STATE: [Kind; 12] = [
    Kind::Version,
    Kind::Conflict,
    Kind::Returned,
    Kind::Tombstone,
    Kind::OpOrder,
    Kind::Intent,
    Kind::Decision,
    Kind::Lease,
    Kind::Expiry,
    Kind::LeasedKey,
    Kind::Outbox,
    Kind::Change,
];

/// The ranges of a group's state, in key order: what a group image carries, and what installing one deletes first. The
/// Raft log and state are not among them.
pub fn group_state_ranges(group: GroupId) -> Vec<(Vec<u8>, Vec<u8>)> {
    if group == GroupId::CONTROL {
        return vec![range(Kind::Catalog, Place::NODE)];
    }
    let meta = ShardMetaKey::encode(group);
    let meta_end = successor(&meta);
    let mut ranges: Vec<_> = SHARD_STATE
        .into_iter()
        .map(|kind| range(kind, group.into()))
        .collect();
    ranges.push((meta, meta_end));
    ranges.sort();
    ranges
}

/// A stored key in words, for errors.
pub fn describe(stored: &[u8]) -> String {
    let Some((&[kind, k0, k1, k2, k3, s0, s1], rest)) = stored.split_first_chunk::<PREFIX_BYTES>()
    else {
        return format!("key \"{}\"", stored.escape_ascii());
    };
    let keyspace = u32::from_be_bytes([k0, k1, k2, k3]);
    let shard = u16::from_be_bytes([s0, s1]);
    let kind =
        Kind::from_number(kind).map_or_else(|| format!("kind {kind}"), |kind| format!("{kind:?}"));
    format!(
        "{kind} \"{}\" of shard {keyspace}/{shard}",
        rest.escape_ascii()
    )
}

/// The error of a record that does not read.
pub fn corrupt(stored: &[u8], reason: impl std::fmt::Display) -> Error {
    Error::Corruption {
        detail: format!("{}: {reason}", describe(stored)),
    }
}

/// Turns a record's error into one that names its key.
fn at(stored: &[u8]) -> impl Fn(RecordError) -> Error + '_ {
    move |error| corrupt(stored, error)
}

#[cfg(test)]
mod tests;
