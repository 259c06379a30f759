//! Sibling sets: what one key holds.
//!
//! A set is a causal context (every write of the key seen here) and the siblings (those no seen write has replaced).
//! A write that the context covers and that is no sibling is superseded, and stays so.
//!
//! Not here: which context a write implies (`replace`), what counts as one version (`version`), bytes (`set_codec`),
//! and when tombstones go: a set keeps them, and whoever drops a record accounts for them
//! ([`SiblingSet::absent`]).

use std::cmp::Ordering;
use std::mem;

use crate::codec::serde_by_bytes;
use crate::{CausalContext, Dot, Sibling, VersionVector};

/// The versions of one key that no later write has seen.
///
/// Invariants:
/// * siblings are sorted by dot, no two bear the same dot;
/// * every sibling's dot is covered by `context`;
/// * `context` never shrinks.
///
/// Source: Preguiça et al., "Dotted Version Vectors" (2012), section 4.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SiblingSet {
    context: CausalContext,
    siblings: Vec<Sibling>,
}

impl SiblingSet {
    /// The set of a key nobody has written.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a key without a record stands for: no siblings, and everything seen that was dropped with a record.
    ///
    /// `dropped` covers the context of every record that was dropped from the shard, and is covered by the shard's
    /// received vector V; V itself will do. A local write on such a key must start from this set and not from an empty
    /// one, so that it replaces the tombstone dropped here in zones that still have it; otherwise these would show a
    /// `deleted` sibling that this zone does not.
    pub fn absent(dropped: &VersionVector) -> Self {
        Self {
            context: CausalContext::from_vector(dropped.clone()),
            siblings: Vec::new(),
        }
    }

    /// A set of parts that were read from somewhere, if they keep the invariants.
    pub(crate) fn from_parts(context: CausalContext, siblings: Vec<Sibling>) -> Option<Self> {
        let set = Self { context, siblings };
        set.is_valid().then_some(set)
    }

    /// A set of parts that keep the invariants, since they were another set's.
    pub(crate) fn of_parts(context: CausalContext, siblings: Vec<Sibling>) -> Self {
        let set = Self { context, siblings };
        set.check();
        set
    }

    /// Everything of this key that was seen here.
    pub fn context(&self) -> &CausalContext {
        &self.context
    }

    /// The siblings, sorted by dot.
    pub fn siblings(&self) -> &[Sibling] {
        &self.siblings
    }

    /// Whether there is no sibling at all. The context may still cover writes; the record may be dropped only when
    /// the shard's received vector covers them too.
    pub fn is_empty(&self) -> bool {
        self.siblings.is_empty()
    }

    /// Whether a read finds a value.
    pub fn has_live(&self) -> bool {
        self.siblings.iter().any(Sibling::is_live)
    }

    /// Whether there are siblings, and all are tombstones.
    pub fn all_tombstones(&self) -> bool {
        !self.is_empty() && !self.has_live()
    }

    /// What a client is handed with the siblings: a write with it replaces exactly these, and what they replaced.
    pub fn read_context(&self) -> CausalContext {
        self.context.clone()
    }

    /// Applies one effect: the siblings that `replaced` covers go, and `sibling` enters unless it was seen before.
    /// A repeated effect changes nothing.
    ///
    /// `received` is the gapless vector of this replica, which counts this dot already. It folds the context, so that
    /// after a full exchange every zone has the same bytes.
    pub fn apply(&mut self, sibling: Sibling, replaced: &CausalContext, received: &VersionVector) {
        let dot = sibling.dot;
        self.siblings
            .retain(|other| other.dot == dot || !replaced.covers(other.dot));
        if !self.context.covers(dot) {
            let place = self.siblings.partition_point(|other| other.dot < dot);
            self.siblings.insert(place, sibling);
        }
        self.context.join(replaced);
        self.context.insert(dot);
        self.context.fold(received);
        self.check();
    }

    /// Joins what another replica holds of this key. The order of joins does not matter, nor their number.
    pub fn merge(&mut self, other: &Self) {
        let nothing = VersionVector::new();
        self.join_at(other, &nothing, &nothing);
    }

