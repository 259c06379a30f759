//! What a zone has already of a keyspace that it begins to mirror, so that only what differs is shipped.
//!
//! A keyspace that took over from another one (`docs/alter.md`, `docs/promotion.md`) is a new one to its mirrors, though most of
//! it is what its predecessor had: in a zone that mirrored that one, in its mirror; in the zone that was home, in its groups'
//! replicas, until they go. The zone sends hashes of ranges of what it has with the question for a page; of ranges that are the
//! same in the cut, the answer says only that, and the zone copies its own records.
//!
//! A range's hash is over keys and siblings, each with its dot: a dot names one write, so what hashes equal is equal but for
//! contexts, and those follow from the siblings.
//!
//! Invariant: a range is copied only while it hashes to what was sent, read from the batch that copies it.

use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::SiblingSet;
use meridian_storage::Read;

use super::packing::Records;
use super::reading::MirrorRead;
use crate::catalog::Keyspace;
use crate::core::Core;
use crate::error::Error;
use crate::group::Group;
use crate::ids::{KeyspaceId, ShardId};
use crate::keys::{Place, VersionKey};
use crate::limits::{
    KNOWN_BYTES_MAX, KNOWN_RANGE_KEYS, KNOWN_RANGES_MAX, MIRROR_PAGE_BYTES, MIRROR_PAGE_VISITS,
};
use crate::shard::versions;

/// Records of this node that a shard of the keyspace before may have left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    place: Place,
    /// Of a mirror; `None`: the records of a group's replica.
    generation: Option<u64>,
}

/// Ranges that follow one another, each by its end, exclusive, and its hash. An empty end is that of the shard.
pub(super) type Ranges = Vec<(Bytes, u128)>;

/// A page of what differs from known ranges.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Differing {
    pub(super) records: Records,
    /// Ranges that are the same: first key and end.
    pub(super) same: Vec<(Bytes, Bytes)>,
    /// Where to go on.
    pub(super) next: Option<Bytes>,
}

/// A range as it was read, up to a bound.
#[derive(Default)]
struct Range {
    records: Records,
    bytes: usize,
    hash: u128,
    /// The bound was met before this key.
    cut: Option<Bytes>,
}

impl Base {
    fn read<T>(
        &self,
        read: &dyn Read,
        act: impl FnOnce(&dyn Read) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self.generation {
            Some(generation) => act(&MirrorRead::new(read, generation)),
            None => act(read),
        }
    }

    /// Hashes of ranges from a key on.
    pub(super) fn ranges(&self, read: &dyn Read, from: &Bytes) -> Result<Ranges, Error> {
        self.read(read, |shown| ranges(shown, self.place, from))
    }

    /// The records of a range, if they still hash to what was told.
    pub(super) fn same(
        &self,
        read: &dyn Read,
        (from, to): (&Bytes, &Bytes),
        hash: u128,
    ) -> Result<Option<Records>, Error> {
        let range = self.read(read, |shown| range(shown, self.place, (from, to)))?;
        let same = range.hash == hash && range.cut.is_none();
        Ok(same.then_some(range.records))
    }
}

fn ranges(read: &dyn Read, place: Place, from: &Bytes) -> Result<Ranges, Error> {
    let mut ranges = Ranges::new();
    let (mut keys, mut bytes, mut sum, mut done) = (0, 0, 0_u128, true);
    versions::scan(read, place, (from, None), &mut |stored, record| {
        if keys == KNOWN_RANGE_KEYS || bytes >= KNOWN_BYTES_MAX {
            let end = Bytes::copy_from_slice(VersionKey::user_key(stored)?);
            ranges.push((end, std::mem::take(&mut sum)));
            keys = 0;
            if ranges.len() >= KNOWN_RANGES_MAX || bytes >= KNOWN_BYTES_MAX {
                done = false;
                return Ok(ControlFlow::Break(()));
            }
        }
        keys += 1;
        bytes += stored.len() + record.len();
        sum = sum.wrapping_add(record_hash(stored, record)?);
        Ok(ControlFlow::Continue(()))
    })?;
    if done {
        ranges.push((Bytes::new(), sum));
    }
    Ok(ranges)
}

