//! What a seed stands for: the size of the world, how bad its network, disks and clocks are, which faults it knows.
//!
//! Everything here is drawn before the first event, from a stream of its own. Seeds differ in kind, not only in timing:
//! each knows a subset of the faults and some of the bounds, so that rare machinery (comparisons, group images,
//! eviction) is at work in many seeds and absent in many others.

use meridian_causal::ZoneId;
use meridian_core::catalog::{Ack, Mode, OnZoneLoss, Policy};
use meridian_core::config::{Bounds, PlantedBugs};
use rand::rngs::SmallRng;

use crate::nemesis::FaultKind;
use crate::rng::{Draw, MS, SEC, Streams};

/// Zones and nodes per zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Number of zones.
    pub zones: u16,
    /// Nodes in each zone.
    pub nodes_per_zone: u16,
}

impl Topology {
    /// Three zones of one node.
    pub const THREE_BY_ONE: Self = Self {
        zones: 3,
        nodes_per_zone: 1,
    };
    /// Three zones of three nodes.
    pub const THREE_BY_THREE: Self = Self {
        zones: 3,
        nodes_per_zone: 3,
    };
    /// One zone of three nodes.
    pub const ONE_BY_THREE: Self = Self {
        zones: 1,
        nodes_per_zone: 3,
    };

    /// This one, or where the mode needs several zones and it has one, three zones.
    pub fn for_mode(self, mode: Mode) -> Self {
        match mode {
            Mode::Sync | Mode::Snapshot if self.zones == 1 => Self::THREE_BY_ONE,
            Mode::Async | Mode::Sync | Mode::Snapshot => self,
        }
    }

    /// Nodes altogether.
    pub fn nodes(self) -> usize {
        usize::from(self.zones) * usize::from(self.nodes_per_zone)
    }

    /// The zone (from 0) of a node (from 0).
    pub fn zone_of(self, node: usize) -> usize {
        node.checked_div(usize::from(self.nodes_per_zone))
            .unwrap_or(0)
    }

    /// The nodes (from 0) of a zone (from 0).
    pub fn nodes_of(self, zone: usize) -> std::ops::Range<usize> {
        let size = usize::from(self.nodes_per_zone);
        zone * size..(zone + 1) * size
    }
}

impl std::fmt::Display for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.zones, self.nodes_per_zone)
    }
}

impl std::str::FromStr for Topology {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "3x1" => Ok(Self::THREE_BY_ONE),
            "3x3" => Ok(Self::THREE_BY_THREE),
            "1x3" => Ok(Self::ONE_BY_THREE),
            other => Err(format!("topology {other:?} is none of 3x1, 3x3, 1x3")),
        }
    }
}

/// What the caller fixes; the seed draws the rest.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Simulated seconds of load and faults.
    pub seconds: u64,
    /// The size of the world; the seed picks when absent.
    pub topology: Option<Topology>,
    /// How the keyspace is replicated.
    pub mode: Mode,
    /// Whether the keyspace is altered in the run.
    pub alters: Alters,
    /// Bugs planted in every core.
    pub planted: PlantedBugs,
}

/// Whether the keyspace is altered in a run, and mirrors are promoted where it has any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alters {
    /// The seed says.
    #[default]
    BySeed,
    /// It is.
    Always,
    /// It stays as it is.
    Never,
}

impl Alters {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BySeed => "by-seed",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

impl std::str::FromStr for Alters {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::BySeed, Self::Always, Self::Never];
        let found = all.into_iter().find(|one| one.name() == text);
        found.ok_or_else(|| format!("{text:?} is none of by-seed, always, never"))
    }
}

/// Share of seeds in which an operator alters the keyspace; and, of those with mirrors, in which one is promoted.
const ALTERED_SHARE: f64 = 0.3;

/// How the network behaves between faults.
#[derive(Clone, Copy, Debug)]
pub struct NetworkProfile {
    /// Share of messages lost.
    pub loss: f64,
    /// Share of messages that arrive twice.
    pub duplication: f64,
    /// Share of messages that may overtake others of their link.
    pub reordering: f64,
    /// Largest jitter, in thousandths of the base delay.
    pub jitter_permille: u64,
}

/// How disks behave between faults.
#[derive(Clone, Copy, Debug)]
pub struct DiskProfile {
    /// Least time of a synced write.
    pub sync_ns_min: u64,
    /// Most time of a synced write.
    pub sync_ns_max: u64,
    /// Chance that a synced write stalls.
    pub stall: f64,
    /// Longest stall.
    pub stall_ns_max: u64,
}

