//! The records of keys that were written lately, in memory: whoever changes a key again need not look for it in the engine.
//!
//! Every write of a key reads its record first, and one that was written to disk meanwhile is looked for in several tables. What a
//! turn writes stays here, as long as there is room for it; what is not here is read from the engine, so results do not depend on
//! what is.
//!
//! What it is not: a cache of what clients read, or of large records; those go to the engine.
//!
//! Invariants:
//! * a record here is the one that the engine holds after the last turn: every batch of the core goes through
//!   [`RecordCache::follow`], and nobody else writes records of its shards;
//! * it takes at most the bytes that it is given.

use bytes::Bytes;
use meridian_storage::{Batch, Op, Read, StorageError, Visitor};

use crate::keys::Kind;
use crate::limits::{CACHED_RECORD_BYTES_MAX, RECORD_CACHE_SLOT_BYTES};

/// Places of a key.
const WAYS: usize = 4;
/// What a slot takes itself.
const SLOT_BYTES: usize = size_of::<Slot>();

/// A key with its record, and what their hash says before anybody looks at them: almost every look at a key meets one line of the
/// processor's cache that is not its own.
#[derive(Debug)]
struct Entry {
    tag: u32,
    key_bytes: u32,
    /// The key, then the record.
    bytes: Box<[u8]>,
}

type Slot = Option<Entry>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct RecordCache {
    /// A power of two of them, or none.
    sets: Vec<[Slot; WAYS]>,
    bytes: usize,
    bytes_max: usize,
    /// Where the next one to go is looked for.
    hand: usize,
}

impl RecordCache {
    /// An empty one that takes at most so many bytes; none when that is too little for anything.
    pub(crate) fn of_bytes(bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let wanted = bytes_max / (WAYS * RECORD_CACHE_SLOT_BYTES);
        let count = wanted.checked_ilog2().map_or(0, |log| 1_usize << log);
        let sets: Vec<[Slot; WAYS]> = (0..count).map(|_| [const { None }; WAYS]).collect();
        Self {
            bytes: count * WAYS * SLOT_BYTES,
            sets,
            bytes_max,
            hand: 0,
        }
    }

    /// What the engine holds of a key, if that is known here.
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let (set, tag) = self.place_of(key)?;
        let here = self.sets.get(set)?.iter().flatten();
        here.filter(|entry| entry.tag == tag)
            .find_map(|entry| entry.record_of(key))
    }

    /// A batch is written.
    pub(crate) fn follow(&mut self, batch: &Batch) {
        if self.sets.is_empty() {
            return;
        }
        for op in batch {
            match op {
                Op::Put { key, value } if is_cached(key) => self.put(key, value),
                Op::Delete { key } if is_cached(key) => self.forget(key),
                Op::DeleteRange { from, to } if is_of_records(from, to) => self.clear(),
                Op::Put { .. } | Op::Delete { .. } | Op::DeleteRange { .. } => {}
            }
        }
        assert!(
            self.bytes <= self.bytes_max,
            "it takes what it is given at most"
        );
    }

    fn put(&mut self, key: &[u8], record: &[u8]) {
        let Some((set, tag)) = self.place_of(key) else {
            return;
        };
        let own = key.len() + record.len();
        let here = self.way_of(set, tag, key);
        if let Some(way) = here {
            let entry = self.sets.get_mut(set).and_then(|set| set.get_mut(way));
            let entry = entry.and_then(Option::as_mut);
            if entry.is_some_and(|entry| entry.takes(key, record)) {
                return;
            }
            self.empty(set, way);
        }
        let Some(key_bytes) = fitting(key, record) else {
            return;
        };
        let free = || self.sets.get(set).and_then(free_way);
        let way = here.or_else(free).unwrap_or(self.hand % WAYS);
        self.hand = self.hand.wrapping_add(1);
        self.empty(set, way);
        self.make_room(own);
        if let Some(slot) = self.sets.get_mut(set).and_then(|set| set.get_mut(way)) {
            *slot = Some(Entry {
                tag,
                key_bytes,
                bytes: [key, record].concat().into_boxed_slice(),
            });
            self.bytes = self.bytes.saturating_add(own);
        }
    }

    fn forget(&mut self, key: &[u8]) {
        if let Some((set, tag)) = self.place_of(key)
            && let Some(way) = self.way_of(set, tag, key)
        {
            self.empty(set, way);
        }
    }

    fn clear(&mut self) {
        *self = Self::of_bytes(u64::try_from(self.bytes_max).unwrap_or(u64::MAX));
    }

    /// Sends others away, wherever the hand points, until so many bytes fit.
    fn make_room(&mut self, own: usize) {
        let mut visited = 0;
        while self.bytes.saturating_add(own) > self.bytes_max && visited < self.sets.len() {
            let set = self.hand % self.sets.len();
            (0..WAYS).for_each(|way| self.empty(set, way));
            self.hand = self.hand.wrapping_add(1);
            visited += 1;
        }
    }

    fn empty(&mut self, set: usize, way: usize) {
        let slot = self.sets.get_mut(set).and_then(|set| set.get_mut(way));
        if let Some(entry) = slot.and_then(Option::take) {
            self.bytes = self.bytes.saturating_sub(entry.bytes.len());
        }
    }

    fn way_of(&self, set: usize, tag: u32, key: &[u8]) -> Option<usize> {
        let is_here = |slot: &Slot| {
            let entry = slot.as_ref().filter(|entry| entry.tag == tag);
            entry.is_some_and(|entry| entry.record_of(key).is_some())
        };
        self.sets.get(set)?.iter().position(is_here)
    }

    /// The set of a key, and its tag: of its hash, the lower bits and the upper ones.
    fn place_of(&self, key: &[u8]) -> Option<(usize, u32)> {
        let last = u64::try_from(self.sets.len()).ok()?.checked_sub(1)?;
        let hash = spread(key);
        let tag = u32::try_from(hash >> 32).ok()?;
        Some((usize::try_from(hash & last).ok()?, tag))
    }
}

