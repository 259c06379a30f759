//! Shards of several zones over memory engines, driven entry by entry.

mod changes;
mod comparisons;
mod convergence;
mod damage;
mod determinism;
mod expiry;
mod incarnations;
mod leases;
mod merges;
mod op_ids;
mod tombstones;
mod transactions;
mod writes;

use std::collections::BTreeMap;

use bytes::Bytes;
use meridian_causal::{
    CausalContext, Content, Dot, Hlc, Incarnation, OpId, SiblingSet, VersionVector, ZoneId,
};
use meridian_storage::{Durability, Engine, MemoryEngine};

use super::garbage::{self, Stability};
use super::{Applied, Shard, ShardMeta, compare, load_meta, outbox, versions};
use crate::command::{Command, Effect, Op, Waiter, WriteIntent, WriteOp, WriteOutcome};
use crate::config::PlantedBugs;
use crate::error::Error;
use crate::ids::{GroupId, KeyspaceId, ShardId};
use crate::keys::Place;
use crate::workspace::Workspace;

const PLACE: Place = Place {
    keyspace: KeyspaceId(1),
    shard: ShardId(0),
};

fn incarnation(zone: u16) -> Incarnation {
    Incarnation::new(ZoneId(zone), 7)
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn value(text: &str) -> Content {
    Content::Value(bytes(text))
}

/// The shard of one zone, with its log entries counted.
struct Zone {
    engine: MemoryEngine,
    shard: Shard,
    index: u64,
    clock_ms: u64,
    ops: u128,
    known: BTreeMap<Incarnation, VersionVector>,
    stability: Stability,
}

impl Zone {
    fn new(zone: u16) -> Self {
        Self::planted(zone, PlantedBugs::default())
    }

    fn planted(zone: u16, planted: PlantedBugs) -> Self {
        let group = GroupId {
            keyspace: PLACE.keyspace,
            shard: PLACE.shard,
            zone: ZoneId(zone),
            epoch: 0,
        };
        let mut new = Self {
            engine: MemoryEngine::new(),
            shard: Shard::create(group, incarnation(zone), planted),
            index: 0,
            clock_ms: 0,
            ops: u128::from(zone) << 64,
            known: BTreeMap::new(),
            stability: Stability::default(),
        };
        new.turn(|shard, work| shard.save(work));
        new
    }

    fn meta(&self) -> &ShardMeta {
        self.shard.meta()
    }

    fn received(&self) -> &VersionVector {
        &self.shard.meta().received
    }

    /// Reopens the shard from what is stored.
    fn restart(&mut self, planted: PlantedBugs) {
        self.shard = Shard::load(self.shard.group(), &self.engine, planted)
            .unwrap()
            .unwrap();
    }

    fn turn<T>(&mut self, act: impl FnOnce(&mut Shard, &mut Workspace<'_>) -> T) -> T {
        let mut work = Workspace::new(&self.engine, false);
        let result = act(&mut self.shard, &mut work);
        self.shard.save(&mut work);
        let batch = work.into_batch();
        self.engine.write(&batch, Durability::Buffered).unwrap();
        result
    }

    fn try_entry(&mut self, ops: Vec<Op>) -> Result<Applied, Error> {
        self.index += 1;
        self.clock_ms = self.clock_ms.max(1_000 + self.index);
        let command = Command {
            hlc: Hlc::new(self.clock_ms, 0),
            ops,
        };
        let command = Command::decode(&command.encode()).unwrap();
        let index = self.index;
        self.turn(|shard, work| shard.apply(index, command, work))
    }

    fn entry(&mut self, ops: Vec<Op>) -> Applied {
        self.try_entry(ops).unwrap()
    }

    fn new_op_id(&mut self) -> OpId {
        self.ops += 1;
        OpId {
            stamp_ms: 1_000 + self.index,
            id: self.ops,
        }
    }

    fn write_as(
        &mut self,
        op_id: OpId,
        key: &str,
        content: Content,
        intent: WriteIntent,
    ) -> WriteOutcome {
        let key = bytes(key);
        let op = WriteOp {
            key,
            content,
            intent,
            op_id,
            expires_at_ms: None,
            waiter: Waiter::default(),
        };
        let mut applied = self.entry(vec![Op::Write(op)]);
        assert_eq!(applied.outcomes.len(), 1);
        let (_, named, outcome) = applied.outcomes.remove(0);
        assert_eq!(named, op_id);
        outcome
    }

    fn write(&mut self, key: &str, content: Content, intent: WriteIntent) -> WriteOutcome {
        let op_id = self.new_op_id();
        self.write_as(op_id, key, content, intent)
    }

    fn written(
        &mut self,
        key: &str,
        content: Content,
        intent: WriteIntent,
    ) -> (Dot, CausalContext) {
        let outcome = self.write(key, content, intent);
        let WriteOutcome::Written {
            dot,
            context,
            repeated: false,
        } = outcome
        else {
            panic!("not written: {outcome:?}")
        };
        (dot, context)
    }

    fn put(&mut self, key: &str, text: &str) -> (Dot, CausalContext) {
        self.written(key, value(text), WriteIntent::Blind)
    }

    fn delete(&mut self, key: &str) -> (Dot, CausalContext) {
        self.written(key, Content::Tombstone, WriteIntent::Blind)
    }

    fn set(&self, key: &str) -> SiblingSet {
        versions::load(&self.engine, PLACE, key.as_bytes()).unwrap()
    }

    /// Values of the siblings in order of their dots; a tombstone is `-`.
    fn values(&self, key: &str) -> Vec<String> {
        let text = |content: &Content| match content {
            Content::Value(value) => String::from_utf8(value.to_vec()).unwrap(),
            Content::Tombstone => "-".to_owned(),
        };
        self.set(key)
            .siblings()
            .iter()
            .map(|sibling| text(&sibling.content))
            .collect()
    }

    /// Effects of `incarnation` after `after` that this zone keeps.
    fn outbox(&self, incarnation: Incarnation, after: u64) -> Vec<Effect> {
        outbox::read(
            &self.engine,
            self.shard.group(),
            incarnation,
            after,
            usize::MAX,
        )
        .unwrap()
    }

    /// Takes what `from` keeps of `incarnation` and this zone lacks.
    fn pull(&mut self, from: &Self, incarnation: Incarnation) -> Applied {
        let after = self.received().get(incarnation);
        let effects = from.outbox(incarnation, after);
        self.known
            .insert(from.meta().incarnation, from.received().clone());
        self.entry(vec![Op::Merge {
            incarnation,
            first: after + 1,
            effects,
        }])
    }

    /// Takes everything that `from` keeps and this zone lacks.
    fn pull_all(&mut self, from: &Self) {
        let incarnations: Vec<_> = from
            .received()
            .iter()
            .map(|(incarnation, _)| incarnation)
            .collect();
        for incarnation in incarnations {
            self.pull(from, incarnation);
        }
    }

    fn trim_all(&mut self) {
        let through = self.received().clone();
        self.entry(vec![Op::Trim { through }]);
    }

    /// Compares with `source` in ranges of two keys. `between` runs after each range, with its number.
    fn compare(&mut self, source: &Self, mut between: impl FnMut(&mut Self, usize)) {
        let (view, group) = (source.engine.view().unwrap(), source.shard.group());
        let snapshot = load_meta(&*view, group).unwrap().unwrap().received;
        self.entry(vec![Op::CompareBegin {
            source: group.zone,
            snapshot: snapshot.clone(),
        }]);
        let mut from = Bytes::new();
        for range in 0.. {
            let hashes = compare::range_hashes(&*view, group, &from, 1, 2).unwrap();
            let [(to, theirs)] = &hashes[..] else {
                panic!("one range was asked for")
            };
            if *theirs != compare::range_hash(&self.engine, self.shard.group(), &from, to).unwrap()
            {
                let (states, end) = compare::states(&*view, group, &from, to, usize::MAX).unwrap();
                assert_eq!(end, *to);
                let (from, to) = (from.clone(), to.clone());
                self.entry(vec![Op::CompareJoin {
                    snapshot: snapshot.clone(),
                    from,
                    to,
                    states,
                }]);
            }
            between(self, range);
            from = to.clone();
            if from.is_empty() {
                break;
            }
        }
        self.remember_all(&*view, group, &snapshot);
        self.entry(vec![Op::CompareEnd { snapshot }]);
    }

    /// Takes the operations that a view remembers, three looked at in a page.
    fn remember_all(
        &mut self,
        view: &dyn meridian_storage::Read,
        group: GroupId,
        snapshot: &VersionVector,
    ) {
        let mut from = Bytes::new();
        loop {
            let received = self.received().clone();
            let asked = (from.as_ref(), &received);
            let recalled = compare::recall(view, group, asked, 3).unwrap();
            self.entry(vec![Op::CompareRemember {
                snapshot: snapshot.clone(),
                floor_ms: recalled.floor_ms,
                operations: recalled.operations,
            }]);
            from = recalled.next;
            if from.is_empty() {
                break;
            }
        }
    }

    /// Drops the tombstones that are known to be of no use, given what other zones have told.
    fn collect(&mut self, zones: &[u16]) -> usize {
        let own = self.meta().incarnation;
        let expired = match zones {
            [_] => garbage::Expired::MayGo,
            _ => garbage::Expired::Kept,
        };
        let peers = zones
            .iter()
            .map(|zone| incarnation(*zone))
            .filter(|peer| *peer != own);
        let stable = self
            .stability
            .observe(&self.shard.meta().received, peers, &self.known)
            .clone();
        let group = self.shard.group();
        let settled = garbage::Settled {
            stable: &stable,
            expired,
            through: u64::MAX,
        };
        let keys =
            garbage::tombstone_candidates(&self.engine, self.meta(), group, settled, 100).unwrap();
        let count = keys.len();
        self.entry(vec![Op::DropTombstones { keys }]);
        count
    }

    /// Checks indexes and counts against the records.
    fn check(&self) {
        damage::check_indexes(self);
    }
}

/// Lets `zones` tell one another everything they keep.
fn exchange(zones: &mut [Zone]) {
    for _ in 0..2 {
        for to in 0..zones.len() {
            for from in 0..zones.len() {
                if let Ok([to, from]) = zones.get_disjoint_mut([to, from]) {
                    to.pull_all(from);
                }
            }
        }
    }
}
