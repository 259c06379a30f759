//! An operator: when the keyspace is altered in a run, and into what; and when a mirror is promoted, and which.
//!
//! It asks for what may be asked in a world of that size; whether it comes to that, the cluster says. Each errand is drawn
//! from a stream of its own, so that a seed's errands stay the same while the rest is changed.
//!
//! What it is not: the sending of requests, which is `world::operators`.

use meridian_causal::ZoneId;
use meridian_core::catalog::{Ack, Mode, OnZoneLoss, Policy, PolicyChange};
use rand::rngs::SmallRng;

use crate::node::zone_id;
use crate::rng::{Draw, MS, SEC, Streams};
use crate::scenario::{Scenario, Topology};

/// What an operator is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// To have the keyspace altered; which of the run's alters.
    Alter(u32),
    /// To have a mirror promoted; which of the run's promotions.
    Promote(u32),
    /// To give up the alter or promotion under way, if any.
    Cancel,
}

/// No alter is asked for before: a cluster is founded first.
const FIRST_NS: u64 = 4 * SEC;

/// The times and errands of a run.
pub fn plan(scenario: &Scenario, streams: Streams) -> Vec<(u64, Errand)> {
    let mut rng = streams.stream("operator.plan", 0);
    let mut errands = Vec::new();
    for number in 0..scenario.alters {
        let at = rng.between(FIRST_NS, scenario.duration_ns.max(FIRST_NS));
        let cancels = rng.chance(0.25);
        let patience = rng.between(100, 4_000) * MS;
        errands.push((at, Errand::Alter(number)));
        if cancels {
            errands.push((at + patience, Errand::Cancel));
        }
    }
    errands.extend(promotions(scenario, streams));
    errands
}

fn promotions(scenario: &Scenario, streams: Streams) -> Vec<(u64, Errand)> {
    let mut rng = streams.stream("operator.promotions", 0);
    let mut errands = Vec::new();
    for number in 0..scenario.promotions {
        let at = rng.between(FIRST_NS, scenario.duration_ns.max(FIRST_NS));
        let cancels = rng.chance(0.1);
        let patience = rng.between(100, 4_000) * MS;
        errands.push((at, Errand::Promote(number)));
        if cancels {
            errands.push((at + patience, Errand::Cancel));
        }
    }
    errands
}

/// The zone whose mirror is to be promoted, of a keyspace with such a policy; in some other mode, none.
pub fn promoted(topology: Topology, now: &Policy, rng: &mut SmallRng) -> Option<ZoneId> {
    let is_mirror = |zone: &ZoneId| Some(*zone) != now.home;
    let all = all_zones(topology);
    let zones = if now.zones.is_empty() {
        all
    } else {
        now.zones.clone()
    };
    let mirrors: Vec<ZoneId> = zones.into_iter().filter(is_mirror).collect();
    let drawn = rng.pick(&mirrors).copied();
    drawn.filter(|_| now.mode == Mode::Snapshot)
}

/// What is asked for, of a keyspace with such a policy.
pub fn change(topology: Topology, now: &Policy, rng: &mut SmallRng) -> PolicyChange {
    if now.mode == Mode::Snapshot && topology.zones > 1 && rng.chance(0.4) {
        return fail_over(topology, now, rng);
    }
    let modes: &[Mode] = if topology.zones > 2 {
        &[Mode::Async, Mode::Sync, Mode::Snapshot]
    } else {
        &[Mode::Async, Mode::Snapshot]
    };
    // Mostly another mode; the same one with other zones now and then.
    let others: Vec<Mode> = modes
        .iter()
        .copied()
        .filter(|mode| *mode != now.mode)
        .collect();
    let modes = if rng.chance(0.85) {
        others.as_slice()
    } else {
        modes
    };
    let mode = rng.pick(modes).copied().unwrap_or_default();
    let zones = draw_zones(topology, mode, rng);
    let mut change = PolicyChange {
        mode: Some(mode),
        zones: Some(zones.clone()),
        ..PolicyChange::default()
    };
    match mode {
        Mode::Async => {}
        Mode::Sync => {
            if rng.chance(0.3) {
                change.ack = Some(Ack::All);
                change.on_zone_loss = rng.chance(0.5).then_some(OnZoneLoss::Degrade);
            }
        }
        Mode::Snapshot => {
            change.home = rng.pick(&zones).copied();
            change.interval_ms = Some(rng.between(100, 2_500));
        }
    }
    change
}

/// A planned failover: another home, and nothing else.
fn fail_over(topology: Topology, now: &Policy, rng: &mut SmallRng) -> PolicyChange {
    let all = all_zones(topology);
    let zones = if now.zones.is_empty() {
        all.as_slice()
    } else {
        now.zones.as_slice()
    };
    let others: Vec<ZoneId> = zones
        .iter()
        .copied()
        .filter(|zone| Some(*zone) != now.home)
        .collect();
    PolicyChange {
        home: rng.pick(&others).or(zones.first()).copied(),
        ..PolicyChange::default()
    }
}

fn all_zones(topology: Topology) -> Vec<ZoneId> {
    (0..usize::from(topology.zones)).map(zone_id).collect()
}

/// All zones, or for the modes that can do with fewer, sometimes one less.
fn draw_zones(topology: Topology, mode: Mode, rng: &mut SmallRng) -> Vec<ZoneId> {
    let mut zones = all_zones(topology);
    if mode != Mode::Sync && zones.len() > 1 && rng.chance(0.3) {
        zones.remove(rng.index(zones.len()));
    }
    zones
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(topology: Topology, now: &Policy) -> Vec<PolicyChange> {
        let mut rng = Streams::new(9).stream("test", 0);
        (0..200).map(|_| change(topology, now, &mut rng)).collect()
    }

    #[test]
    fn every_mode_is_asked_for_where_there_are_three_zones_and_sync_is_not_in_one() {
        let modes = |topology| -> std::collections::BTreeSet<&str> {
            let changes = changes(topology, &Policy::default());
            let modes = changes.iter().filter_map(|change| change.mode);
            modes.map(Mode::name).collect()
        };
        let three = modes(Topology::THREE_BY_ONE);
        assert_eq!(three, ["async", "snapshot", "sync"].into());
        assert_eq!(modes(Topology::ONE_BY_THREE), ["async", "snapshot"].into());
    }

    #[test]
    fn a_snapshot_keyspace_is_failed_over_to_another_of_its_zones() {
        let now = Policy {
            mode: Mode::Snapshot,
            home: Some(ZoneId(1)),
            zones: vec![ZoneId(1), ZoneId(3)],
            ..Policy::default()
        };
        let changes = changes(Topology::THREE_BY_ONE, &now);
        let mut planned = changes.iter().filter(|change| change.mode.is_none());
        assert!(planned.clone().count() > 20);
        assert!(planned.all(|change| change.home == Some(ZoneId(3))));
    }

    #[test]
    fn a_home_is_one_of_the_zones_asked_for() {
        for change in changes(Topology::THREE_BY_THREE, &Policy::default()) {
            let zones = change.zones.unwrap_or_default();
            assert!(change.home.is_none_or(|home| zones.contains(&home)));
        }
    }
}
