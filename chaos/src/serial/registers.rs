//! Registers: a read shows one version only, so the order of versions is inferred from what must hold if transactions
//! took effect one at a time:
//! * every version follows the initial one;
//! * what a transaction writes follows what it has read of the key;
//! * what was written by a transaction that began after another was over follows what that other read or wrote;
//! * what was read after another version had been read or written follows that one (the last layer).
//!
//! The first two need values only; the others need real time, and only a strictly serializable store promises them.
//! Source: Elle (2020), section 5; "wfr" and "linearizable" keys there.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Anomaly, Finding};
use super::graph::{Builder, Kind, Layer, Link, Why};
use super::known::Known;
use super::model::{MicroOp, Status, Txn};
use super::orders::{Moments, passes};

/// Writes linked one by one to a transaction that read a version and replaced it. There are few while a version lives.
const OVERTAKEN_MAX: usize = 64;

/// A value, or nothing.
type Version = Option<u64>;

/// What one transaction did to one register.
#[derive(Clone, Copy, Debug)]
struct Access {
    txn: usize,
    /// What it held before its own writes, once it has read it.
    read: Option<Version>,
    /// Its last write.
    written: Option<u64>,
}

impl Access {
    /// The version that the transaction left, as far as it knows.
    fn left(&self) -> Option<Version> {
        self.written.map(Some).or(self.read)
    }

    /// The version that it met first, when that is not one of its own.
    fn met(&self) -> Option<Version> {
        self.read
    }
}

/// All registers of a history.
#[derive(Debug, Default)]
pub(super) struct Registers(BTreeMap<u64, Vec<Access>>);

impl Registers {
    /// Reads the registers out of a history; gives what is wrong within single transactions, too.
    pub(super) fn new(txns: &[Txn], known: &Known<'_>) -> (Self, Vec<Finding>) {
        let mut registers = Self::default();
        let mut wrong = Vec::new();
        for (number, txn) in txns.iter().enumerate() {
            wrong.extend(registers.take(number, txn, known));
        }
        (registers, wrong)
    }

    fn take(&mut self, number: usize, txn: &Txn, known: &Known<'_>) -> Vec<Finding> {
        let mut accesses: BTreeMap<u64, Access> = BTreeMap::new();
        let mut wrong = Vec::new();
        for op in &txn.ops {
            let fresh = Access {
                txn: number,
                read: None,
                written: None,
            };
            match op {
                MicroOp::Write { key, value } => {
                    accesses.entry(*key).or_insert(fresh).written = Some(*value);
                }
                MicroOp::ReadRegister {
                    key,
                    value: Some(value),
                } if txn.status == Status::Ok => {
                    let access = accesses.entry(*key).or_insert(fresh);
                    let expected = access.left().unwrap_or(*value);
                    if access.left().is_none() {
                        access.read = Some(*value);
                    }
                    if expected != *value {
                        let message = format!(
                            "T{number} read {} of key {key}, where {} was to be",
                            show(*value),
                            show(expected)
                        );
                        wrong.push(known.finding(Anomaly::Internal, &[number], message));
                    }
                }
                MicroOp::ReadRegister { .. }
                | MicroOp::Append { .. }
                | MicroOp::ReadList { .. } => {}
            }
        }
        for (key, access) in accesses {
            self.0.entry(key).or_default().push(access);
        }
        wrong
    }

    /// Notes which values were read.
    pub(super) fn see(&self, known: &mut Known<'_>) {
        for (key, accesses) in &self.0 {
            let read = accesses.iter().filter_map(|access| access.read.flatten());
            read.for_each(|value| known.see(*key, value));
        }
    }

    /// What is wrong with what was read.
    pub(super) fn check(&self, known: &Known<'_>) -> Vec<Finding> {
        let mut wrong = Vec::new();
        for (key, accesses) in &self.0 {
            for access in accesses {
                wrong.extend(check_read(*key, access, known));
            }
            wrong.extend(check_lost(*key, accesses, known));
        }
        wrong
    }

    /// Links the transactions by what they wrote and read.
    pub(super) fn link(&self, known: &Known<'_>, graph: &mut Builder) {
        for (key, accesses) in &self.0 {
            let accesses = accesses
                .iter()
                .filter(|access| known.is_effective(access.txn));
            let accesses: Vec<Access> = accesses.copied().collect();
            let versions = Versions::new(*key, &accesses, known, graph);
            versions.link_values(&accesses, graph);
            versions.link_overtaken(&accesses, graph);
            versions.link_real_time(&accesses, graph);
            versions.link_reads(&accesses, graph);
        }
    }
}

