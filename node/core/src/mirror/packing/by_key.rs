//! The section of a packed page that is in the order of keys: keys, values, and of each record what does not follow from
//! the write before it.

use ::bytes::Bytes;
use meridian_causal::{Content, Dot, Hlc, Incarnation, OpId, TransactionTag};

use super::bytes::{Reader, put_len, put_varint};
use super::plain::Plain;
use super::{Incarnations, Packed};
use crate::limits::KEY_SIZE_BYTES_MAX;
use crate::record::{Header, RecordError};

/// The first byte of a record: how much of the key before it begins with too, and what else is new.
const SHARED: u8 = 0x3f;
const NEW_SHAPE: u8 = 0x40;
const NEW_LENGTHS: u8 = 0x80;

/// What a record has. One that is `WHOLE` has nothing else.
mod shape {
    pub(super) const TOMBSTONE: u8 = 1 << 0;
    pub(super) const EXPIRES: u8 = 1 << 1;
    pub(super) const OPERATION: u8 = 1 << 2;
    pub(super) const TRANSACTION: u8 = 1 << 3;
    /// Written at another time than that of the entry which changed the record last.
    pub(super) const OTHER_TIME: u8 = 1 << 4;
    /// The key has seen other incarnations.
    pub(super) const OTHERS: u8 = 1 << 5;
    /// The dot is not of the page's first incarnation.
    pub(super) const OTHER_INCARNATION: u8 = 1 << 6;
    pub(super) const WHOLE: u8 = 1 << 7;
}

/// What the record before had.
#[derive(Default)]
pub(super) struct KeyWriter {
    key: Vec<u8>,
    payload_bytes: usize,
    shape: u8,
}

impl KeyWriter {
    /// Appends a record.
    pub(super) fn write(
        &mut self,
        key: &[u8],
        packed: &Packed,
        incarnations: &Incarnations,
        out: &mut Vec<u8>,
    ) {
        let same = self.key.iter().zip(key).take_while(|(a, b)| a == b);
        let shared = same.count();
        let (shape, payload_bytes) = (shape_of(packed, incarnations), packed.payload_bytes());
        let new_shape = shape != self.shape;
        let new_lengths = (key.len(), payload_bytes) != (self.key.len(), self.payload_bytes);
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let brief = u8::try_from(shared).unwrap_or(SHARED).min(SHARED);
        out.push(brief | flag(new_shape, NEW_SHAPE) | flag(new_lengths, NEW_LENGTHS));
        if brief == SHARED {
            put_len(out, shared);
        }
        if new_shape {
            out.push(shape);
        }
        if new_lengths {
            put_len(out, key.len());
            put_len(out, payload_bytes);
        }
        let (_, suffix) = key.split_at_checked(shared).unwrap_or((key, &[]));
        out.extend_from_slice(suffix);
        match packed {
            Packed::Plain(plain) => put_plain(plain, shape, incarnations, out),
            Packed::Whole(record) => out.extend_from_slice(record),
        }
        self.key.clear();
        self.key.extend_from_slice(key);
        (self.payload_bytes, self.shape) = (payload_bytes, shape);
    }
}

fn shape_of(packed: &Packed, incarnations: &Incarnations) -> u8 {
    let Packed::Plain(plain) = packed else {
        return shape::WHOLE;
    };
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    flag(plain.content.value().is_none(), shape::TOMBSTONE)
        | flag(plain.expires_at_ms.is_some(), shape::EXPIRES)
        | flag(plain.op_id.is_some(), shape::OPERATION)
        | flag(plain.transaction.is_some(), shape::TRANSACTION)
        | flag(plain.written_at.is_some(), shape::OTHER_TIME)
        | flag(!plain.others.is_empty(), shape::OTHERS)
        | flag(
            incarnations.place(plain.dot.incarnation) != 0,
            shape::OTHER_INCARNATION,
        )
}

