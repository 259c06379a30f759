//! Experiments on real processes: `kv-node` killed without warning, again and again, under load.
//!
//! What it is for: the simulator runs the core on a simulated disk; here the whole program runs on RocksDB, and with
//! `--lossy` on a file system that forgets what was not synced. What it is not: repeatable to the byte; the seed decides
//! which node is killed when, the machine decides the rest.
//!
//! Invariants checked, after everything has converged: those of `ledger`, in every zone; equal digests in all zones; no
//! node ended by itself, failed to start again, or panicked.
//!
//! Read `ledger` (the promise), `workload` (the writers), `run` (the order of events), `lossy` (the disk); `watch` is an experiment of its
//! own: the exact sequence shown to a watcher.

mod args;
pub mod cluster;
pub mod ends;
pub mod ledger;
pub mod lossy;
pub mod plan;
pub mod process;
mod run;
pub mod watch;
mod workload;

pub use args::LocalArgs;
pub use run::main;
