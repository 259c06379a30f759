//! Transactions over several shards and views, in a zone of three nodes: cores over engines in memory, messages that
//! this test holds up, nodes that die in the step in which they come to a stage, time that only this test moves.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod outcomes;
mod views;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use meridian_causal::{Content, OpId, SiblingSet, ZoneId};
use meridian_core::catalog::Policy;
use meridian_core::catalog::shard_of;
use meridian_core::command::WriteIntent;
use meridian_core::config::{
    Bounds, ClusterSeed, CoreConfig, NodeSeed, PlantedBugs, Timing, ZoneSeed,
};
use meridian_core::ids::{KeyspaceId, NodeId, RequestId, ShardId};
use meridian_core::inner::InnerRequest;
use meridian_core::message::PeerMessage;
use meridian_core::output::{Notice, Observation, Stage};
use meridian_core::request::{Answer, Query, Read, ReadLevel, Request, Response, Write};
use meridian_core::transaction::{Action, Compare, OpenView, Transaction};
use meridian_core::{Core, Error, Input, Now, Outputs};
use meridian_storage::{Engine, MemoryEngine};

const NODES: usize = 3;
const SHARDS: u16 = 4;
const TICK_MS: u64 = 50;
/// More than any patience, election and inquiry of a transaction together.
const LONG_MS: u64 = 10_000;

type Outcome = Result<Response, Error>;
/// Which messages do not arrive for now: from, to, what.
type Stop = fn(&World, usize, usize, &PeerMessage) -> bool;

struct World {
    engines: Vec<Arc<MemoryEngine>>,
    cores: Vec<Option<Core>>,
    ms: u64,
    starts: u8,
    requests: u64,
    messages: VecDeque<(usize, usize, PeerMessage)>,
    stopped: Vec<(usize, usize, PeerMessage)>,
    stop: Option<Stop>,
    /// The node whose consensus nobody hears, and which hears no other's.
    deaf: Option<usize>,
    answers: BTreeMap<u64, Outcome>,
    /// The next node to come to this stage dies of it.
    deadly: Option<Stage>,
    died: Option<usize>,
}

fn seed() -> ClusterSeed {
    let node = |id: u64| NodeSeed {
        id: NodeId(id),
        name: format!("n{id}"),
        zone: ZoneId(1),
        addr: String::new(),
        peer_addr: String::new(),
    };
    ClusterSeed {
        cluster: "test".to_owned(),
        zones: vec![ZoneSeed {
            id: ZoneId(1),
            name: "z".to_owned(),
        }],
        nodes: (1..=3).map(node).collect(),
    }
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A key of each shard.
fn key(shard: u16) -> String {
    (0..1000)
        .map(|n| format!("k{n}"))
        .find(|key| shard_of(key.as_bytes(), SHARDS) == ShardId(shard))
        .unwrap()
}

fn put(key: &str, value: &str) -> Action {
    Action::Write {
        key: text(key),
        content: Content::Value(text(value)),
        intent: WriteIntent::Blind,
        expires_at_ms: None,
    }
}

fn value(set: &SiblingSet) -> Option<String> {
    let live = set.siblings().iter().filter(|sibling| sibling.is_live());
    let values: Vec<String> = live
        .map(|sibling| {
            let value = sibling.content.value().cloned().unwrap_or_default();
            String::from_utf8(value.to_vec()).unwrap()
        })
        .collect();
    assert!(values.len() < 2, "one zone has no conflicts");
    values.into_iter().next()
}

fn inner(message: &PeerMessage) -> Option<&InnerRequest> {
    let PeerMessage::Forward { request, .. } = message else {
        return None;
    };
    if let Request::Inner(inner) = &**request {
        Some(inner)
    } else {
        None
    }
}

fn is_resolve(_: &World, _: usize, _: usize, message: &PeerMessage) -> bool {
    matches!(
        inner(message),
        Some(InnerRequest::Resolve { .. } | InnerRequest::Inquire { .. })
    )
}

fn is_pin(_: &World, _: usize, _: usize, message: &PeerMessage) -> bool {
    matches!(inner(message), Some(InnerRequest::ViewPin { .. }))
}

fn is_pin_or_raft_to_the_second_leader(
    world: &World,
    _: usize,
    to: usize,
    message: &PeerMessage,
) -> bool {
    let raft = matches!(message, PeerMessage::Raft { .. }) && to == world.leader(1);
    raft || matches!(inner(message), Some(InnerRequest::ViewPin { .. }))
}

fn is_answer(_: &World, _: usize, _: usize, message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Forwarded { .. })
}

