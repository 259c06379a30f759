//! Leases in a zone of three nodes and more shards than one: cores over engines in memory, messages without delay, time
//! that only this test moves.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use meridian_causal::{Content, OpId, ZoneId};
use meridian_core::catalog::Policy;
use meridian_core::catalog::shard_of;
use meridian_core::command::WriteIntent;
use meridian_core::config::{
    Bounds, ClusterSeed, CoreConfig, NodeSeed, PlantedBugs, Timing, ZoneSeed,
};
use meridian_core::ids::{KeyspaceId, NodeId, RequestId, ShardId};
use meridian_core::lease::{LeaseAcquire, LeaseRef};
use meridian_core::message::PeerMessage;
use meridian_core::output::Notice;
use meridian_core::read::serve;
use meridian_core::request::{Answer, Query, Request, Response, Write};
use meridian_core::{Core, Error, Input, Now, Outputs};
use meridian_storage::{Engine, MemoryEngine};

const NODES: usize = 3;
const SHARDS: u16 = 4;
const TICK_MS: u64 = 50;

type Outcome = Result<Response, Error>;

struct World {
    engines: Vec<Arc<MemoryEngine>>,
    cores: Vec<Option<Core>>,
    ms: u64,
    starts: u8,
    requests: u64,
    messages: VecDeque<(usize, usize, PeerMessage)>,
    cut: [bool; NODES],
    answers: BTreeMap<u64, Outcome>,
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

impl World {
    fn new() -> Self {
        let mut world = Self {
            engines: (0..NODES).map(|_| Arc::new(MemoryEngine::new())).collect(),
            cores: (0..NODES).map(|_| None).collect(),
            ms: 1_000,
            starts: 0,
            requests: 0,
            messages: VecDeque::new(),
            cut: [false; NODES],
            answers: BTreeMap::new(),
        };
        (0..NODES).for_each(|node| world.start(node));
        world.run(10_000);
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
            observe: false,
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
            let answer = serve(&*self.engines[node], read.keyspace, SHARDS, &read.query);
            self.answers.insert(read.id.0, answer.map(Response::Read));
        }
    }

    fn settle(&mut self) {
        while let Some((from, to, message)) = self.messages.pop_front() {
            let from = NodeId(u64::try_from(from).unwrap() + 1);
            self.input(to, Input::Peer { from, message });
        }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.ms += TICK_MS;
            (0..NODES).for_each(|node| self.input(node, Input::Tick));
            self.settle();
        }
    }

    /// The node that leads the shard of a name, as the nodes that hear one another see it.
    fn leader(&self, name: &str) -> usize {
        let shard = ShardId(shard_of(name.as_bytes(), SHARDS).0);
        let free = (0..NODES).filter(|node| !self.cut[*node]);
        let seen: Vec<NodeId> = free
            .filter_map(|node| self.cores[node].as_ref())
            .filter_map(|core| core.leader_of(KeyspaceId::DEFAULT, shard))
            .collect();
        usize::try_from(seen.first().unwrap().0).unwrap() - 1
    }

    fn ask(&mut self, node: usize, request: Request, patience_ms: u64) -> u64 {
        self.requests += 1;
        let input = Input::Request {
            id: RequestId(self.requests),
            deadline_ns: self.now().after_ms(patience_ms),
            request,
        };
        self.input(node, input);
        self.settle();
        self.requests
    }

    fn acquire(&mut self, node: usize, name: &str, owner: u128, wait_ms: u64) -> u64 {
        let acquire = LeaseAcquire {
            keyspace: KeyspaceId::DEFAULT,
            name: text(name),
            ttl_ms: 1_000,
            op_id: OpId {
                stamp_ms: 1,
                id: owner,
            },
            wait: wait_ms > 0,
        };
        self.ask(node, Request::LeaseAcquire(acquire), wait_ms.max(1_000))
    }

    fn renew(&mut self, node: usize, lease: &LeaseRef) -> u64 {
        let request = Request::LeaseRenew {
            keyspace: KeyspaceId::DEFAULT,
            lease: lease.clone(),
        };
        self.ask(node, request, 1_000)
    }

    fn answer(&mut self, id: u64) -> Option<Outcome> {
        self.answers.remove(&id)
    }

    fn granted(&mut self, id: u64) -> LeaseRef {
        match self.answer(id) {
            Some(Ok(Response::LeaseHeld(holding))) => holding.lease,
            other => panic!("not granted: {other:?}"),
        }
    }

    fn held(&mut self, name: &str, owner: u128) -> LeaseRef {
        let node = self.leader(name);
        let id = self.acquire(node, name, owner, 0);
        self.granted(id)
    }

    fn put(&mut self, lease: &LeaseRef, key: &str) -> Outcome {
        let node = self.leader(key);
        let write = Write {
            keyspace: KeyspaceId::DEFAULT,
            key: text(key),
            content: Content::Value(text("v")),
            intent: WriteIntent::Blind,
            op_id: OpId {
                stamp_ms: self.now().wall_ms,
                id: u128::from(self.requests) + 1_000,
            },
            expires_at_ms: None,
        };
        let lease = lease.clone();
        let id = self.ask(node, Request::LeasedWrite { lease, write }, 1_000);
        self.answer(id).unwrap()
    }

    fn is_live(&self, node: usize, key: &str) -> bool {
        let query = Query::Get { key: text(key) };
        let answer = serve(&*self.engines[node], KeyspaceId::DEFAULT, SHARDS, &query).unwrap();
        let Answer::Key(set) = answer else {
            panic!("another answer: {answer:?}")
        };
        set.has_live()
    }

    fn cut(&mut self, node: usize) {
        self.cut[node] = true;
        self.messages
            .retain(|(from, to, _)| *from != node && *to != node);
    }
}

