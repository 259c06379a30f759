//! Giving writes another actor: what was (I, n) becomes (J, n − above), everywhere and at once.
//!
//! For a group that finds itself on an old copy of its store: it has numbered writes with dots that other zones know for
//! other writes. Renamed consistently, in sets, contexts and effects alike, they are the same writes as before, and what
//! they had seen of the others stays as it was.

use crate::{CausalContext, Dot, Incarnation, Sibling, SiblingSet, VersionVector};

/// Which writes get which actor. Injective as long as nobody else names writes of `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renaming {
    /// The actor that loses its writes …
    pub from: Incarnation,
    /// … beyond this counter.
    pub above: u64,
    /// The one that gets them, from counter 1 on.
    pub to: Incarnation,
}

impl Renaming {
    /// A write's new name.
    pub fn dot(self, dot: Dot) -> Dot {
        match dot.counter.checked_sub(self.above) {
            Some(counter) if counter > 0 && dot.incarnation == self.from => {
                Dot::new(self.to, counter)
            }
            Some(_) | None => dot,
        }
    }

    /// The vector that covers what `vector` covers, by its new names.
    pub fn vector(self, vector: &VersionVector) -> VersionVector {
        let mut renamed = VersionVector::new();
        for (incarnation, counter) in vector.iter() {
            let dot = self.dot(Dot::new(incarnation, counter));
            renamed.advance(dot.incarnation, dot.counter);
            if dot.incarnation != incarnation && self.above > 0 {
                renamed.advance(incarnation, self.above);
            }
        }
        renamed
    }

    /// The context that covers what `context` covers, by its new names.
    pub fn context(self, context: &CausalContext) -> CausalContext {
        let mut renamed = CausalContext::from_vector(self.vector(context.vector()));
        for dot in context.dots() {
            renamed.insert(self.dot(*dot));
        }
        renamed
    }

    /// The set of the same writes, by their new names.
    pub fn set(self, set: &SiblingSet) -> SiblingSet {
        let siblings = set.siblings().iter().map(|sibling| Sibling {
            dot: self.dot(sibling.dot),
            ..sibling.clone()
        });
        let mut siblings: Vec<Sibling> = siblings.collect();
        siblings.sort_by_key(|sibling| sibling.dot);
        SiblingSet::of_parts(self.context(set.context()), siblings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Content, Hlc, ZoneId};

    const A: Incarnation = Incarnation::from_raw(1);
    const B: Incarnation = Incarnation::from_raw(2);
    const NEW: Incarnation = Incarnation::from_raw(9);
    const RENAMING: Renaming = Renaming {
        from: A,
        above: 5,
        to: NEW,
    };

    #[test]
    fn writes_above_are_counted_anew_and_all_others_keep_their_names() {
        assert_eq!(RENAMING.dot(Dot::new(A, 6)), Dot::new(NEW, 1));
        for kept in [Dot::new(A, 5), Dot::new(A, 1), Dot::new(B, 6)] {
            assert_eq!(RENAMING.dot(kept), kept);
        }
    }

    #[test]
    fn a_context_covers_the_same_writes_by_their_new_names() {
        let mut context = CausalContext::from_vector(VersionVector::from_iter([(A, 3), (B, 9)]));
        for counter in [5, 6, 8] {
            context.insert(Dot::new(A, counter));
        }
        let renamed = RENAMING.context(&context);
        for counter in 1..12 {
            for incarnation in [A, B] {
                let dot = Dot::new(incarnation, counter);
                assert_eq!(renamed.covers(RENAMING.dot(dot)), context.covers(dot));
            }
        }
        let whole = CausalContext::from_vector(VersionVector::from_iter([(A, 8)]));
        assert_eq!(
            RENAMING.context(&whole),
            CausalContext::from_vector(VersionVector::from_iter([(A, 5), (NEW, 3)]))
        );
        let from_start = Renaming {
            above: 0,
            ..RENAMING
        };
        assert_eq!(
            from_start.context(&whole),
            CausalContext::from_vector(VersionVector::from_iter([(NEW, 8)]))
        );
    }

    #[test]
    fn siblings_stay_sorted_by_their_new_names() {
        let to = Incarnation::new(ZoneId(0), 0);
        let mut set = SiblingSet::new();
        for dot in [Dot::new(A, 4), Dot::new(A, 7), Dot::new(B, 1)] {
            let sibling = Sibling {
                dot,
                content: Content::Tombstone,
                written_at: Hlc(dot.counter),
                expires_at_ms: None,
                op_id: None,
                transaction: None,
            };
            set.apply(sibling, &CausalContext::new(), &VersionVector::new());
        }
        let renamed = Renaming { to, ..RENAMING }.set(&set);
        let dots: Vec<Dot> = renamed.siblings().iter().map(|s| s.dot).collect();
        assert_eq!(dots, [Dot::new(to, 2), Dot::new(A, 4), Dot::new(B, 1)]);
    }
}
