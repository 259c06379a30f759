//! Questions of the core itself to groups wherever they are led: to one of its own, or to another core by way of the
//! node that leads. Every question has a deadline and is answered once, at worst by its deadline.

use meridian_causal::OpId;

use crate::command::Op;
use crate::core::Core;
use crate::error::Error;
use crate::group::Group;
use crate::ids::{GroupId, KeyspaceId, NodeId, RequestId, ShardId};
use crate::inner::{InnerRequest, Prepare};
use crate::message::PeerMessage;
use crate::output::Outputs;
use crate::request::{Request, Response};
use crate::route::Routed;
use crate::time::{MS, Now};
use crate::transaction::TransactionId;
use crate::two_phase::{PrepareOp, ResolveOp, Verdict};
use crate::waiting::{Origin, Own, Waiter, What};

impl Core {
    /// Asks the leader of a group.
    pub(crate) fn ask(
        &mut self,
        group: GroupId,
        request: InnerRequest,
        (own, deadline_ns): (Own, u64),
        out: &mut Outputs,
    ) {
        match self.leader_guess(group) {
            Some(node) => self.ask_node(node, request, (own, deadline_ns), out),
            None => self.own(self.now, own, Err(Error::NotLeader { leader: None }), out),
        }
    }

    /// Asks a node; the core there is the one of the request's shard.
    pub(crate) fn ask_node(
        &mut self,
        node: NodeId,
        request: InnerRequest,
        (own, deadline_ns): (Own, u64),
        out: &mut Outputs,
    ) {
        let now = self.now;
        let waiter = Waiter {
            origin: Origin::Core,
            deadline_ns,
            bounded: false,
            what: What::Own(own.clone()),
        };
        let Some(ticket) = self.waiting.enter(waiter) else {
            let what = "the queue of waiting requests".to_owned();
            self.own(now, own, Err(Error::Overloaded { what }), out);
            return;
        };
        if node == self.config.node && self.is_own_shard(request.place().1) {
            self.request(
                now,
                (Origin::Inner(ticket), deadline_ns),
                request.into(),
                out,
            );
        } else {
            let deadline_ms = deadline_ns.saturating_sub(now.mono_ns) / MS;
            let message = PeerMessage::Forward {
                id: ticket,
                deadline_ms,
                request: Box::new(request.into()),
            };
            out.messages.push((node, message));
        }
    }

    /// Says something to the leader of a group and does not wait: whoever needs to know asks again.
    pub(crate) fn tell(
        &mut self,
        now: Now,
        group: GroupId,
        request: InnerRequest,
        out: &mut Outputs,
    ) {
        if let Some(node) = self.leader_guess(group) {
            self.tell_node(now, node, request, out);
        }
    }

    /// The same, to a node.
    pub(crate) fn tell_node(
        &mut self,
        now: Now,
        node: NodeId,
        request: InnerRequest,
        out: &mut Outputs,
    ) {
        let patience_ms = crate::limits::PREPARE_MS_MAX;
        if node == self.config.node && self.is_own_shard(request.place().1) {
            let deadline_ns = now.after_ms(patience_ms);
            self.request(now, (Origin::Core, deadline_ns), request.into(), out);
        } else {
            let message = PeerMessage::Forward {
                id: RequestId(0),
                deadline_ms: patience_ms,
                request: Box::new(request.into()),
            };
            out.messages.push((node, message));
        }
    }

    pub(crate) fn is_own_shard(&self, shard: ShardId) -> bool {
        u32::from(shard.0).checked_rem(self.config.core_count) == Some(self.config.core_index)
    }

    /// The node that leads a group: known for a group of this core, else the last that was heard of, else any.
    pub(crate) fn leader_guess(&self, group: GroupId) -> Option<NodeId> {
        if let Some(local) = self.groups.get(&group) {
            return local.leader();
        }
        let voters = &self.placed(group)?.voters;
        let heard = self.heard_leaders.get(&group).copied();
        heard
            .filter(|node| voters.iter().any(|voter| voter.node() == *node))
            .or_else(|| voters.first().map(|voter| voter.node()))
    }

