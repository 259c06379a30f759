//! Requests on their way to another node: to the leader of their group, or to the control group; and their answers.
//!
//! A request is forwarded once. What is waited for meanwhile has a ticket, with the deadline of whoever asked.

use crate::across::Across;
use crate::core::Core;
use crate::error::Error;
use crate::group::Group;
use crate::ids::{GroupId, NodeId, RequestId};
use crate::message::PeerMessage;
use crate::output::Outputs;
use crate::request::{Request, Response};
use crate::route::Routed;
use crate::time::{MS, Now};
use crate::waiting::{Origin, What};

/// How long a group's own request to the control group may wait.
const ASK_CONTROL_MS: u64 = 1_000;

impl Core {
    /// Sends a request to the node that leads; one that was forwarded already goes back, but a group in quarantine may
    /// ask any node, whatever the core, so its request is passed on once.
    pub(crate) fn forward(&mut self, routed: Routed, request: Request, out: &mut Outputs) {
        if routed.group.spans_zones() {
            self.forward_across(&routed, request, out);
            return;
        }
        let leader = match routed.group {
            GroupId::CONTROL => self.groups.get(&GroupId::CONTROL).and_then(Group::leader),
            group => self.leader_elsewhere(group),
        };
        let leader = leader.filter(|leader| *leader != self.config.node);
        self.forward_to(&routed, request, leader, out);
    }

    pub(crate) fn forward_to(
        &mut self,
        routed: &Routed,
        request: Request,
        leader: Option<NodeId>,
        out: &mut Outputs,
    ) {
        let what = awaited(&request);
        self.forward_as(routed, request, (leader, what), out);
    }

    /// Sends a request to a node, for somebody who waits in this way.
    pub(crate) fn forward_as(
        &mut self,
        routed: &Routed,
        request: Request,
        (leader, what): (Option<NodeId>, What),
        out: &mut Outputs,
    ) {
        let now = self.now;
        let mut request = request;
        let may_go_on = match (routed.origin, &mut request) {
            (Origin::Driver(_) | Origin::Core, _) => true,
            (
                Origin::Peer(..),
                Request::Reincarnate { passed, .. } | Request::AlterReport { passed, .. },
            ) => !std::mem::replace(passed, true),
            (Origin::Peer(..) | Origin::Inner(_), _) => false,
        };
        let Some(node) = leader.filter(|_| may_go_on) else {
            let error = match (leader, routed.origin) {
                (None, Origin::Driver(_)) => Error::NoQuorum,
                (_, Origin::Driver(_) | Origin::Peer(..) | Origin::Core | Origin::Inner(_)) => {
                    Error::NotLeader { leader }
                }
            };
            Self::answer(routed.origin, Err(error), out);
            return;
        };
        let Some(id) = self.ticket(routed, what, out) else {
            return;
        };
        if !self.groups.contains_key(&routed.group) {
            self.away.insert(id, routed.group);
        }
        let deadline_ms = routed.deadline_ns.saturating_sub(now.mono_ns) / MS;
        out.messages.push((
            node,
            PeerMessage::Forward {
                id,
                deadline_ms,
                request: Box::new(request),
            },
        ));
    }

    /// Asks the control group for a new incarnation, if a group in quarantine is due to.
    pub(crate) fn seek_incarnation(&mut self, now: Now, id: GroupId, out: &mut Outputs) {
        let Some((incarnation, attempt)) = self
            .groups
            .get_mut(&id)
            .and_then(|group| group.life.take_wish())
        else {
            return;
        };
        let request = Request::Reincarnate {
            group: id,
            incarnation,
            passed: false,
        };
        self.ask_control(now, attempt, request, out);
    }

    /// Sends a request of a group's own to the control group; nobody waits for the answer, what comes of it is in the
    /// catalog. Core 0 knows who leads, the others ask the nodes in turn.
    pub(crate) fn ask_control(
        &mut self,
        now: Now,
        attempt: usize,
        request: Request,
        out: &mut Outputs,
    ) {
        let routed = Routed {
            origin: Origin::Core,
            deadline_ns: now.after_ms(ASK_CONTROL_MS),
            bounded: false,
            group: GroupId::CONTROL,
        };
        if self.groups.contains_key(&GroupId::CONTROL) {
            self.dispatch(now, routed, request, out);
            return;
        }
        let others = self.catalog.nodes.keys();
        let others: Vec<NodeId> = others
            .copied()
            .filter(|node| *node != self.config.node)
            .collect();
        let next = attempt.checked_rem(others.len());
        let Some(node) = next.and_then(|next| others.get(next).copied()) else {
            return;
        };
        let Some(ticket) = self.ticket(&routed, What::Control, out) else {
            return;
        };
        let forward = PeerMessage::Forward {
            id: ticket,
            deadline_ms: ASK_CONTROL_MS,
            request: Box::new(request),
        };
        out.messages.push((node, forward));
    }

    /// The node asked has answered.
    pub(crate) fn forwarded(
        &mut self,
        now: Now,
        id: RequestId,
        result: Result<Response, Error>,
        out: &mut Outputs,
    ) {
        if let Some(group) = self.away.remove(&id)
            && let Err(error @ Error::NotLeader { .. }) = &result
        {
            self.learn_leader(group, None, error);
        }
        let Some(waiter) = self.waiting.take(id) else {
            return;
        };
        if let What::Across(across) = &waiter.what {
            let across = Across::clone(across);
            self.answered_across(waiter, across, result, out);
            return;
        }
        match waiter.what {
            What::ForwardedWrite(_) | What::ForwardedRead | What::Control | What::Own(_) => {
                self.conclude(now, waiter, result, out);
            }
            What::LeaseCheck(check) => self.leases_checked(*check, result),
            What::Level(_) => self.conclude(now, waiter, result, out),
            What::Write(..)
            | What::Read(_)
            | What::Inquire(..)
            | What::Confirm(..)
            | What::Pin(..)
            | What::Mirrored
            | What::Acquire(..)
            | What::Renew(..)
            | What::EndLease(_)
            | What::Across(_) => {}
        }
    }
}

/// How the sender of a request to another node waits for its answer.
pub(crate) fn awaited(request: &Request) -> What {
    match request {
        Request::Write(write) => What::ForwardedWrite(write.op_id),
        Request::KeyspaceCreate(_)
        | Request::KeyspaceAlter(_)
        | Request::AlterReport { .. }
        | Request::KeyspaceDelete { .. }
        | Request::Reincarnate { .. } => What::Control,
        Request::Transact(transaction) => What::ForwardedWrite(transaction.op_id),
        Request::LeaseAcquire(acquire) => What::ForwardedWrite(acquire.op_id),
        Request::LeasedWrite { write, .. } | Request::WriteAt { write, .. } => {
            What::ForwardedWrite(write.op_id)
        }
        Request::LeaseEnd { .. } | Request::Mirrors { .. } => What::Control,
        Request::LeaseRenew { .. }
        | Request::Read(_)
        | Request::Lag { .. }
        | Request::Groups
        | Request::ViewOpen { .. }
        | Request::ViewClose { .. }
        | Request::AtHome(_)
        | Request::Inner(_) => What::ForwardedRead,
    }
}
