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
use crate::lease::{AcquireOp, LeaseRef};
use crate::record;
use crate::transaction::TransactionId;
use crate::two_phase::{DecideOp, PrepareOp, ResolveOp, TransactOp};

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
    /// About how many bytes it takes in the log, rather too many than too few: what an entry is filled by.
    pub fn encoded_bytes(&self) -> usize {
        let variable = match self {
            Self::Write(write) => write.variable_bytes(),
            Self::Merge { effects, .. } => effects.iter().map(Effect::encoded_bytes).sum(),
            Self::CompareBegin { snapshot, .. } | Self::CompareEnd { snapshot } => {
                snapshot.len() * DOT_BYTES
            }
            Self::CompareJoin {
                snapshot,
                from,
                to,
                states,
            } => {
                let states: usize = states
                    .iter()
                    .map(|(key, set)| key.len() + set.len() + DOT_BYTES)
                    .sum();
                snapshot.len() * DOT_BYTES + from.len() + to.len() + states
            }
            Self::CompareRemember {
                snapshot,
                operations,
                ..
            } => {
                let bytes = |(id, record): &(Bytes, Bytes)| id.len() + record.len() + DOT_BYTES;
                snapshot.len() * DOT_BYTES + operations.iter().map(bytes).sum::<usize>()
            }
            Self::Trim { through } | Self::Found { base: through } => through.len() * DOT_BYTES,
            Self::DropTombstones { keys } => keys
                .iter()
                .map(|(key, dots)| key.len() + (1 + dots.len()) * DOT_BYTES)
                .sum(),
            Self::Transact(op) => op.part.encoded_bytes(),
            Self::Prepare(op) => op.part.encoded_bytes(),
            Self::Decide(op) => op.part.encoded_bytes() + op.others.len() * 3,
            Self::Forget { ids } => ids.len() * DOT_BYTES,
            Self::EvictOpIds { .. }
            | Self::Quarantine { .. }
            | Self::TakeIncarnation { .. }
            | Self::Seal { .. }
            | Self::Unseal { .. }
            | Self::Resolve(_) => 0,
            Self::Degrade { short } => short.len() * DOT_BYTES,
            Self::LeaseAcquire(acquire) => acquire.name.len(),
            Self::LeaseEnd { leases, .. } => leases.iter().map(LeaseRef::encoded_bytes).sum(),
            Self::LeasedWrite { lease, write, .. } => {
                lease.encoded_bytes() + write.variable_bytes()
            }
            Self::LeaseGone { lease } => lease.encoded_bytes(),
            Self::Expire { keys } => keys
                .iter()
                .map(|(key, dots)| key.len() + (1 + dots.len()) * DOT_BYTES)
                .sum(),
        };
        FIXED_BYTES + variable
    }
}

/// Bytes of everything in an operation or effect that has a fixed size, with lengths and tags.
const FIXED_BYTES: usize = 128;

/// Bytes of a dot, or of an entry of a vector.
const DOT_BYTES: usize = 20;

fn context_bytes(context: &CausalContext) -> usize {
    (context.vector().len() + context.dots().len()) * DOT_BYTES
}

fn content_bytes(content: &Content) -> usize {
    content.value().map_or(0, Bytes::len)
}

impl WriteOp {
    fn variable_bytes(&self) -> usize {
        let context = match &self.intent {
            WriteIntent::Context(context) | WriteIntent::IfContext(context) => {
                context_bytes(context)
            }
            WriteIntent::IfValue(value) => value.len(),
            WriteIntent::Blind | WriteIntent::Overwrite | WriteIntent::IfAbsent => 0,
        };
        self.key.len() + content_bytes(&self.content) + context
    }
}

impl Effect {
    /// Whether it belongs to the same transaction as the effect before it: the two travel together.
    pub fn continues(&self, before: &Self) -> bool {
        self.transaction.is_some() && self.transaction == before.transaction
    }

