//! Experiments on real processes.

pub mod cluster;
pub mod plan;
pub mod process;
