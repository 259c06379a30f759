//! What stands in logs and records of transactions: a shard's part, prepares, decisions, resolutions.
//!
//! A transaction in one shard is one [`TransactOp`]. Across shards each shard but the anchor logs a [`PrepareOp`], which
//! checks the part and locks its keys; the anchor logs the [`DecideOp`], which checks its own part and is the point where
//! the transaction takes effect; then the others log a [`ResolveOp`]. The anchor forgets the decision when all have.
//!
//! What it is not: it says nothing of who sends what when; that is `coordinator`. What the operations do is in
//! `shard::transact`.
//!
//! Source: presumed abort after Mohan, Lindsay, Obermarck, "Transaction Management in the R* Distributed Database
//! Management System" (1986); one part decides, as in the last-agent optimisation of Gray and Reuter (1993), 10.6.

use bytes::Bytes;
use meridian_causal::{CausalContext, Content, OpId, SiblingSet};
use serde::{Deserialize, Serialize};

use crate::command::{Waiter, WriteIntent};
use crate::ids::ShardId;
use crate::transaction::{Action, Compare, TransactionId};

/// What a transaction asks of one shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// What must hold.
    pub compare: Vec<Compare>,
    /// What is done when everything holds in every shard.
    pub then: Vec<Action>,
    /// What is done when something does not.
    pub otherwise: Vec<Action>,
}

/// A transaction in one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransactOp {
    /// Makes retries take effect once.
    pub op_id: OpId,
    /// All of it.
    pub part: Part,
    /// Who waits for the outcome.
    pub waiter: Waiter,
}

/// A part is checked and its keys are locked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrepareOp {
    /// The attempt.
    pub id: TransactionId,
    /// Of the transaction.
    pub op_id: OpId,
    /// The shard that decides.
    pub anchor: ShardId,
    /// Shards that take part.
    pub parts: u16,
    /// This shard's part.
    pub part: Part,
    /// The transaction has nothing to do when a comparison does not hold: refuse at once.
    pub refuse: bool,
    /// Who waits for the vote.
    pub waiter: Waiter,
}

/// The anchor's part is checked and done, and with it the transaction is decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecideOp {
    /// The attempt.
    pub id: TransactionId,
    /// Of the transaction.
    pub op_id: OpId,
    /// The anchor's own part.
    pub part: Part,
    /// The other shards, all of them prepared.
    pub others: Vec<ShardId>,
    /// All comparisons of the others hold.
    pub others_hold: bool,
    /// The transaction has nothing to do when a comparison does not hold.
    pub refuse: bool,
    /// Who waits for the outcome.
    pub waiter: Waiter,
}

/// A prepared part takes effect, or does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResolveOp {
    /// The attempt.
    pub id: TransactionId,
    /// What the anchor says.
    pub verdict: Verdict,
    /// Who waits until it is done.
    pub waiter: Waiter,
}

/// What became of a transaction over several shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It took effect.
    Committed {
        /// All comparisons held.
        succeeded: bool,
        /// Index of the deciding entry in the anchor's log.
        at: u64,
    },
    /// It did not, and never will.
    Aborted,
}

/// The vote of a prepared part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vote {
    /// All its comparisons hold.
    pub holds: bool,
    /// What the reads of the first list found.
    pub then: Vec<SiblingSet>,
    /// What the reads of the second list found.
    pub otherwise: Vec<SiblingSet>,
}

/// A prepared part as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// Stamp of the transaction's op id.
    pub stamp_ms: u64,
    /// Names the transaction on its versions.
    pub tag: u128,
    /// The shard that decides.
    pub anchor: ShardId,
    /// Shards that take part.
    pub parts: u16,
    /// All its comparisons hold.
    pub holds: bool,
    /// Keys that were compared or read: nobody may change them.
    pub reads: Vec<Bytes>,
    /// Ranges that were compared (an empty end: to the end of the shard): nobody may change a key in them.
    pub ranges: Vec<(Bytes, Bytes)>,
    /// Writes of the first list.
    pub then: Vec<IntentWrite>,
    /// Writes of the second list.
    pub otherwise: Vec<IntentWrite>,
    /// Keys read by the first list, for a vote that is asked for again.
    pub then_reads: Vec<Bytes>,
    /// Keys read by the second list.
    pub otherwise_reads: Vec<Bytes>,
}

/// A write that waits for the decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IntentWrite {
    /// The key.
    pub key: Bytes,
    /// The value, or a tombstone.
    pub content: Content,
    /// What it replaces: what was there when it was prepared.
    pub replaced: CausalContext,
    /// Absolute wall-clock milliseconds at which the version expires.
    pub expires_at_ms: Option<u64>,
}

/// A decision that took effect, as it is stored at the anchor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// All comparisons held.
    pub succeeded: bool,
    /// The shards to be told.
    pub others: Vec<ShardId>,
}

/// Bytes of everything in a comparison, action or lock that has a fixed size.
const FIXED_BYTES: usize = 64;

/// Bytes of a dot, or of an entry of a vector.
const DOT_BYTES: usize = 20;

fn context_bytes(context: &CausalContext) -> usize {
    (context.vector().len() + context.dots().len()) * DOT_BYTES
}

impl Compare {
    /// About how many bytes it takes, rather too many than too few.
    pub fn encoded_bytes(&self) -> usize {
        let variable = match self {
            Self::Unchanged { key, .. } | Self::Absent { key } | Self::Exists { key } => key.len(),
            Self::RangeUnchanged { from, to, .. } => from.len() + to.len(),
            Self::Value { key, value } => key.len() + value.len(),
            Self::Context { key, context } => key.len() + context_bytes(context),
        };
        FIXED_BYTES + variable
    }
}

impl Action {
    /// About how many bytes it takes, rather too many than too few.
    pub fn encoded_bytes(&self) -> usize {
        let variable = match self {
            Self::Get { key } => key.len(),
            Self::Write {
                key,
                content,
                intent,
                ..
            } => {
                let intent = match intent {
                    WriteIntent::Context(context) | WriteIntent::IfContext(context) => {
                        context_bytes(context)
                    }
                    WriteIntent::IfValue(value) => value.len(),
                    WriteIntent::Blind | WriteIntent::Overwrite | WriteIntent::IfAbsent => 0,
                };
                key.len() + content.value().map_or(0, Bytes::len) + intent
            }
        };
        FIXED_BYTES + variable
    }
}

impl Part {
    /// About how many bytes it takes, rather too many than too few.
    pub fn encoded_bytes(&self) -> usize {
        let compared: usize = self.compare.iter().map(Compare::encoded_bytes).sum();
        let actions = self.then.iter().chain(&self.otherwise);
        compared + actions.map(Action::encoded_bytes).sum::<usize>()
    }

    /// The list that is done.
    pub fn list(&self, holds: bool) -> &[Action] {
        if holds { &self.then } else { &self.otherwise }
    }
}

impl Intent {
    /// About how many bytes it takes.
    pub fn encoded_bytes(&self) -> usize {
        let writes = self.then.iter().chain(&self.otherwise).map(|write| {
            FIXED_BYTES
                + write.key.len()
                + write.content.value().map_or(0, Bytes::len)
                + context_bytes(&write.replaced)
        });
        let reads = self.reads.iter().map(|key| key.len() + 4);
        FIXED_BYTES + writes.sum::<usize>() + reads.sum::<usize>()
    }

    /// The writes of the list that is done.
    pub fn writes(&self, succeeded: bool) -> &[IntentWrite] {
        if succeeded {
            &self.then
        } else {
            &self.otherwise
        }
    }
}
