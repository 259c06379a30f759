//! Levels of reads and writes beyond "the leader" and "whatever is at hand", and the bound on lag.
//!
//! * `session`: a read that waits until a replica has received what its session has seen (`session`, protocol rule 28);
//! * `bounded`: how old a replica's data is, measured by the replica itself (`bounded`, `ages`, protocol rule 29);
//! * `zones(n)` of reads: what several zones hold, put together (`zones`, `held`);
//! * `zones(n)` and `all` of writes: the answer waits for other zones (`reach`);
//! * `ack = all` of transactions over several shards (`decided`);
//! * a bound on how far other zones may be behind (`brake`).
//!
//! What it is not: nothing here is durable, and nothing decides what is stored. All of it is found again from vectors.
//!
//! Invariants:
//! * a level never answers with less than it says: what is not known counts as not reached;
//! * whatever waits here has a ticket of [`Waiting`](crate::waiting::Waiting), hence a deadline and a bound;
//! * an age is a difference of two readings of one monotonic clock, never of two machines' clocks.
//!
//! Read `docs/levels.md`.

mod ages;
mod bounded;
mod brake;
mod decided;
mod held;
mod reach;
mod session;
mod zones;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use meridian_causal::{Dot, OpId, VersionVector, ZoneId};
use serde::{Deserialize, Serialize};

use crate::core::Core;
use crate::error::{EffectOf, Error};
use crate::group::Group;
use crate::ids::{GroupId, NodeId, RequestId};
use crate::limits::LEVEL_MARGIN_MS;
use crate::mirror::MirrorStamp;
use crate::output::Outputs;
use crate::request::{Answer, Read, ReadLevel, Response};
use crate::route::Routed;
use crate::shard::{self, Shard};
use crate::time::{MS, Now};
use crate::waiting::{Waiter, What};

pub(crate) use ages::Measuring;
use decided::Decided;
pub use held::Held;
pub(crate) use reach::Reach;
pub(crate) use zones::ZoneAnswer;

/// The session a read belongs to, as far as the shard it reads is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// What the session has seen and written in this shard. The level `session` heeds it.
    pub after: VersionVector,
    /// What is done when the replica at hand is behind.
    pub behind: OnBehind,
}

/// What is done when the replica at hand has not received what a read asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnBehind {
    /// The read waits, until its deadline.
    #[default]
    Wait,
    /// It fails with [`Error::Stale`], which names a node that is further.
    Redirect,
    /// It fails with [`Error::Stale`].
    Fail,
}

/// An answer, with what is known of the state it was read from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// The answer.
    pub answer: Answer,
    /// The node that served it.
    pub by: NodeId,
    /// What its replica had received, at least: whoever has received this has received all that the answer shows.
    pub seen: VersionVector,
    /// Everything acknowledged longer ago than this, in whatever zone, is in it; `None`: it cannot be said.
    pub age_ms: Option<u64>,
    /// With [`ReadLevel::Zones`]: the zones that answered.
    pub zones: Vec<ZoneId>,
    /// With [`ReadLevel::Zones`]: which of them hold each sibling.
    pub held: Vec<(Dot, Vec<ZoneId>)>,
    /// With [`ReadLevel::Zones`]: what the mirrors among them show.
    pub mirrors: Vec<(ZoneId, MirrorStamp)>,
}

/// What the levels keep for the groups of a core.
#[derive(Default)]
pub(crate) struct Levels {
    /// Reads that wait for a group's replica to be further.
    waiting: BTreeMap<GroupId, BTreeSet<RequestId>>,
    /// Writes that wait for other zones, by the group that took them.
    reaching: BTreeMap<GroupId, BTreeSet<RequestId>>,
    ages: ages::Ages,
    zone_reads: zones::ZoneReads,
    brakes: brake::Brakes,
}

/// Why a request waits here.
#[derive(Clone, Debug)]
pub(crate) enum LevelWait {
    /// A read, for the replica of a group to be further.
    Read(GroupId, Box<Read>),
    /// What this node holds of a key in a group, once it has applied this entry.
    Held(GroupId, Bytes, u64),
    /// A read that another node was asked for.
    Forwarded(GroupId),
    /// A read index of a group, for a replica that measures its age.
    Measure,
    /// The commit of a write in a group, which so many zones are to hold.
    Write(GroupId, OpId, u16),
    /// Other zones, for a write that is committed.
    Reach(Reach),
    /// All zones, for a transaction that is decided.
    Decided(Decided),
}

impl LevelWait {
    /// The group whose log has the write that waits, or may have it.
    pub(crate) const fn written_in(&self) -> Option<GroupId> {
        match self {
            Self::Write(group, ..) => Some(*group),
            Self::Reach(reach) => Some(reach.group),
            Self::Decided(decided) => Some(decided.group),
            Self::Read(..) | Self::Held(..) | Self::Forwarded(_) | Self::Measure => None,
        }
    }
}

