//! `mirror`: what it takes.

use clap::Subcommand;

use super::PromoteArgs;

/// What to do with the mirrors of a keyspace.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum MirrorCommand {
    /// Show what each zone mirrors, and how old it is
    Status {
        /// The keyspace
        keyspace: String,
    },
    /// Make the mirror in a zone the home, as `kv promote` does
    Promote(PromoteArgs),
    /// Take a cut at once, and wait until every zone shows it
    Now {
        /// The keyspace
        keyspace: String,
    },
}
