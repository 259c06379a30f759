//! What the driver may ask of a core, and what it is answered.

use bytes::Bytes;
use meridian_causal::{CausalContext, Content, Dot, Incarnation, OpId, SiblingSet, ZoneId};
use serde::{Deserialize, Serialize};

use crate::catalog::{AlterReport, Catalog, Policy, PolicyChange};
use crate::command::WriteIntent;
use crate::ids::{GroupId, KeyspaceId, NodeId, ShardId};
use crate::inner::{InnerRequest, InnerResponse};
use crate::keys::{LeaseRecord, ReturnedCounts, ReturnedWrite};
use crate::lease::{Holding, LeaseAcquire, LeaseRef};
pub use crate::levels::{Held, OnBehind, Session, Shown};
use crate::mirror::{MirrorStamp, MirrorStatus, MirrorWant};
use crate::transaction::{Compare, OpenView, Stamp, Transacted, Transaction};

/// A request to a core. Any node takes any request; a core that is not the leader forwards it once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// A put or delete.
    Write(Write),
    /// A read of one shard.
    Read(Read),
    /// Creates a keyspace (control group).
    KeyspaceCreate(Box<KeyspaceCreate>),
    /// Alters how a keyspace is replicated (control group).
    KeyspaceAlter(Box<KeyspaceAlter>),
    /// What a group tells of its part in an alter (control group). From core to core, never from a driver.
    AlterReport {
        /// The group.
        group: GroupId,
        /// What it tells.
        report: AlterReport,
        /// A node that does not lead the control group has passed it on.
        passed: bool,
    },
    /// Deletes a keyspace and all its data (control group).
    KeyspaceDelete {
        /// Its name.
        name: String,
    },
    /// How far other zones are behind this one, for the shards this core leads or, forwarded, their leaders.
    Lag {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The shard.
        shard: ShardId,
    },
    /// Groups this core holds. Answered at once, never forwarded.
    Groups,
    /// A new incarnation for a group in quarantine (control group). From core to core, never from a driver.
    Reincarnate {
        /// The group.
        group: GroupId,
        /// The one it is to replace; no effect if the catalog has another one by now.
        incarnation: Incarnation,
        /// A node that does not lead the control group has passed it on.
        passed: bool,
    },
    /// A transaction, sent to the shard that decides ([`Transaction::anchor`]).
    Transact(Box<Transaction>),
    /// Opens a view of all shards of a keyspace at one point in time. Answered by the core that takes it, never
    /// forwarded. Shards of this zone only.
    ViewOpen {
        /// The keyspace.
        keyspace: KeyspaceId,
    },
    /// The view is no longer needed. Never fails; a view that is not closed is closed after its time.
    ViewClose {
        /// The view.
        view: OpenView,
    },
    /// From core to core, never from a driver.
    Inner(Box<InnerRequest>),
    /// Takes a lease, or waits for it until shortly before the deadline.
    LeaseAcquire(LeaseAcquire),
    /// Gives a lease its full time again, from now on. Writes nothing.
    LeaseRenew {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The lease.
        lease: LeaseRef,
    },
    /// Gives a lease up.
    LeaseEnd {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The lease.
        lease: LeaseRef,
    },
    /// A put whose version vanishes with a lease.
    LeasedWrite {
        /// The lease.
        lease: LeaseRef,
        /// The write.
        write: Write,
    },
    /// A put or delete that is acknowledged when so many zones hold it durably, the one that takes it among them.
    WriteAt {
        /// The write.
        write: Write,
        /// How many zones.
        zones: u16,
    },
    /// Something that may be forwarded to the home zone of a keyspace, from a zone that has a mirror only. Without it such
    /// a request is refused there with [`NotHomeZone`](crate::Error::NotHomeZone).
    AtHome(Box<Request>),
    /// Something about a keyspace's mirrors.
    Mirrors {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// What.
        want: MirrorWant,
    },
}

