//! Which op ids a log entry entered: the order in which they are forgotten.

use bytes::Bytes;

use super::{Kind, Place, at, corrupt, key, rest};
use crate::error::Error;
use crate::record::{self, Header, RecordError};

const FORMAT: u8 = 1;

/// `[OpOrder][keyspace][shard][log index u64 BE]` to an [`OpOrder`].
pub struct OpOrderKey;

/// The op ids of one log entry: `[largest stamp u64 BE]([id u128 BE])*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpOrder {
    /// Largest stamp among them.
    pub stamp_ms_max: u64,
    /// The ids, in the order they were entered.
    pub ids: Vec<u128>,
}

impl OpOrderKey {
    /// The stored key.
    pub fn encode(place: Place, index: u64) -> Vec<u8> {
        key(Kind::OpOrder, place, &index.to_be_bytes())
    }

    /// The log index.
    pub fn index(stored: &[u8]) -> Result<u64, Error> {
        let bytes = rest(stored)?
            .try_into()
            .map_err(|_length| corrupt(stored, "the key is not a log index"))?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// Entries from log index `first` to `last`, both included.
    pub fn range(place: Place, first: u64, last: u64) -> (Vec<u8>, Vec<u8>) {
        (
            Self::encode(place, first),
            super::successor(&Self::encode(place, last)),
        )
    }

    /// The record.
    pub fn encode_record(header: Header, order: &OpOrder) -> Bytes {
        let mut record = record::begin(FORMAT, header, 8 + 16 * order.ids.len());
        record.extend_from_slice(&order.stamp_ms_max.to_be_bytes());
        for id in &order.ids {
            record.extend_from_slice(&id.to_be_bytes());
        }
        Bytes::from(record)
    }

    /// Reads a record.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<(Header, OpOrder), Error> {
        let (header, body) = record::open(record, FORMAT).map_err(at(stored))?;
        let order =
            read(body).ok_or_else(|| at(stored)(RecordError::Truncated { len: record.len() }))?;
        Ok((header, order))
    }
}

fn read(body: &[u8]) -> Option<OpOrder> {
    let (stamp, ids) = body.split_first_chunk()?;
    let (ids, []) = ids.as_chunks() else {
        return None;
    };
    let ids = ids.iter().map(|id| u128::from_be_bytes(*id)).collect();
    Some(OpOrder {
        stamp_ms_max: u64::from_be_bytes(*stamp),
        ids,
    })
}
