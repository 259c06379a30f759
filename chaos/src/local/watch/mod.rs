//! A watcher that must be shown every change once and in order, while the nodes that lead are killed.
//!
//! One zone of three nodes. Writers number the values of each key; a watcher, which is dropped in the middle of a batch
//! and begun again many times, checks the numbers as they come; the node that leads a shard is killed and restarted as
//! often as asked.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool reports on standard output"
)]

mod load;
mod sequence;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use meridian_client::proto::admin::v1 as wire;
use meridian_client::{Client, Revision, Watch, WatchQuery};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::cluster::{Cluster, Setting};
use super::ends::Ends;
use super::plan::{Node, Shape};
use load::{Progress, Written};
use sequence::Sequence;

const SHAPE: Shape = Shape {
    zones: 1,
    nodes_per_zone: 3,
};
/// Deadline of a writer's operation, retries included: a change of leader fits in.
const WRITE_TIME_MAX: Duration = Duration::from_secs(15);
const CALL_TIME_MAX: Duration = Duration::from_secs(5);
/// Another node must lead within this time.
const LEADER_TIME_MAX: Duration = Duration::from_secs(30);
/// The watcher gets on at least this often.
const STALL_TIME_MAX: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);
/// Of what is wrong, so many lines are shown.
const SHOWN_MAX: usize = 20;
const PREFIX: &str = "watched-";

/// Shows a million changes to a watcher through changes of leaders, and checks their exact sequence.
#[derive(Clone, Debug, Args)]
pub struct WatchArgs {
    /// Writes that must be acknowledged.
    #[arg(long, default_value_t = 1_000_000)]
    changes: u64,
    /// How often a node that leads is killed.
    #[arg(long, default_value_t = 20)]
    leader_changes: u64,
    /// How often the watcher is dropped in the middle of a batch, to go on from its last revision.
    #[arg(long, default_value_t = 40)]
    drops: u64,
    /// Writers, each with one write in flight.
    #[arg(long, default_value_t = 128)]
    writers: u32,
    /// Core threads of each node.
    #[arg(long, default_value_t = 1)]
    core_threads: u32,
    /// The program `kv-node`; KV_NODE_BIN, or the one beside this program, when absent.
    #[arg(long)]
    node_bin: Option<PathBuf>,
}

/// Runs the experiment: 0 the sequence was exact, 1 it was not, 2 it could not be made.
pub fn main(args: &WatchArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(experiment(args)),
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(wrong) if wrong.is_empty() => {
            println!("exact: every acknowledged write was shown once, in order");
            ExitCode::SUCCESS
        }
        Ok(wrong) => {
            println!("VIOLATION: {} findings", wrong.len());
            let shown = wrong.iter().take(SHOWN_MAX);
            shown.for_each(|finding| println!("  {finding}"));
            ExitCode::FAILURE
        }
        Err(why) => {
            println!("error: {why}");
            ExitCode::from(2)
        }
    }
}

async fn experiment(args: &WatchArgs) -> Result<Vec<String>, String> {
    let folder = tempfile::Builder::new()
        .prefix("kv-chaos-watch-")
        .tempdir()
        .map_err(|error| error.to_string())?;
    let mut ends = Ends::new().map_err(|error| error.to_string())?;
    tokio::select! {
        outcome = experiment_in(args, folder.path()) => outcome,
        () = ends.any() => Err("interrupted".to_owned()),
    }
}

async fn experiment_in(args: &WatchArgs, folder: &Path) -> Result<Vec<String>, String> {
    let mut cluster = Cluster::create(&Setting {
        shape: SHAPE,
        program: args.node_bin.clone(),
        folder: folder.to_owned(),
        core_threads: args.core_threads,
        first_subnet: std::process::id().to_le_bytes()[0],
    })?;
    cluster.start_all().await?;
    let zone = cluster.plan.zones().into_iter().next().unwrap_or_default();
    let client = cluster.client(&zone, WRITE_TIME_MAX).await;
    let client = client.map_err(|error| error.to_string())?;
    let begun = Instant::now();
    let (finished, end) = watch::channel(None);
    let watcher = Watcher::begin(client.clone(), args, end).await?;
    let watching = tokio::spawn(watcher.run());
    let progress = Progress::new(args.changes);
    let writers = start_writers(args.writers, &client, &progress);
    let changes = change_leaders(&mut cluster, args, &progress).await?;
    let written = join(writers).await?;
    println!(
        "{} writes acknowledged in {:.0} s through {changes} changes of leaders",
        progress.acknowledged(),
        begun.elapsed().as_secs_f64()
    );
    finished.send_replace(Some(written));
    let (wrong, told) = watching.await.map_err(|error| error.to_string())?;
    println!("{told} after {:.0} s", begun.elapsed().as_secs_f64());
    Ok(wrong)
}

fn start_writers(
    count: u32,
    client: &Client,
    progress: &Arc<Progress>,
) -> Vec<JoinHandle<Vec<Written>>> {
    let writer = |number: u32| {
        let write = load::write(number.to_string(), client.clone(), Arc::clone(progress));
        tokio::spawn(write)
    };
    (1..=count).map(writer).collect()
}

async fn join(writers: Vec<JoinHandle<Vec<Written>>>) -> Result<Vec<Written>, String> {
    let mut written = Vec::new();
    for writer in writers {
        written.extend(writer.await.map_err(|error| error.to_string())?);
    }
    Ok(written)
}

