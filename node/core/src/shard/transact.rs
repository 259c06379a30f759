//! Transactions in apply: checked against the state as it is, done in one go, or prepared and later resolved.
//!
//! Invariants:
//! * all writes of a transaction in one shard take effect in one entry, with consecutive counters;
//! * a prepared part that was not refused can always take effect: its conditions were checked, and its keys are locked;
//! * a part takes effect once: the attempt's id is remembered with the op ids, so that a prepare that arrives after its
//!   attempt took effect is refused. One that arrives after its attempt was given up locks until it has asked.

use bytes::Bytes;
use meridian_causal::{CausalContext, Dot, OpId, SiblingSet, TransactionTag};

use super::step::{Held, Step};
use super::versions;
use super::write::{condition_holds, crowded};
use crate::command::{Effect, WriteIntent};
use crate::error::Error;
use crate::inner::InnerResponse;
use crate::keys::{ConflictKey, DecisionKey, IntentKey, OpIdRecord, VersionKey};
use crate::limits::{PREPARED_MAX, SIBLINGS_MAX};
use crate::read::compare;
use crate::request::Response;
use crate::transaction::{Action, ActionResult, Compare, Transacted, TransactionId};
use crate::two_phase::{
    DecideOp, Decided, Intent, IntentWrite, Part, PrepareOp, ResolveOp, TransactOp, Verdict, Vote,
};

/// What stands for the key's hash in a remembered transaction, by the list that was done. No key's hash is looked for
/// under a transaction's op id; a client that uses it for a put meets one chance in 2^63.
const THEN_MARK: u64 = 0x7472_616e_7361_6374;
const OTHERWISE_MARK: u64 = THEN_MARK + 1;

/// A prepared part that was resolved, for views that were opened before.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The attempt.
    pub id: TransactionId,
    /// What became of it.
    pub verdict: Verdict,
    /// Records as they are now: of its keys, and of the index of conflicts.
    pub records: Vec<(Bytes, Option<Bytes>)>,
}

/// What is to be written if nothing stands against it, with each key's set as it was found: a list writes a key once, so
/// nothing comes between.
type Plan = Vec<(IntentWrite, Held)>;

