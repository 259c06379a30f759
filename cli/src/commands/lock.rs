//! `lock`: runs a command while holding a lease.
//!
//! What it does not do: it cannot stop a command in the middle of something. When the lease is lost the command is
//! killed, but what it has begun may still happen; what it works on should see `KV_LOCK_TOKEN` and refuse an older one.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use meridian_client::Lease;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::lease::options;
use crate::app::{App, bytes_of};
use crate::args::LockArgs;
use crate::exit::{self, Done, Failure, Outcome};
use crate::human;

/// How a shell says that a command was not found, and that it cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;

/// A command killed by a signal ends with this and the signal's number.
const SIGNALLED: i32 = 128;

pub(crate) async fn run(app: &mut App<'_>, args: LockArgs) -> Outcome {
    let client = app.client().await?;
    let name = bytes_of(&args.hold.name);
    let lease = client.lease(name.clone(), &options(&args.hold)).await?;
    // From here on, and before there is a command to pass them on to; until here they end the waiting.
    let mut signals = Signals::listen()?;
    let mut child = match spawn(&args, &lease) {
        Ok(child) => child,
        Err(failure) => {
            give_up(app, lease).await;
            app.out.note(&format!("error: {}", failure.1));
            return Err(Failure::Said(failure.0));
        }
    };
    if let Some(status) = attend(&mut child, &lease, &mut signals).await? {
        give_up(app, lease).await;
        return outcome_of(status);
    }
    // The cluster may give the lease to another when the last tenth of its time is over.
    kill(&mut child, args.hold.ttl / 10).await?;
    let name = human::text(&name);
    app.out.note(&format!(
        "error: the lease {name} was lost, and the command killed"
    ));
    Err(Failure::lock_lost())
}

fn spawn(args: &LockArgs, lease: &Lease) -> Result<Child, (u8, String)> {
    let (program, rest) = args
        .command
        .split_first()
        .ok_or((exit::USAGE, "a command is needed".to_owned()))?;
    Command::new(program)
        .args(rest)
        .env("KV_LOCK_NAME", &args.hold.name)
        .env("KV_LOCK_TOKEN", lease.token().to_string())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| not_run(program, &error))
}

fn not_run(program: &OsStr, error: &std::io::Error) -> (u8, String) {
    let code = if error.kind() == ErrorKind::NotFound {
        NOT_FOUND
    } else {
        NOT_RUNNABLE
    };
    (code, format!("{}: {error}", program.display()))
}

/// What is passed on to the command.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
}

/// Waits for the command to end, and passes signals on to it. `None`: the lease was lost first.
async fn attend(
    child: &mut Child,
    lease: &Lease,
    signals: &mut Signals,
) -> Result<Option<ExitStatus>, Failure> {
    loop {
        tokio::select! {
            biased;
            () = lease.lost() => return Ok(None),
            status = child.wait() => return Ok(Some(status?)),
            _ = signals.interrupt.recv() => send(child, Signal::INT),
            _ = signals.terminate.recv() => send(child, Signal::TERM),
        }
    }
}

/// Asks the command to end, and ends it when it has not after `grace`.
async fn kill(child: &mut Child, grace: Duration) -> Result<(), Failure> {
    send(child, Signal::TERM);
    if tokio::time::timeout(grace, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}

/// A command that has ended takes no signal.
fn send(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        let _gone = kill_process(pid, signal);
    }
}

/// The command is done: what becomes of the lease does not change its outcome.
async fn give_up(app: &mut App<'_>, lease: Lease) {
    if let Err(error) = lease.end().await {
        app.out.hint(&format!(
            "note: the lease was not given up and ends by itself: {}",
            human::error(&error)
        ));
    }
}

fn outcome_of(status: ExitStatus) -> Outcome {
    if status.success() {
        return Ok(Done::AsAsked);
    }
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| SIGNALLED + signal));
    let code = code.and_then(|code| u8::try_from(code).ok());
    Err(Failure::Said(code.unwrap_or(u8::MAX)))
}
