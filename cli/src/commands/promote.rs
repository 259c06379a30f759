//! `promote`: makes a mirror the home zone while the old one is not there to agree. `divergence`: what the mirror lacked.

use meridian_client::Admin;
use meridian_client::proto::admin::v1 as wire;

use super::alter;
use crate::app::App;
use crate::args::{DivergenceArgs, PromoteArgs};
use crate::exit::{Done, Outcome};
use crate::{human, json};

/// Promotes, and shows the keyspace and what its mirror lacked.
pub(super) async fn promote(app: &mut App<'_>, args: PromoteArgs) -> Outcome {
    let admin = app.client().await?.admin();
    let request = wire::KeyspaceAlterRequest {
        name: args.keyspace,
        promote: args.zone.unwrap_or_default(),
        force: args.force,
        cancel: args.cancel,
        ..wire::KeyspaceAlterRequest::default()
    };
    let wait = (!args.no_wait && !args.cancel).then_some(args.wait);
    let keyspace = Box::pin(alter::carry_out(app, &admin, request, wait)).await?;
    super::keyspace::show(app, std::slice::from_ref(&keyspace))?;
    if let Some(divergence) = keyspace.divergence.as_ref().filter(|_| !app.out.json) {
        app.out
            .line(&human::divergence(&keyspace.name, divergence))?;
    }
    Ok(Done::AsAsked)
}

/// Reports what a promoted mirror lacked, and lists what has come back.
pub(super) async fn divergence(app: &mut App<'_>, args: DivergenceArgs) -> Outcome {
    let admin = app.client().await?.admin();
    if args.give_up {
        let request = wire::KeyspaceAlterRequest {
            name: args.keyspace.clone(),
            give_up_return: true,
            ..wire::KeyspaceAlterRequest::default()
        };
        Box::pin(alter::carry_out(app, &admin, request, None)).await?;
    }
    let request = wire::KeyspaceShowRequest {
        name: args.keyspace.clone(),
    };
    let shown = admin
        .any_node(|node| {
            let request = request.clone();
            async move { node.keyspace_show(request).await }
        })
        .await?;
    let keyspace = shown.keyspace.unwrap_or_default();
    let Some(divergence) = keyspace.divergence else {
        app.out.hint("no mirror of it was promoted");
        return Ok(Done::AsAsked);
    };
    if app.out.json {
        app.out
            .object(&json::divergence(&keyspace.name, &divergence))?;
    } else {
        app.out
            .line(&human::divergence(&keyspace.name, &divergence))?;
    }
    for shard in 0..keyspace.shards {
        list(
            app,
            &admin,
            (&keyspace.name, shard),
            args.limit.unwrap_or(u64::MAX),
        )
        .await?;
    }
    Ok(Done::AsAsked)
}

/// What has come back to one shard, a page at a time.
async fn list(
    app: &mut App<'_>,
    admin: &Admin,
    (keyspace, shard): (&str, u32),
    limit: u64,
) -> Outcome {
    let mut request = wire::ReturnedRequest {
        keyspace: keyspace.to_owned(),
        shard,
        ..wire::ReturnedRequest::default()
    };
    let mut left = limit;
    let mut counted = false;
    loop {
        let page = admin
            .any_node(|node| {
                let request = request.clone();
                async move { node.returned(request).await }
            })
            .await?;
        if !counted && page.writes > 0 {
            if app.out.json {
                app.out.object(&json::returned_counts(shard, &page))?;
            } else {
                app.out.line(&human::returned_counts(shard, &page))?;
            }
        }
        counted = true;
        for row in page.rows {
            if left == 0 {
                return Ok(Done::AsAsked);
            }
            left -= 1;
            if app.out.json {
                app.out.object(&json::returned(shard, &row))?;
            } else {
                app.out.line(&human::returned(&row))?;
            }
        }
        if page.next.is_empty() {
            return Ok(Done::AsAsked);
        }
        request.from = page.next;
    }
}
