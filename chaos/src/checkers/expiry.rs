//! Protocol rule 4: once every clock has passed it, a version's time has ended it everywhere.
//!
//! The world is settled only when no node's index names a version that is still to expire; so no live version may be
//! left that expires. That nothing else vanished is judged by `durability`, which excuses versions that expire and no
//! others.

use super::FinalState;
use crate::history::show_set;
use crate::violation::{Checked, Violation};

pub(super) fn check(state: &FinalState) -> Checked {
    for replica in &state.replicas {
        let late = replica.sets.iter().find(|(_, set)| {
            let mut siblings = set.siblings().iter();
            siblings.any(|sibling| sibling.is_live() && sibling.expires_at_ms.is_some())
        });
        if let Some((key, set)) = late {
            return Err(Violation::new(
                "expiry",
                state.at_ns,
                format!(
                    "{key:?} has not expired on n{}: {}",
                    replica.node + 1,
                    show_set(set)
                ),
            ));
        }
    }
    Ok(())
}
