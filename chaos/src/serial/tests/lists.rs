//! Lists.

use super::*;

#[test]
fn transactions_one_after_another_are_clean() {
    let txns = [
        ok(0..1, &[append(1, 1), append(2, 1)]),
        ok(2..3, &[list(1, &[1]), append(1, 2), list(1, &[1, 2])]),
        ok(4..5, &[list(1, &[1, 2]), list(2, &[1]), list(3, &[])]),
    ];
    assert!(names(&txns).is_empty());
}

#[test]
fn writes_that_interleave_on_two_keys_are_g0() {
    let txns = [
        ok(0..9, &[append(1, 1), append(2, 1)]),
        ok(0..9, &[append(1, 2), append(2, 2)]),
        ok(10..11, &[list(1, &[1, 2]), list(2, &[2, 1])]),
    ];
    assert_eq!(names(&txns), ["G0"]);
}

#[test]
fn transactions_that_read_one_another_are_g1c() {
    let txns = [
        ok(0..9, &[append(1, 1), list(2, &[1])]),
        ok(0..9, &[append(2, 1), list(1, &[1])]),
    ];
    assert_eq!(names(&txns), ["G1c"]);
}

#[test]
fn half_of_a_transaction_seen_is_g_single() {
    let txns = [
        ok(0..9, &[append(1, 1), append(2, 1)]),
        ok(0..9, &[list(1, &[1]), list(2, &[])]),
        ok(10..11, &[list(2, &[1])]),
    ];
    assert_eq!(names(&txns), ["G-single"]);
}

#[test]
fn a_cycle_is_told_with_keys_and_values() {
    let txns = [
        ok(0..9, &[append(1, 1), append(2, 1)]),
        ok(0..9, &[list(1, &[1]), list(2, &[])]),
        ok(10..11, &[list(2, &[1])]),
    ];
    let found = found("G-single", &txns);
    assert_eq!(
        found.details,
        [
            "T1 = process 1001 ok [[:r 1 [1]] [:r 2 []]]",
            "T0 = process 1000 ok [[:append 1 1] [:append 2 1]]",
            "T1 < T0: T1 read nothing of key 2, without 1, which T0 wrote",
            "T0 < T1: T1 read 1 of key 1, which T0 wrote",
        ]
    );
}

#[test]
fn write_skew_is_g2() {
    let txns = [
        ok(0..9, &[list(1, &[]), append(2, 1)]),
        ok(0..9, &[list(2, &[]), append(1, 1)]),
        ok(10..11, &[list(1, &[1]), list(2, &[1])]),
    ];
    assert_eq!(names(&txns), ["G2"]);
}

#[test]
fn write_skew_is_found_when_nobody_read_the_outcome() {
    let txns = [
        ok(0..9, &[list(1, &[]), append(2, 1)]),
        ok(0..9, &[list(2, &[]), append(1, 1)]),
    ];
    assert_eq!(names(&txns), ["G2"]);
}

#[test]
fn a_long_fork_is_g2() {
    let txns = [
        ok(0..9, &[append(1, 1)]),
        ok(0..9, &[append(2, 1)]),
        ok(0..9, &[list(1, &[1]), list(2, &[])]),
        ok(0..9, &[list(1, &[]), list(2, &[1])]),
    ];
    assert_eq!(names(&txns), ["G2"]);
}

#[test]
fn a_read_that_misses_what_was_over_is_found_by_real_time_only() {
    let append_1 = ok(0..1, &[append(1, 1)]);
    assert_eq!(
        names(&[append_1.clone(), ok(2..3, &[list(1, &[])])]),
        ["G-single-realtime"]
    );
    assert!(names(&[append_1, ok(1..3, &[list(1, &[])])]).is_empty());
}

#[test]
fn a_process_that_misses_its_own_write_is_told_apart() {
    let txns = [
        by(1, ok(0..1, &[append(1, 1)])),
        by(1, ok(1..3, &[list(1, &[])])),
    ];
    assert_eq!(names(&txns), ["G-single-process"]);
}

#[test]
fn writes_against_real_time_are_g0_realtime() {
    let txns = [
        ok(0..1, &[append(1, 1)]),
        ok(2..3, &[append(1, 2)]),
        ok(2..9, &[list(1, &[2, 1])]),
    ];
    assert_eq!(names(&txns), ["G0-realtime"]);
}

