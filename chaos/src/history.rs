//! What clients asked and were answered, in the order in which they asked.
//!
//! An operation whose outcome is not known is kept as `info` for ever: it may take effect at any time, or never. It is
//! never dropped, and never taken for a failure.

use std::io::Write;

use bytes::Bytes;
use meridian_causal::{Content, OpId, SiblingSet, VersionVector};
use meridian_core::Error;
use meridian_core::command::WriteIntent;
use meridian_core::ids::KeyspaceId;
use meridian_core::request::{Answer, ReadLevel, Receipt};
use serde::Serialize;

use crate::transact::program::is_transactional;

/// What was asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A put or delete.
    Write {
        /// The key.
        key: Bytes,
        /// The value, or a tombstone.
        content: Content,
        /// What it replaces.
        intent: WriteIntent,
        /// Its op id.
        op_id: OpId,
        /// How long after its stamp it expires.
        ttl_ms: Option<u64>,
    },
    /// A read of one key.
    Get {
        /// The key.
        key: Bytes,
        /// How fresh.
        level: ReadLevel,
    },
    /// A read of a run of keys of one shard.
    Scan {
        /// The shard.
        shard: u16,
        /// First key.
        from: Bytes,
        /// How fresh.
        level: ReadLevel,
    },
    /// A read of one key in a zone that the client has moved to, with its session.
    Visit {
        /// The key.
        key: Bytes,
        /// The zone, from 0.
        zone: usize,
        /// `Session`, `Bounded` or `Zones`.
        level: ReadLevel,
        /// What the session has seen of the key's shard.
        after: VersionVector,
        /// The first operation of the session, by its place in the history.
        since: usize,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Not over yet, or never answered.
    Info,
    /// It took effect.
    Written(Receipt),
    /// It was read.
    Read(Answer),
    /// It surely had no effect.
    Fail(Error),
}

/// One operation of a client.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The client, numbered over all zones.
    pub client: usize,
    /// The client's zone, from 0.
    pub zone: usize,
    /// When it was first sent.
    pub call_ns: u64,
    /// When the attempt that was answered was sent. A read may be judged by it: earlier attempts had no effect.
    pub attempt_ns: u64,
    /// When it was answered or given up.
    pub return_ns: Option<u64>,
    /// How many attempts were made.
    pub attempts: u32,
    /// The keyspace that the last attempt was for, as the node asked knew it by name.
    pub keyspace: KeyspaceId,
    /// What was asked.
    pub action: Action,
    /// What came of it.
    pub outcome: Outcome,
}

impl Operation {
    /// The key of a write or get.
    pub const fn key(&self) -> Option<&Bytes> {
        match &self.action {
            Action::Write { key, .. } | Action::Get { key, .. } | Action::Visit { key, .. } => {
                Some(key)
            }
            Action::Scan { .. } => None,
        }
    }

    /// The receipt of an acknowledged write.
    pub const fn receipt(&self) -> Option<&Receipt> {
        match &self.outcome {
            Outcome::Written(receipt) => Some(receipt),
            Outcome::Info | Outcome::Read(_) | Outcome::Fail(_) => None,
        }
    }

    /// The keys it read, each with its set; those of transactions are judged by what transactions see.
    pub fn found(&self) -> Vec<(&Bytes, &SiblingSet)> {
        match (&self.action, &self.outcome) {
            (Action::Get { key, .. }, Outcome::Read(Answer::Key(set))) => vec![(key, set)],
            (Action::Scan { .. }, Outcome::Read(Answer::Page { keys, .. })) => {
                let own = keys.iter().filter(|(key, _)| !is_transactional(key));
                own.map(|(key, set)| (key, set)).collect()
            }
            // What a visit shows is judged by the checker of levels.
            (
                Action::Write { .. }
                | Action::Get { .. }
                | Action::Scan { .. }
                | Action::Visit { .. },
                _,
            ) => Vec::new(),
        }
    }

    /// How fresh it read; `None` for a write.
    pub const fn level(&self) -> Option<ReadLevel> {
        match &self.action {
            Action::Get { level, .. }
            | Action::Scan { level, .. }
            | Action::Visit { level, .. } => Some(*level),
            Action::Write { .. } => None,
        }
    }

    /// `ok`, `fail` or `info`.
    pub const fn status(&self) -> &'static str {
        match &self.outcome {
            Outcome::Info => "info",
            Outcome::Written(_) | Outcome::Read(_) => "ok",
            Outcome::Fail(_) => "fail",
        }
    }
}

/// All operations of a run.
#[derive(Debug, Default)]
pub struct History {
    /// In the order in which they were first sent.
    pub operations: Vec<Operation>,
}

