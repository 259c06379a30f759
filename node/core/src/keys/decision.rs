//! Transactions over several shards that were decided here and whose parts elsewhere may not know it yet. Only those
//! that took effect: of any other there is no record (presumed abort).

use bytes::Bytes;

use super::tombstone::read_sixteen;
use super::{Kind, Place, at, key, range};
use crate::error::Error;
use crate::record::{self, Header};
use crate::transaction::TransactionId;
use crate::two_phase::Decided;

const FORMAT: u8 = 1;

/// `[Decision][keyspace][shard][transaction u128 BE]` to a [`Decided`]. The record's header names the entry that decided.
pub struct DecisionKey;

impl DecisionKey {
    /// The stored key.
    pub fn encode(place: Place, id: TransactionId) -> Vec<u8> {
        key(Kind::Decision, place, &id.0.to_be_bytes())
    }

    /// All decisions of a shard.
    pub fn all(place: Place) -> (Vec<u8>, Vec<u8>) {
        range(Kind::Decision, place)
    }

    /// The transaction.
    pub fn id(stored: &[u8]) -> Result<TransactionId, Error> {
        read_sixteen(stored).map(|id| TransactionId(u128::from_be_bytes(id)))
    }

    /// The record.
    pub fn encode_record(header: Header, decided: &Decided) -> Bytes {
        record::encode(FORMAT, header, decided, 64)
    }

    /// Reads a record.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<(Header, Decided), Error> {
        record::decode(record, FORMAT).map_err(at(stored))
    }
}
