//! Views of a whole keyspace at one point in time, for transactions that only read.
//!
//! ```text
//! opener      ViewPin      -> leader of each shard: takes the state of its store, and from then on holds back what the
//!                             group would say (group::holds)                                          -> ViewPinned
//!             ViewConfirm  -> the same: what was held back may be said; a read index shows that nobody else led the
//!                             group since the part was taken                                          -> ViewConfirmed
//! ```
//!
//! Between the last `ViewPinned` and the first `ViewConfirm` lies the point in time of the view: what is in it had begun
//! by then, and nothing that is not in it had been told to anybody.
//!
//! Two views that are taken at a time agree on an order. The later one of a group may show what is held back for the
//! earlier; then its part counts as taken only when that has left, hence after all parts of the earlier one are taken.
//! So that no two wait for one another, a view waits for those of greater numbers only; otherwise it is begun anew, with
//! a smaller number.
//!
//! A transaction over several shards is in a view if its deciding entry is. Where its part was only prepared when the
//! view was taken, a read of its keys waits until it is resolved, and takes the records that came of it.
//!
//! What it is not: it locks nothing, and no write waits longer for its acknowledgement than a view takes to be pinned.
//! Views are in memory; after a crash of a node that holds a part they are lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use meridian_storage::View;
use rand::Rng;

use crate::core::Core;
use crate::error::Error;
use crate::group::Group;
use crate::ids::{GroupId, KeyspaceId, NodeId, RequestId, ShardId};
use crate::inner::{InnerRequest, InnerResponse};
use crate::limits::{HOLD_MS_MAX, READ_VIEWS_MAX, VIEW_MS_MAX};
use crate::output::{Outputs, Pinned, Stage};
use crate::request::{Query, Read, Response};
use crate::route::Routed;
use crate::shard::{Locks, PreparedPart, Resolved};
use crate::time::Now;
use crate::transaction::{Compare, OpenView, TransactionId};
use crate::two_phase::Verdict;
use crate::waiting::{Origin, Own, What};

/// How often the opening of a view is begun anew before its client is told.
const OPEN_ATTEMPTS_MAX: u32 = 4;

/// By how many bits the number of a view is shorter at each attempt: whoever was sent away is more likely to wait.
const ATTEMPT_BITS: u32 = 4;

/// How long the parts of a view may take to answer, in milliseconds.
const OPEN_STEP_MS: u64 = 500;

/// A view that is being opened here.
#[derive(Debug)]
pub(crate) struct Opening {
    keyspace: KeyspaceId,
    origin: Origin,
    deadline_ns: u64,
    attempts: u32,
    /// Per shard, who holds it and since which log index.
    pins: BTreeMap<ShardId, (NodeId, u64)>,
    confirmed: BTreeSet<ShardId>,
    shards: u16,
}

/// This core's part of a view.
pub(crate) struct HeldView {
    view: Arc<dyn View>,
    until_ns: u64,
    /// Log index and term at which each group was taken.
    groups: BTreeMap<GroupId, (u64, u64)>,
    /// Prepared when the view was taken, and not resolved since.
    pending: BTreeMap<(GroupId, TransactionId), PreparedPart>,
    /// Resolved before it was known where the other shards stand: the anchor, the index that decided, the records.
    early: Vec<Early>,
    /// Per shard, who holds it and since which log index; empty until all are known.
    pins: Vec<(NodeId, u64)>,
    over: BTreeMap<Bytes, Option<Bytes>>,
}

type Early = (ShardId, u64, Vec<(Bytes, Option<Bytes>)>);

/// A read that waits for prepared transactions to be resolved.
pub(crate) struct BlockedRead {
    group: GroupId,
    waits: BTreeSet<TransactionId>,
    from: Source,
}

/// Which state a blocked read will see.
enum Source {
    /// The one in which it met the transactions, with what became of them.
    Pinned(Pinned),
    /// A view's.
    View(u64),
}

