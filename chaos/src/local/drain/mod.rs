//! `kv-chaos drain`: what was held back by a block is caught up with, and how much those notice who write meanwhile.
//!
//! Three zones of one node, delays between them, the async keyspace `default`, puts in all zones at a quarter of the maximal
//! rate, in an open loop that goes on throughout. First in quiet; then one zone is blocked for a time, in which a backlog
//! builds up on both sides; then the links are healed.
//!
//! The backlog is the number of effects that some zone lacks, as the zones say, over all pairs. It has drained when it is
//! not above what it was at most in quiet. Effects keep coming in meanwhile, so what is judged is the net rate: the backlog
//! at the end of the block over the time it took.
//!
//! The bars (issue: drain): the backlog drains at no less than three times the rate at which it built up; of the puts that
//! are acknowledged while it drains, the median is at most 1.5 times and the 99th percentile at most twice that in quiet.
//! Zones that do not hold the same afterwards have broken a promise.

mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use meridian_client::DEFAULT_KEYSPACE;

use super::backlog;
use super::experiment::Experiment;
use super::puts::Puts;
use super::rate::{MaximalRate, maximal_rate};
use super::zones::{Start, Zones, three};
use report::{Report, Times};

/// The load is that many times smaller than the maximal one.
const SHARE: f64 = 0.25;
/// The zone that is blocked.
const BLOCKED: usize = 2;
/// Not counted when the load begins.
const WARM_UP: Duration = Duration::from_secs(2);
const DRAIN_TIME_MAX: Duration = Duration::from_mins(3);
const POLL: Duration = Duration::from_millis(200);
/// Beyond what is asked for: starting, finding the rate, draining.
const TIME_BESIDE: Duration = Duration::from_mins(6);

/// Blocks a zone under load, heals it, and measures how the backlog drains.
#[derive(Clone, Debug, Args)]
pub struct DrainArgs {
    /// Delays one way, in milliseconds: between zones 1 and 2, 2 and 3, 1 and 3.
    #[arg(long, value_delimiter = ',', default_values_t = [30, 50, 70])]
    pub delays_ms: Vec<u64>,
    /// Seconds for which zone 3 is blocked.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Seconds in quiet before.
    #[arg(long, default_value_t = 20)]
    pub quiet_seconds: u64,
    /// Seconds in which the maximal rate is found.
    #[arg(long, default_value_t = 10)]
    pub rate_seconds: u64,
    /// The maximal rate of puts per second, all zones together; found when absent.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Puts in flight while the maximal rate is found.
    #[arg(long, default_value_t = 256)]
    pub in_flight: usize,
    /// Size of a value.
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
    /// Number of keys.
    #[arg(long, default_value_t = 100_000)]
    pub keys: u64,
    /// Core threads of each node.
    #[arg(long, default_value_t = 1)]
    pub core_threads: u32,
    /// Decides which keys are written.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// The program `kv-node`; KV_NODE_BIN, or the one beside this program, when absent.
    #[arg(long)]
    pub node_bin: Option<PathBuf>,
}

impl DrainArgs {
    fn line(&self) -> String {
        let Self {
            delays_ms,
            seconds,
            quiet_seconds,
            rate_seconds,
            rate,
            in_flight,
            value_bytes,
            keys,
            core_threads,
            seed,
            json: _,
            node_bin: _,
        } = self;
        let delays: Vec<String> = delays_ms.iter().map(u64::to_string).collect();
        let rate = rate.map_or_else(String::new, |rate| format!(" --rate {rate}"));
        format!(
            "kv-chaos drain --seed {seed} --delays-ms {} --seconds {seconds} --quiet-seconds {quiet_seconds} --rate-seconds \
             {rate_seconds} --in-flight {in_flight} --value-bytes {value_bytes} --keys {keys} --core-threads \
             {core_threads}{rate}",
            delays.join(",")
        )
    }
}

/// Runs the experiment: 0 the bars hold, 1 one does not, 2 it could not be made.
pub fn main(args: &DrainArgs) -> ExitCode {
    let asked = args.seconds + args.quiet_seconds + args.rate_seconds;
    let experiment = Experiment {
        name: "drain",
        command: args.line(),
        time_max: Duration::from_secs(asked) + TIME_BESIDE,
        json: args.json,
    };
    experiment.run(async |folder| measure(args, folder).await)
}

async fn measure(args: &DrainArgs, folder: &Path) -> Result<Report, String> {
    let zones = Zones::start(Start {
        folder,
        program: args.node_bin.clone(),
        core_threads: args.core_threads,
        delays_ms: three(&args.delays_ms)?,
    });
    let zones = zones.await?;
    let puts = Puts {
        clients: zones.clients(DEFAULT_KEYSPACE).await?,
        keys: args.keys,
        value: Bytes::from(vec![b'v'; args.value_bytes]),
        seed: args.seed,
    };
    let maximal = match args.rate {
        Some(rate) => MaximalRate {
            taken: rate,
            carried: rate,
        },
        None => maximal_rate((&zones, &puts), args.in_flight, args.rate_seconds).await?,
    };
    backlog::drained(&zones, DRAIN_TIME_MAX).await?;
    let load = puts.open(maximal.carried * SHARE);
    let times = disturb(args, &zones).await;
    let outcomes = load.end().await?;
    let times = times?;
    backlog::drained(&zones, DRAIN_TIME_MAX).await?;
    let same = backlog::converged(&zones, DRAIN_TIME_MAX).await;
    Ok(Report::of(maximal, times, &outcomes, same.err()))
}

/// Quiet, block, heal; under load.
async fn disturb(args: &DrainArgs, zones: &Zones) -> Result<Times, String> {
    tokio::time::sleep(WARM_UP).await;
    let quiet_from = Instant::now();
    let mut quiet_backlog = 0;
    while quiet_from.elapsed() < Duration::from_secs(args.quiet_seconds.max(1)) {
        quiet_backlog = quiet_backlog.max(backlog::entries(zones).await.unwrap_or(0));
        tokio::time::sleep(POLL).await;
    }
    let blocked = Instant::now();
    zones.block(BLOCKED).await?;
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let backlog = backlog::entries(zones)
        .await
        .ok_or("a zone does not say what its backlog is")?;
    let healed = Instant::now();
    zones.heal(BLOCKED).await?;
    backlog::shrinks_to(zones, quiet_backlog, DRAIN_TIME_MAX).await?;
    Ok(Times {
        quiet_from,
        blocked,
        healed,
        drained: Instant::now(),
        quiet_backlog,
        backlog,
    })
}
