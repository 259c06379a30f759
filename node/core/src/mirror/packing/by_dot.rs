//! The section of a packed page that is in the order of dots: what grows from one write to the next, as steps.
//!
//! A byte for the entry of the log, where it is the same as before or the next one of its millisecond or shortly after; one
//! each for the stamp and the number of an op id, where they are near those of the client's write before.

use std::collections::BTreeMap;

use meridian_causal::{Hlc, OpId, TransactionTag};

use super::bytes::{Reader, put_len, put_step, put_varint};
use super::plain::Plain;
use crate::record::{Header, RecordError};

/// The first byte of a write: 0, the same entry; up to [`NEXT_MAX`], the next one, by so many milliseconds later and one; or
/// [`APART`], with steps that follow.
const ENTRY: u8 = 0x7f;
const NEXT_MAX: u8 = 0x7e;
const APART: u8 = 0x7f;

/// Set when the op id is of another client than the one before.
const NEW_CLIENT: u8 = 0x80;

/// Bits of an op id that a client counts in.
const NUMBER_BITS: u32 = 48;
const NUMBER_MASK: u128 = (1 << NUMBER_BITS) - 1;

/// Bytes of an op id that a client keeps.
const CLIENT_BYTES: usize = 10;

/// What the write before had.
#[derive(Default)]
struct Before {
    header: Header,
    /// 0: none; otherwise the place of the client, and one.
    client: usize,
    /// The stamp of the last op id of no known client.
    stamp_ms: u64,
    /// Per client, its last op id's stamp and number.
    clients: Vec<(u128, u64, u64)>,
    transaction: Option<TransactionTag>,
}

const fn client_of(op_id: OpId) -> u128 {
    op_id.id >> NUMBER_BITS
}

fn number_of(op_id: OpId) -> u64 {
    u64::try_from(op_id.id & NUMBER_MASK).unwrap_or(u64::MAX)
}

/// Writes the section.
pub(super) struct DotWriter {
    before: Before,
    places: BTreeMap<u128, usize>,
}

impl DotWriter {
    /// Appends the clients of which the page has several writes.
    pub(super) fn begin<'p>(plain: impl Iterator<Item = &'p Plain>, out: &mut Vec<u8>) -> Self {
        let mut uses: BTreeMap<u128, usize> = BTreeMap::new();
        for op_id in plain.filter_map(|record| record.op_id) {
            *uses.entry(client_of(op_id)).or_default() += 1;
        }
        let known: Vec<u128> = uses
            .into_iter()
            .filter(|(_, count)| *count > 1)
            .map(|(client, _)| client)
            .collect();
        put_len(out, known.len());
        for client in &known {
            let [_, _, _, _, _, _, bytes @ ..] = client.to_be_bytes();
            out.extend_from_slice(&bytes);
        }
        Self {
            places: known.iter().copied().zip(0..).collect(),
            before: Before {
                clients: known.into_iter().map(|client| (client, 0, 0)).collect(),
                ..Before::default()
            },
        }
    }

    /// Appends a write.
    pub(super) fn write(&mut self, plain: &Plain, out: &mut Vec<u8>) {
        let client = plain.op_id.map_or(self.before.client, |op_id| {
            let place = self.places.get(&client_of(op_id));
            place.map_or(0, |place| place + 1)
        });
        let entry = entry(self.before.header, plain.header);
        let new_client = client != self.before.client;
        out.push(entry | if new_client { NEW_CLIENT } else { 0 });
        if new_client {
            put_len(out, client);
        }
        if entry == APART {
            let (before, now) = (self.before.header, plain.header);
            put_step(out, before.index, now.index);
            put_step(out, before.hlc.wall_ms(), now.hlc.wall_ms());
            put_varint(out, u64::from(now.hlc.logical()));
        }
        self.before.header = plain.header;
        self.before.client = client;
        if let Some(op_id) = plain.op_id {
            self.write_op_id(op_id, out);
        }
        if let Some(transaction) = plain.transaction {
            self.write_transaction(transaction, out);
        }
    }

    fn write_op_id(&mut self, op_id: OpId, out: &mut Vec<u8>) {
        let client = self.before.client.checked_sub(1);
        let known = client.and_then(|place| self.before.clients.get_mut(place));
        if let Some((_, stamp_ms, number)) = known {
            put_step(out, *stamp_ms, op_id.stamp_ms);
            put_step(out, *number, number_of(op_id));
            (*stamp_ms, *number) = (op_id.stamp_ms, number_of(op_id));
        } else {
            put_step(out, self.before.stamp_ms, op_id.stamp_ms);
            out.extend_from_slice(&op_id.id.to_be_bytes());
            self.before.stamp_ms = op_id.stamp_ms;
        }
    }

    fn write_transaction(&mut self, transaction: TransactionTag, out: &mut Vec<u8>) {
        let same = self.before.transaction == Some(transaction);
        out.push(u8::from(!same));
        if !same {
            out.extend_from_slice(&transaction.id.to_be_bytes());
            put_varint(out, u64::from(transaction.parts));
        }
        self.before.transaction = Some(transaction);
    }
}

