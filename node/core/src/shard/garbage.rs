//! Tombstones that no zone needs any more (protocol rule 13).
//!
//! A tombstone may go here when every zone has it, when its context is within what was received here, and when every
//! write that did not know of it has arrived. Without the last: a zone writes the key before the tombstone reaches it;
//! this zone, told meanwhile that the other has the tombstone, drops it; the write arrives, and stands alone here but
//! beside a `deleted` sibling there. [`Stability`] sees to it. A write made after the tombstone was received where no
//! other sibling lives replaces it, whatever context it bears.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::{Dot, VersionVector, ZoneId};
use meridian_storage::Read;

use super::ShardMeta;
use super::step::Step;
use super::versions::{self, Facts};
use crate::error::Error;
use crate::ids::GroupId;
use crate::keys::{Place, TombstoneKey};

impl Step<'_, '_, '_> {
    /// Drops the keys that hold nothing but the tombstones named, if nothing they have seen is still to come.
    pub(super) fn drop_tombstones(&mut self, keys: &[(Bytes, Vec<Dot>)]) -> Result<(), Error> {
        for (key, dots) in keys {
            let held = self.hold(key)?;
            let only_these = held.set.all_tombstones() && versions::dots(&held.set).eq(dots.iter().copied());
            if only_these && held.set.context().within(&self.meta.received) {
                self.index(key, &held.before, &Facts::default());
                self.drop_record(held);
            }
        }
        Ok(())
    }
}

/// Keys whose tombstones may go, oldest tombstones first, with the dots of all of them. `stable` is the vector of a
/// [`Stability`].
pub fn tombstone_candidates(
    read: &dyn Read,
    meta: &ShardMeta,
    group: GroupId,
    stable: &VersionVector,
    limit: usize,
) -> Result<Vec<(Bytes, Vec<Dot>)>, Error> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (incarnation, through) in stable.iter() {
        let (from, to) = TombstoneKey::through(group.into(), incarnation, through);
        let mut outcome = Ok(());
        read.scan(&from, &to, &mut |stored, record| {
            outcome = candidate(read, (meta, group.into(), stable), stored, record, &mut seen).map(|candidate| {
                found.extend(candidate);
            });
            if outcome.is_err() || found.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        outcome?;
        if found.len() >= limit {
            break;
        }
    }
    Ok(found)
}

fn candidate(
    read: &dyn Read,
    (meta, place, stable): (&ShardMeta, Place, &VersionVector),
    stored: &[u8],
    record: &[u8],
    seen: &mut BTreeSet<Bytes>,
) -> Result<Option<(Bytes, Vec<Dot>)>, Error> {
    let key = Bytes::copy_from_slice(TombstoneKey::decode_record(stored, record)?);
    if !seen.insert(key.clone()) {
        return Ok(None);
    }
    let set = versions::load(read, place, &key)?;
    let everywhere = versions::dots(&set).all(|dot| stable.covers(dot));
    let droppable = set.all_tombstones() && everywhere && set.context().within(&meta.received);
    Ok(droppable.then(|| (key, versions::dots(&set).collect())))
}

/// Finds the vector of writes that every zone has, and that no write still on its way here is ignorant of.
///
/// It takes what each zone has said it received, waits until this zone has received all of that too (so also whatever
/// those zones wrote before they said so), and only then counts what they all had as stable.
#[derive(Clone, Debug, Default)]
pub struct Stability {
    asked: BTreeMap<ZoneId, VersionVector>,
    stable: VersionVector,
}

impl Stability {
    /// What is stable, given what this zone has `received` and what every other zone of the keyspace is `known` to have.
    /// A zone of `zones` that is not known has nothing; one that has less than before begins another life, and so does
    /// the search.
    pub fn observe(
        &mut self,
        received: &VersionVector,
        zones: &[ZoneId],
        known: &BTreeMap<ZoneId, VersionVector>,
    ) -> &VersionVector {
        let now_known = known_of(zones, known);
        let same_lives = self.asked.keys().eq(now_known.keys())
            && self.asked.iter().zip(&now_known).all(|((_, then), (_, now))| now.includes(then));
        if !same_lives {
            self.stable = VersionVector::new();
        } else if self.asked.values().all(|theirs| received.includes(theirs)) {
            self.stable = meet(received, &self.asked);
        } else {
            return &self.stable;
        }
        self.asked = now_known;
        &self.stable
    }
}

fn known_of(zones: &[ZoneId], known: &BTreeMap<ZoneId, VersionVector>) -> BTreeMap<ZoneId, VersionVector> {
    zones.iter().map(|zone| (*zone, known.get(zone).cloned().unwrap_or_default())).collect()
}

fn meet(received: &VersionVector, zones: &BTreeMap<ZoneId, VersionVector>) -> VersionVector {
    let mut everywhere = received.clone();
    for theirs in zones.values() {
        everywhere.meet(theirs);
    }
    everywhere
}
