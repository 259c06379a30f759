//! `ack = all`: replies that wait until every zone of the keyspace holds the write durably (protocol rule 20).
//!
//! What waits here is committed, applied and seen by readers; only what is said of it waits. A reply leaves when every
//! zone's replica has acknowledged the log up to it, or when the group is *degraded*: a log entry says that a majority is
//! enough while zones are missing (`--on-zone-loss degrade`), and another takes that back once they have caught up. One
//! that waits longer than its request is answered that the level was not reached, and by which zones it is held.
//!
//! Outcomes pass the holds of views before they come here (`holds`), so that a view never shows what another, older one
//! still keeps back.
//!
//! Not delayed: what had no effect; leases; the decision of a transaction over several shards as far as its other shards are
//! concerned, which would be locked meanwhile. What the client is told of it waits elsewhere (`levels::decided`).
//!
//! Invariant: what waits leaves in order; bounded, as every outcome here has a ticket of the core's.

use std::collections::VecDeque;

use meridian_causal::ZoneId;

use super::{Group, Outcome};
use crate::catalog::{Ack, OnZoneLoss};
use crate::command::{Op, WriteOutcome};
use crate::ids::RequestId;
use crate::inner::InnerResponse;
use crate::request::Response;

/// Entries a zone may be behind and count as caught up: what arrives within a moment.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    waiting: VecDeque<Waiting>,
    /// Ticks until a change of `short` may be proposed again.
    pause: usize,
}

/// An outcome that waits for zones.
#[derive(Debug)]
struct Waiting {
    /// Everything up to here is to be durable in every zone.
    index: u64,
    outcome: Outcome,
}

/// An outcome that may be said, and what the zones hold of it.
#[derive(Debug)]
pub(crate) struct Acked {
    pub(crate) outcome: Outcome,
    pub(crate) zones: Vec<ZoneId>,
    pub(crate) degraded: bool,
    /// Set when the level asked for was not reached: how many zones it asks for.
    pub(crate) missed: Option<usize>,
}

impl Group {
    /// Whether a write must be refused: all zones are to have it, and some are known to be missing.
    pub(crate) fn short_of_zones(&self) -> Option<Vec<ZoneId>> {
        let spanning = self.spanning.as_ref()?;
        if spanning.ack != Ack::All || spanning.on_zone_loss == OnZoneLoss::Degrade {
            return None;
        }
        Some(self.missing_zones()).filter(|missing| !missing.is_empty())
    }

    /// The zones for which `ack = all` is relaxed, as the log says.
    pub(crate) fn degraded(&self) -> Vec<ZoneId> {
        let short = self.shard().map(|shard| &shard.meta().short);
        short.map_or_else(Vec::new, |short| short.iter().copied().collect())
    }

    /// Takes an outcome that the holds of views have let go; hands it back when it may be said at once.
    pub(crate) fn await_zones(&mut self, outcome: Outcome, decides: bool) -> Option<Acked> {
        let index = self.machine.applied();
        let waits = !decides && self.waits_for_all() && waits_for_zones(&outcome);
        let ordered = self
            .spanning
            .as_ref()
            .is_some_and(|spanning| !spanning.acks.waiting.is_empty());
        if waits
            && (ordered || !self.all_hold(index))
            && let Some(spanning) = &mut self.spanning
        {
            spanning.acks.waiting.push_back(Waiting { index, outcome });
            return None;
        }
        Some(self.acked(outcome, index))
    }

    /// What may be said now of what waited. `expired` tells whether nobody waits any longer than now.
    pub(crate) fn release_acks(&mut self, expired: impl Fn(RequestId) -> bool) -> Vec<Acked> {
        let mut released = Vec::new();
        let patient = self.waits_for_all();
        while let Some(first) = self.first_waiting() {
            let (index, ticket) = (first.index, first.outcome.ticket());
            let reached = !patient || self.all_hold(index);
            if !reached && !expired(ticket) {
                break;
            }
            let Some(waiting) = self.pop_waiting() else {
                break;
            };
            let mut acked = self.acked(waiting.outcome, index);
            acked.missed = (!reached).then(|| self.zones_of_keyspace());
            released.push(acked);
        }
        released
    }

