//! What `txn` prints.

use std::io;

use meridian_client::{ActionOutcome, Committed, TransactionOutcome};
use serde_json::{Value, json};

use super::play::Shown;
use crate::out::Out;
use crate::{human, json};

/// What one step showed.
pub(super) fn step(out: &mut Out, shown: &Shown) -> io::Result<()> {
    match shown {
        Shown::Key(versions) if out.json => out.object(&json::versions(versions)),
        Shown::Key(versions) => out.line(&human::versions(versions)),
        Shown::Keys(entries) => {
            let lines = entries.iter().map(|entry| {
                if out.json {
                    format!("{}\n", json::entry(entry))
                } else {
                    format!("{}\n", human::entry(entry))
                }
            });
            let lines: String = lines.collect();
            out.bytes(lines.as_bytes())
        }
        Shown::Write => Ok(()),
    }
}

pub(super) fn committed<T>(out: &mut Out, committed: &Committed<T>) -> io::Result<()> {
    let attempts = committed.attempts;
    let Some(outcome) = &committed.outcome else {
        if out.json {
            return out.object(&json!({"committed": true, "attempts": attempts}));
        }
        return out.line("ok   nothing was written");
    };
    if out.json {
        let mut object = facts(outcome);
        set(&mut object, "committed", true.into());
        set(&mut object, "attempts", attempts.into());
        return out.object(&object);
    }
    let again = match attempts {
        1 => String::new(),
        attempts => format!("   attempt {attempts}"),
    };
    out.line(&format!("{}{again}", ok(outcome)))
}

pub(super) fn aborted(out: &mut Out) -> io::Result<()> {
    if out.json {
        out.object(&json!({"committed": false}))
    } else {
        out.line("aborted")
    }
}

/// The outcome of a transaction sent whole.
pub(super) fn outcome(out: &mut Out, outcome: &TransactionOutcome) -> io::Result<()> {
    if out.json {
        let mut object = facts(outcome);
        set(&mut object, "succeeded", outcome.succeeded.into());
        set(&mut object, "repeated", outcome.repeated.into());
        set(
            &mut object,
            "results",
            outcome.results.iter().map(result).collect(),
        );
        return out.object(&object);
    }
    let list = if outcome.succeeded { "then" } else { "else" };
    out.line(&format!("{list}: {}", ok(outcome)))?;
    if outcome.repeated {
        out.note("an earlier attempt had taken effect; what it read is no longer known");
    }
    for result in &outcome.results {
        out.line(&result_line(result))?;
    }
    Ok(())
}

fn facts(outcome: &TransactionOutcome) -> Value {
    json!({
        "parts": outcome.parts,
        "mode": outcome.mode,
        "zones": outcome.zones,
        "degraded": outcome.degraded,
        "op_id": outcome.op_id.map(|op_id| op_id.to_string()),
        "served_by": {"zone": outcome.served_by.zone, "node": outcome.served_by.node},
    })
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(object) = object {
        object.insert(name.to_owned(), value);
    }
}

fn result(result: &ActionOutcome) -> Value {
    match result {
        ActionOutcome::Got(versions) => json::versions(versions),
        ActionOutcome::Written { key, receipt } => json::part(key, receipt),
    }
}

fn ok(outcome: &TransactionOutcome) -> String {
    let degraded = if outcome.degraded { " DEGRADED" } else { "" };
    let zones = outcome.zones.join(", ");
    let shards = match outcome.parts {
        1 => "1 shard".to_owned(),
        parts => format!("{parts} shards"),
    };
    format!("ok{degraded}   durable in {zones}   {shards}")
}

fn result_line(result: &ActionOutcome) -> String {
    match result {
        ActionOutcome::Got(versions) => human::versions(versions),
        ActionOutcome::Written { key, receipt } if receipt.dot.is_empty() => {
            format!("{}: written", human::text(key))
        }
        ActionOutcome::Written { key, receipt } => {
            format!("{}: written   [{}]", human::text(key), receipt.dot)
        }
    }
}
