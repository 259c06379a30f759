//! `kv-chaos`: one seed, or a swarm of them.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool reports on standard output"
)]

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand, ValueEnum};
use meridian_chaos::histories::judge::Workload;
use meridian_chaos::histories::report::check_file;
use meridian_chaos::histories::simulated;
use meridian_chaos::run::{Report, run};
use meridian_chaos::scenario::{Alters, Options, Topology};
use meridian_chaos::swarm::{Bounds, Totals, swarm};
use meridian_chaos::trace::Trace;
use meridian_core::catalog::Mode;
use meridian_core::config::PlantedBugs;

/// A run is mostly small allocations; this one gives a quarter more simulated seconds per second than the system's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The simulated world of Meridian.
#[derive(Debug, Parser)]
#[command(name = "kv-chaos", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one seed.
    Sim(Sim),
    /// Run seeds one after another, on all processors.
    Swarm(Swarm),
    /// Kill real processes under load.
    #[cfg(feature = "local")]
    Local(meridian_chaos::local::LocalArgs),
    /// Put load on a live cluster, write its history, and judge it.
    #[cfg(feature = "local")]
    Drive(meridian_chaos::drive::DriveArgs),
    /// Move money on a cluster of real processes that are killed.
    #[cfg(feature = "local")]
    Bank(meridian_chaos::local::BankArgs),
    /// Judge a history.
    Check(Check),
    /// Let processes contend for a lease, pause some that hold it, and judge who acted under which token.
    #[cfg(feature = "local")]
    Locks(meridian_chaos::local::locks::LocksArgs),
    /// One of the processes that contend.
    #[cfg(feature = "local")]
    #[command(hide = true)]
    Contend(meridian_chaos::local::locks::ContendArgs),
    /// Measure what each mode of a keyspace promises, with slow links and a zone cut off and lost.
    #[cfg(feature = "local")]
    Modes(meridian_chaos::local::modes::ModesArgs),
    /// Measure how long writes take between zones under half of the maximal load.
    #[cfg(feature = "local")]
    Lag(meridian_chaos::local::lag::LagArgs),
    /// Block a zone under load, heal it, and measure how the backlog drains.
    #[cfg(feature = "local")]
    Drain(meridian_chaos::local::drain::DrainArgs),
    /// Cut the leaders' zone of a sync keyspace off, and measure when the others go on.
    #[cfg(feature = "local")]
    Leader(meridian_chaos::local::leader::LeaderArgs),
    /// Kill a mirror while it receives, and read whether it ever shows a mixed cut.
    #[cfg(feature = "local")]
    Mirrors(meridian_chaos::local::mirrors::MirrorsArgs),
    /// Show changes to a watcher while leaders are killed.
    #[cfg(feature = "local")]
    Watch(meridian_chaos::local::watch::WatchArgs),
}

#[derive(Debug, Args)]
struct Check {
    /// What clients did: register, append, rw, bank or set; told from the history when absent.
    #[arg(long)]
    workload: Option<Workload>,
    /// The history.
    file: PathBuf,
}

#[derive(Debug, Args)]
struct Common {
    /// Simulated seconds of load and faults.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The size of the world: 3x1, 3x3 or 1x3; the seed picks when absent.
    #[arg(long)]
    topology: Option<Topology>,
    /// How the keyspace is replicated: async, sync or snapshot.
    #[arg(long, default_value = "async", value_parser = mode)]
    mode: Mode,
    /// Whether an operator alters the keyspace in a run: by-seed, always or never.
    #[arg(long, default_value = "by-seed")]
    alters: Alters,
    /// Plant a bug that the checkers must find.
    #[arg(long)]
    plant: Option<Plant>,
}

#[derive(Debug, Args)]
struct Sim {
    /// The seed.
    #[arg(long)]
    seed: u64,
    #[command(flatten)]
    common: Common,
    /// Write the history of one workload: registers as lines of JSON, transactions as EDN.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Which one: register, append or rw.
    #[arg(long, requires = "history", default_value = "register")]
    workload: Workload,
    /// Write everything that clients asked and were answered, as lines of JSON.
    #[arg(long)]
    operations: Option<PathBuf>,
    /// Write every event.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Spell messages out in the trace.
    #[arg(long, requires = "trace")]
    whole: bool,
}

