//! What a core does about leases and expiry beside the log: requests for leases, their times, and who is next.
//!
//! Not here: what an entry does (`shard::leases`, `shard::expiry`), and what a leader remembers (`group::leases`).
//!
//! Invariants:
//! * who is told that it holds a lease was told so by a leader that was one after the request arrived: by a commit, or
//!   by a read index;
//! * a request that waits for a lease is proposed only when the lease is free.
//!
//! Read `asks` for keys attached to leases of other shards.

mod asks;

pub(crate) use asks::LeaseCheck;

use bytes::Bytes;

use crate::command::{Op, Waiter as Proposer, WriteOp};
use crate::core::Core;
use crate::error::Error;
use crate::group::Group;
use crate::group::leases::Waits;
use crate::ids::GroupId;
use crate::keys::Place;
use crate::lease::{AcquireOp, Holding, LeaseAcquire, LeaseOutcome, LeaseRef};
use crate::limits::{
    EXPIRE_KEYS_MAX, LEASE_NAME_BYTES_MAX, LEASE_TTL_MS_MAX, LEASE_TTL_MS_MIN, LEASES_MAX,
};
use crate::output::Outputs;
use crate::request::{Response, Write};
use crate::route::Routed;
use crate::shard::{expiry, leases};
use crate::time::Now;
use crate::waiting::{Waiter, What};

/// Time between two looks for versions that are due.
const EXPIRE_MS: u64 = 1_000;

/// The same after a look that found more than it could take.
const EXPIRE_MORE_MS: u64 = 100;

impl Core {
    /// A request for a lease, at its leader.
    pub(crate) fn lease_acquire(
        &mut self,
        routed: Routed,
        acquire: LeaseAcquire,
        out: &mut Outputs,
    ) {
        if let Err(error) = self.check_acquire(routed.group, &acquire) {
            Self::answer(routed.origin, Err(error), out);
            return;
        }
        let waits = Waits {
            origin: routed.origin,
            deadline_ns: routed.deadline_ns,
            acquire,
        };
        let held = self
            .groups
            .get(&routed.group)
            .is_some_and(|group| group.leases.is_held(&waits.acquire.name));
        // Whoever does not wait may be the owner that has lost the answer: the log knows.
        if held && waits.acquire.wait && !self.owns(routed.group, &waits.acquire) {
            self.wait_for_lease(routed.group, waits, out);
        } else {
            self.propose_acquire(routed.group, waits, out);
        }
    }

    fn owns(&self, group: GroupId, acquire: &LeaseAcquire) -> bool {
        let held = leases::load(&*self.engine, group.into(), &acquire.name);
        held.is_ok_and(|held| held.is_some_and(|held| held.owner == acquire.op_id.id))
    }

    fn check_acquire(&self, id: GroupId, acquire: &LeaseAcquire) -> Result<(), Error> {
        check_name(&acquire.name)?;
        if !(LEASE_TTL_MS_MIN..=LEASE_TTL_MS_MAX).contains(&acquire.ttl_ms) {
            let message = format!(
                "a lease's time of {} ms is not between {LEASE_TTL_MS_MIN} and {LEASE_TTL_MS_MAX}",
                acquire.ttl_ms
            );
            return Err(Error::InvalidArgument { message });
        }
        if self.disk_full {
            return Err(Error::DiskFull);
        }
        let Some(group) = self.groups.get(&id) else {
            return Err(Error::NotLeader { leader: None });
        };
        if group.quarantined() {
            return Err(Error::Quarantined);
        }
        if let Some(refusal) = group.refusal() {
            return Err(refusal);
        }
        if group.leases.len() >= LEASES_MAX {
            let what = "the list of leases".to_owned();
            return Err(Error::Overloaded { what });
        }
        Ok(())
    }

    fn wait_for_lease(&mut self, group: GroupId, waits: Waits, out: &mut Outputs) {
        let Some(group) = self.groups.get_mut(&group) else {
            Self::answer(waits.origin, Err(Error::NotLeader { leader: None }), out);
            return;
        };
        if let Err(refused) = group.leases.wait(waits) {
            let what = "the queue of those that wait for leases".to_owned();
            Self::answer(refused.origin, Err(Error::Overloaded { what }), out);
        }
    }

    fn propose_acquire(&mut self, group: GroupId, waits: Waits, out: &mut Outputs) {
        let Waits {
            origin,
            deadline_ns,
            acquire,
        } = waits;
        let routed = Routed {
            origin,
            deadline_ns,
            bounded: false,
            group,
        };
        let what = What::Acquire(group, Box::new(acquire.clone()));
        let Some(ticket) = self.ticket(&routed, what, out) else {
            return;
        };
        let op = Op::LeaseAcquire(AcquireOp {
            name: acquire.name,
            ttl_ms: acquire.ttl_ms,
            owner: acquire.op_id.id,
            waiter: self.proposer(ticket),
        });
        self.queue(group, |group| group.enqueue(op));
    }

