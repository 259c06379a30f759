//! `txn`: several keys as one, sent whole (a JSON object) or line by line.
//!
//! What it is not: it decides nothing about conflicts. The client begins anew; here is only told how it ended.
//!
//! Read `once` for the whole form, `script` for lines, `play` for carrying them out, `typed` for somebody who types.

mod args;
mod once;
mod play;
mod script;
mod show;
mod typed;

use std::io::IsTerminal as _;

use tokio::io::AsyncReadExt as _;

pub(crate) use self::args::TxnArgs;
use crate::app::App;
use crate::exit::{Failure, Outcome};

/// Longest text: a transaction that a node takes is far below.
const TEXT_BYTES_MAX: u64 = 16 << 20;

pub(crate) async fn run(app: &mut App<'_>, args: TxnArgs) -> Outcome {
    let from_input = args
        .file
        .as_ref()
        .is_none_or(|file| file.as_os_str() == "-");
    if from_input && (args.interactive || std::io::stdin().is_terminal()) {
        return typed::run(app, &args).await;
    }
    let text = match &args.file {
        Some(file) if !from_input => {
            let name = file.display().to_string();
            let opened = tokio::fs::File::open(file).await;
            read(opened.map_err(|error| failed(&name, &error))?, &name).await?
        }
        Some(_) | None => read(tokio::io::stdin(), "standard input").await?,
    };
    if text.trim_start().starts_with('{') {
        once::run(app, &args, &text).await
    } else {
        play::run(app, &args, &text).await
    }
}

async fn read(from: impl tokio::io::AsyncRead + Unpin, name: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let mut bounded = from.take(TEXT_BYTES_MAX + 1);
    let reading = bounded.read_to_string(&mut text).await;
    let read = reading.map_err(|error| failed(name, &error))?;
    if u64::try_from(read).is_ok_and(|read| read > TEXT_BYTES_MAX) {
        return Err(Failure::usage(format!("{name} is too long")));
    }
    Ok(text)
}

fn failed(name: &str, error: &std::io::Error) -> Failure {
    Failure::other(format!("{name}: {error}"))
}
