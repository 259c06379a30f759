//! The read level `zones(n)`: every zone of the keyspace is asked at once, the first n answers are merged.
//!
//! Each zone answers with what is newest in it (a read index at its leader). Of a key that was written at the level
//! `zones(w)`, a read of r zones therefore shows the write, or what superseded it, when w + r exceeds the number of zones.
//! Merging is a join: what some zone has seen superseded does not come back.

use std::collections::BTreeMap;

use meridian_causal::{Dot, SiblingSet, VersionVector, ZoneId};

use super::Shown;
use crate::core::Core;
use crate::error::Error;
use crate::exchange;
use crate::ids::GroupId;
use crate::inner::InnerRequest;
use crate::limits::ZONE_READS_MAX;
use crate::output::Outputs;
use crate::policy::Mode;
use crate::request::{Answer, Query, Read, ReadLevel, Response, Session};
use crate::route::Routed;
use crate::time::Now;
use crate::waiting::{Origin, Own};

/// How often one zone is asked within one read: once more for each guess at its leader that was wrong.
const ATTEMPTS_MAX: u32 = 3;

/// A zone's part of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ZoneAnswer {
    /// The read.
    pub(crate) id: u64,
    /// The group that was asked.
    pub(crate) group: GroupId,
    /// How often it was.
    pub(crate) attempts: u32,
}

/// Reads of several zones under way.
#[derive(Default)]
pub(super) struct ZoneReads {
    open: BTreeMap<u64, ZoneRead>,
    next: u64,
}

struct ZoneRead {
    origin: Origin,
    deadline_ns: u64,
    read: Read,
    need: usize,
    /// Groups that may still answer.
    open: usize,
    found: BTreeMap<ZoneId, (SiblingSet, VersionVector)>,
}

impl ZoneReads {
    /// Who waits.
    pub(super) fn origins(&self) -> impl Iterator<Item = Origin> + '_ {
        self.open.values().map(|one| one.origin)
    }
}

impl Core {
    pub(super) fn read_zones(
        &mut self,
        now: Now,
        routed: &Routed,
        (read, count): (Box<Read>, u16),
        out: &mut Outputs,
    ) {
        let groups = match self.zones_to_ask(routed.group, &read, count) {
            Ok(groups) => groups,
            Err(error) => {
                Self::answer(routed.origin, Err(error), out);
                return;
            }
        };
        let reads = &mut self.levels.zone_reads;
        reads.next = reads.next.saturating_add(1);
        let id = reads.next;
        let one = ZoneRead {
            origin: routed.origin,
            deadline_ns: Self::answer_by(now, routed.deadline_ns),
            read: *read,
            need: usize::from(count),
            open: groups.len(),
            found: BTreeMap::new(),
        };
        reads.open.insert(id, one);
        for group in groups {
            let answer = ZoneAnswer {
                id,
                group,
                attempts: 1,
            };
            self.ask_zone(answer, out);
        }
    }

    /// The groups of the shard, the own zone's first.
    fn zones_to_ask(&self, own: GroupId, read: &Read, count: u16) -> Result<Vec<GroupId>, Error> {
        let keyspace = self.catalog.keyspaces.get(&read.keyspace);
        let policy = &keyspace.ok_or(Error::KeyspaceNotFound)?.policy;
        let is_get = matches!(read.query, Query::Get { .. });
        if policy.mode != Mode::Async || !is_get {
            let level = format!("zones:{count}");
            return Err(Error::LevelUnsupported { level });
        }
        let groups: Vec<GroupId> = std::iter::once(own)
            .chain(exchange::others(&self.catalog, own).map(|other| other.id))
            .collect();
        if count == 0 || usize::from(count) > groups.len() {
            let message = format!(
                "the keyspace is in {} zones, which {count} zones cannot be of",
                groups.len()
            );
            return Err(Error::InvalidArgument { message });
        }
        if self.levels.zone_reads.open.len() >= ZONE_READS_MAX {
            let what = "the list of reads of several zones".to_owned();
            return Err(Error::Overloaded { what });
        }
        Ok(groups)
    }

    fn ask_zone(&mut self, answer: ZoneAnswer, out: &mut Outputs) {
        let Some(one) = self.levels.zone_reads.open.get(&answer.id) else {
            return;
        };
        let read = Read {
            level: ReadLevel::Linearizable,
            session: Some(Box::<Session>::default()),
            ..one.read.clone()
        };
        let deadline_ns = one.deadline_ns;
        let request = InnerRequest::Read {
            shard: answer.group.shard,
            read: Box::new(read),
        };
        self.ask(
            answer.group,
            request,
            (Own::ZoneRead(answer), deadline_ns),
            out,
        );
    }

