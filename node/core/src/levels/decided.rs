//! `ack = all` for transactions over several shards: the shards that prepared hear of a decision once it is committed, so that
//! no key stays locked while a zone is away; the client hears of it once every zone holds it durably.
//!
//! When its time is over before, or the leadership is lost, the transaction stands; it has no one dot to name it by, so the
//! answer is `OUTCOME_UNKNOWN`, and a retry with its op id waits for the same decision again.
//!
//! What it is not: the wait of anything else (`group::acks`), and of no use where `ack` is not `all`: nothing waits then.

use super::LevelWait;
use crate::core::Core;
use crate::error::Error;
use crate::ids::GroupId;
use crate::output::Outputs;
use crate::request::Response;
use crate::time::Now;
use crate::transaction::Transacted;
use crate::waiting::{Origin, Waiter, What};

/// A decision that waits for all zones.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    pub(super) group: GroupId,
    /// Whoever holds the log up to here holds the decision.
    index: u64,
    transacted: Box<Transacted>,
}

impl Decided {
    /// The time is over.
    pub(super) fn not_seen(&self) -> Error {
        Error::OutcomeUnknown {
            op_id: self.transacted.op_id,
        }
    }
}

impl Core {
    /// Tells those who wait for a transaction what was decided, now or once all zones hold it.
    pub(crate) fn say_decided(
        &mut self,
        now: Now,
        (group, deadline_ns): (GroupId, u64),
        (origins, transacted): (Vec<Origin>, Box<Transacted>),
        out: &mut Outputs,
    ) {
        let decided = Decided {
            group,
            index: self.applied(group),
            transacted,
        };
        for origin in origins {
            if let Some(told) = self.told_of(&decided) {
                Self::answer(origin, Ok(told), out);
                continue;
            }
            let waiter = Waiter {
                origin,
                deadline_ns: Self::reach_by(now, (group, origin), deadline_ns),
                bounded: false,
                what: What::Level(Box::new(LevelWait::Decided(decided.clone()))),
            };
            match self.waiting.enter(waiter) {
                Some(ticket) => {
                    let reaching = self.levels.reaching.entry(group).or_default();
                    reaching.insert(ticket);
                }
                None => Self::answer(origin, Err(decided.not_seen()), out),
            }
        }
    }

    /// What is said of a decision, as soon as it may be.
    pub(super) fn told_of(&self, decided: &Decided) -> Option<Response> {
        let mut transacted = decided.transacted.clone();
        if let Some(local) = self
            .groups
            .get(&decided.group)
            .filter(|group| group.waits_for_all())
        {
            if !local.leads() || !local.all_hold(decided.index) {
                return None;
            }
            transacted.zones = local.holders(decided.index);
            transacted.degraded = !local.degraded().is_empty();
        }
        Some(Response::Transacted(transacted))
    }
}
