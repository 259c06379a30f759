//! Keyspaces that are altered in a run: a few seeds keep every promise from one mode to the next, and a name that moves too
//! early and an old group that serves on are found.
//!
//! Few, because this runs in a build without optimisation; `kv-chaos swarm --alters always` runs them by the hundred.

use meridian_chaos::run::{Report, run};
use meridian_chaos::scenario::{Alters, Options, Topology};
use meridian_chaos::trace::Trace;
use meridian_core::catalog::Mode;
use meridian_core::config::PlantedBugs;

fn report((seed, mode): (u64, Mode), topology: Topology, planted: PlantedBugs) -> Report {
    let options = Options {
        seed,
        seconds: 30,
        topology: Some(topology),
        mode,
        alters: Alters::Always,
        planted,
    };
    run(options, Trace::default())
}

/// Runs seeds that keep every promise; gives the number of names that moved.
fn moved(seeds: std::ops::Range<u64>, mode: Mode, topology: Topology) -> u64 {
    let reports = seeds.map(|seed| report((seed, mode), topology, PlantedBugs::default()));
    let moved = reports.map(|report| {
        let details = report.violation.as_ref();
        let details = details.map(|found| found.details.join("\n"));
        let details = details.unwrap_or_default();
        assert!(report.violation.is_none(), "{:?}\n{details}", report.line());
        report.stats.alters.moved
    });
    moved.sum()
}

/// A home compared with the keyspace before its own, which had forgotten a delete; it forgot it as well, and its mirrors showed the
/// key for ever (20118).
#[test]
fn what_a_home_learns_to_be_deleted_by_comparing_goes_from_its_mirrors() {
    let options = Options {
        seed: 20_118,
        seconds: 60,
        topology: Some(Topology::THREE_BY_THREE),
        mode: Mode::Sync,
        alters: Alters::Always,
        planted: PlantedBugs::default(),
    };
    let report = run(options, Trace::default());
    assert!(report.violation.is_none(), "{:?}", report.line());
}

/// A transaction read in one keyspace and was compared in the next, whose log had come to the same number (2668): the number alone
/// says nothing, and programs never get it alone.
#[test]
fn what_was_read_of_one_log_does_not_fit_the_next() {
    let options = Options {
        seed: 2668,
        seconds: 60,
        topology: Some(Topology::THREE_BY_ONE),
        mode: Mode::Async,
        alters: Alters::BySeed,
        planted: PlantedBugs::default(),
    };
    let report = run(options, Trace::default());
    assert!(report.violation.is_none(), "{:?}", report.line());
}

/// The first of some seeds that finds a planted bug, and what it finds.
fn finding(planted: PlantedBugs) -> String {
    let found = (1..=40)
        .map(|seed| report((seed, Mode::Async), Topology::THREE_BY_ONE, planted))
        .find(|report| report.violation.is_some());
    found.as_ref().and_then(Report::line).unwrap_or_default()
}

#[test]
fn an_async_keyspace_that_becomes_others_keeps_every_promise() {
    assert!(moved(1..5, Mode::Async, Topology::THREE_BY_ONE) > 1);
    assert!(moved(5..7, Mode::Async, Topology::THREE_BY_THREE) > 0);
}

#[test]
fn a_sync_keyspace_that_becomes_others_keeps_every_promise() {
    assert!(moved(11..15, Mode::Sync, Topology::THREE_BY_ONE) > 1);
}

#[test]
fn a_snapshot_keyspace_that_becomes_others_or_gets_another_home_keeps_every_promise() {
    assert!(moved(21..25, Mode::Snapshot, Topology::THREE_BY_ONE) > 1);
}

#[test]
fn a_keyspace_of_one_zone_keeps_every_promise() {
    assert!(moved(31..33, Mode::Async, Topology::ONE_BY_THREE) > 0);
}

/// A group had begun to compare once more when the name moved, and nobody was left to compare with.
#[test]
fn a_comparison_that_a_move_overtakes_does_not_wait_for_ever() {
    let run_of = |seed, mode, topology| {
        let options = Options {
            seed,
            seconds: 60,
            topology: Some(topology),
            mode,
            alters: Alters::Always,
            planted: PlantedBugs::default(),
        };
        run(options, Trace::default()).line()
    };
    assert_eq!(run_of(35, Mode::Async, Topology::THREE_BY_ONE), None);
    assert_eq!(run_of(9, Mode::Snapshot, Topology::THREE_BY_THREE), None);
}

fn line_of_sync((seed, topology): (u64, Topology)) -> Option<String> {
    let options = Options {
        seed,
        seconds: 60,
        topology: Some(topology),
        mode: Mode::Sync,
        alters: Alters::Always,
        planted: PlantedBugs::default(),
    };
    run(options, Trace::default()).line()
}

/// A node had lost its disk, and met catalogs of its former life again while it caught up: its second core opened a group under
/// the replica id that had forgotten everything (3667). A last write outlived the memory for its op id (297).
#[test]
fn a_zone_whose_disks_are_lost_during_an_alter_begins_no_group_again() {
    assert_eq!(line_of_sync((297, Topology::THREE_BY_THREE)), None);
    assert_eq!(line_of_sync((3667, Topology::THREE_BY_THREE)), None);
}

/// A zone had said that it has everything, lost its disks before the name moved, and served without.
#[test]
fn a_zone_whose_disks_are_lost_before_the_name_moves_serves_nothing_until_it_has_it_back() {
    assert_eq!(line_of_sync((2258, Topology::THREE_BY_ONE)), None);
}

#[test]
fn a_name_that_moves_without_the_last_writes_is_found() {
    let planted = PlantedBugs {
        move_before_final: true,
        ..PlantedBugs::default()
    };
    let line = finding(planted);
    assert!(line.contains("--plant move-before-final"), "{line:?}");
}

#[test]
fn an_old_group_that_writes_after_its_last_write_is_found() {
    let planted = PlantedBugs {
        unseal_in_round: true,
        ..PlantedBugs::default()
    };
    let line = finding(planted);
    assert!(line.contains("--plant unseal-in-round"), "{line:?}");
}
