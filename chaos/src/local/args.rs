//! What `kv-chaos local` is asked to do, and the line that asks for the same again.

use std::path::PathBuf;

use clap::Args;

use super::plan::Shape;

/// Kills real processes under load, and checks that no acknowledged write is lost.
#[derive(Clone, Debug, Args)]
pub struct LocalArgs {
    /// Decides which node is killed when; the rest is up to the machine.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Zones and nodes of each: 3x1, 3x3, 1x3.
    #[arg(long, default_value = "3x1")]
    pub cluster: Shape,
    /// How often a node is killed.
    #[arg(long, default_value_t = 20)]
    pub kills: u32,
    /// Longest time between a restart and the next kill, in milliseconds; at least half of it passes.
    #[arg(long, default_value_t = 4000)]
    pub every_ms: u64,
    /// Writers in each zone.
    #[arg(long, default_value_t = 16)]
    pub writers: u32,
    /// Nodes keep their data on a file system that forgets at the kill what was not synced.
    #[arg(long)]
    pub lossy: bool,
    /// The file system says that files are synced and forgets them all the same: the run must find lost writes. Shows
    /// that the experiment can fail.
    #[arg(long, requires = "lossy")]
    pub deaf: bool,
    /// Core threads of each node.
    #[arg(long, default_value_t = 1)]
    pub core_threads: u32,
    /// The program `kv-node`; KV_NODE_BIN, or the one beside this program, when absent.
    #[arg(long)]
    pub node_bin: Option<PathBuf>,
    /// Keep the logs of the nodes below this folder.
    #[arg(long)]
    pub keep: Option<PathBuf>,
}

impl LocalArgs {
    /// The line that repeats the run.
    pub fn line(&self) -> String {
        let Self {
            seed,
            cluster,
            kills,
            every_ms,
            writers,
            lossy,
            deaf,
            core_threads,
            node_bin: _,
            keep: _,
        } = self;
        let lossy = if *lossy { " --lossy" } else { "" };
        let deaf = if *deaf { " --deaf" } else { "" };
        format!(
            "kv-chaos local --seed {seed} --cluster {cluster} --kills {kills} --every-ms {every_ms} --writers {writers} \
             --core-threads {core_threads}{lossy}{deaf}"
        )
    }
}
