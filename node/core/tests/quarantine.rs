//! A zone of one node that comes back on an old copy of its store, among three: cores over engines in memory, messages
//! without delay, time that only this test moves.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
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
use meridian_core::ids::{KeyspaceId, NodeId, RequestId, ShardId};
use meridian_core::message::PeerMessage;
use meridian_core::output::Notice;
use meridian_core::read::serve;
use meridian_core::request::{Answer, Query, Receipt, Request, Response, Write};
use meridian_core::{Core, Error, Input, Now, Outputs};
use meridian_storage::{Engine, MemoryEngine};

const ZONES: usize = 3;
const TICK_MS: u64 = 50;

struct Node {
    engine: Arc<MemoryEngine>,
    core: Option<Core>,
}

struct World {
    nodes: Vec<Node>,
    ms: u64,
    starts: u8,
    operations: u128,
    messages: VecDeque<(usize, usize, PeerMessage)>,
    /// Which nodes hear nothing and are not heard.
    cut: [bool; ZONES],
    damage: Vec<String>,
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

fn index(node: NodeId) -> usize {
    usize::try_from(node.0).unwrap() - 1
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            ms: 1_000,
            starts: 0,
            operations: 0,
            messages: VecDeque::new(),
            cut: [false; ZONES],
            damage: Vec::new(),
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
            default_shards: 1,
            default_policy: Policy::default(),
            timing: Timing::default(),
            bounds: Bounds::default(),
            observe: false,
            planted: PlantedBugs::default(),
        };
        let engine: Arc<dyn Engine> = self.nodes[node].engine.clone();
        self.nodes[node].core = Some(Core::open(config, engine, self.now()).unwrap());
    }

    /// The node is gone, and comes back with `image` for a store.
    fn restore(&mut self, node: usize, image: MemoryEngine) {
        self.nodes[node] = Node {
            engine: Arc::new(image),
            core: None,
        };
        self.messages
            .retain(|(from, to, _)| *from != node && *to != node);
        self.start(node);
    }

    fn input(&mut self, node: usize, input: Input) -> Outputs {
        let now = self.now();
        let mut out = Outputs::default();
        let Node { engine, core } = &mut self.nodes[node];
        if let Some(core) = core {
            core.step(now, input, &mut out);
            while let Some(turn) = core.turn(now, &mut out) {
                engine.write(turn.batch, turn.durability).unwrap();
                core.wrote(now, &mut out);
            }
        }
        for (to, message) in out.messages.drain(..) {
            let to = index(to);
            if to != node && !self.cut[node] && !self.cut[to] {
                self.messages.push_back((node, to, message));
            }
        }
        for notice in &out.notices {
            if let Notice::Damaged { detail } = notice {
                self.damage.push(detail.clone());
            }
        }
        out
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
            for node in 0..ZONES {
                self.input(node, Input::Tick);
            }
            self.settle();
        }
    }

    fn write(&mut self, node: usize, key: &str, text: &str) -> Result<Receipt, Error> {
        self.operations += 1;
        let write = Write {
            keyspace: KeyspaceId::DEFAULT,
            key: Bytes::copy_from_slice(key.as_bytes()),
            content: Content::Value(Bytes::copy_from_slice(text.as_bytes())),
            intent: WriteIntent::Blind,
            op_id: OpId {
                stamp_ms: self.now().wall_ms,
                id: self.operations,
            },
            expires_at_ms: None,
        };
        let input = Input::Request {
            id: RequestId(1),
            deadline_ns: self.now().after_ms(1_000),
            request: Request::Write(write),
        };
        let replies = self.input(node, input).replies;
        match replies.into_iter().next() {
            Some((_, Ok(Response::Written(receipt)))) => Ok(receipt),
            Some((_, Err(error))) => Err(error),
            other => panic!("a zone of one node answers at once: {other:?}"),
        }
    }

    fn siblings(&self, node: usize, key: &str) -> Vec<Sibling> {
        let query = Query::Get {
            key: Bytes::copy_from_slice(key.as_bytes()),
        };
        let answer = serve(&*self.nodes[node].engine, KeyspaceId::DEFAULT, 1, &query).unwrap();
        let Answer::Key(set) = answer else {
            panic!("another answer")
        };
        set.siblings().to_vec()
    }

    /// The values of a key, which must be the same in all zones.
    fn everywhere(&self, key: &str) -> Vec<String> {
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

    fn same_digests(&self) {
        let query = Query::Digest { shard: ShardId(0) };
        let digest =
            |node: usize| serve(&*self.nodes[node].engine, KeyspaceId::DEFAULT, 1, &query).unwrap();
        assert!((1..ZONES).all(|node| digest(node) == digest(0)));
    }

    fn incarnation(&self, zone: usize) -> meridian_causal::Incarnation {
        let core = self.nodes[1].core.as_ref().unwrap();
        let zone = ZoneId(u16::try_from(zone).unwrap() + 1);
        let catalog = core.catalog();
        let record = catalog.group_of(KeyspaceId::DEFAULT, ShardId(0), zone);
        record.unwrap().incarnation
    }
}

