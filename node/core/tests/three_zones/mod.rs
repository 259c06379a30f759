//! Three zones of one node each: cores over engines in memory, messages without delay, time that only the test moves.
#![expect(
    dead_code,
    reason = "each test that uses the zones needs a part of them"
)]

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use meridian_causal::{Content, OpId, Sibling, ZoneId};
use meridian_core::catalog::Policy;
use meridian_core::command::WriteIntent;
use meridian_core::config::{
    Bounds, ClusterSeed, CoreConfig, NodeSeed, PlantedBugs, Timing, ZoneSeed,
};
use meridian_core::ids::{GroupId, KeyspaceId, NodeId, RequestId, ShardId};
use meridian_core::inner::InnerResponse;
use meridian_core::message::{Exchange, PeerMessage};
use meridian_core::output::Notice;
use meridian_core::read::serve;
use meridian_core::request::{Answer, Query, Receipt, Request, Response, Write};
use meridian_core::{Core, Error, Input, Now, Outputs, Turn};
use meridian_storage::{Engine, MemoryEngine};

pub(crate) const ZONES: usize = 3;
pub(crate) const TICK_MS: u64 = 50;

pub(crate) struct Node {
    pub(crate) engine: Arc<MemoryEngine>,
    pub(crate) core: Option<Core>,
}

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) ms: u64,
    starts: u8,
    shards: u16,
    policy: Policy,
    /// Of nodes that are started from now on.
    pub(crate) planted: PlantedBugs,
    operations: u128,
    asked: u64,
    answers: Vec<(RequestId, Result<Response, Error>)>,
    pub(crate) messages: VecDeque<(usize, usize, PeerMessage)>,
    /// Which nodes hear nothing and are not heard.
    pub(crate) cut: [bool; ZONES],
    pub(crate) damage: Vec<String>,
    /// Bytes of keys and their states that were sent from one zone to another, by the exchange and to mirrors.
    pub(crate) crossed_bytes: usize,
    /// Bytes that a node wrote in one turn, at most.
    pub(crate) turn_bytes: usize,
    /// Subscriptions that were sent.
    pub(crate) subscriptions: usize,
}

fn seed() -> ClusterSeed {
    let ids = 1..=u16::try_from(ZONES).unwrap();
    ClusterSeed {
        cluster: "test".to_owned(),
        zones: ids
            .clone()
            .map(|id| ZoneSeed {
                id: ZoneId(id),
                name: format!("z{id}"),
            })
            .collect(),
        nodes: ids
            .map(|id| NodeSeed {
                id: NodeId(id.into()),
                name: format!("n{id}"),
                zone: ZoneId(id),
                addr: String::new(),
                peer_addr: String::new(),
            })
            .collect(),
    }
}

fn state_bytes(message: &PeerMessage) -> usize {
    let bytes = |pairs: &[(Bytes, Bytes)]| pairs.iter().map(|(k, v)| k.len() + v.len()).sum();
    if let PeerMessage::Exchange { body, .. } = message
        && let Exchange::CompareStates { states, .. } = body
    {
        return bytes(states);
    }
    if let PeerMessage::Forwarded { result, .. } = message
        && let Ok(Response::Inner(inner)) = &**result
        && let InnerResponse::MirrorPage(page) = &**inner
    {
        return page.records.len();
    }
    0
}

fn is_subscription(message: &PeerMessage) -> bool {
    let PeerMessage::Exchange { body, .. } = message else {
        return false;
    };
    matches!(body, Exchange::Subscribe { .. })
}

fn index(node: NodeId) -> usize {
    usize::try_from(node.0).unwrap() - 1
}

impl World {
    /// Three zones of one node, founded, with a keyspace `default` of so many shards.
    pub(crate) fn new(shards: u16) -> Self {
        Self::with_policy(shards, Policy::default())
    }

    /// The same with another policy.
    pub(crate) fn with_policy(shards: u16, policy: Policy) -> Self {
        let mut world = Self {
            shards,
            policy,
            planted: PlantedBugs::default(),
            crossed_bytes: 0,
            nodes: Vec::new(),
            ms: 1_000,
            starts: 0,
            operations: 0,
            asked: 0,
            answers: Vec::new(),
            messages: VecDeque::new(),
            cut: [false; ZONES],
            damage: Vec::new(),
            turn_bytes: 0,
            subscriptions: 0,
        };
        for node in 0..ZONES {
            world.nodes.push(Node {
                engine: Arc::new(MemoryEngine::new()),
                core: None,
            });
            world.start(node);
        }
        world.run(20_000);
        world
    }

    pub(crate) const fn now(&self) -> Now {
        Now {
            mono_ns: self.ms * 1_000_000,
            wall_ms: 1_700_000_000_000 + self.ms,
        }
    }

