//! What outlives a coordinator: decisions are carried to every part, and parts whose coordinator is silent ask.
//!
//! * The leader of a group follows up each decision that stands in its records until all parts have logged it, whoever
//!   took it; then it is forgotten.
//! * The leader of a group with a prepared part older than [`INQUIRE_AFTER_MS`] asks the shard that decides. That shard's
//!   leader answers once it is sure to lead (a read index): a decision that is in its records; nothing yet while it
//!   coordinates the attempt itself; otherwise *aborted*: only the coordinator could have decided, its proposals would
//!   stand in the log before this leader's first entry, and there is none.
//!
//! So a key stays locked for at most the patience of a coordinator (a second for each time it follows a leader that moved),
//! or, when that died, an election and an inquiry; and for as long as the shard that decides has no majority to ask.

use std::collections::BTreeSet;

use crate::command::{Op, Waiter as Proposer};
use crate::core::Core;
use crate::error::Error;
use crate::group::Group;
use crate::ids::{GroupId, ShardId};
use crate::inner::{InnerRequest, InnerResponse};
use crate::limits::{INQUIRE_AFTER_MS, PREPARE_MS_MAX};
use crate::output::{Outputs, Stage};
use crate::request::Response;
use crate::shard::Shard;
use crate::time::Now;
use crate::transaction::TransactionId;
use crate::two_phase::{ResolveOp, Verdict};
use crate::waiting::Own;

/// How long a part is waited for before it is told again.
const SETTLE_RETRY_MS: u64 = 500;

/// Decisions followed up, and parts asked for, in one tick of a group: the rest waits for the next.
const ROUND_MAX: usize = 512;

/// Decisions that one entry forgets.
const FORGET_MAX: usize = 256;

/// A decision on its way to the other parts.
#[derive(Debug)]
pub(crate) struct Settling {
    verdict: Verdict,
    remaining: BTreeSet<ShardId>,
    told_ns: u64,
    forgetting_ns: u64,
}

/// A prepared part, as long as this node leads its group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    ask_ns: u64,
}

impl Core {
    /// Begins to carry a decision to the other parts.
    pub(crate) fn settle(
        &mut self,
        now: Now,
        (group, id): (GroupId, TransactionId),
        out: &mut Outputs,
    ) {
        let Some(shard) = self.groups.get(&group).and_then(Group::shard) else {
            return;
        };
        let Some((at, decided)) = shard.locks().decided().get(&id) else {
            return;
        };
        let settling = Settling {
            verdict: Verdict::Committed {
                succeeded: decided.succeeded,
                at: *at,
            },
            remaining: decided.others.iter().copied().collect(),
            told_ns: now.mono_ns,
            forgetting_ns: 0,
        };
        self.settling.insert((group, id), settling);
        self.tell_remaining(now, (group, id), out);
    }

    fn tell_remaining(
        &mut self,
        now: Now,
        (anchor, id): (GroupId, TransactionId),
        out: &mut Outputs,
    ) {
        let Some(settling) = self.settling.get_mut(&(anchor, id)) else {
            return;
        };
        settling.told_ns = now.mono_ns;
        let (verdict, remaining) = (settling.verdict, settling.remaining.clone());
        for shard in remaining {
            let Some(group) = self.own_group(anchor.keyspace, shard) else {
                continue;
            };
            let request = InnerRequest::Resolve {
                keyspace: anchor.keyspace,
                shard,
                id,
                verdict,
            };
            let own = Own::Settle { anchor, id, shard };
            self.ask(group, request, (own, now.after_ms(PREPARE_MS_MAX)), out);
        }
    }

    /// A part has followed a decision, or cannot be told now.
    pub(crate) fn followed(
        &mut self,
        (anchor, id): (GroupId, TransactionId),
        shard: ShardId,
        result: &Result<Response, Error>,
        out: &mut Outputs,
    ) {
        if let Err(error) = result {
            if let Some(group) = self.own_group(anchor.keyspace, shard) {
                self.learn_leader(group, None, error);
            }
            return;
        }
        let Some(settling) = self.settling.get_mut(&(anchor, id)) else {
            return;
        };
        settling.remaining.remove(&shard);
        if settling.remaining.is_empty() {
            self.stage(id, Stage::Followed, out);
            let forget = self.to_forget.entry(anchor).or_default();
            forget.push(id);
            if forget.len() >= FORGET_MAX {
                self.forget(anchor);
            }
        }
    }

    fn forget(&mut self, anchor: GroupId) {
        let ids = self.to_forget.remove(&anchor).unwrap_or_default();
        if !ids.is_empty() && self.leads(anchor) {
            self.queue(anchor, |group| group.enqueue(Op::Forget { ids }));
        }
    }

    /// The rounds of a group that this node leads.
    pub(crate) fn tick_recovery(&mut self, now: Now, id: GroupId, out: &mut Outputs) {
        let current = self.groups.get(&id).is_some_and(Group::is_current);
        if !current {
            return;
        }
        self.forget(id);
        self.follow_up(now, id, out);
        self.inquire_due(now, id, out);
    }

