//! The Raft log of one group: in memory from the cut on, and record by record in the engine.
//!
//! The part not yet cut is bounded ([`Bounds::log_bytes_max`](crate::config::Bounds)), so all of it is kept in memory and
//! the engine is read at start only. This type never writes: it puts what must be stored into the turn's [`Workspace`].
//!
//! Entries that are applied in the very batch that would store them need no record: they are kept in memory until that batch is
//! written, and count as cut in it (`append_unlogged`). Nor does the state beside them, while term and vote stand as they are
//! stored: where the machine has applied more than the log has, all of it was cut, and committed in that term (`adopt`).
//!
//! Invariants:
//! * `entries` are contiguous and begin at `truncated.index + 1`;
//! * from `unlogged` on, all are applied in the turn that brings them;
//! * `hard.commit >= truncated.index`, and no less than the applied index of any batch that was written with it (raft-rs
//!   refuses to start otherwise: protocol rule 31);
//! * what is cut was applied in the same or an earlier batch.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::RangeInclusive;

use bytes::Bytes;
use meridian_storage::Read;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ids::{GroupId, ReplicaId};
use crate::keys::raft_log::{RaftEntryKey, RaftStateKey};
use crate::workspace::Workspace;

/// Version of the stored form of an entry.
const ENTRY_FORMAT: u8 = 1;

/// Version of the stored state. In the first it said where the log begins, whatever the machine had applied; that reads the same.
const STATE_FORMAT: u8 = 2;
const STATE_FORMAT_FIRST: u8 = 1;

/// Index and term of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub index: u64,
    pub term: u64,
}

/// Where the log of a founder begins.
const FOUNDING: Position = Position { index: 1, term: 1 };

/// The stored Raft state of a group beside its entries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct StateRecord {
    format: u8,
    term: u64,
    vote: u64,
    commit: u64,
    voters: Vec<u64>,
    learners: Vec<u64>,
    voters_outgoing: Vec<u64>,
    learners_next: Vec<u64>,
    auto_leave: bool,
    truncated: Position,
    installing: bool,
}

/// The stored form of an entry; its index is in the key.
#[derive(Serialize, Deserialize)]
struct EntryRecord<'a> {
    format: u8,
    kind: i32,
    term: u64,
    #[serde(borrow)]
    data: &'a [u8],
    #[serde(borrow)]
    context: &'a [u8],
}

/// See the module.
pub(crate) struct GroupLog {
    group: GroupId,
    hard: HardState,
    conf: ConfState,
    truncated: Position,
    entries: VecDeque<Entry>,
    bytes: u64,
    /// The first entry that has no record, while the batch that applies it is not written.
    unlogged: Option<u64>,
    /// Term and vote of the stored record, where no more of it matters than entries without records imply.
    stored: Option<(u64, u64)>,
    installing: bool,
    image: Option<Snapshot>,
    image_wanted: Cell<bool>,
}

impl GroupLog {
    /// The log of a group that starts with these members and no entries.
    ///
    /// A founder's log begins after index 1, as if the founding itself had been an entry that was cut since. So a replica
    /// that joins later, with no members and nothing at all, can never be fed from the first entry on, which would
    /// leave it without the founders among its members: it needs an image, and that names them.
    pub(crate) fn create(group: GroupId, conf: ConfState) -> Self {
        let mut hard = HardState::default();
        let mut truncated = Position::default();
        if !conf.voters.is_empty() {
            truncated = FOUNDING;
            hard.term = FOUNDING.term;
            hard.commit = FOUNDING.index;
        }
        Self {
            group,
            hard,
            conf,
            truncated,
            entries: VecDeque::new(),
            bytes: 0,
            unlogged: None,
            stored: None,
            installing: false,
            image: None,
            image_wanted: Cell::new(false),
        }
    }

