//! What transactions have seen, held against what strict serializability allows.
//!
//! Lists and registers go to the cycle checker; banks, pairs, groups and forks are workloads of which it is known what no
//! reader may ever see.

use std::borrow::Cow;
use std::collections::BTreeMap;

use meridian_causal::SiblingSet;
use meridian_core::ids::KeyspaceId;

use super::attempt::Found;
use super::program::{self, ACCOUNTS, OPENING, Program, Step};
use super::values;
use crate::lineage::is_of_first_era;
use crate::serial::{self, MicroOp, Status, Txn, bank, fork, skew};
use crate::violation::{Checked, Violation};

/// A transaction that is over.
#[derive(Clone, Debug)]
pub struct Record {
    /// The zone whose keys it used, from 0: the one it ran in, or one for all where the store is one.
    pub zone: usize,
    /// Who asked.
    pub process: u64,
    /// When it began.
    pub invoke_ns: u64,
    /// When it was answered.
    pub complete_ns: Option<u64>,
    /// How it ended.
    pub status: Status,
    /// What it was to do.
    pub program: Program,
    /// What it read.
    pub found: Vec<Found>,
    /// All comparisons held.
    pub succeeded: bool,
    /// What it read in the transaction itself is not known.
    pub repeated: bool,
    /// The keyspace that it was sent to last, and the newest of those that it was sent to.
    pub keyspaces: (KeyspaceId, KeyspaceId),
}

/// Lists have even numbers in a history, registers odd ones.
const fn list_number(key: u64) -> u64 {
    key * 2
}

const fn register_number(key: u64) -> u64 {
    key * 2 + 1
}

impl Record {
    fn set(&self, key: &[u8]) -> Option<&SiblingSet> {
        let found = self.found.iter().find(|found| found.key == key);
        found.map(|found| &found.set).filter(|_| !self.repeated)
    }

    fn register(&self, key: u64) -> MicroOp {
        let set = self.set(&program::register(self.zone, key));
        MicroOp::ReadRegister {
            key: register_number(key),
            value: set.map(values::register),
        }
    }

    fn list(&self, key: u64) -> MicroOp {
        let set = self.set(&program::list(self.zone, key));
        MicroOp::ReadList {
            key: list_number(key),
            list: set.map(values::list),
        }
    }

    /// Its steps on lists and registers.
    pub fn ops(&self) -> Vec<MicroOp> {
        let step = |step: &Step, list: bool| match (step.write, list) {
            (None, true) => self.list(step.key),
            (None, false) => self.register(step.key),
            (Some(value), true) => MicroOp::Append {
                key: list_number(step.key),
                value,
            },
            (Some(value), false) => MicroOp::Write {
                key: register_number(step.key),
                value,
            },
        };
        match &self.program {
            Program::Lists(_, steps) => steps.iter().map(|one| step(one, true)).collect(),
            Program::Registers(_, steps) => steps.iter().map(|one| step(one, false)).collect(),
            Program::Swap {
                key,
                expected,
                other,
                writes: [first, second],
            } => {
                if self.status == Status::Ok && !self.succeeded {
                    return vec![self.register(*key), self.register(*other)];
                }
                let read = MicroOp::ReadRegister {
                    key: register_number(*key),
                    value: (self.status == Status::Ok).then_some(Some(*expected)),
                };
                let write = |key, value| MicroOp::Write {
                    key: register_number(key),
                    value,
                };
                vec![read, write(*key, *first), write(*other, *second)]
            }
            Program::Transfer { .. }
            | Program::Audit(_)
            | Program::Withdraw { .. }
            | Program::Weigh(..)
            | Program::Claim { .. }
            | Program::Look(_)
            | Program::ForkWrite { .. }
            | Program::ForkRead(..) => Vec::new(),
        }
    }

    /// As a history holds it.
    pub fn txn(&self) -> Option<Txn> {
        let ops = self.ops();
        (!ops.is_empty()).then_some(Txn {
            process: self.process,
            invoke_ns: self.invoke_ns,
            complete_ns: self.complete_ns,
            status: self.status,
            ops,
        })
    }

    fn ok_at(&self) -> Option<u64> {
        self.complete_ns.filter(|_| self.status == Status::Ok)
    }
}

