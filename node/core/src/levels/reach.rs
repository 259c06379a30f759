//! Write levels `zones(n)` and `all`: the answer waits until that many zones hold the write durably.
//!
//! The write itself is what the keyspace's mode makes of it. Once it is committed, its leader waits to know of other zones
//! that they hold it: in an async keyspace by the vectors by which they acknowledge what they have received (`exchange`), in
//! a sync keyspace by what their voters have acknowledged of the log. When the time is over, or the leadership is lost, the
//! answer is `LEVEL_NOT_REACHED`; the write stands, and reaches the others later.
//!
//! A sync keyspace of which fewer zones are heard than are asked for refuses the write before it is proposed
//! (`ZONES_SHORT`, protocol rule 20). Zones that mirror a snapshot keyspace have writes with its next cut only: no more
//! than the home is offered there.

use meridian_causal::{OpId, ZoneId};

use super::LevelWait;
use crate::core::Core;
use crate::error::Error;
use crate::exchange;
use crate::group::Group;
use crate::ids::{GroupId, RequestId};
use crate::limits::LEVEL_MARGIN_ACROSS_MS;
use crate::output::Outputs;
use crate::policy::Mode;
use crate::request::{Receipt, Response, Write};
use crate::route::Routed;
use crate::time::{MS, Now};
use crate::waiting::{Origin, Waiter, What};

/// A committed write that waits for other zones.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(super) group: GroupId,
    /// In a group that spans zones: whoever holds its log up to here holds the write.
    index: u64,
    /// How many zones are to hold it.
    zones: u16,
    op_id: OpId,
    receipt: Box<Receipt>,
}

impl Reach {
    pub(super) fn new(
        (group, index): (GroupId, u64),
        zones: u16,
        op_id: OpId,
        receipt: Receipt,
    ) -> Self {
        Self {
            group,
            index,
            zones,
            op_id,
            receipt: Box::new(receipt),
        }
    }

    /// The time is over.
    pub(super) fn not_reached(&self, zones: Vec<ZoneId>) -> Error {
        Error::LevelNotReached {
            dot: self.receipt.dot,
            zones,
            need: self.zones,
            op_id: self.op_id,
        }
    }
}

impl Core {
    /// Whether a keyspace can give what a write asks for.
    pub(crate) fn check_reach(&self, group: GroupId, zones: u16) -> Result<(), Error> {
        let keyspace = self.catalog.keyspaces.get(&group.keyspace);
        let policy = &keyspace.ok_or(Error::KeyspaceNotFound)?.policy;
        if policy.mode == Mode::Snapshot && zones > 1 {
            let level = format!(
                "zones:{zones} on writes of a snapshot keyspace (its mirrors get them with the next cut; kv mirror now waits for one)"
            );
            return Err(Error::LevelUnsupported { level });
        }
        if zones == 0 || usize::from(zones) > policy.zones.len() {
            let message = format!(
                "the keyspace is in {} zones, which {zones} zones cannot be of",
                policy.zones.len()
            );
            return Err(Error::InvalidArgument { message });
        }
        let missing = self.groups.get(&group).map(Group::missing_zones);
        let missing = missing.unwrap_or_default();
        let heard = policy.zones.iter().filter(|zone| !missing.contains(zone));
        let heard: Vec<ZoneId> = heard.copied().collect();
        if group.spans_zones() && heard.len() < usize::from(zones) {
            return Err(Error::ZonesShort {
                zones: heard,
                need: zones,
            });
        }
        Ok(())
    }

    /// Up to where a group's log is applied here.
    pub(super) fn applied(&self, group: GroupId) -> u64 {
        let shard = self.groups.get(&group).and_then(Group::shard);
        shard.map_or(0, |shard| shard.meta().applied)
    }

    /// A write at a level of this module, at its leader.
    pub(crate) fn write_at(
        &mut self,
        routed: Routed,
        (write, zones): (Write, u16),
        out: &mut Outputs,
    ) {
        if let Err(error) = self.check_reach(routed.group, zones) {
            Self::answer(routed.origin, Err(error), out);
            return;
        }
        let wait = LevelWait::Write(routed.group, write.op_id, zones);
        self.write_as(routed, write, What::Level(Box::new(wait)), out);
    }