impl Levels {
    /// Age of the oldest effect of a group led here that some zone lacks, while it is past the bound.
    pub(crate) fn breach_ms(&self, group: GroupId) -> Option<u64> {
        self.brakes.breach_ms(group)
    }

    /// Whether a write taken by a group waits for other zones.
    pub(crate) fn reaches(&self, group: GroupId) -> bool {
        self.reaching.contains_key(&group)
    }

    fn forget(&mut self, ticket: RequestId, group: GroupId) {
        for tickets in [&mut self.waiting, &mut self.reaching] {
            if let Some(of_group) = tickets.get_mut(&group) {
                of_group.remove(&ticket);
                if of_group.is_empty() {
                    tickets.remove(&group);
                }
            }
        }
    }
}

impl ReadLevel {
    /// Whether this module serves it.
    pub(crate) const fn is_leveled(self) -> bool {
        match self {
            Self::Linearizable | Self::Eventual | Self::View { .. } | Self::Mirror { .. } => false,
            Self::Session | Self::Bounded { .. } | Self::Zones { .. } => true,
        }
    }
}

impl Core {
    /// A read at a level of this module.
    pub(crate) fn read_leveled(
        &mut self,
        now: Now,
        routed: Routed,
        read: Box<Read>,
        out: &mut Outputs,
    ) {
        match read.level {
            ReadLevel::Session => self.read_session(now, routed, read, out),
            ReadLevel::Bounded { .. } => self.read_bounded(now, routed, read, out),
            ReadLevel::Zones { count } => self.read_zones(now, &routed, (read, count), out),
            ReadLevel::Linearizable
            | ReadLevel::Eventual
            | ReadLevel::View { .. }
            | ReadLevel::Mirror { .. } => {}
        }
    }

    /// The replica of a group here, if it is whole.
    fn whole_replica(&self, group: GroupId) -> Option<&Shard> {
        let local = self.groups.get(&group)?;
        (!local.log().installing()).then(|| local.shard())?
    }

    /// A group's replica may be further than it was, or know more of its age: reads that waited for that are served.
    pub(crate) fn level_reads(&mut self, now: Now, group: GroupId, out: &mut Outputs) {
        self.settle_ages(group);
        let Some(tickets) = self.levels.waiting.get(&group) else {
            return;
        };
        for ticket in tickets.clone() {
            let Some(What::Level(wait)) = self.waiting.get(ticket).map(|waiter| &waiter.what)
            else {
                self.levels.forget(ticket, group);
                continue;
            };
            if let Some(answer) = self.held_here(wait) {
                self.levels.forget(ticket, group);
                if let Some(waiter) = self.waiting.take(ticket) {
                    Self::answer(waiter.origin, answer, out);
                }
                continue;
            }
            if let LevelWait::Read(_, read) = &**wait
                && self.is_ready(now, group, read)
            {
                let read = read.clone();
                self.levels.forget(ticket, group);
                if let Some(waiter) = self.waiting.take(ticket) {
                    self.serve(waiter.origin, *read, (None, 0), out);
                }
            }
        }
    }

    fn is_ready(&self, now: Now, group: GroupId, read: &Read) -> bool {
        let Some(shard) = self.whole_replica(group) else {
            return false;
        };
        match read.level {
            ReadLevel::Session => self.has_seen(shard, read.session.as_deref()),
            ReadLevel::Bounded { max_age_ms } => {
                let age_ms = self.age_ms(now, group);
                age_ms.is_some_and(|age_ms| age_ms <= max_age_ms)
            }
            ReadLevel::Linearizable
            | ReadLevel::Eventual
            | ReadLevel::View { .. }
            | ReadLevel::Mirror { .. }
            | ReadLevel::Zones { .. } => false,
        }
    }

    /// When whoever waits here is answered at the latest: before whoever asked gives up.
    fn answer_by(now: Now, deadline_ns: u64) -> u64 {
        let left_ns = deadline_ns.saturating_sub(now.mono_ns);
        let margin_ns = LEVEL_MARGIN_MS.saturating_mul(MS).min(left_ns / 2);
        deadline_ns.saturating_sub(margin_ns)
    }

    /// Lets a read wait for a group's replica.
    fn wait_for_replica(&mut self, now: Now, routed: &Routed, read: Box<Read>, out: &mut Outputs) {
        let routed = &Routed {
            deadline_ns: Self::answer_by(now, routed.deadline_ns),
            ..*routed
        };
        let what = What::Level(Box::new(LevelWait::Read(routed.group, read)));
        if let Some(ticket) = self.ticket(routed, what, out) {
            let waiting = self.levels.waiting.entry(routed.group).or_default();
            waiting.insert(ticket);
        }
    }

    /// A replica is behind what a read asks for.
    fn stale(&self, now: Now, group: GroupId) -> Error {
        Error::Stale {
            behind_ms: self.age_ms(now, group),
            node: None,
        }
    }

