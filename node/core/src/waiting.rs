//! Requests that wait for something: a commit, a read index, another node's answer.
//!
//! Bounded by [`WAITING_MAX`]; each has a deadline, after which it is answered according to what is then known of its
//! effect.

use std::collections::BTreeMap;

use meridian_causal::OpId;

use crate::error::{EffectOf, Error};
use crate::ids::{GroupId, NodeId, RequestId};
use crate::lease::{LeaseAcquire, LeaseRef};
use crate::leasing::LeaseCheck;
use crate::limits::WAITING_MAX;
use crate::request::Read;
use crate::time::Now;

/// Who is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The driver.
    Driver(RequestId),
    /// A node that forwarded it.
    Peer(NodeId, RequestId),
    /// The core itself, which sees by other means whether it was done.
    Core,
}

/// What is waited for.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A write's commit in a group.
    Write(GroupId, OpId),
    /// A read index in a group.
    Read(Box<Read>),
    /// A change of the catalog.
    Control,
    /// Another node's answer to a write.
    ForwardedWrite(OpId),
    /// Another node's answer to anything that changes nothing.
    ForwardedRead,
    /// The commit of an acquisition in a group.
    Acquire(GroupId, Box<LeaseAcquire>),
    /// A read index in a group, for a renewal.
    Renew(GroupId, LeaseRef),
    /// The commit of a lease's end in a group.
    EndLease(GroupId),
    /// What another shard says of leases.
    LeaseCheck(Box<LeaseCheck>),
}

/// A request that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) origin: Origin,
    pub(crate) deadline_ns: u64,
    pub(crate) what: What,
}

/// The requests of one core that wait, by the core's own number.
#[derive(Default)]
pub(crate) struct Waiting {
    by_ticket: BTreeMap<RequestId, Waiter>,
    next: u64,
}

impl Waiting {
    /// A ticket for a request, or nothing when too many wait.
    pub(crate) fn enter(&mut self, waiter: Waiter) -> Option<RequestId> {
        if self.by_ticket.len() >= WAITING_MAX {
            return None;
        }
        self.next = self.next.saturating_add(1);
        self.by_ticket.insert(RequestId(self.next), waiter);
        Some(RequestId(self.next))
    }

    pub(crate) fn take(&mut self, ticket: RequestId) -> Option<Waiter> {
        self.by_ticket.remove(&ticket)
    }

    /// Those whose deadline has passed.
    pub(crate) fn expired(&mut self, now: Now) -> Vec<Waiter> {
        self.extract(|waiter| waiter.deadline_ns <= now.mono_ns)
    }

    /// The writes and changes of leases that wait in a group.
    pub(crate) fn writes_in(&mut self, group: GroupId) -> Vec<Waiter> {
        self.extract(|waiter| match &waiter.what {
            What::Write(of, _) | What::Acquire(of, _) | What::EndLease(of) => *of == group,
            What::Read(_)
            | What::Control
            | What::ForwardedWrite(_)
            | What::ForwardedRead
            | What::Renew(..)
            | What::LeaseCheck(_) => false,
        })
    }

    /// Everything.
    pub(crate) fn all(&mut self) -> Vec<Waiter> {
        self.extract(|_| true)
    }

    fn extract(&mut self, wanted: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
        let tickets: Vec<RequestId> = self
            .by_ticket
            .iter()
            .filter(|(_, waiter)| wanted(waiter))
            .map(|(ticket, _)| *ticket)
            .collect();
        tickets
            .iter()
            .filter_map(|ticket| self.by_ticket.remove(ticket))
            .collect()
    }
}

impl What {
    /// The answer when what is waited for will not be seen.
    pub(crate) fn unseen(&self) -> Error {
        match self {
            Self::Write(_, op_id) | Self::ForwardedWrite(op_id) => {
                Error::OutcomeUnknown { op_id: *op_id }
            }
            Self::Read(_) | Self::ForwardedRead | Self::Renew(..) | Self::LeaseCheck(_) => {
                Error::DeadlineExceeded {
                    effect: EffectOf::None,
                }
            }
            Self::Control | Self::EndLease(_) => Error::DeadlineExceeded {
                effect: EffectOf::Unknown,
            },
            Self::Acquire(_, acquire) => Error::OutcomeUnknown {
                op_id: acquire.op_id,
            },
        }
    }
}
