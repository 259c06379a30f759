//! Version vectors: per incarnation, how many of its writes are meant, without a gap.
//!
//! A vector is read, copied and written with every write of a key, and names as many incarnations as there are zones, rarely more:
//! so it is a sorted list in one piece, not a tree. Its meaning is that of `crdts::VClock`, which the tests hold it against; beside
//! it there is what a log and a disk need: a join that takes its argument by reference, the meet, and canonical bytes.

use crate::codec::{DecodeError, Reader, put_incarnation, put_len, put_varint, serde_by_bytes};
use crate::{Dot, Incarnation};

/// Covers the writes 1 to n of each incarnation it names.
///
/// Invariants: entries are sorted by incarnation, each named once; and no entry is zero, so that equal coverage is an equal list and
/// equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VersionVector {
    entries: Vec<(Incarnation, u64)>,
}

impl VersionVector {
    /// The vector that covers nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Up to which counter `incarnation` is covered; 0 when it is not named.
    pub fn get(&self, incarnation: Incarnation) -> u64 {
        let mut entries = self.entries.iter();
        let entry = entries.find(|(named, _)| *named >= incarnation);
        entry.map_or(
            0,
            |(named, counter)| {
                if *named == incarnation { *counter } else { 0 }
            },
        )
    }

    /// Whether the write is among those covered.
    pub fn covers(&self, dot: Dot) -> bool {
        dot.counter <= self.get(dot.incarnation)
    }

    /// Covers `incarnation` at least up to `counter`.
    pub fn advance(&mut self, incarnation: Incarnation, counter: u64) {
        if counter == 0 {
            return;
        }
        let is_behind = |(of, _): &(Incarnation, u64)| *of < incarnation;
        if self.entries.last().is_none_or(is_behind) {
            // As they are read.
            self.entries.push((incarnation, counter));
            return;
        }
        let place = self.entries.iter().take_while(|entry| is_behind(entry));
        let place = place.count();
        match self.entries.get_mut(place) {
            Some((of, covered)) if *of == incarnation => *covered = counter.max(*covered),
            Some(_) | None => self.entries.insert(place, (incarnation, counter)),
        }
    }

    /// Covers in addition what `other` covers.
    pub fn join(&mut self, other: &Self) {
        for (incarnation, counter) in other.iter() {
            self.advance(incarnation, counter);
        }
    }

    /// Covers only what `other` covers too: what both are known to have.
    pub fn meet(&mut self, other: &Self) {
        self.entries.retain_mut(|(incarnation, counter)| {
            *counter = other.get(*incarnation).min(*counter);
            *counter > 0
        });
    }

    /// Whether everything that `other` covers is covered here.
    pub fn includes(&self, other: &Self) -> bool {
        other
            .iter()
            .all(|(incarnation, counter)| counter <= self.get(incarnation))
    }

    /// The entries, sorted by incarnation.
    pub fn iter(&self) -> impl Iterator<Item = (Incarnation, u64)> + '_ {
        self.entries.iter().copied()
    }

    /// Whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many incarnations are named.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Forgets `incarnation`, and says up to which counter it was covered.
    pub fn remove(&mut self, incarnation: Incarnation) -> u64 {
        let place = self.entries.iter().position(|(of, _)| *of == incarnation);
        place.map_or(0, |place| self.entries.remove(place).1)
    }

    /// Appends the canonical bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_len(out, self.len());
        for (incarnation, counter) in self.iter() {
            put_incarnation(out, incarnation);
            put_varint(out, counter);
        }
    }

    /// Reads what [`VersionVector::encode`] wrote, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let count = reader.count(ENTRY_BYTES_MIN)?;
        let mut vector = Self {
            entries: Vec::with_capacity(count),
        };
        let mut previous = None;
        for _ in 0..count {
            let incarnation = reader.incarnation()?;
            let counter = reader.varint()?;
            if previous.replace(incarnation) >= Some(incarnation) {
                return Err(DecodeError::Malformed("incarnations out of order"));
            }
            if counter == 0 {
                return Err(DecodeError::Malformed("entry covers nothing"));
            }
            vector.advance(incarnation, counter);
        }
        reader.finish()?;
        Ok(vector)
    }
}

/// Zone, nonce and counter.
const ENTRY_BYTES_MIN: usize = 8;

