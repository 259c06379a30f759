//! A zone that was cut off catches up: all of it arrives, and no turn takes in much of it, so that clients who ask meanwhile
//! wait for little.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod three_zones;

use meridian_core::limits::MERGE_TURN_BYTES;
use three_zones::World;

/// Writes that the zone cut off lacks: several chunks, and more than is kept in memory to be sent.
const WRITES: usize = 4_000;

/// What a turn writes for a byte of an effect, at most: the log, the key, the outbox, the op id, indexes.
const WRITTEN_PER_BYTE: usize = 8;

/// Zone 3 is cut off while the others write, and healed.
fn healed() -> World {
    let mut world = World::new(1);
    world.cut[2] = true;
    let value = "v".repeat(600);
    for n in 0..WRITES {
        world.write(n % 2, &format!("key{n}"), &value).unwrap();
    }
    world.run(2_000);
    world.cut[2] = false;
    world.turn_bytes = 0;
    world
}

#[test]
fn everything_arrives_in_turns_that_take_in_little() {
    let mut world = healed();
    world.run(60_000);
    world.same_digests();
    assert_eq!(world.siblings(2, &format!("key{}", WRITES - 1)).len(), 1);
    let most = world.turn_bytes;
    assert!(
        most <= MERGE_TURN_BYTES * WRITTEN_PER_BYTE,
        "{most} bytes in a turn"
    );
}

#[test]
fn writes_of_the_zone_that_catches_up_are_done_and_reach_the_others() {
    let mut world = healed();
    for n in 0..20 {
        world.run(50);
        world.write(2, &format!("own{n}"), "meanwhile").unwrap();
    }
    world.run(60_000);
    world.same_digests();
    for n in 0..20 {
        assert_eq!(world.everywhere(&format!("own{n}")), ["meanwhile"]);
    }
}

/// Zones of one node: what is proposed is applied in the same turn (see `unlogged`), so there is nothing to be put off.
#[test]
fn a_write_and_what_came_with_it_from_another_zone_are_one_turn() {
    let mut world = World::new(1);
    let turns = world.meet((0, "theirs"), (2, "own"));
    assert_eq!(turns.first(), Some(&(true, true)), "{turns:?}");
    world.run(10_000);
    world.same_digests();
}
