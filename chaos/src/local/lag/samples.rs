//! Samples: a put in one zone, looked for in each other.

use std::time::{Duration, Instant};

use bytes::Bytes;
use meridian_client::Client;
use meridian_client::proto::kv::v1 as wire;
use tokio::task::JoinHandle;
use wire::operation::Operation;
use wire::outcome::Outcome;

use crate::local::ask::level;
use crate::local::puts::put;
use crate::local::zones::Zones;

/// From one look to the next, at most: what is measured is too long by half of it. Looking is work for the same processors.
const LOOK: Duration = Duration::from_millis(2);
/// The first look is so much before a sample can be there: what is seen at the first look might have been there before.
const EARLY: Duration = Duration::from_millis(3);
/// A sample that is not there by then does not come.
const COMES_WITHIN: Duration = Duration::from_secs(20);

/// One put, seen in one other zone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) from: usize,
    pub(super) to: usize,
    /// From its acknowledgement until it was seen; `None`: it was not.
    pub(super) lag: Option<Duration>,
    /// From when it was asked for.
    pub(super) since_asked: Option<Duration>,
}

/// Takes samples from every zone to every other.
pub(super) struct Sampler<'a> {
    zones: &'a Zones,
    clients: &'a [Client],
    run: u32,
}

impl<'a> Sampler<'a> {
    pub(super) const fn new(zones: &'a Zones, clients: &'a [Client], run: u32) -> Self {
        Self {
            zones,
            clients,
            run,
        }
    }

    /// Takes so many per second and zone, for a time; waits until all were seen.
    pub(super) async fn take(
        &self,
        per_second: u32,
        time: Duration,
    ) -> Result<Vec<Sample>, String> {
        let begun = Instant::now();
        let mut under_way = Vec::new();
        for number in 0_u32.. {
            // Off the load's beat, and zone after zone.
            let due = begun + Duration::from_secs(1) * number / per_second;
            if due >= begun + time {
                break;
            }
            tokio::time::sleep_until(due.into()).await;
            for from in 0..self.clients.len() {
                under_way.extend(self.begin(from, number));
            }
        }
        let mut samples = Vec::new();
        for sample in under_way {
            samples.extend(sample.await.map_err(|error| error.to_string())?);
        }
        Ok(samples)
    }

    /// Puts a key that nobody has put before, and looks for it in the other zones.
    fn begin(&self, from: usize, number: u32) -> Option<JoinHandle<Vec<Sample>>> {
        let key = Bytes::from(format!("lag-{}-{from}-{number}", self.run));
        let client = self.clients.get(from)?.clone();
        let others: Vec<Seeker> = self
            .clients
            .iter()
            .enumerate()
            .filter(|(to, _)| *to != from)
            .map(|(to, client)| Seeker {
                client: client.clone(),
                key: key.clone(),
                from,
                to,
                delay: self.zones.delay(from, to),
            })
            .collect();
        Some(tokio::spawn(async move {
            let asked = Instant::now();
            if put(&client, key, Bytes::from_static(b"sample"))
                .await
                .is_err()
            {
                // Not acknowledged: nothing was promised.
                return Vec::new();
            }
            let acknowledged = Instant::now();
            let seen = others
                .into_iter()
                .map(|seeker| seeker.seek(asked, acknowledged));
            futures_of(seen).await
        }))
    }
}

async fn futures_of(
    seekers: impl Iterator<Item = impl Future<Output = Sample> + Send + 'static>,
) -> Vec<Sample> {
    let under_way: Vec<_> = seekers.map(tokio::spawn).collect();
    let mut samples = Vec::new();
    for sample in under_way {
        samples.extend(sample.await.ok());
    }
    samples
}

/// Looks for a key in one zone.
struct Seeker {
    client: Client,
    key: Bytes,
    from: usize,
    to: usize,
    delay: Duration,
}

impl Seeker {
    async fn seek(self, asked: Instant, acknowledged: Instant) -> Sample {
        let earliest = (acknowledged + self.delay).checked_sub(EARLY);
        tokio::time::sleep_until(earliest.unwrap_or(acknowledged).into()).await;
        let mut seen = None;
        while seen.is_none() && acknowledged.elapsed() < COMES_WITHIN {
            if self.is_there().await {
                seen = Some(Instant::now());
            } else {
                tokio::time::sleep(LOOK).await;
            }
        }
        Sample {
            from: self.from,
            to: self.to,
            lag: seen.map(|seen| seen.saturating_duration_since(acknowledged)),
            since_asked: seen.map(|seen| seen.saturating_duration_since(asked)),
        }
    }

    async fn is_there(&self) -> bool {
        let get = wire::Get {
            key: self.key.clone(),
            level: Some(level(wire::read_level::Kind::Eventual)),
            ..wire::Get::default()
        };
        let answer = self.client.operate(Operation::Get(get)).await;
        matches!(answer, Ok(Outcome::Get(get)) if get.found)
    }
}
