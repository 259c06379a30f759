//! A view that owns its engine: RocksDB's snapshot borrows the database, and the two travel together.

use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{ReadOptions, SnapshotWithThreadMode};
use self_cell::self_cell;

use super::scan::{self, Direction};
use super::{Db, Inner, errors};
use crate::keys::Family;
use crate::{Read, StorageError, View, Visitor};

type Snapshot<'a> = SnapshotWithThreadMode<'a, Db>;

self_cell!(
    /// The snapshot is released before its owner, whatever the order in which the rest is dropped.
    struct Pinned {
        owner: Arc<Inner>,
        #[covariant]
        dependent: Snapshot,
    }
);

/// One state of a [`super::RocksEngine`].
pub(super) struct RocksView {
    pinned: Pinned,
}

impl RocksView {
    pub(super) fn take(inner: Arc<Inner>) -> Self {
        Self {
            pinned: Pinned::new(inner, |inner| inner.db.snapshot()),
        }
    }
}

impl Read for RocksView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let inner = self.pinned.borrow_owner();
        inner.check_poison()?;
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        let value =
            self.pinned
                .borrow_dependent()
                .get_cf_opt(inner.family(Family::of(key))?, key, options);
        Ok(value
            .map_err(|error| errors::from_rocksdb(&error))?
            .map(Bytes::from))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), StorageError> {
        scan::walk(
            self.pinned.borrow_owner(),
            self.pinned.borrow_dependent(),
            (from, to),
            Direction::Up,
            visit,
        )
    }

    fn scan_back(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        scan::walk(
            self.pinned.borrow_owner(),
            self.pinned.borrow_dependent(),
            (from, to),
            Direction::Down,
            visit,
        )
    }
}

impl View for RocksView {}
