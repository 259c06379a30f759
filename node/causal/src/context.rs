//! Causal contexts: which writes of one key somebody has seen.
//!
//! A context is a version vector plus single dots beyond it, and it is bound to one key: an entry (J, n) speaks of the
//! writes of J up to n *on that key*. So a context may be widened wherever the widening takes in no write of the key
//! ([`CausalContext::fold`]), and may not be used on another key, whose writes up to n may still be in flight.
//!
//! The single dots are what lets a writer cover (A, 6) without (A, 5), which it has not read.

use crate::codec::{DecodeError, Reader, put_incarnation, put_len, put_varint, serde_by_bytes};
use crate::{Dot, Incarnation, VersionVector};

/// A set of dots of one key.
///
/// Invariants:
/// * `dots` are sorted, and each lies at least two beyond `vector`'s entry (the next one would extend the entry), so
///   that equal coverage is equal bytes;
/// * no dot has counter 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CausalContext {
    vector: VersionVector,
    dots: Vec<Dot>,
}

impl CausalContext {
    /// The context of somebody who has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The context of somebody who has seen one write.
    pub fn from_dot(dot: Dot) -> Self {
        let mut context = Self::new();
        context.insert(dot);
        context
    }

    /// The context of somebody who has seen everything `vector` covers.
    pub fn from_vector(vector: VersionVector) -> Self {
        Self {
            vector,
            dots: Vec::new(),
        }
    }

    /// The part without gaps.
    pub fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// The single dots beyond [`CausalContext::vector`], sorted.
    pub fn dots(&self) -> &[Dot] {
        &self.dots
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.vector.is_empty() && self.dots.is_empty()
    }

    /// Whether the write was seen.
    pub fn covers(&self, dot: Dot) -> bool {
        self.vector.covers(dot) || self.dots.binary_search(&dot).is_ok()
    }

    /// Sees one more write, and no other.
    pub fn insert(&mut self, dot: Dot) {
        let end = self.vector.get(dot.incarnation);
        if dot.counter <= end {
            return;
        }
        if dot.counter == end + 1 {
            self.vector.advance(dot.incarnation, dot.counter);
            self.absorb(|_| false);
        } else if let Err(place) = self.dots.binary_search(&dot) {
            self.dots.insert(place, dot);
        }
    }

    /// Sees what `other` has seen, and nothing else.
    pub fn join(&mut self, other: &Self) {
        self.vector.join(&other.vector);
        if !other.dots.is_empty() {
            self.dots.extend_from_slice(&other.dots);
            self.dots.sort_unstable();
            self.dots.dedup();
        }
        self.absorb(|_| false);
    }

    /// Turns each dot that `received` covers into an entry of the vector, which then covers the earlier writes of that
    /// incarnation too.
    ///
    /// Only for the context that is stored with a key, at a replica that has received all of `received` and applied
    /// it to the key: the earlier writes are then known here, as siblings or superseded. A context that a client holds
    /// must not be folded: it would cover siblings the client has not read.
    pub fn fold(&mut self, received: &VersionVector) {
        self.absorb(|dot| received.covers(dot));
    }

    /// Whether everything that `other` has seen was seen here.
    pub fn includes(&self, other: &Self) -> bool {
        // An entry of `other` may be matched by an entry and adjoining dots here, but adjoining dots are in the entry.
        self.vector.includes(&other.vector) && other.dots.iter().all(|dot| self.covers(*dot))
    }

    /// Whether `vector` covers everything seen here.
    pub fn within(&self, vector: &VersionVector) -> bool {
        vector.includes(&self.vector) && self.dots.iter().all(|dot| vector.covers(*dot))
    }

    /// Moves dots into the vector: those it covers, those next to it, and those that `folds` names. One pass is enough
    /// because the dots are sorted.
    fn absorb(&mut self, folds: impl Fn(Dot) -> bool) {
        let vector = &mut self.vector;
        self.dots.retain(|dot| {
            let end = vector.get(dot.incarnation);
            let absorbed = dot.counter <= end.saturating_add(1) || folds(*dot);
            if absorbed {
                vector.advance(dot.incarnation, dot.counter);
            }
            !absorbed
        });
    }

