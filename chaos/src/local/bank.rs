//! `kv-chaos bank`: money moves on a cluster of real processes, one of which is killed again and again.
//!
//! The promises: every read of all accounts shows the same total; every acknowledged transfer has its receipt at the end, and
//! the balances are what the receipts make of them. What clients do is `drive`'s bank; here nodes die under it.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool reports on standard output"
)]

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::cluster::{Cluster, Setting};
use super::ends::Ends;
use super::plan::Shape;
use super::process::last_lines;
use crate::drive::{BankRun, Session, Settings, drive_bank};
use crate::histories::judge::Judgement;
use crate::histories::report::tell;
use crate::histories::{journal, money};
use crate::serial::Anomaly;
use crate::serial::finding::Finding;

/// Deadline of a client's call: longer than a zone needs for another leader.
const CALL_TIME_MAX: Duration = Duration::from_secs(5);
/// A killed node stays down between these times, in milliseconds.
const DOWN_MS: std::ops::RangeInclusive<u64> = 1000..=2000;

/// Moves money on a cluster of real processes while nodes are killed, and counts it.
#[derive(Clone, Debug, Args)]
pub struct BankArgs {
    /// Decides which node is killed and what clients ask; the rest is up to the machine.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Zones and nodes of each: 1x3, 1x1.
    #[arg(long, default_value = "1x3")]
    pub cluster: Shape,
    /// For how long.
    #[arg(long, default_value_t = 10.0)]
    pub minutes: f64,
    /// Seconds from one kill to the next.
    #[arg(long, default_value_t = 15)]
    pub kill_every: u64,
    /// Accounts.
    #[arg(long, default_value_t = 100)]
    pub accounts: u64,
    /// Clients.
    #[arg(long, default_value_t = 64)]
    pub clients: u64,
    /// Core threads of each node.
    #[arg(long, default_value_t = 1)]
    pub core_threads: u32,
    /// Write the history to this file.
    #[arg(long)]
    pub history: Option<PathBuf>,
    /// The program `kv-node`; KV_NODE_BIN, or the one beside this program, when absent.
    #[arg(long)]
    pub node_bin: Option<PathBuf>,
}

impl BankArgs {
    fn line(&self) -> String {
        format!(
            "kv-chaos bank --seed {} --cluster {} --minutes {} --kill-every {} --accounts {} --clients {} --core-threads {}",
            self.seed,
            self.cluster,
            self.minutes,
            self.kill_every,
            self.accounts,
            self.clients,
            self.core_threads
        )
    }

    fn time(&self) -> Duration {
        Duration::try_from_secs_f64(self.minutes * 60.0).unwrap_or_default()
    }
}

/// Runs the experiment: 0 every promise held, 1 one was broken, 2 it could not be made.
pub fn main(args: &BankArgs) -> ExitCode {
    println!("seed {}", args.seed);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(experiment(args)));
    match outcome {
        Ok(judgement) => {
            let code = tell(&judgement);
            println!("{}", args.line());
            code
        }
        Err(why) => {
            println!("error: {why}");
            ExitCode::from(2)
        }
    }
}

async fn experiment(args: &BankArgs) -> Result<Judgement, String> {
    let folder = tempfile::Builder::new().prefix("kv-chaos-bank-").tempdir();
    let folder = folder.map_err(|error| error.to_string())?;
    // Whoever ends the experiment early leaves no process behind.
    let mut ends = Ends::new().map_err(|error| error.to_string())?;
    tokio::select! {
        outcome = experiment_in(args, folder.path()) => outcome,
        () = ends.any() => Err("interrupted".to_owned()),
    }
}

async fn experiment_in(args: &BankArgs, folder: &Path) -> Result<Judgement, String> {
    let mut cluster = start(args, folder).await?;
    let zone = cluster
        .plan
        .zones()
        .into_iter()
        .next()
        .ok_or("a cluster without zones")?;
    let client = cluster.client(&zone, CALL_TIME_MAX).await;
    let settings = Settings {
        clients: args.clients.max(1),
        seed: args.seed,
        keys: None,
        accounts: args.accounts.max(2),
    };
    let session = Session::new(client.map_err(|error| error.to_string())?, settings);
    let bank = session.clone();
    let load = tokio::spawn(async move { drive_bank(&bank).await });
    let disturbed = disturb(args, &mut cluster, &session).await;
    session.stop();
    let run = load.await.map_err(|error| error.to_string())??;
    if let Some(path) = &args.history {
        write(path, &run).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    summary(&run);
    Ok(judge(run, (&session, disturbed)))
}

async fn start(args: &BankArgs, folder: &Path) -> Result<Cluster, String> {
    let mut cluster = Cluster::create(&Setting {
        shape: args.cluster,
        program: args.node_bin.clone(),
        folder: folder.to_owned(),
        core_threads: args.core_threads,
        first_subnet: std::process::id().to_le_bytes()[0],
    })?;
    cluster.start_all().await?;
    Ok(cluster)
}

/// Kills and restarts until the time is over. `Err` is a finding: a node that ended by itself, or did not start again.
async fn disturb(args: &BankArgs, cluster: &mut Cluster, session: &Session) -> Result<(), String> {
    let until = Instant::now() + args.time();
    let every = Duration::from_secs(args.kill_every.max(1));
    let nodes = cluster.plan.nodes();
    let mut rng = SmallRng::seed_from_u64(args.seed);
    for number in 1.. {
        if Instant::now() + every >= until || session.is_stopped() {
            break;
        }
        tokio::time::sleep(every).await;
        if let Some(name) = cluster.ended().first() {
            let lines = last_lines(&cluster.log(name));
            return Err(format!("node {name} ended by itself\n{lines}"));
        }
        let Some(node) = nodes.get(rng.random_range(0..nodes.len())) else {
            break;
        };
        cluster.kill(&node.name)?;
        tokio::time::sleep(Duration::from_millis(rng.random_range(DOWN_MS))).await;
        cluster.start(node).await?;
        println!("kill {number}: {}; {}", node.name, session.counts.line());
    }
    tokio::time::sleep(until.saturating_duration_since(Instant::now())).await;
    Ok(())
}

fn write(path: &Path, run: &BankRun) -> std::io::Result<()> {
    journal::write(&run.entries, &mut BufWriter::new(File::create(path)?))
}

fn summary(run: &BankRun) {
    for (what, told) in [
        ("transfers", run.transfers()),
        ("reads of all accounts", run.reads()),
    ] {
        println!(
            "{what}: {} ok, {} fail, {} info",
            told.ok, told.fail, told.info
        );
    }
}

fn judge(run: BankRun, (session, disturbed): (&Session, Result<(), String>)) -> Judgement {
    let finding = |anomaly, what| Finding::new(anomaly, session.now_ns(), what);
    let strange = session.strange().into_iter();
    let mut findings: Vec<Finding> = strange
        .map(|what| finding(Anomaly::GarbageRead, what))
        .collect();
    findings.extend(disturbed.err().map(|what| finding(Anomaly::NodeLost, what)));
    findings.extend(
        run.unread
            .map(|what| finding(Anomaly::NodeLost, format!("the last read failed: {what}"))),
    );
    findings.extend(money::check(&run.entries));
    Judgement {
        operations: run.entries.len(),
        findings,
        undecided: Vec::new(),
    }
}
