//! What nodes say to one another. Links may lose, repeat, delay and reorder any of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use meridian_causal::{Incarnation, VersionVector};
use raft::eraftpb;

use crate::command::Effect;
use crate::error::Error;
use crate::ids::{Generation, GroupId, NodeId, RequestId, ShardId, Side};
use crate::request::{Request, Response};

/// One message from node to node.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerMessage {
    /// A message of consensus inside a group.
    Raft {
        /// The group.
        group: GroupId,
        /// The message; `from` and `to` are [`ReplicaId`](crate::ids::ReplicaId)s.
        message: Box<eraftpb::Message>,
    },
    /// A request whose leader is (thought to be) at the receiver. Never forwarded again.
    Forward {
        /// The sender's number for it.
        id: RequestId,
        /// Milliseconds left to its deadline when it was sent.
        deadline_ms: u64,
        /// The request.
        request: Box<Request>,
    },
    /// The answer to a [`PeerMessage::Forward`].
    Forwarded {
        /// The number given in the question.
        id: RequestId,
        /// The answer.
        result: Box<Result<Response, Error>>,
    },
    /// Between the groups of one shard in two zones, or of a keyspace and its successor.
    Exchange {
        /// The shard.
        shard: ShardId,
        /// The end that speaks.
        from: Side,
        /// The end meant; a node of it that does not lead the group passes it to the leader once.
        to: Side,
        /// The node to answer: the leader that wrote this.
        reply_to: NodeId,
        /// It was passed on once.
        passed: bool,
        /// What is said.
        body: Exchange,
    },
    /// Transfer of a group image (what Raft calls a snapshot).
    Image {
        /// The group.
        group: GroupId,
        /// What is said.
        body: Image,
    },
    /// Who am I to you?
    Admission(Admission),
}

/// The exchange protocol, receiver-driven: see `docs/exchange.md`.
#[derive(Clone, Debug, PartialEq)]
pub enum Exchange {
    /// From the receiver: what it holds and wants. Opens, acknowledges and rewinds.
    Subscribe {
        /// The vector of the receiving shard, gapless and durable.
        received: VersionVector,
        /// What the group of each zone is known to have received, by the incarnation of that group (which names the
        /// zone), so that what a wiped zone once held does not count for its successor.
        known: BTreeMap<Incarnation, VersionVector>,
        /// Incarnations to relay beside the sender's own.
        relay: Vec<Incarnation>,
        /// Forget what was sent beyond `received`: it did not arrive.
        rewind: bool,
        /// Identity of the receiving group's data: acknowledgements of another identity do not count.
        incarnation: Incarnation,
    },
    /// From the sender: effects of `incarnation` with counters `first, first + 1, …`.
    Effects {
        /// Whose effects.
        incarnation: Incarnation,
        /// Counter of the first.
        first: u64,
        /// The effects.
        effects: Vec<Effect>,
        /// What the sender's shard has received.
        received: VersionVector,
    },
    /// From the sender: effects the receiver lacks are no longer kept; compare instead.
    MustCompare,
    /// From the receiver: open a view to compare with.
    CompareOpen {
        /// Names the comparison.
        session: u64,
    },
    /// From the sender: the view is open.
    CompareOpened {
        /// Names the comparison.
        session: u64,
        /// What the view had received.
        snapshot: VersionVector,
    },
    /// From the receiver: hashes of ranges, please.
    CompareHashes {
        /// Names the comparison.
        session: u64,
        /// First key.
        from: Bytes,
    },
    /// From the sender: consecutive ranges from `from` on.
    CompareRanges {
        /// Names the comparison.
        session: u64,
        /// First key of the first range.
        from: Bytes,
        /// End of each range (exclusive; the last may be empty: to the end of the shard) and the hash of its live
        /// content.
        ranges: Vec<(Bytes, u128)>,
    },
    /// From the receiver: this range differs; its states, please.
    CompareFetch {
        /// Names the comparison.
        session: u64,
        /// First key.
        from: Bytes,
        /// End, exclusive; empty: to the end of the shard.
        to: Bytes,
    },
    /// From the sender: whole key states of `[from, to)`, where `to` may be before the end asked for.
    CompareStates {
        /// Names the comparison.
        session: u64,
        /// First key.
        from: Bytes,
        /// End of what is answered.
        to: Bytes,
        /// Keys and encoded sibling sets.
        states: Vec<(Bytes, Bytes)>,
    },
    /// From the receiver: operations that the view remembers, please, of those whose effects the receiver lacks. States do not
    /// tell them all: of a version that was replaced nothing is left there.
    CompareRecall {
        /// Names the comparison.
        session: u64,
        /// Where to begin, as an answer said, or empty: at the first.
        from: Bytes,
        /// What the receiver has.
        received: VersionVector,
    },
    /// From the sender: operations that the view remembers.
    CompareRecalled {
        /// Names the comparison.
        session: u64,
        /// As asked.
        from: Bytes,
        /// Where to go on; empty: these were the last.
        next: Bytes,
        /// Stamps below this are forgotten there.
        floor_ms: u64,
        /// Op ids and what they did.
        operations: Vec<(Bytes, Bytes)>,
    },
    /// From the sender: it does not know the session (any more); open another.
    CompareLost {
        /// Names the comparison.
        session: u64,
    },
}

/// Transfer of a group image: the follower pulls pages from a view its leader holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Image {
    /// From the follower: the page after `after`.
    Fetch {
        /// Which image.
        image: u64,
        /// Last key received; empty at the start.
        after: Bytes,
    },
    /// From the leader: records in key order.
    Page {
        /// Which image.
        image: u64,
        /// The question this answers.
        after: Bytes,
        /// Keys (as stored) and values.
        records: Vec<(Bytes, Bytes)>,
        /// The image is complete with this page.
        done: bool,
    },
    /// From the leader: no such image (any more).
    Lost {
        /// Which image.
        image: u64,
    },
}

/// How a node with an empty store learns whether it may found the cluster or was wiped, and how the control group
/// learns every node's store. See `admission`.
#[derive(Clone, Debug, PartialEq)]
pub enum Admission {
    /// Who the sender is. The receiver stores it before it answers.
    Hello {
        /// Name of the cluster.
        cluster: String,
        /// Random identity of the sender's store.
        store: u128,
        /// What the sender takes itself for.
        standing: Standing,
    },
    /// What the receiver knows of the sender.
    Known {
        /// The question's `store`.
        store: u128,
        /// The first store the receiver ever heard of for the sender; the question's own if it had heard of none.
        on_record: u128,
        /// The life of the sender's storage, if the receiver's catalog has the store asked about.
        admitted: Option<Generation>,
    },
}

/// What a node takes itself for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its store is empty, and it asks whether it ever was another.
    Asking,
    /// Its store is empty and the cluster knew it with another one.
    Wiped,
    /// It is a member.
    Member,
}