    /// What somebody who waited at a level is answered when the time is over.
    pub(crate) fn level_unseen(&self, now: Now, wait: &LevelWait) -> Error {
        match wait {
            LevelWait::Read(group, _)
            | LevelWait::Held(group, ..)
            | LevelWait::Forwarded(group) => self.stale(now, *group),
            LevelWait::Measure => Error::DeadlineExceeded {
                effect: EffectOf::None,
            },
            LevelWait::Write(_, op_id, _) => Error::OutcomeUnknown { op_id: *op_id },
            LevelWait::Reach(reach) => reach.not_reached(self.zones_with(reach)),
            LevelWait::Decided(decided) => decided.not_seen(),
        }
    }

    /// Something that was waited for at a level has come, or will not.
    pub(crate) fn level_concluded(
        &mut self,
        now: Now,
        (waiter, wait): (Waiter, LevelWait),
        result: Result<Response, Error>,
        out: &mut Outputs,
    ) {
        let result = match (wait, result) {
            (LevelWait::Write(group, op_id, zones), Ok(Response::Written(receipt))) => {
                let reach = Reach::new((group, self.applied(group)), zones, op_id, receipt);
                self.begin_reach(now, &waiter, reach, out);
                return;
            }
            // Nobody who could serve it is reached: it is this replica's age that the caller wants to know.
            (LevelWait::Forwarded(group), Err(Error::DeadlineExceeded { .. })) => {
                Err(self.stale(now, group))
            }
            (
                LevelWait::Read(..)
                | LevelWait::Held(..)
                | LevelWait::Forwarded(_)
                | LevelWait::Measure
                | LevelWait::Write(..)
                | LevelWait::Reach(_)
                | LevelWait::Decided(_),
                result,
            ) => result,
        };
        Self::answer(waiter.origin, result, out);
    }

    /// The store has failed: what waits here without a ticket is answered.
    pub(crate) fn fail_levels(&mut self, out: &mut Outputs) {
        let levels = std::mem::take(&mut self.levels);
        let origins = levels.zone_reads.origins().chain(levels.brakes.origins());
        for origin in origins {
            Self::answer(origin, Err(Error::Poisoned), out);
        }
    }

    /// What the levels do with time.
    pub(crate) fn tick_levels(&mut self, now: Now, out: &mut Outputs) {
        let waiting = &self.waiting;
        self.levels
            .prune(&self.groups, |ticket| waiting.get(ticket).is_some());
        self.measure_due(now, out);
        self.expire_zone_reads(now, out);
        let waiting: Vec<GroupId> = self.levels.waiting.keys().copied().collect();
        for group in waiting {
            self.level_reads(now, group, out);
        }
        self.tick_brakes(now, out);
    }
}

impl Levels {
    /// Forgets groups that are gone, and tickets of which nobody waits any more.
    fn prune(&mut self, groups: &BTreeMap<GroupId, Group>, waits: impl Fn(RequestId) -> bool) {
        self.ages.retain(|group| groups.contains_key(&group));
        for tickets in [&mut self.waiting, &mut self.reaching] {
            tickets.retain(|_, of_group| {
                of_group.retain(|ticket| waits(*ticket));
                !of_group.is_empty()
            });
        }
    }
}

/// What is said of the state that a read is served from.
#[derive(Clone, Debug)]
pub(crate) struct ShownOf {
    group: GroupId,
    by: NodeId,
    age_ms: Option<u64>,
}

impl ShownOf {
    /// Says it of an answer that was read from `state` before this is called: what had been received by now includes
    /// all that the answer shows.
    pub(crate) fn around(
        &self,
        answer: Answer,
        state: &dyn meridian_storage::Read,
    ) -> Result<Answer, Error> {
        let meta = shard::load_meta(state, self.group)?;
        Ok(Answer::Shown(Box::new(Shown {
            answer,
            by: self.by,
            seen: meta.map(|meta| meta.received).unwrap_or_default(),
            age_ms: self.age_ms,
            zones: Vec::new(),
            held: Vec::new(),
            mirrors: Vec::new(),
        })))
    }
}

impl Core {
    /// What is to be said beside the answer to a read, if anything.
    pub(crate) fn shown(&self, read: &Read) -> Option<ShownOf> {
        if read.session.is_none() && !read.level.is_leveled() {
            return None;
        }
        let group = self.group_for_read(read).ok()?;
        let age_ms = match read.level {
            // Of the zone: what the level promises is not more.
            ReadLevel::Linearizable => Some(0),
            ReadLevel::View { .. } | ReadLevel::Mirror { .. } => None,
            ReadLevel::Eventual
            | ReadLevel::Session
            | ReadLevel::Bounded { .. }
            | ReadLevel::Zones { .. } => self.age_ms(self.now, group),
        };
        Some(ShownOf {
            group,
            by: self.config.node,
            age_ms,
        })
    }

    /// What somebody who waits is answered when what is waited for will not be seen.
    pub(crate) fn unseen(&mut self, now: Now, waiter: &Waiter) -> Error {
        if let What::Level(wait) = &waiter.what {
            self.level_unseen(now, wait)
        } else {
            self.late(waiter)
        }
    }
}