/// Judges a run: the records of all zones, in the order in which they began. Where a mirror was promoted, those of the keyspaces
/// before: what comes after begins from a cut, and gets what that lacked as versions beside its own.
pub fn judge(records: &[Record], promoted: Option<KeyspaceId>) -> Checked {
    let judged = records.iter().filter_map(|one| in_first_era(one, promoted));
    let judged: Vec<Cow<'_, Record>> = judged.collect();
    let judged: Vec<&Record> = judged.iter().map(Cow::as_ref).collect();
    let zones = judged.iter().map(|record| record.zone).max().unwrap_or(0);
    for zone in 0..=zones {
        let of_zone: Vec<&Record> = judged
            .iter()
            .copied()
            .filter(|one| one.zone == zone)
            .collect();
        single_versions(&of_zone)?;
        let txns: Vec<Txn> = of_zone.iter().filter_map(|one| one.txn()).collect();
        serial::check(&txns)?;
        banks(&of_zone)?;
        serial::checked(skew::findings(&pairs(&of_zone)))?;
        claims(&of_zone)?;
        serial::checked(fork::findings(&forks(&of_zone)))?;
    }
    Ok(())
}

/// What a transaction was to the keyspaces before the first that was made of a mirror. One that has read of a later one and was
/// then sent to an earlier one may have had an effect there, and is not known to have read anything.
pub fn in_first_era(record: &Record, promoted: Option<KeyspaceId>) -> Option<Cow<'_, Record>> {
    let (last, newest) = record.keyspaces;
    if is_of_first_era(newest, promoted) {
        return Some(Cow::Borrowed(record));
    }
    is_of_first_era(last, promoted).then(|| {
        Cow::Owned(Record {
            complete_ns: None,
            status: Status::Info,
            found: Vec::new(),
            ..record.clone()
        })
    })
}

/// Nobody outside the zone writes these keys, so none is ever in conflict.
fn single_versions(records: &[&Record]) -> Checked {
    for record in records {
        for found in &record.found {
            let versions = found.set.live_versions();
            if versions > 1 {
                let at = record.complete_ns.unwrap_or(record.invoke_ns);
                let message = format!("{:?} shows {versions} versions inside its zone", found.key);
                return Err(Violation::new("siblings", at, message));
            }
        }
    }
    Ok(())
}

fn banks(records: &[&Record]) -> Checked {
    let opening: bank::Opening = (0..ACCOUNTS).map(|number| (number, OPENING)).collect();
    let read = |record: &&Record| {
        let complete_ns = record.ok_at()?;
        let Program::Audit(_) = record.program else {
            return None;
        };
        let balances = (0..ACCOUNTS).filter_map(|number| {
            let set = record.set(&program::account(record.zone, number))?;
            Some((number, values::balance(set)))
        });
        Some(bank::BankRead {
            complete_ns,
            balances: balances.collect(),
        })
    };
    let reads: Vec<bank::BankRead> = records.iter().filter_map(read).collect();
    serial::checked(bank::check_reads(&opening, &reads))
}

/// Every transaction that has read both sides of a pair, also one that then had no effect, has seen a state that was.
fn pairs(records: &[&Record]) -> Vec<skew::PairRead> {
    let read = |record: &&Record| {
        let (Program::Withdraw { pair, .. } | Program::Weigh(pair, _)) = record.program else {
            return None;
        };
        let side = |side| record.set(&program::side(record.zone, pair, side));
        Some(skew::PairRead {
            complete_ns: record.ok_at()?,
            pair,
            x: values::balance(side(0)?),
            y: values::balance(side(1)?),
        })
    };
    records.iter().filter_map(read).collect()
}

/// At most one name holds a group at a time.
fn claims(records: &[&Record]) -> Checked {
    for record in records {
        let (Program::Claim { group, .. } | Program::Look(group)) = record.program else {
            continue;
        };
        let Some(at) = record.ok_at() else { continue };
        if record.found.len() > 1 {
            let names: Vec<String> = record
                .found
                .iter()
                .map(|found| String::from_utf8_lossy(&found.key).into_owned())
                .collect();
            let message = format!(
                "phantom: group {group} of zone {} is held by several: {}",
                record.zone + 1,
                names.join(", ")
            );
            return Err(Violation::new("G2-phantom", at, message));
        }
    }
    Ok(())
}

fn forks(records: &[&Record]) -> Vec<fork::GroupRead> {
    let read = |record: &&Record| {
        let Program::ForkRead(group, _) = record.program else {
            return None;
        };
        let written = record.program.reads(record.zone);
        let written = (0..).zip(written).filter(|(_, key)| {
            let set = record.set(key);
            set.is_some_and(SiblingSet::has_live)
        });
        Some(fork::GroupRead {
            invoke_ns: record.invoke_ns,
            complete_ns: record.ok_at()?,
            group,
            written: written.map(|(number, _)| number).collect(),
        })
    };
    records.iter().filter_map(read).collect()
}

/// How many ended how.
pub fn counts(records: &[Record]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for record in records {
        let name = match record.status {
            Status::Ok => "ok",
            Status::Fail => "fail",
            Status::Info => "info",
        };
        *counts.entry(name).or_default() += 1;
    }
    counts
}
