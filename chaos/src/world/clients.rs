//! The clients' side of the world: operations begin, are tried, answered, tried again, given up.

use meridian_core::catalog::Mode;
use meridian_core::command::WriteIntent;
use meridian_core::error::Error;
use meridian_core::ids::KeyspaceId;
use meridian_core::request::{Answer, ReadLevel, Response};

use super::operators::OPERATOR;
use super::outputs::{WORLD_CLIENT, attempt_id, client_of};
use super::transactors::transactor_of;
use super::{Event, World};
use crate::client::{Running, Verdict, request_of};
use crate::history::{Action, Operation, Outcome};
use crate::rng::{Draw, MS};

impl World {
    /// A client begins an operation, or the next attempt of one.
    pub(super) fn wake(&mut self, client: usize) {
        let begins = self
            .clients
            .get(client)
            .is_some_and(|client| client.running.is_none());
        if begins {
            if self.healing {
                return;
            }
            self.begin_operation(client);
        }
        self.attempt(client);
    }

    fn begin_operation(&mut self, index: usize) {
        let now = self.queue.now();
        let zone = self.clients.get(index).map_or(0, |client| client.zone);
        let mirrors = self.mirrors(zone);
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        let home = self.scenario.topology.nodes_of(client.zone).start;
        let wall_ms = self
            .nodes
            .get(home)
            .map_or(0, |node| node.clock.now(now).wall_ms);
        let mut action = client.next_action(&self.keys, wall_ms);
        if self.scenario.policy.mode == Mode::Snapshot && self.scenario.alters == 0 {
            action = without_visit(action);
        }
        if mirrors && client.rng.chance(0.7) {
            action = at_mirror(action);
        }
        client.running = Some(Running {
            operation: self.history.operations.len(),
            attempt: 0,
            attempts: 0,
            give_up_at: now + self.scenario.workload.operation_ns,
            may_have_effect: false,
            action: action.clone(),
        });
        self.history.operations.push(Operation {
            client: index,
            zone: client.zone,
            call_ns: now,
            attempt_ns: now,
            return_ns: None,
            attempts: 0,
            keyspace: KeyspaceId::DEFAULT,
            action,
            outcome: Outcome::Info,
        });
    }

    /// Sends the next attempt of the operation under way.
    fn attempt(&mut self, index: usize) {
        let now = self.queue.now();
        let topology = self.scenario.topology;
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        client.attempts += 1;
        let number = client.attempts;
        let zone = client.zone;
        let Some(running) = &mut client.running else {
            return;
        };
        running.attempt = number;
        running.attempts += 1;
        // Only an unconditional write may be retried in another zone.
        let unconditional = matches!(
            running.action,
            Action::Write {
                intent: WriteIntent::Blind,
                ..
            }
        );
        let elsewhere = running.attempts > 1 && unconditional && client.rng.chance(0.15);
        let zone = if elsewhere {
            client.rng.index(usize::from(topology.zones))
        } else {
            zone
        };
        let zone = match &running.action {
            Action::Visit { zone, .. } => *zone,
            Action::Write { .. } | Action::Get { .. } | Action::Scan { .. } => zone,
        };
        let node =
            topology.nodes_of(zone).start + client.rng.index(usize::from(topology.nodes_per_zone));
        let request = Box::new(request_of(&running.action));
        if let Some(operation) = self.history.operations.get_mut(running.operation) {
            operation.attempts = running.attempts;
            operation.attempt_ns = now;
        }
        let id = attempt_id(index, number);
        let patience_ns = self.scenario.workload.attempt_ns;
        let travel = client.rng.between(50_000, 300_000);
        self.queue.after(
            travel,
            Event::Arrive {
                node,
                id,
                patience_ns,
                request,
            },
        );
        self.queue.after(patience_ns, Event::Silence { id });
    }

    pub(super) fn answer(&mut self, id: u64, result: Result<Response, Error>) {
        let now = self.queue.now();
        if id >> 32 == WORLD_CLIENT {
            self.settle.answers.insert(id, result);
            return;
        }
        if id >> 32 == OPERATOR {
            self.operator_answer(id, Some(result));
            return;
        }
        if let Some(place) = transactor_of(id) {
            self.transactor_answer(place, Some(result));
            return;
        }
        let (index, attempt) = client_of(id);
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        if client
            .running
            .as_ref()
            .is_none_or(|running| running.attempt != attempt)
        {
            return;
        }
        let shown = match (&client.running, &result) {
            (Some(running), Ok(Response::Read(Answer::Mirrored(answer, stamp)))) => {
                let shards = self.scenario.shards;
                let asked = (&running.action, &**answer);
                let operation = self.history.operations.get(running.operation);
                let keyspace = operation.map_or(KeyspaceId::DEFAULT, |one| one.keyspace);
                let at = (now, client.zone, keyspace);
                self.observer.mirrored(at, shards, asked, *stamp)
            }
            _ => Ok(()),
        };
        self.found_wrong = std::mem::replace(&mut self.found_wrong, Ok(())).and(shown);
        let verdict = client.judge(now, result);
        self.settle_verdict(index, verdict);
    }

    pub(super) fn silence(&mut self, id: u64) {
        let now = self.queue.now();
        if id >> 32 == OPERATOR {
            self.operator_answer(id, None);
            return;
        }
        if let Some(place) = transactor_of(id) {
            self.transactor_answer(place, None);
            return;
        }
        let (index, attempt) = client_of(id);
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        if client
            .running
            .as_ref()
            .is_none_or(|running| running.attempt != attempt)
        {
            return;
        }
        let verdict = client.judge_silence(now);
        self.settle_verdict(index, verdict);
    }

    fn settle_verdict(&mut self, index: usize, verdict: Verdict) {
        let now = self.queue.now();
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        match verdict {
            Verdict::Retry => {
                if let Some(running) = &mut client.running {
                    running.attempt = 0;
                }
                let pause = client.backoff_ns();
                self.queue.after(pause, Event::Wake { client: index });
            }
            Verdict::Done(outcome) => {
                let Some(running) = client.running.take() else {
                    return;
                };
                let pause = if self.healing {
                    100 * MS
                } else {
                    client.think_ns()
                };
                client.session_goes_on(&self.keys, &running, &outcome);
                if let Some(operation) = self.history.operations.get_mut(running.operation) {
                    operation.return_ns = Some(now);
                    operation.outcome = outcome;
                }
                self.queue.after(pause, Event::Wake { client: index });
            }
        }
    }
}

/// What a client with a session asks where there is one zone with writes, and no other to move to.
fn without_visit(action: Action) -> Action {
    match action {
        Action::Visit { key, .. } => Action::Get {
            key,
            level: ReadLevel::Linearizable,
        },
        Action::Write { .. } | Action::Get { .. } | Action::Scan { .. } => action,
    }
}

/// The same read, of the mirror.
fn at_mirror(action: Action) -> Action {
    let level = ReadLevel::Eventual;
    match action {
        Action::Get { key, .. } => Action::Get { key, level },
        Action::Scan { shard, from, .. } => Action::Scan { shard, from, level },
        Action::Write { .. } | Action::Visit { .. } => action,
    }
}
