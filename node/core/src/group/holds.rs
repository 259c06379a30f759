//! What a group keeps to itself for a moment: the outcomes and reads of the time in which a view of several shards is
//! taken, and writes that wait for a prepared transaction.
//!
//! A view is one point in time although its parts are taken one after the other, because nothing that happened in a group
//! after its part was taken is said to anybody before the last part is (`docs/transactions.md`). Held back is what is
//! *said*; logging, replicating and applying go on.
//!
//! A second view may be taken meanwhile, and may show what is held back for the first. It is not said to be taken before
//! that has left: whoever reads from it must not learn what the first view hides before the first is complete.
//!
//! Invariant: what is held leaves in order, at the latest when the last hold that was open when it came has gone.

use std::collections::{BTreeMap, VecDeque};

use super::{Group, Outcome};
use crate::command::{WriteOp, WriteOutcome};
use crate::ids::RequestId;
use crate::shard::Resolved;
use crate::time::Now;

/// Writes that wait in a group for prepared transactions: past it they are told to come again.
const LOCKED_MAX: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    /// By the order in which they began: the view, and when the hold ends by itself.
    open: BTreeMap<u64, (u64, u64)>,
    begun: u64,
    held: VecDeque<Held>,
}

/// What came while holds were open.
#[derive(Debug)]
struct Held {
    /// The last hold that had begun by then.
    through: u64,
    said: Said,
}

/// What a group has to say.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) reads: Vec<RequestId>,
}

impl Holds {
    /// Begins to hold back, for a view.
    pub(crate) fn begin(&mut self, view: u64, until_ns: u64) {
        self.begun = self.begun.saturating_add(1);
        self.open.insert(self.begun, (view, until_ns));
    }

    /// The views for which outcomes are kept back that came before the hold of `view` began.
    pub(crate) fn ahead_of(&self, view: u64) -> Vec<u64> {
        let own = self.number_of(view);
        let shown = |held: &Held| held.through < own && !held.said.outcomes.is_empty();
        if !self.held.iter().any(shown) {
            return Vec::new();
        }
        self.open.range(..own).map(|(_, (of, _))| *of).collect()
    }

    /// Keeps a ticket until what came before the hold of `view` began has left.
    pub(crate) fn defer(&mut self, view: u64, ticket: RequestId) {
        let own = self.number_of(view);
        let place = self.held.partition_point(|held| held.through < own);
        let held = Held {
            through: own.saturating_sub(1),
            said: Said {
                outcomes: Vec::new(),
                reads: vec![ticket],
            },
        };
        self.held.insert(place, held);
    }

    fn number_of(&self, view: u64) -> u64 {
        let open = self.open.iter().find(|(_, (of, _))| *of == view);
        open.map_or(0, |(number, _)| *number)
    }

    /// The view needs no more.
    pub(crate) fn end(&mut self, view: u64) {
        self.open.retain(|_, (of, _)| *of != view);
    }

    /// Ends holds that have lasted too long; their views are no good.
    pub(crate) fn expire(&mut self, now: Now) -> Vec<u64> {
        let late = self
            .open
            .values()
            .filter(|(_, until)| *until <= now.mono_ns);
        let late: Vec<u64> = late.map(|(view, _)| *view).collect();
        for view in &late {
            self.end(*view);
        }
        late
    }

    /// No more leader: nothing is held any longer. Views that counted on it are refused when they are confirmed.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }

    /// Takes what a group has to say, and hands out what may be said now.
    pub(crate) fn pass(&mut self, said: Said) -> Said {
        if self.open.is_empty() && self.held.is_empty() {
            return said;
        }
        if !said.outcomes.is_empty() || !said.reads.is_empty() {
            let through = if self.open.is_empty() { 0 } else { self.begun };
            self.held.push_back(Held { through, said });
        }
        let first_open = self.open.keys().next().copied().unwrap_or(u64::MAX);
        let mut free = Said::default();
        while let Some(held) = self.held.pop_front_if(|held| held.through < first_open) {
            free.outcomes.extend(held.said.outcomes);
            free.reads.extend(held.said.reads);
        }
        free
    }

    /// Something is held that may be said now.
    pub(crate) fn is_due(&self) -> bool {
        let first_open = self.open.keys().next().copied().unwrap_or(u64::MAX);
        self.held
            .front()
            .is_some_and(|held| held.through < first_open)
    }
}

impl Group {
    /// This replica no longer leads. What it held back may be said, it is all committed; what was not proposed yet and
    /// must not be proposed by a later leadership goes.
    pub(crate) fn lose_lead(&mut self) {
        self.holds.clear();
        self.locked.clear();
        self.queue
            .retain(|op| !matches!(op, crate::command::Op::Decide(_)));
    }

    /// Keeps writes that met a prepared transaction until one is resolved.
    pub(super) fn park(&mut self, locked: Vec<WriteOp>) {
        for op in locked {
            let own = op.waiter.node == self.replica.node() && self.leads();
            if own && self.locked.len() < LOCKED_MAX {
                self.locked.push(op);
            } else {
                self.outcomes
                    .push(Outcome::Write(op.waiter, op.op_id, WriteOutcome::Locked));
            }
        }
    }

    /// What was resolved in the turn that is written now; writes that waited are proposed again.
    pub(super) fn take_resolved(&mut self) -> Vec<Resolved> {
        let resolved = std::mem::take(&mut self.resolved);
        let locked = if resolved.is_empty() && self.leads() {
            Vec::new()
        } else {
            std::mem::take(&mut self.locked)
        };
        if self.leads() {
            self.queue
                .extend(locked.into_iter().map(crate::command::Op::Write));
        }
        resolved
    }
}
