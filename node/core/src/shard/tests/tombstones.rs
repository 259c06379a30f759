//! When deleted keys are forgotten, and that they stay deleted.

use super::*;

fn pair() -> (Zone, Zone) {
    let (mut a, mut b) = (Zone::new(1), Zone::new(2));
    a.put("k", "1");
    b.pull_all(&a);
    a.delete("k");
    (a, b)
}

#[test]
fn a_tombstone_stays_until_every_zone_is_known_to_have_it() {
    let (mut a, mut b) = pair();
    assert_eq!((a.collect(&[1, 2]), a.collect(&[1, 2])), (0, 0));
    b.pull_all(&a);
    a.pull_all(&b);
    assert_eq!((a.collect(&[1, 2]), a.collect(&[1, 2])), (0, 1));
    assert!(a.set("k").context().is_empty());
    assert_eq!(a.meta().tombstones, 0);
    a.check();
}

#[test]
fn a_deleted_key_that_was_forgotten_does_not_come_back_with_old_effects() {
    let (mut a, mut b) = pair();
    let mut c = Zone::new(3);
    b.pull_all(&a);
    c.pull_all(&b);
    for from in [&b, &c] {
        a.pull_all(from);
    }
    a.collect(&[1, 2, 3]);
    assert_eq!(a.collect(&[1, 2, 3]), 1);
    for incarnation in [incarnation(1), incarnation(2)] {
        let effects = b.outbox(incarnation, 0);
        a.entry(vec![Op::Merge {
            incarnation,
            first: 1,
            effects,
        }]);
    }
    a.compare(&c, |_, _| {});
    assert_eq!(a.values("k"), Vec::<String>::new());
    assert_eq!(c.values("k"), ["-"]);
    a.check();
}

#[test]
fn a_write_on_its_way_keeps_the_tombstone_it_does_not_know() {
    let (mut a, mut b) = pair();
    let before = b.received().clone();
    b.put("k", "2");
    let in_flight = b.outbox(incarnation(2), 0);
    b.pull_all(&a);
    assert!(!before.includes(a.received()));
    // The news of what b has arrives before b's write does.
    a.known.insert(incarnation(2), b.received().clone());
    assert_eq!(
        (a.collect(&[1, 2]), a.collect(&[1, 2]), a.collect(&[1, 2])),
        (0, 0, 0)
    );
    a.entry(vec![Op::Merge {
        incarnation: incarnation(2),
        first: 1,
        effects: in_flight,
    }]);
    assert_eq!(a.values("k"), b.values("k"));
    assert_eq!(a.values("k"), ["-", "2"]);
    assert_eq!((a.collect(&[1, 2]), a.collect(&[1, 2])), (0, 0));
}

#[test]
fn a_write_that_does_not_know_a_forgotten_tombstone_replaces_it_where_it_still_is() {
    let (mut a, mut b) = pair();
    b.pull_all(&a);
    a.pull_all(&b);
    a.collect(&[1, 2]);
    assert_eq!(a.collect(&[1, 2]), 1);
    a.written("k", value("2"), WriteIntent::Context(CausalContext::new()));
    b.pull_all(&a);
    assert_eq!(
        (a.values("k"), b.values("k")),
        (vec!["2".to_owned()], vec!["2".to_owned()])
    );
}

#[test]
fn a_write_with_an_old_context_replaces_a_tombstone_that_stands_alone() {
    let (mut a, mut b) = pair();
    b.pull_all(&a);
    a.pull_all(&b);
    a.collect(&[1, 2]);
    assert_eq!(a.collect(&[1, 2]), 1);
    b.written("k", value("2"), WriteIntent::Context(CausalContext::new()));
    a.pull_all(&b);
    assert_eq!(
        (a.values("k"), b.values("k")),
        (vec!["2".to_owned()], vec!["2".to_owned()])
    );
}

#[test]
fn a_tombstone_whose_context_is_ahead_is_kept() {
    let (mut a, mut b) = (Zone::new(1), Zone::new(2));
    let (_, ahead) = b.put("k", "b");
    let (dot, _) = a.written("k", Content::Tombstone, WriteIntent::Context(ahead));
    a.entry(vec![Op::DropTombstones {
        keys: vec![(bytes("k"), vec![dot])],
    }]);
    a.pull_all(&b);
    assert_eq!(
        a.values("k"),
        ["-"],
        "the value that was deleted elsewhere does not appear"
    );
    a.entry(vec![Op::DropTombstones {
        keys: vec![(bytes("k"), vec![dot])],
    }]);
    assert_eq!(a.values("k"), Vec::<String>::new());
}

#[test]
fn a_drop_that_names_other_dots_or_a_live_key_does_nothing() {
    let mut zone = Zone::new(1);
    let (live, _) = zone.put("live", "1");
    let (dead, _) = zone.delete("dead");
    let named = |key: &str, dots: &[Dot]| (bytes(key), dots.to_vec());
    let keys = vec![
        named("live", &[live]),
        named("dead", &[live]),
        named("dead", &[dead, live]),
        named("none", &[dead]),
    ];
    zone.entry(vec![Op::DropTombstones { keys }]);
    assert_eq!(
        (zone.values("live").len(), zone.values("dead").len()),
        (1, 1)
    );
    zone.check();
}

#[test]
fn stability_begins_anew_when_a_peer_changes_its_life() {
    let mut stability = Stability::default();
    let vector = |counter| VersionVector::from_iter([(incarnation(1), counter)]);
    let known = |peer, counter| BTreeMap::from([(incarnation(peer), vector(counter))]);
    let mut stable = |peer, counter| {
        stability
            .observe(&vector(9), [incarnation(peer)], &known(peer, counter))
            .get(incarnation(1))
    };
    assert_eq!((stable(2, 5), stable(2, 7), stable(2, 8)), (0, 5, 7));
    assert_eq!((stable(3, 6), stable(3, 6)), (0, 6));
    assert_eq!(stable(3, 2), 0);
}
