//! Invariant 10: `apply` is a function of (state, entry). Every replica that applies an entry writes the same.
//!
//! And the ground under it: at most one leader per group and term.

use std::collections::BTreeMap;

use meridian_core::ids::GroupId;

use crate::violation::{Checked, Violation};

/// An entry of a group's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// The group.
    pub(super) group: GroupId,
    /// The index.
    pub(super) index: u64,
}

/// What was applied, and who led.
#[derive(Debug, Default)]
pub(super) struct Apply {
    /// Hash, and the node that was first.
    writes: BTreeMap<Entry, (u64, usize)>,
    leaders: BTreeMap<(GroupId, u64), usize>,
}

impl Apply {
    pub(super) fn applied(&mut self, now: u64, node: usize, entry: Entry, hash: u64) -> Checked {
        let (first_hash, first) = *self.writes.entry(entry).or_insert((hash, node));
        if first_hash == hash {
            return Ok(());
        }
        Err(Violation::new(
            "apply",
            now,
            format!(
                "entry {} of group {} wrote {hash:016x} on n{} and {first_hash:016x} on n{}",
                entry.index,
                entry.group,
                node + 1,
                first + 1
            ),
        ))
    }

    pub(super) fn leads(&mut self, now: u64, node: usize, group: GroupId, term: u64) -> Checked {
        let first = *self.leaders.entry((group, term)).or_insert(node);
        if first == node {
            return Ok(());
        }
        Err(Violation::new(
            "leaders",
            now,
            format!(
                "group {group} has two leaders in term {term}: n{} and n{}",
                first + 1,
                node + 1
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry = Entry {
        group: GroupId::CONTROL,
        index: 7,
    };

    #[test]
    fn replicas_that_write_the_same_pass() {
        let mut apply = Apply::default();
        assert!(apply.applied(0, 0, ENTRY, 1).is_ok());
        assert!(apply.applied(0, 1, ENTRY, 1).is_ok());
    }

    #[test]
    fn a_replica_that_writes_something_else_is_found() {
        let mut apply = Apply::default();
        assert!(apply.applied(0, 0, ENTRY, 1).is_ok());
        assert_eq!(apply.applied(0, 1, ENTRY, 2).unwrap_err().check, "apply");
    }

    #[test]
    fn two_leaders_of_one_term_are_found() {
        let mut apply = Apply::default();
        assert!(apply.leads(0, 0, GroupId::CONTROL, 3).is_ok());
        assert!(apply.leads(0, 1, GroupId::CONTROL, 4).is_ok());
        assert_eq!(
            apply.leads(0, 1, GroupId::CONTROL, 3).unwrap_err().check,
            "leaders"
        );
    }
}