impl World {
    /// A world in which the first two shards are led by different nodes, with a value for a key of each shard.
    fn new() -> Self {
        let led_apart = (0..20)
            .map(Self::begin)
            .find(|world| world.leader(0) != world.leader(1));
        let mut world = led_apart.unwrap();
        for shard in 0..SHARDS {
            let put = world.put(&key(shard), "old");
            assert!(matches!(world.answer(put), Some(Ok(Response::Written(_)))));
        }
        world
    }

    fn begin(starts: u8) -> Self {
        let mut world = Self {
            engines: (0..NODES).map(|_| Arc::new(MemoryEngine::new())).collect(),
            cores: (0..NODES).map(|_| None).collect(),
            ms: 1_000,
            starts: starts * 10,
            requests: 0,
            messages: VecDeque::new(),
            stopped: Vec::new(),
            stop: None,
            deaf: None,
            answers: BTreeMap::new(),
            deadly: None,
            died: None,
        };
        (0..NODES).for_each(|node| world.start(node));
        world.run(LONG_MS);
        world
    }

    /// A world in which the last node leads nothing.
    fn leads_nothing(starts: u8) -> Self {
        let mut world = Self::begin(starts);
        world.deaf = Some(NODES - 1);
        world.run(LONG_MS);
        world.deaf = None;
        world.run(LONG_MS);
        world
    }

    const fn now(&self) -> Now {
        Now {
            mono_ns: self.ms * 1_000_000,
            wall_ms: 1_700_000_000_000 + self.ms,
        }
    }

    fn start(&mut self, node: usize) {
        self.starts += 1;
        let config = CoreConfig {
            node: NodeId(u64::try_from(node).unwrap() + 1),
            seed: seed(),
            core_index: 0,
            core_count: 1,
            entropy: [self.starts; 32],
            default_shards: SHARDS,
            default_policy: Policy::default(),
            timing: Timing::default(),
            bounds: Bounds::default(),
            observe: true,
            planted: PlantedBugs::default(),
        };
        let engine: Arc<dyn Engine> = self.engines[node].clone();
        self.cores[node] = Some(Core::open(config, engine, self.now()).unwrap());
    }

    fn input(&mut self, node: usize, input: Input) {
        let now = self.now();
        let mut out = Outputs::default();
        let Some(core) = &mut self.cores[node] else {
            return;
        };
        core.step(now, input, &mut out);
        while !comes_to(self.deadly, &out)
            && let Some(turn) = core.turn(now, &mut out)
        {
            if comes_to(self.deadly, &out) {
                break;
            }
            let engine = &self.engines[node];
            engine.write(&turn.batch, turn.durability).unwrap();
            core.wrote(now, &mut out);
        }
        if comes_to(self.deadly, &out) {
            self.die(node);
        } else {
            self.deliver(node, out);
        }
    }

    /// The node goes down with everything it was about to say, and what it had not synced.
    fn die(&mut self, node: usize) {
        self.deadly = None;
        self.died = Some(node);
        self.cores[node] = None;
        self.engines[node] = Arc::new(self.engines[node].durable_copy());
        self.messages.retain(|(_, to, _)| *to != node);
    }

    fn deliver(&mut self, node: usize, out: Outputs) {
        for (to, message) in out.messages {
            let to = usize::try_from(to.0).unwrap() - 1;
            let raft = matches!(message, PeerMessage::Raft { .. });
            let unheard = raft && to != node && [Some(node), Some(to)].contains(&self.deaf);
            if unheard {
                continue;
            }
            if self.stop.is_some_and(|stop| stop(self, node, to, &message)) {
                self.stopped.push((node, to, message));
            } else {
                self.messages.push_back((node, to, message));
            }
        }
        for notice in &out.notices {
            assert!(!matches!(notice, Notice::Damaged { .. }), "{notice:?}");
        }
        for (id, answer) in out.replies {
            assert!(self.answers.insert(id.0, answer).is_none(), "answered once");
        }
        for read in out.reads {
            let answer = read.serve(&*self.engines[node], SHARDS);
            self.answers.insert(read.id.0, answer.map(Response::Read));
        }
    }

    fn settle(&mut self) {
        while let Some((from, to, message)) = self.messages.pop_front() {
            let from = NodeId(u64::try_from(from).unwrap() + 1);
            self.input(to, Input::Peer { from, message });
        }
    }

