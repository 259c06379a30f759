//! The order of events: start, load, kills and restarts, rest, convergence, judgement.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool reports on standard output"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use meridian_client::proto::admin::v1 as wire;
use meridian_client::{Admin, Client, ReadOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;

use super::args::LocalArgs;
use super::cluster::{Cluster, Setting};
use super::ends::Ends;
use super::ledger::{Attempt, Ledger};
use super::lossy::{LossyDisk, disk::Lost, unavailable};
use super::plan::Node;
use super::process::last_lines;
use super::workload::{Writer, held};

/// Deadline of a writer's operation.
const WRITE_TIME_MAX: Duration = Duration::from_secs(3);
/// Deadline of the calls that judge.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);
const CONVERGED_TIME_MAX: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(100);
/// A killed node stays down so long at most, in milliseconds.
const DOWN_MS_MAX: u64 = 1500;
/// Of what is wrong, so many lines are shown.
const SHOWN_MAX: usize = 20;
/// Keys read in one go.
const READ_CHUNK: usize = 512;

/// Runs the experiment: 0 every promise held, 1 one was broken, 2 it could not be made.
pub fn main(args: &LocalArgs) -> ExitCode {
    if args.lossy
        && let Some(why) = unavailable()
    {
        println!("SKIPPED: no file system of our own can be mounted here: {why}");
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return cannot(&error.to_string()),
    };
    println!("seed {}", args.seed);
    match runtime.block_on(experiment(args)) {
        Ok(wrong) if wrong.is_empty() => {
            println!("no acknowledged write was lost");
            println!("{}", args.line());
            ExitCode::SUCCESS
        }
        Ok(wrong) => {
            println!("VIOLATION: {} findings", wrong.len());
            wrong
                .iter()
                .take(SHOWN_MAX)
                .for_each(|finding| println!("  {finding}"));
            println!("{}", args.line());
            ExitCode::FAILURE
        }
        Err(why) => cannot(&why),
    }
}

fn cannot(why: &str) -> ExitCode {
    println!("error: {why}");
    ExitCode::from(2)
}

/// A cluster, and the disks its nodes lie on.
struct World<'a> {
    args: &'a LocalArgs,
    rng: SmallRng,
    cluster: Cluster,
    disks: BTreeMap<String, LossyDisk>,
    lost: Lost,
}

/// What is wrong; `Err` when the experiment could not be made.
async fn experiment(args: &LocalArgs) -> Result<Vec<String>, String> {
    let folder = tempfile::Builder::new()
        .prefix("kv-chaos-local-")
        .tempdir()
        .map_err(|error| error.to_string())?;
    // Whoever ends the experiment early leaves no process and no mount behind.
    let mut ends = Ends::new().map_err(|error| error.to_string())?;
    let outcome = tokio::select! {
        outcome = experiment_in(args, folder.path()) => outcome,
        () = ends.any() => Err("interrupted".to_owned()),
    };
    if let Some(keep) = &args.keep {
        keep_logs(folder.path(), keep).map_err(|error| format!("cannot keep the logs: {error}"))?;
    }
    outcome
}

async fn experiment_in(args: &LocalArgs, folder: &Path) -> Result<Vec<String>, String> {
    let mut world = World::start(args, folder).await?;
    let begun = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let writers = world.start_writers(&stop).await?;
    let disturbed = world.disturb().await;
    stop.store(true, Ordering::Relaxed);
    let mut ledger = Ledger::default();
    for writer in writers {
        for attempt in writer.await.map_err(|error| error.to_string())? {
            ledger.note(attempt);
        }
    }
    let totals = ledger.totals();
    println!(
        "{} kills in {:.0} s; writes: {} acknowledged, {} of unknown outcome, {} refused, on {} keys",
        args.kills,
        begun.elapsed().as_secs_f64(),
        totals.acknowledged,
        totals.unknown,
        totals.refused,
        ledger.keys().count()
    );
    if args.lossy {
        println!(
            "lost at the kills: {} unsynced writes, {} unsynced changes of folders",
            world.lost.writes, world.lost.entries
        );
    }
    if let Err(finding) = disturbed {
        return Ok(vec![finding]);
    }
    world.judge(&ledger).await
}

