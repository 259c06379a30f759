//! What a core is told when it is opened.

use meridian_causal::ZoneId;
use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::policy::Policy;

/// A zone as the cluster file names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneSeed {
    /// 1-based position in the cluster file, stable for the life of the cluster.
    pub id: ZoneId,
    /// Its name, unique.
    pub name: String,
}

/// A node as the cluster file names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSeed {
    /// Unique in the cluster, 1 to 2^32-1.
    pub id: NodeId,
    /// Its name, unique.
    pub name: String,
    /// The zone it stands in.
    pub zone: ZoneId,
    /// Where clients and operators reach it, `host:port`.
    pub addr: String,
    /// Where other nodes reach it, `host:port`.
    pub peer_addr: String,
}

/// The cluster file: it seeds the first start; afterwards the control group's catalog rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSeed {
    /// The cluster's name.
    pub cluster: String,
    /// Its zones.
    pub zones: Vec<ZoneSeed>,
    /// Its nodes.
    pub nodes: Vec<NodeSeed>,
}

/// Timing of a core, in milliseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often the driver sends [`Input::Tick`](crate::Input); one Raft tick.
    pub tick_ms: u64,
    /// Ticks between heartbeats of a data group.
    pub heartbeat_ticks: usize,
    /// Least number of ticks without a leader before an election in a data group.
    pub election_ticks: usize,
    /// The control group spans zones: its timeouts are these many times longer.
    pub control_factor: usize,
    /// How often a receiver repeats its exchange subscription when nothing arrives.
    pub exchange_interval_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            tick_ms: 50,
            heartbeat_ticks: 2,
            election_ticks: 10,
            control_factor: 2,
            exchange_interval_ms: 100,
        }
    }
}

/// Bounds of a core that an operator or an experiment may set; the rest stand in [`crate::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of effects a shard keeps for zones that have not received them; past it a zone catches up by comparing.
    pub outbox_bytes_max: u64,
    /// Bytes of the newest effects a shard keeps for watchers that resume, also when all zones have them; past it they
    /// are told that the past is gone.
    pub watch_bytes: u64,
    /// Bytes of Raft log a group keeps for followers that lag; past it they get a group image.
    pub log_bytes_max: u64,
    /// Entries of Raft log a group keeps.
    pub log_entries_max: u64,
    /// Op ids remembered per shard.
    pub op_ids_max: u64,
    /// How long an op id is remembered, in milliseconds.
    pub op_id_age_ms: u64,
    /// Bytes of records that a core keeps in memory, so that a key that is written often is not looked for on the disk.
    pub record_cache_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            outbox_bytes_max: 256 << 20,
            watch_bytes: 16 << 20,
            log_bytes_max: 8 << 20,
            log_entries_max: 4096,
            op_ids_max: 1_000_000,
            op_id_age_ms: 3_600_000,
            record_cache_bytes: 64 << 20,
        }
    }
}

/// Bugs that experiments plant on purpose, to see their checker catch them. Empty in every shipped configuration; the
/// shell has no way to set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each bug is there or not, whatever the others"
)]
pub struct PlantedBugs {
    /// A merge keeps only the newest sibling.
    pub lose_sibling_in_merge: bool,
    /// Replies leave before the batch they depend on is durable.
    pub reply_before_durable: bool,
    /// Op ids are forgotten at a restart.
    pub forget_op_ids_at_restart: bool,
    /// A transaction's ranges are not compared when it commits.
    pub skip_range_validation: bool,
    /// Participants are told of a decision before it is durable.
    pub decide_before_durable: bool,
    /// Locks of prepared transactions are forgotten at a restart.
    pub forget_locks_at_restart: bool,
    /// A reader takes no notice of a prepared key.
    pub read_through_prepared: bool,
    /// Reads of a session do not heed its token in shard 0.
    pub session_ignores_a_shard: bool,
    /// A replica's age does not count the last of the other zones.
    pub age_ignores_a_zone: bool,
    /// The leader of a group that spans zones commits what is durable in its own.
    pub commit_in_one_zone: bool,
    /// A mirror's pointer flips before the last shard is there.
    pub mirror_swap_early: bool,
    /// A deposed home zone that is back goes on as home: its nodes serve its groups, which are not sealed.
    pub deposed_home_serves: bool,
    /// A group that takes over in an alter says that it has everything without looking at the last writes of the old groups.
    pub move_before_final: bool,
    /// An old group serves on as soon as it has told its last write, though the round of sealing goes on.
    pub unseal_in_round: bool,
}

/// What one core is told when it is opened.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// The node this core belongs to.
    pub node: NodeId,
    /// The cluster file.
    pub seed: ClusterSeed,
    /// Which of the node's cores this is; core 0 also runs the control group and admission.
    pub core_index: u32,
    /// How many cores the node has; a shard lives on core `shard % core_count`.
    pub core_count: u32,
    /// Unpredictable bytes: the only source of chance in the core, of its token keys, incarnations and timeouts.
    pub entropy: [u8; 32],
    /// Shards of a keyspace that does not say.
    pub default_shards: u16,
    /// How the keyspace `default` is replicated in a cluster that is founded: async in every shipped configuration; the
    /// simulator runs its workloads on the other modes by it.
    pub default_policy: Policy,
    /// Timing.
    pub timing: Timing,
    /// Bounds.
    pub bounds: Bounds,
    /// Emit [`Observation`](crate::output::Observation)s for checkers.
    pub observe: bool,
    /// Bugs planted by an experiment.
    pub planted: PlantedBugs,
}
