//! The load: so many operations in flight over the clients' streams, for a time.
//!
//! Closed loop by default: each of the in-flight slots asks again as soon as it is answered. With a rate the loop is
//! open: operation k is due at k/rate whatever was answered before, and its latency counts from when it was due, so that
//! a stall is seen by every operation it delayed.
//!
//! Everything runs on one thread, so what is counted needs no lock.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use meridian_client::proto::kv::v1 as wire;
use meridian_client::proto::routing::shard_of;
use meridian_client::{Action, Client, Error, Transaction, TxnOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use wire::operation::Operation;
use wire::outcome::Outcome;

use crate::latency;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Puts without a context.
    Put,
    /// Linearizable gets.
    Get,
    /// Transactions of two reads and two writes.
    Transact(Span, Form),
}

/// How far a transaction reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// Both keys are in one shard.
    OneShard,
    /// The keys are in two shards.
    TwoShards,
}

/// How a transaction is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Reads and writes in one request.
    OneShot,
    /// Reads first, then the commit.
    Interactive,
}

/// Shards of the keyspace `default`, unless its cluster says otherwise.
const SHARDS: u32 = 8;

/// A load.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) kind: Kind,
    /// One per zone that is asked.
    pub(crate) clients: Vec<Client>,
    pub(crate) in_flight: usize,
    pub(crate) time: Duration,
    /// Keys in all; each client has its part of them, unless they share all.
    pub(crate) keys: u64,
    pub(crate) shared_keys: bool,
    pub(crate) value: Bytes,
    /// Operations per second of the open loop.
    pub(crate) rate: Option<f64>,
}

/// What came of it.
pub(crate) struct Outcomes {
    pub(crate) latencies: Histogram<u64>,
    /// Reads that found a value.
    pub(crate) found: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) seconds: f64,
    /// Operations answered in each second.
    pub(crate) per_second: Vec<u64>,
}

impl Outcomes {
    pub(crate) fn done(&self) -> u64 {
        self.latencies.len()
    }

    pub(crate) fn rate(&self) -> f64 {
        self.done() as f64 / self.seconds
    }
}

struct Shared {
    load: Load,
    begun: Instant,
    until: Instant,
    next: u64,
    outcomes: Outcomes,
}

impl Load {
    /// Runs it. Needs to be within a `LocalSet`.
    pub(crate) async fn run(self) -> Outcomes {
        let begun = Instant::now();
        let until = begun + self.time;
        let (in_flight, clients) = (self.in_flight, self.clients.clone());
        let shared = Rc::new(RefCell::new(Shared {
            load: self,
            begun,
            until,
            next: 0,
            outcomes: Outcomes {
                latencies: latency::histogram(),
                found: 0,
                errors: BTreeMap::new(),
                seconds: 0.0,
                per_second: Vec::new(),
            },
        }));
        let slots: Vec<_> = (0_u64..)
            .zip(clients.iter().enumerate().cycle())
            .take(in_flight)
            .map(|(slot, (place, client))| {
                let rng = SmallRng::seed_from_u64(slot);
                tokio::task::spawn_local(ask(Rc::clone(&shared), client.clone(), place, rng))
            })
            .collect();
        for slot in slots {
            // A slot that panicked has said so already, and its operations are missing from the count.
            drop(slot.await);
        }
        let shared = Rc::into_inner(shared).expect("every slot has ended");
        let mut outcomes = shared.into_inner().outcomes;
        outcomes.seconds = begun.elapsed().as_secs_f64();
        outcomes
    }
}

