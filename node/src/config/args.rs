//! Flags and environment of `kv-node`.

use std::path::PathBuf;

use clap::Parser;

use super::file::LogFormat;

/// A node of a Meridian cluster.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "kv-node", version, about)]
pub struct Args {
    /// Configuration file (TOML); optional.
    #[arg(long, env = "KV_NODE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Cluster file (TOML): zones, nodes, addresses.
    #[arg(long, env = "KV_NODE_CLUSTER", value_name = "FILE")]
    pub cluster: Option<PathBuf>,
    /// Which node of the cluster file this is.
    #[arg(long, env = "KV_NODE_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Data directory; created when missing.
    #[arg(long, env = "KV_NODE_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Serve addresses other than loopback without TLS.
    #[arg(long, env = "KV_NODE_INSECURE")]
    pub insecure: bool,
    /// Let admin.v1 block, delay and lose messages between zones. For experiments only.
    #[arg(long, env = "KV_NODE_ALLOW_FAULT_INJECTION")]
    pub allow_fault_injection: bool,
    /// Number of core threads; by default one per processor.
    #[arg(long, env = "KV_NODE_CORE_THREADS", value_name = "N")]
    pub core_threads: Option<u32>,
    /// Form of the log on standard error.
    #[arg(long, env = "KV_NODE_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}
