//! The side of a core that holds part of a view: the state of its store, and what is prepared in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use meridian_storage::View;

use crate::core::Core;
use crate::error::Error;
use crate::group::Group;
use crate::ids::{GroupId, KeyspaceId, NodeId, ShardId};
use crate::inner::InnerResponse;
use crate::limits::{HOLD_ACROSS_MS_MAX, HOLD_MS_MAX, READ_VIEWS_MAX, VIEW_MS_MAX};
use crate::output::{Observation, Outputs, Pinned, Stage};
use crate::request::{Query, Response};
use crate::route::Routed;
use crate::shard::{PreparedPart, Resolved};
use crate::time::Now;
use crate::transaction::TransactionId;
use crate::two_phase::Verdict;
use crate::waiting::What;

use super::reading::touches;

/// This core's part of a view.
pub(crate) struct HeldView {
    view: Arc<dyn View>,
    until_ns: u64,
    /// Log index and term at which each group was taken.
    pub(super) groups: BTreeMap<GroupId, (u64, u64)>,
    /// Prepared when the view was taken, and not resolved since.
    pending: BTreeMap<(GroupId, TransactionId), PreparedPart>,
    /// Resolved before it was known where the other shards stand: the anchor, the index that decided, the records.
    early: Vec<Early>,
    /// Per shard, who holds it and since which log index; empty until all are known.
    pub(super) pins: Vec<(NodeId, u64)>,
    over: BTreeMap<Bytes, Option<Bytes>>,
}

type Early = (ShardId, u64, Vec<(Bytes, Option<Bytes>)>);

impl HeldView {
    /// Prepared transactions that a read of a group in this view would have to know of.
    pub(super) fn blockers(&self, group: GroupId, query: &Query) -> BTreeSet<TransactionId> {
        let ids = (group, TransactionId(0))..=(group, TransactionId(u128::MAX));
        self.pending
            .range(ids)
            .filter(|(_, part)| part.writes.iter().any(|key| touches(query, key)))
            .map(|((_, id), _)| *id)
            .collect()
    }

    /// A group's part of a cut: its log index, and its state once nothing that is prepared in it is open. Asking keeps the
    /// view. `None`: not all shards are known to be pinned, or the group is not.
    pub(crate) fn of_cut(&mut self, now: Now, group: GroupId) -> Option<(u64, Option<Pinned>)> {
        let (index, _) = *self.groups.get(&group)?;
        if self.pins.is_empty() {
            return None;
        }
        self.until_ns = now.after_ms(VIEW_MS_MAX);
        let ids = (group, TransactionId(0))..=(group, TransactionId(u128::MAX));
        let open = self.pending.range(ids).next().is_some();
        Some((index, (!open).then(|| self.pinned())))
    }

    pub(super) fn take(&mut self, group: GroupId, resolved: &Resolved) {
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

    pub(super) fn pinned(&self) -> Pinned {
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

impl Core {
    /// Takes this core's part of a view: all groups of the keyspace that it leads, at once.
    pub(crate) fn view_pin(&mut self, now: Now, routed: &Routed, id: u64, out: &mut Outputs) {
        let group = routed.group;
        if let Some(refusal) = self.groups.get(&group).and_then(Group::refusal) {
            Self::answer(routed.origin, Err(refusal), out);
            return;
        }
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
        let (inside_ns, across_ns) = (now.after_ms(HOLD_MS_MAX), now.after_ms(HOLD_ACROSS_MS_MAX));
        for (of, group) in &mut self.groups {
            let whole = !group.quarantined() && !group.disk_lost;
            let fit = of.keyspace == keyspace && group.is_current() && whole;
            if !fit {
                continue;
            }
            let term = group.term();
            let Some(shard) = group.shard() else { continue };
            held.groups.insert(*of, (shard.meta().applied, term));
            if self.config.observe {
                out.observations.push(Observation::Pinned {
                    view: id,
                    group: *of,
                    index: shard.meta().applied,
                });
            }
            if !self.config.planted.read_through_prepared {
                let prepared = shard.locks().prepared().iter();
                held.pending
                    .extend(prepared.map(|(id, part)| ((*of, *id), part.clone())));
            }
            let until_ns = if of.spans_zones() {
                across_ns
            } else {
                inside_ns
            };
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
