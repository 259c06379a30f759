//! The order of events: connect, load, end, history, judgement.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool reports on standard output, its progress on standard error"
)]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use meridian_client::Client;

use super::args::DriveArgs;
use super::session::{Session, Settings};
use super::{bank, lists, register, set};
use crate::histories::judge::{Judgement, Workload, judge_elements, judge_records};
use crate::histories::report::tell;
use crate::histories::transactions::Keys;
use crate::histories::{journal, money, registers, transactions};
use crate::local::ends::Ends;
use crate::serial::finding::Finding;
use crate::serial::{self, Anomaly, Txn};

/// Deadline of one call.
const CALL_TIME_MAX: Duration = Duration::from_secs(3);
const PROGRESS: Duration = Duration::from_secs(1);

/// Runs the workload: 0 nothing is wrong, 1 something is, 2 it could not be run.
pub fn main(args: &DriveArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(drive(args)));
    match outcome {
        Ok(judgement) => tell(&judgement),
        Err(why) => {
            println!("error: {why}");
            ExitCode::from(2)
        }
    }
}

async fn connect(args: &DriveArgs) -> Result<Client, String> {
    let mut builder = Client::builder().endpoints(args.endpoints.clone());
    if let Some(zone) = &args.zone {
        builder = builder.zone(zone);
    }
    let builder = builder
        .stay_in_zone()
        .keyspace(&args.keyspace)
        .timeout(CALL_TIME_MAX);
    builder.connect().await.map_err(|error| error.to_string())
}

async fn drive(args: &DriveArgs) -> Result<Judgement, String> {
    let settings = Settings {
        clients: args.clients.max(1),
        seed: args.seed,
        keys: args.keys,
        accounts: args.accounts.max(2),
    };
    // Before the load: a file that cannot be written is told at once.
    let file = File::create(&args.history).map_err(|error| cannot_write(&args.history, &error))?;
    let session = Session::new(connect(args).await?, settings);
    let ends = tokio::spawn(end_in_time(
        session.clone(),
        Duration::from_secs(args.seconds),
    ));
    let judgement = load(args.workload, &session, &mut BufWriter::new(file)).await;
    ends.abort();
    let mut judgement = judgement?;
    println!(
        "{}: {}; history {}",
        args.workload,
        session.counts.line(),
        args.history.display()
    );
    let strange = session.strange().into_iter();
    let strange = strange.map(|what| Finding::new(Anomaly::GarbageRead, session.now_ns(), what));
    judgement.findings.splice(0..0, strange);
    Ok(judgement)
}

fn cannot_write(path: &Path, error: &std::io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

/// Stops the load when the time is over, or when asked to.
async fn end_in_time(session: Session, time: Duration) -> Result<(), std::io::Error> {
    let mut ends = Ends::new()?;
    tokio::select! {
        () = ends.any() => eprintln!("interrupted: what was begun is ended"),
        () = progress(&session, time) => {}
    }
    session.stop();
    Ok(())
}

async fn progress(session: &Session, time: Duration) {
    let until = tokio::time::Instant::now() + time;
    let mut ticks = tokio::time::interval(PROGRESS);
    while tokio::time::Instant::now() < until && !session.is_stopped() {
        tokio::select! {
            _ = ticks.tick() => eprintln!("{} s: {}", session.now_ns() / 1_000_000_000, session.counts.line()),
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// Runs the clients, writes the history, and judges it.
async fn load(
    workload: Workload,
    session: &Session,
    out: &mut dyn Write,
) -> Result<Judgement, String> {
    let written = |result: std::io::Result<()>| {
        result.map_err(|error| format!("cannot write the history: {error}"))
    };
    match workload {
        Workload::Register => {
            let records = register::drive(session).await?;
            written(registers::write(&records, out))?;
            Ok(judge_records(&records))
        }
        Workload::Append => txns(lists::drive(session, Keys::Lists).await?, out),
        Workload::Rw => txns(lists::drive(session, Keys::Registers).await?, out),
        Workload::Bank => {
            let run = bank::drive(session).await?;
            written(journal::write(&run.entries, out))?;
            Ok(Judgement {
                operations: run.entries.len(),
                findings: money::check(&run.entries),
                undecided: run.unread.into_iter().collect(),
            })
        }
        Workload::Set => {
            let entries = set::drive(session).await?;
            written(journal::write(&entries, out))?;
            Ok(judge_elements(&entries))
        }
    }
}

fn txns(txns: Vec<Txn>, out: &mut dyn Write) -> Result<Judgement, String> {
    transactions::write(&txns, out)
        .map_err(|error| format!("cannot write the history: {error}"))?;
    Ok(Judgement {
        operations: txns.len(),
        findings: serial::findings(&txns),
        undecided: Vec::new(),
    })
}
