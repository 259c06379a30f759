//! Why a request was not done, and whether it may have had an effect (design, section 6).

use meridian_causal::{CausalContext, Dot, OpId, ZoneId};
use meridian_storage::StorageError;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::NodeId;

/// Whether a failed operation may have taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EffectOf {
    /// Surely not.
    None,
    /// Surely.
    Applied,
    /// It cannot be said.
    Unknown,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Error)]
pub enum Error {
    /// The leader is elsewhere and the request was forwarded already, or no leader is known yet.
    #[error("this node does not lead the shard")]
    NotLeader {
        /// The leader, as far as it is known.
        leader: Option<NodeId>,
    },
    /// No majority of the group's replicas answers; said only when nothing was proposed.
    #[error("no majority of the shard's replicas is reachable")]
    NoQuorum,
    /// The write was proposed and its commit not seen in time, or its op id is older than what is remembered.
    #[error("the outcome of operation {op_id} is not known")]
    OutcomeUnknown {
        /// The op id to retry with.
        op_id: OpId,
    },
    /// A read or a change of the catalog did not finish in time.
    #[error("not finished in time")]
    DeadlineExceeded {
        /// Whether it may have taken effect.
        effect: EffectOf,
    },
    /// The condition of the write did not hold.
    #[error("the key holds another version than the condition names")]
    VersionMismatch {
        /// Context of what was found.
        found: CausalContext,
    },
    /// The key holds too many siblings for another one.
    #[error("key holds {siblings} siblings, at most {limit} before they must be resolved")]
    TooManySiblings {
        /// How many it holds.
        siblings: usize,
        /// The limit.
        limit: usize,
    },
    /// A queue of the core is full.
    #[error("overloaded: {what} is full")]
    Overloaded {
        /// Which queue.
        what: String,
    },
    /// The disk has no room.
    #[error("the disk is full")]
    DiskFull,
    /// An argument is out of its limits.
    #[error("{what} of {found} exceeds {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// An argument makes no sense.
    #[error("{message}")]
    InvalidArgument {
        /// What is wrong with which argument.
        message: String,
    },
    /// The op id was used for another key before.
    #[error("operation {op_id} was used for another key")]
    OpIdReused {
        /// The op id.
        op_id: OpId,
    },
    /// No keyspace of that name or id.
    #[error("keyspace is not known")]
    KeyspaceNotFound,
    /// A keyspace of that name exists.
    #[error("keyspace exists already")]
    KeyspaceExists,
    /// Stored bytes are damaged.
    #[error("stored data is damaged: {detail}")]
    Corruption {
        /// Where, and how it shows.
        detail: String,
    },
    /// A durable write failed; the node stops serving.
    #[error("the store failed a write and stopped")]
    Poisoned,
    /// The node has not been admitted to the cluster yet.
    #[error("the node is not a member of the cluster yet")]
    NotAdmitted,
    /// The shard's store is an old copy: it takes no writes until it has a new incarnation (protocol rule 5).
    #[error("the shard was restored from an old copy and waits for a new incarnation")]
    Quarantined,
    /// The zone has lost its disks, and does not have back what the keyspace had acknowledged. Another zone may serve; of a
    /// snapshot keyspace none does until a mirror is promoted. No effect.
    #[error(
        "the zone lost its disks and has not got the data of this shard back from another zone"
    )]
    DiskLost,
    /// The keyspace is being altered and this part of it has handed over, or has moved already. No effect; a moment later it
    /// is served where it went.
    #[error("the keyspace is moving to another mode")]
    KeyspaceMoving,
    /// A transaction met another one, or what it had read has changed. No effect; it may be tried from its beginning.
    #[error("transaction conflict: {what}")]
    Conflict {
        /// What it met.
        what: String,
    },
    /// A view is not open here any more, or could not be opened. What was read from it before stays true.
    #[error("the view is not open")]
    ViewLost,
    /// Somebody else holds the lease. No effect.
    #[error("the lease is held by another")]
    LeaseHeld,
    /// The lease stands no longer, or under another token: whoever asked does not hold it. No effect.
    #[error("the lease is lost")]
    LeaseLost,
    /// The lease that a write was to be attached to does not stand. No effect.
    #[error("no such lease")]
    LeaseNotFound,
    /// The replica is behind the session's token or older than the bound. No effect.
    #[error("the replica is behind{}", behind(*behind_ms))]
    Stale {
        /// How old its data may be, if that is known.
        behind_ms: Option<u64>,
        /// A node that is further, if one was asked for and is known.
        node: Option<NodeId>,
    },
    /// The session has seen writes that are lost.
    #[error("the session has seen writes that are lost")]
    SessionLost,
    /// Fewer zones are there than were asked for, or than have to have a write. No effect: nothing was proposed.
    #[error("{} zones are there of {need} wanted", zones.len())]
    ZonesShort {
        /// Those that are.
        zones: Vec<ZoneId>,
        /// How many are wanted.
        need: u16,
    },
    /// Fewer zones than the level asks for have the write in time. It stands, and reaches the others later.
    #[error("the write {dot} is in {} zones in time, of {need} asked for; it stands", zones.len())]
    LevelNotReached {
        /// The write.
        dot: Dot,
        /// The zones that hold it durably.
        zones: Vec<ZoneId>,
        /// How many were asked for.
        need: u16,
        /// The op id, with which a retry waits for the same write.
        op_id: OpId,
    },
    /// The keyspace's mode, or the kind of request, does not offer the level. No effect.
    #[error("level {level} is not offered")]
    LevelUnsupported {
        /// Which level, of what.
        level: String,
    },
    /// Another zone is further behind than the keyspace allows. No effect.
    #[error("another zone is {lag_ms} ms behind, which is more than the keyspace allows")]
    RateLimited {
        /// When it may be tried again.
        retry_after_ms: u64,
        /// How far the zone is behind.
        lag_ms: u64,
    },
    /// The keyspace takes this in its home zone only; here is a mirror.
    #[error("the home zone of the keyspace is {home}")]
    NotHomeZone {
        /// Its name.
        home: String,
        /// Where a node of it takes clients.
        addr: String,
    },
}