    /// The lead is lost: what the zones hold will not be known here.
    pub(crate) fn give_up_acks(&mut self) -> Vec<Acked> {
        let mut given_up = Vec::new();
        while let Some(waiting) = self.pop_waiting() {
            let mut acked = self.acked(waiting.outcome, waiting.index);
            acked.missed = Some(self.zones_of_keyspace());
            given_up.push(acked);
        }
        given_up
    }

    /// Replies wait for zones.
    pub(crate) fn has_acks(&self) -> bool {
        self.first_waiting().is_some()
    }

    /// Proposes that a majority is enough while zones are missing, and takes it back when they have caught up. Called by
    /// ticks.
    pub(crate) fn tend_acks(&mut self) {
        let Some(spanning) = &mut self.spanning else {
            return;
        };
        spanning.acks.pause = spanning.acks.pause.saturating_sub(1);
        if spanning.acks.pause > 0 || !self.is_current() {
            return;
        }
        let (short, wanted) = (self.degraded(), self.zones_to_miss());
        if short == wanted {
            return;
        }
        let ticks = self.election_ticks;
        if let Some(spanning) = &mut self.spanning {
            spanning.acks.pause = ticks;
        }
        self.enqueue(Op::Degrade { short: wanted });
    }

    /// The zones for which `ack = all` should be relaxed: the missing, and those that have not caught up since.
    fn zones_to_miss(&self) -> Vec<ZoneId> {
        let relaxes = self.spanning.as_ref().is_some_and(|spanning| {
            spanning.ack == Ack::All && spanning.on_zone_loss == OnZoneLoss::Degrade
        });
        if !relaxes {
            return Vec::new();
        }
        let last = self.log().last().saturating_sub(CAUGHT_UP_ENTRIES);
        let caught_up = self.holders(last);
        let mut zones = self.missing_zones();
        let behind = self.degraded().into_iter();
        zones.extend(behind.filter(|zone| !caught_up.contains(zone)));
        zones.sort();
        zones.dedup();
        zones
    }

    /// Whether replies wait for all zones now.
    pub(crate) fn waits_for_all(&self) -> bool {
        let all = self
            .spanning
            .as_ref()
            .is_some_and(|spanning| spanning.ack == Ack::All);
        all && self.degraded().is_empty()
    }

    /// Whether every zone of the keyspace holds the log durably up to `index`. At the leader only.
    pub(crate) fn all_hold(&self, index: u64) -> bool {
        let holders = self.holders(index);
        self.spanning.as_ref().is_none_or(|spanning| {
            let mut zones = spanning.of_keyspace.iter();
            zones.all(|zone| holders.contains(zone))
        })
    }

    fn zones_of_keyspace(&self) -> usize {
        let spanning = self.spanning.as_ref();
        spanning.map_or(1, |spanning| spanning.of_keyspace.len())
    }

    fn acked(&self, outcome: Outcome, index: u64) -> Acked {
        Acked {
            outcome,
            zones: match &self.spanning {
                Some(_) => self.holders(index),
                None => vec![self.id.zone],
            },
            degraded: !self.degraded().is_empty(),
            missed: None,
        }
    }

    fn first_waiting(&self) -> Option<&Waiting> {
        self.spanning.as_ref()?.acks.waiting.front()
    }

    fn pop_waiting(&mut self) -> Option<Waiting> {
        self.spanning.as_mut()?.acks.waiting.pop_front()
    }
}

/// Whether an outcome says that something took effect, and is one that zones are waited for.
fn waits_for_zones(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Write(_, _, WriteOutcome::Written { .. }) => true,
        Outcome::Control(_, Ok(Response::Transacted(_))) => true,
        Outcome::Control(_, Ok(Response::Inner(inner))) => {
            matches!(**inner, InnerResponse::Voted(_))
        }
        Outcome::Write(..) | Outcome::Control(..) | Outcome::Lease(..) => false,
    }
}

impl Outcome {
    /// The ticket of whoever waits for it.
    pub(crate) const fn ticket(&self) -> RequestId {
        match self {
            Self::Write(waiter, ..) | Self::Control(waiter, _) | Self::Lease(waiter, _) => {
                waiter.ticket
            }
        }
    }
}
