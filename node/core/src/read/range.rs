//! Ranges as transactions read and compare them: live keys in order, and one stamp over all records.
//!
//! Tombstones count in the stamp: a key that came and went must not leave a range as it was.

use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::SiblingSet;
use meridian_storage::Read;

use crate::error::Error;
use crate::keys::{Place, VersionKey};
use crate::limits::{RANGE_KEYS_MAX, SCAN_BYTES_MAX};
use crate::request::Answer;
use crate::shard::versions;

/// The hash over keys and stamps of a range. Equal for equal content in the same order; it resists chance, not intent:
/// a client that forges it deceives itself.
#[derive(Clone, Debug)]
pub(crate) struct RangeHash(blake3::Hasher);

impl RangeHash {
    pub(crate) fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    /// Takes in the next key that has a record, and the log index of its last change.
    pub(crate) fn add(&mut self, key: &[u8], index: u64) {
        let length = u64::try_from(key.len()).unwrap_or(u64::MAX);
        self.0.update(&length.to_be_bytes());
        self.0.update(key);
        self.0.update(&index.to_be_bytes());
    }

    pub(crate) fn finish(&self) -> u128 {
        let mut stamp = [0; 16];
        self.0.finalize_xof().fill(&mut stamp);
        u128::from_be_bytes(stamp)
    }
}

/// A page of live keys from `from` on, and the stamp of what it covers.
pub(crate) fn read(
    read: &dyn Read,
    place: Place,
    (from, to): (&[u8], Option<&[u8]>),
    limit: usize,
) -> Result<Answer, Error> {
    let limit = limit.clamp(1, RANGE_KEYS_MAX);
    let mut keys: Vec<(Bytes, SiblingSet)> = Vec::new();
    let mut hash = RangeHash::new();
    let mut bytes = 0;
    let mut next: Option<Bytes> = None;
    versions::scan(read, place, (from, to), &mut |stored, record| {
        let (header, set) = VersionKey::decode_visited(stored, record)?;
        let key = VersionKey::user_key(stored)?;
        if set.has_live() {
            bytes += record.len();
            if keys.len() >= limit || (bytes > SCAN_BYTES_MAX && !keys.is_empty()) {
                next = Some(Bytes::copy_from_slice(key));
                return Ok(ControlFlow::Break(()));
            }
            keys.push((Bytes::copy_from_slice(key), set));
        }
        hash.add(key, header.index);
        Ok(ControlFlow::Continue(()))
    })?;
    let more = next.is_some();
    let end = next.or_else(|| to.map(Bytes::copy_from_slice));
    Ok(Answer::Range {
        keys,
        end: end.unwrap_or_default(),
        stamp: hash.finish(),
        more,
    })
}

/// The stamp of `[from, to)` as it is now, or nothing when it holds more keys than a transaction may compare.
pub(crate) fn stamp(
    read: &dyn Read,
    place: Place,
    from: &[u8],
    to: &[u8],
) -> Result<Option<u128>, Error> {
    let mut hash = RangeHash::new();
    let mut left = RANGE_KEYS_MAX;
    let mut too_many = false;
    let to = (!to.is_empty()).then_some(to);
    versions::scan(read, place, (from, to), &mut |stored, record| {
        let (header, set) = VersionKey::decode_visited(stored, record)?;
        let Some(fewer) = left.checked_sub(usize::from(set.has_live())) else {
            too_many = true;
            return Ok(ControlFlow::Break(()));
        };
        left = fewer;
        hash.add(VersionKey::user_key(stored)?, header.index);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((!too_many).then(|| hash.finish()))
}