    /// The log as it is stored; `None` when the group has none.
    pub(crate) fn load(group: GroupId, read: &dyn Read) -> Result<Option<Self>, Error> {
        let Some(bytes) = read
            .get(&RaftStateKey::encode(group))
            .map_err(Error::from)?
        else {
            return Ok(None);
        };
        let record: StateRecord = decode_state(group, &bytes)?;
        let mut log = Self::create(group, record.conf());
        log.hard = record.hard();
        log.truncated = record.truncated;
        log.installing = record.installing;
        log.load_entries(read)?;
        if log.hard.commit > log.last() {
            return Err(damaged(group, "the commit index is beyond the last entry"));
        }
        Ok(Some(log))
    }

    /// Whether a stored replica holds a mix of two states: an image is being installed.
    pub(crate) fn is_installing(group: GroupId, read: &dyn Read) -> Result<bool, Error> {
        let stored = read.get(&RaftStateKey::encode(group))?;
        let record: Option<StateRecord> = stored
            .map(|bytes| decode_state(group, &bytes))
            .transpose()?;
        Ok(record.is_some_and(|record| record.installing))
    }

    fn load_entries(&mut self, read: &dyn Read) -> Result<(), Error> {
        let (from, to) =
            RaftEntryKey::range(self.group, self.truncated.index.saturating_add(1), u64::MAX);
        let mut failure = None;
        let mut next = self.truncated.index;
        read.scan(&from, &to, &mut |key, value| {
            next = next.saturating_add(1);
            match decode_entry(self.group, next, value) {
                Ok(entry) if key == RaftEntryKey::encode(self.group, next) => {
                    self.bytes = self.bytes.saturating_add(size(&entry));
                    self.entries.push_back(entry);
                    std::ops::ControlFlow::Continue(())
                }
                Ok(_) => {
                    failure = Some(damaged(self.group, "an entry is missing"));
                    std::ops::ControlFlow::Break(())
                }
                Err(error) => {
                    failure = Some(error);
                    std::ops::ControlFlow::Break(())
                }
            }
        })
        .map_err(Error::from)?;
        failure.map_or(Ok(()), Err)
    }

    pub(crate) fn last(&self) -> u64 {
        self.entries
            .back()
            .map_or(self.truncated.index, |entry| entry.index)
    }

