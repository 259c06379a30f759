//! Promotion: a mirror becomes the home zone while the old one is not there to agree (protocol rules 25 and 27).
//!
//! It makes a successor of the keyspace, as a planned failover does, in other stages: *stopping*, the mirror's zone says at
//! which generation it stands still; *filling*, the successor's groups take that generation over; then the name moves, which
//! fences the old home zone: whoever knows this catalog serves nothing of it as home, and its groups seal as soon as they
//! know it. Last, whenever the old home zone is back, its groups say what they had written, and the successor's take over what
//! they lack of it (`shard::unseen` lists it). Until then the old keyspace stays on record as deposed.
//!
//! Invariants:
//! * the successor opens with one generation, whole, of the mirror's zone, and nothing beyond it;
//! * a deposed keyspace is never given a name again: a returning home zone cannot be home by mistake;
//! * its groups go only when the successor holds all that they ever wrote, or an operator has given that up.

use super::alter::{altered, end, refused, succeed};
use crate::catalog::{Catalog, Keyspace, Mode, PolicyChange, Promotion, Returned};
use crate::error::Error;
use crate::ids::KeyspaceId;
use crate::request::Response;
use meridian_causal::ZoneId;

/// Begins a promotion.
pub(super) fn promote(
    catalog: &mut Catalog,
    old: &Keyspace,
    (zone, force): (ZoneId, bool),
    nonce: u64,
) -> Result<Response, Error> {
    if let Some(done) = asked_again(old, zone) {
        return Ok(done);
    }
    check(catalog, old, zone)?;
    if !force {
        return Err(refused(
            "nobody can know that the home zone has stopped: it may still acknowledge writes to whoever reaches it, and what \
             this mirror has not seen comes back as siblings or not at all. Where the home zone answers, a failover loses \
             nothing. To promote all the same, force it",
        ));
    }
    let change = PolicyChange {
        home: Some(zone),
        ..PolicyChange::default()
    };
    let policy = change.apply(&old.policy, catalog, zone)?;
    let successor = succeed(catalog, old, policy, nonce)?;
    let alter = catalog.keyspaces.get_mut(&old.id);
    if let Some(alter) = alter.and_then(|keyspace| keyspace.alter.as_mut()) {
        alter.promotion = Some(Promotion { zone, shown: None });
    }
    Ok(altered(old.id, Some(successor)))
}

/// The answer to one who was not answered the first time: the same promotion is under way or done.
fn asked_again(old: &Keyspace, zone: ZoneId) -> Option<Response> {
    let under_way = old.alter.as_ref().filter(|alter| {
        let promotion = alter.promotion.as_ref();
        promotion.is_some_and(|promotion| promotion.zone == zone)
    });
    let done = old.divergence.is_some() && old.policy.home == Some(zone);
    let successor = under_way.map(|alter| alter.successor);
    (done || successor.is_some()).then(|| altered(old.id, successor))
}

fn check(catalog: &Catalog, old: &Keyspace, zone: ZoneId) -> Result<(), Error> {
    let policy = &old.policy;
    let name = || catalog.zones.get(&zone).cloned().unwrap_or_default();
    if policy.mode != Mode::Snapshot {
        let mode = policy.mode.name();
        return Err(refused(format!(
            "a mirror is promoted, and a keyspace of mode {mode} has none: its zones serve without the one that is lost"
        )));
    }
    if policy.home == Some(zone) {
        return Err(refused(format!("zone {} is the home zone", name())));
    }
    if !policy.zones.contains(&zone) {
        return Err(refused(format!(
            "zone {} does not mirror the keyspace",
            name()
        )));
    }
    if old.alter.is_some() {
        return Err(refused(
            "an alter or a promotion is under way: wait for it or cancel it",
        ));
    }
    Ok(())
}

/// The deposed keyspaces before this one are waited for no longer: their groups go, with what they have not handed over.
pub(super) fn give_up_return(catalog: &mut Catalog, current: &Keyspace) -> Result<Response, Error> {
    let mut deposed: Vec<KeyspaceId> = Vec::new();
    let mut next = current.before;
    while let Some(id) = next {
        deposed.push(id);
        next = catalog.keyspaces.get(&id).and_then(|found| found.before);
    }
    if deposed.is_empty() {
        return Err(refused("no deposed home zone is waited for"));
    }
    for id in deposed {
        end(catalog, id, Returned::GivenUp);
    }
    Ok(altered(current.id, None))
}

#[cfg(test)]
mod tests;
