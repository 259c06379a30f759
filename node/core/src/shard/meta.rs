//! What a group knows of its shard as a whole: one record, written once per turn.

use std::collections::{BTreeMap, BTreeSet};

use meridian_causal::{CausalContext, Hlc, Incarnation, VersionVector, ZoneId};
use serde::{Deserialize, Serialize};

use crate::keys::ReturnedCounts;

/// The state of a shard beside its records.
///
/// Invariants:
/// * `outbox_floor` ≤ `received`: the outbox holds exactly the effects between the two, per incarnation;
/// * `outbox_bytes` is the sum of [`OutboxBytes::kept`] over all incarnations;
/// * `dropped` ≤ `received`;
/// * `received` and the floors never go back, except those of an incarnation left in a quarantine; an incarnation's
///   counters are gapless up to `received`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMeta {
    /// Index of the last entry applied.
    pub applied: u64,
    /// Hybrid time of the last command applied.
    pub hlc: Hlc,
    /// The actor of this group's dots.
    pub incarnation: Incarnation,
    /// V: what was received per incarnation, gapless (protocol rule 9). The group's own counter is among it.
    pub received: VersionVector,
    /// Covers the context of every record that was dropped here, or elsewhere before a comparison: what a key without a record may
    /// have seen.
    pub dropped: VersionVector,
    /// Last counter no longer in the outbox, per incarnation.
    pub outbox_floor: VersionVector,
    /// Bytes of effects in the outbox.
    pub outbox_bytes: u64,
    /// Bytes put into the outbox and dropped from it, per incarnation.
    pub outbox_totals: BTreeMap<Incarnation, OutboxBytes>,
    /// Op ids with a stamp below this are no longer remembered.
    pub op_floor_ms: u64,
    /// Op ids remembered.
    pub op_count: u64,
    /// No op id was entered by an earlier log entry than this and is still remembered.
    pub op_first_index: u64,
    /// Keys with a live version.
    pub keys: u64,
    /// Keys in conflict.
    pub conflicts: u64,
    /// Tombstones of keys that hold nothing else.
    pub tombstones: u64,
    /// The comparison under way.
    pub compare: Option<CompareState>,
    /// Final counters of retired incarnations (protocol rules 14 and 15). Nothing retires one yet.
    pub finals: BTreeMap<Incarnation, u64>,
    /// The zone is past its lease (protocol rule 14). Nothing fences yet.
    pub fenced: bool,
    /// The store is an old copy, and this was the own counter when it came back (protocol rule 5). The group takes no
    /// client's writes and has no part in the exchange until it has another incarnation.
    pub quarantined: Option<u64>,
    /// Incarnations this group had before; it never takes one of them again.
    pub former: BTreeSet<Incarnation>,
    /// Changes that this group has applied, of whatever origin: the last change's number. What a watcher has seen is
    /// said by it.
    pub changes: u64,
    /// A watcher that has not seen this change cannot be shown all that came after.
    pub changes_floor: u64,
    /// The last fencing token handed out here.
    pub fencing: u64,
    /// The keyspace is altered, and this shard takes no more writes of clients (`shard::seal`): the round of sealing, else 0.
    pub sealed: u64,
    /// Zones without which `ack = all` does for now, by the group's log (protocol rule 20).
    pub short: BTreeSet<ZoneId>,
    /// The shard was made of a promoted mirror.
    pub base: Option<Base>,
}

/// What a promoted mirror had, and how much that it lacked has come since (`shard::returned`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// What it had received.
    pub received: VersionVector,
    /// What has come back.
    pub counts: ReturnedCounts,
}

/// Bytes of effects of one incarnation, since the group was founded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxBytes {
    /// Ever put into the outbox.
    pub entered: u64,
    /// Dropped from it.
    pub dropped: u64,
}

impl OutboxBytes {
    /// In the outbox now.
    pub const fn kept(self) -> u64 {
        self.entered.saturating_sub(self.dropped)
    }
}

/// A comparison under way (protocol rule 11).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareState {
    /// The zone compared with.
    pub source: ZoneId,
    /// S: what that zone's view had received.
    pub snapshot: VersionVector,
}

impl ShardMeta {
    /// A shard that has seen nothing.
    pub fn new(incarnation: Incarnation) -> Self {
        Self {
            applied: 0,
            hlc: Hlc::default(),
            incarnation,
            received: VersionVector::new(),
            dropped: VersionVector::new(),
            outbox_floor: VersionVector::new(),
            outbox_bytes: 0,
            outbox_totals: BTreeMap::new(),
            op_floor_ms: 0,
            op_count: 0,
            op_first_index: 0,
            keys: 0,
            conflicts: 0,
            tombstones: 0,
            compare: None,
            finals: BTreeMap::new(),
            fenced: false,
            quarantined: None,
            former: BTreeSet::new(),
            changes: 0,
            changes_floor: 0,
            fencing: 0,
            sealed: 0,
            short: BTreeSet::new(),
            base: None,
        }
    }

    /// Whether merges of `incarnation` have to wait for the comparison under way.
    pub fn waits_for_comparison(&self, incarnation: Incarnation) -> bool {
        let ahead = |compare: &CompareState| {
            compare.snapshot.get(incarnation) > self.received.get(incarnation)
        };
        self.compare.as_ref().is_some_and(ahead)
    }

    /// A record with this context is gone.
    pub(super) fn forget(&mut self, context: &CausalContext) {
        self.dropped.join(context.vector());
        for dot in context.dots() {
            self.dropped.advance(dot.incarnation, dot.counter);
        }
        assert!(
            self.received.includes(&self.dropped),
            "only what was received is dropped"
        );
    }
}
