//! `kv-chaos lag`: how long a write takes from one zone to another, at half of what the cluster can take.
//!
//! Three zones of one node, delays between them, the async keyspace `default`. First the maximal rate of puts, all zones
//! together, in a short closed loop; then runs of an open loop at half of that. Beside the load, samples: a put of a key of
//! its own, which is then looked for in each other zone until it is there.
//!
//! How it is measured: everything is on one machine, so one monotonic clock serves. A sample begins when its put is
//! acknowledged in its own zone, and ends when an `eventual` read in the other zone has answered with it. So the reply to the
//! writer is left out (it left after the commit), and the answer to the reader and the time between two looks, 1 ms, are
//! added. From when the put was *asked for* is told too: that adds the whole put, and is never too short.
//!
//! The bar (issue: async lag): the 99th percentile of a pair of zones, median of the runs, is at most the delay between them
//! and 50 ms. A sample that never comes is a broken promise.
//!
//! Read `samples` for the measurement, `report` for the bar.

mod report;
mod samples;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use meridian_client::DEFAULT_KEYSPACE;

use super::backlog;
use super::experiment::Experiment;
use super::puts::Puts;
use super::rate::{MaximalRate, maximal_rate};
use super::zones::{Start, Zones, three};
use report::{Report, Run};
use samples::Sampler;

/// The load is that many times smaller than the maximal one.
const SHARE: f64 = 0.5;
/// Not sampled at the beginning of a run.
const WARM_UP: Duration = Duration::from_secs(1);
const DRAIN_TIME_MAX: Duration = Duration::from_mins(2);
/// Beyond what is asked for: starting, finding the rate, draining.
const TIME_BESIDE: Duration = Duration::from_mins(4);

/// Measures how long writes take between zones under half of the maximal load.
#[derive(Clone, Debug, Args)]
pub struct LagArgs {
    /// Delays one way, in milliseconds: between zones 1 and 2, 2 and 3, 1 and 3.
    #[arg(long, value_delimiter = ',', default_values_t = [30, 50, 70])]
    pub delays_ms: Vec<u64>,
    /// Runs; the median of them counts.
    #[arg(long, default_value_t = 5)]
    pub runs: u32,
    /// Seconds of each run.
    #[arg(long, default_value_t = 12)]
    pub seconds: u64,
    /// Seconds in which the maximal rate is found.
    #[arg(long, default_value_t = 10)]
    pub rate_seconds: u64,
    /// The maximal rate of puts per second, all zones together; found when absent.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Puts in flight while the maximal rate is found.
    #[arg(long, default_value_t = 256)]
    pub in_flight: usize,
    /// Samples per second and zone.
    #[arg(long, default_value_t = 20)]
    pub samples: u32,
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

impl LagArgs {
    fn line(&self) -> String {
        let Self {
            delays_ms,
            runs,
            seconds,
            rate_seconds,
            rate,
            in_flight,
            samples,
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
            "kv-chaos lag --seed {seed} --delays-ms {} --runs {runs} --seconds {seconds} --rate-seconds {rate_seconds} \
             --in-flight {in_flight} --samples {samples} --value-bytes {value_bytes} --keys {keys} --core-threads \
             {core_threads}{rate}",
            delays.join(",")
        )
    }

    fn time_max(&self) -> Duration {
        let runs = u64::from(self.runs) * (self.seconds + DRAIN_TIME_MAX.as_secs() / 4);
        Duration::from_secs(runs + self.rate_seconds) + TIME_BESIDE
    }
}

/// Runs the experiment: 0 the bar holds, 1 it does not, 2 it could not be made.
pub fn main(args: &LagArgs) -> ExitCode {
    let experiment = Experiment {
        name: "lag",
        command: args.line(),
        time_max: args.time_max(),
        json: args.json,
    };
    experiment.run(async |folder| measure(args, folder).await)
}

async fn measure(args: &LagArgs, folder: &Path) -> Result<Report, String> {
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
    let mut runs = Vec::new();
    for run in 0..args.runs.max(1) {
        runs.push(one(args, (&zones, &puts), (run, maximal.carried * SHARE)).await?);
        backlog::drained(&zones, DRAIN_TIME_MAX).await?;
    }
    Ok(Report::of(&zones, maximal, runs))
}

/// One run: load, and samples beside it.
async fn one(
    args: &LagArgs,
    (zones, puts): (&Zones, &Puts),
    (run, per_second): (u32, f64),
) -> Result<Run, String> {
    let load = puts.open(per_second);
    tokio::time::sleep(WARM_UP).await;
    let sampler = Sampler::new(zones, &puts.clients, run);
    let samples = sampler.take(args.samples.max(1), Duration::from_secs(args.seconds));
    let samples = samples.await?;
    Ok(Run::of(samples, &load.end().await?))
}
