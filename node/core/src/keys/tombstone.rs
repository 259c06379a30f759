//! Tombstones of keys that hold nothing else, by dot: what a search for droppable ones walks, oldest first.

use bytes::Bytes;
use meridian_causal::{Dot, Incarnation};

use super::{Kind, Place, at, corrupt, prefix, rest};
use crate::error::Error;
use crate::record::{self, Header};

const FORMAT: u8 = 1;

/// `[Tombstone][keyspace][shard][incarnation u64 BE][counter u64 BE]` to the key.
pub struct TombstoneKey;

impl TombstoneKey {
    /// The stored key.
    pub fn encode(place: Place, dot: Dot) -> Vec<u8> {
        dotted(Kind::Tombstone, place, dot)
    }

    /// The dot.
    pub fn dot(stored: &[u8]) -> Result<Dot, Error> {
        read_dot(stored)
    }

    /// Tombstones of `incarnation` with counters up to `through`.
    pub fn through(place: Place, incarnation: Incarnation, through: u64) -> (Vec<u8>, Vec<u8>) {
        dotted_range(Kind::Tombstone, place, incarnation, (0, through))
    }

    /// The record.
    pub fn encode_record(header: Header, user_key: &[u8]) -> Bytes {
        let mut record = record::begin(FORMAT, header, user_key.len());
        record.extend_from_slice(user_key);
        Bytes::from(record)
    }

    /// The key that holds the tombstone.
    pub fn decode_record<'r>(stored: &[u8], record: &'r [u8]) -> Result<&'r [u8], Error> {
        record::open(record, FORMAT)
            .map(|(_, user_key)| user_key)
            .map_err(at(stored))
    }
}

/// A key whose rest is a dot.
pub(super) fn dotted(kind: Kind, place: Place, dot: Dot) -> Vec<u8> {
    let mut key = prefix(kind, place, 16);
    key.extend_from_slice(&dot.incarnation.raw().to_be_bytes());
    key.extend_from_slice(&dot.counter.to_be_bytes());
    key
}

/// The dot of such a key.
pub(super) fn read_dot(stored: &[u8]) -> Result<Dot, Error> {
    let raw = u128::from_be_bytes(read_sixteen(stored)?);
    let [incarnation, counter] =
        [raw >> 64, raw & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or(0));
    Ok(Dot::new(Incarnation::from_raw(incarnation), counter))
}

/// The rest of a key, which is sixteen bytes.
pub(super) fn read_sixteen(stored: &[u8]) -> Result<[u8; 16], Error> {
    rest(stored)?
        .try_into()
        .map_err(|_length| corrupt(stored, "the key has another length than its kind"))
}

/// Such keys of `incarnation` with counters in `[first, last]`.
pub(super) fn dotted_range(
    kind: Kind,
    place: Place,
    incarnation: Incarnation,
    (first, last): (u64, u64),
) -> (Vec<u8>, Vec<u8>) {
    let from = dotted(kind, place, Dot::new(incarnation, first));
    let to = super::successor(&dotted(kind, place, Dot::new(incarnation, last)));
    (from, to)
}
