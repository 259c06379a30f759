//! Names of the things the core deals in: nodes, keyspaces, shards, groups, replicas.
//!
//! Numbers, never strings: names live in the catalog. Each type is one word of the design's word list.

use std::fmt;

use meridian_causal::ZoneId;
use serde::{Deserialize, Serialize};

/// A process that stores data. Unique in the cluster, below 2^32, never given to another machine.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct NodeId(pub u64);

/// The life of a node's storage: the first is 0, one more after every wipe.
pub type Generation = u32;

/// A member of a Raft group: a node in one life of its storage. A wiped node returns under a new one, since under
/// the old one it could vote a second time in a term (protocol rule 6).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ReplicaId(pub u64);

impl ReplicaId {
    /// The replica of `node` in the life `generation` of its storage.
    pub const fn new(node: NodeId, generation: Generation) -> Self {
        Self(((generation as u64) << 32) | (node.0 & 0xffff_ffff))
    }

    /// The node this replica runs on.
    pub const fn node(self) -> NodeId {
        NodeId(self.0 & 0xffff_ffff)
    }

    /// Which life of the node's storage it belongs to.
    pub const fn generation(self) -> Generation {
        (self.0 >> 32) as u32
    }
}

/// A set of keys with a mode. 0 is the control group's own.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct KeyspaceId(pub u32);

impl KeyspaceId {
    /// Where the control group keeps its record.
    pub const CONTROL: Self = Self(0);
    /// The keyspace `default`, there from the start.
    pub const DEFAULT: Self = Self(1);
}

/// A part of a keyspace: the keys whose hash falls on it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ShardId(pub u16);

/// A Raft group: a shard, and where the group's walls are.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct GroupId {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The shard of that keyspace.
    pub shard: ShardId,
    /// The zone its voters are in; [`ZoneId::GLOBAL`](meridian_causal::ZoneId) when they are spread over zones.
    pub zone: ZoneId,
    /// Grows when a group is founded anew for the same shard and zone: after the loss of all its replicas, or a
    /// change of mode.
    pub epoch: u32,
}

impl GroupId {
    /// The control group of a cluster.
    pub const CONTROL: Self = Self {
        keyspace: KeyspaceId::CONTROL,
        shard: ShardId(0),
        zone: ZoneId(0),
        epoch: 0,
    };
}

/// One end of an exchange: the groups of one keyspace in one zone. Between the zones of a keyspace both ends name the same
/// keyspace; while one is altered, its groups hand over to those of its successor.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Side {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The zone.
    pub zone: ZoneId,
}

impl From<GroupId> for Side {
    fn from(group: GroupId) -> Self {
        Self {
            keyspace: group.keyspace,
            zone: group.zone,
        }
    }
}

/// Names one request at the driver (shell or simulator) that sent it; unique while it is open.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RequestId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node(), self.generation())
    }
}

impl fmt::Display for KeyspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}@{}.{}",
            self.keyspace.0, self.shard.0, self.zone.0, self.epoch
        )
    }
}
