//! One page of a scan of one shard.

use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::{Content, Sibling, SiblingSet, VersionVector};
use meridian_storage::Read;

use crate::error::Error;
use crate::keys::{ConflictKey, Place, VersionKey, successor};
use crate::limits::{SCAN_BYTES_MAX, SCAN_KEYS_MAX};
use crate::request::{Answer, Filter};
use crate::shard::versions;

/// What is asked for.
pub(super) struct Scan<'q> {
    pub(super) from: &'q [u8],
    pub(super) to: Option<&'q [u8]>,
    pub(super) limit: usize,
    pub(super) filter: Filter,
    pub(super) keys_only: bool,
}

/// A page being filled.
#[derive(Default)]
struct Page {
    keys: Vec<(Bytes, SiblingSet)>,
    bytes: usize,
    more: bool,
}

impl Page {
    /// Takes a key, or notes that there is one more than the page holds.
    fn take(&mut self, key: &[u8], set: SiblingSet, limit: usize) -> ControlFlow<()> {
        self.bytes += key.len()
            + set
                .siblings()
                .iter()
                .filter_map(|s| s.content.value())
                .map(Bytes::len)
                .sum::<usize>();
        if self.keys.len() >= limit || (self.bytes > SCAN_BYTES_MAX && !self.keys.is_empty()) {
            self.more = true;
            return ControlFlow::Break(());
        }
        self.keys.push((Bytes::copy_from_slice(key), set));
        ControlFlow::Continue(())
    }

    fn answer(self) -> Answer {
        Answer::Page {
            keys: self.keys,
            more: self.more,
        }
    }
}

impl Scan<'_> {
    pub(super) fn page(&self, read: &dyn Read, place: Place) -> Result<Answer, Error> {
        match self.filter {
            Filter::Live => self.live(read, place),
            Filter::Conflicts => self.conflicts(read, place),
        }
    }

    /// A page holds at least one key, so that whoever asks for the next one gets on.
    fn limit(&self) -> usize {
        self.limit.clamp(1, SCAN_KEYS_MAX)
    }

    fn shown(&self, set: SiblingSet) -> SiblingSet {
        if self.keys_only {
            without_values(&set)
        } else {
            set
        }
    }

    fn live(&self, read: &dyn Read, place: Place) -> Result<Answer, Error> {
        let mut page = Page::default();
        versions::scan(read, place, (self.from, self.to), &mut |stored, record| {
            let (_, set) = VersionKey::decode_visited(stored, record)?;
            if !set.has_live() {
                return Ok(ControlFlow::Continue(()));
            }
            Ok(page.take(VersionKey::user_key(stored)?, self.shown(set), self.limit()))
        })?;
        Ok(page.answer())
    }

    /// Goes by the index, in steps of a page. A key that was resolved between index and record is passed over, and the
    /// page goes on behind it.
    fn conflicts(&self, read: &dyn Read, place: Place) -> Result<Answer, Error> {
        let mut page = Page::default();
        let mut from = self.from.to_vec();
        loop {
            let keys = self.conflicting(read, place, &from)?;
            let Some(last) = keys.last() else {
                return Ok(page.answer());
            };
            from = successor(last);
            for key in &keys {
                let set = versions::load(read, place, key)?;
                if set.is_conflict() && page.take(key, self.shown(set), self.limit()).is_break() {
                    return Ok(page.answer());
                }
            }
        }
    }

    /// The next keys of the index, one more than a page holds.
    fn conflicting(&self, read: &dyn Read, place: Place, from: &[u8]) -> Result<Vec<Bytes>, Error> {
        let (first, end) = ConflictKey::range(place, from, self.to);
        let mut keys = Vec::new();
        let mut outcome = Ok(());
        read.scan(&first, &end, &mut |stored, _| {
            outcome =
                ConflictKey::user_key(stored).map(|key| keys.push(Bytes::copy_from_slice(key)));
            if outcome.is_err() || keys.len() > self.limit() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        outcome.map(|()| keys)
    }
}

/// The same siblings with empty values.
fn without_values(set: &SiblingSet) -> SiblingSet {
    let received = VersionVector::new();
    let mut bare = SiblingSet::new();
    for sibling in set.siblings() {
        let content = match sibling.content {
            Content::Value(_) => Content::Value(Bytes::new()),
            Content::Tombstone => Content::Tombstone,
        };
        let replaced = meridian_causal::CausalContext::new();
        bare.apply(
            Sibling {
                content,
                ..sibling.clone()
            },
            &replaced,
            &received,
        );
    }
    bare
}
