//! Lists: each read shows all that was appended before, in order, so the longest read of a key is its version order.
//!
//! Source: Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations" (2020), section 4.
//! Beyond it: what took effect and stands in no read was appended after the longest one.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Anomaly, Finding};
use super::graph::{Builder, Kind, Layer, Link, Why};
use super::known::Known;
use super::model::{MicroOp, Status, Txn};
use super::orders::passes;

/// What one transaction did to one list.
#[derive(Clone, Debug, Default)]
struct Access<'a> {
    /// What the list held before its own appends, once it has read it.
    base: Option<&'a [u64]>,
    /// What it appended.
    own: Vec<u64>,
}

/// All that happened to one list.
#[derive(Debug, Default)]
struct List<'a> {
    /// The longest read.
    order: &'a [u64],
    /// Each read as it was answered, by transaction.
    reads: Vec<(usize, &'a [u64])>,
    /// What acknowledged transactions found, before their own appends.
    bases: Vec<(usize, &'a [u64])>,
    /// What transactions of every outcome appended.
    appends: Vec<(usize, Vec<u64>)>,
}

/// All lists of a history.
#[derive(Debug, Default)]
pub(super) struct Lists<'a>(BTreeMap<u64, List<'a>>);

impl<'a> Lists<'a> {
    /// Reads the lists out of a history; gives what is wrong within single transactions, too.
    pub(super) fn new(txns: &'a [Txn], known: &Known<'_>) -> (Self, Vec<Finding>) {
        let mut lists = Self::default();
        let mut wrong = Vec::new();
        for (number, txn) in txns.iter().enumerate() {
            wrong.extend(lists.take(number, txn, known));
        }
        (lists, wrong)
    }

    fn take(&mut self, number: usize, txn: &'a Txn, known: &Known<'_>) -> Vec<Finding> {
        let mut accesses: BTreeMap<u64, Access<'a>> = BTreeMap::new();
        let mut wrong = Vec::new();
        for op in &txn.ops {
            match op {
                MicroOp::Append { key, value } => {
                    accesses.entry(*key).or_default().own.push(*value);
                }
                MicroOp::ReadList {
                    key,
                    list: Some(list),
                } if txn.status == Status::Ok => {
                    self.read(number, *key, list);
                    if !accesses.entry(*key).or_default().read(list) {
                        let message = format!(
                            "T{number} read {list:?} of key {key}, against what it had read and appended"
                        );
                        wrong.push(known.finding(Anomaly::Internal, &[number], message));
                    }
                }
                MicroOp::ReadList { .. } | MicroOp::Write { .. } | MicroOp::ReadRegister { .. } => {
                }
            }
        }
        for (key, access) in accesses {
            self.note(number, key, access);
        }
        wrong
    }

    fn read(&mut self, number: usize, key: u64, read: &'a [u64]) {
        let list = self.0.entry(key).or_default();
        if read.len() > list.order.len() {
            list.order = read;
        }
        list.reads.push((number, read));
    }

    fn note(&mut self, number: usize, key: u64, access: Access<'a>) {
        let list = self.0.entry(key).or_default();
        list.bases.extend(access.base.map(|base| (number, base)));
        if !access.own.is_empty() {
            list.appends.push((number, access.own));
        }
    }

    /// Notes which values were read.
    pub(super) fn see(&self, known: &mut Known<'_>) {
        for (key, list) in &self.0 {
            let strays = list.strays().flat_map(|(_, read)| read);
            for value in list.order.iter().chain(strays) {
                known.see(*key, *value);
            }
        }
    }

    /// What is wrong with what was read.
    pub(super) fn check(&self, known: &Known<'_>) -> Vec<Finding> {
        let lists = self.0.iter();
        lists
            .flat_map(|(key, list)| list.check(*key, known))
            .collect()
    }

    /// Links the transactions by what they appended and read.
    pub(super) fn link(&self, known: &Known<'_>, graph: &mut Builder) {
        for (key, list) in &self.0 {
            list.link(*key, known, graph);
        }
    }
}