/// An operation as a line of JSON.
#[derive(Debug, Serialize)]
struct Line {
    client: usize,
    zone: usize,
    op: &'static str,
    key: String,
    value: Option<String>,
    op_id: Option<String>,
    level: Option<&'static str>,
    call_ns: u64,
    return_ns: Option<u64>,
    attempts: u32,
    status: &'static str,
    output: Option<String>,
}

impl History {
    /// Writes every operation as a line of JSON.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        for operation in &self.operations {
            let line = serde_json::to_string(&Line::of(operation))?;
            writeln!(out, "{line}")?;
        }
        out.flush()
    }
}

impl Line {
    fn of(operation: &Operation) -> Self {
        let (key, value, op_id) = match &operation.action {
            Action::Write {
                key,
                content,
                op_id,
                ..
            } => (
                text(key),
                content.value().map(text),
                Some(op_id.to_string()),
            ),
            Action::Get { key, .. } | Action::Visit { key, .. } => (text(key), None, None),
            Action::Scan { shard, from, .. } => (format!("{shard}/{}", text(from)), None, None),
        };
        Self {
            client: operation.client,
            zone: operation.zone,
            op: name(&operation.action),
            key,
            value,
            op_id,
            level: operation.level().map(level_name),
            call_ns: operation.call_ns,
            return_ns: operation.return_ns,
            attempts: operation.attempts,
            status: operation.status(),
            output: output(operation),
        }
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The name of a level.
pub const fn level_name(level: ReadLevel) -> &'static str {
    match level {
        ReadLevel::Linearizable => "linearizable",
        ReadLevel::Eventual => "eventual",
        ReadLevel::View { .. } => "view",
        ReadLevel::Session => "session",
        ReadLevel::Bounded { .. } => "bounded",
        ReadLevel::Zones { .. } => "zones",
        ReadLevel::Mirror { .. } => "mirror",
    }
}

/// The verb of an action.
pub const fn name(action: &Action) -> &'static str {
    match action {
        Action::Write {
            content: Content::Tombstone,
            intent: WriteIntent::Blind,
            ..
        } => "delete",
        Action::Write {
            content: Content::Tombstone,
            ..
        } => "delete-context",
        Action::Write { intent, .. } => match intent {
            WriteIntent::Blind => "put",
            WriteIntent::Context(_) => "put-context",
            WriteIntent::Overwrite => "overwrite",
            WriteIntent::IfAbsent => "put-if-absent",
            WriteIntent::IfContext(_) => "put-if-context",
            WriteIntent::IfValue(_) => "put-if-value",
        },
        Action::Get { .. } => "get",
        Action::Scan { .. } => "scan",
        Action::Visit { .. } => "visit",
    }
}

fn output(operation: &Operation) -> Option<String> {
    match &operation.outcome {
        Outcome::Info => None,
        Outcome::Written(receipt) => {
            let repeated = if receipt.repeated { " repeated" } else { "" };
            Some(format!(
                "{}{repeated} {}",
                receipt.dot,
                show_context(&receipt.context)
            ))
        }
        Outcome::Read(
            Answer::Digest(_)
            | Answer::Examined { .. }
            | Answer::Range { .. }
            | Answer::Holds(_)
            | Answer::Leases(_)
            | Answer::Returned { .. }
            | Answer::Mirrored(..),
        ) => None,
        Outcome::Read(Answer::Shown(shown)) => {
            let Answer::Key(set) = &shown.answer else {
                return None;
            };
            Some(format!("{} age {:?} ms", show_set(set), shown.age_ms))
        }
        Outcome::Read(Answer::Key(_) | Answer::Page { .. }) => {
            let sets = operation.found();
            Some(
                sets.iter()
                    .map(|(key, set)| format!("{}={}", text(key), show_set(set)))
                    .collect::<Vec<_>>()
                    .join("; "),
            )
        }
        Outcome::Fail(error) => Some(error.to_string()),
    }
}

/// A sibling set in one short line.
pub fn show_set(set: &SiblingSet) -> String {
    let siblings: Vec<String> = set
        .siblings()
        .iter()
        .map(|sibling| format!("{}:{}", sibling.dot, show_content(&sibling.content)))
        .collect();
    format!("[{}] {}", siblings.join(", "), show_context(set.context()))
}

/// A value or `deleted`, short.
pub fn show_content(content: &Content) -> String {
    match content {
        Content::Value(value) => String::from_utf8_lossy(value)
            .trim_end_matches('.')
            .to_string(),
        Content::Tombstone => "deleted".to_string(),
    }
}

/// A context in one short line.
pub fn show_context(context: &meridian_causal::CausalContext) -> String {
    let entries = context
        .vector()
        .iter()
        .map(|(incarnation, counter)| format!("{incarnation}:..{counter}"));
    let dots = context.dots().iter().map(ToString::to_string);
    format!("{{{}}}", entries.chain(dots).collect::<Vec<_>>().join(" "))
}