fn check_read(key: u64, access: &Access, known: &Known<'_>) -> Vec<Finding> {
    let Some(value) = access.read.flatten() else {
        return Vec::new();
    };
    let number = access.txn;
    let Some(source) = known.source(key, value) else {
        let message = format!("T{number} read {value} of key {key}, which nobody wrote");
        return vec![known.finding(Anomaly::GarbageRead, &[number], message)];
    };
    let both = [source.txn, number];
    let mut wrong = Vec::new();
    if known.status(source.txn) == Some(Status::Fail) {
        let message = format!(
            "T{number} read {value} of key {key}, which T{} wrote without effect",
            source.txn
        );
        wrong.push(known.finding(Anomaly::G1a, &both, message));
        if let Some(written) = access.written {
            let message = format!(
                "T{number} replaced {value} of key {key} by {written}, but T{} had no effect",
                source.txn
            );
            wrong.push(known.finding(Anomaly::DirtyUpdate, &both, message));
        }
    } else if !source.is_last && source.txn != number {
        let message = format!(
            "T{number} read {value} of key {key}, which T{} replaced itself",
            source.txn
        );
        wrong.push(known.finding(Anomaly::G1b, &both, message));
    }
    wrong
}

/// Two transactions that read the same version and replaced it.
fn check_lost(key: u64, accesses: &[Access], known: &Known<'_>) -> Option<Finding> {
    let mut updates: BTreeMap<Version, usize> = BTreeMap::new();
    let updated = accesses
        .iter()
        .filter(|access| access.written.is_some() && known.is_effective(access.txn));
    for (read, number) in updated.filter_map(|access| Some((access.read?, access.txn))) {
        if let Some(other) = updates.insert(read, number) {
            let message = format!(
                "T{other} and T{number} both read {} of key {key} and replaced it",
                show(read)
            );
            return Some(known.finding(Anomaly::LostUpdate, &[other, number], message));
        }
    }
    None
}

/// The versions of one register, each with its writer, and a relay to whatever replaced it.
struct Versions<'a, 'b> {
    key: u64,
    known: &'a Known<'b>,
    writers: BTreeMap<u64, usize>,
    after: BTreeMap<Version, usize>,
}

impl<'a, 'b> Versions<'a, 'b> {
    /// Links writers and readers of each version to its relay, and writers to readers.
    fn new(key: u64, accesses: &[Access], known: &'a Known<'b>, graph: &mut Builder) -> Self {
        let written = accesses
            .iter()
            .filter_map(|access| Some((access.written?, access.txn)));
        let writers: BTreeMap<u64, usize> = written.collect();
        let mut versions = Self {
            key,
            known,
            writers,
            after: BTreeMap::new(),
        };
        for access in accesses {
            versions.link_access(access, graph);
        }
        versions
    }

    fn link_access(&mut self, access: &Access, graph: &mut Builder) {
        if let Some(value) = access.written {
            let relay = self.relay(Some(value), graph);
            graph.link(
                access.txn,
                self.values(Kind::Ww, relay, (Some(value), None)),
            );
        }
        let Some(version) = access.read else {
            return;
        };
        if let Some(writer) = version.and_then(|value| self.writers.get(&value)) {
            graph.link(*writer, self.values(Kind::Wr, access.txn, (version, None)));
        }
        // Who replaced what it read stands behind itself in no order: the others follow it as its own version's.
        if access.written.is_none() && self.is_known(version) {
            let relay = self.relay(version, graph);
            graph.link(access.txn, self.values(Kind::Rw, relay, (version, None)));
        }
    }

    fn is_known(&self, version: Version) -> bool {
        version.is_none_or(|value| self.writers.contains_key(&value))
    }

    fn relay(&mut self, version: Version, graph: &mut Builder) -> usize {
        *self.after.entry(version).or_insert_with(|| graph.relay())
    }

    fn values(&self, kind: Kind, to: usize, (from, value): (Version, Version)) -> Link {
        Link {
            to,
            kind,
            layer: Layer::Values,
            why: self.why(from, value),
        }
    }

    fn why(&self, from: Version, to: Version) -> Why {
        Why {
            key: Some(self.key),
            from,
            to,
        }
    }

    /// What follows from values: the initial version is first, and a write follows what its transaction read.
    fn link_values(&self, accesses: &[Access], graph: &mut Builder) {
        for (value, writer) in &self.writers {
            if let Some(relay) = self.after.get(&None) {
                graph.link(
                    *relay,
                    passes(*writer, Layer::Values, self.why(None, Some(*value))),
                );
            }
        }
        let updates = accesses
            .iter()
            .filter_map(|access| Some((access, access.read?, access.written?)));
        for (access, read, written) in updates.filter(|(_, read, _)| read.is_some()) {
            if let Some(relay) = self.after.get(&read) {
                graph.link(
                    *relay,
                    passes(access.txn, Layer::Values, self.why(read, Some(written))),
                );
            }
        }
        self.link_updates(accesses, graph);
    }

    /// Who read a version and replaced it is before everybody else who replaced it: said without the relay, which leads back
    /// to it.
    fn link_updates(&self, accesses: &[Access], graph: &mut Builder) {
        let mut updates: BTreeMap<Version, Vec<(usize, u64)>> = BTreeMap::new();
        for access in accesses {
            if let (Some(read), Some(written)) = (access.read, access.written) {
                updates.entry(read).or_default().push((access.txn, written));
            }
        }
        for (read, all) in &updates {
            for ((earlier, _), (later, written)) in all.iter().zip(all.iter().cycle().skip(1)) {
                graph.link(
                    *earlier,
                    self.values(Kind::Rw, *later, (*read, Some(*written))),
                );
            }
        }
    }

