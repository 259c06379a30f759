//! Altering a keyspace: what each step does to the catalog.
//!
//! An alter that leaves the groups where they are changes the policy and is done. One that moves them makes a successor
//! ([`Alter`]) and goes through three stages, each begun when every group has reported the one before: *filling*, the
//! successor's groups take over what there is while the old ones serve; *sealing*, the old groups make their last writes
//! and the successor's take over the rest; then the name moves. Until it has, the alter may be cancelled, and sealing that
//! takes too long goes back to filling: the old groups serve on.
//!
//! Invariant: a name moves only when every group of the successor holds everything the old groups ever wrote.

use std::collections::{BTreeMap, BTreeSet};

use meridian_causal::ZoneId;

use super::{placement, promote};
use crate::catalog::{
    Alter, AlterReport, Catalog, Divergence, Keyspace, Mode, Policy, PolicyChange, Promotion,
    Returned,
};
use crate::error::Error;
use crate::ids::{GroupId, KeyspaceId};
use crate::limits::KEYSPACES_MAX;
use crate::request::{AlterAsk, KeyspaceAlter, Response};

/// Begins an alter, does it at once, or gives one up.
pub(super) fn alter(
    catalog: &mut Catalog,
    asked: KeyspaceAlter,
    nonce: u64,
) -> Result<Response, Error> {
    let Some(old) = catalog.keyspace_named(&asked.name).cloned() else {
        return Err(Error::KeyspaceNotFound);
    };
    end_lingering(catalog, &old);
    let old = catalog.keyspaces.get(&old.id).cloned().unwrap_or(old);
    let change = match asked.ask {
        AlterAsk::Change(change) => change,
        AlterAsk::Cancel => return cancel(catalog, &old),
        AlterAsk::Promote { zone, force } => {
            return promote::promote(catalog, &old, (zone, force), nonce);
        }
        AlterAsk::GiveUpReturn => return promote::give_up_return(catalog, &old),
    };
    if let Some(under_way) = same_under_way(catalog, &old, &change, asked.near)? {
        return Ok(altered(old.id, Some(under_way)));
    }
    if old.alter.is_some() {
        return Err(refused("an alter is under way: wait for it or cancel it"));
    }
    if old.before.is_some() {
        return Err(refused(
            "the last writes of the home zone before a promotion have not come back: wait for them or give them up",
        ));
    }
    let policy = change.apply(&old.policy, catalog, asked.near)?;
    let moves = !policy.same_walls(&old.policy);
    if moves && old.policy.mode == Mode::Snapshot && old.groups.iter().any(|group| group.disk_lost)
    {
        return Err(refused(
            "the home zone has lost its disks and can hand nothing over: promote a mirror",
        ));
    }
    if !moves {
        if let Some(keyspace) = catalog.keyspaces.get_mut(&old.id) {
            keyspace.policy = policy;
        }
        return Ok(altered(old.id, None));
    }
    let successor = succeed(catalog, &old, policy, nonce)?;
    Ok(altered(old.id, Some(successor)))
}

/// The successor of an alter under way that was asked for the same: an operator whose first request was not answered asks
/// again.
fn same_under_way(
    catalog: &Catalog,
    old: &Keyspace,
    change: &PolicyChange,
    near: ZoneId,
) -> Result<Option<KeyspaceId>, Error> {
    let Some(alter) = old.alter.as_ref().filter(|alter| alter.promotion.is_none()) else {
        return Ok(None);
    };
    let wanted = change.clone().apply(&old.policy, catalog, near)?;
    let successor = catalog.keyspaces.get(&alter.successor);
    let same = successor.is_some_and(|successor| successor.policy == wanted);
    Ok(same.then_some(alter.successor))
}

pub(super) const fn altered(keyspace: KeyspaceId, successor: Option<KeyspaceId>) -> Response {
    Response::KeyspaceAltered {
        keyspace,
        successor,
    }
}

