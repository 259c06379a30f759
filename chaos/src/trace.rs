//! The trace of a run: every event in order, with its time and a hash of every message.
//!
//! Two runs of one seed must give the same bytes; a test holds them against each other. Nothing is formatted unless a
//! trace was asked for.

use std::fmt::{self, Write as _};
use std::io::Write;

use meridian_core::message::{Admission, Exchange, Image, PeerMessage};

use crate::rng::{Hash64, MS};

/// Where the trace goes.
#[derive(Default)]
pub struct Trace {
    out: Option<Box<dyn Write + Send>>,
    failed: bool,
    whole: bool,
}

impl Trace {
    /// A trace that goes to `out`; `whole` spells every message out instead of hashing it.
    pub fn to(out: Box<dyn Write + Send>, whole: bool) -> Self {
        Self {
            out: Some(out),
            failed: false,
            whole,
        }
    }

    /// Whether anybody reads it: ask before formatting.
    pub const fn on(&self) -> bool {
        self.out.is_some()
    }

    /// Writes one event.
    pub fn line(&mut self, now_ns: u64, event: fmt::Arguments<'_>) {
        if let Some(out) = &mut self.out {
            let written = writeln!(out, "{:>10}.{:06} {event}", now_ns / MS, now_ns % MS);
            self.failed |= written.is_err();
        }
    }

    /// A message in a few words, with the hash of all of it.
    pub fn show(&self, message: &PeerMessage) -> String {
        if self.whole {
            return format!("{message:?}");
        }
        format!("{} #{:016x}", summary(message), hash_of(message))
    }

    /// Flushes; tells whether any line was lost.
    pub fn finish(mut self) -> Result<(), std::io::Error> {
        if let Some(out) = &mut self.out {
            out.flush()?;
        }
        if self.failed {
            Err(std::io::Error::other(
                "the trace could not be written whole",
            ))
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("on", &self.on()).finish()
    }
}

/// A hash over everything that a value shows in its debug form.
pub fn hash_of(value: &impl fmt::Debug) -> u64 {
    let mut hash = Hash64::default();
    // Writing into a hash never fails.
    if write!(hash, "{value:?}").is_err() {
        hash.number(1);
    }
    hash.value()
}

fn summary(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Raft { group, message } => format!(
            "raft {group} {:?} term={} index={} entries={} commit={} reject={}",
            message.msg_type(),
            message.term,
            message.index,
            message.entries.len(),
            message.commit,
            message.reject
        ),
        PeerMessage::Forward { id, .. } => format!("forward {}", id.0),
        PeerMessage::Forwarded { id, result } => {
            format!("forwarded {} ok={}", id.0, result.is_ok())
        }
        PeerMessage::Exchange {
            shard,
            from,
            to,
            passed,
            body,
            ..
        } => {
            format!(
                "exchange shard={} {}@{}->{}@{} passed={passed} {}",
                shard.0,
                from.keyspace,
                from.zone,
                to.keyspace,
                to.zone,
                exchange(body)
            )
        }
        PeerMessage::Image { group, body } => format!("image {group} {}", image(body)),
        PeerMessage::Admission(Admission::Hello { .. }) => "hello".to_string(),
        PeerMessage::Admission(Admission::Known { .. }) => "known".to_string(),
    }
}

fn exchange(body: &Exchange) -> String {
    match body {
        Exchange::Subscribe {
            received, rewind, ..
        } => format!("subscribe rewind={rewind} {received:?}"),
        Exchange::Effects {
            incarnation,
            first,
            effects,
            ..
        } => {
            format!("effects {incarnation}:{first}+{}", effects.len())
        }
        Exchange::MustCompare => "must-compare".to_string(),
        Exchange::CompareOpen { session } => format!("compare-open {session}"),
        Exchange::CompareOpened { session, .. } => format!("compare-opened {session}"),
        Exchange::CompareHashes { session, .. } => format!("compare-hashes {session}"),
        Exchange::CompareRanges {
            session, ranges, ..
        } => format!("compare-ranges {session} {}", ranges.len()),
        Exchange::CompareFetch { session, .. } => format!("compare-fetch {session}"),
        Exchange::CompareStates {
            session, states, ..
        } => format!("compare-states {session} {}", states.len()),
        Exchange::CompareRecall { session, .. } => format!("compare-recall {session}"),
        Exchange::CompareRecalled {
            session,
            operations,
            ..
        } => format!("compare-recalled {session} {}", operations.len()),
        Exchange::CompareLost { session } => format!("compare-lost {session}"),
    }
}

fn image(body: &Image) -> String {
    match body {
        Image::Fetch { image, .. } => format!("fetch {image}"),
        Image::Page {
            image,
            records,
            done,
            ..
        } => format!("page {image} records={} done={done}", records.len()),
        Image::Lost { image } => format!("lost {image}"),
    }
}
