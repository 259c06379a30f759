//! Changes of a shard that no effect tells of, by their number: what a watcher is shown beside the outbox.

use bytes::Bytes;
use meridian_causal::Dot;
use serde::{Deserialize, Serialize};

use super::{Kind, Place, at, corrupt, prefix, rest};
use crate::error::Error;
use crate::record::{self, Header};

const FORMAT: u8 = 1;

/// `[Change][keyspace][shard][change u64 BE]` to a [`LocalChange`].
pub struct ChangeKey;

/// A version that came to its end here, by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalChange {
    /// The key.
    pub key: Bytes,
    /// The dot of the tombstone that stands for the version now.
    pub dot: Dot,
}

impl ChangeKey {
    /// The stored key.
    pub fn encode(place: Place, change: u64) -> Vec<u8> {
        let mut key = prefix(Kind::Change, place, 8);
        key.extend_from_slice(&change.to_be_bytes());
        key
    }

    /// The change's number.
    pub fn number(stored: &[u8]) -> Result<u64, Error> {
        rest(stored)?
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_length| corrupt(stored, "the key has another length than its kind"))
    }

    /// Changes with numbers from `first` to `last`, both included.
    pub fn range(place: Place, first: u64, last: u64) -> (Vec<u8>, Vec<u8>) {
        let to = super::successor(&Self::encode(place, last));
        (Self::encode(place, first), to)
    }

    /// The record.
    pub fn encode_record(header: Header, change: &LocalChange) -> Bytes {
        record::encode(FORMAT, header, change, 32 + change.key.len())
    }

    /// Reads a record.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<(Header, LocalChange), Error> {
        record::decode(record, FORMAT).map_err(at(stored))
    }
}
