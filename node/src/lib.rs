//! kv-node: the shell around the core, with sockets, threads, timers and configuration.
