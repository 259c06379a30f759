//! What a group knows of its shard as a whole.

use bytes::Bytes;

use super::raft_log::grouped;
use super::{Kind, at};
use crate::error::Error;
use crate::ids::GroupId;
use crate::record::{self, Header};
use crate::shard::ShardMeta;

const FORMAT: u8 = 6;

/// The formats before, with how many of this one's last fields each lacks: numbers that began at zero, a set that began
/// empty, and what was absent. Each is one byte of zero there.
const FORMATS_BEFORE: [(u8, usize); 4] = [(2, 6), (3, 3), (4, 2), (5, 1)];

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
        let before = FORMATS_BEFORE
            .iter()
            .find(|(format, _)| record.first() == Some(format));
        if let Some((format, lacks)) = before {
            let (_, body) = record::open(record, *format).map_err(at(stored))?;
            let mut grown = body.to_vec();
            grown.resize(body.len() + lacks, 0);
            return record::decode_body(&grown).map_err(at(stored));
        }
        record::decode(record, FORMAT)
            .map(|(_, meta)| meta)
            .map_err(at(stored))
    }
}
