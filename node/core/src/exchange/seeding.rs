//! Filling a group of a successor from the mirror of the keyspace before it in its own zone, where there is one.
//!
//! It comes first: until it is done, or known to be impossible, the old groups are not subscribed to, as they would send all
//! of it from another zone. Of a promoted mirror it is all there is, until the successor is open.
//!
//! Invariant: `done` is the vector of a generation that the group's own vector includes.

use meridian_causal::VersionVector;

use super::ExchangeContext;
use crate::catalog::Catalog;
use crate::group::Group;
use crate::ids::{GroupId, NodeId, Side};
use crate::mirror::{mirror_node, mirror_zones};
use crate::time::Now;

/// A mirror that has not opened a generation after this long is done without, unless it is promoted.
const SEED_MS_MAX: u64 = 3_000;

/// How far a group has been filled from its zone's mirror.
#[derive(Default)]
pub(super) struct Seeding {
    /// What the mirror had, all of which is here.
    done: Option<VersionVector>,
    since: Option<Now>,
    /// The mirror has nothing to give.
    skipped: bool,
}

/// The mirror that a group of a successor is filled from: the end that it is in the exchange, and its node.
pub(super) fn seed_of(catalog: &Catalog, id: GroupId) -> Option<(Side, NodeId)> {
    let own = catalog.keyspaces.get(&id.keyspace)?;
    let before = own.before.filter(|_| !own.is_open())?;
    let mirrored = mirror_zones(catalog, before).contains(&id.zone);
    let node = mirror_node(catalog, id.shard, id.zone).filter(|_| mirrored)?;
    let side = Side {
        keyspace: before,
        zone: id.zone,
    };
    Some((side, node))
}

/// Whether the successor that a group belongs to is being made of a promoted mirror, and of nothing else yet.
fn is_promoted(catalog: &Catalog, id: GroupId) -> bool {
    let own = catalog.keyspaces.get(&id.keyspace);
    let before = own.and_then(|own| catalog.keyspaces.get(&own.before?));
    before.is_some_and(|before| before.promotion().is_some())
}

impl Group {
    /// What a generation that this group holds whole had received, once it was filled from a mirror.
    pub(crate) fn seeded(&self) -> Option<&VersionVector> {
        self.exchange.seeding.done.as_ref()
    }

    /// Whether the group waits for what a mirror has before it asks the old groups.
    pub(super) fn awaits_seed(&self, context: &ExchangeContext<'_>) -> bool {
        let seeding = &self.exchange.seeding;
        let settled = seeding.done.is_some() || seeding.skipped;
        !settled && seed_of(context.catalog, self.id).is_some()
    }

    /// Begins to be filled, or gives up on a mirror that has nothing.
    pub(super) fn seed_tick(&mut self, context: &mut ExchangeContext<'_>) {
        if !self.awaits_seed(context) {
            return;
        }
        let Some((side, _)) = seed_of(context.catalog, self.id) else {
            return;
        };
        let since = *self.exchange.seeding.since.get_or_insert(context.now);
        let long = context.now.mono_ns >= since.after_ms(SEED_MS_MAX);
        if long && !is_promoted(context.catalog, self.id) && self.gives_up_opening(side) {
            self.exchange.seeding.skipped = true;
            return;
        }
        self.compare_start(side, context);
    }

    /// The mirror says what its generation had received. Whether nothing of it is missing here.
    pub(super) fn has_seed(
        &mut self,
        side: Side,
        snapshot: &VersionVector,
        catalog: &Catalog,
    ) -> bool {
        let is_seed = seed_of(catalog, self.id).is_some_and(|(seed, _)| seed == side);
        let meta = self.shard().map(crate::shard::Shard::meta);
        let has = is_seed
            && meta.is_some_and(|meta| meta.compare.is_none() && meta.received.includes(snapshot));
        if has {
            self.exchange.seeding.done = Some(snapshot.clone());
        }
        has
    }
}
