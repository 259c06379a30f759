//! The laws of a join, and of a write with a context, over arbitrary sets.

use std::collections::BTreeSet;

use bytes::Bytes;
use meridian_causal::{
    CausalContext, Content, Dot, Hlc, Incarnation, OpId, Replace, Sibling, SiblingSet,
    TransactionTag, VersionVector, ZoneId, put_context,
};
use proptest::prelude::*;

pub(crate) fn dot(zone: u16, counter: u64) -> Dot {
    Dot::new(Incarnation::new(ZoneId(zone), 1), counter)
}

pub(crate) fn context(dots: impl IntoIterator<Item = Dot>) -> CausalContext {
    let mut context = CausalContext::new();
    for dot in dots {
        context.insert(dot);
    }
    context
}

/// The write that bears `dot`. Each field depends on the dot alone, as in a store.
pub(crate) fn sibling(dot: Dot) -> Sibling {
    let n = dot.counter;
    Sibling {
        dot,
        content: if n % 5 == 4 {
            Content::Tombstone
        } else {
            Content::Value(Bytes::from(format!("{dot}")))
        },
        written_at: Hlc::new(n * 1000, 7),
        expires_at_ms: n.is_multiple_of(3).then_some(n * 5000),
        op_id: n.is_multiple_of(2).then_some(OpId {
            stamp_ms: n,
            id: u128::from(n / 4),
        }),
        transaction: (n % 7 == 1).then_some(TransactionTag {
            id: u128::from(n),
            parts: 3,
        }),
    }
}

fn any_dot() -> impl Strategy<Value = Dot> {
    (1..4u16, 1..10u64).prop_map(|(zone, counter)| dot(zone, counter))
}

pub(crate) fn any_context() -> impl Strategy<Value = CausalContext> {
    prop::collection::vec(any_dot(), 0..10).prop_map(context)
}

/// Some seen dots, of which some are siblings, of which some have expired.
pub(crate) fn any_set() -> impl Strategy<Value = SiblingSet> {
    (
        any_context(),
        prop::collection::btree_map(any_dot(), any::<bool>(), 0..8),
    )
        .prop_map(|(superseded, siblings)| {
            let mut set = nothing_left_of(&superseded);
            for (dot, expired) in siblings {
                set.apply(sibling(dot), &CausalContext::new(), &VersionVector::new());
                if expired {
                    set.expire(dot);
                }
            }
            set
        })
}

/// A set that has seen `superseded` and holds nothing: two writes that cover it, and each other.
fn nothing_left_of(superseded: &CausalContext) -> SiblingSet {
    let (mut one, mut other) = (SiblingSet::new(), SiblingSet::new());
    if !superseded.is_empty() {
        let (left, right) = (dot(1, 1), dot(1, 2));
        one.apply(
            sibling(left),
            &put_context(superseded, right),
            &VersionVector::new(),
        );
        other.apply(
            sibling(right),
            &put_context(superseded, left),
            &VersionVector::new(),
        );
    }
    merged(&one, &other)
}

fn merged(a: &SiblingSet, b: &SiblingSet) -> SiblingSet {
    let mut merged = a.clone();
    merged.merge(b);
    merged
}

fn bytes(set: &SiblingSet) -> Vec<u8> {
    let mut bytes = Vec::new();
    set.encode(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn merge_is_associative_commutative_and_idempotent(a in any_set(), b in any_set(), c in any_set()) {
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(&merged(&a, &a), &a);
        prop_assert_eq!(bytes(&merged(&a, &b)), bytes(&merged(&b, &a)));
    }

    #[test]
    fn merge_keeps_what_both_hold_and_what_one_has_not_seen(a in any_set(), b in any_set()) {
        let holds = |set: &SiblingSet, dot| set.siblings().iter().any(|sibling| sibling.dot == dot);
        let joined = merged(&a, &b);
        for dot in (1..4).flat_map(|zone| (1..10).map(move |counter| dot(zone, counter))) {
            let kept = match (holds(&a, dot), holds(&b, dot)) {
                (true, true) => true,
                (true, false) => !b.context().covers(dot),
                (false, true) => !a.context().covers(dot),
                (false, false) => false,
            };
            prop_assert_eq!(holds(&joined, dot), kept, "{}", dot);
        }
    }

    #[test]
    fn a_write_with_a_context_removes_exactly_what_it_covers(
        before in any_set(), given in any_context(), zone in 1..4u16,
    ) {
        let written = dot(zone, 50);
        let replaced = before.replaced_by(ZoneId(zone), &Replace::Exactly(given.clone()));
        let mut after = before.clone();
        after.apply(sibling(written), &replaced, &VersionVector::new());
        let kept = before.siblings().iter().map(|sibling| sibling.dot).filter(|dot| !given.covers(*dot));
        let expected: BTreeSet<Dot> = kept.chain([written]).collect();
        let found: BTreeSet<Dot> = after.siblings().iter().map(|sibling| sibling.dot).collect();
        prop_assert_eq!(found, expected);
        let mut again = after.clone();
        again.apply(sibling(written), &replaced, &VersionVector::new());
        prop_assert_eq!(again, after);
    }

    #[test]
    fn a_condensed_context_covers_no_sibling_that_the_exact_one_does_not(
        before in any_set(), given in any_context(), zone in 1..4u16,
    ) {
        let mut after = before;
        after.apply(sibling(dot(zone, 50)), &given, &VersionVector::new());
        let exact = put_context(&given, dot(zone, 50));
        let condensed = after.condensed(exact.clone());
        prop_assert!(condensed.includes(&exact));
        for sibling in after.siblings() {
            prop_assert_eq!(condensed.covers(sibling.dot), exact.covers(sibling.dot));
        }
    }

    #[test]
    fn expiry_wins_in_either_order(set in any_set(), pick in any::<prop::sample::Index>()) {
        prop_assume!(!set.is_empty());
        let dot = pick.get(set.siblings()).dot;
        let mut expired = set.clone();
        expired.expire(dot);
        prop_assert_eq!(merged(&set, &expired), merged(&expired, &set));
        prop_assert_eq!(merged(&set, &expired), expired);
    }
}