    pub(crate) const fn truncated(&self) -> Position {
        self.truncated
    }

    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.entries.len()).unwrap_or(u64::MAX)
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) const fn hard(&self) -> &HardState {
        &self.hard
    }

    pub(crate) const fn conf(&self) -> &ConfState {
        &self.conf
    }

    /// A group image is being received: the stored state of the shard is not whole.
    pub(crate) const fn installing(&self) -> bool {
        self.installing
    }

    pub(crate) fn entry(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.truncated.index)?.checked_sub(1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// Takes new entries, which replace what stood at and after the first one's index.
    pub(crate) fn append(&mut self, entries: Vec<Entry>, work: &mut Workspace<'_>) {
        let Some(first) = entries.first().map(|entry| entry.index) else {
            return;
        };
        self.stored = None;
        assert!(
            first > self.truncated.index,
            "an entry that was applied and cut is not replaced"
        );
        assert!(first <= self.last().saturating_add(1), "a log has no gaps");
        let old_last = self.last();
        while self.last() >= first {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes = self.bytes.saturating_sub(size(&entry));
            }
        }
        for entry in entries {
            work.put(
                RaftEntryKey::encode(self.group, entry.index),
                encode_entry(&entry),
            );
            self.bytes = self.bytes.saturating_add(size(&entry));
            self.entries.push_back(entry);
        }
        for index in self.last().saturating_add(1)..=old_last {
            work.delete(RaftEntryKey::encode(self.group, index));
        }
    }

    /// Takes new entries that this turn applies, behind all that is applied already: nothing of the log needs a record any more.
    pub(crate) fn append_unlogged(&mut self, entries: Vec<Entry>, work: &mut Workspace<'_>) {
        let Some(first) = entries.first().map(|entry| entry.index) else {
            return;
        };
        assert!(
            first == self.last().saturating_add(1) && self.unlogged.is_none(),
            "entries without records follow the log"
        );
        if !self.entries.is_empty() {
            let begin = self.truncated.index.saturating_add(1);
            let (from, to) = RaftEntryKey::range(self.group, begin, first);
            work.delete_range(from, to);
            self.stored = None;
        }
        for entry in entries {
            self.bytes = self.bytes.saturating_add(size(&entry));
            self.entries.push_back(entry);
        }
        self.unlogged = Some(first);
    }

    /// Whether this entry has no record: it must be applied in this turn.
    pub(crate) fn is_unlogged(&self, index: u64) -> bool {
        self.unlogged.is_some_and(|first| index >= first)
    }

    /// The batch is written in which entries without records were applied: they are forgotten.
    pub(crate) fn forget_unlogged(&mut self) {
        if self.unlogged.take().is_some() {
            self.truncated = self.end();
            self.entries.clear();
            self.bytes = 0;
        }
    }

    /// Where the log ends.
    fn end(&self) -> Position {
        let last = self.entries.back();
        last.map_or(self.truncated, |entry| Position {
            index: entry.index,
            term: entry.term,
        })
    }

    pub(crate) fn set_hard(&mut self, hard: HardState) {
        self.hard = hard;
    }

    /// The commit index stored with a batch is no less than what the batch applies.
    pub(crate) fn raise_commit(&mut self, applied: u64) {
        self.hard.commit = self.hard.commit.max(applied);
    }

    pub(crate) fn set_conf(&mut self, conf: ConfState) {
        self.stored = None;
        self.conf = conf;
    }

    pub(crate) const fn set_installing(&mut self, installing: bool) {
        self.stored = None;
        self.installing = installing;
    }

    /// Puts everything beside the entries into the turn's writes, where the stored record and what the machine has applied do not
    /// say as much.
    pub(crate) fn save(&mut self, work: &mut Workspace<'_>) {
        let standing = Some((self.hard.term, self.hard.vote));
        let truncated = match self.unlogged {
            Some(_) if self.stored == standing => return,
            Some(_) => self.end(),
            None => self.truncated,
        };
        self.stored = standing;
        let record = StateRecord {
            format: STATE_FORMAT,
            term: self.hard.term,
            vote: self.hard.vote,
            commit: self.hard.commit,
            voters: self.conf.voters.clone(),
            learners: self.conf.learners.clone(),
            voters_outgoing: self.conf.voters_outgoing.clone(),
            learners_next: self.conf.learners_next.clone(),
            auto_leave: self.conf.auto_leave,
            truncated,
            installing: self.installing,
        };
        work.put(RaftStateKey::encode(self.group), encode(&record));
    }

    /// No member but this replica.
    pub(crate) fn is_of(&self, replica: ReplicaId) -> bool {
        let others = [
            &self.conf.learners,
            &self.conf.voters_outgoing,
            &self.conf.learners_next,
        ];
        self.conf.voters == [replica.0] && others.iter().all(|members| members.is_empty())
    }

    /// The machine of a group's only member has applied what the stored log does not have: entries without records, of the stored
    /// term. (Of several members, one that has taken an image may be ahead of its log too; Raft tells it where the log ends.)
    pub(crate) fn adopt(&mut self, applied: u64, replica: ReplicaId) {
        if applied > self.last() && self.entries.is_empty() && self.is_of(replica) {
            self.truncated = Position {
                index: applied,
                term: self.hard.term,
            };
            self.raise_commit(applied);
        }
    }

    /// Drops entries up to `index`, which must be applied.
    pub(crate) fn cut(&mut self, index: u64, work: &mut Workspace<'_>) {
        let Some(term) = self.entry(index).map(|entry| entry.term) else {
            return;
        };
        let (first, end) = (
            self.truncated.index.saturating_add(1),
            index.saturating_add(1),
        );
        let (from, to) = RaftEntryKey::range(self.group, first, end);
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.index <= index)
        {
            if let Some(entry) = self.entries.pop_front() {
                self.bytes = self.bytes.saturating_sub(size(&entry));
            }
        }
        self.truncated = Position { index, term };
        self.stored = None;
        work.delete_range(from, to);
    }

    /// The log after a group image of `snapshot` was installed: empty, beginning behind it.
    pub(crate) fn reset_to(&mut self, snapshot: &Snapshot, work: &mut Workspace<'_>) {
        let metadata = snapshot.get_metadata();
        let (from, to) = RaftEntryKey::all(self.group);
        work.delete_range(from, to);
        self.entries.clear();
        self.bytes = 0;
        self.stored = None;
        self.truncated = Position {
            index: metadata.index,
            term: metadata.term,
        };
        self.conf = metadata.get_conf_state().clone();
        self.raise_commit(metadata.index);
    }

    /// Raft asked for an image and none was at hand.
    pub(crate) const fn image_wanted(&self) -> bool {
        self.image_wanted.get()
    }

    /// Offers an image to followers that are behind the log, or withdraws it.
    pub(crate) fn offer_image(&mut self, image: Option<Snapshot>) {
        self.image_wanted.set(false);
        self.image = image;
    }
}