impl Request {
    /// The shard whose core takes it; those of the control group and of the node as a whole are on the first core.
    pub fn shard(&self, catalog: &Catalog) -> ShardId {
        let of = |keyspace: KeyspaceId, key: &[u8]| {
            let keyspace = catalog.keyspaces.get(&keyspace);
            keyspace.map_or(ShardId(0), |keyspace| keyspace.shard_of(key))
        };
        match self {
            Self::Write(write) => of(write.keyspace, &write.key),
            Self::Read(read) => match &read.query {
                Query::Get { key } | Query::Examine { key } => of(read.keyspace, key),
                Query::Scan { shard, .. }
                | Query::Digest { shard }
                | Query::Range { shard, .. }
                | Query::Validate { shard, .. }
                | Query::Leases { shard, .. }
                | Query::Returned { shard, .. } => *shard,
            },
            Self::Lag { shard, .. } => *shard,
            Self::AtHome(inner) => inner.shard(catalog),
            Self::Inner(inner) => inner.place().1,
            Self::Transact(transaction) => transaction.anchor(|key| of(transaction.keyspace, key)),
            Self::KeyspaceCreate(_)
            | Self::KeyspaceAlter(_)
            | Self::AlterReport { .. }
            | Self::KeyspaceDelete { .. }
            | Self::Reincarnate { .. }
            | Self::ViewOpen { .. }
            | Self::ViewClose { .. }
            | Self::Mirrors { .. }
            | Self::Groups => ShardId(0),
            Self::LeaseAcquire(acquire) => of(acquire.keyspace, &acquire.name),
            Self::LeaseRenew { keyspace, lease } | Self::LeaseEnd { keyspace, lease } => {
                of(*keyspace, &lease.name)
            }
            Self::LeasedWrite { write, .. } | Self::WriteAt { write, .. } => {
                of(write.keyspace, &write.key)
            }
        }
    }
}

/// A put or delete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Write {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The key.
    pub key: Bytes,
    /// The value, or a tombstone for a delete.
    pub content: Content,
    /// What it replaces, and on which condition.
    pub intent: WriteIntent,
    /// Makes retries take effect once.
    pub op_id: OpId,
    /// Absolute wall-clock milliseconds at which the version expires.
    pub expires_at_ms: Option<u64>,
}

/// A keyspace that is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceCreate {
    /// Its name.
    pub name: String,
    /// Its shards; `None` for the default.
    pub shards: Option<u16>,
    /// How it is replicated.
    pub policy: Policy,
    /// The zone of the node that was asked.
    pub near: ZoneId,
}

/// A change of how a keyspace is replicated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceAlter {
    /// Its name.
    pub name: String,
    /// What is asked for.
    pub ask: AlterAsk,
    /// The zone of the node that was asked.
    pub near: ZoneId,
}

/// What is asked for a keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlterAsk {
    /// That its policy be different.
    Change(PolicyChange),
    /// That an alter or a promotion that has not come to its end be given up.
    Cancel,
    /// That the mirror in a zone become the home zone, without the old one.
    Promote {
        /// The zone.
        zone: ZoneId,
        /// Though the old home zone is not known to have stopped.
        force: bool,
    },
    /// That the last writes of a deposed home zone be waited for no longer. What has not come of them is lost.
    GiveUpReturn,
}

/// A read of one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Read {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// How fresh the answer must be.
    pub level: ReadLevel,
    /// What is read.
    pub query: Query,
    /// The session it belongs to: then the answer is [`Answer::Shown`].
    pub session: Option<Box<Session>>,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadLevel {
    /// Reflects every write of the zone acknowledged before the read began.
    Linearizable,
    /// Whatever the replica at hand holds; in a mirror zone, the generation that is shown.
    Eventual,
    /// In a mirror zone, this generation and no other.
    Mirror {
        /// Its number in the zone.
        generation: u64,
    },
    /// The state of a view that was opened before.
    View {
        /// The view.
        id: u64,
        /// The node that holds this shard's part of it.
        node: NodeId,
    },
    /// From any replica that has received what [`Read::session`] names. Answered with [`Answer::Shown`].
    Session,
    /// From any replica that surely lacks nothing that was acknowledged longer ago than this, in whatever zone. Answered
    /// with [`Answer::Shown`]. In a mirror zone, from the mirror if its cut is no older.
    Bounded {
        /// Milliseconds.
        max_age_ms: u64,
    },
    /// What so many zones hold, merged. Answered with [`Answer::Shown`].
    Zones {
        /// How many.
        count: u16,
    },
}

