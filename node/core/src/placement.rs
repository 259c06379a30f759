//! Which groups this core holds: those that the catalog places on this replica.

use std::sync::Arc;

use crate::catalog::{Catalog, GroupRecord};
use crate::control::{self, Control};
use crate::core::Core;
use crate::error::Error;
use crate::group::log::GroupLog;
use crate::group::{Group, Machine};
use crate::ids::{Generation, GroupId, ReplicaId};
use crate::keys::raft_log::{RaftEntryKey, RaftStateKey};
use crate::keys::{self, NodeIdentityKey};
use crate::output::{Notice, Outputs};
use crate::shard::Shard;
use crate::time::Now;

impl Core {
    /// At the start: the catalog and the groups that the store holds.
    pub(crate) fn open_groups(&mut self, now: Now) -> Result<(), Error> {
        let mut out = Outputs::default();
        let admitted = self.admitted()?;
        if let Some(control) = Control::load(&*self.engine)?
            && !self.is_of_former_life(control.catalog(), admitted)
        {
            self.catalog = Arc::clone(control.catalog());
        }
        self.open_control(&mut out)?;
        self.place_groups(now, &mut out)
    }

    /// A member has its place in the control group; called until it has.
    pub(crate) fn join_cluster(&mut self, now: Now, out: &mut Outputs) {
        if self.groups.contains_key(&GroupId::CONTROL) || self.admission.is_none() {
            return;
        }
        let opened = self
            .open_control(out)
            .and_then(|()| self.place_groups(now, out));
        Self::report(opened, out);
    }

    fn report(result: Result<(), Error>, out: &mut Outputs) {
        if let Err(error) = result {
            out.notices.push(Notice::Damaged {
                detail: error.to_string(),
            });
        }
    }

    fn replica(&self) -> Option<ReplicaId> {
        match &self.admission {
            Some(admission) => admission.replica(self.config.node),
            None => self.catalog.replica_of(self.config.node),
        }
    }

    fn open_control(&mut self, out: &mut Outputs) -> Result<(), Error> {
        let Some(replica) = self
            .admission
            .as_ref()
            .and_then(|admission| admission.replica(self.config.node))
        else {
            return Ok(());
        };
        let id = GroupId::CONTROL;
        let seed = &self.config.seed;
        let loaded = GroupLog::load(id, &*self.engine)?;
        let fresh = loaded.is_none();
        let log = loaded.unwrap_or_else(|| {
            let (voters, learners) = (
                control::control_voters(seed),
                control::control_learners(seed),
            );
            GroupLog::create(id, Group::first_members(replica, &voters, &learners))
        });
        let control = if log.installing() {
            None
        } else {
            Control::load(&*self.engine)?
        };
        let machine = Machine::Control(Box::new(control.unwrap_or_else(Control::create)));
        let mut group = Group::open(id, replica, log, machine, &self.config)?;
        let first = control::control_voters(seed).first() == Some(&replica);
        if group.alone() || (fresh && first) {
            group.campaign(&mut self.rng);
        }
        group.impose_timeout(&mut self.rng);
        self.groups.insert(id, group);
        self.after_raft(id, out);
        Ok(())
    }

    /// The control group applied something: takes over the catalog.
    pub(crate) fn read_catalog(&mut self, now: Now, out: &mut Outputs) -> Result<(), Error> {
        let catalog = match self
            .groups
            .get(&GroupId::CONTROL)
            .map(|group| &group.machine)
        {
            Some(Machine::Control(control)) => Arc::clone(control.catalog()),
            Some(Machine::Data(_)) | None => return Ok(()),
        };
        let admitted = self.replica().map(ReplicaId::generation);
        let is_former = self.is_of_former_life(&catalog, admitted);
        if catalog.revision > self.catalog.revision && !is_former {
            self.catalog = Arc::clone(&catalog);
            out.catalog = Some(catalog);
            self.check_seed(out);
            self.place_groups(now, out)?;
        }
        Ok(())
    }

    /// Whether a catalog is from before this node lost its disk and was admitted anew: it is met again while the control group's log
    /// is. The other cores go by the catalog alone, and would open groups under the replica id that had forgotten (rule 6).
    fn is_of_former_life(&self, catalog: &Catalog, admitted: Option<Generation>) -> bool {
        let placed = catalog.replica_of(self.config.node);
        let placed = placed.map(ReplicaId::generation);
        admitted
            .zip(placed)
            .is_some_and(|(own, placed)| placed < own)
    }

    /// The life as which this node was admitted last, as its disk has it: whatever the core.
    fn admitted(&self) -> Result<Option<Generation>, Error> {
        let stored = NodeIdentityKey::encode();
        let record = self.engine.get(&stored)?;
        let identity = record.map(|record| NodeIdentityKey::decode_record(&stored, &record));
        Ok(identity.transpose()?.and_then(|identity| identity.admitted))
    }

