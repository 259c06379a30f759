//! Which keys are in conflict, so that listing them reads no others.

use bytes::Bytes;
use meridian_storage::prefix_end;

use super::{Kind, Place, key, prefix, rest};
use crate::error::Error;
use crate::record::{self, Header};

const FORMAT: u8 = 1;

/// `[Conflict][keyspace][shard][key]` to an empty body, present while the key is in conflict.
pub struct ConflictKey;

impl ConflictKey {
    /// The stored key.
    pub fn encode(place: Place, user_key: &[u8]) -> Vec<u8> {
        key(Kind::Conflict, place, user_key)
    }

    /// The key a client knows.
    pub fn user_key(stored: &[u8]) -> Result<&[u8], Error> {
        rest(stored)
    }

    /// Stored keys of the keys in `[from, to)`; without `to`, to the end of the shard.
    pub fn range(place: Place, from: &[u8], to: Option<&[u8]>) -> (Vec<u8>, Vec<u8>) {
        let end = match to {
            Some(to) => key(Kind::Conflict, place, to),
            None => prefix_end(&prefix(Kind::Conflict, place, 0)),
        };
        (key(Kind::Conflict, place, from), end)
    }

    /// The record.
    pub fn encode_record(header: Header) -> Bytes {
        Bytes::from(record::begin(FORMAT, header, 0))
    }
}
