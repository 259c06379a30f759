use meridian_causal::{VersionVector, ZoneId};

use super::super::{alter, placement};
use crate::catalog::{AlterReport, Catalog, Keyspace, Mode, Policy, PolicyChange, Returned, Shown};
use crate::config::{ClusterSeed, NodeSeed, ZoneSeed};
use crate::error::Error;
use crate::ids::{GroupId, KeyspaceId, NodeId};
use crate::request::{AlterAsk, KeyspaceAlter, Response};

const OLD: KeyspaceId = KeyspaceId::DEFAULT;

fn catalog(mode: Mode) -> Catalog {
    let zones = (1..=3).map(|id| ZoneSeed {
        id: ZoneId(id),
        name: format!("z{id}"),
    });
    let nodes = (1..=3).map(|id| NodeSeed {
        id: NodeId(id),
        name: format!("n{id}"),
        zone: ZoneId(u16::try_from(id).unwrap()),
        addr: String::new(),
        peer_addr: String::new(),
    });
    let seed = ClusterSeed {
        cluster: "test".to_owned(),
        zones: zones.collect(),
        nodes: nodes.collect(),
    };
    let policy = Policy {
        mode,
        ..Policy::default()
    };
    placement::found(&seed, (2, policy), 7, [0; 32], 9).unwrap()
}

fn ask(catalog: &mut Catalog, ask: AlterAsk) -> Result<Response, Error> {
    let asked = KeyspaceAlter {
        name: "default".to_owned(),
        ask,
        near: ZoneId(1),
    };
    alter::alter(catalog, asked, 1)
}

fn promote(catalog: &mut Catalog, zone: u16) -> Result<Response, Error> {
    let (zone, force) = (ZoneId(zone), true);
    ask(catalog, AlterAsk::Promote { zone, force })
}

fn serving(catalog: &Catalog) -> &Keyspace {
    catalog.keyspace_named("default").unwrap()
}

fn groups(catalog: &Catalog, id: KeyspaceId) -> Vec<GroupId> {
    let groups = catalog.keyspaces[&id].groups.iter();
    groups.map(|group| group.id).collect()
}

/// Stops the mirror and fills the successor.
fn open(catalog: &mut Catalog, new: KeyspaceId, generation: u64) {
    let after = groups(catalog, new);
    let shown = Shown {
        generation,
        ..Shown::default()
    };
    alter::report(catalog, after[0], AlterReport::Shown(shown));
    for group in after {
        alter::report(catalog, group, AlterReport::Filled);
    }
}

/// The old groups are back and have said their last; the new ones have it.
fn hand_over(catalog: &mut Catalog, old: KeyspaceId, new: KeyspaceId) {
    let round = catalog.keyspaces[&old].alter.as_ref().unwrap().sealing;
    for group in groups(catalog, old) {
        let received = VersionVector::new();
        alter::report(catalog, group, AlterReport::Final { round, received });
    }
    for group in groups(catalog, new) {
        alter::report(catalog, group, AlterReport::Ready { round });
    }
}

#[test]
fn a_promoted_mirror_is_home_before_the_old_one_is_back_and_has_a_later_epoch() {
    let mut catalog = catalog(Mode::Snapshot);
    promote(&mut catalog, 2).unwrap();
    assert_eq!(serving(&catalog).id, OLD, "it is not filled yet");
    open(&mut catalog, KeyspaceId(2), 5);
    let new = serving(&catalog);
    assert_eq!(new.policy.home, Some(ZoneId(2)));
    assert!(new.policy.epoch == 1 && new.groups.iter().all(|group| group.id.epoch == 1));
    let divergence = new.divergence.clone().unwrap();
    assert_eq!(
        (divergence.old_home, divergence.shown.generation),
        (ZoneId(1), 5)
    );
    assert_eq!(divergence.returned, Returned::Awaited);
    assert!(catalog.keyspaces[&OLD].is_deposed());
}

