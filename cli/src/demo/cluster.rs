//! A demo cluster: its folder, its processes, and the file by which another `kv` finds them again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use meridian_client::proto::admin::v1 as wire;
use meridian_client::{Admin, Client, NodeAdmin, ReadOptions};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::plan::{DELAYS_MS, Node, Plan, ZONES};
use super::process::{Places, Process};
use crate::exit::Failure;

const READY_TIME_MAX: Duration = Duration::from_mins(1);
const STOP_TIME_MAX: Duration = Duration::from_secs(12);
const CALL_TIME_MAX: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Enough keys that each of 8 shards has one, but for once in a hundred thousand times.
const PROBE_KEYS: u32 = 100;

/// What another `kv` needs to know.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    plan: Plan,
    program: PathBuf,
    pids: BTreeMap<String, i32>,
}

/// A demo cluster. Ends with its owner, unless it is left running.
pub(crate) struct Cluster {
    pub(crate) plan: Plan,
    folder: PathBuf,
    program: PathBuf,
    processes: BTreeMap<String, Process>,
    left_running: bool,
}

impl Cluster {
    /// Writes the cluster file into `folder`; nothing is started yet.
    pub(super) fn create(folder: PathBuf, plan: Plan) -> Result<Self, Failure> {
        let cluster = Self {
            plan,
            program: node_program()?,
            processes: BTreeMap::new(),
            left_running: false,
            folder,
        };
        std::fs::create_dir_all(&cluster.folder)?;
        std::fs::write(cluster.cluster_file(), plan.cluster_file())?;
        Ok(cluster)
    }

    /// The cluster whose record this is. It stays running when this `kv` ends.
    pub(crate) fn found_by(record: &Path) -> Option<Self> {
        let text = std::fs::read(record).ok()?;
        let kept: Record = serde_json::from_slice(&text).ok()?;
        let mut cluster = Self {
            plan: kept.plan,
            folder: record.parent()?.to_owned(),
            program: kept.program,
            processes: BTreeMap::new(),
            left_running: true,
        };
        for (name, pid) in kept.pids {
            if let Some(process) = Process::find(pid, &cluster.places(&name).data) {
                cluster.processes.insert(name, process);
            }
        }
        Some(cluster)
    }

    pub(super) fn any_running(&mut self) -> bool {
        self.processes.values_mut().any(Process::is_running)
    }

    fn cluster_file(&self) -> PathBuf {
        self.folder.join("cluster.toml")
    }

