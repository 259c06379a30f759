//! What a core hands to its driver.

use std::sync::Arc;

use bytes::Bytes;
use meridian_causal::{Dot, OpId};
use meridian_storage::{Batch, Durability, Read, View};

use crate::catalog::Catalog;
use crate::error::Error;
use crate::ids::{GroupId, KeyspaceId, NodeId, RequestId};
use crate::levels::ShownOf;
use crate::message::PeerMessage;
use crate::mirror::{self, MirrorStamp};
use crate::read;
use crate::request::{Answer, Query, Request, Response};
use crate::transaction::TransactionId;
use crate::workspace::Workspace;

/// What goes into a core.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed; sent every [`tick_ms`](crate::config::Timing::tick_ms).
    Tick,
    /// A message from another node.
    Peer {
        /// The node that sent it.
        from: NodeId,
        /// The message.
        message: PeerMessage,
    },
    /// A request of a client or operator.
    Request {
        /// The driver's number for it.
        id: RequestId,
        /// Monotonic time after which the answer is of no use.
        deadline_ns: u64,
        /// The request.
        request: Request,
    },
    /// The catalog as core 0 has it; for the other cores of the node.
    Catalog(Arc<Catalog>),
    /// The disk has (or has no longer) too little room: client writes are refused before they are proposed, what
    /// replication and exchange need goes on in the reserve.
    Disk {
        /// Too little room.
        full: bool,
    },
}

/// What comes out of a core. The driver takes everything out after each turn.
#[derive(Debug, Default)]
pub struct Outputs {
    /// To other nodes, in order per node.
    pub messages: Vec<(NodeId, PeerMessage)>,
    /// Answers. Those to writes appear only after what they promise is durable (invariant 9).
    pub replies: Vec<(RequestId, Result<Response, Error>)>,
    /// Reads that may now be served with [`serve`](crate::read::serve) from the engine as it is now or later.
    pub reads: Vec<ReleasedRead>,
    /// The catalog changed; for the other cores and the shell.
    pub catalog: Option<Arc<Catalog>>,
    /// For checkers; empty unless the core was told to observe.
    pub observations: Vec<Observation>,
    /// For the log.
    pub notices: Vec<Notice>,
    /// Answers that the core has given itself; never left to the driver.
    pub(crate) inner: Vec<(RequestId, Result<Response, Error>)>,
    /// Groups with changes that watchers have not been shown, once the turn is written.
    pub changed: Vec<GroupId>,
}

/// A read that may be served from now on.
#[derive(Clone, Debug)]
pub struct ReleasedRead {
    /// The driver's number for it.
    pub id: RequestId,
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// What is read.
    pub query: Query,
    /// The state to read, where the engine's own of a later time would not do.
    pub pinned: Option<Pinned>,
    /// What the group had applied of its log when it released the read; 0 for a view's.
    pub(crate) applied: u64,
    /// What is said of the state beside the answer, if it is to be [`Answer::Shown`].
    pub(crate) shown: Option<ShownOf>,
    /// The generation of a mirror that is read.
    pub(crate) mirror: Option<MirrorStamp>,
}

impl ReleasedRead {
    /// A read of a generation that a mirror holds.
    pub(crate) fn of_mirror(
        id: RequestId,
        (keyspace, query): (KeyspaceId, Query),
        pinned: Pinned,
        stamp: MirrorStamp,
    ) -> Self {
        Self {
            id,
            keyspace,
            query,
            pinned: Some(pinned),
            applied: 0,
            shown: None,
            mirror: Some(stamp),
        }
    }

    /// Serves it: from the pinned state, or from the engine as it is now. `shards` is how many the keyspace has.
    pub fn serve(&self, engine: &dyn Read, shards: u16) -> Result<Answer, Error> {
        if let (Some(stamp), Some(pinned)) = (self.mirror, &self.pinned) {
            let of = (self.keyspace, shards);
            return mirror::serve(&*pinned.view, of, &self.query, stamp);
        }
        let answer = match &self.pinned {
            Some(pinned) => pinned.serve(self.keyspace, shards, &self.query),
            None => read::serve(engine, self.keyspace, shards, &self.query),
        };
        let answer = answer.map(|answer| answer.held_through(self.applied))?;
        match (&self.shown, &self.pinned) {
            (None, _) => Ok(answer),
            (Some(shown), Some(pinned)) => shown.around(answer, &*pinned.view),
            (Some(shown), None) => shown.around(answer, engine),
        }
    }
}

/// A state of the engine that does not change, and records that count instead of its own.
#[derive(Clone)]
pub struct Pinned {
    pub(crate) view: Arc<dyn View>,
    /// Of transactions that belong to this state and were resolved after it was taken.
    pub(crate) over: Vec<(Bytes, Option<Bytes>)>,
}

impl Pinned {
    /// A state as it is.
    pub(crate) fn of(view: Box<dyn View>) -> Self {
        Self {
            view: Arc::from(view),
            over: Vec::new(),
        }
    }

    /// Whether records count instead of the state's own.
    pub(crate) fn is_overlaid(&self) -> bool {
        !self.over.is_empty()
    }

