//! A keyspace is altered while clients write: three zones of one node, messages without delay.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod three_zones;

use meridian_causal::ZoneId;
use meridian_core::Error;
use meridian_core::catalog::{Mode, PolicyChange};
use meridian_core::ids::KeyspaceId;
use meridian_core::keys::MirrorPointerKey;
use meridian_core::request::{AlterAsk, KeyspaceAlter, Request, Response};
use meridian_storage::Read as _;
use three_zones::{TICK_MS, World, ZONES};

/// Writes that must be there in the end.
#[derive(Default)]
struct Acknowledged(Vec<String>);

impl Acknowledged {
    /// One write in each zone, of new keys; what the keyspace refuses while it moves is not expected to be there.
    fn write(&mut self, world: &mut World) {
        for zone in 0..ZONES {
            let key = format!("z{zone}-{}", self.0.len());
            match world.write(zone, &key, &key) {
                Ok(_) => self.0.push(key),
                Err(Error::KeyspaceMoving) => {}
                Err(error) => panic!("{key} in zone {zone}: {error}"),
            }
        }
    }

    fn all_there(&self, world: &World) {
        for key in &self.0 {
            assert_eq!(world.everywhere(key), [key.as_str()]);
        }
    }
}

fn alter(world: &mut World, ask: AlterAsk) -> Result<Response, Error> {
    let request = Request::KeyspaceAlter(Box::new(KeyspaceAlter {
        name: "default".to_owned(),
        ask,
        near: ZoneId(1),
    }));
    world.ask(0, request).unwrap()
}

fn to(mode: Mode) -> AlterAsk {
    AlterAsk::Change(PolicyChange {
        mode: Some(mode),
        ..PolicyChange::default()
    })
}

fn mode(world: &World, node: usize) -> Mode {
    let core = world.nodes[node].core.as_ref().unwrap();
    let catalog = core.catalog();
    let keyspace = catalog.keyspace_named("default").unwrap();
    keyspace.policy.mode
}

/// Runs until every node knows the keyspace in its new mode, with clients writing.
fn until(world: &mut World, wanted: Mode, written: &mut Acknowledged) {
    for _ in 0..400 {
        world.run(50);
        written.write(world);
        if (0..ZONES).all(|node| mode(world, node) == wanted) {
            return;
        }
    }
    let core = world.nodes[0].core.as_ref().unwrap();
    let keyspaces = core.catalog().keyspaces.clone();
    let alters = keyspaces.values().map(|keyspace| &keyspace.alter);
    panic!(
        "never became {}: {:?}",
        wanted.name(),
        alters.collect::<Vec<_>>()
    );
}

#[test]
fn no_acknowledged_write_is_lost_on_the_way_to_sync_and_back() {
    let mut world = World::new(2);
    let mut written = Acknowledged::default();
    for _ in 0..30 {
        written.write(&mut world);
    }
    for mode in [Mode::Sync, Mode::Async, Mode::Sync] {
        let before = world.keyspace(0);
        alter(&mut world, to(mode)).unwrap();
        until(&mut world, mode, &mut written);
        assert_ne!(world.keyspace(0), before);
        for _ in 0..5 {
            written.write(&mut world);
        }
        world.run(5_000);
        written.all_there(&world);
        world.same_digests();
    }
    assert!(
        written.0.len() > 150,
        "clients went on: {}",
        written.0.len()
    );
    assert_eq!(world.damage, [""; 0]);
}

#[test]
fn siblings_and_deletes_survive_the_way() {
    let mut world = World::new(2);
    world.write(0, "deleted", "once").unwrap();
    world.write(0, "both", "first").unwrap();
    world.run(1_000);
    world.cut = [true; ZONES];
    world.write(0, "both", "from 1").unwrap();
    world.write(1, "both", "from 2").unwrap();
    world.delete(1, "deleted").unwrap();
    world.cut = [false; ZONES];
    world.run(3_000);
    let mut written = Acknowledged::default();
    alter(&mut world, to(Mode::Sync)).unwrap();
    until(&mut world, Mode::Sync, &mut written);
    world.run(3_000);
    assert_eq!(world.everywhere("both"), ["from 1", "from 2"]);
    assert_eq!(world.siblings(2, "deleted"), []);
}

