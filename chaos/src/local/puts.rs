//! Puts in all zones at one time: as fast as answers come (closed loop), or as many per second as asked for, due whether or
//! not earlier ones are answered (open loop).
//!
//! In an open loop a latency counts from when the put was due, so that a stall is seen by every put it delayed. Each zone
//! writes keys of its own, so that nothing falls into conflict.
//!
//! What it is not: it checks nothing; `kv-bench` measures more of a cluster without delays.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meridian_client::proto::kv::v1 as wire;
use meridian_client::{Client, Error};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use wire::operation::Operation;

/// Puts in flight in one zone at most, in an open loop: past it they are late, and their latency says so.
const IN_FLIGHT_MAX: usize = 1024;

/// What is put.
#[derive(Clone)]
pub(super) struct Puts {
    /// One per zone.
    pub(super) clients: Vec<Client>,
    /// Keys in all.
    pub(super) keys: u64,
    pub(super) value: Bytes,
    pub(super) seed: u64,
}

/// One put that was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    /// Which zone it was put in.
    pub(super) zone: usize,
    pub(super) at: Instant,
    /// Since it was due.
    pub(super) latency: Duration,
}

/// What came of a load.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// Acknowledged, in order of slots, not of time.
    pub(super) answered: Vec<Answered>,
    /// By reason.
    pub(super) errors: BTreeMap<String, u64>,
}

impl Outcomes {
    /// Those acknowledged in a span of time.
    pub(super) fn within(&self, from: Instant, to: Instant) -> Vec<Answered> {
        let within = self.answered.iter();
        let within = within.filter(|put| (from..to).contains(&put.at));
        within.copied().collect()
    }

    fn note(&mut self, zone: usize, due: Instant, answer: Result<(), Error>) {
        match answer {
            Ok(()) => {
                let at = Instant::now();
                let latency = at.saturating_duration_since(due);
                self.answered.push(Answered { zone, at, latency });
            }
            Err(error) => *self.errors.entry(error.reason().to_owned()).or_default() += 1,
        }
    }

    fn join(&mut self, other: Self) {
        self.answered.extend(other.answered);
        for (reason, count) in other.errors {
            *self.errors.entry(reason).or_default() += count;
        }
    }
}

/// When puts are due.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// As soon as the one before is answered.
    Closed,
    /// This slot's first put, and the time from one to the next.
    Open { first: Instant, every: Duration },
}

/// A load under way; it ends when it is told to.
pub(super) struct Running {
    stop: watch::Sender<bool>,
    slots: Vec<tokio::task::JoinHandle<Outcomes>>,
}

impl Running {
    /// Ends the load, and gives what came of it.
    pub(super) async fn end(self) -> Result<Outcomes, String> {
        self.stop.send_replace(true);
        let mut all = Outcomes::default();
        for slot in self.slots {
            all.join(slot.await.map_err(|error| error.to_string())?);
        }
        Ok(all)
    }
}

impl Puts {
    /// Begins a closed loop with so many puts in flight in all.
    pub(super) fn closed(&self, in_flight: usize) -> Running {
        self.start((0..in_flight).map(|_| Pace::Closed))
    }

    /// Begins an open loop of so many puts per second in all.
    pub(super) fn open(&self, per_second: f64) -> Running {
        let slots = self.clients.len() * IN_FLIGHT_MAX;
        let every = Duration::from_secs_f64(slots as f64 / per_second.max(1.0));
        let begun = Instant::now();
        // Slots take turns, so that together they are due evenly.
        let first = move |slot: usize| begun + every.mul_f64(slot as f64 / slots as f64);
        self.start((0..slots).map(move |slot| Pace::Open {
            first: first(slot),
            every,
        }))
    }

    fn start(&self, paces: impl Iterator<Item = Pace>) -> Running {
        let (stop, stopped) = watch::channel(false);
        let places = self.clients.iter().cloned().enumerate().cycle();
        let slots = paces.zip(places).zip(0_u64..);
        let slots = slots.map(|((pace, (place, client)), slot)| {
            let slot = Slot {
                puts: self.clone(),
                client,
                place,
                rng: SmallRng::seed_from_u64(self.seed.wrapping_add(slot)),
                stopped: stopped.clone(),
            };
            tokio::spawn(slot.run(pace))
        });
        Running {
            slots: slots.collect(),
            stop,
        }
    }
}

/// Puts one after the other.
struct Slot {
    puts: Puts,
    client: Client,
    /// Which of the clients it has.
    place: usize,
    rng: SmallRng,
    stopped: watch::Receiver<bool>,
}

impl Slot {
    async fn run(mut self, pace: Pace) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for turn in 0_u32.. {
            let due = match pace {
                Pace::Closed => Instant::now(),
                Pace::Open { first, every } => first + every * turn,
            };
            if self.ends_before(due).await {
                break;
            }
            let key = self.key();
            let answer = put(&self.client, key, self.puts.value.clone()).await;
            outcomes.note(self.place, due, answer);
        }
        outcomes
    }

    /// Waits until a put is due; true when the load ends before.
    async fn ends_before(&mut self, due: Instant) -> bool {
        if due > Instant::now() {
            let ended = self.stopped.wait_for(|stop| *stop);
            return tokio::time::timeout_at(due.into(), ended).await.is_ok();
        }
        *self.stopped.borrow()
    }

    fn key(&mut self) -> Bytes {
        let zones = u64::try_from(self.puts.clients.len()).unwrap_or(1).max(1);
        let place = u64::try_from(self.place).unwrap_or_default();
        let number = self.rng.random_range(0..(self.puts.keys / zones).max(1));
        Bytes::from(format!("key-{:010}", number * zones + place))
    }
}

/// One put without a context.
pub(super) async fn put(client: &Client, key: Bytes, value: Bytes) -> Result<(), Error> {
    let put = wire::Put {
        key,
        value,
        ..wire::Put::default()
    };
    client.operate(Operation::Put(put)).await.map(drop)
}

/// A percentile of some times, in thousandths: the least that so many of all do not exceed. Nothing of none.
pub(super) fn percentile(times: &mut [Duration], thousandths: usize) -> Option<Duration> {
    times.sort_unstable();
    let rank = (times.len() * thousandths).div_ceil(1000).max(1);
    times.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_seen_and_none_of_none() {
        let mut times: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        let mut at = |share| percentile(&mut times, share).map(|time| time.as_millis());
        assert_eq!(
            (at(500), at(990), at(1000)),
            (Some(50), Some(99), Some(100))
        );
        assert_eq!(at(0), Some(1));
        assert_eq!(percentile(&mut [], 500), None);
        let mut one = [Duration::from_millis(7)];
        assert_eq!(percentile(&mut one, 990), Some(one[0]));
    }
}