/// How clients behave.
#[derive(Clone, Copy, Debug)]
pub struct WorkloadProfile {
    /// Clients in each zone.
    pub clients_per_zone: usize,
    /// Mean pause between two operations of a client.
    pub think_ns: u64,
    /// How long a client waits for one attempt.
    pub attempt_ns: u64,
    /// How long a client goes on retrying one operation.
    pub operation_ns: u64,
    /// Keys that all clients fight for.
    pub hot_keys: usize,
    /// Keys met rarely.
    pub wide_keys: usize,
    /// Registers of each zone.
    pub register_keys: usize,
    /// Keys whose versions may expire; none in most runs.
    pub ttl_keys: usize,
    /// Length of values, in bytes.
    pub value_bytes: usize,
    /// Clients in each zone that run transactions.
    pub transactors_per_zone: usize,
    /// Mean pause between two transactions of such a client.
    pub transact_think_ns: u64,
}

/// Which faults the nemesis knows, and how often it strikes.
#[derive(Clone, Copy, Debug)]
pub struct FaultProfile {
    /// Mean time between two faults.
    pub interval_ns: u64,
    /// No fault before.
    pub start_ns: u64,
    /// Weight of each kind, in the order of [`FaultKind::ALL`](crate::nemesis::FaultKind::ALL).
    pub weights: [u32; crate::nemesis::FaultKind::ALL.len()],
    /// Largest difference of a wall clock from the truth at the start, in milliseconds.
    pub skew_ms_max: u64,
    /// Largest drift of a clock, in millionths.
    pub drift_ppm_max: u64,
    /// Furthest a wall clock is set in one go, in milliseconds.
    pub jump_ms_max: u64,
    /// Chance that a node dies when it comes to a stage of a transaction.
    pub stage_crash: f64,
}

/// All that a seed stands for.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// The size of the world.
    pub topology: Topology,
    /// Cores of each node.
    pub cores: u32,
    /// Shards of the default keyspace.
    pub shards: u16,
    /// End of the phase of load and faults.
    pub duration_ns: u64,
    /// How long the world may take to settle once everything is healed.
    pub settle_ns: u64,
    /// The network.
    pub network: NetworkProfile,
    /// The disks.
    pub disk: DiskProfile,
    /// The clients.
    pub workload: WorkloadProfile,
    /// The faults.
    pub faults: FaultProfile,
    /// Bounds of the cores.
    pub bounds: Bounds,
    /// Bugs planted in every core.
    pub planted: PlantedBugs,
    /// How the keyspace is replicated at first.
    pub policy: Policy,
    /// How often an operator asks for another policy.
    pub alters: u32,
    /// How often an operator has a mirror promoted.
    pub promotions: u32,
}

impl Scenario {
    /// Whether all zones are one store, all the time: then all clients share the keys that belong to a zone otherwise.
    pub fn is_one_store(&self) -> bool {
        self.policy.mode == Mode::Sync && self.alters == 0
    }

