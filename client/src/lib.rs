//! The Rust client of Meridian.
