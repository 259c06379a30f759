//! Effects kept for other zones and for watchers, by dot.
//!
//! A record knows how many bytes of its incarnation were ever put into the outbox up to and with it; so the bytes
//! between two counters are a difference of two records, and no scan. It also knows which change of its group it was;
//! within an incarnation, change numbers grow with the counter.

use bytes::Bytes;
use meridian_causal::{Dot, Incarnation};

use super::tombstone::{dotted, dotted_range, read_dot};
use super::{Kind, Place, at};
use crate::command::Effect;
use crate::error::Error;
use crate::record::{self, Header, RecordError};

const FORMAT: u8 = 2;

/// The format before: without the change's number.
const FORMAT_BEFORE: u8 = 1;

/// Bytes of a number in a record.
const NUMBER_BYTES: usize = 8;

/// `[Outbox][keyspace][shard][incarnation u64 BE][counter u64 BE]` to an [`OutboxRecord`].
pub struct OutboxKey;

/// An effect and its places, in the byte count of its incarnation and among the changes of its group:
/// `[bytes through it u64 BE][change u64 BE][effect]`.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxRecord {
    /// Bytes of effects of this incarnation before this one, since the group was founded.
    pub bytes_before: u64,
    /// Bytes of effects up to and with this one.
    pub bytes_through: u64,
    /// Its number among the changes of the group; 0 when it was written before changes were numbered.
    pub change: u64,
    /// The effect.
    pub effect: Effect,
}

/// A record whose effect is not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxFrame<'r> {
    /// See [`OutboxRecord::bytes_before`].
    pub bytes_before: u64,
    /// See [`OutboxRecord::bytes_through`].
    pub bytes_through: u64,
    /// See [`OutboxRecord::change`].
    pub change: u64,
    /// The effect, as it is stored.
    pub effect: &'r [u8],
}

impl OutboxFrame<'_> {
    /// Reads the effect.
    pub fn read(&self, stored: &[u8]) -> Result<Effect, Error> {
        record::decode_body(self.effect).map_err(at(stored))
    }
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
    pub fn encode_record(
        header: Header,
        bytes_before: u64,
        change: u64,
        effect: &Effect,
    ) -> (Bytes, u64) {
        let value_bytes = effect.content.value().map_or(0, Bytes::len);
        let mut record = record::begin(FORMAT, header, 104 + effect.key.len() + value_bytes);
        let place = record.len();
        record.extend_from_slice(&[0; NUMBER_BYTES]);
        record.extend_from_slice(&change.to_be_bytes());
        let begin = record.len();
        let mut record = record::append(record, effect);
        let bytes = u64::try_from(record.len() - begin).unwrap_or(u64::MAX);
        let bytes_through = bytes_before.saturating_add(bytes);
        assert!(
            bytes_through < u64::MAX,
            "an incarnation ships less than 2^64 bytes"
        );
        if let Some(through) = record.get_mut(place..place + NUMBER_BYTES) {
            through.copy_from_slice(&bytes_through.to_be_bytes());
        }
        (Bytes::from(record), bytes_through)
    }

    /// Reads a record.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<OutboxRecord, Error> {
        let frame = Self::open_record(stored, record)?;
        Ok(OutboxRecord {
            bytes_before: frame.bytes_before,
            bytes_through: frame.bytes_through,
            change: frame.change,
            effect: frame.read(stored)?,
        })
    }

    /// Reads everything of a record but its effect.
    pub fn open_record<'r>(stored: &[u8], record: &'r [u8]) -> Result<OutboxFrame<'r>, Error> {
        let numbered = record.first() != Some(&FORMAT_BEFORE);
        let format = if numbered { FORMAT } else { FORMAT_BEFORE };
        let (_, body) = record::open(record, format).map_err(at(stored))?;
        let truncated = || at(stored)(RecordError::Truncated { len: record.len() });
        let (bytes_through, rest) = number(body).ok_or_else(truncated)?;
        let (change, effect) = if numbered {
            number(rest).ok_or_else(truncated)?
        } else {
            (0, rest)
        };
        let before = u64::try_from(effect.len())
            .ok()
            .and_then(|len| bytes_through.checked_sub(len));
        let bytes_before =
            before.ok_or_else(|| at(stored)(RecordError::body("bytes do not add up")))?;
        Ok(OutboxFrame {
            bytes_before,
            bytes_through,
            change,
            effect,
        })
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<NUMBER_BYTES>()?;
    Some((u64::from_be_bytes(*number), rest))
}
