//! The Rust client of Meridian.
//!
//! **What this is.** A [`Client`] learns the cluster from any endpoint, keeps one multiplexed stream per node, sends
//! each operation to the node that leads its shard in the wanted zone, and retries within the deadline: at other nodes
//! of the zone, then in other zones. It is cheap to clone; hundreds of operations may be in flight at once.
//!
//! **What this is not.** It caches no values, resolves no conflicts, and reads no environment.
//!
//! **Invariants.**
//! * Every call has a deadline; every queue and every number of retries is bounded.
//! * One operation keeps one op id through all of its attempts, so it takes effect at most once inside a zone.
//! * Only reads and writes without a condition are tried in another zone, and only when the own one does not help.
//! * An error says `effect none` only if *no* attempt of the operation can have had an effect.
//!
//! **What to read.** [`Client`], then `execute` (the loop of attempts), `routes` (who is asked), `link` (the stream);
//! `transaction` for transactions and views.

mod admin;
mod builder;
mod client;
mod error;
mod execute;
mod ids;
mod lease;
mod link;
mod options;
mod results;
mod retry;
mod routes;
mod scan;
mod session;
mod transaction;
mod watch;

pub use admin::{Admin, Failed, Health, NodeAdmin};
pub use builder::ClientBuilder;
pub use client::{Client, Write};
pub use error::{Effect, Error, ErrorKind};
pub use ids::{Context, OpId, Revision, SessionToken, TokenError};
pub use lease::{Lease, LeaseHeld, LeaseOptions, LeaseRef, LeaseShown};
pub use options::{Intent, OnBehind, ReadLevel, ReadOptions, ScanQuery, WriteLevel, WriteOptions};
pub use results::{MirrorStamp, Page, Receipt, ServedBy, Sibling, Versions, Written, ZoneMirrored};
pub use scan::Scan;
pub use session::Session;
pub use transaction::{
    Action, ActionOutcome, Committed, Compare, KeyRange, Transaction, TransactionOutcome, Txn,
    TxnOptions, View,
};
pub use watch::{Watch, WatchBatch, WatchEvent, WatchKeys, WatchQuery};

/// The wire contract, for callers that work on it directly.
pub use meridian_proto as proto;

/// The keyspace that exists from the start.
pub const DEFAULT_KEYSPACE: &str = "default";

/// Largest message a client accepts: a page of a scan is bounded by the server well below it.
pub const MESSAGE_SIZE_BYTES_MAX: usize = 16 << 20;
