//! `kv`: the command line of Meridian.
//!
//! **What this is.** Arguments, settings, output and exit codes around [`meridian_client`]; the commands of the contract;
//! import and export; the shell and the demo cluster.
//!
//! **What this is not.** It decides nothing about routing, retries or conflicts: the client and the servers do.
//!
//! **Invariants.**
//! * Results go to standard output, everything else to standard error; with `--json` both are JSON, one object a line.
//! * The exit code follows from the outcome alone (`exit`), never from the text.
//! * An absent key and a key in conflict are answers with exit codes of their own, not errors.
//!
//! **What to read.** `args` (the forms), `exit`, `app` (what a command works with), then `commands`.

mod app;
mod args;
mod commands;
mod demo;
mod exit;
mod human;
mod json;
mod out;
mod parse;
mod profile;
mod settings;
mod shell;
mod transfer;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use crate::app::{App, Clients};
use crate::args::{Cli, Command};
use crate::exit::{Done, Failure, Outcome};
use crate::out::Out;
use crate::settings::Settings;

/// Runs the program with these arguments, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let mut out = Out::standard(cli.global.json);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(cli, &mut out));
            // A reader of the terminal may still be blocked in its thread.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::other(format!("cannot start: {error}"))),
    };
    let code = match &outcome {
        Ok(done) => done.code(),
        Err(failure) => {
            out.failure(failure);
            failure.code()
        }
    };
    ExitCode::from(code)
}

/// Help and version are no errors.
fn usage(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    if error.use_stderr() || printed.is_err() {
        ExitCode::from(exit::USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

async fn run(cli: Cli, out: &mut Out) -> Outcome {
    let settings = || Settings::from_process(&cli.global);
    match cli.command {
        Command::Profile(command) => profile::run(command, &cli.global, out),
        Command::Completions(args) => completions(args.shell, out),
        Command::Demo(args) => Box::pin(demo::run(args, &settings()?, out)).await,
        Command::Shell(args) => Box::pin(shell::run(args, &settings()?, out)).await,
        Command::OnCluster(command) => {
            let mut clients = Clients::default();
            let mut app = App::new(settings()?, &mut clients, out);
            Box::pin(commands::run(&mut app, *command)).await
        }
    }
}

fn completions(shell: clap_complete::Shell, out: &mut Out) -> Outcome {
    let mut text = Vec::new();
    let mut command = <Cli as clap::CommandFactory>::command();
    clap_complete::generate(shell, &mut command, "kv", &mut text);
    out.bytes(&text)?;
    Ok(Done::AsAsked)
}
