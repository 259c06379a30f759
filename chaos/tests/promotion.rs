//! Mirrors that are promoted in a run, with the old home cut off or living on: a few seeds keep every promise, runs that once did
//! not are run again, and a promoted zone without a fence is found.
//!
//! Few, because this runs in a build without optimisation; `kv-chaos swarm --mode snapshot --alters always` runs them by the
//! thousand.

use meridian_chaos::run::{Report, run};
use meridian_chaos::scenario::{Alters, Options};
use meridian_chaos::trace::Trace;
use meridian_core::catalog::Mode;
use meridian_core::config::PlantedBugs;

/// Seeds tried for a planted bug.
const SEEDS_MAX: u64 = 40;

fn report(seed: u64, planted: PlantedBugs) -> Report {
    let options = Options {
        seed,
        seconds: 60,
        topology: None,
        mode: Mode::Snapshot,
        alters: Alters::Always,
        planted,
    };
    run(options, Trace::default())
}

/// Runs seeds that keep every promise; gives the number of mirrors that were promoted.
fn promoted(seeds: &[u64]) -> u64 {
    let reports = seeds
        .iter()
        .map(|seed| report(*seed, PlantedBugs::default()));
    let promoted = reports.map(|report| {
        let details = report.violation.as_ref();
        let details = details.map(|found| found.details.join("\n"));
        let details = details.unwrap_or_default();
        assert!(report.violation.is_none(), "{:?}\n{details}", report.line());
        report.stats.alters.promoted
    });
    promoted.sum()
}

#[test]
fn promoted_mirrors_keep_every_promise() {
    assert!(promoted(&[2, 3, 4, 6]) > 1);
}

/// A home that had handed everything over waited to mirror one that was lost as well (38); the second home took nothing over from
/// the first once it was deposed itself (58), or did not hear what that had of others (184).
#[test]
fn a_home_that_is_lost_before_the_first_is_back_hands_over_what_both_had() {
    promoted(&[38, 58, 184]);
}

/// A transaction was prepared when the home was deposed, and whoever was to say what became of it answered nobody any more.
#[test]
fn a_deposed_home_resolves_what_was_prepared() {
    promoted(&[68, 122]);
}

/// The mirror that was to be promoted had no generation yet.
#[test]
fn a_promotion_of_a_mirror_that_shows_nothing_is_given_up() {
    promoted(&[5, 16]);
}

/// Zones were filled from mirrors, which had swept a delete that stood beside a version from before the promotion elsewhere.
#[test]
fn a_delete_is_known_in_every_zone_of_what_a_promoted_mirror_becomes() {
    promoted(&[146, 303, 357]);
}

/// What a deposed home had deleted and forgotten went from the new one without a trace, and stayed in its mirrors.
#[test]
fn a_key_that_a_deposed_home_had_deleted_goes_from_mirrors() {
    promoted(&[782]);
}

#[test]
fn a_deposed_home_that_serves_on_is_found() {
    let planted = PlantedBugs {
        deposed_home_serves: true,
        ..PlantedBugs::default()
    };
    let found = (1..=SEEDS_MAX)
        .map(|seed| report(seed, planted))
        .find(|report| report.violation.is_some());
    let line = found.as_ref().and_then(Report::line).unwrap_or_default();
    assert!(line.contains("--plant deposed-home-serves"), "{line:?}");
}
