//! Groups that span zones: what is acknowledged, what a zone that is cut off answers, who leads.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod world;

use bytes::Bytes;
use meridian_causal::{Content, OpId, ZoneId};
use meridian_core::Error;
use meridian_core::catalog::{Ack, OnZoneLoss, Policy, shard_of};
use meridian_core::command::WriteIntent;
use meridian_core::error::EffectOf;
use meridian_core::ids::{KeyspaceId, ShardId};
use meridian_core::lease::LeaseAcquire;
use meridian_core::limits::STRONG_MS_MAX;
use meridian_core::request::{Answer, ReadLevel, Request, Response, Shown};
use meridian_core::transaction::{Action, Transaction};
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

fn values(shown: &Shown) -> Vec<Bytes> {
    let Answer::Key(set) = &shown.answer else {
        panic!("{shown:?}");
    };
    let values = set.siblings().iter();
    values
        .filter_map(|one| one.content.value().cloned())
        .collect()
}

#[test]
fn a_write_for_all_zones_waits_for_them_whatever_the_keyspace_acknowledges() {
    let mut world = World::new(1, Policy::default());
    for node in 0..3 {
        for zones in [1, 2, 3] {
            let id = world.put_at(node, &format!("{node} {zones}"), zones);
            let receipt = match world.answer(id) {
                Some(Ok(Response::Written(receipt))) => receipt,
                other => panic!("{zones} zones by way of {node}: {other:?}"),
            };
            assert!(
                receipt.zones.len() >= usize::from(zones.max(2)),
                "{receipt:?}"
            );
        }
    }
    let four = world.put_at(0, "four", 4);
    let refused = world.answer(four).unwrap().unwrap_err();
    assert!(
        matches!(refused, Error::InvalidArgument { .. }),
        "{refused:?}"
    );
}

#[test]
fn a_write_that_misses_its_zones_names_those_that_hold_it_and_stands() {
    for forwarded in [false, true] {
        let mut world = World::new(1, Policy::default());
        world.written(0, "old");
        world.run(200);
        let leader = world.leader().unwrap();
        let missing = (leader + 1) % 3;
        let asked = if forwarded { (leader + 2) % 3 } else { leader };
        world.cut[missing] = true;
        let id = world.put_at(asked, "new", 3);
        assert!(world.answer(id).is_none(), "a zone does not have it");
        world.run(STRONG_MS_MAX - TICK_MS);
        let missed = world.answer(id).unwrap().unwrap_err();
        let Error::LevelNotReached { zones, need, .. } = missed else {
            panic!("{missed:?}");
        };
        assert_eq!((zones.len(), need), (2, 3));
        assert_eq!(world.found(leader, ReadLevel::Linearizable), ["new"]);
    }
}

#[test]
fn a_write_for_more_zones_than_are_heard_is_refused_and_has_no_effect() {
    let mut world = World::new(1, Policy::default());
    world.written(0, "old");
    let leader = world.leader().unwrap();
    world.cut[(leader + 1) % 3] = true;
    world.run(2 * ELECTION_MS);
    let refused = world.put_at(leader, "new", 3);
    let refused = world.answer(refused).unwrap().unwrap_err();
    let Error::ZonesShort { zones, need } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((zones.len(), need), (2, 3));
    assert_eq!(world.found(leader, ReadLevel::Linearizable), ["old"]);
    let two = world.put_at(leader, "two", 2);
    assert!(matches!(world.answer(two), Some(Ok(_))), "two are there");
}