#[test]
fn the_first_stand_of_a_mirror_counts() {
    let mut catalog = catalog(Mode::Snapshot);
    promote(&mut catalog, 2).unwrap();
    let group = groups(&catalog, KeyspaceId(2))[0];
    for generation in [4, 5] {
        let shown = Shown {
            generation,
            ..Shown::default()
        };
        alter::report(&mut catalog, group, AlterReport::Shown(shown));
    }
    let promotion = catalog.keyspaces[&OLD].promotion().unwrap();
    assert_eq!(promotion.shown.as_ref().unwrap().generation, 4);
}

#[test]
fn the_old_home_stays_on_record_until_its_last_writes_are_handed_over() {
    let mut catalog = catalog(Mode::Snapshot);
    let new = KeyspaceId(2);
    promote(&mut catalog, 2).unwrap();
    open(&mut catalog, new, 5);
    let round = catalog.keyspaces[&OLD].alter.as_ref().unwrap().sealing;
    alter::give_up_sealing(&mut catalog, OLD, round);
    let alter = catalog.keyspaces[&OLD].alter.clone().unwrap();
    assert_eq!(alter.sealing, round, "it stays sealed for good");
    let planned = AlterAsk::Change(PolicyChange {
        home: Some(ZoneId(1)),
        ..PolicyChange::default()
    });
    assert!(ask(&mut catalog, planned.clone()).is_err());
    assert!(
        ask(&mut catalog, AlterAsk::Cancel).is_err(),
        "it has happened"
    );
    hand_over(&mut catalog, OLD, new);
    let divergence = serving(&catalog).divergence.clone().unwrap();
    assert_eq!(divergence.returned, Returned::Whole);
    assert!(
        !catalog.keyspaces[&OLD].groups.is_empty(),
        "what the old home has need not be shipped to its mirror"
    );
    let mut mirrored = catalog.clone();
    let first = groups(&mirrored, new)[0];
    alter::report(&mut mirrored, first, AlterReport::Mirrored);
    assert!(mirrored.keyspaces[&OLD].groups.is_empty());
    assert_eq!(serving(&mirrored).before, None);
    ask(&mut catalog, planned).unwrap();
    assert!(
        catalog.keyspaces[&OLD].groups.is_empty(),
        "nor is it in the way"
    );
}

/// A planned failover: what the old home has stays until it mirrors the new one, and reports go on coming meanwhile.
#[test]
fn a_name_that_has_moved_stays_where_it_is_when_a_report_is_repeated() {
    let mut catalog = catalog(Mode::Snapshot);
    let (old, new) = (OLD, KeyspaceId(2));
    let failover = AlterAsk::Change(PolicyChange {
        home: Some(ZoneId(2)),
        ..PolicyChange::default()
    });
    ask(&mut catalog, failover).unwrap();
    for group in groups(&catalog, new) {
        alter::report(&mut catalog, group, AlterReport::Filled);
    }
    hand_over(&mut catalog, old, new);
    assert_eq!(serving(&catalog).id, new);
    hand_over(&mut catalog, old, new);
    assert_eq!(serving(&catalog).id, new);
    assert!(!catalog.keyspaces[&old].groups.is_empty());
}

#[test]
fn a_second_home_may_be_lost_before_the_first_is_back() {
    let mut catalog = catalog(Mode::Snapshot);
    promote(&mut catalog, 2).unwrap();
    open(&mut catalog, KeyspaceId(2), 5);
    promote(&mut catalog, 3).unwrap();
    open(&mut catalog, KeyspaceId(3), 2);
    assert_eq!(serving(&catalog).policy.home, Some(ZoneId(3)));
    hand_over(&mut catalog, OLD, KeyspaceId(2));
    assert_eq!(catalog.keyspaces[&KeyspaceId(2)].before, None);
    assert!(catalog.keyspaces[&KeyspaceId(2)].is_deposed());
    hand_over(&mut catalog, KeyspaceId(2), KeyspaceId(3));
    let first = groups(&catalog, KeyspaceId(3))[0];
    alter::report(&mut catalog, first, AlterReport::Mirrored);
    let last = serving(&catalog);
    assert_eq!(last.before, None);
    assert_eq!(last.divergence.as_ref().unwrap().returned, Returned::Whole);
}

