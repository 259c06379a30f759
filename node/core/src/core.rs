//! The core: many groups, one turn.
//!
//! This file holds the loop of the crate's header and nothing else; where a request goes is in `route`, what happens
//! with time in `timers`, which groups there are in `placement`, views for followers in `images`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meridian_storage::{Batch, Durability, Engine};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::admission::{Admission, Around};
use crate::answers;
use crate::catalog::Catalog;
use crate::config::CoreConfig;
use crate::coordinator::Coordination;
use crate::error::{Error, OpenError};
use crate::exchange::{Arrived, ExchangeContext};
use crate::group::acks::Acked;
use crate::group::{Group, Outcome, Pace, RoleChange, Said, TurnContext};
use crate::ids::{GroupId, KeyspaceId, NodeId, RequestId};
use crate::images::Images;
use crate::levels::Levels;
use crate::limits::{BACKLOG_TURN_BYTES, MERGE_TURN_BYTES, VIEWS_MAX};
use crate::message::PeerMessage;
use crate::mirror::Mirrors;
use crate::output::{Input, Notice, Outputs, Turn};
use crate::record_cache::{Recent, RecordCache};
use crate::recovery::{self, Settling};
use crate::time::Now;
use crate::transaction::TransactionId;
use crate::views::{BlockedRead, HeldView, Opening};
use crate::waiting::{Heard, Waiting};
use crate::workspace::Workspace;

/// A node's state machine, or one of several of a node, each with shards of its own.
pub struct Core {
    pub(crate) config: CoreConfig,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) rng: StdRng,
    /// Random per start: tells this core's proposals from those of its former self.
    pub(crate) boot: u64,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    /// Groups that may have something to do.
    pub(crate) active: BTreeSet<GroupId>,
    /// Groups with merges that wait, perhaps for their time.
    merging: BTreeSet<GroupId>,
    pace: Pace,
    records: RecordCache,
    /// Groups of the turn being written.
    writing: Vec<GroupId>,
    pub(crate) waiting: Waiting,
    /// What other nodes have forwarded.
    heard: BTreeMap<NodeId, Heard>,
    /// Core 0 only.
    pub(crate) admission: Option<Admission>,
    pub(crate) images: Images,
    /// Ranges of groups that are gone.
    pub(crate) dropped: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) seed_checked: bool,
    /// Rounds of sealing under way, since when this core has known of them.
    pub(crate) sealing_since: BTreeMap<(KeyspaceId, u64), Now>,
    pub(crate) disk_full: bool,
    /// A write failed: nothing is served any more.
    poisoned: bool,
    /// Time of the last call.
    pub(crate) now: Now,
    /// Who was last heard to lead a group that another core of the node holds.
    pub(crate) heard_leaders: BTreeMap<GroupId, NodeId>,
    /// Requests forwarded to groups that this core does not hold.
    pub(crate) away: BTreeMap<RequestId, GroupId>,
    /// Transactions that this core brings together.
    pub(crate) coordinations: BTreeMap<TransactionId, Coordination>,
    /// The same by operation.
    pub(crate) coordinated: BTreeMap<(KeyspaceId, u128), TransactionId>,
    /// Decisions on their way to the other parts.
    pub(crate) settling: BTreeMap<(GroupId, TransactionId), Settling>,
    pub(crate) to_forget: BTreeMap<GroupId, Vec<TransactionId>>,
    pub(crate) prepared_since: BTreeMap<(GroupId, TransactionId), recovery::Waiting>,
    /// Views that this core opens.
    pub(crate) openings: BTreeMap<u64, Opening>,
    /// Parts of views that this core holds.
    pub(crate) held_views: BTreeMap<u64, HeldView>,
    /// Reads that wait for prepared transactions.
    pub(crate) blocked: BTreeMap<RequestId, BlockedRead>,
    pub(crate) levels: Levels,
    /// Cuts of keyspaces, and generations of them that are mirrored here.
    pub(crate) mirrors: Mirrors,
}

