//! A shard of a data group: what its log entries do to its state.
//!
//! What it is: [`Shard::apply`], a function of (state, entry), the same on every replica (invariant 10); and readers
//! that tell the exchange what to ship, drop, forget and compare.
//!
//! What it is not: it knows no Raft, no messages and no time but a command's own. What a leader proposes is decided
//! elsewhere; whatever it proposes, applying it keeps the invariants.
//!
//! Invariants:
//! * a counter is taken exactly when a write takes effect; effects of one incarnation are applied gapless and in order
//!   (protocol rule 8);
//! * everything an entry changes goes into one [`Workspace`], so that a batch has all of it or none;
//! * an index is applied once: an entry at or below [`ShardMeta::applied`] changes nothing.
//!
//! After an error the workspace holds half an entry and must not be written.
//!
//! Read `write` (a client's write), `merge` (another zone's), `join` (a comparison), `incarnation` (a new actor), `seal` (the end), `changes` (what watchers see), then the files named after tables.

pub mod compare;
pub mod expiry;
pub mod garbage;
pub mod leases;
pub mod op_ids;
pub mod outbox;
pub mod returned;
pub mod versions;

mod changes;
mod incarnation;
mod join;
mod locks;
mod merge;
mod meta;
mod op_index;
mod seal;
mod step;
mod transact;
mod write;

pub use locks::{Locks, PreparedPart};
pub use meta::{Base, CompareState, OutboxBytes, ShardMeta};
pub use transact::Resolved;
pub(crate) use transact::results;

use meridian_causal::{Dot, Incarnation, OpId};
use meridian_storage::Read;

use crate::command::{Command, Effect, Op, Waiter, WriteOp, WriteOutcome};
use crate::config::PlantedBugs;
use crate::error::Error;
use crate::ids::GroupId;
use crate::keys::ShardMetaKey;
use crate::lease::{LeaseChange, LeaseOutcome};
use crate::record::Header;
use crate::request::Response;
use crate::workspace::Workspace;

use op_index::OpIndex;
use step::Step;

/// A shard of one group, as far as it is held in memory.
#[derive(Clone, Debug)]
pub struct Shard {
    group: GroupId,
    meta: ShardMeta,
    locks: Locks,
    op_index: OpIndex,
    planted: PlantedBugs,
    /// Op ids entered up to this index are treated as unknown; 0 unless a bug is planted.
    op_ids_lost_through: u64,
}

/// What applying an entry did, for those who wait for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// What became of each client write.
    pub outcomes: Vec<(Waiter, OpId, WriteOutcome)>,
    /// Everything that entered the outbox, in order.
    pub effects: Vec<(Dot, Effect)>,
    /// Incarnations whose effects were refused because of a gap or a comparison: to be asked for again.
    pub rewind: Vec<Incarnation>,
    /// A comparison began or ended.
    pub compare_changed: bool,
    /// The group goes on under another incarnation.
    pub reincarnated: bool,
    /// What became of each transaction, prepare, decision and resolution.
    pub transactions: Vec<(Waiter, Result<Response, Error>)>,
    /// Writes that met a prepared transaction, to be proposed again.
    pub locked: Vec<WriteOp>,
    /// Prepared parts that were resolved.
    pub resolved: Vec<Resolved>,
    /// What became of each operation on a lease that somebody waits for.
    pub leases: Vec<(Waiter, LeaseOutcome)>,
    /// Leases that came or went, in order.
    pub lease_changes: Vec<LeaseChange>,
}

impl Shard {
    /// A shard that has seen nothing. Nothing is stored until [`Shard::save`].
    pub fn create(group: GroupId, incarnation: Incarnation, planted: PlantedBugs) -> Self {
        Self {
            group,
            meta: ShardMeta::new(incarnation),
            locks: Locks::default(),
            op_index: OpIndex::default(),
            planted,
            op_ids_lost_through: 0,
        }
    }

    /// The shard as it is stored, if it is.
    pub fn load(
        group: GroupId,
        read: &dyn Read,
        planted: PlantedBugs,
    ) -> Result<Option<Self>, Error> {
        let Some(meta) = load_meta(read, group)? else {
            return Ok(None);
        };
        let op_ids_lost_through = if planted.forget_op_ids_at_restart {
            meta.applied
        } else {
            0
        };
        let locks = if planted.forget_locks_at_restart {
            Locks::default()
        } else {
            Locks::load(read, group.into())?
        };
        let op_index = OpIndex::load(read, group.into(), &meta)?;
        Ok(Some(Self {
            group,
            meta,
            locks,
            op_index,
            planted,
            op_ids_lost_through,
        }))
    }

