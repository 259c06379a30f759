//! A client's put or delete: the conditions it sets, and the one dot it takes if they hold.

use meridian_causal::{CausalContext, Dot, Replace, Sibling, SiblingSet, put_context};

use super::step::{Held, Step};
use super::versions;
use crate::command::{Effect, WriteIntent, WriteOp, WriteOutcome};
use crate::error::Error;
use crate::limits::SIBLINGS_MAX;

impl Step<'_, '_, '_> {
    /// Applies a write and notes its outcome for whoever waits.
    pub(super) fn write(&mut self, op: &WriteOp) -> Result<(), Error> {
        let outcome = match self.remembered(op.op_id, &op.key)? {
            Some(outcome) => outcome,
            None if self.meta.is_sealed() => WriteOutcome::Moving,
            None if self.locks.holder_of(&op.key).is_some() => WriteOutcome::Locked,
            None => self.write_once(op)?,
        };
        if outcome == WriteOutcome::Locked {
            self.applied.locked.push(op.clone());
            return Ok(());
        }
        self.applied.outcomes.push((op.waiter, op.op_id, outcome));
        Ok(())
    }

    fn write_once(&mut self, op: &WriteOp) -> Result<WriteOutcome, Error> {
        let held = self.hold(&op.key)?;
        if !condition_holds(&op.intent, &held.set, self.meta) {
            return Ok(WriteOutcome::VersionMismatch {
                found: held.set.read_context(),
            });
        }
        let replaced = self.replaced(&op.intent, &held.set);
        if crowded(&held.set, &replaced) {
            return Ok(WriteOutcome::TooManySiblings {
                siblings: held.set.siblings().len(),
            });
        }
        let effect = Effect {
            key: op.key.clone(),
            content: op.content.clone(),
            replaced,
            written_at: self.header.hlc,
            expires_at_ms: op.expires_at_ms,
            op_id: Some(op.op_id),
            transaction: None,
        };
        let dot = self.next_dot();
        let context = self.take_effect(dot, effect, held);
        self.enter_op_id(op.op_id, &op.key, dot, &context);
        Ok(WriteOutcome::Written {
            dot,
            context,
            repeated: false,
        })
    }

    /// The context a write replaces. A key without a live sibling has nothing to keep: what was deleted on it goes
    /// everywhere, and so does what was dropped with the records of its tombstones, which other zones may still hold.
    pub(super) fn replaced(&self, intent: &WriteIntent, set: &SiblingSet) -> CausalContext {
        let replace = match intent {
            WriteIntent::Blind => Replace::Newest,
            WriteIntent::Overwrite | WriteIntent::IfAbsent | WriteIntent::IfValue(_) => {
                Replace::All
            }
            WriteIntent::Context(context) | WriteIntent::IfContext(context) => {
                Replace::Exactly(context.clone())
            }
        };
        let mut replaced = set.replaced_by(self.meta.incarnation.zone(), &replace);
        if !set.has_live() {
            replaced.join(set.context());
            replaced.join(&CausalContext::from_vector(self.meta.dropped.clone()));
        }
        replaced
    }

    pub(super) fn next_dot(&mut self) -> Dot {
        let own = self.meta.incarnation;
        let counter = self.meta.received.get(own).checked_add(1);
        #[expect(
            clippy::expect_used,
            reason = "2^64 writes of one shard do not happen; going on would reuse a dot"
        )]
        let dot = Dot::new(own, counter.expect("a shard's counter does not overflow"));
        self.meta.received.advance(own, dot.counter);
        dot
    }

    /// Applies an effect to its key, and keeps it for other zones. Its dot is the next of its incarnation and counts as
    /// received. Returns the context its writer may go on with.
    pub(super) fn take_effect(
        &mut self,
        dot: Dot,
        effect: Effect,
        mut held: Held,
    ) -> CausalContext {
        held.set
            .apply(sibling(dot, &effect), &effect.replaced, &self.meta.received);
        let context = held.set.condensed(put_context(&effect.replaced, dot));
        if self.planted.lose_sibling_in_merge && dot.incarnation != self.meta.incarnation {
            keep_newest(&mut held.set);
        }
        self.store(&effect.key, held);
        self.ship(dot, effect);
        context
    }
}

/// Whether a write that replaces `replaced` would be one sibling too many.
pub(super) fn crowded(set: &SiblingSet, replaced: &CausalContext) -> bool {
    let siblings = set.siblings();
    siblings.len() >= SIBLINGS_MAX && !siblings.iter().any(|sibling| replaced.covers(sibling.dot))
}

impl WriteIntent {
    /// Whether what the zone holds of the key decides if the write takes effect.
    pub(crate) const fn is_conditional(&self) -> bool {
        match self {
            Self::Blind | Self::Context(_) | Self::Overwrite => false,
            Self::IfAbsent | Self::IfContext(_) | Self::IfValue(_) => true,
        }
    }
}

pub(super) fn condition_holds(
    intent: &WriteIntent,
    set: &SiblingSet,
    meta: &super::ShardMeta,
) -> bool {
    match intent {
        WriteIntent::Blind | WriteIntent::Context(_) | WriteIntent::Overwrite => true,
        WriteIntent::IfAbsent => !set.has_live(),
        // Whoever has read something where nothing is left may have read what was deleted and dropped since.
        WriteIntent::IfContext(context) if set.is_empty() => {
            context.is_empty() || context.vector().includes(&meta.dropped)
        }
        WriteIntent::IfValue(value) => versions::holds_value(set, value),
        WriteIntent::IfContext(context) => set
            .siblings()
            .iter()
            .all(|sibling| context.covers(sibling.dot)),
    }
}

/// The sibling an effect leaves.
fn sibling(dot: Dot, effect: &Effect) -> Sibling {
    Sibling {
        dot,
        content: effect.content.clone(),
        written_at: effect.written_at,
        expires_at_ms: effect.expires_at_ms,
        op_id: effect.op_id,
        transaction: effect.transaction,
    }
}

/// The planted bug: of several siblings only the newest is left.
fn keep_newest(set: &mut SiblingSet) {
    let newest = set
        .siblings()
        .iter()
        .max_by_key(|sibling| (sibling.written_at, sibling.dot))
        .cloned();
    if let Some(newest) = newest {
        let all = set.read_context();
        set.apply(newest, &all, &meridian_causal::VersionVector::new());
    }
}
