//! A mirror is promoted, with its home zone gone, back, or never gone: three zones of one node, messages without delay.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod three_zones;

use bytes::Bytes;
use meridian_causal::ZoneId;
use meridian_core::Error;
use meridian_core::catalog::{Divergence, Mode, Policy, PolicyChange, Returned, shard_of};
use meridian_core::config::PlantedBugs;
use meridian_core::ids::ShardId;
use meridian_core::keys::Became;
use meridian_core::read::serve;
use meridian_core::request::{
    AlterAsk, Answer, KeyspaceAlter, Query, Read, ReadLevel, Request, Response,
};
use three_zones::{World, ZONES};

const SHARDS: u16 = 2;

/// The zone that is home first, the one that is promoted, and the third.
const OLD: usize = 0;
const NEW: usize = 1;
const THIRD: usize = 2;

fn mirrored() -> World {
    let policy = Policy {
        mode: Mode::Snapshot,
        home: Some(ZoneId(1)),
        interval_ms: 500,
        ..Policy::default()
    };
    World::with_policy(SHARDS, policy)
}

fn ask(world: &mut World, node: usize, ask: AlterAsk) -> Result<Response, Error> {
    let request = Request::KeyspaceAlter(Box::new(KeyspaceAlter {
        name: "default".to_owned(),
        ask,
        near: ZoneId(1),
    }));
    world.ask(node, request).unwrap()
}

fn promote(world: &mut World) {
    let promote = AlterAsk::Promote {
        zone: ZoneId(2),
        force: true,
    };
    ask(world, NEW, promote).unwrap();
}

fn home(world: &World, node: usize) -> Option<ZoneId> {
    let core = world.nodes[node].core.as_ref().unwrap();
    let catalog = core.catalog();
    let keyspace = catalog.keyspace_named("default").unwrap();
    keyspace.policy.home
}

fn divergence(world: &World, node: usize) -> Divergence {
    let core = world.nodes[node].core.as_ref().unwrap();
    let catalog = core.catalog();
    let keyspace = catalog.keyspace_named("default").unwrap();
    keyspace.divergence.clone().unwrap()
}

fn until_home(world: &mut World, node: usize, zone: u16) {
    for _ in 0..200 {
        if home(world, node) == Some(ZoneId(zone)) {
            return;
        }
        world.run(50);
    }
    let core = world.nodes[node].core.as_ref().unwrap();
    panic!("never home: {:?}", core.catalog().keyspaces);
}

fn until_whole(world: &mut World) {
    for _ in 0..400 {
        if divergence(world, NEW).returned == Returned::Whole {
            return;
        }
        world.run(50);
    }
    let core = world.nodes[NEW].core.as_ref().unwrap();
    panic!("never whole: {:?}", core.catalog().keyspaces);
}

fn values(world: &World, node: usize, key: &str) -> Vec<String> {
    let siblings = world.siblings(node, key);
    let mut values: Vec<String> = siblings
        .iter()
        .filter_map(|sibling| sibling.content.value())
        .map(|value| String::from_utf8(value.to_vec()).unwrap())
        .collect();
    values.sort();
    values
}

/// What a mirror's clients read, once it shows anything.
fn mirrored_values(world: &mut World, node: usize, key: &str) -> Vec<String> {
    let read = Request::Read(Read {
        keyspace: world.keyspace(node),
        level: ReadLevel::Eventual,
        query: Query::Get {
            key: Bytes::copy_from_slice(key.as_bytes()),
        },
        session: None,
    });
    let Some(Ok(Response::Read(answer))) = world.ask(node, read) else {
        panic!("no answer")
    };
    let Answer::Key(set) = answer.unwrapped() else {
        panic!("another answer")
    };
    let versions = set.siblings().iter();
    let values = versions.filter_map(|sibling| sibling.content.value());
    values
        .map(|value| String::from_utf8(value.to_vec()).unwrap())
        .collect()
}

