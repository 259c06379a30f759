//! The causal history of each key: which writes took effect, what each of them replaced, what reads found.
//!
//! What a write replaced is known from what its client sent, when it sent a context. Where the store decides (no
//! context), the receipt tells. A write whose client never heard of it *may* have replaced anything that was there; such
//! a write can excuse a missing version, but never accuse one that is still there.

use std::collections::BTreeMap;

use bytes::Bytes;
use meridian_causal::{CausalContext, Dot, OpId};
use meridian_core::command::WriteIntent;
use meridian_core::ids::{KeyspaceId, ShardId};
use meridian_core::request::ReadLevel;

use super::bits::Bits;
use super::dots::Seen;
use super::key::{KeyHistory, ReadFact, WriteFact, may_be_tombstone};
use crate::history::{Action, History, Operation, Outcome, show_content, show_context, show_set};
use crate::rng::MS;
use crate::violation::Violation;

/// A write that took effect somewhere.
#[derive(Clone, Debug)]
struct Effect {
    op_id: Option<OpId>,
    seen_ns: u64,
    /// The keyspace of the group that showed it first, which is the one that made it.
    origin: KeyspaceId,
    /// Where that group's log has it, of which shard.
    place: (ShardId, u64),
}

/// The effects of every key.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    keys: BTreeMap<Bytes, BTreeMap<Dot, Effect>>,
}

impl Evidence {
    /// Takes an effect in, the first time any group shows it.
    pub(super) fn effect(&mut self, now: u64, seen: Seen) {
        let effects = self.keys.entry(seen.key).or_default();
        effects.entry(seen.dot).or_insert(Effect {
            op_id: seen.op_id,
            seen_ns: now,
            origin: seen.group.keyspace,
            place: (seen.group.shard, seen.index),
        });
    }

    /// Whether a write to a key is known.
    pub(super) fn knows(&self, key: &Bytes, dot: Dot) -> bool {
        let effects = self.keys.get(key);
        effects.is_some_and(|effects| effects.contains_key(&dot))
    }

    /// The history of every key that was written or read.
    pub(super) fn keys<'a>(
        &self,
        history: &'a History,
        at_ns: u64,
    ) -> Result<Vec<KeyHistory<'a>>, Box<Violation>> {
        let mut by_key: BTreeMap<Bytes, KeyHistory<'a>> = BTreeMap::new();
        let ops = op_index(history);
        for (name, effects) in &self.keys {
            let writes = self.writes(history, (name, effects), &ops, at_ns)?;
            by_key.insert(name.clone(), KeyHistory::new(name.clone(), writes));
        }
        for (number, operation) in history.operations.iter().enumerate() {
            if let (Some(key), Some(receipt)) = (operation.key(), operation.receipt()) {
                let known = self
                    .keys
                    .get(key)
                    .is_some_and(|effects| effects.contains_key(&receipt.dot));
                if !known {
                    return Err(Violation::new(
                        "durability",
                        at_ns,
                        format!("operation {number} on {key:?} was acknowledged as {}, which no group applied", receipt.dot),
                    )
                    .with(describe_key(history, self, key)));
                }
            }
            for (key, set) in operation.found() {
                let entry = by_key.entry(key.clone());
                let key = entry.or_insert_with(|| KeyHistory::new(key.clone(), Vec::new()));
                add_read(key, number, operation, set);
            }
        }
        Ok(by_key.into_values().collect())
    }

    fn writes<'a>(
        &self,
        history: &'a History,
        (name, effects): (&Bytes, &BTreeMap<Dot, Effect>),
        ops: &BTreeMap<OpId, usize>,
        at_ns: u64,
    ) -> Result<Vec<WriteFact<'a>>, Box<Violation>> {
        let dots: Vec<Dot> = effects.keys().copied().collect();
        let mut writes = Vec::with_capacity(effects.len());
        for (dot, effect) in effects {
            let number = effect.op_id.and_then(|op_id| ops.get(&op_id)).copied();
            let operation = number
                .and_then(|number| history.operations.get(number))
                .filter(|op| op.key() == Some(name));
            let (Some(number), Some(operation)) = (number, operation) else {
                return Err(Violation::new(
                    "values",
                    at_ns,
                    format!(
                        "dot {dot} on {name:?} belongs to operation {:?}, which nobody asked for",
                        effect.op_id
                    ),
                )
                .with(describe_key(history, self, name)));
            };
            let Action::Write {
                content,
                intent,
                op_id,
                ttl_ms,
                ..
            } = &operation.action
            else {
                continue;
            };
            if let Outcome::Fail(error) = &operation.outcome {
                return Err(Violation::new(
                    "effects",
                    at_ns,
                    format!("operation {number} on {name:?} took effect as {dot}, after it was answered: {error}"),
                )
                .with(describe_key(history, self, name)));
            }
            let receipt = operation.receipt().filter(|receipt| receipt.dot == *dot);
            writes.push(WriteFact {
                dot: *dot,
                number,
                op_id: *op_id,
                content,
                expires: ttl_ms.is_some(),
                intent,
                call_ns: operation.call_ns,
                seen_ns: effect.seen_ns,
                origin: effect.origin,
                place: effect.place,
                acked_ns: receipt.and(operation.return_ns),
                replaced: None,
                possible: Bits::new(dots.len()),
            });
        }
        fill_rows(history, &dots, &mut writes);
        Ok(writes)
    }
}