    /// Joins a whole key state read elsewhere, in a view of vector `theirs_seen`, where this replica has received
    /// `ours_seen`. Whoever has received a write and does not hold it has seen it superseded; so each side counts as
    /// having seen its vector as well as its context, and an absent key is the empty set.
    ///
    /// The vectors decide only who survives and are not stored. Until V := max(V, S) is logged the union of the two
    /// contexts, folded, is enough:
    /// * a sibling removed here was covered by our own context, which stays, so no third replica brings it back;
    /// * a sibling that enters is covered by their context, which is stored;
    /// * a superseded write that V does not cover yet is covered by the context of what superseded it, which is in
    ///   theirs, so an ordered effect that arrives after an abandoned comparison is recognised;
    /// * on this key everything up to both vectors is accounted for, so dots within either may be folded.
    ///
    /// A result without siblings must be stored while its context is not within V.
    pub fn join_at(
        &mut self,
        other: &Self,
        ours_seen: &VersionVector,
        theirs_seen: &VersionVector,
    ) {
        let ours_context = &self.context;
        let unseen_here = |dot| !ours_context.covers(dot) && !ours_seen.covers(dot);
        let unseen_there = |dot| !other.context.covers(dot) && !theirs_seen.covers(dot);

        let mut ours = mem::take(&mut self.siblings).into_iter().peekable();
        let mut theirs = other.siblings.iter().peekable();
        let mut joined = Vec::with_capacity(ours.len().max(theirs.len()));
        while let Some(side) = next_side(ours.peek(), theirs.peek().copied()) {
            let next = match side {
                Ordering::Less => ours.next().filter(|s| unseen_there(s.dot)),
                Ordering::Greater => theirs.next().filter(|s| unseen_here(s.dot)).cloned(),
                Ordering::Equal => ours.next().max(theirs.next().cloned()),
            };
            joined.extend(next);
        }
        self.siblings = joined;
        self.context.join(&other.context);
        self.context.fold(ours_seen);
        self.context.fold(theirs_seen);
        self.check();
    }

    /// Takes over the tombstones of another replica that were dropped here, or never came: it has seen all that this one has, so none
    /// of them has been replaced.
    pub fn keep_tombstones(&mut self, other: &Self) {
        for tombstone in other.siblings.iter().filter(|sibling| !sibling.is_live()) {
            let place = self.siblings.partition_point(|own| own.dot < tombstone.dot);
            let is_held = self
                .siblings
                .get(place)
                .is_some_and(|own| own.dot == tombstone.dot);
            if !is_held {
                self.siblings.insert(place, tombstone.clone());
            }
        }
        self.check();
    }

    /// Of a set that was found to be superseded, by what and as what nobody knows any more: its newest version stays as a tombstone.
    pub fn leave_tombstone(&mut self, superseded: &Self) {
        let newest = superseded
            .siblings
            .last()
            .filter(|_| self.siblings.is_empty());
        let covered = newest.filter(|newest| self.context.covers(newest.dot));
        self.siblings.extend(covered.map(|newest| Sibling {
            content: crate::Content::Tombstone,
            ..newest.clone()
        }));
        self.check();
    }

    /// Turns the version of `dot` into a tombstone of the same dot, as a logged expiry says. Says whether anything
    /// changed: a version without an expiry, or one that is gone, is left alone.
    pub fn expire(&mut self, dot: Dot) -> bool {
        let due = self
            .siblings
            .iter_mut()
            .find(|s| s.dot == dot && s.is_live() && s.expires_at_ms.is_some());
        let changed = due
            .map(|sibling| sibling.content = crate::Content::Tombstone)
            .is_some();
        self.check();
        changed
    }

    fn is_valid(&self) -> bool {
        self.siblings.is_sorted_by(|a, b| a.dot < b.dot)
            && self.siblings.iter().all(|s| self.context.covers(s.dot))
    }

    fn check(&self) {
        assert!(
            self.is_valid(),
            "sibling set breaks its invariants: {self:?}"
        );
    }
}

/// Which of two sorted lists has the next dot; none when both have ended.
fn next_side(ours: Option<&Sibling>, theirs: Option<&Sibling>) -> Option<Ordering> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => Some(ours.dot.cmp(&theirs.dot)),
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (None, None) => None,
    }
}

serde_by_bytes!(SiblingSet);
