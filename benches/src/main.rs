//! `kv-bench`: the load generator. Puts, then linearizable gets, with many requests in flight over the client's streams;
//! around them what the disk costs, what a single put takes, and what every operation costs in processor time.
//!
//! It starts a cluster of `kv-node` processes of its own, without delays between zones, or takes one that runs. What it
//! is not: it checks no promises; that is `kv-chaos`.
//!
//! Read `load` for the loop, `report` for the targets.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]

mod cpu;
mod disk;
mod lag;
mod latency;
mod load;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use meridian_chaos::local::cluster::{Cluster, Setting};
use meridian_chaos::local::ends::Ends;
use meridian_chaos::local::plan::Shape;
use meridian_client::Client;
use tempfile::TempDir;
use tokio::task::LocalSet;

use crate::cpu::Cpu;
use crate::lag::Backlog;
use crate::load::{Form, Kind, Load, Outcomes, Span};
use crate::report::{Phase, Report};

/// Busy clients and stores fragment the system's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const CALL_TIME_MAX: Duration = Duration::from_secs(10);
const DRAIN_TIME_MAX: Duration = Duration::from_mins(2);
const FDATASYNC_TIME: Duration = Duration::from_secs(2);
const FDATASYNC_WRITERS: usize = 3;

/// Measures throughput, latency and cost of a cluster.
#[derive(Debug, Parser)]
#[command(name = "kv-bench", version)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Args {
    /// Nodes of a running cluster, HOST:PORT; without them a cluster is started.
    #[arg(long, value_delimiter = ',')]
    endpoints: Vec<String>,
    /// The keyspace of the running cluster that is asked.
    #[arg(long, requires = "endpoints", default_value = "default")]
    keyspace: String,
    /// Zones and nodes of the cluster to start: 3x1, 1x3.
    #[arg(long, default_value = "3x1")]
    cluster: Shape,
    /// Seconds of puts, and of gets.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seconds of single puts, one after the other.
    #[arg(long, default_value_t = 5)]
    single_seconds: u64,
    /// Requests in flight.
    #[arg(long, default_value_t = 256)]
    in_flight: usize,
    /// Size of a value.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Number of keys, asked uniformly.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Clients of all zones write all keys, so that keys fall into conflict; otherwise each zone has its own part.
    #[arg(long)]
    shared_keys: bool,
    /// Which zones have clients.
    #[arg(long, value_enum, default_value_t = Zones::All)]
    zones: Zones,
    /// Operations per second, due whether or not earlier ones are answered (open loop); as fast as answers come (closed
    /// loop) when absent.
    #[arg(long)]
    rate: Option<f64>,
    /// Core threads of each node started.
    #[arg(long, default_value_t = 1)]
    core_threads: u32,
    /// Where the started cluster keeps its data; a folder on a real disk.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The program `kv-node`; KV_NODE_BIN, or the one beside this program, when absent.
    #[arg(long)]
    node_bin: Option<PathBuf>,
    /// Transactions too: in one shard and over two, in one request and interactive.
    #[arg(long)]
    transactions: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Exit with 1 when a target is missed.
    #[arg(long)]
    assert: bool,
}

