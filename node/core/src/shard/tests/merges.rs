//! What effects of other zones do.

use super::*;

fn merge(zone: &mut Zone, from: &Zone, first: u64, count: usize) -> Applied {
    let incarnation = from.meta().incarnation;
    let effects = from
        .outbox(incarnation, first - 1)
        .into_iter()
        .take(count)
        .collect();
    zone.entry(vec![Op::Merge {
        incarnation,
        first,
        effects,
    }])
}

fn two() -> (Zone, Zone) {
    let (a, mut b) = (Zone::new(1), Zone::new(2));
    for n in 1..=5 {
        b.put(&format!("k{n}"), &n.to_string());
    }
    (a, b)
}

#[test]
fn counters_received_before_are_skipped_and_the_rest_applied() {
    let (mut a, b) = two();
    merge(&mut a, &b, 1, 3);
    let applied = merge(&mut a, &b, 2, 3);
    assert_eq!(
        applied
            .effects
            .iter()
            .map(|(dot, _)| dot.counter)
            .collect::<Vec<_>>(),
        [4]
    );
    assert_eq!(applied.rewind, []);
    assert_eq!(a.received().get(incarnation(2)), 4);
    assert_eq!(
        merge(&mut a, &b, 1, 4),
        Applied::default(),
        "nothing new, nothing done"
    );
    assert_eq!(
        (a.values("k4"), a.values("k5")),
        (vec!["4".to_owned()], vec![])
    );
    a.check();
}

#[test]
fn a_gap_has_no_effect_and_asks_for_a_rewind() {
    let (mut a, b) = two();
    merge(&mut a, &b, 1, 1);
    let applied = merge(&mut a, &b, 3, 2);
    assert_eq!(
        applied,
        Applied {
            rewind: vec![incarnation(2)],
            ..Applied::default()
        }
    );
    assert_eq!(a.received().get(incarnation(2)), 1);
    assert_eq!(a.values("k3"), Vec::<String>::new());
}

#[test]
fn own_effects_that_return_and_counter_zero_are_ignored() {
    let (mut a, b) = two();
    a.put("k", "1");
    let effects = b.outbox(incarnation(2), 0);
    for (incarnation, first) in [
        (incarnation(1), 1),
        (incarnation(1), 2),
        (incarnation(2), 0),
    ] {
        let before = a.received().clone();
        let merge = Op::Merge {
            incarnation,
            first,
            effects: effects.clone(),
        };
        assert_eq!(a.entry(vec![merge]), Applied::default());
        assert_eq!(*a.received(), before);
    }
}

#[test]
fn merged_effects_are_kept_for_relay_as_they_were_written() {
    let (mut a, b) = two();
    let mut c = Zone::new(3);
    a.pull_all(&b);
    c.pull_all(&a);
    assert_eq!(c.outbox(incarnation(2), 0), b.outbox(incarnation(2), 0));
    assert_eq!(c.set("k1"), b.set("k1"));
}

#[test]
fn the_order_of_different_zones_does_not_matter() {
    let (mut a, mut b, mut c) = (Zone::new(1), Zone::new(2), Zone::new(3));
    a.put("k", "a");
    b.pull_all(&a);
    b.put("k", "b");
    c.pull(&b, incarnation(2));
    assert_eq!(c.values("k"), ["b"]);
    c.pull(&a, incarnation(1));
    assert_eq!(c.values("k"), ["b"]);
    a.pull_all(&b);
    assert_eq!(a.set("k"), c.set("k"));
}

#[test]
fn the_planted_bug_loses_a_sibling_in_a_merge() {
    let mut b = Zone::new(2);
    b.put("k", "b");
    let bug = PlantedBugs {
        lose_sibling_in_merge: true,
        ..PlantedBugs::default()
    };
    for (planted, siblings) in [(PlantedBugs::default(), 2), (bug, 1)] {
        let mut a = Zone::planted(1, planted);
        a.put("k", "a");
        a.pull_all(&b);
        assert_eq!(a.values("k").len(), siblings);
        a.check();
    }
}
