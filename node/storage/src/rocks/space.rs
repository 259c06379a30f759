//! Refusing a write while refusing is still harmless.
//!
//! When RocksDB itself runs out of space, a record may be half in the log, and no later write can be trusted. So we
//! look at the free space ourselves and stop early, while all write buffers can still be written out (compaction may fail
//! for want of space, that does no harm). Asking the system for every batch would cost more than many a batch,
//! so an answer is good for a number of bytes, fewer the closer the end is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::errors;
use crate::{Batch, StorageError};

/// Bytes that may be written on one answer of the system, at most: other writers use the disk too.
const CREDIT_BYTES_MAX: u64 = 4 << 20;
/// A byte of a batch takes some more on disk: log, table file, and compaction of it.
const AMPLIFICATION: u64 = 8;
/// Of a small file system, one part in so many is kept in reserve.
const RESERVE_PART: u64 = 8;
/// What a record costs beside its bytes, roughly.
const RECORD_OVERHEAD_BYTES: u64 = 32;

/// What the system says of a file system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    free_bytes: u64,
    pub(super) total_bytes: u64,
}

impl Room {
    /// Of the file system that `path` is on.
    pub(super) fn of(path: &Path) -> Result<Self, StorageError> {
        let stat = rustix::fs::statvfs(path)
            .map_err(|errno| errors::from_io("statvfs", path, &errno.into()))?;
        Ok(Self {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }

    /// Whether less is free than twice what is to stay free.
    pub(super) const fn is_short_of(self, reserve_bytes: u64) -> bool {
        self.free_bytes < reserve_bytes.saturating_mul(2)
    }
}

/// The watch over the free space of one folder.
#[derive(Debug)]
pub(super) struct Space {
    path: PathBuf,
    reserve_bytes: u64,
    credit_bytes: AtomicU64,
}

impl Space {
    pub(super) fn new(path: &Path, reserve_bytes: u64) -> Self {
        Self {
            path: path.to_path_buf(),
            reserve_bytes,
            credit_bytes: AtomicU64::new(0),
        }
    }

    /// Asks for room for `batch`.
    pub(super) fn claim(&self, batch: &Batch) -> Result<(), StorageError> {
        let records = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let bytes = u64::try_from(batch.size_bytes()).unwrap_or(u64::MAX);
        let bytes = bytes.saturating_add(records.saturating_mul(RECORD_OVERHEAD_BYTES));
        let spend = |credit: u64| credit.checked_sub(bytes);
        if self
            .credit_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
            .is_ok()
        {
            return Ok(());
        }
        let credit = grant(Room::of(&self.path)?, self.reserve_bytes, bytes)?;
        self.credit_bytes.store(credit, Ordering::Relaxed);
        Ok(())
    }
}

/// The credit left after a write of `bytes`, or the refusal.
fn grant(room: Room, reserve_bytes: u64, bytes: u64) -> Result<u64, StorageError> {
    let reserve_bytes = reserve_bytes.min(room.total_bytes / RESERVE_PART);
    let usable = room.free_bytes.saturating_sub(reserve_bytes) / AMPLIFICATION;
    if usable <= bytes {
        return Err(StorageError::DiskFull {
            free_bytes: room.free_bytes,
            reserve_bytes,
        });
    }
    Ok((usable - bytes).min(CREDIT_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn room(free_bytes: u64) -> Room {
        Room {
            free_bytes,
            total_bytes: 100 * GIB,
        }
    }

    #[test]
    fn a_roomy_disk_grants_the_largest_credit() {
        assert_eq!(grant(room(50 * GIB), GIB, 100), Ok(CREDIT_BYTES_MAX));
    }

    #[test]
    fn credit_shrinks_as_the_reserve_comes_near() {
        assert_eq!(grant(room(GIB + 8_000), GIB, 100), Ok(900));
    }

    #[test]
    fn a_write_into_the_reserve_is_refused_with_both_figures() {
        let full = StorageError::DiskFull {
            free_bytes: GIB + 80,
            reserve_bytes: GIB,
        };
        assert_eq!(grant(room(GIB + 80), GIB, 100), Err(full));
        assert!(grant(room(0), GIB, 1).is_err());
        assert!(grant(room(0), 0, 1).is_err());
    }

    #[test]
    fn a_small_file_system_keeps_an_eighth() {
        let small = Room {
            free_bytes: 40 << 20,
            total_bytes: 64 << 20,
        };
        assert!(grant(small, GIB, 100).is_ok());
        let nearly_full = Room {
            free_bytes: 8 << 20,
            total_bytes: 64 << 20,
        };
        assert!(grant(nearly_full, GIB, 100).is_err());
    }
}
