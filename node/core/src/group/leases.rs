//! What a leader knows of its shard's leases: when the time of each is over, and who waits for them.
//!
//! Volatile, and a leader's only. A lease gets its full time when it is granted, when a renewal is confirmed, and when a
//! leader takes over; its end is an entry of the log. Why a holder that counts from before it asked gives up in time:
//! `docs/leases.md`.
//!
//! Invariants:
//! * no renewal is confirmed after the end was proposed: the holder is told that the lease is lost, though it may stand
//!   for a moment longer;
//! * the time is moved only forward while a lease stands;
//! * nothing here outlives the leadership.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use meridian_storage::Read;

use crate::error::Error;
use crate::keys::{LeaseKey, Place};
use crate::lease::{Holding, LeaseAcquire, LeaseChange, LeaseRef};
use crate::limits::{LEASE_WAIT_MARGIN_MS, LEASE_WAITERS_MAX, LEASES_ENDED_MAX};
use crate::time::{MS, Now};
use crate::waiting::Origin;

/// After this time without an effect, the end of a lease is proposed again.
const END_AGAIN_MS: u64 = 1_000;

/// After this time a lease that was offered to one and is still free is offered to the next.
const OFFER_AGAIN_MS: u64 = 1_000;

/// A lease that stands.
#[derive(Clone, Debug)]
struct Held {
    token: u64,
    /// Its time is over; or, if it is ending, its end is to be proposed again.
    due_ns: u64,
    ending: bool,
}

/// A request that waits for a lease.
#[derive(Clone, Debug)]
pub(crate) struct Waits {
    pub(crate) origin: Origin,
    pub(crate) deadline_ns: u64,
    pub(crate) acquire: LeaseAcquire,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Leases {
    held: BTreeMap<Bytes, Held>,
    /// The leases that stood when the leadership began are among `held`.
    loaded: bool,
    /// First come, first served, per name; no queue is empty.
    queues: BTreeMap<Bytes, VecDeque<Waits>>,
    waiting: usize,
    /// Names whose lease has ended in the turn under way.
    freed: Vec<Bytes>,
    /// Names offered to the first that waited, and when they may be offered to the next if nobody has taken them.
    offered: BTreeMap<Bytes, u64>,
    /// When other shards are asked again.
    pub(crate) ask_due_ns: u64,
    /// The last lease of another shard that was asked about.
    pub(crate) asked: Option<LeaseRef>,
    /// When versions are expired again.
    pub(crate) expire_due_ns: u64,
}

impl Leases {
    /// Leases that stand, as far as is known.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Somebody has the lease, and it is not about to end.
    pub(crate) fn is_held(&self, name: &Bytes) -> bool {
        self.held.get(name).is_some_and(|held| !held.ending)
    }

    /// A leader takes over: each lease that stands gets its full time. Once per leadership.
    pub(crate) fn take_over(
        &mut self,
        now: Now,
        read: &dyn Read,
        place: Place,
    ) -> Result<(), Error> {
        if self.loaded {
            return Ok(());
        }
        for standing in standing(read, place)? {
            let held = Held::from_now(&standing, now);
            self.held.entry(standing.lease.name).or_insert(held);
        }
        self.loaded = true;
        Ok(())
    }

    /// An entry was applied.
    pub(crate) fn changed(&mut self, change: LeaseChange, now: Now) {
        match change {
            LeaseChange::Granted(holding) => {
                let held = Held::from_now(&holding, now);
                self.offered.remove(&holding.lease.name);
                self.held.insert(holding.lease.name, held);
            }
            LeaseChange::Gone(lease) => {
                let same = self.held.get(&lease.name).map(|held| held.token) == Some(lease.token);
                if same {
                    self.held.remove(&lease.name);
                }
                self.freed.push(lease.name);
            }
        }
    }

    /// The holder has asked, and this leader was the leader after it did: the lease has its full time again. `holding` is
    /// what the store says now. False: its end was proposed, so it is lost.
    pub(crate) fn confirm(&mut self, holding: &Holding, now: Now) -> bool {
        let fresh = Held::from_now(holding, now);
        let held = self
            .held
            .entry(holding.lease.name.clone())
            .or_insert_with(|| fresh.clone());
        if held.token != holding.lease.token || held.ending {
            return false;
        }
        held.due_ns = held.due_ns.max(fresh.due_ns);
        true
    }

