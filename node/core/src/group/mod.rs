//! One Raft group as this node holds it: consensus by raft-rs, a log, and the state machine it drives.
//!
//! A turn of the core takes a group through `collect` (propose what waits, take what Raft has ready, apply what is
//! committed, put it all into the turn's writes) and, once these are written, `settle` (release messages, outcomes and
//! reads). Nothing here writes or sends.
//!
//! Invariants:
//! * the machine has applied every entry up to `machine.applied()`, in order, each once;
//! * an outcome or a read leaves `settle` only after the writes it speaks of (invariant 9);
//! * the election timeout in force was drawn from the core's generator, never from raft-rs's own: it is imposed again
//!   after every call into Raft.
//!
//! Read `log` (what Raft sees of the disk), `collect` (the turn), `apply`, `unlogged` (a group of one replica), `reads` (read
//! index), `install` (group images); for groups that span zones also `spanning`, `acks`, `demand`, `apart`.

pub(crate) mod acks;
mod apart;
mod apply;
mod behind;
mod collect;
mod demand;
mod holds;
mod install;
pub(crate) mod leases;
mod life;
pub(crate) mod log;
mod members;
mod merges;
mod pace;
mod reads;
mod spanning;
mod unlogged;

use std::collections::VecDeque;

use meridian_causal::Hlc;
use raft::eraftpb::{ConfState, Message, MessageType};
use raft::{Config, RawNode, Ready, StateRole};
use rand::Rng;
use rand::rngs::StdRng;

pub(crate) use collect::TurnContext;
use holds::Holds;
pub(crate) use holds::Said;
use install::Install;
use leases::Leases;
use life::Life;
use merges::Merges;
pub(crate) use pace::Pace;

use crate::alter::Told;
use crate::command::{Op, Waiter, WriteOp, WriteOutcome};
use crate::config::CoreConfig;
use crate::control::{Control, ControlCommand};
use crate::error::Error;
use crate::exchange::Exchanging;
use crate::ids::{GroupId, NodeId, ReplicaId, RequestId};
use crate::lease::LeaseOutcome;
use crate::limits::ENTRY_BYTES_MAX;
use crate::message::PeerMessage;
use crate::output::{Notice, Observation, Outputs};
use crate::request::GroupStatus;
use crate::shard::{Resolved, Shard};
use log::GroupLog;
use reads::Reads;
use spanning::Spanning;

/// Bytes of proposals a leader holds uncommitted before it refuses more: what its followers must catch up at once.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;

/// What a group's log drives.
pub(crate) enum Machine {
    /// A shard of a keyspace.
    Data(Box<Shard>),
    /// The catalog.
    Control(Box<Control>),
}

impl Machine {
    pub(crate) fn applied(&self) -> u64 {
        match self {
            Self::Data(shard) => shard.meta().applied,
            Self::Control(control) => control.applied(),
        }
    }

    /// Everything up to `index` counts as applied.
    fn skip_to(&mut self, index: u64) {
        if index <= self.applied() {
            return;
        }
        match self {
            Self::Data(shard) => shard.apply_empty(index),
            Self::Control(control) => control.apply_empty(index),
        }
    }
}

/// A group on this node.
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) machine: Machine,
    pub(crate) exchange: Exchanging,
    pub(crate) life: Life,
    pub(crate) leases: Leases,
    pub(crate) told: Told,
    /// As the catalog says; see [`GroupRecord`](crate::catalog::GroupRecord).
    pub(crate) disk_lost: bool,
    raft: RawNode<GroupLog>,
    /// Operations that the next turn proposes.
    queue: Vec<Op>,
    control_queue: Vec<ControlCommand>,
    /// What came from other zones and is let into the log little by little.
    pub(crate) merges: Merges,
    /// Log entries of merges that this group has proposed and not applied.
    merge_entries: VecDeque<u64>,
    hlc: Hlc,
    reads: Reads,
    /// The machine may apply up to this index.
    apply_to: u64,
    ready: Option<Ready>,
    /// Outcomes of writes in the batch being written.
    outcomes: Vec<Outcome>,
    install: Option<Install>,
    /// Prepared parts resolved in the batch being written.
    resolved: Vec<Resolved>,
    /// Writes that wait for prepared transactions.
    locked: Vec<WriteOp>,
    pub(crate) holds: Holds,
    /// `None` in a group whose walls are a zone.
    spanning: Option<Spanning>,
    seen: Role,
    election_ticks: usize,
    /// As drawn; see `timeout_of`.
    timeout_ticks: usize,
}