/// The first byte of a write, without the flag.
fn entry(before: Header, now: Header) -> u8 {
    if now == before {
        return 0;
    }
    let next = now.index.checked_sub(before.index) == Some(1) && now.hlc.logical() == 0;
    let later_ms = now.hlc.wall_ms().checked_sub(before.hlc.wall_ms());
    let brief = later_ms.and_then(|later_ms| u8::try_from(later_ms.saturating_add(1)).ok());
    brief
        .filter(|brief| next && *brief <= NEXT_MAX)
        .unwrap_or(APART)
}

/// Reads the section.
pub(super) struct DotReader {
    before: Before,
}

impl DotReader {
    pub(super) fn begin(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let mut clients = Vec::new();
        for _ in 0..reader.len()? {
            let bytes: [u8; CLIENT_BYTES] = reader.array()?;
            let client = bytes
                .iter()
                .fold(0, |high, low| high << 8 | u128::from(*low));
            clients.push((client, 0, 0));
        }
        Ok(Self {
            before: Before {
                clients,
                ..Before::default()
            },
        })
    }

    /// Fills in what this section says of the next write.
    pub(super) fn read(
        &mut self,
        plain: &mut Plain,
        reader: &mut Reader<'_>,
    ) -> Result<(), RecordError> {
        let head = reader.byte()?;
        if head & NEW_CLIENT != 0 {
            self.before.client = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        }
        let before = self.before.header;
        plain.header = match head & ENTRY {
            0 => before,
            APART => Header {
                index: reader.step(before.index)?,
                hlc: read_time(before.hlc, reader)?,
            },
            brief => Header {
                index: before.index.wrapping_add(1),
                hlc: Hlc::new(before.hlc.wall_ms() + u64::from(brief) - 1, 0),
            },
        };
        self.before.header = plain.header;
        if let Some(op_id) = &mut plain.op_id {
            *op_id = self.read_op_id(reader)?;
        }
        if plain.transaction.is_some() {
            plain.transaction = Some(self.read_transaction(reader)?);
        }
        Ok(())
    }

    fn read_op_id(&mut self, reader: &mut Reader<'_>) -> Result<OpId, RecordError> {
        let Some(place) = self.before.client.checked_sub(1) else {
            let stamp_ms = reader.step(self.before.stamp_ms)?;
            self.before.stamp_ms = stamp_ms;
            let id = u128::from_be_bytes(reader.array()?);
            return Ok(OpId { stamp_ms, id });
        };
        let unknown = || RecordError::body("a client that the page does not name");
        let known = self.before.clients.get_mut(place).ok_or_else(unknown)?;
        let (client, before_ms, number) = *known;
        let stamp_ms = reader.step(before_ms)?;
        let number = reader.step(number)?;
        *known = (client, stamp_ms, number);
        let id = client << NUMBER_BITS | u128::from(number) & NUMBER_MASK;
        Ok(OpId { stamp_ms, id })
    }

    fn read_transaction(&mut self, reader: &mut Reader<'_>) -> Result<TransactionTag, RecordError> {
        let tag = if reader.byte()? == 0 {
            let none = || RecordError::body("the same transaction as of no write");
            self.before.transaction.ok_or_else(none)?
        } else {
            let id = u128::from_be_bytes(reader.array()?);
            let parts = u16::try_from(reader.varint()?).map_err(RecordError::body)?;
            TransactionTag { id, parts }
        };
        self.before.transaction = Some(tag);
        Ok(tag)
    }
}

fn read_time(before: Hlc, reader: &mut Reader<'_>) -> Result<Hlc, RecordError> {
    let wall_ms = reader.step(before.wall_ms())?;
    let logical = u16::try_from(reader.varint()?).map_err(RecordError::body)?;
    Ok(Hlc::new(wall_ms, logical))
}