/// Keys that writes came back to, with what those became.
fn returned(world: &World, node: usize) -> Vec<(String, Vec<Became>)> {
    let mut keys = Vec::new();
    for shard in (0..SHARDS).map(ShardId) {
        let query = Query::Returned {
            shard,
            from: Bytes::new(),
        };
        let engine = &*world.nodes[node].engine;
        let answer = serve(engine, world.keyspace(node), SHARDS, &query).unwrap();
        let Answer::Returned { counts, rows, next } = answer else {
            panic!("another answer")
        };
        assert_eq!(
            (counts.keys, next),
            (u64::try_from(rows.len()).unwrap(), None)
        );
        for row in rows {
            assert_eq!(shard_of(&row.key, SHARDS), shard);
            let key = String::from_utf8(row.key.to_vec()).unwrap();
            keys.push((key, row.writes.iter().map(|write| write.became).collect()));
        }
    }
    keys.sort();
    keys
}

/// Home has written after its last cut and is gone.
fn lost_home() -> World {
    let mut world = mirrored();
    for key in [
        "changed by both",
        "changed by the old",
        "deleted by the old",
        "kept",
    ] {
        world.write(OLD, key, "cut").unwrap();
    }
    world.run(3_000);
    world.cut[OLD] = true;
    world.run(2_000);
    world.write(OLD, "changed by both", "old").unwrap();
    world.write(OLD, "changed by the old", "old").unwrap();
    world.write(OLD, "changed by the old", "old again").unwrap();
    world.write(OLD, "new of the old", "old").unwrap();
    world.delete(OLD, "deleted by the old").unwrap();
    world
}

#[test]
fn a_promoted_mirror_has_the_last_cut_and_nothing_else() {
    let mut world = lost_home();
    promote(&mut world);
    until_home(&mut world, NEW, 2);
    for key in [
        "changed by both",
        "changed by the old",
        "deleted by the old",
        "kept",
    ] {
        assert_eq!(values(&world, NEW, key), ["cut"], "{key}");
    }
    assert_eq!(values(&world, NEW, "new of the old"), [""; 0]);
    world.write(NEW, "changed by both", "new").unwrap();
    world.run(3_000);
    assert_eq!(
        mirrored_values(&mut world, THIRD, "changed by both"),
        ["new"]
    );
    let divergence = divergence(&world, NEW);
    assert_eq!(divergence.returned, Returned::Awaited);
    assert!(divergence.shown.heard_ms >= divergence.shown.cut_ms);
    assert_eq!(world.damage, [""; 0]);
}

#[test]
fn what_the_old_home_wrote_after_the_cut_comes_back_as_siblings_or_newest_and_is_listed() {
    let mut world = lost_home();
    promote(&mut world);
    until_home(&mut world, NEW, 2);
    world.write(NEW, "changed by both", "new").unwrap();
    world.cut[OLD] = false;
    until_whole(&mut world);
    assert_eq!(values(&world, NEW, "changed by both"), ["new", "old"]);
    assert_eq!(values(&world, NEW, "changed by the old"), ["old again"]);
    assert_eq!(values(&world, NEW, "new of the old"), ["old"]);
    assert_eq!(values(&world, NEW, "deleted by the old"), [""; 0]);
    assert_eq!(values(&world, NEW, "kept"), ["cut"]);
    let listed = returned(&world, NEW);
    let of = |key: &str| {
        let row = listed.iter().find(|(listed, _)| listed == key);
        row.and_then(|(_, writes)| writes.last().copied())
    };
    assert_eq!(of("changed by both"), Some(Became::Sibling));
    assert_eq!(of("changed by the old"), Some(Became::Newest));
    assert_eq!(of("new of the old"), Some(Became::Newest));
    assert_eq!(of("deleted by the old"), Some(Became::Unseen));
    assert_eq!(of("kept"), None);
    world.run(5_000);
    assert_eq!(
        mirrored_values(&mut world, OLD, "changed by the old"),
        ["old again"]
    );
    assert_eq!(world.damage, [""; 0]);
}