#[test]
fn a_read_of_several_zones_shows_what_two_acknowledged_wherever_it_is_asked() {
    let mut world = World::new(2, Policy::default());
    for node in 0..6 {
        // At once: followers have the entry by now, and hear of its commit later.
        let value = format!("by {node}");
        world.written(node, &value);
        let shown = world.shown(node, 2, TICK_MS * 4).unwrap();
        assert_eq!(values(&shown), std::slice::from_ref(&value));
        assert!(shown.zones.len() >= 2, "{shown:?}");
    }
    let shown = world.shown(0, 3, TICK_MS * 4).unwrap();
    assert_eq!(shown.zones, ALL);
    let [(_, held)] = shown.held.as_slice() else {
        panic!("{shown:?}");
    };
    assert_eq!(held, &ALL);
    let four = world.shown(0, 4, TICK_MS).unwrap_err();
    assert!(matches!(four, Error::InvalidArgument { .. }), "{four:?}");
}

#[test]
fn a_read_of_more_zones_than_answer_names_those_that_did() {
    let mut world = World::new(1, Policy::default());
    world.written(0, "v");
    world.run(200);
    let leader = world.leader().unwrap();
    let cut = (leader + 1) % 3;
    world.cut[cut] = true;
    let short = world.shown(leader, 3, STRONG_MS_MAX).unwrap_err();
    let Error::ZonesShort { zones, need } = short else {
        panic!("{short:?}");
    };
    assert_eq!((zones.len(), need), (2, 3));
    assert_eq!(values(&world.shown(leader, 2, TICK_MS).unwrap()), ["v"]);
    let alone = world.shown(cut, 1, TICK_MS).unwrap();
    assert_eq!(values(&alone), ["v"], "what it holds itself");
}

#[test]
fn a_zone_that_holds_what_nobody_committed_does_not_show_it() {
    let mut world = World::new(1, Policy::default());
    world.written(0, "old");
    world.run(200);
    let leader = world.leader().unwrap();
    world.cut[leader] = true;
    world.put(leader, "nobody's");
    let short = world.shown(leader, 1, STRONG_MS_MAX).unwrap_err();
    assert!(matches!(short, Error::ZonesShort { .. }), "{short:?}");
}

/// A transaction that writes a key of each of two shards.
fn over_two_shards() -> Transaction {
    let key = |shard: u16| {
        let keys = (0..100).map(|number| format!("k{number}"));
        let mut of_shard = keys.filter(|key| shard_of(key.as_bytes(), 2).0 == shard);
        Bytes::from(of_shard.next().unwrap())
    };
    let put = |shard| Action::Write {
        key: key(shard),
        content: Content::Value(Bytes::from_static(b"v")),
        intent: WriteIntent::Overwrite,
        expires_at_ms: None,
    };
    Transaction {
        keyspace: KeyspaceId::DEFAULT,
        compare: Vec::new(),
        then: vec![put(0), put(1)],
        otherwise: Vec::new(),
        op_id: OpId {
            stamp_ms: 1,
            id: 77,
        },
    }
}

#[test]
fn a_transaction_over_shards_is_acknowledged_when_all_zones_hold_it_wherever_one_is_cut_off() {
    let (mut acknowledged, mut unknown) = (0, 0);
    for delivered in 0..120 {
        let mut world = World::of_shards(1, all_zones(OnZoneLoss::Refuse), 2);
        let leader = world.leader().unwrap();
        let id = world.begin(leader, Request::Transact(Box::new(over_two_shards())));
        world.deliver(delivered);
        let told = world.answer(id);
        if told.is_none() {
            world.cut[(leader + 1) % 3] = true;
            world.run(STRONG_MS_MAX + 2 * TICK_MS);
        }
        match told.or_else(|| world.answer(id)) {
            Some(Ok(Response::Transacted(transacted))) => {
                assert_eq!(transacted.zones, ALL, "after {delivered} messages");
                acknowledged += 1;
            }
            Some(Err(Error::OutcomeUnknown { .. })) => unknown += 1,
            Some(Err(error)) => assert_eq!(error.effect(), EffectOf::None, "{error:?}"),
            other => panic!("{other:?} after {delivered} messages"),
        }
    }
    assert!(
        acknowledged > 0 && unknown > 0,
        "{acknowledged} and {unknown}"
    );
}
