//! Keyspaces of mode `snapshot`: a few seeds keep every promise, and a pointer that flips too early is found.
//!
//! Few, because this runs in a build without optimisation; `kv-chaos swarm --mode snapshot` runs them by the hundred.

use meridian_chaos::run::{Report, run};
use meridian_chaos::scenario::{Alters, Options, Topology};
use meridian_chaos::trace::Trace;
use meridian_core::catalog::Mode;
use meridian_core::config::PlantedBugs;

fn report(seed: u64, topology: Topology, planted: PlantedBugs) -> Report {
    let options = Options {
        seed,
        seconds: 20,
        topology: Some(topology),
        mode: Mode::Snapshot,
        alters: Alters::Never,
        planted,
    };
    run(options, Trace::default())
}

fn expect_kept(seed: u64, topology: Topology) {
    let report = report(seed, topology, PlantedBugs::default());
    let details = report
        .violation
        .as_ref()
        .map(|found| found.details.join("\n"));
    let details = details.unwrap_or_default();
    assert!(report.violation.is_none(), "{:?}\n{details}", report.line());
    let (answers, generations) = (report.stats.mirrored, report.stats.generations);
    assert!(
        answers > 30 && generations > 2,
        "only {answers} answers of {generations} generations were judged"
    );
}

#[test]
fn mirrors_of_zones_of_one_node_show_whole_cuts_through_faults() {
    (1..4).for_each(|seed| expect_kept(seed, Topology::THREE_BY_ONE));
}

#[test]
fn mirrors_of_zones_of_three_nodes_show_whole_cuts_through_faults() {
    (5..7).for_each(|seed| expect_kept(seed, Topology::THREE_BY_THREE));
}

/// A part had received a generation when the zone, which had not heard of that, gave its number to another cut.
#[test]
fn a_number_that_a_part_has_used_for_another_cut_holds_no_mirror_up() {
    let options = Options {
        seed: 874,
        seconds: 60,
        topology: Some(Topology::THREE_BY_THREE),
        mode: Mode::Snapshot,
        alters: Alters::Never,
        planted: PlantedBugs::default(),
    };
    assert_eq!(run(options, Trace::default()).line(), None);
}

#[test]
fn a_pointer_that_flips_before_the_last_shard_is_found() {
    let planted = PlantedBugs {
        mirror_swap_early: true,
        ..PlantedBugs::default()
    };
    let found = (1..=40)
        .map(|seed| report(seed, Topology::THREE_BY_THREE, planted))
        .find(|report| report.violation.is_some());
    let line = found.as_ref().and_then(Report::line).unwrap_or_default();
    assert!(line.contains("check=mirrors"), "not found: {line:?}");
}
