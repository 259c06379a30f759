//! What a turn of the core costs: 64 puts on a cluster of one node, on both engines.
//!
//! The loop is that of `meridian_core`'s header. On RocksDB the batch is synced, as it is in a node.

use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meridian_causal::{Content, OpId, ZoneId};
use meridian_core::catalog::Policy;
use meridian_core::command::WriteIntent;
use meridian_core::config::{Bounds, ClusterSeed, NodeSeed, PlantedBugs, Timing, ZoneSeed};
use meridian_core::ids::{KeyspaceId, NodeId, RequestId};
use meridian_core::request::{Request, Write};
use meridian_core::time::MS;
use meridian_core::{Core, CoreConfig, Input, Now, Outputs};
use meridian_storage::{Engine, MemoryEngine, RocksEngine, RocksOptions};

const PUTS: u64 = 64;
const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 100;
const WALL_MS: u64 = 1_700_000_000_000;
/// Elections take a few ticks; a cluster of one that does not serve by then never will.
const START_TICKS_MAX: u32 = 1_000;

/// One core, its disk and its clock.
struct Node {
    core: Core,
    engine: Arc<dyn Engine>,
    out: Outputs,
    now: Now,
    asked: u64,
    value: Bytes,
}

fn config() -> CoreConfig {
    let zone = ZoneId(1);
    CoreConfig {
        node: NodeId(1),
        seed: ClusterSeed {
            cluster: "bench".to_owned(),
            zones: vec![ZoneSeed {
                id: zone,
                name: "zone-1".to_owned(),
            }],
            nodes: vec![NodeSeed {
                id: NodeId(1),
                name: "n1".to_owned(),
                zone,
                addr: "n1:1".to_owned(),
                peer_addr: "n1:2".to_owned(),
            }],
        },
        core_index: 0,
        core_count: 1,
        entropy: [3; 32],
        default_shards: 8,
        default_policy: Policy::default(),
        timing: Timing::default(),
        bounds: Bounds::default(),
        observe: false,
        planted: PlantedBugs::default(),
    }
}

impl Node {
    /// A node that serves puts.
    fn start(engine: Arc<dyn Engine>) -> Self {
        let now = Now {
            mono_ns: 0,
            wall_ms: WALL_MS,
        };
        let core = Core::open(config(), Arc::clone(&engine), now).expect("the store is empty");
        let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
        let mut node = Self {
            core,
            engine,
            out: Outputs::default(),
            now,
            asked: 0,
            value,
        };
        let serves = (0..START_TICKS_MAX).any(|_| {
            node.tick();
            node.core.catalog().revision > 0 && node.put_all(PUTS) == PUTS
        });
        assert!(serves, "the node does not serve");
        node
    }

    fn tick(&mut self) {
        let tick_ms = Timing::default().tick_ms;
        self.now.mono_ns += tick_ms * MS;
        self.now.wall_ms += tick_ms;
        self.core.step(self.now, Input::Tick, &mut self.out);
        self.take_turns();
    }

    fn take_turns(&mut self) {
        while let Some(turn) = self.core.turn(self.now, &mut self.out) {
            self.engine
                .write(&turn.batch, turn.durability)
                .expect("the disk works");
            self.core.wrote(self.now, &mut self.out);
        }
    }

    /// What is measured.
    fn turn(&mut self) {
        assert_eq!(self.put_all(PUTS), PUTS);
    }

    /// So many puts in one go; gives how many were acknowledged.
    fn put_all(&mut self, puts: u64) -> u64 {
        for _ in 0..puts {
            self.asked += 1;
            let request = Request::Write(Write {
                keyspace: KeyspaceId::DEFAULT,
                key: format!("key-{:010}", self.asked.wrapping_mul(0x9e37_79b9) % KEYS).into(),
                content: Content::Value(self.value.clone()),
                intent: WriteIntent::Blind,
                op_id: OpId {
                    stamp_ms: self.now.wall_ms,
                    id: u128::from(self.asked),
                },
                expires_at_ms: None,
            });
            let input = Input::Request {
                id: RequestId(self.asked),
                deadline_ns: self.now.after_ms(5_000),
                request,
            };
            self.core.step(self.now, input, &mut self.out);
        }
        self.take_turns();
        let out = std::mem::take(&mut self.out);
        out.replies
            .iter()
            .filter(|(_, result)| result.is_ok())
            .map(|_| 1)
            .sum()
    }
}

fn turns(c: &mut Criterion) {
    let mut group = c.benchmark_group("turn of 64 puts");
    group.throughput(Throughput::Elements(PUTS));
    let mut node = Node::start(Arc::new(MemoryEngine::new()));
    group.bench_function("memory", |b| b.iter(|| node.turn()));
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let engine =
        RocksEngine::open(folder.path(), &RocksOptions::default()).expect("the folder is empty");
    let mut node = Node::start(Arc::new(engine));
    group.bench_function("rocksdb", |b| b.iter(|| node.turn()));
    group.finish();
}

criterion_group!(benches, turns);
criterion_main!(benches);