impl FromIterator<(Incarnation, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (Incarnation, u64)>>(entries: I) -> Self {
        let mut vector = Self::new();
        for (incarnation, counter) in entries {
            vector.advance(incarnation, counter);
        }
        vector
    }
}

serde_by_bytes!(VersionVector);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ZoneId;
    use crdts::{CmRDT, CvRDT, VClock};
    use proptest::prelude::*;

    fn incarnation(zone: u16) -> Incarnation {
        Incarnation::new(ZoneId(zone), 1)
    }

    fn vector(entries: &[(u16, u64)]) -> VersionVector {
        entries
            .iter()
            .map(|(zone, counter)| (incarnation(*zone), *counter))
            .collect()
    }

    fn any_vector() -> impl Strategy<Value = VersionVector> {
        prop::collection::vec((0..5u16, 0..9u64), 0..6).prop_map(|entries| vector(&entries))
    }

    /// What `crdts` makes of the same steps.
    fn clock(entries: &[(u16, u64)]) -> VClock<Incarnation> {
        let mut clock = VClock::new();
        for (zone, counter) in entries {
            clock.apply(crdts::Dot::new(incarnation(*zone), *counter));
        }
        clock
    }

    fn same(vector: &VersionVector, clock: &VClock<Incarnation>) -> bool {
        let entries = clock.dots.iter().map(|(of, counter)| (*of, *counter));
        vector.iter().eq(entries)
    }

    #[test]
    fn advancing_never_goes_back_and_zero_names_nobody() {
        let mut v = vector(&[(1, 5)]);
        v.advance(incarnation(1), 3);
        v.advance(incarnation(2), 0);
        assert_eq!(v, vector(&[(1, 5)]));
        assert_eq!(v.remove(incarnation(1)), 5);
        assert!(v.is_empty());
    }

    #[test]
    fn bytes_out_of_order_doubled_or_empty_are_refused() {
        let mut good = Vec::new();
        vector(&[(1, 5), (2, 6)]).encode(&mut good);
        let (first, second) = (&good[1..9], &good[9..17]);
        let swapped = [&[2], second, first].concat();
        let doubled = [&[2], first, first].concat();
        let zero = [&[1], &first[..7], &[0]].concat();
        for bad in [swapped, doubled, zero] {
            assert!(
                matches!(VersionVector::decode(&bad), Err(DecodeError::Malformed(_))),
                "{bad:?}"
            );
        }
        good.push(0);
        assert_eq!(
            VersionVector::decode(&good),
            Err(DecodeError::Trailing { bytes: 1 })
        );
    }

    proptest! {
        #[test]
        fn join_is_the_least_and_meet_the_greatest(a in any_vector(), b in any_vector(), probe in any_vector()) {
            let (mut join, mut meet) = (a.clone(), a.clone());
            join.join(&b);
            meet.meet(&b);
            prop_assert!(join.includes(&a) && join.includes(&b));
            prop_assert!(a.includes(&meet) && b.includes(&meet));
            prop_assert_eq!(probe.includes(&join), probe.includes(&a) && probe.includes(&b));
            prop_assert_eq!(meet.includes(&probe), a.includes(&probe) && b.includes(&probe));
        }

        #[test]
        fn it_is_the_clock_of_crdts(
            a in prop::collection::vec((0..5u16, 0..9u64), 0..9),
            b in prop::collection::vec((0..5u16, 0..9u64), 0..9),
        ) {
            let (mut v, mut c) = (vector(&a), clock(&a));
            prop_assert!(same(&v, &c));
            for zone in 0..5 {
                prop_assert_eq!(v.get(incarnation(zone)), c.get(&incarnation(zone)));
            }
            prop_assert_eq!(v.includes(&vector(&b)), c >= clock(&b));
            v.join(&vector(&b));
            c.merge(clock(&b));
            prop_assert!(same(&v, &c));
        }

        #[test]
        fn bytes_read_back(v in any_vector()) {
            let mut bytes = Vec::new();
            v.encode(&mut bytes);
            prop_assert_eq!(VersionVector::decode(&bytes), Ok(v.clone()));
            let by_serde = postcard::to_stdvec(&v).unwrap();
            prop_assert_eq!(postcard::from_bytes::<VersionVector>(&by_serde).unwrap(), v);
        }

        #[test]
        fn foreign_bytes_are_refused_or_canonical(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(v) = VersionVector::decode(&bytes) {
                let mut again = Vec::new();
                v.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
