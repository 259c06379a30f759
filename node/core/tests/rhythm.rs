//! When a zone tells the others what was written: at once after a silence, together with other writes while the last word is fresh.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod three_zones;

use bytes::Bytes;
use meridian_causal::{Content, OpId};
use meridian_core::command::WriteIntent;
use meridian_core::limits::EXCHANGE_EVERY_MS;
use meridian_core::message::{Exchange, PeerMessage};
use meridian_core::request::{Request, Write};
use three_zones::World;

const SHARDS: u16 = 4;

/// Zones at rest in which zone 1 has written a key and told the others.
fn told(shards: u16) -> World {
    let mut world = World::new(shards);
    world.write(0, "first", "v").unwrap();
    assert_eq!(world.everywhere("first"), ["v"]);
    world
}

/// Messages with effects that zone 1 gives out in one turn that nothing has called for, and the effects in them.
fn said(world: &mut World) -> (usize, usize) {
    world.turn(0, None);
    let mut counts = (0, 0);
    for (_, _, message) in &world.messages {
        if let PeerMessage::Exchange { body, .. } = message
            && let Exchange::Effects { effects, .. } = body
        {
            counts = (counts.0 + 1, counts.1 + effects.len());
        }
    }
    counts
}

#[test]
fn writes_of_all_shards_close_together_leave_together_and_a_little_later() {
    let mut world = told(SHARDS);
    for n in 0..40 {
        world.write(0, &format!("key{n}"), "v").unwrap();
    }
    assert_eq!(said(&mut world), (0, 0));
    let wakes_at_ns = world.nodes[0].core.as_ref().unwrap().wakes_at_ns();
    assert_eq!(wakes_at_ns, Some(world.now().after_ms(EXCHANGE_EVERY_MS)));
    world.ms += EXCHANGE_EVERY_MS - 1;
    assert_eq!(said(&mut world), (0, 0));
    world.ms += 1;
    assert_eq!(said(&mut world), (2 * usize::from(SHARDS), 2 * 40));
    let wakes_at_ns = world.nodes[0].core.as_ref().unwrap().wakes_at_ns();
    assert_eq!(wakes_at_ns, None, "nothing is left to say");
}

#[test]
fn a_write_that_other_zones_are_to_have_first_leaves_at_once() {
    let mut world = told(SHARDS);
    let write = Write {
        keyspace: world.keyspace(0),
        key: Bytes::from_static(b"second"),
        content: Content::Value(Bytes::from_static(b"v")),
        intent: WriteIntent::Blind,
        op_id: OpId {
            stamp_ms: world.now().wall_ms,
            id: u128::MAX,
        },
        expires_at_ms: None,
    };
    world.ask(0, Request::WriteAt { write, zones: 2 });
    assert_eq!(world.everywhere("second"), ["v"]);
}

#[test]
fn effects_that_go_both_ways_need_no_other_acknowledgement() {
    let mut world = told(1);
    for round in 0..20 {
        // Acknowledgements of what came before the first round go out in it.
        if round == 2 {
            world.subscriptions = 0;
        }
        for zone in 0..3 {
            world.write(zone, &format!("key{zone}"), "v").unwrap();
        }
        world.ms += EXCHANGE_EVERY_MS;
        for zone in 0..3 {
            world.turn(zone, None);
        }
        world.settle();
    }
    assert_eq!(world.subscriptions, 0);
}
