//! What a checker says, for people, and as an exit code.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool reports on standard output"
)]

use std::path::Path;
use std::process::ExitCode;

use super::judge::{Judgement, Workload, judge};

/// Findings shown in full.
const SHOWN_MAX: usize = 5;

/// Prints a judgement: 0 when nothing is wrong.
pub fn tell(judgement: &Judgement) -> ExitCode {
    let Judgement {
        operations,
        findings,
        undecided,
    } = judgement;
    for what in undecided {
        println!("undecided: {what}");
    }
    for finding in findings.iter().take(SHOWN_MAX) {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("{operations} operations, no anomaly");
        return ExitCode::SUCCESS;
    }
    let mut names: Vec<&str> = findings
        .iter()
        .map(|finding| finding.anomaly.name())
        .collect();
    names.sort_unstable();
    names.dedup();
    println!(
        "VIOLATION: {} findings in {operations} operations: {}",
        findings.len(),
        names.join(" ")
    );
    ExitCode::FAILURE
}

/// Judges a file: 0 nothing is wrong, 1 something is, 2 it is no history.
pub fn check_file(path: &Path, workload: Option<Workload>) -> ExitCode {
    match read_and_judge(path, workload) {
        Ok(judgement) => tell(&judgement),
        Err(why) => {
            println!("error: {}: {why}", path.display());
            ExitCode::from(2)
        }
    }
}

fn read_and_judge(path: &Path, workload: Option<Workload>) -> Result<Judgement, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let workload = workload.unwrap_or_else(|| Workload::of(&text));
    println!("workload {workload}");
    judge(workload, &text).map_err(|error| error.to_string())
}
