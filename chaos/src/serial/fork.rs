//! Long forks: writers each write one key once, readers read a whole group of keys.
//!
//! Reads of a group must be totally ordered: of two, one has seen all that the other has. Two reads of which each has seen
//! a write that the other has not are a long fork (parallel snapshot isolation allows it, serializability does not). On top
//! of that, what a read saw no read sees less of that began after the first was over.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Anomaly, Finding};

/// One read of a group of keys that are each written at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRead {
    /// When it began.
    pub invoke_ns: u64,
    /// When it was answered.
    pub complete_ns: u64,
    /// The group.
    pub group: u64,
    /// The keys that had been written.
    pub written: BTreeSet<u64>,
}

/// Whether the reads of each group can be put into an order.
pub fn findings(reads: &[GroupRead]) -> Vec<Finding> {
    let mut groups: BTreeMap<u64, Vec<&GroupRead>> = BTreeMap::new();
    for read in reads {
        groups.entry(read.group).or_default().push(read);
    }
    groups.into_values().filter_map(check_group).collect()
}

fn check_group(mut reads: Vec<&GroupRead>) -> Option<Finding> {
    reads.sort_by_key(|read| (read.written.len(), read.complete_ns));
    for (smaller, greater) in reads.iter().zip(reads.iter().skip(1)) {
        if !smaller.written.is_subset(&greater.written) {
            return Some(finding(
                smaller,
                greater,
                "each saw a write that the other did not",
            ));
        }
    }
    check_time(&reads)
}

/// From the read that has seen most down: none began after one that has seen more was over.
fn check_time(sorted: &[&GroupRead]) -> Option<Finding> {
    let mut greater: Option<&GroupRead> = None;
    for equal in sorted
        .chunk_by(|one, other| one.written.len() == other.written.len())
        .rev()
    {
        let first = greater;
        for read in equal {
            if let Some(earlier) = first.filter(|earlier| earlier.complete_ns < read.invoke_ns) {
                return Some(finding(earlier, read, "the later one saw less"));
            }
            greater = [greater, Some(read)]
                .into_iter()
                .flatten()
                .min_by_key(|read| read.complete_ns);
        }
    }
    None
}

fn finding(one: &GroupRead, other: &GroupRead, what: &str) -> Finding {
    let show = |read: &GroupRead| {
        format!(
            "read of group {} from {} to {} ns saw {:?}",
            read.group, read.invoke_ns, read.complete_ns, read.written
        )
    };
    let at_ns = one.complete_ns.max(other.complete_ns);
    let message = format!("of two reads of group {}, {what}", one.group);
    Finding::new(Anomaly::LongFork, at_ns, message).with(vec![show(one), show(other)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(invoke_ns: u64, complete_ns: u64, written: &[u64]) -> GroupRead {
        GroupRead {
            invoke_ns,
            complete_ns,
            group: 1,
            written: written.iter().copied().collect(),
        }
    }

    #[test]
    fn reads_that_see_more_and_more_pass() {
        assert!(findings(&[read(0, 9, &[]), read(1, 5, &[1]), read(2, 4, &[1, 2])]).is_empty());
    }

    #[test]
    fn two_reads_that_each_miss_what_the_other_saw_are_a_long_fork() {
        let found = findings(&[read(0, 9, &[1]), read(0, 9, &[2])]);
        assert_eq!(found.first().unwrap().anomaly, Anomaly::LongFork);
    }

    #[test]
    fn a_later_read_that_sees_less_is_found() {
        assert_eq!(findings(&[read(0, 1, &[1]), read(2, 3, &[])]).len(), 1);
        assert!(findings(&[read(0, 1, &[]), read(2, 3, &[1])]).is_empty());
    }
}
