//! The nemesis: which faults there are, when they strike, how long they last.
//!
//! It decides; the world acts. Each strike is drawn from a stream of its own, so that a seed's schedule stays the same
//! while the workload is changed. Everything it does is undone at its end at the latest when the safety phase is over.

use rand::rngs::SmallRng;

use crate::rng::{Draw, MS, SEC, Streams};
use crate::scenario::{FaultProfile, Topology};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// All links between two zones, both ways.
    CutZones,
    /// All links between two zones, one way.
    CutZonesOneWay,
    /// All links of a zone to the others.
    IsolateZone,
    /// The same for so long that outboxes pass their bound.
    LongBlock,
    /// All links of one node.
    IsolateNode,
    /// The link between two nodes of a zone, both ways.
    CutNodes,
    /// The same, one way.
    CutNodesOneWay,
    /// Much loss and repetition between two zones, or inside one.
    Disturb,
    /// One node loses power.
    Crash,
    /// All nodes of a zone lose power.
    CrashZone,
    /// All nodes lose power.
    CrashAll,
    /// A wall clock is set.
    ClockJump,
    /// A disk is ten to sixty times slower.
    SlowDisk,
    /// A disk's next write takes a second or more.
    StallDisk,
    /// A disk fails a write; the node stops and is started again.
    DiskError,
    /// One node loses its disk and comes back with an empty one; once in a run, and never in a zone of one node.
    Wipe,
    /// All nodes of a zone lose their disks; instead of [`FaultKind::Wipe`], and only where every write is in two zones.
    WipeZone,
    /// An operator asks for another policy of the keyspace; when, [`operator`](crate::operator) says.
    Alter,
    /// An operator gives up an alter or a promotion.
    CancelAlter,
    /// An operator has a mirror promoted; when, [`operator`](crate::operator) says.
    Promote,
}

impl FaultKind {
    /// Every kind, in the order in which they are counted.
    pub const ALL: [Self; 20] = [
        Self::CutZones,
        Self::CutZonesOneWay,
        Self::IsolateZone,
        Self::LongBlock,
        Self::IsolateNode,
        Self::CutNodes,
        Self::CutNodesOneWay,
        Self::Disturb,
        Self::Crash,
        Self::CrashZone,
        Self::CrashAll,
        Self::ClockJump,
        Self::SlowDisk,
        Self::StallDisk,
        Self::DiskError,
        Self::Wipe,
        Self::WipeZone,
        Self::Alter,
        Self::CancelAlter,
        Self::Promote,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CutZones => "cut-zones",
            Self::CutZonesOneWay => "cut-zones-one-way",
            Self::IsolateZone => "isolate-zone",
            Self::LongBlock => "long-block",
            Self::IsolateNode => "isolate-node",
            Self::CutNodes => "cut-nodes",
            Self::CutNodesOneWay => "cut-nodes-one-way",
            Self::Disturb => "disturb",
            Self::Crash => "crash",
            Self::CrashZone => "crash-zone",
            Self::CrashAll => "crash-all",
            Self::ClockJump => "clock-jump",
            Self::SlowDisk => "slow-disk",
            Self::StallDisk => "stall-disk",
            Self::DiskError => "disk-error",
            Self::Wipe => "wipe",
            Self::WipeZone => "wipe-zone",
            Self::Alter => "alter",
            Self::CancelAlter => "cancel-alter",
            Self::Promote => "promote",
        }
    }

    /// Whether the nemesis strikes with it in any scenario: the others are for scenarios that say so.
    pub fn is_struck(self) -> bool {
        !matches!(
            self,
            Self::WipeZone | Self::Alter | Self::CancelAlter | Self::Promote
        )
    }

    /// Whether it means anything in a world of that size.
    pub const fn suits(self, topology: Topology) -> bool {
        match self {
            Self::CutZones
            | Self::CutZonesOneWay
            | Self::IsolateZone
            | Self::LongBlock
            | Self::WipeZone
            | Self::Promote => topology.zones > 1,
            Self::IsolateNode | Self::CutNodes | Self::CutNodesOneWay | Self::Wipe => {
                topology.nodes_per_zone > 1
            }
            Self::Disturb
            | Self::Crash
            | Self::CrashZone
            | Self::CrashAll
            | Self::ClockJump
            | Self::SlowDisk
            | Self::StallDisk
            | Self::DiskError
            | Self::Alter
            | Self::CancelAlter => true,
        }
    }
}

