//! The world's side of transactional clients: requests travel to a node of their zone, answers back.

use meridian_core::error::Error;
use meridian_core::ids::KeyspaceId;
use meridian_core::request::{Request, Response};

use super::{Event, World};
use crate::rng::{Draw, MS};
use crate::serial::Status;
use crate::transact::attempt::{Attempt, Next};
use crate::transact::judge::Record;
use crate::transact::stamped::Logs;

/// Attempts of transactional clients have numbers whose upper half begins here.
const FIRST: u64 = 0x4000;

/// A new process for everyone whose last outcome is unknown.
const PROCESS_STEP: u64 = 1000;

fn request_id(index: usize, sent: u32) -> u64 {
    let index = u64::try_from(index).unwrap_or(0);
    ((FIRST + index) << 32) | u64::from(sent)
}

/// The transactional client that a number belongs to, and which of its requests.
pub(super) fn transactor_of(id: u64) -> Option<(usize, u32)> {
    let index = (id >> 32).checked_sub(FIRST)?;
    let sent = u32::try_from(id & 0xffff_ffff).unwrap_or(0);
    usize::try_from(index)
        .ok()
        .filter(|_| id >> 32 < super::operators::OPERATOR)
        .map(|index| (index, sent))
}

impl World {
    /// A client begins a transaction, or sends a request again.
    pub(super) fn wake_transactor(&mut self, index: usize) {
        let now = self.queue.now();
        let (zone, idle) = match self.transactors.get(index) {
            Some(client) => (client.zone, client.running.is_none()),
            None => return,
        };
        if idle {
            if self.healing {
                return;
            }
            let home = self.scenario.topology.nodes_of(zone).start;
            let wall_ms = self
                .nodes
                .get(home)
                .map_or(0, |node| node.clock.now(now).wall_ms);
            let (shards, patience) = (self.scenario.shards, self.scenario.workload.operation_ns);
            if let Some(client) = self.transactors.get_mut(index) {
                client.begin(now, wall_ms, shards, patience);
            }
        }
        self.send_of_transactor(index);
    }

    fn send_of_transactor(&mut self, index: usize) {
        let topology = self.scenario.topology;
        let patience_ns = self.scenario.workload.attempt_ns;
        let Some(client) = self.transactors.get_mut(index) else {
            return;
        };
        let Some(request) = client.running.as_mut().and_then(Attempt::request) else {
            return;
        };
        client.sent += 1;
        client.awaited = client.sent;
        let id = request_id(index, client.sent);
        let nodes = topology.nodes_of(client.zone);
        let node = nodes.start + client.rng.index(usize::from(topology.nodes_per_zone));
        let travel = client.rng.between(50_000, 300_000);
        self.queue.after(
            travel,
            Event::Arrive {
                node,
                id,
                patience_ns,
                request: Box::new(request),
            },
        );
        self.queue.after(patience_ns, Event::Silence { id });
    }

    /// Remembers which keyspace a request was for. False: it is not to be sent there. The op id of a transaction does not
    /// travel with an alter, so one that may have taken effect in the keyspace before is not tried in the next one.
    pub(super) fn transactor_goes_to(
        &mut self,
        (index, sent): (usize, u32),
        keyspace: KeyspaceId,
        logs: Logs,
    ) -> bool {
        let Some(client) = self.transactors.get_mut(index) else {
            return true;
        };
        let Some(attempt) = client.running.as_mut().filter(|_| client.awaited == sent) else {
            return true;
        };
        let goes = attempt.goes_to(keyspace, logs);
        if !goes {
            client.awaited = 0;
            self.finish_transaction(index, Status::Info);
        }
        goes
    }

    /// An answer, or, without one, silence.
    pub(super) fn transactor_answer(
        &mut self,
        (index, sent): (usize, u32),
        result: Option<Result<Response, Error>>,
    ) {
        let now = self.queue.now();
        let Some(client) = self.transactors.get_mut(index) else {
            return;
        };
        let Some(attempt) = client.running.as_mut().filter(|_| client.awaited == sent) else {
            return;
        };
        client.awaited = 0;
        let next = match result {
            Some(result) => attempt.take(now, result),
            None => attempt.silence(now),
        };
        match next {
            Next::Send(_) => self.send_of_transactor(index),
            Next::Again => {
                let pause = client.backoff_ns();
                self.queue.after(pause, Event::Transact { client: index });
            }
            Next::Done(status) => self.finish_transaction(index, status),
        }
    }

    fn finish_transaction(&mut self, index: usize, status: Status) {
        let now = self.queue.now();
        let Some(client) = self.transactors.get_mut(index) else {
            return;
        };
        let Some(mut attempt) = client.running.take() else {
            return;
        };
        client.see(&attempt);
        let process = client.process;
        if status == Status::Info {
            client.process += PROCESS_STEP;
        }
        self.records.push(Record {
            zone: client.domain,
            process,
            invoke_ns: client.invoke_ns,
            complete_ns: (status != Status::Info).then_some(now),
            status,
            program: attempt.program.clone(),
            found: std::mem::take(&mut attempt.found),
            succeeded: attempt.succeeded,
            repeated: attempt.repeated,
            keyspaces: attempt.keyspaces(),
        });
        let pause = if self.healing {
            100 * MS
        } else {
            client.think_ns()
        };
        if let Some(view) = attempt.view.take() {
            self.close_view(index, Request::ViewClose { view });
        }
        self.queue.after(pause, Event::Transact { client: index });
    }

    /// Nobody waits for the answer.
    fn close_view(&mut self, index: usize, request: Request) {
        let topology = self.scenario.topology;
        let Some(client) = self.transactors.get_mut(index) else {
            return;
        };
        if client.rng.chance(0.1) {
            // A client that dies leaves its view open.
            return;
        }
        client.sent += 1;
        let id = request_id(index, client.sent);
        let nodes = topology.nodes_of(client.zone);
        let node = nodes.start + client.rng.index(usize::from(topology.nodes_per_zone));
        self.queue.after(
            100_000,
            Event::Arrive {
                node,
                id,
                patience_ns: MS,
                request: Box::new(request),
            },
        );
    }
}
