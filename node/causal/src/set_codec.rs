//! The bytes of a sibling set: its context, then each sibling.
//!
//! A sibling's incarnation is its place among those of the context, which covers every sibling; so a key written by
//! one group spends seven bytes on it, however many siblings there are.

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, put_len, put_varint};
use crate::{CausalContext, Content, Dot, Hlc, OpId, Sibling, SiblingSet, TransactionTag};

const TOMBSTONE: u8 = 1 << 0;
const EXPIRES: u8 = 1 << 1;
const OPERATION: u8 = 1 << 2;
const TRANSACTION: u8 = 1 << 3;
const FLAGS: u8 = TOMBSTONE | EXPIRES | OPERATION | TRANSACTION;

/// Place of the incarnation, counter, flags, time.
const SIBLING_BYTES_MIN: usize = 11;

impl SiblingSet {
    /// Appends the canonical bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.context().encode(out);
        put_len(out, self.siblings().len());
        for sibling in self.siblings() {
            put_sibling(out, self.context(), sibling);
        }
    }

    /// Reads what [`SiblingSet::encode`] wrote, and nothing else. Values are copied.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        read_set(Reader::new(bytes))
    }

    /// As [`SiblingSet::decode`], with values that share `bytes` and keep it alive.
    pub fn decode_shared(bytes: &Bytes) -> Result<Self, DecodeError> {
        read_set(Reader::sharing(bytes))
    }
}

fn read_set(mut reader: Reader<'_>) -> Result<SiblingSet, DecodeError> {
    let context = CausalContext::read(&mut reader)?;
    let count = reader.count(SIBLING_BYTES_MIN)?;
    let mut siblings = Vec::with_capacity(count);
    for _ in 0..count {
        siblings.push(read_sibling(&mut reader, &context)?);
    }
    reader.finish()?;
    SiblingSet::from_parts(context, siblings).ok_or(DecodeError::Malformed(
        "siblings out of order or not covered",
    ))
}

fn put_sibling(out: &mut Vec<u8>, context: &CausalContext, sibling: &Sibling) {
    let place = context
        .incarnations()
        .take_while(|incarnation| *incarnation < sibling.dot.incarnation)
        .count();
    put_len(out, place);
    put_varint(out, sibling.dot.counter);
    out.push(flags(sibling));
    out.extend_from_slice(&sibling.written_at.0.to_be_bytes());
    if let Some(expires_at_ms) = sibling.expires_at_ms {
        put_varint(out, expires_at_ms);
    }
    if let Some(op_id) = sibling.op_id {
        put_varint(out, op_id.stamp_ms);
        out.extend_from_slice(&op_id.id.to_be_bytes());
    }
    if let Some(transaction) = sibling.transaction {
        out.extend_from_slice(&transaction.id.to_be_bytes());
        put_varint(out, u64::from(transaction.parts));
    }
    if let Some(value) = sibling.content.value() {
        put_len(out, value.len());
        out.extend_from_slice(value);
    }
}

fn flags(sibling: &Sibling) -> u8 {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    flag(!sibling.is_live(), TOMBSTONE)
        | flag(sibling.expires_at_ms.is_some(), EXPIRES)
        | flag(sibling.op_id.is_some(), OPERATION)
        | flag(sibling.transaction.is_some(), TRANSACTION)
}

fn read_sibling(reader: &mut Reader<'_>, context: &CausalContext) -> Result<Sibling, DecodeError> {
    let place = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    let incarnation = context
        .incarnations()
        .nth(place)
        .ok_or(DecodeError::Malformed("incarnation not in the context"))?;
    let counter = reader.varint()?;
    if counter == 0 {
        return Err(DecodeError::Malformed("sibling has counter 0"));
    }
    let flags = reader.byte()?;
    if flags & !FLAGS != 0 {
        return Err(DecodeError::Malformed("unknown sibling flags"));
    }
    let has = |bit: u8| flags & bit != 0;
    Ok(Sibling {
        dot: Dot::new(incarnation, counter),
        written_at: Hlc(u64::from_be_bytes(reader.array()?)),
        expires_at_ms: has(EXPIRES).then(|| reader.varint()).transpose()?,
        op_id: has(OPERATION).then(|| read_op_id(reader)).transpose()?,
        transaction: has(TRANSACTION)
            .then(|| read_transaction(reader))
            .transpose()?,
        content: if has(TOMBSTONE) {
            Content::Tombstone
        } else {
            Content::Value(reader.value()?)
        },
    })
}

fn read_op_id(reader: &mut Reader<'_>) -> Result<OpId, DecodeError> {
    Ok(OpId {
        stamp_ms: reader.varint()?,
        id: u128::from_be_bytes(reader.array()?),
    })
}

fn read_transaction(reader: &mut Reader<'_>) -> Result<TransactionTag, DecodeError> {
    let id = u128::from_be_bytes(reader.array()?);
    let parts = u16::try_from(reader.varint()?)
        .map_err(|_out_of_range| DecodeError::Malformed("parts exceed 16 bits"))?;
    Ok(TransactionTag { id, parts })
}
