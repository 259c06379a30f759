//! `kv-chaos drive`: load on a live cluster, written down so that it can be judged.
//!
//! One workload per file. What it is not: it starts, stops and disturbs nothing; whoever runs it does (`local` has experiments
//! that do both).
//!
//! Invariants: every operation that was sent is in the history, with unknown outcome as `info`; a transaction in the
//! history is one attempt, never one of the library's retries; a history ends with its file, also after an interruption.
//!
//! Read `session` (what all clients share), `crew` (who runs them), then a workload.

mod args;
mod bank;
mod crew;
mod lists;
mod pool;
mod register;
mod run;
mod session;
mod set;
mod steps;

pub use args::DriveArgs;
pub use bank::{BankRun, Told, drive as drive_bank};
pub use run::main;
pub use session::{Counts, Session, Settings};
