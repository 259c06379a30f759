//! What a comparison asks of a shard's view, on either side (protocol rules 11 and 12).
//!
//! The hash of a range is the sum over its keys of the digest of the siblings' dots and values; for a key with nothing
//! but tombstones, of their dots. They must not be left out. Else: this zone holds a tombstone, the other has not heard
//! of the key, finds the range equal and takes the vector; a write concurrent with the delete, still in flight to both,
//! then stands beside a `deleted` sibling here and alone there. Where one zone has dropped a tombstone that the other
//! still holds, equal content hashes differently, which costs a transfer and changes nothing.
//!
//! A key whose context goes beyond the shard's received vector counts with all its bytes: what it covers is still to
//! come to both zones, and must be recognised in both.

use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::{OpId, SiblingSet, VersionVector};
use meridian_storage::Read;

use super::{load_meta, versions};
use crate::error::Error;
use crate::ids::GroupId;
use crate::keys::{OpIdRecord, OpOrderKey, Place, VersionKey, corrupt, successor};
use crate::limits::COMPARE_STATES_BYTES_MAX;

/// Hashes of consecutive ranges from `from` on, at most `max_ranges`, of `keys_per_range` keys each. A range is named
/// by its end, exclusive; an empty end is the end of the shard.
pub fn range_hashes(
    read: &dyn Read,
    group: GroupId,
    from: &[u8],
    max_ranges: usize,
    keys_per_range: usize,
) -> Result<Vec<(Bytes, u128)>, Error> {
    let received = received(read, group)?;
    let limits = (max_ranges, keys_per_range);
    range_hashes_at(read, (group.into(), &received), from, limits)
}

/// The same of a shard that has received a vector which does not stand in `read`.
pub fn range_hashes_at(
    read: &dyn Read,
    (place, received): (Place, &VersionVector),
    from: &[u8],
    (max_ranges, keys_per_range): (usize, usize),
) -> Result<Vec<(Bytes, u128)>, Error> {
    let mut ranges = Vec::new();
    let mut keys = 0;
    let mut sum = 0_u128;
    let mut done = true;
    versions::scan(read, place, (from, None), &mut |stored, record| {
        if keys == keys_per_range.max(1) {
            let end = Bytes::copy_from_slice(VersionKey::user_key(stored)?);
            ranges.push((end, std::mem::take(&mut sum)));
            keys = 0;
            if ranges.len() >= max_ranges {
                done = false;
                return Ok(ControlFlow::Break(()));
            }
        }
        keys += 1;
        sum = sum.wrapping_add(key_hash(stored, record, received)?);
        Ok(ControlFlow::Continue(()))
    })?;
    if done {
        ranges.push((Bytes::new(), sum));
    }
    Ok(ranges)
}

/// The hash of `[from, to)`; an empty `to` is the end of the shard.
pub fn range_hash(read: &dyn Read, group: GroupId, from: &[u8], to: &[u8]) -> Result<u128, Error> {
    let received = received(read, group)?;
    let mut sum = 0_u128;
    versions::scan(
        read,
        group.into(),
        (from, open_end(to)),
        &mut |stored, record| {
            sum = sum.wrapping_add(key_hash(stored, record, &received)?);
            Ok(ControlFlow::Continue(()))
        },
    )?;
    Ok(sum)
}

/// Keys of `[from, to)` with their encoded sets, of at most `max_bytes` together (one always fits), and the end of what
/// they are all of.
pub fn states(
    read: &dyn Read,
    place: impl Into<Place>,
    from: &[u8],
    to: &[u8],
    max_bytes: usize,
) -> Result<(Vec<(Bytes, Bytes)>, Bytes), Error> {
    let mut states: Vec<(Bytes, Bytes)> = Vec::new();
    let mut bytes = 0;
    let mut end = Bytes::copy_from_slice(to);
    versions::scan(
        read,
        place.into(),
        (from, open_end(to)),
        &mut |stored, record| {
            let key = Bytes::copy_from_slice(VersionKey::user_key(stored)?);
            bytes += key.len() + record.len();
            if bytes > max_bytes
                && let Some((last, _)) = states.last()
            {
                end = Bytes::from(successor(last));
                return Ok(ControlFlow::Break(()));
            }
            states.push((key, versions::set_bytes(stored, record)?));
            Ok(ControlFlow::Continue(()))
        },
    )?;
    Ok((states, end))
}

/// Whether states received from another zone read as sets: to be asked before they are proposed.
pub fn states_are_valid(states: &[(Bytes, Bytes)]) -> bool {
    states
        .iter()
        .all(|(_, set)| SiblingSet::decode(set).is_ok())
}

/// Operations that a view remembers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recalled {
    /// Op ids, 16 bytes each, and what they did.
    pub operations: Vec<(Bytes, Bytes)>,
    /// Where to go on: a place in the view. Empty at the end.
    pub next: Bytes,
    /// Stamps below this are forgotten.
    pub floor_ms: u64,
}

