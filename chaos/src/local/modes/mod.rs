//! `kv-chaos modes`: what each mode of a keyspace promises, measured on real processes with slow links.
//!
//! Three zones of one node; delays between them; a keyspace of each mode. Measured are operations in quiet, those while a
//! zone is cut off, and what is missing elsewhere once that zone is lost for good. The promises that are checked: a sync
//! keyspace loses nothing, a strong operation on the minority side is refused within its bound, and each zone of an async
//! keyspace goes on. The rest is told as it is.
//!
//! Read `phases` for what is done, `zones` for how it is set up.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool reports on standard output"
)]

mod phases;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::ends::Ends;
use super::zones::{Start, Zones, three};
use phases::Bench;

/// Measures the modes on real processes with slow links.
#[derive(Clone, Debug, Args)]
pub struct ModesArgs {
    /// Delays one way, in milliseconds: between zones 1 and 2, 2 and 3, 1 and 3.
    #[arg(long, value_delimiter = ',', default_values_t = [30, 50, 70])]
    pub delays_ms: Vec<u64>,
    /// Operations of each kind in quiet.
    #[arg(long, default_value_t = 40)]
    pub operations: usize,
    /// Seconds of writing before a zone is lost.
    #[arg(long, default_value_t = 3)]
    pub seconds: u64,
    /// The program `kv-node`; KV_NODE_BIN, or the one beside this program, when absent.
    #[arg(long)]
    pub node_bin: Option<PathBuf>,
}

/// Runs the experiment: 0 every promise held, 1 one was broken, 2 it could not be made.
pub fn main(args: &ModesArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(experiment(args)));
    match outcome {
        Ok(broken) if broken.is_empty() => ExitCode::SUCCESS,
        Ok(broken) => {
            for what in broken {
                println!("FAIL {what}");
            }
            ExitCode::from(1)
        }
        Err(why) => {
            println!("error: {why}");
            ExitCode::from(2)
        }
    }
}

async fn experiment(args: &ModesArgs) -> Result<Vec<String>, String> {
    let folder = tempfile::Builder::new().prefix("kv-chaos-modes-").tempdir();
    let folder = folder.map_err(|error| error.to_string())?;
    let mut ends = Ends::new().map_err(|error| error.to_string())?;
    tokio::select! {
        outcome = experiment_in(args, folder.path()) => outcome,
        () = ends.any() => Err("interrupted".to_owned()),
    }
}

async fn experiment_in(args: &ModesArgs, folder: &Path) -> Result<Vec<String>, String> {
    let delays_ms = three(&args.delays_ms)?;
    let zones = Zones::start(Start {
        folder,
        program: args.node_bin.clone(),
        core_threads: 1,
        delays_ms,
    });
    let mut bench = Bench::new(zones.await?);
    Box::pin(bench.create_keyspaces()).await?;
    let [near, middle, far] = delays_ms;
    println!("delays one way: zones 1-2 {near} ms, 2-3 {middle} ms, 1-3 {far} ms\n");
    bench.quiet(args.operations).await?;
    bench.cut_off().await?;
    bench.lose(Duration::from_secs(args.seconds)).await?;
    Ok(bench.broken)
}
