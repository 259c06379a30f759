//! What Prometheus is told. Every name and unit stands in `Metrics::new`.
//!
//! What changes with each request is counted where it happens; what can be asked of the cores (lag, log size, queue
//! depths) is asked when somebody scrapes, so that nobody pays for it otherwise.

mod http;
mod scrape;

use std::fmt;
use std::time::Duration;

use meridian_storage::Durability;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::cores::Kind;

pub(crate) use http::serve;
pub(crate) use scrape::Scraper;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindOnly {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pair {
    to: String,
    keyspace: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CoreOnly {
    core: String,
}

/// 50 microseconds to 13 seconds.
const LATENCY_START: f64 = 50e-6;
const LATENCY_BUCKETS: u16 = 19;

/// The node's metrics.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Outcome, Counter>,
    latency: Family<KindOnly, Histogram, fn() -> Histogram>,
    commit: Histogram,
    apply: Histogram,
    fsync: Histogram,
    written_bytes: Counter,
    siblings: Histogram,
    conflicts_read: Counter,
    dropped: Family<Direction, Counter>,
    refused_links: Counter,
    damaged: Counter,
    lag_seconds: Family<Pair, Gauge<f64, std::sync::atomic::AtomicU64>>,
    lag_entries: Family<Pair, Gauge>,
    mirror_age_seconds: Family<Pair, Gauge<f64, std::sync::atomic::AtomicU64>>,
    mirror_bytes: Family<Pair, Gauge>,
    log_entries: Gauge,
    log_bytes: Gauge,
    outbox_bytes: Gauge,
    store_bytes: Gauge,
    led: Gauge,
    degraded: Gauge,
    disk_lost: Gauge,
    groups: Gauge,
    in_flight: Gauge,
    core_requests: Family<CoreOnly, Gauge>,
    core_peer_bytes: Family<CoreOnly, Gauge>,
    link_messages: Gauge,
}

fn latency_histogram() -> Histogram {
    Histogram::new(exponential_buckets(LATENCY_START, 2.0, LATENCY_BUCKETS))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("meridian"),
            requests: Family::default(),
            latency: Family::new_with_constructor(latency_histogram),
            commit: latency_histogram(),
            apply: latency_histogram(),
            fsync: latency_histogram(),
            written_bytes: Counter::default(),
            siblings: Histogram::new(exponential_buckets(1.0, 2.0, 7)),
            conflicts_read: Counter::default(),
            dropped: Family::default(),
            refused_links: Counter::default(),
            damaged: Counter::default(),
            lag_seconds: Family::default(),
            lag_entries: Family::default(),
            mirror_age_seconds: Family::default(),
            mirror_bytes: Family::default(),
            log_entries: Gauge::default(),
            log_bytes: Gauge::default(),
            outbox_bytes: Gauge::default(),
            store_bytes: Gauge::default(),
            led: Gauge::default(),
            degraded: Gauge::default(),
            disk_lost: Gauge::default(),
            groups: Gauge::default(),
            in_flight: Gauge::default(),
            core_requests: Family::default(),
            core_peer_bytes: Family::default(),
            link_messages: Gauge::default(),
        };
        metrics.register_requests();
        metrics.register_store();
        metrics.register_zones();
        metrics
    }

    fn register_requests(&mut self) {
        let all = &mut self.registry;
        all.register(
            "requests",
            "Requests by kind and outcome",
            self.requests.clone(),
        );
        all.register_with_unit(
            "latency",
            "From arrival to answer",
            Unit::Seconds,
            self.latency.clone(),
        );
        all.register_with_unit(
            "commit",
            "Writes, from arrival to applied",
            Unit::Seconds,
            self.commit.clone(),
        );
        all.register(
            "read_siblings",
            "Live and deleted siblings a read found",
            self.siblings.clone(),
        );
        all.register(
            "reads_in_conflict",
            "Reads that found a conflict",
            self.conflicts_read.clone(),
        );
        all.register(
            "requests_in_flight",
            "Given to cores and not answered",
            self.in_flight.clone(),
        );
        all.register(
            "core_queue_requests",
            "Waiting in front of a core",
            self.core_requests.clone(),
        );
        all.register_with_unit(
            "core_queue_peer",
            "Messages of other nodes waiting in front of a core",
            Unit::Bytes,
            self.core_peer_bytes.clone(),
        );
    }

    fn register_store(&mut self) {
        let all = &mut self.registry;
        let turn = "A turn's write of log and applied effects, synced or not";
        all.register_with_unit("apply", turn, Unit::Seconds, self.apply.clone());
        all.register_with_unit(
            "fsync",
            "Synced writes of the store",
            Unit::Seconds,
            self.fsync.clone(),
        );
        all.register_with_unit(
            "written",
            "Keys and values written",
            Unit::Bytes,
            self.written_bytes.clone(),
        );
        all.register_with_unit(
            "store",
            "What the store takes on disk",
            Unit::Bytes,
            self.store_bytes.clone(),
        );
        all.register(
            "log_entries",
            "Raft log entries kept",
            self.log_entries.clone(),
        );
        all.register_with_unit("log", "Raft log kept", Unit::Bytes, self.log_bytes.clone());
        all.register_with_unit(
            "outbox",
            "Effects kept for other zones",
            Unit::Bytes,
            self.outbox_bytes.clone(),
        );
        all.register("groups", "Groups with a replica here", self.groups.clone());
        all.register("groups_led", "Groups led here", self.led.clone());
        all.register(
            "groups_degraded",
            "Groups led here whose ack = all is relaxed to a majority while zones are missing",
            self.degraded.clone(),
        );
        all.register(
            "groups_disk_lost",
            "Groups led here that have lost their disk and do not have back what they had acknowledged",
            self.disk_lost.clone(),
        );
        all.register(
            "damaged",
            "Stored or received bytes that made no sense",
            self.damaged.clone(),
        );
    }

    fn register_zones(&mut self) {
        let all = &mut self.registry;
        let lag = "Age of the oldest effect of groups led here that a zone has not received";
        all.register_with_unit("lag", lag, Unit::Seconds, self.lag_seconds.clone());
        let entries = "Effects of groups led here that a zone has not received";
        all.register("lag_entries", entries, self.lag_entries.clone());
        let age = "Age of the cut that a mirror zone shows, where this node takes the cuts";
        let ages = self.mirror_age_seconds.clone();
        all.register_with_unit("mirror_age", age, Unit::Seconds, ages);
        let bytes =
            "Shipped for the generation that a mirror zone shows, where this node takes the cuts";
        let shipped = self.mirror_bytes.clone();
        all.register_with_unit("mirror_generation", bytes, Unit::Bytes, shipped);
        all.register(
            "link_messages_dropped",
            "Dropped because a queue was full",
            self.dropped.clone(),
        );
        all.register(
            "link_queue_messages",
            "Waiting for other nodes",
            self.link_messages.clone(),
        );
        all.register(
            "links_refused",
            "Links refused or closed for what they carried",
            self.refused_links.clone(),
        );
    }

    /// A request was answered.
    pub(crate) fn answered(&self, kind: Kind, outcome: &'static str, took: Duration) {
        let name = kind_name(kind);
        self.requests
            .get_or_create(&Outcome {
                kind: name,
                outcome,
            })
            .inc();
        self.latency
            .get_or_create(&KindOnly { kind: name })
            .observe(took.as_secs_f64());
        if outcome == "ok" && matches!(kind, Kind::Put | Kind::Delete | Kind::Transact) {
            self.commit.observe(took.as_secs_f64());
        }
    }

    /// A read found so many siblings.
    pub(crate) fn found(&self, siblings: usize, in_conflict: bool) {
        self.siblings
            .observe(f64::from(u32::try_from(siblings).unwrap_or(u32::MAX)));
        if in_conflict {
            self.conflicts_read.inc();
        }
    }

    /// The store wrote a turn.
    pub(crate) fn wrote(&self, took: Duration, bytes: usize, durability: Durability) {
        self.apply.observe(took.as_secs_f64());
        self.written_bytes
            .inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
        match durability {
            Durability::Synced => self.fsync.observe(took.as_secs_f64()),
            Durability::Buffered => {}
        }
    }

    pub(crate) fn damaged(&self) {
        self.damaged.inc();
    }

    pub(crate) fn dropped_incoming(&self, messages: usize) {
        self.drop_messages("in", messages);
    }

    pub(crate) fn dropped_outgoing(&self, messages: usize) {
        self.drop_messages("out", messages);
    }

    fn drop_messages(&self, direction: &'static str, messages: usize) {
        let counter = self.dropped.get_or_create(&Direction { direction });
        counter.inc_by(u64::try_from(messages).unwrap_or(u64::MAX));
    }

    pub(crate) fn refused_link(&self) {
        self.refused_links.inc();
    }
}

const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Get => "get",
        Kind::Put => "put",
        Kind::Delete => "delete",
        Kind::Transact => "transact",
        Kind::Validate => "validate",
        Kind::View => "view",
        Kind::Lease => "lease",
        Kind::Page => "scan",
        Kind::Digest => "digest",
        Kind::Admin => "admin",
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}
