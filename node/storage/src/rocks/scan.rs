//! Ordered iteration over both families as if they were one map.

use std::ops::ControlFlow;

use rocksdb::{ColumnFamily, DBRawIteratorWithThreadMode, ReadOptions, SnapshotWithThreadMode};

use super::{Db, Inner, errors};
use crate::keys::Family;
use crate::{StorageError, Visitor};

type RawIterator<'a> = DBRawIteratorWithThreadMode<'a, Db>;

/// The order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

/// Where iterators come from.
pub(super) trait Source {
    fn iterator<'a>(&'a self, family: &ColumnFamily, options: ReadOptions) -> RawIterator<'a>;
}

impl Source for Db {
    fn iterator<'a>(&'a self, family: &ColumnFamily, options: ReadOptions) -> RawIterator<'a> {
        self.raw_iterator_cf_opt(family, options)
    }
}

impl Source for SnapshotWithThreadMode<'_, Db> {
    fn iterator<'a>(&'a self, family: &ColumnFamily, options: ReadOptions) -> RawIterator<'a> {
        self.raw_iterator_cf_opt(family, options)
    }
}

/// Scans the newest state. A scan over both families takes a snapshot, so that both halves are of one moment; within a
/// family the iterator is one by itself.
pub(super) fn newest(
    inner: &Inner,
    range: (&[u8], &[u8]),
    direction: Direction,
    visit: &mut Visitor<'_>,
) -> Result<(), StorageError> {
    let (from, to) = range;
    if Family::ALL
        .iter()
        .all(|family| family.clip(from, to).is_some())
    {
        walk(inner, &inner.db.snapshot(), range, direction, visit)
    } else {
        walk(inner, &inner.db, range, direction, visit)
    }
}

/// Scans `source` over the families in the order of the direction.
pub(super) fn walk(
    inner: &Inner,
    source: &impl Source,
    (from, to): (&[u8], &[u8]),
    direction: Direction,
    visit: &mut Visitor<'_>,
) -> Result<(), StorageError> {
    inner.check_poison()?;
    let mut order = Family::ALL;
    if direction == Direction::Down {
        order.reverse();
    }
    for family in order {
        let Some((from, to)) = family.clip(from, to) else {
            continue;
        };
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        let entries = source.iterator(inner.family(family)?, options);
        if run(entries, direction, visit)?.is_break() {
            break;
        }
    }
    Ok(())
}

fn run(
    mut entries: RawIterator<'_>,
    direction: Direction,
    visit: &mut Visitor<'_>,
) -> Result<ControlFlow<()>, StorageError> {
    match direction {
        Direction::Up => entries.seek_to_first(),
        Direction::Down => entries.seek_to_last(),
    }
    while let Some((key, value)) = entries.item() {
        if visit(key, value).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        match direction {
            Direction::Up => entries.next(),
            Direction::Down => entries.prev(),
        }
    }
    // An iterator that fails is no longer valid, just like one that has reached its end: only the status tells.
    entries
        .status()
        .map_err(|error| errors::from_rocksdb(&error))?;
    Ok(ControlFlow::Continue(()))
}
