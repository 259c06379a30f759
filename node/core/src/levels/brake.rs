//! A bound on lag (`--max-lag` of async keyspaces): how much is lost when a zone is lost is a promise, not a graph.
//!
//! A leader knows the age of the oldest effect that each other zone lacks. While one is older than the bound, new writes
//! are refused with `RATE_LIMITED` (`reject`), or kept in a queue that lets half as many through as the slowest zone has
//! taken in meanwhile (`throttle`): so the backlog shrinks. A zone that is cut off takes nothing in, hence nothing gets
//! through until it is back; what waits past its deadline is refused as well. Nothing refused here was proposed.
//!
//! What it is not exact about: lag is looked at once per tick, so what is proposed between the breach and the next look
//! goes through. A transaction is held back by the shard that decides it, not by its other shards.
//!
//! Invariant: a queue is in order; a request enters it only behind what waits already.

use std::collections::{BTreeMap, VecDeque};

use crate::core::Core;
use crate::error::Error;
use crate::exchange;
use crate::group::Group;
use crate::ids::GroupId;
use crate::limits::THROTTLED_MAX;
use crate::output::Outputs;
use crate::policy::OnBreach;
use crate::request::Request;
use crate::route::Routed;
use crate::time::Now;
use crate::waiting::Origin;

/// When a refused writer may try again, at least, in milliseconds: two looks at the lag.
const RETRY_AFTER_MS: u64 = 100;

/// By group; only of groups that this core leads, and whose keyspace has a bound.
#[derive(Default)]
pub(super) struct Brakes(BTreeMap<GroupId, Brake>);

struct Brake {
    on_breach: OnBreach,
    /// Age of the oldest effect that some zone lacks; `None` while within the bound.
    breach_ms: Option<u64>,
    /// What the slowest zone had acknowledged when that was looked at.
    taken_in: u64,
    /// Half writes that may go through.
    halves: u64,
    queue: VecDeque<(Routed, Request)>,
}

impl Brake {
    fn refusal(&self) -> Error {
        Error::RateLimited {
            retry_after_ms: RETRY_AFTER_MS,
            lag_ms: self.breach_ms.unwrap_or(0),
        }
    }
}

impl Brakes {
    /// How far a group is past its bound.
    pub(super) fn breach_ms(&self, group: GroupId) -> Option<u64> {
        self.0.get(&group)?.breach_ms
    }

    /// Who waits.
    pub(super) fn origins(&self) -> impl Iterator<Item = Origin> + '_ {
        let queued = self.0.values().flat_map(|brake| &brake.queue);
        queued.map(|(routed, _)| routed.origin)
    }
}

/// Whether a request is a client's write, as far as lag is concerned.
const fn is_new_write(request: &Request) -> bool {
    match request {
        Request::Write(_)
        | Request::WriteAt { .. }
        | Request::LeasedWrite { .. }
        | Request::Transact(_) => true,
        Request::Read(_)
        | Request::KeyspaceCreate(_)
        | Request::KeyspaceAlter(_)
        | Request::AlterReport { .. }
        | Request::KeyspaceDelete { .. }
        | Request::Lag { .. }
        | Request::Groups
        | Request::Reincarnate { .. }
        | Request::ViewOpen { .. }
        | Request::ViewClose { .. }
        | Request::AtHome(_)
        | Request::Mirrors { .. }
        | Request::Inner(_)
        | Request::LeaseAcquire(_)
        | Request::LeaseRenew { .. }
        | Request::LeaseEnd { .. } => false,
    }
}

impl Core {
    /// Takes a request that must not go on now, at the leader of its group; hands back one that may.
    pub(crate) fn brake(
        &mut self,
        routed: Routed,
        request: Request,
        out: &mut Outputs,
    ) -> Option<(Routed, Request)> {
        let brake = self.levels.brakes.0.get_mut(&routed.group);
        let Some(brake) = brake.filter(|brake| brake.breach_ms.is_some()) else {
            return Some((routed, request));
        };
        if !is_new_write(&request) {
            return Some((routed, request));
        }
        let full = brake.queue.len() >= THROTTLED_MAX;
        match brake.on_breach {
            OnBreach::Throttle if !full => brake.queue.push_back((routed, request)),
            OnBreach::Throttle | OnBreach::Reject => {
                Self::answer(routed.origin, Err(brake.refusal()), out);
            }
        }
        None
    }