impl Step<'_, '_, '_> {
    /// A transaction in this shard alone.
    pub(super) fn transact(&mut self, op: &TransactOp) -> Result<(), Error> {
        let outcome = self.transact_once(op)?;
        self.applied.transactions.push((op.waiter, outcome));
        Ok(())
    }

    fn transact_once(&mut self, op: &TransactOp) -> Result<Result<Response, Error>, Error> {
        if let Some(known) = self.known_transaction(op.op_id)? {
            return Ok(known);
        }
        let holds = match self.checked(&op.part, op.part.otherwise.is_empty())? {
            Ok(holds) => holds,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let list = op.part.list(holds);
        let plan = match self.plan(list)? {
            Ok(plan) => plan,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let reads = self.reads(list, &plan)?;
        let tag = TransactionTag {
            id: op.op_id.id,
            parts: 1,
        };
        let written = self.write_all(plan, tag);
        if let Some((dot, context)) = written.last() {
            self.remember(op.op_id, holds, *dot, context);
        }
        let results = results(list, reads, written.into_iter().map(Some));
        Ok(Ok(self.transacted(op.op_id, holds, results, 1)))
    }

    /// A part whose transaction is decided elsewhere.
    pub(super) fn prepare(&mut self, op: &PrepareOp) -> Result<(), Error> {
        let outcome = self.prepare_once(op)?;
        self.applied.transactions.push((
            op.waiter,
            outcome.map(|vote| InnerResponse::Voted(vote).into()),
        ));
        Ok(())
    }

    fn prepare_once(&mut self, op: &PrepareOp) -> Result<Result<Vote, Error>, Error> {
        let stored = IntentKey::encode(self.place, op.id);
        if let Some(record) = self.get(&stored)? {
            let (_, intent) = IntentKey::decode_record(&stored, &record)?;
            return self.vote(&intent).map(Ok);
        }
        if let Some(refusal) = self.may_not_prepare(op)? {
            return Ok(Err(refusal));
        }
        let holds = match self.checked(&op.part, op.refuse)? {
            Ok(holds) => holds,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // Of a list that is not done for sure, the conditions must hold all the same: the decision is elsewhere.
        let then = if holds { op.part.then.as_slice() } else { &[] };
        let (then_plan, otherwise_plan) = match (self.plan(then)?, self.plan(&op.part.otherwise)?) {
            (Ok(then), Ok(otherwise)) => (then, otherwise),
            (Err(refusal), _) | (_, Err(refusal)) => return Ok(Err(refusal)),
        };
        let intent = Intent {
            stamp_ms: op.op_id.stamp_ms,
            tag: op.op_id.id,
            anchor: op.anchor,
            parts: op.parts,
            holds,
            reads: read_keys(&op.part),
            ranges: ranges(&op.part),
            then: without_sets(then_plan),
            otherwise: without_sets(otherwise_plan),
            then_reads: got_keys(then),
            otherwise_reads: got_keys(&op.part.otherwise),
        };
        self.work
            .put(stored, IntentKey::encode_record(self.header, &intent));
        self.locks.lock(op.id, &intent);
        self.vote(&intent).map(Ok)
    }

    /// Why an attempt may not be prepared, whatever its part says.
    fn may_not_prepare(&self, op: &PrepareOp) -> Result<Option<Error>, Error> {
        if self.locks.prepared().len() >= PREPARED_MAX {
            let what = "the table of prepared transactions".to_owned();
            return Ok(Some(Error::Overloaded { what }));
        }
        let late = op.op_id.stamp_ms < self.meta.op_floor_ms
            || self
                .known(OpId {
                    id: op.id.0,
                    ..op.op_id
                })?
                .is_some();
        Ok(late.then(|| conflict("the part arrived after its transaction had ended")))
    }

    fn vote(&self, intent: &Intent) -> Result<Vote, Error> {
        let read = |keys: &[Bytes]| -> Result<Vec<SiblingSet>, Error> {
            keys.iter().map(|key| self.set(key)).collect()
        };
        Ok(Vote {
            holds: intent.holds,
            then: read(&intent.then_reads)?,
            otherwise: read(&intent.otherwise_reads)?,
        })
    }

    /// The anchor's part, and the decision.
    pub(super) fn decide(&mut self, op: &DecideOp) -> Result<(), Error> {
        let outcome = self.decide_once(op)?;
        self.applied.transactions.push((op.waiter, outcome));
        Ok(())
    }

    fn decide_once(&mut self, op: &DecideOp) -> Result<Result<Response, Error>, Error> {
        if let Some(known) = self.known_transaction(op.op_id)? {
            return Ok(known);
        }
        let holds = match self.checked(&op.part, op.refuse)? {
            Ok(holds) => holds && op.others_hold,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let list = op.part.list(holds);
        let plan = match self.plan(list)? {
            Ok(plan) => plan,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let reads = self.reads(list, &plan)?;
        let parts = u16::try_from(op.others.len().saturating_add(1)).unwrap_or(u16::MAX);
        let tag = TransactionTag {
            id: op.op_id.id,
            parts,
        };
        let written = self.write_all(plan, tag);
        let (dot, context) = written.last().cloned().unwrap_or_else(|| self.no_write());
        self.remember(op.op_id, holds, dot, &context);
        let decided = Decided {
            succeeded: holds,
            others: op.others.clone(),
        };
        let stored = DecisionKey::encode(self.place, op.id);
        self.work
            .put(stored, DecisionKey::encode_record(self.header, &decided));
        self.locks.decide(op.id, self.header.index, decided);
        let results = results(list, reads, written.into_iter().map(Some));
        Ok(Ok(self.transacted(op.op_id, holds, results, parts)))
    }

    /// What a remembered operation without a write of this shard is remembered with.
    fn no_write(&self) -> (Dot, CausalContext) {
        let own = self.meta.incarnation;
        let counter = self.meta.received.get(own).max(1);
        (Dot::new(own, counter), CausalContext::new())
    }

    /// A prepared part takes effect or goes. One that is not there was resolved before.
    pub(super) fn resolve(&mut self, op: &ResolveOp) -> Result<(), Error> {
        let stored = IntentKey::encode(self.place, op.id);
        if let Some(record) = self.get(&stored)? {
            let (_, intent) = IntentKey::decode_record(&stored, &record)?;
            self.work.delete(stored);
            self.locks.unlock(op.id);
            let records = match op.verdict {
                Verdict::Committed { succeeded, .. } => {
                    self.take_intent(op.id, &intent, succeeded)?
                }
                Verdict::Aborted => Vec::new(),
            };
            self.applied.resolved.push(Resolved {
                id: op.id,
                verdict: op.verdict,
                records,
            });
        }
        self.applied
            .transactions
            .push((op.waiter, Ok(InnerResponse::Resolved.into())));
        Ok(())
    }

    fn take_intent(
        &mut self,
        id: TransactionId,
        intent: &Intent,
        succeeded: bool,
    ) -> Result<Vec<(Bytes, Option<Bytes>)>, Error> {
        let writes = intent.writes(succeeded).iter();
        let plan = writes
            .map(|write| Ok((write.clone(), self.hold(&write.key)?)))
            .collect::<Result<Plan, Error>>()?;
        let keys: Vec<Bytes> = plan.iter().map(|(write, _)| write.key.clone()).collect();
        let tag = TransactionTag {
            id: intent.tag,
            parts: intent.parts,
        };
        let written = self.write_all(plan, tag);
        let (dot, context) = written.last().cloned().unwrap_or_else(|| self.no_write());
        let op_id = OpId {
            stamp_ms: intent.stamp_ms,
            id: id.0,
        };
        self.remember(op_id, succeeded, dot, &context);
        let mut records = Vec::new();
        for key in keys {
            for stored in [
                VersionKey::encode(self.place, &key),
                ConflictKey::encode(self.place, &key),
            ] {
                let record = self.get(&stored)?;
                records.push((Bytes::from(stored), record));
            }
        }
        Ok(records)
    }

    /// Every part has followed these decisions.
    pub(super) fn forget(&mut self, ids: &[TransactionId]) {
        for id in ids {
            self.work.delete(DecisionKey::encode(self.place, *id));
            self.locks.forget(*id);
        }
    }

    /// What became of an earlier attempt, if it can be told.
    fn known_transaction(&self, op_id: OpId) -> Result<Option<Result<Response, Error>>, Error> {
        if let Some(OpIdRecord { key_hash, .. }) = self.known(op_id)? {
            let succeeded = match key_hash {
                THEN_MARK => true,
                OTHERWISE_MARK => false,
                _ => return Ok(Some(Err(Error::OpIdReused { op_id }))),
            };
            let mut response = self.transacted(op_id, succeeded, Vec::new(), 0);
            if let Response::Transacted(transacted) = &mut response {
                transacted.repeated = true;
            }
            return Ok(Some(Ok(response)));
        }
        let forgotten = op_id.stamp_ms < self.meta.op_floor_ms;
        Ok(forgotten.then_some(Err(Error::OutcomeUnknown { op_id })))
    }

    fn remember(&mut self, op_id: OpId, succeeded: bool, dot: Dot, context: &CausalContext) {
        let mark = if succeeded { THEN_MARK } else { OTHERWISE_MARK };
        self.enter_operation(
            op_id,
            OpIdRecord {
                dot,
                context: context.clone(),
                key_hash: mark,
                stamp_ms: op_id.stamp_ms,
            },
        );
    }

    fn transacted(
        &self,
        op_id: OpId,
        succeeded: bool,
        results: Vec<ActionResult>,
        parts: u16,
    ) -> Response {
        Response::Transacted(Box::new(Transacted {
            succeeded,
            results,
            parts,
            zones: vec![self.meta.incarnation.zone()],
            op_id,
            repeated: false,
            degraded: false,
        }))
    }

    /// Whether the comparisons of a part hold; an error when it meets a prepared transaction, or when it must hold
    /// (`refuse`) and does not.
    fn checked(&self, part: &Part, refuse: bool) -> Result<Result<bool, Error>, Error> {
        if self.meta.is_sealed() {
            return Ok(Err(Error::KeyspaceMoving));
        }
        if self.locks.against(part).is_some() {
            return Ok(Err(conflict("a key is part of a prepared transaction")));
        }
        for one in &part.compare {
            if self.planted.skip_range_validation && matches!(one, Compare::RangeUnchanged { .. }) {
                continue;
            }
            if !compare::holds(&*self.work, self.place, one)? {
                return Ok(if refuse {
                    Err(conflict("a comparison does not hold"))
                } else {
                    Ok(false)
                });
            }
        }
        Ok(Ok(true))
    }

    /// The writes of a list, if the conditions they bring hold.
    fn plan(&self, list: &[Action]) -> Result<Result<Plan, Error>, Error> {
        let mut plan = Plan::new();
        for action in list {
            let Action::Write {
                key,
                content,
                intent,
                expires_at_ms,
            } = action
            else {
                continue;
            };
            let held = self.hold(key)?;
            match self.planned(&held.set, intent) {
                Ok(replaced) => {
                    let write = IntentWrite {
                        key: key.clone(),
                        content: content.clone(),
                        replaced,
                        expires_at_ms: *expires_at_ms,
                    };
                    plan.push((write, held));
                }
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        Ok(Ok(plan))
    }

    /// What a write would replace now.
    fn planned(&self, set: &SiblingSet, intent: &WriteIntent) -> Result<CausalContext, Error> {
        if !condition_holds(intent, set, self.meta) {
            return Err(Error::VersionMismatch {
                found: set.read_context(),
            });
        }
        let replaced = self.replaced(intent, set);
        if crowded(set, &replaced) {
            return Err(Error::TooManySiblings {
                siblings: set.siblings().len(),
                limit: SIBLINGS_MAX,
            });
        }
        Ok(replaced)
    }

    fn set(&self, key: &[u8]) -> Result<SiblingSet, Error> {
        versions::load(&*self.work, self.place, key)
    }

    fn reads(&self, list: &[Action], plan: &Plan) -> Result<Vec<SiblingSet>, Error> {
        let read = |key: &Bytes| match plan.iter().find(|(write, _)| write.key == *key) {
            Some((_, held)) => Ok(held.set.clone()),
            None => self.set(key),
        };
        got_keys(list).iter().map(read).collect()
    }

    /// Does all writes: dot and context of each.
    fn write_all(&mut self, plan: Plan, tag: TransactionTag) -> Vec<(Dot, CausalContext)> {
        let mut written = Vec::with_capacity(plan.len());
        for (write, held) in plan {
            let replaced = self.replaced(&WriteIntent::Context(write.replaced), &held.set);
            let effect = Effect {
                key: write.key,
                content: write.content,
                replaced,
                written_at: self.header.hlc,
                expires_at_ms: write.expires_at_ms,
                op_id: None,
                transaction: Some(tag),
            };
            let dot = self.next_dot();
            let context = self.take_effect(dot, effect, held);
            written.push((dot, context));
        }
        written
    }
}

/// The answers of a list, in its order.
pub(crate) fn results(
    list: &[Action],
    reads: impl IntoIterator<Item = SiblingSet>,
    writes: impl IntoIterator<Item = Option<(Dot, CausalContext)>>,
) -> Vec<ActionResult> {
    let (mut reads, mut writes) = (reads.into_iter(), writes.into_iter());
    list.iter()
        .map(|action| match action {
            Action::Get { .. } => ActionResult::Got(reads.next().unwrap_or_default()),
            Action::Write { .. } => ActionResult::Written(writes.next().flatten()),
        })
        .collect()
}

fn without_sets(plan: Plan) -> Vec<IntentWrite> {
    plan.into_iter().map(|(write, _)| write).collect()
}

fn conflict(what: &str) -> Error {
    Error::Conflict {
        what: what.to_owned(),
    }
}

fn got_keys(list: &[Action]) -> Vec<Bytes> {
    list.iter()
        .filter(|action| !action.is_write())
        .map(|action| action.key().clone())
        .collect()
}

fn read_keys(part: &Part) -> Vec<Bytes> {
    let compared = part.compare.iter().filter_map(Compare::key).cloned();
    compared
        .chain(got_keys(&part.then))
        .chain(got_keys(&part.otherwise))
        .collect()
}

fn ranges(part: &Part) -> Vec<(Bytes, Bytes)> {
    part.compare
        .iter()
        .filter_map(|compare| match compare {
            Compare::RangeUnchanged { from, to, .. } => Some((from.clone(), to.clone())),
            Compare::Unchanged { .. }
            | Compare::Absent { .. }
            | Compare::Exists { .. }
            | Compare::Value { .. }
            | Compare::Context { .. } => None,
        })
        .collect()
}
