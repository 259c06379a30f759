//! Histories of simulated runs, in the forms that other checkers read.
//!
//! A run has several kinds of operations at a time; a history holds those of one kind: the registers of each zone, or the
//! transactions on lists or on registers. Zones share no key of these, so one history of all zones is strictly
//! serializable when each zone's is. Where a mirror was promoted, it ends there: what comes after is another history.

use meridian_causal::{Content, SiblingSet};
use meridian_core::request::{Answer, ReadLevel};

use super::judge::Workload;
use super::registers::{Ended, Record, Verb};
use super::{registers, transactions};
use crate::history::{Action, Operation, Outcome};
use crate::lineage::is_of_first_era;
use crate::run::Report;
use crate::serial::{MicroOp, Txn};
use crate::transact::judge;
use crate::transact::program::Program;

/// Keys of one zone are numbered from a multiple of this.
const KEYS_PER_ZONE: u64 = 1_000_000;

/// What keys of registers begin with.
const REGISTERS: &[u8] = b"r/";

/// Writes the operations of one workload. `Err` with a reason when a simulated run has none of it.
pub fn write(
    report: &Report,
    workload: Workload,
    out: &mut dyn std::io::Write,
) -> std::io::Result<()> {
    match workload {
        Workload::Register => registers::write(&register_records(report), out),
        Workload::Append | Workload::Rw => transactions::write(&txns(report, workload), out),
        Workload::Bank | Workload::Set => Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "a simulated run writes histories of register, append and rw",
        )),
    }
}

fn register_records(report: &Report) -> Vec<Record> {
    let operations = report.history.operations.iter();
    let record = |operation: &Operation| {
        let mut record = register_record(operation)?;
        if !is_of_first_era(operation.keyspace, report.promoted) {
            // An earlier attempt may have taken effect before.
            (record.status, record.returned) = (Ended::Info, None);
        }
        Some(record).filter(|record| record.op != Verb::Get || record.status != Ended::Info)
    };
    operations.filter_map(record).collect()
}

fn register_record(operation: &Operation) -> Option<Record> {
    let key = operation.key().filter(|key| key.starts_with(REGISTERS))?;
    let (op, value) = match &operation.action {
        Action::Write { content, .. } => match content {
            Content::Value(value) => (Verb::Put, Some(text(value))),
            Content::Tombstone => (Verb::Del, None),
        },
        Action::Get {
            level: ReadLevel::Linearizable,
            ..
        } => (Verb::Get, None),
        Action::Get { .. } | Action::Scan { .. } | Action::Visit { .. } => return None,
    };
    let (status, read) = match &operation.outcome {
        Outcome::Info => (Ended::Info, None),
        Outcome::Fail(_) => (Ended::Fail, None),
        Outcome::Written(_) => (Ended::Ok, None),
        Outcome::Read(Answer::Key(set)) => (Ended::Ok, Some(value_of(set))),
        Outcome::Read(_) => (Ended::Ok, None),
    };
    Some(Record {
        client: u64::try_from(operation.client).unwrap_or(0),
        op,
        key: text(key),
        value,
        expected: None,
        call: operation.call_ns,
        returned: operation.return_ns.filter(|_| status != Ended::Info),
        status,
        found: read.as_ref().map(Option::is_some),
        output: read.flatten(),
    })
}

fn value_of(set: &SiblingSet) -> Option<String> {
    let versions = set.versions();
    let value = versions
        .iter()
        .find_map(|version| version.content().value());
    value.map(text)
}

fn text(bytes: &bytes::Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn txns(report: &Report, workload: Workload) -> Vec<Txn> {
    let wanted = |record: &judge::Record| match record.program {
        Program::Lists(..) => workload == Workload::Append,
        Program::Registers(..) | Program::Swap { .. } => workload == Workload::Rw,
        Program::Transfer { .. }
        | Program::Audit(_)
        | Program::Withdraw { .. }
        | Program::Weigh(..)
        | Program::Claim { .. }
        | Program::Look(_)
        | Program::ForkWrite { .. }
        | Program::ForkRead(..) => false,
    };
    let numbered = |record: &judge::Record| {
        let first = u64::try_from(record.zone).unwrap_or(0) * KEYS_PER_ZONE;
        let mut txn = record.txn()?;
        for op in &mut txn.ops {
            let (MicroOp::Append { key, .. }
            | MicroOp::ReadList { key, .. }
            | MicroOp::Write { key, .. }
            | MicroOp::ReadRegister { key, .. }) = op;
            *key += first;
        }
        Some(txn)
    };
    let records = report.records.iter();
    let records = records.filter_map(|one| judge::in_first_era(one, report.promoted));
    let records = records.filter(|one| wanted(one));
    records.filter_map(|one| numbered(&one)).collect()
}