/// Kills the leader of a shard after equal shares of the writes, and waits each time until another node leads it.
async fn change_leaders(
    cluster: &mut Cluster,
    args: &WatchArgs,
    progress: &Progress,
) -> Result<u64, String> {
    let nodes = cluster.plan.nodes();
    let zone = nodes
        .first()
        .map(|node| node.zone.clone())
        .unwrap_or_default();
    for number in 1..=args.leader_changes {
        let due = args.changes.saturating_mul(number) / (args.leader_changes + 1);
        while progress.acknowledged() < due {
            tokio::time::sleep(POLL).await;
        }
        // Asked anew: the client of the writers has its own beliefs.
        let client = cluster.client(&zone, CALL_TIME_MAX).await;
        let client = client.map_err(|error| error.to_string())?;
        let shard = u32::try_from(number % 4).unwrap_or(0);
        let leader = leader(&client, shard, None).await?;
        let Some(node) = nodes.iter().find(|node| node.name == leader) else {
            return Err(format!("{leader} leads and is not of the cluster"));
        };
        let next = replace(cluster, &client, shard, node).await?;
        println!(
            "change {number} at {} writes: shard {shard} from {leader} to {next}",
            progress.acknowledged()
        );
    }
    Ok(args.leader_changes)
}

async fn replace(
    cluster: &mut Cluster,
    client: &Client,
    shard: u32,
    node: &Node,
) -> Result<String, String> {
    cluster.kill(&node.name)?;
    let next = leader(client, shard, Some(&node.name)).await?;
    cluster.start(node).await?;
    Ok(next)
}

/// The leader of a shard, other than `former`, as soon as there is one.
async fn leader(client: &Client, shard: u32, former: Option<&str>) -> Result<String, String> {
    let until = Instant::now() + LEADER_TIME_MAX;
    while Instant::now() < until {
        let call = |node: meridian_client::NodeAdmin| async move {
            node.topology(wire::TopologyRequest {}).await
        };
        let answers = client.admin().each_node(call).await;
        let hints = answers
            .into_iter()
            .filter_map(|(_, topology)| topology.ok())
            .flat_map(|topology| topology.leaders);
        let newest = hints
            .filter(|hint| {
                hint.keyspace == meridian_client::DEFAULT_KEYSPACE && hint.shard == shard
            })
            .max_by_key(|hint| hint.term);
        if let Some(hint) = newest.filter(|hint| Some(hint.node.as_str()) != former) {
            return Ok(hint.node);
        }
        tokio::time::sleep(POLL).await;
    }
    Err(format!("nobody leads shard {shard} in time"))
}

/// The watcher.
struct Watcher {
    client: Client,
    watch: Watch,
    sequence: Sequence,
    /// What was written, once all of it is.
    end: watch::Receiver<Option<Vec<Written>>>,
    /// The watch is dropped after so many changes.
    drop_every: u64,
    drops: u64,
    /// Who showed the last batch.
    by: String,
    moves: u64,
}

impl Watcher {
    /// Begins to watch, and waits until it has begun.
    async fn begin(
        client: Client,
        args: &WatchArgs,
        end: watch::Receiver<Option<Vec<Written>>>,
    ) -> Result<Self, String> {
        let mut watch = client.watch(WatchQuery::prefix(PREFIX));
        let first = watch.next_batch().await;
        let first = first.map_err(|error| error.to_string())?;
        Ok(Self {
            client,
            watch,
            sequence: Sequence::default(),
            end,
            drop_every: (args.changes / args.drops.saturating_add(1)).max(1),
            drops: 0,
            by: first.served_by.node,
            moves: 0,
        })
    }

    /// Watches until all that was acknowledged was shown. What is wrong, and a line of what was seen.
    async fn run(mut self) -> (Vec<String>, String) {
        let mut wrong = Vec::new();
        while wrong.is_empty() && !self.is_done() {
            if let Err(finding) = self.step().await {
                wrong.push(finding);
            }
        }
        wrong.extend(self.sequence.missing());
        wrong.extend(self.sequence.invented());
        let (acknowledged, unknown) = self.sequence.written();
        let told = format!(
            "{} changes shown of {acknowledged} acknowledged and {unknown} of unknown outcome; \
             the watch was dropped {} times and went to another node {} times",
            self.sequence.seen(),
            self.drops,
            self.moves
        );
        (wrong, told)
    }

    fn is_done(&mut self) -> bool {
        if self.end.has_changed().unwrap_or(true)
            && let Some(written) = self.end.borrow_and_update().as_ref()
        {
            for (key, acknowledged, unknown) in written {
                self.sequence.wrote(key, *acknowledged, *unknown);
            }
        }
        let all_written = self.end.borrow().is_some();
        all_written && self.sequence.missing().is_empty()
    }

    async fn step(&mut self) -> Result<(), String> {
        let batch = tokio::select! {
            batch = self.watch.next_batch() => batch.map_err(|error| format!("the watch failed: {error}"))?,
            // All is written: look whether all of it was shown.
            Ok(()) = self.end.changed() => {
                self.end.mark_changed();
                return Ok(());
            }
            () = tokio::time::sleep(STALL_TIME_MAX) => return Err("nothing was shown for long".to_owned()),
        };
        if batch.served_by.node != self.by {
            self.by = batch.served_by.node;
            self.moves += 1;
        }
        for event in batch.events {
            let key = String::from_utf8_lossy(&event.key);
            let value = event.value.unwrap_or_default();
            let number = String::from_utf8_lossy(&value).parse::<u64>();
            let number =
                number.map_err(|error| format!("{key}: {value:?} is no number: {error}"))?;
            self.sequence.see(&key, number)?;
            if self.sequence.seen().is_multiple_of(self.drop_every) {
                self.go_on_after(event.revision);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Forgets the rest of the batch: it must come again.
    fn go_on_after(&mut self, revision: Revision) {
        self.drops += 1;
        let query = WatchQuery::prefix(PREFIX).after(revision);
        self.watch = self.client.watch(query);
    }
}