fn range(read: &dyn Read, place: Place, (from, to): (&Bytes, &Bytes)) -> Result<Range, Error> {
    let mut range = Range::default();
    let end = (!to.is_empty()).then_some(to.as_ref());
    versions::scan(read, place, (from, end), &mut |stored, record| {
        let key = VersionKey::user_key(stored)?;
        if range.bytes >= KNOWN_BYTES_MAX + MIRROR_PAGE_BYTES
            || range.records.len() >= MIRROR_PAGE_VISITS
        {
            range.cut = Some(Bytes::copy_from_slice(key));
            return Ok(ControlFlow::Break(()));
        }
        range.bytes += key.len() + record.len();
        range.hash = range.hash.wrapping_add(record_hash(stored, record)?);
        range
            .records
            .push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(record)));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(range)
}

/// What a cut has in the ranges that a zone knows, from a key on: those that are the same by name, of the others the records.
pub(super) fn differing(
    state: &dyn Read,
    place: Place,
    from: &Bytes,
    known: &[(Bytes, u128)],
) -> Result<Differing, Error> {
    let mut page = Differing::default();
    let (mut start, mut bytes) = (from.clone(), 0);
    for (end, hash) in known {
        let found = range(state, place, (&start, end))?;
        if found.hash == *hash && found.cut.is_none() {
            page.same.push((start, end.clone()));
        } else {
            if bytes > 0 && bytes + found.bytes > MIRROR_PAGE_BYTES {
                page.next = Some(start);
                return Ok(page);
            }
            bytes += found.bytes;
            page.records.extend(found.records);
            if found.cut.is_some() {
                page.next = found.cut;
                return Ok(page);
            }
        }
        if end.is_empty() {
            return Ok(page);
        }
        start = end.clone();
    }
    page.next = Some(start);
    Ok(page)
}

fn record_hash(stored: &[u8], record: &[u8]) -> Result<u128, Error> {
    let key = VersionKey::user_key(stored)?;
    let (_, set) = VersionKey::decode_visited(stored, record)?;
    Ok(set_hash(key, &set))
}

/// What a key adds to the hash of its range: nothing where the record says that there is no such key.
fn set_hash(key: &[u8], set: &SiblingSet) -> u128 {
    if set.is_empty() {
        return 0;
    }
    let mut hasher = blake3::Hasher::new_keyed(HASH_KEY);
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes();
    hasher.update(&length(key)).update(key);
    for sibling in set.siblings() {
        let (dot, value) = (sibling.dot, sibling.content.value());
        hasher
            .update(&dot.incarnation.raw().to_be_bytes())
            .update(&dot.counter.to_be_bytes())
            .update(&sibling.expires_at_ms.unwrap_or(0).to_be_bytes())
            .update(&[u8::from(sibling.is_live())]);
        if let Some(value) = value {
            hasher.update(&length(value)).update(value);
        }
    }
    let mut hash = [0; 16];
    hasher.finalize_xof().fill(&mut hash);
    u128::from_be_bytes(hash)
}

/// Tells this hash from all others that blake3 is used for.
const HASH_KEY: &[u8; 32] = b"meridian hash of mirrored ranges";

impl Core {
    /// What this node has of the shard of the keyspace before.
    pub(super) fn base_of(&self, keyspace: KeyspaceId, shard: ShardId) -> Option<Base> {
        let old = self.predecessor(keyspace)?;
        let place = Place {
            keyspace: old.id,
            shard,
        };
        let pointer = self.pointer_shown(old.id).ok().flatten();
        let part = self.mirrors.parts.get(&(old.id, shard));
        let held = pointer.and_then(|pointer| part?.held(pointer.generation));
        if let Some(held) = held {
            let generation = Some(held.generation);
            return Some(Base { place, generation });
        }
        let group = self.catalog.group_of(old.id, shard, self.zone())?.id;
        let whole = |group: &Group| group.shard().is_some() && !group.log().installing();
        let replica = self.groups.get(&group).filter(|group| whole(group));
        replica.map(|_| Base {
            place,
            generation: None,
        })
    }

    /// The keyspace that one came from, of which there may be something left here.
    fn predecessor(&self, keyspace: KeyspaceId) -> Option<&Keyspace> {
        let own = self.catalog.keyspaces.get(&keyspace)?;
        let earlier = self.catalog.keyspaces.range(..keyspace).rev();
        let mut earlier = earlier.map(|(_, found)| found);
        earlier.find(|found| found.moved && found.lineage == own.lineage)
    }
}

