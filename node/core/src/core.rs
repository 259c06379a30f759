//! The core: many groups.
//!
//! This file holds the loop of the crate's header and nothing else; where a request goes is in `route`, what happens
//! with time in `timers`, what is written in `turn`, which groups there are in `placement`, views for followers in `images`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meridian_storage::Engine;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::admission::{Admission, Around};
use crate::answers;
use crate::catalog::Catalog;
use crate::config::CoreConfig;
use crate::coordinator::Coordination;
use crate::error::{Error, OpenError};
use crate::exchange::rhythm::Rhythm;
use crate::exchange::{Arrived, ExchangeContext};
use crate::group::acks::Acked;
use crate::group::{Group, Outcome, Pace, RoleChange};
use crate::ids::{GroupId, KeyspaceId, NodeId, RequestId};
use crate::images::Images;
use crate::levels::Levels;
use crate::limits::VIEWS_MAX;
use crate::message::PeerMessage;
use crate::mirror::Mirrors;
use crate::output::{Input, Outputs};
use crate::record_cache::RecordCache;
use crate::recovery::{self, Settling};
use crate::time::Now;
use crate::transaction::TransactionId;
use crate::views::{BlockedRead, HeldView, Opening};
use crate::waiting::{Heard, Waiting};

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
    pub(crate) merging: BTreeSet<GroupId>,
    pub(crate) pace: Pace,
    /// When groups speak to other zones.
    pub(crate) rhythm: Rhythm,
    pub(crate) records: RecordCache,
    /// Groups of the turn being written.
    pub(crate) writing: Vec<GroupId>,
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
    pub(crate) poisoned: bool,
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
            rhythm: Rhythm::default(),
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
            // What was applied and could not be written is not to be spoken of.
            Input::Tick if self.poisoned => {}
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
