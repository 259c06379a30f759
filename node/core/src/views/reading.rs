//! Reads: from a view, and of the newest state where it meets prepared transactions.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::core::Core;
use crate::error::Error;
use crate::group::Group;
use crate::ids::{GroupId, RequestId};
use crate::output::{Outputs, Pinned};
use crate::request::{Query, Read};
use crate::route::Routed;
use crate::shard::{Locks, Resolved};
use crate::transaction::{Compare, TransactionId};
use crate::two_phase::Verdict;
use crate::waiting::{Origin, Waiter, What};

/// A read that waits for prepared transactions to be resolved.
pub(crate) struct BlockedRead {
    pub(super) group: GroupId,
    waits: BTreeSet<TransactionId>,
    from: Source,
    /// What the group had applied when it met the transactions; 0 for a view.
    applied: u64,
}

/// Which state a blocked read will see.
enum Source {
    /// The one in which it met the transactions, with what became of them.
    Pinned(Pinned),
    /// A view's.
    View(u64),
}

/// Whether a query reads a key.
pub(super) fn touches(query: &Query, key: &Bytes) -> bool {
    let within = |from: &[u8], to: Option<&[u8]>| {
        from <= key.as_ref() && to.is_none_or(|to| key.as_ref() < to)
    };
    match query {
        Query::Get { key: read } | Query::Examine { key: read } => read == key,
        Query::Scan { from, to, .. } | Query::Range { from, to, .. } => within(from, to.as_deref()),
        Query::Digest { .. } => true,
        Query::Leases { .. } | Query::Returned { .. } => false,
        Query::Validate { compare, .. } => compare.iter().any(|compare| match compare {
            Compare::RangeUnchanged { from, to, .. } => {
                within(from, (!to.is_empty()).then_some(to.as_ref()))
            }
            Compare::Unchanged { key: read, .. }
            | Compare::Absent { key: read }
            | Compare::Exists { key: read }
            | Compare::Value { key: read, .. }
            | Compare::Context { key: read, .. } => read == key,
        }),
    }
}

/// The transactions because of which a query cannot be answered now.
fn blockers(locks: &Locks, query: &Query) -> BTreeSet<TransactionId> {
    if locks.is_empty() {
        return BTreeSet::new();
    }
    match query {
        Query::Get { key } | Query::Examine { key } => locks.writer_of(key).into_iter().collect(),
        Query::Scan { from, to, .. } | Query::Range { from, to, .. } => {
            locks.writers_in(from, to.as_deref())
        }
        Query::Digest { .. } => locks.writers_in(&[], None),
        Query::Leases { .. } | Query::Returned { .. } => BTreeSet::new(),
        Query::Validate { .. } => locks
            .prepared()
            .iter()
            .filter(|(_, part)| part.writes.iter().any(|key| touches(query, key)))
            .map(|(id, _)| *id)
            .collect(),
    }
}

/// Whether a query reads more than one key at a time: it must see one state of its shard.
fn is_wide(query: &Query) -> bool {
    match query {
        Query::Scan { .. } | Query::Range { .. } | Query::Digest { .. } => true,
        // Keys that are unchanged at some later time were so, together, when the read was released.
        Query::Validate { compare, .. } => !compare
            .iter()
            .all(|one| matches!(one, Compare::Unchanged { .. })),
        Query::Get { .. }
        | Query::Examine { .. }
        | Query::Leases { .. }
        | Query::Returned { .. } => false,
    }
}

impl Core {
    /// A read of a view that this core holds a part of.
    pub(crate) fn read_view(&mut self, routed: &Routed, read: Read, id: u64, out: &mut Outputs) {
        let held = self.held_views.get(&id);
        let Some(held) =
            held.filter(|held| !held.pins.is_empty() && held.groups.contains_key(&routed.group))
        else {
            Self::answer(routed.origin, Err(Error::ViewLost), out);
            return;
        };
        let waits = held.blockers(routed.group, &read.query);
        if waits.is_empty() {
            let pinned = held.pinned();
            self.serve(routed.origin, read, (Some(pinned), 0), out);
            return;
        }
        let Some(ticket) = self.ticket(routed, What::Read(Box::new(read)), out) else {
            return;
        };
        let blocked = BlockedRead {
            group: routed.group,
            waits,
            from: Source::View(id),
            applied: 0,
        };
        self.blocked.insert(ticket, blocked);
    }

