//! When a keyspace becomes another one, everything written to it is there, for whoever asks the other one.
//!
//! What `docs/alter.md` promises, from one keyspace of a lineage to a later one:
//!
//! * before the name has moved, the later one makes no write of its own;
//! * a linearizable read of the later one, in whatever zone, shows every write that took effect in the earlier one, in whatever
//!   zone and acknowledged or not, and nothing that one of these has replaced; so does a mirror, as its cuts are of a
//!   keyspace that has everything;
//! * once a linearizable operation of the later one was answered, the earlier one answers none that is sent after that.
//!
//! From a keyspace to one that was made of its mirror (`promotions`) the second holds of what the mirror's cut has, and the third
//! not at all: the old home may live on where nobody hears it.
//!
//! With the order inside each keyspace (`linear`) a history stays linearizable over a move: in `sync` the whole store's, else
//! each zone's.

use std::collections::BTreeMap;

use meridian_core::ids::KeyspaceId;
use meridian_core::request::ReadLevel;

use super::FinalState;
use super::dots::Seen;
use super::evidence::Evidence;
use super::key::{KeyHistory, ReadFact};
use super::promotions;
use crate::history::{History, Operation, Outcome};
use crate::lineage::Lineage;
use crate::node::zone_id;
use crate::rng::MS;
use crate::violation::{Checked, Violation};

/// A write is made by a keyspace that has, or had, the name.
pub(super) fn check_opened(
    now: u64,
    seen: &Seen,
    (evidence, lineage): (&Evidence, &Lineage),
) -> Checked {
    let keyspace = seen.group.keyspace;
    if lineage.is_opened(keyspace) || evidence.knows(&seen.key, seen.dot) {
        return Ok(());
    }
    let message = format!(
        "{} on {:?} was written to keyspace {} before the name had moved there",
        seen.dot, seen.key, keyspace.0
    );
    Err(Violation::new("moves", now, message))
}

/// What was written to the keyspaces before is there.
pub(super) fn check_key(key: &KeyHistory<'_>, state: &FinalState) -> Checked {
    let mirrored =
        |read: &ReadFact| read.eventual && state.lineage.mirrors(read.keyspace, zone_id(read.zone));
    let mut reads: BTreeMap<KeyspaceId, Vec<&ReadFact>> = BTreeMap::new();
    for read in &key.reads {
        if read.linearizable || mirrored(read) {
            reads.entry(read.keyspace).or_default().push(read);
        }
    }
    for (keyspace, reads) in reads {
        let earlier = key.which(|write| promotions::is_inherited(state, write, keyspace));
        let gone = key.surely_replaced_by(&earlier);
        for read in reads {
            let mut missed = earlier.minus(&read.covered);
            if missed.first().is_some() {
                missed = missed.minus(&key.forgettable(read.return_ns));
            }
            let back = read.held.and(&gone);
            let wrong = match (missed.first(), back.first()) {
                (Some(place), _) => ("without", place),
                (None, Some(place)) => ("with the replaced", place),
                (None, None) => continue,
            };
            let message = format!(
                "op {} read {:?} of keyspace {} {} {}, of a keyspace before",
                read.number,
                key.name,
                keyspace.0,
                wrong.0,
                key.show(wrong.1)
            );
            return Err(Violation::new("moves", read.return_ns, message));
        }
    }
    Ok(())
}

/// No keyspace answers a linearizable operation that is sent after a later one has answered one.
pub(super) fn check_times(history: &History, lineage: &Lineage, at_ns: u64) -> Checked {
    let mut first_answer: BTreeMap<KeyspaceId, (u64, usize)> = BTreeMap::new();
    let answered = || {
        let operations = history.operations.iter().enumerate();
        operations.filter(|(_, operation)| is_linearizable(operation))
    };
    for (number, operation) in answered() {
        let at = (operation.return_ns.unwrap_or(at_ns), number);
        let first = first_answer.entry(operation.keyspace).or_insert(at);
        *first = (*first).min(at);
    }
    for (number, operation) in answered() {
        let era = lineage.era(operation.keyspace);
        let later = first_answer.range(operation.keyspace..).skip(1);
        let mut later = later.take_while(|(keyspace, _)| lineage.era(**keyspace) == era);
        let overtaken = later.find(|(_, (at, _))| *at < operation.attempt_ns);
        if let Some((keyspace, (at, first))) = overtaken {
            let message = format!(
                "op {number} was sent at {} ms and answered by keyspace {}, after keyspace {} had answered op {first} at {} ms",
                operation.attempt_ns / MS,
                operation.keyspace.0,
                keyspace.0,
                at / MS
            );
            return Err(Violation::new("moves", at_ns, message));
        }
    }
    Ok(())
}

/// Read at that level, or written by this attempt.
pub(super) fn is_linearizable(operation: &Operation) -> bool {
    match &operation.outcome {
        Outcome::Written(receipt) => !receipt.repeated,
        Outcome::Read(_) => operation.level() == Some(ReadLevel::Linearizable),
        Outcome::Info | Outcome::Fail(_) => false,
    }
}