#[test]
fn a_returning_home_is_not_home_again_even_after_a_restart() {
    let mut world = lost_home();
    promote(&mut world);
    until_home(&mut world, NEW, 2);
    world.cut[OLD] = false;
    world.run(2_000);
    world.start(OLD);
    world.run(5_000);
    let refused = world.write(OLD, "kept", "as home").unwrap_err();
    assert!(matches!(refused, Error::NotHomeZone { .. }), "{refused}");
    until_whole(&mut world);
    world.write(NEW, "kept", "new").unwrap();
    assert_eq!(values(&world, NEW, "kept"), ["new"]);
}

/// Writes that the old home acknowledges after its return and after it has handed its last ones over, cut off again; and how
/// many of them the home zone lacks once another one is home.
fn acknowledged_and_lost(planted: PlantedBugs) -> (usize, usize) {
    let mut world = mirrored();
    world.planted = planted;
    for node in 0..ZONES {
        world.start(node);
    }
    world.run(5_000);
    world.cut[OLD] = true;
    world.run(2_000);
    promote(&mut world);
    until_home(&mut world, NEW, 2);
    world.cut[OLD] = false;
    until_whole(&mut world);
    world.cut[OLD] = true;
    let keys: Vec<String> = (0..10).map(|number| format!("late {number}")).collect();
    let acknowledged = keys.iter().filter(|key| world.write(OLD, key, key).is_ok());
    let acknowledged: Vec<&String> = acknowledged.collect();
    let failover = AlterAsk::Change(PolicyChange {
        home: Some(ZoneId(3)),
        ..PolicyChange::default()
    });
    world.run(2_000);
    ask(&mut world, NEW, failover).unwrap();
    until_home(&mut world, THIRD, 3);
    world.cut[OLD] = false;
    world.run(10_000);
    let lost = acknowledged
        .iter()
        .filter(|key| values(&world, THIRD, key).is_empty());
    (acknowledged.len(), lost.count())
}

#[test]
fn a_returned_home_acknowledges_nothing_that_the_promoted_zone_lacks() {
    let (_, lost) = acknowledged_and_lost(PlantedBugs::default());
    assert_eq!(lost, 0);
}

#[test]
fn without_a_fence_what_a_returned_home_acknowledges_is_lost() {
    let planted = PlantedBugs {
        deposed_home_serves: true,
        ..PlantedBugs::default()
    };
    let (acknowledged, lost) = acknowledged_and_lost(planted);
    assert!(
        lost > 0,
        "the planted bug is not found: {acknowledged} acknowledged"
    );
}

#[test]
fn a_promotion_beside_a_living_home_loses_nothing() {
    let mut world = mirrored();
    let mut acknowledged = Vec::new();
    let write = |world: &mut World, acknowledged: &mut Vec<String>| {
        for node in 0..ZONES {
            let key = format!("key {}", acknowledged.len());
            match world.write(node, &key, &key) {
                Ok(_) => acknowledged.push(key),
                Err(Error::NotHomeZone { .. } | Error::KeyspaceMoving) => {}
                Err(error) => panic!("{key} in zone {}: {error}", node + 1),
            }
        }
    };
    for _ in 0..30 {
        write(&mut world, &mut acknowledged);
        world.run(50);
    }
    promote(&mut world);
    for _ in 0..100 {
        write(&mut world, &mut acknowledged);
        world.run(50);
    }
    until_whole(&mut world);
    for key in &acknowledged {
        assert_eq!(values(&world, NEW, key), [key.as_str()], "{key}");
    }
    assert_eq!(world.damage, [""; 0]);
}

#[test]
fn a_promoted_node_that_dies_on_the_way_goes_on() {
    let mut world = lost_home();
    promote(&mut world);
    for _ in 0..20 {
        world.run(100);
        world.start(NEW);
    }
    until_home(&mut world, NEW, 2);
    world.run(1_000);
    assert_eq!(values(&world, NEW, "changed by the old"), ["cut"]);
    assert_eq!(values(&world, NEW, "kept"), ["cut"]);
}

