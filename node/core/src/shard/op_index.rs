//! Which log entry entered an op id, in memory. What operations did is stored entry by entry, as they came, so that it costs a write
//! next to nothing; this says where to look for one of them. Almost every write brings an op id that nobody has seen, and learns so
//! from one line of the processor's cache for each part.
//!
//! The index is in parts, each of the ids of some consecutive entries: op ids are forgotten in the order of the log, and a part goes
//! when the last of its entries has gone. A part has a Bloom filter in which the bits of an id lie in one line of the processor's
//! cache (Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007), and for each id, in order, a mark of
//! sixteen bits and its entry: what the filter lets pass, two in a thousand and every retry, is looked for among the marks.
//!
//! What it is not: an answer. An entry that it names is read.
//!
//! Invariant: it names the entry of every op id that is remembered. Ids enter where the entry is applied, and at [`OpIndex::load`].

use std::collections::VecDeque;
use std::ops::ControlFlow;

use meridian_storage::Read;

use super::ShardMeta;
use crate::error::Error;
use crate::keys::{OpOrderKey, Place};

/// Ids of the first part; each further one has room for four times as many as the one before.
const FIRST_PART_IDS: usize = 1 << 10;
/// Ids of a part at most: it goes as a whole, so a shard never keeps more than so many for nothing. It takes 8 bytes for each.
const PART_IDS_MAX: usize = 1 << 16;
/// Ids for which a line is made.
const LINE_IDS: usize = 32;
/// Bits that an id sets in its line.
const BITS: u32 = 6;

/// A line of the processor's cache.
type Line = [u64; 8];

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct OpIndex {
    parts: VecDeque<Part>,
}

/// Invariant: `marks` and `entries` are of the same ids, in the order of the log.
#[derive(Clone, Debug)]
struct Part {
    first_index: u64,
    last_index: u64,
    lines: Vec<Line>,
    marks: Vec<u16>,
    /// Log index of the entry, less `first_index`.
    entries: Vec<u32>,
}

