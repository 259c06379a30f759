//! Histories as files, in forms that other checkers read, too.
//!
//! * `registers`: one operation on one key per line, as JSON;
//! * `edn`: the part of EDN that the others need;
//! * `transactions`: two lines per transaction, as Jepsen writes and reads them, for lists and registers;
//! * `money`: the same for banks; `elements`: for sets;
//! * `judge`: the checker that belongs to a file.
//!
//! Invariant: an operation of unknown outcome is written as `info`, never left out, and its process does nothing more.

pub mod edn;
pub mod elements;
pub mod journal;
pub mod judge;
pub mod money;
pub mod registers;
pub mod report;
pub mod simulated;
pub mod transactions;

use std::fmt;

/// Why a file is not a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadHistory {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

impl BadHistory {
    pub(crate) fn at(line: usize, why: impl Into<String>) -> Self {
        Self {
            line,
            why: why.into(),
        }
    }
}

impl fmt::Display for BadHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for BadHistory {}