/// The outcome of a command that somebody may wait for.
#[derive(Debug)]
pub(crate) enum Outcome {
    Write(Waiter, meridian_causal::OpId, WriteOutcome),
    Control(Waiter, Result<crate::request::Response, Error>),
    Lease(Waiter, LeaseOutcome),
}

/// What was last seen of the group's consensus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Role {
    term: u64,
    leads: bool,
    state: u8,
    leader: u64,
}

impl Group {
    /// A group over a log and machine just created or loaded.
    pub(crate) fn open(
        id: GroupId,
        replica: ReplicaId,
        mut log: GroupLog,
        mut machine: Machine,
        config: &CoreConfig,
    ) -> Result<Self, Error> {
        let factor = if id == GroupId::CONTROL {
            config.timing.control_factor
        } else {
            1
        };
        let election_ticks = config.timing.election_ticks.saturating_mul(factor);
        if !log.installing() {
            // Of a founder that has applied nothing yet: what was cut is the founding.
            machine.skip_to(log.truncated().index);
            log.adopt(machine.applied(), replica);
        }
        let applied = machine
            .applied()
            .min(log.hard().commit)
            .max(log.truncated().index);
        let raft_config = Config {
            id: replica.0,
            election_tick: election_ticks,
            heartbeat_tick: config.timing.heartbeat_ticks.saturating_mul(factor),
            applied,
            max_size_per_msg: u64::try_from(ENTRY_BYTES_MAX).unwrap_or(u64::MAX),
            max_inflight_msgs: 64,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: UNCOMMITTED_BYTES_MAX,
            ..Config::default()
        };
        let life = Life::begin(log.last(), &machine);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = RawNode::new(&raft_config, log, &logger).map_err(|error| Error::Corruption {
            detail: format!("group {id}: {error}"),
        })?;
        Ok(Self {
            id,
            replica,
            apply_to: machine.applied(),
            hlc: match &machine {
                Machine::Data(shard) => shard.meta().hlc,
                Machine::Control(_) => Hlc::default(),
            },
            machine,
            exchange: Exchanging::default(),
            life,
            leases: Leases::default(),
            told: Told::default(),
            disk_lost: false,
            raft,
            queue: Vec::new(),
            control_queue: Vec::new(),
            merges: Merges::default(),
            merge_entries: VecDeque::new(),
            reads: Reads::default(),
            ready: None,
            outcomes: Vec::new(),
            install: None,
            resolved: Vec::new(),
            locked: Vec::new(),
            holds: Holds::default(),
            spanning: None,
            seen: Role::default(),
            election_ticks,
            timeout_ticks: election_ticks,
        })
    }

    /// Members a group starts with: the founders as voters, `learners` beside them; none of both for a replica that
    /// joins a group which is already there and learns its members from the leader.
    pub(crate) fn first_members(
        replica: ReplicaId,
        founders: &[ReplicaId],
        learners: &[ReplicaId],
    ) -> ConfState {
        if !founders.contains(&replica) && !learners.contains(&replica) {
            return ConfState::default();
        }
        ConfState {
            voters: founders.iter().map(|id| id.0).collect(),
            learners: learners.iter().map(|id| id.0).collect(),
            ..ConfState::default()
        }
    }

    /// The shard, if this is a data group.
    pub(crate) fn shard(&self) -> Option<&Shard> {
        match &self.machine {
            Machine::Data(shard) => Some(shard),
            Machine::Control(_) => None,
        }
    }

