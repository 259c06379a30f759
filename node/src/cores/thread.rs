//! The loop of a core thread: inputs in, one write, outputs out.
//!
//! It takes whatever waits (up to a bound), steps the core with each, and lets it write once for all its groups; after two
//! such turns it looks again what has come, so that work which goes on for long (catching up with another zone) holds up
//! nobody for long.
//! A full disk stalls the thread until there is room again: what asks meanwhile is answered `DISK_FULL`, surely without
//! effect. Any other failed write ends the node.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use meridian_core::catalog::Catalog;
use meridian_core::error::Error;
use meridian_core::ids::RequestId;
use meridian_core::message::PeerMessage;
use meridian_core::request::Request;
use meridian_core::{Core, CoreConfig, Input, Now, OpenError, Outputs, Turn};
use meridian_storage::{Durability, Engine, StorageError};
use thiserror::Error as ThisError;

use super::pacing::Pacing;
use super::replies::Ticket;
use super::{Cores, Depth, Inbox, Submission, Work};
use crate::limits::{TURN_BYTES_MAX, TURN_INPUTS_MAX};
use crate::links::Links;
use crate::shared::Shared;

/// Why the cores did not start.
#[derive(Debug, ThisError)]
pub enum StartError {
    /// A core found its store unusable.
    #[error("cannot open core {index}: {source}")]
    Open {
        /// Which core.
        index: u32,
        /// Why.
        source: OpenError,
    },
    /// The operating system gave no thread.
    #[error("cannot start core thread {index}: {source}")]
    Thread {
        /// Which core.
        index: u32,
        /// Why.
        source: std::io::Error,
    },
}

/// One core and everything its thread touches.
pub(super) struct CoreThread {
    pub(super) index: u64,
    pub(super) core: Core,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) inbox: Receiver<Work>,
    pub(super) depth: Arc<Depth>,
    /// The other cores of the node, to be told the catalog; only the first core has them.
    pub(super) others: Vec<std::sync::mpsc::Sender<Work>>,
    /// The way to every core of the node, this one too. Weak, so that the threads end when nobody else holds it.
    pub(super) cores: Weak<Cores>,
    pub(super) shared: Arc<Shared>,
    pub(super) links: Arc<Links>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) catalog: Arc<Catalog>,
    pub(super) out: Outputs,
    pub(super) waiting: BTreeMap<u64, Ticket>,
    /// What came while the thread was stalled and must not be lost.
    pub(super) deferred: Vec<Work>,
    next_id: u64,
    tick: Duration,
    pacing: Pacing,
    /// Of the turn that is next.
    taken: Taken,
    /// The core may have something to do besides.
    has_more: bool,
}

/// How much a turn has taken in.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    inputs: usize,
    /// Those of clients.
    requests: usize,
    bytes: usize,
    /// Something is not a write of a client, nor an effect of another zone: it does not wait for more to come.
    is_hurried: bool,
}

impl Taken {
    fn add(&mut self, more: Self) {
        self.inputs += more.inputs;
        self.requests += more.requests;
        self.bytes += more.bytes;
        self.is_hurried |= more.is_hurried;
    }

    const fn is_full(self) -> bool {
        self.inputs >= TURN_INPUTS_MAX || self.bytes >= TURN_BYTES_MAX
    }
}

/// Turns after which the core is given what has come meanwhile: one that writes a log down, and one that applies what is
/// committed thereby, so that nobody's answer waits for the disk twice.
const TURNS_MAX: usize = 2;

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Go,
    Stop,
}

/// What comes after some turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing is left to do: wait for work.
    Rest,
    /// There may be more to do; look what has come meanwhile, and go on.
    Again,
    Stop,
}

/// Opens every core and starts its thread. `config` makes each core's configuration from its index.
pub(crate) fn start(
    configs: Vec<CoreConfig>,
    engine: &Arc<dyn Engine>,
    shared: &Arc<Shared>,
    links: &Arc<Links>,
) -> Result<(Arc<Cores>, Vec<JoinHandle<()>>), StartError> {
    let mut inboxes = Vec::new();
    let mut threads = Vec::new();
    for config in configs {
        let (sender, inbox) = channel();
        let depth = Arc::new(Depth::default());
        inboxes.push(Inbox {
            sender,
            depth: Arc::clone(&depth),
        });
        threads.push(open(config, engine, shared, links, (inbox, depth))?);
    }
    introduce(&mut threads, &inboxes);
    let cores = Arc::new(Cores {
        inboxes,
        shared: Arc::clone(shared),
    });
    for thread in &mut threads {
        thread.cores = Arc::downgrade(&cores);
    }
    let handles = threads.into_iter().map(spawn).collect::<Result<_, _>>()?;
    Ok((cores, handles))
}

