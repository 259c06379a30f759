//! Catching up by comparing equals receiving every effect in order.

use super::*;

/// A source whose outbox is gone, and a receiver that has seen its first part.
fn behind() -> (Zone, Zone) {
    let (mut a, mut b) = (Zone::new(1), Zone::new(2));
    for n in 0..6 {
        b.put(&format!("k{n}"), "old");
    }
    a.pull_all(&b);
    b.delete("k1");
    b.put("k2", "new");
    b.put("k9", "new");
    b.put("k0", "gone");
    b.delete("k0");
    b.trim_all();
    (a, b)
}

fn contents(zone: &Zone) -> Vec<(String, Vec<String>)> {
    (0..10)
        .map(|n| format!("k{n}"))
        .map(|key| (key.clone(), zone.values(&key)))
        .collect()
}

#[test]
fn a_comparison_brings_what_the_outbox_no_longer_has() {
    let (mut a, b) = behind();
    assert_eq!(b.outbox(incarnation(2), 6), []);
    a.compare(&b, |_, _| {});
    assert_eq!(contents(&a), contents(&b));
    assert_eq!(a.received(), b.received());
    assert!(a.meta().compare.is_none());
    a.check();
}

#[test]
fn what_came_by_comparison_cannot_be_relayed_and_is_not_claimed_to_be() {
    let (mut a, mut b) = behind();
    a.compare(&b, |_, _| {});
    let end = b.received().get(incarnation(2));
    assert_eq!(a.meta().outbox_floor.get(incarnation(2)), end);
    assert_eq!(a.outbox(incarnation(2), 0), []);
    assert_eq!(a.meta().outbox_bytes, 0);
    b.put("k5", "later");
    a.pull_all(&b);
    assert_eq!(a.outbox(incarnation(2), end).len(), 1);
    a.check();
}

#[test]
fn ordered_effects_wait_for_the_end_of_a_comparison_that_is_ahead_of_them() {
    let (mut a, mut b, mut c) = (Zone::new(1), Zone::new(2), Zone::new(3));
    b.put("k1", "old");
    a.pull_all(&b);
    b.put("k1", "new");
    b.put("k2", "new");
    c.pull_all(&b);
    c.put("other", "c");
    a.compare(&b, |a, _| {
        let refused = a.pull(&c, incarnation(2));
        assert_eq!(
            refused,
            Applied {
                rewind: vec![incarnation(2)],
                ..Applied::default()
            }
        );
        a.pull(&c, incarnation(3));
    });
    assert_eq!(
        a.values("other"),
        ["c"],
        "what the comparison is not ahead of goes on"
    );
    assert_eq!(a.pull(&c, incarnation(2)), Applied::default());
    assert_eq!(contents(&a), contents(&b));
    a.check();
}

#[test]
fn a_key_that_a_comparison_empties_still_knows_what_was_replaced_and_is_to_come() {
    let (mut a, mut c) = (Zone::new(1), Zone::new(3));
    let (_, seen) = c.put("k", "c");
    a.written("k", value("a"), WriteIntent::Context(seen));
    let snapshot = VersionVector::from_iter([(incarnation(1), 1), (incarnation(3), 1)]);
    let none = VersionVector::new();
    let (from, to) = (Bytes::new(), Bytes::new());
    a.entry(vec![Op::CompareBegin {
        source: ZoneId(2),
        snapshot: snapshot.clone(),
    }]);
    a.entry(vec![Op::CompareJoin {
        snapshot,
        from,
        to,
        states: vec![],
    }]);
    a.entry(vec![Op::CompareBegin {
        source: ZoneId(2),
        snapshot: none.clone(),
    }]);
    a.entry(vec![Op::CompareEnd { snapshot: none }]);
    assert_eq!(a.values("k"), ["-"]);
    a.pull_all(&c);
    assert_eq!(a.values("k"), ["-"]);
    a.check();
}

/// Who compared with a zone that has forgotten a delete forgot it too, and its mirrors, which had not passed it, showed the key
/// for ever.
#[test]
fn a_tombstone_that_the_other_side_has_forgotten_stays_until_a_round_drops_it() {
    let (mut home, mut other) = (Zone::new(1), Zone::new(2));
    home.put("k", "1");
    home.delete("k");
    other.pull_all(&home);
    assert_eq!((other.collect(&[1, 2]), other.collect(&[1, 2])), (0, 1));
    home.compare(&other, |_, _| {});
    assert_eq!(home.values("k"), ["-"]);
    assert_eq!(home.meta().tombstones, 1);
    home.check();
    home.pull_all(&other);
    assert_eq!((home.collect(&[1, 2]), home.collect(&[1, 2])), (0, 1));
    home.check();
}

#[test]
fn a_version_whose_delete_the_other_side_has_forgotten_leaves_a_tombstone() {
    let (mut home, mut other) = (Zone::new(1), Zone::new(2));
    let (_, seen) = home.put("k", "1");
    other.pull_all(&home);
    other.written("k", Content::Tombstone, WriteIntent::Context(seen));
    other.trim_all();
    // The other side took this zone's word of before for what it has now.
    let claimed = other.received().clone();
    other.known.insert(incarnation(1), claimed);
    assert_eq!((other.collect(&[1, 2]), other.collect(&[1, 2])), (0, 1));
    home.compare(&other, |_, _| {});
    assert_eq!(home.values("k"), ["-"]);
    home.put("k", "2");
    other.pull_all(&home);
    assert_eq!(
        (home.values("k"), other.values("k")),
        (vec!["2".into()], vec!["2".into()])
    );
    home.check();
}

