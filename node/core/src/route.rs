//! Where a request goes: to a group this core leads, once to the node that leads it, or back with an error that says
//! so. Nothing is proposed that is known to be refused.

use meridian_causal::{Content, Incarnation, ZoneId};
use rand::Rng;

use crate::catalog::{GroupRecord, Mode, shard_of};
use crate::command::Waiter as Proposer;
use crate::command::{Op, WriteOp};
use crate::control::{ControlCommand, ControlOp};
use crate::core::Core;
use crate::error::Error;
use crate::group::Group;
use crate::ids::{GroupId, KeyspaceId, RequestId, ShardId};
use crate::limits::{KEY_SIZE_BYTES_MAX, VALUE_SIZE_BYTES_MAX};
use crate::output::Outputs;
use crate::request::{GroupStatus, Query, Read, ReadLevel, Request, Response, Write};
use crate::time::Now;
use crate::waiting::{Origin, Waiter, What};

/// A request on its way to a group.
pub(crate) struct Routed {
    pub(crate) origin: Origin,
    pub(crate) deadline_ns: u64,
    /// The deadline is the core's own ([`Waiter::bounded`]).
    pub(crate) bounded: bool,
    pub(crate) group: GroupId,
}

impl Core {
    pub(crate) fn zone(&self) -> ZoneId {
        let seed = self
            .config
            .seed
            .nodes
            .iter()
            .find(|node| node.id == self.config.node);
        seed.map_or(ZoneId(0), |node| node.zone)
    }

    /// A group's record in the catalog.
    pub(crate) fn placed(&self, group: GroupId) -> Option<&GroupRecord> {
        let record = self
            .catalog
            .group_of(group.keyspace, group.shard, group.zone)?;
        (record.id == group).then_some(record)
    }

    pub(crate) fn request(
        &mut self,
        now: Now,
        (origin, deadline_ns): (Origin, u64),
        request: Request,
        out: &mut Outputs,
    ) {
        let Some(request) = self.own_affair(now, (origin, deadline_ns), request, out) else {
            return;
        };
        let routed = match &request {
            Request::Write(write) => self.group_for(write.keyspace, &write.key),
            Request::Read(read) => self.group_for_read(read),
            Request::Lag { keyspace, shard } => self.group_at(*keyspace, *shard),
            Request::Mirrors { keyspace, .. } => self.group_at(*keyspace, ShardId(0)),
            // It was opened above.
            Request::AtHome(_) => {
                let message = "a request to be forwarded is not forwarded twice".to_owned();
                Err(Error::InvalidArgument { message })
            }
            Request::LeaseAcquire(acquire) => self.group_for(acquire.keyspace, &acquire.name),
            Request::LeaseRenew { keyspace, lease } | Request::LeaseEnd { keyspace, lease } => {
                self.group_for(*keyspace, &lease.name)
            }
            Request::LeasedWrite { write, .. } | Request::WriteAt { write, .. } => {
                self.group_for(write.keyspace, &write.key)
            }
            Request::KeyspaceCreate(_)
            | Request::KeyspaceAlter(_)
            | Request::AlterReport { .. }
            | Request::KeyspaceDelete { .. }
            | Request::Reincarnate { .. } => Ok(GroupId::CONTROL),
            Request::Groups => {
                let groups = self.groups.iter().map(|(id, group)| GroupStatus {
                    breach_ms: self.levels.breach_ms(*id),
                    ..group.status()
                });
                let groups = groups.collect();
                Self::answer(origin, Ok(Response::Groups(groups)), out);
                return;
            }
            Request::Transact(transaction) => {
                let shards = self.shards_of(transaction.keyspace);
                let anchor = transaction.anchor(|key| shard_of(key, shards));
                self.group_at(transaction.keyspace, anchor)
            }
            Request::Inner(inner) => {
                let (keyspace, shard) = inner.place();
                if inner.ends_transaction() {
                    self.group_of_any(keyspace, shard)
                } else {
                    self.group_at(keyspace, shard)
                }
            }
            Request::ViewOpen { keyspace } => {
                self.view_open(now, (origin, deadline_ns), *keyspace, out);
                return;
            }
            Request::ViewClose { view } => {
                self.view_close(now, view, out);
                Self::answer(origin, Ok(Response::ViewClosed), out);
                return;
            }
        };
        match routed {
            Ok(group) => {
                let (deadline_ns, bounded) = Self::patience(now, group, &request, deadline_ns);
                let routed = Routed {
                    origin,
                    deadline_ns,
                    bounded,
                    group,
                };
                self.dispatch(now, routed, request, out);
            }
            Err(error) => Self::answer(origin, Err(error), out),
        }
    }