/// How far a replica is behind, in words.
fn behind(behind_ms: Option<u64>) -> String {
    behind_ms.map_or_else(String::new, |ms| format!(" by up to {ms} ms"))
}

impl Error {
    /// Stable name of the error on the wire (design, section 6).
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotLeader { .. } => "NOT_LEADER",
            Self::NoQuorum => "NO_QUORUM",
            Self::OutcomeUnknown { .. } => "OUTCOME_UNKNOWN",
            Self::DeadlineExceeded { .. } => "DEADLINE_EXCEEDED",
            Self::VersionMismatch { .. } => "VERSION_MISMATCH",
            Self::TooManySiblings { .. } => "TOO_MANY_SIBLINGS",
            Self::Overloaded { .. } => "OVERLOADED",
            Self::DiskFull => "DISK_FULL",
            Self::TooLarge { .. } => "TOO_LARGE",
            Self::InvalidArgument { .. } => "INVALID_ARGUMENT",
            Self::OpIdReused { .. } => "OP_ID_REUSED",
            Self::KeyspaceNotFound => "KEYSPACE_NOT_FOUND",
            Self::KeyspaceExists => "KEYSPACE_EXISTS",
            Self::Corruption { .. } => "CORRUPTION",
            Self::Poisoned => "POISONED",
            Self::NotAdmitted => "NOT_ADMITTED",
            Self::Quarantined => "QUARANTINED",
            Self::DiskLost => "DISK_LOST",
            Self::KeyspaceMoving => "KEYSPACE_MOVING",
            Self::Conflict { .. } => "CONFLICT",
            Self::ViewLost => "VIEW_LOST",
            Self::LeaseHeld => "LEASE_HELD",
            Self::LeaseLost => "LEASE_LOST",
            Self::LeaseNotFound => "LEASE_NOT_FOUND",
            Self::Stale { .. } => "STALE",
            Self::SessionLost => "SESSION_LOST",
            Self::ZonesShort { .. } => "ZONES_SHORT",
            Self::LevelNotReached { .. } => "LEVEL_NOT_REACHED",
            Self::LevelUnsupported { .. } => "LEVEL_UNSUPPORTED",
            Self::RateLimited { .. } => "RATE_LIMITED",
            Self::NotHomeZone { .. } => "NOT_HOME_ZONE",
        }
    }

    /// Whether the operation may have taken effect.
    pub const fn effect(&self) -> EffectOf {
        match self {
            Self::OutcomeUnknown { .. } | Self::Poisoned => EffectOf::Unknown,
            Self::DeadlineExceeded { effect } => *effect,
            Self::LevelNotReached { .. } => EffectOf::Applied,
            Self::NotLeader { .. }
            | Self::NoQuorum
            | Self::VersionMismatch { .. }
            | Self::TooManySiblings { .. }
            | Self::Overloaded { .. }
            | Self::DiskFull
            | Self::TooLarge { .. }
            | Self::InvalidArgument { .. }
            | Self::OpIdReused { .. }
            | Self::KeyspaceNotFound
            | Self::KeyspaceExists
            | Self::Corruption { .. }
            | Self::NotAdmitted
            | Self::Quarantined
            | Self::DiskLost
            | Self::KeyspaceMoving
            | Self::Conflict { .. }
            | Self::ViewLost
            | Self::LeaseHeld
            | Self::LeaseLost
            | Self::LeaseNotFound
            | Self::NotHomeZone { .. }
            | Self::Stale { .. }
            | Self::SessionLost
            | Self::ZonesShort { .. }
            | Self::LevelUnsupported { .. }
            | Self::RateLimited { .. } => EffectOf::None,
        }
    }

    /// Whether the same request, sent again with the same op id, may succeed.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::NotLeader { .. }
            | Self::NoQuorum
            | Self::OutcomeUnknown { .. }
            | Self::DeadlineExceeded { .. }
            | Self::Overloaded { .. }
            | Self::NotAdmitted
            | Self::Quarantined
            | Self::DiskLost
            | Self::KeyspaceMoving
            | Self::Stale { .. }
            | Self::RateLimited { .. } => true,
            Self::VersionMismatch { .. }
            // The zones come back when they do; nobody should wait for it unasked.
            | Self::ZonesShort { .. }
            // The write stands.
            | Self::LevelNotReached { .. }
            | Self::TooManySiblings { .. }
            | Self::DiskFull
            | Self::TooLarge { .. }
            | Self::InvalidArgument { .. }
            | Self::OpIdReused { .. }
            | Self::KeyspaceNotFound
            | Self::KeyspaceExists
            | Self::Corruption { .. }
            | Self::Poisoned
            // The same request would meet the same: it is the transaction that is to be begun anew.
            | Self::Conflict { .. }
            | Self::ViewLost
            // Whoever wants to wait for a lease says so in the request.
            | Self::LeaseHeld
            | Self::LeaseLost
            | Self::LeaseNotFound
            | Self::NotHomeZone { .. }
            | Self::SessionLost
            | Self::LevelUnsupported { .. } => false,
        }
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::DiskFull { .. } => Self::DiskFull,
            StorageError::Corruption { detail } | StorageError::Format { detail } => {
                Self::Corruption { detail }
            }
            StorageError::Io { .. } | StorageError::Poisoned | StorageError::Locked { .. } => {
                Self::Poisoned
            }
        }
    }
}

/// Why a core could not be opened.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum OpenError {
    /// The store belongs to another node or cluster.
    #[error(
        "the store belongs to node {node} of cluster {cluster:?}, not to node {wanted_node} of {wanted_cluster:?}"
    )]
    ForeignStore {
        /// The cluster it belongs to.
        cluster: String,
        /// The node it belongs to.
        node: NodeId,
        /// The cluster configured.
        wanted_cluster: String,
        /// The node configured.
        wanted_node: NodeId,
    },
    /// The configuration makes no sense.
    #[error("{message}")]
    Config {
        /// What is wrong.
        message: String,
    },
    /// What is stored does not read.
    #[error("{0}")]
    Store(#[from] Error),
}
