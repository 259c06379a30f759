//! Zones that write blindly, with contexts, explicitly over everything, or delete; that ship effects in order per
//! incarnation, through relays, repeatedly; that compare whole states, finish or not, and write meanwhile.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::world::{Action, KEYS, Mode, Shipment, World, Write};

const ZONES: usize = 3;
const CLIENTS: usize = 3;

fn any_mode() -> impl Strategy<Value = Mode> {
    prop_oneof![3 => Just(Mode::Newest), 1 => Just(Mode::All), 1 => Just(Mode::Unread), 4 => Just(Mode::Held)]
}

fn any_action() -> impl Strategy<Value = Action> {
    let zone = || 0..ZONES;
    prop_oneof![
        8 => (zone(), 0..KEYS, 0..CLIENTS, any_mode(), prop::bool::weighted(0.2))
            .prop_map(|(zone, key, client, mode, delete)| Action::Write(Write { zone, key, client, mode }, delete)),
        1 => (zone(), zone(), 0..KEYS)
            .prop_map(|(a, b, key)| Action::WriteInTwoZones { zones: [a, b], key }),
        3 => (zone(), 0..KEYS, 0..CLIENTS).prop_map(|(zone, key, client)| Action::Read { zone, key, client }),
        8 => (zone(), zone(), 0..8usize, 0..3u64, 1..5usize)
            .prop_map(|(from, to, incarnation, again, count)| Action::Deliver(Shipment { from, to, incarnation, again, count })),
        1 => zone().prop_map(|zone| Action::Reincarnate { zone }),
        1 => (zone(), zone()).prop_map(|(from, to)| Action::BeginComparison { from, to }),
        2 => zone().prop_map(|zone| Action::CompareOneKey { zone }),
        1 => zone().prop_map(|zone| Action::AbandonComparison { zone }),
    ]
}

proptest! {
    #[test]
    fn zones_that_have_exchanged_everything_hold_the_same_and_have_lost_nothing(
        actions in prop::collection::vec(any_action(), 1..80), absent_is_received: bool,
    ) {
        let mut world = World::new(3, absent_is_received);
        world.run(&actions);
        world.settle();
        for zone in 0..ZONES {
            prop_assert_eq!(world.stored(zone), world.stored(0), "zone {}", zone);
        }
        for (key, set) in world.sets(0) {
            let dots: BTreeSet<_> = set.siblings().iter().map(|sibling| sibling.dot).collect();
            prop_assert_eq!(dots, world.must_live(key), "key {}", key);
        }
    }

    #[test]
    fn comparing_gives_what_ordered_delivery_gives(
        actions in prop::collection::vec(any_action(), 1..60), from in 0..ZONES, to in 0..ZONES,
    ) {
        let mut ordered = World::new(3, false);
        let ships = |action: &Action| !matches!(action, Action::BeginComparison { .. });
        ordered.run(&actions.into_iter().filter(ships).collect::<Vec<_>>());
        let mut compared = ordered.clone();
        ordered.deliver_all(from, to);
        compared.compare_all(from, to);
        prop_assert_eq!(ordered.stored(to), compared.stored(to));
    }
}