/// What the world is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Cut these directed links for a time.
    Cut {
        /// From and to.
        links: Vec<(usize, usize)>,
        /// How long.
        for_ns: u64,
    },
    /// Make these directed links lose and repeat for a time.
    Disturb {
        /// From and to.
        links: Vec<(usize, usize)>,
        /// How long.
        for_ns: u64,
    },
    /// Take power from these nodes for a time.
    Crash {
        /// The nodes, each with the time it is down.
        nodes: Vec<(usize, u64)>,
    },
    /// Set the wall clock of a node.
    Jump {
        /// The node.
        node: usize,
        /// By how much at most, in milliseconds.
        most_ms: u64,
    },
    /// Make the disk of a node slower for a time.
    Slow {
        /// The node.
        node: usize,
        /// How many times slower.
        factor: u64,
        /// How long.
        for_ns: u64,
    },
    /// Make the next synced write of a node take this long.
    Stall {
        /// The node.
        node: usize,
        /// How long.
        for_ns: u64,
    },
    /// Fail the next write of a node.
    FailWrite {
        /// The node.
        node: usize,
    },
    /// Take power and disks from these nodes, each for a time.
    WipeZone {
        /// The nodes, each with the time it is down.
        nodes: Vec<(usize, u64)>,
    },
    /// Take power and disk from a node for a time.
    Wipe {
        /// The node.
        node: usize,
        /// How long it is down.
        down_ns: u64,
    },
}

/// Draws strikes.
#[derive(Debug)]
pub struct Nemesis {
    topology: Topology,
    profile: FaultProfile,
    rng: SmallRng,
}

impl Nemesis {
    /// The nemesis of a scenario.
    pub fn new(topology: Topology, profile: FaultProfile, streams: Streams) -> Self {
        Self {
            topology,
            profile,
            rng: streams.stream("nemesis", 0),
        }
    }

    /// When it strikes first.
    pub const fn first_at(&self) -> u64 {
        self.profile.start_ns
    }

    /// A strike, and how long until the next one. No strike when the seed knows no fault at all.
    pub fn strike(&mut self) -> (Option<(FaultKind, Act)>, u64) {
        // A stream per strike, so that one more draw inside a strike does not shift the strikes after it.
        let pause = self.rng.exponential(self.profile.interval_ns) + 100 * MS;
        let mut rng = Streams::new(self.rng.between(0, u64::MAX)).stream("strike", 0);
        let act = self
            .draw_kind(&mut rng)
            .map(|kind| (kind, self.draw_act(kind, &mut rng)));
        (act, pause)
    }

    fn draw_kind(&self, rng: &mut SmallRng) -> Option<FaultKind> {
        let total: u64 = self.profile.weights.iter().copied().map(u64::from).sum();
        let mut drawn = rng.between(0, total);
        for (kind, weight) in FaultKind::ALL.into_iter().zip(self.profile.weights) {
            let weight = u64::from(weight);
            if drawn < weight && kind.suits(self.topology) {
                return Some(kind);
            }
            drawn = drawn.saturating_sub(weight);
        }
        None
    }

    fn draw_act(&self, kind: FaultKind, rng: &mut SmallRng) -> Act {
        let nodes = self.topology.nodes();
        let node = rng.index(nodes);
        let (a, b) = two_of(rng, usize::from(self.topology.zones));
        let short = rng.between(300, 12_000) * MS;
        match kind {
            FaultKind::CutZones => Act::Cut {
                links: both_ways(self.between_zones(a, b)),
                for_ns: short,
            },
            FaultKind::CutZonesOneWay => Act::Cut {
                links: self.between_zones(a, b),
                for_ns: short,
            },
            FaultKind::IsolateZone => Act::Cut {
                links: both_ways(self.out_of_zone(a)),
                for_ns: short,
            },
            FaultKind::LongBlock => Act::Cut {
                links: both_ways(self.out_of_zone(a)),
                for_ns: rng.between(12, 30) * SEC,
            },
            FaultKind::IsolateNode => Act::Cut {
                links: both_ways(self.out_of_node(node)),
                for_ns: short,
            },
            FaultKind::CutNodes => Act::Cut {
                links: both_ways(self.pair_in_zone(rng)),
                for_ns: short,
            },
            FaultKind::CutNodesOneWay => Act::Cut {
                links: self.pair_in_zone(rng),
                for_ns: short,
            },
            FaultKind::Disturb => Act::Disturb {
                links: both_ways(self.between_zones(a, b)),
                for_ns: short,
            },
            FaultKind::Crash => Act::Crash {
                nodes: vec![(node, down_ns(rng))],
            },
            FaultKind::CrashZone => Act::Crash {
                nodes: crash_of(self.topology.nodes_of(a), rng),
            },
            FaultKind::CrashAll => Act::Crash {
                nodes: crash_of(0..nodes, rng),
            },
            FaultKind::ClockJump => Act::Jump {
                node,
                most_ms: self.profile.jump_ms_max,
            },
            FaultKind::SlowDisk => Act::Slow {
                node,
                factor: rng.between(10, 60),
                for_ns: short,
            },
            FaultKind::StallDisk => Act::Stall {
                node,
                for_ns: rng.between(500, 4000) * MS,
            },
            FaultKind::DiskError => Act::FailWrite { node },
            FaultKind::Wipe => Act::Wipe {
                node,
                down_ns: down_ns(rng),
            },
            FaultKind::WipeZone => Act::WipeZone {
                nodes: crash_of(self.topology.nodes_of(a), rng),
            },
            // The operator's, which is asked for apart.
            FaultKind::Alter | FaultKind::CancelAlter | FaultKind::Promote => nothing(),
        }
    }

    /// All links of a zone to the others are cut for a time.
    pub fn isolation(&self, zone: usize, for_ns: u64) -> Act {
        Act::Cut {
            links: both_ways(self.out_of_zone(zone)),
            for_ns,
        }
    }