    /// A node was asked in vain: learns from its answer whom to ask next.
    pub(crate) fn learn_leader(&mut self, group: GroupId, asked: Option<NodeId>, error: &Error) {
        if self.groups.contains_key(&group) {
            return;
        }
        if let Error::NotLeader {
            leader: Some(leader),
        } = error
        {
            self.heard_leaders.insert(group, *leader);
            return;
        }
        let Some(record) = self.placed(group) else {
            self.heard_leaders.remove(&group);
            return;
        };
        let voters: Vec<NodeId> = record.voters.iter().map(|voter| voter.node()).collect();
        let asked = asked.or_else(|| self.heard_leaders.get(&group).copied());
        let place = asked.and_then(|asked| voters.iter().position(|voter| *voter == asked));
        let next = place.map_or(1, |place| place + 1);
        if let Some(next) = voters
            .get(next.checked_rem(voters.len()).unwrap_or(0))
            .copied()
        {
            self.heard_leaders.insert(group, next);
        }
    }

    /// A question for mirrors or replicas that is for this node, whoever leads; anything else is handed back.
    pub(crate) fn inner_to_node(
        &mut self,
        now: Now,
        (origin, deadline_ns): (Origin, u64),
        request: Request,
        out: &mut Outputs,
    ) -> Option<Request> {
        let Request::Inner(inner) = request else {
            return Some(request);
        };
        match *inner {
            InnerRequest::MirrorFetch(fetch) => self.mirror_fetch(now, origin, fetch, out),
            InnerRequest::MirrorReceive {
                keyspace,
                shard,
                order,
                pointed,
            } => self.mirror_receive(origin, (keyspace, shard), (order, pointed), out),
            InnerRequest::MirrorPointer { keyspace } => {
                self.mirror_pointer(now, origin, keyspace, out);
            }
            InnerRequest::Held {
                keyspace,
                shard,
                key,
            } => self.held_asked((now, origin, deadline_ns), (keyspace, shard, key), out),
            InnerRequest::Prepare(_)
            | InnerRequest::Resolve { .. }
            | InnerRequest::Inquire { .. }
            | InnerRequest::ViewPin { .. }
            | InnerRequest::ViewConfirm { .. }
            | InnerRequest::ViewDrop { .. }
            | InnerRequest::Measure { .. }
            | InnerRequest::Read { .. }
            | InnerRequest::MirrorCut { .. } => return Some(Request::Inner(inner)),
        }
        None
    }

    /// A question of another core, or of this one, to a group that is led here.
    pub(crate) fn inner(
        &mut self,
        now: Now,
        routed: Routed,
        request: InnerRequest,
        out: &mut Outputs,
    ) {
        match request {
            InnerRequest::Prepare(prepare) => {
                if self.may_begin(&routed, out) {
                    self.prepare(&routed, prepare, out);
                }
            }
            InnerRequest::Resolve { id, verdict, .. } => self.resolve(&routed, (id, verdict), out),
            InnerRequest::Inquire { id, .. } => {
                let what = What::Inquire(routed.group, id);
                if let Some(ticket) = self.ticket(&routed, what, out) {
                    self.queue(routed.group, |group| group.enqueue_read(ticket));
                }
            }
            InnerRequest::ViewPin { id, .. } => self.view_pin(now, &routed, id, out),
            InnerRequest::ViewConfirm { id, pins, .. } => {
                self.view_confirm(&routed, id, pins, out);
            }
            InnerRequest::ViewDrop { id, .. } => self.view_drop(id),
            InnerRequest::Measure { .. } => self.measure_asked(&routed, out),
            InnerRequest::Read { read, .. } => self.read(routed, *read, out),
            InnerRequest::MirrorCut { zone, report, .. } => {
                self.mirror_cut(now, &routed, (zone, report), out);
            }
            // These are answered before a group is looked for.
            InnerRequest::MirrorFetch(_)
            | InnerRequest::MirrorReceive { .. }
            | InnerRequest::MirrorPointer { .. }
            | InnerRequest::Held { .. } => {}
        }
    }

