//! Invariant 7: what was deleted or replaced does not come back without a new write.
//!
//! Dots make it simple: a version is gone once a write that surely replaced it has taken effect where one looks. In the
//! end that is everywhere; in between it is wherever the replacing write stands as a sibling, for eventual reads too. (To
//! be covered is not enough: a client may bring a context from another zone whose writes are still on their way.)

use super::FinalState;
use super::key::KeyHistory;
use crate::history::show_set;
use crate::violation::{Checked, Violation};

pub(super) fn check(key: &KeyHistory<'_>, state: &FinalState) -> Checked {
    let gone = key.surely_replaced_by(&key.which(|_| true));
    for replica in &state.replicas {
        let Some(set) = replica.sets.get(&key.name) else {
            continue;
        };
        let (held, _) = key.rows_of(set);
        let back = held.and(&gone);
        if let Some(place) = back.first().filter(|_| set.has_live()) {
            return Err(Violation::new(
                "tombstones",
                state.at_ns,
                format!(
                    "{} on {:?} was replaced, and is on n{}: {}",
                    key.show(place),
                    key.name,
                    replica.node + 1,
                    show_set(set)
                ),
            ));
        }
    }
    for read in &key.reads {
        let gone = key.surely_replaced_by(&read.held);
        if let Some(place) = read.held.and(&gone).first() {
            return Err(Violation::new(
                "tombstones",
                read.return_ns,
                format!(
                    "op {} read {} on {:?}, beside the write that replaced it",
                    read.number,
                    key.show(place),
                    key.name
                ),
            ));
        }
    }
    Ok(())
}
