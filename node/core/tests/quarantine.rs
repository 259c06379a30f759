//! A zone of one node that comes back on an old copy of its store, among three: cores over engines in memory, messages
//! without delay, time that only this test moves.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod three_zones;

use meridian_core::ids::NodeId;
use meridian_core::{Error, Input};
use three_zones::{TICK_MS, World};

/// Zone 1 writes, is copied, writes what the others get, and comes back as the copy, cut off from them.
fn restored() -> World {
    let mut world = World::new(1);
    for n in 0..5 {
        world.write(0, &format!("old{n}"), "before").unwrap();
    }
    world.run(1_000);
    let image = world.nodes[0].engine.durable_copy();
    for n in 0..5 {
        world.write(0, &format!("lost{n}"), "shipped").unwrap();
    }
    world.write(0, "both", "shipped").unwrap();
    world.run(1_000);
    world.cut[0] = true;
    world.restore(0, image);
    world.run(200);
    assert_eq!(world.siblings(0, "lost0"), []);
    world
}

#[test]
fn nothing_is_lost_that_was_acknowledged_since_or_that_other_zones_have() {
    for writes in [0, 3, 6, 20] {
        let mut world = restored();
        let former = world.incarnation(0);
        for n in 0..writes {
            world.write(0, &format!("new{n}"), "since").unwrap();
        }
        world.write(0, "both", "since").unwrap();
        world.write(1, "elsewhere", "meanwhile").unwrap();
        world.cut[0] = false;
        world.run(20_000);
        assert_ne!(world.incarnation(0), former);
        for n in 0..5 {
            assert_eq!(world.everywhere(&format!("old{n}")), ["before"]);
            assert_eq!(world.everywhere(&format!("lost{n}")), ["shipped"]);
        }
        for n in 0..writes {
            assert_eq!(world.everywhere(&format!("new{n}")), ["since"]);
        }
        assert_eq!(world.everywhere("both"), ["shipped", "since"]);
        assert_eq!(world.everywhere("elsewhere"), ["meanwhile"]);
        world.same_digests();
        let receipt = world.write(0, "after", "all").unwrap();
        assert_eq!(receipt.dot.incarnation, world.incarnation(0));
        world.run(1_000);
        assert_eq!(world.everywhere("after"), ["all"]);
    }
}

#[test]
fn writes_are_refused_and_reads_go_on_until_the_control_group_has_answered() {
    let mut world = restored();
    world.write(0, "new", "since").unwrap();
    world.cut[0] = false;
    // The first tick lets the others speak; nothing lets the control group agree within it.
    world.ms += TICK_MS;
    world.input(1, Input::Tick);
    let heard: Vec<_> = world.messages.drain(..).collect();
    for (from, to, message) in heard {
        let from = NodeId(u64::try_from(from).unwrap() + 1);
        world.input(to, Input::Peer { from, message });
    }
    while world.damage.is_empty() {
        world.ms += TICK_MS;
        for (from, to, message) in std::mem::take(&mut world.messages) {
            let from = NodeId(u64::try_from(from).unwrap() + 1);
            world.input(to, Input::Peer { from, message });
        }
        world.input(1, Input::Tick);
    }
    let refused = world.write(0, "more", "refused").unwrap_err();
    assert_eq!(refused, Error::Quarantined);
    assert!(refused.is_retryable());
    assert_eq!(world.siblings(0, "new").len(), 1);
    world.run(20_000);
    world.write(0, "more", "taken").unwrap();
    world.run(1_000);
    assert_eq!(world.everywhere("more"), ["taken"]);
    assert_eq!(world.everywhere("new"), ["since"]);
}

#[test]
fn a_quarantine_outlives_a_restart() {
    let mut world = restored();
    world.write(0, "new", "since").unwrap();
    world.cut[0] = false;
    while world.damage.is_empty() {
        world.ms += TICK_MS;
        world.input(1, Input::Tick);
        for (from, to, message) in std::mem::take(&mut world.messages) {
            let from = NodeId(u64::try_from(from).unwrap() + 1);
            world.input(to, Input::Peer { from, message });
        }
    }
    let image = world.nodes[0].engine.durable_copy();
    world.cut[0] = true;
    world.restore(0, image);
    world.run(TICK_MS);
    assert_eq!(world.write(0, "more", "refused"), Err(Error::Quarantined));
    world.cut[0] = false;
    world.run(20_000);
    assert_eq!(world.everywhere("new"), ["since"]);
    assert_eq!(world.everywhere("lost0"), ["shipped"]);
    world.same_digests();
}

#[test]
fn a_store_that_was_merely_restarted_is_not_quarantined() {
    let mut world = World::new(1);
    world.write(0, "k", "1").unwrap();
    world.cut[0] = true;
    world.write(0, "k", "2").unwrap();
    let image = world.nodes[0].engine.durable_copy();
    world.restore(0, image);
    world.run(200);
    world.write(0, "k", "3").unwrap();
    let former = world.incarnation(0);
    world.cut[0] = false;
    world.run(20_000);
    assert_eq!(world.damage, Vec::<String>::new());
    assert_eq!(world.incarnation(0), former);
    assert_eq!(world.everywhere("k"), ["3"]);
}

#[test]
fn one_zone_that_is_away_does_not_hold_up_the_others_for_long() {
    let mut world = World::new(1);
    world.cut[2] = true;
    let image = world.nodes[0].engine.durable_copy();
    world.restore(0, image);
    world.run(200);
    world.write(0, "k", "1").unwrap();
    world.run(6_000);
    assert_eq!(world.siblings(1, "k").len(), 1);
    world.cut[2] = false;
    world.run(20_000);
    assert_eq!(world.everywhere("k"), ["1"]);
    assert_eq!(world.damage, Vec::<String>::new());
}