    /// From every node of `a` to every node of `b`; inside the zone when both are one.
    fn between_zones(&self, a: usize, b: usize) -> Vec<(usize, usize)> {
        let from = self.topology.nodes_of(a);
        from.flat_map(|x| self.topology.nodes_of(b).map(move |y| (x, y)))
            .filter(|(x, y)| x != y)
            .collect()
    }

    fn out_of_zone(&self, zone: usize) -> Vec<(usize, usize)> {
        let others = (0..usize::from(self.topology.zones)).filter(|other| *other != zone);
        others
            .flat_map(|other| self.between_zones(zone, other))
            .collect()
    }

    fn out_of_node(&self, node: usize) -> Vec<(usize, usize)> {
        (0..self.topology.nodes())
            .filter(|other| *other != node)
            .map(|other| (node, other))
            .collect()
    }

    fn pair_in_zone(&self, rng: &mut SmallRng) -> Vec<(usize, usize)> {
        let zone = rng.index(usize::from(self.topology.zones));
        let (a, b) = two_of(rng, usize::from(self.topology.nodes_per_zone));
        let start = self.topology.nodes_of(zone).start;
        vec![(start + a, start + b)]
    }
}

/// What an operator does is not drawn here.
const fn nothing() -> Act {
    Act::Crash { nodes: Vec::new() }
}

/// Two different numbers below `count`, or twice 0 when there is one only.
fn two_of(rng: &mut SmallRng, count: usize) -> (usize, usize) {
    let a = rng.index(count);
    let b = rng.index(count.saturating_sub(1));
    if count < 2 {
        (0, 0)
    } else {
        (a, if b >= a { b + 1 } else { b })
    }
}

fn both_ways(mut links: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    let back: Vec<(usize, usize)> = links.iter().map(|(a, b)| (*b, *a)).collect();
    links.extend(back);
    links.sort_unstable();
    links.dedup();
    links
}

fn crash_of(nodes: std::ops::Range<usize>, rng: &mut SmallRng) -> Vec<(usize, u64)> {
    nodes
        .map(|node| (node, rng.between(20, 3_000) * MS))
        .collect()
}

/// Mostly a quick restart, sometimes long enough for the others to go on without it.
fn down_ns(rng: &mut SmallRng) -> u64 {
    if rng.chance(0.5) {
        rng.between(20, 500) * MS
    } else {
        rng.between(500, 7_000) * MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Options, Scenario};
    use meridian_core::catalog::Mode;
    use meridian_core::config::PlantedBugs;

    fn nemesis(seed: u64, topology: Topology) -> Nemesis {
        nemesis_of(seed, topology, Mode::Async)
    }

    fn nemesis_of(seed: u64, topology: Topology, mode: Mode) -> Nemesis {
        let options = Options {
            seed,
            seconds: 60,
            topology: Some(topology),
            mode,
            alters: crate::scenario::Alters::Never,
            planted: PlantedBugs::default(),
        };
        Nemesis::new(
            topology,
            Scenario::draw(&options).faults,
            Streams::new(seed),
        )
    }

    #[test]
    fn a_seed_draws_the_same_strikes_twice() {
        let mut first = nemesis(3, Topology::THREE_BY_THREE);
        let mut again = nemesis(3, Topology::THREE_BY_THREE);
        for _ in 0..50 {
            assert_eq!(first.strike(), again.strike());
        }
    }

    #[test]
    fn every_kind_is_drawn_somewhere() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let mut nemesis = nemesis_of(seed, Topology::THREE_BY_THREE, Mode::Sync);
            seen.extend(
                (0..100)
                    .filter_map(|_| nemesis.strike().0)
                    .map(|(kind, _)| kind),
            );
        }
        let struck = FaultKind::ALL
            .into_iter()
            .filter(|kind| kind.is_struck() || *kind == FaultKind::WipeZone);
        assert_eq!(seen.len(), struck.count());
    }

    #[test]
    fn no_zone_is_wiped_where_it_may_hold_the_only_copy() {
        for seed in 0..40 {
            let mut nemesis = nemesis(seed, Topology::THREE_BY_THREE);
            let kinds = (0..100).filter_map(|_| nemesis.strike().0);
            assert!(
                kinds
                    .into_iter()
                    .all(|(kind, _)| kind != FaultKind::WipeZone)
            );
        }
    }

    #[test]
    fn an_isolated_zone_keeps_its_links_inside() {
        let nemesis = nemesis(1, Topology::THREE_BY_THREE);
        let links = both_ways(nemesis.out_of_zone(1));
        assert!(links.contains(&(3, 0)) && links.contains(&(8, 5)));
        assert!(!links.contains(&(3, 4)) && !links.contains(&(0, 8)));
    }

    #[test]
    fn a_world_of_one_zone_knows_no_cut_between_zones() {
        let mut nemesis = nemesis(2, Topology::ONE_BY_THREE);
        for (kind, _) in (0..200).filter_map(|_| nemesis.strike().0) {
            assert!(kind.suits(Topology::ONE_BY_THREE), "{kind:?}");
        }
    }
}
