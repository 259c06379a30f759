//! What holds where a mirror was promoted (protocol rules 25 and 27, `docs/promotion.md`).
//!
//! * *One cut.* At the moment in which the name moves, the new keyspace holds what the old one held at the cut that the mirror
//!   showed, key by key, and nothing else.
//! * *The fence.* Once every group of the deposed keyspace has said what its last write was, it answers no linearizable operation
//!   that is sent after that.
//! * *The report.* What a deposed home had written after the cut comes back and is listed under its key, unless it had been
//!   replaced there or here by then; nothing else is.
//!
//! That what comes back is there in the end, and nothing of it is lost, is for `durability` to say. What a cut has is told by
//! the log of the group that made a write: everything up to the index at which its part of the view was taken. It may have been
//! taken more than once; then what lies between is not judged.

use std::collections::BTreeMap;

use bytes::Bytes;
use meridian_core::ids::{KeyspaceId, ShardId};
use meridian_core::keys::{Became, ReturnedWrite};
use meridian_core::limits::RETURNED_WRITES_MAX;

use super::FinalState;
use super::key::{KeyHistory, WriteFact, may_be_tombstone};
use super::moves::is_linearizable;
use crate::history::History;
use crate::lineage::Lineage;
use crate::rng::MS;
use crate::violation::{Checked, Violation};

/// First and last index at which each shard's part of a view was taken.
pub type Cut = BTreeMap<ShardId, (u64, u64)>;

/// What came back of a deposed keyspace, as the one that serves has it listed.
pub type Listed = BTreeMap<Bytes, Vec<ReturnedWrite>>;

/// Whether a write came to a keyspace by the cut that was promoted, if it took a promotion to get there at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// By that, or without one.
    Surely,
    /// The cut was taken twice, and has it in one case; or it came by another promotion, where it may have been late.
    Perhaps,
    /// Later, or not yet.
    Late,
}

/// How a write has come to a keyspace after its own.
fn came(state: &FinalState, write: &WriteFact<'_>, keyspace: KeyspaceId) -> Came {
    let Some(promoted) = state.lineage.promotion_between(write.origin, keyspace) else {
        return Came::Surely;
    };
    if write.origin < promoted.before {
        // It was in that keyspace from its beginning.
        return Came::Surely;
    }
    let (shard, index) = write.place;
    let taken = state.cuts.get(&promoted.keyspace);
    match taken.and_then(|cut| cut.get(&shard)) {
        Some((first, _)) if index <= *first => Came::Surely,
        Some((_, last)) if index > *last => Came::Late,
        Some(_) | None => Came::Perhaps,
    }
}

/// Whether a keyspace has a write of an earlier one from its beginning.
pub(super) fn is_inherited(
    state: &FinalState,
    write: &WriteFact<'_>,
    keyspace: KeyspaceId,
) -> bool {
    write.origin < keyspace && came(state, write, keyspace) == Came::Surely
}

/// A deposed keyspace that has made its last write answers nobody.
pub(super) fn check_fence(history: &History, lineage: &Lineage, at_ns: u64) -> Checked {
    for (number, operation) in history.operations.iter().enumerate() {
        let ended = lineage.ended_ns(operation.keyspace);
        let late = ended.filter(|ended| *ended < operation.attempt_ns);
        if let Some(ended) = late.filter(|_| is_linearizable(operation)) {
            let message = format!(
                "op {number} was sent at {} ms and answered by keyspace {}, whose home was deposed and had ended by {} ms",
                operation.attempt_ns / MS,
                operation.keyspace.0,
                ended / MS
            );
            return Err(Violation::new("fence", at_ns, message));
        }
    }
    Ok(())
}

/// What came back to a key is listed, and nothing else.
pub(super) fn check_listed(key: &KeyHistory<'_>, state: &FinalState) -> Checked {
    let serving = state.lineage.serving();
    let Some(listed) = &state.listed else {
        return Ok(());
    };
    let Some(promoted) = state
        .lineage
        .promotions()
        .find(|one| one.keyspace == serving)
    else {
        return Ok(());
    };
    let none = Vec::new();
    let rows = listed.get(&key.name).unwrap_or(&none);
    for row in rows {
        let place = key.dots.binary_search(&row.dot).ok();
        let write = place.and_then(|place| key.writes.get(place));
        if write.is_none_or(|write| {
            write.origin >= serving || came(state, write, serving) == Came::Surely
        }) {
            let message = format!(
                "{} on {:?} is listed as come back ({}), and keyspace {} had it from its beginning or from nobody",
                row.dot,
                key.name,
                name(row.became),
                serving.0
            );
            return Err(Violation::new("divergence", state.at_ns, message));
        }
    }
    let whole_ns = state.lineage.whole_ns(serving).unwrap_or(state.at_ns);
    let before = key.which(|write| write.origin <= promoted.before || write.seen_ns <= whole_ns);
    let replaced = key.possibly_replaced_by(&before);
    for (place, write) in key.writes.iter().enumerate() {
        let is_lacked =
            write.origin == promoted.before && came(state, write, serving) == Came::Late;
        let may_be_missing = replaced.has(place)
            || may_be_tombstone(write)
            || rows.len() >= RETURNED_WRITES_MAX
            || rows.iter().any(|row| row.dot == write.dot);
        if is_lacked && !may_be_missing {
            let message = format!(
                "{} on {:?} came back from keyspace {} after its cut, and is not listed",
                key.show(place),
                key.name,
                promoted.before.0
            );
            return Err(Violation::new("divergence", state.at_ns, message));
        }
    }
    Ok(())
}

const fn name(became: Became) -> &'static str {
    match became {
        Became::Newest => "newest",
        Became::Sibling => "sibling",
        Became::Unseen => "unseen",
    }
}
