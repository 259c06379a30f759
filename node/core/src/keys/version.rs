//! What a key holds: the key to its sibling set.

use bytes::Bytes;
use meridian_causal::SiblingSet;
use meridian_storage::prefix_end;

use super::{Kind, Place, at, key, prefix, rest};
use crate::error::Error;
use crate::record::{self, Header, RecordError};

const FORMAT: u8 = 1;

/// `[Version][keyspace][shard][key]` to the set's canonical bytes.
pub struct VersionKey;

impl VersionKey {
    /// The stored key.
    pub fn encode(place: Place, user_key: &[u8]) -> Vec<u8> {
        key(Kind::Version, place, user_key)
    }

    /// The key a client knows.
    pub fn user_key(stored: &[u8]) -> Result<&[u8], Error> {
        rest(stored)
    }

    /// Stored keys of the keys in `[from, to)`; without `to`, to the end of the shard.
    pub fn range(place: Place, from: &[u8], to: Option<&[u8]>) -> (Vec<u8>, Vec<u8>) {
        let end = match to {
            Some(to) => key(Kind::Version, place, to),
            None => prefix_end(&prefix(Kind::Version, place, 0)),
        };
        (key(Kind::Version, place, from), end)
    }

    /// The record.
    pub fn encode_record(header: Header, set: &SiblingSet) -> Bytes {
        let body_bytes: usize = set
            .siblings()
            .iter()
            .map(|s| 48 + s.content.value().map_or(0, Bytes::len))
            .sum();
        let mut record = record::begin(FORMAT, header, 32 + body_bytes);
        set.encode(&mut record);
        Bytes::from(record)
    }

    /// Reads a record; values share its memory.
    pub fn decode_record(stored: &[u8], record: &Bytes) -> Result<(Header, SiblingSet), Error> {
        let (header, body) = record::open(record, FORMAT).map_err(at(stored))?;
        let set = SiblingSet::decode_shared(&record.slice_ref(body))
            .map_err(RecordError::body)
            .map_err(at(stored))?;
        Ok((header, set))
    }

    /// Reads a record that a scan shows; values are copied.
    pub fn decode_visited(stored: &[u8], record: &[u8]) -> Result<(Header, SiblingSet), Error> {
        let (header, body) = record::open(record, FORMAT).map_err(at(stored))?;
        let set = SiblingSet::decode(body)
            .map_err(RecordError::body)
            .map_err(at(stored))?;
        Ok((header, set))
    }

    /// What a record says of its last change.
    pub fn header(stored: &[u8], record: &[u8]) -> Result<Header, Error> {
        record::open(record, FORMAT)
            .map(|(header, _)| header)
            .map_err(at(stored))
    }

    /// The canonical bytes of the set in a record, unread.
    pub fn set_bytes<'r>(stored: &[u8], record: &'r [u8]) -> Result<&'r [u8], Error> {
        record::open(record, FORMAT)
            .map(|(_, body)| body)
            .map_err(at(stored))
    }
}
