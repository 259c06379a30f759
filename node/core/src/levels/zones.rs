//! The read level `zones(n)`: every zone of the keyspace is asked at once, and the first n answers are put together.
//!
//! * `async`: each zone answers with what is newest in it (a read index at its leader), and answers are merged by a join: what
//!   some zone has seen superseded does not come back.
//! * `sync`, `snapshot`: all zones go by one log. Each answers with what it holds (`held`; the home of mirrors: by a read
//!   index), and the answer from the latest point of the log is shown. What an earlier one holds and that does not was
//!   superseded, or dropped.
//!
//! Either way it is said of each sibling which zones hold it. Of a key that was written at the level `zones(w)`, a read of r
//! zones shows the write, or what superseded it, when w + r exceeds the number of zones (`async`, `sync`).

use std::collections::BTreeMap;

use bytes::Bytes;
use meridian_causal::{Dot, SiblingSet, VersionVector, ZoneId};

use super::{Held, Shown};
use crate::catalog::Policy;
use crate::core::Core;
use crate::error::Error;
use crate::exchange;
use crate::ids::{GroupId, NodeId, ShardId};
use crate::inner::{InnerRequest, InnerResponse};
use crate::limits::ZONE_READS_MAX;
use crate::mirror::{mirror_node, mirror_zones};
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
    /// The zone.
    pub(crate) zone: ZoneId,
    /// Who was asked there.
    pub(crate) asked: Asked,
    /// How often.
    pub(crate) attempts: u32,
}

/// Who is asked in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The leader of a group, for what is newest in it.
    Leader(GroupId),
    /// A node with a replica or a mirror of a shard, for what that holds.
    Holder(NodeId, ShardId),
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
    key: Bytes,
    need: usize,
    /// All zones go by one log.
    one_log: bool,
    /// Zones that may still answer.
    open: usize,
    found: Found,
}

/// Whom to ask, and about what.
struct Zones {
    asked: Vec<(ZoneId, Asked)>,
    /// All zones go by one log.
    one_log: bool,
    key: Bytes,
}

