//! The stream: many operations in flight, answers as they are ready, all that are ready in one message.
//!
//! One task reads operations and submits them message by message; the response side words whatever the cores have
//! answered since it was last polled. Back-pressure: past a number of unanswered operations the stream is not read.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use meridian_proto::kv::v1 as kv;
use tokio::sync::{Notify, watch};
use tonic::{Status, Streaming};

use super::serving::{Form, Single, Slot, Worded};
use super::transact::validation;
use super::{KvService, deadline};
use crate::calls::Ask;
use crate::clock::wall_ms;
use crate::convert::Failure;
use crate::convert::operations::Scope;
use crate::convert::transactions::ShardCompare;
use crate::cores::Replies;
use crate::limits::{ANSWER_BYTES_SOFT_MAX, BATCH_OPERATIONS_MAX, STREAM_IN_FLIGHT_MAX};
use crate::task::AbortOnDrop;

pub(super) type OperateStream =
    Pin<Box<dyn Stream<Item = Result<kv::OperateResponse, Status>> + Send>>;

/// What the reading and the answering side share.
#[derive(Debug, Default)]
struct State {
    replies: Arc<Replies>,
    /// Answers that need no core, or are worded already.
    worded: Mutex<Vec<kv::Outcome>>,
    /// Operations not answered.
    open: AtomicUsize,
    room: Notify,
    /// A message without operations asks for a stamp.
    stamp_wanted: AtomicBool,
    /// The client says no more; `Some(Err)` when it said something that makes no sense.
    ended: Mutex<Option<Result<(), Status>>>,
}

impl State {
    fn answer(&self, outcome: kv::Outcome) {
        self.worded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(outcome);
        self.replies.wake();
    }

    fn end(&self, how: Result<(), Status>) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
        self.replies.wake();
    }

    async fn wait_for_room(&self) {
        while self.open.load(Ordering::Relaxed) >= STREAM_IN_FLIGHT_MAX {
            self.room.notified().await;
        }
    }
}

impl KvService {
    /// Serves one stream.
    pub(super) fn operate_on(&self, mut incoming: Streaming<kv::OperateRequest>) -> OperateStream {
        let state = Arc::new(State::default());
        let (service, reading) = (self.clone(), Arc::clone(&state));
        let reader = tokio::spawn(async move {
            loop {
                reading.wait_for_room().await;
                match incoming.message().await {
                    Ok(Some(message)) => service.accept(message, &reading),
                    Ok(None) => break reading.end(Ok(())),
                    Err(status) => break reading.end(Err(status)),
                }
            }
        });
        let answering = Answering {
            service: self.clone(),
            state,
            backlog: VecDeque::new(),
            closing: self.calls.shared.watch_closing(),
            over: false,
            _reader: AbortOnDrop(reader),
        };
        Box::pin(futures::stream::unfold(
            answering,
            |mut answering| async move { answering.next().await.map(|message| (message, answering)) },
        ))
    }

    /// Takes one message of operations.
    fn accept(&self, message: kv::OperateRequest, state: &Arc<State>) {
        let count = message.operations.len();
        if count == 0 {
            state.stamp_wanted.store(true, Ordering::Release);
            state.replies.wake();
            return;
        }
        state.open.fetch_add(count, Ordering::Relaxed);
        let catalog = self.calls.shared.catalog();
        let scope = self.admit().and_then(|()| {
            Scope::find(
                &catalog,
                &message.keyspace,
                (self.calls.shared.zone, wall_ms()),
            )
        });
        let scope = if count > BATCH_OPERATIONS_MAX {
            Err(too_many(count))
        } else {
            scope
        };
        let mut batch = Vec::with_capacity(count);
        for operation in message.operations {
            let id = operation.id;
            let accepted = match &scope {
                Ok(scope) => self.accept_one(scope, operation, state),
                Err(failure) => Err(failure.clone()),
            };
            match accepted {
                Ok(submission) => batch.extend(submission),
                Err(failure) => state.answer(refused(id, failure)),
            }
        }
        self.calls.cores.submit(batch);
    }

