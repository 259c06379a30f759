//! `lag` and `digest`: one node of each zone is asked, and the answers stand side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use meridian_client::proto::admin::v1 as wire;
use meridian_client::{Admin, Failed};

use crate::app::App;
use crate::args::WaitArgs;
use crate::exit::{Done, Failure, Outcome};
use crate::{human, json};

const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Rows of the zones that answered, and why the others did not.
struct Rows<T> {
    rows: Vec<T>,
    failed: Vec<Failed>,
}

impl<T> Rows<T> {
    fn from<A>(answers: Vec<Result<A, Failed>>, rows_of: impl Fn(A) -> Vec<T>) -> Self {
        let mut all = Self {
            rows: Vec::new(),
            failed: Vec::new(),
        };
        for answer in answers {
            match answer {
                Ok(answer) => all.rows.extend(rows_of(answer)),
                Err(failed) => all.failed.push(failed),
            }
        }
        all
    }
}

pub(crate) async fn lag(app: &mut App<'_>, args: WaitArgs) -> Outcome {
    let admin = app.client().await?.admin();
    let keyspace = app.settings.keyspace.clone().unwrap_or_default();
    let until = Instant::now() + args.wait.unwrap_or_default();
    loop {
        let all = ask_lag(&admin, &keyspace).await;
        let settled = all.failed.is_empty() && all.rows.iter().all(|row| row.entries == 0);
        if settled || Instant::now() >= until {
            show_lag(app, &all.rows)?;
            return finish(app, &all.failed, settled || args.wait.is_none());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn ask_lag(admin: &Admin, keyspace: &str) -> Rows<wire::LagRow> {
    let request = wire::LagRequest {
        keyspace: keyspace.to_owned(),
    };
    let answers = admin
        .each_zone(|node| {
            let request = request.clone();
            async move { node.lag(request).await }
        })
        .await;
    Rows::from(answers, |answer| answer.rows)
}

fn show_lag(app: &mut App<'_>, rows: &[wire::LagRow]) -> std::io::Result<()> {
    if app.out.json {
        for row in rows {
            app.out.object(&json::lag(row))?;
        }
        return Ok(());
    }
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            [
                row.from.clone(),
                row.to.clone(),
                row.keyspace.clone(),
                format!("{} ms", row.lag_ms),
                row.entries.to_string(),
                row.bytes.to_string(),
            ]
        })
        .collect();
    let head = ["from", "to", "keyspace", "lag", "entries", "bytes"];
    app.out.line(&human::table(head, &cells))
}

pub(crate) async fn digest(app: &mut App<'_>, args: WaitArgs) -> Outcome {
    let admin = app.client().await?.admin();
    let keyspace = app.settings.keyspace.clone().unwrap_or_default();
    let until = Instant::now() + args.wait.unwrap_or_default();
    loop {
        let all = ask_digest(&admin, &keyspace).await;
        let equal = all.failed.is_empty() && differing(&all.rows).is_empty();
        if equal || Instant::now() >= until {
            show_digest(app, &all.rows)?;
            return finish(app, &all.failed, equal || args.wait.is_none());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn ask_digest(admin: &Admin, keyspace: &str) -> Rows<wire::DigestRow> {
    let request = wire::DigestRequest {
        keyspace: keyspace.to_owned(),
    };
    let answers = admin
        .each_zone(|node| {
            let request = request.clone();
            async move { node.digest(request).await }
        })
        .await;
    Rows::from(answers, |answer| answer.rows)
}

fn show_digest(app: &mut App<'_>, rows: &[wire::DigestRow]) -> std::io::Result<()> {
    if app.out.json {
        for row in rows {
            app.out.object(&json::digest(row))?;
        }
        return Ok(());
    }
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            [
                row.zone.clone(),
                row.keyspace.clone(),
                row.keys.to_string(),
                row.conflicts.to_string(),
                row.digest.clone(),
            ]
        })
        .collect();
    let head = ["zone", "keyspace", "keys", "conflicts", "digest"];
    app.out.line(&human::table(head, &cells))?;
    let different = differing(rows);
    if different.is_empty() {
        app.out.hint("all zones hold the same");
    } else {
        let names: Vec<_> = different.into_iter().collect();
        app.out
            .hint(&format!("zones differ in {}", names.join(", ")));
    }
    Ok(())
}

/// Keyspaces whose digest is not the same in every zone that answered.
fn differing(rows: &[wire::DigestRow]) -> BTreeSet<&str> {
    let mut digests: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        digests
            .entry(&row.keyspace)
            .or_default()
            .insert(&row.digest);
        *zones.entry(&row.keyspace).or_default() += 1;
    }
    let most = zones.values().copied().max().unwrap_or_default();
    let same = |name: &&str| {
        digests.get(*name).is_some_and(|found| found.len() == 1)
            && zones.get(*name).copied() == Some(most)
    };
    digests.keys().copied().filter(|name| !same(name)).collect()
}

fn finish(app: &mut App<'_>, failed: &[Failed], reached: bool) -> Outcome {
    for failed in failed {
        if app.out.json {
            app.out.note(&json::error(&failed.error).to_string());
        } else {
            let error = human::error(&failed.error);
            app.out.note(&format!("zone {}: {error}", failed.zone));
        }
    }
    if failed.is_empty() && reached {
        Ok(Done::AsAsked)
    } else {
        Err(Failure::incomplete())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(zone: &str, keyspace: &str, digest: &str) -> wire::DigestRow {
        wire::DigestRow {
            zone: zone.to_owned(),
            keyspace: keyspace.to_owned(),
            digest: digest.to_owned(),
            ..wire::DigestRow::default()
        }
    }

    #[test]
    fn equal_digests_of_all_zones_do_not_differ() {
        let rows = [
            row("a", "k", "1"),
            row("b", "k", "1"),
            row("a", "l", "2"),
            row("b", "l", "2"),
        ];
        assert!(differing(&rows).is_empty());
    }

    #[test]
    fn a_keyspace_that_one_zone_lacks_or_holds_differently_differs() {
        let rows = [row("a", "k", "1"), row("b", "k", "3"), row("a", "l", "2")];
        let names: Vec<_> = differing(&rows).into_iter().collect();
        assert_eq!(names, ["k", "l"]);
    }
}
