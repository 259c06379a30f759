//! Another incarnation for a group whose store came back as an old copy (protocol rule 5).
//!
//! The writes made here since then bear dots that other zones may know for other writes, and no other zone has seen
//! them. So they are renamed, all of them and everywhere: in the sets of their keys, in their effects, in what is
//! remembered of their operations. What (I, R + n) was is (J, n) afterwards, and V[I] is R again: the writes that
//! other zones know as (I, R + n) are foreign ones from now on, and come by relay.
//!
//! Superseded writes are renamed too, so that what they replaced is replaced in other zones as well.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::{Dot, Incarnation, Renaming, VersionVector};
use meridian_storage::Read;

use super::ShardMeta;
use super::step::Step;
use super::versions;
use crate::command::{Effect, WriteOutcome};
use crate::error::Error;
use crate::keys::{IntentKey, OutboxKey, VersionKey};

impl ShardMeta {
    /// Whether the group may go on as `new`: as nobody it was, or has had writes of.
    pub fn may_become(&self, new: Incarnation) -> bool {
        new != self.incarnation
            && new.zone() == self.incarnation.zone()
            && !self.former.contains(&new)
            && self.received.get(new) == 0
    }
}

/// Own effects beyond the last one of the copy.
struct Since {
    effects: Vec<(u64, Effect)>,
    /// Bytes of the incarnation that had entered the outbox before them.
    bytes_before: Option<u64>,
}

