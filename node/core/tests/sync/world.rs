//! Zones of one or two nodes and a sync keyspace: cores over engines in memory, messages without delay, time that only a
//! test moves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use meridian_causal::{Content, OpId, ZoneId};
use meridian_core::catalog::{Mode, Policy, shard_of};
use meridian_core::command::WriteIntent;
use meridian_core::config::{
    Bounds, ClusterSeed, CoreConfig, NodeSeed, PlantedBugs, Timing, ZoneSeed,
};
use meridian_core::ids::{KeyspaceId, NodeId, RequestId};
use meridian_core::message::PeerMessage;
use meridian_core::output::Notice;
use meridian_core::request::{
    Answer, GroupStatus, Query, Read, ReadLevel, Receipt, Request, Response, Shown, Write,
};
use meridian_core::{Core, Error, Input, Now, Outputs};
use meridian_storage::{Engine, MemoryEngine};

/// One tick of every core.
pub(crate) const TICK_MS: u64 = 50;

/// The longest time without a leader before an election (`Timing::default()`).
pub(crate) const ELECTION_MS: u64 = 500;

const SHARDS: u16 = 1;

pub(crate) type Outcome = Result<Response, Error>;

/// See the module. Nodes are numbered from 0, zone by zone.
pub(crate) struct World {
    engines: Vec<Arc<MemoryEngine>>,
    cores: Vec<Core>,
    ms: u64,
    requests: u64,
    messages: VecDeque<(usize, usize, PeerMessage)>,
    /// Nodes that hear nobody and are not heard.
    pub(crate) cut: Vec<bool>,
    answers: BTreeMap<u64, Outcome>,
}

fn seed(per_zone: usize) -> ClusterSeed {
    let node = |index: usize| NodeSeed {
        id: node_id(index),
        name: format!("n{index}"),
        zone: ZoneId(u16::try_from(index / per_zone).unwrap() + 1),
        addr: String::new(),
        peer_addr: String::new(),
    };
    ClusterSeed {
        cluster: "test".to_owned(),
        zones: (1..=3)
            .map(|id| ZoneSeed {
                id: ZoneId(id),
                name: format!("z{id}"),
            })
            .collect(),
        nodes: (0..3 * per_zone).map(node).collect(),
    }
}

fn node_id(index: usize) -> NodeId {
    NodeId(u64::try_from(index).unwrap() + 1)
}

impl World {
    /// Three zones of so many nodes, with a leader.
    pub(crate) fn new(per_zone: usize, policy: Policy) -> Self {
        Self::of_shards(per_zone, policy, SHARDS)
    }

    /// The same, with so many shards.
    pub(crate) fn of_shards(per_zone: usize, policy: Policy, shards: u16) -> Self {
        let policy = Policy {
            mode: Mode::Sync,
            ..policy
        };
        let now = now(1_000);
        let engines: Vec<Arc<MemoryEngine>> = (0..3 * per_zone)
            .map(|_| Arc::new(MemoryEngine::new()))
            .collect();
        let open = |(index, engine): (usize, &Arc<MemoryEngine>)| {
            let config = CoreConfig {
                node: node_id(index),
                seed: seed(per_zone),
                core_index: 0,
                core_count: 1,
                entropy: [u8::try_from(index).unwrap() + 1; 32],
                default_shards: shards,
                default_policy: policy.clone(),
                timing: Timing::default(),
                bounds: Bounds::default(),
                observe: false,
                planted: PlantedBugs::default(),
            };
            let engine: Arc<dyn Engine> = engine.clone();
            Core::open(config, engine, now).unwrap()
        };
        let cores = engines.iter().enumerate().map(open).collect();
        let mut world = Self {
            cut: vec![false; engines.len()],
            engines,
            cores,
            ms: 1_000,
            requests: 0,
            messages: VecDeque::new(),
            answers: BTreeMap::new(),
        };
        world.run(10_000);
        world
    }

    fn input(&mut self, node: usize, input: Input) {
        let now = now(self.ms);
        let mut out = Outputs::default();
        let core = &mut self.cores[node];
        core.step(now, input, &mut out);
        while let Some(turn) = core.turn(now, &mut out) {
            self.engines[node]
                .write(&turn.batch, turn.durability)
                .unwrap();
            core.wrote(now, &mut out);
        }
        for (to, message) in out.messages.drain(..) {
            let to = usize::try_from(to.0).unwrap() - 1;
            if to == node || !(self.cut[node] || self.cut[to]) {
                self.messages.push_back((node, to, message));
            }
        }
        for notice in &out.notices {
            assert!(!matches!(notice, Notice::Damaged { .. }), "{notice:?}");
        }
        for (id, answer) in out.replies {
            self.answers.insert(id.0, answer);
        }
        for read in out.reads {
            let answer = read.serve(&*self.engines[node], SHARDS);
            self.answers.insert(read.id.0, answer.map(Response::Read));
        }
    }