/// What zones have answered.
type Found = BTreeMap<ZoneId, Held>;

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
        let Zones {
            asked,
            one_log,
            key,
        } = match self.zones_to_ask(routed.group, &read, count) {
            Ok(zones) => zones,
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
            key,
            need: usize::from(count),
            one_log,
            open: asked.len(),
            found: Found::new(),
        };
        reads.open.insert(id, one);
        for (zone, asked) in asked {
            let answer = ZoneAnswer {
                id,
                zone,
                asked,
                attempts: 1,
            };
            self.ask_zone(answer, out);
        }
    }

    /// Whom to ask in the zones of a keyspace, and about what.
    fn zones_to_ask(&self, group: GroupId, read: &Read, count: u16) -> Result<Zones, Error> {
        let keyspace = self.catalog.keyspaces.get(&read.keyspace);
        let policy = &keyspace.ok_or(Error::KeyspaceNotFound)?.policy;
        let Query::Get { key } = &read.query else {
            let level = format!("zones:{count} on reads of more than one key");
            return Err(Error::LevelUnsupported { level });
        };
        let zones = match policy.mode {
            Mode::Async => self.zones_of_groups(group),
            Mode::Sync => self.zones_of_replicas(group, policy),
            Mode::Snapshot => self.zones_of_mirrors(group, policy),
        };
        if count == 0 || usize::from(count) > policy.zones.len() {
            let message = format!(
                "the keyspace is in {} zones, which {count} zones cannot be of",
                policy.zones.len()
            );
            return Err(Error::InvalidArgument { message });
        }
        if self.levels.zone_reads.open.len() >= ZONE_READS_MAX {
            let what = "the list of reads of several zones".to_owned();
            return Err(Error::Overloaded { what });
        }
        Ok(Zones {
            asked: zones,
            one_log: policy.mode != Mode::Async,
            key: key.clone(),
        })
    }

    /// The own zone's group first.
    fn zones_of_groups(&self, own: GroupId) -> Vec<(ZoneId, Asked)> {
        let others = exchange::others(&self.catalog, own).map(|other| other.id);
        std::iter::once(own)
            .chain(others)
            .map(|group| (group.zone, Asked::Leader(group)))
            .collect()
    }

    fn zones_of_replicas(&self, group: GroupId, policy: &Policy) -> Vec<(ZoneId, Asked)> {
        let voters = self.placed(group).map_or(&[][..], |record| &record.voters);
        let mut zones: BTreeMap<ZoneId, Asked> = BTreeMap::new();
        for node in voters.iter().map(|voter| voter.node()) {
            let record = self.catalog.nodes.get(&node);
            if let Some(zone) = record.map(|record| record.zone)
                && policy.zones.contains(&zone)
            {
                zones
                    .entry(zone)
                    .or_insert(Asked::Holder(node, group.shard));
            }
        }
        zones.into_iter().collect()
    }

    fn zones_of_mirrors(&self, group: GroupId, policy: &Policy) -> Vec<(ZoneId, Asked)> {
        let home = policy.home.map(|home| (home, Asked::Leader(group)));
        let mirrors = mirror_zones(&self.catalog, group.keyspace).into_iter();
        let mirrors = mirrors.filter_map(|zone| {
            let node = mirror_node(&self.catalog, group.shard, zone)?;
            Some((zone, Asked::Holder(node, group.shard)))
        });
        home.into_iter().chain(mirrors).collect()
    }

    fn ask_zone(&mut self, answer: ZoneAnswer, out: &mut Outputs) {
        let Some(one) = self.levels.zone_reads.open.get(&answer.id) else {
            return;
        };
        let own = (Own::ZoneRead(answer), one.deadline_ns);
        match answer.asked {
            Asked::Leader(group) => {
                let read = Read {
                    level: ReadLevel::Linearizable,
                    session: Some(Box::<Session>::default()),
                    ..one.read.clone()
                };
                let request = InnerRequest::Read {
                    shard: group.shard,
                    read: Box::new(read),
                };
                self.ask(group, request, own, out);
            }
            Asked::Holder(node, shard) => {
                let request = InnerRequest::Held {
                    keyspace: one.read.keyspace,
                    shard,
                    key: one.key.clone(),
                };
                self.ask_node(node, request, own, out);
            }
        }
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
            let Asked::Leader(group) = answer.asked else {
                return false;
            };
            self.learn_leader(group, None, error);
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
        if let Some(held) = result.ok().and_then(held_of) {
            one.found.insert(answer.zone, held);
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
            let shown = put_together(one.found, one.one_log, self.config.node);
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

/// What a zone says that it holds.
fn held_of(response: Response) -> Option<Held> {
    if let Response::Inner(inner) = response {
        let InnerResponse::Held(held) = *inner else {
            return None;
        };
        return Some(*held);
    }
    let Response::Read(answer) = response else {
        return None;
    };
    let Answer::Shown(shown) = answer else {
        return Held::of_mirror(answer);
    };
    let Answer::Key(set) = shown.answer else {
        return None;
    };
    Some(Held::of_home(set, shown.seen))
}

/// One answer of those of several zones: of the latest point where they go by one log, else all of them joined.
fn put_together(found: Found, one_log: bool, by: NodeId) -> Shown {
    let (mut set, mut seen) = (SiblingSet::new(), VersionVector::new());
    if one_log {
        if let Some(latest) = found.values().max_by_key(|held| held.rank) {
            (set, seen) = (latest.set.clone(), latest.seen.clone());
        }
    } else {
        for held in found.values() {
            set.merge(&held.set);
            seen.join(&held.seen);
        }
    }
    let holders = |dot: Dot| {
        let holds = |held: &Held| held.set.siblings().iter().any(|sibling| sibling.dot == dot);
        let zones = found.iter().filter(|(_, held)| holds(held));
        zones.map(|(zone, _)| *zone).collect()
    };
    let dots = set.siblings().iter().map(|sibling| sibling.dot);
    let mirrors = found
        .iter()
        .filter_map(|(zone, held)| Some((*zone, held.mirror?)));
    Shown {
        by,
        seen,
        age_ms: None,
        zones: found.keys().copied().collect(),
        held: dots.map(|dot| (dot, holders(dot))).collect(),
        mirrors: mirrors.collect(),
        answer: Answer::Key(set),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
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

    fn found(sets: Vec<SiblingSet>) -> Found {
        let held = (1..).zip(sets).map(|(rank, set)| Held {
            rank,
            set,
            seen: VersionVector::new(),
            mirror: None,
        });
        (1..).map(ZoneId).zip(held).collect()
    }

    #[test]
    fn every_sibling_is_shown_with_the_zones_that_hold_it() {
        let (mut one, mut two) = (SiblingSet::new(), SiblingSet::new());
        let a = wrote(&mut one, 1, &CausalContext::new());
        two.merge(&one);
        let b = wrote(&mut two, 2, &CausalContext::new());
        let shown = put_together(found(vec![one, two]), false, NodeId(1));
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
        let shown = put_together(found(vec![one, two]), false, NodeId(1));
        assert_eq!(shown.held, vec![(b, vec![ZoneId(2)])]);
    }

    #[test]
    fn in_one_log_the_latest_answer_is_shown_and_what_it_has_dropped_does_not_come_back() {
        let (mut one, mut two) = (SiblingSet::new(), SiblingSet::new());
        let a = wrote(&mut one, 1, &CausalContext::new());
        two.merge(&one);
        let shown = put_together(found(vec![SiblingSet::new(), two]), true, NodeId(1));
        assert_eq!(shown.held, vec![(a, vec![ZoneId(2)])], "it came later");
        let shown = put_together(found(vec![one, SiblingSet::new()]), true, NodeId(1));
        assert_eq!(shown.held, vec![], "it has gone since");
        assert_eq!(shown.zones, vec![ZoneId(1), ZoneId(2)]);
    }

    #[test]
    fn a_mirror_is_named_with_what_it_shows_and_the_home_is_ahead_of_it() {
        let stamp = crate::mirror::MirrorStamp {
            generation: 4,
            view: 9,
            cut_ms: u64::MAX - 1,
            age_ms: 5,
        };
        let mut old = SiblingSet::new();
        let a = wrote(&mut old, 1, &CausalContext::new());
        let mut new = old.clone();
        new.merge(&old);
        let mirrored = Answer::Mirrored(Box::new(Answer::Key(old)), stamp);
        let mirror = held_of(Response::Read(mirrored)).unwrap();
        let home = Held::of_home(SiblingSet::new(), VersionVector::new());
        let found = Found::from([(ZoneId(1), home), (ZoneId(2), mirror.clone())]);
        let shown = put_together(found, true, NodeId(1));
        assert_eq!(shown.held, vec![]);
        assert_eq!(shown.mirrors, vec![(ZoneId(2), stamp)]);
        let shown = put_together(Found::from([(ZoneId(2), mirror)]), true, NodeId(1));
        assert_eq!(shown.held, vec![(a, vec![ZoneId(2)])]);
        assert!(held_of(Response::ViewClosed).is_none());
    }
}
