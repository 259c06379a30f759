//! How an experiment that measures begins and ends: a runtime, a folder, a bound on its time, and one line to paste when
//! something did not hold.
//!
//! Two things may be wrong: a promise was *broken* (something is lost, mixed, or answered that must not be), or a bar was
//! *missed* (something took longer than is wanted). Both make exit code 1; a report as JSON tells them apart.
//!
//! Invariant: whatever ends it, processes and folders of the experiment are gone before the exit code is.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool reports on standard output"
)]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::ends::Ends;
use crate::run::commit;

/// Of what is wrong, so many lines are shown.
const SHOWN_MAX: usize = 20;

/// What was found to be wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Wrong {
    /// Promises that did not hold.
    pub(super) broken: Vec<String>,
    /// Bars that were not reached.
    pub(super) missed: Vec<String>,
}

impl Wrong {
    /// Notes a bar that was not reached.
    pub(super) fn expect(&mut self, reached: bool, otherwise: impl FnOnce() -> String) {
        if !reached {
            self.missed.push(otherwise());
        }
    }
}

/// One experiment.
pub(super) struct Experiment {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// The command that makes it again; a seed stands in it where there is one.
    pub(super) command: String,
    /// It is given up after this.
    pub(super) time_max: Duration,
    /// Print the report as one JSON object.
    pub(super) json: bool,
}

/// A report that can be printed, and what is wrong with it.
pub(super) trait Findings: Serialize {
    /// What is wrong.
    fn wrong(&self) -> &Wrong;
    /// Prints it for people.
    fn show(&self);
}

impl Experiment {
    /// Runs it: 0 everything held, 1 something did not, 2 it could not be made.
    pub(super) fn run<R: Findings>(
        &self,
        make: impl AsyncFnOnce(&Path) -> Result<R, String>,
    ) -> ExitCode {
        // One thread: what the clients cost is small and even, and counting needs no locks.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let outcome = match runtime {
            Ok(runtime) => runtime.block_on(self.bounded(make)),
            Err(error) => Err(error.to_string()),
        };
        outcome
            .and_then(|report| self.tell(&report))
            .unwrap_or_else(|why| {
                eprintln!("error: {why}");
                eprintln!("{}", self.line(&format!("error={why:?}")));
                ExitCode::from(2)
            })
    }

    async fn bounded<R>(
        &self,
        make: impl AsyncFnOnce(&Path) -> Result<R, String>,
    ) -> Result<R, String> {
        let prefix = format!("kv-chaos-{}-", self.name);
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir();
        let folder = folder.map_err(|error| error.to_string())?;
        let mut ends = Ends::new().map_err(|error| error.to_string())?;
        tokio::select! {
            outcome = make(folder.path()) => outcome,
            () = ends.any() => Err("interrupted".to_owned()),
            () = tokio::time::sleep(self.time_max) => {
                Err(format!("given up after {} s", self.time_max.as_secs()))
            }
        }
    }

    fn tell<R: Findings>(&self, report: &R) -> Result<ExitCode, String> {
        if self.json {
            let json = serde_json::to_string(report).map_err(|error| error.to_string())?;
            println!("{json}");
        } else {
            report.show();
        }
        let lines = self.lines(report.wrong());
        for line in &lines {
            eprintln!("{line}");
        }
        Ok(if lines.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// What to print, the line to paste last; nothing when nothing is wrong.
    fn lines(&self, wrong: &Wrong) -> Vec<String> {
        let Wrong { broken, missed } = wrong;
        if broken.is_empty() && missed.is_empty() {
            return Vec::new();
        }
        let told = |word: &'static str, found: &[String]| {
            let lines = found.iter().take(SHOWN_MAX);
            let lines = lines.map(|what| format!("{word} {what}"));
            lines.collect::<Vec<_>>()
        };
        let mut lines = told("BROKEN", broken);
        lines.extend(told("MISSED", missed));
        let counts = format!("broken={} missed={}", broken.len(), missed.len());
        lines.push(self.line(&counts));
        lines
    }

    fn line(&self, what: &str) -> String {
        let Self { name, command, .. } = self;
        format!(
            "FAIL experiment={name} {what} commit={} reproduce: {command}",
            commit()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experiment() -> Experiment {
        Experiment {
            name: "lag",
            command: "kv-chaos lag --seed 7".to_owned(),
            time_max: Duration::from_secs(1),
            json: false,
        }
    }

    #[test]
    fn a_failure_ends_with_a_line_to_paste_and_a_success_says_nothing() {
        let mut wrong = Wrong::default();
        wrong.expect(true, || "never".to_owned());
        assert_eq!(experiment().lines(&wrong), Vec::<String>::new());
        wrong.expect(false, || "zone-1 to zone-2 took 99 ms".to_owned());
        let lines = experiment().lines(&wrong);
        assert_eq!(lines.first().unwrap(), "MISSED zone-1 to zone-2 took 99 ms");
        let last = lines.last().unwrap();
        assert!(last.starts_with("FAIL experiment=lag broken=0 missed=1 commit="));
        assert!(last.ends_with("reproduce: kv-chaos lag --seed 7"));
    }
}
