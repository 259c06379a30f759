//! One open `Operate` stream: the queue towards it, the operations in flight, and the reader.
//!
//! Operations that are queued when the transport asks for the next message travel in one message, so that a busy client
//! pays for a message once per many operations.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::Stream;
use meridian_proto::kv::v1 as wire;
use meridian_proto::kv::v1::kv_client::KvClient;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout_at;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::MESSAGE_SIZE_BYTES_MAX;
use crate::error::Error;

/// Operations queued or unanswered on one stream at most; each 16 KiB of a value count as one more.
const SLOTS_MAX: u32 = 8_192;
const SLOT_BYTES: usize = 16 << 10;
/// Operations in one message at most.
const BATCH_OPERATIONS_MAX: usize = 128;
/// A message is closed once it holds so many bytes; one operation always fits.
const BATCH_BYTES: usize = 256 << 10;
/// With fewer operations at hand, others that are about to be queued get one chance to join.
const BATCH_WORTH_SENDING: usize = 16;

type Answer = Result<wire::outcome::Outcome, Error>;

struct Queued {
    keyspace: Arc<str>,
    operation: wire::Operation,
    waiter: Waiter,
}

/// A caller, and the slots its operation takes until it is answered.
struct Waiter {
    reply: oneshot::Sender<Answer>,
    _slots: OwnedSemaphorePermit,
}

#[derive(Default)]
struct InFlight {
    last_id: u64,
    waiters: HashMap<u64, Waiter>,
}

struct Shared {
    closed: AtomicBool,
    in_flight: Mutex<InFlight>,
    born: Instant,
    /// What to add to the milliseconds since `born` to get the zone's time.
    stamp_offset_ms: AtomicU64,
}

impl Shared {
    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn elapsed_ms(&self) -> u64 {
        crate::options::millis(self.born.elapsed())
    }

    fn note_stamp(&self, stamp_ms: u64) {
        if stamp_ms != 0 {
            let offset = stamp_ms.wrapping_sub(self.elapsed_ms());
            self.stamp_offset_ms.store(offset, Ordering::Relaxed);
        }
    }

    fn close(&self, why: &str) {
        self.closed.store(true, Ordering::Release);
        let waiters = std::mem::take(&mut self.in_flight().waiters);
        for waiter in waiters.into_values() {
            answer(waiter, Err(Error::unanswered(why)));
        }
    }
}

/// A caller that stopped waiting needs no answer.
fn answer(waiter: Waiter, answer: Answer) {
    drop(waiter.reply.send(answer));
}

/// An open stream.
pub(super) struct Session {
    queue: mpsc::UnboundedSender<Queued>,
    slots: Arc<Semaphore>,
    shared: Arc<Shared>,
    served_by: Arc<wire::ServedBy>,
}

impl Session {
    /// Opens the stream and waits for the first message, which brings a stamp.
    pub(super) async fn open(channel: Channel) -> Result<Arc<Self>, Status> {
        let (queue, queued) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            closed: AtomicBool::new(false),
            in_flight: Mutex::default(),
            born: Instant::now(),
            stamp_offset_ms: AtomicU64::new(0),
        });
        let outbound = Outbound {
            greeted: false,
            lingered: false,
            queued,
            held: None,
            shared: Arc::clone(&shared),
        };
        let mut client = KvClient::new(channel).max_decoding_message_size(MESSAGE_SIZE_BYTES_MAX);
        let mut inbound = client.operate(outbound).await?.into_inner();
        let first = inbound.message().await?;
        let first = first.ok_or_else(|| Status::unavailable("the stream ended at once"))?;
        shared.note_stamp(first.stamp_ms);
        tokio::spawn(read(inbound, Arc::clone(&shared)));
        Ok(Arc::new(Self {
            queue,
            slots: Arc::new(Semaphore::new(
                usize::try_from(SLOTS_MAX).unwrap_or(usize::MAX),
            )),
            shared,
            served_by: Arc::new(first.served_by.unwrap_or_default()),
        }))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    pub(super) fn served_by(&self) -> Arc<wire::ServedBy> {
        Arc::clone(&self.served_by)
    }

    pub(super) fn stamp_ms(&self) -> u64 {
        let offset = self.shared.stamp_offset_ms.load(Ordering::Relaxed);
        offset.wrapping_add(self.shared.elapsed_ms())
    }

    /// Queues an operation once there is room. Its answer comes through the receiver.
    pub(super) async fn submit(
        &self,
        keyspace: &Arc<str>,
        operation: wire::Operation,
        until: Instant,
    ) -> Result<oneshot::Receiver<Answer>, Error> {
        let slots = self.take_slots(&operation, until).await?;
        let (reply, answer) = oneshot::channel();
        let queued = Queued {
            keyspace: Arc::clone(keyspace),
            operation,
            waiter: Waiter {
                reply,
                _slots: slots,
            },
        };
        match self.queue.send(queued) {
            Ok(()) => Ok(answer),
            Err(_closed) => Err(Error::unreachable("the stream has ended")),
        }
    }

    async fn take_slots(
        &self,
        operation: &wire::Operation,
        until: Instant,
    ) -> Result<OwnedSemaphorePermit, Error> {
        let large = u32::try_from(size_of(operation) / SLOT_BYTES).unwrap_or(SLOTS_MAX);
        let wanted = large.saturating_add(1).min(SLOTS_MAX);
        let acquiring = Arc::clone(&self.slots).acquire_many_owned(wanted);
        match timeout_at(until.into(), acquiring).await {
            Ok(Ok(slots)) => Ok(slots),
            Ok(Err(_closed)) => Err(Error::unreachable("the stream has ended")),
            Err(_elapsed) => {
                // Whatever fills the stream is not answered: leave it for another one.
                self.shared.close("the stream is stuck");
                Err(Error::unreachable("too many operations in flight"))
            }
        }
    }
}

