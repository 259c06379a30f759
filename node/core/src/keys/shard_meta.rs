//! What a group knows of its shard as a whole.

use bytes::Bytes;

use super::raft_log::grouped;
use super::{Kind, at};
use crate::error::Error;
use crate::ids::GroupId;
use crate::record::{self, Header};
use crate::shard::ShardMeta;

const FORMAT: u8 = 3;

/// The format before: it ends where this one's last fields, numbers that began at zero, follow.
const FORMAT_BEFORE: u8 = 2;
const ADDED_FIELDS: usize = 3;

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
        if record.first() == Some(&FORMAT_BEFORE) {
            let (_, body) = record::open(record, FORMAT_BEFORE).map_err(at(stored))?;
            let mut grown = body.to_vec();
            grown.resize(body.len() + ADDED_FIELDS, 0);
            return record::decode_body(&grown).map_err(at(stored));
        }
        record::decode(record, FORMAT)
            .map(|(_, meta)| meta)
            .map_err(at(stored))
    }
}