    /// What `options.seed` stands for.
    pub fn draw(options: &Options) -> Self {
        let streams = Streams::new(options.seed);
        let mut rng = streams.stream("scenario", 0);
        let drawn = draw_topology(&mut rng).for_mode(options.mode);
        let topology = options.topology.unwrap_or(drawn);
        let bounds = draw_bounds(&mut streams.stream("scenario.bounds", 0));
        let mut faults = draw_faults(&mut streams.stream("scenario.faults", 0), topology);
        if bounds.op_id_age_ms < Bounds::default().op_id_age_ms
            || bounds.op_ids_max < Bounds::default().op_ids_max
        {
            // Op ids are forgotten by their stamps: clocks that differ by more than the little that is remembered here
            // would make fresh operations look forgotten.
            faults.skew_ms_max = faults.skew_ms_max.min(300);
            faults.jump_ms_max = faults.jump_ms_max.min(800);
        }
        let mut workload = draw_workload(&mut streams.stream("scenario.workload", 0), topology);
        let mut settle_ns = 60 * SEC;
        let mut expiry = streams.stream("scenario.expiry", 0);
        if expiry.chance(0.2) {
            workload.ttl_keys = expiry.index(7) + 3;
            // The world is settled when the slowest clock has passed every expiry.
            faults.skew_ms_max = faults.skew_ms_max.min(300);
            faults.jump_ms_max = faults.jump_ms_max.min(800);
            settle_ns = 120 * SEC;
        }
        let mut rng_sync = streams.stream("scenario.sync", 0);
        let policy = match options.mode {
            Mode::Sync => draw_sync(&mut rng_sync, topology, &mut faults),
            Mode::Snapshot => draw_snapshot(&mut streams.stream("scenario.policy", 0)),
            Mode::Async => Policy::default(),
        };
        Self {
            seed: options.seed,
            topology,
            cores: draw_cores(&mut streams.stream("scenario.cores", 0)),
            shards: u16::try_from(rng.between(2, 5)).unwrap_or(2),
            duration_ns: options.seconds.saturating_mul(SEC),
            settle_ns,
            network: draw_network(&mut streams.stream("scenario.network", 0)),
            disk: draw_disk(&mut streams.stream("scenario.disk", 0)),
            workload,
            faults,
            bounds,
            planted: options.planted,
            policy,
            alters: draw_alters(options.alters, &mut streams.stream("scenario.alters", 0)),
            promotions: match options.mode {
                Mode::Snapshot if topology.zones > 1 => draw_alters(
                    options.alters,
                    &mut streams.stream("scenario.promotions", 0),
                ),
                Mode::Snapshot | Mode::Sync | Mode::Async => 0,
            },
        }
    }
}

/// The home of a snapshot keyspace is the first zone; cuts are frequent, so that runs see many.
fn draw_snapshot(rng: &mut SmallRng) -> Policy {
    Policy {
        mode: Mode::Snapshot,
        home: Some(ZoneId(1)),
        interval_ms: rng.between(100, 2_500),
        ..Policy::default()
    }
}

/// Some sync keyspaces wait for all zones, some of them degrade; some have a home; in some runs a zone's disks are lost.
fn draw_sync(rng: &mut SmallRng, topology: Topology, faults: &mut FaultProfile) -> Policy {
    if rng.chance(0.4) {
        for (weight, kind) in faults.weights.iter_mut().zip(FaultKind::ALL) {
            if kind == FaultKind::WipeZone {
                *weight = 3;
            }
        }
    }
    let all = rng.chance(0.35);
    let degrade = rng.chance(0.5);
    let home = rng.between(1, u64::from(topology.zones) + 1);
    let has_home = rng.chance(0.3);
    Policy {
        mode: Mode::Sync,
        ack: if all { Ack::All } else { Ack::Majority },
        on_zone_loss: if all && degrade {
            OnZoneLoss::Degrade
        } else {
            OnZoneLoss::Refuse
        },
        home: u16::try_from(home).ok().filter(|_| has_home).map(ZoneId),
        ..Policy::default()
    }
}

/// One to three alters, or none.
fn draw_alters(wanted: Alters, rng: &mut SmallRng) -> u32 {
    let (knows, times) = (rng.chance(ALTERED_SHARE), rng.between(1, 4));
    let knows = match wanted {
        Alters::BySeed => knows,
        Alters::Always => true,
        Alters::Never => false,
    };
    u32::try_from(times).map_or(0, |times| if knows { times } else { 0 })
}

fn draw_topology(rng: &mut SmallRng) -> Topology {
    match rng.between(0, 10) {
        0..=4 => Topology::THREE_BY_ONE,
        5..=8 => Topology::THREE_BY_THREE,
        _ => Topology::ONE_BY_THREE,
    }
}

fn draw_cores(rng: &mut SmallRng) -> u32 {
    if rng.chance(0.2) { 2 } else { 1 }
}

fn draw_network(rng: &mut SmallRng) -> NetworkProfile {
    let bad = rng.chance(0.5);
    let share = |rng: &mut SmallRng, permille: u64| {
        if bad {
            f64::from(u32::try_from(rng.between(0, permille)).unwrap_or(0)) / 1000.0
        } else {
            0.0
        }
    };
    NetworkProfile {
        loss: share(rng, 20),
        duplication: share(rng, 20),
        reordering: share(rng, 100),
        jitter_permille: rng.between(0, 400),
    }
}

fn draw_disk(rng: &mut SmallRng) -> DiskProfile {
    let slow = rng.chance(0.3);
    DiskProfile {
        sync_ns_min: 100_000,
        sync_ns_max: if slow { 5 * MS } else { 700_000 },
        stall: if rng.chance(0.3) { 0.001 } else { 0.0 },
        stall_ns_max: 400 * MS,
    }
}