    /// A renewal waits for a read index like a read.
    pub(crate) fn lease_renew(&mut self, routed: &Routed, lease: LeaseRef, out: &mut Outputs) {
        let what = What::Renew(routed.group, lease);
        let Some(ticket) = self.ticket(routed, what, out) else {
            return;
        };
        self.queue(routed.group, |group| group.enqueue_read(ticket));
    }

    /// The read index of a renewal is confirmed, applied and written.
    pub(crate) fn renewed(
        &mut self,
        now: Now,
        id: GroupId,
        lease: &LeaseRef,
    ) -> Result<Response, Error> {
        let standing = leases::load(&*self.engine, id.into(), &lease.name)?;
        let holding = standing
            .filter(|standing| standing.token == lease.token)
            .map(|standing| Holding {
                lease: lease.clone(),
                ttl_ms: standing.ttl_ms,
            });
        let confirmed = holding.filter(|holding| self.confirm(now, id, holding));
        confirmed.map(Response::LeaseHeld).ok_or(Error::LeaseLost)
    }

    fn confirm(&mut self, now: Now, id: GroupId, holding: &Holding) -> bool {
        let group = self.groups.get_mut(&id).filter(|group| group.leads());
        group.is_some_and(|group| group.leases.confirm(holding, now))
    }

    /// A holder gives its lease up.
    pub(crate) fn lease_end(
        &mut self,
        now: Now,
        routed: &Routed,
        lease: LeaseRef,
        out: &mut Outputs,
    ) {
        let taken_over = self.take_over_leases(now, routed.group);
        if !taken_over {
            // Its end could not be told from a renewal that is on its way.
            Self::answer(routed.origin, Err(Error::NoQuorum), out);
            return;
        }
        let Some(ticket) = self.ticket(routed, What::EndLease(routed.group), out) else {
            return;
        };
        let waiter = Some(self.proposer(ticket));
        self.queue(routed.group, |group| {
            group.leases.ending(&lease, now);
            group.enqueue(Op::LeaseEnd {
                leases: vec![lease],
                waiter,
            });
        });
    }

    /// A put that vanishes with a lease.
    pub(crate) fn leased_write(
        &mut self,
        routed: Routed,
        (lease, write): (LeaseRef, Write),
        out: &mut Outputs,
    ) {
        let checked = check_name(&lease.name).and_then(|()| self.check_writable(&routed, &write));
        if let Err(error) = checked {
            Self::answer(routed.origin, Err(error), out);
            return;
        }
        let home = self
            .catalog
            .keyspaces
            .get(&write.keyspace)
            .is_some_and(|keyspace| keyspace.shard_of(&lease.name) == routed.group.shard);
        let what = What::Write(routed.group, write.op_id);
        let Some(ticket) = self.ticket(&routed, what, out) else {
            return;
        };
        let write = WriteOp {
            key: write.key,
            content: write.content,
            intent: write.intent,
            op_id: write.op_id,
            expires_at_ms: write.expires_at_ms,
            waiter: self.proposer(ticket),
        };
        let op = Op::LeasedWrite { lease, home, write };
        self.queue(routed.group, |group| group.enqueue(op));
    }

    /// What became of an operation on a lease is known and written.
    pub(crate) fn lease_outcome(
        &mut self,
        now: Now,
        proposer: Proposer,
        outcome: LeaseOutcome,
        out: &mut Outputs,
    ) {
        if proposer.node != self.config.node || proposer.boot != self.boot {
            return;
        }
        let Some(waiter) = self.waiting.take(proposer.ticket) else {
            return;
        };
        match (outcome, &waiter.what) {
            (LeaseOutcome::Granted(holding), What::Acquire(group, _))
                if self.confirm(now, *group, &holding) =>
            {
                Self::answer(waiter.origin, Ok(Response::LeaseHeld(holding)), out);
            }
            // Granted to an earlier attempt whose end is on its way: it will be free.
            (LeaseOutcome::Granted(_) | LeaseOutcome::Held, _) => self.not_granted(waiter, out),
            (LeaseOutcome::Ended, _) => {
                Self::answer(waiter.origin, Ok(Response::LeaseEnded), out);
            }
            (LeaseOutcome::Moving, _) => {
                Self::answer(waiter.origin, Err(Error::KeyspaceMoving), out);
            }
            (LeaseOutcome::NotHeld, _) => {
                Self::answer(waiter.origin, Err(Error::LeaseLost), out);
            }
        }
    }

