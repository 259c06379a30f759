//! Changes of a shard in order, for a watcher.
//!
//! What it is: a function of what a replica has stored and of the position from which a watcher goes on. Positions are
//! numbers of changes, the same on every replica of the group, so any replica may serve, and another one next time.
//!
//! What it is not: it does not wait for changes, and keeps no watcher.
//!
//! Changes stand in one stream per incarnation (the outbox, in which change numbers grow with the counter) and in one
//! for what ended by itself. A page takes from each what lies in a window of numbers, and sorts.
//!
//! Invariant: a page holds every change between the position given and the one returned. A number that is missing is
//! an error, never a gap.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::{Content, Dot, Hlc, Incarnation, TransactionTag};
use meridian_storage::Read;

use crate::error::Error;
use crate::group::log::GroupLog;
use crate::ids::GroupId;
use crate::keys::{ChangeKey, OutboxKey, Place, ShardMetaKey, corrupt};
use crate::shard::{ShardMeta, load_meta, outbox};

/// Up to where a watcher has seen the changes of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Which life of the group the number is of: a group that goes on as another numbers other changes.
    pub life: u32,
    /// Number of the last change seen.
    pub change: u64,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its number.
    pub number: u64,
    /// The key.
    pub key: Bytes,
    /// What was written.
    pub content: Content,
    /// The dot of the version; its zone is where it was written.
    pub dot: Dot,
    /// Hybrid time of the write.
    pub written_at: Hlc,
    /// Absolute wall-clock milliseconds at which the version expires.
    pub expires_at_ms: Option<u64>,
    /// The transaction it belongs to.
    pub transaction: Option<TransactionTag>,
    /// Nobody deleted it: it came to its end.
    pub expired: bool,
}

/// Which keys are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// This one.
    Key(Bytes),
    /// Those that begin so; all, when it is empty.
    Prefix(Bytes),
}

/// How much a page may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimits {
    /// Changes looked at.
    pub changes: u64,
    /// Bytes of records looked at, per incarnation; one always fits.
    pub bytes: usize,
}

/// What a replica can say of the changes after a position.
#[derive(Clone, Debug, PartialEq)]
pub enum Changes {
    /// The changes that come next.
    Page {
        /// Those selected, in order.
        changes: Vec<Change>,
        /// Where to go on.
        through: Position,
        /// There are changes after it.
        more: bool,
    },
    /// Not all of what came after the position is kept; the position from which it is.
    Compacted(Position),
    /// No whole replica of the group is here.
    Absent,
}

impl Selection {
    /// Whether a key is watched.
    pub fn covers(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(watched) => watched == key,
            Self::Prefix(prefix) => key.starts_with(prefix),
        }
    }
}

impl Change {
    /// About how many bytes it takes in memory and on a wire.
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.content.value().map_or(0, Bytes::len) + 64
    }
}

fn life(incarnation: Incarnation) -> u32 {
    let [.., a, b, c, d] = incarnation.raw().to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// What the replica of `group` knows of its shard, if it is whole.
fn whole(read: &dyn Read, group: GroupId) -> Result<Option<ShardMeta>, Error> {
    if GroupLog::is_installing(group, read)? {
        return Ok(None);
    }
    load_meta(read, group)
}

/// The position after everything that has happened; `None` when no whole replica is here.
pub fn present(read: &dyn Read, group: GroupId) -> Result<Option<Position>, Error> {
    let meta = whole(read, group)?;
    Ok(meta.map(|meta| Position {
        life: life(meta.incarnation),
        change: meta.changes,
    }))
}

/// Changes after `after`. `read` must be one state that does not change: a view. A replica that lags behind the one
/// that gave the position has none.
pub fn page(
    read: &dyn Read,
    group: GroupId,
    after: Position,
    selection: &Selection,
    limits: PageLimits,
) -> Result<Changes, Error> {
    let Some(meta) = whole(read, group)? else {
        return Ok(Changes::Absent);
    };
    let at = |change| Position {
        life: life(meta.incarnation),
        change,
    };
    if after.life != at(0).life || after.change < meta.changes_floor {
        return Ok(Changes::Compacted(at(meta.changes_floor)));
    }
    if after.change >= meta.changes {
        return Ok(Changes::Page {
            changes: Vec::new(),
            through: after,
            more: false,
        });
    }
    let window = Window {
        place: group.into(),
        selection,
        limits,
        after: after.change,
        through: meta
            .changes
            .min(after.change.saturating_add(limits.changes.max(1))),
        found: BTreeMap::new(),
    };
    let (changes, through) = window.fill(read, &meta, group)?;
    Ok(Changes::Page {
        changes,
        through: at(through),
        more: through < meta.changes,
    })
}

/// A page being filled.
struct Window<'q> {
    place: Place,
    selection: &'q Selection,
    limits: PageLimits,
    /// Changes after this one,
    after: u64,
    /// up to this one.
    through: u64,
    /// Every change of the window that was read; `None`: its key is not watched.
    found: BTreeMap<u64, Option<Change>>,
}

