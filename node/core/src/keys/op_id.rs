//! What a remembered operation did: how a retry takes effect once.

use bytes::Bytes;
use meridian_causal::{CausalContext, Dot};
use serde::{Deserialize, Serialize};

use super::tombstone::read_sixteen;
use super::{Kind, Place, at, key};
use crate::error::Error;
use crate::record::{self, Header};

const FORMAT: u8 = 1;

/// `[OpId][keyspace][shard][id u128 BE]` to an [`OpIdRecord`]. The record's header names the log entry that entered it.
pub struct OpIdKey;

/// What a remembered operation did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpIdRecord {
    /// The dot it got.
    pub dot: Dot,
    /// The context its writer may go on with.
    pub context: CausalContext,
    /// Hash of the key it wrote.
    pub key_hash: u64,
    /// When the zone issued the op id.
    pub stamp_ms: u64,
}

impl OpIdKey {
    /// The stored key.
    pub fn encode(place: Place, id: u128) -> Vec<u8> {
        key(Kind::OpId, place, &id.to_be_bytes())
    }

    /// The op id without its stamp.
    pub fn id(stored: &[u8]) -> Result<u128, Error> {
        read_sixteen(stored).map(u128::from_be_bytes)
    }

    /// All from an op id on.
    pub fn range(place: Place, from: u128) -> (Vec<u8>, Vec<u8>) {
        let last = Self::encode(place, u128::MAX);
        (Self::encode(place, from), super::successor(&last))
    }

    /// The record.
    pub fn encode_record(header: Header, operation: &OpIdRecord) -> Bytes {
        record::encode(FORMAT, header, operation, 64)
    }

    /// Reads a record.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<(Header, OpIdRecord), Error> {
        record::decode(record, FORMAT).map_err(at(stored))
    }
}
