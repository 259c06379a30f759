//! The disk under Meridian: an ordered map of bytes whose writes are a log.
//!
//! What this is: the [`Engine`] trait, which is all that the core knows of a disk; [`RocksEngine`], the real one; and
//! [`MemoryEngine`], which behaves the same, costs about a microsecond per operation, and crashes, tears, corrupts and
//! fills up on request.
//!
//! What this is not: it knows no keyspaces, shards, groups or records. It sees one bit of a key: keys whose first byte
//! is at least [`LOG_FAMILY_FIRST`] are short-lived (the Raft log) and kept apart from all others.
//!
//! Invariants:
//! * A [`Batch`] is atomic: after any crash, all of it is there or none.
//! * Writes are a log. A crash loses a suffix of the `Buffered` batches written after the last `Synced` one, never a
//!   `Synced` one; a `Synced` write makes every earlier `Buffered` one durable.
//! * A write whose outcome is unknown poisons the engine: nothing is read or written any more, because what is in
//!   memory may be more than what is on disk. Only [`StorageError::DiskFull`] is surely without effect.
//! * A corrupt record is an error for whoever reads it, never an absent key.
//! * A [`View`] never changes.
//!
//! Read `engine.rs` for the contract, `rocks/recovery.rs` for what happens at a restart, `memory/mod.rs` for faults, and
//! `tests/conformance.rs`, which both engines must pass.

mod batch;
mod engine;
mod error;
mod keys;
mod memory;
mod rocks;

pub use batch::{Batch, Op};
pub use engine::{Durability, Engine, Read, View, Visitor};
pub use error::StorageError;
pub use keys::{LOG_FAMILY_FIRST, prefix_end};
pub use memory::MemoryEngine;
pub use rocks::{RocksEngine, RocksOptions};
