//! Sync keyspaces: a few seeds keep every promise of one store over all zones, also when a zone's disks are lost, and a
//! commit counted in one zone only is found.
//!
//! Few, because this runs in a build without optimisation; `kv-chaos swarm --mode sync` runs them by the thousand.

use meridian_chaos::nemesis::FaultKind;
use meridian_chaos::run::{Report, run};
use meridian_chaos::scenario::{Alters, Options, Topology};
use meridian_chaos::trace::Trace;
use meridian_core::catalog::Mode;
use meridian_core::config::PlantedBugs;

/// Simulated seconds of load, where nothing else is said.
const SECONDS: u64 = 20;

fn report(seed: u64, topology: Topology, planted: PlantedBugs) -> Report {
    report_of((seed, SECONDS), topology, planted)
}

fn report_of((seed, seconds): (u64, u64), topology: Topology, planted: PlantedBugs) -> Report {
    run(
        Options {
            seed,
            seconds,
            topology: Some(topology),
            mode: Mode::Sync,
            alters: Alters::Never,
            planted,
        },
        Trace::default(),
    )
}

/// The report of a seed that keeps every promise.
fn kept(seed: u64, topology: Topology) -> Report {
    let report = report(seed, topology, PlantedBugs::default());
    let details = report.violation.as_ref();
    let details = details.map(|violation| violation.details.join("\n"));
    assert!(
        report.violation.is_none(),
        "{:?}\n{}",
        report.line(),
        details.unwrap_or_default()
    );
    assert!(
        report.stats.ok > 50,
        "{} operations answered",
        report.stats.ok
    );
    report
}

#[test]
fn zones_that_are_one_store_keep_every_promise_through_faults() {
    (401..403).for_each(|seed| drop(kept(seed, Topology::THREE_BY_ONE)));
    drop(kept(411, Topology::THREE_BY_THREE));
}

#[test]
fn a_zone_whose_disks_are_lost_takes_nothing_acknowledged_with_it() {
    let wipes = |report: &Report| report.stats.faults.contains_key(&FaultKind::WipeZone);
    let reports: Vec<Report> = (421..433)
        .map(|seed| kept(seed, Topology::THREE_BY_ONE))
        .filter(wipes)
        .take(2)
        .collect();
    assert_eq!(reports.len(), 2, "a zone is wiped in two of the seeds");
}

/// A replica had taken a group image, and its answer was lost: the leader offered images for ever.
#[test]
fn an_image_that_is_offered_again_is_answered() {
    let report = report_of((1638, 60), Topology::THREE_BY_THREE, PlantedBugs::default());
    assert_eq!(report.line(), None);
}

/// A write of unknown outcome stood in the log after the restart, and was acknowledged.
#[test]
fn what_a_failed_write_left_in_the_log_counts_as_durable() {
    let report = report_of((26, 60), Topology::THREE_BY_ONE, PlantedBugs::default());
    assert_eq!(report.line(), None);
}

#[test]
fn a_commit_counted_in_one_zone_is_found() {
    let planted = PlantedBugs {
        commit_in_one_zone: true,
        ..PlantedBugs::default()
    };
    let found = report(1, Topology::THREE_BY_ONE, planted);
    let violation = found.violation.as_ref().map(|violation| violation.check);
    assert_eq!(violation, Some("zones"), "{:?}", found.line());
    let line = found.line().unwrap_or_default();
    assert!(
        line.contains("--mode sync --alters never --plant commit-in-one-zone"),
        "{line}"
    );
}
