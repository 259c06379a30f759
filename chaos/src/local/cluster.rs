//! A cluster of real `kv-node` processes in a folder of its own.
//!
//! Also used by the load generator. What it is not: it injects no faults but death; it knows nothing of data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use meridian_client::{Client, ReadOptions};

use super::plan::{Node, Plan, Shape};
use super::process::{Places, Process};

const READY_TIME_MAX: Duration = Duration::from_mins(1);
const CALL_TIME_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// Enough keys that each of 8 shards has one, but for once in a hundred thousand times.
const PROBE_KEYS: u32 = 100;

/// What is to be started, and where.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Zones and nodes.
    pub shape: Shape,
    /// The program; `KV_NODE_BIN`, or `kv-node` beside the running program, when absent.
    pub program: Option<PathBuf>,
    /// Everything of the cluster lies below it.
    pub folder: PathBuf,
    /// Core threads of each node.
    pub core_threads: u32,
    /// Where the search for free addresses begins.
    pub first_subnet: u8,
}

/// A cluster. Its processes end with it.
#[derive(Debug)]
pub struct Cluster {
    /// Its zones, nodes and addresses.
    pub plan: Plan,
    program: PathBuf,
    folder: PathBuf,
    core_threads: u32,
    faults: bool,
    processes: BTreeMap<String, Process>,
}

impl Cluster {
    /// Writes the cluster file; nothing is started yet.
    pub fn create(setting: &Setting) -> Result<Self, String> {
        let plan = Plan::free(setting.shape, setting.first_subnet)
            .ok_or("no free subnet in 127.78.0.0/16")?;
        let cluster = Self {
            plan,
            program: find_program(setting.program.as_deref())?,
            folder: setting.folder.clone(),
            core_threads: setting.core_threads,
            faults: false,
            processes: BTreeMap::new(),
        };
        std::fs::write(cluster.cluster_file(), plan.cluster_file())
            .map_err(|error| error.to_string())?;
        for node in plan.nodes() {
            std::fs::create_dir_all(cluster.data(&node.name)).map_err(|error| error.to_string())?;
        }
        Ok(cluster)
    }

    /// Starts nodes so that their links may be disturbed.
    #[must_use]
    pub const fn allow_faults(mut self) -> Self {
        self.faults = true;
        self
    }

    fn cluster_file(&self) -> PathBuf {
        self.folder.join("cluster.toml")
    }

    /// The data directory of a node.
    pub fn data(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn places(&self, name: &str) -> Places {
        Places {
            program: self.program.clone(),
            cluster_file: self.cluster_file(),
            data: self.data(name),
            output: self.folder.join(format!("{name}.out")),
            log: self.log(name),
            core_threads: self.core_threads,
            faults: self.faults,
        }
    }

    /// The log of a node.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// Starts every node, and waits until every zone serves.
    pub async fn start_all(&mut self) -> Result<(), String> {
        for node in self.plan.nodes() {
            self.spawn(&node)?;
        }
        for node in self.plan.nodes() {
            self.wait_ready(&node).await?;
        }
        for zone in self.plan.zones() {
            self.wait_serving(&zone).await?;
        }
        Ok(())
    }

    fn spawn(&mut self, node: &Node) -> Result<(), String> {
        let places = self.places(&node.name);
        let process = Process::start(node, &places)
            .map_err(|error| format!("cannot start {}: {error}", places.program.display()))?;
        self.processes.insert(node.name.clone(), process);
        Ok(())
    }

    async fn wait_ready(&mut self, node: &Node) -> Result<(), String> {
        let places = self.places(&node.name);
        let process = self
            .processes
            .get_mut(&node.name)
            .ok_or("the node was not started")?;
        let ready = process.ready(&places, READY_TIME_MAX).await;
        ready.map_err(|why| format!("node {} did not start: {why}", node.name))
    }

    /// Starts a node, and waits until it is ready.
    pub async fn start(&mut self, node: &Node) -> Result<(), String> {
        self.spawn(node)?;
        self.wait_ready(node).await
    }

    /// Ends a node without warning.
    pub fn kill(&mut self, name: &str) -> Result<(), String> {
        let Some(mut process) = self.processes.remove(name) else {
            return Err(format!("node {name} does not run"));
        };
        if !process.is_running() {
            return Err(format!("node {name} ended by itself"));
        }
        process.kill().map_err(|error| error.to_string())
    }

    /// Names of nodes that ended by themselves.
    pub fn ended(&mut self) -> Vec<String> {
        let ended = self
            .processes
            .iter_mut()
            .filter_map(|(name, process)| (!process.is_running()).then(|| name.clone()));
        ended.collect()
    }

    /// Process ids, by node.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.values().map(Process::pid).collect()
    }

    /// A client of one zone, which never asks another.
    pub async fn client(
        &self,
        zone: &str,
        timeout: Duration,
    ) -> Result<Client, meridian_client::Error> {
        let of_zone = self
            .plan
            .nodes()
            .into_iter()
            .filter(|node| node.zone == zone);
        let builder = Client::builder()
            .endpoints(of_zone.map(|node| node.addr()))
            .zone(zone);
        builder.stay_in_zone().timeout(timeout).connect().await
    }

    async fn wait_serving(&self, zone: &str) -> Result<(), String> {
        let until = Instant::now() + READY_TIME_MAX;
        loop {
            let Err(error) = self.probe(zone).await else {
                return Ok(());
            };
            if Instant::now() >= until {
                return Err(format!("{zone} does not serve in time: {error}"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn probe(&self, zone: &str) -> Result<(), meridian_client::Error> {
        let client = self.client(zone, CALL_TIME_MAX).await?;
        let keys = (0..PROBE_KEYS)
            .map(|n| format!("probe-{n}").into())
            .collect();
        let answers = client.batch_get(keys, &ReadOptions::default()).await;
        answers.into_iter().try_for_each(|answer| answer.map(drop))
    }
}

/// The program asked for, `KV_NODE_BIN`, or `kv-node` beside this program.
fn find_program(asked: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(program) = asked {
        return Ok(program.to_owned());
    }
    if let Some(program) = std::env::var_os("KV_NODE_BIN") {
        return Ok(PathBuf::from(program));
    }
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let beside = own.with_file_name("kv-node");
    if beside.exists() {
        Ok(beside)
    } else {
        Err(format!(
            "{} is missing; build it, or set KV_NODE_BIN",
            beside.display()
        ))
    }
}