impl<'a> Access<'a> {
    /// Whether a read agrees with what was read and appended before it.
    fn read(&mut self, list: &'a [u64]) -> bool {
        let Some(base) = list.strip_suffix(self.own.as_slice()) else {
            return false;
        };
        *self.base.get_or_insert(base) == base
    }
}

impl<'a> List<'a> {
    /// Reads that are no beginning of the longest one.
    fn strays(&self) -> impl Iterator<Item = (usize, &'a [u64])> {
        let reads = self.reads.iter().copied();
        reads.filter(|(_, read)| !self.order.starts_with(read))
    }

    /// The transaction of the longest read.
    fn reader(&self) -> usize {
        let longest = self
            .reads
            .iter()
            .find(|(_, read)| read.len() == self.order.len());
        longest.map_or(0, |(number, _)| *number)
    }

    fn check(&self, key: u64, known: &Known<'_>) -> Vec<Finding> {
        let mut wrong = Self::check_elements(key, (self.reader(), self.order), known);
        if let Some((number, read)) = self.strays().next() {
            let message = format!("key {key} was read as {read:?} and as {:?}", self.order);
            wrong.push(known.finding(
                Anomaly::IncompatibleOrder,
                &[number, self.reader()],
                message,
            ));
            wrong.extend(Self::check_elements(key, (number, read), known));
        }
        wrong.extend(self.check_ends(key, known));
        wrong.extend(self.check_lost(key, known));
        wrong
    }

    /// Elements that nobody wrote, that stand twice, or that were taken back.
    fn check_elements(
        key: u64,
        (reader, read): (usize, &[u64]),
        known: &Known<'_>,
    ) -> Vec<Finding> {
        let mut met = BTreeSet::new();
        let mut wrong = Vec::new();
        for (place, value) in read.iter().enumerate() {
            if !met.insert(*value) {
                let message = format!("T{reader} read {value} twice in key {key}");
                wrong.push(known.finding(Anomaly::DuplicateElement, &[reader], message));
            }
            let Some(source) = known.source(key, *value) else {
                let message = format!("T{reader} read {value} of key {key}, which nobody appended");
                wrong.push(known.finding(Anomaly::GarbageRead, &[reader], message));
                continue;
            };
            if known.status(source.txn) == Some(Status::Fail) {
                let message = format!(
                    "T{reader} read {value} of key {key}, which T{} appended without effect",
                    source.txn
                );
                wrong.push(known.finding(Anomaly::G1a, &[source.txn, reader], message));
                wrong.extend(updated(
                    key,
                    (source.txn, *value),
                    read.get(place + 1),
                    known,
                ));
            }
        }
        wrong
    }

    /// Reads that end between two appends of one transaction.
    fn check_ends(&self, key: u64, known: &Known<'_>) -> Option<Finding> {
        let ends = self
            .bases
            .iter()
            .filter_map(|(number, base)| Some((*number, *base.last()?)));
        for (number, value) in ends {
            if let Some(source) = known
                .source(key, value)
                .filter(|source| !source.is_last && source.txn != number)
            {
                let message = format!(
                    "T{number} read key {key} up to {value}, after which T{} appended more",
                    source.txn
                );
                return Some(known.finding(Anomaly::G1b, &[source.txn, number], message));
            }
        }
        None
    }

    /// Transactions that found the list equally long, and both appended to it.
    fn check_lost(&self, key: u64, known: &Known<'_>) -> Option<Finding> {
        let appended: BTreeSet<usize> = self.appends.iter().map(|(number, _)| *number).collect();
        let mut updates: BTreeMap<usize, usize> = BTreeMap::new();
        let prefixes = self
            .bases
            .iter()
            .filter(|(_, base)| self.order.starts_with(base));
        for (number, base) in prefixes.filter(|(number, _)| appended.contains(number)) {
            if let Some(other) = updates.insert(base.len(), *number) {
                let message = format!(
                    "T{other} and T{number} both found {} values in key {key} and appended",
                    base.len()
                );
                return Some(known.finding(Anomaly::LostUpdate, &[other, *number], message));
            }
        }
        None
    }

