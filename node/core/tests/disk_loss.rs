//! A zone of one node loses its disk, among three: cores over engines in memory, messages without delay, time that only this
//! test moves.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod three_zones;

use bytes::Bytes;
use meridian_causal::{Content, OpId, ZoneId};
use meridian_core::Error;
use meridian_core::catalog::{Divergence, Mode, Policy, PolicyChange, Returned};
use meridian_core::command::WriteIntent;
use meridian_core::request::{
    AlterAsk, Answer, KeyspaceAlter, Query, Read, ReadLevel, Request, Response, Write,
};
use meridian_storage::MemoryEngine;
use three_zones::{TICK_MS, World};

const KEYS: usize = 300;

/// The zone that loses its disk, and another one.
const LOST: usize = 0;
const OTHER: usize = 1;

fn written(policy: Policy) -> World {
    let mut world = World::with_policy(1, policy);
    for n in 0..KEYS {
        world.write(LOST, &format!("k{n}"), "before").unwrap();
    }
    world.run(2_000);
    world
}

fn mirrored() -> World {
    written(Policy {
        mode: Mode::Snapshot,
        home: Some(ZoneId(1)),
        interval_ms: 500,
        ..Policy::default()
    })
}

fn get(world: &mut World, node: usize, key: &str, level: ReadLevel) -> Result<Vec<Bytes>, Error> {
    let read = Request::Read(Read {
        keyspace: world.keyspace(node),
        level,
        query: Query::Get {
            key: Bytes::copy_from_slice(key.as_bytes()),
        },
        session: None,
    });
    let answer = world.ask(node, read).unwrap_or(Err(Error::NoQuorum))?;
    let Response::Read(answer) = answer else {
        panic!("another answer: {answer:?}")
    };
    let Answer::Key(set) = answer.unwrapped() else {
        panic!("another answer")
    };
    let versions = set.siblings().iter();
    let values = versions.filter_map(|sibling| sibling.content.value());
    Ok(values.cloned().collect())
}

fn put_if_absent(world: &mut World, node: usize, key: &str) -> Result<Response, Error> {
    let write = Write {
        keyspace: world.keyspace(node),
        key: Bytes::copy_from_slice(key.as_bytes()),
        content: Content::Value(Bytes::from_static(b"if absent")),
        intent: WriteIntent::IfAbsent,
        op_id: OpId {
            stamp_ms: world.now().wall_ms,
            id: u128::MAX,
        },
        expires_at_ms: None,
    };
    world
        .ask(node, Request::Write(write))
        .unwrap_or(Err(Error::NoQuorum))
}

/// Ticks until reads of the zone say that it has lost its disk.
fn until_admitted(world: &mut World) {
    for _ in 0..1_000 {
        world.run(TICK_MS);
        if get(world, LOST, "k0", ReadLevel::Linearizable) == Err(Error::DiskLost) {
            return;
        }
    }
    panic!("never admitted, or it serves what it does not have");
}

fn divergence(world: &World) -> Option<Divergence> {
    let core = world.nodes[OTHER].core.as_ref().unwrap();
    let catalog = core.catalog();
    catalog
        .keyspace_named("default")
        .unwrap()
        .divergence
        .clone()
}

fn operator_asks(world: &mut World, ask: AlterAsk) -> Result<Response, Error> {
    let request = Request::KeyspaceAlter(Box::new(KeyspaceAlter {
        name: "default".to_owned(),
        ask,
        near: ZoneId(2),
    }));
    world.ask(OTHER, request).unwrap()
}

fn failover() -> AlterAsk {
    AlterAsk::Change(PolicyChange {
        home: Some(ZoneId(2)),
        ..PolicyChange::default()
    })
}

fn promote() -> AlterAsk {
    AlterAsk::Promote {
        zone: ZoneId(2),
        force: true,
    }
}

