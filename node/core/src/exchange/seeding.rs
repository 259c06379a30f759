//! Filling a group of a successor from the mirror of the keyspace before it in its own zone, where there is one.
//!
//! It comes first: until it is done, or known to be impossible, the old groups are not subscribed to, as they would send all
//! of it from another zone. Of a promoted mirror it is all there is, until the successor is open.
//!
//! A mirror has the op ids of the versions that it shows, and no others. So where the old groups are there, the group compares
//! with one of them next, though most of it is the same, and is told all operations that are remembered: a retry of a write
//! that was replaced before the cut must be known (rule 16).
//!
//! Invariant: `done` is the vector of a generation that the group's own vector includes.

use meridian_causal::VersionVector;

use super::{ExchangeContext, before, groups_of, peer};
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
    /// The operations that an old group remembers are here.
    recalled: bool,
}

impl Seeding {
    /// Whether a comparison is to bring all operations, and not only those whose effects are missing.
    pub(super) const fn recalls_all(&self) -> bool {
        self.done.is_some() && !self.recalled
    }
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
        let Some((side, _)) = seed_of(context.catalog, self.id) else {
            return;
        };
        if !self.awaits_seed(context) {
            self.recall(context);
            return;
        }
        let since = *self.exchange.seeding.since.get_or_insert(context.now);
        let long = context.now.mono_ns >= since.after_ms(SEED_MS_MAX);
        if long && !is_promoted(context.catalog, self.id) && self.gives_up_opening(side) {
            self.exchange.seeding.skipped = true;
            return;
        }
        self.compare_start(side, context);
    }

    /// Begins to compare with an old group for the operations that it remembers.
    fn recall(&mut self, context: &mut ExchangeContext<'_>) {
        let before = before(context.catalog, self.id.keyspace);
        let old = groups_of(context.catalog, before, self.id).next();
        if self.exchange.seeding.recalls_all()
            && let Some(side) = old.map(|group| Side::from(group.id))
        {
            self.compare_start(side, context);
        }
    }

    /// Whether the operations that the old groups remember have come or come by other ways.
    pub(crate) fn has_recalled(&self, catalog: &Catalog) -> bool {
        let seeding = &self.exchange.seeding;
        seed_of(catalog, self.id).is_none() || seeding.skipped || seeding.recalled
    }

    /// A comparison has come to its end.
    pub(super) fn compared_with(&mut self, side: Side, catalog: &Catalog) {
        let is_old = peer(catalog, self.id, side).is_some() && side.keyspace != self.id.keyspace;
        if is_old && self.exchange.seeding.recalls_all() {
            self.exchange.seeding.recalled = true;
        }
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
