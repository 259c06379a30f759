//! A group of one replica: a write is applied in the turn that writes it down, and a crash leaves all of that turn or nothing.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod three_zones;

use std::ops::ControlFlow;

use meridian_core::keys::raft_log::{RaftEntryKey, RaftStateKey};
use meridian_core::output::Notice;
use meridian_core::{Input, Outputs};
use meridian_storage::{Durability, Engine, Op, Read};
use three_zones::World;

/// How many entries the group of a node's zone has in its store.
fn logged(world: &World, node: usize) -> usize {
    let (from, to) = RaftEntryKey::all(world.group(node));
    let mut found = 0;
    let engine = &world.nodes[node].engine;
    engine
        .scan(&from, &to, &mut |_, _| {
            found += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

#[test]
fn a_write_is_one_synced_turn_and_leaves_no_log() {
    let mut world = World::new(1);
    for n in 0..50 {
        world.write(0, &format!("k{n}"), "v").unwrap();
    }
    assert_eq!(logged(&world, 0), 0);
    let turn = world.begin_write(0, "k", "v");
    assert_eq!(turn.durability, Durability::Synced);
    let state = RaftStateKey::encode(world.group(0));
    let is_state = |op: &Op| matches!(op, Op::Put { key, .. } if *key == state);
    assert!(!turn.batch.iter().any(is_state));
    let now = world.now();
    let node = &mut world.nodes[0];
    node.engine.write(&turn.batch, turn.durability).unwrap();
    let core = node.core.as_mut().unwrap();
    let mut out = Outputs::default();
    core.wrote(now, &mut out);
    assert_eq!(out.replies.len(), 1);
    assert!(core.turn(now, &mut out).is_none());
}

#[test]
fn what_a_crash_undoes_never_was() {
    let mut world = World::new(1);
    let before = world.write(0, "k", "first").unwrap().dot;
    world.begin_write(0, "k", "lost");
    world.restart(0);
    world.run(10_000);
    assert_eq!(world.everywhere("k"), ["first"]);
    let after = world.write(0, "k", "second").unwrap().dot;
    assert_eq!(after.counter, before.counter + 1);
    world.run(10_000);
    assert_eq!(world.everywhere("k"), ["second"]);
    assert!(world.damage.is_empty(), "{:?}", world.damage);
}

#[test]
fn what_is_on_the_disk_was_even_if_nobody_was_told() {
    let mut world = World::new(1);
    let before = world.write(0, "k", "first").unwrap().dot;
    let turn = world.begin_write(0, "k", "untold");
    let engine = &world.nodes[0].engine;
    engine.write(&turn.batch, turn.durability).unwrap();
    world.restart(0);
    world.run(10_000);
    assert_eq!(world.everywhere("k"), ["untold"]);
    let after = world.write(0, "k", "second").unwrap().dot;
    assert_eq!(after.counter, before.counter + 2);
    world.run(10_000);
    assert_eq!(world.everywhere("k"), ["second"]);
    assert!(world.damage.is_empty(), "{:?}", world.damage);
}

#[test]
fn a_group_goes_on_where_it_stood_through_many_starts() {
    let mut world = World::new(1);
    let mut last = 0;
    for n in 0..5 {
        for _ in 0..3 {
            let counter = world.write(1, "k", &n.to_string()).unwrap().dot.counter;
            assert!(counter > last);
            last = counter;
        }
        world.restart(1);
        world.run(10_000);
    }
    assert_eq!(logged(&world, 1), 0);
    assert_eq!(world.everywhere("k"), ["4"]);
}

#[test]
fn a_write_that_fails_tells_nobody_that_it_was_applied() {
    let mut world = World::new(1);
    world.begin_write(0, "k", "failed");
    let now = world.now();
    let core = world.nodes[0].core.as_mut().unwrap();
    let mut out = Outputs::default();
    core.failed(now, &mut out);
    assert!(out.replies.iter().all(|(_, result)| result.is_err()));
    core.step(now, Input::Tick, &mut out);
    assert!(out.messages.is_empty());
    let damaged = |notice: &Notice| matches!(notice, Notice::Damaged { .. });
    assert!(!out.notices.iter().any(damaged));
}
