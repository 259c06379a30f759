//! How old the data of a replica is, measured by the replica (protocol rule 29).
//!
//! The replica notes its own monotonic time t0 and asks a leader of each *origin*: the group it belongs to, and the
//! groups of its shard in other zones. That leader confirms that it leads (read index) and answers what it has received.
//! Once the replica has received the same, it lacks nothing that the origin had acknowledged by t0. A follower asks its
//! own leader only, which passes its ages on as durations; an age of d, passed on to somebody who asked at t0, means
//! that nothing acknowledged by t0 - d is missing.
//!
//! A replica is as old as the oldest of its origins; an origin that was never measured makes the age unknown, and so it
//! is after a restart.
//!
//! Invariants:
//! * one question per replica and origin is on its way, and at most [`PENDING_MAX`] answers wait to be reached;
//! * `fresh_ns` never goes back.

use std::collections::{BTreeMap, VecDeque};

use meridian_causal::{VersionVector, ZoneId};

use super::LevelWait;
use crate::core::Core;
use crate::error::Error;
use crate::exchange;
use crate::group::Group;
use crate::ids::GroupId;
use crate::inner::{InnerRequest, InnerResponse};
use crate::output::Outputs;
use crate::request::Response;
use crate::route::Routed;
use crate::time::{MS, Now};
use crate::waiting::{Own, What};

/// Between two questions of which nobody waits for the answer, in milliseconds: what a replica that is suddenly cut off
/// may be wrong by about its age. A tenth of what an idle exchange says anyway.
const IDLE_MS: u64 = 1_000;

/// Least time between two questions to one origin, in milliseconds, however many wait.
const ASK_MS: u64 = 10;

/// How long an answer is waited for, in milliseconds: some round trips over a continent.
const ANSWER_MS: u64 = 1_000;

/// Answers whose vectors a replica has not reached yet.
const PENDING_MAX: usize = 8;

/// A question of a replica on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measuring {
    /// The replica's group.
    pub(crate) group: GroupId,
    /// Whose leader was asked.
    pub(crate) origin: GroupId,
    /// When, by the replica's own clock.
    pub(crate) asked_ns: u64,
}

/// Per replica and origin.
#[derive(Default)]
pub(super) struct Ages(BTreeMap<(GroupId, GroupId), Age>);

#[derive(Default)]
struct Age {
    /// Nothing that the origin acknowledged by then is missing.
    fresh_ns: Option<u64>,
    /// A question is on its way.
    asking: bool,
    asked_ns: Option<u64>,
    pending: VecDeque<Pending>,
}

/// An answer that the replica has not reached.
struct Pending {
    asked_ns: u64,
    need: Need,
    /// Ages that the leader of the replica's own group has passed on.
    passed: Vec<(ZoneId, u64)>,
}

/// What the replica has to have.
enum Need {
    /// Of its own group's log.
    Index(u64),
    /// Of other zones' writes.
    Received(VersionVector),
}

impl Ages {
    pub(super) fn retain(&mut self, keep: impl Fn(GroupId) -> bool) {
        self.0.retain(|(group, _), _| keep(*group));
    }

    fn fresh_ns(&self, group: GroupId, origin: GroupId) -> Option<u64> {
        self.0.get(&(group, origin))?.fresh_ns
    }

    fn advance(&mut self, group: GroupId, origin: GroupId, fresh_ns: u64) {
        let age = self.0.entry((group, origin)).or_default();
        age.fresh_ns = age.fresh_ns.max(Some(fresh_ns));
    }
}

