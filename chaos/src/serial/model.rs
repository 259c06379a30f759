//! Transactions as a history holds them: what was asked, what was answered, and when.

use std::fmt;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It took effect.
    Ok,
    /// It surely had no effect.
    Fail,
    /// It may have taken effect, or may yet.
    Info,
}

/// One step of a transaction. A key is a list or a register through the whole history; no key is given a value twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MicroOp {
    /// Adds a value to the end of a list.
    Append {
        /// The list.
        key: u64,
        /// The value.
        value: u64,
    },
    /// Reads a list.
    ReadList {
        /// The list.
        key: u64,
        /// What it held; `None` when that is not known.
        list: Option<Vec<u64>>,
    },
    /// Overwrites a register.
    Write {
        /// The register.
        key: u64,
        /// The value.
        value: u64,
    },
    /// Reads a register.
    ReadRegister {
        /// The register.
        key: u64,
        /// What it held, `Some(None)` when nothing; `None` when that is not known.
        value: Option<Option<u64>>,
    },
}

impl MicroOp {
    /// The key it touches.
    pub const fn key(&self) -> u64 {
        match self {
            Self::Append { key, .. }
            | Self::ReadList { key, .. }
            | Self::Write { key, .. }
            | Self::ReadRegister { key, .. } => *key,
        }
    }

    /// The value it writes.
    pub const fn written(&self) -> Option<u64> {
        match self {
            Self::Append { value, .. } | Self::Write { value, .. } => Some(*value),
            Self::ReadList { .. } | Self::ReadRegister { .. } => None,
        }
    }

    /// The same as it was asked: without an answer.
    #[must_use]
    pub const fn asked(&self) -> Self {
        match self {
            Self::Append { key, value } => Self::Append {
                key: *key,
                value: *value,
            },
            Self::Write { key, value } => Self::Write {
                key: *key,
                value: *value,
            },
            Self::ReadList { key, .. } => Self::ReadList {
                key: *key,
                list: None,
            },
            Self::ReadRegister { key, .. } => Self::ReadRegister {
                key: *key,
                value: None,
            },
        }
    }
}

/// As Jepsen writes it: `[:append 5 1]`, `[:r 5 [1 2]]`, `[:w 5 1]`, `[:r 5 nil]`.
impl fmt::Display for MicroOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append { key, value } => write!(f, "[:append {key} {value}]"),
            Self::Write { key, value } => write!(f, "[:w {key} {value}]"),
            Self::ReadList { key, list: None }
            | Self::ReadRegister {
                key,
                value: None | Some(None),
            } => write!(f, "[:r {key} nil]"),
            Self::ReadList {
                key,
                list: Some(list),
            } => {
                let values: Vec<String> = list.iter().map(u64::to_string).collect();
                write!(f, "[:r {key} [{}]]", values.join(" "))
            }
            Self::ReadRegister {
                key,
                value: Some(Some(value)),
            } => write!(f, "[:r {key} {value}]"),
        }
    }
}

/// One transaction. A transaction is known by its place in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// Who asked. A process asks one thing at a time, and nothing more after an unknown outcome.
    pub process: u64,
    /// When it began.
    pub invoke_ns: u64,
    /// When it was answered; `None` when it never was.
    pub complete_ns: Option<u64>,
    /// How it ended.
    pub status: Status,
    /// Its steps, in order.
    pub ops: Vec<MicroOp>,
}

impl Txn {
    /// When it surely was over: an unknown outcome may take effect at any later time.
    pub const fn ended_ns(&self) -> Option<u64> {
        match self.status {
            Status::Ok => self.complete_ns,
            Status::Fail | Status::Info => None,
        }
    }
}

/// Its steps, in order.
impl fmt::Display for Txn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ops: Vec<String> = self.ops.iter().map(MicroOp::to_string).collect();
        let status = match self.status {
            Status::Ok => "ok",
            Status::Fail => "fail",
            Status::Info => "info",
        };
        write!(f, "process {} {status} [{}]", self.process, ops.join(" "))
    }
}
