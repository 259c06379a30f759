//! Keys of Raft logs and of what Raft must not forget. The values are the groups' own.

use super::{Kind, Place, corrupt, prefix, rest};
use crate::error::Error;
use crate::ids::GroupId;

/// Bytes of zone and epoch.
const GROUP_BYTES: usize = 2 + 4;

/// A key whose rest begins with zone and epoch, with room for `more_bytes`.
pub(super) fn grouped(kind: Kind, group: GroupId, more_bytes: usize) -> Vec<u8> {
    let mut key = prefix(kind, Place::from(group), GROUP_BYTES + more_bytes);
    key.extend_from_slice(&group.zone.0.to_be_bytes());
    key.extend_from_slice(&group.epoch.to_be_bytes());
    key
}

/// `[RaftEntry][keyspace][shard][zone u16 BE][epoch u32 BE][index u64 BE]` to an entry of the log.
pub struct RaftEntryKey;

impl RaftEntryKey {
    /// The stored key.
    pub fn encode(group: GroupId, index: u64) -> Vec<u8> {
        let mut key = grouped(Kind::RaftEntry, group, 8);
        key.extend_from_slice(&index.to_be_bytes());
        key
    }

    /// The index.
    pub fn index(stored: &[u8]) -> Result<u64, Error> {
        let index = rest(stored)?
            .get(GROUP_BYTES..)
            .and_then(|index| index.try_into().ok());
        index
            .map(u64::from_be_bytes)
            .ok_or_else(|| corrupt(stored, "the key is not a log index"))
    }

    /// Entries with indexes in `[first, end)`.
    pub fn range(group: GroupId, first: u64, end: u64) -> (Vec<u8>, Vec<u8>) {
        (Self::encode(group, first), Self::encode(group, end))
    }

    /// All entries of a group.
    pub fn all(group: GroupId) -> (Vec<u8>, Vec<u8>) {
        let from = grouped(Kind::RaftEntry, group, 0);
        let to = meridian_storage::prefix_end(&from);
        (from, to)
    }
}

/// `[RaftState][keyspace][shard][zone u16 BE][epoch u32 BE]` to hard state, configuration and where the log begins.
pub struct RaftStateKey;

impl RaftStateKey {
    /// The stored key.
    pub fn encode(group: GroupId) -> Vec<u8> {
        grouped(Kind::RaftState, group, 0)
    }
}
