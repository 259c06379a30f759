//! The Meridian node as a state machine.
//!
//! A [`Core`] owns many Raft groups. The driver (the shell `kv-node`, or the simulator in `chaos`) feeds it
//! [`Input`]s and follows one loop:
//!
//! ```text
//! core.step(now, input, &mut out)             for every input at hand
//! while let Some(turn) = core.turn(now, &mut out) {
//!     deliver out.messages                     (they may leave before the write: protocol rule 30)
//!     engine.write(&turn.batch, turn.durability) (a failure: core.failed(..) and stop)
//!     core.wrote(now, &mut out)
//! }
//! deliver everything in out
//! again at core.wakes_at_ns(), if that is not None and no input comes before
//! ```
//!
//! What it is not: it has no clock, no thread, no socket, no file and no randomness of its own; time comes in with each
//! call, chance with [`CoreConfig::entropy`](config::CoreConfig), the disk as [`meridian_storage::Engine`].
//!
//! Invariants: nothing leaves in `out` before what it promises is durable (invariant 9); the same inputs give the same
//! outputs, byte for byte.
//!
//! Read `command` (what is agreed on), `shard` (what it does), `group` (how it is agreed), `exchange` (how zones meet).

mod across;
pub mod address;
mod admission;
mod alter;
mod answers;
mod ask;
pub mod catalog;
pub mod command;
pub mod config;
mod control;
mod coordinator;
mod core;
pub mod error;
mod exchange;
mod forward;
mod group;
pub mod ids;
mod images;
pub mod inner;
pub mod keys;
pub mod lease;
mod leasing;
mod levels;
pub mod limits;
pub mod message;
pub mod mirror;
pub mod output;
mod placement;
pub mod policy;
pub mod read;
pub mod record;
mod record_cache;
mod recovery;
pub mod request;
mod route;
pub mod shard;
pub mod time;
mod timers;
pub mod transaction;
mod turn;
pub mod two_phase;
mod views;
mod waiting;
pub mod workspace;

pub use config::CoreConfig;
pub use core::Core;
pub use error::{Error, OpenError};
pub use output::{Input, Outputs, Turn};
pub use time::Now;