    /// The file that [`Cluster::found_by`] reads.
    pub(super) fn record(folder: &Path) -> PathBuf {
        folder.join("demo.json")
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn places(&self, name: &str) -> Places {
        Places {
            program: self.program.clone(),
            cluster_file: self.cluster_file(),
            data: self.folder.join(name),
            output: self.folder.join(format!("{name}.out")),
            log: self.folder.join(format!("{name}.log")),
        }
    }

    fn keep_record(&self) -> Result<(), Failure> {
        let pids = self.processes.iter();
        let record = Record {
            plan: self.plan,
            program: self.program.clone(),
            pids: pids
                .map(|(name, process)| (name.clone(), process.pid))
                .collect(),
        };
        let text = serde_json::to_vec(&record).map_err(std::io::Error::other)?;
        Ok(std::fs::write(Self::record(&self.folder), text)?)
    }

    /// Starts every node, waits until every zone serves, and sets the delays between zones.
    pub(super) async fn start_all(&mut self) -> Result<(), Failure> {
        let nodes = self.plan.nodes();
        for node in &nodes {
            let process = Process::start(node, &self.places(&node.name))?;
            self.processes.insert(node.name.clone(), process);
        }
        self.keep_record()?;
        for node in &nodes {
            self.wait_ready(node).await?;
        }
        for zone in ZONES {
            self.wait_serving(zone).await?;
        }
        self.set_delays().await
    }

    async fn wait_ready(&mut self, node: &Node) -> Result<(), Failure> {
        let places = self.places(&node.name);
        match self.processes.get_mut(&node.name) {
            Some(process) => process.ready(node, &places, READY_TIME_MAX).await,
            None => Err(Failure::other(format!("node {} is not running", node.name))),
        }
    }

    /// Waits until every shard of the zone answers a read that needs a leader.
    async fn wait_serving(&self, zone: &str) -> Result<(), Failure> {
        let until = Instant::now() + READY_TIME_MAX;
        loop {
            let error = match self.probe(zone).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if Instant::now() >= until {
                return Err(Failure::other(format!(
                    "zone {zone} does not serve in time: {error}"
                )));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn probe(&self, zone: &str) -> Result<(), meridian_client::Error> {
        let of_zone = self
            .plan
            .nodes()
            .into_iter()
            .filter(|node| node.zone == zone);
        let client = Client::builder()
            .endpoints(of_zone.map(|node| node.addr()))
            .zone(zone)
            .stay_in_zone()
            .timeout(CALL_TIME_MAX)
            .connect()
            .await?;
        let keys = (0..PROBE_KEYS)
            .map(|n| format!("probe-{n}").into())
            .collect();
        let answers = client.batch_get(keys, &ReadOptions::default()).await;
        answers.into_iter().try_for_each(|answer| answer.map(drop))
    }

    async fn admin(&self) -> Result<Admin, Failure> {
        let client = Client::builder()
            .endpoints(self.plan.endpoints())
            .timeout(CALL_TIME_MAX)
            .connect()
            .await?;
        Ok(client.admin())
    }

    async fn set_delays(&self) -> Result<(), Failure> {
        let admin = self.admin().await?;
        for (from, to, delay_ms) in DELAYS_MS {
            let request = wire::FaultDelayRequest {
                from: from.to_owned(),
                to: to.to_owned(),
                delay_ms,
                one_way: false,
            };
            let told = admin
                .each_node(|node| {
                    let request = request.clone();
                    async move { node.fault_delay(request).await }
                })
                .await;
            for (_, answer) in told {
                answer?;
            }
        }
        Ok(())
    }

    /// Nodes of this name, or all of the zone of this name.
    fn named(&self, name: &str) -> Result<Vec<Node>, Failure> {
        let mut nodes = self.plan.nodes();
        nodes.retain(|node| node.name == name || node.zone == name);
        if nodes.is_empty() {
            return Err(Failure::usage(format!("no node or zone {name:?}")));
        }
        Ok(nodes)
    }

    /// Ends nodes without warning, as a crash would. Names of those that ran.
    pub(crate) async fn kill(&mut self, name: &str) -> Result<Vec<String>, Failure> {
        let mut killed = Vec::new();
        for node in self.named(name)? {
            if let Some(mut process) = self.processes.remove(&node.name)
                && process.is_running()
            {
                process.kill().await;
                killed.push(node.name);
            }
        }
        self.keep_record()?;
        Ok(killed)
    }

    /// Starts nodes that do not run, and tells them the link faults that the others know. Names of those started.
    pub(crate) async fn start(&mut self, name: &str) -> Result<Vec<String>, Failure> {
        let mut started = Vec::new();
        for node in self.named(name)? {
            let running = self
                .processes
                .get_mut(&node.name)
                .is_some_and(Process::is_running);
            if running {
                continue;
            }
            let process = Process::start(&node, &self.places(&node.name))?;
            self.processes.insert(node.name.clone(), process);
            self.keep_record()?;
            self.wait_ready(&node).await?;
            self.pass_on_faults(&node).await?;
            started.push(node.name);
        }
        Ok(started)
    }

    async fn pass_on_faults(&self, to: &Node) -> Result<(), Failure> {
        let node = NodeAdmin::at(&to.addr(), CALL_TIME_MAX)?;
        for other in self
            .plan
            .nodes()
            .into_iter()
            .filter(|other| other.name != to.name)
        {
            let other = NodeAdmin::at(&other.addr(), CALL_TIME_MAX)?;
            let Ok(known) = other.fault_list(wire::FaultListRequest {}).await else {
                continue;
            };
            for fault in known.faults {
                impose(&node, fault).await?;
            }
        }
        Ok(())
    }

    /// From now on it stays when this `kv` ends.
    pub(super) fn leave_running(&mut self) {
        self.left_running = true;
    }

    /// Ends all nodes and removes everything they kept.
    pub(super) async fn stop(mut self) {
        for process in self.processes.values() {
            process.signal(Signal::TERM);
        }
        let until = Instant::now() + STOP_TIME_MAX;
        for process in self.processes.values_mut() {
            let left = until.saturating_duration_since(Instant::now());
            if !process.ended(left).await {
                process.kill().await;
            }
        }
        self.left_running = false;
    }
}

/// Sets one direction of one link at one node.
async fn impose(node: &NodeAdmin, fault: wire::Fault) -> Result<(), Failure> {
    let wire::Fault {
        from,
        to,
        blocked,
        delay_ms,
        loss,
    } = fault;
    let one_way = true;
    if delay_ms > 0 {
        let (from, to) = (from.clone(), to.clone());
        let request = wire::FaultDelayRequest {
            from,
            to,
            delay_ms,
            one_way,
        };
        node.fault_delay(request).await?;
    }
    if loss > 0.0 {
        let (from, to) = (from.clone(), to.clone());
        let request = wire::FaultLossRequest {
            from,
            to,
            probability: loss,
            one_way,
        };
        node.fault_loss(request).await?;
    }
    if blocked {
        let request = wire::FaultBlockRequest { from, to, one_way };
        node.fault_block(request).await?;
    }
    Ok(())
}

impl Drop for Cluster {
    /// The last resort, when there was no time to stop it in order.
    fn drop(&mut self) {
        if self.left_running {
            return;
        }
        for process in self.processes.values_mut() {
            if process.is_running() {
                process.signal(Signal::KILL);
            }
        }
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// `KV_NODE_BIN`, or `kv-node` beside this program.
fn node_program() -> Result<PathBuf, Failure> {
    if let Some(program) = std::env::var_os("KV_NODE_BIN") {
        return Ok(PathBuf::from(program));
    }
    let own = std::env::current_exe()?;
    let beside = own.with_file_name("kv-node");
    if beside.exists() {
        Ok(beside)
    } else {
        let place = beside.display();
        Err(Failure::other(format!(
            "{place} is missing; build it, or set KV_NODE_BIN"
        )))
    }
}
