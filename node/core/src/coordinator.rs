//! Transactions over several shards, as the leader of the shard that decides brings them together.
//!
//! ```text
//! client -> anchor's leader: Transact
//!           other shards   : Prepare   (checked, locked, logged; in parallel)       -> votes
//!           anchor         : Decide    (own part checked and done; logged: this is the point where it takes effect)
//! client <- anchor's leader: Transacted
//!           other shards   : Resolve   (done, unlocked; logged)                     -> Resolved
//!           anchor         : Forget    (logged)
//! ```
//!
//! What it is not: durable. A coordination lives in the memory of the leader it began with, and dies with its leadership.
//! What was decided stands in the anchor's log, and `recovery` follows it up; what was not decided never will be, and the
//! parts find that out by asking (presumed abort).
//!
//! Invariants:
//! * a client is answered once;
//! * `Decide` is proposed at most once per attempt, in the term in which the attempt began;
//! * nobody is told that a transaction took effect before its decision is written.

use std::collections::{BTreeMap, BTreeSet};

use meridian_causal::OpId;
use rand::Rng;

use crate::catalog::shard_of;
use crate::command::Op;
use crate::core::Core;
use crate::error::{EffectOf, Error};
use crate::group::Group;
use crate::ids::{GroupId, NodeId, ShardId};
use crate::inner::{InnerRequest, InnerResponse, Prepare};
use crate::limits::{
    COORDINATIONS_MAX, KEY_SIZE_BYTES_MAX, PREPARE_MS_MAX, TRANSACTION_BYTES_MAX,
    TRANSACTION_OPERATIONS_MAX, VALUE_SIZE_BYTES_MAX,
};
use crate::output::{Observation, Outputs, Stage};
use crate::request::Response;
use crate::route::Routed;
use crate::shard::results;
use crate::time::Now;
use crate::transaction::{Action, ActionResult, Compare, Transacted, Transaction, TransactionId};
use crate::two_phase::{DecideOp, Part, TransactOp, Verdict, Vote};
use crate::waiting::{Origin, Own, Waiter, What};

/// How often a prepare follows a shard that has another leader than was thought.
const VOTE_ATTEMPTS_MAX: u32 = 3;

/// One attempt under way.
#[derive(Debug)]
pub(crate) struct Coordination {
    /// Who waits: the client, and its retries that came meanwhile.
    origins: Vec<Origin>,
    /// When the client no longer waits.
    deadline_ns: u64,
    anchor: GroupId,
    term: u64,
    transaction: Transaction,
    parts: BTreeMap<ShardId, Part>,
    votes: BTreeMap<ShardId, Vote>,
    deciding: bool,
}

impl Coordination {
    fn others(&self) -> Vec<ShardId> {
        let others = self.parts.keys().copied();
        others.filter(|shard| *shard != self.anchor.shard).collect()
    }

    fn refuse(&self) -> bool {
        self.transaction.otherwise.is_empty()
    }

    fn others_hold(&self) -> bool {
        self.votes.values().all(|vote| vote.holds)
    }
}

impl Core {
    /// A transaction at the leader of its anchor.
    pub(crate) fn transact(
        &mut self,
        now: Now,
        routed: Routed,
        transaction: Transaction,
        out: &mut Outputs,
    ) {
        if let Err(error) = self.check_transaction(&transaction) {
            Self::answer(routed.origin, Err(error), out);
            return;
        }
        let mut parts = match self.split(&transaction) {
            Ok(parts) => parts,
            Err(error) => {
                Self::answer(routed.origin, Err(error), out);
                return;
            }
        };
        if parts.len() > 1 && !self.remembers(routed.group, transaction.op_id) {
            self.coordinate(now, routed, (transaction, parts), out);
            return;
        }
        let what = What::Write(routed.group, transaction.op_id);
        let Some(ticket) = self.ticket(&routed, what, out) else {
            return;
        };
        let op = Op::Transact(Box::new(TransactOp {
            op_id: transaction.op_id,
            part: if parts.len() > 1 {
                Part::default()
            } else {
                parts.remove(&routed.group.shard).unwrap_or_default()
            },
            waiter: self.proposer(ticket),
        }));
        self.queue(routed.group, |group| group.enqueue(op));
    }

