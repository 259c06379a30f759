//! Mirrors of a keyspace of mode `snapshot`: cuts that the home zone takes, and generations of them in other zones.
//!
//! ```text
//! holder (one node of a mirror zone)     leader of shard 0, home zone       leaders of the shards
//! MirrorCut { what the zone shows } ---> takes a view of all shards    ---> (views: ViewPin, ViewConfirm)
//!                                   <--- the newest cut
//! MirrorReceive { generation, cut } ---> nodes of the zone that mirror the shards
//!                                          MirrorFetch { since, from } ---> what changed, from the view, a page at a time
//!                                   <--- how far each is
//! all are durable: the pointer flips, in one record
//! ```
//!
//! A cut is a view (`crate::views`): one point in time over all shards, so nothing is in it that was caused by something
//! that is not (protocol rule 23). A generation is laid over those before it, each version under its number; readers see
//! the versions up to the number that the zone's pointer names, and none beyond. So it does not matter at which moment a
//! node dies: what has come of a generation that the pointer does not name is not seen.
//!
//! Invariants:
//! * the pointer names a generation only when every shard's part of it is durable in the zone;
//! * a request reads the pointer once, and is served from that generation on every node or refused;
//! * the generation before the one that is shown stays whole;
//! * a delta holds every key whose record changed after the log index of the generation it is laid over; tombstones of the
//!   home zone stay until every mirror has passed them (rule 24).
//!
//! What it is not: a mirror writes nothing that goes elsewhere, has no log, and decides nothing about data. What home holds
//! of cuts is in memory: it is lost with a leader, and the next cut is another. That a mirror becomes the home zone is decided
//! in `control::promote`; here it stands still (`stop`) and gives its generation away (`seed`).
//!
//! Read `docs/snapshot.md`, then `cuts` (home, the cut), `source` (home, a shard), `zone` (the holder), `part` (a shard in a
//! mirror zone), `known`, `reading`, `stop`, `seed`.

mod cuts;
mod known;
mod packing;
mod part;
mod reading;
mod seed;
mod source;
mod status;
mod stop;
mod zone;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use meridian_causal::{Incarnation, VersionVector, ZoneId};
use serde::{Deserialize, Serialize};

use crate::catalog::{Catalog, Keyspace, Mode};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{GroupId, KeyspaceId, NodeId, ShardId};
use crate::output::Outputs;
use crate::request::Response;
use crate::time::Now;
use crate::workspace::Workspace;

pub(crate) use cuts::UNSEEN;
pub(crate) use reading::serve;
pub use status::{MirrorStatus, MirrorWant, ZoneMirror};

use cuts::Cuts;
use part::Part;
use seed::Seed;
use stop::Stop;
use zone::Zone;

/// A point in time over all shards of a keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The view that it is.
    pub view: u64,
    /// When it began to be taken, by the wall clock of the node that took it. Grows from one cut of a leader to the next.
    pub time_ms: u64,
    /// Per shard, the node that holds the state.
    pub pins: Vec<NodeId>,
}

/// What an answer of a mirror says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorStamp {
    /// The generation it was read from, as the zone numbers them.
    pub generation: u64,
    /// The view that the cut was.
    pub view: u64,
    /// When the cut was taken, by the wall clock of the home zone.
    pub cut_ms: u64,
    /// How old the cut is at most.
    pub age_ms: u64,
}

/// What a zone says of itself when it asks for a cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneReport {
    /// The generation it shows; 0: none.
    pub generation: u64,
    /// Cut of that generation; 0: none.
    pub cut_ms: u64,
    /// Bytes shipped for that generation: of the messages that carried its pages.
    pub bytes: u64,
    /// Keys shipped for that generation.
    pub keys: u64,
    /// The view it is receiving.
    pub receiving: Option<u64>,
    /// Bytes received of it.
    pub received_bytes: u64,
    /// A view that its nodes could not read any more.
    pub lost: Option<u64>,
}

/// What a node says of its part of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartReport {
    /// The newest generation that is durable here, and its view; 0: none.
    pub have: (u64, u64),
    /// The one that is being received, and its view.
    pub receiving: Option<(u64, u64)>,
    /// Bytes and keys received of the newest of the two.
    pub received: (u64, u64),
    /// The view ordered last cannot be read any more.
    pub lost: bool,
}

/// A generation that the nodes of a zone are to receive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its number.
    pub generation: u64,
    /// The cut.
    pub cut: Cut,
}

