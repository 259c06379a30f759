//! The configuration file. Every field is optional; unknown fields are refused, since a misspelt one would be silent.

use std::path::{Path, PathBuf};

use meridian_core::config::{Bounds, Timing};
use meridian_storage::RocksOptions;
use serde::Deserialize;

use super::error::ConfigError;
use super::in_range;

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The configuration file as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigFile {
    /// Cluster file, relative to this file.
    pub cluster: Option<PathBuf>,
    /// Which node this is.
    pub node: Option<String>,
    /// Data directory, relative to this file.
    pub data: Option<PathBuf>,
    /// Serve addresses other than loopback without TLS.
    pub insecure: bool,
    /// Let link faults be set.
    pub allow_fault_injection: bool,
    /// Number of core threads.
    pub core_threads: Option<u32>,
    /// Address to listen on for clients, if it differs from the one in the cluster file (containers, NAT).
    pub listen: Option<String>,
    /// Address to listen on for nodes, if it differs.
    pub listen_peer: Option<String>,
    /// Address to listen on for metrics, if it differs.
    pub listen_metrics: Option<String>,
    /// Shards of a keyspace that does not say.
    pub default_shards: u16,
    /// How long open requests may take to finish when the node is told to stop, in milliseconds.
    pub drain_ms: u64,
    /// Form of the log.
    pub log_format: LogFormat,
    /// Timing of the cores.
    pub timing: TimingFile,
    /// Bounds of the cores.
    pub bounds: BoundsFile,
    /// Set-up of the store.
    pub store: StoreFile,
}

impl Default for ConfigFile {
    fn default() -> Self {
        Self {
            cluster: None,
            node: None,
            data: None,
            insecure: false,
            allow_fault_injection: false,
            core_threads: None,
            listen: None,
            listen_peer: None,
            listen_metrics: None,
            default_shards: 8,
            drain_ms: 10_000,
            log_format: LogFormat::Text,
            timing: TimingFile::default(),
            bounds: BoundsFile::default(),
            store: StoreFile::default(),
        }
    }
}

impl ConfigFile {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }
}

/// The section `[timing]`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimingFile {
    tick_ms: Option<u64>,
    heartbeat_ticks: Option<usize>,
    election_ticks: Option<usize>,
    control_factor: Option<usize>,
    exchange_interval_ms: Option<u64>,
}

impl TimingFile {
    /// The timing it asks for. An election must take several heartbeats, else every lost one makes a new leader.
    pub fn judged(self) -> Result<Timing, ConfigError> {
        let plain = Timing::default();
        let heartbeat_ticks = self.heartbeat_ticks.unwrap_or(plain.heartbeat_ticks);
        let election_ticks = self.election_ticks.unwrap_or(plain.election_ticks);
        let control_factor = self.control_factor.unwrap_or(plain.control_factor);
        let tick_ms = in_range(
            "timing.tick_ms",
            self.tick_ms.unwrap_or(plain.tick_ms),
            1,
            10_000,
        )?;
        let beats = in_range("timing.heartbeat_ticks", as_u64(heartbeat_ticks), 1, 1000)?;
        in_range(
            "timing.election_ticks",
            as_u64(election_ticks),
            beats.saturating_mul(3),
            100_000,
        )?;
        in_range("timing.control_factor", as_u64(control_factor), 1, 100)?;
        let interval = self
            .exchange_interval_ms
            .unwrap_or(plain.exchange_interval_ms);
        let exchange_interval_ms = in_range("timing.exchange_interval_ms", interval, 1, 60_000)?;
        Ok(Timing {
            tick_ms,
            heartbeat_ticks,
            election_ticks,
            control_factor,
            exchange_interval_ms,
        })
    }
}

/// The section `[bounds]`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoundsFile {
    outbox_bytes_max: Option<u64>,
    watch_bytes: Option<u64>,
    log_bytes_max: Option<u64>,
    log_entries_max: Option<u64>,
    op_ids_max: Option<u64>,
    op_id_age_ms: Option<u64>,
    record_cache_bytes: Option<u64>,
}

impl BoundsFile {
    /// The bounds it asks for.
    pub fn judged(self) -> Result<Bounds, ConfigError> {
        let plain = Bounds::default();
        let mib = 1_u64 << 20;
        let judge = |field, asked: Option<u64>, plain, min| {
            in_range(field, asked.unwrap_or(plain), min, u64::MAX >> 8)
        };
        Ok(Bounds {
            outbox_bytes_max: judge(
                "bounds.outbox_bytes_max",
                self.outbox_bytes_max,
                plain.outbox_bytes_max,
                mib,
            )?,
            watch_bytes: judge("bounds.watch_bytes", self.watch_bytes, plain.watch_bytes, 0)?,
            log_bytes_max: judge(
                "bounds.log_bytes_max",
                self.log_bytes_max,
                plain.log_bytes_max,
                mib,
            )?,
            log_entries_max: judge(
                "bounds.log_entries_max",
                self.log_entries_max,
                plain.log_entries_max,
                16,
            )?,
            op_ids_max: judge("bounds.op_ids_max", self.op_ids_max, plain.op_ids_max, 1)?,
            op_id_age_ms: judge(
                "bounds.op_id_age_ms",
                self.op_id_age_ms,
                plain.op_id_age_ms,
                1,
            )?,
            record_cache_bytes: judge(
                "bounds.record_cache_bytes",
                self.record_cache_bytes,
                plain.record_cache_bytes,
                0,
            )?,
        })
    }
}

/// The section `[store]`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreFile {
    block_cache_bytes: Option<u64>,
    write_buffer_bytes: Option<u64>,
    wal_bytes: Option<u64>,
    background_bytes_per_s: Option<u64>,
    reserve_bytes: Option<u64>,
}

impl StoreFile {
    /// The set-up it asks for.
    pub fn judged(self) -> Result<RocksOptions, ConfigError> {
        let plain = RocksOptions::default();
        let mib = 1_u64 << 20;
        let judge = |field, asked: Option<u64>, plain, min| {
            in_range(field, asked.unwrap_or(plain), min, u64::MAX >> 8)
        };
        Ok(RocksOptions {
            block_cache_bytes: judge(
                "store.block_cache_bytes",
                self.block_cache_bytes,
                plain.block_cache_bytes,
                mib,
            )?,
            write_buffer_bytes: judge(
                "store.write_buffer_bytes",
                self.write_buffer_bytes,
                plain.write_buffer_bytes,
                mib,
            )?,
            wal_bytes: judge("store.wal_bytes", self.wal_bytes, plain.wal_bytes, mib)?,
            background_bytes_per_s: judge(
                "store.background_bytes_per_s",
                self.background_bytes_per_s,
                plain.background_bytes_per_s,
                // A twentieth of it must still be something.
                20 * mib,
            )?,
            reserve_bytes: judge(
                "store.reserve_bytes",
                self.reserve_bytes,
                plain.reserve_bytes,
                0,
            )?,
        })
    }
}

fn as_u64(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
