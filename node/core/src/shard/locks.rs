//! Keys that prepared transactions hold until they are resolved: in memory, and always what the intents on disk say.
//!
//! A key that a transaction will write is locked against readers and writers, one that it has compared or read against
//! writers. Effects of other zones are merged whatever is locked: what they bring is concurrent with the transaction.
//!
//! Invariant: a lock is held exactly while its intent is stored. So whoever loads a shard loads its locks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use meridian_storage::Read;

use crate::error::Error;
use crate::ids::ShardId;
use crate::keys::{DecisionKey, IntentKey, Place};
use crate::transaction::{Action, Compare, TransactionId};
use crate::two_phase::{Decided, Intent, Part};

/// Who holds a key.
#[derive(Clone, Debug, Default)]
struct Holders {
    writer: Option<TransactionId>,
    readers: BTreeSet<TransactionId>,
}

/// What is known of a prepared transaction in memory.
#[derive(Clone, Debug)]
pub struct PreparedPart {
    /// The shard that decides.
    pub anchor: ShardId,
    /// Keys it will write, in one list or the other.
    pub writes: Vec<Bytes>,
    reads: Vec<Bytes>,
}

/// The locks of a shard, and the decisions it has not forgotten.
#[derive(Clone, Debug, Default)]
pub struct Locks {
    prepared: BTreeMap<TransactionId, PreparedPart>,
    keys: BTreeMap<Bytes, Holders>,
    ranges: Vec<(TransactionId, Bytes, Bytes)>,
    decided: BTreeMap<TransactionId, (u64, Decided)>,
}

impl Locks {
    /// What the store says.
    pub(super) fn load(read: &dyn Read, place: Place) -> Result<Self, Error> {
        let mut locks = Self::default();
        each(read, IntentKey::all(place), &mut |stored, record| {
            let (_, intent) = IntentKey::decode_record(stored, record)?;
            locks.lock(IntentKey::id(stored)?, &intent);
            Ok(())
        })?;
        each(read, DecisionKey::all(place), &mut |stored, record| {
            let (header, decided) = DecisionKey::decode_record(stored, record)?;
            locks.decide(DecisionKey::id(stored)?, header.index, decided);
            Ok(())
        })?;
        Ok(locks)
    }

    /// Transactions prepared here.
    pub fn prepared(&self) -> &BTreeMap<TransactionId, PreparedPart> {
        &self.prepared
    }

    /// Decisions taken here that not every part is known to have followed, with the index of the deciding entry.
    pub fn decided(&self) -> &BTreeMap<TransactionId, (u64, Decided)> {
        &self.decided
    }

    /// Nothing is locked.
    pub fn is_empty(&self) -> bool {
        self.prepared.is_empty()
    }

    pub(super) fn lock(&mut self, id: TransactionId, intent: &Intent) {
        let writes: BTreeSet<&Bytes> = intent
            .then
            .iter()
            .chain(&intent.otherwise)
            .map(|write| &write.key)
            .collect();
        for key in &writes {
            let holders = self.keys.entry((*key).clone()).or_default();
            assert!(
                holders.writer.is_none_or(|writer| writer == id),
                "a key has one writer at a time"
            );
            holders.writer = Some(id);
        }
        for key in &intent.reads {
            self.keys.entry(key.clone()).or_default().readers.insert(id);
        }
        for (from, to) in &intent.ranges {
            self.ranges.push((id, from.clone(), to.clone()));
        }
        self.prepared.insert(
            id,
            PreparedPart {
                anchor: intent.anchor,
                writes: writes.into_iter().cloned().collect(),
                reads: intent.reads.clone(),
            },
        );
    }

    pub(super) fn unlock(&mut self, id: TransactionId) {
        let Some(part) = self.prepared.remove(&id) else {
            return;
        };
        for key in part.writes.iter().chain(&part.reads) {
            let Some(holders) = self.keys.get_mut(key) else {
                continue;
            };
            holders.writer = holders.writer.filter(|writer| *writer != id);
            holders.readers.remove(&id);
            if holders.writer.is_none() && holders.readers.is_empty() {
                self.keys.remove(key);
            }
        }
        self.ranges.retain(|(holder, _, _)| *holder != id);
    }

    pub(super) fn decide(&mut self, id: TransactionId, index: u64, decided: Decided) {
        self.decided.insert(id, (index, decided));
    }

    pub(super) fn forget(&mut self, id: TransactionId) {
        self.decided.remove(&id);
    }

    /// The transaction because of which nobody may read a key.
    pub fn writer_of(&self, key: &[u8]) -> Option<TransactionId> {
        self.keys.get(key)?.writer
    }

    /// The transactions because of which nobody may read `[from, to)`; without `to`, to the end of the shard.
    pub fn writers_in(&self, from: &[u8], to: Option<&[u8]>) -> BTreeSet<TransactionId> {
        if to.is_some_and(|to| to <= from) {
            return BTreeSet::new();
        }
        let end = to.map_or(Bound::Unbounded, Bound::Excluded);
        self.keys
            .range::<[u8], _>((Bound::Included(from), end))
            .filter_map(|(_, holders)| holders.writer)
            .collect()
    }

    /// A transaction because of which nobody may write a key.
    pub fn holder_of(&self, key: &[u8]) -> Option<TransactionId> {
        if self.prepared.is_empty() {
            return None;
        }
        let held = self.keys.get(key);
        let holder = held.and_then(|held| held.writer.or(held.readers.first().copied()));
        holder.or_else(|| {
            let inside = |(_, from, to): &&(TransactionId, Bytes, Bytes)| {
                from.as_ref() <= key && (to.is_empty() || key < to.as_ref())
            };
            self.ranges.iter().find(inside).map(|(id, _, _)| *id)
        })
    }

    /// A transaction that another one's part would have to wait for.
    pub(super) fn against(&self, part: &Part) -> Option<TransactionId> {
        if self.prepared.is_empty() {
            return None;
        }
        let compared = part
            .compare
            .iter()
            .find_map(|one| self.against_compare(one));
        compared.or_else(|| {
            let mut actions = part.then.iter().chain(&part.otherwise);
            actions.find_map(|action| match action {
                Action::Get { key } => self.writer_of(key),
                Action::Write { key, .. } => self.holder_of(key),
            })
        })
    }

    fn against_compare(&self, compare: &Compare) -> Option<TransactionId> {
        match compare {
            Compare::RangeUnchanged { from, to, .. } => {
                let to = (!to.is_empty()).then_some(to.as_ref());
                self.writers_in(from, to).first().copied()
            }
            Compare::Unchanged { key, .. }
            | Compare::Absent { key }
            | Compare::Exists { key }
            | Compare::Value { key, .. }
            | Compare::Context { key, .. } => self.writer_of(key),
        }
    }
}

/// Takes a stored key and its record.
type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Result<(), Error> + 'v;

fn each(
    read: &dyn Read,
    (from, to): (Vec<u8>, Vec<u8>),
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    let mut outcome = Ok(());
    read.scan(&from, &to, &mut |stored, record| {
        outcome = visit(stored, record);
        if outcome.is_err() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    outcome
}
