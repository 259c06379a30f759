//! Versions past their time (protocol rule 4).
//!
//! A version turns into a tombstone of the same dot when an entry says so and the entry's own time is past the version's.
//! So every replica of the zone sees it live up to the same index; and of two zones the one that has logged the expiry
//! wins wherever their states meet. Nothing is shipped: every zone logs it for itself.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::{Dot, Sibling, SiblingSet};
use meridian_storage::Read;

use super::step::Step;
use super::versions;
use crate::error::Error;
use crate::keys::{ExpiryKey, LocalChange, Place};

/// Keys with the dots of their versions that are due at `now_ms`, the longest due first; at most about `limit`.
pub fn due(
    read: &dyn Read,
    place: Place,
    now_ms: u64,
    limit: usize,
) -> Result<Vec<(Bytes, Vec<Dot>)>, Error> {
    let mut keys = BTreeMap::new();
    for key in indexed(read, place, now_ms, limit)? {
        let set = versions::load(read, place, &key)?;
        let dots: Vec<Dot> = past(&set, now_ms).map(|sibling| sibling.dot).collect();
        keys.insert(key, dots);
    }
    Ok(keys.into_iter().collect())
}

fn indexed(read: &dyn Read, place: Place, now_ms: u64, limit: usize) -> Result<Vec<Bytes>, Error> {
    let (from, to) = ExpiryKey::due(place, now_ms);
    let mut keys = Vec::new();
    let mut outcome = Ok(());
    read.scan(&from, &to, &mut |stored, _| {
        outcome = ExpiryKey::parts(stored).map(|(_, key)| keys.push(Bytes::copy_from_slice(key)));
        if outcome.is_err() || keys.len() >= limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    outcome.map(|()| keys)
}

/// The live versions whose time is over at `now_ms`.
fn past(set: &SiblingSet, now_ms: u64) -> impl Iterator<Item = &Sibling> {
    let is_past = move |sibling: &&Sibling| {
        sibling.is_live() && sibling.expires_at_ms.is_some_and(|at| at <= now_ms)
    };
    set.siblings().iter().filter(is_past)
}

impl Step<'_, '_, '_> {
    /// Expires versions of `keys` that are past their time at the time of the entry.
    pub(super) fn expire(&mut self, keys: &[(Bytes, Vec<Dot>)]) -> Result<(), Error> {
        for (key, dots) in keys {
            if !self.is_locked(key) && !self.meta.is_sealed() {
                self.expire_key(key, dots)?;
            }
        }
        Ok(())
    }

    fn expire_key(&mut self, key: &Bytes, dots: &[Dot]) -> Result<(), Error> {
        let mut held = self.hold(key)?;
        let now_ms = self.header.hlc.wall_ms();
        let over: Vec<Dot> = past(&held.set, now_ms)
            .map(|sibling| sibling.dot)
            .filter(|dot| dots.contains(dot))
            .collect();
        if over.is_empty() {
            return Ok(());
        }
        for dot in over {
            held.set.expire(dot);
            self.expired(key, dot);
        }
        self.store(key, held);
        Ok(())
    }

    /// A version of `key` has expired: watchers are told.
    fn expired(&mut self, key: &Bytes, dot: Dot) {
        self.note_change(&LocalChange {
            key: key.clone(),
            dot,
        });
    }

    /// Whether a prepared transaction has locked the key: nothing but the transaction may change it then.
    pub(super) fn is_locked(&self, key: &[u8]) -> bool {
        self.locks.holder_of(key).is_some()
    }
}
