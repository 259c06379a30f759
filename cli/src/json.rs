//! The shapes of JSON that scripts rely on. Fields may be added, never renamed.

use std::io;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use meridian_client::proto::admin::v1 as admin;
use meridian_client::{
    Error, LeaseRef, ReadLevel, Receipt, ServedBy, SessionToken, Sibling, Versions, WatchEvent,
    WriteLevel, Written, ZoneMirrored,
};
use serde_json::{Map, Value, json};

use crate::exit::Failure;
use crate::human;

/// Sets `name`, or `name_base64` when the bytes are not UTF-8.
pub(crate) fn set_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_not_text) => object.insert(format!("{name}_base64"), BASE64.encode(bytes).into()),
    };
}

fn with_key(key: &[u8], rest: Value) -> Value {
    let mut object = Map::new();
    set_bytes(&mut object, "key", key);
    if let Value::Object(rest) = rest {
        object.extend(rest);
    }
    Value::Object(object)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn time(ms: u64) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms));
    // Year 9999 ends there; later times cannot be printed.
    let printable = time.filter(|_| ms < 253_402_300_800_000);
    printable.map_or_else(String::new, |time| {
        humantime::format_rfc3339_millis(time).to_string()
    })
}

pub(crate) fn read_level(level: ReadLevel) -> String {
    match level {
        ReadLevel::OfKeyspace => "default".to_owned(),
        ReadLevel::Linearizable => "linearizable".to_owned(),
        ReadLevel::Eventual => "eventual".to_owned(),
        ReadLevel::Session => "session".to_owned(),
        ReadLevel::Bounded(age) => format!("bounded:{}", humantime::format_duration(age)),
        ReadLevel::Zones(zones) => format!("zones:{zones}"),
    }
}

pub(crate) fn write_level(level: WriteLevel) -> String {
    match level {
        WriteLevel::Zone => "zone".to_owned(),
        WriteLevel::Zones(zones) => format!("zones:{zones}"),
        WriteLevel::All => "all".to_owned(),
    }
}

/// One change. `value` is left out of what was deleted.
pub(crate) fn event(event: &WatchEvent) -> Value {
    let mut object = Map::new();
    set_bytes(&mut object, "key", &event.key);
    if let Some(value) = &event.value {
        set_bytes(&mut object, "value", value);
    }
    object.insert("deleted".to_owned(), event.value.is_none().into());
    object.insert("expired".to_owned(), event.expired.into());
    object.insert("dot".to_owned(), event.dot.as_str().into());
    object.insert("zone".to_owned(), event.zone.as_str().into());
    object.insert("written_at".to_owned(), time(event.written_at_ms).into());
    if let Some((id, parts)) = event.transaction {
        let transaction = json!({ "id": format!("{id:032x}"), "parts": parts });
        object.insert("transaction".to_owned(), transaction);
    }
    object.insert("revision".to_owned(), event.revision.to_string().into());
    Value::Object(object)
}

/// `value` is left out of what was deleted.
pub(crate) fn sibling(sibling: &Sibling) -> Value {
    let mut object = Map::new();
    if sibling.deleted {
        object.insert("deleted".to_owned(), true.into());
    } else {
        set_bytes(&mut object, "value", &sibling.value);
    }
    object.insert("dot".to_owned(), sibling.dot.as_str().into());
    object.insert("zone".to_owned(), sibling.zone.as_str().into());
    object.insert("written_at".to_owned(), time(sibling.written_at_ms).into());
    object.insert("age_ms".to_owned(), millis(sibling.age).into());
    if let Some(op_id) = sibling.op_id {
        object.insert("op_id".to_owned(), op_id.to_string().into());
    }
    if !sibling.dots.is_empty() {
        object.insert("dots".to_owned(), sibling.dots.clone().into());
    }
    if !sibling.held_by.is_empty() {
        object.insert("held_by".to_owned(), sibling.held_by.clone().into());
    }
    Value::Object(object)
}

fn siblings(all: &[Sibling]) -> Value {
    all.iter().map(sibling).collect()
}

fn session(token: &SessionToken) -> String {
    token.to_string()
}

fn served_by(by: &ServedBy) -> Value {
    json!({"zone": by.zone, "node": by.node})
}

