//! How far the zones of a group that spans zones are behind its leader: what `kv lag` shows of a sync keyspace.
//!
//! Two zones have everything that is committed; the others get it a moment later, or when they are back. What is counted is
//! what is committed and not acknowledged by the zone's replica; what the log no longer holds counts by its index only.

use meridian_causal::ZoneId;
use raft::eraftpb::Entry;

use super::Group;
use crate::command::Command;
use crate::request::ZoneLag;
use crate::time::Now;

impl Group {
    /// The lag of each zone but the leader's own; `None` in a group whose walls are a zone.
    pub(crate) fn behind(&self, now: Now) -> Option<Vec<ZoneLag>> {
        let zones = &self.spanning.as_ref()?.of_keyspace;
        let own = self.zone_of(self.replica);
        let others = zones.iter().filter(|zone| Some(**zone) != own);
        Some(others.map(|zone| self.zone_behind(*zone, now)).collect())
    }

    fn zone_behind(&self, zone: ZoneId, now: Now) -> ZoneLag {
        let of_zone = self.voters().filter(|id| self.zone_of(*id) == Some(zone));
        let matched = of_zone.map(|id| self.matched(id)).max().unwrap_or(0);
        let committed = self.raft.raft.raft_log.committed;
        let first = matched.max(self.log().truncated().index).saturating_add(1);
        let missing = || (first..=committed).filter_map(|index| self.log().entry(index));
        let bytes = missing().map(|entry| entry.data.len()).sum::<usize>();
        let oldest = missing().find_map(wall_ms);
        ZoneLag {
            to: zone,
            lag_ms: oldest.map_or(0, |written| now.wall_ms.saturating_sub(written)),
            entries: committed.saturating_sub(matched),
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        }
    }
}

/// When an entry was proposed, by its leader's clock; entries of Raft's own say nothing.
fn wall_ms(entry: &Entry) -> Option<u64> {
    let command = Command::decode(&entry.data).ok()?;
    Some(command.hlc.wall_ms())
}
