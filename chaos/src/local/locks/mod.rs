//! Locks under contention: processes that take one lease in turn and act under its token, some of them paused while
//! they hold it for longer than it lasts.
//!
//! What it is for: a lease alone protects nothing from a holder that was stopped and does not know it. The fencing token
//! does, if it only grows and no two holders get the same. What it is not: the register that the contenders act on is
//! this program's own; it stands for a resource that sees tokens.
//!
//! Invariants checked: those of `judge`.
//!
//! Read `contender` (what one does), `register` (what is acted on, who is paused), `judge` (the promises).

mod contender;
mod judge;
mod register;

use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::net::UnixListener;

use super::cluster::{Cluster, Setting};
use super::ends::Ends;
use super::plan::Shape;
pub use contender::contend;
use register::Register;

/// Time an acquisition may take on the average before the experiment is given up, in milliseconds.
const ACQUISITION_MS_MAX: u64 = 2_000;
/// Time the experiment has beside that.
const TIME_MIN: Duration = Duration::from_mins(2);
/// Of what is wrong, so many lines are shown.
const SHOWN_MAX: usize = 20;
const POLL: Duration = Duration::from_millis(50);

/// Lets processes contend for a lease, and judges their tokens.
#[derive(Clone, Debug, Args)]
pub struct LocksArgs {
    /// Decides how long the paused are paused.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How often the lease is taken in all.
    #[arg(long, default_value_t = 1000)]
    pub acquisitions: u64,
    /// Processes that contend for it.
    #[arg(long, default_value_t = 16)]
    pub contenders: u32,
    /// How long the lease stands without being renewed, in milliseconds, or with a unit: 1s, 500ms.
    #[arg(long, default_value = "1s", value_parser = millis)]
    pub ttl: u64,
    /// One holder in so many is paused for longer than the lease stands; 0: none.
    #[arg(long, default_value_t = 10)]
    pub pause_one_in: u64,
    /// Zones and nodes of each.
    #[arg(long, default_value = "1x3")]
    pub cluster: Shape,
    /// Core threads of each node.
    #[arg(long, default_value_t = 1)]
    pub core_threads: u32,
    /// The program `kv-node`; KV_NODE_BIN, or the one beside this program, when absent.
    #[arg(long)]
    pub node_bin: Option<PathBuf>,
}

impl LocksArgs {
    /// The line that repeats the experiment.
    pub fn line(&self) -> String {
        let Self {
            seed,
            acquisitions,
            contenders,
            ttl,
            pause_one_in,
            cluster,
            core_threads,
            node_bin: _,
        } = self;
        format!(
            "kv-chaos locks --seed {seed} --acquisitions {acquisitions} --contenders {contenders} --ttl {ttl}ms \
             --pause-one-in {pause_one_in} --cluster {cluster} --core-threads {core_threads}"
        )
    }
}

/// What one of the processes is told.
#[derive(Clone, Debug, Args)]
pub struct ContendArgs {
    /// Nodes of the cluster.
    #[arg(long, value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// Where the register listens.
    #[arg(long)]
    pub register: PathBuf,
    /// The lease's time in milliseconds.
    #[arg(long)]
    pub ttl_ms: u64,
    /// Its number among the contenders.
    #[arg(long)]
    pub number: u32,
}

fn millis(text: &str) -> Result<u64, String> {
    let (number, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) => (text, 1),
    };
    let number: u64 = number
        .parse()
        .map_err(|_error| format!("{text:?} is not a time such as 1s or 500ms"))?;
    number
        .checked_mul(unit)
        .filter(|ms| *ms > 0)
        .ok_or_else(|| format!("{text:?} is no time"))
}