impl Opening {
    pub(crate) const fn origin(&self) -> Origin {
        self.origin
    }
}

impl HeldView {
    /// Prepared transactions that a read of a group in this view would have to know of.
    fn blockers(&self, group: GroupId, query: &Query) -> BTreeSet<TransactionId> {
        let ids = (group, TransactionId(0))..=(group, TransactionId(u128::MAX));
        self.pending
            .range(ids)
            .filter(|(_, part)| part.writes.iter().any(|key| touches(query, key)))
            .map(|((_, id), _)| *id)
            .collect()
    }

    fn take(&mut self, group: GroupId, resolved: &Resolved) {
        let Some(part) = self.pending.remove(&(group, resolved.id)) else {
            return;
        };
        match resolved.verdict {
            Verdict::Aborted => {}
            Verdict::Committed { at, .. } => {
                self.early.push((part.anchor, at, resolved.records.clone()));
                self.settle_early();
            }
        }
    }

    /// What was decided within the view counts.
    fn settle_early(&mut self) {
        if self.pins.is_empty() {
            return;
        }
        for (anchor, at, records) in std::mem::take(&mut self.early) {
            let pinned = self.pins.get(usize::from(anchor.0));
            if pinned.is_some_and(|(_, index)| at <= *index) {
                self.over.extend(records);
            }
        }
    }

    fn pinned(&self) -> Pinned {
        Pinned {
            view: Arc::clone(&self.view),
            over: self
                .over
                .iter()
                .map(|(key, record)| (key.clone(), record.clone()))
                .collect(),
        }
    }
}

/// Whether a query reads a key.
fn touches(query: &Query, key: &Bytes) -> bool {
    let within = |from: &[u8], to: Option<&[u8]>| {
        from <= key.as_ref() && to.is_none_or(|to| key.as_ref() < to)
    };
    match query {
        Query::Get { key: read } | Query::Examine { key: read } => read == key,
        Query::Scan { from, to, .. } | Query::Range { from, to, .. } => within(from, to.as_deref()),
        Query::Digest { .. } => true,
        Query::Leases { .. } => false,
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
        Query::Leases { .. } => BTreeSet::new(),
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
        Query::Scan { .. }
        | Query::Range { .. }
        | Query::Digest { .. }
        | Query::Validate { .. } => true,
        Query::Get { .. } | Query::Examine { .. } | Query::Leases { .. } => false,
    }
}

// ---------------------------------------------------------------- opening

impl Core {
    /// Opens a view.
    pub(crate) fn view_open(
        &mut self,
        now: Now,
        (origin, deadline_ns): (Origin, u64),
        keyspace: KeyspaceId,
        out: &mut Outputs,
    ) {
        let Some(shards) = self
            .catalog
            .keyspaces
            .get(&keyspace)
            .map(|found| found.shards)
        else {
            Self::answer(origin, Err(Error::KeyspaceNotFound), out);
            return;
        };
        if self.openings.len() >= READ_VIEWS_MAX {
            let what = "the table of views".to_owned();
            Self::answer(origin, Err(Error::Overloaded { what }), out);
            return;
        }
        let opening = Opening {
            keyspace,
            origin,
            deadline_ns,
            attempts: 0,
            pins: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            shards,
        };
        self.pin_all(now, opening, out);
    }

    fn pin_all(&mut self, now: Now, mut opening: Opening, out: &mut Outputs) {
        let view = self.rng.random::<u64>() >> (ATTEMPT_BITS * opening.attempts);
        opening.attempts += 1;
        opening.pins.clear();
        opening.confirmed.clear();
        let (keyspace, shards) = (opening.keyspace, opening.shards);
        let deadline_ns = opening.deadline_ns.min(now.after_ms(OPEN_STEP_MS));
        self.openings.insert(view, opening);
        for shard in (0..shards).map(ShardId) {
            let Some(group) = self.own_group(keyspace, shard) else {
                self.reopen(now, view, Error::KeyspaceNotFound, out);
                return;
            };
            let Some(node) = self.leader_guess(group) else {
                self.reopen(now, view, Error::NoQuorum, out);
                return;
            };
            let request = InnerRequest::ViewPin {
                keyspace,
                shard,
                id: view,
            };
            let own = Own::Pin { view, shard, node };
            self.ask_node(now, node, request, (own, deadline_ns), out);
        }
    }

