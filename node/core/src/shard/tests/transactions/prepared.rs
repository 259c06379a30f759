//! What is prepared, locked, decided and resolved where another shard may decide.

use super::*;

#[test]
fn a_prepared_write_locks_its_key_until_it_is_resolved() {
    for verdict in [COMMITTED, Verdict::Aborted] {
        let mut zone = Zone::new(1);
        zone.put("k", "1");
        zone.prepare(7, part(vec![], vec![put("k", "2")]));
        assert!(zone.is_locked("k") && !zone.is_locked("other"));
        let other = zone.transact(part(vec![], vec![put("k", "3")]));
        assert!(is_conflict(&other));
        let reads = zone.transact(part(vec![], vec![get("k"), put("x", "1")]));
        assert!(is_conflict(&reads), "nobody reads it");
        assert!(is_conflict(
            &zone.try_prepare(8, part(vec![exists("k")], vec![]))
        ));
        let applied = zone.resolve(7, verdict);
        assert_eq!(applied.resolved.len(), 1);
        assert_eq!(applied.resolved[0].verdict, verdict);
        zone.expect_unlocked();
        let expected = if verdict == COMMITTED { "2" } else { "1" };
        assert_eq!(zone.values("k"), [expected]);
        assert!(!zone.is_locked("k"));
        zone.check();
    }
}

#[test]
fn what_a_prepared_part_compares_may_be_read_and_not_written() {
    let mut zone = Zone::new(1);
    zone.put("k", "1");
    let compared = || {
        part(
            vec![exists("k"), absent("none")],
            vec![get("read"), put("w", "1")],
        )
    };
    zone.prepare(7, compared());
    for key in ["k", "none", "read"] {
        assert!(zone.is_locked(key), "{key}");
        let only_reads = zone.transact(part(vec![], vec![get(key)]));
        assert!(only_reads.is_ok(), "{key}");
    }
    let shared = part(vec![exists("k")], vec![put("v", "1")]);
    zone.prepare(8, shared);
    zone.resolve(7, COMMITTED);
    assert!(zone.is_locked("k"), "the other one still reads it");
    assert!(!zone.is_locked("none"));
    zone.resolve(8, Verdict::Aborted);
    assert!(!zone.is_locked("k"));
    zone.expect_unlocked();
}

#[test]
fn a_compared_range_is_locked_for_keys_that_do_not_exist() {
    let mut zone = Zone::new(1);
    let range = zone.range_unchanged("m", "n");
    zone.prepare(7, part(vec![range], vec![put("w", "1")]));
    assert!(zone.is_locked("m") && zone.is_locked("mm"));
    assert!(!zone.is_locked("n") && !zone.is_locked("l"));
    zone.resolve(7, COMMITTED);
    assert!(!zone.is_locked("mm"));
}

#[test]
fn a_range_that_a_prepared_part_writes_into_cannot_be_compared() {
    let mut zone = Zone::new(1);
    let (inside, beside) = (
        zone.range_unchanged("m", "n"),
        zone.range_unchanged("n", "o"),
    );
    zone.prepare(7, part(vec![], vec![put("mm", "1")]));
    assert!(is_conflict(&zone.transact(part(vec![inside], vec![]))));
    assert!(zone.transact(part(vec![beside], vec![])).is_ok());
}

#[test]
fn a_part_that_does_not_hold_is_refused_or_promised_with_the_other_list() {
    let mut zone = Zone::new(1);
    let refused = zone.try_prepare(7, part(vec![exists("k")], vec![put("k", "1")]));
    assert!(is_conflict(&refused));
    zone.expect_unlocked();
    let asked = Part {
        compare: vec![exists("k")],
        then: vec![put("k", "then")],
        otherwise: vec![put("k", "else"), get("r")],
    };
    let vote = zone.try_prepare(8, asked).unwrap();
    assert!(!vote.holds);
    assert_eq!(vote.otherwise.len(), 1);
    let verdict = Verdict::Committed {
        succeeded: false,
        at: 1,
    };
    zone.resolve(8, verdict);
    assert_eq!(zone.values("k"), ["else"]);
}

#[test]
fn a_condition_of_a_prepared_write_is_checked_when_it_is_promised() {
    let mut zone = Zone::new(1);
    zone.put("k", "1");
    let write = |text: &str| {
        part(
            vec![],
            vec![put_if("k", "2", WriteIntent::IfValue(bytes(text)))],
        )
    };
    let refused = zone.try_prepare(7, write("0"));
    assert!(matches!(refused, Err(Error::VersionMismatch { .. })));
    zone.expect_unlocked();
    zone.prepare(8, write("1"));
    zone.resolve(8, COMMITTED);
    assert_eq!(zone.values("k"), ["2"]);
}