    /// A shard's part of a transaction that is decided elsewhere.
    fn prepare(&mut self, routed: &Routed, prepare: Prepare, out: &mut Outputs) {
        let what = What::Write(routed.group, prepare.op_id);
        let Some(ticket) = self.ticket(routed, what, out) else {
            return;
        };
        let op = PrepareOp {
            id: prepare.id,
            op_id: prepare.op_id,
            anchor: prepare.anchor,
            parts: prepare.parts,
            part: prepare.part,
            refuse: prepare.refuse,
            waiter: self.proposer(ticket),
        };
        self.queue(routed.group, |group| {
            group.enqueue(Op::Prepare(Box::new(op)));
        });
    }

    /// What became of a transaction, for a part of it.
    fn resolve(
        &mut self,
        routed: &Routed,
        (id, verdict): (TransactionId, Verdict),
        out: &mut Outputs,
    ) {
        let op_id = OpId {
            stamp_ms: 0,
            id: id.0,
        };
        let Some(ticket) = self.ticket(routed, What::Write(routed.group, op_id), out) else {
            return;
        };
        let op = ResolveOp {
            id,
            verdict,
            waiter: self.proposer(ticket),
        };
        self.queue(routed.group, |group| group.enqueue(Op::Resolve(op)));
    }

    /// The group of a shard in this zone.
    pub(crate) fn own_group(&self, keyspace: KeyspaceId, shard: ShardId) -> Option<GroupId> {
        self.catalog
            .serving(keyspace, shard, self.zone())
            .map(|record| record.id)
    }

    /// Whether this core leads a group.
    pub(crate) fn leads(&self, group: GroupId) -> bool {
        self.groups.get(&group).is_some_and(Group::leads)
    }

    /// Hands a result to whoever waits for it.
    pub(crate) fn conclude(
        &mut self,
        now: Now,
        waiter: Waiter,
        result: Result<Response, Error>,
        out: &mut Outputs,
    ) {
        match waiter.what {
            What::Own(own) => self.own(now, own, result, out),
            What::Level(ref wait) => {
                let wait = (**wait).clone();
                self.level_concluded(now, (waiter, wait), result, out);
            }
            What::Write(..)
            | What::Read(_)
            | What::Control
            | What::ForwardedWrite(_)
            | What::ForwardedRead
            | What::Inquire(..)
            | What::Confirm(..)
            | What::Pin(..)
            | What::Mirrored
            | What::Acquire(..)
            | What::Renew(..)
            | What::EndLease(_)
            | What::Across(_)
            | What::LeaseCheck(_) => Self::answer(waiter.origin, result, out),
        }
    }

    /// Takes the answers that the core has given itself.
    pub(crate) fn take_inner(&mut self, now: Now, out: &mut Outputs) {
        while !out.inner.is_empty() {
            for (ticket, result) in std::mem::take(&mut out.inner) {
                if let Some(waiter) = self.waiting.take(ticket) {
                    self.conclude(now, waiter, result, out);
                }
            }
        }
    }

    fn own(&mut self, now: Now, own: Own, result: Result<Response, Error>, out: &mut Outputs) {
        match own {
            Own::Vote {
                id,
                shard,
                attempts,
            } => self.voted(now, (id, shard, attempts), result, out),
            Own::Decision { id, group } => self.decided(now, (id, group), result, out),
            Own::Settle { anchor, id, shard } => self.followed((anchor, id), shard, &result, out),
            Own::Inquiry { group, id } => self.inquired((group, id), &result),
            Own::Pin { view, shard, node } => self.pinned(view, (shard, node), result, out),
            Own::Confirm { view, shard } => self.confirmed(view, shard, &result, out),
            Own::Measure(asked) => self.measured(now, asked, result, out),
            Own::ZoneRead(answer) => self.zone_answered(now, answer, result, out),
            Own::Mirror { keyspace, ask } => self.mirror_answer(now, (keyspace, ask), result, out),
        }
    }
}
