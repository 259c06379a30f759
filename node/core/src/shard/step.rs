//! One entry being applied: what every operation of it reads and writes.

use meridian_causal::Dot;
use meridian_storage::Read;

use super::op_index::OpIndex;
use super::versions::Facts;
use super::{Applied, Locks, Shard, ShardMeta};
use crate::command::Effect;
use crate::config::PlantedBugs;
use crate::error::Error;
use crate::keys::{OpOrder, OpOrderKey, Place};
use crate::record::Header;
use crate::workspace::Workspace;
use bytes::Bytes;
use meridian_causal::SiblingSet;

/// One entry being applied.
pub(super) struct Step<'s, 'w, 'e> {
    pub(super) place: Place,
    pub(super) epoch: u32,
    pub(super) header: Header,
    pub(super) planted: PlantedBugs,
    pub(super) op_ids_lost_through: u64,
    pub(super) meta: &'s mut ShardMeta,
    pub(super) locks: &'s mut Locks,
    pub(super) op_index: &'s mut OpIndex,
    pub(super) work: &'w mut Workspace<'e>,
    pub(super) applied: Applied,
    /// Operations that this entry has entered.
    pub(super) entered: OpOrder,
}

/// A key's set before and while an operation changes it.
pub(super) struct Held {
    pub(super) stored: Vec<u8>,
    /// The record as it was.
    pub(super) record: Option<Bytes>,
    pub(super) before: Facts,
    pub(super) set: SiblingSet,
}

impl<'s, 'w, 'e> Step<'s, 'w, 'e> {
    pub(super) fn new(shard: &'s mut Shard, header: Header, work: &'w mut Workspace<'e>) -> Self {
        Self {
            place: shard.group.into(),
            epoch: shard.group.epoch,
            header,
            planted: shard.planted,
            op_ids_lost_through: shard.op_ids_lost_through,
            meta: &mut shard.meta,
            locks: &mut shard.locks,
            op_index: &mut shard.op_index,
            work,
            applied: Applied::default(),
            entered: OpOrder::default(),
        }
    }

    /// Writes what concerns the entry as a whole.
    pub(super) fn finish(self) -> Applied {
        if !self.entered.operations.is_empty() {
            let stored = OpOrderKey::encode(self.place, self.header.index);
            self.work.put(
                stored,
                OpOrderKey::encode_record(self.header, &self.entered),
            );
        }
        self.applied
    }

    pub(super) fn get(&self, stored: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.work.get(stored)?)
    }

    /// The counter of `dot` is taken and its effect kept for other zones.
    pub(super) fn ship(&mut self, dot: Dot, effect: Effect) {
        self.put_outbox(dot, &effect);
        self.applied.effects.push((dot, effect));
    }
}