#[test]
fn nothing_is_said_to_be_absent_that_other_zones_have() {
    let mut world = written(Policy::default());
    world.restore(LOST, MemoryEngine::new());
    until_admitted(&mut world);
    for level in [ReadLevel::Linearizable, ReadLevel::Eventual] {
        assert_eq!(get(&mut world, LOST, "k1", level), Err(Error::DiskLost));
    }
    assert_eq!(
        put_if_absent(&mut world, LOST, "k2"),
        Err(Error::DiskLost),
        "another zone has the key"
    );
    world.write(LOST, "k3", "since").unwrap();
    for _ in 0..100 {
        world.run(TICK_MS);
        match get(&mut world, LOST, "k4", ReadLevel::Linearizable) {
            Ok(values) => assert_eq!(values, ["before"]),
            Err(error) => assert_eq!(error, Error::DiskLost),
        }
    }
    let values = get(&mut world, LOST, "k4", ReadLevel::Linearizable);
    assert_eq!(values.unwrap(), ["before"], "it never serves again");
    assert!(put_if_absent(&mut world, LOST, "k2").is_err());
    assert_eq!(world.everywhere("k3"), ["before", "since"]);
    for n in 4..KEYS {
        assert_eq!(world.everywhere(&format!("k{n}")), ["before"]);
    }
}

#[test]
fn a_zone_that_no_other_is_heard_by_does_not_take_itself_for_whole() {
    let mut world = written(Policy::default());
    world.restore(LOST, MemoryEngine::new());
    until_admitted(&mut world);
    world.cut[LOST] = true;
    world.restart(LOST);
    world.run(30_000);
    let read = get(&mut world, LOST, "k1", ReadLevel::Linearizable);
    assert_eq!(read, Err(Error::DiskLost));
    world.cut[LOST] = false;
    world.run(10_000);
    let read = get(&mut world, LOST, "k1", ReadLevel::Linearizable);
    assert_eq!(read.unwrap(), ["before"]);
}

#[test]
fn mirrors_keep_what_a_home_zone_has_lost_and_one_is_promoted() {
    let mut world = mirrored();
    world.restore(LOST, MemoryEngine::new());
    until_admitted(&mut world);
    // Many intervals: an empty home must not be mirrored.
    world.run(30_000);
    assert_eq!(world.write(LOST, "k0", "since"), Err(Error::DiskLost));
    for n in 0..KEYS {
        let mirror = get(&mut world, OTHER, &format!("k{n}"), ReadLevel::Eventual);
        assert_eq!(mirror.unwrap(), ["before"]);
    }
    let refused = operator_asks(&mut world, failover());
    assert!(
        matches!(refused, Err(Error::InvalidArgument { .. })),
        "it would never end: {refused:?}"
    );
    operator_asks(&mut world, promote()).unwrap();
    world.run(20_000);
    world.write(OTHER, "k0", "since").unwrap();
    for n in 1..KEYS {
        let home = get(&mut world, OTHER, &format!("k{n}"), ReadLevel::Linearizable);
        assert_eq!(home.unwrap(), ["before"]);
    }
    let returned = divergence(&world).unwrap().returned;
    assert_eq!(
        returned,
        Returned::Awaited,
        "what is lost has not come back"
    );
    operator_asks(&mut world, AlterAsk::GiveUpReturn).unwrap();
    world.run(20_000);
    assert_eq!(divergence(&world).unwrap().returned, Returned::GivenUp);
    for n in 1..KEYS {
        let mirror = get(&mut world, LOST, &format!("k{n}"), ReadLevel::Eventual);
        assert_eq!(mirror.unwrap(), ["before"]);
    }
}

#[test]
fn a_home_that_loses_its_disk_during_a_failover_hands_over_no_emptiness() {
    let mut world = mirrored();
    world.cut[LOST] = true;
    // The control group may have to elect another leader.
    world.run(10_000);
    operator_asks(&mut world, failover()).unwrap();
    world.run(1_000);
    world.cut[LOST] = false;
    world.restore(LOST, MemoryEngine::new());
    until_admitted(&mut world);
    world.run(30_000);
    let mirror = get(&mut world, OTHER, "k1", ReadLevel::Eventual);
    assert_eq!(mirror.unwrap(), ["before"], "the name has not moved");
    operator_asks(&mut world, AlterAsk::Cancel).unwrap();
    operator_asks(&mut world, promote()).unwrap();
    world.run(20_000);
    for n in 0..KEYS {
        let home = get(&mut world, OTHER, &format!("k{n}"), ReadLevel::Linearizable);
        assert_eq!(home.unwrap(), ["before"]);
    }
}