    fn link(&self, key: u64, known: &Known<'_>, graph: &mut Builder) {
        let writer = |value: u64| {
            let source = known.source(key, value)?;
            known.is_effective(source.txn).then_some(source.txn)
        };
        for (from, to) in self.order.iter().zip(self.order.iter().skip(1)) {
            if let (Some(earlier), Some(later)) = (writer(*from), writer(*to)) {
                graph.link(
                    earlier,
                    link(Kind::Ww, later, (key, Some(*from), Some(*to))),
                );
            }
        }
        let unread = Unread::new(key, self, known, graph);
        if let Some((last, earlier)) = self
            .order
            .last()
            .and_then(|last| Some((*last, writer(*last)?)))
        {
            unread.follow(graph, earlier, (Kind::Ww, Some(last)));
        }
        for (number, base) in self
            .bases
            .iter()
            .filter(|(_, base)| self.order.starts_with(base))
        {
            let last = base.last().copied();
            if let Some(earlier) = last.and_then(writer) {
                graph.link(earlier, link(Kind::Wr, *number, (key, last, None)));
            }
            match self.order.get(base.len()) {
                Some(next) => {
                    if let Some(later) = writer(*next) {
                        graph.link(*number, link(Kind::Rw, later, (key, last, Some(*next))));
                    }
                }
                None => unread.follow(graph, *number, (Kind::Rw, last)),
            }
        }
    }
}

/// Appends that took effect and stand in no read: they came after the longest one.
struct Unread {
    key: u64,
    first: BTreeMap<usize, u64>,
    relay: Option<usize>,
}

impl Unread {
    fn new(key: u64, list: &List<'_>, known: &Known<'_>, graph: &mut Builder) -> Self {
        let order: BTreeSet<u64> = list.order.iter().copied().collect();
        let effective = list
            .appends
            .iter()
            .filter(|(number, _)| known.is_effective(*number));
        let first = effective.filter_map(|(number, own)| {
            let value = own.iter().find(|value| !order.contains(value))?;
            Some((*number, *value))
        });
        let first: BTreeMap<usize, u64> = first.collect();
        let relay = (!first.is_empty()).then(|| graph.relay());
        for (number, value) in &first {
            if let Some(relay) = relay {
                graph.link(
                    relay,
                    passes(*number, Layer::Values, why(key, None, Some(*value))),
                );
            }
        }
        Self { key, first, relay }
    }

    /// Puts them behind a transaction; over the relay, unless that leads back to it.
    fn follow(&self, graph: &mut Builder, earlier: usize, (kind, value): (Kind, Option<u64>)) {
        if !self.first.contains_key(&earlier) {
            if let Some(relay) = self.relay {
                graph.link(earlier, link(kind, relay, (self.key, value, None)));
            }
            return;
        }
        for (later, to) in &self.first {
            graph.link(earlier, link(kind, *later, (self.key, value, Some(*to))));
        }
    }
}

/// An effective append right after one without effect.
fn updated(
    key: u64,
    (failed, value): (usize, u64),
    next: Option<&u64>,
    known: &Known<'_>,
) -> Option<Finding> {
    let next = *next?;
    let later = known.source(key, next)?.txn;
    if !known.is_effective(later) {
        return None;
    }
    let message = format!(
        "T{later} appended {next} to key {key} after {value}, which T{failed} appended without effect"
    );
    Some(known.finding(Anomaly::DirtyUpdate, &[failed, later], message))
}

const fn link(kind: Kind, to: usize, (key, from, value): (u64, Option<u64>, Option<u64>)) -> Link {
    Link {
        to,
        kind,
        layer: Layer::Values,
        why: why(key, from, value),
    }
}

const fn why(key: u64, from: Option<u64>, to: Option<u64>) -> Why {
    Why {
        key: Some(key),
        from,
        to,
    }
}