    fn settle(&mut self) {
        while let Some((from, to, message)) = self.messages.pop_front() {
            let from = node_id(from);
            self.input(to, Input::Peer { from, message });
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.ms += TICK_MS;
            (0..self.cores.len()).for_each(|node| self.input(node, Input::Tick));
            self.settle();
        }
    }

    /// What every node tells of the group that holds the data, where it has a replica.
    pub(crate) fn groups(&mut self, node: usize) -> Vec<GroupStatus> {
        let id = self.ask(node, Request::Groups);
        let Some(Ok(Response::Groups(groups))) = self.answer(id) else {
            panic!("groups are told at once");
        };
        let data = groups.into_iter();
        data.filter(|group| group.group.keyspace == KeyspaceId::DEFAULT)
            .collect()
    }

    /// The node that leads and is not cut off.
    pub(crate) fn leader(&mut self) -> Option<usize> {
        let free: Vec<usize> = (0..self.cores.len())
            .filter(|node| !self.cut[*node])
            .collect();
        free.into_iter()
            .find(|node| self.groups(*node).iter().any(|group| group.leads))
    }

    /// Lets at most so many messages arrive.
    pub(crate) fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some((from, to, message)) = self.messages.pop_front() else {
                return;
            };
            let from = node_id(from);
            self.input(to, Input::Peer { from, message });
        }
    }

    pub(crate) fn ask(&mut self, node: usize, request: Request) -> u64 {
        let id = self.begin(node, request);
        self.settle();
        id
    }

    /// Asks, and lets no message arrive yet.
    pub(crate) fn begin(&mut self, node: usize, request: Request) -> u64 {
        self.requests += 1;
        let input = Input::Request {
            id: RequestId(self.requests),
            deadline_ns: now(self.ms).after_ms(60_000),
            request,
        };
        self.input(node, input);
        self.requests
    }

    pub(crate) fn answer(&mut self, id: u64) -> Option<Outcome> {
        self.answers.remove(&id)
    }

    pub(crate) fn put(&mut self, node: usize, value: &str) -> u64 {
        let id = u128::from(self.requests);
        let write = Write {
            keyspace: KeyspaceId::DEFAULT,
            key: Bytes::from_static(b"k"),
            content: Content::Value(Bytes::copy_from_slice(value.as_bytes())),
            intent: WriteIntent::Overwrite,
            op_id: OpId { stamp_ms: 1, id },
            expires_at_ms: None,
        };
        self.ask(node, Request::Write(write))
    }

    /// A put that so many zones are to hold.
    pub(crate) fn put_at(&mut self, node: usize, value: &str, zones: u16) -> u64 {
        let id = u128::from(self.requests);
        let write = Write {
            keyspace: KeyspaceId::DEFAULT,
            key: Bytes::from_static(b"k"),
            content: Content::Value(Bytes::copy_from_slice(value.as_bytes())),
            intent: WriteIntent::Overwrite,
            op_id: OpId { stamp_ms: 1, id },
            expires_at_ms: None,
        };
        self.ask(node, Request::WriteAt { write, zones })
    }

    /// What a read of several zones answers, within so many milliseconds.
    pub(crate) fn shown(&mut self, node: usize, zones: u16, ms: u64) -> Result<Shown, Error> {
        let id = self.get(node, ReadLevel::Zones { count: zones });
        self.run(ms);
        match self.answer(id) {
            Some(Ok(Response::Read(Answer::Shown(shown)))) => Ok(*shown),
            Some(Err(error)) => Err(error),
            other => panic!("at node {node}: {other:?}"),
        }
    }

    pub(crate) fn get(&mut self, node: usize, level: ReadLevel) -> u64 {
        let read = Read {
            keyspace: KeyspaceId::DEFAULT,
            level,
            query: Query::Get {
                key: Bytes::from_static(b"k"),
            },
            session: None,
        };
        self.ask(node, Request::Read(read))
    }

    /// A put that is acknowledged at once.
    pub(crate) fn written(&mut self, node: usize, value: &str) -> Receipt {
        let id = self.put(node, value);
        match self.answer(id) {
            Some(Ok(Response::Written(receipt))) => receipt,
            other => panic!("{value} at node {node}: {other:?}"),
        }
    }

    /// The values that a read answers at once.
    pub(crate) fn found(&mut self, node: usize, level: ReadLevel) -> Vec<Bytes> {
        let id = self.get(node, level);
        match self.answer(id) {
            Some(Ok(Response::Read(Answer::Key(set)))) => {
                let values = set.siblings().iter().filter_map(|one| one.content.value());
                values.cloned().collect()
            }
            other => panic!("at node {node}: {other:?}"),
        }
    }

    /// The shard of the one key.
    pub(crate) fn shard() -> u16 {
        shard_of(b"k", SHARDS).0
    }
}

fn now(ms: u64) -> Now {
    Now {
        mono_ns: ms * 1_000_000,
        wall_ms: 1_700_000_000_000 + ms,
    }
}
