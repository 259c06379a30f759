//! Writes that a promoted mirror lacked and that come back: each is listed (protocol rule 25).
//!
//! A shard that was made of a mirror's generation has a *base*, the vector of that generation. No other zone writes to it, so
//! whatever comes from elsewhere later was written by a deposed home zone after the cut. It is merged like any other write:
//! beside what the new home zone has written on the key meanwhile, or in the place of what the cut had. Where the two zones
//! compare key states, writes that the old home zone itself had replaced do not come one by one; they are counted.
//!
//! What it is not: a decision. The list is for whoever reconciles; it goes with the keyspace.
//!
//! Invariant: `counts.keys` is the number of keys listed, at most [`RETURNED_KEYS_MAX`].

use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::{Dot, SiblingSet, VersionVector};
use meridian_storage::Read;

use super::step::Step;
use super::{Base, ShardMeta, versions};
use crate::error::Error;
use crate::keys::{Became, Place, ReturnedCounts, ReturnedKey, ReturnedWrite, successor};
use crate::limits::{RETURNED_KEYS_MAX, RETURNED_PAGE_KEYS, RETURNED_WRITES_MAX};
use crate::request::{Answer, ReturnedRow};

impl Step<'_, '_, '_> {
    /// The shard holds all of a mirror's generation, which had received `base`.
    pub(super) fn found(&mut self, base: &VersionVector) {
        self.meta.base.get_or_insert_with(|| Base {
            received: base.clone(),
            counts: ReturnedCounts::default(),
        });
    }

    /// Versions have come from elsewhere and are stored: those that the mirror lacked are listed.
    pub(super) fn list_returned(&mut self, key: &[u8], dots: &[Dot]) -> Result<(), Error> {
        let Some(base) = &self.meta.base else {
            return Ok(());
        };
        let lacked = |dot: &&Dot| dot.counter > base.received.get(dot.incarnation);
        let lacked: Vec<Dot> = dots.iter().filter(lacked).copied().collect();
        if lacked.is_empty() {
            return Ok(());
        }
        let stored = ReturnedKey::encode(self.place, key);
        let before = self.get(&stored)?;
        let is_listed = self.count_returned(lacked.len(), before.is_none());
        if is_listed {
            let mut writes = match before {
                Some(record) => ReturnedKey::decode_record(&stored, &record)?,
                None => Vec::new(),
            };
            let set = versions::load(self.work, self.place, key)?;
            writes.extend(lacked.into_iter().map(|dot| ReturnedWrite {
                dot,
                became: became(&set, dot),
            }));
            let surplus = writes.len().saturating_sub(RETURNED_WRITES_MAX);
            writes.drain(..surplus);
            let record = ReturnedKey::encode_record(self.header, &writes);
            self.work.put(stored, record);
        }
        self.save_returned();
        Ok(())
    }

    /// Counts versions that came back to one key; whether that is listed.
    fn count_returned(&mut self, versions: usize, is_new: bool) -> bool {
        let Some(base) = self.meta.base.as_mut() else {
            return false;
        };
        let counts = &mut base.counts;
        counts.versions += u64::try_from(versions).unwrap_or(u64::MAX);
        let is_listed = !is_new || counts.keys < RETURNED_KEYS_MAX;
        counts.keys += u64::from(is_listed && is_new);
        is_listed
    }

    /// Writes the counts where readers find them.
    pub(super) fn save_returned(&mut self) {
        let writes = self.meta.writes_returned();
        let Some(base) = self.meta.base.as_mut() else {
            return;
        };
        base.counts.writes = writes;
        let record = ReturnedKey::encode_counts(self.header, base.counts);
        self.work.put(ReturnedKey::counts(self.place), record);
    }
}

impl ShardMeta {
    /// Writes of other groups beyond the base: those of a deposed home zone after the cut.
    fn writes_returned(&self) -> u64 {
        let Some(base) = &self.base else {
            return 0;
        };
        let foreign = self.received.iter();
        foreign
            .filter(|(of, _)| *of != self.incarnation)
            .map(|(of, counter)| counter.saturating_sub(base.received.get(of)))
            .sum()
    }
}

fn became(set: &SiblingSet, dot: Dot) -> Became {
    let sibling = set.siblings().iter().find(|sibling| sibling.dot == dot);
    match sibling {
        Some(sibling) if sibling.is_live() && set.siblings().len() == 1 => Became::Newest,
        Some(_) if set.has_live() => Became::Sibling,
        Some(_) | None => Became::Unseen,
    }
}

/// A page of the list of a shard, from the key `from` on, with the counts of the whole shard.
pub fn page(read: &dyn Read, place: Place, from: &[u8]) -> Result<Answer, Error> {
    let stored = ReturnedKey::counts(place);
    let counts = match read.get(&stored)? {
        Some(record) => ReturnedKey::decode_counts(&stored, &record)?,
        None => ReturnedCounts::default(),
    };
    let first = if from.is_empty() {
        successor(&stored)
    } else {
        ReturnedKey::encode(place, from)
    };
    let mut rows: Vec<ReturnedRow> = Vec::new();
    let mut next = None;
    let mut outcome = Ok(());
    read.scan(&first, &ReturnedKey::end(place), &mut |stored, record| {
        let key = ReturnedKey::user_key(stored).map(Bytes::copy_from_slice);
        if rows.len() >= RETURNED_PAGE_KEYS {
            outcome = key.map(|key| next = Some(key));
            return ControlFlow::Break(());
        }
        outcome = key.and_then(|key| {
            let writes = ReturnedKey::decode_record(stored, record)?;
            rows.push(ReturnedRow { key, writes });
            Ok(())
        });
        if outcome.is_err() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    outcome.map(|()| Answer::Returned { counts, rows, next })
}