    /// The end of a lease is being proposed: nothing is confirmed from now on.
    pub(crate) fn ending(&mut self, lease: &LeaseRef, now: Now) {
        if let Some(held) = self.held.get_mut(&lease.name)
            && held.token == lease.token
        {
            held.ending = true;
            held.due_ns = now.after_ms(END_AGAIN_MS);
        }
    }

    /// Leases whose end is to be proposed now.
    pub(crate) fn due(&mut self, now: Now) -> Vec<LeaseRef> {
        let over = self
            .held
            .iter()
            .filter(|(_, held)| held.due_ns <= now.mono_ns);
        let due: Vec<LeaseRef> = over
            .take(LEASES_ENDED_MAX)
            .map(|(name, held)| LeaseRef {
                name: name.clone(),
                token: held.token,
            })
            .collect();
        for lease in &due {
            self.ending(lease, now);
        }
        due
    }

    /// Lets a request wait; hands it back when too many do.
    pub(crate) fn wait(&mut self, waits: Waits) -> Result<(), Waits> {
        if self.waiting >= LEASE_WAITERS_MAX {
            return Err(waits);
        }
        self.waiting = self.waiting.saturating_add(1);
        let name = waits.acquire.name.clone();
        self.queues.entry(name).or_default().push_back(waits);
        Ok(())
    }

    /// The first that waits for a lease.
    pub(crate) fn first(&mut self, name: &Bytes, now: Now) -> Option<Waits> {
        let queue = self.queues.get_mut(name)?;
        let first = queue.pop_front();
        self.offered
            .insert(name.clone(), now.after_ms(OFFER_AGAIN_MS));
        if queue.is_empty() {
            self.queues.remove(name);
        }
        self.waiting = self.waiting.saturating_sub(usize::from(first.is_some()));
        first
    }

    /// Names of leases that have ended since this was last asked.
    pub(crate) fn take_freed(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.freed)
    }

    /// Names that are waited for and that nobody has: a request that was let go first may have failed.
    pub(crate) fn free_and_wanted(&mut self, now: Now) -> Vec<Bytes> {
        self.offered.retain(|_, due_ns| *due_ns > now.mono_ns);
        let free = self
            .queues
            .keys()
            .filter(|name| !self.held.contains_key(*name) && !self.offered.contains_key(*name));
        free.cloned().collect()
    }

    /// Requests that have waited for as long as they may.
    pub(crate) fn overdue(&mut self, now: Now) -> Vec<Waits> {
        let margin_ns = LEASE_WAIT_MARGIN_MS.saturating_mul(MS);
        let mut overdue = Vec::new();
        for queue in self.queues.values_mut() {
            let (late, early) = std::mem::take(queue)
                .into_iter()
                .partition(|waits| waits.deadline_ns.saturating_sub(margin_ns) <= now.mono_ns);
            *queue = early;
            overdue.extend::<VecDeque<Waits>>(late);
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        self.waiting = self.waiting.saturating_sub(overdue.len());
        overdue
    }

    /// The leadership came or went: everything is forgotten, and those that wait are handed back.
    pub(crate) fn reset(&mut self) -> Vec<Waits> {
        let former = std::mem::take(self);
        former.queues.into_values().flatten().collect()
    }
}

impl Held {
    fn from_now(holding: &Holding, now: Now) -> Self {
        Self {
            token: holding.lease.token,
            due_ns: now.after_ms(holding.ttl_ms),
            ending: false,
        }
    }
}

/// The leases that stand in a shard.
fn standing(read: &dyn Read, place: Place) -> Result<Vec<Holding>, Error> {
    let (from, to) = LeaseKey::all(place);
    let mut standing = Vec::new();
    let mut outcome = Ok(());
    read.scan(&from, &to, &mut |stored, record| {
        outcome = LeaseKey::name(stored).and_then(|name| {
            let (_, held) = LeaseKey::decode_record(stored, record)?;
            standing.push(Holding {
                lease: LeaseRef {
                    name: Bytes::copy_from_slice(name),
                    token: held.token,
                },
                ttl_ms: held.ttl_ms,
            });
            Ok(())
        });
        if outcome.is_ok() {
            std::ops::ControlFlow::Continue(())
        } else {
            std::ops::ControlFlow::Break(())
        }
    })?;
    outcome.map(|()| standing)
}
