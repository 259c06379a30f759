//! What waits: leases, locks, watches.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Subcommand};
use meridian_client::{LeaseRef, Revision};

use crate::parse;

/// How a lease is taken.
#[derive(Clone, Debug, Args)]
pub(crate) struct HoldArgs {
    /// The lease's name
    pub(crate) name: OsString,
    /// How long it stands when it is not renewed
    #[arg(long, default_value = "10s", value_parser = parse::timeout)]
    pub(crate) ttl: Duration,
    /// How long to wait while another holds it; 0s: not at all
    #[arg(long, default_value = "30s", value_parser = parse::duration)]
    pub(crate) wait: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LockArgs {
    #[command(flatten)]
    pub(crate) hold: HoldArgs,
    /// The command and its arguments. It finds the lease in KV_LOCK_NAME and KV_LOCK_TOKEN
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// Take a lease; it ends when it is not renewed
    Acquire(HoldArgs),
    /// Give a lease its full time again
    Renew {
        /// The lease
        #[arg(value_name = "NAME:TOKEN", value_parser = parse::lease)]
        lease: LeaseRef,
    },
    /// Give a lease up
    End {
        /// The lease
        #[arg(value_name = "NAME:TOKEN", value_parser = parse::lease)]
        lease: LeaseRef,
    },
    /// Show who holds a lease
    Show {
        /// Its name
        name: OsString,
    },
}

#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("watched").required(true).args(["key", "prefix"]))]
pub(crate) struct WatchArgs {
    /// The key
    pub(crate) key: Option<OsString>,
    /// KEY is base64
    #[arg(long, requires = "key")]
    pub(crate) key_base64: bool,
    /// All keys that begin with it; with an empty one, all keys
    #[arg(long)]
    pub(crate) prefix: Option<OsString>,
    /// The changes that follow this revision, as an earlier watch in this zone has shown it; without it, those from now on
    #[arg(long, value_name = "REVISION")]
    pub(crate) from: Option<Revision>,
    /// End after so many changes
    #[arg(long)]
    pub(crate) limit: Option<u64>,
}