/// Runs until the old groups of a keyspace that is altered are being sealed; then the last zone is cut off, so that the name
/// cannot move.
fn cut_off_while_sealing(world: &mut World) -> KeyspaceId {
    for _ in 0..400 {
        world.run(TICK_MS);
        let catalog = world.nodes[0].core.as_ref().unwrap().catalog();
        let old = catalog.keyspace_named("default").unwrap();
        if old.alter.as_ref().is_some_and(|alter| alter.sealing > 0) {
            world.cut[2] = true;
            world.run(TICK_MS * 10);
            return old.id;
        }
    }
    panic!("no round of sealing has begun");
}

#[test]
fn a_sealed_group_writes_nothing_and_gives_no_view_until_the_round_is_given_up() {
    let mut world = World::new(2);
    let mut written = Acknowledged::default();
    written.write(&mut world);
    alter(&mut world, to(Mode::Sync)).unwrap();
    let keyspace = cut_off_while_sealing(&mut world);
    let view = |world: &mut World| world.ask(0, Request::ViewOpen { keyspace });
    assert_eq!(view(&mut world), Some(Err(Error::KeyspaceMoving)));
    let refused = world.write(0, "k", "v");
    assert_eq!(refused, Err(Error::KeyspaceMoving));
    world.run(10_000);
    let opened = view(&mut world);
    assert!(
        matches!(opened, Some(Ok(Response::ViewOpened(_)))),
        "{opened:?}"
    );
    world.write(0, "k", "v").unwrap();
}

/// The zone that is away keeps the successor from being filled, and what the home zone has of it by then is no cut.
#[test]
fn no_mirror_shows_a_keyspace_that_has_not_taken_over() {
    let mut world = World::new(2);
    let mut written = Acknowledged::default();
    written.write(&mut world);
    world.cut[2] = true;
    let snapshot = PolicyChange {
        mode: Some(Mode::Snapshot),
        interval_ms: Some(500),
        ..PolicyChange::default()
    };
    alter(&mut world, AlterAsk::Change(snapshot)).unwrap();
    let shows = |world: &World| {
        let core = world.nodes[0].core.as_ref().unwrap();
        let newest = core.catalog().keyspaces.keys().copied().max();
        let pointer = MirrorPointerKey::encode(newest.unwrap());
        world.nodes[1].engine.get(&pointer).unwrap().is_some()
    };
    world.run(5_000);
    assert!(!shows(&world));
    world.cut[2] = false;
    world.run(20_000);
    assert_eq!(mode(&world, 1), Mode::Snapshot);
    assert!(shows(&world));
}

#[test]
fn a_zone_that_is_away_holds_an_alter_up_and_clients_go_on_until_it_is_cancelled() {
    let mut world = World::new(2);
    let mut written = Acknowledged::default();
    written.write(&mut world);
    world.run(1_000);
    world.cut[2] = true;
    alter(&mut world, to(Mode::Sync)).unwrap();
    for _ in 0..100 {
        world.run(50);
        let key = format!("meanwhile-{}", written.0.len());
        world.write(0, &key, &key).unwrap();
        written.0.push(key);
    }
    assert_eq!(mode(&world, 0), Mode::Async);
    alter(&mut world, AlterAsk::Cancel).unwrap();
    world.cut[2] = false;
    world.run(10_000);
    assert!(
        (0..ZONES).all(|node| {
            let core = world.nodes[node].core.as_ref().unwrap();
            core.catalog().keyspaces.len() == 1
        }),
        "nothing is left of the successor"
    );
    written.all_there(&world);
    let again = alter(&mut world, AlterAsk::Cancel).unwrap_err();
    assert!(matches!(again, Error::InvalidArgument { .. }), "{again}");
}
