//! The experiments that measure, in short forms on real processes: they can be made, see what they are to see, and find no
//! broken promise. Whether a bar is reached is not asked here: a build without optimisation on a busy machine says nothing
//! about that.
#![cfg(feature = "local")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// One cluster at a time: several would slow one another down until deadlines pass.
static ONE: Mutex<()> = Mutex::new(());

/// The program `kv-node`: `KV_NODE_BIN`, or the one beside `kv-chaos`, which is built when only this crate was.
fn node() -> PathBuf {
    if let Some(program) = std::env::var_os("KV_NODE_BIN") {
        return program.into();
    }
    let beside = Path::new(env!("CARGO_BIN_EXE_kv-chaos")).with_file_name("kv-node");
    if !beside.exists() {
        let target = beside.parent().unwrap().parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--package", "meridian-node", "--bin", "kv-node"]);
        let built = build.arg("--target-dir").arg(target).status().unwrap();
        assert!(built.success() && beside.exists(), "kv-node is not built");
    }
    beside
}

fn run(arguments: &str) -> Output {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(env!("CARGO_BIN_EXE_kv-chaos"));
    command
        .args(arguments.split_whitespace())
        .arg("--node-bin")
        .arg(node());
    command.output().unwrap()
}

/// The report of an experiment that was made and broke no promise.
fn report(arguments: &str) -> Value {
    let output = run(&format!("{arguments} --json"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout);
    assert!(report.is_ok(), "{report:?}: {said}");
    let report: Value = report.unwrap();
    assert_eq!(
        report["wrong"]["broken"],
        Value::from(Vec::<Value>::new()),
        "{said}"
    );
    report
}

fn rows<'a>(report: &'a Value, name: &str) -> &'a Vec<Value> {
    report[name].as_array().unwrap()
}

#[test]
fn writes_are_seen_in_every_other_zone() {
    let report = report("lag --runs 1 --seconds 3 --rate 600 --samples 5 --delays-ms 5,10,15");
    assert_eq!(rows(&report, "pairs").len(), 6);
    for pair in rows(&report, "pairs") {
        assert!(pair["samples"].as_u64() > Some(5), "{pair}");
        assert_eq!(pair["lost"].as_u64(), Some(0), "{pair}");
    }
}

#[test]
fn a_backlog_drains_after_healing_and_all_zones_hold_the_same() {
    let report = report("drain --rate 2000 --seconds 3 --quiet-seconds 2 --delays-ms 5,10,15");
    assert!(report["backlog"].as_u64() > Some(500), "{report}");
    assert!(
        report["puts"][0]["draining"]["puts"].as_u64() > Some(0),
        "{report}"
    );
}

#[test]
fn the_majority_goes_on_without_the_leaders_zone_and_the_minority_refuses() {
    let report = report("leader --cuts 1 --shards 2 --delays-ms 5,10,15");
    assert_eq!(report["shards"].as_u64(), Some(2), "{report}");
    assert!(report["eventual_gets"].as_u64() > Some(0), "{report}");
    assert!(
        !report["refused"].as_object().unwrap().is_empty(),
        "{report}"
    );
}

#[test]
fn a_mirror_that_is_killed_while_it_receives_shows_whole_cuts() {
    let report = report(
        "mirrors --kills 3 --shards 2 --chains 2 --keys 8 --batches 1 --value-bytes 500 --delays-ms 5,10,15",
    );
    assert_eq!(report["kills"].as_u64(), Some(3), "{report}");
    for mirror in rows(&report, "mirrors") {
        assert!(mirror["generations"].as_u64() > Some(1), "{report}");
    }
}

#[test]
fn an_experiment_that_cannot_be_made_says_so_with_a_line_to_paste() {
    let output = run("lag --delays-ms 1,2");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("2 delays are given, three are wanted"),
        "{said}"
    );
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("FAIL experiment=lag error="), "{last}");
    assert!(
        last.contains("reproduce: kv-chaos lag --seed 1 --delays-ms 1,2"),
        "{last}"
    );
}