fn put_plain(plain: &Plain, shape: u8, incarnations: &Incarnations, out: &mut Vec<u8>) {
    let place = incarnations.place(plain.dot.incarnation);
    if shape & shape::OTHER_INCARNATION != 0 {
        put_len(out, place);
    }
    let least = incarnations.0.get(place).map_or(0, |(_, least)| *least);
    put_varint(out, plain.dot.counter.wrapping_sub(least));
    if shape & shape::OTHERS != 0 {
        put_len(out, plain.others.len());
        for (incarnation, counter) in &plain.others {
            put_len(out, incarnations.place(*incarnation));
            put_varint(out, *counter);
        }
    }
    if let Some(expires_at_ms) = plain.expires_at_ms {
        put_varint(out, expires_at_ms);
    }
    if let Some(written_at) = plain.written_at {
        out.extend_from_slice(&written_at.0.to_be_bytes());
    }
    if let Some(value) = plain.content.value() {
        out.extend_from_slice(value);
    }
}

/// What the record before had.
#[derive(Default)]
pub(super) struct KeyReader {
    key: Vec<u8>,
    payload_bytes: usize,
    shape: u8,
}

impl KeyReader {
    /// The next record. What the other section says of it is not filled in yet.
    pub(super) fn read(
        &mut self,
        reader: &mut Reader<'_>,
        incarnations: &Incarnations,
    ) -> Result<(Bytes, Packed), RecordError> {
        let head = reader.byte()?;
        let mut shared = usize::from(head & SHARED);
        if head & SHARED == SHARED {
            shared = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        }
        if head & NEW_SHAPE != 0 {
            self.shape = reader.byte()?;
        }
        let mut key_bytes = self.key.len();
        if head & NEW_LENGTHS != 0 {
            key_bytes = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
            self.payload_bytes = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        }
        if shared > self.key.len().min(key_bytes) || key_bytes > KEY_SIZE_BYTES_MAX {
            return Err(RecordError::body("a key longer than keys are"));
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(reader.take(key_bytes - shared)?);
        let packed = if self.shape == shape::WHOLE {
            Packed::Whole(Bytes::copy_from_slice(reader.take(self.payload_bytes)?))
        } else {
            Packed::Plain(Box::new(self.read_plain(reader, incarnations)?))
        };
        Ok((Bytes::copy_from_slice(&self.key), packed))
    }

    fn read_plain(
        &self,
        reader: &mut Reader<'_>,
        incarnations: &Incarnations,
    ) -> Result<Plain, RecordError> {
        let has = |bit: u8| self.shape & bit != 0;
        if has(shape::WHOLE) || (has(shape::TOMBSTONE) && self.payload_bytes != 0) {
            return Err(RecordError::body("a record of no shape there is"));
        }
        let place = if has(shape::OTHER_INCARNATION) {
            reader.len()?
        } else {
            0
        };
        let dot = read_dot(reader, incarnations.at(place)?)?;
        let others = if has(shape::OTHERS) {
            read_others(reader, incarnations, dot.incarnation)?
        } else {
            Vec::new()
        };
        let varint = |reader: &mut Reader<'_>| reader.varint();
        let expires_at_ms = has(shape::EXPIRES).then(|| varint(reader)).transpose()?;
        let written_at = has(shape::OTHER_TIME)
            .then(|| reader.array().map(u64::from_be_bytes))
            .transpose()?;
        Ok(Plain {
            header: Header::default(),
            dot,
            others,
            written_at: written_at.map(Hlc),
            expires_at_ms,
            op_id: has(shape::OPERATION).then_some(OpId { stamp_ms: 0, id: 0 }),
            transaction: has(shape::TRANSACTION).then_some(TransactionTag { id: 0, parts: 0 }),
            content: if has(shape::TOMBSTONE) {
                Content::Tombstone
            } else {
                Content::Value(Bytes::copy_from_slice(reader.take(self.payload_bytes)?))
            },
        })
    }
}

fn read_dot(reader: &mut Reader<'_>, (of, least): (Incarnation, u64)) -> Result<Dot, RecordError> {
    let counter = least.wrapping_add(reader.varint()?);
    if counter == 0 {
        return Err(RecordError::body("a dot of counter 0"));
    }
    Ok(Dot::new(of, counter))
}

fn read_others(
    reader: &mut Reader<'_>,
    incarnations: &Incarnations,
    own: Incarnation,
) -> Result<Vec<(Incarnation, u64)>, RecordError> {
    let mut others = Vec::new();
    for _ in 0..reader.len()? {
        let place = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        let (incarnation, _) = incarnations.at(place)?;
        let counter = reader.varint()?;
        if counter == 0 || incarnation == own {
            return Err(RecordError::body("a context that says nothing, or twice"));
        }
        others.push((incarnation, counter));
    }
    Ok(others)
}
