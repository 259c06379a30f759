//! Invariant 2: zones that have exchanged everything hold identical sibling sets, key by key; so do the replicas of a
//! zone; and their digests are equal.
//!
//! A key without a live version may be a tombstone here and forgotten there: both are "absent".

use bytes::Bytes;
use meridian_causal::SiblingSet;

use super::{FinalState, ReplicaState};
use crate::history::show_set;
use crate::violation::{Checked, Violation};

pub(super) fn check(state: &FinalState) -> Checked {
    let Some(first) = state.replicas.first() else {
        return Ok(());
    };
    for replica in &state.replicas {
        check_scan(replica, state.at_ns)?;
        check_pair(first, replica, state.at_ns)?;
    }
    Ok(())
}

/// A scan shows exactly the keys that a get finds.
fn check_scan(replica: &ReplicaState, at_ns: u64) -> Checked {
    let found = replica
        .sets
        .iter()
        .filter(|(_, set)| set.has_live())
        .map(|(key, _)| key);
    if found.eq(replica.scanned.iter()) {
        return Ok(());
    }
    let odd: Vec<&Bytes> = replica
        .sets
        .iter()
        .filter(|(key, set)| set.has_live() != replica.scanned.binary_search(key).is_ok())
        .map(|(key, _)| key)
        .collect();
    Err(Violation::new(
        "convergence",
        at_ns,
        format!("n{}: scan and get disagree on {odd:?}", replica.node + 1),
    ))
}

fn check_pair(a: &ReplicaState, b: &ReplicaState, at_ns: u64) -> Checked {
    for key in a.sets.keys().chain(b.sets.keys()) {
        let (ours, theirs) = (a.sets.get(key), b.sets.get(key));
        if !same(ours, theirs) {
            let show =
                |set: Option<&SiblingSet>| set.map_or_else(|| "nothing".to_string(), show_set);
            return Err(Violation::new(
                "convergence",
                at_ns,
                format!(
                    "{key:?} is {} on n{} and {} on n{}",
                    show(ours),
                    a.node + 1,
                    show(theirs),
                    b.node + 1
                ),
            ));
        }
    }
    if a.digests == b.digests {
        return Ok(());
    }
    Err(Violation::new(
        "convergence",
        at_ns,
        format!(
            "digests of n{} and n{} differ: {:?} {:?}",
            a.node + 1,
            b.node + 1,
            a.digests,
            b.digests
        ),
    ))
}

fn same(a: Option<&SiblingSet>, b: Option<&SiblingSet>) -> bool {
    let visible = |set: Option<&SiblingSet>| {
        set.filter(|set| set.has_live())
            .map(|set| set.siblings().to_vec())
    };
    visible(a) == visible(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_causal::{
        CausalContext, Content, Dot, Hlc, Incarnation, Sibling, VersionVector, ZoneId,
    };

    fn set(content: Content) -> SiblingSet {
        let dot = Dot::new(Incarnation::new(ZoneId(1), 1), 1);
        let sibling = Sibling {
            dot,
            content,
            written_at: Hlc::default(),
            expires_at_ms: None,
            op_id: None,
            transaction: None,
        };
        let mut set = SiblingSet::new();
        set.apply(sibling, &CausalContext::new(), &VersionVector::new());
        set
    }

    fn replica(node: usize, set: SiblingSet) -> ReplicaState {
        let key = Bytes::from_static(b"k");
        let scanned = if set.has_live() {
            vec![key.clone()]
        } else {
            Vec::new()
        };
        ReplicaState {
            node,
            zone: node,
            sets: [(key, set)].into(),
            scanned,
            digests: Vec::new(),
        }
    }

    fn judge(a: SiblingSet, b: SiblingSet) -> Checked {
        check(&FinalState {
            replicas: vec![replica(0, a), replica(1, b)],
            ..FinalState::default()
        })
    }

    #[test]
    fn a_forgotten_tombstone_equals_a_kept_one() {
        assert!(judge(set(Content::Tombstone), SiblingSet::new()).is_ok());
    }

    #[test]
    fn a_value_missing_in_one_zone_is_found() {
        let value = Content::Value(Bytes::from_static(b"v"));
        assert!(judge(set(value.clone()), set(value.clone())).is_ok());
        assert_eq!(
            judge(set(value), SiblingSet::new()).unwrap_err().check,
            "convergence"
        );
    }

    #[test]
    fn a_scan_that_hides_a_key_is_found() {
        let mut one = replica(0, set(Content::Value(Bytes::from_static(b"v"))));
        one.scanned.clear();
        assert!(
            check(&FinalState {
                replicas: vec![one],
                ..FinalState::default()
            })
            .is_err()
        );
    }
}