fn draw_workload(rng: &mut SmallRng, topology: Topology) -> WorkloadProfile {
    let clients_per_zone = match (topology.zones, topology.nodes_per_zone) {
        (1, _) => 12,
        (_, 1) => 4,
        (_, _) => 3,
    };
    WorkloadProfile {
        clients_per_zone,
        think_ns: rng.between(75, 105) * MS,
        attempt_ns: rng.between(400, 1200) * MS,
        operation_ns: rng.between(2, 6) * SEC,
        hot_keys: rng.index(10) + 4,
        wide_keys: rng.index(200) + 50,
        register_keys: 2,
        ttl_keys: 0,
        value_bytes: if rng.chance(0.2) { 400 } else { 24 },
        transactors_per_zone: if topology.zones == 1 { 6 } else { 3 },
        transact_think_ns: rng.between(150, 700) * MS,
    }
}

fn draw_faults(rng: &mut SmallRng, topology: Topology) -> FaultProfile {
    let mut weights = [0; crate::nemesis::FaultKind::ALL.len()];
    for (weight, kind) in weights.iter_mut().zip(crate::nemesis::FaultKind::ALL) {
        let wanted = kind.is_struck() && kind.suits(topology) && rng.chance(0.7);
        *weight = if wanted {
            u32::try_from(rng.between(1, 5)).unwrap_or(1)
        } else {
            0
        };
    }
    FaultProfile {
        interval_ns: rng.between(2000, 6000) * MS,
        // A cluster is founded by all of its nodes together: faults before that cost a run most of its load.
        start_ns: if rng.chance(0.04) { 0 } else { 3 * SEC },
        weights,
        skew_ms_max: if rng.chance(0.2) { 20_000 } else { 300 },
        drift_ppm_max: 200,
        jump_ms_max: if rng.chance(0.3) { 30_000 } else { 800 },
        stage_crash: if rng.chance(0.5) { 0.01 } else { 0.0 },
    }
}

fn draw_bounds(rng: &mut SmallRng) -> Bounds {
    // At rest, an outbox is empty. Of the records some are in memory and some are not.
    let mut bounds = Bounds {
        watch_bytes: 0,
        record_cache_bytes: 16 << 10,
        ..Bounds::default()
    };
    if rng.chance(0.4) {
        bounds.outbox_bytes_max = rng.between(2_000, 20_000);
    }
    if rng.chance(0.5) {
        bounds.log_entries_max = rng.between(16, 200);
    }
    if rng.chance(0.2) {
        bounds.log_bytes_max = rng.between(10_000, 60_000);
    }
    // A client retries for 6 s at most; what is remembered reaches further back than that, at any rate of writes here.
    if rng.chance(0.25) {
        bounds.op_ids_max = rng.between(1_000, 3_000);
    }
    if rng.chance(0.25) {
        bounds.op_id_age_ms = rng.between(20_000, 40_000);
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(seed: u64, topology: Option<Topology>) -> Options {
        Options {
            seed,
            seconds: 60,
            topology,
            mode: Mode::Async,
            alters: Alters::BySeed,
            planted: PlantedBugs::default(),
        }
    }

    #[test]
    fn seeds_reach_every_topology() {
        for wanted in [
            Topology::THREE_BY_ONE,
            Topology::THREE_BY_THREE,
            Topology::ONE_BY_THREE,
        ] {
            assert!(
                (0..100).any(|seed| Scenario::draw(&options(seed, None)).topology == wanted),
                "{wanted}"
            );
        }
    }

    #[test]
    fn a_topology_that_is_asked_for_overrides_the_seed_and_leaves_the_bounds() {
        let drawn = Scenario::draw(&options(5, None));
        let asked = Scenario::draw(&options(5, Some(Topology::ONE_BY_THREE)));
        assert_eq!(asked.topology, Topology::ONE_BY_THREE);
        assert_eq!(asked.bounds, drawn.bounds);
    }

    #[test]
    fn an_unknown_topology_is_named_in_the_error() {
        assert!("5x5".parse::<Topology>().unwrap_err().contains("5x5"));
    }

    #[test]
    fn nodes_are_numbered_zone_by_zone() {
        let topology = Topology::THREE_BY_THREE;
        assert_eq!(topology.nodes(), 9);
        assert_eq!(topology.zone_of(5), 1);
        assert_eq!(topology.nodes_of(2), 6..9);
    }
}