/// The answer to a get.
pub(crate) fn versions(versions: &Versions) -> Value {
    let mut rest = json!({
        "found": versions.found,
        "siblings": siblings(&versions.siblings),
        "context": versions.context.to_string(),
        "level": read_level(versions.level),
        "served_by": served_by(&versions.served_by),
        "staleness_ms": versions.staleness.map(millis),
        "session": session(&versions.session),
    });
    if let (false, Some(object)) = (versions.zones.is_empty(), rest.as_object_mut()) {
        object.insert("zones".to_owned(), versions.zones.clone().into());
        let mirrors = versions.mirrors.iter().map(zone_mirrored);
        object.insert("mirrors".to_owned(), mirrors.collect());
    }
    with_key(&versions.key, of_mirror(versions, rest))
}

fn zone_mirrored(shown: &ZoneMirrored) -> Value {
    json!({
        "zone": shown.zone,
        "generation": shown.mirror.generation,
        "cut_time_ms": shown.mirror.cut_time_ms,
        "age_ms": millis(shown.age),
    })
}

/// What a mirror says of itself, beside the rest.
fn of_mirror(versions: &Versions, mut rest: Value) -> Value {
    if let (Some(stamp), Some(object)) = (&versions.mirror, rest.as_object_mut()) {
        let shown = json!({
            "generation": stamp.generation,
            "cut_time_ms": stamp.cut_time_ms,
            "age_ms": versions.staleness.map(millis),
        });
        object.insert("mirror".to_owned(), shown);
    }
    rest
}

/// The mirror in one zone.
pub(crate) fn mirror(
    keyspace: &str,
    mirrors: &admin::MirrorResponse,
    zone: &admin::ZoneMirror,
) -> Value {
    let shown = zone.generation > 0;
    json!({
        "keyspace": keyspace,
        "home": mirrors.home,
        "interval_ms": mirrors.interval_ms,
        "zone": zone.zone,
        "generation": zone.generation,
        "cut_time_ms": shown.then_some(zone.cut_time_ms),
        "age_ms": shown.then_some(zone.age_ms),
        "bytes": zone.bytes,
        "keys": zone.keys,
        "receiving": zone.receiving,
        "received_bytes": zone.received_bytes,
        "heard_ms": zone.heard.then_some(zone.heard_ms),
    })
}

/// One key of a scan.
pub(crate) fn entry(versions: &Versions) -> Value {
    let rest = json!({
        "found": versions.found,
        "siblings": siblings(&versions.siblings),
        "context": versions.context.to_string(),
    });
    with_key(&versions.key, of_mirror(versions, rest))
}

/// One key of a scan without values.
pub(crate) fn key_only(versions: &Versions) -> Value {
    with_key(&versions.key, json!({}))
}

/// One key in conflict.
pub(crate) fn conflict(versions: &Versions, zones: &[&str], age: Duration) -> Value {
    let rest = json!({
        "count": versions.siblings.len(),
        "zones": zones,
        "age_ms": millis(age),
    });
    with_key(&versions.key, rest)
}

/// What a merge command gets on its standard input.
pub(crate) fn merge_input(versions: &Versions) -> Value {
    with_key(
        &versions.key,
        json!({"siblings": siblings(&versions.siblings)}),
    )
}

fn receipt(receipt: &Receipt) -> Value {
    json!({
        "dot": receipt.dot,
        "mode": receipt.mode,
        "level": write_level(receipt.level),
        "zones": receipt.zones,
        "degraded": receipt.degraded,
        "epoch": receipt.epoch,
        "op_id": receipt.op_id.map(|op_id| op_id.to_string()),
    })
}

/// A write of a transaction.
pub(crate) fn part(key: &[u8], done: &Receipt) -> Value {
    with_key(key, json!({"receipt": receipt(done)}))
}

/// The answer to a write.
pub(crate) fn written(written: &Written) -> Value {
    let rest = json!({
        "receipt": receipt(&written.receipt),
        "context": written.context.to_string(),
        "session": session(&written.session),
    });
    with_key(&written.key, rest)
}

pub(crate) fn lease(lease: &LeaseRef, ttl: Duration, acquired_at_ms: Option<u64>) -> Value {
    let mut object = Map::new();
    set_bytes(&mut object, "name", &lease.name);
    object.insert("token".to_owned(), lease.token.into());
    object.insert("ttl_ms".to_owned(), millis(ttl).into());
    if let Some(acquired_at_ms) = acquired_at_ms {
        object.insert("acquired_at".to_owned(), time(acquired_at_ms).into());
    }
    Value::Object(object)
}