    /// An earlier attempt has taken effect: nobody else need be asked. It is said through the log, and its results are not
    /// known any more.
    fn remembers(&self, group: GroupId, op_id: OpId) -> bool {
        let shard = self.groups.get(&group).and_then(Group::shard);
        let known = shard.map(|shard| shard.remembers(&*self.engine, op_id));
        known.is_some_and(|known| known.unwrap_or(false))
    }

    fn check_transaction(&self, transaction: &Transaction) -> Result<(), Error> {
        if self.disk_full {
            return Err(Error::DiskFull);
        }
        let operations =
            transaction.compare.len() + transaction.then.len() + transaction.otherwise.len();
        limit("operations", operations, TRANSACTION_OPERATIONS_MAX)?;
        let compared: usize = transaction.compare.iter().map(Compare::encoded_bytes).sum();
        let actions = transaction.then.iter().chain(&transaction.otherwise);
        let bytes = compared + actions.clone().map(Action::encoded_bytes).sum::<usize>();
        limit("transaction bytes", bytes, TRANSACTION_BYTES_MAX)?;
        let compared = transaction.compare.iter().filter_map(Compare::key);
        for key in compared.chain(actions.clone().map(Action::key)) {
            if key.is_empty() {
                let message = "a key has at least one byte".to_owned();
                return Err(Error::InvalidArgument { message });
            }
            limit("key bytes", key.len(), KEY_SIZE_BYTES_MAX)?;
        }
        for action in actions {
            if let Action::Write { content, .. } = action {
                let bytes = content.value().map_or(0, bytes::Bytes::len);
                limit("value bytes", bytes, VALUE_SIZE_BYTES_MAX)?;
            }
        }
        written_once(&transaction.then)?;
        written_once(&transaction.otherwise)
    }

    /// What the transaction asks of each shard.
    fn split(&self, transaction: &Transaction) -> Result<BTreeMap<ShardId, Part>, Error> {
        let keyspace = self
            .catalog
            .keyspaces
            .get(&transaction.keyspace)
            .ok_or(Error::KeyspaceNotFound)?;
        let mut parts: BTreeMap<ShardId, Part> = BTreeMap::new();
        for compare in &transaction.compare {
            let shard = match compare {
                Compare::RangeUnchanged { shard, .. } => *shard,
                Compare::Unchanged { key, .. }
                | Compare::Absent { key }
                | Compare::Exists { key }
                | Compare::Value { key, .. }
                | Compare::Context { key, .. } => keyspace.shard_of(key),
            };
            if shard.0 >= keyspace.shards {
                let message = format!("there is no shard {}", shard.0);
                return Err(Error::InvalidArgument { message });
            }
            parts
                .entry(shard)
                .or_default()
                .compare
                .push(compare.clone());
        }
        for action in &transaction.then {
            let part = parts.entry(keyspace.shard_of(action.key())).or_default();
            part.then.push(action.clone());
        }
        for action in &transaction.otherwise {
            let part = parts.entry(keyspace.shard_of(action.key())).or_default();
            part.otherwise.push(action.clone());
        }
        Ok(parts)
    }

    fn coordinate(
        &mut self,
        now: Now,
        routed: Routed,
        (transaction, parts): (Transaction, BTreeMap<ShardId, Part>),
        out: &mut Outputs,
    ) {
        if self.coordinations.len() >= COORDINATIONS_MAX {
            let what = "the table of transactions".to_owned();
            Self::answer(routed.origin, Err(Error::Overloaded { what }), out);
            return;
        }
        let op = (transaction.keyspace, transaction.op_id.id);
        if let Some(open) = self
            .coordinated
            .get(&op)
            .and_then(|id| self.coordinations.get_mut(id))
        {
            open.origins.push(routed.origin);
            open.deadline_ns = open.deadline_ns.max(routed.deadline_ns);
            return;
        }
        let id = TransactionId(self.rng.random());
        self.coordinated.insert(op, id);
        let coordination = Coordination {
            origins: vec![routed.origin],
            deadline_ns: routed.deadline_ns,
            anchor: routed.group,
            term: self
                .groups
                .get(&routed.group)
                .map_or(0, crate::group::Group::term),
            transaction,
            parts,
            votes: BTreeMap::new(),
            deciding: false,
        };
        let others = coordination.others();
        self.coordinations.insert(id, coordination);
        self.stage(id, Stage::Began, out);
        for shard in others {
            self.ask_vote(now, (id, shard, 0), out);
        }
    }

