//! kv-chaos: the simulated world, workloads, nemeses and checkers.
//!
//! One seed is one run: a cluster of `meridian_core` state machines on a virtual clock, with a lossy network, disks that
//! lose what was not synced, clients in every zone, and a nemesis. What clients were told is held against what the
//! engines hold at the end, and what replicas applied against one another, all the while.
//!
//! What it is not: the core's rules are not repeated here, and no wall clock, thread or socket is in a run.
//!
//! Invariant: a run is a function of its [`Options`](scenario::Options). Whoever breaks that breaks the same-seed test.
//!
//! The exception is `local`: the same promises held against real processes, for what a simulated disk cannot show.
//!
//! Read `scenario` (what a seed stands for), `world` (the loop), `node` (a machine), `checkers` (the promises).

pub mod checkers;
pub mod client;
pub mod clock;
#[cfg(feature = "local")]
pub mod drive;
pub mod histories;
pub mod history;
pub mod lineage;
#[cfg(feature = "local")]
pub mod local;
pub mod nemesis;
pub mod network;
pub mod node;
pub mod operator;
pub mod queue;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod serial;
pub mod swarm;
pub mod trace;
pub mod transact;
pub mod violation;
pub mod world;