impl OpIndex {
    /// Of what a stored shard remembers.
    pub(super) fn load(read: &dyn Read, place: Place, meta: &ShardMeta) -> Result<Self, Error> {
        let mut loaded = Self::default();
        if meta.op_count == 0 {
            return Ok(loaded);
        }
        let (from, to) = OpOrderKey::range(place, meta.op_first_index, meta.applied);
        let mut outcome = Ok(());
        read.scan(
            &from,
            &to,
            &mut |stored, record| match OpOrderKey::open_record(stored, record) {
                Ok((header, order)) => {
                    for (id, _) in order.operations {
                        loaded.enter(header.index, id);
                    }
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    outcome = Err(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        outcome.map(|()| loaded)
    }

    /// A log entry, none before those of earlier calls, enters an id.
    pub(super) fn enter(&mut self, index: u64, id: u128) {
        let fits = |part: &Part| part.ids() < part.room() && part.entry(index).is_some();
        if !self.parts.back().is_some_and(fits) {
            let room = self
                .parts
                .back()
                .map_or(FIRST_PART_IDS, |part| part.room().saturating_mul(4));
            self.parts
                .push_back(Part::of_ids(room.min(PART_IDS_MAX), index));
        }
        if let Some(part) = self.parts.back_mut() {
            part.enter(index, id);
        }
    }

    /// Log entries before this one have been forgotten.
    pub(super) fn forget_before(&mut self, first_index: u64) {
        while self
            .parts
            .front()
            .is_some_and(|part| part.last_index < first_index)
        {
            self.parts.pop_front();
        }
    }

    /// Log entries that may have entered an id, the newest part first; some may have been forgotten.
    pub(super) fn entries(&self, id: u128) -> impl Iterator<Item = u64> + '_ {
        let parts = self.parts.iter().rev();
        parts
            .filter(move |part| part.may_hold(id))
            .flat_map(move |part| part.entries(id))
    }
}

impl Part {
    fn of_ids(ids: usize, first_index: u64) -> Self {
        Self {
            first_index,
            last_index: first_index,
            lines: vec![[0; 8]; ids.div_ceil(LINE_IDS)],
            marks: Vec::new(),
            entries: Vec::new(),
        }
    }

    fn ids(&self) -> usize {
        self.marks.len()
    }

    fn room(&self) -> usize {
        self.lines.len().saturating_mul(LINE_IDS)
    }

    /// A log index as this part writes it, if it can.
    fn entry(&self, index: u64) -> Option<u32> {
        u32::try_from(index.checked_sub(self.first_index)?).ok()
    }

    fn enter(&mut self, index: u64, id: u128) {
        assert!(index >= self.last_index, "the log goes on");
        let Some(entry) = self.entry(index) else {
            return;
        };
        self.last_index = index;
        let bits = Bits::of(id);
        let place = self.line_of(&bits);
        if let Some(line) = self.lines.get_mut(place) {
            for (word, bits) in line.iter_mut().zip(bits.mask) {
                *word |= bits;
            }
        }
        self.marks.push(bits.mark);
        self.entries.push(entry);
    }

    fn may_hold(&self, id: u128) -> bool {
        let bits = Bits::of(id);
        let line = self.lines.get(self.line_of(&bits));
        line.is_some_and(|line| {
            let mut words = line.iter().zip(bits.mask);
            words.all(|(word, bits)| word & bits == bits)
        })
    }

    fn entries(&self, id: u128) -> impl Iterator<Item = u64> + '_ {
        let mark = Bits::of(id).mark;
        let marked = self.marks.iter().zip(&self.entries);
        marked
            .filter(move |(own, _)| **own == mark)
            .map(|(_, entry)| self.first_index.saturating_add(u64::from(*entry)))
    }

    fn line_of(&self, bits: &Bits) -> usize {
        let lines = u128::try_from(self.lines.len()).unwrap_or(0);
        usize::try_from(u128::from(bits.hash).saturating_mul(lines) >> 64).unwrap_or(0)
    }
}

/// What stands for an id.
struct Bits {
    /// Its upper bits choose the line.
    hash: u64,
    /// What it sets in the line.
    mask: Line,
    mark: u16,
}

impl Bits {
    fn of(id: u128) -> Self {
        let [high, low] =
            [id >> 64, id & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or(0));
        let hash = mixed(mixed(high) ^ low);
        let mut mask = [0; 8];
        let mut bits = mixed(hash);
        let [.., upper, lower] = mixed(bits).to_be_bytes();
        for _ in 0..BITS {
            if let Some(word) = mask.get_mut(usize::try_from(bits & 7).unwrap_or(0)) {
                *word |= 1 << ((bits >> 3) & 63);
            }
            bits >>= 9;
        }
        Self {
            hash,
            mask,
            mark: u16::from_be_bytes([upper, lower]),
        }
    }
}

/// Fixed for ever, so that a simulation is repeated. (The finaliser of splitmix64: Steele, Lea, Flood 2014.)
const fn mixed(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<u64>) -> impl Iterator<Item = (u64, u128)> {
        range.map(|n| {
            (
                n,
                u128::from(mixed(n)) << 64 | u128::from(mixed(n ^ 0x5555)),
            )
        })
    }

    fn index_of(range: std::ops::Range<u64>) -> OpIndex {
        let mut index = OpIndex::default();
        for (entry, id) in ids(range) {
            index.enter(entry, id);
        }
        index
    }

    fn names(index: &OpIndex, (entry, id): (u64, u128)) -> bool {
        index.entries(id).any(|named| named == entry)
    }

    #[test]
    fn what_has_entered_is_named_and_little_else() {
        let index = index_of(0..200_000);
        let some = || ids(0..200_000).step_by(997);
        assert!(some().all(|one| names(&index, one)));
        let vain: usize = ids(200_000..300_000)
            .map(|(_, id)| index.entries(id).count())
            .sum();
        assert!(vain < 600, "{vain} entries would be read for nothing");
        let passed = ids(200_000..300_000);
        let passed = passed.filter(|(_, id)| index.parts.iter().any(|part| part.may_hold(*id)));
        let (passed, parts) = (passed.count(), index.parts.len());
        assert!(passed < 1_500, "{passed} of 100,000 pass {parts} parts");
    }

    #[test]
    fn a_part_goes_with_its_last_entry_and_not_before() {
        let mut index = index_of(0..5_000);
        index.forget_before(1_023);
        assert!(ids(1_023..5_000).step_by(7).all(|one| names(&index, one)));
        assert_eq!(index.parts.len(), 2);
        index.forget_before(1_024);
        assert_eq!(index.parts.len(), 1);
        assert!(ids(1_024..5_000).step_by(7).all(|one| names(&index, one)));
        index.forget_before(5_000);
        assert!(index.parts.is_empty());
    }

    #[test]
    fn an_id_that_comes_twice_is_named_with_both_entries_and_far_ones_have_parts_of_their_own() {
        let mut index = OpIndex::default();
        let far = 7 + (1 << 40);
        for entry in [7, far] {
            index.enter(entry, 1);
        }
        assert_eq!(index.entries(1).collect::<Vec<_>>(), [far, 7]);
    }

    #[test]
    fn an_empty_index_names_nothing() {
        assert_eq!(OpIndex::default().entries(0).count(), 0);
    }
}
