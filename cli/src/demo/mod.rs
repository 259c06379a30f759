//! `demo`: three zones on this machine, with the distances of three continents between them.

pub(crate) mod cluster;
mod plan;
mod process;
mod subnet;

use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};

use self::cluster::Cluster;
use self::plan::{DELAYS_MS, Plan};
use crate::args::DemoArgs;
use crate::exit::{Done, Failure, Outcome};
use crate::out::Out;
use crate::settings::Settings;
use crate::shell;

/// Names the record of a demo that was left running, for `kv shell`.
pub(crate) const RECORD_VARIABLE: &str = "KV_DEMO";

pub(crate) async fn run(args: DemoArgs, settings: &Settings, out: &mut Out) -> Outcome {
    if args.stop {
        return stop(out).await;
    }
    if args.detach {
        return detach(args.nodes, out).await;
    }
    // Read before anything is started: a missing script is no reason to wait for a cluster.
    let source = shell::Source::open(args.script.as_deref())?;
    let folder = tempfile::Builder::new()
        .prefix("meridian-demo-")
        .tempdir()?;
    let plan = subnet::free_plan(args.nodes)?;
    let mut cluster = Cluster::create(folder.path().to_owned(), plan)?;
    out.hint("starting three zones …");
    let mut ends = Ends::new()?;
    tokio::select! {
        started = cluster.start_all() => started?,
        () = ends.any() => return Err(Failure::other("interrupted")),
    }
    describe(out, plan);
    let mut settings = settings.clone();
    settings.endpoints = plan.endpoints();
    let mut shell = shell::Shell::new(settings, Some(cluster));
    let outcome = tokio::select! {
        outcome = shell.run(source, out) => outcome,
        () = ends.termination() => Err(Failure::other("terminated")),
    };
    if let Some(cluster) = shell.into_cluster() {
        cluster.stop().await;
    }
    outcome
}

/// Requests to end.
struct Ends {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Ends {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }

    /// Not an interrupt: in a shell that ends only the line.
    async fn termination(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

fn describe(out: &mut Out, plan: Plan) {
    out.hint("");
    for node in plan.nodes() {
        out.hint(&format!(
            "  {:10} {:4} {}",
            node.zone,
            node.name,
            node.addr()
        ));
    }
    let delays: Vec<_> = DELAYS_MS
        .iter()
        .map(|(from, to, ms)| format!("{from} – {to} {ms} ms"))
        .collect();
    out.hint(&format!("\none way: {}", delays.join(", ")));
    out.hint(&format!(
        "\nfrom another terminal: export KV_ENDPOINTS={}\n",
        plan.endpoints().join(",")
    ));
    out.hint(
        "try:  put greeting hello        use eu-west      get greeting\n      \
         block us-east eu-west     block us-east ap-south\n      \
         put greeting bonjour      use us-east      put greeting howdy\n      \
         heal                      get greeting     resolve greeting --choose DOT\n      \
         status   lag   digest     kill n1          start n1      help\n",
    );
}

/// Where a demo that is left running keeps its files.
fn detached_folder() -> Result<PathBuf, Failure> {
    let state = match std::env::var_os("XDG_STATE_HOME") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder),
        _ => match std::env::var_os("HOME") {
            Some(home) => PathBuf::from(home).join(".local/state"),
            None => return Err(Failure::other("neither XDG_STATE_HOME nor HOME is set")),
        },
    };
    Ok(state.join("meridian/demo"))
}

async fn detach(nodes: u8, out: &mut Out) -> Outcome {
    let folder = detached_folder()?;
    if let Some(mut earlier) = Cluster::found_by(&Cluster::record(&folder)) {
        if earlier.any_running() {
            return Err(Failure::other(
                "a demo is running already; end it with: kv demo --stop",
            ));
        }
        earlier.stop().await;
    }
    let plan = subnet::free_plan(nodes)?;
    let mut cluster = Cluster::create(folder, plan)?;
    let mut ends = Ends::new()?;
    tokio::select! {
        started = cluster.start_all() => started?,
        () = ends.any() => return Err(Failure::other("interrupted")),
    }
    let file = write_environment(cluster.folder(), plan)?;
    cluster.leave_running();
    out.hint("running; source the file below, end it with: kv demo --stop");
    out.line(&file.display().to_string())?;
    Ok(Done::AsAsked)
}

fn write_environment(folder: &Path, plan: Plan) -> Result<PathBuf, Failure> {
    let file = folder.join("env");
    let record = Cluster::record(folder);
    let record = record.to_string_lossy();
    let quoted = shlex::try_quote(&record).map_err(|error| Failure::other(error.to_string()))?;
    let endpoints = plan.endpoints().join(",");
    let text = format!("export KV_ENDPOINTS={endpoints}\nexport {RECORD_VARIABLE}={quoted}\n");
    std::fs::write(&file, text)?;
    Ok(file)
}

async fn stop(out: &mut Out) -> Outcome {
    let record = Cluster::record(&detached_folder()?);
    match Cluster::found_by(&record) {
        Some(cluster) => {
            cluster.stop().await;
            out.hint("stopped");
        }
        None => out.hint("no demo is running"),
    }
    Ok(Done::AsAsked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_to_source_names_every_node_and_the_record() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan {
            subnet: 4,
            nodes_per_zone: 1,
        };
        let file = write_environment(folder.path(), plan).unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        let endpoints = "KV_ENDPOINTS=127.77.4.11:7400,127.77.4.21:7400,127.77.4.31:7400\n";
        assert!(text.contains(endpoints), "{text}");
        assert!(text.contains("KV_DEMO="), "{text}");
    }
}