impl Core {
    /// Opens a core over what its engine holds.
    ///
    /// # Errors
    /// The store belongs to another node, does not read, or the configuration makes no sense.
    pub fn open(config: CoreConfig, engine: Arc<dyn Engine>, now: Now) -> Result<Self, OpenError> {
        if config.core_index >= config.core_count {
            let message = format!(
                "core {} of {} does not exist",
                config.core_index, config.core_count
            );
            return Err(OpenError::Config { message });
        }
        let mut rng = StdRng::from_seed(config.entropy);
        let boot = rng.random();
        let admission = match config.core_index {
            0 => Some(Admission::open(&*engine, &config, &mut rng)?),
            _ => None,
        };
        let records = RecordCache::of_bytes(config.bounds.record_cache_bytes);
        let mut core = Self {
            config,
            engine,
            rng,
            boot,
            catalog: Arc::new(Catalog::default()),
            groups: BTreeMap::new(),
            active: BTreeSet::new(),
            merging: BTreeSet::new(),
            pace: Pace::default(),
            records,
            writing: Vec::new(),
            waiting: Waiting::beginning_at(boot),
            heard: BTreeMap::new(),
            admission,
            images: Images::default(),
            dropped: Vec::new(),
            seed_checked: false,
            sealing_since: BTreeMap::new(),
            disk_full: false,
            poisoned: false,
            now,
            heard_leaders: BTreeMap::new(),
            away: BTreeMap::new(),
            coordinations: BTreeMap::new(),
            coordinated: BTreeMap::new(),
            settling: BTreeMap::new(),
            to_forget: BTreeMap::new(),
            prepared_since: BTreeMap::new(),
            openings: BTreeMap::new(),
            held_views: BTreeMap::new(),
            blocked: BTreeMap::new(),
            levels: Levels::default(),
            mirrors: Mirrors::default(),
        };
        core.open_groups(now)?;
        Ok(core)
    }