#[test]
fn a_merge_goes_through_a_lock_and_its_version_stays_beside_the_commit() {
    let [mut a, mut b] = [Zone::new(1), Zone::new(2)];
    a.put("k", "old");
    b.pull_all(&a);
    a.prepare(7, part(vec![is_value("k", "old")], vec![put("k", "new")]));
    b.put("k", "elsewhere");
    a.pull_all(&b);
    assert_eq!(a.values("k"), ["elsewhere"]);
    a.resolve(7, COMMITTED);
    let mut values = a.values("k");
    values.sort();
    assert_eq!(values, ["elsewhere", "new"]);
    b.pull_all(&a);
    assert_eq!(b.set("k").siblings(), a.set("k").siblings());
    a.check();
    b.check();
}

#[test]
fn a_resolution_of_nothing_does_nothing() {
    let mut zone = Zone::new(1);
    zone.put("k", "1");
    let before = zone.received().clone();
    for verdict in [COMMITTED, Verdict::Aborted] {
        assert!(zone.resolve(7, verdict).resolved.is_empty());
    }
    assert_eq!(zone.received(), &before);
    zone.prepare(8, part(vec![], vec![put("k", "2")]));
    zone.resolve(8, COMMITTED);
    let once = zone.received().clone();
    zone.resolve(8, COMMITTED);
    zone.resolve(8, Verdict::Aborted);
    assert_eq!(zone.received(), &once);
    assert_eq!(zone.values("k"), ["2"]);
}

#[test]
fn a_prepare_again_gives_the_same_vote_and_one_after_the_commit_is_refused() {
    let mut zone = Zone::new(1);
    zone.put("k", "1");
    let op = zone.prepare_op(7, part(vec![exists("k")], vec![get("k"), put("k", "2")]));
    let vote = zone.prepare_again(op.clone()).unwrap();
    assert_eq!(zone.prepare_again(op.clone()).unwrap(), vote);
    zone.resolve(7, COMMITTED);
    zone.restart(PlantedBugs::default());
    assert!(is_conflict(&zone.prepare_again(op.clone())));
    let through_index = zone.index;
    zone.entry(vec![Op::EvictOpIds {
        through_index,
        floor_ms: 0,
    }]);
    assert!(
        is_conflict(&zone.prepare_again(op)),
        "its stamp is below the floor"
    );
    zone.expect_unlocked();
    assert_eq!(zone.values("k"), ["2"]);
}

#[test]
fn locks_and_decisions_are_what_the_store_says_after_a_restart() {
    let mut zone = Zone::new(1);
    zone.put("k", "1");
    let range = zone.range_unchanged("m", "n");
    zone.prepare(7, part(vec![exists("k"), range], vec![put("w", "1")]));
    let op_id = zone.new_op_id();
    assert_eq!(
        zone.decide(9, op_id, part(vec![], vec![put("d", "1")]))
            .unwrap()
            .parts,
        3
    );
    let decided_at = zone.index;
    zone.restart(PlantedBugs::default());
    for key in ["k", "w", "mm"] {
        assert!(zone.is_locked(key), "{key}");
    }
    let decided = zone.shard.locks().decided();
    let (at, decision) = decided.get(&TransactionId(9)).unwrap();
    assert_eq!((*at, decision.succeeded), (decided_at, true));
    assert_eq!(decision.others, [ShardId(3), ShardId(5)]);
    zone.entry(vec![Op::Forget {
        ids: vec![TransactionId(9)],
    }]);
    zone.restart(PlantedBugs::default());
    assert!(zone.shard.locks().decided().is_empty());
    zone.resolve(7, COMMITTED);
    zone.restart(PlantedBugs::default());
    zone.expect_unlocked();
    assert_eq!(zone.values("w"), ["1"]);
}

#[test]
fn a_bug_that_forgets_locks_at_a_restart_is_one() {
    let mut zone = Zone::new(1);
    zone.prepare(7, part(vec![], vec![put("k", "1")]));
    let forgets = PlantedBugs {
        forget_locks_at_restart: true,
        ..PlantedBugs::default()
    };
    zone.restart(forgets);
    assert!(!zone.is_locked("k"));
}

// ---------------------------------------------------------------- decided

