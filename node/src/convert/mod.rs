//! Where wire types end: everything beyond this module speaks the core's own types.
//!
//! What it is not: it routes nothing, waits for nothing and keeps nothing. Bytes from the network become typed values
//! or a typed error here, never a panic.
//!
//! Read `peer` for links between nodes, `operations` for what clients ask, `answers` for what they get, `failure` for
//! why they do not; `transactions` for transactions both ways, `views` for tokens of views, `revisions`
//! for those of watchers, `sessions` for those of sessions; `policy` for how a keyspace is replicated.

pub(crate) mod answers;
mod exchange;
pub(crate) mod failure;
pub(crate) mod leases;
pub(crate) mod operations;
pub(crate) mod peer;
pub(crate) mod policy;
mod raft;
pub(crate) mod revisions;
pub(crate) mod sessions;
#[cfg(test)]
mod tests;
pub(crate) mod transactions;
pub(crate) mod views;
pub(crate) mod wire;

pub(crate) use failure::Failure;