/// Places the keyspace that is to take over.
pub(super) fn succeed(
    catalog: &mut Catalog,
    old: &Keyspace,
    policy: Policy,
    nonce: u64,
) -> Result<KeyspaceId, Error> {
    if catalog.keyspaces.len() >= KEYSPACES_MAX {
        return Err(refused(format!("{KEYSPACES_MAX} keyspaces exist already")));
    }
    let id = catalog.next_keyspace;
    catalog.next_keyspace = KeyspaceId(id.0.saturating_add(1));
    let mut keyspace = placement::keyspace(catalog, id, "", (old.shards, policy), nonce);
    // Fencing tokens compare by the epoch first: those of the successor are greater than any before.
    let epochs = old.groups.iter().map(|group| group.id.epoch);
    let epoch = epochs.max().unwrap_or(0).saturating_add(1);
    for group in &mut keyspace.groups {
        group.id.epoch = epoch;
    }
    keyspace.lineage = old.lineage;
    keyspace.before = Some(old.id);
    catalog.keyspaces.insert(id, keyspace);
    if let Some(old) = catalog.keyspaces.get_mut(&old.id) {
        old.alter = Some(Alter {
            successor: id,
            filled: BTreeSet::new(),
            sealing: 0,
            finals: BTreeMap::new(),
            ready: BTreeSet::new(),
            promotion: None,
        });
    }
    Ok(id)
}

fn cancel(catalog: &mut Catalog, old: &Keyspace) -> Result<Response, Error> {
    if old.alter.is_none() {
        return Err(refused("no alter is under way"));
    }
    give_up(catalog, old.id);
    Ok(altered(old.id, None))
}

/// What is under way ends, and its successor goes.
fn give_up(catalog: &mut Catalog, old: KeyspaceId) {
    let keyspace = catalog.keyspaces.get_mut(&old);
    if let Some(alter) = keyspace.and_then(|keyspace| keyspace.alter.take()) {
        catalog.keyspaces.remove(&alter.successor);
    }
}

/// A group tells how far it is.
pub(super) fn report(catalog: &mut Catalog, group: GroupId, report: AlterReport) {
    let Some(own) = catalog.keyspaces.get(&group.keyspace) else {
        return;
    };
    if !own.groups.iter().any(|record| record.id == group) {
        return;
    }
    if report == AlterReport::Refilled {
        disk_loss_mended(catalog, group);
        return;
    }
    // A group whose only replica was wiped is founded anew, under another id: what the one before had said says nothing of it.
    let members: Vec<GroupId> = own.groups.iter().map(|record| record.id).collect();
    let all = |reported: &BTreeSet<GroupId>| members.iter().all(|id| reported.contains(id));
    let old = match report {
        AlterReport::Final { .. } => Some(own.id),
        AlterReport::Filled
        | AlterReport::Ready { .. }
        | AlterReport::Mirrored
        | AlterReport::Shown(_)
        | AlterReport::NothingShown
        | AlterReport::Refilled => own.before,
    };
    let next_revision = catalog.revision.saturating_add(1);
    let old = old.and_then(|old| catalog.keyspaces.get_mut(&old));
    let Some((old, alter)) = old.and_then(|old| Some((old.id, old.alter.as_mut()?))) else {
        return;
    };
    match report {
        AlterReport::Filled => {
            alter.filled.insert(group);
            if all(&alter.filled) && alter.sealing == 0 {
                alter.sealing = next_revision;
                if alter.promotion.is_some() {
                    take_name(catalog, old);
                }
            }
        }
        AlterReport::Final { round, received } if alter.sealing == round => {
            alter.finals.insert(group, received);
        }
        AlterReport::Ready { round } if alter.sealing == round => {
            alter.ready.insert(group);
            if all(&alter.ready) {
                handed_over(catalog, old);
            }
        }
        AlterReport::Mirrored => {
            if all(&alter.ready) {
                end(catalog, old, Returned::Whole);
            }
        }
        AlterReport::Shown(shown) => {
            if let Some(promotion) = &mut alter.promotion {
                promotion.shown.get_or_insert(shown);
            }
        }
        AlterReport::NothingShown => {
            let silent = |promotion: &Promotion| promotion.shown.is_none();
            if alter.promotion.as_ref().is_some_and(silent) {
                give_up(catalog, old);
            }
        }
        AlterReport::Final { .. } | AlterReport::Ready { .. } | AlterReport::Refilled => {}
    }
}

fn disk_loss_mended(catalog: &mut Catalog, id: GroupId) {
    let keyspace = catalog.keyspaces.get_mut(&id.keyspace);
    let groups = keyspace.map(|keyspace| &mut keyspace.groups);
    for group in groups.into_iter().flatten() {
        group.disk_lost &= group.id != id;
    }
}

