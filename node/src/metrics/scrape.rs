//! One scrape: asks the cores for what they alone know, then writes everything down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meridian_causal::ZoneId;
use meridian_core::catalog::Mode;
use meridian_core::ids::{KeyspaceId, ShardId};
use meridian_core::request::{GroupStatus, ZoneLag};
use meridian_storage::Engine;
use prometheus_client::encoding::text::encode;

use super::{CoreOnly, Pair};
use crate::calls::Calls;

/// How long a scrape waits for the cores.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes the metrics down.
pub(crate) struct Scraper {
    pub(crate) calls: Arc<Calls>,
    pub(crate) engine: Arc<dyn Engine>,
}

impl Scraper {
    /// The page.
    pub(super) async fn text(&self) -> Result<String, std::fmt::Error> {
        // A core that does not answer in time is left out: the page tells what is known.
        let groups = self.calls.groups(PATIENCE).await.unwrap_or_default();
        self.groups(&groups);
        self.lag(&groups).await;
        self.mirrors(&groups).await;
        self.queues();
        let mut text = String::new();
        encode(&mut text, &self.calls.shared.metrics.registry)?;
        Ok(text)
    }

    fn groups(&self, groups: &[GroupStatus]) {
        let metrics = &self.calls.shared.metrics;
        let sum = |field: fn(&GroupStatus) -> u64| {
            signed(groups.iter().map(field).fold(0, u64::saturating_add))
        };
        metrics.log_entries.set(sum(|group| group.log_entries));
        metrics.log_bytes.set(sum(|group| group.log_bytes));
        metrics.outbox_bytes.set(sum(|group| group.outbox_bytes));
        metrics.groups.set(sum(|_| 1));
        metrics.led.set(sum(|group| u64::from(group.leads)));
        let degraded = |group: &GroupStatus| u64::from(group.leads && !group.degraded.is_empty());
        metrics.degraded.set(sum(degraded));
        let disk_lost = |group: &GroupStatus| u64::from(group.leads && group.disk_lost);
        metrics.disk_lost.set(sum(disk_lost));
        if let Ok(bytes) = self.engine.size_bytes() {
            metrics.store_bytes.set(signed(bytes));
        }
    }

    /// Lag of the groups led here only: each is told by one node of the zone.
    async fn lag(&self, groups: &[GroupStatus]) {
        let led = groups
            .iter()
            .filter(|group| group.leads && group.group.keyspace != KeyspaceId::CONTROL);
        let shards = led
            .map(|group| (group.group.keyspace, group.group.shard))
            .collect();
        let lags = self.calls.lag_of(shards, PATIENCE).await;
        let mut sums: BTreeMap<(KeyspaceId, ZoneId), (u64, u64)> = BTreeMap::new();
        for (
            keyspace,
            ZoneLag {
                to,
                lag_ms,
                entries,
                bytes: _,
            },
        ) in lags
        {
            let sum = sums.entry((keyspace, to)).or_default();
            *sum = (sum.0.max(lag_ms), sum.1.saturating_add(entries));
        }
        let metrics = &self.calls.shared.metrics;
        let catalog = self.calls.shared.catalog();
        metrics.lag_seconds.clear();
        metrics.lag_entries.clear();
        for ((keyspace, zone), (lag_ms, entries)) in sums {
            let pair = Pair {
                to: catalog.zones.get(&zone).cloned().unwrap_or_default(),
                keyspace: catalog
                    .keyspaces
                    .get(&keyspace)
                    .map(|known| known.name.clone())
                    .unwrap_or_default(),
            };
            let seconds = Duration::from_millis(lag_ms).as_secs_f64();
            metrics.lag_seconds.get_or_create(&pair).set(seconds);
            metrics
                .lag_entries
                .get_or_create(&pair)
                .set(signed(entries));
        }
    }

    /// Mirrors of the keyspaces whose cuts are taken here.
    async fn mirrors(&self, groups: &[GroupStatus]) {
        let catalog = self.calls.shared.catalog();
        let metrics = &self.calls.shared.metrics;
        metrics.mirror_age_seconds.clear();
        metrics.mirror_bytes.clear();
        let mirrored = catalog.keyspaces.values().filter(|keyspace| {
            let first = |group: &&GroupStatus| {
                group.group.keyspace == keyspace.id && group.group.shard == ShardId(0)
            };
            let led = groups.iter().find(first).is_some_and(|group| group.leads);
            led && keyspace.policy.mode == Mode::Snapshot
        });
        for keyspace in mirrored {
            let Some(status) = self.calls.mirror_status(keyspace.id, PATIENCE).await else {
                continue;
            };
            for mirror in status.zones {
                let Some(age_ms) = mirror.age_ms else {
                    continue;
                };
                let pair = Pair {
                    to: catalog.zones.get(&mirror.zone).cloned().unwrap_or_default(),
                    keyspace: keyspace.name.clone(),
                };
                let age = Duration::from_millis(age_ms).as_secs_f64();
                metrics.mirror_age_seconds.get_or_create(&pair).set(age);
                let bytes = signed(mirror.report.bytes);
                metrics.mirror_bytes.get_or_create(&pair).set(bytes);
            }
        }
    }

    fn queues(&self) {
        let metrics = &self.calls.shared.metrics;
        for (core, (requests, bytes)) in self.calls.cores.depths().into_iter().enumerate() {
            let core = CoreOnly {
                core: core.to_string(),
            };
            metrics
                .core_requests
                .get_or_create(&core)
                .set(signed_size(requests));
            metrics
                .core_peer_bytes
                .get_or_create(&core)
                .set(signed_size(bytes));
        }
        metrics
            .in_flight
            .set(signed_size(self.calls.shared.in_flight()));
        metrics
            .link_messages
            .set(signed_size(self.calls.links.queued_messages()));
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn signed_size(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
