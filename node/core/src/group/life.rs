//! What a replica knows of its own life since the process started: the ground on which a store restored from an old copy
//! is told from one that was merely restarted (protocol rule 5).
//!
//! Other zones have of a group's writes at most what was in its log when the process started, and what it has offered
//! since. Whoever has more knows a life of this group that its store does not.
//!
//! Volatile. It says something only of a group whose only voter is this replica: what a majority holds, a single old
//! copy does not undo.

use std::collections::BTreeSet;

use meridian_causal::{Incarnation, ZoneId};

use super::{Group, Machine};
use crate::error::Error;
use crate::time::Now;

/// Time between two requests for a new incarnation.
const ASK_MS: u64 = 1_000;

/// How long own writes are held back after the start, until every other zone has said what it has of them. A zone that
/// is away must not hold up the others for longer.
const HOLD_MS: u64 = 3_000;

/// See the module.
#[derive(Default)]
pub(crate) struct Life {
    /// Where the log ended at the start.
    log_end: u64,
    /// The own counter when that was applied.
    base: Option<u64>,
    /// Last own counter sent to any other zone since.
    offered: u64,
    /// Zones that have said what they have.
    heard: BTreeSet<ZoneId>,
    /// When the first of this leader's ticks was.
    since: Option<Now>,
    /// Another zone has more of our writes than it can have.
    pub(crate) contradicted: bool,
    /// The incarnation to be replaced, for the core to ask the control group.
    wish: Option<Incarnation>,
    asked: Option<Now>,
    attempts: usize,
}

impl Life {
    /// The life of a group whose log ends at `log_end`.
    pub(super) fn begin(log_end: u64, machine: &Machine) -> Self {
        let mut life = Self {
            log_end,
            ..Self::default()
        };
        life.applied(machine);
        life
    }

    /// The life of a group that has just taken another incarnation: nobody has anything of it yet.
    pub(super) fn anew() -> Self {
        Self {
            base: Some(0),
            ..Self::default()
        }
    }

    /// Something was applied.
    pub(super) fn applied(&mut self, machine: &Machine) {
        if let Machine::Data(shard) = machine
            && self.base.is_none()
            && machine.applied() >= self.log_end
        {
            let meta = shard.meta();
            self.base = Some(meta.received.get(meta.incarnation));
        }
    }

    /// The own counter this life began with; `None` while the log of the former one is still being applied.
    pub(crate) const fn base(&self) -> Option<u64> {
        self.base
    }

    /// The most that any other zone can have of this group's writes.
    pub(crate) fn given(&self) -> Option<u64> {
        self.base.map(|base| base.max(self.offered))
    }

    pub(crate) fn offer(&mut self, counter: u64) {
        self.offered = self.offered.max(counter);
    }

    pub(crate) fn hear(&mut self, zone: ZoneId) {
        self.heard.insert(zone);
    }

    pub(crate) fn tick(&mut self, now: Now) {
        self.since.get_or_insert(now);
    }

    /// Whether own writes may go out: every one of `zones` has said what it has, or there was time enough to.
    pub(crate) fn may_offer(&self, mut zones: impl Iterator<Item = ZoneId>, now: Now) -> bool {
        let waited = self
            .since
            .is_some_and(|since| now.mono_ns >= since.after_ms(HOLD_MS));
        waited || zones.all(|zone| self.heard.contains(&zone))
    }

    /// Wants `incarnation` replaced; asked for once in a while until it is.
    pub(crate) fn wish(&mut self, incarnation: Incarnation, now: Now) {
        if self
            .asked
            .is_none_or(|asked| now.mono_ns >= asked.after_ms(ASK_MS))
        {
            self.asked = Some(now);
            self.attempts = self.attempts.wrapping_add(1);
            self.wish = Some(incarnation);
        }
    }

    /// What the core is to ask for now, and how often it was asked for.
    pub(crate) fn take_wish(&mut self) -> Option<(Incarnation, usize)> {
        Some((self.wish.take()?, self.attempts))
    }
}

impl Group {
    /// Its keyspace is altered, and it serves no more.
    pub(crate) fn sealed(&self) -> bool {
        self.shard().is_some_and(|shard| shard.meta().is_sealed())
    }

    /// Why it shows nobody anything: somewhere its successor may be open already, and written to, or it lacks what was
    /// acknowledged before its disk was lost.
    pub(crate) fn refusal(&self) -> Option<Error> {
        if self.sealed() {
            Some(Error::KeyspaceMoving)
        } else if self.disk_lost {
            Some(Error::DiskLost)
        } else {
            None
        }
    }

    /// The store is an old copy, as far as is known: no client writes, no part in the exchange.
    pub(crate) fn quarantined(&self) -> bool {
        let logged = self
            .shard()
            .is_some_and(|shard| shard.meta().quarantined.is_some());
        logged || self.life.contradicted
    }
}
