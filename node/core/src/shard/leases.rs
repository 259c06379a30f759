//! Leases: who gets one, when it ends, and what vanishes with it.
//!
//! Apply knows no time: it ends a lease because an entry says so. When a leader may say so is `group::leases`.
//!
//! Invariants:
//! * a fencing token is taken exactly when a lease is granted, and is greater than every earlier one of the shard;
//! * a key is attached to a lease by one record per lease and key, which names the write; what that write left vanishes
//!   with the lease, and nothing that was written later does.

use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::{CausalContext, Content, OpId, SiblingSet};
use meridian_storage::Read;

use super::step::Step;
use crate::command::{Effect, Waiter, WriteOp, WriteOutcome};
use crate::error::Error;
use crate::keys::{LeaseKey, LeaseRecord, LeasedKey, Place};
use crate::lease::{self, AcquireOp, Holding, LeaseChange, LeaseOutcome, LeaseRef};
use crate::limits::LEASED_KEYS_VANISH_MAX;

/// The lease of that name, if it stands.
pub fn load(read: &dyn Read, place: Place, name: &[u8]) -> Result<Option<LeaseRecord>, Error> {
    let stored = LeaseKey::encode(place, name);
    let record = read.get(&stored)?;
    record
        .map(|record| LeaseKey::decode_record(&stored, &record).map(|(_, lease)| lease))
        .transpose()
}

/// Whether this very holding stands.
pub fn stands(read: &dyn Read, place: Place, lease: &LeaseRef) -> Result<bool, Error> {
    let held = load(read, place, &lease.name)?;
    Ok(held.is_some_and(|held| held.token == lease.token))
}