fn open(
    config: CoreConfig,
    engine: &Arc<dyn Engine>,
    shared: &Arc<Shared>,
    links: &Arc<Links>,
    (inbox, depth): (Receiver<Work>, Arc<Depth>),
) -> Result<CoreThread, StartError> {
    let index = config.core_index;
    let tick = Duration::from_millis(config.timing.tick_ms);
    let core = Core::open(config, Arc::clone(engine), shared.clock.now())
        .map_err(|source| StartError::Open { index, source })?;
    Ok(CoreThread {
        index: u64::from(index),
        catalog: core.catalog(),
        core,
        engine: Arc::clone(engine),
        inbox,
        depth,
        others: Vec::new(),
        cores: Weak::new(),
        shared: Arc::clone(shared),
        links: Arc::clone(links),
        runtime: tokio::runtime::Handle::current(),
        out: Outputs::default(),
        waiting: BTreeMap::new(),
        deferred: Vec::new(),
        next_id: 0,
        tick,
        pacing: Pacing::none(),
        taken: Taken::default(),
        has_more: false,
    })
}

/// The first core shares the catalog it found on disk with the others.
fn introduce(threads: &mut [CoreThread], inboxes: &[Inbox]) {
    let Some(first) = threads.first_mut() else {
        return;
    };
    first.others = inboxes
        .iter()
        .skip(1)
        .map(|inbox| inbox.sender.clone())
        .collect();
    let catalog = Arc::clone(&first.catalog);
    if catalog.revision > 0 {
        first.share_catalog(catalog);
    }
}

fn spawn(thread: CoreThread) -> Result<JoinHandle<()>, StartError> {
    let index = u32::try_from(thread.index).unwrap_or(u32::MAX);
    std::thread::Builder::new()
        .name(format!("core-{index}"))
        .spawn(move || thread.run())
        .map_err(|source| StartError::Thread { index, source })
}

impl CoreThread {
    fn run(mut self) {
        self.pacing = Pacing::of_this_thread();
        let mut next_tick = Instant::now();
        let mut next = Next::Rest;
        loop {
            self.has_more = next == Next::Again;
            let until = match next {
                Next::Rest => self.wakes_at(next_tick),
                Next::Again => Instant::now(),
                Next::Stop => return,
            };
            let flow = self.gather(until);
            let now = self.shared.clock.now();
            if Instant::now() >= next_tick {
                self.core.step(now, Input::Tick, &mut self.out);
                next_tick = (next_tick + self.tick).max(Instant::now());
            }
            next = self.take_turns();
            while flow == Flow::Stop && next == Next::Again {
                next = self.take_turns();
            }
            if flow == Flow::Stop {
                return;
            }
        }
    }

    /// The next tick, or before it, when the core wants a turn.
    fn wakes_at(&self, next_tick: Instant) -> Instant {
        let Some(at_ns) = self.core.wakes_at_ns() else {
            return next_tick;
        };
        let left = at_ns.saturating_sub(self.shared.clock.now().mono_ns);
        next_tick.min(Instant::now() + Duration::from_nanos(left))
    }

    /// Waits for work until some time, then steps the core with all that is there, up to a bound.
    fn gather(&mut self, until: Instant) -> Flow {
        for work in std::mem::take(&mut self.deferred) {
            self.step_work(work);
        }
        let patience = until.saturating_duration_since(Instant::now());
        let mut work = match self.inbox.recv_timeout(patience) {
            Ok(work) => Some(work),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Flow::Stop,
        };
        self.taken = Taken::default();
        while let Some(next) = work {
            let Some(more) = self.step_work(next) else {
                return Flow::Stop;
            };
            self.taken.add(more);
            work = self.more();
        }
        Flow::Go
    }

    /// More work for the turn that is next: what is there, or comes while the thread pauses.
    fn more(&mut self) -> Option<Work> {
        if self.taken.is_full() {
            return None;
        }
        let there = self.inbox.try_recv().ok();
        if there.is_some() || self.taken.is_hurried || self.has_more {
            return there;
        }
        let left = self.pacing.left(Instant::now(), self.taken.requests);
        if left.is_zero() {
            return None;
        }
        self.deliver_all();
        self.inbox.recv_timeout(left).ok()
    }