impl<'a> World<'a> {
    async fn start(args: &'a LocalArgs, folder: &Path) -> Result<Self, String> {
        let cluster = Cluster::create(&Setting {
            shape: args.cluster,
            program: args.node_bin.clone(),
            folder: folder.to_owned(),
            core_threads: args.core_threads,
            first_subnet: std::process::id().to_le_bytes()[0],
        })?;
        let mut disks = BTreeMap::new();
        if args.lossy {
            for node in cluster.plan.nodes() {
                let disk = LossyDisk::mount(&cluster.data(&node.name));
                let disk = disk
                    .map_err(|error| format!("cannot mount a disk for {}: {error}", node.name))?;
                disks.insert(node.name, disk);
            }
        }
        let rng = SmallRng::seed_from_u64(args.seed);
        let mut world = Self {
            args,
            rng,
            cluster,
            disks,
            lost: Lost::default(),
        };
        world.cluster.start_all().await?;
        world.deafen();
        Ok(world)
    }

    /// Only now: what a node writes before it is ready, it finds again.
    fn deafen(&self) {
        if self.args.deaf {
            self.disks.values().for_each(LossyDisk::deafen);
        }
    }

    async fn start_writers(
        &self,
        stop: &Arc<AtomicBool>,
    ) -> Result<Vec<JoinHandle<Vec<Attempt>>>, String> {
        let mut writers = Vec::new();
        for zone in self.cluster.plan.zones() {
            let client = self
                .cluster
                .client(&zone, WRITE_TIME_MAX)
                .await
                .map_err(|error| error.to_string())?;
            for number in 1..=self.args.writers {
                let writer =
                    Writer::new(format!("{zone}.{number}"), client.clone(), Arc::clone(stop));
                writers.push(tokio::spawn(writer.run()));
            }
        }
        Ok(writers)
    }

    /// Kills and restarts. `Err` is a finding: a node that ended by itself, or did not start again.
    async fn disturb(&mut self) -> Result<(), String> {
        let nodes = self.cluster.plan.nodes();
        for number in 1..=self.args.kills {
            self.rest(self.args.every_ms / 2, self.args.every_ms).await;
            let ended = self.cluster.ended();
            if let Some(name) = ended.first() {
                return Err(format!(
                    "node {name} ended by itself\n{}",
                    last_lines(&self.cluster.log(name))
                ));
            }
            let place = self.rng.random_range(0..nodes.len());
            let Some(node) = nodes.get(place) else {
                continue;
            };
            let down = Instant::now();
            self.kill(node)?;
            self.rest(0, DOWN_MS_MAX).await;
            self.cluster.start(node).await?;
            self.deafen();
            println!(
                "kill {number}: {} of {}, ready again after {} ms",
                node.name,
                node.zone,
                down.elapsed().as_millis()
            );
        }
        self.rest(self.args.every_ms / 2, self.args.every_ms).await;
        Ok(())
    }

    async fn rest(&mut self, least_ms: u64, most_ms: u64) {
        let time = self.rng.random_range(least_ms..=most_ms.max(least_ms));
        tokio::time::sleep(Duration::from_millis(time)).await;
    }

    /// The node goes; on a lossy disk what it had not synced goes too. Half of the time nothing unsynced stays, else any
    /// prefix for each file and folder.
    fn kill(&mut self, node: &Node) -> Result<(), String> {
        self.cluster.kill(&node.name)?;
        let Some(disk) = self.disks.get_mut(&node.name) else {
            return Ok(());
        };
        let nothing = self.rng.random_bool(0.5);
        let rng = &mut self.rng;
        let lost = disk.crash(|changes| {
            if nothing {
                0
            } else {
                rng.random_range(0..=changes)
            }
        });
        let lost =
            lost.map_err(|error| format!("cannot mount the disk of {} again: {error}", node.name))?;
        self.lost.writes += lost.writes;
        self.lost.entries += lost.entries;
        Ok(())
    }

