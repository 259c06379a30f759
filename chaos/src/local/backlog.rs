//! What zones have and others have not yet said to have received, as the zones tell it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use meridian_client::DEFAULT_KEYSPACE;
use meridian_client::proto::admin::v1 as admin;

use super::zones::Zones;

const POLL: Duration = Duration::from_millis(50);

/// Effects of the keyspace `default` that some zone lacks, over all pairs; `None` when a zone did not answer.
pub(super) async fn entries(zones: &Zones) -> Option<u64> {
    let request = admin::LagRequest {
        keyspace: DEFAULT_KEYSPACE.to_owned(),
    };
    let admin = zones.admin();
    let answers = admin.each_zone(|node| {
        let request = request.clone();
        async move { node.lag(request).await }
    });
    let mut entries = 0;
    for answer in answers.await {
        entries += answer.ok()?.rows.iter().map(|row| row.entries).sum::<u64>();
    }
    Some(entries)
}

/// Waits until there are at most so many; how long that took.
pub(super) async fn shrinks_to(
    zones: &Zones,
    most: u64,
    within: Duration,
) -> Result<Duration, String> {
    let begun = Instant::now();
    loop {
        let found = entries(zones).await;
        if found.is_some_and(|entries| entries <= most) {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() >= within {
            let within = within.as_secs();
            return Err(format!("the backlog is {found:?} effects after {within} s"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until there is none.
pub(super) async fn drained(zones: &Zones, within: Duration) -> Result<Duration, String> {
    shrinks_to(zones, 0, within).await
}

/// Whether all zones hold the same, once nothing is left; what they hold when not.
pub(super) async fn converged(zones: &Zones, within: Duration) -> Result<(), String> {
    let until = Instant::now() + within;
    loop {
        let digests = digests(zones).await;
        if digests.as_ref().is_some_and(|digests| digests.len() == 1) {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(format!("zones do not hold the same: {digests:?}"));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn digests(zones: &Zones) -> Option<BTreeSet<String>> {
    let request = admin::DigestRequest {
        keyspace: DEFAULT_KEYSPACE.to_owned(),
    };
    let admin = zones.admin();
    let answers = admin.each_zone(|node| {
        let request = request.clone();
        async move { node.digest(request).await }
    });
    let mut digests = BTreeSet::new();
    for answer in answers.await {
        digests.extend(answer.ok()?.rows.into_iter().map(|row| row.digest));
    }
    Some(digests)
}