    fn not_granted(&mut self, waiter: Waiter, out: &mut Outputs) {
        match waiter.what {
            What::Acquire(group, acquire) if acquire.wait => {
                let waits = Waits {
                    origin: waiter.origin,
                    deadline_ns: waiter.deadline_ns,
                    acquire: *acquire,
                };
                self.wait_for_lease(group, waits, out);
            }
            What::Acquire(..)
            | What::Write(..)
            | What::Read(_)
            | What::Control
            | What::ForwardedWrite(_)
            | What::ForwardedRead
            | What::Renew(..)
            | What::EndLease(_)
            | What::LeaseCheck(_)
            | What::Inquire(..)
            | What::Confirm(..)
            | What::Pin(..)
            | What::Level(_)
            | What::Across(_)
            | What::Mirrored
            | What::Own(_) => Self::answer(waiter.origin, Err(Error::LeaseHeld), out),
        }
    }

    /// Leases that have ended in a turn are offered to those that wait.
    pub(crate) fn offer_freed(&mut self, now: Now, id: GroupId, out: &mut Outputs) {
        let freed = self
            .groups
            .get_mut(&id)
            .map(|group| group.leases.take_freed());
        self.offer(now, id, freed.unwrap_or_default(), out);
    }

    fn offer(&mut self, now: Now, id: GroupId, names: Vec<Bytes>, out: &mut Outputs) {
        for name in names {
            let first = self
                .groups
                .get_mut(&id)
                .and_then(|group| group.leases.first(&name, now));
            if let Some(waits) = first {
                self.propose_acquire(id, waits, out);
            }
        }
    }

    /// The leadership of a group came or went.
    pub(crate) fn reset_leases(&mut self, id: GroupId, out: &mut Outputs) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let leader = group.leader();
        for waits in group.leases.reset() {
            Self::answer(waits.origin, Err(Error::NotLeader { leader }), out);
        }
    }

    /// Time passed: what a leader does about leases and expiry.
    pub(crate) fn tend(&mut self, now: Now, id: GroupId, out: &mut Outputs) {
        let overdue = self
            .groups
            .get_mut(&id)
            .map(|group| group.leases.overdue(now));
        for waits in overdue.unwrap_or_default() {
            Self::answer(waits.origin, Err(Error::LeaseHeld), out);
        }
        if !self.take_over_leases(now, id) || self.groups.get(&id).is_none_or(Group::quarantined) {
            return;
        }
        self.end_due_leases(now, id);
        let wanted = self.groups.get_mut(&id);
        let wanted = wanted.map(|group| group.leases.free_and_wanted(now));
        self.offer(now, id, wanted.unwrap_or_default(), out);
        self.expire_due(now, id);
        self.ask_about_leases(now, id, out);
    }

    /// Gives each lease that stands its full time, once per leadership. False for a group that does not lead, or does
    /// not know yet what it leads.
    fn take_over_leases(&mut self, now: Now, id: GroupId) -> bool {
        let Some(group) = self.groups.get_mut(&id) else {
            return false;
        };
        group.established()
            && group.shard().is_some()
            && group
                .leases
                .take_over(now, &*self.engine, Place::from(id))
                .is_ok()
    }

    fn end_due_leases(&mut self, now: Now, id: GroupId) {
        let due = self.groups.get_mut(&id);
        let due = due.map(|group| group.leases.due(now)).unwrap_or_default();
        if !due.is_empty() {
            let op = Op::LeaseEnd {
                leases: due,
                waiter: None,
            };
            self.queue(id, |group| group.enqueue(op));
        }
    }

    fn expire_due(&mut self, now: Now, id: GroupId) {
        let is_due = |group: &mut Group| group.leases.expire_due_ns <= now.mono_ns;
        if !self.groups.get_mut(&id).is_some_and(is_due) {
            return;
        }
        let keys = expiry::due(&*self.engine, id.into(), now.wall_ms, EXPIRE_KEYS_MAX);
        let keys = keys.unwrap_or_default();
        let more = keys.len() >= EXPIRE_KEYS_MAX;
        let after_ms = if more { EXPIRE_MORE_MS } else { EXPIRE_MS };
        if let Some(group) = self.groups.get_mut(&id) {
            group.leases.expire_due_ns = now.after_ms(after_ms);
        }
        if !keys.is_empty() {
            self.queue(id, |group| group.enqueue(Op::Expire { keys }));
        }
    }
}

fn check_name(name: &Bytes) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::InvalidArgument {
            message: "a lease's name has at least one byte".to_owned(),
        });
    }
    if name.len() > LEASE_NAME_BYTES_MAX {
        return Err(Error::TooLarge {
            what: "lease name bytes".to_owned(),
            found: u64::try_from(name.len()).unwrap_or(u64::MAX),
            limit: u64::try_from(LEASE_NAME_BYTES_MAX).unwrap_or(u64::MAX),
        });
    }
    Ok(())
}