    /// A linearizable read may be served, once the prepared transactions that it meets are resolved.
    pub(crate) fn release_read(
        &mut self,
        (ticket, group): (RequestId, GroupId),
        (origin, deadline_ns): (Origin, u64),
        read: Box<Read>,
        out: &mut Outputs,
    ) {
        let shard = self.groups.get(&group).and_then(Group::shard);
        let applied = shard.map_or(0, |shard| shard.meta().applied);
        let waits = match shard {
            Some(shard) if !self.config.planted.read_through_prepared => {
                blockers(shard.locks(), &read.query)
            }
            Some(_) | None => BTreeSet::new(),
        };
        // What waits keeps the state in which it met the transactions: a later one may hold what the group keeps to
        // itself for a view.
        let pinned = if is_wide(&read.query) || !waits.is_empty() {
            match self.engine.view() {
                Ok(view) => Some(Pinned {
                    view: Arc::from(view),
                    over: Vec::new(),
                }),
                Err(error) => {
                    Self::answer(origin, Err(error.into()), out);
                    return;
                }
            }
        } else {
            None
        };
        if waits.is_empty() {
            self.serve(origin, *read, (pinned, applied), out);
            return;
        }
        if let Some(pinned) = pinned {
            let from = Source::Pinned(pinned);
            let blocked = BlockedRead {
                group,
                waits,
                from,
                applied,
            };
            self.blocked.insert(ticket, blocked);
            let waiter = Waiter {
                origin,
                deadline_ns,
                bounded: false,
                what: What::Read(read),
            };
            self.waiting.put_back(ticket, waiter);
        }
    }

    /// Prepared transactions were resolved: views take note, and reads that waited are served.
    pub(crate) fn resolved(&mut self, group: GroupId, resolved: &[Resolved], out: &mut Outputs) {
        for one in resolved {
            for held in self.held_views.values_mut() {
                held.take(group, one);
            }
            for blocked in self.blocked.values_mut() {
                blocked.take(group, one);
            }
        }
        let free: Vec<RequestId> = self
            .blocked
            .iter()
            .filter(|(_, blocked)| blocked.waits.is_empty())
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in free {
            self.unblock(ticket, out);
        }
    }

    fn unblock(&mut self, ticket: RequestId, out: &mut Outputs) {
        let Some(blocked) = self.blocked.remove(&ticket) else {
            return;
        };
        let Some(waiter) = self.waiting.take(ticket) else {
            return;
        };
        let What::Read(read) = waiter.what else {
            return;
        };
        let pinned = match blocked.from {
            Source::Pinned(pinned) => pinned,
            Source::View(id) => {
                let Some(held) = self.held_views.get(&id) else {
                    Self::answer(waiter.origin, Err(Error::ViewLost), out);
                    return;
                };
                held.pinned()
            }
        };
        self.serve(waiter.origin, *read, (Some(pinned), blocked.applied), out);
    }

    /// Blocked reads whose client no longer waits are forgotten.
    pub(crate) fn tick_blocked(&mut self) {
        let waiting = &self.waiting;
        self.blocked
            .retain(|ticket, _| waiting.get(*ticket).is_some());
    }
}

impl BlockedRead {
    fn take(&mut self, group: GroupId, resolved: &Resolved) {
        if self.group != group || !self.waits.remove(&resolved.id) {
            return;
        }
        if let (Source::Pinned(pinned), Verdict::Committed { .. }) =
            (&mut self.from, resolved.verdict)
        {
            pinned.over.extend(resolved.records.iter().cloned());
        }
    }
}
