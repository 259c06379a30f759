//! A simulated machine: an engine in memory, clocks, and one or two cores driven by the loop of `meridian_core`.
//!
//! While a synced write is under way a core handles nothing: its inputs wait, as they do in the shell. A crash may fall
//! before the write, after it, or keep any part of what was written since the last sync; the engine survives, the
//! cores do not.
//!
//! What a core has applied in a synced turn counts for checkers once that is written: what a crash undoes never was, and its
//! place in the log may go to something else. What it keeps was, though the core never said so (`take_kept`).

use std::sync::Arc;

use meridian_causal::ZoneId;
use meridian_core::catalog::Catalog;
use meridian_core::config::{ClusterSeed, CoreConfig, NodeSeed, Timing, ZoneSeed};
use meridian_core::ids::NodeId;
use meridian_core::output::Observation;
use meridian_core::{Core, Input, Now, Outputs, Turn};
use meridian_storage::{Durability, Engine, MemoryEngine, StorageError};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::clock::NodeClock;
use crate::rng::{Draw, Streams};
use crate::scenario::{DiskProfile, Scenario, Topology};

/// What a core wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until the next input.
    Idle,
    /// To go on at once.
    Again,
    /// To be called again when its write is done, after this many nanoseconds.
    Write(u64),
    /// To be stopped: its store failed.
    Stop,
}

/// One core and what waits for it.
struct Slot {
    core: Core,
    inbox: Vec<Input>,
    writing: Option<Writing>,
    turning: bool,
    /// It will be driven at the time at which its core wants that.
    wakes: bool,
}

/// A turn that is being written.
struct Writing {
    turn: Turn,
    /// What the core has applied in it.
    applied: Vec<Observation>,
}

/// A batch of which the core never heard that it is written.
struct Unsure {
    /// It is kept by a crash that keeps so many batches.
    place: usize,
    applied: Vec<Observation>,
}

/// A machine of the simulated world.
pub struct SimNode {
    /// Its id in the cluster.
    pub id: NodeId,
    /// Its zone.
    pub zone: ZoneId,
    /// Its disk; survives crashes.
    pub engine: Arc<MemoryEngine>,
    /// Its clocks.
    pub clock: NodeClock,
    /// Counts its starts: an event meant for an earlier start is void.
    pub boot: u64,
    /// Its disk is this many times slower than it should be.
    pub slow: u64,
    /// Its next synced write takes this much longer.
    pub stall_ns: u64,
    config: CoreConfig,
    slots: Vec<Slot>,
    unsure: Vec<Unsure>,
    /// What the disk held on to of that when the power went.
    kept: Vec<Observation>,
    disk: DiskProfile,
    disk_rng: SmallRng,
    crash_rng: SmallRng,
    entropy_rng: SmallRng,
}

/// The cluster file of a topology.
pub fn cluster_seed(topology: Topology) -> ClusterSeed {
    let zones = (1..=topology.zones).map(|zone| ZoneSeed {
        id: ZoneId(zone),
        name: format!("zone-{zone}"),
    });
    let nodes = (0..topology.nodes()).map(|node| NodeSeed {
        id: node_id(node),
        name: format!("n{}", node + 1),
        zone: zone_id(topology.zone_of(node)),
        addr: format!("n{}:1", node + 1),
        peer_addr: format!("n{}:2", node + 1),
    });
    ClusterSeed {
        cluster: "simulated".to_string(),
        zones: zones.collect(),
        nodes: nodes.collect(),
    }
}

/// The id of the node at a position.
pub fn node_id(node: usize) -> NodeId {
    NodeId(u64::try_from(node).unwrap_or(u64::MAX).saturating_add(1))
}

/// The position of a node id.
pub fn node_index(id: NodeId) -> usize {
    usize::try_from(id.0.saturating_sub(1)).unwrap_or(usize::MAX)
}

/// The id of the zone at a position.
pub fn zone_id(zone: usize) -> ZoneId {
    ZoneId(u16::try_from(zone + 1).unwrap_or(u16::MAX))
}