    /// The group it belongs to.
    pub const fn group(&self) -> GroupId {
        self.group
    }

    /// What it knows of itself.
    pub const fn meta(&self) -> &ShardMeta {
        &self.meta
    }

    /// What prepared transactions hold, and decisions not forgotten.
    pub const fn locks(&self) -> &Locks {
        &self.locks
    }

    /// Applies a log entry.
    pub fn apply(
        &mut self,
        index: u64,
        command: Command,
        work: &mut Workspace<'_>,
    ) -> Result<Applied, Error> {
        if index <= self.meta.applied {
            return Ok(Applied::default());
        }
        self.meta.applied = index;
        self.meta.hlc = self.meta.hlc.max(command.hlc);
        let mut step = Step::new(
            self,
            Header {
                index,
                hlc: command.hlc,
            },
            work,
        );
        for op in command.ops {
            if let Op::Merge {
                incarnation,
                first,
                effects,
            } = op
            {
                step.merge(incarnation, first, effects)?;
            } else {
                step.op(&op)?;
            }
        }
        Ok(step.finish())
    }

    /// Applies an entry that says nothing: Raft's own.
    pub fn apply_empty(&mut self, index: u64) {
        self.meta.applied = self.meta.applied.max(index);
    }

    /// Writes what the shard knows of itself: once per turn, after its entries.
    pub fn save(&self, work: &mut Workspace<'_>) {
        work.put(
            ShardMetaKey::encode(self.group),
            ShardMetaKey::encode_record(&self.meta),
        );
    }
}

/// What a stored shard knows of itself.
pub fn load_meta(read: &dyn Read, group: GroupId) -> Result<Option<ShardMeta>, Error> {
    let stored = ShardMetaKey::encode(group);
    let record = read.get(&stored)?;
    record
        .map(|record| ShardMetaKey::decode_record(&stored, &record))
        .transpose()
}

impl Step<'_, '_, '_> {
    fn op(&mut self, op: &Op) -> Result<(), Error> {
        match op {
            Op::Write(write) => self.write(write),
            Op::Merge {
                incarnation,
                first,
                effects,
            } => self.merge(*incarnation, *first, effects.clone()),
            Op::CompareBegin { source, snapshot } => {
                self.compare_begin(*source, snapshot);
                Ok(())
            }
            Op::CompareJoin {
                snapshot,
                from,
                to,
                states,
            } => self.compare_join(snapshot, (from, to), states),
            Op::CompareEnd { snapshot } => self.compare_end(snapshot),
            Op::CompareRemember {
                snapshot,
                floor_ms,
                operations,
            } => self.compare_remember(snapshot, *floor_ms, operations),
            Op::Trim { through } => self.trim(through),
            Op::DropTombstones { keys } => self.drop_tombstones(keys),
            Op::EvictOpIds {
                through_index,
                floor_ms,
            } => self.evict_op_ids(*through_index, *floor_ms),
            Op::Quarantine {
                incarnation,
                resume,
            } => {
                self.quarantine(*incarnation, *resume);
                Ok(())
            }
            Op::TakeIncarnation { old, new } => self.take_incarnation(*old, *new),
            Op::Transact(op) => self.transact(op),
            Op::Prepare(op) => self.prepare(op),
            Op::Decide(op) => self.decide(op),
            Op::Resolve(op) => self.resolve(op),
            Op::Forget { ids } => {
                self.forget(ids);
                Ok(())
            }
            Op::LeaseAcquire(acquire) => self.lease_acquire(acquire),
            Op::LeaseEnd { leases, waiter } => self.lease_end(leases, *waiter),
            Op::LeasedWrite { lease, home, write } => self.leased_write((lease, *home), write),
            Op::LeaseGone { lease } => self.lease_gone(lease),
            Op::Expire { keys } => self.expire(keys),
            Op::Degrade { short } => {
                self.meta.short = short.iter().copied().collect();
                Ok(())
            }
            Op::Seal { round } => self.seal(*round),
            Op::Unseal { revision } => {
                self.unseal(*revision);
                Ok(())
            }
            Op::Found { base } => {
                self.found(base);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