pub(crate) fn keyspace(keyspace: &admin::Keyspace) -> Value {
    let mut shown = json!({
        "name": keyspace.name,
        "id": keyspace.id,
        "mode": keyspace.mode,
        "shards": keyspace.shards,
    });
    if let (Some(object), Some(policy)) = (shown.as_object_mut(), &keyspace.policy) {
        object.insert("zones".to_owned(), policy.zones.clone().into());
        object.insert("epoch".to_owned(), policy.epoch.into());
        let words = [
            ("ack", &policy.ack),
            ("on_zone_loss", &policy.on_zone_loss),
            ("home", &policy.home),
            ("on_breach", &policy.on_breach),
        ];
        for (name, word) in words.into_iter().filter(|(_, word)| !word.is_empty()) {
            object.insert(name.to_owned(), word.clone().into());
        }
        let read_level = human::read_level(policy);
        object.insert("read_level".to_owned(), read_level.into());
        let times = [
            ("interval_ms", policy.interval_ms),
            ("max_lag_ms", policy.max_lag_ms),
        ];
        for (name, ms) in times.into_iter().filter(|(_, ms)| *ms > 0) {
            object.insert(name.to_owned(), ms.into());
        }
    }
    if let (Some(object), Some(altering)) = (shown.as_object_mut(), &keyspace.altering) {
        let to = altering.to.clone().unwrap_or_default();
        let altering = json!({
            "mode": to.mode,
            "epoch": to.epoch,
            "groups": altering.successor_groups,
            "filled": altering.filled,
            "sealing": altering.sealing,
            "old_groups": altering.old_groups,
            "sealed": altering.sealed,
            "ready": altering.ready,
            "waits_for": altering.waits_for,
        });
        object.insert("altering".to_owned(), altering);
    }
    if let (Some(object), Some(divergence)) = (shown.as_object_mut(), &keyspace.divergence) {
        object.insert("divergence".to_owned(), diverged(divergence));
    }
    shown
}

fn diverged(divergence: &admin::Divergence) -> Value {
    json!({
        "old_home": divergence.old_home,
        "generation": divergence.generation,
        "cut_time_ms": divergence.cut_time_ms,
        "heard_time_ms": (divergence.heard_time_ms > 0).then_some(divergence.heard_time_ms),
        "stopped_time_ms": divergence.stopped_time_ms,
        "lacking_keys": divergence.lacking_keys,
        "returned": divergence.returned,
    })
}

/// What a promoted mirror lacked.
pub(crate) fn divergence(keyspace: &str, divergence: &admin::Divergence) -> Value {
    let mut report = diverged(divergence);
    if let Some(object) = report.as_object_mut() {
        object.insert("keyspace".to_owned(), keyspace.into());
    }
    report
}

/// How much has come back to a shard.
pub(crate) fn returned_counts(shard: u32, page: &admin::ReturnedResponse) -> Value {
    json!({
        "shard": shard,
        "writes": page.writes,
        "versions": page.versions,
        "keys": page.keys,
    })
}

/// A key to which writes came back.
pub(crate) fn returned(shard: u32, row: &admin::ReturnedKey) -> Value {
    let writes = row.writes.iter().map(|write| {
        json!({
            "zone": write.zone,
            "counter": write.counter,
            "became": write.became,
        })
    });
    let rest = json!({ "shard": shard, "writes": writes.collect::<Vec<_>>() });
    with_key(&row.key, rest)
}

pub(crate) fn lag(row: &admin::LagRow) -> Value {
    json!({
        "from": row.from,
        "to": row.to,
        "keyspace": row.keyspace,
        "lag_ms": row.lag_ms,
        "entries": row.entries,
        "bytes": row.bytes,
        "breach": row.breach,
    })
}

pub(crate) fn digest(row: &admin::DigestRow) -> Value {
    json!({
        "zone": row.zone,
        "keyspace": row.keyspace,
        "keys": row.keys,
        "conflicts": row.conflicts,
        "digest": row.digest,
    })
}

pub(crate) fn fault(fault: &admin::Fault) -> Value {
    json!({
        "from": fault.from,
        "to": fault.to,
        "blocked": fault.blocked,
        "delay_ms": fault.delay_ms,
        "loss": fault.loss,
    })
}

/// An error of the cluster.
pub(crate) fn error(error: &Error) -> Value {
    let retry_after_ms = error.retry_after().map(millis);
    json!({"error": {
        "reason": error.reason(),
        "message": error.message(),
        "effect": error.effect().as_str(),
        "retryable": error.is_retryable(),
        "retry_after_ms": retry_after_ms,
        "op_id": error.op_id().map(|op_id| op_id.to_string()),
        "metadata": error.metadata(),
    }})
}

/// An error of the command line itself.
pub(crate) fn local_error(reason: &str, message: &str) -> Value {
    json!({"error": {
        "reason": reason,
        "message": message,
        "effect": "none",
        "retryable": false,
        "retry_after_ms": null,
        "op_id": null,
        "metadata": {},
    }})
}

