//! The writes of one turn of the core, over all of its groups, on top of what the engine holds.
//!
//! What it is: a write buffer that reads through. Whoever applies an entry sees the writes of the entries before it,
//! whether they are in the engine already or in this turn; so the result does not depend on where a turn ends
//! (invariant 10). Many writes of one record in a turn leave as one.
//!
//! What it is not: it does not write. The driver writes the batch of [`Workspace::into_batch`].
//!
//! Invariants:
//! * in the batch, range deletions stand before puts and deletes; a pending put in a range that is deleted afterwards
//!   is gone from the batch;
//! * a scan sees exactly what an engine would show that had taken the batch.
//!
//! Read [`meridian_storage::Read`] first: a workspace is one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use meridian_storage::{Batch, Read, StorageError};

/// The visitor of a scan.
type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// The writes of one turn, read-your-writes.
pub struct Workspace<'a> {
    engine: &'a dyn Read,
    /// What each key becomes; `None`: nothing.
    pending: BTreeMap<Bytes, Option<Bytes>>,
    /// Ranges deleted from the engine, from first to end; disjoint.
    deleted: BTreeMap<Bytes, Bytes>,
    hash: Option<EntryHash>,
    size_bytes: usize,
}

impl<'a> Workspace<'a> {
    /// No writes yet. With `observe`, hashes of what each entry writes are kept for checkers.
    pub fn new(engine: &'a dyn Read, observe: bool) -> Self {
        Self {
            engine,
            pending: BTreeMap::new(),
            deleted: BTreeMap::new(),
            hash: observe.then(EntryHash::new),
            size_bytes: 0,
        }
    }

