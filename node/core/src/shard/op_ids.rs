//! Op ids: how a retry takes effect once (protocol rule 16).
//!
//! Invariants:
//! * every remembered op id is named by the order record of the log entry that entered it, and may be held by the filter;
//! * what is forgotten has a stamp below the floor, so a later retry is told that its outcome is unknown.

use std::ops::ControlFlow;

use meridian_causal::{CausalContext, Dot, OpId};
use meridian_storage::Read;

use super::ShardMeta;
use super::step::Step;
use crate::catalog::key_hash;
use crate::command::{Op, WriteOutcome};
use crate::config::Bounds;
use crate::error::Error;
use crate::ids::GroupId;
use crate::keys::{OpIdKey, OpIdRecord, OpOrder, OpOrderKey, Place};
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
        if !self.op_filter.may_hold(op_id.id) {
            return Ok(None);
        }
        let stored = OpIdKey::encode(self.place, op_id.id);
        let Some(record) = self.get(&stored)? else {
            return Ok(None);
        };
        let (header, operation) = OpIdKey::decode_record(&stored, &record)?;
        Ok((header.index > self.op_ids_lost_through).then_some(operation))
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
        self.enter_operation(op_id, &operation);
    }

    /// Remembers an operation.
    pub(super) fn enter_operation(&mut self, op_id: OpId, operation: &OpIdRecord) {
        let record = OpIdKey::encode_record(self.header, operation);
        self.work.put(OpIdKey::encode(self.place, op_id.id), record);
        if self.meta.op_count == 0 {
            self.meta.op_first_index = self.header.index;
        }
        self.meta.op_count = self.meta.op_count.saturating_add(1);
        self.entered.stamp_ms_max = self.entered.stamp_ms_max.max(op_id.stamp_ms);
        self.entered.ids.push(op_id.id);
        self.op_filter.enter(self.header.index, op_id.id);
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
            self.meta.op_count = self.meta.op_count.saturating_sub(len(&order));
            self.meta.op_first_index = index.saturating_add(1);
            for id in order.ids {
                self.work.delete(OpIdKey::encode(self.place, id));
            }
            self.work.delete(OpOrderKey::encode(self.place, index));
        }
        if more.is_continue() {
            self.meta.op_first_index = self.meta.op_first_index.max(last.saturating_add(1));
        }
        self.op_filter.forget_before(self.meta.op_first_index);
        Ok(())
    }
}

/// Whether an operation is remembered.
pub fn is_known(read: &dyn Read, group: GroupId, op_id: OpId) -> Result<bool, Error> {
    let stored = OpIdKey::encode(group.into(), op_id.id);
    Ok(read.get(&stored)?.is_some())
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
            excess = excess.saturating_sub(len(&order));
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
    each: &mut dyn FnMut(Header, OpOrder) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Error> {
    let (from, to) = OpOrderKey::range(place, first, last);
    let mut left = OP_ID_EVICTIONS_MAX;
    let mut outcome = Ok(ControlFlow::Continue(()));
    read.scan(&from, &to, &mut |stored, record| {
        let flow = OpOrderKey::decode_record(stored, record).map(|(header, order)| {
            match left.checked_sub(1) {
                Some(fewer) => {
                    left = fewer;
                    each(header, order)
                }
                None => ControlFlow::Break(()),
            }
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

fn len(order: &OpOrder) -> u64 {
    u64::try_from(order.ids.len()).unwrap_or(u64::MAX)
}
