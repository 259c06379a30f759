//! `lease`: acquire, renew, end, show. For scripts that keep a lease themselves; `lock` keeps one for a command.

use std::time::Duration;

use meridian_client::{LeaseOptions, LeaseRef, LeaseShown};

use crate::app::{App, bytes_of};
use crate::args::{HoldArgs, LeaseCommand};
use crate::exit::{Done, Outcome};
use crate::{human, json};

pub(crate) async fn run(app: &mut App<'_>, command: LeaseCommand) -> Outcome {
    let client = app.client().await?;
    match command {
        LeaseCommand::Acquire(args) => {
            let held = client
                .lease_acquire(bytes_of(&args.name), &options(&args))
                .await?;
            print(app, &held.lease, held.ttl, None)
        }
        LeaseCommand::Renew { lease } => {
            let held = client.lease_renew(&lease).await?;
            print(app, &held.lease, held.ttl, None)
        }
        LeaseCommand::End { lease } => {
            client.lease_end(&lease).await?;
            app.out.hint("ended");
            Ok(Done::AsAsked)
        }
        LeaseCommand::Show { name } => show(app, client.lease_show(bytes_of(&name)).await?),
    }
}

fn show(app: &mut App<'_>, shown: Option<LeaseShown>) -> Outcome {
    let Some(shown) = shown else {
        app.out.hint("nobody holds it");
        return Ok(Done::NotFound);
    };
    print(app, &shown.lease, shown.ttl, Some(shown.acquired_at_ms))
}

/// How the lease of these arguments is taken.
pub(super) fn options(args: &HoldArgs) -> LeaseOptions {
    LeaseOptions {
        ttl: args.ttl,
        wait: args.wait,
        op_id: None,
    }
}

fn print(
    app: &mut App<'_>,
    lease: &LeaseRef,
    ttl: Duration,
    acquired_at_ms: Option<u64>,
) -> Outcome {
    if app.out.json {
        app.out.object(&json::lease(lease, ttl, acquired_at_ms))?;
    } else {
        let name = human::text(&lease.name);
        let ttl = humantime::format_duration(ttl);
        app.out
            .line(&format!("{name}:{}   for {ttl}", lease.token))?;
    }
    Ok(Done::AsAsked)
}
