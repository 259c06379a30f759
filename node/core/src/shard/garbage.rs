//! Tombstones that no zone needs any more (protocol rule 13).
//!
//! A key that holds nothing but tombstones may be dropped here when every zone has everything this key has seen, and
//! when every write that did not know of the tombstones has arrived. Without the second: a zone writes the key before
//! a tombstone reaches it; this zone, told meanwhile that the other has the tombstone, drops it; the write arrives, and
//! stands alone here but beside a `deleted` sibling there. [`Stability`] sees to it. A write made where no other
//! sibling lives replaces the tombstones that were received there, whatever context it bears; and where another lives,
//! that one has arrived here, and what replaced it here has arrived there.
//!
//! What an expiry replaced is the exception, as no zone ships one: a zone may have a version live, and keep old tombstones
//! beside it, that another dropped with the expired version. So such a key stays while there is [`Expired::Kept`].

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::{Dot, Incarnation, Sibling, VersionVector};
use meridian_storage::Read;

use super::ShardMeta;
use super::step::Step;
use super::versions::{self, Facts};
use crate::error::Error;
use crate::ids::GroupId;
use crate::keys::{Place, TombstoneKey, successor};

impl Step<'_, '_, '_> {
    /// Drops the keys that hold nothing but the tombstones named, if nothing they have seen is still to come.
    pub(super) fn drop_tombstones(&mut self, keys: &[(Bytes, Vec<Dot>)]) -> Result<(), Error> {
        for (key, dots) in keys {
            let held = self.hold(key)?;
            let only_these =
                held.set.all_tombstones() && versions::dots(&held.set).eq(dots.iter().copied());
            if only_these && held.set.context().within(&self.meta.received) {
                self.index(key, &held.before, &Facts::default());
                self.drop_record(held);
            }
        }
        Ok(())
    }
}

/// Whether a key that holds an expired version may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// No other zone holds the shard, so none may have the version live.
    MayGo,
    /// Another zone may not have logged the expiry yet: the key stays until it is written again.
    Kept,
}

/// What the leader has found of the other zones.
#[derive(Clone, Copy, Debug)]
pub struct Settled<'a> {
    /// The vector of a [`Stability`].
    pub stable: &'a VersionVector,
    /// Whether another zone may have a version live that has expired here.
    pub expired: Expired,
    /// Log index up to which every mirror of the shard has passed; what was deleted later stays (protocol rule 24).
    pub through: u64,
}

/// Keys whose tombstones may go, oldest tombstones first, with the dots of all of them; at most `limit`.
pub fn tombstone_candidates(
    read: &dyn Read,
    meta: &ShardMeta,
    group: GroupId,
    settled: Settled<'_>,
    limit: usize,
) -> Result<Vec<(Bytes, Vec<Dot>)>, Error> {
    let mut found = BTreeMap::new();
    let stable_here = if meta.tombstones == 0 {
        &VersionVector::new()
    } else {
        settled.stable
    };
    for (incarnation, through) in stable_here.iter() {
        let (mut from, to) = TombstoneKey::through(group.into(), incarnation, through);
        while found.len() < limit {
            let indexed = indexed(read, (&from, &to), limit)?;
            let Some((last, _)) = indexed.last() else {
                break;
            };
            from = successor(last);
            for (_, key) in indexed {
                if found.len() < limit
                    && let Some(dots) = droppable(read, group.into(), settled, &key)?
                {
                    found.insert(key, dots);
                }
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The next `limit` entries of the index with the keys they name.
fn indexed(
    read: &dyn Read,
    (from, to): (&[u8], &[u8]),
    limit: usize,
) -> Result<Vec<(Vec<u8>, Bytes)>, Error> {
    let mut entries = Vec::new();
    let mut outcome = Ok(());
    read.scan(from, to, &mut |stored, record| {
        outcome = TombstoneKey::decode_record(stored, record)
            .map(|key| entries.push((stored.to_vec(), Bytes::copy_from_slice(key))));
        if outcome.is_err() || entries.len() >= limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    outcome.map(|()| entries)
}

/// The dots of a key's tombstones, if the key may go.
fn droppable(
    read: &dyn Read,
    place: Place,
    settled: Settled<'_>,
    key: &[u8],
) -> Result<Option<Vec<Dot>>, Error> {
    let set = versions::load(read, place, key)?;
    let kept = settled.expired == Expired::Kept && set.siblings().iter().any(Sibling::is_expired);
    let passed = settled.through == u64::MAX
        || versions::stamp(read, place, key)?.is_some_and(|index| index <= settled.through);
    let droppable = passed && set.all_tombstones() && set.context().within(settled.stable) && !kept;
    Ok(droppable.then(|| versions::dots(&set).collect()))
}

/// Finds the vector of writes that every zone has, and that no write still on its way here is ignorant of.
///
/// It takes what each zone has said it received, waits until this zone has received all of that too (so also whatever
/// those zones wrote before they said so), and only then counts what they all had as stable.
#[derive(Clone, Debug, Default)]
pub struct Stability {
    asked: BTreeMap<Incarnation, VersionVector>,
    stable: VersionVector,
}

impl Stability {
    /// What is stable, given what this group has `received` and what its `peers`, the groups of this shard in all other
    /// zones, are `known` to have received. A peer that is not known has nothing; another set of peers, or one that has
    /// less than before, begins the search anew.
    pub fn observe(
        &mut self,
        received: &VersionVector,
        peers: impl IntoIterator<Item = Incarnation>,
        known: &BTreeMap<Incarnation, VersionVector>,
    ) -> &VersionVector {
        let known_of = |peer: Incarnation| (peer, known.get(&peer).cloned().unwrap_or_default());
        let now: BTreeMap<_, _> = peers.into_iter().map(known_of).collect();
        let same_lives = self.asked.keys().eq(now.keys())
            && self
                .asked
                .values()
                .zip(now.values())
                .all(|(then, now)| now.includes(then));
        if !same_lives {
            self.stable = VersionVector::new();
        } else if self.asked.values().all(|theirs| received.includes(theirs)) {
            self.stable = meet(received, &self.asked);
        } else {
            return &self.stable;
        }
        self.asked = now;
        &self.stable
    }
}

fn meet(received: &VersionVector, peers: &BTreeMap<Incarnation, VersionVector>) -> VersionVector {
    let mut everywhere = received.clone();
    for theirs in peers.values() {
        everywhere.meet(theirs);
    }
    everywhere
}