    /// A zone has answered, or will not.
    pub(crate) fn zone_answered(
        &mut self,
        now: Now,
        answer: ZoneAnswer,
        result: Result<Response, Error>,
        out: &mut Outputs,
    ) {
        let asked_again = result.as_ref().err().is_some_and(|error| {
            self.learn_leader(answer.group, None, error);
            matches!(error, Error::NotLeader { leader: Some(_) }) && answer.attempts < ATTEMPTS_MAX
        });
        let Some(one) = self.levels.zone_reads.open.get_mut(&answer.id) else {
            return;
        };
        if asked_again && now.mono_ns < one.deadline_ns {
            let again = ZoneAnswer {
                attempts: answer.attempts.saturating_add(1),
                ..answer
            };
            self.ask_zone(again, out);
            return;
        }
        one.open = one.open.saturating_sub(1);
        if let Ok(Response::Read(Answer::Shown(shown))) = result
            && let Answer::Key(set) = shown.answer
        {
            one.found.insert(answer.group.zone, (set, shown.seen));
        }
        if one.found.len() >= one.need || one.open == 0 {
            self.finish_zone_read(answer.id, out);
        }
    }

    fn finish_zone_read(&mut self, id: u64, out: &mut Outputs) {
        let Some(one) = self.levels.zone_reads.open.remove(&id) else {
            return;
        };
        let result = if one.found.len() >= one.need {
            let shown = merged(one.found, self.config.node);
            Ok(Response::Read(Answer::Shown(Box::new(shown))))
        } else {
            Err(Error::ZonesShort {
                zones: one.found.into_keys().collect(),
                need: u16::try_from(one.need).unwrap_or(u16::MAX),
            })
        };
        Self::answer(one.origin, result, out);
    }

    pub(super) fn expire_zone_reads(&mut self, now: Now, out: &mut Outputs) {
        let open = self.levels.zone_reads.open.iter();
        let late: Vec<u64> = open
            .filter(|(_, one)| one.deadline_ns <= now.mono_ns)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.finish_zone_read(id, out);
        }
    }
}

fn merged(found: BTreeMap<ZoneId, (SiblingSet, VersionVector)>, by: crate::ids::NodeId) -> Shown {
    let (mut set, mut seen) = (SiblingSet::new(), VersionVector::new());
    for (other, received) in found.values() {
        set.merge(other);
        seen.join(received);
    }
    let holders = |dot: Dot| {
        let holds = |set: &SiblingSet| set.siblings().iter().any(|sibling| sibling.dot == dot);
        let zones = found.iter().filter(|(_, (set, _))| holds(set));
        zones.map(|(zone, _)| *zone).collect()
    };
    let dots = set.siblings().iter().map(|sibling| sibling.dot);
    Shown {
        by,
        seen,
        age_ms: None,
        zones: found.keys().copied().collect(),
        held: dots.map(|dot| (dot, holders(dot))).collect(),
        answer: Answer::Key(set),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use bytes::Bytes;
    use meridian_causal::{CausalContext, Content, Hlc, Incarnation, Sibling};

    fn wrote(set: &mut SiblingSet, zone: u16, replaced: &CausalContext) -> Dot {
        let dot = Dot::new(Incarnation::new(ZoneId(zone), 1), 1);
        let sibling = Sibling {
            dot,
            content: Content::Value(Bytes::from_static(b"v")),
            written_at: Hlc::default(),
            expires_at_ms: None,
            op_id: None,
            transaction: None,
        };
        set.apply(sibling, replaced, &VersionVector::new());
        dot
    }

    fn found(sets: Vec<SiblingSet>) -> BTreeMap<ZoneId, (SiblingSet, VersionVector)> {
        let zones = (1..).map(ZoneId).zip(sets);
        zones
            .map(|(zone, set)| (zone, (set, VersionVector::new())))
            .collect()
    }

    #[test]
    fn every_sibling_is_shown_with_the_zones_that_hold_it() {
        let (mut one, mut two) = (SiblingSet::new(), SiblingSet::new());
        let a = wrote(&mut one, 1, &CausalContext::new());
        two.merge(&one);
        let b = wrote(&mut two, 2, &CausalContext::new());
        let shown = merged(found(vec![one, two]), NodeId(1));
        let (first, second) = (ZoneId(1), ZoneId(2));
        assert_eq!(
            shown.held,
            vec![(a, vec![first, second]), (b, vec![second])]
        );
    }

    #[test]
    fn what_a_zone_has_seen_superseded_does_not_come_back() {
        let (mut one, mut two) = (SiblingSet::new(), SiblingSet::new());
        let a = wrote(&mut one, 1, &CausalContext::new());
        two.merge(&one);
        let b = wrote(&mut two, 2, &CausalContext::from_dot(a));
        let shown = merged(found(vec![one, two]), NodeId(1));
        assert_eq!(shown.held, vec![(b, vec![ZoneId(2)])]);
    }
}
