//! Catching up by comparing: whole key states of another zone joined into this shard (protocol rule 11).
//!
//! Until the end is logged, no ordered effect of an incarnation that the other zone's view is ahead in is applied. A
//! comparison may be given up at any time, by beginning another: what was joined stays right, since each joined set
//! carries the context of what it has seen.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::{CausalContext, Dot, SiblingSet, VersionVector, ZoneId};

use super::CompareState;
use super::compare;
use super::step::Step;
use super::versions;
use crate::error::Error;
use crate::keys::VersionKey;

impl Step<'_, '_, '_> {
    /// Begins to compare with a view of `source` that has received `snapshot`. A zone that claims to have more of our
    /// own writes than we made holds another life of this group: nothing of it is taken (protocol rule 5).
    pub(super) fn compare_begin(&mut self, source: ZoneId, snapshot: &VersionVector) {
        let own = self.meta.incarnation;
        if snapshot.get(own) > self.meta.received.get(own) {
            return;
        }
        self.meta.compare = Some(CompareState {
            source,
            snapshot: snapshot.clone(),
        });
        self.applied.compare_changed = true;
    }

    fn is_comparing(&self, snapshot: &VersionVector) -> bool {
        self.meta
            .compare
            .as_ref()
            .is_some_and(|compare| compare.snapshot == *snapshot)
    }

    /// Joins `states`, which are all that the view holds in a range, with all that stands here in it.
    pub(super) fn compare_join(
        &mut self,
        snapshot: &VersionVector,
        (from, to): (&[u8], &[u8]),
        states: &[(Bytes, Bytes)],
    ) -> Result<(), Error> {
        if !self.is_comparing(snapshot) {
            return Ok(());
        }
        let to = (!to.is_empty()).then_some(to);
        let Some(theirs) = read_states(states) else {
            // Every replica finds the same damage; without this range the comparison is worth nothing.
            self.meta.compare = None;
            self.applied.compare_changed = true;
            return Ok(());
        };
        let mut joins: BTreeMap<Bytes, SiblingSet> = self.keys_in(from, to)?;
        joins.extend(
            theirs
                .into_iter()
                .filter(|(key, _)| **key >= *from && to.is_none_or(|to| **key < *to)),
        );
        let mut changed = false;
        for (key, theirs) in joins {
            changed |= self.join_key(&key, &theirs, snapshot)?;
        }
        if changed {
            self.lose_changes()?;
        }
        Ok(())
    }

    /// Every key of ours in a range, each with the empty set: what the other side holds unless it says otherwise.
    fn keys_in(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<BTreeMap<Bytes, SiblingSet>, Error> {
        let mut keys = BTreeMap::new();
        versions::scan(self.work, self.place, (from, to), &mut |stored, _| {
            keys.insert(
                Bytes::copy_from_slice(VersionKey::user_key(stored)?),
                SiblingSet::new(),
            );
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(keys)
    }

    /// Whether the key is another one now.
    fn join_key(
        &mut self,
        key: &[u8],
        theirs: &SiblingSet,
        snapshot: &VersionVector,
    ) -> Result<bool, Error> {
        let mut held = self.hold(key)?;
        let before = held.set.clone();
        held.set.join_at(theirs, &self.meta.received, snapshot);
        let takes_over = self.meta.received.get(self.meta.incarnation) == 0;
        if takes_over && snapshot.includes(&self.meta.received) {
            // What is here came from a mirror, which sweeps tombstones. They have seen all of it, and keep those that must be kept.
            held.set.keep_tombstones(theirs);
        }
        // What the other side has deleted and forgotten it need not keep for the mirrors of this one: they would show a key that just
        // went here for ever (protocol rule 24). A tombstone goes by `drop_tombstones` alone, which waits for them.
        held.set.leave_tombstone(&before);
        if held.set == before {
            return Ok(false);
        }
        let arrived: Vec<_> = held
            .set
            .siblings()
            .iter()
            .filter(|s| !before.context().covers(s.dot))
            .cloned()
            .collect();
        self.store(key, held);
        let dots: Vec<Dot> = arrived.iter().map(|sibling| sibling.dot).collect();
        self.list_returned(key, &dots)?;
        for sibling in arrived {
            if let Some(op_id) = sibling.op_id
                && self.is_to_remember(op_id)?
            {
                self.enter_op_id(
                    op_id,
                    key,
                    sibling.dot,
                    &CausalContext::from_dot(sibling.dot),
                );
            }
        }
        Ok(true)
    }

    /// Enters operations that the view remembers: of versions that were replaced before it was taken, no state tells the op id.
    /// What the view has forgotten, nobody can tell.
    pub(super) fn compare_remember(
        &mut self,
        snapshot: &VersionVector,
        floor_ms: u64,
        operations: &[(Bytes, Bytes)],
    ) -> Result<(), Error> {
        if !self.is_comparing(snapshot) {
            return Ok(());
        }
        for (id, record) in operations {
            // Every replica finds the same damage.
            if let Some((op_id, operation)) = compare::recalled(id, record)
                && self.is_to_remember(op_id)?
            {
                self.enter_operation(op_id, operation);
            }
        }
        self.meta.op_floor_ms = self.meta.op_floor_ms.max(floor_ms);
        Ok(())
    }

    /// Every range is joined: what the view had received counts as received here. The effects in between never come
    /// one by one, so this zone cannot relay them: its outbox begins after them. Nor can it show them to watchers.
    ///
    /// Tombstones among them may never have come at all: a mirror keeps none, and a group that another one takes over from may have
    /// dropped some that a third still has. So all of that counts as dropped here, for writes to keys that hold nothing.
    pub(super) fn compare_end(&mut self, snapshot: &VersionVector) -> Result<(), Error> {
        if !self.is_comparing(snapshot) {
            return Ok(());
        }
        if !self.meta.received.includes(snapshot) {
            self.lose_changes()?;
        }
        for (incarnation, counter) in snapshot.iter() {
            let received = self.meta.received.get(incarnation);
            if counter <= received || incarnation == self.meta.incarnation {
                continue;
            }
            let entered = self
                .meta
                .outbox_totals
                .get(&incarnation)
                .map_or(0, |totals| totals.entered);
            if received > self.meta.outbox_floor.get(incarnation) {
                self.drop_outbox(incarnation, received, entered);
            }
            self.meta.received.advance(incarnation, counter);
            self.meta.outbox_floor.advance(incarnation, counter);
            self.meta.dropped.advance(incarnation, counter);
        }
        self.meta.compare = None;
        self.applied.compare_changed = true;
        self.save_returned();
        Ok(())
    }
}

/// The states as sets; none when one does not read.
fn read_states(states: &[(Bytes, Bytes)]) -> Option<BTreeMap<Bytes, SiblingSet>> {
    states
        .iter()
        .map(|(key, set)| Some((key.clone(), SiblingSet::decode_shared(set).ok()?)))
        .collect()
}
