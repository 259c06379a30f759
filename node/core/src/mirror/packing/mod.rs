//! How a page of a mirror travels: keys and records, packed.
//!
//! Beside its value a stored record holds some fifty bytes: dot, context, times, op id. Most of it follows from the record
//! before, once records are put in the right order, so a page is written in two sections:
//!
//! ```text
//! [format u8][records]  incarnations, most used first, each with its least counter · parts of op ids that come again
//! by key                what the key shares with the one before · lengths and shape, where they differ from it · the dot's
//!                       counter above the least · rest of the key · value
//! by dot                steps of log index, time, stamp and number of the op id, from one write to the next
//! ```
//!
//! An op id that was numbered by its client (ten bytes of the client's, six of a count) costs two bytes or three, one of
//! chance sixteen. A record that is not [`Plain`] travels as the bytes it is.
//!
//! Invariant: what is unpacked is what was packed, byte for byte. Bytes that nobody packed are an error or some records,
//! never a panic, and never more memory than a page may take.
//!
//! What it is not: compression. Values travel as they are.

mod by_dot;
mod by_key;
mod bytes;
mod plain;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ::bytes::Bytes;
use meridian_causal::Incarnation;

use crate::limits::{MIRROR_PAGE_BYTES, MIRROR_PAGE_VISITS};
use crate::record::RecordError;

use by_dot::{DotReader, DotWriter};
use by_key::{KeyReader, KeyWriter};
use bytes::{Reader, put_len, put_varint};
use plain::Plain;

const FORMAT: u8 = 1;

/// Keys and records.
pub(super) type Records = Vec<(Bytes, Bytes)>;

/// A record on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Packed {
    Plain(Box<Plain>),
    Whole(Bytes),
}

/// The incarnations of a page, most used first, and the least counter of a dot of each.
#[derive(Debug, Default)]
struct Incarnations(Vec<(Incarnation, u64)>);

impl Incarnations {
    fn of<'p>(plain: impl Iterator<Item = &'p Plain>) -> Self {
        let mut uses: BTreeMap<Incarnation, (usize, u64)> = BTreeMap::new();
        for record in plain {
            let of_dot = uses.entry(record.dot.incarnation).or_insert((0, u64::MAX));
            *of_dot = (of_dot.0 + 1, of_dot.1.min(record.dot.counter));
            for (other, _) in &record.others {
                uses.entry(*other).or_insert((0, u64::MAX));
            }
        }
        let mut uses: Vec<_> = uses.into_iter().collect();
        uses.sort_by_key(|(incarnation, (count, _))| (Reverse(*count), *incarnation));
        let least = |counter: u64| if counter == u64::MAX { 0 } else { counter };
        Self(
            uses.into_iter()
                .map(|(incarnation, (_, counter))| (incarnation, least(counter)))
                .collect(),
        )
    }

    fn write(&self, out: &mut Vec<u8>) {
        put_len(out, self.0.len());
        for (incarnation, least) in &self.0 {
            out.extend_from_slice(&incarnation.raw().to_be_bytes());
            put_varint(out, *least);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let mut found = Vec::new();
        for _ in 0..reader.len()? {
            let incarnation = Incarnation::from_raw(u64::from_be_bytes(reader.array()?));
            found.push((incarnation, reader.varint()?));
        }
        Ok(Self(found))
    }

    fn place(&self, incarnation: Incarnation) -> usize {
        let known = self.0.iter().position(|(of, _)| *of == incarnation);
        known.unwrap_or(self.0.len())
    }

    fn at(&self, place: usize) -> Result<(Incarnation, u64), RecordError> {
        let unknown = || RecordError::body("an incarnation that the page does not name");
        self.0.get(place).copied().ok_or_else(unknown)
    }
}

/// The places of plain records, by dot.
fn by_dot(records: &[(Bytes, Packed)], incarnations: &Incarnations) -> Vec<usize> {
    let plain = records
        .iter()
        .enumerate()
        .filter_map(|(place, (_, packed))| match packed {
            Packed::Plain(plain) => Some((place, plain)),
            Packed::Whole(_) => None,
        });
    let mut order: Vec<(usize, u64, usize)> = plain
        .map(|(place, plain)| {
            let dot = plain.dot;
            (incarnations.place(dot.incarnation), dot.counter, place)
        })
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(_, _, place)| place).collect()
}

/// Packs records, which are in the order of their keys.
pub(super) fn pack(records: &[(Bytes, Bytes)]) -> Bytes {
    let records: Vec<(Bytes, Packed)> = records
        .iter()
        .map(|(key, record)| {
            let plain = Plain::of(record).map(Box::new);
            let packed = plain.map_or_else(|| Packed::Whole(record.clone()), Packed::Plain);
            (key.clone(), packed)
        })
        .collect();
    let plain = || {
        records.iter().filter_map(|(_, packed)| match packed {
            Packed::Plain(plain) => Some(&**plain),
            Packed::Whole(_) => None,
        })
    };
    let incarnations = Incarnations::of(plain());
    let mut out = vec![FORMAT];
    put_len(&mut out, records.len());
    incarnations.write(&mut out);
    let mut log = DotWriter::begin(plain(), &mut out);
    let mut keys = KeyWriter::default();
    for (key, packed) in &records {
        keys.write(key, packed, &incarnations, &mut out);
    }
    for place in by_dot(&records, &incarnations) {
        if let Some((_, Packed::Plain(plain))) = records.get(place) {
            log.write(plain, &mut out);
        }
    }
    Bytes::from(out)
}

/// The records that were packed.
pub(super) fn unpack(bytes: &[u8]) -> Result<Records, RecordError> {
    let mut reader = Reader::new(bytes);
    let found = reader.byte()?;
    if found != FORMAT {
        return Err(RecordError::Format {
            found,
            known: FORMAT,
        });
    }
    let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    if count > MIRROR_PAGE_VISITS {
        return Err(RecordError::body(format!("a page of {count} records")));
    }
    let incarnations = Incarnations::read(&mut reader)?;
    let mut log = DotReader::begin(&mut reader)?;
    let mut keys = KeyReader::default();
    let (mut records, mut size) = (Vec::new(), 0_usize);
    for _ in 0..count {
        if size >= MIRROR_PAGE_BYTES {
            return Err(RecordError::body("a page larger than pages are"));
        }
        let (key, packed) = keys.read(&mut reader, &incarnations)?;
        size = size
            .saturating_add(key.len())
            .saturating_add(packed.payload_bytes());
        records.push((key, packed));
    }
    for place in by_dot(&records, &incarnations) {
        if let Some((_, Packed::Plain(plain))) = records.get_mut(place) {
            log.read(plain, &mut reader)?;
        }
    }
    if reader.left() > 0 {
        return Err(RecordError::body(format!(
            "{} trailing bytes",
            reader.left()
        )));
    }
    Ok(records
        .into_iter()
        .map(|(key, packed)| (key, packed.record()))
        .collect())
}

impl Packed {
    fn payload_bytes(&self) -> usize {
        match self {
            Self::Plain(plain) => plain.content.value().map_or(0, Bytes::len),
            Self::Whole(record) => record.len(),
        }
    }

    fn record(self) -> Bytes {
        match self {
            Self::Plain(plain) => plain.record(),
            Self::Whole(record) => record,
        }
    }
}

#[cfg(test)]
mod tests;
