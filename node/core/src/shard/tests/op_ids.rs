//! How retries take effect once.

use super::*;
use crate::config::Bounds;
use crate::shard::compare::{recall, recalled};
use crate::shard::op_ids::eviction;

fn bounds(op_ids_max: u64) -> Bounds {
    Bounds {
        op_ids_max,
        op_id_age_ms: 1_000_000,
        ..Bounds::default()
    }
}

fn evict(zone: &mut Zone, bounds: &Bounds, now_ms: u64) -> bool {
    let op = eviction(
        &zone.engine,
        zone.meta(),
        zone.shard.group(),
        bounds,
        now_ms,
    )
    .unwrap();
    let any = op.is_some();
    zone.entry(op.into_iter().collect());
    any
}

#[test]
fn a_retry_is_told_what_the_first_attempt_did() {
    let mut zone = Zone::new(1);
    let op_id = zone.new_op_id();
    let first = zone.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    let WriteOutcome::Written {
        dot,
        context,
        repeated: false,
    } = first
    else {
        panic!("{first:?}")
    };
    zone.put("k", "2");
    zone.restart(PlantedBugs::default());
    let retry = zone.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    assert_eq!(
        retry,
        WriteOutcome::Written {
            dot,
            context,
            repeated: true
        }
    );
    assert_eq!(zone.values("k"), ["2"]);
}

#[test]
fn a_retry_inside_one_entry_takes_effect_once() {
    let mut zone = Zone::new(1);
    let op_id = zone.new_op_id();
    let op = Op::Write(WriteOp {
        key: bytes("k"),
        content: value("1"),
        intent: WriteIntent::Blind,
        op_id,
        expires_at_ms: None,
        waiter: Waiter::default(),
    });
    let applied = zone.entry(vec![op.clone(), op]);
    let repeats: Vec<_> = applied
        .outcomes
        .iter()
        .map(|(_, _, outcome)| matches!(outcome, WriteOutcome::Written { repeated: true, .. }))
        .collect();
    assert_eq!((repeats, applied.effects.len()), (vec![false, true], 1));
}

#[test]
fn an_op_id_used_for_another_key_is_refused() {
    let mut zone = Zone::new(1);
    let op_id = zone.new_op_id();
    zone.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    assert_eq!(
        zone.write_as(op_id, "other", value("1"), WriteIntent::Blind),
        WriteOutcome::OpIdReused
    );
    assert!(zone.set("other").is_empty());
}

#[test]
fn a_retry_in_the_zone_that_received_the_first_attempt_takes_no_effect() {
    let (mut a, mut b) = (Zone::new(1), Zone::new(2));
    let op_id = a.new_op_id();
    let first = a.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    b.pull_all(&a);
    let retry = b.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    let (
        WriteOutcome::Written { dot, .. },
        WriteOutcome::Written {
            dot: again,
            repeated: true,
            ..
        },
    ) = (first, retry)
    else {
        panic!("both attempts stand")
    };
    assert_eq!((dot, b.received().get(incarnation(2))), (again, 0));
}

#[test]
fn attempts_that_landed_in_two_zones_show_as_one_version() {
    let (mut a, mut b) = (Zone::new(1), Zone::new(2));
    let op_id = a.new_op_id();
    a.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    b.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    a.pull_all(&b);
    b.pull_all(&a);
    for zone in [&a, &b] {
        assert_eq!(
            (
                zone.set("k").siblings().len(),
                zone.meta().conflicts,
                zone.meta().op_count
            ),
            (2, 0, 1)
        );
        zone.check();
    }
}

#[test]
fn the_oldest_op_ids_go_when_there_are_too_many_and_the_floor_rises_above_them() {
    let mut zone = Zone::new(1);
    let ids: Vec<_> = (0..10)
        .map(|_| {
            let op_id = zone.new_op_id();
            zone.write_as(op_id, "k", value("1"), WriteIntent::Blind);
            op_id
        })
        .collect();
    assert!(evict(&mut zone, &bounds(4), 0));
    assert_eq!(zone.meta().op_count, 4);
    let outcomes: Vec<_> = ids
        .iter()
        .map(|id| zone.write_as(*id, "k", value("1"), WriteIntent::Blind))
        .collect();
    for (n, outcome) in outcomes.iter().enumerate() {
        let repeated = matches!(outcome, WriteOutcome::Written { repeated: true, .. });
        let told = if n < 6 {
            *outcome == WriteOutcome::OutcomeUnknown
        } else {
            repeated
        };
        assert!(told, "retry {n}: {outcome:?}");
    }
    assert!(
        !evict(&mut zone, &bounds(4), 0),
        "there is nothing left to forget"
    );
    zone.check();
}

#[test]
fn op_ids_go_by_age() {
    let mut zone = Zone::new(1);
    zone.put("k", "1");
    let bounds = Bounds {
        op_id_age_ms: 50,
        ..bounds(100)
    };
    assert!(!evict(&mut zone, &bounds, 1_040));
    assert!(evict(&mut zone, &bounds, 1_052));
    assert_eq!((zone.meta().op_count, zone.meta().op_floor_ms), (0, 1_001));
    zone.put("k", "2");
    zone.check();
}

