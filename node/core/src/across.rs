//! Requests for groups that span zones: the leader may be in another zone, and the way there may be cut.
//!
//! A node that does not lead such a group passes a strong operation to the node that it believes to: the leader its own
//! replica knows, the last that answered, else its zone's replica, which knows. Where that belief was wrong the request
//! goes once more, to the leader that was named. Nobody waits longer than [`STRONG_MS_MAX`]: what was surely not proposed
//! is answered `NO_QUORUM` then, what may have been `OUTCOME_UNKNOWN` (protocol rule 21).
//!
//! `eventual` reads need no leader: the node's own replica serves them, else the replica of its zone, else any.
//!
//! What it is not: it does not decide who leads, nor what a leader does (`route`).
//!
//! Invariant: a request travels between zones at most twice, and only the node that took it from its client sends it
//! again.

use crate::catalog::GroupRecord;
use crate::core::Core;
use crate::error::{EffectOf, Error};
use crate::forward::awaited;
use crate::group::Group;
use crate::group::acks::Acked;
use crate::ids::{GroupId, NodeId, RequestId};
use crate::limits::STRONG_MS_MAX;
use crate::message::PeerMessage;
use crate::output::Outputs;
use crate::request::{ReadLevel, Request, Response};
use crate::route::Routed;
use crate::time::{MS, Now};
use crate::waiting::{Origin, Own, Waiter, What};

/// A request on its way to a node that is believed to lead.
#[derive(Clone, Debug)]
pub(crate) struct Across {
    group: GroupId,
    request: Request,
    asked: NodeId,
    /// It was sent to a named leader already.
    again: bool,
    /// What is waited for.
    pub(crate) what: Box<What>,
}

impl Core {
    /// How long a request may wait: what its client said, and no longer than a node cut off may keep silent. Those that
    /// wait for a lease wait for its holder, not for zones.
    pub(crate) fn patience(
        now: Now,
        group: GroupId,
        request: &Request,
        deadline_ns: u64,
    ) -> (u64, bool) {
        let bound_ns = now.after_ms(STRONG_MS_MAX);
        let waits_for_a_lease = matches!(request, Request::LeaseAcquire(_));
        if !group.spans_zones() || waits_for_a_lease || deadline_ns <= bound_ns {
            (deadline_ns, false)
        } else {
            (bound_ns, true)
        }
    }

    /// Passes a request on to where it can be served.
    pub(crate) fn forward_across(&mut self, routed: &Routed, request: Request, out: &mut Outputs) {
        let leader = self.leader_across(routed.group);
        let target = if is_eventual(&request) {
            self.replica_near(routed.group)
        } else {
            leader
        };
        match (routed.origin, target) {
            (Origin::Driver(_) | Origin::Core, Some(node)) => {
                self.send_across(routed, (node, false), request, out);
            }
            (Origin::Driver(_), None) => Self::answer(routed.origin, Err(Error::NoQuorum), out),
            (Origin::Core | Origin::Peer(..) | Origin::Inner(_), _) => {
                Self::answer(routed.origin, Err(Error::NotLeader { leader }), out);
            }
        }
    }

    /// The node believed to lead, when it is another one.
    fn leader_across(&self, group: GroupId) -> Option<NodeId> {
        let leader = if let Some(local) = self.groups.get(&group) {
            local.leader()
        } else {
            let heard = self.heard_leaders.get(&group).copied();
            heard.or_else(|| self.replica_near(group))
        };
        leader.filter(|leader| *leader != self.config.node)
    }

    /// The replica of this node's zone, else the first of the group; never this node's own.
    fn replica_near(&self, group: GroupId) -> Option<NodeId> {
        let record: &GroupRecord = self.placed(group)?;
        let zone = self.zone();
        let others = || {
            let nodes = record.voters.iter().map(|voter| voter.node());
            nodes.filter(|node| *node != self.config.node)
        };
        let near = |node: &NodeId| {
            let record = self.catalog.nodes.get(node);
            record.is_some_and(|record| record.zone == zone)
        };
        others().find(near).or_else(|| others().next())
    }

    fn send_across(
        &mut self,
        routed: &Routed,
        (node, again): (NodeId, bool),
        request: Request,
        out: &mut Outputs,
    ) {
        let across = Across {
            group: routed.group,
            what: Box::new(awaited(&request)),
            request: request.clone(),
            asked: node,
            again,
        };
        let Some(id) = self.ticket(routed, What::Across(Box::new(across)), out) else {
            return;
        };
        let deadline_ms = routed.deadline_ns.saturating_sub(self.now.mono_ns) / MS;
        let message = PeerMessage::Forward {
            id,
            deadline_ms,
            request: Box::new(request),
        };
        out.messages.push((node, message));
    }

