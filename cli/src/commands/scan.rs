//! `scan`: keys in order.

use meridian_client::ScanQuery;

use crate::app::{App, Session};
use crate::args::ScanArgs;
use crate::exit::{Done, Outcome};
use crate::{human, json};

const PAGE_KEYS: u32 = 1000;

pub(crate) async fn run(app: &mut App<'_>, args: ScanArgs) -> Outcome {
    let session = Session::of(&app.settings)?;
    let read = app.read_options(args.range.level, &session)?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    if left == 0 {
        return Ok(Done::AsAsked);
    }
    let query = ScanQuery {
        page_size: u32::try_from(left).unwrap_or(PAGE_KEYS).min(PAGE_KEYS),
        keys_only: args.keys_only,
        ..args.range.query(read)
    };
    let mut scan = app.client().await?.scan(query);
    while let Some(page) = scan.next_page().await? {
        let mut lines = String::new();
        for entry in page.entries {
            if left == 0 {
                break;
            }
            left -= 1;
            let line = match (app.out.json, args.keys_only) {
                (true, true) => json::key_only(&entry).to_string(),
                (true, false) => json::entry(&entry).to_string(),
                (false, true) => human::text(&entry.key),
                (false, false) => human::entry(&entry),
            };
            lines.push_str(&line);
            lines.push('\n');
        }
        app.out.bytes(lines.as_bytes())?;
        if left == 0 {
            break;
        }
    }
    Ok(Done::AsAsked)
}