impl Step<'_, '_, '_> {
    /// Grants a lease that is free; tells its owner of the one it has.
    pub(super) fn lease_acquire(&mut self, op: &AcquireOp) -> Result<(), Error> {
        let outcome = match load(self.work, self.place, &op.name)? {
            _ if self.meta.is_sealed() => LeaseOutcome::Moving,
            Some(held) if held.owner == op.owner => LeaseOutcome::Granted(holding(op, &held)),
            Some(_) => LeaseOutcome::Held,
            None => LeaseOutcome::Granted(self.grant(op)),
        };
        self.applied.leases.push((op.waiter, outcome));
        Ok(())
    }

    fn grant(&mut self, op: &AcquireOp) -> Holding {
        self.meta.fencing = self.meta.fencing.saturating_add(1);
        let held = LeaseRecord {
            token: lease::token(self.epoch, self.meta.fencing),
            ttl_ms: op.ttl_ms,
            owner: op.owner,
            acquired: self.header.hlc,
        };
        let record = LeaseKey::encode_record(self.header, &held);
        self.work
            .put(LeaseKey::encode(self.place, &op.name), record);
        let granted = holding(op, &held);
        self.lease_changed(LeaseChange::Granted(granted.clone()));
        granted
    }

    /// Ends those of `leases` that stand, with what is attached to them here.
    pub(super) fn lease_end(
        &mut self,
        leases: &[LeaseRef],
        waiter: Option<Waiter>,
    ) -> Result<(), Error> {
        let mut outcome = LeaseOutcome::NotHeld;
        let ending = if self.meta.is_sealed() { &[] } else { leases };
        for lease in ending {
            if stands(self.work, self.place, lease)? {
                self.work.delete(LeaseKey::encode(self.place, &lease.name));
                self.lease_changed(LeaseChange::Gone(lease.clone()));
                self.vanish(lease)?;
                outcome = LeaseOutcome::Ended;
            }
        }
        if let Some(waiter) = waiter {
            self.applied.leases.push((waiter, outcome));
        }
        Ok(())
    }

    /// A lease of another shard has ended; or one of this shard, which had more keys than one entry may make vanish.
    pub(super) fn lease_gone(&mut self, lease: &LeaseRef) -> Result<(), Error> {
        if self.meta.is_sealed() || stands(self.work, self.place, lease)? {
            // Of this shard, and it stands: no leader says so. A name of another shard is not found here.
            return Ok(());
        }
        self.vanish(lease)
    }

    /// A client's write that is attached to a lease. One of this shard must stand; of one of another shard, its home
    /// is asked afterwards.
    pub(super) fn leased_write(
        &mut self,
        (lease, home): (&LeaseRef, bool),
        op: &WriteOp,
    ) -> Result<(), Error> {
        let known = self.remembered(op.op_id, &op.key)?;
        let refused = known.is_none()
            && home
            && !self.meta.is_sealed()
            && !stands(self.work, self.place, lease)?;
        if refused {
            let outcome = WriteOutcome::LeaseNotFound;
            self.applied.outcomes.push((op.waiter, op.op_id, outcome));
            return Ok(());
        }
        if known.is_none() && self.is_locked(&op.key) {
            // What waits behind a transaction is proposed again as a plain write; this one is told to come again.
            let outcome = WriteOutcome::Locked;
            self.applied.outcomes.push((op.waiter, op.op_id, outcome));
            return Ok(());
        }
        self.write(op)?;
        let written = self.applied.outcomes.last();
        let now = matches!(
            written,
            Some((
                _,
                _,
                WriteOutcome::Written {
                    repeated: false,
                    ..
                }
            ))
        );
        if now && op.content.value().is_some() {
            let stored = LeasedKey::encode(self.place, lease, &op.key);
            let record = LeasedKey::encode_record(self.header, op.op_id);
            self.work.put(stored, record);
        }
        Ok(())
    }

    /// Deletes what is attached to a lease that has ended, as far as one operation may; the index keeps the rest.
    fn vanish(&mut self, lease: &LeaseRef) -> Result<(), Error> {
        for (stored, key, op_id) in self.attached(lease)? {
            if self.is_locked(&key) {
                continue;
            }
            self.delete_version(&key, op_id)?;
            self.work.delete(stored);
        }
        Ok(())
    }

    fn attached(&self, lease: &LeaseRef) -> Result<Vec<(Vec<u8>, Bytes, OpId)>, Error> {
        let (from, to) = LeasedKey::range(self.place, lease);
        let mut attached = Vec::new();
        let mut outcome = Ok(());
        self.work.scan(&from, &to, &mut |stored, record| {
            let read = LeasedKey::parts(stored).and_then(|(_, key)| {
                let op_id = LeasedKey::decode_record(stored, record)?;
                Ok((stored.to_vec(), Bytes::copy_from_slice(key), op_id))
            });
            outcome = read.map(|entry| attached.push(entry));
            if outcome.is_err() || attached.len() >= LEASED_KEYS_VANISH_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        outcome.map(|()| attached)
    }

    /// Replaces what one write of this zone left of a key, and nothing else, by a tombstone.
    pub(super) fn delete_version(&mut self, key: &Bytes, op_id: OpId) -> Result<(), Error> {
        let held = self.hold(key)?;
        let replaced = self.left_by(op_id, &held.set);
        if replaced.is_empty() {
            return Ok(());
        }
        let effect = Effect {
            key: key.clone(),
            content: Content::Tombstone,
            replaced,
            written_at: self.header.hlc,
            expires_at_ms: None,
            op_id: None,
            transaction: None,
        };
        let dot = self.next_dot();
        self.take_effect(dot, effect, held);
        Ok(())
    }

    fn left_by(&self, op_id: OpId, set: &SiblingSet) -> CausalContext {
        let mut context = CausalContext::new();
        for sibling in set.siblings() {
            let own = sibling.dot.zone() == self.meta.incarnation.zone();
            if own && sibling.is_live() && sibling.op_id == Some(op_id) {
                context.insert(sibling.dot);
            }
        }
        context
    }

    fn lease_changed(&mut self, change: LeaseChange) {
        self.applied.lease_changes.push(change);
    }
}

fn holding(op: &AcquireOp, held: &LeaseRecord) -> Holding {
    Holding {
        lease: LeaseRef {
            name: op.name.clone(),
            token: held.token,
        },
        ttl_ms: held.ttl_ms,
    }
}
