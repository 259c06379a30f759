//! Groups that span zones: what is acknowledged, what a zone that is cut off answers, who leads.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod world;

use bytes::Bytes;
use meridian_causal::{OpId, ZoneId};
use meridian_core::Error;
use meridian_core::catalog::{Ack, OnZoneLoss, Policy};
use meridian_core::ids::{KeyspaceId, ShardId};
use meridian_core::lease::LeaseAcquire;
use meridian_core::limits::STRONG_MS_MAX;
use meridian_core::request::{ReadLevel, Request, Response};
use world::{ELECTION_MS, TICK_MS, World};

const ALL: [ZoneId; 3] = [ZoneId(1), ZoneId(2), ZoneId(3)];

fn all_zones(on_zone_loss: OnZoneLoss) -> Policy {
    Policy {
        ack: Ack::All,
        on_zone_loss,
        ..Policy::default()
    }
}

#[test]
fn a_write_through_any_node_is_in_two_zones_and_read_through_every_other() {
    let mut world = World::new(2, Policy::default());
    for node in 0..6 {
        let value = format!("by {node}");
        let receipt = world.written(node, &value);
        assert!(receipt.zones.len() >= 2 && !receipt.degraded, "{receipt:?}");
        for reader in 0..6 {
            let found = world.found(reader, ReadLevel::Linearizable);
            assert_eq!(found, std::slice::from_ref(&value));
        }
    }
}

#[test]
fn a_node_without_a_replica_reads_eventually_from_the_replica_of_its_zone() {
    let mut world = World::new(2, Policy::default());
    world.written(0, "v");
    world.run(200);
    let without: Vec<usize> = (0..6)
        .filter(|node| world.groups(*node).is_empty())
        .collect();
    assert_eq!(without.len(), 3);
    for node in without {
        assert_eq!(world.found(node, ReadLevel::Eventual), ["v"]);
    }
}

#[test]
fn a_leader_cut_off_answers_within_the_bound_and_the_others_go_on() {
    let mut world = World::new(1, Policy::default());
    world.written(0, "old");
    let old = world.leader().unwrap();
    world.run(200);
    world.cut[old] = true;
    let (write, read) = (
        world.put(old, "lost"),
        world.get(old, ReadLevel::Linearizable),
    );
    assert!(world.answer(write).is_none(), "it is in nobody else's log");
    world.run(STRONG_MS_MAX + TICK_MS);
    let unknown = world.answer(write).unwrap().unwrap_err();
    assert!(
        matches!(unknown, Error::OutcomeUnknown { .. }),
        "{unknown:?}"
    );
    assert_eq!(world.answer(read), Some(Err(Error::NoQuorum)));
    world.run(ELECTION_MS);
    for id in [
        world.put(old, "late"),
        world.get(old, ReadLevel::Linearizable),
    ] {
        assert_eq!(world.answer(id), Some(Err(Error::NoQuorum)));
    }
    assert_eq!(world.found(old, ReadLevel::Eventual), ["old"]);
}

#[test]
fn the_majority_serves_again_within_three_election_timeouts() {
    let mut world = World::new(1, Policy::default());
    world.written(0, "old");
    let old = world.leader().unwrap();
    world.cut[old] = true;
    world.run(3 * ELECTION_MS);
    let next = world.leader().unwrap();
    for node in (0..3).filter(|node| *node != old) {
        let receipt = world.written(node, "new");
        assert_eq!(receipt.zones.len(), 2);
        assert_eq!(world.found(next, ReadLevel::Linearizable), ["new"]);
    }
    world.cut[old] = false;
    world.run(2 * ELECTION_MS);
    assert_eq!(world.found(old, ReadLevel::Linearizable), ["new"]);
}

