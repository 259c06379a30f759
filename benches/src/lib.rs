//! Micro-benchmarks and the open-loop load generator of Meridian.