    /// True when nothing was written.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.deleted.is_empty()
    }

    /// Bytes put and deleted so far, repeated writes of a key included: what bounds a turn.
    pub const fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Sets the value of `key`.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), value.into());
        if let Some(hash) = &mut self.hash {
            hash.add(b"put", &key, &value);
            hash.touched.insert(key.clone());
        }
        self.size_bytes += key.len() + value.len();
        self.pending.insert(key, Some(value));
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        let key = key.into();
        if let Some(hash) = &mut self.hash {
            hash.add(b"delete", &key, &[]);
            hash.touched.insert(key.clone());
        }
        self.size_bytes += key.len();
        self.pending.insert(key, None);
    }

    /// Removes every key in `[from, to)`, pending ones too. A range costs the engine more than a key does: for the
    /// outbox, logs and whole shards.
    pub fn delete_range(&mut self, from: impl Into<Bytes>, to: impl Into<Bytes>) {
        let (mut from, mut to) = (from.into(), to.into());
        if from >= to {
            return;
        }
        if let Some(hash) = &mut self.hash {
            hash.add(b"range", &from, &to);
        }
        self.size_bytes += from.len() + to.len();
        let doomed: Vec<Bytes> = self
            .pending_in(&from, &to)
            .map(|(key, _)| key.clone())
            .collect();
        for key in doomed {
            self.pending.remove(&key);
        }
        while let Some((start, end)) = self.deleted_touching(&from, &to) {
            self.deleted.remove(&start);
            from = from.min(start);
            to = to.max(end);
        }
        self.deleted.insert(from, to);
    }

    /// Everything written until [`Workspace::entry_hash`] belongs to one entry.
    pub fn begin_entry(&mut self) {
        if let Some(hash) = &mut self.hash {
            *hash = EntryHash::new();
        }
    }

    /// Hash over everything written since [`Workspace::begin_entry`]; 0 unless observing.
    pub fn entry_hash(&self) -> u64 {
        self.hash.as_ref().map_or(0, |hash| hash.state)
    }

    /// The single keys put and deleted since [`Workspace::begin_entry`]; none unless observing.
    pub fn entry_keys(&self) -> Vec<Bytes> {
        let touched = self.hash.as_ref().map(|hash| &hash.touched);
        touched.into_iter().flatten().cloned().collect()
    }

    /// The writes, ready for the engine.
    pub fn into_batch(self) -> Batch {
        let mut batch = Batch::with_capacity(self.deleted.len() + self.pending.len());
        for (from, to) in self.deleted {
            batch.delete_range(from, to);
        }
        for (key, value) in self.pending {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        batch
    }

    fn pending_in(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> impl DoubleEndedIterator<Item = (&Bytes, &Option<Bytes>)> + use<'_, 'a> {
        self.pending
            .range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
    }

    /// A deleted range that overlaps `[from, to)` or begins or ends where it does.
    fn deleted_touching(&self, from: &[u8], to: &[u8]) -> Option<(Bytes, Bytes)> {
        let (start, end) = self
            .deleted
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(to)))
            .next_back()?;
        (end.as_ref() >= from).then(|| (start.clone(), end.clone()))
    }

    fn is_deleted(&self, key: &[u8]) -> bool {
        let before = self
            .deleted
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back();
        before.is_some_and(|(_, end)| key < end.as_ref())
    }

    /// Merges pending writes into what a scan of the engine shows. `earlier` is the order of the scan.
    fn merged<'p>(
        &'p self,
        pending: impl Iterator<Item = (&'p Bytes, &'p Option<Bytes>)>,
        earlier: fn(&[u8], &[u8]) -> bool,
        visit: &mut Visit<'_>,
        scan: &mut dyn FnMut(&mut Visit<'_>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut pending = pending.peekable();
        let mut stopped = false;
        scan(&mut |key, value| {
            let mut flow = ControlFlow::Continue(());
            while let Some((own, written)) =
                pending.next_if(|(own, _)| flow.is_continue() && earlier(own, key))
            {
                flow = show(own, written.as_ref(), visit);
            }
            if flow.is_continue() {
                flow = match pending.next_if(|(own, _)| own.as_ref() == key) {
                    Some((own, written)) => show(own, written.as_ref(), visit),
                    None if self.is_deleted(key) => flow,
                    None => visit(key, value),
                };
            }
            stopped = flow.is_break();
            flow
        })?;
        if !stopped {
            for (own, written) in pending {
                if show(own, written.as_ref(), visit).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn show(key: &Bytes, written: Option<&Bytes>, visit: &mut Visit<'_>) -> ControlFlow<()> {
    written.map_or(ControlFlow::Continue(()), |value| visit(key, value))
}

impl Read for Workspace<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match self.pending.get(key) {
            Some(written) => Ok(written.clone()),
            None if self.is_deleted(key) => Ok(None),
            None => self.engine.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        if from >= to {
            return Ok(());
        }
        let pending = self.pending_in(from, to);
        self.merged(pending, |a, b| a < b, visit, &mut |each| {
            self.engine.scan(from, to, each)
        })
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        if from >= to {
            return Ok(());
        }
        let pending = self.pending_in(from, to).rev();
        self.merged(pending, |a, b| a > b, visit, &mut |each| {
            self.engine.scan_back(from, to, each)
        })
    }
}

/// A running hash: fixed for ever by its constants, fast, and without any strength against intent.
struct EntryHash {
    state: u64,
    touched: BTreeSet<Bytes>,
}

impl EntryHash {
    const fn new() -> Self {
        Self {
            state: 0xcbf2_9ce4_8422_2325,
            touched: BTreeSet::new(),
        }
    }

    fn add(&mut self, what: &[u8], key: &[u8], value: &[u8]) {
        for part in [what, key, value] {
            self.word(u64::try_from(part.len()).unwrap_or(u64::MAX));
            let (words, rest) = part.as_chunks::<8>();
            for word in words {
                self.word(u64::from_be_bytes(*word));
            }
            for byte in rest {
                self.word(u64::from(*byte));
            }
        }
    }

    const fn word(&mut self, word: u64) {
        self.state = (self.state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.state ^= self.state >> 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_storage::{Durability, Engine, MemoryEngine};
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Change {
        Put(u8, u8),
        Delete(u8),
        DeleteRange(u8, u8),
    }

    fn any_changes() -> impl Strategy<Value = Vec<Change>> {
        let key = || 0..24_u8;
        let change = prop_oneof![
            4 => (key(), any::<u8>()).prop_map(|(key, value)| Change::Put(key, value)),
            2 => key().prop_map(Change::Delete),
            1 => (key(), key()).prop_map(|(from, to)| Change::DeleteRange(from, to)),
        ];
        prop::collection::vec(change, 0..40)
    }

    fn make(work: &mut Workspace<'_>, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(key, value) => work.put(vec![*key], vec![*value]),
                Change::Delete(key) => work.delete(vec![*key]),
                Change::DeleteRange(from, to) => work.delete_range(vec![*from], vec![*to]),
            }
        }
    }

    fn model(map: &mut BTreeMap<u8, u8>, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(key, value) => {
                    map.insert(*key, *value);
                }
                Change::Delete(key) => {
                    map.remove(key);
                }
                Change::DeleteRange(from, to) => map.retain(|key, _| key < from || key >= to),
            }
        }
    }

    fn written(changes: &[Change]) -> MemoryEngine {
        let engine = MemoryEngine::new();
        let empty = MemoryEngine::new();
        let mut work = Workspace::new(&empty, false);
        make(&mut work, changes);
        engine
            .write(&work.into_batch(), Durability::Buffered)
            .unwrap();
        engine
    }

    /// The first `count` keys and values of a scan.
    fn scanned(read: &dyn Read, (from, to): (u8, u8), count: usize, back: bool) -> Vec<(u8, u8)> {
        let mut seen = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            seen.push((key[0], value[0]));
            if seen.len() < count {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        let scanned = if back {
            read.scan_back(&[from], &[to], &mut visit)
        } else {
            read.scan(&[from], &[to], &mut visit)
        };
        scanned.unwrap();
        seen
    }

    proptest! {
        #[test]
        fn a_workspace_reads_like_the_engine_that_took_its_batch(
            before in any_changes(), changes in any_changes(), from in 0..24_u8, to in 0..26_u8, count in 1..10_usize,
        ) {
            let mut expected = BTreeMap::new();
            model(&mut expected, &before);
            model(&mut expected, &changes);
            let engine = written(&before);
            let mut work = Workspace::new(&engine, false);
            make(&mut work, &changes);
            let range: Vec<_> =
                expected.iter().map(|(k, v)| (*k, *v)).filter(|(k, _)| (from..to).contains(k)).collect();
            let forth: Vec<_> = range.iter().copied().take(count).collect();
            let back: Vec<_> = range.iter().rev().copied().take(count).collect();
            let check = |read: &dyn Read| {
                assert_eq!(scanned(read, (from, to), count, false), forth);
                assert_eq!(scanned(read, (from, to), count, true), back);
                for key in 0..24 {
                    let value = read.get(&[key]).unwrap();
                    assert_eq!(value.map(|value| value[0]), expected.get(&key).copied());
                }
            };
            check(&work);
            let batch = work.into_batch();
            engine.write(&batch, Durability::Buffered).unwrap();
            check(&engine);
        }
    }

    #[test]
    fn many_writes_of_one_record_leave_as_one() {
        let engine = MemoryEngine::new();
        let mut work = Workspace::new(&engine, false);
        assert!(work.is_empty());
        for n in 0..9_u8 {
            work.put(&b"k"[..], vec![n]);
        }
        assert_eq!(work.size_bytes(), 18);
        assert_eq!(work.into_batch().len(), 1);
    }

    #[test]
    fn an_entry_hash_covers_keys_values_kind_and_order_of_its_entry_only() {
        let engine = MemoryEngine::new();
        let hash = |act: &dyn Fn(&mut Workspace<'_>)| {
            let mut work = Workspace::new(&engine, true);
            work.put(&b"earlier"[..], &b"entry"[..]);
            work.begin_entry();
            act(&mut work);
            work.entry_hash()
        };
        let acts: [&dyn Fn(&mut Workspace<'_>); 7] = [
            &|_| {},
            &|work| work.put(&b"a"[..], &b"b"[..]),
            &|work| work.put(&b"ab"[..], &b""[..]),
            &|work| work.delete(&b"a"[..]),
            &|work| work.delete_range(&b"a"[..], &b"b"[..]),
            &|work| {
                work.delete(&b"a"[..]);
                work.delete(&b"b"[..]);
            },
            &|work| {
                work.delete(&b"b"[..]);
                work.delete(&b"a"[..]);
            },
        ];
        let mut hashes: Vec<_> = acts.iter().map(|act| hash(act)).collect();
        assert_eq!(hashes, acts.iter().map(|act| hash(act)).collect::<Vec<_>>());
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), acts.len());
        let mut blind = Workspace::new(&engine, false);
        blind.put(&b"a"[..], &b"b"[..]);
        assert_eq!(blind.entry_hash(), 0);
    }

    #[test]
    fn an_engine_that_fails_is_an_error_of_the_read() {
        let engine = written(&[Change::Put(1, 1)]);
        engine.corrupt(&[1]);
        let work = Workspace::new(&engine, false);
        assert!(work.get(&[1]).is_err());
        assert!(
            work.scan(&[0], &[9], &mut |_, _| ControlFlow::Continue(()))
                .is_err()
        );
    }
}