/// One slot: asks until the time is over.
async fn ask(shared: Rc<RefCell<Shared>>, client: Client, place: usize, mut rng: SmallRng) {
    loop {
        let due = shared.borrow_mut().next_due();
        let Some(due) = due else {
            return;
        };
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        let load = shared.borrow().load.clone();
        let answer = match load.kind {
            Kind::Transact(span, Form::Interactive) => {
                interactive(&client, &load, load.keys(span, place, &mut rng)).await
            }
            Kind::Transact(span, Form::OneShot) => {
                let transaction = load.transaction(&load.keys(span, place, &mut rng));
                client.transact(transaction).await.map(|_| false)
            }
            Kind::Put | Kind::Get => {
                let answer = client.operate(load.operation(place, &mut rng)).await;
                answer.map(|outcome| match outcome {
                    Outcome::Get(get) => get.found,
                    Outcome::Write(_)
                    | Outcome::Scan(_)
                    | Outcome::Transact(_)
                    | Outcome::Validate(_)
                    | Outcome::Error(_) => false,
                })
            }
        };
        shared.borrow_mut().count(due, answer);
    }
}

/// Reads two keys and writes both; begun anew on a conflict.
async fn interactive(client: &Client, load: &Load, keys: [Bytes; 2]) -> Result<bool, Error> {
    let body = |txn: meridian_client::Txn| {
        let (keys, value) = (keys.clone(), load.value.clone());
        async move {
            for key in &keys {
                txn.get(key.clone()).await?;
            }
            for key in keys {
                txn.put(key, value.clone())?;
            }
            Ok(())
        }
    };
    let committed = client.txn(&TxnOptions::default(), body).await;
    committed.map(|_| false)
}

impl Shared {
    /// When the next operation is due; `None` when it is none of this load's any more.
    fn next_due(&mut self) -> Option<Instant> {
        let due = match self.load.rate {
            Some(rate) => self.begun + Duration::from_secs_f64(self.next as f64 / rate),
            None => Instant::now(),
        };
        self.next += 1;
        (due < self.until && Instant::now() < self.until).then_some(due)
    }

    fn count(&mut self, due: Instant, answer: Result<bool, Error>) {
        let Outcomes {
            latencies,
            found,
            errors,
            seconds: _,
            per_second,
        } = &mut self.outcomes;
        match answer {
            Ok(read) => {
                latency::record(latencies, due.elapsed());
                let second = usize::try_from(self.begun.elapsed().as_secs()).unwrap_or(usize::MAX);
                if second >= per_second.len() {
                    per_second.resize(second.saturating_add(1), 0);
                }
                if let Some(count) = per_second.last_mut() {
                    *count += 1;
                }
                *found += u64::from(read);
            }
            Err(error) => *errors.entry(error.reason().to_owned()).or_default() += 1,
        }
    }
}

impl Load {
    /// The key of this number; a client that does not share keys has every nth.
    fn key(&self, place: usize, rng: &mut SmallRng) -> Bytes {
        let clients = u64::try_from(self.clients.len()).unwrap_or(1).max(1);
        let place = u64::try_from(place).unwrap_or_default();
        let number = if self.shared_keys {
            rng.random_range(0..self.keys.max(1))
        } else {
            rng.random_range(0..(self.keys / clients).max(1)) * clients + place
        };
        Bytes::from(format!("key-{number:010}"))
    }

    /// Two keys in one shard, or in two.
    fn keys(&self, span: Span, place: usize, rng: &mut SmallRng) -> [Bytes; 2] {
        let first = self.key(place, rng);
        loop {
            let second = self.key(place, rng);
            let together = shard_of(&first, SHARDS) == shard_of(&second, SHARDS);
            if first != second && together == (span == Span::OneShard) {
                return [first, second];
            }
        }
    }

    fn transaction(&self, keys: &[Bytes; 2]) -> Transaction {
        let reads = keys.iter().cloned().map(Action::get);
        let writes = keys
            .iter()
            .map(|key| Action::put(key.clone(), self.value.clone()));
        reads
            .chain(writes)
            .fold(Transaction::new(), Transaction::then)
    }

    fn operation(&self, place: usize, rng: &mut SmallRng) -> Operation {
        let key = self.key(place, rng);
        match self.kind {
            Kind::Put => Operation::Put(wire::Put {
                key,
                value: self.value.clone(),
                ..wire::Put::default()
            }),
            Kind::Get | Kind::Transact(..) => Operation::Get(wire::Get {
                key,
                ..wire::Get::default()
            }),
        }
    }
}
