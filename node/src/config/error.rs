//! Why a node does not start with what it was told.

use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// Why a configuration was refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// Something needed was not given.
    #[error("no {what}: give {flag}, set it in the environment or in the configuration file")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// The flag that would give it.
        flag: &'static str,
    },
    /// The cluster file does not know the node.
    #[error("node {name} is not in the cluster file, which has: {known}")]
    UnknownNode {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A node stands in a zone that the cluster file does not list.
    #[error("node {node} is in zone {zone}, which the cluster file does not list")]
    UnknownZone {
        /// The node.
        node: String,
        /// Its zone.
        zone: String,
    },
    /// Two things share what only one may have.
    #[error("{what} {value} appears more than once in the cluster file")]
    Duplicate {
        /// What must be unique.
        what: &'static str,
        /// The value found twice.
        value: String,
    },
    /// A list that must hold something is empty.
    #[error("the cluster file lists no {what}")]
    Empty {
        /// What the list holds.
        what: &'static str,
    },
    /// A name holds characters that would make other texts ambiguous.
    #[error("{what} {value:?} is not 1 to 63 letters, digits, '-' or '_'")]
    BadName {
        /// What is named.
        what: &'static str,
        /// The name.
        value: String,
    },
    /// An address is not `host:port`, or cannot be resolved.
    #[error("{field} {address:?} is not usable: {reason}")]
    BadAddress {
        /// Which address.
        field: &'static str,
        /// Its text.
        address: String,
        /// Why.
        reason: String,
    },
    /// An address that others can reach, without TLS.
    #[error(
        "{address} is not a loopback address and TLS is not configured: pass --insecure to serve it in the clear"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// A number is out of its range.
    #[error("{field} is {found}, allowed is {min} to {max}")]
    OutOfRange {
        /// Which field.
        field: &'static str,
        /// What it is.
        found: u64,
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
}