    /// Another core of the node has a newer catalog.
    pub(crate) fn adopt(&mut self, catalog: Arc<Catalog>, now: Now, out: &mut Outputs) {
        if catalog.revision > self.catalog.revision && self.admission.is_none() {
            self.catalog = catalog;
            let placed = self.place_groups(now, out);
            Self::report(placed, out);
        }
    }

    /// Opens groups that were placed here and drops those that no longer are.
    fn place_groups(&mut self, _now: Now, out: &mut Outputs) -> Result<(), Error> {
        let Some(replica) = self.replica() else {
            return Ok(());
        };
        let catalog = Arc::clone(&self.catalog);
        let records = catalog
            .keyspaces
            .values()
            .flat_map(|keyspace| &keyspace.groups);
        let mine: Vec<&GroupRecord> = records
            .filter(|record| record.voters.contains(&replica) && self.is_mine(record.id))
            .collect();
        let gone: Vec<GroupId> = self
            .groups
            .keys()
            .filter(|id| **id != GroupId::CONTROL && !mine.iter().any(|record| record.id == **id))
            .copied()
            .collect();
        for id in gone {
            self.drop_group(id, out);
        }
        for group in self.groups.values_mut() {
            group.span(&catalog, self.config.planted.commit_in_one_zone);
        }
        for record in mine {
            if !self.groups.contains_key(&record.id) {
                self.open_group(record, replica, out)?;
            }
            if let Some(group) = self.groups.get_mut(&record.id) {
                group.disk_lost = record.disk_lost;
            }
        }
        Ok(())
    }

    fn is_mine(&self, id: GroupId) -> bool {
        u32::from(id.shard.0).checked_rem(self.config.core_count) == Some(self.config.core_index)
    }

    fn open_group(
        &mut self,
        record: &GroupRecord,
        replica: ReplicaId,
        out: &mut Outputs,
    ) -> Result<(), Error> {
        let id = record.id;
        let planted = self.config.planted;
        let loaded = GroupLog::load(id, &*self.engine)?;
        let fresh = loaded.is_none();
        let log = loaded.unwrap_or_else(|| {
            GroupLog::create(id, Group::first_members(replica, &record.founders, &[]))
        });
        let shard = if log.installing() {
            None
        } else {
            Shard::load(id, &*self.engine, planted)?
        };
        let shard = shard.unwrap_or_else(|| Shard::create(id, record.incarnation, planted));
        let mut group = Group::open(
            id,
            replica,
            log,
            Machine::Data(Box::new(shard)),
            &self.config,
        )?;
        group.span(&self.catalog, planted.commit_in_one_zone);
        if group.alone() || (fresh && record.founders.first() == Some(&replica)) {
            group.campaign(&mut self.rng);
        }
        group.impose_timeout(&mut self.rng);
        self.groups.insert(id, group);
        self.after_raft(id, out);
        Ok(())
    }

    /// A group is no longer placed here: those that wait are told, and its records go.
    fn drop_group(&mut self, id: GroupId, out: &mut Outputs) {
        let Some(mut group) = self.groups.remove(&id) else {
            return;
        };
        self.active.remove(&id);
        let now = self.now;
        self.drop_coordinations(now, id, None, out);
        self.drop_recovery(id);
        self.drop_views_of(id);
        for waiter in self.waiting.writes_in(id) {
            let unseen = waiter.what.unseen();
            self.conclude(now, waiter, Err(unseen), out);
        }
        for waits in group.leases.reset() {
            Self::answer(waits.origin, Err(Error::KeyspaceNotFound), out);
        }
        for ticket in group.fail_reads() {
            if let Some(waiter) = self.waiting.take(ticket) {
                Self::answer(waiter.origin, Err(Error::KeyspaceNotFound), out);
            }
        }
        self.dropped.extend(keys::group_state_ranges(id));
        self.dropped.push(RaftEntryKey::all(id));
        let state = RaftStateKey::encode(id);
        let end = keys::successor(&state);
        self.dropped.push((state, end));
    }

    /// The state machine of a group as the store holds it: after an image was installed.
    pub(crate) fn load_machine(&self, id: GroupId) -> Result<Machine, Error> {
        if id == GroupId::CONTROL {
            let control = Control::load(&*self.engine)?;
            return Ok(Machine::Control(Box::new(
                control.unwrap_or_else(Control::create),
            )));
        }
        match Shard::load(id, &*self.engine, self.config.planted)? {
            Some(shard) => Ok(Machine::Data(Box::new(shard))),
            None => Err(Error::Corruption {
                detail: format!("an image of group {id} held no state"),
            }),
        }
    }
}
