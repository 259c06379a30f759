//! What a client's write does.

use super::*;
use crate::limits::SIBLINGS_MAX;

#[test]
fn a_blind_write_replaces_the_version_there_is() {
    let mut zone = Zone::new(1);
    zone.put("k", "1");
    let (dot, context) = zone.put("k", "2");
    assert_eq!(dot.counter, 2);
    assert!(context.covers(dot));
    assert_eq!(zone.values("k"), ["2"]);
    assert_eq!(zone.meta().keys, 1);
    zone.check();
}

#[test]
fn a_write_with_an_old_context_leaves_a_sibling_and_a_conflict() {
    let mut zone = Zone::new(1);
    let (_, first) = zone.put("k", "1");
    zone.put("k", "2");
    zone.written("k", value("3"), WriteIntent::Context(first));
    assert_eq!(zone.values("k"), ["2", "3"]);
    assert_eq!(zone.meta().conflicts, 1);
    zone.check();
    let seen = zone.set("k").read_context();
    zone.written("k", value("4"), WriteIntent::Context(seen));
    assert_eq!(zone.values("k"), ["4"]);
    assert_eq!(zone.meta().conflicts, 0);
    zone.check();
}

#[test]
fn the_returned_context_replaces_nothing_the_writer_has_not_read() {
    let mut zone = Zone::new(1);
    let (_, first) = zone.put("k", "1");
    zone.put("k", "2");
    let (_, own) = zone.written("k", value("3"), WriteIntent::Context(first));
    zone.written("k", value("4"), WriteIntent::Context(own));
    assert_eq!(zone.values("k"), ["2", "4"]);
}

#[test]
fn a_blind_write_in_a_conflict_replaces_only_the_newest_of_its_own_zone() {
    let (mut a, mut b) = (Zone::new(1), Zone::new(2));
    a.put("k", "a1");
    b.put("k", "b1");
    a.pull_all(&b);
    a.put("k", "a2");
    assert_eq!(a.values("k"), ["a2", "b1"]);
    a.written("k", value("all"), WriteIntent::Overwrite);
    assert_eq!(a.values("k"), ["all"]);
}

#[test]
fn a_delete_beside_a_live_sibling_shows_until_it_is_resolved() {
    let (mut a, mut b) = (Zone::new(1), Zone::new(2));
    a.delete("k");
    b.put("k", "b1");
    a.pull_all(&b);
    assert_eq!(a.values("k"), ["-", "b1"]);
    assert_eq!(
        (a.meta().keys, a.meta().conflicts, a.meta().tombstones),
        (1, 1, 0)
    );
    a.check();
}

#[test]
fn if_absent_holds_on_no_version_and_on_tombstones_only() {
    let mut zone = Zone::new(1);
    zone.written("k", value("1"), WriteIntent::IfAbsent);
    let refused = zone.write("k", value("2"), WriteIntent::IfAbsent);
    assert_eq!(
        refused,
        WriteOutcome::VersionMismatch {
            found: zone.set("k").read_context()
        }
    );
    assert_eq!(
        zone.received().get(incarnation(1)),
        1,
        "a refused write takes no counter"
    );
    zone.delete("k");
    zone.written("k", value("3"), WriteIntent::IfAbsent);
    assert_eq!(zone.values("k"), ["3"]);
}

#[test]
fn if_context_needs_every_sibling_covered() {
    let mut zone = Zone::new(1);
    let (_, first) = zone.put("k", "1");
    zone.written("k", value("2"), WriteIntent::IfContext(first.clone()));
    let refused = zone.write("k", value("3"), WriteIntent::IfContext(first));
    assert!(
        matches!(refused, WriteOutcome::VersionMismatch { .. }),
        "{refused:?}"
    );
    assert_eq!(zone.values("k"), ["2"]);
}

#[test]
fn if_context_of_a_version_deleted_and_collected_since_does_not_hold() {
    let mut zone = Zone::new(1);
    let (_, read) = zone.put("k", "1");
    zone.delete("k");
    assert_eq!(zone.collect(&[1]), 1);
    let refused = zone.write("k", value("2"), WriteIntent::IfContext(read));
    assert!(
        matches!(refused, WriteOutcome::VersionMismatch { .. }),
        "{refused:?}"
    );
    zone.written(
        "k",
        value("3"),
        WriteIntent::IfContext(CausalContext::new()),
    );
}

