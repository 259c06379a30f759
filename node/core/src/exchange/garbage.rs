//! What a leader clears away: effects every zone has, tombstones every zone has seen, op ids past their time.
//!
//! A leader only proposes; apply checks again what can be checked from the shard's own state (protocol rules 10, 13, 16).

use meridian_causal::VersionVector;

use super::{ExchangeContext, ends, takers};
use crate::command::Op;
use crate::group::Group;
use crate::limits::TOMBSTONES_DROPPED_MAX;
use crate::shard::garbage::{self, Expired, Settled};
use crate::shard::{op_ids, outbox};

/// Time between two rounds.
const ROUND_MS: u64 = 1_000;

/// A cut of the outbox past its bound leaves the newer part of each incarnation's effects: one half.
const OVERFLOW_DIVISOR: u64 = 2;

impl Group {
    pub(super) fn collect_garbage(&mut self, context: &mut ExchangeContext<'_>) {
        if context.now.mono_ns < self.exchange.garbage_due_ns || self.log().installing() {
            return;
        }
        self.exchange.garbage_due_ns = context.now.after_ms(ROUND_MS);
        let own = context.catalog.keyspaces.get(&self.id.keyspace);
        if own.is_none_or(|keyspace| keyspace.before.is_some() && !keyspace.is_open()) {
            // What the keyspace before it still holds may be ignorant of any tombstone here. (Of a deposed home zone that is
            // away no tombstone is known to be seen, so those stay too; the outbox need not, as nothing goes there.)
            return;
        }
        let everywhere = self.known_everywhere(context);
        if let Some(through) = self.trim_to(&everywhere, context) {
            self.enqueue(Op::Trim { through });
        }
        let stable = self.observe_stability(context);
        let Some(shard) = self.shard() else { return };
        let meta = shard.meta();
        let now_ms = context.now.wall_ms;
        let eviction = op_ids::eviction(
            context.engine,
            meta,
            self.id,
            &context.config.bounds,
            now_ms,
        );
        let expired = match ends(context.catalog, self.id).next() {
            Some(_) => Expired::Kept,
            None => Expired::MayGo,
        };
        let dead = garbage::tombstone_candidates(
            context.engine,
            meta,
            self.id,
            Settled {
                stable: &stable,
                expired,
                through: context.tombstones_through,
            },
            TOMBSTONES_DROPPED_MAX,
        );
        if let Ok(Some(op)) = eviction {
            self.enqueue(op);
        }
        if let Ok(keys) = dead
            && !keys.is_empty()
        {
            self.enqueue(Op::DropTombstones { keys });
        }
    }

    /// What every zone has, and nothing on its way here is ignorant of.
    fn observe_stability(&mut self, context: &ExchangeContext<'_>) -> VersionVector {
        let Some(received) = self.shard().map(|shard| shard.meta().received.clone()) else {
            return VersionVector::default();
        };
        let peers = ends(context.catalog, self.id).map(|group| group.incarnation);
        let exchange = &mut self.exchange;
        exchange
            .stability
            .observe(&received, peers, &exchange.known)
            .clone()
    }

    /// What the groups of all zones are known to hold, this one included.
    fn known_everywhere(&self, context: &ExchangeContext<'_>) -> VersionVector {
        let Some(shard) = self.shard() else {
            return VersionVector::default();
        };
        let mut everywhere = shard.meta().received.clone();
        for group in takers(context.catalog, self.id) {
            match self.exchange.known.get(&group.incarnation) {
                Some(vector) => everywhere.meet(vector),
                None => return VersionVector::default(),
            }
        }
        everywhere
    }

    /// Up to where the outbox may go: what everyone has and no watcher is to be shown, and, past the bound, half of what
    /// is kept. A comparison that a zone runs with a view of this shard keeps what the view lacks, outside the bound
    /// (rule 11).
    fn trim_to(
        &self,
        everywhere: &VersionVector,
        context: &ExchangeContext<'_>,
    ) -> Option<VersionVector> {
        let meta = self.shard()?.meta();
        let bounds = &context.config.bounds;
        let over = meta.outbox_bytes > bounds.outbox_bytes_max;
        let unwatched =
            outbox::beyond_watchers(context.engine, meta, self.id, bounds.watch_bytes).ok()?;
        let mut through = VersionVector::default();
        for (incarnation, received) in meta.received.iter() {
            let floor = meta.outbox_floor.get(incarnation);
            let mut target = everywhere.get(incarnation).min(unwatched.get(incarnation));
            if over {
                let half = received.saturating_sub(floor) / OVERFLOW_DIVISOR;
                target = target.max(
                    floor
                        .saturating_add(half)
                        .max(floor.saturating_add(1))
                        .min(received),
                );
            }
            for view in self.exchange.sender.views.values() {
                target = target.min(
                    view.snapshot
                        .get(incarnation)
                        .max(everywhere.get(incarnation)),
                );
            }
            if target > floor {
                through.advance(incarnation, target);
            }
        }
        (!through.is_empty()).then_some(through)
    }
}
