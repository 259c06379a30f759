//! The program `kv-node`: hands its arguments to the shell and turns its result into an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use meridian_node::config::{Args, ConfigError, ConfigFile, LogFormat, NodeConfig};
use tracing_subscriber::EnvFilter;

/// Long-running stores fragment the system's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    start_log(log_format(&args));
    let outcome = match NodeConfig::load(&args) {
        Ok(config) => meridian_node::run(config).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The log starts before the configuration is judged, so that a refusal is logged in the form asked for.
fn log_format(args: &Args) -> LogFormat {
    let from_file = || -> Result<LogFormat, ConfigError> {
        args.config.as_deref().map_or(Ok(LogFormat::Text), |path| {
            ConfigFile::read(path).map(|file| file.log_format)
        })
    };
    args.log_format
        .unwrap_or_else(|| from_file().unwrap_or_default())
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
}
