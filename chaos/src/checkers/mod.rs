//! The checkers: one promise each, one file each.
//!
//! Some watch while the run goes on (`apply`, `dots`, `op_ids`, `zones`): they see what every replica applied. The others judge at
//! the end, from what clients sent and were answered (`history`), the causal history made of it (`evidence`), and the
//! state read straight from the engines (`FinalState`): `convergence`, `durability`, `expiry`, `tombstones`, `linear`,
//! `registers`, `sessions`, and `moves` and `promotions` for what holds when the keyspace becomes another one.
//!
//! Invariant: a checker never asks a core whether the core is right. What a write replaced is taken from what its client
//! sent; only for writes without a context, where the store decides, from the receipt, and `justified` holds that
//! against rule 2.

mod apply;
mod bits;
mod convergence;
mod dots;
mod durability;
mod evidence;
mod expiry;
mod justified;
mod key;
mod linear;
mod mirrors;
mod moves;
mod op_ids;
mod promotions;
mod registers;
mod sessions;
mod tombstones;
mod zones;

use std::collections::BTreeMap;

use bytes::Bytes;
use meridian_causal::{SiblingSet, ZoneId};
use meridian_core::catalog::{Catalog, Policy};
use meridian_core::ids::{GroupId, KeyspaceId};
use meridian_core::mirror::MirrorStamp;
use meridian_core::output::Observation;
use meridian_core::request::{Answer, ShardDigest};

use crate::history::{Action, History};
use crate::lineage::{Lineage, Promoted};
use crate::transact::program::is_transactional;
use crate::violation::Checked;
use evidence::Evidence;
use evidence::describe_key;
pub use promotions::{Cut, Listed};
pub use zones::Acked;

/// Watches a run.
#[derive(Debug, Default)]
pub struct Observer {
    apply: apply::Apply,
    dots: dots::Dots,
    op_ids: op_ids::OpIds,
    zones: zones::Zones,
    evidence: Evidence,
    mirrors: mirrors::Mirrors,
    lineage: Lineage,
}

/// What the engines hold at the end.
#[derive(Debug, Default)]
pub struct FinalState {
    /// One per node.
    pub replicas: Vec<ReplicaState>,
    /// When it was read.
    pub at_ns: u64,
    /// The keyspaces that served one after the other.
    pub lineage: Lineage,
    /// What each keyspace that was made of a mirror was made of.
    pub cuts: BTreeMap<KeyspaceId, Cut>,
    /// What has come back of a deposed home, where a mirror was promoted to the keyspace that serves.
    pub listed: Option<Listed>,
}

/// What one node's engine holds.
#[derive(Debug, Default)]
pub struct ReplicaState {
    /// The node, from 0.
    pub node: usize,
    /// Its zone, from 0.
    pub zone: usize,
    /// Every key that a client ever wrote or the node holds a live version of.
    pub sets: BTreeMap<Bytes, SiblingSet>,
    /// The keys that its scans show.
    pub scanned: Vec<Bytes>,
    /// The digest of each shard.
    pub digests: Vec<ShardDigest>,
}

impl Observer {
    /// A watcher of a keyspace that has such a policy at first.
    pub fn new(policy: Policy) -> Self {
        Self {
            lineage: Lineage::new(policy),
            ..Self::default()
        }
    }

    /// A node has this catalog, of a keyspace with so many shards.
    pub fn catalog(&mut self, now: u64, shards: u16, catalog: &Catalog) -> Checked {
        match self.lineage.hear(now, catalog) {
            Some(promoted) => self.mirrors.check_promoted(now, shards, &promoted),
            None => Ok(()),
        }
    }

    /// What each keyspace that was made of a mirror was made of.
    pub fn cuts(&self) -> BTreeMap<KeyspaceId, Cut> {
        let cut = |promoted: &Promoted| self.mirrors.cut(promoted.before, promoted.shown.view);
        let promotions = self.lineage.promotions();
        promotions.map(|one| (one.keyspace, cut(one))).collect()
    }