    /// Steps the core with one piece of work, and says how much that was; `None`: the thread is to end.
    fn step_work(&mut self, work: Work) -> Option<Taken> {
        let now = self.shared.clock.now();
        match work {
            Work::Requests(part) => Some(self.step_requests(now, part)),
            Work::Peer {
                from,
                messages,
                bytes,
            } => {
                self.depth.peer_bytes.fetch_sub(bytes, Ordering::Relaxed);
                let inputs = messages.len();
                let is_exchange =
                    |message: &PeerMessage| matches!(message, PeerMessage::Exchange { .. });
                let is_hurried = !messages.iter().all(is_exchange);
                for message in messages {
                    self.core
                        .step(now, Input::Peer { from, message }, &mut self.out);
                }
                Some(Taken {
                    inputs,
                    requests: 0,
                    bytes,
                    is_hurried,
                })
            }
            Work::Catalog(catalog) => {
                self.catalog = Arc::clone(&catalog);
                self.core.step(now, Input::Catalog(catalog), &mut self.out);
                Some(Taken {
                    inputs: 1,
                    ..Taken::default()
                })
            }
            Work::Disk { full } => {
                self.core.step(now, Input::Disk { full }, &mut self.out);
                Some(Taken {
                    inputs: 1,
                    ..Taken::default()
                })
            }
            Work::Stop => None,
        }
    }

    fn step_requests(&mut self, now: Now, part: Vec<Submission>) -> Taken {
        let inputs = part.len();
        let mut bytes = 0;
        let is_write = |one: &Submission| matches!(one.request, Request::Write(_));
        let is_hurried = !part.iter().all(is_write);
        self.depth.requests.fetch_sub(inputs, Ordering::Relaxed);
        for submission in part {
            bytes += submission.bytes();
            let Submission { request, ticket } = submission;
            let id = self.next_id;
            self.next_id += 1;
            let deadline_ns = ticket.deadline_ns;
            self.waiting.insert(id, ticket);
            let id = RequestId(id);
            self.core.step(
                now,
                Input::Request {
                    id,
                    deadline_ns,
                    request,
                },
                &mut self.out,
            );
        }
        Taken {
            inputs,
            requests: inputs,
            bytes,
            is_hurried,
        }
    }

    /// Lets the core write what it has to, a few times, and hands out what it says.
    fn take_turns(&mut self) -> Next {
        for _ in 0..TURNS_MAX {
            let now = self.shared.clock.now();
            let Some(turn) = self.core.turn(now, &mut self.out) else {
                self.deliver_all();
                return Next::Rest;
            };
            self.deliver_messages();
            if self.write(turn) == Flow::Stop {
                return Next::Stop;
            }
            self.core.wrote(self.shared.clock.now(), &mut self.out);
            self.deliver_all();
        }
        Next::Again
    }

    fn write(&mut self, turn: Turn) -> Flow {
        let Turn { batch, durability } = turn;
        let began = Instant::now();
        if durability == Durability::Synced {
            let Taken {
                inputs, requests, ..
            } = std::mem::take(&mut self.taken);
            self.pacing.begins(began, inputs, requests);
        }
        let bytes = batch.size_bytes();
        let mut outcome = self.engine.write(&batch, durability);
        if let Err(StorageError::DiskFull { .. }) = outcome {
            outcome = self.wait_for_room(&batch, durability);
        }
        match outcome {
            Ok(()) => {
                self.shared
                    .metrics
                    .wrote(began.elapsed(), bytes, durability);
                Flow::Go
            }
            Err(error) => self.fail(&error),
        }
    }

    /// A write failed with unknown outcome: everybody who waits is told, and the node stops serving.
    fn fail(&mut self, error: &StorageError) -> Flow {
        tracing::error!(core = self.index, %error, "the store failed a write: the node stops");
        self.core.failed(self.shared.clock.now(), &mut self.out);
        self.out.messages.clear();
        self.out.reads.clear();
        self.deliver_all();
        for ticket in std::mem::take(&mut self.waiting).into_values() {
            self.answer(ticket, Error::Poisoned);
        }
        self.shared
            .poison(format!("the store failed a write: {error}"));
        Flow::Stop
    }

    /// Tells the other cores, the links and the services.
    pub(super) fn share_catalog(&self, catalog: Arc<Catalog>) {
        if self.index > 0 {
            return;
        }
        for other in &self.others {
            // A core thread that has ended needs no catalog.
            drop(other.send(Work::Catalog(Arc::clone(&catalog))));
        }
        self.links.learn(&catalog);
        self.shared.learn_catalog(catalog);
    }
}