impl Entry {
    fn record_of(&self, key: &[u8]) -> Option<&[u8]> {
        let (own, record) = self.bytes.split_at_checked(self.key_len())?;
        (own == key).then_some(record)
    }

    /// Takes a record of the same length as the one before, in its place.
    fn takes(&mut self, key: &[u8], record: &[u8]) -> bool {
        let place = self.bytes.get_mut(key.len()..);
        let place = place.filter(|place| place.len() == record.len());
        place.map(|place| place.copy_from_slice(record)).is_some()
    }

    fn key_len(&self) -> usize {
        usize::try_from(self.key_bytes).unwrap_or(usize::MAX)
    }
}

/// The length of the key of a record that is not too large.
fn fitting(key: &[u8], record: &[u8]) -> Option<u32> {
    let all = key.len().saturating_add(record.len());
    let key_bytes = u32::try_from(key.len()).ok();
    key_bytes.filter(|_| all <= CACHED_RECORD_BYTES_MAX)
}

fn free_way(set: &[Slot; WAYS]) -> Option<usize> {
    set.iter().position(Option::is_none)
}

fn is_cached(key: &[u8]) -> bool {
    key.first() == Some(&(Kind::Version as u8))
}

fn is_of_records(from: &[u8], to: &[u8]) -> bool {
    let first = Kind::Version as u8;
    from < &[first + 1][..] && to > &[first][..]
}

/// Fixed for ever, so that a simulation is repeated; without any strength against intent, which here makes things slower only.
fn spread(key: &[u8]) -> u64 {
    let (words, rest) = key.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let rest = rest.iter().map(|byte| u64::from(*byte));
    let mixed = words.chain(rest).fold(0_u64, |state, word| {
        let state = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state ^ (state >> 29)
    });
    mixed ^ (mixed >> 32)
}

/// An engine, read through what is known of it.
pub(crate) struct Recent<'a> {
    engine: &'a dyn Read,
    records: &'a RecordCache,
}

impl<'a> Recent<'a> {
    /// `records` have followed every batch of this core that `engine` has taken.
    pub(crate) fn of(engine: &'a dyn Read, records: &'a RecordCache) -> Self {
        Self { engine, records }
    }
}

impl Read for Recent<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let here = Some(key).filter(|key| is_cached(key));
        match here.and_then(|key| self.records.get(key)) {
            Some(record) => Ok(Some(Bytes::copy_from_slice(record))),
            None => self.engine.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), StorageError> {
        self.engine.scan(from, to, visit)
    }

    fn scan_back(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        self.engine.scan_back(from, to, visit)
    }
}

#[cfg(test)]
mod tests {
    use meridian_storage::{Durability, Engine, MemoryEngine};
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> Vec<u8> {
        vec![Kind::Version as u8, number]
    }

    #[derive(Clone, Debug)]
    enum Change {
        /// Key, length, and what it is full of.
        Put(u8, usize, u8),
        Delete(u8),
        DeleteRange(u8, u8),
        Other(u8),
    }

