//! `keyspace`: create, show, list, delete.

use std::time::{Duration, Instant};

use meridian_client::proto::admin::v1 as wire;
use meridian_client::{Admin, ErrorKind};

use super::alter;
use crate::app::App;
use crate::args::{AlterArgs, KeyspaceCommand, PolicyArgs};
use crate::exit::{Done, Outcome};
use crate::{human, json};

const POLL_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) async fn run(app: &mut App<'_>, command: KeyspaceCommand) -> Outcome {
    let admin = app.client().await?.admin();
    let keyspaces = match command {
        KeyspaceCommand::Create {
            name,
            policy,
            shards,
        } => {
            let request = wire::KeyspaceCreateRequest {
                name,
                mode: String::new(),
                shards,
                policy: Some(policy.to_wire()),
            };
            let created = admin
                .any_node(|node| {
                    let request = request.clone();
                    async move { node.keyspace_create(request).await }
                })
                .await?;
            wait_until_known(app, &admin, &request.name).await;
            created.keyspace.into_iter().collect()
        }
        KeyspaceCommand::Alter(args) => return Box::pin(alter::run(app, &admin, args)).await,
        KeyspaceCommand::Show { name } => {
            let request = wire::KeyspaceShowRequest { name };
            let shown = admin
                .any_node(|node| {
                    let request = request.clone();
                    async move { node.keyspace_show(request).await }
                })
                .await?;
            shown.keyspace.into_iter().collect()
        }
        KeyspaceCommand::List => {
            let listed = admin
                .any_node(
                    |node| async move { node.keyspace_list(wire::KeyspaceListRequest {}).await },
                )
                .await?;
            listed.keyspaces
        }
        KeyspaceCommand::Delete { name } => {
            let request = wire::KeyspaceDeleteRequest { name };
            admin
                .any_node(|node| {
                    let request = request.clone();
                    async move { node.keyspace_delete(request).await }
                })
                .await?;
            app.out.hint("deleted");
            Vec::new()
        }
    };
    show(app, &keyspaces)?;
    Ok(Done::AsAsked)
}

pub(super) fn show(app: &mut App<'_>, keyspaces: &[wire::Keyspace]) -> std::io::Result<()> {
    if app.out.json {
        for keyspace in keyspaces {
            app.out.object(&json::keyspace(keyspace))?;
        }
        return Ok(());
    }
    if keyspaces.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = keyspaces
        .iter()
        .map(|keyspace| {
            [
                keyspace.name.clone(),
                keyspace.mode.clone(),
                keyspace.shards.to_string(),
                details(keyspace),
            ]
        })
        .collect();
    app.out
        .line(&human::table(["keyspace", "mode", "shards", ""], &rows))
}

/// Moves a keyspace's home: an alter that names nothing else.
pub(crate) async fn failover(
    app: &mut App<'_>,
    name: String,
    to: String,
    wait: Duration,
) -> Outcome {
    let admin = app.client().await?.admin();
    let policy = PolicyArgs {
        home: Some(to),
        ..PolicyArgs::default()
    };
    let args = AlterArgs {
        name,
        policy,
        no_max_lag: false,
        cancel: false,
        no_wait: false,
        wait,
    };
    Box::pin(alter::run(app, &admin, args)).await
}

/// What its policy says beyond the mode, as the flags that would say it.
fn details(keyspace: &wire::Keyspace) -> String {
    let policy = keyspace.policy.clone().unwrap_or_default();
    let millis = human::millis;
    let read_level = Some(human::read_level(&policy)).filter(|level| level != "linearizable");
    let flags = [
        ("zones", policy.zones.join(",")),
        ("ack", policy.ack),
        ("on-zone-loss", policy.on_zone_loss),
        ("home", policy.home),
        ("interval", millis(policy.interval_ms)),
        ("max-lag", millis(policy.max_lag_ms)),
        ("on-breach", policy.on_breach),
        ("read-level", read_level.unwrap_or_default()),
    ];
    let said = flags.iter().filter(|(_, value)| !value.is_empty());
    let mut said: Vec<_> = said
        .map(|(flag, value)| format!("--{flag} {value}"))
        .collect();
    if let Some(altering) = &keyspace.altering {
        let to = altering.to.clone().unwrap_or_default().mode;
        said.push(format!(
            "(becomes {to}: {} of {} groups filled, {} of {} sealed, {} ready; waits for {})",
            altering.filled,
            altering.successor_groups,
            altering.sealed,
            altering.old_groups,
            altering.ready,
            altering.waits_for.join(", ")
        ));
    }
    said.join(" ")
}

/// Waits until every node that answers knows the keyspace, so that the next command may go to any of them.
async fn wait_until_known(app: &mut App<'_>, admin: &Admin, name: &str) {
    let until = Instant::now() + app.settings.timeout;
    while Instant::now() < until {
        let request = wire::KeyspaceShowRequest {
            name: name.to_owned(),
        };
        let answers = admin
            .each_node(|node| {
                let request = request.clone();
                async move { node.keyspace_show(request).await }
            })
            .await;
        let unknown = answers.iter().any(|(_, answer)| {
            let error = answer.as_ref().err();
            error.is_some_and(|error| error.kind() == ErrorKind::NotFound)
        });
        if !unknown {
            return;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    app.out.hint("note: not every node knows the keyspace yet");
}
