//! Effects kept for other zones (protocol rules 7 and 10): of this group, and of all whose effects it has merged.
//!
//! Invariant: per incarnation, the outbox holds exactly the counters above the floor and up to the received vector.

use std::ops::ControlFlow;

use meridian_causal::{Dot, Hlc, Incarnation, VersionVector};
use meridian_storage::Read;

use super::ShardMeta;
use super::step::Step;
use crate::command::Effect;
use crate::error::Error;
use crate::ids::GroupId;
use crate::keys::{self, OutboxKey, OutboxRecord, Place};

impl Step<'_, '_, '_> {
    /// Keeps an effect.
    pub(super) fn put_outbox(&mut self, dot: Dot, effect: &Effect) {
        let totals = self.meta.outbox_totals.entry(dot.incarnation).or_default();
        let (record, entered) = OutboxKey::encode_record(self.header, totals.entered, effect);
        self.meta.outbox_bytes = self
            .meta
            .outbox_bytes
            .saturating_add(entered - totals.entered);
        totals.entered = entered;
        self.work.put(OutboxKey::encode(self.place, dot), record);
    }

    /// Drops effects at or below `through`, of what was received; never back.
    pub(super) fn trim(&mut self, through: &VersionVector) -> Result<(), Error> {
        for (incarnation, through) in through.iter() {
            let last = through.min(self.meta.received.get(incarnation));
            if last > self.meta.outbox_floor.get(incarnation) {
                let record = record(self.work, self.place, Dot::new(incarnation, last))?;
                self.drop_outbox(incarnation, last, record.bytes_through);
            }
        }
        Ok(())
    }

    /// Drops the effects of `incarnation` up to `last`, with which `bytes_through` had entered.
    pub(super) fn drop_outbox(&mut self, incarnation: Incarnation, last: u64, bytes_through: u64) {
        let floor = self.meta.outbox_floor.get(incarnation);
        let totals = self.meta.outbox_totals.entry(incarnation).or_default();
        let bytes = bytes_through.checked_sub(totals.dropped);
        let kept = bytes.and_then(|bytes| self.meta.outbox_bytes.checked_sub(bytes));
        assert!(
            kept.is_some() && last > floor,
            "the outbox drops what it holds, once"
        );
        self.meta.outbox_bytes = kept.unwrap_or(0);
        totals.dropped = bytes_through;
        self.meta.outbox_floor.advance(incarnation, last);
        let (from, to) = OutboxKey::range(self.place, incarnation, floor + 1, last);
        self.work.delete_range(from, to);
    }
}

fn record(read: &dyn Read, place: Place, dot: Dot) -> Result<OutboxRecord, Error> {
    let stored = OutboxKey::encode(place, dot);
    let record = read.get(&stored)?;
    let record = record
        .ok_or_else(|| keys::corrupt(&stored, "an effect that was not dropped is missing"))?;
    OutboxKey::decode_record(&stored, &record)
}

/// Effects of `incarnation` that follow `after`, contiguous, of at most `max_bytes` together; one always fits. None
/// when the next one is not here: not received yet, or dropped.
pub fn read(
    read: &dyn Read,
    group: GroupId,
    incarnation: Incarnation,
    after: u64,
    max_bytes: usize,
) -> Result<Vec<Effect>, Error> {
    let (from, to) = OutboxKey::range(group.into(), incarnation, after.saturating_add(1), u64::MAX);
    let mut effects = Vec::new();
    let mut next = after.saturating_add(1);
    let mut bytes = 0;
    let mut outcome = Ok(());
    read.scan(&from, &to, &mut |stored, record| {
        bytes += record.len();
        if bytes > max_bytes && !effects.is_empty() {
            return ControlFlow::Break(());
        }
        match read_next(stored, record, next) {
            Ok(Some(effect)) => effects.push(effect),
            Ok(None) => return ControlFlow::Break(()),
            Err(error) => {
                outcome = Err(error);
                return ControlFlow::Break(());
            }
        }
        next = next.saturating_add(1);
        ControlFlow::Continue(())
    })?;
    outcome.map(|()| effects)
}

fn read_next(stored: &[u8], record: &[u8], next: u64) -> Result<Option<Effect>, Error> {
    if OutboxKey::dot(stored)?.counter != next {
        return Ok(None);
    }
    OutboxKey::decode_record(stored, record).map(|record| Some(record.effect))
}

/// What a receiver that has acknowledged `acked` has not: effects, their bytes as far as they are kept, and when the
/// oldest kept one was written. No scan.
pub fn pending(
    read: &dyn Read,
    meta: &ShardMeta,
    group: GroupId,
    incarnation: Incarnation,
    acked: u64,
) -> Result<(u64, u64, Option<Hlc>), Error> {
    let last = meta.received.get(incarnation);
    let first_kept = acked
        .max(meta.outbox_floor.get(incarnation))
        .saturating_add(1);
    let entries = last.saturating_sub(acked);
    if first_kept > last {
        return Ok((entries, 0, None));
    }
    let oldest = record(read, group.into(), Dot::new(incarnation, first_kept))?;
    let entered = meta
        .outbox_totals
        .get(&incarnation)
        .map_or(0, |totals| totals.entered);
    Ok((
        entries,
        entered.saturating_sub(oldest.bytes_before),
        Some(oldest.effect.written_at),
    ))
}