/// `None` when there is nothing (more) to say.
pub(crate) fn failure(failure: &Failure) -> Option<Value> {
    match failure {
        Failure::Client(client) => Some(error(client)),
        Failure::Usage(message) => Some(local_error("USAGE", message)),
        Failure::Other(message) => Some(local_error("FAILED", message)),
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
        Failure::Output(error) => Some(local_error("OUTPUT", &error.to_string())),
        Failure::Said(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use meridian_client::OpId;
    use meridian_client::proto::kv::v1 as wire;

    use super::*;

    fn a_sibling(value: &'static [u8]) -> Sibling {
        Sibling {
            value: Bytes::from_static(value),
            deleted: false,
            dot: "us-east.3:42".to_owned(),
            dots: Vec::new(),
            zone: "us-east".to_owned(),
            written_at_ms: 1_795_341_600_123,
            age: Duration::from_millis(12),
            op_id: Some(OpId {
                stamp_ms: 7,
                id: 255,
            }),
            held_by: Vec::new(),
        }
    }

    fn a_read(siblings: Vec<Sibling>) -> Versions {
        Versions {
            key: Bytes::from_static(b"k"),
            found: true,
            siblings,
            context: Bytes::from_static(&[1, 2]).into(),
            level: ReadLevel::Eventual,
            served_by: ServedBy {
                zone: "us-east".to_owned(),
                node: "n1".to_owned(),
            },
            staleness: Some(Duration::ZERO),
            zones: Vec::new(),
            mirror: None,
            mirrors: Vec::new(),
            session: SessionToken::default(),
        }
    }

    #[test]
    fn a_get_has_the_shape_of_the_contract() {
        let expected = json!({
            "key": "k", "found": true,
            "siblings": [{
                "value": "1", "dot": "us-east.3:42", "zone": "us-east",
                "written_at": "2026-11-22T10:00:00.123Z", "age_ms": 12,
                "op_id": "7-000000000000000000000000000000ff",
            }],
            "context": "AQI", "level": "eventual",
            "served_by": {"zone": "us-east", "node": "n1"},
            "staleness_ms": 0, "session": "",
        });
        assert_eq!(versions(&a_read(vec![a_sibling(b"1")])), expected);
    }

    #[test]
    fn bytes_that_are_not_text_appear_as_base64() {
        let mut read = a_read(vec![a_sibling(&[0xff, 0])]);
        read.key = Bytes::from_static(&[0xfe]);
        let object = entry(&read);
        assert_eq!(object["key_base64"], "/g==");
        assert_eq!(object["siblings"][0]["value_base64"], "/wA=");
        assert!(object.get("key").is_none());
        assert!(object["siblings"][0].get("value").is_none());
    }

    #[test]
    fn a_deleted_sibling_has_no_value() {
        let deleted = Sibling {
            deleted: true,
            ..a_sibling(b"")
        };
        let object = sibling(&deleted);
        assert_eq!(object["deleted"], true);
        assert!(object.get("value").is_none());
    }

    #[test]
    fn a_receipt_has_the_shape_of_the_contract() {
        let object = written(&Written {
            key: Bytes::from_static(b"k"),
            receipt: Receipt {
                dot: "us-east.3:43".to_owned(),
                mode: "async".to_owned(),
                level: WriteLevel::Zone,
                zones: vec!["us-east".to_owned()],
                degraded: false,
                epoch: 2,
                op_id: None,
            },
            context: Bytes::from_static(&[1, 2]).into(),
            session: SessionToken::default(),
        });
        let expected = json!({
            "key": "k",
            "receipt": {
                "dot": "us-east.3:43", "mode": "async", "level": "zone", "zones": ["us-east"],
                "degraded": false, "epoch": 2, "op_id": null,
            },
            "context": "AQI", "session": "",
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn an_error_has_the_shape_of_the_contract() {
        let refused = Error::from(wire::Error {
            reason: "NO_QUORUM".to_owned(),
            message: "no majority".to_owned(),
            effect: wire::Effect::None.into(),
            retryable: true,
            retry_after_ms: 200,
            ..wire::Error::default()
        });
        let expected = json!({"error": {
            "reason": "NO_QUORUM", "message": "no majority", "effect": "none", "retryable": true,
            "retry_after_ms": 200, "op_id": null, "metadata": {},
        }});
        assert_eq!(failure(&Failure::Client(refused)), Some(expected));
    }

    #[test]
    fn a_time_that_cannot_be_printed_is_left_empty() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(u64::MAX), "");
    }
}
