//! kv-chaos: the simulated world, workloads, nemeses and checkers.
