//! `watch`: changes as they come.

use meridian_client::{WatchEvent, WatchKeys, WatchQuery};
use tokio::signal::ctrl_c;

use crate::app::{App, bytes_of, key_of};
use crate::args::WatchArgs;
use crate::exit::{Done, Failure, Outcome};
use crate::{human, json};

/// Shows changes until as many as asked for have come, or the user has seen enough.
pub(crate) async fn run(app: &mut App<'_>, args: WatchArgs) -> Outcome {
    let query = query(&args)?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut watch = app.client().await?.watch(query);
    while left > 0 {
        let batch = tokio::select! {
            batch = watch.next_batch() => batch?,
            _ = ctrl_c() => return Ok(Done::AsAsked),
        };
        let mut lines = String::new();
        for event in batch.events {
            if left == 0 {
                break;
            }
            left -= 1;
            lines.push_str(&line(&event, app.out.json));
            lines.push('\n');
        }
        if !lines.is_empty() {
            app.out.bytes(lines.as_bytes())?;
        }
    }
    Ok(Done::AsAsked)
}

fn query(args: &WatchArgs) -> Result<WatchQuery, Failure> {
    let keys = match (&args.key, &args.prefix) {
        (Some(key), _) => WatchKeys::Key(key_of(key, args.key_base64)?),
        (None, Some(prefix)) => WatchKeys::Prefix(bytes_of(prefix)),
        (None, None) => return Err(Failure::usage("watch KEY, or --prefix P")),
    };
    Ok(WatchQuery {
        keys,
        from: args.from.clone().unwrap_or_default(),
    })
}

fn line(event: &WatchEvent, as_json: bool) -> String {
    if as_json {
        json::event(event).to_string()
    } else {
        human::event(event)
    }
}