#[test]
fn a_decision_is_taken_once_per_op_id_and_refused_without_effect() {
    let mut zone = Zone::new(1);
    let op_id = zone.new_op_id();
    let refused = zone.decide(1, op_id, part(vec![exists("k")], vec![put("k", "1")]));
    assert!(is_conflict(&refused));
    assert!(zone.shard.locks().decided().is_empty());
    let done = zone
        .decide(2, op_id, part(vec![absent("k")], vec![put("k", "1")]))
        .unwrap();
    assert!(done.succeeded && !done.repeated);
    let again = zone
        .decide(3, op_id, part(vec![absent("k")], vec![put("k", "2")]))
        .unwrap();
    assert!(again.repeated && again.succeeded);
    let attempts: Vec<_> = zone.shard.locks().decided().keys().copied().collect();
    assert_eq!(attempts, [TransactionId(2)]);
    assert_eq!(zone.values("k"), ["1"]);
    let tag = zone.set("k").siblings()[0].transaction.unwrap();
    assert_eq!((tag.id, tag.parts), (op_id.id, 3));
}

#[test]
fn a_decision_meets_locks_as_any_other_part() {
    let mut zone = Zone::new(1);
    zone.prepare(7, part(vec![], vec![put("k", "1")]));
    let op_id = zone.new_op_id();
    assert!(is_conflict(&zone.decide(
        8,
        op_id,
        part(vec![], vec![put("k", "2")])
    )));
    zone.resolve(7, Verdict::Aborted);
    assert!(
        zone.decide(9, op_id, part(vec![], vec![put("k", "2")]))
            .is_ok()
    );
}

#[test]
fn a_decision_without_a_write_of_its_own_is_remembered_too() {
    let mut zone = Zone::new(1);
    let op_id = zone.new_op_id();
    assert!(
        !zone
            .decide(1, op_id, part(vec![absent("k")], vec![]))
            .unwrap()
            .repeated
    );
    zone.put("k", "1");
    assert!(
        zone.decide(2, op_id, part(vec![absent("k")], vec![]))
            .unwrap()
            .repeated
    );
}

// ---------------------------------------------------------------- what else there is

#[test]
fn too_many_prepared_parts_are_refused_and_room_is_room_again() {
    let mut zone = Zone::new(1);
    let ids = 1..=u128::try_from(PREPARED_MAX).unwrap();
    let ops = ids.map(|id| {
        Op::Prepare(Box::new(
            zone.prepare_op(id, part(vec![], vec![put(&format!("k{id}"), "1")])),
        ))
    });
    let ops: Vec<Op> = ops.collect();
    let applied = zone.entry(ops);
    assert!(applied.transactions.iter().all(|(_, vote)| vote.is_ok()));
    let more = || part(vec![], vec![put("more", "1")]);
    let refused = zone.try_prepare(0, more());
    assert!(matches!(refused, Err(Error::Overloaded { .. })));
    zone.resolve(1, Verdict::Aborted);
    zone.prepare(0, more());
}

#[test]
fn another_incarnation_renames_what_a_prepared_write_replaces() {
    let mut zone = Zone::new(1);
    let old = zone.meta().incarnation;
    zone.put("k", "kept");
    let resume = zone.received().get(old);
    let (since, _) = zone.put("k", "since");
    zone.prepare(7, part(vec![], vec![put("k", "new")]));
    let new = Incarnation::new(ZoneId(1), 99);
    zone.entry(vec![Op::Quarantine {
        incarnation: old,
        resume,
    }]);
    zone.entry(vec![Op::TakeIncarnation { old, new }]);
    let stored = IntentKey::encode(PLACE, TransactionId(7));
    let record = zone.engine.get(&stored).unwrap().unwrap();
    let (_, intent) = IntentKey::decode_record(&stored, &record).unwrap();
    assert!(
        intent.then[0]
            .replaced
            .covers(Dot::new(new, since.counter - resume))
    );
    assert!(!intent.then[0].replaced.covers(since));
    zone.resolve(7, COMMITTED);
    assert_eq!(zone.values("k"), ["new"]);
    assert_eq!(zone.set("k").siblings()[0].dot.incarnation, new);
    zone.check();
}

#[test]
fn a_locked_version_does_not_expire_before_its_transaction_is_resolved() {
    let mut zone = Zone::new(1);
    let op = WriteOp {
        expires_at_ms: Some(5_000),
        ..zone.write_op("k")
    };
    zone.entry(vec![Op::Write(op)]);
    zone.prepare(7, part(vec![exists("k")], vec![put("x", "1")]));
    zone.clock_ms = 6_000;
    let keys = crate::shard::expiry::due(&zone.engine, PLACE, 6_000, 10).unwrap();
    assert_eq!(keys.len(), 1);
    zone.entry(vec![Op::Expire { keys: keys.clone() }]);
    assert_eq!(zone.values("k"), ["plain"]);
    zone.resolve(7, COMMITTED);
    zone.entry(vec![Op::Expire { keys }]);
    assert_eq!(zone.values("k"), ["-"]);
}