    /// A shard's part is taken, or not.
    pub(crate) fn pinned(
        &mut self,
        now: Now,
        view: u64,
        (shard, node): (ShardId, NodeId),
        result: Result<Response, Error>,
        out: &mut Outputs,
    ) {
        let Some(opening) = self.openings.get_mut(&view) else {
            return;
        };
        match result {
            Ok(Response::Inner(inner)) => {
                let InnerResponse::ViewPinned { index } = *inner else {
                    return;
                };
                opening.pins.insert(shard, (node, index));
                if opening.pins.len() == usize::from(opening.shards) {
                    self.confirm_all(now, view, out);
                }
            }
            Ok(_) => self.reopen(now, view, Error::NoQuorum, out),
            Err(error) => {
                let keyspace = opening.keyspace;
                if let Some(group) = self.own_group(keyspace, shard) {
                    self.learn_leader(group, Some(node), &error);
                }
                self.reopen(now, view, error, out);
            }
        }
    }

    fn confirm_all(&mut self, now: Now, view: u64, out: &mut Outputs) {
        self.stage(TransactionId(0), Stage::AllPinned, out);
        let Some(opening) = self.openings.get(&view) else {
            return;
        };
        let keyspace = opening.keyspace;
        let pins: Vec<(NodeId, u64)> = opening.pins.values().copied().collect();
        let deadline_ns = opening.deadline_ns.min(now.after_ms(OPEN_STEP_MS));
        let shards: Vec<(ShardId, NodeId)> = opening
            .pins
            .iter()
            .map(|(shard, (node, _))| (*shard, *node))
            .collect();
        for (shard, node) in shards {
            let request = InnerRequest::ViewConfirm {
                keyspace,
                shard,
                id: view,
                pins: pins.clone(),
            };
            let own = Own::Confirm { view, shard };
            self.ask_node(now, node, request, (own, deadline_ns), out);
        }
    }

    /// A shard's part is good, or not.
    pub(crate) fn confirmed(
        &mut self,
        now: Now,
        view: u64,
        shard: ShardId,
        result: &Result<Response, Error>,
        out: &mut Outputs,
    ) {
        let Some(opening) = self.openings.get_mut(&view) else {
            return;
        };
        if let Err(error) = result {
            let error = error.clone();
            self.reopen(now, view, error, out);
            return;
        }
        opening.confirmed.insert(shard);
        if opening.confirmed.len() == usize::from(opening.shards)
            && let Some(opening) = self.openings.remove(&view)
        {
            let open = OpenView {
                id: view,
                keyspace: opening.keyspace,
                pins: opening.pins.values().map(|(node, _)| *node).collect(),
            };
            Self::answer(opening.origin, Ok(Response::ViewOpened(open)), out);
        }
    }

    /// A view could not be opened: what there is of it goes, and it is begun anew.
    fn reopen(&mut self, now: Now, view: u64, error: Error, out: &mut Outputs) {
        let Some(opening) = self.openings.remove(&view) else {
            return;
        };
        let pins = opening
            .pins
            .iter()
            .map(|(shard, (node, _))| (*shard, *node));
        self.drop_parts(now, (opening.keyspace, view), pins.collect(), out);
        let may_help = matches!(
            error,
            Error::NotLeader { leader: Some(_) } | Error::ViewLost
        );
        if may_help && opening.attempts < OPEN_ATTEMPTS_MAX && now.mono_ns < opening.deadline_ns {
            self.pin_all(now, opening, out);
        } else {
            let error = match error {
                Error::NotLeader { .. } | Error::DeadlineExceeded { .. } | Error::ViewLost => {
                    Error::NoQuorum
                }
                other => other,
            };
            Self::answer(opening.origin, Err(error), out);
        }
    }

