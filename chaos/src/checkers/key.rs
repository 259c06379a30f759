//! One key's history as sets of its writes, which is what the checkers reason about.
//!
//! Invariant: the writes are sorted by dot, and every [`Bits`] of a key counts in places of that list.

use bytes::Bytes;
use meridian_causal::{Content, Dot, OpId, SiblingSet};
use meridian_core::command::WriteIntent;
use meridian_core::ids::{KeyspaceId, ShardId};

use super::bits::Bits;
use super::evidence::row;

/// A write that took effect.
#[derive(Clone, Debug)]
pub(super) struct WriteFact<'a> {
    /// Its dot.
    pub(super) dot: Dot,
    /// Its operation in the history.
    pub(super) number: usize,
    /// Its op id.
    pub(super) op_id: OpId,
    /// What it said.
    pub(super) content: &'a Content,
    /// It may have become a tombstone by itself.
    pub(super) expires: bool,
    /// What it was to replace.
    pub(super) intent: &'a WriteIntent,
    /// When its client sent it first.
    pub(super) call_ns: u64,
    /// When a replica first showed it.
    pub(super) seen_ns: u64,
    /// The keyspace that made it.
    pub(super) origin: KeyspaceId,
    /// Where that keyspace's log has it, of which shard.
    pub(super) place: (ShardId, u64),
    /// When its client was told of this dot.
    pub(super) acked_ns: Option<u64>,
    /// What it surely replaced; `None` when only the store knows.
    pub(super) replaced: Option<Bits>,
    /// What it may have replaced; includes what it surely did.
    pub(super) possible: Bits,
}

/// What a read found on the key.
#[derive(Clone, Debug)]
pub(super) struct ReadFact {
    /// Its operation in the history.
    pub(super) number: usize,
    /// Its zone, from 0.
    pub(super) zone: usize,
    /// The keyspace that it was asked of.
    pub(super) keyspace: KeyspaceId,
    /// Whether it asked for whatever is at hand.
    pub(super) eventual: bool,
    /// Whether it asked for the newest.
    pub(super) linearizable: bool,
    /// When the answered attempt was sent.
    pub(super) call_ns: u64,
    /// When it was answered.
    pub(super) return_ns: u64,
    /// The writes its context covers.
    pub(super) covered: Bits,
    /// The siblings it found.
    pub(super) held: Bits,
    /// A sibling whose dot nobody applied.
    pub(super) unknown: Option<Dot>,
    /// A sibling that says something else than its write.
    pub(super) wrong: Option<Dot>,
}

/// All that is known of a key.
#[derive(Clone, Debug)]
pub(super) struct KeyHistory<'a> {
    /// The key.
    pub(super) name: Bytes,
    /// The dots of the writes.
    pub(super) dots: Vec<Dot>,
    /// The writes, sorted by dot.
    pub(super) writes: Vec<WriteFact<'a>>,
    /// The reads, in the order in which they were asked.
    pub(super) reads: Vec<ReadFact>,
}

/// Whether a write is a delete, or may have become one: it expires.
pub(super) fn may_be_tombstone(write: &WriteFact<'_>) -> bool {
    write.expires || *write.content == Content::Tombstone
}

impl<'a> KeyHistory<'a> {
    /// A key without reads yet.
    pub(super) fn new(name: Bytes, writes: Vec<WriteFact<'a>>) -> Self {
        let dots = writes.iter().map(|write| write.dot).collect();
        Self {
            name,
            dots,
            writes,
            reads: Vec::new(),
        }
    }

    /// The empty set of its writes.
    pub(super) fn none(&self) -> Bits {
        Bits::new(self.writes.len())
    }

    /// The writes with some property.
    pub(super) fn which(&self, property: impl Fn(&WriteFact<'_>) -> bool) -> Bits {
        let mut bits = self.none();
        let found = self
            .writes
            .iter()
            .enumerate()
            .filter(|(_, write)| property(write));
        found.for_each(|(place, _)| bits.insert(place));
        bits
    }

    /// The writes that are deletes, or may have become such.
    pub(super) fn tombstones(&self) -> Bits {
        self.which(may_be_tombstone)
    }

    /// What any of `killers` may have replaced.
    pub(super) fn possibly_replaced_by(&self, killers: &Bits) -> Bits {
        let mut replaced = self.none();
        for write in killers.iter().filter_map(|place| self.writes.get(place)) {
            replaced.add(&write.possible);
        }
        replaced
    }

    /// What any of `killers` surely replaced.
    pub(super) fn surely_replaced_by(&self, killers: &Bits) -> Bits {
        let mut replaced = self.none();
        for write in killers.iter().filter_map(|place| self.writes.get(place)) {
            if let Some(known) = &write.replaced {
                replaced.add(known);
            }
        }
        replaced
    }

    /// The writes that had, at some time, perhaps ended in a delete: deletes, what one of these may have replaced, and so
    /// on. A key's record is dropped once nothing but deletes is left of it and every zone has them; what comes to the
    /// key afterwards may begin without their context. So these may be forgotten, and no others.
    pub(super) fn forgettable(&self, at_ns: u64) -> Bits {
        let mut ended = self.which(|write| may_be_tombstone(write) && write.seen_ns <= at_ns);
        loop {
            let mut grown = ended.clone();
            grown.add(&self.possibly_replaced_by(&ended));
            if grown == ended {
                return ended;
            }
            ended = grown;
        }
    }

    /// Whether the write of a dot, if it is known, says this.
    pub(super) fn says(&self, dot: Dot, content: &Content) -> bool {
        let write = self
            .dots
            .binary_search(&dot)
            .ok()
            .and_then(|place| self.writes.get(place));
        write.is_none_or(|write| {
            write.content == content || (write.expires && *content == Content::Tombstone)
        })
    }

    /// The siblings and the coverage of a final set.
    pub(super) fn rows_of(&self, set: &SiblingSet) -> (Bits, Bits) {
        let mut held = self.none();
        for sibling in set.siblings() {
            if let Ok(place) = self.dots.binary_search(&sibling.dot) {
                held.insert(place);
            }
        }
        (held, row(&self.dots, set.context()))
    }

    /// The dot at a place, for messages.
    pub(super) fn show(&self, place: usize) -> String {
        self.writes.get(place).map_or_else(String::new, |write| {
            format!("{} (op {})", write.dot, write.number)
        })
    }
}
