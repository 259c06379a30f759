//! The engine on a real disk: RocksDB with two column families and one write-ahead log.
//!
//! What this is not: RocksDB's transactions, merge operators and compaction filters are not used; what is stored is
//! decided above, and a replica's bytes depend on nothing but its log.
//!
//! Invariants:
//! * Every batch goes through the one write-ahead log, so it is atomic across the families and batches are lost only
//!   from the end (`recovery.rs` says how that is kept at a restart).
//! * After a write with unknown outcome, nothing is read or written (`poisoned`): RocksDB may show what its log does not
//!   hold. A write is refused with `DiskFull` before anything happens, while there is still room for what RocksDB does
//!   in the background (`space.rs`); running out of space inside RocksDB poisons.
//! * The folder has one owner, until the engine and every view of it are dropped.

mod errors;
mod options;
mod recovery;
mod release;
mod scan;
mod space;
mod view;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rocksdb::{
    ColumnFamily, DBWithThreadMode, ReadOptions, SingleThreaded, WriteBatch, WriteOptions,
};

use crate::keys::Family;
use crate::{Batch, Durability, Engine, Op, Read, StorageError, View, Visitor};
use release::Release;
use scan::Direction;
use space::Space;

pub use options::RocksOptions;

/// What RocksDB puts before a batch, and beside the key and value of each change: so that the batch is not copied as it grows.
const BATCH_HEAD_BYTES: usize = 12;
const BATCH_OP_BYTES: usize = 12;

/// Column families are fixed at opening, so no lock is needed to find them.
type Db = DBWithThreadMode<SingleThreaded>;

/// An [`Engine`] on RocksDB.
#[derive(Debug)]
pub struct RocksEngine {
    inner: Arc<Inner>,
}

/// What the engine shares with its views. Fields drop in order: the database before the lock.
struct Inner {
    db: Db,
    _release: Release,
    path: PathBuf,
    poisoned: AtomicBool,
    space: Space,
    point_read: ReadOptions,
    synced: WriteOptions,
    buffered: WriteOptions,
    _lock: File,
}

impl RocksEngine {
    /// Opens the folder `path`, creating it when it is missing, and replays its log.
    ///
    /// # Errors
    /// [`StorageError::Locked`] when it is open elsewhere; [`StorageError::Corruption`] when synced bytes are damaged or
    /// missing; [`StorageError::Format`] when it is not ours to read.
    pub fn open(path: impl AsRef<Path>, options: &RocksOptions) -> Result<Self, StorageError> {
        let path = path.as_ref();
        let (db, lock) = recovery::open(path, options)?;
        let mut point_read = ReadOptions::default();
        point_read.set_verify_checksums(true);
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let inner = Inner {
            db,
            _release: Release::start(path, options.reserve_bytes),
            path: path.to_path_buf(),
            poisoned: AtomicBool::new(false),
            space: Space::new(path, options.reserve_bytes),
            point_read,
            synced,
            buffered: WriteOptions::default(),
            _lock: lock,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}

impl Inner {
    fn check_poison(&self) -> Result<(), StorageError> {
        if self.poisoned.load(Ordering::Acquire) {
            Err(StorageError::Poisoned)
        } else {
            Ok(())
        }
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, StorageError> {
        let name = options::family_name(family);
        self.db.cf_handle(name).ok_or_else(|| StorageError::Format {
            detail: format!("no column family {name}"),
        })
    }

    fn encode(&self, batch: &Batch) -> Result<WriteBatch, StorageError> {
        let [state, log] = [self.family(Family::State)?, self.family(Family::Log)?];
        let handle = |family| match family {
            Family::State => state,
            Family::Log => log,
        };
        let encoded_bytes = BATCH_HEAD_BYTES + batch.size_bytes() + BATCH_OP_BYTES * batch.len();
        let mut encoded = WriteBatch::with_capacity_bytes(encoded_bytes);
        for op in batch {
            match op {
                Op::Put { key, value } => encoded.put_cf(handle(Family::of(key)), key, value),
                Op::Delete { key } => encoded.delete_cf(handle(Family::of(key)), key),
                Op::DeleteRange { from, to } => {
                    for family in Family::ALL {
                        if let Some((from, to)) = family.clip(from, to) {
                            encoded.delete_range_cf(handle(family), from, to);
                        }
                    }
                }
            }
        }
        Ok(encoded)
    }

    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StorageError> {
        self.check_poison()?;
        if batch.is_empty() {
            return match durability {
                Durability::Synced => self.outcome(self.db.flush_wal(true)),
                Durability::Buffered => Ok(()),
            };
        }
        self.space.claim(batch)?;
        let encoded = self.encode(batch)?;
        let options = match durability {
            Durability::Synced => &self.synced,
            Durability::Buffered => &self.buffered,
        };
        self.outcome(self.db.write_opt(encoded, options))
    }

    /// Whatever RocksDB fails in writing has an unknown outcome.
    fn outcome(&self, result: Result<(), rocksdb::Error>) -> Result<(), StorageError> {
        result.map_err(|error| {
            self.poisoned.store(true, Ordering::Release);
            errors::from_rocksdb(&error)
        })
    }

    /// Bytes of all files in the folder; files that go away meanwhile do not count.
    fn size_bytes(&self) -> Result<u64, StorageError> {
        let mut total = 0;
        for entry in std::fs::read_dir(&self.path)
            .map_err(|error| errors::from_io("list", &self.path, &error))?
        {
            let entry = entry.map_err(|error| errors::from_io("list", &self.path, &error))?;
            match entry.metadata() {
                Ok(metadata) => total += metadata.len(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(errors::from_io("stat", &entry.path(), &error)),
            }
        }
        Ok(total)
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksEngine")
            .field("path", &self.path)
            .field("poisoned", &self.poisoned)
            .finish()
    }
}

impl Read for RocksEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.inner.check_poison()?;
        let family = self.inner.family(Family::of(key))?;
        let value = self
            .inner
            .db
            .get_cf_opt(family, key, &self.inner.point_read);
        Ok(value
            .map_err(|error| errors::from_rocksdb(&error))?
            .map(Bytes::from))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), StorageError> {
        scan::newest(&self.inner, (from, to), Direction::Up, visit)
    }

    fn scan_back(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        scan::newest(&self.inner, (from, to), Direction::Down, visit)
    }
}

impl Engine for RocksEngine {
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StorageError> {
        self.inner.write(batch, durability)
    }

    fn view(&self) -> Result<Box<dyn View>, StorageError> {
        self.inner.check_poison()?;
        Ok(Box::new(view::RocksView::take(Arc::clone(&self.inner))))
    }

    fn size_bytes(&self) -> Result<u64, StorageError> {
        self.inner.size_bytes()
    }
}
