//! Who wrote each value, and which transactions took effect.
//!
//! A transaction of unknown outcome took effect when one of its values was read; as long as nobody has seen it, it stays
//! out of the order. Values are unique per key, which is what makes histories tell who read from whom.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Anomaly, Finding};
use super::model::{Status, Txn};

/// The write of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// The transaction.
    pub(super) txn: usize,
    /// The value is the last that it gave to the key.
    pub(super) is_last: bool,
}

/// A history, and what is known of its values.
#[derive(Debug)]
pub(super) struct Known<'a> {
    txns: &'a [Txn],
    sources: BTreeMap<(u64, u64), Source>,
    seen: BTreeSet<usize>,
}

impl<'a> Known<'a> {
    /// Reads the writes of a history; gives what is wrong with them, too.
    pub(super) fn new(txns: &'a [Txn]) -> (Self, Vec<Finding>) {
        let mut known = Self {
            txns,
            sources: BTreeMap::new(),
            seen: BTreeSet::new(),
        };
        let wrong = (0..txns.len()).flat_map(|number| known.take(number));
        let wrong = wrong.collect::<Vec<_>>();
        (known, wrong)
    }

    fn take(&mut self, number: usize) -> Vec<Finding> {
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        let mut wrong = Vec::new();
        let ops = self.txns.get(number).map(|txn| txn.ops.as_slice());
        for op in ops.unwrap_or_default() {
            let Some(value) = op.written() else {
                continue;
            };
            let source = Source {
                txn: number,
                is_last: true,
            };
            if let Some(first) = self.sources.insert((op.key(), value), source) {
                wrong.push(self.reused(first.txn, number, (op.key(), value)));
            }
            let before = last.insert(op.key(), value);
            if let Some(earlier) = before.and_then(|value| self.sources.get_mut(&(op.key(), value)))
            {
                earlier.is_last = false;
            }
        }
        wrong
    }

    fn reused(&self, first: usize, second: usize, (key, value): (u64, u64)) -> Finding {
        let message = format!("{value} was given to key {key} twice");
        self.finding(Anomaly::ReusedValue, &[first, second], message)
    }

    /// Who wrote a value of a key.
    pub(super) fn source(&self, key: u64, value: u64) -> Option<Source> {
        self.sources.get(&(key, value)).copied()
    }

    /// Notes that a value was read.
    pub(super) fn see(&mut self, key: u64, value: u64) {
        if let Some(source) = self.source(key, value)
            && self.status(source.txn) == Some(Status::Info)
        {
            self.seen.insert(source.txn);
        }
    }

    /// How a transaction ended.
    pub(super) fn status(&self, number: usize) -> Option<Status> {
        self.txns.get(number).map(|txn| txn.status)
    }

    /// Whether a transaction took effect for certain.
    pub(super) fn is_effective(&self, number: usize) -> bool {
        self.status(number) == Some(Status::Ok) || self.seen.contains(&number)
    }

    /// The transactions that took effect for certain.
    pub(super) fn happened(&self) -> impl Iterator<Item = (usize, &'a Txn)> {
        let all = self.txns.iter().enumerate();
        all.filter(|(number, _)| self.is_effective(*number))
    }

    /// When a transaction began.
    pub(super) fn invoked_ns(&self, number: usize) -> u64 {
        self.txns.get(number).map_or(u64::MAX, |txn| txn.invoke_ns)
    }

    /// When a transaction was surely over.
    pub(super) fn ended_ns(&self, number: usize) -> Option<u64> {
        self.txns.get(number).and_then(Txn::ended_ns)
    }

    /// A transaction on a line.
    pub(super) fn show(&self, number: usize) -> String {
        let txn = self.txns.get(number);
        format!(
            "T{number} = {}",
            txn.map(Txn::to_string).unwrap_or_default()
        )
    }

    /// A transaction's process.
    pub(super) fn process(&self, number: usize) -> u64 {
        self.txns.get(number).map_or(0, |txn| txn.process)
    }

    /// A finding about these transactions.
    pub(super) fn finding(&self, anomaly: Anomaly, numbers: &[usize], message: String) -> Finding {
        let over = numbers
            .iter()
            .filter_map(|number| self.txns.get(*number)?.complete_ns);
        let details = numbers.iter().map(|number| self.show(*number)).collect();
        Finding::new(anomaly, over.max().unwrap_or_default(), message).with(details)
    }
}
