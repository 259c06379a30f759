//! Op ids: how a retry takes effect once (protocol rule 16).
//!
//! Invariants:
//! * what a remembered operation did stands in the order record of the log entry that entered it, which the index names;
//! * what is forgotten has a stamp below the floor, so a later retry is told that its outcome is unknown.

use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use meridian_causal::{CausalContext, Dot, OpId};
use meridian_storage::Read;

use super::op_index::OpIndex;
use super::step::Step;
use super::{Shard, ShardMeta};
use crate::catalog::key_hash;
use crate::command::{Op, WriteOutcome};
use crate::config::Bounds;
use crate::error::Error;
use crate::ids::GroupId;
use crate::keys::{self, OpIdRecord, OpOrderKey, OpOrderSummary, Place};
use crate::limits::OP_ID_EVICTIONS_MAX;
use crate::record::Header;

impl Step<'_, '_, '_> {
    /// What became of an earlier attempt of this op id, if it can be told.
    pub(super) fn remembered(
        &self,
        op_id: OpId,
        key: &[u8],
    ) -> Result<Option<WriteOutcome>, Error> {
        if let Some(operation) = self.known(op_id)? {
            let OpIdRecord { dot, context, .. } = operation;
            let same_key = operation.key_hash == key_hash(key);
            let repeated = WriteOutcome::Written {
                dot,
                context,
                repeated: true,
            };
            return Ok(Some(if same_key {
                repeated
            } else {
                WriteOutcome::OpIdReused
            }));
        }
        Ok((op_id.stamp_ms < self.meta.op_floor_ms).then_some(WriteOutcome::OutcomeUnknown))
    }

    /// Whether a received op id is to be entered: retries of one below the floor are refused anyway, and of two
    /// attempts in two zones the first to be known here answers.
    pub(super) fn is_to_remember(&self, op_id: OpId) -> Result<bool, Error> {
        Ok(op_id.stamp_ms >= self.meta.op_floor_ms && self.known(op_id)?.is_none())
    }

    pub(super) fn known(&self, op_id: OpId) -> Result<Option<OpIdRecord>, Error> {
        let mut own = self.entered.operations.iter();
        if let Some((_, operation)) = own.find(|(id, _)| *id == op_id.id) {
            return Ok(Some(operation.clone()));
        }
        let found = self.find(op_id.id)?;
        let heeded = found.filter(|(index, _)| *index > self.op_ids_lost_through);
        Ok(heeded.map(|(_, operation)| operation))
    }

    /// What an earlier entry has entered of an operation, and which.
    fn find(&self, id: u128) -> Result<Option<(u64, OpIdRecord)>, Error> {
        // What this entry enters is not stored yet, but in the index.
        let stored = self.meta.op_first_index..self.header.index;
        find(self.work, self.place, (self.op_index, stored), id)
    }

    /// Remembers what an operation did.
    pub(super) fn enter_op_id(
        &mut self,
        op_id: OpId,
        key: &[u8],
        dot: Dot,
        context: &CausalContext,
    ) {
        let operation = OpIdRecord {
            dot,
            context: context.clone(),
            key_hash: key_hash(key),
            stamp_ms: op_id.stamp_ms,
        };
        self.enter_operation(op_id, operation);
    }

    /// Remembers an operation.
    pub(super) fn enter_operation(&mut self, op_id: OpId, operation: OpIdRecord) {
        if self.meta.op_count == 0 {
            self.meta.op_first_index = self.header.index;
        }
        self.meta.op_count = self.meta.op_count.saturating_add(1);
        self.entered.stamp_ms_max = self.entered.stamp_ms_max.max(op_id.stamp_ms);
        self.entered.operations.push((op_id.id, operation));
        self.op_index.enter(self.header.index, op_id.id);
    }

    /// Changes what is remembered of an operation, where it stands.
    pub(super) fn amend_operation(
        &mut self,
        id: u128,
        amend: impl Fn(&mut OpIdRecord),
    ) -> Result<(), Error> {
        let mut own = self.entered.operations.iter_mut();
        if let Some((_, operation)) = own.find(|(own, _)| *own == id) {
            amend(operation);
            return Ok(());
        }
        let Some((index, _)) = self.find(id)? else {
            return Ok(());
        };
        let (stored, record) = order_of(self.work, self.place, index)?;
        let (header, mut order) = OpOrderKey::decode_record(&stored, &record)?;
        let mut named = order.operations.iter_mut().filter(|(own, _)| *own == id);
        if let Some((_, operation)) = named.next() {
            amend(operation);
        }
        let record = OpOrderKey::encode_record(header, &order);
        self.work.put(stored, record);
        Ok(())
    }

    /// Forgets what entries up to `through_index` have entered: of the oldest ones at most [`OP_ID_EVICTIONS_MAX`]
    /// entries.
    pub(super) fn evict_op_ids(&mut self, through_index: u64, floor_ms: u64) -> Result<(), Error> {
        self.meta.op_floor_ms = self.meta.op_floor_ms.max(floor_ms);
        // This entry's own ids are not in a record yet.
        let last = through_index.min(self.header.index.saturating_sub(1));
        let mut doomed = Vec::new();
        let more = visit(
            self.work,
            self.place,
            (self.meta.op_first_index, last),
            &mut |header, order| {
                doomed.push((header.index, order));
                ControlFlow::Continue(())
            },
        )?;
        for (index, order) in doomed {
            self.meta.op_floor_ms = self
                .meta
                .op_floor_ms
                .max(order.stamp_ms_max.saturating_add(1));
            let operations = u64::from(order.operations);
            self.meta.op_count = self.meta.op_count.saturating_sub(operations);
            self.meta.op_first_index = index.saturating_add(1);
            self.work.delete(OpOrderKey::encode(self.place, index));
        }
        if more.is_continue() {
            self.meta.op_first_index = self.meta.op_first_index.max(last.saturating_add(1));
        }
        self.op_index.forget_before(self.meta.op_first_index);
        Ok(())
    }
}