#[test]
fn a_lost_home_that_is_given_up_leaves_the_cut_and_can_be_altered() {
    let mut world = lost_home();
    promote(&mut world);
    until_home(&mut world, NEW, 2);
    ask(&mut world, NEW, AlterAsk::GiveUpReturn).unwrap();
    world.cut[OLD] = false;
    world.run(10_000);
    assert_eq!(values(&world, NEW, "changed by the old"), ["cut"]);
    assert_eq!(divergence(&world, NEW).returned, Returned::GivenUp);
    assert_eq!(returned(&world, NEW), []);
    assert_eq!(mirrored_values(&mut world, OLD, "kept"), ["cut"]);
}

/// Keys that do not change after a cut that every mirror shows, and one that does; what shipping all of them to one zone takes.
fn with_many_keys(world: &mut World) -> usize {
    for number in 0..2_000 {
        world.write(OLD, &format!("key {number}"), "cut").unwrap();
    }
    world.run(3_000);
    let all = world.crossed_bytes / 2;
    world.crossed_bytes = 0;
    all
}

#[test]
fn a_planned_failover_ships_only_what_its_mirrors_lack() {
    let mut world = mirrored();
    let all = with_many_keys(&mut world);
    world.write(OLD, "key 7", "later").unwrap();
    let failover = AlterAsk::Change(PolicyChange {
        home: Some(ZoneId(2)),
        ..PolicyChange::default()
    });
    ask(&mut world, NEW, failover).unwrap();
    until_home(&mut world, NEW, 2);
    world.run(5_000);
    assert_eq!(values(&world, NEW, "key 7"), ["later"]);
    assert_eq!(values(&world, NEW, "key 8"), ["cut"]);
    for mirror in [OLD, THIRD] {
        assert_eq!(mirrored_values(&mut world, mirror, "key 7"), ["later"]);
        assert_eq!(mirrored_values(&mut world, mirror, "key 8"), ["cut"]);
    }
    let shipped = world.crossed_bytes;
    assert!(
        shipped < all / 2,
        "{shipped} bytes of {all}, to three zones"
    );
}

#[test]
fn a_home_that_returns_and_takes_over_again_is_shipped_only_differences() {
    let mut world = mirrored();
    let all = with_many_keys(&mut world);
    world.cut[OLD] = true;
    world.run(1_000);
    world.write(OLD, "key 7", "old").unwrap();
    world.run(1_000);
    promote(&mut world);
    until_home(&mut world, NEW, 2);
    world.write(NEW, "key 9", "new").unwrap();
    world.cut[OLD] = false;
    until_whole(&mut world);
    world.run(5_000);
    assert_eq!(mirrored_values(&mut world, OLD, "key 9"), ["new"]);
    assert_eq!(mirrored_values(&mut world, OLD, "key 7"), ["old"]);
    let failback = AlterAsk::Change(PolicyChange {
        home: Some(ZoneId(1)),
        ..PolicyChange::default()
    });
    ask(&mut world, NEW, failback).unwrap();
    until_home(&mut world, OLD, 1);
    world.run(5_000);
    assert_eq!(values(&world, OLD, "key 9"), ["new"]);
    assert_eq!(values(&world, OLD, "key 8"), ["cut"]);
    assert_eq!(mirrored_values(&mut world, NEW, "key 9"), ["new"]);
    let shipped = world.crossed_bytes;
    assert!(shipped < all, "{shipped} bytes of {all}, to five zones");
    assert_eq!(world.damage, [""; 0]);
}

#[test]
fn promotion_is_refused_where_there_is_no_mirror_and_without_force() {
    let mut world = World::new(SHARDS);
    let promote = |zone, force| AlterAsk::Promote { zone, force };
    let refused = ask(&mut world, NEW, promote(ZoneId(2), true)).unwrap_err();
    assert!(
        matches!(refused, Error::InvalidArgument { .. }),
        "{refused}"
    );
    let mut world = mirrored();
    let refused = ask(&mut world, NEW, promote(ZoneId(2), false)).unwrap_err();
    assert!(
        matches!(refused, Error::InvalidArgument { .. }),
        "{refused}"
    );
    assert_eq!(home(&world, NEW), Some(ZoneId(1)));
}
