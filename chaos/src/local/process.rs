//! One `kv-node` process: started, waited for, killed without warning.
//!
//! Invariant: only the process that was started here is ever killed, through its own handle, so that a number given to
//! somebody else's process is never meant.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::plan::Node;

const POLL: Duration = Duration::from_millis(10);
const LOG_LINES_SHOWN: usize = 12;

/// Where a node finds and keeps its files.
#[derive(Clone, Debug)]
pub struct Places {
    /// The program.
    pub program: PathBuf,
    /// The cluster file.
    pub cluster_file: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    /// What it prints.
    pub output: PathBuf,
    /// What it logs; a restart appends.
    pub log: PathBuf,
    /// Core threads of the node.
    pub core_threads: u32,
    /// Links may be disturbed.
    pub faults: bool,
}

/// A process.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a node.
    pub fn start(node: &Node, places: &Places) -> io::Result<Self> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&places.log)?;
        let child = Command::new(&places.program)
            .arg("--cluster")
            .arg(&places.cluster_file)
            .args(["--node", &node.name])
            .arg("--data")
            .arg(&places.data)
            .args(["--core-threads", &places.core_threads.to_string()])
            .args(places.faults.then_some("--allow-fault-injection"))
            .stdin(Stdio::null())
            .stdout(File::create(&places.output)?)
            .stderr(log)
            .spawn()?;
        Ok(Self { child })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it as a crash would, and waits until nothing of it is left.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Waits for the line `READY …`.
    pub async fn ready(&mut self, places: &Places, within: Duration) -> Result<(), String> {
        let until = Instant::now() + within;
        loop {
            let said = std::fs::read_to_string(&places.output).unwrap_or_default();
            if said.lines().any(|line| line.starts_with("READY ")) {
                return Ok(());
            }
            if !self.is_running() {
                return Err(format!("it ended\n{}", last_lines(&places.log)));
            }
            if Instant::now() >= until {
                return Err(format!(
                    "it is not ready in time\n{}",
                    last_lines(&places.log)
                ));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            // Whoever drops it has no further use for it; a process that cannot be killed has ended.
            drop(self.kill());
        }
    }
}

/// The end of a log, for a report.
pub fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let skipped = lines.len().saturating_sub(LOG_LINES_SHOWN);
    lines
        .into_iter()
        .skip(skipped)
        .collect::<Vec<_>>()
        .join("\n")
}
