//! What is wrong with a history, by name.

use std::fmt;

use crate::violation::{Checked, Violation};

/// How an anomaly is called, after Adya ("Weak Consistency", 1999) and Elle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// A value was given to a key twice: the history says nothing.
    ReusedValue,
    /// A value was read that nobody wrote.
    GarbageRead,
    /// A list holds a value twice.
    DuplicateElement,
    /// Two reads of a list of which neither is the beginning of the other.
    IncompatibleOrder,
    /// A transaction does not see its own reads and writes.
    Internal,
    /// A value was read whose transaction had no effect.
    G1a,
    /// A value was read that its transaction had replaced itself.
    G1b,
    /// A transaction took effect on top of one that had none.
    DirtyUpdate,
    /// Two transactions replaced the same version that both had read.
    LostUpdate,
    /// A cycle in the order of transactions.
    Cycle(Shape, Order),
    /// The money in a bank changed.
    Total,
    /// An account fell below zero.
    Negative,
    /// An acknowledged transfer is gone, or one without effect is there.
    Transfer,
    /// Two transactions each kept a promise that together they broke.
    WriteSkew,
    /// Two reads saw two writes in opposite orders.
    LongFork,
    /// An acknowledged element of a set is gone.
    LostElement,
    /// An element is in a set that nobody added.
    UnexpectedElement,
    /// A register is not linearizable.
    NotLinearizable,
    /// A node ended by itself, did not start again, or the cluster did not serve any more.
    NodeLost,
}

/// Which dependencies a cycle needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// Only writes that follow writes.
    G0,
    /// Reads that follow writes, too.
    G1c,
    /// Exactly one write that follows a read.
    GSingle,
    /// Several of them.
    G2,
}

/// Which orders beside the dependencies a cycle needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// None.
    Dependencies,
    /// What one process did is in its order.
    Process,
    /// What was over before another began is before it.
    Realtime,
}

impl Anomaly {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReusedValue => "reused-value",
            Self::GarbageRead => "garbage-read",
            Self::DuplicateElement => "duplicate-element",
            Self::IncompatibleOrder => "incompatible-order",
            Self::Internal => "internal",
            Self::G1a => "G1a",
            Self::G1b => "G1b",
            Self::DirtyUpdate => "dirty-update",
            Self::LostUpdate => "lost-update",
            Self::Cycle(shape, order) => shape.name(order),
            Self::Total => "total-changed",
            Self::Negative => "negative-balance",
            Self::Transfer => "transfer-lost",
            Self::WriteSkew => "write-skew",
            Self::LongFork => "long-fork",
            Self::LostElement => "lost-element",
            Self::UnexpectedElement => "unexpected-element",
            Self::NotLinearizable => "not-linearizable",
            Self::NodeLost => "node-lost",
        }
    }
}

impl Shape {
    const fn name(self, order: Order) -> &'static str {
        match (self, order) {
            (Self::G0, Order::Dependencies) => "G0",
            (Self::G0, Order::Process) => "G0-process",
            (Self::G0, Order::Realtime) => "G0-realtime",
            (Self::G1c, Order::Dependencies) => "G1c",
            (Self::G1c, Order::Process) => "G1c-process",
            (Self::G1c, Order::Realtime) => "G1c-realtime",
            (Self::GSingle, Order::Dependencies) => "G-single",
            (Self::GSingle, Order::Process) => "G-single-process",
            (Self::GSingle, Order::Realtime) => "G-single-realtime",
            (Self::G2, Order::Dependencies) => "G2",
            (Self::G2, Order::Process) => "G2-process",
            (Self::G2, Order::Realtime) => "G2-realtime",
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub anomaly: Anomaly,
    /// What is wrong, in one line.
    pub message: String,
    /// When the last of the transactions concerned was answered.
    pub at_ns: u64,
    /// The transactions concerned, and why they contradict one another; one line each.
    pub details: Vec<String>,
}

impl Finding {
    /// A finding without details yet.
    pub(crate) const fn new(anomaly: Anomaly, at_ns: u64, message: String) -> Self {
        Self {
            anomaly,
            message,
            at_ns,
            details: Vec::new(),
        }
    }

    /// The same with details.
    pub(crate) fn with(mut self, details: Vec<String>) -> Self {
        self.details.extend(details);
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.anomaly, self.message)?;
        self.details
            .iter()
            .try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// The first finding as the violation of a simulated run; the others by name.
pub fn checked(findings: Vec<Finding>) -> Checked {
    let mut findings = findings.into_iter();
    let Some(first) = findings.next() else {
        return Ok(());
    };
    let others = findings.map(|finding| format!("also {}: {}", finding.anomaly, finding.message));
    Err(
        Violation::new(first.anomaly.name(), first.at_ns, first.message)
            .with(first.details)
            .with(others.collect()),
    )
}
