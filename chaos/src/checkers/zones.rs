//! Sync keyspaces: when a write is acknowledged, two zones hold it durably, and so does each zone that its receipt names.
//!
//! Judged at the moment in which the leader says so, from what every replica has written to its log by then; the leader's
//! own idea of what others hold is not asked. With it, the disks of any one zone may be lost for good and nothing that was
//! acknowledged is lost (RPO 0): the nemesis wipes zones, and `durability` finds what would be missing at the end.
//!
//! A disk that was lost after it had held a write counts: that loss is the one that the write survives in the other zone.
//!
//! What it is not: receipts of retries are not judged, since a zone may have been wiped after the first was said.

use std::collections::{BTreeMap, BTreeSet};

use meridian_causal::{Dot, ZoneId};
use meridian_core::ids::GroupId;

use crate::violation::{Checked, Violation};

/// What one replica has durably of a group's log.
#[derive(Debug, Default)]
struct Log {
    /// A group image covers everything up to here.
    image: u64,
    /// Terms of entries.
    entries: BTreeMap<u64, u64>,
}

impl Log {
    /// Whether it has the entry that `leader` has at `index`. Two logs that agree on an entry agree on all before it (Raft's
    /// log matching): a node that died between a write and saying so is seen to have had it by what it appends next.
    fn holds(&self, index: u64, leader: &Self) -> bool {
        let same = |(at, term): (&u64, &u64)| leader.entries.get(at) == Some(term);
        index <= self.image || self.entries.range(index..).any(same)
    }
}

/// What replicas hold, and where writes stand.
#[derive(Debug, Default)]
pub(super) struct Zones {
    logs: BTreeMap<(GroupId, usize, u32), Log>,
    /// How often each node lost its disk.
    lives: BTreeMap<usize, u32>,
    effects: BTreeMap<Dot, (GroupId, u64)>,
    judged: BTreeSet<Dot>,
}

/// An acknowledgement as a node says it.
#[derive(Clone, Debug)]
pub struct Acked {
    /// The write.
    pub dot: Dot,
    /// The zones its receipt names.
    pub zones: Vec<ZoneId>,
}

impl Zones {
    /// An entry is in a replica's log, and replaces what stood there and behind it.
    pub(super) fn durable(&mut self, node: usize, group: GroupId, (index, term): (u64, u64)) {
        let log = self.log(group, node);
        log.entries.split_off(&index);
        log.entries.insert(index, term);
    }

    /// A replica has taken a group image.
    pub(super) fn imaged(&mut self, node: usize, group: GroupId, index: u64) {
        let log = self.log(group, node);
        log.image = log.image.max(index);
    }

    /// A write took effect.
    pub(super) fn effect(&mut self, group: GroupId, index: u64, dot: Dot) {
        if group.spans_zones() {
            self.effects.entry(dot).or_insert((group, index));
        }
    }

    /// A node lost its disk.
    pub(super) fn wiped(&mut self, node: usize) {
        *self.lives.entry(node).or_default() += 1;
    }

    fn log(&mut self, group: GroupId, node: usize) -> &mut Log {
        let life = self.life(node);
        self.logs.entry((group, node, life)).or_default()
    }

    fn life(&self, node: usize) -> u32 {
        self.lives.get(&node).copied().unwrap_or(0)
    }

    /// A node says that a write stands.
    pub(super) fn acknowledged(
        &mut self,
        now: u64,
        node: usize,
        acked: &Acked,
        zone_of: impl Fn(usize) -> ZoneId,
    ) -> Checked {
        let Some((group, index)) = self.effects.get(&acked.dot).copied() else {
            return Ok(());
        };
        if !self.judged.insert(acked.dot) {
            return Ok(());
        }
        let own = self.logs.get(&(group, node, self.life(node)));
        let Some(own) = own.filter(|log| log.entries.contains_key(&index)) else {
            let message = format!(
                "n{} acknowledges {} and has not logged it",
                node + 1,
                acked.dot
            );
            return Err(Violation::new("zones", now, message));
        };
        let logs = self.logs.iter().filter(|((of, ..), _)| *of == group);
        let holders: BTreeSet<ZoneId> = logs
            .filter(|(_, log)| log.holds(index, own))
            .map(|((_, node, _), _)| zone_of(*node))
            .collect();
        if holders.len() >= 2 && acked.zones.iter().all(|zone| holders.contains(zone)) {
            return Ok(());
        }
        Err(Violation::new(
            "zones",
            now,
            format!(
                "n{} acknowledges {} as durable in zones {:?}, and it is in {holders:?} only",
                node + 1,
                acked.dot,
                acked.zones
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_causal::Incarnation;
    use meridian_core::ids::KeyspaceId;

    const GROUP: GroupId = GroupId {
        keyspace: KeyspaceId::DEFAULT,
        ..GroupId::CONTROL
    };

    fn zone(node: usize) -> ZoneId {
        ZoneId(u16::try_from(node).unwrap() + 1)
    }

    /// Node 0 has applied entry 5 of term 2; `others` have these terms there.
    fn judge(others: &[(usize, u64)], named: &[u16]) -> Checked {
        let dot = Dot::new(Incarnation::new(ZoneId::GLOBAL, 7), 1);
        let mut zones = Zones::default();
        zones.effect(GROUP, 5, dot);
        zones.durable(0, GROUP, (5, 2));
        for (node, term) in others {
            zones.durable(*node, GROUP, (5, *term));
        }
        let acked = Acked {
            dot,
            zones: named.iter().map(|zone| ZoneId(*zone)).collect(),
        };
        zones.acknowledged(9, 0, &acked, zone)
    }

    #[test]
    fn a_write_in_two_zones_passes() {
        assert!(judge(&[(1, 2)], &[1, 2]).is_ok());
    }

    #[test]
    fn a_write_in_the_leaders_zone_alone_is_found() {
        assert!(judge(&[], &[1]).is_err());
        assert!(judge(&[(1, 1)], &[1]).is_err());
    }

    #[test]
    fn a_zone_that_is_named_and_lacks_the_write_is_found() {
        assert!(judge(&[(1, 2)], &[1, 2, 3]).is_err());
    }

    #[test]
    fn what_was_overwritten_does_not_count_and_what_a_lost_disk_held_does() {
        let dot = Dot::new(Incarnation::new(ZoneId::GLOBAL, 7), 1);
        let acked = Acked { dot, zones: vec![] };
        let mut zones = Zones::default();
        let judge = |zones: &mut Zones| {
            zones.judged.clear();
            zones.acknowledged(9, 0, &acked, zone)
        };
        zones.effect(GROUP, 5, dot);
        zones.durable(0, GROUP, (5, 2));
        zones.durable(1, GROUP, (5, 2));
        zones.durable(1, GROUP, (4, 3));
        assert!(judge(&mut zones).is_err());
        zones.imaged(2, GROUP, 6);
        zones.wiped(2);
        assert!(judge(&mut zones).is_ok());
    }
}
