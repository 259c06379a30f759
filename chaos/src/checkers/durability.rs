//! Invariant 1, and with it 9: an acknowledged write is readable, or causally superseded, in every zone after healing.
//!
//! Every write that took effect must be seen by the final set's context; and if it is no sibling there, some write that
//! may have replaced it must have taken effect. Whether that write was entitled to is judged by `justified`.

use super::FinalState;
use super::key::KeyHistory;
use crate::history::show_set;
use crate::violation::{Checked, Violation};

pub(super) fn check(key: &KeyHistory<'_>, state: &FinalState) -> Checked {
    let everything = key.which(|_| true);
    let excused = key.possibly_replaced_by(&everything);
    let tombstones = key.tombstones();
    let acked = key.which(|write| write.acked_ns.is_some());
    for replica in &state.replicas {
        let Some(set) = replica.sets.get(&key.name) else {
            continue;
        };
        let (held, covered) = key.rows_of(set);
        let mut lost = everything.minus(&held).minus(&excused);
        if !set.has_live() {
            lost = lost.minus(&tombstones);
        }
        if let Some(place) = lost.first() {
            return Err(Violation::new(
                "durability",
                state.at_ns,
                format!(
                    "{} on {:?} (acknowledged: {}) is gone from n{} though nothing replaced it: {}",
                    key.show(place),
                    key.name,
                    acked.has(place),
                    replica.node + 1,
                    show_set(set)
                ),
            ));
        }
        let unseen = everything
            .minus(&covered)
            .minus(&key.forgettable(state.at_ns));
        if let Some(place) = unseen.first() {
            return Err(Violation::new(
                "durability",
                state.at_ns,
                format!(
                    "{} on {:?} (acknowledged: {}) has not reached n{}: {}",
                    key.show(place),
                    key.name,
                    acked.has(place),
                    replica.node + 1,
                    show_set(set)
                ),
            ));
        }
    }
    Ok(())
}