    /// Waits for convergence, then holds the ledger against every zone.
    async fn judge(&self, ledger: &Ledger) -> Result<Vec<String>, String> {
        let mut wrong = Vec::new();
        let zones = self.cluster.plan.zones();
        let mut clients = Vec::new();
        for zone in &zones {
            clients.push(
                self.cluster
                    .client(zone, CALL_TIME_MAX)
                    .await
                    .map_err(|error| error.to_string())?,
            );
        }
        if let Some(client) = clients.first() {
            let begun = Instant::now();
            match converged(&client.admin()).await {
                Ok(keys) => println!(
                    "converged after {:.1} s, {keys} keys in every zone",
                    begun.elapsed().as_secs_f64()
                ),
                Err(finding) => wrong.push(finding),
            }
        }
        for (zone, client) in zones.iter().zip(&clients) {
            wrong.extend(check_zone(zone, client, ledger).await?);
        }
        for node in self.cluster.plan.nodes() {
            let log = std::fs::read_to_string(self.cluster.log(&node.name)).unwrap_or_default();
            let panics = log.lines().filter(|line| line.contains("panicked at"));
            wrong.extend(panics.map(|line| format!("node {} panicked: {line}", node.name)));
        }
        Ok(wrong)
    }
}

/// Waits until no zone has anything left for another and all hold the same; gives the number of keys.
async fn converged(admin: &Admin) -> Result<u64, String> {
    let until = Instant::now() + CONVERGED_TIME_MAX;
    loop {
        let why = match (unshipped(admin).await, digests(admin).await) {
            (Some(0), Some(digests)) if digests.len() == 1 => {
                return Ok(digests.first().map_or(0, |(_, keys)| *keys));
            }
            (entries, digests) => format!("{entries:?} entries unshipped, digests {digests:?}"),
        };
        if Instant::now() >= until {
            return Err(format!("zones did not converge: {why}"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// `None` when a zone did not answer.
async fn unshipped(admin: &Admin) -> Option<u64> {
    let request = wire::LagRequest {
        keyspace: meridian_client::DEFAULT_KEYSPACE.to_owned(),
    };
    let ask = |node: meridian_client::NodeAdmin| {
        let request = request.clone();
        async move { node.lag(request).await }
    };
    let mut entries = 0;
    for answer in admin.each_zone(ask).await {
        entries += answer.ok()?.rows.iter().map(|row| row.entries).sum::<u64>();
    }
    Some(entries)
}

/// Digest and number of keys, once when all zones hold the same. `None` when a zone did not answer.
async fn digests(admin: &Admin) -> Option<BTreeSet<(String, u64)>> {
    let request = wire::DigestRequest {
        keyspace: meridian_client::DEFAULT_KEYSPACE.to_owned(),
    };
    let ask = |node: meridian_client::NodeAdmin| {
        let request = request.clone();
        async move { node.digest(request).await }
    };
    let mut digests = BTreeSet::new();
    for answer in admin.each_zone(ask).await {
        let rows = answer.ok()?.rows;
        digests.extend(rows.into_iter().map(|row| (row.digest, row.keys)));
    }
    Some(digests)
}

async fn check_zone(zone: &str, client: &Client, ledger: &Ledger) -> Result<Vec<String>, String> {
    let mut wrong = Vec::new();
    let keys: Vec<&str> = ledger.keys().collect();
    for chunk in keys.chunks(READ_CHUNK) {
        let asked = chunk
            .iter()
            .map(|key| Bytes::copy_from_slice(key.as_bytes()))
            .collect();
        let answers = client.batch_get(asked, &ReadOptions::default()).await;
        for (key, answer) in chunk.iter().zip(answers) {
            match answer {
                Ok(versions) => {
                    let findings = ledger.check(key, &held(&versions));
                    wrong.extend(
                        findings
                            .into_iter()
                            .map(|finding| format!("{zone}: {finding}")),
                    );
                }
                Err(error) => wrong.push(format!("{zone}: {key} cannot be read: {error}")),
            }
        }
    }
    Ok(wrong)
}

fn keep_logs(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        if let Some(name) = path.file_name().filter(|_| is_log) {
            std::fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