/// Runs the experiment: 0 every promise held, 1 one was broken, 2 it could not be made.
#[expect(
    clippy::print_stdout,
    reason = "a command line tool reports on standard output"
)]
pub fn main(args: &LocksArgs) -> ExitCode {
    println!("seed {}", args.seed);
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(experiment(args)));
    let verdict = match outcome {
        Ok(verdict) => verdict,
        Err(why) => {
            println!("error: {why}");
            return ExitCode::from(2);
        }
    };
    println!("{}", verdict.summary());
    let broken = !verdict.findings.is_empty();
    if broken {
        println!("VIOLATION: {} findings", verdict.findings.len());
        let shown = verdict.findings.iter().take(SHOWN_MAX);
        shown.for_each(|finding| println!("  {finding}"));
    } else {
        println!("no two holders acted under the same token, and none under an older one");
    }
    println!("{}", args.line());
    ExitCode::from(u8::from(broken))
}

async fn experiment(args: &LocksArgs) -> Result<judge::Verdict, String> {
    let folder = tempfile::Builder::new()
        .prefix("kv-chaos-locks-")
        .tempdir()
        .map_err(|error| error.to_string())?;
    let mut ends = Ends::new().map_err(|error| error.to_string())?;
    tokio::select! {
        verdict = experiment_in(args, folder.path()) => verdict,
        () = ends.any() => Err("interrupted".to_owned()),
    }
}

async fn experiment_in(
    args: &LocksArgs,
    folder: &std::path::Path,
) -> Result<judge::Verdict, String> {
    let mut cluster = Cluster::create(&Setting {
        shape: args.cluster,
        program: args.node_bin.clone(),
        folder: folder.to_owned(),
        core_threads: args.core_threads,
        first_subnet: 1,
    })?;
    cluster.start_all().await?;
    let socket = folder.join("register");
    let listener = UnixListener::bind(&socket).map_err(|error| error.to_string())?;
    let register = Arc::new(Register::new(args));
    let serving = tokio::spawn(Arc::clone(&register).serve(listener));
    let zone = cluster.plan.zones().into_iter().next().unwrap_or_default();
    let nodes = cluster.plan.nodes().into_iter();
    let endpoints: Vec<String> = nodes
        .filter(|node| node.zone == zone)
        .map(|node| node.addr())
        .collect();
    let mut contenders = Contenders::start(args, &endpoints, &socket)?;
    let waited = contenders.wait(args, &register).await;
    serving.abort();
    drop(contenders);
    waited?;
    if let Some(ended) = cluster.ended().first() {
        return Err(format!("node {ended} ended by itself"));
    }
    Ok(judge::judge(&register.events()))
}

/// The processes that contend. They end with it.
struct Contenders(Vec<Child>);

impl Contenders {
    fn start(
        args: &LocksArgs,
        endpoints: &[String],
        register: &std::path::Path,
    ) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut started = Self(Vec::new());
        for number in 0..args.contenders {
            let child = Command::new(&program)
                .arg("contend")
                .args(["--endpoints", &endpoints.join(",")])
                .arg("--register")
                .arg(register)
                .args(["--ttl-ms", &args.ttl.to_string()])
                .args(["--number", &number.to_string()])
                .stdin(Stdio::null())
                .spawn()
                .map_err(|error| format!("{}: {error}", program.display()))?;
            started.0.push(child);
        }
        Ok(started)
    }

    /// Waits until all have ended by themselves.
    async fn wait(&mut self, args: &LocksArgs, register: &Register) -> Result<(), String> {
        let time =
            TIME_MIN + Duration::from_millis(ACQUISITION_MS_MAX.saturating_mul(args.acquisitions));
        let until = Instant::now() + time;
        loop {
            let mut running = false;
            for child in &mut self.0 {
                match child.try_wait() {
                    Ok(None) => running = true,
                    Ok(Some(status)) if status.success() => {}
                    Ok(Some(status)) => return Err(format!("a contender ended with {status}")),
                    Err(error) => return Err(error.to_string()),
                }
            }
            if !running {
                return Ok(());
            }
            if Instant::now() >= until {
                let taken = register.taken();
                return Err(format!("the lease was taken {taken} times in {time:?}"));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Contenders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended needs no ending; a stopped one ends all the same.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_a_unit() {
        assert_eq!(
            (millis("1s"), millis("250ms"), millis("7")),
            (Ok(1000), Ok(250), Ok(7))
        );
        for bad in ["", "s", "0", "1m", "-1s"] {
            assert!(millis(bad).is_err(), "{bad:?}");
        }
    }
}