/// A page of what changed in a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorPage {
    /// Whose log.
    pub source: Incarnation,
    /// Where the cut is in that log.
    pub index: u64,
    /// What the shard had received there.
    pub received: VersionVector,
    /// All keys of the range are here, not only those that changed.
    pub full: bool,
    /// First key of the range.
    pub from: Bytes,
    /// Keys and their records, packed.
    pub records: Bytes,
    /// Ranges within it that are what the asker said to have: first key and end.
    pub same: Vec<(Bytes, Bytes)>,
    /// End of the range; `None`: the end of the shard.
    pub next: Option<Bytes>,
}

/// Bytes of a page's message beside what it counts: numbers, lengths, and the envelopes around them.
const PAGE_BYTES: usize = 64;

/// Bytes of an entry of a vector, at most.
const VECTOR_ENTRY_BYTES: usize = 20;

impl MirrorPage {
    /// Bytes of the message that carries it: not less than they are, and fewer than [`PAGE_BYTES`] more.
    pub fn shipped_bytes(&self) -> usize {
        let next = self.next.as_ref().map_or(0, Bytes::len);
        let same = self.same.iter().map(|(from, to)| from.len() + to.len() + 2);
        let vector = self.received.len() * VECTOR_ENTRY_BYTES;
        self.records.len() + same.sum::<usize>() + vector + self.from.len() + next + PAGE_BYTES
    }
}

/// What is asked for the mirrors' sake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MirrorAsk {
    /// A view, to be a cut.
    Opened { began: Now },
    /// The newest cut of the home zone.
    Cut { sent_ns: u64 },
    /// How far a shard's part is.
    Part { shard: ShardId },
    /// A page of a shard.
    Page { shard: ShardId, view: u64 },
    /// What the holder shows.
    Pointer { sent_ns: u64 },
}

/// What a core knows of mirrors, at home and elsewhere.
#[derive(Default)]
pub(crate) struct Mirrors {
    /// Home: of keyspaces whose first shard this core leads.
    cuts: BTreeMap<KeyspaceId, Cuts>,
    /// Home: per group led here and mirror zone, the log and the index that the zone has passed.
    passed: BTreeMap<(GroupId, ZoneId), (Incarnation, u64)>,
    /// Mirror zones: keyspaces whose pointer this node holds or follows.
    zones: BTreeMap<KeyspaceId, Zone>,
    /// Mirror zones: shards of this core.
    parts: BTreeMap<(KeyspaceId, ShardId), Part>,
    /// Mirror zones: generations from which the groups of a successor are filled, by session.
    seeds: BTreeMap<u64, Seed>,
    /// Mirror zones: when it was last said at which generation this zone stands still.
    stop_said: BTreeMap<KeyspaceId, Stop>,
    loaded: bool,
}

/// The node that mirrors a shard in a zone: the zone's nodes take turns over the shards.
pub fn mirror_node(catalog: &Catalog, shard: ShardId, zone: ZoneId) -> Option<NodeId> {
    let nodes: Vec<NodeId> = catalog
        .nodes
        .iter()
        .filter(|(_, record)| record.zone == zone)
        .map(|(id, _)| *id)
        .collect();
    let turn = usize::from(shard.0).checked_rem(nodes.len())?;
    nodes.get(turn).copied()
}

/// The zones that mirror a keyspace.
pub(crate) fn mirror_zones(catalog: &Catalog, keyspace: KeyspaceId) -> Vec<ZoneId> {
    let Some(policy) = catalog.keyspaces.get(&keyspace).map(|found| &found.policy) else {
        return Vec::new();
    };
    // Of one that is not open yet there is no cut worth having: it is being filled.
    let found = catalog.keyspaces.get(&keyspace);
    if policy.mode != Mode::Snapshot || !found.is_some_and(Keyspace::is_open) {
        return Vec::new();
    }
    let others = policy.zones.iter().copied();
    others.filter(|zone| Some(*zone) != policy.home).collect()
}

impl Core {
    /// Whether clients of this node are served from a mirror of the keyspace.
    pub(crate) fn mirrors(&self, keyspace: KeyspaceId) -> bool {
        let found = self.catalog.keyspaces.get(&keyspace);
        found.is_some_and(|found| {
            found.policy.mode == Mode::Snapshot && found.policy.home != Some(self.zone())
        })
    }

    /// Where the home zone of a keyspace is.
    pub(crate) fn not_home(&self, keyspace: KeyspaceId, shard: ShardId) -> Error {
        let catalog = &self.catalog;
        let policy = catalog.keyspaces.get(&keyspace).map(|found| &found.policy);
        let home = policy.and_then(|policy| policy.home).unwrap_or_default();
        let node = self
            .own_group(keyspace, shard)
            .and_then(|group| self.leader_guess(group))
            .and_then(|node| catalog.nodes.get(&node));
        Error::NotHomeZone {
            home: catalog.zones.get(&home).cloned().unwrap_or_default(),
            addr: node.map(|node| node.addr.clone()).unwrap_or_default(),
        }
    }

