//! The sets of a shard's keys, and what is derived from them: the indexes of conflicts, tombstones and expiries, and counts.
//!
//! Invariant: an index entry is there exactly when its key's record says so. Every change of a record goes through
//! [`Step::hold`] and [`Step::store`].

use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::{Dot, Sibling, SiblingSet};
use meridian_storage::Read;

use super::step::{Held, Step};
use crate::error::Error;
use crate::keys::{ConflictKey, ExpiryKey, Place, TombstoneKey, VersionKey};

/// The set of a key; empty when there is no record.
pub fn load(read: &dyn Read, place: Place, key: &[u8]) -> Result<SiblingSet, Error> {
    let stored = VersionKey::encode(place, key);
    match read.get(&stored)? {
        Some(record) => VersionKey::decode_record(&stored, &record).map(|(_, set)| set),
        None => Ok(SiblingSet::new()),
    }
}

/// The set of a key, and the log index of its last change; `None` when there is no record.
pub fn examine(
    read: &dyn Read,
    place: Place,
    key: &[u8],
) -> Result<(Option<u64>, SiblingSet), Error> {
    let stored = VersionKey::encode(place, key);
    match read.get(&stored)? {
        Some(record) => VersionKey::decode_record(&stored, &record)
            .map(|(header, set)| (Some(header.index), set)),
        None => Ok((None, SiblingSet::new())),
    }
}

/// The log index of a key's last change; `None` when there is no record.
pub fn stamp(read: &dyn Read, place: Place, key: &[u8]) -> Result<Option<u64>, Error> {
    let stored = VersionKey::encode(place, key);
    let record = read.get(&stored)?;
    record
        .map(|record| VersionKey::header(&stored, &record).map(|header| header.index))
        .transpose()
}

/// Whether a set shows exactly one version, with this value.
pub fn holds_value(set: &SiblingSet, value: &Bytes) -> bool {
    match set.versions().as_slice() {
        [only] => only.content().value() == Some(value),
        _ => false,
    }
}

/// Takes a stored key and its record.
pub type VisitRecord<'v> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Error> + 'v;

/// Visits the records of `[from, to)` in key order, tombstones too; without `to`, to the end of the shard.
pub fn scan(
    read: &dyn Read,
    place: Place,
    (from, to): (&[u8], Option<&[u8]>),
    visit: &mut VisitRecord<'_>,
) -> Result<(), Error> {
    let (first, end) = VersionKey::range(place, from, to);
    let mut outcome = Ok(());
    read.scan(
        &first,
        &end,
        &mut |stored, record| match visit(stored, record) {
            Ok(flow) => flow,
            Err(error) => {
                outcome = Err(error);
                ControlFlow::Break(())
            }
        },
    )?;
    outcome
}

/// What indexes and counts say of a set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    live: bool,
    conflict: bool,
    /// Dots of all siblings, if all are tombstones.
    tombstones: Vec<Dot>,
    /// When live siblings expire; sorted, each time once.
    expiries: Vec<u64>,
}

impl Facts {
    fn of(set: &SiblingSet) -> Self {
        let live = set.has_live();
        let tombstones = if live {
            Vec::new()
        } else {
            dots(set).collect()
        };
        Self {
            live,
            conflict: live && set.is_conflict(),
            tombstones,
            expiries: expiries(set),
        }
    }
}

fn expiries(set: &SiblingSet) -> Vec<u64> {
    let live = set.siblings().iter().filter(|sibling| sibling.is_live());
    let mut times: Vec<u64> = live.filter_map(|sibling| sibling.expires_at_ms).collect();
    times.sort_unstable();
    times.dedup();
    times
}

/// The dots of all siblings.
pub(super) fn dots(set: &SiblingSet) -> impl Iterator<Item = Dot> + '_ {
    set.siblings().iter().map(|sibling: &Sibling| sibling.dot)
}

impl Step<'_, '_, '_> {
    /// Takes up a key's set in order to change it.
    pub(super) fn hold(&self, key: &[u8]) -> Result<Held, Error> {
        let stored = VersionKey::encode(self.place, key);
        let record = self.get(&stored)?;
        let set = match &record {
            Some(record) => VersionKey::decode_record(&stored, record)?.1,
            None => SiblingSet::new(),
        };
        Ok(Held {
            before: Facts::of(&set),
            stored,
            record,
            set,
        })
    }

    /// Writes a set back, with the indexes and counts that follow from it. A set without siblings is dropped, unless
    /// its context speaks of writes that are still to come.
    pub(super) fn store(&mut self, key: &[u8], held: Held) {
        let after = Facts::of(&held.set);
        self.index(key, &held.before, &after);
        if !held.set.is_empty() || !held.set.context().within(&self.meta.received) {
            self.work.put(
                held.stored,
                VersionKey::encode_record(self.header, &held.set),
            );
        } else if held.record.is_some() {
            self.drop_record(held);
        }
    }

    /// Drops a key's record for good.
    pub(super) fn drop_record(&mut self, held: Held) {
        self.meta.forget(held.set.context());
        self.work.delete(held.stored);
    }

    /// Brings indexes and counts from `before` to `after`.
    pub(super) fn index(&mut self, key: &[u8], before: &Facts, after: &Facts) {
        count(&mut self.meta.keys, before.live.into(), after.live.into());
        count(
            &mut self.meta.conflicts,
            before.conflict.into(),
            after.conflict.into(),
        );
        count(
            &mut self.meta.tombstones,
            before.tombstones.len(),
            after.tombstones.len(),
        );
        if before.conflict != after.conflict {
            let stored = ConflictKey::encode(self.place, key);
            if after.conflict {
                self.work
                    .put(stored, ConflictKey::encode_record(self.header));
            } else {
                self.work.delete(stored);
            }
        }
        self.index_tombstones(key, &before.tombstones, &after.tombstones);
        self.index_expiries(key, &before.expiries, &after.expiries);
    }

    fn index_expiries(&mut self, key: &[u8], before: &[u64], after: &[u64]) {
        for gone in before.iter().filter(|time| !after.contains(time)) {
            self.work.delete(ExpiryKey::encode(self.place, *gone, key));
        }
        for come in after.iter().filter(|time| !before.contains(time)) {
            let stored = ExpiryKey::encode(self.place, *come, key);
            self.work.put(stored, ExpiryKey::encode_record(self.header));
        }
    }

    fn index_tombstones(&mut self, key: &[u8], before: &[Dot], after: &[Dot]) {
        for gone in before.iter().filter(|dot| !after.contains(dot)) {
            self.work.delete(TombstoneKey::encode(self.place, *gone));
        }
        for come in after.iter().filter(|dot| !before.contains(dot)) {
            let record = TombstoneKey::encode_record(self.header, key);
            self.work
                .put(TombstoneKey::encode(self.place, *come), record);
        }
    }
}

/// Counts what was there before and is there after.
fn count(counter: &mut u64, before: usize, after: usize) {
    let [before, after] = [before, after].map(|counted| u64::try_from(counted).unwrap_or(u64::MAX));
    let counted = counter.saturating_add(after).checked_sub(before);
    assert!(
        counted.is_some(),
        "nothing goes that was not counted when it came"
    );
    *counter = counted.unwrap_or(0);
}

/// A key's canonical bytes without its record's frame, copied.
pub(super) fn set_bytes(stored: &[u8], record: &[u8]) -> Result<Bytes, Error> {
    VersionKey::set_bytes(stored, record).map(Bytes::copy_from_slice)
}
