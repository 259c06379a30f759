//! `kv-chaos mirrors`: a mirror is killed again and again while a generation comes in, and must never show a mixed cut.
//!
//! Three zones of one node, delays between them, a snapshot keyspace at home in zone 1 with an interval so short that
//! something is nearly always on its way. Zone 2 is killed without warning at a random moment after home says that it
//! receives; then it is started again. Both mirrors are read whole all the time, as soon as a node answers.
//!
//! How a mixed cut would be seen: *chains*, each a writer that writes a number to its keys in their order, one after the
//! other, and then the next number; and *batches*, transactions that write one number to a key of every shard. Read
//! `cut` for what a point in time may show of these.
//!
//! Broken promises, beside mixed cuts: one generation shown with two contents, a generation before one shown earlier, a
//! mirror that does not show in the end what home holds.
//!
//! Read `writers`, `readers`, `cut`.

mod cut;
mod readers;
mod report;
mod writers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use meridian_client::proto::admin::v1 as admin;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::experiment::Experiment;
use super::plan::Node;
use super::process::last_lines;
use super::zones::{Start, Zones, text, three};
use readers::Readers;
use report::Report;
use writers::{Writers, Written};

const KEYSPACE: &str = "mirrored";
const HOME: usize = 0;
/// The mirror that is killed.
const KILLED: usize = 1;
/// A killed node stays down so long at most, in milliseconds.
const DOWN_MS_MAX: u64 = 300;
/// Once home says that the mirror receives, the kill comes within this, in milliseconds.
const AIM_MS_MAX: u64 = 80;
/// From one question to home to the next.
const POLL: Duration = Duration::from_millis(5);
/// A mirror that does not receive, or show anything, for so long is stuck.
const RECEIVES_WITHIN: Duration = Duration::from_secs(30);
const SHOWS_WITHIN: Duration = Duration::from_mins(1);
/// Of each kill, at most.
const KILL_TIME_MAX: Duration = Duration::from_secs(20);

/// Kills a mirror while it receives, and reads whether it ever shows a mixed cut.
#[derive(Clone, Debug, Args)]
pub struct MirrorsArgs {
    /// Decides when the mirror is killed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How often it is killed.
    #[arg(long, default_value_t = 50)]
    pub kills: u32,
    /// Delays one way, in milliseconds: between zones 1 and 2, 2 and 3, 1 and 3.
    #[arg(long, value_delimiter = ',', default_values_t = [30, 50, 70])]
    pub delays_ms: Vec<u64>,
    /// Between two cuts, in milliseconds.
    #[arg(long, default_value_t = 200)]
    pub interval_ms: u64,
    /// Shards of the keyspace.
    #[arg(long, default_value_t = 8)]
    pub shards: u32,
    /// Writers of chains.
    #[arg(long, default_value_t = 4)]
    pub chains: usize,
    /// Keys of a chain.
    #[arg(long, default_value_t = 48)]
    pub keys: usize,
    /// Writers of batches.
    #[arg(long, default_value_t = 2)]
    pub batches: usize,
    /// Size of a value.
    #[arg(long, default_value_t = 60_000)]
    pub value_bytes: usize,
    /// Core threads of each node.
    #[arg(long, default_value_t = 2)]
    pub core_threads: u32,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// The program `kv-node`; KV_NODE_BIN, or the one beside this program, when absent.
    #[arg(long)]
    pub node_bin: Option<PathBuf>,
}

impl MirrorsArgs {
    fn line(&self) -> String {
        let Self {
            seed,
            kills,
            delays_ms,
            interval_ms,
            shards,
            chains,
            keys,
            batches,
            value_bytes,
            core_threads,
            json: _,
            node_bin: _,
        } = self;
        let delays: Vec<String> = delays_ms.iter().map(u64::to_string).collect();
        format!(
            "kv-chaos mirrors --seed {seed} --kills {kills} --delays-ms {} --interval-ms {interval_ms} --shards {shards} \
             --chains {chains} --keys {keys} --batches {batches} --value-bytes {value_bytes} --core-threads {core_threads}",
            delays.join(",")
        )
    }
}

/// Runs the experiment: 0 no mixed cut was shown, 1 a promise was broken, 2 it could not be made.
pub fn main(args: &MirrorsArgs) -> ExitCode {
    let experiment = Experiment {
        name: "mirrors",
        command: args.line(),
        time_max: Duration::from_mins(4) + KILL_TIME_MAX * args.kills,
        json: args.json,
    };
    experiment.run(async |folder| Box::pin(measure(args, folder)).await)
}

