//! `kv-chaos leader`: the zone of a sync keyspace's leaders is cut off, again and again.
//!
//! Three zones of one node, delays between them, a sync keyspace at home in zone 1, which is cut off. On the majority side
//! puts are begun every 20 ms for each shard in both zones, whatever became of those before; a shard takes writes again when
//! the first of them is acknowledged, counted from before the first node is told of the cut. On the minority side puts,
//! `linearizable` and `eventual` gets are asked one after the other as long as the cut lasts.
//!
//! The bars (issue: a zone is cut off): a shard takes writes again within three election timeouts (median of all shards and
//! cuts), and never after more than five; the minority refuses a strong operation within a second.
//!
//! Broken promises: the minority acknowledges a strong operation, or refuses it for another reason than `NO_QUORUM` or
//! `OUTCOME_UNKNOWN`; it does not answer an `eventual` get; a put that was acknowledged on the majority side is not there
//! after healing.
//!
//! Read `majority` and `minority` for what is asked, `report` for the bars.

mod majority;
mod minority;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use meridian_client::proto::admin::v1 as admin;
use meridian_client::proto::routing::shard_of;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::experiment::Experiment;
use super::zones::{Start, Zones, three};
use majority::Majority;
use minority::Minority;
use report::{Cut, Report};

pub(super) const KEYSPACE: &str = "sync";
/// The zone where leaders are, and which is cut off.
pub(super) const HOME: usize = 0;
/// The election timeout of a node that is not told otherwise: ten ticks of 50 ms.
const ELECTION_TIMEOUT: Duration = Duration::from_millis(500);
/// Beyond this no shard is waited for.
const GOES_ON_WITHIN: Duration = Duration::from_secs(15);
/// How long a cut lasts after the majority side has gone on: the minority is asked meanwhile.
const LASTS: Duration = Duration::from_secs(2);
/// Leaders come home within this.
const HOME_WITHIN: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(100);
/// Before a cut, in milliseconds: heartbeats are met at any point.
const REST_MS: std::ops::RangeInclusive<u64> = 500..=1500;

/// Cuts the leaders' zone of a sync keyspace off, and measures when the others go on.
#[derive(Clone, Debug, Args)]
pub struct LeaderArgs {
    /// Delays one way, in milliseconds: between zones 1 and 2, 2 and 3, 1 and 3.
    #[arg(long, value_delimiter = ',', default_values_t = [30, 50, 70])]
    pub delays_ms: Vec<u64>,
    /// How often the zone is cut off.
    #[arg(long, default_value_t = 10)]
    pub cuts: u32,
    /// Shards of the keyspace: each has a leader of its own.
    #[arg(long, default_value_t = 8)]
    pub shards: u32,
    /// Core threads of each node.
    #[arg(long, default_value_t = 1)]
    pub core_threads: u32,
    /// Decides when the zone is cut off.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// The program `kv-node`; KV_NODE_BIN, or the one beside this program, when absent.
    #[arg(long)]
    pub node_bin: Option<PathBuf>,
}

impl LeaderArgs {
    fn line(&self) -> String {
        let Self {
            delays_ms,
            cuts,
            shards,
            core_threads,
            seed,
            json: _,
            node_bin: _,
        } = self;
        let delays: Vec<String> = delays_ms.iter().map(u64::to_string).collect();
        format!(
            "kv-chaos leader --seed {seed} --delays-ms {} --cuts {cuts} --shards {shards} --core-threads {core_threads}",
            delays.join(",")
        )
    }

    fn time_max(&self) -> Duration {
        let cut = GOES_ON_WITHIN + LASTS + HOME_WITHIN;
        Duration::from_mins(2) + cut * self.cuts
    }
}

/// Runs the experiment: 0 the bars hold, 1 one does not, 2 it could not be made.
pub fn main(args: &LeaderArgs) -> ExitCode {
    let experiment = Experiment {
        name: "leader",
        command: args.line(),
        time_max: args.time_max(),
        json: args.json,
    };
    experiment.run(async |folder| Box::pin(measure(args, folder)).await)
}

async fn measure(args: &LeaderArgs, folder: &Path) -> Result<Report, String> {
    let zones = Zones::start(Start {
        folder,
        program: args.node_bin.clone(),
        core_threads: args.core_threads,
        delays_ms: three(&args.delays_ms)?,
    });
    let zones = zones.await?;
    let shards = args.shards.max(1);
    let policy = admin::Policy {
        mode: "sync".to_owned(),
        home: zones.name(HOME)?,
        ..admin::Policy::default()
    };
    Box::pin(zones.create(KEYSPACE, shards, policy)).await?;
    let mut rng = SmallRng::seed_from_u64(args.seed);
    let mut cuts = Vec::new();
    for number in 0..args.cuts.max(1) {
        leaders_home(&zones, shards).await?;
        tokio::time::sleep(Duration::from_millis(rng.random_range(REST_MS))).await;
        cuts.push(cut_off(&zones, number, shards).await?);
    }
    Ok(Report::of(ELECTION_TIMEOUT, &cuts))
}

/// One cut: both sides are asked, the links healed, and what was acknowledged looked for.
async fn cut_off(zones: &Zones, number: u32, shards: u32) -> Result<Cut, String> {
    let begun = Instant::now();
    zones.block(HOME).await?;
    let keys = (0..shards).map(|shard| key_of(shard, shards, &format!("cut-{number}")));
    let keys: Vec<String> = keys.collect();
    let minority = Minority::begin(zones.asker(HOME)?, &keys);
    let majority = Majority::new(zones);
    let went_on = majority.go_on(keys, (begun, GOES_ON_WITHIN)).await?;
    tokio::time::sleep(LASTS).await;
    let asked = minority.end().await?;
    zones.heal(HOME).await?;
    leaders_home(zones, shards).await?;
    let acknowledged: Vec<String> = went_on
        .iter()
        .filter_map(|shard| shard.acknowledged.clone())
        .collect();
    Ok(Cut {
        went_on: went_on.iter().map(|shard| shard.after).collect(),
        asked,
        lost: majority::missing(zones, &acknowledged).await,
    })
}

/// A key of a shard.
fn key_of(shard: u32, shards: u32, name: &str) -> String {
    let mut keys = (0_u32..).map(|n| format!("{name}-{n}"));
    keys.find(|key| shard_of(key.as_bytes(), shards) == shard)
        .unwrap_or_default()
}

/// Waits until the leaders of all shards are in their home zone, as every node believes.
async fn leaders_home(zones: &Zones, shards: u32) -> Result<(), String> {
    let until = Instant::now() + HOME_WITHIN;
    let home = zones.name(HOME)?;
    let nodes = zones.cluster.plan.nodes();
    let home: Vec<_> = nodes.into_iter().filter(|node| node.zone == home).collect();
    loop {
        let admin = zones.admin();
        let told =
            admin.each_node(|node| async move { node.topology(admin::TopologyRequest {}).await });
        let told = told.await;
        let at_home = told.iter().all(|(_, topology)| {
            let leaders = topology.iter().flat_map(|topology| &topology.leaders);
            let of_keyspace = leaders.filter(|leader| leader.keyspace == KEYSPACE);
            let at_home =
                of_keyspace.filter(|leader| home.iter().any(|node| node.name == leader.node));
            at_home.count() == usize::try_from(shards).unwrap_or(usize::MAX)
        });
        if at_home {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err("the leaders do not come home in time".to_owned());
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_has_a_key() {
        for shard in 0..8 {
            assert_eq!(shard_of(key_of(shard, 8, "cut-1").as_bytes(), 8), shard);
        }
    }
}