/// What is read from one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// One key: answered with [`Answer::Key`].
    Get {
        /// The key.
        key: Bytes,
    },
    /// Keys of one shard in order: answered with [`Answer::Page`].
    Scan {
        /// The shard.
        shard: ShardId,
        /// First key, inclusive.
        from: Bytes,
        /// End, exclusive; `None`: to the end.
        to: Option<Bytes>,
        /// Most keys answered.
        limit: usize,
        /// Which keys.
        filter: Filter,
        /// Whether values are left out.
        keys_only: bool,
    },
    /// Hash over live content of one shard: answered with [`Answer::Digest`].
    Digest {
        /// The shard.
        shard: ShardId,
    },
    /// One key, with the stamp by which a transaction may check that it did not change: answered with
    /// [`Answer::Examined`].
    Examine {
        /// The key.
        key: Bytes,
    },
    /// Live keys of one shard in order, with a stamp over all of them: answered with [`Answer::Range`].
    Range {
        /// The shard.
        shard: ShardId,
        /// First key, inclusive.
        from: Bytes,
        /// End, exclusive; `None`: to the end.
        to: Option<Bytes>,
        /// Most keys answered.
        limit: usize,
    },
    /// Whether comparisons of one shard hold now: answered with [`Answer::Holds`].
    Validate {
        /// The shard.
        shard: ShardId,
        /// The comparisons.
        compare: Vec<Compare>,
    },
    /// What is known of leases of one shard: answered with [`Answer::Leases`].
    Leases {
        /// The shard of the names.
        shard: ShardId,
        /// The names.
        names: Vec<Bytes>,
    },
    /// Writes of a deposed home zone that have come back to one shard: answered with [`Answer::Returned`].
    Returned {
        /// The shard.
        shard: ShardId,
        /// First key.
        from: Bytes,
    },
}

/// Which keys a scan answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filter {
    /// Keys with a live version.
    Live,
    /// Keys in conflict.
    Conflicts,
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// The sibling set of the key; empty when absent.
    Key(SiblingSet),
    /// Sorted keys with their sets. With `keys_only` the values are empty.
    Page {
        /// Keys and their sets.
        keys: Vec<(Bytes, SiblingSet)>,
        /// More keys may follow the last one.
        more: bool,
    },
    /// The shard's digest.
    Digest(ShardDigest),
    /// The sibling set of the key, and its stamp.
    Examined {
        /// The set; empty when absent.
        set: SiblingSet,
        /// Its stamp.
        stamp: Stamp,
        /// An index up to which the set did not change after its stamp: all keys of a shard whose stamps are not above
        /// the smallest of these were so at one time. Zero proves nothing.
        held_through: u64,
    },
    /// Sorted live keys with their sets, and the stamp of `[from, end)`.
    Range {
        /// Keys and their sets.
        keys: Vec<(Bytes, SiblingSet)>,
        /// End of what was read, exclusive; empty: the end asked for was the end of the shard, and was reached.
        end: Bytes,
        /// Hash over keys and stamps.
        stamp: u128,
        /// More keys may follow before the end asked for.
        more: bool,
    },
    /// Whether all comparisons hold.
    Holds(bool),
    /// Per name, the lease that stands.
    Leases(Vec<Option<LeaseRecord>>),
    /// Keys to which writes came back.
    Returned {
        /// Of the whole shard.
        counts: ReturnedCounts,
        /// Keys, sorted.
        rows: Vec<ReturnedRow>,
        /// The key after the last one, if there are more.
        next: Option<Bytes>,
    },
    /// An answer, with what is known of the state it was read from.
    Shown(Box<Shown>),
    /// What a mirror shows.
    Mirrored(Box<Answer>, MirrorStamp),
}

/// A key to which writes of a deposed home zone came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReturnedRow {
    /// The key.
    pub key: Bytes,
    /// The writes, oldest first.
    pub writes: Vec<ReturnedWrite>,
}

impl Answer {
    /// The answer itself, whoever gave it.
    pub fn unwrapped(self) -> Self {
        match self {
            Self::Mirrored(answer, _) => *answer,
            Self::Key(_)
            | Self::Page { .. }
            | Self::Digest(_)
            | Self::Examined { .. }
            | Self::Range { .. }
            | Self::Holds(_)
            | Self::Shown(_)
            | Self::Leases(_)
            | Self::Returned { .. } => self,
        }
    }