#[test]
fn a_lease_that_is_not_renewed_ends_and_the_next_one_gets_a_greater_token() {
    let mut world = World::new();
    let first = world.held("a", 1);
    world.run(900);
    let node = world.leader("a");
    let refused = world.acquire(node, "a", 2, 0);
    assert_eq!(world.answer(refused), Some(Err(Error::LeaseHeld)));
    world.run(200);
    let second = world.held("a", 2);
    assert!(second.token > first.token);
    let lost = world.renew(node, &first);
    assert_eq!(world.answer(lost), Some(Err(Error::LeaseLost)));
}

#[test]
fn a_lease_that_is_renewed_stays_and_renewing_writes_nothing() {
    let mut world = World::new();
    let lease = world.held("a", 1);
    let node = world.leader("a");
    for _ in 0..10 {
        world.run(500);
        let renewed = world.renew(node, &lease);
        assert_eq!(world.granted(renewed), lease);
    }
    world.run(1_200);
    world.held("a", 2);
}

#[test]
fn any_node_takes_a_request_for_a_lease() {
    let mut world = World::new();
    let other = (world.leader("a") + 1) % NODES;
    let asked = world.acquire(other, "a", 1, 0);
    let lease = world.granted(asked);
    let renewed = world.renew(other, &lease);
    assert_eq!(world.granted(renewed), lease);
}

#[test]
fn those_that_wait_get_the_lease_one_after_another_in_the_order_they_came() {
    let mut world = World::new();
    let mut holder = world.held("a", 1);
    let node = world.leader("a");
    let waiting: Vec<u64> = (2..5)
        .map(|owner| world.acquire(node, "a", owner, 20_000))
        .collect();
    for id in waiting {
        assert_eq!(world.answer(id), None);
        let end = Request::LeaseEnd {
            keyspace: KeyspaceId::DEFAULT,
            lease: holder.clone(),
        };
        let ended = world.ask(node, end, 1_000);
        assert_eq!(world.answer(ended), Some(Ok(Response::LeaseEnded)));
        let next = world.granted(id);
        assert!(next.token > holder.token);
        holder = next;
    }
}

#[test]
fn one_that_has_waited_too_long_is_told_so_without_effect() {
    let mut world = World::new();
    let lease = world.held("a", 1);
    let node = world.leader("a");
    let waiting = world.acquire(node, "a", 2, 1_000);
    world.run(950);
    assert_eq!(world.answer(waiting), Some(Err(Error::LeaseHeld)));
    let renewed = world.renew(node, &lease);
    assert_eq!(world.granted(renewed), lease);
}

