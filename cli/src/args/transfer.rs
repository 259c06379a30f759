//! Import and export.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::RangeArgs;

#[derive(Clone, Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file; `-` for standard input
    pub(crate) file: PathBuf,
    /// Taken from the file's name without it; else jsonl
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// Records in flight at once
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) in_flight: u16,
    /// Where the progress is kept, to go on after an interruption; beside FILE without it
    #[arg(long, value_name = "FILE")]
    pub(crate) resume_file: Option<PathBuf>,
    /// Begin at the start even if an earlier import was interrupted
    #[arg(long)]
    pub(crate) restart: bool,
    /// Stop after so many records that failed
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) max_failures: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ExportArgs {
    /// The file; `-` for standard output
    pub(crate) file: PathBuf,
    /// Taken from the file's name without it; else jsonl
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    #[command(flatten)]
    pub(crate) range: RangeArgs,
    /// Where the progress is kept, to go on after an interruption; beside FILE without it
    #[arg(long, value_name = "FILE")]
    pub(crate) resume_file: Option<PathBuf>,
    /// Begin at the start even if an earlier export was interrupted
    #[arg(long)]
    pub(crate) restart: bool,
}

/// The form of a file of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One object a line: `{"key":…,"value":…}`, or `key_base64`, `value_base64`
    Jsonl,
    /// Key, tab, value; `\t`, `\n`, `\r` and `\\` stand for themselves
    Tsv,
}