impl Core {
    /// The age of a replica, if it is known.
    pub(super) fn age_ms(&self, now: Now, group: GroupId) -> Option<u64> {
        let local = self.groups.get(&group)?;
        let own = if local.is_current() && local.alone() && !local.sealed() {
            Some(now.mono_ns)
        } else {
            self.levels.ages.fresh_ns(group, group)
        };
        let mut fresh_ns = own?;
        let mut others: Vec<_> = exchange::others(&self.catalog, group).collect();
        if self.config.planted.age_ignores_a_zone {
            others.pop();
        }
        for other in others {
            fresh_ns = fresh_ns.min(self.levels.ages.fresh_ns(group, other.id)?);
        }
        Some(now.mono_ns.saturating_sub(fresh_ns).div_ceil(MS))
    }

    /// Whom a replica has to ask: a follower its leader, a leader every zone, and its own followers where it has any.
    fn origins(&self, group: GroupId) -> Vec<GroupId> {
        let Some(local) = self.groups.get(&group) else {
            return Vec::new();
        };
        if !local.leads() {
            return vec![group];
        }
        let own = (!local.alone()).then_some(group);
        let others = exchange::others(&self.catalog, group).map(|other| other.id);
        own.into_iter().chain(others).collect()
    }

    /// Asks every origin that is not being asked.
    pub(super) fn measure(&mut self, now: Now, group: GroupId, out: &mut Outputs) {
        self.measure_after(now, group, ASK_MS, out);
    }

    /// Asks again, for those who wait, and from time to time for those to come.
    pub(super) fn measure_due(&mut self, now: Now, out: &mut Outputs) {
        let data = self
            .groups
            .iter()
            .filter(|(_, group)| group.shard().is_some());
        let groups: Vec<GroupId> = data.map(|(id, _)| *id).collect();
        for group in groups {
            let awaited = self.levels.waiting.contains_key(&group);
            let after_ms = if awaited { ASK_MS } else { IDLE_MS };
            self.measure_after(now, group, after_ms, out);
        }
    }

    fn measure_after(&mut self, now: Now, group: GroupId, after_ms: u64, out: &mut Outputs) {
        for origin in self.origins(group) {
            let age = self.levels.ages.0.entry((group, origin)).or_default();
            let early = age.asked_ns.is_some_and(|asked_ns| {
                now.mono_ns < asked_ns.saturating_add(after_ms.saturating_mul(MS))
            });
            if age.asking || early || age.pending.len() >= PENDING_MAX {
                continue;
            }
            age.asking = true;
            age.asked_ns = Some(now.mono_ns);
            let own = Own::Measure(Measuring {
                group,
                origin,
                asked_ns: now.mono_ns,
            });
            let request = InnerRequest::Measure {
                keyspace: group.keyspace,
                shard: group.shard,
            };
            self.ask(origin, request, (own, now.after_ms(ANSWER_MS)), out);
        }
    }

    /// The leader of an origin is asked what it has: once it is sure that it leads.
    pub(crate) fn measure_asked(&mut self, routed: &Routed, out: &mut Outputs) {
        let what = What::Level(Box::new(LevelWait::Measure));
        if let Some(ticket) = self.ticket(routed, what, out) {
            self.queue(routed.group, |group| group.enqueue_read(ticket));
        }
    }

    /// It is sure.
    pub(crate) fn measure_answer(&self, now: Now, group: GroupId) -> Result<Response, Error> {
        if let Some(refusal) = self.groups.get(&group).and_then(Group::refusal) {
            return Err(refusal);
        }
        let shard = self
            .whole_replica(group)
            .ok_or(Error::NotLeader { leader: None })?;
        let ages = exchange::others(&self.catalog, group).filter_map(|other| {
            let fresh_ns = self.levels.ages.fresh_ns(group, other.id)?;
            let age_ms = now.mono_ns.saturating_sub(fresh_ns).div_ceil(MS);
            Some((other.id.zone, age_ms))
        });
        Ok(InnerResponse::Measured {
            index: shard.meta().applied,
            received: shard.meta().received.clone(),
            ages: ages.collect(),
        }
        .into())
    }