#[test]
fn a_leader_without_a_majority_renews_nothing_and_a_new_one_gives_every_lease_its_full_time() {
    let mut world = World::new();
    let lease = world.held("a", 1);
    world.run(400);
    let old = world.leader("a");
    world.cut(old);
    let unheard = world.renew(old, &lease);
    let mut elected_ms = 0;
    while world.leader("a") == old {
        world.run(TICK_MS);
        elected_ms += TICK_MS;
        assert!(elected_ms < 10_000, "a new leader is elected");
    }
    assert!(!matches!(world.answer(unheard), Some(Ok(_))));
    // The old leader's time is long over; the new one counts anew.
    world.run(800);
    let node = world.leader("a");
    let refused = world.acquire(node, "a", 2, 0);
    assert_eq!(world.answer(refused), Some(Err(Error::LeaseHeld)));
    world.run(400);
    assert!(world.held("a", 2).token > lease.token);
}

#[test]
fn those_that_wait_at_a_leader_that_steps_down_are_told_to_go_elsewhere() {
    let mut world = World::new();
    world.held("a", 1);
    let old = world.leader("a");
    let waiting = world.acquire(old, "a", 2, 60_000);
    world.cut(old);
    world.run(3_000);
    let answer = world.answer(waiting);
    assert!(
        matches!(
            answer,
            Some(Err(Error::NotLeader { .. } | Error::OutcomeUnknown { .. }))
        ),
        "{answer:?}"
    );
}

#[test]
fn keys_of_every_shard_vanish_with_the_lease_they_are_attached_to() {
    let mut world = World::new();
    let lease = world.held("a", 1);
    let keys: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
    for key in &keys {
        assert!(matches!(world.put(&lease, key), Ok(Response::Written(_))));
    }
    let node = world.leader("a");
    for _ in 0..6 {
        world.run(500);
        let renewed = world.renew(node, &lease);
        assert_eq!(world.granted(renewed), lease);
    }
    assert!(keys.iter().all(|key| world.is_live(0, key)));
    world.run(4_000);
    for node in 0..NODES {
        let left: Vec<_> = keys.iter().filter(|key| world.is_live(node, key)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_version_past_its_time_is_gone_on_every_node() {
    let mut world = World::new();
    let node = world.leader("k");
    let write = Write {
        keyspace: KeyspaceId::DEFAULT,
        key: text("k"),
        content: Content::Value(text("v")),
        intent: WriteIntent::Blind,
        op_id: OpId {
            stamp_ms: world.now().wall_ms,
            id: 7,
        },
        expires_at_ms: Some(world.now().wall_ms + 2_000),
    };
    let written = world.ask(node, Request::Write(write), 1_000);
    assert!(matches!(
        world.answer(written),
        Some(Ok(Response::Written(_)))
    ));
    world.run(1_900);
    assert!((0..NODES).all(|node| world.is_live(node, "k")));
    world.run(1_500);
    assert!((0..NODES).all(|node| !world.is_live(node, "k")));
}

#[test]
fn a_request_that_makes_no_sense_is_refused_before_anything_is_begun() {
    let mut world = World::new();
    for (name, ttl_ms) in [
        ("a".to_owned(), 0),
        ("a".to_owned(), u64::MAX),
        (String::new(), 1_000),
        ("a".repeat(2_000), 1_000),
    ] {
        let node = world.leader(&name);
        let request = Request::LeaseAcquire(LeaseAcquire {
            keyspace: KeyspaceId::DEFAULT,
            name: text(&name),
            ttl_ms,
            op_id: OpId { stamp_ms: 1, id: 1 },
            wait: false,
        });
        let asked = world.ask(node, request, 1_000);
        let answer = world.answer(asked);
        assert!(
            matches!(
                answer,
                Some(Err(Error::InvalidArgument { .. } | Error::TooLarge { .. }))
            ),
            "{answer:?}"
        );
    }
}
