//! What a transaction leaves behind, whoever dies, and what readers of its keys see.

use super::*;

#[test]
fn a_node_that_dies_at_any_stage_leaves_all_or_nothing_and_no_lock() {
    let stages = [
        Stage::Began,
        Stage::Prepared,
        Stage::Voted,
        Stage::Deciding,
        Stage::Decided,
        Stage::Told,
        Stage::Resolved,
        Stage::Followed,
        Stage::Forgotten,
    ];
    for stage in stages {
        let mut world = World::new();
        world.deadly = Some(stage);
        let id = world.transact(&[0, 1, 2], "new");
        world.run(500);
        let died = world
            .died
            .unwrap_or_else(|| panic!("nobody came to {stage:?}"));
        world.run(LONG_MS);
        let value = world.one_value(&[0, 1, 2]);
        if let Some(Ok(Response::Transacted(_))) = world.answer(id) {
            assert_eq!(value, "new", "{stage:?}");
        }
        let decided = [
            Stage::Told,
            Stage::Resolved,
            Stage::Followed,
            Stage::Forgotten,
        ];
        if decided.contains(&stage) {
            assert_eq!(value, "new", "{stage:?}");
        }
        if [Stage::Began, Stage::Voted, Stage::Deciding].contains(&stage) {
            assert_eq!(value, "old", "{stage:?}");
        }
        world.expect_unlocked(&[0, 1, 2]);
        world.start(died);
        world.run(LONG_MS);
        assert_eq!(world.one_value(&[0, 1, 2]), "after", "{stage:?}");
    }
}

#[test]
fn a_transaction_over_nodes_that_all_live_takes_effect_everywhere() {
    let mut world = World::new();
    let id = world.transact(&[0, 1, 2, 3], "new");
    let Some(Ok(Response::Transacted(done))) = world.answer(id) else {
        panic!("not answered")
    };
    assert!(done.succeeded && !done.repeated);
    assert_eq!((done.parts, done.results.len()), (4, 4));
    assert_eq!(world.one_value(&[0, 1, 2, 3]), "new");
    world.expect_unlocked(&[0, 1, 2, 3]);
}

// ---------------------------------------------------------------- readers and writers

#[test]
fn a_reader_of_a_prepared_key_waits_and_sees_what_was_decided() {
    let mut world = World::new();
    world.stop = Some(is_resolve);
    let transaction = world.transact(&[0, 1], "new");
    assert!(matches!(
        world.answer(transaction),
        Some(Ok(Response::Transacted(_)))
    ));
    let participant = world.leader(1);
    let read = world.read(participant, 1, ReadLevel::Linearizable);
    let other = world.read(participant, 1, ReadLevel::Eventual);
    assert!(world.answer(read).is_none(), "it waits");
    assert_eq!(
        world.value_read(other).unwrap(),
        "old",
        "at this level nobody waits"
    );
    world.go_on();
    assert_eq!(world.value_read(read).unwrap(), "new");
}

#[test]
fn a_reader_of_a_prepared_key_sees_what_was_there_when_nothing_is_decided() {
    let mut world = World::new();
    world.stop = Some(is_answer);
    let transaction = world.transact(&[0, 1], "new");
    assert!(world.answer(transaction).is_none());
    let participant = world.leader(1);
    let read = world.read(participant, 1, ReadLevel::Linearizable);
    assert!(world.answer(read).is_none(), "it waits");
    world.run(2_500);
    assert!(matches!(
        world.answer(transaction),
        Some(Err(Error::Conflict { .. }))
    ));
    assert_eq!(world.value_read(read).unwrap(), "old");
    world.go_on();
    world.run(1_000);
    assert_eq!(world.one_value(&[0, 1]), "old");
    world.expect_unlocked(&[0, 1]);
}

#[test]
fn a_plain_write_of_a_prepared_key_waits_and_comes_after() {
    let mut world = World::new();
    world.stop = Some(is_resolve);
    world.transact(&[0, 1], "new");
    let write = world.put(&key(1), "plain");
    assert!(world.answer(write).is_none(), "it waits");
    world.go_on();
    assert!(matches!(
        world.answer(write),
        Some(Ok(Response::Written(_)))
    ));
    let node = world.leader(1);
    let read = world.read(node, 1, ReadLevel::Linearizable);
    assert_eq!(world.value_read(read).unwrap(), "plain");
}

#[test]
fn a_retry_of_a_decided_transaction_is_told_so() {
    let mut world = World::new();
    let first = world.transact(&[0, 1], "new");
    assert!(matches!(
        world.answer(first),
        Some(Ok(Response::Transacted(_)))
    ));
    world.run(1_000);
    // The same operation: the op id counts requests.
    world.requests -= 1;
    let again = world.transact(&[0, 1], "new");
    let Some(Ok(Response::Transacted(repeated))) = world.answer(again) else {
        panic!("not answered")
    };
    assert!(repeated.repeated && repeated.succeeded);
    world.expect_unlocked(&[0, 1]);
}

// ---------------------------------------------------------------- views