    /// The incarnations that have an entry or a dot, each once, sorted.
    pub(crate) fn incarnations(&self) -> impl Iterator<Item = Incarnation> + '_ {
        let mut entries = self
            .vector
            .iter()
            .map(|(incarnation, _)| incarnation)
            .peekable();
        let mut dots = self.dots.iter().map(|dot| dot.incarnation).peekable();
        std::iter::from_fn(move || {
            let next = entries
                .peek()
                .into_iter()
                .chain(dots.peek())
                .min()
                .copied()?;
            entries.next_if_eq(&next);
            while dots.next_if_eq(&next).is_some() {}
            Some(next)
        })
    }

    fn dots_of(&self, incarnation: Incarnation) -> &[Dot] {
        let start = self
            .dots
            .partition_point(|dot| dot.incarnation < incarnation);
        let end = self
            .dots
            .partition_point(|dot| dot.incarnation <= incarnation);
        self.dots.get(start..end).unwrap_or_default()
    }

    /// Appends the canonical bytes: per incarnation the entry of the vector and the distances between the dots.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_len(out, self.incarnations().count());
        for incarnation in self.incarnations() {
            let dots = self.dots_of(incarnation);
            let mut end = self.vector.get(incarnation);
            put_incarnation(out, incarnation);
            put_varint(out, end);
            put_len(out, dots.len());
            let mut skipped = NEXT_AFTER_ENTRY;
            for dot in dots {
                put_varint(out, dot.counter - end - skipped);
                end = dot.counter;
                skipped = NEXT_AFTER_DOT;
            }
        }
    }

    /// Reads what [`CausalContext::encode`] wrote, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let context = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(context)
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut context = Self::new();
        let mut previous = None;
        for _ in 0..reader.count(ENTRY_BYTES_MIN)? {
            let incarnation = reader.incarnation()?;
            if previous.replace(incarnation) >= Some(incarnation) {
                return Err(DecodeError::Malformed("incarnations out of order"));
            }
            context.read_entry(reader, incarnation)?;
        }
        Ok(context)
    }

    fn read_entry(
        &mut self,
        reader: &mut Reader<'_>,
        incarnation: Incarnation,
    ) -> Result<(), DecodeError> {
        let mut end = reader.varint()?;
        let dots = reader.count(1)?;
        if end == 0 && dots == 0 {
            return Err(DecodeError::Malformed("entry covers nothing"));
        }
        self.vector.advance(incarnation, end);
        self.dots.reserve(dots);
        let mut skipped = NEXT_AFTER_ENTRY;
        for _ in 0..dots {
            let distance = reader.varint()?;
            end = distance
                .checked_add(skipped)
                .and_then(|step| end.checked_add(step))
                .ok_or(DecodeError::Malformed("counter exceeds 64 bits"))?;
            self.dots.push(Dot::new(incarnation, end));
            skipped = NEXT_AFTER_DOT;
        }
        Ok(())
    }
}

/// Zone, nonce, entry and number of dots.
const ENTRY_BYTES_MIN: usize = 9;
/// The first dot lies at least so far beyond the entry.
const NEXT_AFTER_ENTRY: u64 = 2;
/// A dot lies at least so far beyond the dot before it.
const NEXT_AFTER_DOT: u64 = 1;