    pub(crate) fn serve(
        &self,
        keyspace: KeyspaceId,
        shards: u16,
        query: &Query,
    ) -> Result<Answer, Error> {
        self.read(|state| read::serve(state, keyspace, shards, query))
    }

    /// Reads from it.
    pub(crate) fn read<T>(
        &self,
        act: impl FnOnce(&dyn Read) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.over.is_empty() {
            return act(&*self.view);
        }
        let mut state = Workspace::new(&*self.view, false);
        for (key, record) in &self.over {
            match record {
                Some(record) => state.put(key.clone(), record.clone()),
                None => state.delete(key.clone()),
            }
        }
        act(&state)
    }
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned")
            .field("over", &self.over.len())
            .finish_non_exhaustive()
    }
}

/// What the driver must write, whole, before it calls [`Core::wrote`](crate::Core::wrote).
#[derive(Debug)]
pub struct Turn {
    /// The writes of all groups of this turn.
    pub batch: Batch,
    /// Whether it must be on disk before `wrote`.
    pub durability: Durability,
}

/// What a checker may want to know of the inside.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// An entry was applied on this replica.
    Applied {
        /// The group.
        group: GroupId,
        /// The entry's index.
        index: u64,
        /// Hash over everything the entry wrote: the same on every replica (invariant 10).
        writes_hash: u64,
    },
    /// A write took effect, here first or received.
    Effect {
        /// The group.
        group: GroupId,
        /// The entry's index.
        index: u64,
        /// Its dot.
        dot: Dot,
        /// The key.
        key: Bytes,
        /// Its op id.
        op_id: Option<OpId>,
    },
    /// A transaction over several shards, or a view, has come to a stage here.
    Stage {
        /// The attempt; 0 for a view.
        id: TransactionId,
        /// Where it stands.
        stage: Stage,
    },
    /// An entry is in the log of this replica of a group that spans zones, durably.
    Durable {
        /// The group.
        group: GroupId,
        /// The entry's index.
        index: u64,
        /// The entry's term.
        term: u64,
    },
    /// A key's record was written by an entry on this replica.
    Stored {
        /// The group.
        group: GroupId,
        /// The entry's index.
        index: u64,
        /// The key.
        key: Bytes,
        /// Digest of what it holds live; `None`: nothing.
        live: Option<[u8; 16]>,
    },
    /// A group's part of a view was taken here.
    Pinned {
        /// The view.
        view: u64,
        /// The group.
        group: GroupId,
        /// What it had applied.
        index: u64,
    },
    /// This replica became leader.
    Leads {
        /// The group.
        group: GroupId,
        /// The term.
        term: u64,
    },
}

/// Points of a transaction over several shards, and of the opening of a view, at which a node may die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The coordinator has begun; no prepare has left.
    Began,
    /// A participant applies a prepare.
    Prepared,
    /// The coordinator has a vote, and waits for others.
    Voted,
    /// The coordinator has all votes; the decision is not in the log.
    Deciding,
    /// The anchor applies the decision; nobody was told.
    Decided,
    /// The decision is written; the client and the participants are being told.
    Told,
    /// A participant applies a resolution.
    Resolved,
    /// Every participant has followed; the decision is not forgotten.
    Followed,
    /// The anchor applies the forgetting.
    Forgotten,
    /// The coordinator gives an attempt up; participants are being told.
    Aborted,
    /// A participant asks what became of a transaction.
    Inquired,
    /// A core has taken its part of a view and holds back what its groups say.
    Pinned,
    /// All parts of a view are taken, nobody was told.
    AllPinned,
    /// Pages of a mirror are written.
    MirrorPage,
    /// The pointer of a mirror is written.
    MirrorFlipped,
}

impl Stage {
    /// All stages.
    pub const ALL: [Self; 15] = [
        Self::Began,
        Self::Prepared,
        Self::Voted,
        Self::Deciding,
        Self::Decided,
        Self::Told,
        Self::Resolved,
        Self::Followed,
        Self::Forgotten,
        Self::Aborted,
        Self::Inquired,
        Self::Pinned,
        Self::AllPinned,
        Self::MirrorPage,
        Self::MirrorFlipped,
    ];
}

/// Something an operator may want to read in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A group has a new leader.
    Leader {
        /// The group.
        group: GroupId,
        /// The leader, `None` when it was lost.
        leader: Option<NodeId>,
        /// The term.
        term: u64,
    },
    /// This node's store was found to be another one than the cluster knows.
    Wiped,
    /// The node is a member.
    Admitted,
    /// The cluster file differs from the catalog in this.
    SeedDiffers {
        /// The difference, in words.
        difference: String,
    },
    /// A shard began to catch up by comparing.
    Comparing {
        /// The group.
        group: GroupId,
    },
    /// A shard has caught up by comparing.
    Compared {
        /// The group.
        group: GroupId,
    },
    /// A group image was installed.
    ImageInstalled {
        /// The group.
        group: GroupId,
        /// Its index.
        index: u64,
    },
    /// Stored or received bytes made no sense; what was done instead.
    Damaged {
        /// What and where.
        detail: String,
    },
}
