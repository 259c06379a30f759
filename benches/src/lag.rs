//! The backlog between zones: effects that a zone has and another has not yet received.

use std::time::{Duration, Instant};

use meridian_client::{Client, proto::admin::v1 as wire};
use serde::Serialize;

const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// Samples of each part are compared; the first part is the start-up.
const PARTS: usize = 3;

/// One look at the backlog.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// Since the load began.
    pub(crate) at_s: f64,
    /// Effects, summed over all pairs of zones.
    pub(crate) entries: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// The greatest lag of a pair.
    pub(crate) lag_ms: u64,
}

/// The backlog over the time of a load.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Backlog {
    pub(crate) samples: Vec<Sample>,
    /// Seconds until nothing was left, after the load had ended.
    pub(crate) drained_after_s: Option<f64>,
    pub(crate) grows: bool,
}

async fn look(client: &Client, begun: Instant) -> Option<Sample> {
    let request = wire::LagRequest {
        keyspace: meridian_client::DEFAULT_KEYSPACE.to_owned(),
    };
    let answers = client
        .admin()
        .each_zone(|node| {
            let request = request.clone();
            async move { node.lag(request).await }
        })
        .await;
    let mut sample = Sample {
        at_s: begun.elapsed().as_secs_f64(),
        entries: 0,
        bytes: 0,
        lag_ms: 0,
    };
    for answer in answers {
        for row in answer.ok()?.rows {
            sample.entries += row.entries;
            sample.bytes += row.bytes;
            sample.lag_ms = sample.lag_ms.max(row.lag_ms);
        }
    }
    Some(sample)
}

/// Looks once a second until `until`. Looks that fail are left out.
pub(crate) async fn watch(client: &Client, begun: Instant, until: Instant) -> Vec<Sample> {
    let mut samples = Vec::new();
    while Instant::now() < until {
        samples.extend(look(client, begun).await);
        tokio::time::sleep(SAMPLE_INTERVAL).await;
    }
    samples
}

/// Waits until nothing is left; `None` when that takes too long.
pub(crate) async fn drained(client: &Client, within: Duration) -> Option<f64> {
    let begun = Instant::now();
    while begun.elapsed() < within {
        if look(client, begun)
            .await
            .is_some_and(|sample| sample.entries == 0)
        {
            return Some(begun.elapsed().as_secs_f64());
        }
        tokio::time::sleep(DRAIN_POLL).await;
    }
    None
}

/// Whether the typical backlog of the last third is more than that of the middle third by half, and by half a second
/// of writes: a steady load leaves a steady backlog.
pub(crate) fn grows(samples: &[Sample], writes_per_second: f64) -> bool {
    let part = samples.len() / PARTS;
    if part == 0 {
        return false;
    }
    let median = |part: &[Sample]| {
        let mut entries: Vec<u64> = part.iter().map(|sample| sample.entries).collect();
        entries.sort_unstable();
        entries.get(entries.len() / 2).copied().unwrap_or_default() as f64
    };
    let middle = median(samples.get(part..2 * part).unwrap_or_default());
    let last = median(samples.get(2 * part..).unwrap_or_default());
    last > middle * 1.5 && last - middle > writes_per_second / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(entries: impl IntoIterator<Item = u64>) -> Vec<Sample> {
        let sample = |entries| Sample {
            at_s: 0.0,
            entries,
            bytes: 0,
            lag_ms: 0,
        };
        entries.into_iter().map(sample).collect()
    }

    #[test]
    fn a_steady_backlog_does_not_grow_however_large_and_a_rising_one_does() {
        assert!(!grows(
            &samples([0, 90_000, 80_000, 95_000, 85_000, 90_000]),
            20_000.0
        ));
        assert!(!grows(&samples([10, 20, 10, 40, 10, 60]), 20_000.0));
        assert!(grows(
            &samples((0..60).map(|second| second * 2_000)),
            20_000.0
        ));
        assert!(!grows(&[], 20_000.0));
    }
}
