//! `mirror`: what it takes.

use clap::Subcommand;

/// What to do with the mirrors of a keyspace.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum MirrorCommand {
    /// Show what each zone mirrors, and how old it is
    Status {
        /// The keyspace
        keyspace: String,
    },
    /// Take a cut at once, and wait until every zone shows it
    Now {
        /// The keyspace
        keyspace: String,
    },
}