/// Sealing has taken too long, perhaps since a zone was lost meanwhile: the old groups serve on, and the successor's fill up
/// again. Of a deposed home zone nothing is given up: its groups stay sealed for good.
pub(super) fn give_up_sealing(catalog: &mut Catalog, old: KeyspaceId, round: u64) {
    let keyspace = catalog.keyspaces.get_mut(&old);
    let alter = keyspace
        .filter(|keyspace| !keyspace.moved)
        .and_then(|keyspace| keyspace.alter.as_mut());
    if let Some(alter) = alter.filter(|alter| alter.sealing == round) {
        *alter = Alter {
            successor: alter.successor,
            filled: BTreeSet::new(),
            sealing: 0,
            finals: BTreeMap::new(),
            ready: BTreeSet::new(),
            promotion: alter.promotion.take(),
        };
    }
}

/// The successor opens under the name. Of earlier keyspaces of the lineage nothing stays that has nothing to hand over.
fn take_name(catalog: &mut Catalog, old: KeyspaceId) {
    // No zone will mirror the old keyspace any more: none that was home before it is waited for on that account.
    if let Some(current) = catalog.keyspaces.get(&old).cloned() {
        end_lingering(catalog, &current);
    }
    // A report that comes twice finds the name gone.
    let keyspace = catalog.keyspaces.get_mut(&old);
    let Some(keyspace) = keyspace.filter(|keyspace| !keyspace.moved) else {
        return;
    };
    let Some(alter) = &keyspace.alter else {
        return;
    };
    let (successor, promotion) = (alter.successor, alter.promotion.clone());
    let (name, lineage) = (std::mem::take(&mut keyspace.name), keyspace.lineage);
    let (old_home, earlier) = (keyspace.policy.home, keyspace.divergence.clone());
    keyspace.moved = true;
    if let Some(successor) = catalog.keyspaces.get_mut(&successor) {
        successor.name = name;
        let diverged = promotion.map(|promotion| Divergence {
            old_home: old_home.unwrap_or_default(),
            shown: promotion.shown.unwrap_or_default(),
            returned: Returned::Awaited,
        });
        successor.divergence = diverged.or(earlier);
    }
    let past = |keyspace: &Keyspace| keyspace.moved && keyspace.alter.is_none();
    catalog
        .keyspaces
        .retain(|_, keyspace| !(past(keyspace) && keyspace.lineage == lineage));
}

/// The successor has everything. If the zone that was home is to mirror it, the old groups stay until it does, so that what
/// they have need not be shipped back there.
fn handed_over(catalog: &mut Catalog, old: KeyspaceId) {
    let promoted = catalog
        .keyspaces
        .get(&old)
        .is_some_and(|old| old.promotion().is_some());
    if !promoted {
        take_name(catalog, old);
    }
    let is_kept = is_to_mirror(catalog, old).unwrap_or(false);
    if !is_kept {
        end(catalog, old, Returned::Whole);
    } else if promoted {
        returned(catalog, old, Returned::Whole);
    }
}

/// Whether the zone that was home is one of those that mirror the successor.
fn is_to_mirror(catalog: &Catalog, old: KeyspaceId) -> Option<bool> {
    let old = catalog.keyspaces.get(&old)?;
    let successor = catalog.keyspaces.get(&old.alter.as_ref()?.successor)?;
    let (before, after) = (&old.policy, &successor.policy);
    let modes = [before.mode, after.mode] == [Mode::Snapshot; 2];
    let moved = before.home != after.home;
    Some(
        modes
            && moved
            && successor.is_open()
            && before.home.is_some_and(|home| after.zones.contains(&home)),
    )
}

/// Says of the successor's report what has become of the old home's last writes.
fn returned(catalog: &mut Catalog, old: KeyspaceId, returned: Returned) {
    let alter = catalog
        .keyspaces
        .get(&old)
        .and_then(|old| old.alter.as_ref());
    let successor = alter.map(|alter| alter.successor);
    let successor = successor.and_then(|id| catalog.keyspaces.get_mut(&id));
    if let Some(divergence) = successor.and_then(|successor| successor.divergence.as_mut()) {
        divergence.returned = returned;
    }
}