#[test]
fn an_eviction_without_a_floor_raises_it_all_the_same() {
    let mut zone = Zone::new(1);
    let op_id = zone.new_op_id();
    zone.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    zone.entry(vec![Op::EvictOpIds {
        through_index: u64::MAX,
        floor_ms: 0,
    }]);
    assert_eq!(
        zone.write_as(op_id, "k", value("1"), WriteIntent::Blind),
        WriteOutcome::OutcomeUnknown
    );
    zone.put("k", "2");
    assert_eq!(zone.meta().op_count, 1);
    zone.check();
}

#[test]
fn the_planted_bug_forgets_op_ids_at_a_restart() {
    let mut zone = Zone::new(1);
    let op_id = zone.new_op_id();
    zone.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    zone.restart(PlantedBugs {
        forget_op_ids_at_restart: true,
        ..PlantedBugs::default()
    });
    let retry = zone.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    assert!(
        matches!(
            retry,
            WriteOutcome::Written {
                repeated: false,
                ..
            }
        ),
        "{retry:?}"
    );
}

#[test]
fn a_retry_after_a_comparison_is_known_though_the_version_it_wrote_was_replaced() {
    let (mut a, mut b) = (Zone::new(1), Zone::new(2));
    let op_id = b.new_op_id();
    let first = b.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    let WriteOutcome::Written { dot, .. } = first else {
        panic!("{first:?}")
    };
    for n in 0..10 {
        b.put("k", &format!("later {n}"));
    }
    b.trim_all();
    a.compare(&b, |_, _| {});
    let retry = a.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    assert!(
        matches!(retry, WriteOutcome::Written { dot: known, repeated: true, .. } if known == dot),
        "{retry:?}"
    );
    assert_eq!(a.values("k"), ["later 9"]);
}

#[test]
fn what_a_view_has_forgotten_is_forgotten_by_who_compares_with_it() {
    let (mut a, mut b) = (Zone::new(1), Zone::new(2));
    let op_id = b.new_op_id();
    b.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    for n in 0..10 {
        b.put("k", &format!("later {n}"));
    }
    assert!(evict(&mut b, &bounds(2), 0));
    b.trim_all();
    a.compare(&b, |_, _| {});
    let retry = a.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    assert_eq!(retry, WriteOutcome::OutcomeUnknown);
}

#[test]
fn operations_that_do_not_read_are_passed_over() {
    let mut zone = Zone::new(1);
    let snapshot = VersionVector::new();
    let damaged = (bytes("id"), bytes("record"));
    zone.entry(vec![
        Op::CompareBegin {
            source: ZoneId(2),
            snapshot: snapshot.clone(),
        },
        Op::CompareRemember {
            snapshot,
            floor_ms: 0,
            operations: vec![damaged],
        },
    ]);
    assert_eq!(zone.meta().op_count, 0);
}

#[test]
fn what_is_remembered_is_told_in_pages_that_go_on_inside_an_entry() {
    let mut zone = Zone::new(1);
    let ids: Vec<OpId> = (0..10).map(|_| zone.new_op_id()).collect();
    for part in ids.chunks(4) {
        let writes = part.iter().map(|op_id| {
            Op::Write(WriteOp {
                key: bytes("k"),
                content: value("1"),
                intent: WriteIntent::Blind,
                op_id: *op_id,
                expires_at_ms: None,
                waiter: Waiter::default(),
            })
        });
        zone.entry(writes.collect());
    }
    let (mut told, mut from) = (Vec::new(), Bytes::new());
    loop {
        let nothing = VersionVector::new();
        let group = zone.shard.group();
        let page = recall(&zone.engine, group, (&from, &nothing), 3).unwrap();
        assert!(page.operations.len() <= 3);
        let read = page.operations.iter();
        told.extend(read.map(|(id, operation)| recalled(id, operation).unwrap().0));
        if page.next.is_empty() {
            break;
        }
        from = page.next;
    }
    assert_eq!(told, ids);
    let group = zone.shard.group();
    let all = (&Bytes::new()[..], zone.received());
    assert_eq!(
        recall(&zone.engine, group, all, 100).unwrap().operations,
        []
    );
}

#[test]
fn a_retry_is_known_by_its_id_whatever_stamp_it_bears() {
    let mut zone = Zone::new(1);
    let op_id = zone.new_op_id();
    zone.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    let later = OpId {
        stamp_ms: op_id.stamp_ms + 5,
        ..op_id
    };
    let retry = zone.write_as(later, "k", value("1"), WriteIntent::Blind);
    let repeated = matches!(retry, WriteOutcome::Written { repeated: true, .. });
    assert!(repeated, "{retry:?}");
}

/// The index takes some ids for others: what an entry enters itself is not to be looked for in the store.
#[test]
fn an_id_that_looks_like_one_of_its_own_entry_is_new() {
    let write = |id: u128| {
        Op::Write(WriteOp {
            key: bytes("k"),
            content: value("1"),
            intent: WriteIntent::Blind,
            op_id: OpId { stamp_ms: 1, id },
            expires_at_ms: None,
            waiter: Waiter::default(),
        })
    };
    let ids = 0..1_000_u128;
    let mut zone = Zone::new(1);
    zone.entry(ids.clone().map(write).collect());
    let index = &zone.shard.op_index;
    let alike = (1_000..10_000_000).find(|id| index.entries(*id).next().is_some());
    let alike = alike.expect("some id looks like another");
    let mut zone = Zone::new(1);
    let applied = zone.entry(ids.chain([alike]).map(write).collect());
    assert_eq!(applied.effects.len(), 1_001);
}
