//! A version goes only when a write that has seen it says so (design, section 2; protocol rule 2).
//!
//! Two halves. A write without a context replaces at most one version, when any of them is live: else it would end a
//! conflict nobody has read. And whatever a read's context covers without showing it was replaced by a write that the
//! read covers too: else it was lost in a merge.

use std::collections::BTreeSet;

use meridian_core::command::WriteIntent;

use super::FinalState;
use super::key::{KeyHistory, WriteFact, may_be_tombstone};
use crate::violation::{Checked, Violation};

pub(super) fn check(key: &KeyHistory<'_>, _: &FinalState) -> Checked {
    key.writes
        .iter()
        .try_for_each(|write| check_blind(key, write))?;
    check_reads(key)
}

fn check_blind(key: &KeyHistory<'_>, write: &WriteFact<'_>) -> Checked {
    let most_versions = match write.intent {
        WriteIntent::Blind | WriteIntent::IfValue(_) => 1,
        WriteIntent::IfAbsent => 0,
        WriteIntent::Context(_) | WriteIntent::Overwrite | WriteIntent::IfContext(_) => {
            return Ok(());
        }
    };
    let Some(replaced) = &write.replaced else {
        return Ok(());
    };
    let mut newest = replaced.minus(&key.possibly_replaced_by(replaced));
    if newest.iter().nth(most_versions).is_some() {
        // A delete may have replaced some, and be dropped everywhere since: their dots are folded into the context of what
        // came to the key afterwards.
        newest = newest.minus(&key.forgettable(write.seen_ns));
    }
    let newest: Vec<&WriteFact<'_>> = newest
        .iter()
        .filter_map(|place| key.writes.get(place))
        .collect();
    let versions: BTreeSet<_> = newest.iter().map(|write| write.op_id).collect();
    let any_live = newest.iter().any(|write| !may_be_tombstone(write));
    if versions.len() <= most_versions || !any_live {
        return Ok(());
    }
    let replaced: Vec<String> = newest
        .iter()
        .map(|write| format!("{} (op {})", write.dot, write.number))
        .collect();
    Err(Violation::new(
        "justified",
        write.seen_ns,
        format!(
            "{} (op {}) on {:?} was written without a context and replaced {}",
            write.dot,
            write.number,
            key.name,
            replaced.join(" and ")
        ),
    ))
}

fn check_reads(key: &KeyHistory<'_>) -> Checked {
    for read in &key.reads {
        let gone = read.covered.minus(&read.held);
        let mut lost = gone.minus(&key.possibly_replaced_by(&read.covered));
        if lost.first().is_some() {
            lost = lost.minus(&key.forgettable(read.return_ns));
        }
        if let Some(place) = lost.first() {
            return Err(Violation::new(
                "justified",
                read.return_ns,
                format!(
                    "op {} read {:?} and was told it had seen {}, which it was not shown and nothing replaced",
                    read.number,
                    key.name,
                    key.show(place)
                ),
            ));
        }
    }
    Ok(())
}
