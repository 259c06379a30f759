//! What a node is told before it starts: flags, environment, configuration file, cluster file.
//!
//! Everything is read and judged once, here; the rest of the shell holds a [`NodeConfig`] and asks no more questions.
//! Flags win over the environment, the environment over the configuration file, the file over the defaults.
//!
//! What it is not: it changes nothing on disk and opens no socket.
//!
//! Read `cluster` for the cluster file, `file` for the configuration file, `args` for flags.

mod args;
mod cluster;
mod error;
mod file;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use meridian_core::config::{Bounds, ClusterSeed, NodeSeed, Timing};

pub use args::Args;
pub use cluster::Cluster;
pub use error::ConfigError;
pub use file::{ConfigFile, LogFormat};

/// Most core threads a node may have: more than any machine it is meant for has processors.
const CORE_THREADS_MAX: u32 = 256;

/// Most shards a keyspace may have.
const SHARDS_MAX: u16 = 1024;

/// Longest time a node may take to drain, in milliseconds: longer than the longest request.
const DRAIN_MS_MAX: u64 = 120_000;

/// A node's configuration, found to make sense.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster file.
    pub cluster: ClusterSeed,
    /// This node, as the cluster file has it.
    pub node: NodeSeed,
    /// Name of this node's zone.
    pub zone_name: String,
    /// Metrics addresses by node, as the cluster file has them.
    pub metrics_addrs: std::collections::BTreeMap<u64, String>,
    /// Where kv.v1, admin.v1, health and reflection listen.
    pub listen: SocketAddr,
    /// Where peer.v1 listens.
    pub listen_peer: SocketAddr,
    /// Where /metrics listens, if anywhere.
    pub listen_metrics: Option<SocketAddr>,
    /// The data directory.
    pub data: PathBuf,
    /// Number of core threads.
    pub core_threads: u32,
    /// Whether link faults may be set.
    pub fault_injection: bool,
    /// Addresses other than loopback are served without TLS.
    pub exposed: bool,
    /// Shards of a keyspace that does not say.
    pub default_shards: u16,
    /// Timing of the cores.
    pub timing: Timing,
    /// Bounds of the cores.
    pub bounds: Bounds,
    /// How the store is set up.
    pub store: meridian_storage::RocksOptions,
    /// How long open requests may take to finish when the node is told to stop.
    pub drain: Duration,
}

impl NodeConfig {
    /// Reads the files that `args` names and judges everything together.
    pub fn load(args: &Args) -> Result<Self, ConfigError> {
        let file = match &args.config {
            Some(path) => ConfigFile::read(path)?,
            None => ConfigFile::default(),
        };
        let beside = args.config.as_deref().and_then(Path::parent);
        let cluster_path = args
            .cluster
            .clone()
            .or_else(|| file.cluster.as_ref().map(|path| resolve(beside, path)))
            .ok_or(ConfigError::Missing {
                what: "cluster file",
                flag: "--cluster",
            })?;
        let cluster = Cluster::read(&cluster_path)?;
        let data = args
            .data
            .clone()
            .or_else(|| file.data.as_ref().map(|path| resolve(beside, path)))
            .ok_or(ConfigError::Missing {
                what: "data directory",
                flag: "--data",
            })?;
        Self::judge(args, &file, cluster, data)
    }

    fn judge(
        args: &Args,
        file: &ConfigFile,
        cluster: Cluster,
        data: PathBuf,
    ) -> Result<Self, ConfigError> {
        let name = args
            .node
            .as_ref()
            .or(file.node.as_ref())
            .ok_or(ConfigError::Missing {
                what: "name of this node",
                flag: "--node",
            })?;
        let node = cluster.node_named(name)?.clone();
        let listen = bind_address("addr", file.listen.as_ref().unwrap_or(&node.addr))?;
        let listen_peer = bind_address(
            "peer_addr",
            file.listen_peer.as_ref().unwrap_or(&node.peer_addr),
        )?;
        let metrics = file
            .listen_metrics
            .as_ref()
            .or_else(|| cluster.metrics_addrs.get(&node.id.0));
        let listen_metrics = metrics
            .map(|addr| bind_address("metrics_addr", addr))
            .transpose()?;
        let addresses = [Some(listen), Some(listen_peer), listen_metrics];
        let insecure = args.insecure || file.insecure;
        let exposed = check_exposure(&addresses, insecure)?;
        Ok(Self {
            zone_name: cluster.zone_name(node.zone).to_owned(),
            listen,
            listen_peer,
            listen_metrics,
            data,
            core_threads: core_threads(args.core_threads.or(file.core_threads))?,
            fault_injection: args.allow_fault_injection || file.allow_fault_injection,
            exposed,
            default_shards: default_shards(file)?,
            timing: file.timing.judged()?,
            bounds: file.bounds.judged()?,
            store: file.store.judged()?,
            drain: Duration::from_millis(in_range("drain_ms", file.drain_ms, 0, DRAIN_MS_MAX)?),
            metrics_addrs: cluster.metrics_addrs,
            cluster: cluster.seed,
            node,
        })
    }
}

/// Paths in the configuration file are relative to the folder it is in.
fn resolve(beside: Option<&Path>, path: &Path) -> PathBuf {
    beside.map_or_else(|| path.to_owned(), |folder| folder.join(path))
}

fn bind_address(field: &'static str, text: &str) -> Result<SocketAddr, ConfigError> {
    let bad = |reason: String| ConfigError::BadAddress {
        field,
        address: text.to_owned(),
        reason,
    };
    let mut found = text
        .to_socket_addrs()
        .map_err(|error| bad(error.to_string()))?;
    found
        .next()
        .ok_or_else(|| bad("the name has no address".to_owned()))
}

/// Without TLS only loopback is served, unless the operator says otherwise. True: something else is served.
fn check_exposure(addresses: &[Option<SocketAddr>], insecure: bool) -> Result<bool, ConfigError> {
    let exposed = addresses
        .iter()
        .flatten()
        .find(|address| !address.ip().is_loopback());
    match exposed {
        Some(address) if !insecure => Err(ConfigError::NotLoopback { address: *address }),
        Some(_) => Ok(true),
        None => Ok(false),
    }
}

fn core_threads(asked: Option<u32>) -> Result<u32, ConfigError> {
    let available = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = asked.unwrap_or_else(|| {
        u32::try_from(available())
            .unwrap_or(1)
            .min(CORE_THREADS_MAX)
    });
    let judged = in_range(
        "core_threads",
        u64::from(threads),
        1,
        u64::from(CORE_THREADS_MAX),
    )?;
    Ok(u32::try_from(judged).unwrap_or(CORE_THREADS_MAX))
}

fn default_shards(file: &ConfigFile) -> Result<u16, ConfigError> {
    in_range(
        "default_shards",
        u64::from(file.default_shards),
        1,
        u64::from(SHARDS_MAX),
    )?;
    Ok(file.default_shards)
}

/// `found` if it lies in `min..=max`.
fn in_range(field: &'static str, found: u64, min: u64, max: u64) -> Result<u64, ConfigError> {
    if (min..=max).contains(&found) {
        Ok(found)
    } else {
        Err(ConfigError::OutOfRange {
            field,
            found,
            min,
            max,
        })
    }
}
