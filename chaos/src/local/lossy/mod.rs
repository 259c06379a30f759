//! A file system of our own that loses what was not synced when the node on it is killed.
//!
//! A plain kill proves nothing about fsync: what a process has written is safe with the kernel. Here the bytes are kept
//! by a [`Disk`](disk::Disk) in memory, mounted with FUSE; after the kill the file system is unmounted, so that no cache
//! of the kernel remembers anything, the disk crashes, and is mounted again.
//!
//! Read `disk` for what is modelled, `mount` for the calls of the kernel.

pub mod disk;
mod mount;

pub use mount::{LossyDisk, unavailable};
