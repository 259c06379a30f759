//! Registers.

use super::*;

#[test]
fn transactions_one_after_another_are_clean() {
    let txns = [
        ok(0..1, &[read(1, None), write(1, 1), write(2, 2)]),
        ok(2..3, &[read(1, 1), write(1, 3), read(1, 3)]),
        ok(4..5, &[read(1, 3), read(2, 2), read(3, None)]),
    ];
    assert!(names(&txns).is_empty());
}

#[test]
fn concurrent_blind_writes_may_be_read_in_either_order() {
    let writes = [ok(0..9, &[write(1, 1)]), ok(0..9, &[write(1, 2)])];
    for (first, second) in [(1, 2), (2, 1)] {
        let reads = [ok(2..3, &[read(1, first)]), ok(4..5, &[read(1, second)])];
        assert!(names(&[writes.as_slice(), &reads].concat()).is_empty());
    }
}

#[test]
fn reads_that_go_back_and_forth_between_concurrent_writes_are_found() {
    let txns = [
        ok(0..9, &[write(1, 1)]),
        ok(0..9, &[write(1, 2)]),
        ok(1..2, &[read(1, 1)]),
        ok(3..4, &[read(1, 2)]),
        ok(5..6, &[read(1, 1)]),
    ];
    assert_eq!(names(&txns), ["G0-realtime"]);
}

#[test]
fn transactions_that_read_one_another_are_g1c() {
    let txns = [
        ok(0..9, &[write(1, 1), read(2, 2)]),
        ok(0..9, &[write(2, 2), read(1, 1)]),
    ];
    assert_eq!(names(&txns), ["G1c"]);
}

#[test]
fn half_of_a_transaction_seen_is_g_single() {
    let txns = [
        ok(0..9, &[write(1, 1), write(2, 1)]),
        ok(0..9, &[read(1, 1), read(2, None)]),
    ];
    assert_eq!(names(&txns), ["G-single"]);
}

#[test]
fn half_of_an_update_seen_is_g_single() {
    let txns = [
        ok(0..1, &[write(1, 1), write(2, 1)]),
        ok(2..9, &[read(1, 1), write(1, 2), read(2, 1), write(2, 2)]),
        ok(2..9, &[read(1, 2), read(2, 1)]),
    ];
    assert_eq!(names(&txns), ["G-single"]);
}

#[test]
fn write_skew_is_g2() {
    let txns = [
        ok(0..9, &[read(1, None), write(2, 1)]),
        ok(0..9, &[read(2, None), write(1, 1)]),
    ];
    assert_eq!(names(&txns), ["G2"]);
}

#[test]
fn a_stale_read_is_found_by_real_time_only() {
    let writes = [ok(0..1, &[write(1, 1)]), ok(2..4, &[write(1, 2)])];
    let with = |reader: Txn| names(&[writes.as_slice(), &[reader]].concat());
    assert_eq!(with(ok(5..6, &[read(1, 1)])), ["G-single-realtime"]);
    assert_eq!(with(ok(5..6, &[read(1, None)])), ["G-single-realtime"]);
    assert!(with(ok(3..6, &[read(1, 1)])).is_empty());
}

#[test]
fn an_update_of_a_stale_version_is_found() {
    let stale = |version: Option<u64>| {
        let txns = [
            ok(0..1, &[write(1, 1)]),
            ok(2..3, &[write(1, 2)]),
            ok(4..5, &[read(1, version), write(1, 3)]),
        ];
        names(&txns)
    };
    assert_eq!(stale(Some(1)), ["G-single-realtime"]);
    assert_eq!(stale(None), ["G-single-realtime"]);
    assert!(stale(Some(2)).is_empty());
}

#[test]
fn a_read_of_a_failed_write_is_g1a_and_its_update_a_dirty_update() {
    let failed = ended(Status::Fail, ok(0..1, &[write(1, 1)]));
    assert_eq!(names(&[failed.clone(), ok(2..3, &[read(1, 1)])]), ["G1a"]);
    assert_eq!(
        names(&[failed, ok(2..3, &[read(1, 1), write(1, 2)])]),
        ["G1a", "dirty-update"]
    );
}

#[test]
fn a_read_of_a_value_replaced_by_its_own_transaction_is_g1b() {
    let txns = [
        ok(0..9, &[write(1, 1), write(1, 2)]),
        ok(0..9, &[read(1, 1)]),
    ];
    assert_eq!(names(&txns), ["G1b"]);
}

#[test]
fn two_updates_of_one_version_are_a_lost_update() {
    let txns = [
        ok(0..1, &[write(1, 1)]),
        ok(2..9, &[read(1, 1), write(1, 2)]),
        ok(2..9, &[read(1, 1), write(1, 3)]),
    ];
    assert_eq!(names(&txns), ["lost-update", "G2"]);
}

#[test]
fn a_transaction_must_see_its_own_writes_and_the_same_value_twice() {
    assert_eq!(
        names(&[ok(0..1, &[write(1, 1), read(1, None)])]),
        ["internal"]
    );
    let twice = [
        ok(0..9, &[write(1, 1)]),
        ok(0..9, &[read(1, None), read(1, 1)]),
    ];
    assert!(names(&twice).contains(&"internal"));
}

#[test]
fn a_value_from_nowhere_and_a_value_given_twice_are_found() {
    assert_eq!(names(&[ok(0..1, &[read(1, 7)])]), ["garbage-read"]);
    assert_eq!(
        names(&[ok(0..1, &[write(1, 7)]), ok(2..3, &[write(1, 7)])]),
        ["reused-value"]
    );
}

#[test]
fn a_write_of_unknown_outcome_may_take_effect_late_and_then_stays() {
    let txns = [
        ok(0..1, &[write(1, 1)]),
        ended(Status::Info, ok(2..3, &[write(1, 2)])),
        ok(4..5, &[read(1, 1)]),
        ok(6..7, &[read(1, 2)]),
    ];
    assert!(names(&txns).is_empty());
    let back = [txns.as_slice(), &[ok(8..9, &[read(1, 1)])]].concat();
    assert_eq!(names(&back).len(), 1);
}