#[test]
fn writes_made_while_comparing_survive_it() {
    let (mut a, mut b) = behind();
    a.compare(&b, |a, range| {
        a.put(&format!("k{range}"), "mine");
        a.put("k9", "mine too");
    });
    a.check();
    b.pull_all(&a);
    assert_eq!(contents(&a), contents(&b));
    assert!(a.values("k9").contains(&"mine too".to_owned()));
}

#[test]
fn a_comparison_given_up_leaves_a_state_that_ordered_effects_complete() {
    let (mut a, mut b) = (Zone::new(1), Zone::new(2));
    for n in 0..4 {
        b.put(&format!("k{n}"), "1");
    }
    a.pull_all(&b);
    b.put("k0", "2");
    b.delete("k1");
    b.put("k1", "3");
    let snapshot = b.received().clone();
    let (states, to) = compare::states(&b.engine, b.shard.group(), b"", b"k2", usize::MAX).unwrap();
    a.entry(vec![Op::CompareBegin {
        source: ZoneId(2),
        snapshot: snapshot.clone(),
    }]);
    a.entry(vec![Op::CompareJoin {
        snapshot,
        from: Bytes::new(),
        to,
        states,
    }]);
    a.entry(vec![Op::CompareBegin {
        source: ZoneId(3),
        snapshot: VersionVector::new(),
    }]);
    a.entry(vec![Op::CompareEnd {
        snapshot: VersionVector::new(),
    }]);
    a.pull_all(&b);
    assert_eq!(contents(&a), contents(&b));
    a.check();
}

#[test]
fn a_join_or_end_of_another_comparison_has_no_effect() {
    let (mut a, b) = behind();
    let before = contents(&a);
    let snapshot = b.received().clone();
    let (states, to) = compare::states(&b.engine, b.shard.group(), b"", b"", usize::MAX).unwrap();
    a.entry(vec![Op::CompareJoin {
        snapshot: snapshot.clone(),
        from: Bytes::new(),
        to,
        states,
    }]);
    a.entry(vec![Op::CompareEnd { snapshot }]);
    assert_eq!(contents(&a), before);
    assert_eq!(a.received().get(incarnation(2)), 6);
}

#[test]
fn a_source_that_has_more_of_our_writes_than_we_made_is_not_compared_with() {
    let mut zone = Zone::new(1);
    let snapshot = VersionVector::from_iter([(incarnation(1), 3)]);
    assert!(
        !zone
            .entry(vec![Op::CompareBegin {
                source: ZoneId(2),
                snapshot
            }])
            .compare_changed
    );
    assert!(zone.meta().compare.is_none());
}

#[test]
fn states_that_do_not_read_end_the_comparison_without_moving_the_vector() {
    let (mut a, b) = behind();
    let snapshot = b.received().clone();
    let states = vec![(bytes("k1"), bytes("junk"))];
    assert!(!compare::states_are_valid(&states));
    a.entry(vec![Op::CompareBegin {
        source: ZoneId(2),
        snapshot: snapshot.clone(),
    }]);
    let join = Op::CompareJoin {
        snapshot: snapshot.clone(),
        from: Bytes::new(),
        to: Bytes::new(),
        states,
    };
    assert!(a.entry(vec![join]).compare_changed);
    a.entry(vec![Op::CompareEnd { snapshot }]);
    assert_eq!(a.received().get(incarnation(2)), 6);
    assert_eq!(a.values("k1"), ["old"]);
}

#[test]
fn a_tombstone_that_covers_a_write_still_on_its_way_makes_its_range_differ() {
    let (mut a, mut b, mut c) = (Zone::new(1), Zone::new(2), Zone::new(3));
    let (_, seen) = c.put("k", "c");
    b.written("k", Content::Tombstone, WriteIntent::Context(seen));
    b.trim_all();
    a.compare(&b, |_, _| {});
    a.pull_all(&c);
    b.pull_all(&c);
    assert_eq!(
        (a.values("k"), b.values("k")),
        (vec!["-".to_owned()], vec!["-".to_owned()])
    );
}

#[test]
fn ranges_and_states_follow_one_another_to_the_end() {
    let mut zone = Zone::new(1);
    let group = zone.shard.group();
    for n in 0..5 {
        zone.put(&format!("k{n}"), "value");
    }
    let ranges = compare::range_hashes(&zone.engine, group, b"k1", 10, 2).unwrap();
    let ends: Vec<_> = ranges.iter().map(|(end, _)| end.clone()).collect();
    assert_eq!(ends, [bytes("k3"), Bytes::new()]);
    for ((end, hash), from) in ranges.iter().zip([&b"k1"[..], b"k3"]) {
        assert_eq!(
            compare::range_hash(&zone.engine, group, from, end).unwrap(),
            *hash
        );
    }
    assert_eq!(
        compare::range_hashes(&zone.engine, group, b"", 1, 2).unwrap()[0].0,
        bytes("k2")
    );
    assert_eq!(
        compare::range_hashes(&zone.engine, group, b"x", 1, 2).unwrap(),
        [(Bytes::new(), 0)]
    );

    let (states, end) = compare::states(&zone.engine, group, b"k1", b"k4", 0).unwrap();
    assert_eq!((states.len(), end), (1, bytes("k1\0")));
    let (states, end) = compare::states(&zone.engine, group, b"k1", b"k4", usize::MAX).unwrap();
    assert_eq!((states.len(), end), (3, bytes("k4")));
}

#[test]
fn op_ids_of_joined_versions_are_known_afterwards() {
    let (mut a, mut b) = (Zone::new(1), Zone::new(2));
    let op_id = b.new_op_id();
    b.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    b.trim_all();
    a.compare(&b, |_, _| {});
    let retry = a.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    assert!(
        matches!(retry, WriteOutcome::Written { repeated: true, .. }),
        "{retry:?}"
    );
    a.check();
}