    /// What happens with time.
    pub(crate) fn tick_mirrors(&mut self, now: Now, out: &mut Outputs) {
        if self.catalog.revision == 0 {
            return;
        }
        self.load_mirrors(out);
        self.drop_mirrors();
        self.tick_cuts(now, out);
        self.tick_stops(now, out);
        self.tick_zones(now, out);
        self.tick_parts(now, out);
        self.tick_seeds(now);
    }

    /// What the store holds of mirrors, once.
    fn load_mirrors(&mut self, out: &mut Outputs) {
        if self.mirrors.loaded {
            return;
        }
        self.mirrors.loaded = true;
        if let Err(error) = self.load_parts().and_then(|()| self.load_pointers()) {
            let detail = error.to_string();
            out.notices.push(crate::output::Notice::Damaged { detail });
        }
    }

    /// Whether the mirror of a keyspace stays in this zone: of one that has moved, until its successor is shown here.
    fn keeps_mirror(&self, keyspace: KeyspaceId) -> bool {
        let (catalog, zone) = (&self.catalog, self.zone());
        if mirror_zones(catalog, keyspace).contains(&zone) {
            return true;
        }
        let moved = catalog.keyspaces.get(&keyspace).filter(|found| found.moved);
        let successor = moved.and_then(|moved| {
            let mut open = catalog.open_keyspaces();
            open.find(|open| open.lineage == moved.lineage)
        });
        successor.is_some_and(|successor| {
            let zones = &self.mirrors.zones;
            let shown = zones
                .get(&successor.id)
                .and_then(|zone| zone.pointer.as_ref());
            mirror_zones(catalog, successor.id).contains(&zone) && shown.is_none()
        })
    }

    /// Mirrors of keyspaces that are gone go too.
    fn drop_mirrors(&mut self) {
        let catalog = Arc::clone(&self.catalog);
        let catalog = &*catalog;
        let held = self.mirrors.zones.keys().copied();
        let held = held.chain(self.mirrors.parts.keys().map(|(of, _)| *of));
        let kept: BTreeSet<KeyspaceId> = held.filter(|of| self.keeps_mirror(*of)).collect();
        let stays = |keyspace: KeyspaceId| kept.contains(&keyspace);
        let gone = self.mirrors.parts.keys().filter(|(of, _)| !stays(*of));
        let gone: Vec<(KeyspaceId, ShardId)> = gone.copied().collect();
        for (keyspace, shard) in gone {
            self.mirrors.parts.remove(&(keyspace, shard));
            let place = crate::keys::Place { keyspace, shard };
            self.dropped.extend(crate::keys::mirror_ranges(place));
        }
        let unshown = self.mirrors.zones.keys().filter(|of| !stays(**of));
        for keyspace in unshown {
            let pointer = crate::keys::MirrorPointerKey::encode(*keyspace);
            let end = crate::keys::successor(&pointer);
            self.dropped.push((pointer, end));
        }
        self.mirrors.zones.retain(|keyspace, _| stays(*keyspace));
        let home = |keyspace: KeyspaceId| !mirror_zones(catalog, keyspace).is_empty();
        self.mirrors.cuts.retain(|keyspace, _| home(*keyspace));
        self.mirrors
            .passed
            .retain(|(group, _), _| home(group.keyspace));
    }

    /// Writes what mirrors have to write in this turn. True: it must be on disk before it is spoken of.
    pub(crate) fn collect_mirrors(&mut self, work: &mut Workspace<'_>) -> Result<bool, Error> {
        let pages = self.collect_parts(work)?;
        Ok(self.collect_pointers(work) | pages)
    }

    /// What was to be written is.
    pub(crate) fn settle_mirrors(&mut self, now: Now, out: &mut Outputs) {
        self.settle_parts(now, out);
        self.settle_pointers(out);
    }

    /// An answer to something that was asked for the mirrors' sake.
    pub(crate) fn mirror_answer(
        &mut self,
        now: Now,
        (keyspace, ask): (KeyspaceId, MirrorAsk),
        result: Result<Response, Error>,
        out: &mut Outputs,
    ) {
        match ask {
            MirrorAsk::Opened { began } => self.cut_opened(now, (keyspace, began), result, out),
            MirrorAsk::Cut { sent_ns } => self.cut_offered(now, keyspace, sent_ns, result),
            MirrorAsk::Part { shard } => self.part_reported(now, (keyspace, shard), result),
            MirrorAsk::Page { shard, view } => {
                self.page_arrived(now, (keyspace, shard), view, result);
            }
            MirrorAsk::Pointer { sent_ns } => self.pointer_told(keyspace, sent_ns, result),
        }
    }
}

#[cfg(test)]
mod tests;
