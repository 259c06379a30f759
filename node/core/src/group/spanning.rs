//! What a group that spans zones knows of them: in which zone each of its replicas stands, which of these zones hold an
//! entry durably, and which of them are silent.
//!
//! A commit of such a group needs a majority of its voters *and* two zones. Placement gives no zone half of the voters, so
//! that every majority spans two zones; raft-rs's group commit is the second lock on the same door (protocol rule 19).
//! raft-rs keeps commit-group ids in memory only and forgets them with every image and change of members, so they are
//! assigned again after each of these, at the start and on becoming leader.
//!
//! Volatile, and of use to the leader only: what is durable elsewhere is known from the followers' acknowledgements.
//!
//! What it is not: it decides nothing about replies (`acks`) and moves no leader (`demand`).
//!
//! Invariants:
//! * a group whose walls are a zone has none of this;
//! * a replica's commit group is its zone: a replica without a zone has none, and commits wait for the slowest.

use std::collections::{BTreeMap, BTreeSet};

use meridian_causal::ZoneId;
use raft::eraftpb::Entry;

use super::acks::Acks;
use super::demand::Demand;
use super::{Group, RoleChange};
use crate::catalog::{Ack, Catalog, OnZoneLoss};
use crate::ids::{GroupId, NodeId, ReplicaId};
use crate::output::{Observation, Outputs};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Spanning {
    /// Where each node stands.
    zones: BTreeMap<NodeId, ZoneId>,
    /// The zones of the keyspace.
    pub(super) of_keyspace: Vec<ZoneId>,
    pub(super) ack: Ack,
    pub(super) on_zone_loss: OnZoneLoss,
    pub(super) home: Option<ZoneId>,
    /// Ticks since each replica was last heard, as long as this one leads.
    silent: BTreeMap<ReplicaId, usize>,
    pub(super) acks: Acks,
    pub(super) demand: Demand,
    /// For observers: entries in the batch being written, by index and term.
    pub(super) entered: Vec<(u64, u64)>,
    /// The planted bug: commits do not wait for other zones.
    commit_in_one_zone: bool,
}

impl GroupId {
    /// Whether its voters are spread over zones. The control group is another matter: it is there in clusters of one zone
    /// too.
    pub const fn spans_zones(self) -> bool {
        self.zone.0 == ZoneId::GLOBAL.0 && self.keyspace.0 != Self::CONTROL.keyspace.0
    }
}

impl Group {
    /// Takes over from the catalog what the group must know of zones. Called when it is opened and whenever the catalog
    /// changes.
    pub(crate) fn span(&mut self, catalog: &Catalog, commit_in_one_zone: bool) {
        let Some(keyspace) = catalog.keyspaces.get(&self.id.keyspace) else {
            return;
        };
        if !self.id.spans_zones() {
            return;
        }
        if self.spanning.is_none() {
            // What a write of unknown outcome left in the log counts as durable from here on: observers have not heard of it.
            let last = self.log().last();
            let term = self.raft.raft.raft_log.term(last).unwrap_or_default();
            let entered = vec![(last, term)];
            self.spanning = Some(Spanning {
                entered,
                ..Spanning::default()
            });
        }
        let spanning = self.spanning.get_or_insert_default();
        let nodes = catalog.nodes.iter();
        spanning.zones = nodes.map(|(node, record)| (*node, record.zone)).collect();
        let policy = &keyspace.policy;
        spanning.of_keyspace.clone_from(&policy.zones);
        spanning.ack = policy.ack;
        spanning.on_zone_loss = policy.on_zone_loss;
        spanning.home = policy.home;
        spanning.commit_in_one_zone = commit_in_one_zone;
        self.assign_commit_groups();
    }

    /// Tells Raft the zone of every replica (protocol rule 19).
    pub(super) fn assign_commit_groups(&mut self) {
        let Some(spanning) = &self.spanning else {
            return;
        };
        let replicas = self.raft.raft.prs().iter();
        let ids: Vec<(u64, u64)> = replicas
            .filter_map(|(id, _)| Some((*id, u64::from(spanning.zone_of(ReplicaId(*id))?.0))))
            .collect();
        self.raft.raft.enable_group_commit(true);
        self.raft.raft.assign_commit_groups(&ids);
        let known: BTreeMap<u64, u64> = ids.into_iter().collect();
        for (id, progress) in self.raft.raft.prs().iter() {
            assert!(
                progress.commit_group_id == known.get(id).copied().unwrap_or(0),
                "a replica's commit group is its zone"
            );
        }
    }