/// Operations remembered, from a place in the view on (`from`: empty, or [`Recalled::next`]), whose effects `received` does not
/// have; at most `max_seen` are looked at.
pub fn recall(
    read: &dyn Read,
    group: GroupId,
    (from, received): (&[u8], &VersionVector),
    max_seen: usize,
) -> Result<Recalled, Error> {
    let (first, mut skip) = read_place(from).unwrap_or_default();
    let (start, end) = OpOrderKey::range(group.into(), first, u64::MAX);
    let mut recalling = Recalling {
        received,
        left: max_seen.max(1),
        bytes: 0,
        recalled: Recalled {
            floor_ms: load_meta(read, group)?.map_or(0, |meta| meta.op_floor_ms),
            ..Recalled::default()
        },
    };
    let mut outcome = Ok(());
    read.scan(&start, &end, &mut |stored, record| {
        let skipped = std::mem::take(&mut skip);
        recalling
            .take(stored, record, skipped)
            .unwrap_or_else(|error| {
                outcome = Err(error);
                ControlFlow::Break(())
            })
    })?;
    outcome.map(|()| recalling.recalled)
}

struct Recalling<'a> {
    received: &'a VersionVector,
    /// How many may still be looked at.
    left: usize,
    bytes: usize,
    recalled: Recalled,
}

impl Recalling<'_> {
    /// What a log entry has entered, but for its first operations.
    fn take(
        &mut self,
        stored: &[u8],
        record: &[u8],
        skip: usize,
    ) -> Result<ControlFlow<()>, Error> {
        let (header, order) = OpOrderKey::open_record(stored, record)?;
        for (n, (id, operation)) in order.operations.into_iter().enumerate().skip(skip) {
            if self.left == 0 || self.bytes >= COMPARE_STATES_BYTES_MAX {
                self.recalled.next = place(header.index, n);
                return Ok(ControlFlow::Break(()));
            }
            self.left = self.left.saturating_sub(1);
            let read = OpIdRecord::decode(operation).map_err(|error| corrupt(stored, error))?;
            if read.dot.counter > self.received.get(read.dot.incarnation) {
                let id = Bytes::copy_from_slice(&id.to_be_bytes());
                self.bytes = self.bytes.saturating_add(id.len() + operation.len());
                let operation = Bytes::copy_from_slice(operation);
                self.recalled.operations.push((id, operation));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// A log index and a number of operations of that entry: `[u64 BE][u32 BE]`.
fn place(index: u64, operations: usize) -> Bytes {
    let operations = u32::try_from(operations).unwrap_or(u32::MAX);
    Bytes::from([&index.to_be_bytes()[..], &operations.to_be_bytes()].concat())
}

fn read_place(place: &[u8]) -> Option<(u64, usize)> {
    let (index, rest) = place.split_first_chunk()?;
    let operations = u32::from_be_bytes(rest.try_into().ok()?);
    Some((
        u64::from_be_bytes(*index),
        usize::try_from(operations).ok()?,
    ))
}

/// What a remembered operation did, as another zone tells it; nothing if it does not read.
pub fn recalled(id: &[u8], operation: &[u8]) -> Option<(OpId, OpIdRecord)> {
    let id = u128::from_be_bytes(<[u8; 16]>::try_from(id).ok()?);
    let operation = OpIdRecord::decode(operation).ok()?;
    let stamp_ms = operation.stamp_ms;
    Some((OpId { stamp_ms, id }, operation))
}

fn open_end(to: &[u8]) -> Option<&[u8]> {
    (!to.is_empty()).then_some(to)
}

fn received(read: &dyn Read, group: GroupId) -> Result<VersionVector, Error> {
    Ok(load_meta(read, group)?
        .map(|meta| meta.received)
        .unwrap_or_default())
}

/// What a record adds to the hash of its range.
fn key_hash(stored: &[u8], record: &[u8], received: &VersionVector) -> Result<u128, Error> {
    let (_, set) = VersionKey::decode_visited(stored, record)?;
    let key = VersionKey::user_key(stored)?;
    if !set.context().within(received) {
        let set = VersionKey::set_bytes(stored, record)?;
        return Ok(keyed_hash(AHEAD_KEY, key, |hasher| {
            hasher.update(set);
        }));
    }
    Ok(set
        .digest(key)
        .map_or_else(|| tombstones_hash(key, &set), u128::from_be_bytes))
}

fn tombstones_hash(key: &[u8], set: &SiblingSet) -> u128 {
    keyed_hash(TOMBSTONES_KEY, key, |hasher| {
        for dot in versions::dots(set) {
            hasher
                .update(&dot.incarnation.raw().to_be_bytes())
                .update(&dot.counter.to_be_bytes());
        }
    })
}

/// These tell the hashes from each other and from all others that blake3 is used for.
const AHEAD_KEY: &[u8; 32] = b"meridian hash of sets in advance";
const TOMBSTONES_KEY: &[u8; 32] = b"meridian hash of tombstones only";

fn keyed_hash(hash_key: &[u8; 32], key: &[u8], content: impl FnOnce(&mut blake3::Hasher)) -> u128 {
    let mut hasher = blake3::Hasher::new_keyed(hash_key);
    hasher
        .update(&u64::try_from(key.len()).unwrap_or(u64::MAX).to_be_bytes())
        .update(key);
    content(&mut hasher);
    let mut hash = [0; 16];
    hasher.finalize_xof().fill(&mut hash);
    u128::from_be_bytes(hash)
}