    /// A view is no longer needed.
    pub(crate) fn view_close(&mut self, now: Now, view: &OpenView, out: &mut Outputs) {
        let pins = (0..).map(ShardId).zip(view.pins.iter().copied());
        self.drop_parts(now, (view.keyspace, view.id), pins.collect(), out);
    }

    fn drop_parts(
        &mut self,
        now: Now,
        (keyspace, id): (KeyspaceId, u64),
        pins: Vec<(ShardId, NodeId)>,
        out: &mut Outputs,
    ) {
        for (shard, node) in pins {
            let request = InnerRequest::ViewDrop {
                keyspace,
                shard,
                id,
            };
            self.tell_node(now, node, request, out);
        }
    }
}

// ---------------------------------------------------------------- holding

impl Core {
    /// Takes this core's part of a view: all groups of the keyspace that it leads, at once.
    pub(crate) fn view_pin(&mut self, now: Now, routed: &Routed, id: u64, out: &mut Outputs) {
        let group = routed.group;
        if !self.held_views.contains_key(&id)
            && let Err(error) = self.take_view(now, group.keyspace, id, out)
        {
            Self::answer(routed.origin, Err(error), out);
            return;
        }
        let holds = self.groups.get(&group).map(|group| &group.holds);
        let ahead = holds.map(|holds| holds.ahead_of(id)).unwrap_or_default();
        if ahead.iter().any(|other| *other <= id) {
            self.view_drop(id);
            Self::answer(routed.origin, Err(Error::ViewLost), out);
        } else if ahead.is_empty() {
            let result = self.pinned_at(group, id);
            Self::answer(routed.origin, result, out);
        } else if let Some(ticket) = self.ticket(routed, What::Pin(group, id), out)
            && let Some(group) = self.groups.get_mut(&group)
        {
            group.holds.defer(id, ticket);
        }
    }

    /// What is said of a group's part of a view.
    pub(crate) fn pinned_at(&self, group: GroupId, view: u64) -> Result<Response, Error> {
        let Some(held) = self.held_views.get(&view) else {
            return Err(Error::ViewLost);
        };
        match held.groups.get(&group) {
            Some((index, _)) => Ok(InnerResponse::ViewPinned { index: *index }.into()),
            None => Err(Error::NotLeader {
                leader: self.leader_elsewhere(group),
            }),
        }
    }

    fn take_view(
        &mut self,
        now: Now,
        keyspace: KeyspaceId,
        id: u64,
        out: &mut Outputs,
    ) -> Result<(), Error> {
        if self.held_views.len() >= READ_VIEWS_MAX {
            let what = "the table of views".to_owned();
            return Err(Error::Overloaded { what });
        }
        let mut held = HeldView {
            view: Arc::from(self.engine.view()?),
            until_ns: now.after_ms(VIEW_MS_MAX),
            groups: BTreeMap::new(),
            pending: BTreeMap::new(),
            early: Vec::new(),
            pins: Vec::new(),
            over: BTreeMap::new(),
        };
        let until_ns = now.after_ms(HOLD_MS_MAX);
        for (of, group) in &mut self.groups {
            let fit = of.keyspace == keyspace && group.is_current() && !group.quarantined();
            if !fit {
                continue;
            }
            let term = group.term();
            let Some(shard) = group.shard() else { continue };
            held.groups.insert(*of, (shard.meta().applied, term));
            if !self.config.planted.read_through_prepared {
                let prepared = shard.locks().prepared().iter();
                held.pending
                    .extend(prepared.map(|(id, part)| ((*of, *id), part.clone())));
            }
            group.holds.begin(id, until_ns);
        }
        self.held_views.insert(id, held);
        self.stage(TransactionId(0), Stage::Pinned, out);
        Ok(())
    }