    /// A submission for the cores, or nothing when the operation goes its own way.
    fn accept_one(
        &self,
        scope: &Scope<'_>,
        operation: kv::Operation,
        state: &Arc<State>,
    ) -> Result<Option<crate::cores::Submission>, Failure> {
        use kv::operation::Operation;
        let patience = deadline::from_ms(operation.deadline_ms);
        let slot = Slot {
            replies: &state.replies,
            id: operation.id,
            patience,
            forward: operation.forward,
        };
        let single = match operation.operation {
            Some(Operation::Get(get)) => Single::Get(get),
            Some(Operation::Put(put)) => Single::Put(put),
            Some(Operation::Delete(delete)) => Single::Delete(delete),
            Some(Operation::Scan(scan)) => {
                self.scan_apart(scope, scan, &slot, state);
                return Ok(None);
            }
            Some(Operation::Transact(transact)) => Single::Transact(transact),
            Some(Operation::Validate(validate)) => {
                let mut parts = scope.validate(validate)?;
                match (parts.pop(), parts.is_empty()) {
                    (Some(only), true) => Single::Validate(only),
                    (last, _) => {
                        parts.extend(last);
                        self.validate_apart(scope, parts, &slot, state);
                        return Ok(None);
                    }
                }
            }
            None => {
                return Err(Failure::invalid(
                    "INVALID_ARGUMENT",
                    "the operation is missing",
                ));
            }
        };
        self.submission(scope, single, &slot).map(Some)
    }

    /// Scans ask many cores and wait for all of them: each is a task of its own.
    fn scan_apart(&self, scope: &Scope<'_>, scan: kv::Scan, slot: &Slot<'_>, state: &Arc<State>) {
        let (service, state, name) = (self.clone(), Arc::clone(state), scope.keyspace.name.clone());
        let (id, patience) = (slot.id, slot.patience);
        let how = (Form::Stream, slot.forward);
        tokio::spawn(async move {
            let outcome = match service.scan_page(&name, scan, patience, how).await {
                Ok(page) => kv::Outcome {
                    id,
                    outcome: Some(kv::outcome::Outcome::Scan(page)),
                },
                Err(failure) => refused(id, failure),
            };
            state.answer(outcome);
        });
    }

    /// Comparisons of many shards (or of none) wait for all of them, as scans do.
    fn validate_apart(
        &self,
        scope: &Scope<'_>,
        parts: Vec<ShardCompare>,
        slot: &Slot<'_>,
        state: &Arc<State>,
    ) {
        let forward = slot.forward;
        let asks = parts.into_iter().map(|part| validation(scope, part));
        let asks: Vec<Ask> = asks.map(|ask| ask.forwardable(forward)).collect();
        let (service, state) = (self.clone(), Arc::clone(state));
        let (id, patience) = (slot.id, slot.patience);
        tokio::spawn(async move {
            let outcome = match service.all_hold(asks, patience).await {
                Ok(holds) => kv::Outcome {
                    id,
                    outcome: Some(kv::outcome::Outcome::Validate(kv::ValidateResponse {
                        holds,
                    })),
                },
                Err(failure) => refused(id, failure),
            };
            state.answer(outcome);
        });
    }
}

fn refused(id: u64, failure: Failure) -> kv::Outcome {
    kv::Outcome {
        id,
        outcome: Some(kv::outcome::Outcome::Error(failure.into_wire())),
    }
}

fn too_many(count: usize) -> Failure {
    Failure::invalid(
        "BATCH_TOO_LARGE",
        format!("{count} operations in one message, at most {BATCH_OPERATIONS_MAX}"),
    )
}

/// The answering side.
struct Answering {
    service: KvService,
    state: Arc<State>,
    /// Answers that did not fit the last message.
    backlog: VecDeque<kv::Outcome>,
    closing: watch::Receiver<bool>,
    over: bool,
    _reader: AbortOnDrop,
}