    fn ask_vote(
        &mut self,
        now: Now,
        (id, shard, attempts): (TransactionId, ShardId, u32),
        out: &mut Outputs,
    ) {
        let Some(open) = self.coordinations.get(&id) else {
            return;
        };
        let keyspace = open.transaction.keyspace;
        let prepare = Prepare {
            keyspace,
            shard,
            id,
            op_id: open.transaction.op_id,
            anchor: open.anchor.shard,
            parts: u16::try_from(open.parts.len()).unwrap_or(u16::MAX),
            part: open.parts.get(&shard).cloned().unwrap_or_default(),
            refuse: open.refuse(),
        };
        let deadline_ns = now.after_ms(PREPARE_MS_MAX);
        let own = Own::Vote {
            id,
            shard,
            attempts,
        };
        match self.own_group(keyspace, shard) {
            Some(group) => {
                let request = InnerRequest::Prepare(prepare);
                self.ask(group, request, (own, deadline_ns), out);
            }
            None => self.give_up(now, id, Error::KeyspaceNotFound, out),
        }
    }

    /// A shard has voted, or will not.
    pub(crate) fn voted(
        &mut self,
        now: Now,
        (id, shard, attempts): (TransactionId, ShardId, u32),
        result: Result<Response, Error>,
        out: &mut Outputs,
    ) {
        let Some(open) = self.coordinations.get_mut(&id) else {
            return;
        };
        let error = match result {
            Ok(Response::Inner(inner)) if matches!(*inner, InnerResponse::Voted(_)) => {
                if let InnerResponse::Voted(vote) = *inner {
                    open.votes.insert(shard, vote);
                }
                if open.votes.len() + 1 < open.parts.len() {
                    self.stage(id, Stage::Voted, out);
                } else {
                    self.decide(now, id, out);
                }
                return;
            }
            Ok(_) => unanswered(),
            Err(error) => error,
        };
        let group = self
            .catalog
            .group_of(open.transaction.keyspace, shard, open.anchor.zone)
            .map(|record| record.id);
        if let (Error::NotLeader { .. }, Some(group)) = (&error, group) {
            self.learn_leader(group, None, &error);
            let known = matches!(error, Error::NotLeader { leader: Some(_) });
            if known && attempts < VOTE_ATTEMPTS_MAX {
                self.ask_vote(now, (id, shard, attempts + 1), out);
                return;
            }
        }
        let unseen = matches!(
            error,
            Error::OutcomeUnknown { .. } | Error::DeadlineExceeded { .. } | Error::Poisoned
        );
        let error = if unseen {
            // The vote may be in a log, but nothing was decided and nothing will be.
            if let Some(group) = group {
                self.learn_leader(group, None, &error);
            }
            unanswered()
        } else {
            error
        };
        self.give_up(now, id, error, out);
    }

