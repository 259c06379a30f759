//! One `kv-node` process: started here, or found again by its process id.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::plan::Node;
use crate::exit::Failure;

const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Of the log of a node that did not start.
const LOG_LINES_SHOWN: usize = 8;

/// Where a node keeps its files.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) program: PathBuf,
    pub(super) cluster_file: PathBuf,
    pub(super) data: PathBuf,
    pub(super) output: PathBuf,
    pub(super) log: PathBuf,
}

/// A process.
pub(super) struct Process {
    pub(super) pid: i32,
    /// `None` when it was started by another `kv`.
    child: Option<Child>,
}

impl Process {
    /// Starts a node in a process group of its own, so that an interrupt from the terminal is not for it.
    pub(super) fn start(node: &Node, places: &Places) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::other(format!(
                "cannot start {}: {error}",
                places.program.display()
            ))
        };
        std::fs::create_dir_all(&places.data).map_err(failed)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&places.log);
        let child = Command::new(&places.program)
            .arg("--cluster")
            .arg(&places.cluster_file)
            .args(["--node", &node.name])
            .arg("--data")
            .arg(&places.data)
            .args(["--allow-fault-injection", "--core-threads", "1"])
            .stdin(Stdio::null())
            .stdout(File::create(&places.output).map_err(failed)?)
            .stderr(log.map_err(failed)?)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let pid = i32::try_from(child.id()).map_err(|error| Failure::other(error.to_string()))?;
        Ok(Self {
            pid,
            child: Some(child),
        })
    }

    /// The process of this id, if it still is the node that works on `data`.
    pub(super) fn find(pid: i32, data: &Path) -> Option<Self> {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut arguments = command.split(|byte| *byte == 0);
        let data = data.as_os_str().as_encoded_bytes();
        arguments
            .any(|argument| argument == data)
            .then_some(Self { pid, child: None })
    }

    pub(super) fn is_running(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => is_alive(self.pid),
        }
    }

    /// Whether it could be told: it may have ended already.
    pub(super) fn signal(&self, signal: Signal) -> bool {
        Pid::from_raw(self.pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Ends it without warning.
    pub(super) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended(Duration::from_secs(10)).await;
    }

    /// Waits until it has ended; `false` when it has not in time.
    pub(super) async fn ended(&mut self, within: Duration) -> bool {
        let until = Instant::now() + within;
        while self.is_running() {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        true
    }

    /// Waits for the line `READY …`.
    pub(super) async fn ready(
        &mut self,
        node: &Node,
        places: &Places,
        within: Duration,
    ) -> Result<(), Failure> {
        let until = Instant::now() + within;
        loop {
            let said = std::fs::read_to_string(&places.output).unwrap_or_default();
            if said.lines().any(|line| line.starts_with("READY ")) {
                return Ok(());
            }
            let why = if !self.is_running() {
                "it ended"
            } else if Instant::now() >= until {
                "it is not ready in time"
            } else {
                tokio::time::sleep(POLL_INTERVAL).await;
                continue;
            };
            let log = last_lines(&places.log);
            return Err(Failure::other(format!(
                "node {} did not start: {why}\n{log}",
                node.name
            )));
        }
    }
}

/// Neither gone nor ended and waiting to be collected.
fn is_alive(pid: i32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = status
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z")
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let skipped = lines.len().saturating_sub(LOG_LINES_SHOWN);
    lines
        .into_iter()
        .skip(skipped)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_on_something_else_is_not_taken_for_the_node() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(Process::find(own, Path::new("/nowhere/at/all")).is_none());
        assert!(is_alive(own));
    }

    #[tokio::test]
    async fn a_node_that_ends_at_once_is_reported_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let places = Places {
            program: PathBuf::from("/bin/false"),
            cluster_file: at("cluster.toml"),
            data: at("data"),
            output: at("output"),
            log: at("log"),
        };
        std::fs::write(&places.log, "why it failed\n").unwrap();
        let plan = super::super::plan::Plan {
            subnet: 1,
            nodes_per_zone: 1,
        };
        let node = &plan.nodes()[0];
        let mut process = Process::start(node, &places).unwrap();
        let failure = process
            .ready(node, &places, Duration::from_secs(20))
            .await
            .unwrap_err();
        let text = crate::human::failure(&failure).unwrap();
        assert!(
            text.contains("it ended") && text.contains("why it failed"),
            "{text}"
        );
    }
}