impl Window<'_> {
    fn fill(
        mut self,
        read: &dyn Read,
        meta: &ShardMeta,
        group: GroupId,
    ) -> Result<(Vec<Change>, u64), Error> {
        for (incarnation, received) in meta.received.iter() {
            let kept = (meta.outbox_floor.get(incarnation), received);
            let after = self.after;
            let seen = outbox::last_where(read, self.place, incarnation, kept, |frame| {
                frame.change <= after
            })?;
            if seen < received {
                self.take_effects(read, incarnation, seen.saturating_add(1))?;
            }
        }
        self.take_endings(read)?;
        self.finish(group)
    }

    /// The effects of an incarnation from counter `first` on. When they are more than a page holds, the window ends
    /// before the first that is left out.
    fn take_effects(
        &mut self,
        read: &dyn Read,
        incarnation: Incarnation,
        first: u64,
    ) -> Result<(), Error> {
        let (from, to) = OutboxKey::range(self.place, incarnation, first, u64::MAX);
        let mut bytes = 0;
        self.scan(read, (&from, &to), &mut |window, stored, record| {
            let frame = OutboxKey::open_record(stored, record)?;
            if window.is_past(frame.change, &mut bytes, record.len()) {
                return Ok(ControlFlow::Break(()));
            }
            let effect = frame.read(stored)?;
            let watched = window.selection.covers(&effect.key);
            let dot = OutboxKey::dot(stored)?;
            let change = watched.then(|| Change {
                number: frame.change,
                key: effect.key,
                content: effect.content,
                dot,
                written_at: effect.written_at,
                expires_at_ms: effect.expires_at_ms,
                transaction: effect.transaction,
                expired: false,
            });
            window.found.insert(frame.change, change);
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Versions that came to their end.
    fn take_endings(&mut self, read: &dyn Read) -> Result<(), Error> {
        let (from, to) = ChangeKey::range(self.place, self.after.saturating_add(1), u64::MAX);
        let mut bytes = 0;
        self.scan(read, (&from, &to), &mut |window, stored, record| {
            let number = ChangeKey::number(stored)?;
            if window.is_past(number, &mut bytes, record.len()) {
                return Ok(ControlFlow::Break(()));
            }
            let (header, ended) = ChangeKey::decode_record(stored, record)?;
            let watched = window.selection.covers(&ended.key);
            let change = watched.then(|| Change {
                number,
                key: ended.key,
                content: Content::Tombstone,
                dot: ended.dot,
                written_at: header.hlc,
                expires_at_ms: None,
                transaction: None,
                expired: true,
            });
            window.found.insert(number, change);
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Whether a record is behind the window, or the window is to end before it.
    fn is_past(&mut self, change: u64, bytes: &mut usize, record_bytes: usize) -> bool {
        let first = *bytes == 0;
        *bytes = bytes.saturating_add(record_bytes);
        if !first && *bytes > self.limits.bytes {
            self.through = self.through.min(change.saturating_sub(1));
        }
        change > self.through
    }

    /// Everything in the window, which must be without a gap.
    fn finish(mut self, group: GroupId) -> Result<(Vec<Change>, u64), Error> {
        drop(self.found.split_off(&self.through.saturating_add(1)));
        let expected = self.after.saturating_add(1)..=self.through;
        if !self.found.keys().copied().eq(expected) {
            let found: Vec<_> = self.found.keys().take(8).collect();
            return Err(corrupt(
                &ShardMetaKey::encode(group),
                format!(
                    "changes {} to {} are not all there: {found:?}",
                    self.after, self.through
                ),
            ));
        }
        let changes = self.found.into_values().flatten().collect();
        Ok((changes, self.through))
    }

    fn scan(
        &mut self,
        read: &dyn Read,
        (from, to): (&[u8], &[u8]),
        visit: &mut Visit<'_, Self>,
    ) -> Result<(), Error> {
        let mut outcome = Ok(());
        read.scan(from, to, &mut |stored, record| {
            visit(self, stored, record).unwrap_or_else(|error| {
                outcome = Err(error);
                ControlFlow::Break(())
            })
        })?;
        outcome
    }
}

/// Takes a stored record into a window.
type Visit<'v, W> = dyn FnMut(&mut W, &[u8], &[u8]) -> Result<ControlFlow<()>, Error> + 'v;