    /// All votes are in: the anchor's own part decides.
    fn decide(&mut self, now: Now, id: TransactionId, out: &mut Outputs) {
        self.stage(id, Stage::Deciding, out);
        let Some(open) = self.coordinations.get(&id) else {
            return;
        };
        let anchor = open.anchor;
        let group = self.groups.get(&anchor);
        let current = group.is_some_and(|group| group.leads() && group.term() == open.term);
        if !current {
            self.give_up(now, id, Error::NotLeader { leader: None }, out);
            return;
        }
        let waiter = Waiter {
            origin: Origin::Core,
            deadline_ns: u64::MAX,
            bounded: false,
            what: What::Own(Own::Decision { id, group: anchor }),
        };
        let Some(ticket) = self.waiting.enter(waiter) else {
            let what = "the queue of waiting requests".to_owned();
            self.give_up(now, id, Error::Overloaded { what }, out);
            return;
        };
        let waiter = self.proposer(ticket);
        let Some(open) = self.coordinations.get_mut(&id) else {
            return;
        };
        open.deciding = true;
        let (others, others_hold) = (open.others(), open.others_hold());
        let op = DecideOp {
            id,
            op_id: open.transaction.op_id,
            part: open.parts.get(&anchor.shard).cloned().unwrap_or_default(),
            others,
            others_hold,
            refuse: open.refuse(),
            waiter,
        };
        self.queue(anchor, |group| group.enqueue(Op::Decide(Box::new(op))));
        if self.config.planted.decide_before_durable {
            let verdict = Verdict::Committed {
                succeeded: others_hold,
                at: 0,
            };
            if let Some(open) = self.coordinations.remove(&id) {
                self.tell_others(now, (id, &open), verdict, out);
                self.coordinations.insert(id, open);
            }
        }
    }

    /// The decision is applied and written, or not to be seen any more.
    pub(crate) fn decided(
        &mut self,
        now: Now,
        (id, group): (TransactionId, GroupId),
        result: Result<Response, Error>,
        out: &mut Outputs,
    ) {
        let Some(mut open) = self.close(id) else {
            return;
        };
        match result {
            Ok(Response::Transacted(mut transacted)) => {
                if transacted.repeated {
                    self.tell_others(now, (id, &open), Verdict::Aborted, out);
                } else {
                    let shards = self.shards_of(open.transaction.keyspace);
                    transacted.results =
                        merged_results(&open, &transacted, |key| shard_of(key, shards));
                    self.stage(id, Stage::Told, out);
                    self.settle(now, (group, id), out);
                }
                let origins = std::mem::take(&mut open.origins);
                self.say_decided(now, (group, open.deadline_ns), (origins, transacted), out);
            }
            Ok(_) => {
                let op_id = open.transaction.op_id;
                answer_once(&mut open, Err(Error::OutcomeUnknown { op_id }), out);
            }
            Err(error) if error.effect() == EffectOf::None => {
                self.end_without_effect(now, (id, open), error, out);
            }
            Err(Error::Poisoned) => answer_once(&mut open, Err(Error::Poisoned), out),
            // It may yet commit: the parts ask.
            Err(_) => {
                let op_id = open.transaction.op_id;
                answer_once(&mut open, Err(Error::OutcomeUnknown { op_id }), out);
            }
        }
    }

    /// The attempt ends without effect: nothing was decided, and nobody can decide it any more.
    fn give_up(&mut self, now: Now, id: TransactionId, error: Error, out: &mut Outputs) {
        if let Some(open) = self.close(id) {
            self.end_without_effect(now, (id, open), error, out);
        }
    }

    fn end_without_effect(
        &mut self,
        now: Now,
        (id, mut open): (TransactionId, Coordination),
        error: Error,
        out: &mut Outputs,
    ) {
        self.stage(id, Stage::Aborted, out);
        self.tell_others(now, (id, &open), Verdict::Aborted, out);
        answer_once(&mut open, Err(error), out);
    }

    /// The attempt is no longer coordinated.
    fn close(&mut self, id: TransactionId) -> Option<Coordination> {
        let open = self.coordinations.remove(&id)?;
        let transaction = &open.transaction;
        self.coordinated
            .remove(&(transaction.keyspace, transaction.op_id.id));
        Some(open)
    }

    fn tell_others(
        &mut self,
        now: Now,
        (id, open): (TransactionId, &Coordination),
        verdict: Verdict,
        out: &mut Outputs,
    ) {
        let keyspace = open.transaction.keyspace;
        for shard in open.others() {
            if let Some(group) = self.own_group(keyspace, shard) {
                let request = InnerRequest::Resolve {
                    keyspace,
                    shard,
                    id,
                    verdict,
                };
                self.tell(now, group, request, out);
            }
        }
    }