    /// The node asked has answered.
    pub(crate) fn answered_across(
        &mut self,
        waiter: Waiter,
        across: Across,
        result: Result<Response, Error>,
        out: &mut Outputs,
    ) {
        let Err(Error::NotLeader { leader }) = result else {
            if result.is_ok() && !is_eventual(&across.request) {
                self.heard_leaders.insert(across.group, across.asked);
            }
            let result = result.map_err(|error| said_late(error, waiter.bounded));
            Self::answer(waiter.origin, result, out);
            return;
        };
        match leader {
            Some(leader) => self.heard_leaders.insert(across.group, leader),
            None => self.heard_leaders.remove(&across.group),
        };
        let next = leader.filter(|leader| {
            !across.again && *leader != across.asked && *leader != self.config.node
        });
        match (next, leader) {
            (Some(next), _) => {
                let routed = Routed {
                    origin: waiter.origin,
                    deadline_ns: waiter.deadline_ns,
                    bounded: waiter.bounded,
                    group: across.group,
                };
                self.send_across(&routed, (next, true), across.request, out);
            }
            (None, Some(_)) => Self::answer(waiter.origin, Err(Error::NotLeader { leader }), out),
            (None, None) => Self::answer(waiter.origin, Err(Error::NoQuorum), out),
        }
    }

    /// A request was not answered in time: what is said of it.
    pub(crate) fn late(&mut self, waiter: &Waiter) -> Error {
        if let What::Across(across) = &waiter.what {
            // Whoever was believed to lead may be cut off: the zone's own replica finds out by itself.
            self.heard_leaders.remove(&across.group);
        }
        said_late(waiter.what.unseen(), waiter.bounded)
    }

    /// Says what waited for zones and waits no longer.
    pub(crate) fn release_acks(&mut self, now: Now, id: GroupId, out: &mut Outputs) {
        if id.spans_zones() {
            self.level_writes(id, out);
        }
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.has_acks()) else {
            return;
        };
        let waiting = &self.waiting;
        let released = group.release_acks(|ticket: RequestId| {
            let waiter = waiting.get(ticket);
            waiter.is_none_or(|waiter| waiter.deadline_ns <= now.mono_ns)
        });
        for acked in released {
            self.outcome(now, acked, out);
        }
    }

    /// The replies of all groups that have waited long enough for zones.
    pub(crate) fn tick_acks(&mut self, now: Now, out: &mut Outputs) {
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in ids {
            self.release_acks(now, id, out);
        }
    }

    /// An outcome that views have let go: said now, or once all zones hold it.
    pub(crate) fn said(
        &mut self,
        now: Now,
        id: GroupId,
        said: crate::group::Outcome,
        out: &mut Outputs,
    ) {
        let waiter = self.waiting.get(said.ticket());
        let decides =
            waiter.is_some_and(|waiter| matches!(waiter.what, What::Own(Own::Decision { .. })));
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        if let Some(acked) = group.await_zones(said, decides) {
            self.outcome(now, acked, out);
        }
    }

    /// What a read is answered whose group is led from here no longer: a client is told that there is no quorum where none
    /// leads, a node that asked for one finds out by itself.
    pub(crate) fn led_elsewhere(group: GroupId, origin: Origin, leader: Option<NodeId>) -> Error {
        match (leader, origin) {
            (None, Origin::Driver(_)) if group.spans_zones() => Error::NoQuorum,
            (_, Origin::Driver(_) | Origin::Peer(..) | Origin::Core | Origin::Inner(_)) => {
                Error::NotLeader { leader }
            }
        }
    }

    /// Refuses what all zones are to have while some are known to be missing.
    pub(crate) fn refuse_short(&self, group: GroupId) -> Result<(), Error> {
        let short = self.groups.get(&group).and_then(Group::short_of_zones);
        match short {
            Some(missing) => {
                let keyspace = self.catalog.keyspaces.get(&group.keyspace);
                let zones = keyspace.map_or(&[][..], |keyspace| &keyspace.policy.zones);
                let there = zones.iter().filter(|zone| !missing.contains(zone));
                Err(Error::ZonesShort {
                    zones: there.copied().collect(),
                    need: u16::try_from(zones.len()).unwrap_or(u16::MAX),
                })
            }
            None => Ok(()),
        }
    }

    /// The lead of a group is lost: what waits for zones stands, and is said to.
    pub(crate) fn give_up_acks(&mut self, now: Now, id: GroupId, out: &mut Outputs) {
        let given_up: Vec<Acked> = self
            .groups
            .get_mut(&id)
            .map(Group::give_up_acks)
            .unwrap_or_default();
        for acked in given_up {
            self.outcome(now, acked, out);
        }
    }

    /// A write or transaction has come to the leader: counts it for the zone whose node took it from its client.
    pub(crate) fn count_demand(&mut self, routed: &Routed, request: &Request) {
        let writes = matches!(
            request,
            Request::Write(_)
                | Request::WriteAt { .. }
                | Request::LeasedWrite { .. }
                | Request::Transact(_)
        );
        let node = match routed.origin {
            Origin::Driver(_) => self.config.node,
            Origin::Peer(node, _) => node,
            Origin::Core | Origin::Inner(_) => return,
        };
        if writes && let Some(group) = self.groups.get_mut(&routed.group) {
            group.count_write(node);
        }
    }
}

/// What had no effect and came to nothing within the bound found no quorum.
fn said_late(error: Error, bounded: bool) -> Error {
    let none = EffectOf::None;
    if bounded && error == (Error::DeadlineExceeded { effect: none }) {
        Error::NoQuorum
    } else {
        error
    }
}

fn is_eventual(request: &Request) -> bool {
    matches!(request, Request::Read(read) if read.level == ReadLevel::Eventual)
}
