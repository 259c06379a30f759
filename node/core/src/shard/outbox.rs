//! Effects kept for other zones (protocol rules 7 and 10) and for watchers: of this group, and of all whose effects it
//! has merged.
//!
//! Invariants: per incarnation, the outbox holds exactly the counters above the floor and up to the received vector;
//! bytes and change numbers grow with the counter.

use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::{Dot, Hlc, Incarnation, VersionVector};
use meridian_storage::Read;

use super::ShardMeta;
use super::step::Step;
use crate::command::Effect;
use crate::error::Error;
use crate::ids::GroupId;
use crate::keys::{self, OutboxFrame, OutboxKey, OutboxRecord, Place};

/// How much more than its bound is kept for watchers before a part goes: one part in so many. Cutting costs a search.
const SLACK_DIVISOR: u64 = 8;

impl Step<'_, '_, '_> {
    /// Keeps an effect, as the next change of the group.
    pub(super) fn put_outbox(&mut self, dot: Dot, effect: &Effect) {
        let change = self.next_change();
        let totals = self.meta.outbox_totals.entry(dot.incarnation).or_default();
        let (record, entered) =
            OutboxKey::encode_record(self.header, totals.entered, change, effect);
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
                self.forget_changes(record.change)?;
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
    OutboxKey::decode_record(&stored, &bytes_of(read, &stored)?)
}

fn bytes_of(read: &dyn Read, stored: &[u8]) -> Result<Bytes, Error> {
    let missing = || keys::corrupt(stored, "an effect that was not dropped is missing");
    read.get(stored)?.ok_or_else(missing)
}

/// The last effect of an incarnation among those in `(low, high]` that are in the outbox, of those for which `holds` is
/// true: of all up to some counter, and of none after it. `low` when it holds for none. Looks near `high` first.
pub fn last_where(
    read: &dyn Read,
    place: Place,
    incarnation: Incarnation,
    (mut low, mut high): (u64, u64),
    holds: impl Fn(&OutboxFrame<'_>) -> bool,
) -> Result<u64, Error> {
    let mut step = 0_u64;
    while low < high {
        let half = (high - low).div_ceil(2);
        let probe = high.saturating_sub(step).max(low + half);
        let stored = OutboxKey::encode(place, Dot::new(incarnation, probe));
        let record = bytes_of(read, &stored)?;
        if holds(&OutboxKey::open_record(&stored, &record)?) {
            low = probe;
            step = u64::MAX;
        } else {
            high = probe - 1;
            step = step.saturating_mul(2).saturating_add(1);
        }
    }
    Ok(low)
}

/// What of the outbox is to go, so that about `keep_bytes` of the newest changes stay for watchers. Nothing before there
/// is an eighth more than that. One change is the bound for all incarnations: what is kept before it is of no use to a
/// watcher.
pub fn beyond_watchers(
    read: &dyn Read,
    meta: &ShardMeta,
    group: GroupId,
    keep_bytes: u64,
) -> Result<VersionVector, Error> {
    if keep_bytes == 0 {
        return Ok(meta.received.clone());
    }
    let enough = keep_bytes.saturating_add(keep_bytes / SLACK_DIVISOR);
    let largest = meta
        .outbox_totals
        .iter()
        .max_by_key(|(_, totals)| totals.kept());
    let Some((&largest, totals)) = largest.filter(|_| meta.outbox_bytes > enough) else {
        return Ok(VersionVector::new());
    };
    let place = Place::from(group);
    let kept = |incarnation| {
        (
            meta.outbox_floor.get(incarnation),
            meta.received.get(incarnation),
        )
    };
    let share = share(keep_bytes, totals.kept(), meta.outbox_bytes);
    let stays = |frame: &OutboxFrame<'_>| totals.entered.saturating_sub(frame.bytes_through);
    let last = last_where(read, place, largest, kept(largest), |frame| {
        stays(frame) >= share
    })?;
    if last <= meta.outbox_floor.get(largest) {
        return Ok(VersionVector::new());
    }
    let bound = record(read, place, Dot::new(largest, last))?.change;
    let mut through = VersionVector::new();
    for (incarnation, _) in meta.received.iter() {
        let last = last_where(read, place, incarnation, kept(incarnation), |frame| {
            frame.change <= bound
        })?;
        if last > 0 {
            through.advance(incarnation, last);
        }
    }
    Ok(through)
}

/// What `part` of `whole` has of `bytes`.
fn share(bytes: u64, part: u64, whole: u64) -> u64 {
    let share = u128::from(bytes) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// Effects of `incarnation` that follow `after`, contiguous, of at most `max_bytes` together; one always fits, and so do
/// all of one transaction, which are not parted. None
/// when the next one is not here: not received yet, or dropped.
pub fn read(
    read: &dyn Read,
    group: GroupId,
    incarnation: Incarnation,
    after: u64,
    max_bytes: usize,
) -> Result<Vec<Effect>, Error> {
    let (from, to) = OutboxKey::range(group.into(), incarnation, after.saturating_add(1), u64::MAX);
    let mut effects: Vec<Effect> = Vec::new();
    let mut next = after.saturating_add(1);
    let mut bytes = 0;
    let mut outcome = Ok(());
    read.scan(&from, &to, &mut |stored, record| {
        bytes += record.len();
        let full = bytes > max_bytes && !effects.is_empty();
        match read_next(stored, record, next) {
            Ok(Some(effect))
                if full && !effects.last().is_some_and(|last| effect.continues(last)) =>
            {
                return ControlFlow::Break(());
            }
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