    pub(crate) fn start(&mut self, node: usize) {
        self.starts += 1;
        let config = CoreConfig {
            node: NodeId(u64::try_from(node).unwrap() + 1),
            seed: seed(),
            core_index: 0,
            core_count: 1,
            entropy: [self.starts; 32],
            default_shards: self.shards,
            default_policy: self.policy.clone(),
            timing: Timing::default(),
            bounds: Bounds::default(),
            observe: false,
            planted: self.planted,
        };
        let engine: Arc<dyn Engine> = self.nodes[node].engine.clone();
        self.nodes[node].core = Some(Core::open(config, engine, self.now()).unwrap());
    }

    /// The node is gone, and comes back with `image` for a store.
    pub(crate) fn restore(&mut self, node: usize, image: MemoryEngine) {
        self.nodes[node] = Node {
            engine: Arc::new(image),
            core: None,
        };
        self.messages
            .retain(|(from, to, _)| *from != node && *to != node);
        self.start(node);
    }

    /// The node is gone, and comes back with what is durable.
    pub(crate) fn restart(&mut self, node: usize) {
        let image = self.nodes[node].engine.durable_copy();
        self.restore(node, image);
    }

    pub(crate) fn input(&mut self, node: usize, input: Input) {
        self.turn(node, Some(input));
    }

    /// A node takes an input in, if there is one, and its turns.
    pub(crate) fn turn(&mut self, node: usize, input: Option<Input>) {
        let now = self.now();
        let mut out = Outputs::default();
        let Node { engine, core } = &mut self.nodes[node];
        if let Some(core) = core {
            if let Some(input) = input {
                core.step(now, input, &mut out);
            }
            while let Some(turn) = core.turn(now, &mut out) {
                self.turn_bytes = self.turn_bytes.max(turn.batch.size_bytes());
                engine.write(&turn.batch, turn.durability).unwrap();
                core.wrote(now, &mut out);
            }
        }
        for (to, message) in out.messages.drain(..) {
            let to = index(to);
            self.subscriptions += usize::from(is_subscription(&message));
            if to != node {
                self.crossed_bytes += state_bytes(&message);
            }
            if to == node || (!self.cut[node] && !self.cut[to]) {
                self.messages.push_back((node, to, message));
            }
        }
        self.answers.append(&mut out.replies);
        for read in out.reads.drain(..) {
            let id = read.id;
            let answer = read.serve(&**engine, self.shards);
            self.answers.push((id, answer.map(Response::Read)));
        }
        for notice in &out.notices {
            if let Notice::Damaged { detail } = notice {
                self.damage.push(detail.clone());
            }
        }
    }

    pub(crate) fn settle(&mut self) {
        while let Some((from, to, message)) = self.messages.pop_front() {
            let from = NodeId(u64::try_from(from).unwrap() + 1);
            self.input(to, Input::Peer { from, message });
        }
    }