    /// About how many bytes it takes, rather too many than too few.
    pub fn encoded_bytes(&self) -> usize {
        FIXED_BYTES + self.key.len() + content_bytes(&self.content) + context_bytes(&self.replaced)
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
    /// The store under this group is an old copy: writes of `incarnation` beyond `resume` were made here after it came
    /// back, and other zones may hold others with the same dots (protocol rule 5).
    Quarantine {
        /// The incarnation this is said of; no effect on a group that has another.
        incarnation: Incarnation,
        /// The last counter of the copy.
        resume: u64,
    },
    /// A group in quarantine goes on as `new`, and so do its writes since it came back.
    TakeIncarnation {
        /// The incarnation left; no effect on a group that has another.
        old: Incarnation,
        /// The one the control group gave.
        new: Incarnation,
    },
    /// A transaction in this shard alone.
    Transact(Box<TransactOp>),
    /// A part of a transaction that another shard decides.
    Prepare(Box<PrepareOp>),
    /// The part of the shard that decides.
    Decide(Box<DecideOp>),
    /// What becomes of a prepared part.
    Resolve(ResolveOp),
    /// Decisions that every part has followed.
    Forget {
        /// The attempts.
        ids: Vec<TransactionId>,
    },
    /// Somebody wants a lease.
    LeaseAcquire(AcquireOp),
    /// Leases end: their holders give them up, or their time is over. Those that stand no longer are left alone.
    LeaseEnd {
        /// The leases.
        leases: Vec<LeaseRef>,
        /// Who waits for the outcome; nobody when the time was over.
        waiter: Option<Waiter>,
    },
    /// A client's write that is to vanish with a lease.
    LeasedWrite {
        /// The lease.
        lease: LeaseRef,
        /// The lease is one of this shard.
        home: bool,
        /// The write.
        write: WriteOp,
    },
    /// A lease of another shard stands no longer: what was attached to it here vanishes.
    LeaseGone {
        /// The lease.
        lease: LeaseRef,
    },
    /// The keyspace moves on: no more writes of clients (`shard::seal`). Repeated until nothing is attached to a lease.
    Seal {
        /// The round of sealing ([`Alter::sealing`](crate::catalog::Alter)).
        round: u64,
    },
    /// It does not move on after all.
    Unseal {
        /// A later revision of the catalog, by which no such round is under way. No effect on a shard that was sealed by
        /// that one or a later one.
        revision: u64,
    },
    /// These versions are past their time, by the leader's clock (protocol rule 4).
    Expire {
        /// Keys and the dots of the versions.
        keys: Vec<(Bytes, Vec<Dot>)>,
    },
    /// `ack = all` is relaxed to a majority while these zones are missing; none: it is in force again (protocol rule 20).
    Degrade {
        /// The zones, ascending.
        short: Vec<ZoneId>,
    },
    /// Operations that the view compared with remembers, and this shard may not. No effect unless a comparison with this
    /// `snapshot` is under way.
    CompareRemember {
        /// Names the comparison.
        snapshot: VersionVector,
        /// Stamps below this are forgotten from now on.
        floor_ms: u64,
        /// Op ids, 16 bytes each, and the records of what they did.
        operations: Vec<(Bytes, Bytes)>,
    },
    /// The shard was made of a promoted mirror and holds all of it: whatever comes from elsewhere beyond this vector is a
    /// write that the mirror lacked, and is listed (`shard::returned`). No effect on a shard that has a base.
    Found {
        /// What the mirror's generation had received.
        base: VersionVector,
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
    /// Only if the key holds exactly one version, with this value.
    IfValue(Bytes),
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
    /// The key is part of a prepared transaction. No effect; to be proposed again once that is resolved.
    Locked,
    /// The lease it was to be attached to does not stand. No effect.
    LeaseNotFound,
    /// The shard is sealed. No effect here.
    Moving,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(key: Bytes, value: Option<Bytes>, intent: WriteIntent) -> Op {
        Op::Write(WriteOp {
            key,
            content: value.map_or(Content::Tombstone, Content::Value),
            intent,
            op_id: OpId {
                stamp_ms: 7,
                id: u128::MAX,
            },
            expires_at_ms: Some(9),
            waiter: Waiter {
                node: NodeId(3),
                boot: 4,
                ticket: RequestId(5),
            },
        })
    }

    fn leased_write(lease: LeaseRef, key: Bytes) -> Op {
        let Op::Write(write) = write(key.clone(), Some(key), WriteIntent::Blind) else {
            panic!("a write is a write");
        };
        Op::LeasedWrite {
            lease,
            home: true,
            write,
        }
    }

    fn every_op(key: &Bytes, counter: u64) -> Vec<Op> {
        let incarnation = Incarnation::new(ZoneId(2), counter);
        let dot = Dot::new(incarnation, counter.max(1));
        let snapshot = VersionVector::from_iter([(incarnation, counter.max(1))]);
        let context = CausalContext::from_dot(dot);
        let effect = Effect {
            key: key.clone(),
            content: Content::Value(key.clone()),
            replaced: context.clone(),
            written_at: Hlc(counter),
            expires_at_ms: None,
            op_id: None,
            transaction: Some(TransactionTag { id: 1, parts: 2 }),
        };
        let (from, to, states) = (key.clone(), Bytes::new(), vec![(key.clone(), key.clone())]);
        [
            write(key.clone(), None, WriteIntent::Blind),
            write(
                key.clone(),
                Some(key.clone()),
                WriteIntent::Context(context.clone()),
            ),
            write(
                key.clone(),
                Some(Bytes::new()),
                WriteIntent::IfContext(context),
            ),
            Op::Merge {
                incarnation,
                first: counter,
                effects: vec![effect],
            },
            Op::CompareBegin {
                source: ZoneId(1),
                snapshot: snapshot.clone(),
            },
            Op::CompareJoin {
                snapshot: snapshot.clone(),
                from,
                to,
                states,
            },
            Op::CompareEnd {
                snapshot: snapshot.clone(),
            },
            Op::CompareRemember {
                snapshot: snapshot.clone(),
                floor_ms: counter,
                operations: vec![(key.clone(), key.clone())],
            },
            Op::Trim { through: snapshot },
            Op::DropTombstones {
                keys: vec![(key.clone(), vec![dot])],
            },
            Op::EvictOpIds {
                through_index: counter,
                floor_ms: counter,
            },
            Op::Quarantine {
                incarnation,
                resume: counter,
            },
            Op::TakeIncarnation {
                old: incarnation,
                new: incarnation,
            },
        ]
        .into_iter()
        .chain(lease_ops(key, counter, dot))
        .collect()
    }

    fn lease_ops(key: &Bytes, counter: u64, dot: Dot) -> Vec<Op> {
        let lease = LeaseRef {
            name: key.clone(),
            token: counter,
        };
        vec![
            Op::LeaseAcquire(AcquireOp {
                name: key.clone(),
                ttl_ms: counter,
                owner: u128::MAX,
                waiter: Waiter::default(),
            }),
            Op::LeaseEnd {
                leases: vec![lease.clone(), lease.clone()],
                waiter: Some(Waiter::default()),
            },
            leased_write(lease.clone(), key.clone()),
            Op::LeaseGone { lease },
            Op::Expire {
                keys: vec![(key.clone(), vec![dot, dot])],
            },
        ]
    }

    proptest! {
        #[test]
        fn a_command_reads_back_and_one_cut_short_is_refused(
            key in prop::collection::vec(any::<u8>(), 0..40), counter: u64,
        ) {
            let command = Command { hlc: Hlc(counter), ops: every_op(&Bytes::from(key), counter) };
            let entry = command.encode();
            prop_assert_eq!(Command::decode(&entry), Ok(command));
            for end in 0..entry.len() {
                let cut = Command::decode(&entry[..end]);
                let refused = matches!(cut, Err(Error::Corruption { .. }));
                prop_assert!(refused);
            }
        }

        #[test]
        fn foreign_bytes_never_panic(mut entry: Vec<u8>) {
            let _decided = Command::decode(&entry).is_ok();
            if let Some(format) = entry.first_mut() {
                *format = COMMAND_FORMAT;
            }
            let _decided = Command::decode(&entry).is_ok();
        }
    }

    #[test]
    fn an_entry_of_another_format_is_refused_by_number() {
        let detail = "log entry: format 9 is not known, 1 is".to_owned();
        assert_eq!(
            Command::decode(&[9, 1, 1]),
            Err(Error::Corruption { detail })
        );
        let mut trailing = Command {
            hlc: Hlc(1),
            ops: vec![],
        }
        .encode();
        trailing.push(0);
        assert!(Command::decode(&trailing).is_err());
    }

    #[test]
    fn the_estimate_of_an_operations_bytes_is_not_below_them() {
        for op in every_op(&Bytes::from(vec![1; 500]), 1 << 40) {
            let bytes = Command {
                hlc: Hlc(u64::MAX),
                ops: vec![op.clone()],
            }
            .encode()
            .len();
            assert!(
                (bytes..bytes + 250).contains(&op.encoded_bytes()),
                "{:.40}",
                format!("{op:?}")
            );
        }
    }
}
