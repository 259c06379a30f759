//! `mirror`: what zones mirror of a keyspace, and a cut on demand.

use meridian_client::proto::admin::v1 as wire;

use crate::app::App;
use crate::args::MirrorCommand;
use crate::exit::{Done, Outcome};
use crate::{human, json};

pub(crate) async fn run(app: &mut App<'_>, command: MirrorCommand) -> Outcome {
    let (keyspace, now) = match command {
        MirrorCommand::Status { keyspace } => (keyspace, false),
        MirrorCommand::Now { keyspace } => (keyspace, true),
        MirrorCommand::Promote(args) => return Box::pin(super::promote::promote(app, args)).await,
    };
    let admin = app.client().await?.admin();
    let request = wire::MirrorRequest {
        keyspace: keyspace.clone(),
        now,
    };
    let mirrors = admin
        .any_node(|node| {
            let request = request.clone();
            async move { node.mirror(request).await }
        })
        .await?;
    for zone in &mirrors.zones {
        if app.out.json {
            app.out.object(&json::mirror(&keyspace, &mirrors, zone))?;
        } else {
            app.out.line(&human::mirror(&keyspace, zone))?;
        }
    }
    Ok(Done::AsAsked)
}
