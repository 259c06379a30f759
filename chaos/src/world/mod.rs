//! The simulated world: one event queue, N machines, a network, clients, a nemesis, and the checkers that watch.
//!
//! A run has two phases. *Safety*: load and faults, for the seconds asked for. *Liveness*: everything healed and
//! started, no new load; the world must settle within a bound, every zone must serve, and then the final state is held
//! against the history.
//!
//! What it is not: it holds no rule of the protocol; those are in `meridian_core` (what is done) and in `checkers`
//! (what was promised). Invariant: nothing in here depends on anything but the scenario.
//!
//! Read `events` for the loop, `clients` and `faults` for who disturbs it, `settle` and `holdings` for the end.

mod clients;
mod events;
mod faults;
mod holdings;
mod names;
mod operators;
mod outputs;
mod settle;
mod stages;
mod transactors;

use std::collections::BTreeMap;

use meridian_core::catalog::{Catalog, Keyspace};
use meridian_core::error::Error;
use meridian_core::ids::KeyspaceId;
use meridian_core::message::PeerMessage;
use meridian_core::output::{ReleasedRead, Stage};
use meridian_core::request::{Request, Response};
use meridian_core::{Input, Outputs};

use crate::checkers::Observer;
use crate::client::{Client, Keys};
use crate::history::{Action, History, level_name};
use crate::lineage::AlterCounts;
use crate::nemesis::{FaultKind, Nemesis};
use crate::network::Network;
use crate::node::SimNode;
use crate::operator::Errand;
use crate::queue::Queue;
use crate::rng::Streams;
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::transact::Transactor;
use crate::transact::judge::{Record, counts};
use crate::violation::{Checked, Violation};

/// What happens at some time.
#[derive(Debug)]
pub enum Event {
    /// A core's tick is due.
    Tick {
        /// The node.
        node: usize,
        /// The start of the node it belongs to.
        boot: u64,
    },
    /// A message arrives.
    Deliver {
        /// From node.
        from: usize,
        /// To node.
        to: usize,
        /// The message.
        message: Box<PeerMessage>,
    },
    /// A request of a client arrives.
    Arrive {
        /// At the node.
        node: usize,
        /// The client's attempt.
        id: u64,
        /// How long it is of use, in nanoseconds.
        patience_ns: u64,
        /// The request.
        request: Box<Request>,
    },
    /// A synced write is done.
    Written {
        /// The node.
        node: usize,
        /// The start of the node it belongs to.
        boot: u64,
        /// The core.
        core: usize,
    },
    /// A core wants a turn though nothing came in.
    Due {
        /// The node.
        node: usize,
        /// The start of the node it belongs to.
        boot: u64,
        /// The core.
        core: usize,
    },
    /// A released read is served from the engine.
    Serve {
        /// The node.
        node: usize,
        /// The start of the node it belongs to.
        boot: u64,
        /// The read.
        read: Box<ReleasedRead>,
    },
    /// An answer reaches a client.
    Answer {
        /// The attempt.
        id: u64,
        /// The answer.
        result: Box<Result<Response, Error>>,
    },
    /// A client begins its next operation, or its next attempt.
    Wake {
        /// The client.
        client: usize,
    },
    /// A transactional client begins its next transaction, or sends a request again.
    Transact {
        /// The client.
        client: usize,
    },
    /// A client's patience with an attempt ends.
    Silence {
        /// The attempt.
        id: u64,
    },
    /// The operator begins an errand, or tries it again.
    Operate {
        /// What it is about.
        errand: Errand,
        /// How often it was tried before.
        attempt: u32,
    },
    /// The nemesis strikes.
    Strike,
    /// A strike is over.
    Undo(faults::Undo),
    /// The phase of load and faults is over.
    Heal,
    /// Is it settled?
    Poll,
}

/// What a run did, for reports.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Events handled.
    pub events: u64,
    /// Messages delivered.
    pub messages: u64,
    /// Operations answered: took effect or was read.
    pub ok: u64,
    /// Operations surely without effect.
    pub fail: u64,
    /// Operations of unknown outcome.
    pub info: u64,
    /// Faults by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Transactions by outcome.
    pub transactions: BTreeMap<&'static str, u64>,
    /// Reads at levels, by level: how many were answered, and how many were not.
    pub levels: BTreeMap<&'static str, (u64, u64)>,
    /// Stages of transactions over several shards, and of views: how often come to, and how often a node died there.
    pub stages: BTreeMap<Stage, (u64, u64)>,
    /// Batches lost in crashes.
    pub batches_lost: u64,
    /// Comparisons begun.
    pub comparisons: u64,
    /// Group images installed.
    pub images: u64,
    /// Answers of mirrors that were judged.
    pub mirrored: u64,
    /// Generations of mirrors, each counted in each zone, of which answers were judged.
    pub generations: u64,
    /// What became of alters of the keyspace.
    pub alters: AlterCounts,
    /// Leaders that a group got.
    pub leaders: u64,
    /// Simulated nanoseconds, settling included.
    pub simulated_ns: u64,
    /// How long the world took to settle.
    pub settled_ns: u64,
}

/// A run under way.
#[derive(Debug)]
pub struct World {
    scenario: Scenario,
    queue: Queue<Event>,
    nodes: Vec<SimNode>,
    network: Network,
    clients: Vec<Client>,
    transactors: Vec<Transactor>,
    records: Vec<Record>,
    stage_rng: rand::rngs::SmallRng,
    keys: Keys,
    /// What shards are computed from: the keyspace `default` as the scenario has it.
    catalog: Catalog,
    nemesis: Nemesis,
    observer: Observer,
    history: History,
    trace: Trace,
    stats: Stats,
    out: Outputs,
    rng: rand::rngs::SmallRng,
    healing: bool,
    /// The nodes that lost their disks.
    wiped: Vec<usize>,
    /// What was found wrong with an answer, until the loop sees it.
    found_wrong: Checked,
    settle: settle::Settle,
    operator: operators::Operating,
}

