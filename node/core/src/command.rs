//! What stands in the log of a data group: commands, each a list of operations.
//!
//! A command is proposed by a leader and applied by every replica. Everything `apply` may depend on stands in the
//! command or in the shard's state; no clock, no chance (invariant 10).

use bytes::Bytes;
use meridian_causal::{
    CausalContext, Content, Dot, Hlc, Incarnation, OpId, TransactionTag, VersionVector, ZoneId,
};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ids::{NodeId, RequestId};
use crate::record;

/// Version of the stored form of a [`Command`].
pub const COMMAND_FORMAT: u8 = 1;

/// One entry of a data group's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The leader's hybrid time when it proposed this; strictly growing along a log.
    pub hlc: Hlc,
    /// Applied in order, atomically.
    pub ops: Vec<Op>,
}

impl Command {
    /// The bytes that stand in the log: the format, then the command in postcard.
    pub fn encode(&self) -> Vec<u8> {
        let mut entry = Vec::with_capacity(
            self.ops
                .iter()
                .map(Op::encoded_bytes)
                .sum::<usize>()
                .saturating_add(16),
        );
        entry.push(COMMAND_FORMAT);
        record::append(entry, self)
    }

    /// Reads what [`Command::encode`] wrote.
    pub fn decode(entry: &[u8]) -> Result<Self, Error> {
        let damaged = |reason: &dyn std::fmt::Display| Error::Corruption {
            detail: format!("log entry: {reason}"),
        };
        match entry.split_first() {
            Some((&COMMAND_FORMAT, body)) => {
                record::decode_body(body).map_err(|error| damaged(&error))
            }
            Some((format, _)) => Err(damaged(&format!(
                "format {format} is not known, {COMMAND_FORMAT} is"
            ))),
            None => Err(damaged(&"it is empty")),
        }
    }
}

impl Op {
    /// About how many bytes it takes in the log: what an entry is filled by.
    pub fn encoded_bytes(&self) -> usize {
        const FIXED: usize = 64;
        let keyed = |key: &Bytes, content: &Content| {
            FIXED + key.len() + content.value().map_or(0, Bytes::len)
        };
        match self {
            Self::Write(write) => keyed(&write.key, &write.content),
            Self::Merge { effects, .. } => {
                FIXED
                    + effects
                        .iter()
                        .map(|effect| FIXED + keyed(&effect.key, &effect.content))
                        .sum::<usize>()
            }
            Self::CompareJoin { states, .. } => {
                FIXED
                    + states
                        .iter()
                        .map(|(key, set)| key.len() + set.len() + 8)
                        .sum::<usize>()
            }
            Self::DropTombstones { keys } => {
                FIXED
                    + keys
                        .iter()
                        .map(|(key, dots)| key.len() + 8 + 16 * dots.len())
                        .sum::<usize>()
            }
            Self::CompareBegin { .. }
            | Self::CompareEnd { .. }
            | Self::Trim { .. }
            | Self::EvictOpIds { .. } => FIXED,
        }
    }
}

/// One operation of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// A client's put or delete.
    Write(WriteOp),
    /// Effects of one incarnation received from another zone, contiguous from counter `first` (protocol rule 8).
    Merge {
        /// Whose effects.
        incarnation: Incarnation,
        /// Counter of the first effect.
        first: u64,
        /// Effects of the counters `first, first + 1, …`.
        effects: Vec<Effect>,
    },
    /// This shard starts to catch up by comparing with `source`, whose view holds `snapshot` (protocol rule 11).
    /// Until [`Op::CompareEnd`], merges of incarnations that `snapshot` is ahead of have no effect.
    CompareBegin {
        /// The zone compared with.
        source: ZoneId,
        /// What that zone's view had received.
        snapshot: VersionVector,
    },
    /// Joins the whole key states that `source` holds in `[from, to)`; a key of ours in the range that is not among
    /// `states` is joined with an empty set. No effect unless a comparison with this `snapshot` is under way.
    CompareJoin {
        /// Names the comparison.
        snapshot: VersionVector,
        /// First key of the range.
        from: Bytes,
        /// End of the range, exclusive; empty means to the end of the shard.
        to: Bytes,
        /// Key and encoded sibling set, sorted by key.
        states: Vec<(Bytes, Bytes)>,
    },
    /// Every range is joined: the shard's vector becomes the maximum of itself and `snapshot`.
    CompareEnd {
        /// Names the comparison.
        snapshot: VersionVector,
    },
    /// Drops outbox effects at or below `through`: every zone has them, or the outbox is past its bound.
    Trim {
        /// Per incarnation, the last counter to drop.
        through: VersionVector,
    },
    /// Drops keys that hold nothing but these tombstones, known to every zone (protocol rule 13).
    DropTombstones {
        /// Keys and the dots of all their tombstones.
        keys: Vec<(Bytes, Vec<Dot>)>,
    },
    /// Forgets op ids that entered at or before log index `through_index`. The shard's floor rises to
    /// `floor_ms` first (protocol rule 16).
    EvictOpIds {
        /// Last log index whose op ids go.
        through_index: u64,
        /// Stamps below this are answered `OUTCOME_UNKNOWN` from now on.
        floor_ms: u64,
    },
}

/// A client's write as it stands in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WriteOp {
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
    /// Who waits for the outcome. Replicas other than that node ignore it.
    pub waiter: Waiter,
}

/// The request that waits for the outcome of a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Waiter {
    /// The node whose core proposed it.
    pub node: NodeId,
    /// Random per start of that core, so that a restarted core does not take an old entry for its own.
    pub boot: u64,
    /// The core's own number for the waiting request.
    pub ticket: RequestId,
}

/// What a write replaces, and on which condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WriteIntent {
    /// Without a context (protocol rule 2).
    Blind,
    /// Replaces exactly what the context covers.
    Context(CausalContext),
    /// Replaces every sibling this zone holds.
    Overwrite,
    /// Only if the key has no live version.
    IfAbsent,
    /// Only if the context covers every sibling the zone holds.
    IfContext(CausalContext),
}

/// What one write did, as other zones apply it: its dot (by position), what it replaced, what it left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The key.
    pub key: Bytes,
    /// The value, or a tombstone.
    pub content: Content,
    /// The context it replaced.
    pub replaced: CausalContext,
    /// Hybrid time of the command that applied it first.
    pub written_at: Hlc,
    /// Absolute wall-clock milliseconds at which the version expires.
    pub expires_at_ms: Option<u64>,
    /// The op id of the write.
    pub op_id: Option<OpId>,
    /// The transaction it belongs to.
    pub transaction: Option<TransactionTag>,
}

/// What became of one [`Op::Write`], decided in apply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WriteOutcome {
    /// It took effect now, or a write with the same op id did before: `repeated`.
    Written {
        /// The dot it got.
        dot: Dot,
        /// The context the client may go on with (protocol rule 1).
        context: CausalContext,
        /// True when an earlier attempt had already taken effect.
        repeated: bool,
    },
    /// The condition did not hold. No effect.
    VersionMismatch {
        /// Context of what was found.
        found: CausalContext,
    },
    /// The op id's stamp is below the shard's floor: whether an earlier attempt took effect is forgotten.
    OutcomeUnknown,
    /// The same op id was used for another key before. No effect of this one.
    OpIdReused,
    /// The key would hold more siblings than the limit. No effect.
    TooManySiblings {
        /// How many it holds.
        siblings: usize,
    },
}
