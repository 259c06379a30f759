//! Keys to which writes of a deposed home zone came back.

use bytes::Bytes;
use meridian_causal::Dot;
use serde::{Deserialize, Serialize};

use super::{Kind, Place, at, key, prefix, rest};
use crate::error::Error;
use crate::record::{self, Header};
use meridian_storage::prefix_end;

const FORMAT: u8 = 1;

/// `[Returned][keyspace][shard][key]` to the writes that came back to the key, oldest first; the record of the empty key, which
/// no client has, counts all.
pub struct ReturnedKey;

/// What has come back to a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnedCounts {
    /// Writes, those included that the deposed home zone had replaced itself before they came.
    pub writes: u64,
    /// Versions that came.
    pub versions: u64,
    /// Keys in the list.
    pub keys: u64,
}

/// A write that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnedWrite {
    /// Its dot.
    pub dot: Dot,
    /// What it was when it came.
    pub became: Became,
}

/// What a write that came back became.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Became {
    /// The only version: the new home zone had not changed the key.
    Newest,
    /// One sibling of several.
    Sibling,
    /// Nothing that shows: it deleted the key, or had been replaced by a write that was here already.
    Unseen,
}

impl ReturnedKey {
    /// The stored key.
    pub fn encode(place: Place, user_key: &[u8]) -> Vec<u8> {
        key(Kind::Returned, place, user_key)
    }

    /// The key a client knows.
    pub fn user_key(stored: &[u8]) -> Result<&[u8], Error> {
        rest(stored)
    }

    /// The end of those of a shard.
    pub fn end(place: Place) -> Vec<u8> {
        prefix_end(&prefix(Kind::Returned, place, 0))
    }

    /// The stored key of the counts.
    pub fn counts(place: Place) -> Vec<u8> {
        Self::encode(place, &[])
    }

    /// The record of the counts.
    pub fn encode_counts(header: Header, counts: ReturnedCounts) -> Bytes {
        record::encode(FORMAT, header, &counts, 16)
    }

    /// Reads the record of the counts.
    pub fn decode_counts(stored: &[u8], record: &[u8]) -> Result<ReturnedCounts, Error> {
        record::decode(record, FORMAT)
            .map(|(_, counts)| counts)
            .map_err(at(stored))
    }

    /// The record.
    pub fn encode_record(header: Header, writes: &[ReturnedWrite]) -> Bytes {
        record::encode(FORMAT, header, &writes, 64)
    }

    /// Reads a record.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<Vec<ReturnedWrite>, Error> {
        record::decode(record, FORMAT)
            .map(|(_, writes)| writes)
            .map_err(at(stored))
    }
}

#[cfg(test)]
mod tests {
    use meridian_causal::Incarnation;

    use super::*;
    use crate::ids::{KeyspaceId, ShardId};

    #[test]
    fn a_list_reads_back_under_its_key_and_damage_is_found() {
        let place = Place {
            keyspace: KeyspaceId(3),
            shard: ShardId(1),
        };
        let writes =
            [Became::Newest, Became::Sibling, Became::Unseen].map(|became| ReturnedWrite {
                dot: Dot::new(Incarnation::from_raw(9), 4),
                became,
            });
        let stored = ReturnedKey::encode(place, b"k");
        let record = ReturnedKey::encode_record(Header::default(), &writes);
        assert_eq!(ReturnedKey::user_key(&stored).unwrap(), b"k");
        assert_eq!(
            ReturnedKey::decode_record(&stored, &record),
            Ok(writes.to_vec())
        );
        assert!(ReturnedKey::decode_record(&stored, &record[..record.len() - 1]).is_err());
        assert!(stored < ReturnedKey::end(place));
        let counts = ReturnedCounts {
            writes: 3,
            versions: 2,
            keys: 1,
        };
        let counted = ReturnedKey::counts(place);
        let record = ReturnedKey::encode_counts(Header::default(), counts);
        assert_eq!(ReturnedKey::decode_counts(&counted, &record), Ok(counts));
        assert!(ReturnedKey::decode_counts(&counted, b"").is_err());
        assert!(counted < stored);
    }
}