/// Ends a keyspace that has handed everything over and stays for its mirror's sake only.
pub(super) fn end_lingering(catalog: &mut Catalog, current: &Keyspace) {
    let Some(old) = current.before.filter(|_| current.is_open()) else {
        return;
    };
    let alter = catalog
        .keyspaces
        .get(&old)
        .and_then(|old| old.alter.as_ref());
    let all = |alter: &Alter| {
        current
            .groups
            .iter()
            .all(|group| alter.ready.contains(&group.id))
    };
    if alter.is_some_and(all) {
        end(catalog, old, Returned::Whole);
    }
}

/// Nothing more comes of the old groups. That the keyspace has moved stays on record, for requests on their way to it.
pub(super) fn end(catalog: &mut Catalog, old: KeyspaceId, returned: Returned) {
    let Some(keyspace) = catalog.keyspaces.get_mut(&old) else {
        return;
    };
    let Some(alter) = keyspace.alter.take() else {
        return;
    };
    keyspace.groups.clear();
    if let Some(successor) = catalog.keyspaces.get_mut(&alter.successor) {
        successor.before = None;
        let promoted = successor.divergence.as_mut();
        if let Some(divergence) = promoted.filter(|_| alter.promotion.is_some()) {
            divergence.returned = returned;
        }
    }
}

