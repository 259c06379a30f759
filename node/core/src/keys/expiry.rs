//! Which keys hold versions that expire, by time: what a leader walks to find those that are due.

use bytes::Bytes;

use super::{Kind, Place, corrupt, prefix, rest};
use crate::error::Error;
use crate::record::{self, Header};

const FORMAT: u8 = 1;

/// `[Expiry][keyspace][shard][milliseconds u64 BE][key]` to an empty body, present while the key has a live version that
/// expires then.
pub struct ExpiryKey;

impl ExpiryKey {
    /// The stored key.
    pub fn encode(place: Place, expires_at_ms: u64, user_key: &[u8]) -> Vec<u8> {
        let mut stored = prefix(Kind::Expiry, place, user_key.len().saturating_add(8));
        stored.extend_from_slice(&expires_at_ms.to_be_bytes());
        stored.extend_from_slice(user_key);
        stored
    }

    /// The time and the key.
    pub fn parts(stored: &[u8]) -> Result<(u64, &[u8]), Error> {
        rest(stored)?
            .split_first_chunk()
            .map(|(at, user_key)| (u64::from_be_bytes(*at), user_key))
            .ok_or_else(|| corrupt(stored, "the key is truncated"))
    }

    /// Everything that expires up to `now_ms`.
    pub fn due(place: Place, now_ms: u64) -> (Vec<u8>, Vec<u8>) {
        let from = Self::encode(place, 0, &[]);
        let to = Self::encode(place, now_ms.saturating_add(1), &[]);
        (from, to)
    }

    /// The record.
    pub fn encode_record(header: Header) -> Bytes {
        Bytes::from(record::begin(FORMAT, header, 0))
    }
}
