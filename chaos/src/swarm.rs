//! Many seeds on many threads. Each run is single-threaded and shares nothing; only which seed comes next is agreed on.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use meridian_core::output::Stage;

use crate::nemesis::FaultKind;
use crate::rng::SEC;
use crate::run::{Report, run};
use crate::scenario::Options;
use crate::trace::Trace;
use crate::world::Stats;

/// When a swarm ends.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// No seed is begun after this much wall time.
    pub time: Option<Duration>,
    /// Seeds at most.
    pub seeds: Option<u64>,
    /// Runs at one time.
    pub jobs: usize,
    /// No seed is begun after a failure.
    pub stop_at_failure: bool,
}

/// What a swarm did.
#[derive(Debug, Default)]
pub struct Totals {
    /// Seeds run.
    pub seeds: u64,
    /// Seeds per topology.
    pub topologies: BTreeMap<String, u64>,
    /// Sums over all seeds.
    pub stats: Stats,
    /// Processor time spent on runs, over all threads; wall time where the system does not tell.
    pub busy: Duration,
    /// Least operations answered per simulated second of load in any seed.
    pub slowest_ops: Option<(u64, u64)>,
    /// Failed runs: their reproducing lines and messages.
    pub failures: Vec<(String, String)>,
}

/// Runs seeds from `first.seed` on; `progress` is told after each.
pub fn swarm(first: Options, bounds: Bounds, progress: &(dyn Fn(&Totals) + Sync)) -> Totals {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let stopped = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    thread::scope(|scope| {
        for _ in 0..bounds.jobs.max(1) {
            scope.spawn(|| {
                while bounds.time.is_none_or(|time| begun.elapsed() < time)
                    && !stopped.load(Ordering::Relaxed)
                {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if bounds.seeds.is_some_and(|seeds| number >= seeds) {
                        break;
                    }
                    let options = Options {
                        seed: first.seed.wrapping_add(number),
                        ..first
                    };
                    let started = (Instant::now(), cpu_time());
                    let report = run(options, Trace::default());
                    let wall = started.0.elapsed();
                    let took = cpu_time()
                        .zip(started.1)
                        .map_or(wall, |(now, then)| now.saturating_sub(then));
                    if bounds.stop_at_failure && report.violation.is_some() {
                        stopped.store(true, Ordering::Relaxed);
                    }
                    let mut totals = totals
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    totals.add(&report, took);
                    progress(&totals);
                }
            });
        }
    });
    totals
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Processor time of this thread, so that a busy machine does not count as a slow simulator.
fn cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = stat.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

impl Totals {
    fn add(&mut self, report: &Report, took: Duration) {
        self.seeds += 1;
        self.busy += took;
        *self
            .topologies
            .entry(report.topology.to_string())
            .or_default() += 1;
        self.stats.add(&report.stats);
        let rate = report
            .stats
            .ok
            .checked_div(report.options.seconds)
            .unwrap_or(0);
        if report.violation.is_none() {
            let slowest = self.slowest_ops.unwrap_or((u64::MAX, 0));
            self.slowest_ops = Some(slowest.min((rate, report.options.seed)));
        }
        if let (Some(line), Some(violation)) = (report.line(), &report.violation) {
            self.failures.push((line, violation.message.clone()));
        }
    }

    /// Simulated seconds per second of processor time.
    pub fn speed(&self) -> f64 {
        let simulated = Duration::from_nanos(self.stats.simulated_ns).as_secs_f64();
        simulated / self.busy.as_secs_f64().max(1e-9)
    }
}

impl Stats {
    /// Adds another run's figures.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.messages += other.messages;
        self.ok += other.ok;
        self.fail += other.fail;
        self.info += other.info;
        self.batches_lost += other.batches_lost;
        self.comparisons += other.comparisons;
        self.images += other.images;
        self.mirrored += other.mirrored;
        self.generations += other.generations;
        self.leaders += other.leaders;
        self.alters.begun += other.alters.begun;
        self.alters.moved += other.alters.moved;
        self.alters.promoted += other.alters.promoted;
        self.alters.cancelled += other.alters.cancelled;
        self.alters.given_up += other.alters.given_up;
        self.simulated_ns += other.simulated_ns;
        self.settled_ns = self.settled_ns.max(other.settled_ns);
        for (name, count) in &other.transactions {
            *self.transactions.entry(name).or_default() += count;
        }
        for (level, (answered, not)) in &other.levels {
            let sum = self.levels.entry(level).or_default();
            sum.0 += answered;
            sum.1 += not;
        }
        for (stage, (seen, died)) in &other.stages {
            let sum = self.stages.entry(*stage).or_default();
            sum.0 += seen;
            sum.1 += died;
        }
        for (kind, count) in &other.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
    }

    fn transactions_line(&self) -> String {
        let counts = self.transactions.iter();
        let counts: Vec<String> = counts
            .map(|(name, count)| format!("{name}={count}"))
            .collect();
        format!("transactions: {}", counts.join(" "))
    }

    /// Reads at levels: answered, and in brackets not answered.
    fn levels_line(&self) -> String {
        let levels = self.levels.iter();
        let levels = levels.map(|(name, (answered, not))| format!("{name}={answered}({not})"));
        format!("levels: {}", levels.collect::<Vec<_>>().join(" "))
    }

    /// Stages come to, and in brackets how often a node died there.
    fn stages_line(&self) -> String {
        let stages = Stage::ALL.iter().map(|stage| {
            let (seen, died) = self.stages.get(stage).copied().unwrap_or_default();
            format!("{stage:?}={seen}({died})")
        });
        format!("stages: {}", stages.collect::<Vec<_>>().join(" "))
    }

    fn alters_line(&self) -> String {
        let alters = &self.alters;
        format!(
            "alters: begun={} moved={} promoted={} cancelled={} rounds-given-up={}",
            alters.begun, alters.moved, alters.promoted, alters.cancelled, alters.given_up
        )
    }

    /// The figures in a few lines.
    pub fn lines(&self) -> Vec<String> {
        let seconds = self.simulated_ns / SEC;
        let per_second = self.ok.checked_div(seconds).unwrap_or(0);
        let faults = FaultKind::ALL
            .iter()
            .filter_map(|kind| Some(format!("{}={}", kind.name(), self.faults.get(kind)?)));
        vec![
            format!(
                "ops: ok={} fail={} info={} ({per_second} answered per simulated second)",
                self.ok, self.fail, self.info
            ),
            format!("faults: {}", faults.collect::<Vec<_>>().join(" ")),
            self.transactions_line(),
            self.levels_line(),
            self.stages_line(),
            self.alters_line(),
            format!(
                "events={} messages={} leaders={} comparisons={} images={} mirrored={} generations={} batches-lost={} simulated={seconds}s \
                 longest-settling={}ms",
                self.events,
                self.messages,
                self.leaders,
                self.comparisons,
                self.images,
                self.mirrored,
                self.generations,
                self.batches_lost,
                self.settled_ns / crate::rng::MS
            ),
        ]
    }
}