    fn any_batches() -> impl Strategy<Value = Vec<Vec<Change>>> {
        let change = prop_oneof![
            4 => (any::<u8>(), 0..400_usize, any::<u8>()).prop_map(|(key, len, fill)| Change::Put(key, len, fill)),
            // Records that are written again are mostly as long as before.
            4 => (any::<u8>(), any::<u8>()).prop_map(|(key, fill)| Change::Put(key, 100, fill)),
            1 => any::<u8>().prop_map(|key| Change::Put(key, CACHED_RECORD_BYTES_MAX, 0)),
            3 => any::<u8>().prop_map(Change::Delete),
            1 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Change::DeleteRange(a, b)),
            1 => any::<u8>().prop_map(Change::Other),
        ];
        prop::collection::vec(prop::collection::vec(change, 0..40), 0..12)
    }

    fn batch(changes: &[Change]) -> Batch {
        let mut batch = Batch::new();
        for change in changes {
            match change {
                Change::Put(number, len, fill) => batch.put(key(*number), vec![*fill; *len]),
                Change::Delete(number) => batch.delete(key(*number)),
                Change::DeleteRange(from, to) => batch.delete_range(key(*from), key(*to)),
                Change::Other(number) => batch.put(vec![Kind::OpOrder as u8, *number], vec![1]),
            }
        }
        batch
    }

    fn filled(records: &mut RecordCache, changes: &[Change]) {
        records.follow(&batch(changes));
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_the_engine_holds(batches in any_batches(), bytes_max in 0..40_000_u64) {
            let engine = MemoryEngine::new();
            let mut records = RecordCache::of_bytes(bytes_max);
            for changes in batches {
                let batch = batch(&changes);
                engine.write(&batch, Durability::Buffered).unwrap();
                records.follow(&batch);
                for number in 0..=u8::MAX {
                    let seen = Recent::of(&engine, &records).get(&key(number)).unwrap();
                    prop_assert_eq!(seen, engine.get(&key(number)).unwrap());
                }
            }
        }
    }

    #[test]
    fn a_record_that_was_written_is_here_until_it_is_deleted() {
        let mut records = RecordCache::of_bytes(1 << 20);
        filled(&mut records, &[Change::Put(1, 3, 0), Change::Put(2, 4, 0)]);
        assert_eq!(records.get(&key(1)).map(<[u8]>::len), Some(3));
        filled(&mut records, &[Change::Put(1, 5, 0), Change::Delete(2)]);
        assert_eq!(records.get(&key(1)).map(<[u8]>::len), Some(5));
        assert_eq!(records.get(&key(2)), None);
    }

    #[test]
    fn a_record_as_long_as_the_one_before_takes_its_place() {
        let mut records = RecordCache::of_bytes(1 << 20);
        filled(&mut records, &[Change::Put(1, 3, 7), Change::Put(2, 3, 7)]);
        let bytes = records.bytes;
        filled(&mut records, &[Change::Put(1, 3, 8)]);
        assert_eq!(records.get(&key(1)), Some(&[8; 3][..]));
        assert_eq!(records.get(&key(2)), Some(&[7; 3][..]));
        assert_eq!(records.bytes, bytes);
    }

    #[test]
    fn a_dropped_range_takes_its_records_and_one_of_other_kinds_none() {
        let mut records = RecordCache::of_bytes(1 << 20);
        filled(&mut records, &[Change::Put(1, 3, 0)]);
        let mut trim = Batch::new();
        trim.delete_range(vec![Kind::Outbox as u8], vec![Kind::Outbox as u8 + 1]);
        records.follow(&trim);
        assert!(records.get(&key(1)).is_some());
        filled(&mut records, &[Change::DeleteRange(0, 2)]);
        assert_eq!(records.get(&key(1)), None);
    }

    #[test]
    fn a_large_record_is_not_kept_nor_is_what_it_replaces() {
        let mut records = RecordCache::of_bytes(1 << 20);
        filled(&mut records, &[Change::Put(1, 3, 0)]);
        filled(&mut records, &[Change::Put(1, CACHED_RECORD_BYTES_MAX, 0)]);
        assert_eq!(records.get(&key(1)), None);
    }

    #[test]
    fn it_stays_within_its_bytes_and_keeps_what_came_last() {
        let mut records = RecordCache::of_bytes(8_192);
        for number in 0..=u8::MAX {
            filled(&mut records, &[Change::Put(number, 900, 0)]);
            assert!(records.get(&key(number)).is_some());
        }
        assert!(records.bytes <= 8_192);
    }

    #[test]
    fn without_bytes_nothing_is_kept() {
        let mut records = RecordCache::of_bytes(100);
        filled(&mut records, &[Change::Put(1, 3, 0)]);
        assert_eq!(records.get(&key(1)), None);
    }
}
