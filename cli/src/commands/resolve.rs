//! `resolve`: replaces exactly the siblings that were read, by what a command or a choice says.
//!
//! A sibling that arrives between the read and the write survives, since the context does not cover it.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use meridian_client::{
    Client, Context, ReadOptions, ScanQuery, Sibling, Versions, WriteOptions, Written,
};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::app::{App, Session, key_of};
use crate::args::ResolveArgs;
use crate::exit::{Done, Failure, Outcome};
use crate::{human, json};

/// A command that prints more is stopped by the server's limit on values anyway.
const FAILURES_SHOWN_MAX: u64 = 20;

/// How siblings become one value.
#[derive(Clone, Debug)]
enum Way {
    /// A shell command merges them.
    Merge { command: String, timeout: Duration },
    /// The sibling of this dot stays.
    Choose { dot: String },
}

pub(crate) async fn run(app: &mut App<'_>, args: ResolveArgs) -> Outcome {
    let way = match (&args.with, &args.choose) {
        (Some(command), None) => Way::Merge {
            command: command.clone(),
            timeout: args.command_timeout,
        },
        (None, Some(dot)) => Way::Choose { dot: dot.clone() },
        _ => return Err(Failure::usage("either --with or --choose is needed")),
    };
    match &args.key {
        Some(key) => {
            let key = key_of(key, args.key_base64)?;
            resolve_one(app, key, &way).await
        }
        None => resolve_all(app, &way, usize::from(args.jobs)).await,
    }
}

async fn resolve_one(app: &mut App<'_>, key: Bytes, way: &Way) -> Outcome {
    let session = Session::of(&app.settings)?;
    let options = app.read_options(None, &session)?;
    let client = app.client().await?;
    let versions = client.get(key, &options).await?;
    if versions.siblings.is_empty() {
        app.out.hint(&human::versions(&versions));
        return Ok(Done::NotFound);
    }
    if !versions.in_conflict() {
        app.out.hint("the key is not in conflict");
        return Ok(Done::AsAsked);
    }
    let written = resolve(&client, &versions, way).await?;
    session.go_on_with(&written.session)?;
    show(app, &written)?;
    Ok(Done::AsAsked)
}

async fn resolve_all(app: &mut App<'_>, way: &Way, jobs: usize) -> Outcome {
    let client = app.client().await?;
    let query = ScanQuery {
        conflicts_only: true,
        read: ReadOptions::default(),
        ..ScanQuery::default()
    };
    let found = client.scan(query).entries();
    let resolved = found.map(|versions| async {
        let versions = versions?;
        let key = versions.key.clone();
        let result = resolve(&client, &versions, way).await;
        Ok::<_, Failure>((key, result))
    });
    let mut resolved = std::pin::pin!(resolved.buffer_unordered(jobs));
    let (mut done, mut failed) = (0_u64, 0_u64);
    while let Some(result) = resolved.next().await {
        match result? {
            (_, Ok(written)) => {
                done += 1;
                if app.out.json {
                    show(app, &written)?;
                }
            }
            (key, Err(failure)) => {
                failed += 1;
                if failed <= FAILURES_SHOWN_MAX {
                    app.out
                        .note(&format!("{}: not resolved", human::text(&key)));
                    app.out.failure(&failure);
                }
            }
        }
    }
    app.out
        .hint(&format!("{done} keys resolved, {failed} failed"));
    if failed == 0 {
        Ok(Done::AsAsked)
    } else {
        Err(Failure::some_failed())
    }
}

fn show(app: &mut App<'_>, written: &Written) -> io::Result<()> {
    if app.out.json {
        app.out.object(&json::written(written))
    } else {
        app.out.line(&human::written(written))
    }
}

async fn resolve(client: &Client, versions: &Versions, way: &Way) -> Result<Written, Failure> {
    let options = WriteOptions::replacing(Context::clone(&versions.context));
    let key = versions.key.clone();
    match way {
        Way::Merge { command, timeout } => {
            let input = json::merge_input(versions).to_string();
            let merged = merge(command, input.as_bytes(), *timeout).await?;
            Ok(client.put(key, merged, &options).await?)
        }
        Way::Choose { dot } => {
            let chosen = choose(&versions.siblings, dot)?;
            if chosen.deleted {
                Ok(client.delete(key, &options).await?)
            } else {
                Ok(client.put(key, chosen.value.clone(), &options).await?)
            }
        }
    }
}

fn choose<'s>(siblings: &'s [Sibling], dot: &str) -> Result<&'s Sibling, Failure> {
    let bears = |sibling: &&Sibling| sibling.dot == dot || sibling.dots.iter().any(|of| of == dot);
    siblings.iter().find(bears).ok_or_else(|| {
        let dots: Vec<_> = siblings
            .iter()
            .map(|sibling| sibling.dot.as_str())
            .collect();
        Failure::usage(format!(
            "no sibling has the dot {dot:?}; there are {}",
            dots.join(", ")
        ))
    })
}

/// Runs the command with `input` on its standard input; what it prints is the value, one line break at its end taken
/// off.
async fn merge(command: &str, input: &[u8], timeout: Duration) -> Result<Bytes, Failure> {
    let failed = |error: io::Error| Failure::other(format!("{command}: {error}"));
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    let feeding = async {
        if let Some(mut stdin) = stdin {
            // A command that needs not all of its input may close it.
            drop(stdin.write_all(input).await);
        }
    };
    let running = async { tokio::join!(child.wait_with_output(), feeding).0 };
    let output = match tokio::time::timeout(timeout, running).await {
        Ok(output) => output.map_err(failed)?,
        Err(_elapsed) => {
            let limit = humantime::format_duration(timeout);
            return Err(Failure::other(format!(
                "{command}: not done within {limit}"
            )));
        }
    };
    if !output.status.success() {
        return Err(Failure::other(format!("{command}: {}", output.status)));
    }
    let mut merged = output.stdout;
    if merged.last() == Some(&b'\n') {
        merged.pop();
    }
    Ok(merged.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_the_command_prints_is_the_value_without_its_last_line_break() {
        let merged = merge("cat; echo; echo", b"{}", SOON).await.unwrap();
        assert_eq!(merged.as_ref(), b"{}\n");
    }

    #[tokio::test]
    async fn a_command_that_reads_nothing_still_merges() {
        let input = vec![b'x'; 1 << 20];
        let merged = merge("echo merged", &input, SOON).await.unwrap();
        assert_eq!(merged.as_ref(), b"merged");
    }

    #[tokio::test]
    async fn a_command_that_fails_or_hangs_resolves_nothing() {
        assert!(merge("echo x; exit 3", b"", SOON).await.is_err());
        assert!(
            merge("sleep 60", b"", Duration::from_millis(50))
                .await
                .is_err()
        );
    }

    #[test]
    fn an_unknown_dot_is_refused_and_the_known_ones_named() {
        let failure = choose(&[], "a.1:1").unwrap_err();
        assert_eq!(failure.code(), 2);
    }
}
