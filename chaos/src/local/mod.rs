//! Experiments on real processes: `kv-node` killed without warning, again and again, under load.
//!
//! What it is for: the simulator runs the core on a simulated disk; here the whole program runs on RocksDB, and with
//! `--lossy` on a file system that forgets what was not synced. What it is not: repeatable to the byte; the seed decides
//! which node is killed when, the machine decides the rest.
//!
//! Invariants checked, after everything has converged: those of `ledger`, in every zone; equal digests in all zones; no
//! node ended by itself, failed to start again, or panicked.
//!
//! `bank` and `watch` are other experiments on the same processes: transactions that move money while nodes are killed, and the
//! exact sequence shown to a watcher.
//!
//! `modes` measures what each mode of a keyspace promises, with slow links and a zone cut off and lost.
//!
//! `lag`, `drain`, `leader` and `mirrors` measure single promises on three zones that are far apart; a bar decides.
//!
//! Read `ledger` (the promise), `workload` (the writers), `run` (the order of events), `lossy` (the disk).

mod args;
mod ask;
mod backlog;
mod bank;
pub mod cluster;
pub mod drain;
pub mod ends;
mod experiment;
pub mod lag;
pub mod leader;
pub mod ledger;
pub mod locks;
pub mod lossy;
pub mod mirrors;
pub mod modes;
pub mod plan;
pub mod process;
mod puts;
mod rate;
mod run;
mod table;
pub mod watch;
mod workload;
mod zones;

pub use args::LocalArgs;
pub use bank::{BankArgs, main as bank_main};
pub use run::main;