    /// The keyspaces that serve one after the other.
    pub const fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// A node was started again.
    pub fn started(&mut self, node: usize) {
        self.dots.started(node);
    }

    /// A group catches up by comparing, or has.
    pub fn compares(&mut self, group: GroupId) {
        self.dots.compares(group);
    }

    /// A node has taken a group image.
    pub fn imaged(&mut self, node: usize, group: GroupId, index: u64) {
        self.zones.imaged(node, group, index);
    }

    /// A node lost its disk.
    pub fn wiped(&mut self, node: usize) {
        self.zones.wiped(node);
    }

    /// A node says that a write stands.
    pub fn acknowledged(
        &mut self,
        now: u64,
        node: usize,
        acked: &Acked,
        zone_of: impl Fn(usize) -> ZoneId,
    ) -> Checked {
        self.zones.acknowledged(now, node, acked, zone_of)
    }

    /// Takes one observation in.
    pub fn observe(&mut self, now: u64, node: usize, observation: Observation) -> Checked {
        self.mirrors.observe(&observation);
        match observation {
            Observation::Applied {
                group,
                index,
                writes_hash,
            } => self
                .apply
                .applied(now, node, apply::Entry { group, index }, writes_hash),
            Observation::Effect {
                group,
                index,
                dot,
                key,
                op_id,
            } => {
                let seen = dots::Seen {
                    group,
                    index,
                    dot,
                    key,
                    op_id,
                };
                self.zones.effect(group, index, dot);
                if !self.dots.effect(now, node, &seen)? {
                    return Ok(());
                }
                if is_transactional(&seen.key) {
                    // Judged by what transactions have seen.
                    return Ok(());
                }
                moves::check_opened(now, &seen, (&self.evidence, &self.lineage))?;
                self.op_ids.effect(now, &seen, &self.lineage)?;
                self.evidence.effect(now, seen);
                Ok(())
            }
            Observation::Leads { group, term } => self.apply.leads(now, node, group, term),
            Observation::Stage { .. } | Observation::Stored { .. } | Observation::Pinned { .. } => {
                Ok(())
            }
            Observation::Durable { group, index, term } => {
                self.zones.durable(node, group, (index, term));
                Ok(())
            }
        }
    }

    /// Judges what a client was answered in a mirror zone.
    pub fn mirrored(
        &mut self,
        at: (u64, usize, KeyspaceId),
        shards: u16,
        asked: (&Action, &Answer),
        stamp: MirrorStamp,
    ) -> Checked {
        self.mirrors.judge(at, shards, asked, stamp)
    }

    /// How many answers of mirrors were judged, and of how many generations.
    pub fn mirrors_judged(&self) -> (u64, u64) {
        let generations = u64::try_from(self.mirrors.generations.len()).unwrap_or(u64::MAX);
        (self.mirrors.judged, generations)
    }

    /// Judges a finished run.
    pub fn judge(&self, history: &History, state: &FinalState) -> Checked {
        convergence::check(state)?;
        expiry::check(state)?;
        let keys = self.evidence.keys(history, state.at_ns)?;
        for key in &keys {
            let judged = [
                linear::check_values,
                justified::check,
                durability::check,
                tombstones::check,
                linear::check_order,
                moves::check_key,
                promotions::check_listed,
            ];
            for check in judged {
                check(key, state).map_err(|violation| {
                    violation.with(describe_key(history, &self.evidence, &key.name))
                })?;
            }
        }
        op_ids::check_receipts(history)?;
        moves::check_times(history, &state.lineage, state.at_ns)?;
        promotions::check_fence(history, &state.lineage, state.at_ns)?;
        sessions::check(history, &state.lineage)?;
        registers::check(history, &state.lineage)
    }

    /// Everything known about a key, for whoever looks for the reason of a violation.
    pub fn describe(&self, history: &History, key: &Bytes) -> Vec<String> {
        describe_key(history, &self.evidence, key)
    }
}