/// The first home is back and has handed everything over, but does not mirror the second yet, when that is lost as well: nobody
/// ever will.
#[test]
fn a_home_that_waits_to_mirror_one_that_is_lost_goes() {
    let mut catalog = catalog(Mode::Snapshot);
    let (second, third) = (KeyspaceId(2), KeyspaceId(3));
    promote(&mut catalog, 2).unwrap();
    open(&mut catalog, second, 5);
    promote(&mut catalog, 3).unwrap();
    hand_over(&mut catalog, OLD, second);
    assert!(!groups(&catalog, OLD).is_empty());
    open(&mut catalog, third, 2);
    assert!(!catalog.keyspaces.contains_key(&OLD));
    assert_eq!(catalog.keyspaces[&second].before, None);
    assert!(catalog.keyspaces[&second].is_deposed());
}

#[test]
fn a_mirror_that_shows_nothing_is_not_promoted() {
    let mut catalog = catalog(Mode::Snapshot);
    promote(&mut catalog, 2).unwrap();
    let group = groups(&catalog, KeyspaceId(2))[0];
    alter::report(&mut catalog, group, AlterReport::NothingShown);
    assert!(serving(&catalog).id == OLD && serving(&catalog).alter.is_none());
    assert!(!catalog.keyspaces.contains_key(&KeyspaceId(2)));
    promote(&mut catalog, 3).unwrap();
    let group = groups(
        &catalog,
        serving(&catalog).alter.as_ref().unwrap().successor,
    )[0];
    alter::report(&mut catalog, group, AlterReport::Shown(Shown::default()));
    alter::report(&mut catalog, group, AlterReport::NothingShown);
    assert!(serving(&catalog).promotion().is_some(), "it stands already");
}

#[test]
fn what_does_not_come_back_can_be_given_up() {
    let mut catalog = catalog(Mode::Snapshot);
    assert!(ask(&mut catalog, AlterAsk::GiveUpReturn).is_err());
    promote(&mut catalog, 2).unwrap();
    open(&mut catalog, KeyspaceId(2), 5);
    promote(&mut catalog, 3).unwrap();
    open(&mut catalog, KeyspaceId(3), 2);
    ask(&mut catalog, AlterAsk::GiveUpReturn).unwrap();
    let old = |id: KeyspaceId| catalog.keyspaces[&id].groups.len();
    assert_eq!((old(OLD), old(KeyspaceId(2))), (0, 0));
    let divergence = serving(&catalog).divergence.clone().unwrap();
    assert_eq!(divergence.returned, Returned::GivenUp);
}

#[test]
fn a_promotion_is_cancelled_until_the_name_has_moved() {
    let mut catalog = catalog(Mode::Snapshot);
    promote(&mut catalog, 2).unwrap();
    assert!(promote(&mut catalog, 3).is_err(), "one at a time");
    let again = promote(&mut catalog, 2).unwrap();
    assert_eq!(again, alter::altered(OLD, Some(KeyspaceId(2))));
    ask(&mut catalog, AlterAsk::Cancel).unwrap();
    assert_eq!(catalog.keyspaces.len(), 1);
    promote(&mut catalog, 3).unwrap();
}

#[test]
fn what_is_no_mirror_is_not_promoted_and_none_without_force() {
    let mut snapshot = catalog(Mode::Snapshot);
    assert!(promote(&mut snapshot, 1).is_err(), "home already");
    assert!(promote(&mut snapshot, 9).is_err(), "no such mirror");
    let (zone, force) = (ZoneId(2), false);
    assert!(ask(&mut snapshot, AlterAsk::Promote { zone, force }).is_err());
    assert!(promote(&mut catalog(Mode::Async), 2).is_err());
    assert!(promote(&mut catalog(Mode::Sync), 2).is_err());
}

#[test]
fn deleting_a_keyspace_deletes_what_it_came_from() {
    let mut catalog = catalog(Mode::Snapshot);
    promote(&mut catalog, 2).unwrap();
    open(&mut catalog, KeyspaceId(2), 5);
    let name = "default".to_owned();
    super::super::apply::apply(
        &mut catalog,
        super::super::ControlOp::KeyspaceDelete { name },
    )
    .unwrap();
    assert!(catalog.keyspaces.is_empty());
}