    /// An origin has answered, or not.
    pub(crate) fn measured(
        &mut self,
        now: Now,
        asked: Measuring,
        result: Result<Response, Error>,
        out: &mut Outputs,
    ) {
        let Measuring {
            group,
            origin,
            asked_ns,
        } = asked;
        let Some(age) = self.levels.ages.0.get_mut(&(group, origin)) else {
            return;
        };
        age.asking = false;
        let response = match result {
            Err(error) => {
                self.learn_leader(origin, None, &error);
                return;
            }
            Ok(response) => response,
        };
        let Response::Inner(inner) = response else {
            return;
        };
        let InnerResponse::Measured {
            index,
            received,
            ages: passed,
        } = *inner
        else {
            return;
        };
        let need = if origin == group {
            Need::Index(index)
        } else {
            Need::Received(written_in(&received, origin.zone))
        };
        age.pending.push_back(Pending {
            asked_ns,
            need,
            passed,
        });
        self.level_reads(now, group, out);
    }

    /// Takes note of what a group's replica has reached.
    pub(super) fn settle_ages(&mut self, group: GroupId) {
        let Some(shard) = self.groups.get(&group).and_then(Group::shard) else {
            return;
        };
        let ages = &mut self.levels.ages;
        let mut reached = Vec::new();
        for ((_, origin), age) in ages.0.range_mut(of_group(group)) {
            while let Some(first) = age.pending.front() {
                let has = match &first.need {
                    Need::Index(index) => shard.meta().applied >= *index,
                    Need::Received(vector) => shard.meta().received.includes(vector),
                };
                if !has {
                    break;
                }
                reached.extend(age.pending.pop_front().map(|first| (*origin, first)));
            }
        }
        for (origin, pending) in reached {
            ages.advance(group, origin, pending.asked_ns);
            for (zone, age_ms) in pending.passed {
                let other = exchange::others(&self.catalog, group).find(|o| o.id.zone == zone);
                let fresh_ns = pending.asked_ns.checked_sub(age_ms.saturating_mul(MS));
                if let (true, Some(other), Some(fresh_ns)) = (origin == group, other, fresh_ns) {
                    ages.advance(group, other.id, fresh_ns);
                }
            }
        }
    }
}

/// All origins of a group.
fn of_group(group: GroupId) -> std::ops::RangeInclusive<(GroupId, GroupId)> {
    let last = GroupId {
        keyspace: crate::ids::KeyspaceId(u32::MAX),
        shard: crate::ids::ShardId(u16::MAX),
        zone: ZoneId(u16::MAX),
        epoch: u32::MAX,
    };
    (group, GroupId::default())..=(group, last)
}

/// What a zone wrote, under whatever incarnation.
fn written_in(received: &VersionVector, zone: ZoneId) -> VersionVector {
    let own = received.iter();
    own.filter(|(incarnation, _)| incarnation.zone() == zone)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_causal::Incarnation;

    #[test]
    fn a_zone_answers_for_its_own_writes_under_every_incarnation_it_had() {
        let entries = [(1, 1, 5), (1, 2, 6), (2, 1, 7)];
        let received = entries
            .into_iter()
            .map(|(zone, nonce, counter)| (Incarnation::new(ZoneId(zone), nonce), counter))
            .collect::<VersionVector>();
        let own = written_in(&received, ZoneId(1));
        assert_eq!(own.len(), 2);
        assert_eq!(own.get(Incarnation::new(ZoneId(1), 2)), 6);
        assert!(written_in(&received, ZoneId(3)).is_empty());
    }

    #[test]
    fn what_was_known_to_be_fresh_never_gets_older() {
        let mut ages = Ages::default();
        let group = GroupId::default();
        let origin = GroupId { epoch: 1, ..group };
        assert_eq!(ages.fresh_ns(group, origin), None);
        ages.advance(group, origin, 7);
        ages.advance(group, origin, 5);
        assert_eq!(ages.fresh_ns(group, origin), Some(7));
    }
}