impl SimNode {
    /// A machine with an empty disk, not started yet.
    pub fn new(node: usize, scenario: &Scenario, streams: Streams) -> Self {
        let index = u64::try_from(node).unwrap_or(0);
        let id = node_id(node);
        let config = CoreConfig {
            node: id,
            seed: cluster_seed(scenario.topology),
            core_index: 0,
            core_count: scenario.cores,
            entropy: [0; 32],
            default_shards: scenario.shards,
            default_policy: scenario.policy.clone(),
            timing: Timing::default(),
            bounds: scenario.bounds,
            observe: true,
            planted: scenario.planted,
        };
        Self {
            id,
            zone: zone_id(scenario.topology.zone_of(node)),
            engine: Arc::new(MemoryEngine::new()),
            clock: NodeClock::new(&scenario.faults, streams.stream("clock", index)),
            boot: 0,
            slow: 1,
            stall_ns: 0,
            config,
            slots: Vec::new(),
            unsure: Vec::new(),
            kept: Vec::new(),
            disk: scenario.disk,
            disk_rng: streams.stream("disk", index),
            crash_rng: streams.stream("crash", index),
            entropy_rng: streams.stream("entropy", index),
        }
    }

    /// Whether it runs.
    pub const fn is_up(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Number of its cores while it runs.
    pub const fn cores(&self) -> usize {
        self.slots.len()
    }

    /// The catalog it has while it runs.
    pub fn catalog(&self) -> Option<Arc<Catalog>> {
        self.slots.first().map(|slot| slot.core.catalog())
    }

    /// How often its cores want a tick, in nanoseconds.
    pub const fn tick_ns(&self) -> u64 {
        self.config.timing.tick_ms * crate::rng::MS
    }

    /// Starts the machine on whatever its disk holds.
    pub fn start(&mut self, virtual_ns: u64) -> Result<(), String> {
        self.boot += 1;
        self.clock.reboot(virtual_ns);
        let now = self.clock.now(virtual_ns);
        for core_index in 0..self.config.core_count {
            let mut config = CoreConfig {
                core_index,
                ..self.config.clone()
            };
            self.entropy_rng.fill(&mut config.entropy);
            let engine: Arc<dyn Engine> = self.engine.clone();
            let core = Core::open(config, engine, now).map_err(|error| format!("{error:?}"))?;
            self.slots.push(Slot {
                core,
                inbox: Vec::new(),
                writing: None,
                turning: false,
                wakes: false,
            });
        }
        Ok(())
    }

    /// The power goes. Gives the number of batches that were lost.
    pub fn crash(&mut self) -> usize {
        for slot in std::mem::take(&mut self.slots) {
            let reaches_disk = self.crash_rng.chance(0.5);
            if let Some(Writing { turn, applied }) = slot.writing.filter(|_| reaches_disk) {
                // The core never hears of it; only what is on the disk counts. A failure would be a crash too.
                let before = self.engine.unsynced();
                drop(self.engine.write(&turn.batch, Durability::Buffered));
                self.is_unsure(before, applied);
            }
        }
        let unsynced = self.engine.unsynced();
        let keep = match self.crash_rng.between(0, 4) {
            0 => 0,
            1 => unsynced,
            _ => self.crash_rng.index(unsynced + 1),
        };
        let kept = if self.crash_rng.chance(0.2) {
            self.engine.crash_torn(keep);
            keep.saturating_sub(1)
        } else {
            self.engine.crash(keep);
            keep
        };
        let unsure = std::mem::take(&mut self.unsure).into_iter();
        let on_disk = unsure.filter(|batch| batch.place <= kept);
        self.kept.extend(on_disk.flat_map(|batch| batch.applied));
        unsynced - keep
    }

    /// A batch was given to the engine that had so many not synced, and the core will not hear whether it is written.
    fn is_unsure(&mut self, before: usize, applied: Vec<Observation>) {
        let place = self.engine.unsynced();
        if place > before {
            self.unsure.push(Unsure { place, applied });
        }
    }

    /// What the cores of the last start had applied and written without knowing it.
    pub fn take_kept(&mut self) -> Vec<Observation> {
        std::mem::take(&mut self.kept)
    }

    /// The disk is replaced by an empty one.
    pub fn wipe(&mut self) {
        self.engine = Arc::new(MemoryEngine::new());
        self.kept.clear();
    }

    /// The next write fails with an unknown outcome.
    pub fn fail_next_write(&self) {
        self.engine.fail_next_write(StorageError::Io {
            detail: "injected".to_string(),
        });
    }

    /// Hands an input to a core; true when the core is free to take it at once.
    pub fn push(&mut self, core: usize, input: Input) -> bool {
        let Some(slot) = self.slots.get_mut(core) else {
            return false;
        };
        slot.inbox.push(input);
        slot.writing.is_none()
    }

    /// How long until an idle core wants to be driven although nothing comes in; told once.
    pub fn wake_after_ns(&mut self, core: usize, virtual_ns: u64) -> Option<u64> {
        let now = self.clock.now(virtual_ns);
        let idle = |slot: &&mut Slot| !slot.wakes && slot.writing.is_none();
        let slot = self.slots.get_mut(core).filter(idle)?;
        let at_ns = slot.core.wakes_at_ns()?;
        slot.wakes = true;
        Some(at_ns.saturating_sub(now.mono_ns).max(1))
    }

    /// That time has come.
    pub fn wakes(&mut self, core: usize) {
        if let Some(slot) = self.slots.get_mut(core) {
            slot.wakes = false;
        }
    }

    /// One round of a core's loop: the inputs at hand, or one turn.
    pub fn advance(&mut self, core: usize, virtual_ns: u64, out: &mut Outputs) -> Next {
        let now = self.clock.now(virtual_ns);
        let Some(slot) = self.slots.get_mut(core) else {
            return Next::Idle;
        };
        if slot.writing.is_some() {
            return Next::Idle;
        }
        if !slot.turning {
            for input in slot.inbox.drain(..) {
                slot.core.step(now, input, out);
            }
            slot.turning = true;
        }
        let before = out.observations.len();
        let Some(turn) = slot.core.turn(now, out) else {
            slot.turning = false;
            return if slot.inbox.is_empty() {
                Next::Idle
            } else {
                Next::Again
            };
        };
        match turn.durability {
            Durability::Synced => {
                let seen = out.observations.split_off(before);
                let (stages, applied) = seen.into_iter().partition(is_stage);
                out.observations.extend::<Vec<_>>(stages);
                slot.writing = Some(Writing { turn, applied });
                Next::Write(self.sync_ns())
            }
            Durability::Buffered => self.write(core, now, (turn, Vec::new()), out),
        }
    }

    /// The synced write of a core is done.
    pub fn written(&mut self, core: usize, virtual_ns: u64, out: &mut Outputs) -> Next {
        let now = self.clock.now(virtual_ns);
        let Some(Writing { turn, applied }) = self
            .slots
            .get_mut(core)
            .and_then(|slot| slot.writing.take())
        else {
            return Next::Idle;
        };
        self.write(core, now, (turn, applied), out)
    }

    fn write(
        &mut self,
        core: usize,
        now: Now,
        (turn, applied): (Turn, Vec<Observation>),
        out: &mut Outputs,
    ) -> Next {
        let before = self.engine.unsynced();
        let written = self.engine.write(&turn.batch, turn.durability);
        let Some(slot) = self.slots.get_mut(core) else {
            return Next::Idle;
        };
        if written.is_err() {
            slot.core.failed(now, out);
            self.is_unsure(before, applied);
            return Next::Stop;
        }
        out.observations.extend(applied);
        slot.core.wrote(now, out);
        Next::Again
    }

    fn sync_ns(&mut self) -> u64 {
        let mut sync = self
            .disk_rng
            .between(self.disk.sync_ns_min, self.disk.sync_ns_max)
            * self.slow;
        if self.disk_rng.chance(self.disk.stall) {
            sync += self.disk_rng.between(0, self.disk.stall_ns_max);
        }
        sync + std::mem::take(&mut self.stall_ns)
    }
}

/// Stages are dying points, not facts.
const fn is_stage(observation: &Observation) -> bool {
    matches!(observation, Observation::Stage { .. })
}

impl std::fmt::Debug for SimNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimNode")
            .field("id", &self.id)
            .field("boot", &self.boot)
            .field("up", &self.is_up())
            .finish()
    }
}
