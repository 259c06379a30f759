//! The end of a run: what every engine holds once the world is settled, read without asking a core.
//!
//! What it is not: a judge (`checkers`), nor who says that the world is settled (`settle`).

use bytes::Bytes;
use meridian_core::ids::ShardId;
use meridian_core::read;
use meridian_core::request::{Answer, Filter, Query};

use super::World;
use crate::checkers::{FinalState, Listed, ReplicaState};
use crate::history::Operation;
use crate::violation::{Checked, Violation};

impl World {
    /// Reads everything straight from the engines.
    pub(super) fn final_state(&self) -> Result<FinalState, Box<Violation>> {
        let mut state = FinalState {
            replicas: Vec::new(),
            at_ns: self.queue.now(),
            lineage: self.observer.lineage().clone(),
            cuts: self.observer.cuts(),
            listed: None,
        };
        let zones = self.zones();
        let homes = |node: &usize| {
            let zone = self.scenario.topology.zone_of(*node);
            zones.contains(&zone) && !self.mirrors(zone)
        };
        for node in (0..self.nodes.len()).filter(homes) {
            state.replicas.push(self.replica_state(node)?);
        }
        if let Some(node) = (0..self.nodes.len()).find(homes) {
            state.listed = Some(self.listed(node)?);
        }
        Ok(state)
    }

    /// What a node has listed as come back of a deposed home.
    fn listed(&self, node: usize) -> Result<Listed, Box<Violation>> {
        let mut listed = Listed::new();
        for shard in (0..self.scenario.shards).map(ShardId) {
            let mut from = Some(Bytes::new());
            while let Some(first) = from.take() {
                let query = Query::Returned { shard, from: first };
                if let Answer::Returned { rows, next, .. } = self.read(node, &query)? {
                    listed.extend(rows.into_iter().map(|row| (row.key, row.writes)));
                    from = next;
                }
            }
        }
        Ok(listed)
    }

    fn replica_state(&self, node: usize) -> Result<ReplicaState, Box<Violation>> {
        let zone = self.scenario.topology.zone_of(node);
        let mut state = ReplicaState {
            node,
            zone,
            ..ReplicaState::default()
        };
        let written = self.history.operations.iter().filter_map(Operation::key);
        for key in written {
            if !state.sets.contains_key(key)
                && let Answer::Key(set) = self.read(node, &Query::Get { key: key.clone() })?
            {
                state.sets.insert(key.clone(), set);
            }
        }
        for shard in (0..self.scenario.shards).map(ShardId) {
            if let Answer::Digest(digest) = self.read(node, &Query::Digest { shard })? {
                state.digests.push(digest);
            }
            self.scan(node, shard, &mut state)?;
        }
        state.scanned.sort();
        Ok(state)
    }

    fn scan(&self, node: usize, shard: ShardId, state: &mut ReplicaState) -> Checked {
        let mut from = Bytes::new();
        loop {
            let query = Query::Scan {
                shard,
                from,
                to: None,
                limit: 100,
                filter: Filter::Live,
                keys_only: false,
            };
            let Answer::Page { keys, more } = self.read(node, &query)? else {
                return Ok(());
            };
            let Some((last, _)) = keys.last().filter(|_| more) else {
                take_page(keys, state);
                return Ok(());
            };
            from = [last.as_ref(), &[0]].concat().into();
            take_page(keys, state);
        }
    }

    fn read(&self, node: usize, query: &Query) -> Result<Answer, Box<Violation>> {
        let failed = |error: String| {
            Violation::new(
                "read",
                self.queue.now(),
                format!("n{}: {query:?}: {error}", node + 1),
            )
        };
        let shard = match query {
            Query::Get { key } | Query::Examine { key } => self.keys.shard_of(key),
            Query::Scan { shard, .. }
            | Query::Digest { shard }
            | Query::Range { shard, .. }
            | Query::Validate { shard, .. }
            | Query::Leases { shard, .. }
            | Query::Returned { shard, .. } => *shard,
        };
        let machine = self
            .nodes
            .get(self.holder(node, shard))
            .ok_or_else(|| failed("no such node".to_string()))?;
        read::serve(
            machine.engine.as_ref(),
            self.observer.lineage().serving(),
            self.scenario.shards,
            query,
        )
        .map_err(|error| failed(error.to_string()))
    }
}

fn take_page(keys: Vec<(Bytes, meridian_causal::SiblingSet)>, state: &mut ReplicaState) {
    for (key, set) in keys {
        state.scanned.push(key.clone());
        state.sets.entry(key).or_insert(set);
    }
}
