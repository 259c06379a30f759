//! Each anomaly from a history written by hand, and random histories that must be clean, or must not be.

mod lists;
mod random;
mod registers;

use super::finding::Finding;
use super::model::{MicroOp, Status, Txn};

fn append(key: u64, value: u64) -> MicroOp {
    MicroOp::Append { key, value }
}

fn list(key: u64, values: &[u64]) -> MicroOp {
    let list = Some(values.to_vec());
    MicroOp::ReadList { key, list }
}

fn write(key: u64, value: u64) -> MicroOp {
    MicroOp::Write { key, value }
}

fn read(key: u64, value: impl Into<Option<u64>>) -> MicroOp {
    let value = Some(value.into());
    MicroOp::ReadRegister { key, value }
}

/// Stands for a process that does nothing else.
const ANY: u64 = u64::MAX;

/// An acknowledged transaction of a process of its own, from one moment to another.
fn ok(moments: std::ops::Range<u64>, ops: &[MicroOp]) -> Txn {
    Txn {
        process: ANY,
        invoke_ns: moments.start,
        complete_ns: Some(moments.end),
        status: Status::Ok,
        ops: ops.to_vec(),
    }
}

/// The same with another end.
fn ended(status: Status, txn: Txn) -> Txn {
    Txn { status, ..txn }
}

/// The same by another process.
fn by(process: u64, txn: Txn) -> Txn {
    Txn { process, ..txn }
}

/// What is found in transactions.
fn judged(txns: &[Txn]) -> Vec<Finding> {
    let numbered = (1000..).zip(txns).map(|(number, txn)| match txn.process {
        ANY => by(number, txn.clone()),
        process => by(process, txn.clone()),
    });
    super::findings(&numbered.collect::<Vec<Txn>>())
}

/// Names of what is found, in the order of findings.
fn names(txns: &[Txn]) -> Vec<&'static str> {
    judged(txns)
        .iter()
        .map(|finding| finding.anomaly.name())
        .collect()
}

/// What is found under this name.
fn found(name: &str, txns: &[Txn]) -> Finding {
    let found = judged(txns);
    let named = found.iter().find(|finding| finding.anomaly.name() == name);
    named
        .unwrap_or_else(|| panic!("no {name} in {found:?}"))
        .clone()
}
