//! Effects kept for other zones, by dot.
//!
//! A record knows how many bytes of its incarnation were ever put into the outbox up to and with it; so the bytes
//! between two counters are a difference of two records, and no scan.

use bytes::Bytes;
use meridian_causal::{Dot, Incarnation};

use super::tombstone::{dotted, dotted_range, read_dot};
use super::{Kind, Place, at};
use crate::command::Effect;
use crate::error::Error;
use crate::record::{self, Header, RecordError};

const FORMAT: u8 = 1;

/// `[Outbox][keyspace][shard][incarnation u64 BE][counter u64 BE]` to an [`OutboxRecord`].
pub struct OutboxKey;

/// An effect and its place in the byte count of its incarnation: `[bytes through it u64 BE][effect]`.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxRecord {
    /// Bytes of effects of this incarnation before this one, since the group was founded.
    pub bytes_before: u64,
    /// Bytes of effects up to and with this one.
    pub bytes_through: u64,
    /// The effect.
    pub effect: Effect,
}

impl OutboxKey {
    /// The stored key.
    pub fn encode(place: Place, dot: Dot) -> Vec<u8> {
        dotted(Kind::Outbox, place, dot)
    }

    /// The effect's dot.
    pub fn dot(stored: &[u8]) -> Result<Dot, Error> {
        read_dot(stored)
    }

    /// Effects of `incarnation` from counter `first` to `last`, both included.
    pub fn range(
        place: Place,
        incarnation: Incarnation,
        first: u64,
        last: u64,
    ) -> (Vec<u8>, Vec<u8>) {
        dotted_range(Kind::Outbox, place, incarnation, (first, last))
    }

    /// The record, and the bytes through it.
    pub fn encode_record(header: Header, bytes_before: u64, effect: &Effect) -> (Bytes, u64) {
        let value_bytes = effect.content.value().map_or(0, Bytes::len);
        let mut record = record::begin(FORMAT, header, 96 + effect.key.len() + value_bytes);
        let place = record.len();
        record.extend_from_slice(&[0; 8]);
        let mut record = record::append(record, effect);
        let bytes = u64::try_from(record.len() - place - 8).unwrap_or(u64::MAX);
        let bytes_through = bytes_before.saturating_add(bytes);
        assert!(
            bytes_through < u64::MAX,
            "an incarnation ships less than 2^64 bytes"
        );
        if let Some(through) = record.get_mut(place..place + 8) {
            through.copy_from_slice(&bytes_through.to_be_bytes());
        }
        (Bytes::from(record), bytes_through)
    }

    /// Reads a record.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<OutboxRecord, Error> {
        let (bytes_before, bytes_through, body) = Self::bytes(stored, record)?;
        let effect = record::decode_body(body).map_err(at(stored))?;
        Ok(OutboxRecord {
            bytes_before,
            bytes_through,
            effect,
        })
    }

    /// Bytes before the effect of a record, through it, and the effect unread.
    pub fn bytes<'r>(stored: &[u8], record: &'r [u8]) -> Result<(u64, u64, &'r [u8]), Error> {
        let (_, body) = record::open(record, FORMAT).map_err(at(stored))?;
        let truncated = RecordError::Truncated { len: record.len() };
        let (through, effect) = body
            .split_first_chunk()
            .ok_or(truncated)
            .map_err(at(stored))?;
        let bytes_through = u64::from_be_bytes(*through);
        let before = u64::try_from(effect.len())
            .ok()
            .and_then(|len| bytes_through.checked_sub(len));
        let bytes_before =
            before.ok_or_else(|| at(stored)(RecordError::body("bytes do not add up")))?;
        Ok((bytes_before, bytes_through, effect))
    }
}
