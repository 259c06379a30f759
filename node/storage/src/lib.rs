//! The disk under Meridian: an engine trait, RocksDB, and a memory engine that fails on request.
