//! What the memory engine holds: the live map, how to undo what is not synced, and the faults asked for.

use std::ops::Bound;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

use crate::{Batch, Durability, Op, Read, StorageError, View, Visitor};

/// What a full disk reports as kept in reserve; the figure is arbitrary.
const RESERVE_BYTES: u64 = 1 << 20;

/// A change to take back: the key and the value it had.
#[derive(Debug, Clone)]
struct Undo {
    key: Bytes,
    before: Option<Bytes>,
}

/// The content of one disk. See the module above for its invariants.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    live: OrdMap<Bytes, Bytes>,
    undo: Vec<Undo>,
    starts: Vec<usize>,
    corrupted: OrdSet<Bytes>,
    size_bytes: u64,
    poisoned: bool,
    pub(super) full: bool,
    pub(super) fail_next_write: Option<StorageError>,
}

impl Disk {
    pub(super) fn unsynced(&self) -> usize {
        self.starts.len()
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn size_bytes(&self) -> Result<u64, StorageError> {
        self.check_poison()?;
        Ok(self.size_bytes)
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.check_poison()?;
        read_one(&self.live, &self.corrupted, key)
    }

    pub(super) fn snapshot(&self) -> Result<Snapshot, StorageError> {
        self.check_poison()?;
        Ok(Snapshot {
            map: self.live.clone(),
            corrupted: self.corrupted.clone(),
        })
    }

    pub(super) fn write(
        &mut self,
        batch: &Batch,
        durability: Durability,
    ) -> Result<(), StorageError> {
        self.check_poison()?;
        let failure = self.fail_next_write.take();
        if let Some(error @ StorageError::DiskFull { .. }) = failure {
            return Err(error);
        }
        if self.full && !batch.is_empty() {
            return Err(StorageError::DiskFull {
                free_bytes: 0,
                reserve_bytes: RESERVE_BYTES,
            });
        }
        if !batch.is_empty() {
            self.starts.push(self.undo.len());
            self.apply(batch);
        }
        if let Some(error) = failure {
            self.poisoned = true;
            return Err(error);
        }
        if durability == Durability::Synced {
            self.starts.clear();
            self.undo.clear();
        }
        Ok(())
    }

    pub(super) fn corrupt(&mut self, key: &[u8]) {
        if let Some((key, _)) = self.live.get_key_value(key) {
            self.corrupted.insert(key.clone());
        }
    }

    pub(super) fn restart(&mut self, keep_unsynced: usize) {
        if let Some(&start) = self.starts.get(keep_unsynced) {
            for Undo { key, before } in self.undo.split_off(start).into_iter().rev() {
                match before {
                    Some(value) => self.set(key, value),
                    None => self.remove(&key),
                };
            }
        }
        self.starts.clear();
        self.undo.clear();
        self.poisoned = false;
        self.fail_next_write = None;
    }

    fn check_poison(&self) -> Result<(), StorageError> {
        if self.poisoned {
            Err(StorageError::Poisoned)
        } else {
            Ok(())
        }
    }

    fn apply(&mut self, batch: &Batch) {
        for op in batch {
            match op {
                Op::Put { key, value } => {
                    let key = key.clone();
                    let before = self.set(key.clone(), value.clone());
                    self.undo.push(Undo { key, before });
                }
                Op::Delete { key } => self.delete(key.clone()),
                Op::DeleteRange { from, to } => {
                    for key in self.keys_between(from, to) {
                        self.delete(key);
                    }
                }
            }
        }
    }

    fn delete(&mut self, key: Bytes) {
        if let Some(before) = self.remove(&key) {
            self.undo.push(Undo {
                key,
                before: Some(before),
            });
        }
    }

    fn keys_between(&self, from: &[u8], to: &[u8]) -> Vec<Bytes> {
        let mut keys = Vec::new();
        if from < to {
            let range = (Bound::Included(from), Bound::Excluded(to));
            keys.extend(
                self.live
                    .range::<_, [u8]>(range)
                    .map(|(key, _)| key.clone()),
            );
        }
        keys
    }

    /// Sets a key and gives back what it was. New bytes are good bytes.
    fn set(&mut self, key: Bytes, value: Bytes) -> Option<Bytes> {
        let added = size_of(&key, &value);
        if !self.corrupted.is_empty() {
            self.corrupted.remove(&key);
        }
        let key_len = key.len();
        let before = self.live.insert(key, value);
        let removed = before
            .as_ref()
            .map_or(0, |value| bytes_to_u64(key_len + value.len()));
        self.size_bytes = self.size_bytes + added - removed;
        before
    }

    fn remove(&mut self, key: &Bytes) -> Option<Bytes> {
        if !self.corrupted.is_empty() {
            self.corrupted.remove(key);
        }
        let before = self.live.remove(key);
        if let Some(value) = &before {
            self.size_bytes -= size_of(key, value);
        }
        before
    }
}

/// A state that does not change any more; shares its tree with the disk it was taken from.
#[derive(Debug)]
pub(super) struct Snapshot {
    map: OrdMap<Bytes, Bytes>,
    corrupted: OrdSet<Bytes>,
}

impl Snapshot {
    fn visit<'a>(
        &self,
        entries: impl Iterator<Item = (&'a Bytes, &'a Bytes)>,
        visit: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        for (key, value) in entries {
            check_corruption(&self.corrupted, key)?;
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Read for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        read_one(&self.map, &self.corrupted, key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), StorageError> {
        if from >= to {
            return Ok(());
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        self.visit(self.map.range::<_, [u8]>(range), visit)
    }

    fn scan_back(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        if from >= to {
            return Ok(());
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        self.visit(self.map.range::<_, [u8]>(range).rev(), visit)
    }
}

impl View for Snapshot {}

fn read_one(
    map: &OrdMap<Bytes, Bytes>,
    corrupted: &OrdSet<Bytes>,
    key: &[u8],
) -> Result<Option<Bytes>, StorageError> {
    check_corruption(corrupted, key)?;
    Ok(map.get(key).cloned())
}

fn check_corruption(corrupted: &OrdSet<Bytes>, key: &[u8]) -> Result<(), StorageError> {
    if !corrupted.is_empty() && corrupted.contains(key) {
        return Err(StorageError::Corruption {
            detail: format!("key {key:02x?}: checksum mismatch"),
        });
    }
    Ok(())
}

fn size_of(key: &[u8], value: &[u8]) -> u64 {
    bytes_to_u64(key.len() + value.len())
}

fn bytes_to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