#[test]
fn an_acknowledged_append_that_is_gone_is_found() {
    let txns = [
        ok(0..1, &[append(1, 1)]),
        ok(2..3, &[append(1, 2)]),
        ok(4..5, &[list(1, &[1])]),
    ];
    assert_eq!(names(&txns), ["G-single-realtime"]);
}

#[test]
fn a_read_of_a_failed_append_is_g1a_and_one_of_unknown_outcome_is_not() {
    let writer = ok(0..1, &[append(1, 1)]);
    let reader = ok(2..3, &[list(1, &[1])]);
    let failed = ended(Status::Fail, writer.clone());
    assert_eq!(names(&[failed, reader.clone()]), ["G1a"]);
    let unknown = ended(Status::Info, writer);
    assert!(names(&[unknown.clone(), reader]).is_empty());
    assert!(names(&[unknown, ok(2..3, &[list(1, &[])])]).is_empty());
}

#[test]
fn an_append_of_unknown_outcome_seen_once_is_seen_whole_and_stays() {
    let unknown = ended(Status::Info, ok(0..1, &[append(1, 1), append(2, 1)]));
    let half = ok(2..3, &[list(1, &[1]), list(2, &[])]);
    assert_eq!(names(&[unknown.clone(), half]), ["G-single"]);
    let gone = [
        unknown,
        ok(2..3, &[list(1, &[1])]),
        ok(4..5, &[list(1, &[])]),
    ];
    assert_eq!(names(&gone), ["G-single-realtime"]);
}

#[test]
fn an_effective_append_after_a_failed_one_is_a_dirty_update() {
    let txns = [
        ended(Status::Fail, ok(0..1, &[append(1, 1)])),
        ok(2..3, &[append(1, 2)]),
        ok(4..5, &[list(1, &[1, 2])]),
    ];
    assert_eq!(names(&txns), ["G1a", "dirty-update"]);
}

#[test]
fn a_read_between_two_appends_of_one_transaction_is_g1b() {
    let txns = [
        ok(0..9, &[append(1, 1), append(1, 2)]),
        ok(0..9, &[list(1, &[1])]),
        ok(10..11, &[list(1, &[1, 2])]),
    ];
    assert!(names(&txns).contains(&"G1b"));
}

#[test]
fn reads_that_disagree_on_the_order_are_incompatible() {
    let txns = [
        ok(0..9, &[append(1, 1)]),
        ok(0..9, &[append(1, 2)]),
        ok(0..9, &[list(1, &[1, 2])]),
        ok(0..9, &[list(1, &[2])]),
    ];
    assert_eq!(names(&txns), ["incompatible-order"]);
}

#[test]
fn values_twice_values_from_nowhere_and_values_given_twice_are_found() {
    let writer = ok(0..1, &[append(1, 1)]);
    assert_eq!(
        names(&[writer.clone(), ok(2..3, &[list(1, &[1, 1])])]),
        ["duplicate-element"]
    );
    assert_eq!(
        names(&[writer.clone(), ok(2..3, &[list(1, &[1, 7])])]),
        ["garbage-read"]
    );
    assert_eq!(names(&[writer.clone(), writer]), ["reused-value"]);
}

#[test]
fn a_transaction_must_see_its_own_appends_and_the_same_list_twice() {
    let unseen = ok(0..1, &[append(1, 1), list(1, &[])]);
    assert!(names(&[unseen]).contains(&"internal"));
    let twice = [
        ok(0..9, &[append(1, 1)]),
        ok(0..9, &[list(1, &[]), list(1, &[1])]),
    ];
    assert!(names(&twice).contains(&"internal"));
}

#[test]
fn two_appends_upon_the_same_list_are_a_lost_update() {
    let txns = [
        ok(0..9, &[list(1, &[]), append(1, 1)]),
        ok(0..9, &[list(1, &[]), append(1, 2)]),
        ok(10..11, &[list(1, &[1])]),
    ];
    let names = names(&txns);
    assert!(names.contains(&"lost-update"), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with('G')), "{names:?}");
}
