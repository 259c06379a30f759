//! The side that goes on.

use std::time::{Duration, Instant};

use meridian_client::proto::kv::v1::read_level::Kind;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout_at};

use super::{HOME, KEYSPACE};
use crate::local::ask::{Asker, level};
use crate::local::zones::Zones;

/// From one put of a shard and zone to the next.
const EVERY: Duration = Duration::from_millis(20);
const READ_TIME_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// The zones that are not cut off.
pub(super) struct Majority {
    askers: Vec<Asker>,
}

/// A shard that takes writes again.
#[derive(Clone, Debug)]
pub(super) struct WentOn {
    /// Since the cut began; `None`: it did not in time.
    pub(super) after: Option<Duration>,
    /// Keys whose put was acknowledged.
    pub(super) acknowledged: Option<String>,
}

impl Majority {
    pub(super) fn new(zones: &Zones) -> Self {
        let askers = zones.askers.iter().enumerate();
        let askers = askers.filter(|(zone, _)| *zone != HOME);
        Self {
            askers: askers.map(|(_, asker)| asker.clone()).collect(),
        }
    }

    /// Puts each key until one put of it is acknowledged. All shards at one time.
    pub(super) async fn go_on(
        &self,
        keys: Vec<String>,
        (begun, within): (Instant, Duration),
    ) -> Result<Vec<WentOn>, String> {
        let until = begun + within;
        let shards: Vec<_> = keys
            .into_iter()
            .map(|key| tokio::spawn(go_on(self.askers.clone(), key, (begun, until))))
            .collect();
        let mut told = Vec::new();
        for shard in shards {
            told.push(shard.await.map_err(|error| error.to_string())?);
        }
        Ok(told)
    }
}

/// Begins a put in each zone again and again, without waiting for those before.
async fn go_on(askers: Vec<Asker>, key: String, (begun, until): (Instant, Instant)) -> WentOn {
    let (done, mut first) = mpsc::channel(1);
    let mut beat = interval(EVERY);
    loop {
        tokio::select! {
            biased;
            Some(at) = first.recv() => {
                let at: Instant = at;
                return WentOn {
                    after: Some(at.saturating_duration_since(begun)),
                    acknowledged: Some(key),
                };
            }
            due = timeout_at(until.into(), beat.tick()) => {
                if due.is_err() {
                    return WentOn { after: None, acknowledged: None };
                }
                for asker in &askers {
                    let (asker, key, done) = (asker.clone(), key.clone(), done.clone());
                    tokio::spawn(async move {
                        if asker.put(KEYSPACE, (&key, "majority")).await.1.is_ok() {
                            // Only the first counts: the channel may be full, or gone.
                            done.try_send(Instant::now()).ok();
                        }
                    });
                }
            }
        }
    }
}

/// Keys whose put was acknowledged and that are not there in some zone.
pub(super) async fn missing(zones: &Zones, keys: &[String]) -> Vec<String> {
    let mut lost = Vec::new();
    for (zone, asker) in zones.askers.iter().enumerate() {
        for key in keys {
            if !is_there(asker, key).await {
                lost.push(format!("{key} in zone {}", zone + 1));
            }
        }
    }
    lost
}

/// An answer is waited for; what it says counts.
async fn is_there(asker: &Asker, key: &str) -> bool {
    let until = Instant::now() + READ_TIME_MAX;
    while Instant::now() < until {
        let get = asker.get(KEYSPACE, key, level(Kind::Linearizable)).await;
        if let (_, Ok(get)) = get {
            return get.found;
        }
        tokio::time::sleep(POLL).await;
    }
    false
}