impl Step<'_, '_, '_> {
    /// Says where the copy ended; the first to say so is right.
    pub(super) fn quarantine(&mut self, incarnation: Incarnation, resume: u64) {
        let made = self.meta.received.get(incarnation);
        if incarnation == self.meta.incarnation && self.meta.quarantined.is_none() && resume <= made
        {
            self.meta.quarantined = Some(resume);
        }
    }

    /// Goes on as `new`. No effect unless the group is `old` and in quarantine, or on an incarnation it has seen.
    pub(super) fn take_incarnation(
        &mut self,
        old: Incarnation,
        new: Incarnation,
    ) -> Result<(), Error> {
        let Some(resume) = self.meta.quarantined else {
            return Ok(());
        };
        if old != self.meta.incarnation || !self.meta.may_become(new) {
            return Ok(());
        }
        let renaming = Renaming {
            from: old,
            above: resume,
            to: new,
        };
        let since = self.effects_since(renaming)?;
        let mut keys: BTreeSet<Bytes> = since
            .effects
            .iter()
            .map(|(_, effect)| effect.key.clone())
            .collect();
        if self.meta.outbox_floor.get(old) > resume {
            // The outbox was cut at its bound, and no longer tells which keys were written.
            keys.extend(self.all_keys()?);
        }
        let made = self.meta.received.get(old);
        self.leave(renaming, since.bytes_before);
        for key in &keys {
            self.rename_key(renaming, key)?;
        }
        for (counter, mut effect) in since.effects {
            effect.replaced = renaming.context(&effect.replaced);
            if let Some(op_id) = effect.op_id {
                self.rename_op_id(renaming, op_id.id)?;
            }
            self.ship(renaming.dot(Dot::new(old, counter)), effect);
        }
        let (from, to) = OutboxKey::range(self.place, old, resume.saturating_add(1), made);
        self.work.delete_range(from, to);
        // The changes that were shown under the old name are not among those that are kept.
        self.lose_changes()?;
        self.rename_intents(renaming)
    }

    /// What prepared writes are to replace bears the old dots too.
    fn rename_intents(&mut self, renaming: Renaming) -> Result<(), Error> {
        let prepared: Vec<_> = self.locks.prepared().keys().copied().collect();
        for id in prepared {
            let stored = IntentKey::encode(self.place, id);
            let Some(record) = self.get(&stored)? else {
                continue;
            };
            let (_, mut intent) = IntentKey::decode_record(&stored, &record)?;
            for write in intent.then.iter_mut().chain(&mut intent.otherwise) {
                write.replaced = renaming.context(&write.replaced);
            }
            self.work
                .put(stored, IntentKey::encode_record(self.header, &intent));
        }
        Ok(())
    }

    fn effects_since(&self, renaming: Renaming) -> Result<Since, Error> {
        let first = renaming.above.saturating_add(1);
        let (from, to) = OutboxKey::range(self.place, renaming.from, first, u64::MAX);
        let mut since = Since {
            effects: Vec::new(),
            bytes_before: None,
        };
        let mut outcome = Ok(());
        self.work.scan(&from, &to, &mut |stored, record| {
            let read = OutboxKey::dot(stored)
                .and_then(|dot| Ok((dot, OutboxKey::decode_record(stored, record)?)));
            match read {
                Ok((dot, record)) => {
                    since.bytes_before.get_or_insert(record.bytes_before);
                    since.effects.push((dot.counter, record.effect));
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    outcome = Err(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        outcome.map(|()| since)
    }

    fn all_keys(&self) -> Result<Vec<Bytes>, Error> {
        let mut keys = Vec::new();
        versions::scan(self.work, self.place, (&[], None), &mut |stored, _| {
            keys.push(Bytes::copy_from_slice(VersionKey::user_key(stored)?));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(keys)
    }

    /// What the shard knows of itself, in the new life.
    fn leave(&mut self, renaming: Renaming, bytes_before: Option<u64>) {
        let meta = &mut *self.meta;
        let Renaming { from, above, to } = renaming;
        meta.incarnation = to;
        meta.former.insert(from);
        meta.quarantined = None;
        // A comparison may have begun with a view that knows the other writes of `from`.
        meta.compare = None;
        meta.received = renaming.vector(&meta.received);
        meta.dropped = renaming.vector(&meta.dropped);
        let floor = meta.outbox_floor.get(from);
        meta.outbox_floor.remove(from);
        set(&mut meta.outbox_floor, from, floor.min(above));
        set(&mut meta.outbox_floor, to, floor.saturating_sub(above));
        let totals = meta.outbox_totals.entry(from).or_default();
        let entered = bytes_before.unwrap_or(totals.entered);
        let moved = totals.entered.saturating_sub(entered);
        totals.entered = entered;
        meta.outbox_bytes = meta.outbox_bytes.saturating_sub(moved);
        // What the store handed out since the copy was made is not known: no token of it may come again.
        meta.fencing = meta.fencing.max(self.header.hlc.wall_ms());
        self.applied.reincarnated = true;
        self.applied.compare_changed = true;
        // What this entry did under the old name is said under the new one.
        for (_, _, outcome) in &mut self.applied.outcomes {
            if let WriteOutcome::Written { dot, context, .. } = outcome {
                *dot = renaming.dot(*dot);
                *context = renaming.context(context);
            }
        }
        self.applied
            .effects
            .retain(|(dot, _)| renaming.dot(*dot) == *dot);
    }

    fn rename_key(&mut self, renaming: Renaming, key: &[u8]) -> Result<(), Error> {
        let mut held = self.hold(key)?;
        let renamed = renaming.set(&held.set);
        if renamed == held.set {
            return Ok(());
        }
        let others: BTreeSet<u128> = renamed
            .siblings()
            .iter()
            .filter(|sibling| sibling.dot.incarnation != renaming.to)
            .filter_map(|sibling| Some(sibling.op_id?.id))
            .collect();
        held.set = renamed;
        self.store(key, held);
        for id in others {
            self.rename_op_id(renaming, id)?;
        }
        Ok(())
    }

    /// A retry gets the receipt of the write as it is called now. The order in which op ids are forgotten stays.
    fn rename_op_id(&mut self, renaming: Renaming, id: u128) -> Result<(), Error> {
        self.amend_operation(id, |operation| {
            operation.dot = renaming.dot(operation.dot);
            operation.context = renaming.context(&operation.context);
        })
    }
}

fn set(vector: &mut VersionVector, incarnation: Incarnation, counter: u64) {
    if counter > 0 {
        vector.advance(incarnation, counter);
    }
}
