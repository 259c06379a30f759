//! The contract between the core and a disk.
//!
//! Everything is behind `&dyn`, so that no type parameter travels through the crates above. There is no transaction
//! and no read-modify-write here: one writer decides, the engine stores.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::{Batch, StorageError};

/// What a scan calls with each key and its value; `Break` ends the scan.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Reading, from an engine (the newest state) or from a view (a fixed one).
pub trait Read {
    /// The value of `key`, or `None` when there is none.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// Visits the keys in `[from, to)` in ascending order until the visitor breaks. An empty or inverted range visits
    /// nothing. One scan sees one state, also while others write. After an error, what was visited before it was right.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), StorageError>;

    /// The same keys in descending order.
    fn scan_back(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut Visitor<'_>,
    ) -> Result<(), StorageError>;
}

/// A state that does not change, whatever is written to the engine later.
pub trait View: Read + Send + Sync {}

/// An ordered map of bytes on a disk, or something that behaves like one.
pub trait Engine: Read + Send + Sync + 'static {
    /// Applies a batch as a whole. When it returns, later reads see it; with [`Durability::Synced`], it and every batch
    /// before it survive a crash. An empty synced batch only syncs.
    ///
    /// After [`StorageError::DiskFull`] nothing has happened, and the caller may try again. After any other error the
    /// outcome is unknown and the engine is poisoned.
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StorageError>;

    /// The state as it is now. Cheap to take; holding it keeps old data on disk and the engine's lock.
    fn view(&self) -> Result<Box<dyn View>, StorageError>;

    /// About how many bytes the engine takes on its disk.
    fn size_bytes(&self) -> Result<u64, StorageError>;
}

/// When a write returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it is on disk, with everything written before it.
    Synced,
    /// When it is readable. A crash of the machine may lose it, together with every batch after it.
    Buffered,
}