    /// Who read a version and replaced it is before all who wrote when that version was known, and not only after it.
    fn link_overtaken(&self, accesses: &[Access], graph: &mut Builder) {
        let mut known: BTreeMap<Version, u64> = BTreeMap::from([(None, 0)]);
        for access in accesses {
            if let (Some(version), Some(end)) = (access.left(), self.known.ended_ns(access.txn)) {
                let first = known.entry(version).or_insert(end);
                *first = (*first).min(end);
            }
        }
        let begun = accesses.iter().filter_map(|access| {
            Some((
                self.known.invoked_ns(access.txn),
                access.txn,
                access.written?,
            ))
        });
        let mut begun: Vec<(u64, usize, u64)> = begun.collect();
        begun.sort_unstable();
        for access in accesses.iter().filter(|access| access.written.is_some()) {
            let Some((version, since)) = access
                .read
                .and_then(|version| Some((version, *known.get(&version)?)))
            else {
                continue;
            };
            let layer = if version.is_none() {
                Layer::Values
            } else {
                Layer::Realtime
            };
            let until = self.known.ended_ns(access.txn).unwrap_or(u64::MAX);
            let from = begun.partition_point(|(begin, _, _)| *begin <= since);
            let from = if version.is_none() { 0 } else { from };
            let writes = begun
                .iter()
                .skip(from)
                .take_while(|(begin, _, _)| *begin <= until);
            for (_, later, written) in writes.take(OVERTAKEN_MAX) {
                let link = self.values(Kind::Rw, *later, (version, Some(*written)));
                graph.link(access.txn, Link { layer, ..link });
            }
        }
    }

    /// Whoever writes after somebody who knew a version was over replaced that version, or a later one.
    fn link_real_time(&self, accesses: &[Access], graph: &mut Builder) {
        let mut ends: Vec<(u64, usize)> = accesses
            .iter()
            .filter_map(|access| self.end(access))
            .collect();
        ends.sort_unstable();
        let moments = Moments::new(graph, ends.iter().map(|(end, _)| *end), Layer::Realtime);
        for ((_, after), moment) in ends.iter().zip(moments.relays()) {
            graph.link(*after, passes(moment, Layer::Realtime, Why::default()));
        }
        for access in accesses {
            let moment = moments.before(self.known.invoked_ns(access.txn));
            if let (Some(moment), Some(written)) = (moment, access.written) {
                graph.link(
                    moment,
                    passes(access.txn, Layer::Realtime, self.why(None, Some(written))),
                );
            }
        }
    }

    /// When the access was over, and the relay of the version it left. A version that was written later than it was read is
    /// wrong in another way.
    fn end(&self, access: &Access) -> Option<(u64, usize)> {
        let end = self.known.ended_ns(access.txn)?;
        let version = access.left()?;
        let writer = version.and_then(|value| self.writers.get(&value));
        let is_later = writer.is_some_and(|writer| self.known.invoked_ns(*writer) > end);
        let relay = self.after.get(&version)?;
        (!is_later).then_some((end, *relay))
    }

    /// The same for versions that were read, one by one: the same version may be read again.
    fn link_reads(&self, accesses: &[Access], graph: &mut Builder) {
        let mut begun: Vec<&Access> = accesses.iter().collect();
        begun.sort_by_key(|access| self.known.invoked_ns(access.txn));
        let mut ended: Vec<&Access> = accesses
            .iter()
            .filter(|access| self.known.ended_ns(access.txn).is_some())
            .collect();
        ended.sort_by_key(|access| self.known.ended_ns(access.txn));
        let mut ended = ended.into_iter().peekable();
        let mut last: Vec<&Access> = Vec::new();
        let mut pairs: BTreeSet<(Version, Version)> = BTreeSet::new();
        for access in begun {
            let begin = self.known.invoked_ns(access.txn);
            while let Some(over) = ended.next_if(|over| self.known.ended_ns(over.txn) < Some(begin))
            {
                // What ended before this one began is behind it in time, and needs no link of its own.
                last.retain(|earlier| {
                    self.known.ended_ns(earlier.txn) >= Some(self.known.invoked_ns(over.txn))
                });
                last.push(over);
            }
            if let Some(met) = access.met() {
                pairs.extend(
                    last.iter()
                        .filter_map(|earlier| Some((earlier.left()?, met))),
                );
            }
        }
        for (earlier, later) in pairs
            .into_iter()
            .filter(|(earlier, later)| earlier != later)
        {
            self.link_pair(earlier, later, graph);
        }
    }

    fn link_pair(&self, earlier: Version, later: Version, graph: &mut Builder) {
        let writer = later.and_then(|value| self.writers.get(&value));
        if let (Some(relay), Some(writer)) = (self.after.get(&earlier), writer) {
            graph.link(
                *relay,
                passes(*writer, Layer::Reads, self.why(earlier, later)),
            );
        }
    }
}

fn show(version: Version) -> String {
    version.map_or_else(|| "nothing".to_owned(), |value| value.to_string())
}