    /// Decisions of former leaders are taken up; what was told in vain is told again.
    fn follow_up(&mut self, now: Now, group: GroupId, out: &mut Outputs) {
        let Some(shard) = self.groups.get(&group).and_then(Group::shard) else {
            return;
        };
        let due = shard.locks().decided().keys().filter(|id| {
            let settling = self.settling.get(&(group, **id));
            settling.is_none_or(|settling| settling.is_due(now))
                && !self.coordinations.contains_key(id)
        });
        let due: Vec<TransactionId> = due.take(ROUND_MAX).copied().collect();
        for id in due {
            match self.settling.get_mut(&(group, id)) {
                None => self.settle(now, (group, id), out),
                Some(settling) if settling.remaining.is_empty() => {
                    settling.forgetting_ns = now.mono_ns;
                    self.to_forget.entry(group).or_default().push(id);
                }
                Some(_) => self.tell_remaining(now, (group, id), out),
            }
        }
        let Some(shard) = self.groups.get(&group).and_then(Group::shard) else {
            return;
        };
        let decided = shard.locks().decided();
        self.settling
            .retain(|(of, id), _| *of != group || decided.contains_key(id));
    }

    /// Asks what became of parts that were prepared some time ago.
    fn inquire_due(&mut self, now: Now, group: GroupId, out: &mut Outputs) {
        let Some(prepared) = self
            .groups
            .get(&group)
            .and_then(Group::shard)
            .map(|shard| shard.locks().prepared())
        else {
            return;
        };
        self.prepared_since
            .retain(|(of, id), _| *of != group || prepared.contains_key(id));
        let mut due = Vec::new();
        for (id, part) in prepared {
            let known = self
                .prepared_since
                .entry((group, *id))
                .or_insert_with(|| Waiting {
                    ask_ns: now.after_ms(INQUIRE_AFTER_MS),
                });
            if known.ask_ns <= now.mono_ns && due.len() < ROUND_MAX {
                known.ask_ns = now.after_ms(INQUIRE_AFTER_MS);
                due.push((*id, part.anchor));
            }
        }
        for (id, anchor) in due {
            self.stage(id, Stage::Inquired, out);
            let Some(of) = self.own_group(group.keyspace, anchor) else {
                continue;
            };
            let request = InnerRequest::Inquire {
                keyspace: group.keyspace,
                shard: anchor,
                id,
            };
            let own = Own::Inquiry { group, id };
            self.ask(of, request, (own, now.after_ms(PREPARE_MS_MAX)), out);
        }
    }

    /// The shard that decides has said what became of a transaction.
    pub(crate) fn inquired(
        &mut self,
        (group, id): (GroupId, TransactionId),
        result: &Result<Response, Error>,
    ) {
        let shard = self.groups.get(&group).and_then(Group::shard);
        let part = shard.and_then(|shard| shard.locks().prepared().get(&id));
        let Some(anchor) = part.map(|part| part.anchor) else {
            return;
        };
        match result {
            Ok(Response::Inner(inner)) => {
                if let InnerResponse::Inquired(Some(verdict)) = **inner
                    && self.leads(group)
                {
                    let waiter = Proposer::default();
                    let op = Op::Resolve(ResolveOp {
                        id,
                        verdict,
                        waiter,
                    });
                    self.queue(group, |group| group.enqueue(op));
                }
            }
            Ok(_) => {}
            Err(error) => {
                if let Some(of) = self.own_group(group.keyspace, anchor) {
                    self.learn_leader(of, None, error);
                }
            }
        }
    }

    /// What this node, sure to lead the shard that decides, says of an attempt.
    pub(crate) fn verdict(&self, group: GroupId, id: TransactionId) -> Option<Verdict> {
        let shard = self.groups.get(&group).and_then(Group::shard);
        let decided = shard
            .map(Shard::locks)
            .and_then(|locks| locks.decided().get(&id));
        if let Some((at, decided)) = decided {
            return Some(Verdict::Committed {
                succeeded: decided.succeeded,
                at: *at,
            });
        }
        let open = self.coordinations.contains_key(&id);
        (!open).then_some(Verdict::Aborted)
    }

    /// A group is no longer led: its next leader finds everything in the records.
    pub(crate) fn drop_recovery(&mut self, group: GroupId) {
        self.settling.retain(|(of, _), _| *of != group);
        self.prepared_since.retain(|(of, _), _| *of != group);
        self.to_forget.remove(&group);
    }
}

impl Settling {
    fn is_due(&self, now: Now) -> bool {
        let last = self.told_ns.max(self.forgetting_ns);
        now.mono_ns
            >= Now {
                mono_ns: last,
                ..now
            }
            .after_ms(SETTLE_RETRY_MS)
    }
}