serde_by_bytes!(CausalContext);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ZoneId;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn dot(zone: u16, counter: u64) -> Dot {
        Dot::new(Incarnation::new(ZoneId(zone), 1), counter)
    }

    fn context(dots: &[(u16, u64)]) -> CausalContext {
        let mut context = CausalContext::new();
        for (zone, counter) in dots {
            context.insert(dot(*zone, *counter));
        }
        context
    }

    /// What a context means, spelled out.
    fn spelled(context: &CausalContext) -> BTreeSet<Dot> {
        (0..4)
            .flat_map(|zone| (1..20).map(move |counter| dot(zone, counter)))
            .filter(|d| context.covers(*d))
            .collect()
    }

    fn any_context() -> impl Strategy<Value = CausalContext> {
        prop::collection::vec((0..4u16, 1..12u64), 0..14).prop_map(|dots| context(&dots))
    }

    fn any_vector() -> impl Strategy<Value = VersionVector> {
        prop::collection::vec(0..12u64, 4).prop_map(|ends| {
            (0..)
                .zip(ends)
                .map(|(zone, end)| (Incarnation::new(ZoneId(zone), 1), end))
                .collect()
        })
    }

    #[test]
    fn a_later_dot_does_not_cover_an_earlier_one() {
        let seen = context(&[(1, 6)]);
        assert!(seen.covers(dot(1, 6)));
        assert!(!seen.covers(dot(1, 5)));
    }

    #[test]
    fn dots_that_close_a_gap_become_the_vector() {
        let seen = context(&[(1, 3), (1, 2), (1, 1), (1, 5)]);
        assert_eq!(seen.vector().get(dot(1, 1).incarnation), 3);
        assert_eq!(seen.dots(), [dot(1, 5)]);
    }

    #[test]
    fn folding_takes_in_received_dots_and_leaves_those_in_flight() {
        let mut seen = context(&[(1, 5), (1, 9), (2, 4)]);
        seen.fold(&std::iter::once((dot(1, 1).incarnation, 6)).collect());
        assert!(seen.covers(dot(1, 2)));
        assert_eq!(seen.dots(), [dot(1, 9), dot(2, 4)]);
    }

    #[test]
    fn bytes_that_no_context_encodes_to_are_refused() {
        let mut good = Vec::new();
        context(&[(1, 1), (2, 7)]).encode(&mut good);
        let (first, second) = (&good[1..10], &good[10..]);
        assert_eq!(
            CausalContext::decode(&good).unwrap(),
            context(&[(1, 1), (2, 7)])
        );
        let swapped = [&[2], second, first].concat();
        let nothing = [&[1], &first[..7], &[0, 0]].concat();
        let overflow = [&[1], &first[..7], &[1, 1], &[0xff; 9][..], &[1]].concat();
        for bad in [swapped, nothing, overflow] {
            assert!(
                matches!(CausalContext::decode(&bad), Err(DecodeError::Malformed(_))),
                "{bad:?}"
            );
        }
        for end in 0..good.len() {
            assert!(CausalContext::decode(&good[..end]).is_err());
        }
    }

    proptest! {
        #[test]
        fn join_is_the_union_and_inclusion_the_subset(a in any_context(), b in any_context()) {
            let mut join = a.clone();
            join.join(&b);
            let union: BTreeSet<Dot> = spelled(&a).union(&spelled(&b)).copied().collect();
            prop_assert_eq!(spelled(&join), union);
            prop_assert_eq!(a.includes(&b), spelled(&b).is_subset(&spelled(&a)));
            let mut reverse = b.clone();
            reverse.join(&a);
            prop_assert_eq!(join, reverse);
        }

        #[test]
        fn equal_coverage_is_equal_bytes(a in any_context()) {
            let mut again = CausalContext::new();
            for dot in spelled(&a).into_iter().rev() {
                again.insert(dot);
            }
            prop_assert_eq!(&again, &a);
            let mut bytes = Vec::new();
            a.encode(&mut bytes);
            prop_assert_eq!(CausalContext::decode(&bytes), Ok(a));
        }

        #[test]
        fn within_means_every_dot_is_covered(a in any_context(), v in any_vector()) {
            prop_assert_eq!(a.within(&v), spelled(&a).into_iter().all(|d| v.covers(d)));
        }

        #[test]
        fn folding_adds_only_what_was_received(a in any_context(), v in any_vector()) {
            let mut folded = a.clone();
            folded.fold(&v);
            prop_assert!(folded.includes(&a));
            prop_assert!(spelled(&folded).into_iter().all(|d| a.covers(d) || v.covers(d)));
        }

        #[test]
        fn foreign_bytes_are_refused_or_canonical(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(context) = CausalContext::decode(&bytes) {
                let mut again = Vec::new();
                context.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