fn op_index(history: &History) -> BTreeMap<OpId, usize> {
    let writes = history
        .operations
        .iter()
        .enumerate()
        .filter_map(|(number, operation)| match &operation.action {
            Action::Write { op_id, .. } => Some((*op_id, number)),
            Action::Get { .. } | Action::Scan { .. } | Action::Visit { .. } => None,
        });
    writes.collect()
}

/// Fills in what each write replaced. Rows are in terms of the places of dots in the key's sorted list.
fn fill_rows(history: &History, dots: &[Dot], writes: &mut [WriteFact<'_>]) {
    let tombstones = places(writes, may_be_tombstone);
    let seen: Vec<u64> = writes.iter().map(|write| write.seen_ns).collect();
    for (place, write) in writes.iter_mut().enumerate() {
        let receipt = history
            .operations
            .get(write.number)
            .and_then(Operation::receipt);
        // A retry may be answered by a zone that knows the write from the exchange only, and not what it replaced.
        let receipt = receipt.filter(|receipt| receipt.dot == write.dot && !receipt.repeated);
        let told = receipt.map(|receipt| row(dots, &receipt.context));
        let mut known = match write.intent {
            WriteIntent::Context(context) | WriteIntent::IfContext(context) => {
                Some(row(dots, context))
            }
            WriteIntent::Blind
            | WriteIntent::Overwrite
            | WriteIntent::IfAbsent
            | WriteIntent::IfValue(_) => told.clone(),
        };
        if let Some(known) = &mut known {
            known.remove(place);
        }
        let mut possible = known.clone().unwrap_or_else(|| Bits::new(dots.len()));
        // A write to a key that holds tombstones only replaces them too, whatever context it bears; and the store alone
        // knows what a write without a context replaced.
        let earlier = |other: &usize| seen.get(*other).is_some_and(|at| *at <= write.seen_ns);
        let unknown = known.is_none();
        let may = (0..dots.len())
            .filter(earlier)
            .filter(|other| unknown || tombstones.has(*other));
        may.for_each(|other| possible.insert(other));
        possible.remove(place);
        write.replaced = known;
        write.possible = possible;
    }
}

fn places(writes: &[WriteFact<'_>], which: impl Fn(&WriteFact<'_>) -> bool) -> Bits {
    let mut bits = Bits::new(writes.len());
    writes
        .iter()
        .enumerate()
        .filter(|(_, write)| which(write))
        .for_each(|(place, _)| bits.insert(place));
    bits
}

/// Which of the sorted dots a context covers.
pub(super) fn row(dots: &[Dot], context: &CausalContext) -> Bits {
    let mut bits = Bits::new(dots.len());
    for (incarnation, counter) in context.vector().iter() {
        let start = dots.partition_point(|dot| dot.incarnation < incarnation);
        let end = dots.partition_point(|dot| *dot <= Dot::new(incarnation, counter));
        (start..end).for_each(|place| bits.insert(place));
    }
    for dot in context.dots() {
        if let Ok(place) = dots.binary_search(dot) {
            bits.insert(place);
        }
    }
    bits
}

fn add_read(
    key: &mut KeyHistory<'_>,
    number: usize,
    operation: &Operation,
    set: &meridian_causal::SiblingSet,
) {
    let Some(return_ns) = operation.return_ns else {
        return;
    };
    let mut held = Bits::new(key.writes.len());
    let mut unknown = None;
    for sibling in set.siblings() {
        match key.dots.binary_search(&sibling.dot) {
            Ok(place) => held.insert(place),
            Err(_) => unknown = Some(sibling.dot),
        }
    }
    key.reads.push(ReadFact {
        number,
        zone: operation.zone,
        keyspace: operation.keyspace,
        eventual: operation.level() == Some(ReadLevel::Eventual),
        linearizable: operation.level() == Some(ReadLevel::Linearizable),
        call_ns: operation.attempt_ns,
        return_ns,
        covered: row(&key.dots, set.context()),
        held,
        unknown,
        wrong: set
            .siblings()
            .iter()
            .find(|s| !key.says(s.dot, &s.content))
            .map(|s| s.dot),
    });
}

/// Everything known about a key, in the order of time.
pub(super) fn describe_key(history: &History, evidence: &Evidence, key: &Bytes) -> Vec<String> {
    let mut lines: Vec<(u64, String)> = Vec::new();
    for (number, operation) in history.operations.iter().enumerate() {
        let found = operation
            .found()
            .into_iter()
            .find(|(name, _)| *name == key)
            .map(|(_, set)| show_set(set));
        if operation.key() != Some(key) && found.is_none() {
            continue;
        }
        let returned = operation
            .return_ns
            .map_or_else(|| "never".to_string(), |at| (at / MS).to_string());
        lines.push((
            operation.call_ns,
            format!(
                "{:>6}..{returned:<6} op {number} client {} zone {} attempts {}: {} -> {}",
                operation.call_ns / MS,
                operation.client,
                operation.zone + 1,
                operation.attempts,
                describe_action(&operation.action),
                found.unwrap_or_else(|| describe_outcome(operation)),
            ),
        ));
    }
    let ops = op_index(history);
    for (dot, effect) in evidence.keys.get(key).into_iter().flatten() {
        let number = effect.op_id.and_then(|op_id| ops.get(&op_id));
        lines.push((
            effect.seen_ns,
            format!(
                "{:>6}         applied {dot} of op {number:?}",
                effect.seen_ns / MS
            ),
        ));
    }
    lines.sort();
    let header = format!("history of key {key:?} (times in ms):");
    std::iter::once(header)
        .chain(lines.into_iter().map(|(_, line)| line))
        .collect()
}

pub(super) fn describe_action(action: &Action) -> String {
    match action {
        Action::Write {
            content,
            intent,
            ttl_ms,
            ..
        } => {
            let expires = if ttl_ms.is_some() { " expiring" } else { "" };
            let intent = match intent {
                WriteIntent::Blind => "blind".to_string(),
                WriteIntent::Context(context) => format!("context {}", show_context(context)),
                WriteIntent::Overwrite => "overwrite".to_string(),
                WriteIntent::IfAbsent => "if-absent".to_string(),
                WriteIntent::IfValue(_) => "if-value".to_string(),
                WriteIntent::IfContext(context) => format!("if-context {}", show_context(context)),
            };
            format!("write{expires} {} {intent}", show_content(content))
        }
        Action::Get { level, .. } => format!("get {level:?}"),
        Action::Scan { level, .. } => format!("scan {level:?}"),
        Action::Visit {
            level, zone, after, ..
        } => format!("visit zone {} {level:?} after {after:?}", zone + 1),
    }
}

pub(super) fn describe_outcome(operation: &Operation) -> String {
    match operation.receipt() {
        Some(receipt) => {
            format!(
                "{}{} {}",
                receipt.dot,
                if receipt.repeated { " repeated" } else { "" },
                show_context(&receipt.context)
            )
        }
        None => operation.status().to_string(),
    }
}
