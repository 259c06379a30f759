//! Which op ids a shard may remember, in memory. Almost every write brings one that nobody has seen; without this, each would be
//! looked for in every table of the store that may hold it, only to be found in none.
//!
//! A Bloom filter in parts, each of the ids of some log entries: as op ids are forgotten in the order of the log, a part goes when
//! the last of its entries has gone. The bits of an id lie in one line of the processor's cache (Putze, Sanders, Singler: Cache-,
//! Hash- and Space-Efficient Bloom Filters, 2007). With sixteen bits for each id, about two lookups in a thousand are in vain.
//!
//! What it is not: an answer. What may be remembered is looked for in the store.
//!
//! Invariant: every op id that is remembered is in it. Ids enter where their records are written, and at [`OpIdFilter::load`].

use std::collections::VecDeque;
use std::ops::ControlFlow;

use meridian_storage::Read;

use super::ShardMeta;
use crate::error::Error;
use crate::keys::{OpOrderKey, Place};

/// Ids of the first part; each further one has room for four times as many as the one before.
const FIRST_PART_IDS: usize = 1 << 10;
/// Ids of a part at most: it goes as a whole, so a shard never keeps more than so many for nothing.
const PART_IDS_MAX: usize = 1 << 16;
/// Ids for which a line is made.
const LINE_IDS: usize = 32;
/// Bits that an id sets in its line.
const BITS: u32 = 6;

/// A line of the processor's cache.
type Line = [u64; 8];

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct OpIdFilter {
    parts: VecDeque<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    /// The last log entry that has entered one here.
    last_index: u64,
    ids: usize,
    lines: Vec<Line>,
}

impl OpIdFilter {
    /// What a stored shard remembers.
    pub(super) fn load(read: &dyn Read, place: Place, meta: &ShardMeta) -> Result<Self, Error> {
        let mut filter = Self::default();
        if meta.op_count == 0 {
            return Ok(filter);
        }
        let (from, to) = OpOrderKey::range(place, meta.op_first_index, meta.applied);
        let mut outcome = Ok(());
        read.scan(
            &from,
            &to,
            &mut |stored, record| match OpOrderKey::decode_record(stored, record) {
                Ok((header, order)) => {
                    for id in order.ids {
                        filter.enter(header.index, id);
                    }
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    outcome = Err(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        outcome.map(|()| filter)
    }

    /// A log entry, none before those of earlier calls, enters an id.
    pub(super) fn enter(&mut self, index: u64, id: u128) {
        let room = |part: &Part| part.lines.len().saturating_mul(LINE_IDS);
        if self.parts.back().is_none_or(|part| part.ids >= room(part)) {
            let next = self
                .parts
                .back()
                .map_or(FIRST_PART_IDS, |part| room(part).saturating_mul(4));
            self.parts
                .push_back(Part::of_ids(next.min(PART_IDS_MAX), index));
        }
        if let Some(part) = self.parts.back_mut() {
            assert!(index >= part.last_index, "the log goes on");
            part.last_index = index;
            part.ids = part.ids.saturating_add(1);
            part.enter(id);
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

    /// False: it is not remembered.
    pub(super) fn may_hold(&self, id: u128) -> bool {
        self.parts.iter().rev().any(|part| part.may_hold(id))
    }
}

impl Part {
    fn of_ids(ids: usize, index: u64) -> Self {
        Self {
            last_index: index,
            ids: 0,
            lines: vec![[0; 8]; ids.div_ceil(LINE_IDS)],
        }
    }

    fn enter(&mut self, id: u128) {
        let (line, mask) = self.place(id);
        if let Some(line) = self.lines.get_mut(line) {
            for (word, bits) in line.iter_mut().zip(mask) {
                *word |= bits;
            }
        }
    }

    fn may_hold(&self, id: u128) -> bool {
        let (line, mask) = self.place(id);
        let covers = |line: &Line| {
            line.iter()
                .zip(mask)
                .all(|(word, bits)| word & bits == bits)
        };
        self.lines.get(line).is_none_or(covers)
    }

    /// The line of an id, and its bits there.
    fn place(&self, id: u128) -> (usize, Line) {
        let (high, low) = halves(id);
        let hash = mixed(mixed(high) ^ low);
        let (upper, _) = halves(u128::from(hash) * (self.lines.len() as u128));
        let mut mask = [0; 8];
        let mut bits = mixed(hash);
        for _ in 0..BITS {
            if let Some(word) = mask.get_mut(usize::try_from(bits & 7).unwrap_or(0)) {
                *word |= 1 << ((bits >> 3) & 63);
            }
            bits >>= 9;
        }
        (usize::try_from(upper).unwrap_or(usize::MAX), mask)
    }
}

/// The upper and the lower half.
fn halves(wide: u128) -> (u64, u64) {
    let low = u64::try_from(wide & u128::from(u64::MAX)).unwrap_or(0);
    (u64::try_from(wide >> 64).unwrap_or(0), low)
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

    #[test]
    fn what_has_entered_may_be_remembered_and_little_else() {
        let mut filter = OpIdFilter::default();
        for (index, id) in ids(0..200_000) {
            filter.enter(index, id);
        }
        assert!(ids(0..200_000).all(|(_, id)| filter.may_hold(id)));
        let vain = ids(200_000..300_000)
            .filter(|(_, id)| filter.may_hold(*id))
            .count();
        assert!(
            vain < 1_500,
            "{vain} of 100,000 in {} parts",
            filter.parts.len()
        );
    }

    #[test]
    fn a_part_goes_with_its_last_entry_and_not_before() {
        let mut filter = OpIdFilter::default();
        for (index, id) in ids(0..5_000) {
            filter.enter(index, id);
        }
        filter.forget_before(1_023);
        assert!(ids(1_023..5_000).all(|(_, id)| filter.may_hold(id)));
        assert_eq!(filter.parts.len(), 2);
        filter.forget_before(1_024);
        assert_eq!(filter.parts.len(), 1);
        assert!(ids(1_024..5_000).all(|(_, id)| filter.may_hold(id)));
        filter.forget_before(5_000);
        assert!(filter.parts.is_empty());
    }

    #[test]
    fn an_empty_filter_holds_nothing() {
        assert!(!OpIdFilter::default().may_hold(0));
    }
}