    /// What was stopped arrives.
    fn go_on(&mut self) {
        self.stop = None;
        self.messages.extend(self.stopped.drain(..));
        self.settle();
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.ms += TICK_MS;
            (0..NODES).for_each(|node| self.input(node, Input::Tick));
            self.settle();
        }
    }

    /// The node that leads a shard, as `node` sees it.
    fn leader_seen_by(&self, node: usize, shard: u16) -> Option<usize> {
        let core = self.cores[node].as_ref()?;
        let leader = core.leader_of(KeyspaceId::DEFAULT, ShardId(shard))?;
        Some(usize::try_from(leader.0).unwrap() - 1)
    }

    fn leader(&self, shard: u16) -> usize {
        (0..NODES)
            .find_map(|node| self.leader_seen_by(node, shard))
            .unwrap()
    }

    fn ask(&mut self, node: usize, request: Request) -> u64 {
        self.requests += 1;
        let input = Input::Request {
            id: RequestId(self.requests),
            deadline_ns: self.now().after_ms(3_000),
            request,
        };
        self.input(node, input);
        self.settle();
        self.requests
    }

    fn answer(&mut self, id: u64) -> Option<Outcome> {
        self.answers.remove(&id)
    }

    fn op_id(&self) -> OpId {
        OpId {
            stamp_ms: self.now().wall_ms,
            id: u128::from(self.requests) + 1_000,
        }
    }

    fn put(&mut self, key: &str, value: &str) -> u64 {
        let node = self.leader(shard_of(key.as_bytes(), SHARDS).0);
        let write = Write {
            keyspace: KeyspaceId::DEFAULT,
            key: text(key),
            content: Content::Value(text(value)),
            intent: WriteIntent::Blind,
            op_id: self.op_id(),
            expires_at_ms: None,
        };
        self.ask(node, Request::Write(write))
    }

    /// Writes a value to a key of each of these shards, of which the first decides.
    fn transact(&mut self, shards: &[u16], value: &str) -> u64 {
        let node = self.leader(shards[0]);
        let transaction = Transaction {
            keyspace: KeyspaceId::DEFAULT,
            op_id: self.op_id(),
            compare: vec![Compare::Exists {
                key: text(&key(shards[0])),
            }],
            then: shards
                .iter()
                .map(|shard| put(&key(*shard), value))
                .collect(),
            otherwise: Vec::new(),
        };
        self.ask(node, Request::Transact(Box::new(transaction)))
    }

    fn read(&mut self, node: usize, shard: u16, level: ReadLevel) -> u64 {
        let read = Read {
            keyspace: KeyspaceId::DEFAULT,
            level,
            query: Query::Get {
                key: text(&key(shard)),
            },
            session: None,
        };
        self.ask(node, Request::Read(read))
    }

    fn read_view(&mut self, view: &OpenView, shard: u16) -> u64 {
        let node = view.pins[usize::from(shard)];
        let at = usize::try_from(node.0).unwrap() - 1;
        self.read(at, shard, ReadLevel::View { id: view.id, node })
    }

    fn value_read(&mut self, id: u64) -> Option<String> {
        match self.answer(id) {
            Some(Ok(Response::Read(Answer::Key(set)))) => value(&set),
            other => panic!("not read: {other:?}"),
        }
    }

    fn open_view(&mut self, node: usize) -> u64 {
        self.ask(
            node,
            Request::ViewOpen {
                keyspace: KeyspaceId::DEFAULT,
            },
        )
    }

    fn opened(&mut self, id: u64) -> OpenView {
        match self.answer(id) {
            Some(Ok(Response::ViewOpened(view))) => view,
            other => panic!("not open: {other:?}"),
        }
    }

    /// Values of the shards' keys in a view.
    fn seen(&mut self, view: &OpenView, shards: &[u16]) -> Vec<String> {
        let reads: Vec<u64> = shards
            .iter()
            .map(|shard| self.read_view(view, *shard))
            .collect();
        reads
            .into_iter()
            .map(|id| self.value_read(id).unwrap())
            .collect()
    }

    /// The value that all these keys have, by a linearizable read of each: they were all changed, or none.
    fn one_value(&mut self, shards: &[u16]) -> String {
        let mut values = Vec::new();
        for shard in shards {
            let node = self.leader(*shard);
            let read = self.read(node, *shard, ReadLevel::Linearizable);
            values.push(self.value_read(read).unwrap());
        }
        assert!(
            values.windows(2).all(|pair| pair[0] == pair[1]),
            "{values:?}"
        );
        values.remove(0)
    }

    /// Whoever wants to write these keys can.
    fn expect_unlocked(&mut self, shards: &[u16]) {
        let id = self.transact(shards, "after");
        let done = self.answer(id);
        assert!(
            matches!(done, Some(Ok(Response::Transacted(_)))),
            "{done:?}"
        );
        self.run(1_000);
        assert_eq!(self.one_value(shards), "after");
    }
}

fn comes_to(deadly: Option<Stage>, out: &Outputs) -> bool {
    out.observations.iter().any(|one| {
        let Observation::Stage { stage, .. } = one else {
            return false;
        };
        Some(*stage) == deadly
    })
}

// ---------------------------------------------------------------- deaths