    /// Says of an examined key that the state it was read from had applied the log up to `index`, at least.
    pub(crate) fn held_through(mut self, index: u64) -> Self {
        if let Self::Examined { held_through, .. } = &mut self {
            *held_through = index;
        }
        self
    }
}

/// A digest of a shard; shards add up to the keyspace by [`ShardDigest::add`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardDigest {
    /// Sum, modulo 2^128, of a hash of each key with its live content: the same for the same content in any order.
    pub sum: u128,
    /// Keys with a live version.
    pub keys: u64,
    /// Keys in conflict.
    pub conflicts: u64,
}

impl ShardDigest {
    /// The digest of both together.
    pub const fn add(self, other: Self) -> Self {
        Self {
            sum: self.sum.wrapping_add(other.sum),
            keys: self.keys.saturating_add(other.keys),
            conflicts: self.conflicts.saturating_add(other.conflicts),
        }
    }
}

/// What a request is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// The write stands.
    Written(Receipt),
    /// A read that the core served itself (it came forwarded). Reads of the driver come as
    /// [`ReleasedRead`](crate::output::ReleasedRead) instead.
    Read(Answer),
    /// The keyspace now exists.
    KeyspaceCreated(KeyspaceId),
    /// The alter is logged: the keyspace, and the one that is to succeed it, if it needs one.
    KeyspaceAltered {
        /// As it is now.
        keyspace: KeyspaceId,
        /// Takes over in the background.
        successor: Option<KeyspaceId>,
    },
    /// The keyspace is gone.
    KeyspaceDeleted(KeyspaceId),
    /// Lag of each other zone.
    Lag(Vec<ZoneLag>),
    /// Groups of this core.
    Groups(Vec<GroupStatus>),
    /// The transaction stands.
    Transacted(Box<Transacted>),
    /// The view is open.
    ViewOpened(OpenView),
    /// The view is closed, or never was.
    ViewClosed,
    /// From core to core, never to a driver.
    Inner(Box<InnerResponse>),
    /// The lease stands and has its full time from now on.
    LeaseHeld(Holding),
    /// The lease is given up.
    LeaseEnded,
    /// The mirrors of a keyspace.
    Mirror(Box<MirrorStatus>),
    /// What a node shows of a mirrored keyspace; `None` where it serves the keyspace itself.
    MirrorShown(Option<MirrorStamp>),
}

/// The acknowledgement of a write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The dot it got.
    pub dot: Dot,
    /// The context the client may go on with.
    pub context: CausalContext,
    /// The zones that hold it durably.
    pub zones: Vec<ZoneId>,
    /// The op id it was sent with.
    pub op_id: OpId,
    /// An earlier attempt with the same op id had already taken effect.
    pub repeated: bool,
    /// `ack = all` was relaxed to a majority when this was said: zones are missing.
    pub degraded: bool,
}

/// How far a zone is behind this one in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneLag {
    /// The zone that is behind.
    pub to: ZoneId,
    /// Age of the oldest effect of ours it has not acknowledged, in milliseconds; 0 when it has all.
    pub lag_ms: u64,
    /// Effects of ours it has not acknowledged.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a core tells about one of its groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group.
    pub group: crate::ids::GroupId,
    /// Its leader as known here.
    pub leader: Option<NodeId>,
    /// This node leads it.
    pub leads: bool,
    /// Raft term.
    pub term: u64,
    /// Commit index.
    pub commit: u64,
    /// Applied index.
    pub applied: u64,
    /// Entries of log kept.
    pub log_entries: u64,
    /// Bytes of log kept.
    pub log_bytes: u64,
    /// Bytes of effects kept for other zones.
    pub outbox_bytes: u64,
    /// Op ids remembered.
    pub op_ids: u64,
    /// The shard is catching up by comparing.
    pub comparing: bool,
    /// The shard has lost its disk, and does not have back what it had acknowledged.
    pub disk_lost: bool,
    /// Zones without which `ack = all` does for now.
    pub degraded: Vec<ZoneId>,
    /// Age of the oldest effect that some zone lacks, while it is past the keyspace's bound and this node leads.
    pub breach_ms: Option<u64>,
}