    /// Looks at the lag of every group with a bound, and lets through what may go.
    pub(super) fn tick_brakes(&mut self, now: Now, out: &mut Outputs) {
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for group in groups {
            if let Some(bound) = self.bound(group) {
                self.look_at_lag(now, group, bound);
            } else if let Some(brake) = self.levels.brakes.0.get_mut(&group) {
                brake.breach_ms = None;
            }
        }
        for group in self.levels.brakes.0.keys().copied().collect::<Vec<_>>() {
            self.let_through(now, group, out);
        }
        let brakes = &mut self.levels.brakes.0;
        brakes.retain(|_, brake| brake.breach_ms.is_some() || !brake.queue.is_empty());
    }

    /// The bound of a group that this core leads, if its keyspace has one.
    fn bound(&self, group: GroupId) -> Option<(u64, OnBreach)> {
        let leads = self.groups.get(&group).is_some_and(Group::leads);
        let policy = &self.catalog.keyspaces.get(&group.keyspace)?.policy;
        let bound_ms = policy.max_lag_ms.filter(|_| leads)?;
        Some((bound_ms, policy.on_breach))
    }

    fn look_at_lag(&mut self, now: Now, group: GroupId, (bound_ms, on_breach): (u64, OnBreach)) {
        let lag_ms = match self.lag(now, group) {
            Ok(zones) => zones.iter().map(|lag| lag.lag_ms).max().unwrap_or(0),
            // An outbox that does not read is no measure: whoever reads it for the exchange says so.
            Err(_damaged) => return,
        };
        let taken_in = self.taken_in(group);
        let brake = self.levels.brakes.0.entry(group).or_insert(Brake {
            on_breach,
            breach_ms: None,
            taken_in,
            halves: 0,
            queue: VecDeque::new(),
        });
        brake.on_breach = on_breach;
        brake.breach_ms = (lag_ms > bound_ms).then_some(lag_ms);
        let more = taken_in.saturating_sub(brake.taken_in);
        brake.taken_in = taken_in;
        // What was not used is not saved up: it would let a burst through later.
        brake.halves = more.saturating_add(brake.halves % 2);
    }

    /// What every other zone has acknowledged of this group's writes.
    fn taken_in(&self, group: GroupId) -> u64 {
        let Some(local) = self.groups.get(&group) else {
            return 0;
        };
        let Some(own) = local.shard().map(|shard| shard.meta().incarnation) else {
            return 0;
        };
        let others = exchange::others(&self.catalog, group);
        let acked = others.map(|other| {
            let known = local.exchange.known(other.incarnation);
            known.map_or(0, |known| known.get(own))
        });
        acked.min().unwrap_or(0)
    }

    fn let_through(&mut self, now: Now, group: GroupId, out: &mut Outputs) {
        let Some(brake) = self.levels.brakes.0.get_mut(&group) else {
            return;
        };
        let (refusal, breached) = (brake.refusal(), brake.breach_ms.is_some());
        let mut queue = std::mem::take(&mut brake.queue);
        let allowed = match brake.breach_ms {
            Some(_) => usize::try_from(brake.halves / 2).unwrap_or(usize::MAX),
            None => queue.len(),
        };
        brake.halves %= 2;
        let late = |routed: &Routed| routed.deadline_ns <= now.after_ms(RETRY_AFTER_MS);
        queue.retain(|(routed, _)| {
            if late(routed) {
                Self::answer(routed.origin, Err(refusal.clone()), out);
            }
            !late(routed)
        });
        let rest = queue.split_off(allowed.min(queue.len()));
        brake.queue = rest;
        for (routed, request) in queue {
            if breached {
                self.dispatch_now(now, routed, request, out);
            } else {
                // Another node may lead by now.
                self.dispatch(now, routed, request, out);
            }
        }
    }
}
