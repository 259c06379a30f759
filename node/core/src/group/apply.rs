//! Applying: what is committed becomes state, entry by entry, in the turn's writes.
//!
//! Entries come from the log in order, each once. What an entry has brought (outcomes, effects, resolved parts) is kept in the
//! group until `settle`, when it is written.

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType};

use super::collect::{Collected, TurnContext};
use super::life::Life;
use super::{Group, Machine, Outcome, members};
use crate::command::{Command, Op};
use crate::error::Error;
use crate::exchange::Applied;
use crate::ids::GroupId;
use crate::keys::{Kind, VersionKey};
use crate::output::{Observation, Outputs, Stage};
use crate::shard::versions;
use crate::workspace::Workspace;

impl Group {
    /// Applies entries from the log, in order, up to what Raft handed out.
    pub(super) fn apply_committed(
        &mut self,
        context: &mut TurnContext<'_, '_>,
        collected: &mut Collected,
    ) -> Result<(), Error> {
        if self.log().installing() || self.installed() {
            return Ok(());
        }
        while self.machine.applied() < self.apply_to {
            let index = self.machine.applied().saturating_add(1);
            let Some(entry) = self.log().entry(index).cloned() else {
                // Behind the log: an image is on its way.
                break;
            };
            let may_wait = !self.log().is_unlogged(index);
            if may_wait && context.pace.defers() && self.merge_entries.front() == Some(&index) {
                break;
            }
            if context.observe {
                context.work.begin_entry();
            }
            self.apply_entry(context, &entry, collected)?;
            self.life.applied(&self.machine);
            while self
                .merge_entries
                .front()
                .is_some_and(|merges| *merges <= index)
            {
                self.merge_entries.pop_front();
            }
            if context.observe {
                let writes_hash = context.work.entry_hash();
                context.out.observations.push(Observation::Applied {
                    group: self.id,
                    index,
                    writes_hash,
                });
            }
        }
        Ok(())
    }

    fn apply_entry(
        &mut self,
        context: &mut TurnContext<'_, '_>,
        entry: &Entry,
        collected: &mut Collected,
    ) -> Result<(), Error> {
        match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => self.apply_nothing(entry.index),
            EntryType::EntryNormal => self.apply_command(context, entry, collected)?,
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                self.apply_members(entry)?;
            }
        }
        assert!(
            self.machine.applied() == entry.index,
            "each entry is applied once, in order"
        );
        Ok(())
    }

    fn apply_members(&mut self, entry: &Entry) -> Result<(), Error> {
        let change =
            members::decode(&entry.context).map_err(|error| self.bad_entry(entry, &error))?;
        let conf = self
            .raft
            .apply_conf_change(&change)
            .map_err(|error| self.bad_entry(entry, &error))?;
        self.raft.mut_store().set_conf(conf);
        self.assign_commit_groups();
        self.apply_nothing(entry.index);
        Ok(())
    }

    fn apply_nothing(&mut self, index: u64) {
        match &mut self.machine {
            Machine::Data(shard) => shard.apply_empty(index),
            Machine::Control(control) => control.apply_empty(index),
        }
    }

    fn apply_command(
        &mut self,
        context: &mut TurnContext<'_, '_>,
        entry: &Entry,
        collected: &mut Collected,
    ) -> Result<(), Error> {
        match &mut self.machine {
            Machine::Control(control) => {
                let (waiter, result) = control.apply(entry.index, &entry.data)?;
                collected.catalog_changed = true;
                self.outcomes.push(Outcome::Control(waiter, result));
            }
            Machine::Data(shard) => {
                let command = Command::decode(&entry.data)?;
                let before = shard.meta().incarnation;
                let observed = context.observe.then(|| command.clone());
                let applied = shard.apply(entry.index, command, context.work)?;
                let own = shard.meta().incarnation;
                let outcomes = applied.outcomes.into_iter();
                self.outcomes.extend(
                    outcomes.map(|(waiter, op_id, outcome)| Outcome::Write(waiter, op_id, outcome)),
                );
                if context.observe {
                    for (dot, effect) in &applied.effects {
                        context.out.observations.push(Observation::Effect {
                            group: self.id,
                            index: entry.index,
                            dot: *dot,
                            key: effect.key.clone(),
                            op_id: effect.op_id,
                        });
                    }
                }
                if let Some(command) = observed {
                    observe_stored((self.id, entry.index), context.work, context.out)?;
                    observe_stages(&command, context.out);
                }
                self.outcomes.extend(
                    applied
                        .transactions
                        .into_iter()
                        .map(|(waiter, result)| Outcome::Control(waiter, result)),
                );
                self.resolved.extend(applied.resolved);
                let leases = applied.leases.into_iter();
                self.outcomes
                    .extend(leases.map(|(waiter, outcome)| Outcome::Lease(waiter, outcome)));
                if self.leads() {
                    for change in applied.lease_changes {
                        self.leases.changed(change, context.now);
                    }
                }
                let left = applied.reincarnated.then_some(before);
                self.park(applied.locked);
                if left.is_some() {
                    self.life = Life::anew();
                }
                let leads = self.leads();
                self.exchange.applied(
                    Applied {
                        effects: applied.effects,
                        rewind: applied.rewind,
                        own,
                        left,
                    },
                    leads,
                );
            }
        }
        Ok(())
    }

    fn bad_entry(&self, entry: &Entry, detail: &dyn std::fmt::Display) -> Error {
        Error::Corruption {
            detail: format!("group {} entry {}: {detail}", self.id, entry.index),
        }
    }
}

/// Tells checkers what the keys hold whose records an entry has written.
fn observe_stored(
    (group, index): (GroupId, u64),
    work: &Workspace<'_>,
    out: &mut Outputs,
) -> Result<(), Error> {
    for stored in work.entry_keys() {
        if stored.first() != Some(&Kind::Version.number()) {
            continue;
        }
        let key = VersionKey::user_key(&stored)?;
        let set = versions::load(work, group.into(), key)?;
        out.observations.push(Observation::Stored {
            group,
            index,
            key: Bytes::copy_from_slice(key),
            live: set.digest(key),
        });
    }
    Ok(())
}

/// Tells checkers which stages of transactions an entry brings.
fn observe_stages(command: &Command, out: &mut Outputs) {
    for op in &command.ops {
        let (id, stage) = match op {
            Op::Prepare(op) => (op.id, Stage::Prepared),
            Op::Decide(op) => (op.id, Stage::Decided),
            Op::Resolve(op) => (op.id, Stage::Resolved),
            Op::Forget { ids } => (ids.first().copied().unwrap_or_default(), Stage::Forgotten),
            Op::Write(_)
            | Op::Merge { .. }
            | Op::CompareBegin { .. }
            | Op::CompareJoin { .. }
            | Op::CompareEnd { .. }
            | Op::CompareRemember { .. }
            | Op::Trim { .. }
            | Op::DropTombstones { .. }
            | Op::EvictOpIds { .. }
            | Op::Quarantine { .. }
            | Op::TakeIncarnation { .. }
            | Op::Transact(_)
            | Op::LeaseAcquire(_)
            | Op::LeaseEnd { .. }
            | Op::LeasedWrite { .. }
            | Op::LeaseGone { .. }
            | Op::Expire { .. }
            | Op::Seal { .. }
            | Op::Unseal { .. }
            | Op::Found { .. }
            | Op::Degrade { .. } => continue,
        };
        out.observations.push(Observation::Stage { id, stage });
    }
}