    /// Clients that no longer wait are answered.
    pub(crate) fn tick_coordinations(&mut self, now: Now, out: &mut Outputs) {
        let late = self
            .coordinations
            .iter()
            .filter(|(_, open)| open.deadline_ns <= now.mono_ns && !open.origins.is_empty());
        let late: Vec<(TransactionId, bool)> =
            late.map(|(id, open)| (*id, open.deciding)).collect();
        for (id, deciding) in late {
            if !deciding {
                self.give_up(now, id, unanswered(), out);
            } else if let Some(open) = self.coordinations.get_mut(&id) {
                let op_id = open.transaction.op_id;
                answer_once(open, Err(Error::OutcomeUnknown { op_id }), out);
            }
        }
    }

    /// A group is no longer led: what began with it and was not proposed ends. Decisions that are in the log are answered
    /// by their tickets.
    pub(crate) fn drop_coordinations(
        &mut self,
        now: Now,
        group: GroupId,
        leader: Option<NodeId>,
        out: &mut Outputs,
    ) {
        let lost = self
            .coordinations
            .iter()
            .filter(|(_, open)| open.anchor == group && !open.deciding);
        let lost: Vec<TransactionId> = lost.map(|(id, _)| *id).collect();
        for id in lost {
            self.give_up(now, id, Error::NotLeader { leader }, out);
        }
    }

    /// The store failed: everybody who waits is told.
    pub(crate) fn fail_coordinations(&mut self, out: &mut Outputs) {
        self.coordinated.clear();
        for (_, mut open) in std::mem::take(&mut self.coordinations) {
            answer_once(&mut open, Err(Error::Poisoned), out);
        }
        for (_, opening) in std::mem::take(&mut self.openings) {
            Self::answer(opening.origin(), Err(Error::Poisoned), out);
        }
    }

    pub(crate) fn stage(&self, id: TransactionId, stage: Stage, out: &mut Outputs) {
        if self.config.observe {
            out.observations.push(Observation::Stage { id, stage });
        }
    }
}

fn answer_once(open: &mut Coordination, result: Result<Response, Error>, out: &mut Outputs) {
    for origin in std::mem::take(&mut open.origins) {
        Core::answer(origin, result.clone(), out);
    }
}

fn unanswered() -> Error {
    Error::Conflict {
        what: "a shard did not answer in time".to_owned(),
    }
}

fn limit(what: &str, found: usize, limit: usize) -> Result<(), Error> {
    if found <= limit {
        return Ok(());
    }
    Err(Error::TooLarge {
        what: what.to_owned(),
        found: u64::try_from(found).unwrap_or(u64::MAX),
        limit: u64::try_from(limit).unwrap_or(u64::MAX),
    })
}

fn written_once(list: &[Action]) -> Result<(), Error> {
    let mut written = BTreeSet::new();
    for action in list.iter().filter(|action| action.is_write()) {
        if !written.insert(action.key()) {
            let message = "a key is written twice in one list".to_owned();
            return Err(Error::InvalidArgument { message });
        }
    }
    Ok(())
}

/// The results of all shards in the order of the list that was done.
fn merged_results(
    open: &Coordination,
    anchor: &Transacted,
    shard_of: impl Fn(&[u8]) -> ShardId,
) -> Vec<ActionResult> {
    let holds = anchor.succeeded;
    let mut by_shard: BTreeMap<ShardId, std::vec::IntoIter<ActionResult>> = BTreeMap::new();
    for (shard, part) in &open.parts {
        let of_shard = match open.votes.get(shard) {
            Some(vote) => {
                let reads = if holds { &vote.then } else { &vote.otherwise };
                results(part.list(holds), reads.clone(), std::iter::empty())
            }
            None => anchor.results.clone(),
        };
        by_shard.insert(*shard, of_shard.into_iter());
    }
    let list = if holds {
        &open.transaction.then
    } else {
        &open.transaction.otherwise
    };
    list.iter()
        .filter_map(|action| by_shard.get_mut(&shard_of(action.key()))?.next())
        .collect()
}