/// A catalog that says how many shards there are, and nothing else.
fn shards_of(scenario: &Scenario) -> Catalog {
    let keyspace = Keyspace::new(
        KeyspaceId::DEFAULT,
        "default",
        scenario.shards,
        scenario.policy.clone(),
    );
    Catalog {
        keyspaces: BTreeMap::from([(KeyspaceId::DEFAULT, keyspace)]),
        ..Catalog::default()
    }
}

/// The end of a run.
#[derive(Debug)]
pub struct Finished {
    /// What it did.
    pub stats: Stats,
    /// What clients asked and were answered.
    pub history: History,
    /// The transactions of a run, in the order in which they ended.
    pub records: Vec<Record>,
    /// The first keyspace that was made of a mirror, if one was.
    pub promoted: Option<KeyspaceId>,
    /// What was broken, if anything.
    pub violation: Option<Box<Violation>>,
    /// The trace, to be flushed.
    pub trace: Trace,
}

impl World {
    /// The world of a scenario, before its first event.
    pub fn new(scenario: Scenario, trace: Trace) -> Self {
        let streams = Streams::new(scenario.seed);
        let topology = scenario.topology;
        let per_zone = scenario.workload.clients_per_zone;
        let client = |index: usize| {
            let rng = streams.stream("client", u64::try_from(index).unwrap_or(0));
            Client::new(
                index,
                index.checked_div(per_zone).unwrap_or(0),
                scenario.workload,
                rng,
            )
        };
        let transactors = scenario.workload.transactors_per_zone;
        let transactor = |index: usize| {
            let rng = streams.stream("transactor", u64::try_from(index).unwrap_or(0));
            let zone = index.checked_div(transactors).unwrap_or(0);
            let domain = if scenario.is_one_store() { 0 } else { zone };
            let think_ns = scenario.workload.transact_think_ns;
            Transactor::new(index, (zone, domain), think_ns, rng)
        };
        Self {
            queue: Queue::default(),
            nodes: (0..topology.nodes())
                .map(|node| SimNode::new(node, &scenario, streams))
                .collect(),
            network: Network::new(topology, scenario.network, streams),
            clients: (0..per_zone * usize::from(topology.zones))
                .map(client)
                .collect(),
            transactors: (0..transactors * usize::from(topology.zones))
                .map(transactor)
                .collect(),
            records: Vec::new(),
            stage_rng: streams.stream("stages", 0),
            keys: Keys::new(&scenario),
            catalog: shards_of(&scenario),
            nemesis: Nemesis::new(topology, scenario.faults, streams),
            observer: Observer::new(scenario.policy.clone()),
            history: History::default(),
            trace,
            stats: Stats::default(),
            out: Outputs::default(),
            rng: streams.stream("world", 0),
            healing: false,
            wiped: Vec::new(),
            found_wrong: Ok(()),
            settle: settle::Settle::default(),
            operator: operators::Operating::new(streams),
            scenario,
        }
    }

    /// Runs to the end, or to the first broken promise.
    pub fn run(mut self) -> Finished {
        let mut violation = self.run_to_end().err();
        self.stats.simulated_ns = self.queue.now();
        for operation in &self.history.operations {
            if let Action::Visit { level, .. } = &operation.action {
                let counted = self.stats.levels.entry(level_name(*level)).or_default();
                match operation.status() {
                    "ok" => counted.0 += 1,
                    _ => counted.1 += 1,
                }
            }
            match operation.status() {
                "ok" => self.stats.ok += 1,
                "fail" => self.stats.fail += 1,
                _ => self.stats.info += 1,
            }
        }
        self.stats.transactions = counts(&self.records);
        self.stats.alters = self.observer.lineage().counts();
        (self.stats.mirrored, self.stats.generations) = self.observer.mirrors_judged();
        if let Some(violation) = &mut violation {
            self.explain(violation);
        }
        Finished {
            stats: self.stats,
            history: self.history,
            records: self.records,
            promoted: self.observer.lineage().promoted(),
            violation,
            trace: self.trace,
        }
    }

    fn run_to_end(&mut self) -> Checked {
        self.begin()?;
        while !self.settle.done {
            let Some(event) = self.queue.pop() else {
                return Err(Violation::new(
                    "liveness",
                    self.queue.now(),
                    "nothing is left to happen".to_string(),
                ));
            };
            self.stats.events += 1;
            self.handle(event)?;
            std::mem::replace(&mut self.found_wrong, Ok(()))?;
        }
        Ok(())
    }

    /// What the world looked like when a promise was found broken.
    fn explain(&self, violation: &mut Violation) {
        let scenario = &self.scenario;
        violation.details.push(format!(
            "scenario: {} cores={} shards={} {:?} {:?}",
            scenario.topology, scenario.cores, scenario.shards, scenario.bounds, scenario.network
        ));
        for node in &self.nodes {
            violation.details.push(format!(
                "node {} zone {} up={} boot={} unsynced={}",
                node.id,
                node.zone,
                node.is_up(),
                node.boot,
                node.engine.unsynced()
            ));
        }
    }

    fn input(&mut self, node: usize, core: usize, input: Input) -> Checked {
        let free = self
            .nodes
            .get_mut(node)
            .is_some_and(|node| node.push(core, input));
        if free { self.drive(node, core) } else { Ok(()) }
    }
}
