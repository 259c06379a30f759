//! What a group knows of its shard as a whole.

use bytes::Bytes;

use super::raft_log::grouped;
use super::{Kind, at};
use crate::error::Error;
use crate::ids::GroupId;
use crate::record::{self, Header};
use crate::shard::ShardMeta;

/// Before 7, what operations did was stored elsewhere: a shard that does not find it would let retries take effect twice.
const FORMAT: u8 = 7;

/// `[ShardMeta][keyspace][shard][zone u16 BE][epoch u32 BE]` to a [`ShardMeta`].
pub struct ShardMetaKey;

impl ShardMetaKey {
    /// The stored key.
    pub fn encode(group: GroupId) -> Vec<u8> {
        grouped(Kind::ShardMeta, group, 0)
    }

    /// The record; its header is the last entry applied.
    pub fn encode_record(meta: &ShardMeta) -> Bytes {
        record::encode(
            FORMAT,
            Header {
                index: meta.applied,
                hlc: meta.hlc,
            },
            meta,
            256,
        )
    }

    /// Reads a record.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<ShardMeta, Error> {
        record::decode(record, FORMAT)
            .map(|(_, meta)| meta)
            .map_err(at(stored))
    }
}
