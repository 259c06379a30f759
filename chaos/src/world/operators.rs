//! The operator's side of the world: requests to alter the keyspace, to promote a mirror, or to give that up, to whichever node
//! answers.
//!
//! What becomes of an alter is not taken from the answers, which may be lost, but from the catalogs (`lineage`).

use meridian_core::catalog::Policy;
use meridian_core::error::Error;
use meridian_core::request::{AlterAsk, KeyspaceAlter, Request, Response};
use rand::rngs::SmallRng;

use super::names::NAME;
use super::{Event, World};
use crate::nemesis::FaultKind;
use crate::node::zone_id;
use crate::operator::{self, Errand};
use crate::rng::{Draw, MS, SEC, Streams};

/// Requests of the operator have numbers whose upper half is this.
pub(super) const OPERATOR: u64 = 0xfffe;

/// How often the operator tries an errand, at another node each time.
const ATTEMPTS_MAX: u32 = 8;

/// How long it waits for an answer.
const PATIENCE_NS: u64 = 2 * SEC;

/// Where the operator stands.
#[derive(Debug)]
pub(super) struct Operating {
    rng: SmallRng,
    /// The request under way, and what it is about.
    awaited: Option<(u64, Errand)>,
    sent: u64,
    attempts: u32,
}

impl Operating {
    /// An operator that has done nothing yet.
    pub(super) fn new(streams: Streams) -> Self {
        Self {
            rng: streams.stream("operator", 0),
            awaited: None,
            sent: 0,
            attempts: 0,
        }
    }

    /// Whether no answer is waited for.
    pub(super) const fn is_idle(&self) -> bool {
        self.awaited.is_none()
    }
}

impl World {
    /// The operator begins an errand, or tries it again.
    pub(super) fn operate(&mut self, errand: Errand, attempt: u32) {
        if self.healing && errand != Errand::Cancel {
            return;
        }
        let topology = self.scenario.topology;
        let node = self.operator.rng.index(topology.nodes());
        let zone = topology.zone_of(node);
        let now = self.policy_in(zone);
        let ask = match errand {
            Errand::Alter(_) => {
                AlterAsk::Change(operator::change(topology, &now, &mut self.operator.rng))
            }
            Errand::Promote(_) => {
                let Some(ask) = self.promotion(&now, attempt) else {
                    return;
                };
                ask
            }
            Errand::Cancel => AlterAsk::Cancel,
        };
        if attempt == 0 {
            let kind = match errand {
                Errand::Alter(_) => FaultKind::Alter,
                Errand::Promote(_) => FaultKind::Promote,
                Errand::Cancel => FaultKind::CancelAlter,
            };
            *self.stats.faults.entry(kind).or_default() += 1;
        }
        self.operator.attempts = attempt;
        self.send_of_operator(node, errand, ask);
    }

    /// A promotion is asked for, mostly since the home zone cannot be heard: then that lives on for itself for a while.
    fn promotion(&mut self, now: &Policy, attempt: u32) -> Option<AlterAsk> {
        let topology = self.scenario.topology;
        let zone = operator::promoted(topology, now, &mut self.operator.rng)?;
        if attempt == 0 && self.operator.rng.chance(0.7) {
            let for_ns = self.operator.rng.between(1_000, 20_000) * MS;
            let home =
                (0..usize::from(topology.zones)).find(|zone| Some(zone_id(*zone)) == now.home);
            if let Some(home) = home {
                self.act(self.nemesis.isolation(home, for_ns));
            }
        }
        Some(AlterAsk::Promote { zone, force: true })
    }

    fn send_of_operator(&mut self, node: usize, errand: Errand, ask: AlterAsk) {
        if self.trace.on() {
            let now = self.queue.now();
            self.trace
                .line(now, format_args!("operator asks n{}: {ask:?}", node + 1));
        }
        let zone = self.scenario.topology.zone_of(node);
        let request = Request::KeyspaceAlter(Box::new(KeyspaceAlter {
            name: NAME.to_owned(),
            ask,
            near: zone_id(zone),
        }));
        self.operator.sent += 1;
        let id = (OPERATOR << 32) | self.operator.sent;
        self.operator.awaited = Some((id, errand));
        let arrives = Event::Arrive {
            node,
            id,
            patience_ns: PATIENCE_NS,
            request: Box::new(request),
        };
        self.queue.after(MS, arrives);
        self.queue.after(PATIENCE_NS, Event::Silence { id });
    }

    /// The operator is answered, or, without an answer, tired of waiting.
    pub(super) fn operator_answer(&mut self, id: u64, result: Option<Result<Response, Error>>) {
        let Some((_, errand)) = self.operator.awaited.take_if(|(awaited, _)| *awaited == id) else {
            return;
        };
        if self.trace.on() {
            let now = self.queue.now();
            self.trace
                .line(now, format_args!("operator is answered: {result:?}"));
        }
        let again = match result {
            None => true,
            Some(Ok(_)) => false,
            Some(Err(error)) => error.is_retryable() || error == Error::NotAdmitted,
        };
        let attempt = self.operator.attempts + 1;
        if again && attempt < ATTEMPTS_MAX {
            self.queue
                .after(500 * MS, Event::Operate { errand, attempt });
        }
    }
}
