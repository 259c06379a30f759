//! An engine in memory for the simulator and for tests: what a disk does, and on request what a bad one does.
//!
//! What this is not: it has no randomness, no clock and no threads. Every fault is asked for; a seed decides elsewhere.
//!
//! Invariants:
//! * `live` is what reads see. Undoing `undo` from its end to its start gives what the disk surely holds.
//! * `starts` holds where each batch since the last sync begins in `undo`, oldest first.
//! * A poisoned engine answers nothing but [`StorageError::Poisoned`] until [`MemoryEngine::crash`].
//!
//! A write costs one insertion plus one remembered old value; a sync forgets the old values; a view shares the tree
//! and copies only the nodes that change later.

mod state;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use crate::{Batch, Durability, Engine, Read, StorageError, View, Visitor};
use state::{Disk, Snapshot};

/// An [`Engine`] in memory that crashes, tears, corrupts and fills up on request.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    disk: RwLock<Disk>,
}

impl MemoryEngine {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// The machine loses power and starts again: of the batches written since the last sync, the first `keep_unsynced`
    /// reached the disk, the others never happened. Heals poisoning, as opening again would. A batch whose write
    /// failed with an unknown outcome counts as the last of them.
    pub fn crash(&self, keep_unsynced: usize) {
        self.disk().restart(keep_unsynced);
    }

    /// The same, with the last of the kept batches only half on disk: recovery finds its checksum wrong and drops it
    /// whole.
    pub fn crash_torn(&self, keep_unsynced: usize) {
        self.disk().restart(keep_unsynced.saturating_sub(1));
    }

    /// How many batches a crash could lose now: the largest useful argument of [`MemoryEngine::crash`].
    pub fn unsynced(&self) -> usize {
        self.read_disk().unsynced()
    }

    /// Damages the bytes under `key`: reading it, or scanning over it, answers [`StorageError::Corruption`] until it is
    /// written again. Nothing happens when the key is absent.
    pub fn corrupt(&self, key: &[u8]) {
        self.disk().corrupt(key);
    }

    /// The next write answers `error`. [`StorageError::DiskFull`] leaves everything as it was; with any other, the batch
    /// may be on disk or not ([`MemoryEngine::crash`] decides) and the engine is poisoned.
    pub fn fail_next_write(&self, error: StorageError) {
        self.disk().fail_next_write = Some(error);
    }

    /// From now on the disk is full (or no longer): a write of anything but an empty batch answers
    /// [`StorageError::DiskFull`], without effect.
    pub fn fill_disk(&self, full: bool) {
        self.disk().full = full;
    }

    /// A disk of its own with the same content, synced or not, and the same faults.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            disk: RwLock::new(self.read_disk().clone()),
        }
    }

    /// A disk of its own with what this one would surely hold after a crash now.
    #[must_use]
    pub fn durable_copy(&self) -> Self {
        let copy = self.fork();
        copy.crash(0);
        copy
    }

    /// Number of keys that reads see.
    pub fn len(&self) -> usize {
        self.read_disk().len()
    }

    /// True when reads see no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    // Nothing panics while the lock is held, except in a visitor, which holds a copy.
    fn disk(&self) -> RwLockWriteGuard<'_, Disk> {
        self.disk.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_disk(&self) -> RwLockReadGuard<'_, Disk> {
        self.disk.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a scan runs over, so that a visitor may use the engine.
    fn snapshot(&self) -> Result<Snapshot, StorageError> {
        self.read_disk().snapshot()
    }
}

impl Read for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.read_disk().get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), StorageError> {
        self.snapshot()?.scan(from, to, visit)
    }

    fn scan_back(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        self.snapshot()?.scan_back(from, to, visit)
    }
}

impl Engine for MemoryEngine {
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StorageError> {
        self.disk().write(batch, durability)
    }

    fn view(&self) -> Result<Box<dyn View>, StorageError> {
        Ok(Box::new(self.snapshot()?))
    }

    fn size_bytes(&self) -> Result<u64, StorageError> {
        self.read_disk().size_bytes()
    }
}