    /// All parts are taken: the group may speak again, and shows that it was led from here all the while.
    pub(crate) fn view_confirm(
        &mut self,
        routed: &Routed,
        id: u64,
        pins: Vec<(NodeId, u64)>,
        out: &mut Outputs,
    ) {
        let of = routed.group;
        let Some(group) = self.groups.get_mut(&of) else {
            return;
        };
        group.holds.end(id);
        let due = group.holds.is_due();
        let term = group.term();
        if due {
            self.active.insert(of);
        }
        let named = pins.get(usize::from(of.shard.0)).map(|(_, index)| *index);
        let taken = self.held_views.get_mut(&id).and_then(|held| {
            held.pins = pins;
            held.settle_early();
            held.groups.get(&of).copied()
        });
        // A part that was given up and taken again is not the one that was told.
        let same = |(index, taken)| taken == term && Some(index) == named;
        if !taken.is_some_and(same) || !self.leads(of) {
            self.held_views.remove(&id);
            Self::answer(routed.origin, Err(Error::ViewLost), out);
            return;
        }
        let Some(ticket) = self.ticket(routed, What::Confirm(of, term), out) else {
            return;
        };
        self.queue(of, |group| group.enqueue_read(ticket));
    }

    pub(crate) fn view_drop(&mut self, id: u64) {
        self.held_views.remove(&id);
        self.end_holds(id);
    }

    fn end_holds(&mut self, id: u64) {
        for (of, group) in &mut self.groups {
            group.holds.end(id);
            if group.holds.is_due() {
                self.active.insert(*of);
            }
        }
    }

    /// Views past their time go, and holds that nobody ended.
    pub(crate) fn tick_views(&mut self, now: Now) {
        let mut broken = Vec::new();
        for (of, group) in &mut self.groups {
            broken.extend(group.holds.expire(now));
            if group.holds.is_due() {
                self.active.insert(*of);
            }
        }
        for view in broken {
            self.view_drop(view);
        }
        self.held_views
            .retain(|_, held| held.until_ns > now.mono_ns);
    }

    /// A group's state was replaced as a whole, or is gone: what was prepared in it may never be seen resolved.
    pub(crate) fn drop_views_of(&mut self, group: GroupId) {
        self.held_views
            .retain(|_, held| !held.groups.contains_key(&group));
        self.blocked.retain(|_, blocked| blocked.group != group);
    }
}

// ---------------------------------------------------------------- reading

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
            self.serve(routed.origin, &read, Some(pinned), out);
            return;
        }
        let Some(ticket) = self.ticket(routed, What::Read(Box::new(read)), out) else {
            return;
        };
        let blocked = BlockedRead {
            group: routed.group,
            waits,
            from: Source::View(id),
        };
        self.blocked.insert(ticket, blocked);
    }

    /// A linearizable read may be served, once the prepared transactions that it meets are resolved.
    pub(crate) fn release_read(
        &mut self,
        (ticket, group): (RequestId, GroupId),
        origin: Origin,
        read: &Read,
        out: &mut Outputs,
    ) {
        let shard = self.groups.get(&group).and_then(Group::shard);
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
                    self.waiting.take(ticket);
                    Self::answer(origin, Err(error.into()), out);
                    return;
                }
            }
        } else {
            None
        };
        if waits.is_empty() {
            self.waiting.take(ticket);
            self.serve(origin, read, pinned, out);
            return;
        }
        if let Some(pinned) = pinned {
            let from = Source::Pinned(pinned);
            let blocked = BlockedRead { group, waits, from };
            self.blocked.insert(ticket, blocked);
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
        let What::Read(read) = &waiter.what else {
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
        self.serve(waiter.origin, read, Some(pinned), out);
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