async fn measure(args: &MirrorsArgs, folder: &Path) -> Result<Report, String> {
    let zones = Zones::start(Start {
        folder,
        program: args.node_bin.clone(),
        core_threads: args.core_threads,
        delays_ms: three(&args.delays_ms)?,
    });
    let mut zones = zones.await?;
    let policy = admin::Policy {
        mode: "snapshot".to_owned(),
        home: zones.name(HOME)?,
        interval_ms: args.interval_ms,
        ..admin::Policy::default()
    };
    let shards = usize::try_from(args.shards.max(1)).map_err(text)?;
    Box::pin(zones.create(KEYSPACE, args.shards.max(1), policy)).await?;
    let clients = zones.clients(KEYSPACE).await?;
    let writers = Writers::begin(args, clients.get(HOME).ok_or("no home zone")?);
    let sizes = (args.keys.max(1), shards);
    let readers = Readers::begin(&zones.names, &clients, (HOME, sizes));
    let begun = Instant::now();
    let kills = disturb(args, &mut zones).await;
    let written = writers.end().await?;
    let kills = kills?;
    let stuck = shows_all(&zones, &readers, &written).await.err();
    let read = readers.end().await?;
    let mut report = Report::of((kills, begun.elapsed()), &written, read);
    report.wrong.broken.extend(stuck);
    report.wrong.broken.extend(panics(&zones));
    Ok(report)
}

/// Kills, and of these the ones while home said that the mirror received.
#[derive(Clone, Copy, Debug, Default)]
struct Kills {
    all: u32,
    receiving: u32,
}

async fn disturb(args: &MirrorsArgs, zones: &mut Zones) -> Result<Kills, String> {
    let name = zones.name(KILLED)?;
    let nodes = zones.cluster.plan.nodes();
    let node = nodes.into_iter().find(|node| node.zone == name);
    let node = node.ok_or("a zone without nodes")?;
    let mut rng = SmallRng::seed_from_u64(args.seed);
    let mut kills = Kills::default();
    for _ in 0..args.kills {
        receives(zones, &name).await?;
        pause(&mut rng, AIM_MS_MAX).await;
        let receiving = is_receiving(zones, &name).await;
        kill(zones, &node)?;
        kills.all += 1;
        kills.receiving += u32::from(receiving);
        pause(&mut rng, DOWN_MS_MAX).await;
        zones.cluster.start(&node).await?;
        apart_again(zones).await?;
    }
    Ok(kills)
}

/// Delays are the node's own, and gone with it. The way to a node that was killed may still be the old one at first.
async fn apart_again(zones: &Zones) -> Result<(), String> {
    let until = Instant::now() + KILL_TIME_MAX;
    loop {
        match zones.move_apart().await {
            Err(_) if Instant::now() < until => tokio::time::sleep(POLL).await,
            told => return told,
        }
    }
}

fn kill(zones: &mut Zones, node: &Node) -> Result<(), String> {
    let killed = zones.cluster.kill(&node.name);
    killed.map_err(|why| format!("{why}\n{}", last_lines(&zones.cluster.log(&node.name))))
}

async fn pause(rng: &mut SmallRng, most_ms: u64) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..=most_ms))).await;
}

/// What home says of a mirror.
async fn status(zones: &Zones, zone: &str) -> Option<admin::ZoneMirror> {
    let request = admin::MirrorRequest {
        keyspace: KEYSPACE.to_owned(),
        now: false,
    };
    let admin = zones.admin();
    let told = admin.any_node(|node| {
        let request = request.clone();
        async move { node.mirror(request).await }
    });
    let mirrors = told.await.ok()?.zones;
    mirrors.into_iter().find(|mirror| mirror.zone == zone)
}

async fn is_receiving(zones: &Zones, zone: &str) -> bool {
    let status = status(zones, zone).await;
    status.is_some_and(|mirror| mirror.receiving)
}

/// Waits until the mirror shows a newer generation than at first, and then until it receives another.
async fn receives(zones: &Zones, zone: &str) -> Result<(), String> {
    let until = Instant::now() + RECEIVES_WITHIN;
    let mut first = None;
    loop {
        if let Some(mirror) = status(zones, zone).await.filter(|mirror| mirror.heard) {
            let first = *first.get_or_insert(mirror.generation);
            if mirror.generation > first && mirror.receiving {
                return Ok(());
            }
        }
        if Instant::now() >= until {
            return Err(format!("{zone} receives nothing in time"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until every mirror shows the end of what was written.
async fn shows_all(zones: &Zones, readers: &Readers, written: &Written) -> Result<(), String> {
    let until = Instant::now() + SHOWS_WITHIN;
    let request = admin::MirrorRequest {
        keyspace: KEYSPACE.to_owned(),
        now: true,
    };
    let admin = zones.admin();
    let now = admin.any_node(|node| {
        let request = request.clone();
        async move { node.mirror(request).await }
    });
    now.await.map_err(text)?;
    while !readers.show(&written.last) {
        if Instant::now() >= until {
            return Err("a mirror does not show in the end what home holds".to_owned());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Lines of nodes' logs that tell of a panic.
fn panics(zones: &Zones) -> Vec<String> {
    let mut found = Vec::new();
    for node in zones.cluster.plan.nodes() {
        let log = std::fs::read_to_string(zones.cluster.log(&node.name)).unwrap_or_default();
        let lines = log.lines().filter(|line| line.contains("panicked at"));
        found.extend(lines.map(|line| format!("node {} panicked: {line}", node.name)));
    }
    found
}
