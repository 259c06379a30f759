//! The members of a group follow the catalog: one change at a time, proposed by the leader.
//!
//! A replica joins as a learner, votes once it has caught up, and only then does the one it replaces leave
//! (protocol rule 6). The change stands in an entry's context in our own encoding: raft-rs's protobuf parser is never
//! shown bytes that came over the network.

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2};

use super::{Group, ignore_refusal};
use crate::ids::ReplicaId;

/// Entries a learner may be behind when it is made a voter.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// One change of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Change {
    Learner(ReplicaId),
    Voter(ReplicaId),
    Remove(ReplicaId),
}

impl Change {
    fn raft(self) -> ConfChangeV2 {
        let (kind, replica) = match self {
            Self::Learner(replica) => (ConfChangeType::AddLearnerNode, replica),
            Self::Voter(replica) => (ConfChangeType::AddNode, replica),
            Self::Remove(replica) => (ConfChangeType::RemoveNode, replica),
        };
        let mut single = ConfChangeSingle {
            node_id: replica.0,
            ..ConfChangeSingle::default()
        };
        single.set_change_type(kind);
        ConfChangeV2 {
            changes: vec![single],
            ..ConfChangeV2::default()
        }
    }
}

/// The change that an entry's context holds.
pub(super) fn decode(context: &[u8]) -> Result<ConfChangeV2, postcard::Error> {
    postcard::from_bytes::<Change>(context).map(Change::raft)
}

impl Group {
    /// Proposes the next step from the members the group has to those it should have. Called by ticks; does nothing
    /// where this replica does not lead or a change is under way.
    pub(crate) fn reconcile_members(&mut self, voters: &[ReplicaId], learners: &[ReplicaId]) {
        if !self.established() || self.raft.raft.has_pending_conf() {
            return;
        }
        let Some(change) = self.next_change(voters, learners) else {
            return;
        };
        let Ok(context) = postcard::to_stdvec(&change) else {
            return;
        };
        // A refusal means that another change is under way: the next tick tries again.
        ignore_refusal(&self.raft.propose_conf_change(context, change.raft()));
    }

    fn next_change(&self, voters: &[ReplicaId], learners: &[ReplicaId]) -> Option<Change> {
        let conf = self.log().conf();
        let member = |id: &ReplicaId| conf.voters.contains(&id.0) || conf.learners.contains(&id.0);
        if let Some(new) = voters.iter().chain(learners).find(|id| !member(id)) {
            return Some(Change::Learner(*new));
        }
        if let Some(ready) = voters
            .iter()
            .find(|id| !conf.voters.contains(&id.0) && self.caught_up(**id))
        {
            return Some(Change::Voter(*ready));
        }
        if voters.iter().any(|id| !conf.voters.contains(&id.0)) {
            return None;
        }
        let stray = conf
            .voters
            .iter()
            .chain(&conf.learners)
            .map(|id| ReplicaId(*id));
        let mut stray = stray
            .filter(|id| !voters.contains(id) && !learners.contains(id) && *id != self.replica);
        stray.next().map(Change::Remove)
    }

    fn caught_up(&self, replica: ReplicaId) -> bool {
        let progress = self.raft.raft.prs().get(replica.0);
        progress.is_some_and(|progress| {
            progress.matched > 0
                && progress.matched.saturating_add(CAUGHT_UP_ENTRIES) >= self.log().last()
        })
    }
}
