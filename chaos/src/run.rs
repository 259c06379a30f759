//! One run of one seed, and the line that reproduces it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use meridian_core::ids::KeyspaceId;

use crate::history::History;
use crate::scenario::{Alters, Options, Scenario, Topology};
use crate::trace::Trace;
use crate::violation::Violation;
use crate::world::{Stats, World};

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// What was asked for.
    pub options: Options,
    /// The size of the world.
    pub topology: Topology,
    /// What the run did.
    pub stats: Stats,
    /// What clients asked and were answered; empty after a panic.
    pub history: History,
    /// The transactions of the run; empty after a panic.
    pub records: Vec<crate::transact::judge::Record>,
    /// The first keyspace that was made of a mirror, if one was.
    pub promoted: Option<KeyspaceId>,
    /// What was broken.
    pub violation: Option<Box<Violation>>,
}

/// Runs a seed. A panic of the core is a violation like any other.
pub fn run(options: Options, trace: Trace) -> Report {
    let scenario = Scenario::draw(&options);
    let topology = scenario.topology;
    let result = catch_unwind(AssertUnwindSafe(|| World::new(scenario, trace).run()));
    match result {
        Ok(finished) => {
            let lost = finished.trace.finish().err();
            let untraced = lost.map(|error| Violation::new("trace", 0, error.to_string()));
            let violation = finished.violation.or(untraced);
            Report {
                options,
                topology,
                stats: finished.stats,
                history: finished.history,
                records: finished.records,
                promoted: finished.promoted,
                violation,
            }
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a panic without words");
            let violation = Some(Violation::new("panic", 0, text.to_string()));
            Report {
                options,
                topology,
                stats: Stats::default(),
                history: History::default(),
                records: Vec::new(),
                promoted: None,
                violation,
            }
        }
    }
}

impl Report {
    /// The line that reproduces a failure.
    pub fn line(&self) -> Option<String> {
        let violation = self.violation.as_ref()?;
        let planted = plant_name(self.options.planted)
            .map_or_else(String::new, |name| format!(" --plant {name}"));
        Some(format!(
            "FAIL seed={seed} topology={topology} check={check} at_ms={at} commit={commit} reproduce: kv-chaos sim --seed \
             {seed} --seconds {seconds} --topology {topology} --mode {mode}{alters}{planted}",
            seed = self.options.seed,
            topology = self.topology,
            check = violation.check,
            at = violation.at_ns / crate::rng::MS,
            commit = commit(),
            seconds = self.options.seconds,
            mode = self.options.mode.name(),
            alters = alters_flag(self.options.alters),
        ))
    }
}

/// As the command line has it; nothing where that is what it does anyway.
fn alters_flag(alters: Alters) -> String {
    match alters {
        Alters::BySeed => String::new(),
        Alters::Always | Alters::Never => format!(" --alters {}", alters.name()),
    }
}

/// The commit this was built from: told at build time by `KV_COMMIT`, else asked of git where the sources stand.
pub fn commit() -> String {
    if let Some(commit) = option_env!("KV_COMMIT") {
        return commit.to_string();
    }
    let asked = std::process::Command::new("git")
        .args([
            "-C",
            env!("CARGO_MANIFEST_DIR"),
            "rev-parse",
            "--short",
            "HEAD",
        ])
        .output();
    let text = asked
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or_else(|| "unknown".to_string(), |text| text.trim().to_string())
}

/// The bug planted, by its name on the command line.
pub const fn plant_name(planted: meridian_core::config::PlantedBugs) -> Option<&'static str> {
    if planted.lose_sibling_in_merge {
        Some("lose-sibling")
    } else if planted.reply_before_durable {
        Some("ack-before-durable")
    } else if planted.forget_op_ids_at_restart {
        Some("forget-op-ids")
    } else if planted.skip_range_validation {
        Some("skip-range-validation")
    } else if planted.decide_before_durable {
        Some("decide-before-durable")
    } else if planted.forget_locks_at_restart {
        Some("forget-locks")
    } else if planted.read_through_prepared {
        Some("read-through-prepared")
    } else if planted.session_ignores_a_shard {
        Some("session-ignores-a-shard")
    } else if planted.age_ignores_a_zone {
        Some("age-ignores-a-zone")
    } else if planted.commit_in_one_zone {
        Some("commit-in-one-zone")
    } else if planted.mirror_swap_early {
        Some("mirror-swap-early")
    } else if planted.deposed_home_serves {
        Some("deposed-home-serves")
    } else if planted.move_before_final {
        Some("move-before-final")
    } else if planted.unseal_in_round {
        Some("unseal-in-round")
    } else {
        None
    }
}
