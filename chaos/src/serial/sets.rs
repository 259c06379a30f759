//! Sets: elements are added, and at the end all are read.

use std::collections::BTreeSet;

use super::finding::{Anomaly, Finding};
use super::model::Status;

/// Elements named in a finding.
const SHOWN_MAX: usize = 10;

/// One addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Add {
    /// Unique.
    pub element: u64,
    /// What came of it.
    pub status: Status,
}

/// Whether the last read holds every acknowledged element, and none but those that may have been added.
pub fn findings(adds: &[Add], last_read: &BTreeSet<u64>, at_ns: u64) -> Vec<Finding> {
    let of = |wanted: fn(Status) -> bool| -> BTreeSet<u64> {
        let adds = adds.iter().filter(|add| wanted(add.status));
        adds.map(|add| add.element).collect()
    };
    let acknowledged = of(|status| status == Status::Ok);
    let possible = of(|status| status != Status::Fail);
    let lost: Vec<u64> = acknowledged.difference(last_read).copied().collect();
    let strange: Vec<u64> = last_read.difference(&possible).copied().collect();
    let wrong = [
        (Anomaly::LostElement, lost, "were acknowledged and are gone"),
        (
            Anomaly::UnexpectedElement,
            strange,
            "are there and were never added",
        ),
    ];
    let wrong = wrong
        .into_iter()
        .filter(|(_, elements, _)| !elements.is_empty());
    let wrong = wrong.map(|(anomaly, elements, what)| {
        let shown: Vec<String> = elements
            .iter()
            .take(SHOWN_MAX)
            .map(u64::to_string)
            .collect();
        let message = format!("{} elements {what}: {}", elements.len(), shown.join(" "));
        Finding::new(anomaly, at_ns, message)
    });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn add(element: u64, status: Status) -> Add {
        Add { element, status }
    }

    fn names(adds: &[Add], read: &[u64]) -> Vec<&'static str> {
        let found = findings(adds, &read.iter().copied().collect(), 0);
        found.iter().map(|finding| finding.anomaly.name()).collect()
    }

    #[test]
    fn unknown_additions_may_be_there_or_not() {
        let adds = [
            add(1, Status::Ok),
            add(2, Status::Info),
            add(3, Status::Fail),
        ];
        assert!(names(&adds, &[1]).is_empty());
        assert!(names(&adds, &[1, 2]).is_empty());
    }

    #[test]
    fn a_lost_element_and_a_refused_one_that_appears_are_found() {
        let adds = [add(1, Status::Ok), add(3, Status::Fail)];
        assert_eq!(names(&adds, &[]), ["lost-element"]);
        assert_eq!(names(&adds, &[1, 3]), ["unexpected-element"]);
        assert_eq!(names(&adds, &[1, 9]), ["unexpected-element"]);
    }
}
