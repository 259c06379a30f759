//! How results look to people.

use std::io;
use std::time::Duration;

use meridian_client::proto::admin::v1 as admin;
use meridian_client::{Effect, Error, Sibling, Versions, WatchEvent, Written};

use crate::exit::Failure;
use crate::json;

/// Characters of a value in a list.
const VALUE_CHARS_MAX: usize = 60;

/// A key or value in a sentence: text as it is, other bytes by their size.
pub(crate) fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_not_text) => format!("<{} bytes>", bytes.len()),
    }
}

/// A value in a list: one line, cut where it is long.
pub(crate) fn short(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return format!("<{} bytes>", bytes.len());
    };
    let mut shown: String = text
        .chars()
        .take(VALUE_CHARS_MAX)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(VALUE_CHARS_MAX).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

/// Milliseconds as a flag takes them; nothing for none.
pub(crate) fn millis(ms: u64) -> String {
    match ms {
        0 => String::new(),
        ms if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

/// The default read level of a keyspace, as `--level` takes it.
pub(crate) fn read_level(policy: &admin::Policy) -> String {
    match policy.read_level.as_str() {
        "" => "linearizable".to_owned(),
        "bounded" => format!("bounded:{}", millis(policy.read_max_age_ms)),
        "zones" => format!("zones:{}", policy.read_zones),
        word => word.to_owned(),
    }
}

/// `12 ms`, `3.4 s`, `5 min`, `2 h`, `3 d`.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0 => format!("{} ms", age.as_millis()),
        1..60 => format!("{:.1} s", age.as_secs_f64()),
        60..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// One change on one line, the revision last.
pub(crate) fn event(event: &WatchEvent) -> String {
    let what = match &event.value {
        Some(value) => short(value),
        None if event.expired => "expired".to_owned(),
        None => "deleted".to_owned(),
    };
    let part = match event.transaction {
        Some((id, parts)) => format!("  transaction {id:032x} of {parts} shards"),
        None => String::new(),
    };
    let (key, zone, dot) = (text(&event.key), &event.zone, &event.dot);
    format!("{key}  {what}  {zone}  {dot}{part}  {}", event.revision)
}

fn sibling(sibling: &Sibling) -> String {
    let value = if sibling.deleted {
        "deleted".to_owned()
    } else {
        short(&sibling.value)
    };
    let dots = if sibling.dots.is_empty() {
        sibling.dot.clone()
    } else {
        sibling.dots.join(" + ")
    };
    let (zone, age) = (&sibling.zone, age(sibling.age));
    let held = match sibling.held_by.as_slice() {
        [] => String::new(),
        zones => format!("   held by {}", zones.join(", ")),
    };
    format!("  {value}   {zone}, {age} ago   [{dots}]{held}")
}

/// The answer to a get.
pub(crate) fn versions(versions: &Versions) -> String {
    let key = text(&versions.key);
    if !versions.found && versions.siblings.is_empty() {
        return format!("{key}: not found");
    }
    if let (Some(value), [only]) = (versions.value(), versions.siblings.as_slice()) {
        let (zone, age) = (&only.zone, age(only.age));
        return format!("{}\n  {zone}, {age} ago   [{}]", text(value), only.dot);
    }
    let mut lines = vec![format!("{key}: {} siblings", versions.siblings.len())];
    lines.extend(versions.siblings.iter().map(sibling));
    lines.push(format!("  context {}", versions.context));
    lines.join("\n")
}

/// One key of a scan.
pub(crate) fn entry(versions: &Versions) -> String {
    let key = text(&versions.key);
    if let Some(value) = versions.value() {
        return format!("{key}\t{}", text(value));
    }
    let siblings: Vec<_> = versions.siblings.iter().map(sibling).collect();
    let count = siblings.len();
    format!("{key}\t{count} siblings:\n{}", siblings.join("\n"))
}

/// The answer to a write.
pub(crate) fn written(written: &Written) -> String {
    let receipt = &written.receipt;
    let degraded = if receipt.degraded { " DEGRADED" } else { "" };
    let zones = receipt.zones.join(", ");
    format!("ok{degraded}   durable in {zones}   [{}]", receipt.dot)
}

/// An error of the cluster, in one line.
pub(crate) fn error(error: &Error) -> String {
    let effect = match error.effect() {
        Effect::None => "no effect",
        Effect::Applied => "applied",
        Effect::Unknown => "outcome unknown",
    };
    let mut line = format!("{} ({}, {effect})", error.message(), error.reason());
    if let (Effect::Applied | Effect::Unknown, Some(op_id)) = (error.effect(), error.op_id()) {
        line.extend(["; op id ".to_owned(), op_id.to_string()]);
    }
    line
}

/// `None` when there is nothing (more) to say.
pub(crate) fn failure(failure: &Failure) -> Option<String> {
    match failure {
        Failure::Client(client) => Some(format!("error: {}", error(client))),
        Failure::Usage(message) | Failure::Other(message) => Some(format!("error: {message}")),
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
        Failure::Output(error) => Some(format!("error: {error}")),
        Failure::Said(_) => None,
    }
}

/// Columns aligned by spaces; numbers are the caller's to align.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|name| name.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<_> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(head.to_vec())];
    lines.extend(
        rows.iter()
            .map(|row| line(row.iter().map(String::as_str).collect())),
    );
    lines.join("\n")
}

/// The mirror in one zone.
pub(crate) fn mirror(keyspace: &str, zone: &admin::ZoneMirror) -> String {
    let shown = match zone.generation {
        0 => "shows nothing yet".to_owned(),
        generation => format!(
            "generation {generation}, {} ms old, {} keys and {} bytes shipped for it",
            zone.age_ms, zone.keys, zone.bytes
        ),
    };
    let receiving = if zone.receiving {
        format!("; receiving, {} bytes so far", zone.received_bytes)
    } else {
        String::new()
    };
    let heard = if zone.heard { "" } else { "; not heard of" };
    format!("{keyspace} in {}: {shown}{receiving}{heard}", zone.zone)
}

/// What a promoted mirror lacked.
pub(crate) fn divergence(keyspace: &str, divergence: &admin::Divergence) -> String {
    let heard = match divergence.heard_time_ms {
        0 => "not heard of since its mirror's node has started".to_owned(),
        heard => format!("last heard at {}", json::time(heard)),
    };
    let lacking = match divergence.lacking_keys {
        0 => String::new(),
        keys => {
            format!("; {keys} keys of a later cut, which was not whole, are known to be lacking")
        }
    };
    let returned = match divergence.returned.as_str() {
        "whole" => "all it wrote has come back",
        "given_up" => "what it wrote later is given up",
        _ => "what it wrote later is awaited",
    };
    format!(
        "{keyspace} was made of generation {}, cut at {}; the old home {} was {heard}{lacking}; {returned}",
        divergence.generation,
        json::time(divergence.cut_time_ms),
        divergence.old_home,
    )
}

/// How much has come back to a shard.
pub(crate) fn returned_counts(shard: u32, page: &admin::ReturnedResponse) -> String {
    format!(
        "shard {shard}: {} writes after the cut, {} versions came back, to {} keys",
        page.writes, page.versions, page.keys
    )
}

/// A key to which writes came back.
pub(crate) fn returned(row: &admin::ReturnedKey) -> String {
    let writes = row.writes.iter();
    let writes: Vec<String> = writes
        .map(|write| format!("{} of {}:{}", write.became, write.zone, write.counter))
        .collect();
    format!("  {}  {}", short(&row.key), writes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        assert_eq!(age(Duration::from_millis(12)), "12 ms");
        assert_eq!(age(Duration::from_millis(3_400)), "3.4 s");
        assert_eq!(age(Duration::from_mins(5)), "5 min");
        assert_eq!(age(Duration::from_hours(72)), "3 d");
    }

    #[test]
    fn long_and_strange_values_stay_on_one_line() {
        assert_eq!(short(b"a\nb"), "\"a\\nb\"");
        assert_eq!(short(&[0xff]), "<1 bytes>");
        assert_eq!(short("ä".repeat(100).as_bytes()).chars().count(), 63);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["x".to_owned(), "1".to_owned()]];
        assert_eq!(table(["zone", "n"], &rows), "zone  n\nx     1");
    }
}
