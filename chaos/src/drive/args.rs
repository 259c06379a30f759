//! What `kv-chaos drive` is asked to do.

use std::path::PathBuf;

use clap::Args;

use crate::histories::judge::Workload;

/// Puts load on a live cluster and writes down what was asked and answered.
#[derive(Clone, Debug, Args)]
pub struct DriveArgs {
    /// Addresses HOST:PORT of nodes.
    #[arg(long, env = "KV_ENDPOINTS", value_delimiter = ',', required = true)]
    pub endpoints: Vec<String>,
    /// What clients do: register, append, rw, bank or set.
    #[arg(long)]
    pub workload: Workload,
    /// How many clients.
    #[arg(long, default_value_t = 10)]
    pub clients: u64,
    /// For how long.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// The file of the history.
    #[arg(long)]
    pub history: PathBuf,
    /// The keyspace.
    #[arg(long, short, default_value = meridian_client::DEFAULT_KEYSPACE)]
    pub keyspace: String,
    /// The zone whose nodes are asked; that of the endpoint which answers first when absent.
    #[arg(long, env = "KV_ZONE")]
    pub zone: Option<String>,
    /// Decides what clients ask.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Keys in use at one time: 5 for registers, 12 for transactions when absent.
    #[arg(long)]
    pub keys: Option<u64>,
    /// Accounts of the bank.
    #[arg(long, default_value_t = 100)]
    pub accounts: u64,
}
