//! Where a group that spans zones should be led: in the home zone if there is one, else where most writes come from.
//!
//! A write costs its client one round trip to the leader and the leader one to another zone: with the leader in the
//! writer's zone the first is nothing. The leader counts the writes that reach it by the zone of the node that took them
//! from a client, halves the counts every ten election timeouts, and hands over when another zone's count is twice its
//! own zone's. A leader stays for twenty election timeouts at least before it looks at writes, so that two zones that
//! write in turn do not pull the lead to and fro.
//!
//! Volatile: the next leader counts anew. A function of ticks and counts, no clock and no chance.

use std::collections::BTreeMap;

use meridian_causal::ZoneId;

use super::Group;
use crate::ids::{NodeId, ReplicaId};

/// Election timeouts after which counts are halved.
const DECAY_TIMEOUTS: usize = 10;

/// Election timeouts a leader stays before it hands over to where writes come from.
const STAY_TIMEOUTS: usize = 20;

/// Election timeouts a leader outside of the home zone stays, and between two attempts to hand over to it.
const HOME_TIMEOUTS: usize = 4;

/// Fewer writes than these say nothing.
const WRITES_MIN: u64 = 32;

/// How many times more writes than from the own zone must come from another.
const ADVANTAGE: u64 = 2;

/// Entries the next leader may be behind: until it has them, nothing is proposed.
const BEHIND_MAX: u64 = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    writes: BTreeMap<ZoneId, u64>,
    /// Ticks since this replica leads, or since the lead was last to be handed over.
    stayed: usize,
    /// Ticks since the counts were halved.
    counted: usize,
}

impl Demand {
    pub(super) fn tick(&mut self) {
        self.stayed = self.stayed.saturating_add(1);
        self.counted = self.counted.saturating_add(1);
    }

    fn count(&mut self, zone: ZoneId) {
        let writes = self.writes.entry(zone).or_default();
        *writes = writes.saturating_add(1);
    }

    fn decay(&mut self, election_ticks: usize) {
        if self.counted < election_ticks.saturating_mul(DECAY_TIMEOUTS) {
            return;
        }
        self.counted = 0;
        for writes in self.writes.values_mut() {
            *writes /= 2;
        }
    }

    /// The zone that should lead instead of `own`, if it is time to say so.
    fn wish(&self, own: ZoneId, home: Option<ZoneId>, election_ticks: usize) -> Option<ZoneId> {
        let stayed = |timeouts: usize| self.stayed >= election_ticks.saturating_mul(timeouts);
        if let Some(home) = home {
            return (home != own && stayed(HOME_TIMEOUTS)).then_some(home);
        }
        if !stayed(STAY_TIMEOUTS) {
            return None;
        }
        let here = self.writes.get(&own).copied().unwrap_or(0);
        let enough = WRITES_MIN.max(here.saturating_mul(ADVANTAGE));
        // Of equals the first zone, so that the same counts always say the same.
        let most = self
            .writes
            .iter()
            .filter(|(zone, _)| **zone != own)
            .max_by_key(|(zone, writes)| (**writes, std::cmp::Reverse(**zone)));
        most.filter(|(_, writes)| **writes >= enough)
            .map(|(zone, _)| *zone)
    }
}

impl Group {
    /// A write came, taken from a client by `node`.
    pub(crate) fn count_write(&mut self, node: NodeId) {
        let zone = self.zone_of(ReplicaId::new(node, 0));
        if let (Some(spanning), Some(zone)) = (&mut self.spanning, zone) {
            spanning.demand.count(zone);
        }
    }

    /// Hands the lead over where another zone should have it and is able to. Called by ticks.
    pub(crate) fn seek_place(&mut self) {
        if !self.established() || self.raft.raft.lead_transferee.is_some() {
            return;
        }
        let (own, ticks) = (self.zone_of(self.replica), self.election_ticks);
        let Some((spanning, own)) = self.spanning.as_mut().zip(own) else {
            return;
        };
        spanning.demand.decay(ticks);
        let Some(zone) = spanning.demand.wish(own, spanning.home, ticks) else {
            return;
        };
        let last = self.log().last();
        let able = self.voters().find(|voter| {
            self.zone_of(*voter) == Some(zone)
                && self.is_heard(*voter)
                && self.matched(*voter).saturating_add(BEHIND_MAX) >= last
        });
        if let Some(spanning) = &mut self.spanning {
            spanning.demand.stayed = 0;
        }
        if let Some(next) = able {
            self.raft.transfer_leader(next.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKS: usize = 10;
    const A: ZoneId = ZoneId(1);
    const B: ZoneId = ZoneId(2);
    const C: ZoneId = ZoneId(3);

    fn demand(stayed: usize, writes: &[(ZoneId, u64)]) -> Demand {
        Demand {
            writes: writes.iter().copied().collect(),
            stayed: stayed * TICKS,
            counted: 0,
        }
    }

    #[test]
    fn the_lead_goes_where_twice_as_many_writes_come_from() {
        let wish = |writes: &[(ZoneId, u64)]| demand(STAY_TIMEOUTS, writes).wish(A, None, TICKS);
        assert_eq!(wish(&[(A, 50), (B, 100)]), Some(B));
        assert_eq!(wish(&[(A, 50), (B, 99)]), None);
        assert_eq!(wish(&[(B, WRITES_MIN - 1)]), None);
        assert_eq!(wish(&[(B, 70), (C, 70)]), Some(B));
    }

    #[test]
    fn a_leader_stays_for_a_while_before_it_looks_at_writes() {
        let early = demand(STAY_TIMEOUTS - 1, &[(B, 1_000)]);
        assert_eq!(early.wish(A, None, TICKS), None);
    }

    #[test]
    fn a_home_zone_leads_whatever_is_written_elsewhere() {
        let busy = demand(STAY_TIMEOUTS, &[(C, 1_000)]);
        assert_eq!(busy.wish(A, Some(B), TICKS), Some(B));
        assert_eq!(busy.wish(B, Some(B), TICKS), None);
        assert_eq!(demand(1, &[]).wish(A, Some(B), TICKS), None);
    }

    #[test]
    fn old_writes_count_less_and_less() {
        let mut demand = demand(0, &[(B, 64)]);
        demand.counted = DECAY_TIMEOUTS * TICKS - 1;
        demand.decay(TICKS);
        assert_eq!(demand.writes[&B], 64);
        demand.tick();
        demand.decay(TICKS);
        assert_eq!(demand.writes[&B], 32);
    }
}