#[derive(Debug, Args)]
struct Swarm {
    /// Begin no seed after this many minutes of wall time.
    #[arg(long, required_unless_present = "seeds")]
    minutes: Option<f64>,
    /// Run this many seeds.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Runs at one time; one per processor when absent.
    #[arg(long)]
    jobs: Option<usize>,
    /// Stop at the first failure.
    #[arg(long)]
    first: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Plant {
    /// A merge keeps only the newest sibling.
    LoseSibling,
    /// Replies leave before the batch they depend on is durable.
    AckBeforeDurable,
    /// Op ids are forgotten at a restart.
    ForgetOpIds,
    /// A transaction's ranges are not compared when it commits.
    SkipRangeValidation,
    /// Participants are told of a decision before it is durable.
    DecideBeforeDurable,
    /// Locks of prepared transactions are forgotten at a restart.
    ForgetLocks,
    /// A reader takes no notice of a prepared key.
    ReadThroughPrepared,
    /// Reads of a session do not heed its token in one shard.
    SessionIgnoresAShard,
    /// The age of a replica does not count one of the other zones.
    AgeIgnoresAZone,
    /// The leader of a sync group commits what is durable in its own zone.
    CommitInOneZone,
    /// A mirror's pointer flips before the last shard is there.
    MirrorSwapEarly,
    /// A deposed home zone that is back goes on as home.
    DeposedHomeServes,
    /// The name of an altered keyspace moves before its last writes are taken over.
    MoveBeforeFinal,
    /// An old group of an altered keyspace serves on after it has told its last write.
    UnsealInRound,
}

impl Plant {
    const fn bugs(self) -> PlantedBugs {
        let mut bugs = NO_BUGS;
        match self {
            Self::LoseSibling => bugs.lose_sibling_in_merge = true,
            Self::AckBeforeDurable => bugs.reply_before_durable = true,
            Self::ForgetOpIds => bugs.forget_op_ids_at_restart = true,
            Self::SkipRangeValidation => bugs.skip_range_validation = true,
            Self::DecideBeforeDurable => bugs.decide_before_durable = true,
            Self::ForgetLocks => bugs.forget_locks_at_restart = true,
            Self::ReadThroughPrepared => bugs.read_through_prepared = true,
            Self::SessionIgnoresAShard => bugs.session_ignores_a_shard = true,
            Self::AgeIgnoresAZone => bugs.age_ignores_a_zone = true,
            Self::CommitInOneZone => bugs.commit_in_one_zone = true,
            Self::MirrorSwapEarly => bugs.mirror_swap_early = true,
            Self::DeposedHomeServes => bugs.deposed_home_serves = true,
            Self::MoveBeforeFinal => bugs.move_before_final = true,
            Self::UnsealInRound => bugs.unseal_in_round = true,
        }
        bugs
    }
}

const NO_BUGS: PlantedBugs = PlantedBugs {
    lose_sibling_in_merge: false,
    reply_before_durable: false,
    forget_op_ids_at_restart: false,
    skip_range_validation: false,
    decide_before_durable: false,
    forget_locks_at_restart: false,
    read_through_prepared: false,
    session_ignores_a_shard: false,
    age_ignores_a_zone: false,
    commit_in_one_zone: false,
    mirror_swap_early: false,
    deposed_home_serves: false,
    move_before_final: false,
    unseal_in_round: false,
};

fn mode(name: &str) -> Result<Mode, String> {
    Mode::named(name).ok_or_else(|| format!("mode {name:?} is none of async, sync, snapshot"))
}

impl Common {
    fn options(&self, seed: u64) -> Options {
        let planted = self.plant.map(Plant::bugs).unwrap_or_default();
        Options {
            seed,
            seconds: self.seconds,
            topology: self.topology,
            mode: self.mode,
            alters: self.alters,
            planted,
        }
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Sim(sim) => run_sim(&sim),
        Command::Swarm(swarm) => Ok(run_swarm(&swarm)),
        #[cfg(feature = "local")]
        Command::Local(args) => return meridian_chaos::local::main(&args),
        #[cfg(feature = "local")]
        Command::Drive(args) => return meridian_chaos::drive::main(&args),
        #[cfg(feature = "local")]
        Command::Bank(args) => return meridian_chaos::local::bank_main(&args),
        #[cfg(feature = "local")]
        Command::Locks(args) => return meridian_chaos::local::locks::main(&args),
        #[cfg(feature = "local")]
        Command::Contend(args) => return meridian_chaos::local::locks::contend(&args),
        #[cfg(feature = "local")]
        Command::Modes(args) => return meridian_chaos::local::modes::main(&args),
        #[cfg(feature = "local")]
        Command::Drain(args) => return meridian_chaos::local::drain::main(&args),
        #[cfg(feature = "local")]
        Command::Leader(args) => return meridian_chaos::local::leader::main(&args),
        #[cfg(feature = "local")]
        Command::Mirrors(args) => return meridian_chaos::local::mirrors::main(&args),
        #[cfg(feature = "local")]
        Command::Lag(args) => return meridian_chaos::local::lag::main(&args),
        #[cfg(feature = "local")]
        Command::Watch(args) => return meridian_chaos::local::watch::main(&args),
        Command::Check(check) => return check_file(&check.file, check.workload),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            println!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_sim(sim: &Sim) -> Result<bool, std::io::Error> {
    println!("seed {}", sim.seed);
    let trace = match &sim.trace {
        Some(path) => Trace::to(Box::new(BufWriter::new(File::create(path)?)), sim.whole),
        None => Trace::default(),
    };
    let begun = Instant::now();
    let report = run(sim.common.options(sim.seed), trace);
    if let Some(path) = &sim.history {
        let mut file = BufWriter::new(File::create(path)?);
        simulated::write(&report, sim.workload, &mut file)?;
    }
    if let Some(path) = &sim.operations {
        report
            .history
            .write(&mut BufWriter::new(File::create(path)?))?;
    }
    report
        .stats
        .lines()
        .iter()
        .for_each(|line| println!("{line}"));
    println!(
        "topology {} wall {:.3} s",
        report.topology,
        begun.elapsed().as_secs_f64()
    );
    Ok(tell(&report))
}

/// Prints what was broken, the reproducing line last.
fn tell(report: &Report) -> bool {
    let (Some(line), Some(violation)) = (report.line(), &report.violation) else {
        return true;
    };
    violation
        .details
        .iter()
        .for_each(|detail| println!("  {detail}"));
    println!("{}: {}", violation.check, violation.message);
    println!("{line}");
    false
}

fn run_swarm(args: &Swarm) -> bool {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let bounds = Bounds {
        time: args
            .minutes
            .map(|minutes| Duration::from_secs_f64(minutes.max(0.0) * 60.0)),
        seeds: args.seeds,
        jobs: args.jobs.unwrap_or(processors),
        stop_at_failure: args.first,
    };
    println!("seeds from {}", args.from);
    let totals = swarm(args.common.options(args.from), bounds, &progress);
    summary(&totals);
    totals
        .failures
        .iter()
        .for_each(|(_, message)| println!("  {message}"));
    totals
        .failures
        .iter()
        .for_each(|(line, _)| println!("{line}"));
    totals.failures.is_empty()
}

fn progress(totals: &Totals) {
    if totals.seeds.is_multiple_of(50) {
        println!(
            "{} seeds, {} failures, {:.0} simulated s per s and core",
            totals.seeds,
            totals.failures.len(),
            totals.speed()
        );
    }
}

fn summary(totals: &Totals) {
    let topologies: Vec<String> = totals
        .topologies
        .iter()
        .map(|(name, count)| format!("{name}={count}"))
        .collect();
    println!(
        "seeds={} failures={} {}",
        totals.seeds,
        totals.failures.len(),
        topologies.join(" ")
    );
    totals
        .stats
        .lines()
        .iter()
        .for_each(|line| println!("{line}"));
    if let Some((rate, seed)) = totals.slowest_ops {
        println!(
            "least load: {rate} operations answered per simulated second of load, seed {seed}"
        );
    }
    println!(
        "speed: {:.0} simulated seconds per second and core",
        totals.speed()
    );
}