impl StateRecord {
    fn hard(&self) -> HardState {
        HardState {
            term: self.term,
            vote: self.vote,
            commit: self.commit,
        }
    }

    fn conf(&self) -> ConfState {
        ConfState {
            voters: self.voters.clone(),
            learners: self.learners.clone(),
            voters_outgoing: self.voters_outgoing.clone(),
            learners_next: self.learners_next.clone(),
            auto_leave: self.auto_leave,
        }
    }
}

impl Storage for GroupLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.truncated.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let max = max_size.into().unwrap_or(u64::MAX);
        let mut taken = 0_u64;
        let mut found = Vec::new();
        for index in low..high {
            let entry = self
                .entry(index)
                .ok_or(raft::Error::Store(StorageError::Unavailable))?;
            taken = taken.saturating_add(size(entry));
            if taken > max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.truncated.index {
            return Ok(self.truncated.term);
        }
        if index < self.truncated.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        self.entry(index)
            .map(|entry| entry.term)
            .ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.index.saturating_add(1))
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        match &self.image {
            Some(image)
                if image.get_metadata().index >= request_index.max(self.truncated.index) =>
            {
                Ok(image.clone())
            }
            Some(_) | None => {
                self.image_wanted.set(true);
                Err(raft::Error::Store(
                    StorageError::SnapshotTemporarilyUnavailable,
                ))
            }
        }
    }
}

/// What an entry counts for in bounds, in bytes.
fn size(entry: &Entry) -> u64 {
    u64::try_from(
        entry
            .data
            .len()
            .saturating_add(entry.context.len())
            .saturating_add(24),
    )
    .unwrap_or(u64::MAX)
}

fn encode<T: Serialize>(record: &T) -> Bytes {
    match postcard::to_stdvec(record) {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) => unreachable!("a record in memory always encodes: {error}"),
    }
}

fn decode_state(group: GroupId, bytes: &[u8]) -> Result<StateRecord, Error> {
    decode(group, bytes, STATE_FORMAT_FIRST..=STATE_FORMAT)
}

fn decode<'a, T: Deserialize<'a>>(
    group: GroupId,
    bytes: &'a [u8],
    formats: RangeInclusive<u8>,
) -> Result<T, Error> {
    match bytes.first() {
        Some(format) if formats.contains(format) => {
            postcard::from_bytes(bytes).map_err(|error| damaged(group, &error.to_string()))
        }
        Some(other) => Err(damaged(group, &format!("format {other} is not known"))),
        None => Err(damaged(group, "a record is empty")),
    }
}

fn encode_entry(entry: &Entry) -> Bytes {
    encode(&EntryRecord {
        format: ENTRY_FORMAT,
        kind: entry.entry_type,
        term: entry.term,
        data: &entry.data,
        context: &entry.context,
    })
}

fn decode_entry(group: GroupId, index: u64, bytes: &[u8]) -> Result<Entry, Error> {
    let record: EntryRecord<'_> = decode(group, bytes, ENTRY_FORMAT..=ENTRY_FORMAT)?;
    Ok(Entry {
        entry_type: record.kind,
        term: record.term,
        index,
        data: record.data.to_vec(),
        context: record.context.to_vec(),
        ..Entry::default()
    })
}

fn damaged(group: GroupId, detail: &str) -> Error {
    Error::Corruption {
        detail: format!("raft log of group {group}: {detail}"),
    }
}