impl Shard {
    /// Whether an operation is remembered, by what is written.
    pub fn remembers(&self, read: &dyn Read, op_id: OpId) -> Result<bool, Error> {
        let place = self.group.into();
        let stored = self.meta.op_first_index..self.meta.applied.saturating_add(1);
        let found = find(read, place, (&self.op_index, stored), op_id.id)?;
        Ok(found.is_some())
    }
}

/// What a remembered operation did, and the log entry that entered it, among entries whose operations are stored.
fn find(
    read: &dyn Read,
    place: Place,
    (op_index, stored): (&OpIndex, Range<u64>),
    id: u128,
) -> Result<Option<(u64, OpIdRecord)>, Error> {
    for index in op_index.entries(id).filter(|index| stored.contains(index)) {
        let (stored, record) = order_of(read, place, index)?;
        let (_, order) = OpOrderKey::open_record(&stored, &record)?;
        let mut operations = order.operations.into_iter();
        if let Some((_, bytes)) = operations.find(|(own, _)| *own == id) {
            let operation = OpIdRecord::decode(bytes);
            let operation = operation.map_err(|error| keys::corrupt(&stored, error))?;
            return Ok(Some((index, operation)));
        }
    }
    Ok(None)
}

/// The stored operations of a log entry that has entered some which are not forgotten.
fn order_of(read: &dyn Read, place: Place, index: u64) -> Result<(Vec<u8>, Bytes), Error> {
    let stored = OpOrderKey::encode(place, index);
    let missing = || keys::corrupt(&stored, "operations that were not forgotten are missing");
    let record = read.get(&stored)?.ok_or_else(missing)?;
    Ok((stored, record))
}

/// The operation that forgets op ids past their age or beyond their number, if there are any.
pub fn eviction(
    read: &dyn Read,
    meta: &ShardMeta,
    group: GroupId,
    bounds: &Bounds,
    now_ms: u64,
) -> Result<Option<Op>, Error> {
    let mut excess = meta.op_count.saturating_sub(bounds.op_ids_max);
    let mut through = None;
    let mut floor_ms = meta.op_floor_ms;
    if meta.op_count == 0 {
        return Ok(None);
    }
    let _seen_all = visit(
        read,
        group.into(),
        (meta.op_first_index, meta.applied),
        &mut |header, order| {
            let old = header.hlc.wall_ms().saturating_add(bounds.op_id_age_ms) < now_ms;
            if excess == 0 && !old {
                return ControlFlow::Break(());
            }
            excess = excess.saturating_sub(u64::from(order.operations));
            floor_ms = floor_ms.max(order.stamp_ms_max.saturating_add(1));
            through = Some(header.index);
            ControlFlow::Continue(())
        },
    )?;
    Ok(through.map(|through_index| Op::EvictOpIds {
        through_index,
        floor_ms,
    }))
}

/// Visits order records of the log indexes `first..=last`, oldest first, at most [`OP_ID_EVICTIONS_MAX`]. Breaks when
/// the visitor did, or at that bound.
fn visit(
    read: &dyn Read,
    place: Place,
    (first, last): (u64, u64),
    each: &mut dyn FnMut(Header, OpOrderSummary) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Error> {
    let (from, to) = OpOrderKey::range(place, first, last);
    let mut left = OP_ID_EVICTIONS_MAX;
    let mut outcome = Ok(ControlFlow::Continue(()));
    read.scan(&from, &to, &mut |stored, record| {
        let flow =
            OpOrderKey::summary(stored, record).map(|(header, order)| match left.checked_sub(1) {
                Some(fewer) => {
                    left = fewer;
                    each(header, order)
                }
                None => ControlFlow::Break(()),
            });
        let stop = !matches!(flow, Ok(ControlFlow::Continue(())));
        outcome = flow;
        if stop {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    outcome
}