    /// A write is committed: it waits for other zones.
    pub(super) fn begin_reach(
        &mut self,
        now: Now,
        waiter: &Waiter,
        reach: Reach,
        out: &mut Outputs,
    ) {
        let zones = self.zones_with(&reach);
        if zones.len() >= usize::from(reach.zones) {
            let receipt = Receipt {
                zones,
                ..*reach.receipt
            };
            Self::answer(waiter.origin, Ok(Response::Written(receipt)), out);
            return;
        }
        let origin = waiter.origin;
        let deadline_ns = Self::reach_by(now, (reach.group, origin), waiter.deadline_ns);
        let group = reach.group;
        let not_reached = reach.not_reached(zones);
        let what = What::Level(Box::new(LevelWait::Reach(reach)));
        let waiter = Waiter {
            origin,
            deadline_ns,
            bounded: false,
            what,
        };
        match self.waiting.enter(waiter) {
            Some(ticket) => {
                let reaching = self.levels.reaching.entry(group).or_default();
                reaching.insert(ticket);
            }
            None => Self::answer(origin, Err(not_reached), out),
        }
    }

    /// When whoever waits for other zones is answered at the latest.
    pub(super) fn reach_by(now: Now, (group, origin): (GroupId, Origin), deadline_ns: u64) -> u64 {
        let by_ns = Self::answer_by(now, deadline_ns);
        if !group.spans_zones() || !matches!(origin, Origin::Peer(..)) {
            return by_ns;
        }
        // It came from another zone, perhaps, and whoever forwarded it waits no longer than it said.
        let margin_ns = LEVEL_MARGIN_ACROSS_MS.saturating_mul(MS);
        by_ns.saturating_sub(margin_ns).max(now.mono_ns)
    }

    /// The zones that are known to hold a write durably, its own first.
    pub(super) fn zones_with(&self, reach: &Reach) -> Vec<ZoneId> {
        let dot = reach.receipt.dot;
        let mut zones = reach.receipt.zones.clone();
        let Some(local) = self.groups.get(&reach.group) else {
            return zones;
        };
        if reach.group.spans_zones() {
            if local.leads() {
                zones.extend(local.holders(reach.index));
                zones.sort();
                zones.dedup();
            }
            return zones;
        }
        for other in exchange::others(&self.catalog, reach.group) {
            let known = local.exchange.known(other.incarnation);
            if known.is_some_and(|known| known.covers(dot)) && !zones.contains(&other.id.zone) {
                zones.push(other.id.zone);
            }
        }
        zones
    }

    /// Another zone has said what it holds: writes that waited for that are answered.
    pub(crate) fn level_writes(&mut self, group: GroupId, out: &mut Outputs) {
        let Some(tickets) = self.levels.reaching.get(&group) else {
            return;
        };
        for ticket in tickets.clone() {
            self.try_reach(ticket, group, out);
        }
    }

    fn try_reach(&mut self, ticket: RequestId, group: GroupId, out: &mut Outputs) {
        let Some(What::Level(wait)) = self.waiting.get(ticket).map(|waiter| &waiter.what) else {
            self.levels.forget(ticket, group);
            return;
        };
        if let LevelWait::Decided(decided) = &**wait {
            if let Some(told) = self.told_of(decided) {
                self.levels.forget(ticket, group);
                if let Some(waiter) = self.waiting.take(ticket) {
                    Self::answer(waiter.origin, Ok(told), out);
                }
            }
            return;
        }
        let LevelWait::Reach(reach) = &**wait else {
            return;
        };
        let zones = self.zones_with(reach);
        if zones.len() < usize::from(reach.zones) {
            return;
        }
        let receipt = Receipt {
            zones,
            ..(*reach.receipt).clone()
        };
        self.levels.forget(ticket, group);
        if let Some(waiter) = self.waiting.take(ticket) {
            Self::answer(waiter.origin, Ok(Response::Written(receipt)), out);
        }
    }
}