    pub(crate) fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    /// The node that leads, as far as this one knows.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        match self.raft.raft.leader_id {
            0 => None,
            id => Some(ReplicaId(id).node()),
        }
    }

    pub(crate) fn term(&self) -> u64 {
        self.raft.raft.term
    }

    pub(crate) fn log(&self) -> &GroupLog {
        self.raft.store()
    }

    /// The only voter is this replica: it needs nobody's answer.
    pub(crate) fn alone(&self) -> bool {
        self.log().conf().voters == [self.replica.0]
    }

    /// The leader has committed an entry of its own term, so its commit index and its applied state are current.
    pub(crate) fn established(&self) -> bool {
        self.leads() && self.raft.raft.commit_to_current_term()
    }

    /// The leader has applied an entry of its own term: whatever was acknowledged before it led is in its state.
    pub(crate) fn is_current(&self) -> bool {
        let applied = self.machine.applied();
        self.established()
            && !self.log().installing()
            && self
                .raft
                .raft
                .raft_log
                .term(applied)
                .is_ok_and(|term| term == self.term())
    }

    /// Asks for an election at once, where waiting for the timeout would serve nobody.
    pub(crate) fn campaign(&mut self, rng: &mut StdRng) {
        ignore_refusal(&self.raft.campaign());
        self.impose_timeout(rng);
    }

    /// One Raft tick.
    pub(crate) fn tick(&mut self, rng: &mut StdRng) {
        self.tick_spanning();
        self.raft.tick();
        self.impose_timeout(rng);
    }

    /// A message of consensus.
    pub(crate) fn receive(&mut self, mut message: Message, rng: &mut StdRng) {
        self.hear(message.from);
        let last = self.raft.raft.raft_log.last_index();
        if message.get_msg_type() == MessageType::MsgHeartbeat && message.commit > last {
            // The leader counts on entries that this log no longer has: its store is an older copy. raft-rs would
            // panic; such a replica commits nothing on the strength of it.
            message.commit = 0;
        }
        ignore_refusal(&self.raft.step(message));
        self.impose_timeout(rng);
    }

    /// raft-rs draws its timeout from a generator of its own after each change of term or role; what it drew is
    /// replaced before it can matter, so that a seed replays.
    pub(crate) fn impose_timeout(&mut self, rng: &mut StdRng) {
        let raft = &self.raft.raft;
        let role = Role {
            term: raft.term,
            leads: raft.state == StateRole::Leader,
            state: match raft.state {
                StateRole::Follower => 0,
                StateRole::Candidate => 1,
                StateRole::Leader => 2,
                StateRole::PreCandidate => 3,
            },
            leader: raft.leader_id,
        };
        if (role.term, role.state) != (self.seen.term, self.seen.state)
            || self.seen == Role::default()
        {
            self.timeout_ticks =
                rng.random_range(self.election_ticks..self.election_ticks.saturating_mul(2));
        }
        let timeout = self.timeout_of(self.timeout_ticks);
        self.raft.raft.set_randomized_election_timeout(timeout);
        self.seen.state = role.state;
        self.seen.term = role.term;
    }

    /// Tells whether leadership changed since this was last called.
    pub(crate) fn note_role(&mut self, observe: bool, out: &mut Outputs) -> Option<RoleChange> {
        let (leads, leader) = (self.leads(), self.raft.raft.leader_id);
        if leads == self.seen.leads && leader == self.seen.leader {
            return None;
        }
        if leader != self.seen.leader {
            out.notices.push(Notice::Leader {
                group: self.id,
                leader: self.leader(),
                term: self.term(),
            });
        }
        let change = match (self.seen.leads, leads) {
            (false, true) => Some(RoleChange::Gained),
            (true, false) => Some(RoleChange::Lost),
            (true, true) | (false, false) => None,
        };
        if let Some(change) = change {
            self.spanning_role(change);
        }
        if observe && change == Some(RoleChange::Gained) {
            out.observations.push(Observation::Leads {
                group: self.id,
                term: self.term(),
            });
        }
        self.seen.leads = leads;
        self.seen.leader = leader;
        change
    }

    /// Queues an operation for the next turn.
    pub(crate) fn enqueue(&mut self, op: Op) {
        self.queue.push(op);
    }

    /// Queues a command of the control group for the next turn.
    pub(crate) fn enqueue_control(&mut self, command: ControlCommand) {
        self.control_queue.push(command);
    }

    /// Operations queued and not yet proposed, but for merges.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len().saturating_add(self.control_queue.len())
    }

    /// A linearizable read waits for this group's read index.
    pub(crate) fn enqueue_read(&mut self, ticket: RequestId) {
        self.reads.waiting.push(ticket);
    }

    /// What the group tells of itself.
    pub(crate) fn status(&self) -> GroupStatus {
        let meta = self.shard().map(Shard::meta);
        GroupStatus {
            group: self.id,
            leader: self.leader(),
            leads: self.leads(),
            term: self.term(),
            commit: self.raft.raft.raft_log.committed,
            applied: self.machine.applied(),
            log_entries: self.log().len(),
            log_bytes: self.log().bytes(),
            outbox_bytes: meta.map_or(0, |meta| meta.outbox_bytes),
            op_ids: meta.map_or(0, |meta| meta.op_count),
            comparing: meta.is_some_and(|meta| meta.compare.is_some()),
            disk_lost: self.disk_lost,
            degraded: self.degraded(),
            breach_ms: None,
        }
    }
}

/// Raft refuses stale and unknown messages with errors. Links may repeat and reorder, so that is no fault.
const fn ignore_refusal(_result: &raft::Result<()>) {}

/// A change of this replica's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoleChange {
    Gained,
    Lost,
}

/// A consensus message as it goes to a node.
fn addressed(group: GroupId, message: Message) -> (NodeId, PeerMessage) {
    (
        ReplicaId(message.to).node(),
        PeerMessage::Raft {
            group,
            message: Box::new(message),
        },
    )
}