async fn read(mut inbound: Streaming<wire::OperateResponse>, shared: Arc<Shared>) {
    let why = loop {
        match inbound.message().await {
            Ok(Some(message)) => deliver(message, &shared),
            Ok(None) => break "the node ended the stream".to_owned(),
            Err(status) => break super::describe(&status),
        }
        if shared.closed.load(Ordering::Acquire) {
            break "the stream was given up".to_owned();
        }
    };
    tracing::debug!(%why, "stream closed");
    shared.close(&why);
}

fn deliver(message: wire::OperateResponse, shared: &Shared) {
    shared.note_stamp(message.stamp_ms);
    let mut answered = Vec::with_capacity(message.outcomes.len());
    {
        let mut in_flight = shared.in_flight();
        for outcome in message.outcomes {
            if let Some(waiter) = in_flight.waiters.remove(&outcome.id) {
                answered.push((waiter, outcome.outcome));
            }
        }
    }
    for (waiter, outcome) in answered {
        let outcome = outcome.ok_or_else(|| Error::bad_answer("an outcome without content"));
        answer(waiter, outcome);
    }
}

/// Bytes of an operation that grow with what the caller gave.
fn size_of(operation: &wire::Operation) -> usize {
    use prost::Message as _;
    use wire::operation::Operation;
    match &operation.operation {
        Some(Operation::Put(put)) => put.key.len() + put.value.len() + put.context.len(),
        Some(Operation::Delete(delete)) => delete.key.len() + delete.context.len(),
        Some(Operation::Get(get)) => get.key.len() + get.session.len(),
        Some(Operation::Scan(scan)) => scan.page_token.len() + scan.prefix.len(),
        Some(Operation::Transact(transact)) => transact.encoded_len(),
        Some(Operation::Validate(validate)) => validate.encoded_len(),
        None => 0,
    }
}

/// What the transport pulls messages from.
struct Outbound {
    greeted: bool,
    /// Others have had their chance to join the message.
    lingered: bool,
    queued: mpsc::UnboundedReceiver<Queued>,
    /// Taken from the queue already, first of the next message.
    held: Option<Queued>,
    shared: Arc<Shared>,
}

impl Stream for Outbound {
    type Item = wire::OperateRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.greeted {
            self.greeted = true;
            return Poll::Ready(Some(wire::OperateRequest::default()));
        }
        if self.shared.closed.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        let first = match self.held.take() {
            Some(first) => first,
            None => match self.queued.poll_recv(cx) {
                Poll::Ready(Some(first)) => first,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            },
        };
        if !self.lingered && self.queued.len() < BATCH_WORTH_SENDING {
            self.lingered = true;
            self.held = Some(first);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.lingered = false;
        Poll::Ready(Some(self.gather(first)))
    }
}

impl Outbound {
    fn gather(&mut self, first: Queued) -> wire::OperateRequest {
        let keyspace = Arc::clone(&first.keyspace);
        let mut bytes = size_of(&first.operation);
        let mut batch = vec![first];
        while batch.len() < BATCH_OPERATIONS_MAX && bytes < BATCH_BYTES {
            let Ok(next) = self.queued.try_recv() else {
                break;
            };
            if next.keyspace != keyspace {
                self.held = Some(next);
                break;
            }
            bytes += size_of(&next.operation);
            batch.push(next);
        }
        let operations = self.register(batch);
        if self.shared.closed.load(Ordering::Acquire) {
            // The reader stopped before these were in flight, so it could not tell their callers.
            self.shared.close("the stream ended");
        }
        wire::OperateRequest {
            keyspace: keyspace.as_ref().to_owned(),
            operations,
        }
    }

    /// Gives ids to the operations whose callers still wait, and drops the others unsent.
    fn register(&self, batch: Vec<Queued>) -> Vec<wire::Operation> {
        let mut in_flight = self.shared.in_flight();
        let mut operations = Vec::with_capacity(batch.len());
        for mut queued in batch {
            if queued.waiter.reply.is_closed() {
                continue;
            }
            in_flight.last_id += 1;
            queued.operation.id = in_flight.last_id;
            let id = queued.operation.id;
            in_flight.waiters.insert(id, queued.waiter);
            operations.push(queued.operation);
        }
        operations
    }
}

impl Drop for Outbound {
    /// The transport has let go: nothing more will be sent, and what is queued never was.
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.queued.close();
        let held = self.held.take();
        let rest = std::iter::from_fn(|| self.queued.try_recv().ok());
        for queued in held.into_iter().chain(rest) {
            let error = Error::unreachable("the stream ended before the operation was sent");
            answer(queued.waiter, Err(error));
        }
    }
}
