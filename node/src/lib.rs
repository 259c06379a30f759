//! `kv-node`: the shell around the core, with sockets, threads, timers and configuration.
//!
//! ```text
//! client --kv.v1--> service --requests--> core thread --batch--> store
//!                      ^                   |      ^
//!                      +----- replies -----+      +-- messages -- links --peer.v1-- other nodes
//! ```
//!
//! What it is not: it decides nothing about data. Everything that promises something happens in `meridian_core`; the
//! shell brings inputs, writes batches, carries messages and words answers.
//!
//! Invariants: a core is touched by its thread alone; nothing waits unbounded; bytes from a socket end in a typed value
//! or a typed error; a store that failed a write ends the process.
//!
//! Read `run` for the order of start and stop, `cores` for the loop, `service` and `links` for the two sides.

mod calls;
mod clock;
pub mod config;
mod convert;
mod cores;
pub mod datadir;
mod limits;
mod links;
mod metrics;
mod run;
mod service;
mod shared;
mod task;
mod watched;

pub use run::{RunError, run};