    /// The catalog as this core knows it; revision 0 until it knows one.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog)
    }

    /// Takes one input.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Outputs) {
        self.now = now;
        match input {
            Input::Tick => self.tick(now, out),
            Input::Peer { from, message } => self.peer(now, from, message, out),
            Input::Request {
                id,
                deadline_ns,
                request,
            } => {
                let origin = crate::waiting::Origin::Driver(id);
                self.pace.client_asks(now);
                if self.poisoned {
                    out.replies.push((id, Err(Error::Poisoned)));
                } else {
                    self.request(now, (origin, deadline_ns), request, out);
                }
            }
            Input::Catalog(catalog) => self.adopt(catalog, now, out),
            Input::Disk { full } => self.disk_full = full,
        }
        self.take_inner(now, out);
    }

    fn peer(&mut self, now: Now, from: NodeId, message: PeerMessage, out: &mut Outputs) {
        if self.poisoned {
            return;
        }
        match message {
            PeerMessage::Raft { group, message } => self.raft_message(now, group, *message, out),
            PeerMessage::Forward {
                id,
                deadline_ms,
                request,
            } => {
                if !self.heard.entry(from).or_default().is_new(id) {
                    return;
                }
                let origin = crate::waiting::Origin::Peer(from, id);
                self.request(now, (origin, now.after_ms(deadline_ms)), *request, out);
            }
            PeerMessage::Forwarded { id, result } => self.forwarded(now, id, *result, out),
            PeerMessage::Exchange {
                shard,
                from,
                to,
                reply_to,
                passed,
                body,
            } => {
                let arrived = Arrived {
                    from,
                    reply_to,
                    body,
                };
                let Some(record) = self.catalog.group_of(to.keyspace, shard, to.zone) else {
                    self.seed_asked(now, (shard, to), arrived, out);
                    return;
                };
                let group = record.id;
                let leads = self.groups.get(&group).is_some_and(Group::established);
                if leads {
                    self.with_exchange(now, group, out, |group, context| {
                        group.exchange_receive(arrived, context);
                    });
                    self.level_writes(group, out);
                } else if let Some(leader) = self.leader_elsewhere(group).filter(|_| !passed) {
                    let message = PeerMessage::Exchange {
                        shard,
                        from,
                        to,
                        reply_to,
                        passed: true,
                        body: arrived.body,
                    };
                    out.messages.push((leader, message));
                }
            }
            PeerMessage::Image { group, body } => self.image_message(now, (from, group), body, out),
            PeerMessage::Admission(message) => {
                if let Some(admission) = &mut self.admission {
                    let mut around = Around {
                        config: &self.config,
                        catalog: &self.catalog,
                        out,
                    };
                    admission.receive(from, message, &mut around);
                }
            }
        }
    }

    /// The node that leads a group, when it is not this one.
    pub(crate) fn leader_elsewhere(&self, group: GroupId) -> Option<NodeId> {
        let leader = match self.groups.get(&group) {
            Some(local) => local.leader(),
            None => self.leader_guess(group),
        };
        leader.filter(|leader| *leader != self.config.node)
    }

    fn raft_message(
        &mut self,
        now: Now,
        id: GroupId,
        message: raft::eraftpb::Message,
        out: &mut Outputs,
    ) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        if message.to != group.replica.0 {
            return;
        }
        let image = message.msg_type == i32::from(raft::eraftpb::MessageType::MsgSnapshot);
        if image && !group.is_past(&message) {
            out.messages.extend(group.begin_install(message, now));
        } else {
            group.receive(message, &mut self.rng);
        }
        self.after_raft(id, out);
    }

    /// What must follow every call into a group's Raft.
    pub(crate) fn after_raft(&mut self, id: GroupId, out: &mut Outputs) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        if group.has_work() || group.has_pages() {
            self.active.insert(id);
        }
        let change = group.note_role(self.config.observe, out);
        let now = self.now;
        self.release_acks(now, id, out);
        let Some((change, group)) = change.zip(self.groups.get_mut(&id)) else {
            return;
        };
        group.exchange_role(change);
        self.reset_leases(id, out);
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        if change == RoleChange::Lost {
            let reads = group.fail_reads();
            let leader = group.leader();
            group.lose_lead();
            self.give_up_acks(now, id, out);
            self.drop_coordinations(now, id, leader, out);
            self.drop_recovery(id);
            for waiter in self.waiting.writes_in(id) {
                let unseen = self.unseen(now, &waiter);
                self.conclude(now, waiter, Err(unseen), out);
            }
            for ticket in reads {
                if let Some(waiter) = self.waiting.take(ticket) {
                    let error = Self::led_elsewhere(id, waiter.origin, leader);
                    Self::answer(waiter.origin, Err(error), out);
                }
            }
        }
    }

    /// Runs something of a group's exchange.
    pub(crate) fn with_exchange(
        &mut self,
        now: Now,
        id: GroupId,
        out: &mut Outputs,
        act: impl FnOnce(&mut Group, &mut ExchangeContext<'_>),
    ) {
        let open: usize = self
            .groups
            .values()
            .map(|group| group.exchange.views())
            .sum();
        let tombstones_through = self.mirrors_passed(id);
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let mut context = ExchangeContext {
            now,
            tombstones_through,
            config: &self.config,
            catalog: &self.catalog,
            engine: &*self.engine,
            rng: &mut self.rng,
            out,
            views_left: VIEWS_MAX
                .saturating_sub(open)
                .saturating_sub(self.images.len()),
        };
        act(group, &mut context);
        if group.queued() > 0 {
            self.active.insert(id);
        }
        if !group.merges.is_empty() {
            self.merging.insert(id);
        }
    }

    /// What is to be written, if anything is to be done. [`Core::wrote`] must follow before any other call.
    pub fn turn(&mut self, now: Now, out: &mut Outputs) -> Option<Turn> {
        self.now = now;
        if self.poisoned {
            return None;
        }
        let collected = self.collect(now, out);
        self.take_inner(now, out);
        match collected {
            Ok(turn) => turn,
            Err(error) => {
                // State that does not apply here would apply elsewhere: going on would let replicas drift apart.
                out.notices.push(Notice::Damaged {
                    detail: error.to_string(),
                });
                self.failed(now, out);
                None
            }
        }
    }

    fn collect(&mut self, now: Now, out: &mut Outputs) -> Result<Option<Turn>, Error> {
        self.open_wanted_images(now);
        let engine = Arc::clone(&self.engine);
        let mut records = std::mem::take(&mut self.records);
        let known = Recent::of(&*engine, &records);
        let work = Workspace::new(&known, self.config.observe);
        let turn = self.collect_into(work, now, out);
        // It is written next, or nothing is read any more.
        if let Ok(Some(turn)) = &turn {
            records.follow(&turn.batch);
        }
        self.records = records;
        turn
    }

    fn collect_into(
        &mut self,
        mut work: Workspace<'_>,
        now: Now,
        out: &mut Outputs,
    ) -> Result<Option<Turn>, Error> {
        let mut sync = false;
        for (from, to) in self.dropped.drain(..) {
            work.delete_range(from, to);
        }
        if let Some(admission) = self
            .admission
            .as_mut()
            .filter(|admission| admission.has_writes())
        {
            admission.collect(&mut work);
            sync = true;
        }
        sync |= self.collect_mirrors(&mut work)?;
        let mut catalog_changed = false;
        self.pace.begin(now);
        self.wake_merging();
        let merge_bytes = self.merge_bytes();
        let beside = self.has_clients_beside_merges();
        self.pace.defer_beside(beside);
        for id in std::mem::take(&mut self.active) {
            let Some(group) = self.groups.get_mut(&id) else {
                continue;
            };
            if group.has_pages() {
                sync = true;
                group.write_pages(&mut work)?;
            }
            let mut context = TurnContext {
                now,
                bounds: &self.config.bounds,
                observe: self.config.observe,
                work: &mut work,
                out,
                merge_bytes,
                pace: &mut self.pace,
            };
            let collected = group.collect(&mut context)?;
            sync |= collected.sync;
            catalog_changed |= collected.catalog_changed;
            self.writing.push(id);
            for waiter in collected.refused {
                self.refused(now, waiter, out);
            }
        }
        if catalog_changed {
            self.read_catalog(now, out)?;
        }
        if self.writing.is_empty() && work.is_empty() {
            return Ok(None);
        }
        let batch: Batch = work.into_batch();
        let sync = sync && !self.config.planted.reply_before_durable;
        let durability = if sync {
            Durability::Synced
        } else {
            Durability::Buffered
        };
        Ok(Some(Turn { batch, durability }))
    }

    /// Groups with merges that may go now take part in this turn; and in the next, while any are left.
    fn wake_merging(&mut self) {
        let (groups, pace) = (&self.groups, &self.pace);
        let merges = |id: &GroupId| groups.get(id).map(|group| &group.merges);
        self.merging
            .retain(|id| merges(id).is_some_and(|merges| !merges.is_empty()));
        let due = |id: &&GroupId| merges(id).is_some_and(|merges| merges.is_due(pace));
        self.active.extend(self.merging.iter().filter(due));
    }

    /// Whether entries of clients could be applied in this turn, and of merges too.
    fn has_clients_beside_merges(&self) -> bool {
        let active = self.active.iter().filter_map(|id| self.groups.get(id));
        let entries = active.map(Group::applicable);
        let all = entries.reduce(|(c, m), (clients, merges)| (c.max(clients), m.max(merges)));
        matches!(all, Some((1.., 1..)))
    }

    /// Bytes of merges that each group may propose in this turn. None where that would make a turn wait for the disk that
    /// only applies what is there already: whoever waits for that is not to wait for merges as well.
    fn merge_bytes(&self) -> Option<usize> {
        let active = || self.active.iter().filter_map(|id| self.groups.get(id));
        let applies = active().any(Group::has_applicable);
        if applies && active().all(|group| group.queued() == 0) {
            return None;
        }
        let merging = active().filter(|group| !group.merges.is_empty()).count();
        let bytes = if self.pace.is_portion_due() {
            BACKLOG_TURN_BYTES
        } else {
            MERGE_TURN_BYTES
        };
        Some(bytes / merging.max(1))
    }

    /// The turn's batch is written as it asked for: everything that waited for it leaves.
    pub fn wrote(&mut self, now: Now, out: &mut Outputs) {
        self.now = now;
        if let Some(admission) = &mut self.admission {
            admission.settle(out);
        }
        for id in std::mem::take(&mut self.writing) {
            let Some(group) = self.groups.get_mut(&id) else {
                continue;
            };
            let settled = group.settle(out);
            // Only now: Raft takes no message between a ready and its advance.
            self.finish_image(now, id, out);
            let Some(group) = self.groups.get_mut(&id) else {
                continue;
            };
            group.impose_timeout(&mut self.rng);
            // After Raft's ready is settled: a message stepped in between would be taken for one of that ready.
            self.finish_image(now, id, out);
            if settled.again {
                self.active.insert(id);
            }
            let said = Said {
                outcomes: settled.outcomes,
                reads: settled.reads,
            };
            let said = match self.groups.get_mut(&id) {
                Some(group) => group.holds.pass(said),
                None => said,
            };
            self.release_acks(now, id, out);
            for outcome in said.outcomes {
                self.said(now, id, outcome, out);
            }
            for ticket in said.reads {
                self.release(now, (ticket, id), out);
            }
            if !settled.resolved.is_empty() {
                self.resolved(id, &settled.resolved, out);
            }
            self.offer_freed(now, id, out);
            self.after_raft(id, out);
            self.with_exchange(now, id, out, Group::exchange_flush);
            self.level_reads(now, id, out);
        }
        self.pace.end();
        self.wake_merging();
        self.settle_mirrors(now, out);
        self.join_cluster(now, out);
        self.take_inner(now, out);
    }

    /// A write failed: it may or may not be on disk, so nothing more is said or served (the store is poisoned).
    pub fn failed(&mut self, _now: Now, out: &mut Outputs) {
        self.poisoned = true;
        self.writing.clear();
        for waiter in self.waiting.all() {
            Self::answer(waiter.origin, Err(Error::Poisoned), out);
        }
        self.fail_coordinations(out);
        self.fail_levels(out);
        out.inner.clear();
        let groups = self.groups.values_mut();
        for waits in groups.flat_map(|group| group.leases.reset()) {
            Self::answer(waits.origin, Err(Error::Poisoned), out);
        }
    }

    /// Tells whoever waits for an outcome.
    pub(crate) fn outcome(&mut self, now: Now, acked: Acked, out: &mut Outputs) {
        let Acked {
            outcome,
            zones,
            degraded,
            missed,
        } = acked;
        let (waiter, result) = match outcome {
            Outcome::Control(waiter, result) => (
                waiter,
                answers::transacted(result, (zones, degraded), missed),
            ),
            Outcome::Write(waiter, op_id, outcome) => (
                waiter,
                answers::written(op_id, outcome, (zones, degraded), missed),
            ),
            Outcome::Lease(waiter, outcome) => {
                self.lease_outcome(now, waiter, outcome, out);
                return;
            }
        };
        if waiter.node != self.config.node || waiter.boot != self.boot {
            return;
        }
        if let Some(waiting) = self.waiting.take(waiter.ticket) {
            self.conclude(now, waiting, result, out);
        }
    }
}