#[test]
fn a_node_without_a_replica_in_a_zone_cut_off_says_so() {
    let mut world = World::new(2, Policy::default());
    world.written(0, "v");
    let leader = world.leader().unwrap();
    // Another zone than the leader's: its two nodes hear nobody, not even one another.
    let zone = (leader / 2 + 1) % 3;
    let cut = [zone * 2, zone * 2 + 1];
    for node in cut {
        world.cut[node] = true;
    }
    world.run(3 * ELECTION_MS);
    for node in cut {
        let read = world.get(node, ReadLevel::Linearizable);
        world.run(STRONG_MS_MAX + TICK_MS);
        assert_eq!(world.answer(read), Some(Err(Error::NoQuorum)));
    }
}

#[test]
fn a_write_for_all_zones_is_refused_while_one_is_missing_and_has_no_effect() {
    let mut world = World::new(1, all_zones(OnZoneLoss::Refuse));
    assert_eq!(world.written(0, "whole").zones, ALL);
    let leader = world.leader().unwrap();
    let missing = (leader + 1) % 3;
    world.cut[missing] = true;
    world.run(2 * ELECTION_MS);
    let id = world.put(leader, "short");
    let zone = ZoneId(u16::try_from(missing).unwrap() + 1);
    let zones = ALL.iter().copied().filter(|there| *there != zone).collect();
    assert_eq!(
        world.answer(id),
        Some(Err(Error::ZonesShort { zones, need: 3 }))
    );
    assert_eq!(world.found(leader, ReadLevel::Linearizable), ["whole"]);
    world.cut[missing] = false;
    world.run(2 * ELECTION_MS);
    assert_eq!(world.written(leader, "again").zones, ALL);
}

#[test]
fn a_write_that_a_zone_does_not_get_in_time_stands_and_is_said_to() {
    let mut world = World::new(1, all_zones(OnZoneLoss::Refuse));
    world.written(0, "old");
    let leader = world.leader().unwrap();
    let missing = (leader + 1) % 3;
    world.cut[missing] = true;
    let id = world.put(leader, "new");
    assert!(world.answer(id).is_none(), "one zone has not got it");
    assert_eq!(world.found(leader, ReadLevel::Linearizable), ["new"]);
    world.run(STRONG_MS_MAX + TICK_MS);
    let Some(Err(Error::LevelNotReached { zones, need, .. })) = world.answer(id) else {
        panic!("it stands in two zones of three");
    };
    assert_eq!((zones.len(), need), (2, 3));
    assert!(!zones.contains(&ALL[missing]));
}

#[test]
fn a_keyspace_that_degrades_does_with_a_majority_and_takes_it_back() {
    let mut world = World::new(1, all_zones(OnZoneLoss::Degrade));
    assert!(!world.written(0, "whole").degraded);
    let leader = world.leader().unwrap();
    let missing = (leader + 1) % 3;
    world.cut[missing] = true;
    let waits = world.put(leader, "waits");
    world.run(2 * ELECTION_MS);
    let Some(Ok(Response::Written(receipt))) = world.answer(waits) else {
        panic!("what waited for the zone is let go when the group degrades");
    };
    assert!(receipt.degraded && receipt.zones.len() == 2, "{receipt:?}");
    assert_eq!(world.groups(leader)[0].degraded, [ALL[missing]]);
    assert!(world.written(leader, "majority").degraded);
    world.cut[missing] = false;
    world.run(4 * ELECTION_MS);
    assert_eq!(world.groups(leader)[0].degraded, []);
    let receipt = world.written(leader, "whole again");
    assert!(!receipt.degraded && receipt.zones == ALL, "{receipt:?}");
}

#[test]
fn the_lead_moves_to_the_zone_that_writes_and_stays_there() {
    let mut world = World::new(1, Policy::default());
    let first = world.leader().unwrap();
    let writer = (first + 1) % 3;
    for _ in 0..40 {
        world.written(writer, "w");
    }
    world.run(11 * ELECTION_MS);
    for _ in 0..40 {
        world.written(writer, "w");
    }
    world.run(10 * ELECTION_MS);
    assert_eq!(world.leader(), Some(writer));
    for node in [first, writer] {
        world.written(node, "w");
    }
    world.run(25 * ELECTION_MS);
    assert_eq!(world.leader(), Some(writer));
}

