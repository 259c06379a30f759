//! The catalog: zones, nodes, keyspaces and placement, as the control group has agreed on them.
//!
//! Every node holds it, most of them as learners; the data plane reads it and never waits for it.

mod moving;

use std::collections::BTreeMap;

use meridian_causal::{Incarnation, ZoneId};
use serde::{Deserialize, Serialize};

use crate::ids::{Generation, GroupId, KeyspaceId, NodeId, ReplicaId, ShardId};
pub use moving::{Alter, AlterReport, Divergence, Promotion, Returned, Shown};

pub use crate::policy::{Ack, DefaultLevel, Mode, OnBreach, OnZoneLoss, Policy, PolicyChange};

/// Zones, nodes, keyspaces and placement.
///
/// Invariants:
/// * a keyspace id is never used again;
/// * the incarnations of all groups that ever were are distinct;
/// * `revision` grows with each change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// Grows with each change; 0 before the cluster is founded.
    pub revision: u64,
    /// Random identity of the cluster.
    pub cluster_id: u128,
    /// Name of the cluster.
    pub cluster: String,
    /// Key that authenticates context tokens.
    pub token_key: [u8; 32],
    /// Zones and their names.
    pub zones: BTreeMap<ZoneId, String>,
    /// Nodes.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// Keyspaces.
    pub keyspaces: BTreeMap<KeyspaceId, Keyspace>,
    /// The id the next keyspace gets.
    pub next_keyspace: KeyspaceId,
    /// Replicas the control group should have as voters; other nodes follow as learners.
    pub control_voters: Vec<ReplicaId>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: ZoneId,
    /// Where clients reach it.
    pub addr: String,
    /// Where nodes reach it.
    pub peer_addr: String,
    /// Identity of its store; `None` until the node has told it.
    pub store: Option<u128>,
    /// Which life of its storage this is.
    pub generation: Generation,
}

/// A keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyspace {
    /// Its id.
    pub id: KeyspaceId,
    /// Its name, unique among those that exist.
    pub name: String,
    /// How it is replicated.
    pub policy: Policy,
    /// Number of shards, fixed at creation.
    pub shards: u16,
    /// Async: a group per shard and zone. Sync: one per shard. Snapshot: one per shard, in the home zone.
    pub groups: Vec<GroupRecord>,
    /// The id that contexts and tokens of it are bound to: that of the first of the keyspaces that became this one.
    pub lineage: KeyspaceId,
    /// It takes over from this one, and has not got everything yet.
    pub before: Option<KeyspaceId>,
    /// It is being altered; or it has been deposed, and its last writes are still to be handed over.
    pub alter: Option<Alter>,
    /// Another keyspace has its name and its data.
    pub moved: bool,
    /// A mirror was promoted to make this keyspace: what that one lacked.
    pub divergence: Option<Divergence>,
}

/// A group as the control group has placed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// The group.
    pub id: GroupId,
    /// The actor of its dots.
    pub incarnation: Incarnation,
    /// The replicas that found it: each starts with them as voters.
    pub founders: Vec<ReplicaId>,
    /// The replicas it should have now.
    pub voters: Vec<ReplicaId>,
    /// Founded anew after its only replica had lost its disk: what its keyspace had acknowledged before is not here, as far as
    /// other zones have it still. Such a group shows nobody anything (`docs/admission.md`).
    pub disk_lost: bool,
}

impl Catalog {
    /// The keyspace of that name.
    pub fn keyspace_named(&self, name: &str) -> Option<&Keyspace> {
        self.keyspaces
            .values()
            .find(|keyspace| keyspace.is_open() && keyspace.name == name)
    }

    /// The keyspaces that clients know of.
    pub fn open_keyspaces(&self) -> impl Iterator<Item = &Keyspace> {
        self.keyspaces
            .values()
            .filter(|keyspace| keyspace.is_open())
    }

    /// The group of a shard in a zone.
    pub fn group_of(
        &self,
        keyspace: KeyspaceId,
        shard: ShardId,
        zone: ZoneId,
    ) -> Option<&GroupRecord> {
        let keyspace = self.keyspaces.get(&keyspace)?;
        keyspace
            .groups
            .iter()
            .find(|group| group.id.shard == shard && group.id.zone == zone)
    }

    /// The group that serves clients of `zone`: where the keyspace's mode has put it.
    pub fn serving(
        &self,
        keyspace: KeyspaceId,
        shard: ShardId,
        zone: ZoneId,
    ) -> Option<&GroupRecord> {
        let policy = &self.keyspaces.get(&keyspace)?.policy;
        self.group_of(keyspace, shard, policy.serving_zone(zone))
    }

    /// The replica that `node` is now.
    pub fn replica_of(&self, node: NodeId) -> Option<ReplicaId> {
        self.nodes
            .get(&node)
            .map(|record| ReplicaId::new(node, record.generation))
    }
}

impl Keyspace {
    /// A keyspace that became of no other, without groups yet.
    pub fn new(id: KeyspaceId, name: &str, shards: u16, policy: Policy) -> Self {
        Self {
            id,
            name: name.to_owned(),
            policy,
            shards,
            groups: Vec::new(),
            lineage: id,
            before: None,
            alter: None,
            moved: false,
            divergence: None,
        }
    }

    /// It has a name, and serves or soon will.
    pub const fn is_open(&self) -> bool {
        !self.name.is_empty() && !self.moved
    }

    /// Its home zone was deposed while it was not there to agree: it serves nobody, and hands over what it wrote last.
    pub const fn is_deposed(&self) -> bool {
        self.moved && self.alter.is_some()
    }

    /// The promotion of one of its mirrors, while it is under way.
    pub fn promotion(&self) -> Option<&Promotion> {
        self.alter.as_ref()?.promotion.as_ref()
    }

    /// The shard of a key: 64-bit FNV-1a of the key, modulo the number of shards. Clients compute the same.
    ///
    /// Source: Fowler, Noll, Vo, "FNV hash", parameters for 64 bits.
    pub fn shard_of(&self, key: &[u8]) -> ShardId {
        shard_of(key, self.shards)
    }
}

/// See [`Keyspace::shard_of`].
pub fn shard_of(key: &[u8], shards: u16) -> ShardId {
    let shard = key_hash(key).checked_rem(u64::from(shards)).unwrap_or(0);
    ShardId(u16::try_from(shard).unwrap_or(0))
}

/// The hash that spreads keys over shards.
pub fn key_hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