/// Zone 1 writes, is copied, writes what the others get, and comes back as the copy, cut off from them.
fn restored() -> World {
    let mut world = World::new();
    for n in 0..5 {
        world.write(0, &format!("old{n}"), "before").unwrap();
    }
    world.run(1_000);
    let image = world.nodes[0].engine.durable_copy();
    for n in 0..5 {
        world.write(0, &format!("lost{n}"), "shipped").unwrap();
    }
    world.write(0, "both", "shipped").unwrap();
    world.run(1_000);
    world.cut[0] = true;
    world.restore(0, image);
    world.run(200);
    assert_eq!(world.siblings(0, "lost0"), []);
    world
}

#[test]
fn nothing_is_lost_that_was_acknowledged_since_or_that_other_zones_have() {
    for writes in [0, 3, 6, 20] {
        let mut world = restored();
        let former = world.incarnation(0);
        for n in 0..writes {
            world.write(0, &format!("new{n}"), "since").unwrap();
        }
        world.write(0, "both", "since").unwrap();
        world.write(1, "elsewhere", "meanwhile").unwrap();
        world.cut[0] = false;
        world.run(20_000);
        assert_ne!(world.incarnation(0), former);
        for n in 0..5 {
            assert_eq!(world.everywhere(&format!("old{n}")), ["before"]);
            assert_eq!(world.everywhere(&format!("lost{n}")), ["shipped"]);
        }
        for n in 0..writes {
            assert_eq!(world.everywhere(&format!("new{n}")), ["since"]);
        }
        assert_eq!(world.everywhere("both"), ["shipped", "since"]);
        assert_eq!(world.everywhere("elsewhere"), ["meanwhile"]);
        world.same_digests();
        let receipt = world.write(0, "after", "all").unwrap();
        assert_eq!(receipt.dot.incarnation, world.incarnation(0));
        world.run(1_000);
        assert_eq!(world.everywhere("after"), ["all"]);
    }
}

#[test]
fn writes_are_refused_and_reads_go_on_until_the_control_group_has_answered() {
    let mut world = restored();
    world.write(0, "new", "since").unwrap();
    world.cut[0] = false;
    // The first tick lets the others speak; nothing lets the control group agree within it.
    world.ms += TICK_MS;
    world.input(1, Input::Tick);
    let heard: Vec<_> = world.messages.drain(..).collect();
    for (from, to, message) in heard {
        let from = NodeId(u64::try_from(from).unwrap() + 1);
        world.input(to, Input::Peer { from, message });
    }
    while world.damage.is_empty() {
        world.ms += TICK_MS;
        for (from, to, message) in std::mem::take(&mut world.messages) {
            let from = NodeId(u64::try_from(from).unwrap() + 1);
            world.input(to, Input::Peer { from, message });
        }
        world.input(1, Input::Tick);
    }
    let refused = world.write(0, "more", "refused").unwrap_err();
    assert_eq!(refused, Error::Quarantined);
    assert!(refused.is_retryable());
    assert_eq!(world.siblings(0, "new").len(), 1);
    world.run(20_000);
    world.write(0, "more", "taken").unwrap();
    world.run(1_000);
    assert_eq!(world.everywhere("more"), ["taken"]);
    assert_eq!(world.everywhere("new"), ["since"]);
}

#[test]
fn a_quarantine_outlives_a_restart() {
    let mut world = restored();
    world.write(0, "new", "since").unwrap();
    world.cut[0] = false;
    while world.damage.is_empty() {
        world.ms += TICK_MS;
        world.input(1, Input::Tick);
        for (from, to, message) in std::mem::take(&mut world.messages) {
            let from = NodeId(u64::try_from(from).unwrap() + 1);
            world.input(to, Input::Peer { from, message });
        }
    }
    let image = world.nodes[0].engine.durable_copy();
    world.cut[0] = true;
    world.restore(0, image);
    world.run(TICK_MS);
    assert_eq!(world.write(0, "more", "refused"), Err(Error::Quarantined));
    world.cut[0] = false;
    world.run(20_000);
    assert_eq!(world.everywhere("new"), ["since"]);
    assert_eq!(world.everywhere("lost0"), ["shipped"]);
    world.same_digests();
}

#[test]
fn a_store_that_was_merely_restarted_is_not_quarantined() {
    let mut world = World::new();
    world.write(0, "k", "1").unwrap();
    world.cut[0] = true;
    world.write(0, "k", "2").unwrap();
    let image = world.nodes[0].engine.durable_copy();
    world.restore(0, image);
    world.run(200);
    world.write(0, "k", "3").unwrap();
    let former = world.incarnation(0);
    world.cut[0] = false;
    world.run(20_000);
    assert_eq!(world.damage, Vec::<String>::new());
    assert_eq!(world.incarnation(0), former);
    assert_eq!(world.everywhere("k"), ["3"]);
}

#[test]
fn one_zone_that_is_away_does_not_hold_up_the_others_for_long() {
    let mut world = World::new();
    world.cut[2] = true;
    let image = world.nodes[0].engine.durable_copy();
    world.restore(0, image);
    world.run(200);
    world.write(0, "k", "1").unwrap();
    world.run(6_000);
    assert_eq!(world.siblings(1, "k").len(), 1);
    world.cut[2] = false;
    world.run(20_000);
    assert_eq!(world.everywhere("k"), ["1"]);
    assert_eq!(world.damage, Vec::<String>::new());
}