    fn group_for(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<GroupId, Error> {
        if self.catalog.revision == 0 {
            return Err(Error::NotAdmitted);
        }
        let found = self
            .catalog
            .keyspaces
            .get(&keyspace)
            .ok_or(Error::KeyspaceNotFound)?;
        self.group_at(keyspace, found.shard_of(key))
    }

    pub(crate) fn group_for_read(&self, read: &Read) -> Result<GroupId, Error> {
        match &read.query {
            Query::Get { key } | Query::Examine { key } => self.group_for(read.keyspace, key),
            Query::Scan { shard, .. }
            | Query::Digest { shard }
            | Query::Range { shard, .. }
            | Query::Validate { shard, .. }
            | Query::Leases { shard, .. }
            | Query::Returned { shard, .. } => self.group_at(read.keyspace, *shard),
        }
    }

    pub(crate) fn group_at(&self, keyspace: KeyspaceId, shard: ShardId) -> Result<GroupId, Error> {
        if self.catalog.revision == 0 {
            return Err(Error::NotAdmitted);
        }
        let found = self
            .catalog
            .keyspaces
            .get(&keyspace)
            .ok_or(Error::KeyspaceNotFound)?;
        let unfenced = self.config.planted.deposed_home_serves && found.is_deposed();
        if found.moved && !unfenced {
            return Err(Error::KeyspaceMoving);
        }
        self.group_of_any(keyspace, shard)
    }

    /// The group of a shard, though its keyspace may be one that serves nobody any more: what was prepared there is resolved all
    /// the same, or a deposed home could never say what its last write was.
    fn group_of_any(&self, keyspace: KeyspaceId, shard: ShardId) -> Result<GroupId, Error> {
        let record = self.catalog.serving(keyspace, shard, self.zone());
        record
            .map(|record| record.id)
            .ok_or_else(|| Error::InvalidArgument {
                message: format!("keyspace {keyspace} has no shard {} in this zone", shard.0),
            })
    }

    pub(crate) fn dispatch(
        &mut self,
        now: Now,
        routed: Routed,
        request: Request,
        out: &mut Outputs,
    ) {
        if let Request::Read(read) = &request
            && let ReadLevel::View { id, node } = read.level
        {
            if node == self.config.node {
                self.read_view(&routed, read.clone(), id, out);
            } else {
                self.forward_to(&routed, request, Some(node), out);
            }
            return;
        }
        let local = self.groups.get(&routed.group);
        let whole = local.is_some_and(|group| !group.log().installing());
        if matches!(request, Request::Read(_)) && local.is_some_and(|group| group.disk_lost) {
            Self::answer(routed.origin, Err(Error::DiskLost), out);
            return;
        }
        if let Request::Read(read) = &request
            && read.level.is_leveled()
        {
            self.read_leveled(now, routed, Box::new(read.clone()), out);
            return;
        }
        if let Request::Read(read) = &request
            && read.level == ReadLevel::Eventual
            && whole
        {
            self.serve(routed.origin, read.clone(), (None, 0), out);
            return;
        }
        let leads = self.groups.get(&routed.group).is_some_and(Group::leads);
        if !leads {
            self.forward(routed, request, out);
            return;
        }
        self.count_demand(&routed, &request);
        if let Some((routed, request)) = self.brake(routed, request, out) {
            self.dispatch_now(now, routed, request, out);
        }
    }

    /// A request at the leader of its group, which nothing holds back.
    pub(crate) fn dispatch_now(
        &mut self,
        now: Now,
        routed: Routed,
        request: Request,
        out: &mut Outputs,
    ) {
        match request {
            Request::Write(write) => self.write(routed, write, out),
            Request::WriteAt { write, zones } => self.write_at(routed, (write, zones), out),
            Request::Read(read) => self.read(routed, read, out),
            Request::Lag { .. } => {
                let lag = self.lag(now, routed.group);
                Self::answer(routed.origin, lag.map(Response::Lag), out);
            }
            Request::KeyspaceCreate(mut create) => {
                create.shards.get_or_insert(self.config.default_shards);
                let nonce = self.rng.random();
                let op = ControlOp::KeyspaceCreate { create, nonce };
                self.control(&routed, op, out);
            }
            Request::KeyspaceAlter(alter) => {
                let nonce = self.rng.random();
                self.control(&routed, ControlOp::KeyspaceAlter { alter, nonce }, out);
            }
            Request::KeyspaceDelete { name } => {
                self.control(&routed, ControlOp::KeyspaceDelete { name }, out);
            }
            Request::AlterReport { group, report, .. } => {
                self.control(&routed, ControlOp::AlterReport { group, report }, out);
            }
            Request::Reincarnate {
                group, incarnation, ..
            } => self.reincarnate(&routed, group, incarnation, out),
            Request::Transact(transaction) => {
                if self.may_begin(&routed, out) {
                    self.transact(now, routed, *transaction, out);
                }
            }
            Request::Inner(inner) => self.inner(now, routed, *inner, out),
            Request::LeaseAcquire(acquire) => self.lease_acquire(routed, acquire, out),
            Request::LeaseRenew { lease, .. } => self.lease_renew(&routed, lease, out),
            Request::LeaseEnd { lease, .. } => self.lease_end(now, &routed, lease, out),
            Request::LeasedWrite { lease, write } => {
                self.leased_write(routed, (lease, write), out);
            }
            Request::Mirrors { want, .. } => self.mirror_asked(now, &routed, want, out),
            Request::Groups
            | Request::ViewOpen { .. }
            | Request::ViewClose { .. }
            | Request::AtHome(_) => {}
        }
    }

    fn reincarnate(
        &mut self,
        routed: &Routed,
        group: GroupId,
        old: Incarnation,
        out: &mut Outputs,
    ) {
        let nonce = self.rng.random();
        self.control(routed, ControlOp::Reincarnate { group, old, nonce }, out);
    }

    fn write(&mut self, routed: Routed, write: Write, out: &mut Outputs) {
        let what = What::Write(routed.group, write.op_id);
        self.write_as(routed, write, what, out);
    }

    /// A write, for somebody who waits in this way.
    pub(crate) fn write_as(&mut self, routed: Routed, write: Write, what: What, out: &mut Outputs) {
        if let Err(error) = self.check_writable(&routed, &write) {
            Self::answer(routed.origin, Err(error), out);
            return;
        }
        let Some(ticket) = self.ticket(&routed, what, out) else {
            return;
        };
        let op = Op::Write(WriteOp {
            key: write.key,
            content: write.content,
            intent: write.intent,
            op_id: write.op_id,
            expires_at_ms: write.expires_at_ms,
            waiter: self.proposer(ticket),
        });
        self.queue(routed.group, |group| group.enqueue(op));
    }

    /// Refuses what would be new writes of a group in quarantine, or on a full disk.
    pub(crate) fn may_begin(&self, routed: &Routed, out: &mut Outputs) -> bool {
        let quarantined = self
            .groups
            .get(&routed.group)
            .is_some_and(Group::quarantined);
        let refused = self.groups.get(&routed.group).and_then(Group::refusal);
        let refusal = if quarantined {
            Some(Error::Quarantined)
        } else if refused.is_some() {
            refused
        } else if self.disk_full {
            Some(Error::DiskFull)
        } else {
            self.refuse_short(routed.group).err()
        };
        if let Some(error) = &refusal {
            Self::answer(routed.origin, Err(error.clone()), out);
        }
        refusal.is_none()
    }

    /// How many shards a keyspace has; one that is not known has none to speak of.
    pub(crate) fn shards_of(&self, keyspace: KeyspaceId) -> u16 {
        let found = self.catalog.keyspaces.get(&keyspace);
        found.map_or(1, |keyspace| keyspace.shards)
    }

    /// Whether a write may be proposed.
    pub(crate) fn check_writable(&self, routed: &Routed, write: &Write) -> Result<(), Error> {
        self.check_write(write)?;
        let group = self.groups.get(&routed.group);
        if group.is_some_and(Group::quarantined) {
            return Err(Error::Quarantined);
        }
        if group.is_some_and(Group::sealed) {
            return Err(Error::KeyspaceMoving);
        }
        if group.is_some_and(|group| group.disk_lost) {
            self.refuse_unmet(write)?;
        }
        self.refuse_short(routed.group)
    }

    /// Of a group that has lost what it had. A write that asks for nothing of that becomes a sibling of it, once it has come from
    /// another zone; to a home zone it does not come.
    fn refuse_unmet(&self, write: &Write) -> Result<(), Error> {
        let keyspace = self.catalog.keyspaces.get(&write.keyspace);
        let is_home = keyspace.is_some_and(|keyspace| keyspace.policy.mode == Mode::Snapshot);
        if is_home || write.intent.is_conditional() {
            return Err(Error::DiskLost);
        }
        Ok(())
    }

    fn check_write(&self, write: &Write) -> Result<(), Error> {
        if self.disk_full {
            return Err(Error::DiskFull);
        }
        let too_large = |what: &str, found: usize, limit: usize| Error::TooLarge {
            what: what.to_owned(),
            found: u64::try_from(found).unwrap_or(u64::MAX),
            limit: u64::try_from(limit).unwrap_or(u64::MAX),
        };
        if write.key.is_empty() {
            return Err(Error::InvalidArgument {
                message: "a key has at least one byte".to_owned(),
            });
        }
        if write.key.len() > KEY_SIZE_BYTES_MAX {
            return Err(too_large("key bytes", write.key.len(), KEY_SIZE_BYTES_MAX));
        }
        match &write.content {
            Content::Value(value) if value.len() > VALUE_SIZE_BYTES_MAX => {
                Err(too_large("value bytes", value.len(), VALUE_SIZE_BYTES_MAX))
            }
            Content::Value(_) | Content::Tombstone => Ok(()),
        }
    }

    pub(crate) fn read(&mut self, routed: Routed, read: Read, out: &mut Outputs) {
        if let Some(refusal) = self.groups.get(&routed.group).and_then(Group::refusal) {
            Self::answer(routed.origin, Err(refusal), out);
            return;
        }
        let what = What::Read(Box::new(read));
        let Some(ticket) = self.ticket(&routed, what, out) else {
            return;
        };
        self.queue(routed.group, |group| group.enqueue_read(ticket));
    }

    fn control(&mut self, routed: &Routed, op: ControlOp, out: &mut Outputs) {
        let Some(ticket) = self.ticket(routed, What::Control, out) else {
            return;
        };
        let command = ControlCommand {
            waiter: self.proposer(ticket),
            op,
        };
        self.queue(GroupId::CONTROL, |group| group.enqueue_control(command));
    }

    pub(crate) fn queue(&mut self, id: GroupId, act: impl FnOnce(&mut Group)) {
        if let Some(group) = self.groups.get_mut(&id) {
            act(group);
            self.active.insert(id);
        }
    }

    pub(crate) const fn proposer(&self, ticket: RequestId) -> Proposer {
        Proposer {
            node: self.config.node,
            boot: self.boot,
            ticket,
        }
    }

    pub(crate) fn ticket(
        &mut self,
        routed: &Routed,
        what: What,
        out: &mut Outputs,
    ) -> Option<RequestId> {
        let waiter = Waiter {
            origin: routed.origin,
            deadline_ns: routed.deadline_ns,
            bounded: routed.bounded,
            what,
        };
        let ticket = self.waiting.enter(waiter);
        if ticket.is_none() {
            let what = "the queue of waiting requests".to_owned();
            Self::answer(routed.origin, Err(Error::Overloaded { what }), out);
        }
        ticket
    }
}
