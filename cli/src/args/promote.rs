//! `promote` and `divergence`: what they take.

use std::time::Duration;

use clap::Args;

use crate::parse;

/// What a promotion takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct PromoteArgs {
    /// The keyspace
    pub(crate) keyspace: String,
    /// The zone whose mirror becomes the home
    #[arg(long, value_name = "ZONE", required_unless_present = "cancel")]
    pub(crate) zone: Option<String>,
    /// Promote though the home zone is not known to have stopped
    #[arg(long, requires = "zone")]
    pub(crate) force: bool,
    /// Give up a promotion that is under way
    #[arg(long, conflicts_with_all = ["zone", "force"])]
    pub(crate) cancel: bool,
    /// Do not wait: it goes on in the background
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Wait at most this long
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse::duration)]
    pub(crate) wait: Duration,
}

/// What the report of a divergence takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct DivergenceArgs {
    /// The keyspace
    pub(crate) keyspace: String,
    /// List at most this many keys of each shard; the counts are always of all
    #[arg(long, value_name = "KEYS")]
    pub(crate) limit: Option<u64>,
    /// Wait no longer for what the old home zone wrote last: what has not come back is lost for good
    #[arg(long, conflicts_with = "limit")]
    pub(crate) give_up: bool,
}
