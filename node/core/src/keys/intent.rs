//! Prepared parts of transactions: present from the entry that prepares until the one that resolves.

use bytes::Bytes;

use super::tombstone::read_sixteen;
use super::{Kind, Place, at, key, range};
use crate::error::Error;
use crate::record::{self, Header};
use crate::transaction::TransactionId;
use crate::two_phase::Intent;

const FORMAT: u8 = 1;

/// `[Intent][keyspace][shard][transaction u128 BE]` to an [`Intent`].
pub struct IntentKey;

impl IntentKey {
    /// The stored key.
    pub fn encode(place: Place, id: TransactionId) -> Vec<u8> {
        key(Kind::Intent, place, &id.0.to_be_bytes())
    }

    /// All intents of a shard.
    pub fn all(place: Place) -> (Vec<u8>, Vec<u8>) {
        range(Kind::Intent, place)
    }

    /// The transaction.
    pub fn id(stored: &[u8]) -> Result<TransactionId, Error> {
        read_sixteen(stored).map(|id| TransactionId(u128::from_be_bytes(id)))
    }

    /// The record.
    pub fn encode_record(header: Header, intent: &Intent) -> Bytes {
        record::encode(FORMAT, header, intent, intent.encoded_bytes())
    }

    /// Reads a record.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<(Header, Intent), Error> {
        record::decode(record, FORMAT).map_err(at(stored))
    }
}