pub(super) fn refused(message: impl Into<String>) -> Error {
    Error::InvalidArgument {
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use meridian_causal::{Incarnation, VersionVector, ZoneId};

    use super::*;
    use crate::catalog::{Mode, PolicyChange};
    use crate::config::{ClusterSeed, NodeSeed, ZoneSeed};
    use crate::ids::NodeId;

    fn catalog() -> Catalog {
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
        placement::found(&seed, (2, Policy::default()), 7, [0; 32], 9).unwrap()
    }

    fn change(mode: Mode) -> KeyspaceAlter {
        KeyspaceAlter {
            name: "default".to_owned(),
            ask: AlterAsk::Change(PolicyChange {
                mode: Some(mode),
                ..PolicyChange::default()
            }),
            near: ZoneId(1),
        }
    }

    fn groups(catalog: &Catalog, id: KeyspaceId) -> Vec<(GroupId, Incarnation)> {
        let groups = catalog.keyspaces[&id].groups.iter();
        groups.map(|group| (group.id, group.incarnation)).collect()
    }

    fn round(catalog: &Catalog, old: KeyspaceId) -> u64 {
        catalog.keyspaces[&old].alter.as_ref().unwrap().sealing
    }

    fn last_write(round: u64, incarnation: Incarnation) -> AlterReport {
        let mut received = VersionVector::new();
        received.advance(incarnation, 5);
        AlterReport::Final { round, received }
    }

    /// Everything that groups report, in order; stops before the last report of the last stage.
    fn all_but_the_last_report(catalog: &mut Catalog, old: KeyspaceId, new: KeyspaceId) -> GroupId {
        let after = groups(catalog, new);
        for (group, _) in &after {
            report(catalog, *group, AlterReport::Filled);
        }
        let round = round(catalog, old);
        for (group, incarnation) in groups(catalog, old) {
            report(catalog, group, last_write(round, incarnation));
        }
        let (last, rest) = after.split_last().unwrap();
        for (group, _) in rest {
            report(catalog, *group, AlterReport::Ready { round });
        }
        last.0
    }

    #[test]
    fn the_name_moves_when_the_last_group_is_ready_and_tokens_stay_good() {
        let mut catalog = catalog();
        let old = KeyspaceId::DEFAULT;
        let begun = alter(&mut catalog, change(Mode::Sync), 1).unwrap();
        let Response::KeyspaceAltered {
            successor: Some(new),
            ..
        } = begun
        else {
            panic!("a successor is made");
        };
        assert_eq!(catalog.keyspace_named("default").unwrap().id, old);
        let last = all_but_the_last_report(&mut catalog, old, new);
        assert_eq!(catalog.keyspace_named("default").unwrap().id, old);
        let round = round(&catalog, old);
        report(&mut catalog, last, AlterReport::Ready { round });
        let opened = catalog.keyspace_named("default").unwrap();
        assert_eq!((opened.id, opened.lineage), (new, old));
        assert_eq!(opened.policy.mode, Mode::Sync);
        assert!(opened.groups.iter().all(|group| group.id.epoch == 1));
        assert!(catalog.keyspaces[&old].moved);
    }

    #[test]
    fn reports_of_another_round_count_for_nothing() {
        let mut catalog = catalog();
        let (old, new) = (KeyspaceId::DEFAULT, KeyspaceId(2));
        alter(&mut catalog, change(Mode::Sync), 1).unwrap();
        let last = all_but_the_last_report(&mut catalog, old, new);
        let given_up = round(&catalog, old);
        catalog.revision = 77;
        give_up_sealing(&mut catalog, old, given_up);
        report(&mut catalog, last, AlterReport::Ready { round: given_up });
        assert!(catalog.keyspace_named("default").unwrap().id == old);
        for (group, _) in groups(&catalog, new) {
            report(&mut catalog, group, AlterReport::Filled);
        }
        assert_ne!(round(&catalog, old), given_up);
        for (group, incarnation) in groups(&catalog, old) {
            report(&mut catalog, group, last_write(given_up, incarnation));
        }
        for (group, _) in groups(&catalog, new) {
            report(&mut catalog, group, AlterReport::Ready { round: given_up });
        }
        let alter = catalog.keyspaces[&old].alter.clone().unwrap();
        assert!(alter.ready.is_empty() && alter.finals.is_empty());
    }

    #[test]
    fn what_a_group_said_before_its_only_replica_was_wiped_counts_for_nothing() {
        let mut catalog = catalog();
        let (old, new) = (KeyspaceId::DEFAULT, KeyspaceId(2));
        alter(&mut catalog, change(Mode::Sync), 1).unwrap();
        let last = all_but_the_last_report(&mut catalog, old, new);
        let round = round(&catalog, old);
        let (first, _) = groups(&catalog, new)[0];
        for record in &mut catalog.keyspaces.get_mut(&new).unwrap().groups {
            record.id.epoch += u32::from(record.id == first);
        }
        report(&mut catalog, last, AlterReport::Ready { round });
        assert_eq!(catalog.keyspace_named("default").unwrap().id, old);
        let (anew, _) = groups(&catalog, new)[0];
        report(&mut catalog, anew, AlterReport::Ready { round });
        assert_eq!(catalog.keyspace_named("default").unwrap().id, new);
    }

    #[test]
    fn an_alter_is_cancelled_until_the_name_has_moved() {
        let mut catalog = catalog();
        let cancel = || KeyspaceAlter {
            ask: AlterAsk::Cancel,
            ..change(Mode::Sync)
        };
        assert!(
            alter(&mut catalog, cancel(), 1).is_err(),
            "nothing to cancel"
        );
        alter(&mut catalog, change(Mode::Sync), 1).unwrap();
        assert_eq!(
            alter(&mut catalog, change(Mode::Sync), 1).unwrap(),
            altered(KeyspaceId::DEFAULT, Some(KeyspaceId(2))),
            "asked again"
        );
        assert!(
            alter(&mut catalog, change(Mode::Snapshot), 1).is_err(),
            "one at a time"
        );
        alter(&mut catalog, cancel(), 1).unwrap();
        assert_eq!(catalog.keyspaces.len(), 1);
        alter(&mut catalog, change(Mode::Sync), 1).unwrap();
        let last = all_but_the_last_report(&mut catalog, KeyspaceId::DEFAULT, KeyspaceId(3));
        let late = round(&catalog, KeyspaceId::DEFAULT);
        alter(&mut catalog, cancel(), 1).unwrap();
        report(&mut catalog, last, AlterReport::Ready { round: late });
        let keyspace = catalog.keyspace_named("default").unwrap();
        assert_eq!(
            (keyspace.id, keyspace.policy.mode),
            (KeyspaceId::DEFAULT, Mode::Async)
        );
    }

    #[test]
    fn a_change_that_moves_no_group_is_done_at_once() {
        let mut catalog = catalog();
        let bound = KeyspaceAlter {
            ask: AlterAsk::Change(PolicyChange {
                max_lag_ms: Some(Some(5_000)),
                ..PolicyChange::default()
            }),
            ..change(Mode::Async)
        };
        alter(&mut catalog, bound, 1).unwrap();
        let keyspace = catalog.keyspace_named("default").unwrap();
        assert_eq!(keyspace.policy.max_lag_ms, Some(5_000));
        assert_eq!(keyspace.policy.epoch, 1);
        assert!(keyspace.alter.is_none());
    }
}