impl Answering {
    async fn next(&mut self) -> Option<Result<kv::OperateResponse, Status>> {
        loop {
            if self.over {
                return None;
            }
            self.take_ready();
            let stamp_wanted = self.state.stamp_wanted.swap(false, Ordering::AcqRel);
            if stamp_wanted || !self.backlog.is_empty() {
                return Some(Ok(self.message()));
            }
            if let Some(last) = self.last_word() {
                self.over = true;
                return last.err().map(Err);
            }
            tokio::select! {
                () = self.state.replies.changed() => {}
                _ = self.closing.wait_for(|closing| *closing), if !*self.closing.borrow() => {}
            }
        }
    }

    /// Words what the cores have answered.
    fn take_ready(&mut self) {
        let ready = self.state.replies.take_ready();
        if !ready.is_empty() {
            let catalog = self.service.calls.shared.catalog();
            for done in ready {
                self.service.calls.count(&done);
                let id = done.ticket.slot;
                let outcome = match self.service.word(&catalog, done, Form::Stream) {
                    Ok(Worded::Get(get)) => kv::outcome::Outcome::Get(get),
                    Ok(Worded::Write(write)) => kv::outcome::Outcome::Write(write),
                    Ok(Worded::Transact(done)) => kv::outcome::Outcome::Transact(done),
                    Ok(Worded::Validate(done)) => kv::outcome::Outcome::Validate(done),
                    Err(failure) => kv::outcome::Outcome::Error(failure.into_wire()),
                };
                self.backlog.push_back(kv::Outcome {
                    id,
                    outcome: Some(outcome),
                });
            }
        }
        let mut worded = self
            .state
            .worded
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.backlog.extend(worded.drain(..));
    }

    /// As much of the backlog as one message should hold.
    fn message(&mut self) -> kv::OperateResponse {
        let mut outcomes = Vec::with_capacity(self.backlog.len());
        let mut bytes = 0;
        while bytes < ANSWER_BYTES_SOFT_MAX {
            let Some(outcome) = self.backlog.pop_front() else {
                break;
            };
            bytes += value_bytes(&outcome);
            outcomes.push(outcome);
        }
        self.state.open.fetch_sub(outcomes.len(), Ordering::Relaxed);
        self.state.room.notify_one();
        kv::OperateResponse {
            outcomes,
            stamp_ms: wall_ms(),
            served_by: Some(self.service.calls.shared.served_by()),
        }
    }

    /// How the stream ends, once everything is answered and nothing more comes.
    fn last_word(&self) -> Option<Result<(), Status>> {
        let ended = self
            .state
            .ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let idle = self.state.open.load(Ordering::Relaxed) == 0;
        match ended {
            Some(Err(status)) => Some(Err(status)),
            Some(Ok(())) if idle => Some(Ok(())),
            None if idle && *self.closing.borrow() => Some(Ok(())),
            Some(Ok(())) | None => None,
        }
    }
}

/// About how large an answer is: values make answers large, everything else is small.
fn value_bytes(outcome: &kv::Outcome) -> usize {
    use kv::outcome::Outcome;
    use prost::Message as _;
    let siblings = |siblings: &[kv::Sibling]| {
        siblings
            .iter()
            .map(|sibling| sibling.value.len() + 128)
            .sum::<usize>()
    };
    match &outcome.outcome {
        Some(Outcome::Get(get)) => siblings(&get.siblings) + get.context.len(),
        Some(Outcome::Scan(scan)) => scan
            .entries
            .iter()
            .map(|entry| entry.key.len() + siblings(&entry.siblings) + entry.context.len())
            .sum(),
        Some(Outcome::Transact(transact)) => transact.encoded_len(),
        Some(Outcome::Write(_) | Outcome::Validate(_) | Outcome::Error(_)) | None => 256,
    }
}
