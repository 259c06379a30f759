//! `conflicts`: keys that hold several siblings.

use std::time::Duration;

use meridian_client::{ScanQuery, Versions};
use serde_json::json;

use crate::app::{App, Session};
use crate::args::ConflictsArgs;
use crate::exit::{Done, Outcome};
use crate::{human, json};

pub(crate) async fn run(app: &mut App<'_>, args: ConflictsArgs) -> Outcome {
    let session = Session::of(&app.settings)?;
    let read = app.read_options(args.range.level, &session)?;
    let query = ScanQuery {
        keys_only: true,
        conflicts_only: true,
        ..args.range.query(read)
    };
    let mut scan = app.client().await?.scan(query);
    let mut count: u64 = 0;
    while let Some(page) = scan.next_page().await? {
        for versions in &page.entries {
            count += 1;
            if !args.count {
                show(app, versions)?;
            }
        }
    }
    if args.count && app.out.json {
        app.out.object(&json!({"conflicts": count}))?;
    } else if args.count {
        app.out.line(&count.to_string())?;
    } else if !app.out.json {
        app.out.hint(&format!("{count} keys in conflict"));
    }
    Ok(Done::AsAsked)
}

fn show(app: &mut App<'_>, versions: &Versions) -> std::io::Result<()> {
    let zones = zones_of(versions);
    let age = youngest(versions);
    if app.out.json {
        return app.out.object(&json::conflict(versions, &zones, age));
    }
    let line = format!(
        "{}\t{} siblings\t{}\t{} ago",
        human::text(&versions.key),
        versions.siblings.len(),
        zones.join(", "),
        human::age(age),
    );
    app.out.line(&line)
}

/// Zones that wrote the siblings, each once.
fn zones_of(versions: &Versions) -> Vec<&str> {
    let mut zones: Vec<_> = versions
        .siblings
        .iter()
        .map(|sibling| sibling.zone.as_str())
        .collect();
    zones.sort_unstable();
    zones.dedup();
    zones
}

/// Age of the youngest sibling: how long the conflict has stood as it is.
fn youngest(versions: &Versions) -> Duration {
    let ages = versions.siblings.iter().map(|sibling| sibling.age);
    ages.min().unwrap_or_default()
}
