//! A cycle in words, as Elle prints it: which transactions, and why each is before the next.

use super::cycles::{Cycle, Step};
use super::finding::{Anomaly, Finding};
use super::graph::{Kind, Layer};
use super::known::Known;

/// The finding that a cycle is.
pub(super) fn explain(cycle: &Cycle, known: &Known<'_>) -> Finding {
    let numbers: Vec<usize> = cycle.steps.iter().map(|step| step.from).collect();
    let names: Vec<String> = numbers.iter().map(|number| format!("T{number}")).collect();
    let first = names.first().cloned().unwrap_or_default();
    let message = format!("{} < {first}", names.join(" < "));
    let anomaly = Anomaly::Cycle(cycle.shape(), cycle.order());
    let reasons = cycle
        .steps
        .iter()
        .map(|step| format!("T{} < T{}: {}", step.from, step.to, reason(step, known)));
    known
        .finding(anomaly, &numbers, message)
        .with(reasons.collect())
}

fn reason(step: &Step, known: &Known<'_>) -> String {
    let Step {
        from,
        to,
        first,
        last,
        layer,
    } = step;
    let key = first.why.key.unwrap_or_default();
    let before = version(first.why.from);
    let after = version(last.why.to.or(first.why.to));
    let inferred = match layer {
        Layer::Values | Layer::Process => "",
        Layer::Realtime => " (the one was known before the other was begun)",
        Layer::Reads => " (the one was known before the other was read)",
    };
    match first.kind {
        Kind::Ww => {
            format!("T{from} wrote {before} to key {key} before T{to} wrote {after}{inferred}")
        }
        Kind::Wr => format!("T{to} read {before} of key {key}, which T{from} wrote"),
        Kind::Rw => format!(
            "T{from} read {before} of key {key}, without {after}, which T{to} wrote{inferred}"
        ),
        Kind::Order | Kind::Pass => order(step, known),
    }
}

fn order(step: &Step, known: &Known<'_>) -> String {
    let Step {
        from, to, layer, ..
    } = step;
    if *layer == Layer::Process {
        return format!("process {} began T{to} after T{from}", known.process(*from));
    }
    format!(
        "T{from} was over at {} ns, before T{to} began at {} ns",
        known.ended_ns(*from).unwrap_or_default(),
        known.invoked_ns(*to)
    )
}

fn version(value: Option<u64>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| value.to_string())
}