    pub(crate) fn run(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.ms += TICK_MS;
            for node in 0..ZONES {
                self.input(node, Input::Tick);
            }
            self.settle();
        }
    }

    pub(crate) fn write(&mut self, node: usize, key: &str, text: &str) -> Result<Receipt, Error> {
        self.put(
            node,
            key,
            Content::Value(Bytes::copy_from_slice(text.as_bytes())),
        )
    }

    pub(crate) fn delete(&mut self, node: usize, key: &str) -> Result<Receipt, Error> {
        self.put(node, key, Content::Tombstone)
    }

    fn put(&mut self, node: usize, key: &str, content: Content) -> Result<Receipt, Error> {
        let write = self.write_of(node, key, content);
        match self.ask(node, Request::Write(write)) {
            Some(Ok(Response::Written(receipt))) => Ok(receipt),
            Some(Err(error)) => Err(error),
            other => panic!("answered at once, with everything delivered: {other:?}"),
        }
    }

    fn write_of(&mut self, node: usize, key: &str, content: Content) -> Write {
        self.operations += 1;
        Write {
            keyspace: self.keyspace(node),
            key: Bytes::copy_from_slice(key.as_bytes()),
            content,
            intent: WriteIntent::Blind,
            op_id: OpId {
                stamp_ms: self.now().wall_ms,
                id: self.operations,
            },
            expires_at_ms: None,
        }
    }

    /// A node writes a key, and what it tells another one comes there together with a write of another key: for each turn of that
    /// node, whether its own write was answered by then, and whether the other was merged.
    pub(crate) fn meet(&mut self, theirs: (usize, &str), own: (usize, &str)) -> Vec<(bool, bool)> {
        let content = || Content::Value(Bytes::from_static(b"v"));
        let request = Request::Write(self.write_of(theirs.0, theirs.1, content()));
        let input = |id, request| Input::Request {
            id: RequestId(id),
            deadline_ns: u64::MAX,
            request,
        };
        self.input(theirs.0, input(u64::MAX, request));
        let now = self.now();
        let request = Request::Write(self.write_of(own.0, own.1, content()));
        let keyspace = self.keyspace(own.0);
        let mut core = self.nodes[own.0].core.take().unwrap();
        let mut out = Outputs::default();
        for (from, to, message) in std::mem::take(&mut self.messages) {
            if to == own.0 {
                let from = NodeId(u64::try_from(from).unwrap() + 1);
                core.step(now, Input::Peer { from, message }, &mut out);
            }
        }
        core.step(now, input(u64::MAX - 1, request), &mut out);
        let mut seen = Vec::new();
        while let Some(turn) = core.turn(now, &mut out) {
            let engine = &self.nodes[own.0].engine;
            engine.write(&turn.batch, turn.durability).unwrap();
            core.wrote(now, &mut out);
            let key = Bytes::copy_from_slice(theirs.1.as_bytes());
            let there = serve(&**engine, keyspace, self.shards, &Query::Get { key });
            let merged = matches!(there.unwrap(), Answer::Key(set) if !set.is_empty());
            seen.push((!out.replies.is_empty(), merged));
        }
        self.nodes[own.0].core = Some(core);
        seen
    }

    /// A node takes a write in, and begins a turn for it; nothing is written.
    pub(crate) fn begin_write(&mut self, node: usize, key: &str, text: &str) -> Turn {
        let content = Content::Value(Bytes::copy_from_slice(text.as_bytes()));
        let request = Request::Write(self.write_of(node, key, content));
        let (now, mut out) = (self.now(), Outputs::default());
        let core = self.nodes[node].core.as_mut().unwrap();
        let input = Input::Request {
            id: RequestId(u64::MAX),
            deadline_ns: u64::MAX,
            request,
        };
        core.step(now, input, &mut out);
        let turn = core.turn(now, &mut out).unwrap();
        assert!(out.replies.is_empty() && out.messages.is_empty());
        turn
    }

    /// The group of a node's zone, of shard 0.
    pub(crate) fn group(&self, node: usize) -> GroupId {
        let core = self.nodes[node].core.as_ref().unwrap();
        let zone = ZoneId(u16::try_from(node).unwrap() + 1);
        let catalog = core.catalog();
        let record = catalog.group_of(self.keyspace(node), ShardId(0), zone);
        record.unwrap().id
    }

    /// Asks a node and delivers everything; the answer, if there is one by then.
    pub(crate) fn ask(&mut self, node: usize, request: Request) -> Option<Result<Response, Error>> {
        self.asked += 1;
        let id = RequestId(self.asked);
        let deadline_ns = self.now().after_ms(1_000);
        self.answers.clear();
        self.input(
            node,
            Input::Request {
                id,
                deadline_ns,
                request,
            },
        );
        self.settle();
        let answers = std::mem::take(&mut self.answers);
        let own = answers.into_iter().find(|(of, _)| *of == id);
        own.map(|(_, result)| result)
    }

    /// The keyspace `default`, as a node knows it.
    pub(crate) fn keyspace(&self, node: usize) -> KeyspaceId {
        let core = self.nodes[node].core.as_ref().unwrap();
        let catalog = core.catalog();
        let found = catalog.keyspace_named("default");
        found.map_or(KeyspaceId::DEFAULT, |keyspace| keyspace.id)
    }

    pub(crate) fn siblings(&self, node: usize, key: &str) -> Vec<Sibling> {
        let query = Query::Get {
            key: Bytes::copy_from_slice(key.as_bytes()),
        };
        let answer = serve(
            &*self.nodes[node].engine,
            self.keyspace(node),
            self.shards,
            &query,
        )
        .unwrap();
        let Answer::Key(set) = answer else {
            panic!("another answer")
        };
        set.siblings().to_vec()
    }

    /// The values of a key, which must be the same in all zones.
    pub(crate) fn everywhere(&self, key: &str) -> Vec<String> {
        let first = self.siblings(0, key);
        for node in 1..ZONES {
            assert_eq!(
                self.siblings(node, key),
                first,
                "{key} in zone {}",
                node + 1
            );
        }
        let mut values: Vec<String> = first
            .iter()
            .map(|sibling| {
                let value = sibling.content.value().cloned().unwrap_or_default();
                String::from_utf8(value.to_vec()).unwrap()
            })
            .collect();
        values.sort();
        values
    }

    pub(crate) fn same_digests(&self) {
        for shard in (0..self.shards).map(ShardId) {
            let query = Query::Digest { shard };
            let digest = |node: usize| {
                let engine = &*self.nodes[node].engine;
                serve(engine, self.keyspace(node), self.shards, &query).unwrap()
            };
            assert!((1..ZONES).all(|node| digest(node) == digest(0)));
        }
    }

    pub(crate) fn incarnation(&self, zone: usize) -> meridian_causal::Incarnation {
        let core = self.nodes[1].core.as_ref().unwrap();
        let zone = ZoneId(u16::try_from(zone).unwrap() + 1);
        let catalog = core.catalog();
        let record = catalog.group_of(KeyspaceId::DEFAULT, ShardId(0), zone);
        record.unwrap().incarnation
    }
}
