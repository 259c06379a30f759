//! What the operations of a log entry did. One record for each entry, in the order of the log: that is the order in which they are
//! forgotten, and writing them side by side is cheap. Which entry an op id stands in, the shard knows (`shard/op_index.rs`).

use bytes::Bytes;

use super::{Kind, OpIdRecord, Place, at, corrupt, key, rest};
use crate::error::Error;
use crate::record::{self, Header, RecordError};

const FORMAT: u8 = 2;

/// Bytes to reserve for an operation: more than one of a few zones takes.
const OPERATION_BYTES: usize = 96;

/// `[OpOrder][keyspace][shard][log index u64 BE]` to an [`OpOrder`].
pub struct OpOrderKey;

/// The operations of one log entry: `[largest stamp u64 BE][number u32 BE]([id u128 BE][bytes u32 BE][operation])*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpOrder {
    /// Largest stamp among them.
    pub stamp_ms_max: u64,
    /// Ids and what they did, in the order they were entered.
    pub operations: Vec<(u128, OpIdRecord)>,
}

/// An [`OpOrder`] as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOpOrder<'r> {
    /// Largest stamp among them.
    pub stamp_ms_max: u64,
    /// Ids and the bytes of what they did.
    pub operations: Vec<(u128, &'r [u8])>,
}

/// What forgetting needs to know of an [`OpOrder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpOrderSummary {
    /// Largest stamp among its operations.
    pub stamp_ms_max: u64,
    /// How many they are.
    pub operations: u32,
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
        let body_bytes = HEAD_BYTES + OPERATION_BYTES * order.operations.len();
        let mut record = record::begin(FORMAT, header, body_bytes);
        record.extend_from_slice(&order.stamp_ms_max.to_be_bytes());
        record.extend_from_slice(&length(order.operations.len()));
        for (id, operation) in &order.operations {
            record.extend_from_slice(&id.to_be_bytes());
            let place = record.len();
            record.extend_from_slice(&[0; LENGTH_BYTES]);
            let begin = record.len();
            record = record::append(record, operation);
            let bytes = length(record.len() - begin);
            if let Some(into) = record.get_mut(place..begin) {
                into.copy_from_slice(&bytes);
            }
        }
        Bytes::from(record)
    }

    /// Reads a record, but for what the operations did.
    pub fn open_record<'r>(
        stored: &[u8],
        record: &'r [u8],
    ) -> Result<(Header, StoredOpOrder<'r>), Error> {
        let (header, body) = record::open(record, FORMAT).map_err(at(stored))?;
        let order = read(body).ok_or_else(|| at(stored)(truncated(record)))?;
        Ok((header, order))
    }

    /// Reads a record.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<(Header, OpOrder), Error> {
        let (header, opened) = Self::open_record(stored, record)?;
        let operations = opened.operations.into_iter().map(|(id, bytes)| {
            let operation = OpIdRecord::decode(bytes).map_err(at(stored))?;
            Ok((id, operation))
        });
        let order = OpOrder {
            stamp_ms_max: opened.stamp_ms_max,
            operations: operations.collect::<Result<_, Error>>()?,
        };
        Ok((header, order))
    }

    /// Reads of a record what forgetting needs.
    pub fn summary(stored: &[u8], record: &[u8]) -> Result<(Header, OpOrderSummary), Error> {
        let (header, body) = record::open(record, FORMAT).map_err(at(stored))?;
        let (summary, _) = head(body).ok_or_else(|| at(stored)(truncated(record)))?;
        Ok((header, summary))
    }
}

const HEAD_BYTES: usize = 8 + LENGTH_BYTES;
const LENGTH_BYTES: usize = 4;

fn length(count: usize) -> [u8; LENGTH_BYTES] {
    u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes()
}

const fn truncated(record: &[u8]) -> RecordError {
    RecordError::Truncated { len: record.len() }
}

fn head(body: &[u8]) -> Option<(OpOrderSummary, &[u8])> {
    let (stamp, rest) = body.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let summary = OpOrderSummary {
        stamp_ms_max: u64::from_be_bytes(*stamp),
        operations: u32::from_be_bytes(*number),
    };
    Some((summary, rest))
}

fn read(body: &[u8]) -> Option<StoredOpOrder<'_>> {
    let (summary, mut rest) = head(body)?;
    let mut operations = Vec::new();
    for _ in 0..summary.operations {
        let (id, after) = rest.split_first_chunk()?;
        let (bytes, after) = after.split_first_chunk()?;
        let bytes = usize::try_from(u32::from_be_bytes(*bytes)).ok()?;
        let (operation, after) = after.split_at_checked(bytes)?;
        operations.push((u128::from_be_bytes(*id), operation));
        rest = after;
    }
    rest.is_empty().then_some(StoredOpOrder {
        stamp_ms_max: summary.stamp_ms_max,
        operations,
    })
}