#[cfg(test)]
mod tests {
    use meridian_causal::{CausalContext, Content, Dot, Hlc, Incarnation, Sibling, VersionVector};
    use meridian_storage::{Durability, Engine, MemoryEngine};

    use super::*;
    use crate::record::Header;
    use crate::workspace::Workspace;

    const OLD: Place = Place {
        keyspace: KeyspaceId(1),
        shard: ShardId(0),
    };
    const NEW: Place = Place {
        keyspace: KeyspaceId(2),
        shard: ShardId(0),
    };

    fn key(number: usize) -> Bytes {
        Bytes::from(format!("k{number:05}"))
    }

    /// A shard with keys, each of one version with this counter.
    fn shard(place: Place, keys: impl Iterator<Item = (usize, u64)>) -> MemoryEngine {
        let engine = MemoryEngine::new();
        let mut work = Workspace::new(&engine, false);
        for (number, counter) in keys {
            let sibling = Sibling {
                dot: Dot::new(Incarnation::from_raw(9), counter),
                content: Content::Value(Bytes::from_static(b"value")),
                written_at: Hlc(counter),
                expires_at_ms: None,
                op_id: None,
                transaction: None,
            };
            let mut set = SiblingSet::new();
            set.apply(sibling, &CausalContext::new(), &VersionVector::new());
            let record = VersionKey::encode_record(Header::default(), &set);
            work.put(VersionKey::encode(place, &key(number)), record);
        }
        engine
            .write(&work.into_batch(), Durability::Synced)
            .unwrap();
        engine
    }

    fn base() -> Base {
        Base {
            place: OLD,
            generation: None,
        }
    }

    /// All pages of what differs: records that travel, and records that are copied.
    fn fill(here: &MemoryEngine, cut: &MemoryEngine) -> (Vec<Bytes>, Vec<Bytes>) {
        let (mut shipped, mut copied) = (Vec::new(), Vec::new());
        let mut from = Bytes::new();
        loop {
            let known = base().ranges(here, &from).unwrap();
            let page = differing(cut, NEW, &from, &known).unwrap();
            for (first, end) in &page.same {
                let told = known.iter().find(|(of, _)| of == end).unwrap();
                let records = base().same(here, (first, end), told.1).unwrap().unwrap();
                copied.extend(records.into_iter().map(|(key, _)| key));
            }
            shipped.extend(page.records.into_iter().map(|(key, _)| key));
            let Some(next) = page.next else {
                return (shipped, copied);
            };
            assert!(next > from, "a page gets on");
            from = next;
        }
    }

    #[test]
    fn only_ranges_that_differ_travel_and_every_key_arrives_once() {
        let keys = 20_000;
        let here = shard(OLD, (0..keys).map(|n| (n, 1)));
        let changed = [5, 7_777, 19_999];
        let cut = (0..keys + 10).filter(|n| *n != 300);
        let cut = shard(
            NEW,
            cut.map(|n| (n, if changed.contains(&n) { 2 } else { 1 })),
        );
        let (shipped, copied) = fill(&here, &cut);
        assert!(shipped.len() < 5 * KNOWN_RANGE_KEYS, "{}", shipped.len());
        assert!(changed.iter().all(|n| shipped.contains(&key(*n))));
        assert!(!shipped.contains(&key(300)) && !copied.contains(&key(300)));
        let mut all = [shipped, copied].concat();
        all.sort();
        let wanted = (0..keys + 10).filter(|n| *n != 300).map(key);
        assert_eq!(all, wanted.collect::<Vec<_>>());
    }

    #[test]
    fn a_zone_that_has_nothing_gets_everything_within_bounds() {
        let here = shard(OLD, std::iter::empty());
        let cut = shard(NEW, (0..40_000).map(|n| (n, 1)));
        let (shipped, copied) = fill(&here, &cut);
        assert_eq!((shipped.len(), copied.len()), (40_000, 0));
    }

    #[test]
    fn a_range_that_has_changed_since_it_was_told_is_not_copied() {
        let here = shard(OLD, (0..10).map(|n| (n, 1)));
        let known = base().ranges(&here, &Bytes::new()).unwrap();
        let later = shard(OLD, (0..10).map(|n| (n, 2)));
        let (end, hash) = known[0].clone();
        let copied = base().same(&later, (&Bytes::new(), &end), hash).unwrap();
        assert_eq!(copied, None);
    }
}