#[test]
fn a_home_zone_leads_again_when_it_is_back() {
    let home = Policy {
        home: Some(ZoneId(3)),
        ..Policy::default()
    };
    let mut world = World::new(1, home);
    assert_eq!(world.leader(), Some(2));
    world.cut[2] = true;
    world.run(3 * ELECTION_MS);
    assert_ne!(world.leader(), Some(2));
    world.cut[2] = false;
    world.run(10 * ELECTION_MS);
    assert_eq!(world.leader(), Some(2));
}

#[test]
fn the_lag_of_a_zone_that_is_away_is_counted() {
    let mut world = World::new(1, Policy::default());
    world.written(0, "old");
    let leader = world.leader().unwrap();
    let away = (leader + 1) % 3;
    world.cut[away] = true;
    for _ in 0..5 {
        world.written(leader, "new");
    }
    world.run(200);
    let lag = Request::Lag {
        keyspace: KeyspaceId::DEFAULT,
        shard: ShardId(World::shard()),
    };
    let id = world.ask(leader, lag);
    let Some(Ok(Response::Lag(lags))) = world.answer(id) else {
        panic!("a leader tells the lag of the other zones");
    };
    let of = |zone: ZoneId| *lags.iter().find(|lag| lag.to == zone).unwrap();
    let behind = of(ALL[away]);
    assert!(behind.entries >= 5 && behind.bytes > 0, "{behind:?}");
    assert!(behind.lag_ms >= 200, "{behind:?}");
    assert_eq!(of(ALL[(leader + 2) % 3]).entries, 0);
}

#[test]
fn a_lease_taken_through_one_zone_is_held_against_all_until_its_time_is_over() {
    let mut world = World::new(2, Policy::default());
    let acquire = |world: &mut World, node: usize| {
        let acquire = LeaseAcquire {
            keyspace: KeyspaceId::DEFAULT,
            name: Bytes::from_static(b"lock"),
            ttl_ms: 1_000,
            op_id: OpId {
                stamp_ms: 1,
                id: u128::try_from(node).unwrap(),
            },
            wait: false,
        };
        let id = world.ask(node, Request::LeaseAcquire(acquire));
        world.answer(id).unwrap()
    };
    let first = acquire(&mut world, 0).unwrap();
    let Response::LeaseHeld(holding) = first else {
        panic!("the lease is free: {first:?}");
    };
    for node in 1..6 {
        assert_eq!(acquire(&mut world, node), Err(Error::LeaseHeld));
    }
    world.run(900);
    let renew = Request::LeaseRenew {
        keyspace: KeyspaceId::DEFAULT,
        lease: holding.lease.clone(),
    };
    let id = world.ask(5, renew);
    assert!(matches!(world.answer(id), Some(Ok(Response::LeaseHeld(_)))));
    world.run(900);
    assert_eq!(acquire(&mut world, 3), Err(Error::LeaseHeld));
    world.run(400);
    let next = acquire(&mut world, 3).unwrap();
    assert!(matches!(next, Response::LeaseHeld(next) if next.lease.token > holding.lease.token));
}

#[test]
fn a_view_opened_in_any_zone_shows_what_was_there_and_nothing_later() {
    let mut world = World::new(2, Policy::default());
    for node in 0..6 {
        world.written(0, "before");
        let keyspace = KeyspaceId::DEFAULT;
        let id = world.ask(node, Request::ViewOpen { keyspace });
        let Some(Ok(Response::ViewOpened(view))) = world.answer(id) else {
            panic!("a view is opened at node {node}");
        };
        world.written(3, "after");
        let level = ReadLevel::View {
            id: view.id,
            node: view.pins[0],
        };
        assert_eq!(world.found(node, level), ["before"]);
        assert_eq!(world.found(node, ReadLevel::Linearizable), ["after"]);
        world.ask(node, Request::ViewClose { view });
    }
}