#[test]
fn a_write_that_would_add_one_sibling_too_many_is_refused_and_one_that_replaces_is_not() {
    let mut zone = Zone::new(1);
    for n in 0..SIBLINGS_MAX {
        zone.written(
            "k",
            value(&n.to_string()),
            WriteIntent::Context(CausalContext::new()),
        );
    }
    let refused = zone.write("k", value("x"), WriteIntent::Context(CausalContext::new()));
    assert_eq!(
        refused,
        WriteOutcome::TooManySiblings {
            siblings: SIBLINGS_MAX
        }
    );
    zone.put("k", "y");
    assert_eq!(zone.set("k").siblings().len(), SIBLINGS_MAX);
}

#[test]
fn an_entry_applied_twice_changes_nothing_the_second_time() {
    let mut zone = Zone::new(1);
    zone.put("k", "1");
    let before = zone.meta().clone();
    let op = Op::Trim {
        through: before.received.clone(),
    };
    let command = Command {
        hlc: Hlc::new(9_999, 0),
        ops: vec![op],
    };
    let mut work = Workspace::new(&zone.engine, false);
    for index in 0..=zone.index {
        assert_eq!(
            zone.shard.apply(index, command.clone(), &mut work),
            Ok(Applied::default())
        );
    }
    assert!(work.is_empty());
    assert_eq!(*zone.meta(), before);
}

#[test]
fn an_empty_entry_only_moves_the_applied_index() {
    let mut zone = Zone::new(1);
    zone.put("k", "1");
    let before = zone.meta().clone();
    zone.shard.apply_empty(9);
    assert_eq!(
        *zone.meta(),
        ShardMeta {
            applied: 9,
            ..before
        }
    );
}

#[test]
fn outbox_bytes_and_lag_follow_from_records_without_a_scan() {
    let mut zone = Zone::new(1);
    let own = incarnation(1);
    let group = zone.shard.group();
    for n in 0..5 {
        zone.put("k", &n.to_string());
    }
    let pending =
        |zone: &Zone, acked| outbox::pending(&zone.engine, zone.meta(), group, own, acked).unwrap();
    let (entries, bytes, oldest) = pending(&zone, 0);
    assert_eq!(
        (entries, bytes, oldest),
        (5, zone.meta().outbox_bytes, Some(Hlc::new(1_001, 0)))
    );
    let (entries, fewer, oldest) = pending(&zone, 3);
    assert_eq!((entries, oldest), (2, Some(Hlc::new(1_004, 0))));
    assert!(fewer < bytes);
    assert_eq!(pending(&zone, 5), (0, 0, None));

    zone.entry(vec![Op::Trim {
        through: [(own, 3)].into_iter().collect(),
    }]);
    assert_eq!(zone.meta().outbox_bytes, fewer);
    assert_eq!(pending(&zone, 1), (4, fewer, Some(Hlc::new(1_004, 0))));
    assert_eq!(zone.outbox(own, 1), [], "what follows is no longer kept");
    assert_eq!(zone.outbox(own, 3).len(), 2);
    zone.entry(vec![Op::Trim {
        through: [(own, 2)].into_iter().collect(),
    }]);
    assert_eq!(
        zone.meta().outbox_floor.get(own),
        3,
        "a floor never goes back"
    );
    zone.entry(vec![Op::Trim {
        through: [(own, 99), (incarnation(9), 4)].into_iter().collect(),
    }]);
    assert_eq!(
        (zone.meta().outbox_floor.get(own), zone.meta().outbox_bytes),
        (5, 0)
    );
    assert_eq!(zone.meta().outbox_floor.get(incarnation(9)), 0);
}

#[test]
fn effects_read_from_the_outbox_stay_within_the_bytes_asked_for_but_are_at_least_one() {
    let mut zone = Zone::new(1);
    for n in 0..4 {
        zone.put("k", &format!("{n:0>100}"));
    }
    let read = |max| {
        outbox::read(&zone.engine, zone.shard.group(), incarnation(1), 1, max)
            .unwrap()
            .len()
    };
    assert_eq!((read(0), read(400), read(usize::MAX)), (1, 2, 3));
}