/// Transactions of two reads and two writes.
const TRANSACTIONS: [(&str, Kind); 4] = [
    (
        "one shard, one request",
        Kind::Transact(Span::OneShard, Form::OneShot),
    ),
    (
        "one shard, interactive",
        Kind::Transact(Span::OneShard, Form::Interactive),
    ),
    (
        "two shards, one request",
        Kind::Transact(Span::TwoShards, Form::OneShot),
    ),
    (
        "two shards, interactive",
        Kind::Transact(Span::TwoShards, Form::Interactive),
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Zones {
    /// Every zone.
    All,
    /// The first zone.
    One,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // One thread: what the client costs shows as what it is, and counting needs no locks.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    match LocalSet::new().block_on(&runtime, run_or_end(&args)) {
        Ok(report) => show(&args, &report),
        Err(why) => failed(&why),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(2)
}

fn show(args: &Args, report: &Report) -> ExitCode {
    if args.json {
        match serde_json::to_string(report) {
            Ok(json) => println!("{json}"),
            Err(error) => return failed(&error.to_string()),
        }
    } else {
        print!("{}", report.text());
    }
    if args.assert && !report.passed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// A cluster to ask: its clients, one per zone, and what is known of its processes.
struct Target {
    name: String,
    clients: Vec<Client>,
    pids: Vec<u32>,
    /// On the nodes' disk.
    folder: Option<TempDir>,
    _cluster: Option<Cluster>,
}

/// Whoever ends it early leaves no process behind.
async fn run_or_end(args: &Args) -> Result<Report, String> {
    let mut ends = Ends::new().map_err(|error| error.to_string())?;
    tokio::select! {
        report = run(args) => report,
        () = ends.any() => Err("interrupted".to_owned()),
    }
}

async fn run(args: &Args) -> Result<Report, String> {
    let target = if args.endpoints.is_empty() {
        start(args).await?
    } else {
        connect(args).await?
    };
    let bench = Bench {
        args,
        target: &target,
    };
    let fdatasync = target
        .folder
        .as_ref()
        .map(|folder| disk::measure(folder.path(), FDATASYNC_WRITERS, FDATASYNC_TIME))
        .transpose()?;
    eprintln!("single puts …");
    let single_put = bench.phase("single put", bench.single()).await.0;
    eprintln!("puts …");
    let (puts, samples) = bench.phase("puts", bench.load(Kind::Put)).await;
    let drained_after_s = match target.clients.first() {
        Some(client) => lag::drained(client, DRAIN_TIME_MAX).await,
        None => None,
    };
    let backlog = Backlog {
        grows: lag::grows(&samples, puts.per_second),
        samples,
        drained_after_s,
    };
    let mut transactions = Vec::new();
    if args.transactions {
        for (name, kind) in TRANSACTIONS {
            eprintln!("{name} …");
            transactions.push(bench.phase(name, bench.load(kind)).await.0);
        }
        eprintln!("puts again …");
        transactions.push(bench.phase("puts again", bench.load(Kind::Put)).await.0);
    }
    eprintln!("gets …");
    let gets = bench.phase("gets", bench.load(Kind::Get)).await.0;
    let mut report = Report {
        cluster: target.name.clone(),
        in_flight: args.in_flight,
        value_bytes: args.value_bytes,
        keys: args.keys,
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        fdatasync,
        single_put,
        puts,
        backlog,
        gets,
        transactions,
        verdicts: Vec::new(),
    };
    report.judge();
    Ok(report)
}

struct Bench<'a> {
    args: &'a Args,
    target: &'a Target,
}

impl Bench<'_> {
    fn load(&self, kind: Kind) -> Load {
        let clients = match self.args.zones {
            Zones::All => self.target.clients.clone(),
            Zones::One => self.target.clients.iter().take(1).cloned().collect(),
        };
        Load {
            kind,
            clients,
            in_flight: self.args.in_flight,
            time: Duration::from_secs(self.args.seconds),
            keys: self.args.keys,
            shared_keys: self.args.shared_keys,
            value: Bytes::from(vec![b'v'; self.args.value_bytes]),
            rate: self.args.rate,
        }
    }

    fn single(&self) -> Load {
        let load = self.load(Kind::Put);
        Load {
            clients: load.clients.iter().take(1).cloned().collect(),
            in_flight: 1,
            time: Duration::from_secs(self.args.single_seconds),
            rate: None,
            ..load
        }
    }

    async fn phase(&self, name: &'static str, load: Load) -> (Phase, Vec<lag::Sample>) {
        let before = Cpu::now(&self.target.pids);
        let begun = Instant::now();
        let until = begun + load.time;
        let watching = self.target.clients.first().cloned();
        let watching = tokio::task::spawn_local(async move {
            match watching {
                Some(client) => lag::watch(&client, begun, until).await,
                None => Vec::new(),
            }
        });
        let outcomes: Outcomes = load.run().await;
        let used = Cpu::now(&self.target.pids).since(&before, outcomes.done(), outcomes.seconds);
        (
            Phase::of(name, outcomes, used),
            watching.await.unwrap_or_default(),
        )
    }
}

async fn start(args: &Args) -> Result<Target, String> {
    let mut folder = tempfile::Builder::new();
    let folder = folder.prefix("kv-bench-");
    let folder = match &args.dir {
        Some(dir) => folder.tempdir_in(dir),
        None => folder.tempdir(),
    };
    let folder = folder.map_err(|error| format!("cannot make a folder: {error}"))?;
    let mut cluster = Cluster::create(&Setting {
        shape: args.cluster,
        program: args.node_bin.clone(),
        folder: folder.path().to_owned(),
        core_threads: args.core_threads,
        first_subnet: std::process::id().to_le_bytes()[0],
    })?;
    eprintln!("starting {} …", args.cluster);
    cluster.start_all().await?;
    let mut clients = Vec::new();
    for zone in cluster.plan.zones() {
        clients.push(
            cluster
                .client(&zone, CALL_TIME_MAX)
                .await
                .map_err(|error| error.to_string())?,
        );
    }
    let pids = cluster.pids();
    eprintln!("nodes: {pids:?}");
    Ok(Target {
        name: format!(
            "{} zones x nodes on loopback, {} core threads each",
            args.cluster, args.core_threads
        ),
        clients,
        pids,
        folder: Some(folder),
        _cluster: Some(cluster),
    })
}

async fn connect(args: &Args) -> Result<Target, String> {
    let connect = |zone: Option<String>| {
        let builder = Client::builder()
            .endpoints(args.endpoints.iter().cloned())
            .keyspace(&args.keyspace)
            .timeout(CALL_TIME_MAX);
        match zone {
            Some(zone) => builder.zone(zone).stay_in_zone(),
            None => builder,
        }
        .connect()
    };
    let any = connect(None).await.map_err(|error| error.to_string())?;
    let mut zones: Vec<String> = any
        .admin()
        .nodes()
        .into_iter()
        .map(|node| node.zone)
        .collect();
    zones.sort();
    zones.dedup();
    let mut clients = Vec::new();
    for zone in zones {
        clients.push(
            connect(Some(zone))
                .await
                .map_err(|error| error.to_string())?,
        );
    }
    Ok(Target {
        name: format!("cluster at {}", args.endpoints.join(",")),
        clients,
        pids: Vec::new(),
        folder: None,
        _cluster: None,
    })
}
