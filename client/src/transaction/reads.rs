//! What a transaction has read, and how it is checked that it still holds.

use std::collections::BTreeMap;

use bytes::Bytes;
use meridian_proto::kv::v1 as wire;

use super::together::Together;
use crate::error::Error;
use crate::results::Versions;

/// Keys and ranges read, with their stamps.
#[derive(Debug, Default)]
pub(super) struct ReadSet {
    stamps: BTreeMap<Bytes, Bytes>,
    ranges: Vec<wire::RangeStamp>,
    /// What was seen of each key, alone or in a range, once all that was read before was found to hold with it.
    seen: BTreeMap<Bytes, Versions>,
    /// Reads of which that is not known yet.
    unchecked: usize,
    /// Whether the answers alone show that.
    together: Together,
}

impl ReadSet {
    /// What was seen of the key, if it was read.
    pub(super) fn seen(&self, key: &[u8]) -> Option<&Versions> {
        self.seen.get(key)
    }

    /// Whether the commit compares the key.
    pub(super) fn covers(&self, key: &[u8]) -> bool {
        self.stamps.contains_key(key) || self.seen.contains_key(key)
    }

    /// Whether a read was given up before it was checked against the others.
    pub(super) const fn is_unchecked(&self) -> bool {
        self.unchecked > 0
    }

    /// Keys and ranges.
    pub(super) fn len(&self) -> usize {
        self.stamps.len() + self.ranges.len()
    }

    /// Bytes that the comparisons take.
    pub(super) fn bytes(&self) -> usize {
        let keys = self.stamps.keys().map(Bytes::len).sum::<usize>();
        keys + self.ranges.iter().map(bytes_of_range).sum::<usize>()
    }

    /// Whether the answers alone show that everything read stood side by side.
    pub(super) fn stood_together(&self) -> bool {
        self.together.is_shown()
    }

    /// Adds a key. Two reads of one key at the same time may see different states.
    pub(super) fn add_key(
        &mut self,
        key: Bytes,
        stamp: Bytes,
        span: Option<wire::HeldSpan>,
    ) -> Result<(), Error> {
        match self.stamps.get(&key) {
            Some(before) if *before != stamp => return Err(changed()),
            Some(_) | None => {}
        }
        self.stamps.insert(key, stamp);
        self.together.add(span);
        self.unchecked += 1;
        Ok(())
    }

    /// Adds what one scan read.
    pub(super) fn add_ranges(&mut self, ranges: Vec<wire::RangeStamp>) {
        self.unchecked += 1;
        self.together.add(None);
        for range in ranges {
            if !self.ranges.contains(&range) {
                self.ranges.push(range);
            }
        }
    }

    /// Takes in what one read saw, now that everything before it was found to hold with it.
    pub(super) fn see(&mut self, read: &[Versions]) {
        self.unchecked = self.unchecked.saturating_sub(1);
        for versions in read {
            self.seen.insert(versions.key.clone(), versions.clone());
        }
    }

    /// Everything read, as comparisons.
    pub(super) fn compare(&self) -> Vec<wire::Compare> {
        use wire::compare::Compare;
        let unchanged = |(key, stamp): (&Bytes, &Bytes)| {
            Compare::Unchanged(wire::Unchanged {
                key: key.clone(),
                stamp: stamp.clone(),
            })
        };
        let keys = self.stamps.iter().map(unchanged);
        let ranges = self.ranges.iter().cloned().map(Compare::RangeUnchanged);
        let all = keys.chain(ranges).map(|compare| wire::Compare {
            compare: Some(compare),
        });
        all.collect()
    }
}

pub(super) fn bytes_of_range(range: &wire::RangeStamp) -> usize {
    range.from.len() + range.to.len()
}

/// The error of a transaction whose reads do not hold any more.
pub(super) fn changed() -> Error {
    Error::conflict("what the transaction had read has changed")
}
