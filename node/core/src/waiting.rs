//! Requests that wait for something: a commit, a read index, another node's answer.
//!
//! Bounded by [`WAITING_MAX`]; each has a deadline, after which it is answered according to what is then known of its
//! effect.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use meridian_causal::OpId;

use crate::across::Across;
use crate::error::{EffectOf, Error};
use crate::ids::{GroupId, KeyspaceId, NodeId, RequestId, ShardId};
use crate::lease::{LeaseAcquire, LeaseRef};
use crate::leasing::LeaseCheck;
use crate::levels::{LevelWait, Measuring, ZoneAnswer};
use crate::limits::WAITING_MAX;
use crate::mirror::MirrorAsk;
use crate::request::Read;
use crate::time::Now;
use crate::transaction::TransactionId;

/// Bits of a first number: a driver keeps the uppermost eight of 64 to itself, and there is room to count.
const FIRST_BITS: u32 = 55;

/// Who is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The driver.
    Driver(RequestId),
    /// A node that forwarded it.
    Peer(NodeId, RequestId),
    /// The core itself, which sees by other means whether it was done.
    Core,
    /// The core itself, for another request of its own that waits under this number.
    Inner(RequestId),
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
    /// What became of a transaction, at the shard that decides.
    Inquire(GroupId, TransactionId),
    /// That a group was led by this node all the while since a view was taken.
    Confirm(GroupId, u64),
    /// That what a group holds back, and a view shows, has left.
    Pin(GroupId, u64),
    /// The commit of an acquisition in a group.
    Acquire(GroupId, Box<LeaseAcquire>),
    /// A read index in a group, for a renewal.
    Renew(GroupId, LeaseRef),
    /// The commit of a lease's end in a group.
    EndLease(GroupId),
    /// What another shard says of leases.
    LeaseCheck(Box<LeaseCheck>),
    /// A level of a read or write.
    Level(Box<LevelWait>),
    /// That every mirror shows a cut that is taken from now on.
    Mirrored,
    /// For the core's own doing.
    Own(Own),
    /// The answer of a node in another zone, or of one that knows it.
    Across(Box<Across>),
}

/// What the core itself asked for.
#[derive(Clone, Debug)]
pub(crate) enum Own {
    /// The vote of a shard.
    Vote {
        id: TransactionId,
        shard: ShardId,
        attempts: u32,
    },
    /// The decision, in the log of the group that decides.
    Decision { id: TransactionId, group: GroupId },
    /// That a shard has followed a decision.
    Settle {
        anchor: GroupId,
        id: TransactionId,
        shard: ShardId,
    },
    /// What became of a transaction that is prepared in a group.
    Inquiry { group: GroupId, id: TransactionId },
    /// A shard's part of a view.
    Pin {
        view: u64,
        shard: ShardId,
        node: NodeId,
    },
    /// That a shard's part of a view is good.
    Confirm { view: u64, shard: ShardId },
    /// What an origin of a replica has, for the replica's age.
    Measure(Measuring),
    /// A zone's part of a read.
    ZoneRead(ZoneAnswer),
    /// Something for the mirrors' sake.
    Mirror {
        keyspace: KeyspaceId,
        ask: MirrorAsk,
    },
}

/// A request that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) origin: Origin,
    pub(crate) deadline_ns: u64,
    /// The deadline is the core's own, before that of the client: a read not answered by then found no quorum.
    pub(crate) bounded: bool,
    pub(crate) what: What,
}

/// Forwarded requests of one node that are remembered: what a link may still repeat.
const HEARD_MAX: usize = 8_192;

/// Requests that another node has forwarded: a link that repeats one must not have it answered twice, since the second
/// answer could deny what the first attempt is about to do.
#[derive(Default)]
pub(crate) struct Heard {
    ids: BTreeSet<RequestId>,
    order: VecDeque<RequestId>,
}

impl Heard {
    /// Whether a request is heard for the first time. What expects no answer has no number, and is always new.
    pub(crate) fn is_new(&mut self, id: RequestId) -> bool {
        if id == RequestId(0) {
            return true;
        }
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > HEARD_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

/// The requests of one core that wait, by the core's own number.
#[derive(Default)]
pub(crate) struct Waiting {
    by_ticket: BTreeMap<RequestId, Waiter>,
    next: u64,
}

impl Waiting {
    /// Numbers begin at a place drawn at the start, so that those of two lives of a core differ.
    pub(crate) const fn beginning_at(boot: u64) -> Self {
        Self {
            by_ticket: BTreeMap::new(),
            next: boot & ((1 << FIRST_BITS) - 1),
        }
    }

    /// A ticket for a request, or nothing when too many wait.
    pub(crate) fn enter(&mut self, waiter: Waiter) -> Option<RequestId> {
        if self.by_ticket.len() >= WAITING_MAX {
            return None;
        }
        self.next = self.next.saturating_add(1);
        self.by_ticket.insert(RequestId(self.next), waiter);
        Some(RequestId(self.next))
    }

    pub(crate) fn get(&self, ticket: RequestId) -> Option<&Waiter> {
        self.by_ticket.get(&ticket)
    }

    /// Puts back what was taken: it goes on waiting.
    pub(crate) fn put_back(&mut self, ticket: RequestId, waiter: Waiter) {
        self.by_ticket.insert(ticket, waiter);
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
            What::Write(of, _)
            | What::Acquire(of, _)
            | What::EndLease(of)
            | What::Own(Own::Decision { group: of, .. }) => *of == group,
            What::Level(wait) => wait.written_in() == Some(group),
            What::Read(_)
            | What::Control
            | What::ForwardedWrite(_)
            | What::ForwardedRead
            | What::Inquire(..)
            | What::Confirm(..)
            | What::Pin(..)
            | What::Renew(..)
            | What::LeaseCheck(_)
            | What::Across(_)
            | What::Mirrored
            | What::Own(_) => false,
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
            Self::Read(_)
            | Self::Renew(..)
            | Self::LeaseCheck(_)
            | Self::ForwardedRead
            | Self::Inquire(..)
            | Self::Confirm(..)
            | Self::Pin(..)
            | Self::Own(
                Own::Vote { .. }
                | Own::Settle { .. }
                | Own::Inquiry { .. }
                | Own::Pin { .. }
                | Own::Confirm { .. }
                | Own::Measure(_)
                | Own::ZoneRead(_)
                | Own::Mirror { .. },
            ) => Error::DeadlineExceeded {
                effect: EffectOf::None,
            },
            Self::Mirrored => crate::mirror::UNSEEN,
            // A decision may be in the log.
            Self::Control | Self::EndLease(_) | Self::Own(Own::Decision { .. }) => {
                Error::DeadlineExceeded {
                    effect: EffectOf::Unknown,
                }
            }
            Self::Level(_) => Error::DeadlineExceeded {
                effect: EffectOf::Unknown,
            },
            Self::Across(across) => across.what.unseen(),
            Self::Acquire(_, acquire) => Error::OutcomeUnknown {
                op_id: acquire.op_id,
            },
        }
    }
}