    /// A replica was heard.
    pub(super) fn hear(&mut self, from: u64) {
        if let Some(spanning) = &mut self.spanning {
            spanning.silent.insert(ReplicaId(from), 0);
        }
    }

    /// Time passed.
    pub(super) fn tick_spanning(&mut self) {
        let Some(spanning) = &mut self.spanning else {
            return;
        };
        for ticks in spanning.silent.values_mut() {
            *ticks = ticks.saturating_add(1);
        }
        spanning.demand.tick();
    }

    /// Leadership came or went: everybody counts as heard just now.
    pub(super) fn spanning_role(&mut self, _change: RoleChange) {
        let replicas: Vec<ReplicaId> = self.voters().collect();
        if let Some(spanning) = &mut self.spanning {
            spanning.silent = replicas.into_iter().map(|replica| (replica, 0)).collect();
            spanning.demand = Demand::default();
        }
        self.assign_commit_groups();
    }

    /// The voters, as the members applied last say.
    pub(super) fn voters(&self) -> impl Iterator<Item = ReplicaId> {
        self.log().conf().voters.iter().map(|id| ReplicaId(*id))
    }

    /// Whether a voter said something within an election timeout; the leader itself always does.
    pub(super) fn is_heard(&self, replica: ReplicaId) -> bool {
        let silent = self
            .spanning
            .as_ref()
            .and_then(|spanning| spanning.silent.get(&replica));
        replica == self.replica || silent.is_some_and(|ticks| *ticks < self.election_ticks)
    }

    /// What a replica is known to hold durably.
    pub(super) fn matched(&self, replica: ReplicaId) -> u64 {
        let progress = self.raft.raft.prs().get(replica.0);
        progress.map_or(0, |progress| progress.matched)
    }

    /// The zone of a replica; `None` in a group whose walls are a zone.
    pub(super) fn zone_of(&self, replica: ReplicaId) -> Option<ZoneId> {
        self.spanning.as_ref()?.zone_of(replica)
    }

    /// The zones in which a voter holds everything up to `index` durably, ascending. At the leader only.
    pub(crate) fn holders(&self, index: u64) -> Vec<ZoneId> {
        let holds = self.voters().filter(|id| self.matched(*id) >= index);
        let zones: BTreeSet<ZoneId> = holds.filter_map(|id| self.zone_of(id)).collect();
        zones.into_iter().collect()
    }

    /// The zones of the keyspace of which no voter was heard within an election timeout, ascending. At the leader only.
    pub(crate) fn missing_zones(&self) -> Vec<ZoneId> {
        let Some(spanning) = &self.spanning else {
            return Vec::new();
        };
        let heard = self.voters().filter(|id| self.is_heard(*id));
        let heard: BTreeSet<ZoneId> = heard.filter_map(|id| self.zone_of(id)).collect();
        let zones = spanning.of_keyspace.iter();
        zones
            .filter(|zone| !heard.contains(zone))
            .copied()
            .collect()
    }

    /// Notes for observers what the batch under way brings into the log.
    pub(super) fn note_entries(&mut self, entries: &[Entry]) {
        if let Some(spanning) = &mut self.spanning {
            let noted = entries.iter().map(|entry| (entry.index, entry.term));
            spanning.entered.extend(noted);
        }
    }

    /// The batch is written: observers are told.
    pub(super) fn tell_durable(&mut self, out: &mut Outputs) {
        let group = self.id;
        let Some(spanning) = &mut self.spanning else {
            return;
        };
        let entered = std::mem::take(&mut spanning.entered);
        out.observations.extend(
            entered
                .into_iter()
                .map(|(index, term)| Observation::Durable { group, index, term }),
        );
    }

    /// The planted bug: what is durable here counts as committed.
    pub(super) fn commit_alone(&mut self) {
        let planted = self
            .spanning
            .as_ref()
            .is_some_and(|spanning| spanning.commit_in_one_zone);
        if planted && self.established() {
            let persisted = self.raft.raft.raft_log.persisted;
            self.raft.raft.raft_log.commit_to(persisted);
        }
    }
}

impl Spanning {
    fn zone_of(&self, replica: ReplicaId) -> Option<ZoneId> {
        self.zones.get(&replica.node()).copied()
    }
}
