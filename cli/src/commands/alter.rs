//! `keyspace alter`: changes how a keyspace is replicated, and waits until it is so.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use meridian_client::proto::admin::v1 as wire;
use meridian_client::{Admin, ErrorKind};

use crate::app::App;
use crate::args::AlterArgs;
use crate::exit::{Done, Outcome};

const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Alters, and shows the keyspace as it is then.
pub(super) async fn run(app: &mut App<'_>, admin: &Admin, alter: AlterArgs) -> Outcome {
    let request = wire::KeyspaceAlterRequest {
        name: alter.name.clone(),
        policy: Some(alter.policy.to_wire()),
        no_max_lag: alter.no_max_lag,
        cancel: alter.cancel,
        ..wire::KeyspaceAlterRequest::default()
    };
    let wait = (!alter.no_wait && !alter.cancel).then_some(alter.wait);
    let keyspace = Box::pin(carry_out(app, admin, request, wait)).await?;
    super::keyspace::show(app, &[keyspace])?;
    Ok(Done::AsAsked)
}

/// Asks for an alter, and waits so long until it is done, if at all.
pub(super) async fn carry_out(
    app: &App<'_>,
    admin: &Admin,
    request: wire::KeyspaceAlterRequest,
    wait: Option<Duration>,
) -> Result<wire::Keyspace, crate::exit::Failure> {
    let name = request.name.clone();
    let answer = admin
        .any_node(|node| {
            let request = request.clone();
            async move { node.keyspace_alter(request).await }
        })
        .await?;
    let keyspace = answer.keyspace.unwrap_or_default();
    match wait {
        Some(wait) => settled(app, admin, (&name, wait), keyspace).await,
        None => Ok(keyspace),
    }
}

/// Looks after which an alter that no node knows any more counts as given up: the first may have gone to nodes that had not heard
/// of it yet.
const GONE_POLLS: u32 = 3;

/// Waits until every node that answers has the keyspace at the epoch it is to have.
async fn settled(
    app: &App<'_>,
    admin: &Admin,
    (name, wait): (&str, Duration),
    begun: wire::Keyspace,
) -> Result<wire::Keyspace, crate::exit::Failure> {
    let epoch = epoch_to_come(&begun);
    let bar = progress_bar(app, &begun);
    let until = Instant::now() + wait;
    let mut seen = begun;
    let mut gone = 0;
    loop {
        let request = wire::KeyspaceShowRequest {
            name: name.to_owned(),
        };
        let answers = admin
            .each_node(|node| {
                let request = request.clone();
                async move { node.keyspace_show(request).await }
            })
            .await;
        let answers: Vec<_> = answers.into_iter().map(|(_, answer)| answer).collect();
        let behind = answers.iter().any(|answer| match answer {
            Ok(shown) => shown
                .keyspace
                .as_ref()
                .is_none_or(|at| epoch_of(at) < epoch),
            Err(error) => error.kind() == ErrorKind::NotFound,
        });
        let told = answers
            .into_iter()
            .filter_map(|answer| answer.ok()?.keyspace);
        // The node that is furthest knows most.
        if let Some(newest) = told.max_by_key(|at| (epoch_of(at), stage_of(at))) {
            seen = newest;
            advance(&bar, &seen);
        }
        if !behind {
            bar.finish_and_clear();
            return Ok(seen);
        }
        gone = if is_gone(&seen, epoch) { gone + 1 } else { 0 };
        if gone >= GONE_POLLS {
            bar.finish_and_clear();
            return Err(given_up(name));
        }
        if Instant::now() >= until {
            bar.finish_and_clear();
            return Err(not_done(name, &seen));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Whether the node that is furthest knows of no alter and has not seen it come to its end.
fn is_gone(seen: &wire::Keyspace, epoch: u64) -> bool {
    seen.altering.is_none() && epoch_of(seen) < epoch
}

fn given_up(name: &str) -> crate::exit::Failure {
    crate::exit::Failure::Other(format!(
        "keyspace {name} stays as it was: somebody has cancelled this, or, if it is a promotion, the zone's mirror shows nothing of \
         the keyspace yet (kv mirror status)"
    ))
}

fn not_done(name: &str, keyspace: &wire::Keyspace) -> crate::exit::Failure {
    let waits = keyspace.altering.as_ref().map(|altering| {
        let stage = if altering.sealing {
            "sealing"
        } else {
            "filling"
        };
        format!(" ({stage}; waits for {})", altering.waits_for.join(", "))
    });
    crate::exit::Failure::Other(format!(
        "keyspace {name} is not altered yet{}: it goes on in the background; keyspace show tells how far it is, --cancel \
         gives it up",
        waits.unwrap_or_default()
    ))
}

fn epoch_of(keyspace: &wire::Keyspace) -> u64 {
    keyspace.policy.as_ref().map_or(0, |policy| policy.epoch)
}

fn epoch_to_come(keyspace: &wire::Keyspace) -> u64 {
    let to = keyspace
        .altering
        .as_ref()
        .and_then(|altering| altering.to.as_ref());
    to.map_or_else(|| epoch_of(keyspace), |to| to.epoch)
}

/// How far: groups that have passed a stage, over all stages.
fn stage_of(keyspace: &wire::Keyspace) -> u64 {
    let altering = keyspace.altering.as_ref();
    altering.map_or(0, |at| {
        u64::from(at.filled) + u64::from(at.sealed) + u64::from(at.ready)
    })
}

fn progress_bar(app: &App<'_>, keyspace: &wire::Keyspace) -> ProgressBar {
    let altering = keyspace.altering.clone().unwrap_or_default();
    let stages = 2 * u64::from(altering.successor_groups) + u64::from(altering.old_groups);
    let bar = ProgressBar::new(stages.max(1));
    if !app.out.progress || keyspace.altering.is_none() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent}% {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar
}

fn advance(bar: &ProgressBar, keyspace: &wire::Keyspace) {
    if let Some(altering) = &keyspace.altering {
        bar.set_position(stage_of(keyspace));
        bar.set_message(if altering.sealing {
            "sealing"
        } else {
            "filling"
        });
    }
}
