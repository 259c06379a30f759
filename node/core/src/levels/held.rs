//! What one zone holds of a key, where all zones go by one log: a replica of a group that spans zones, or a mirror.
//!
//! A replica answers once it has applied everything that its log held when it was asked. So whatever was durable there is
//! shown: a write that was acknowledged by w zones is seen by one of r replicas when w + r exceeds the number of zones,
//! although followers hear of a commit later than the leader. What a replica holds and a majority does not, in a zone that
//! is cut off, is never applied: that zone does not answer.
//!
//! Invariant: of two answers, the one of greater rank comes from a later point of the log, and shows all that the other
//! does or what superseded it. So answers need no merging, only a choice.

use bytes::Bytes;
use meridian_causal::{SiblingSet, VersionVector};
use serde::{Deserialize, Serialize};

use super::LevelWait;
use crate::core::Core;
use crate::error::Error;
use crate::group::Group;
use crate::ids::{KeyspaceId, ShardId};
use crate::inner::InnerResponse;
use crate::keys::Place;
use crate::mirror::MirrorStamp;
use crate::output::Outputs;
use crate::request::{Answer, Query, Read, ReadLevel, Response};
use crate::route::Routed;
use crate::shard::versions;
use crate::time::Now;
use crate::waiting::{Origin, What};

/// What a zone holds of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Grows along the log; the home of mirrors is beyond all of them.
    pub rank: u64,
    /// What it holds.
    pub set: SiblingSet,
    /// What it had received.
    pub seen: VersionVector,
    /// Of a mirror.
    pub mirror: Option<MirrorStamp>,
}

impl Core {
    /// Another zone asks what this node holds of a key.
    pub(crate) fn held_asked(
        &mut self,
        (now, origin, deadline_ns): (Now, Origin, u64),
        (keyspace, shard, key): (KeyspaceId, ShardId, Bytes),
        out: &mut Outputs,
    ) {
        if self.mirrors(keyspace) {
            self.held_by_mirror((origin, deadline_ns), (keyspace, shard, key), out);
            return;
        }
        let group = match self.group_at(keyspace, shard) {
            Ok(group) => group,
            Err(error) => return Self::answer(origin, Err(error), out),
        };
        let Some(through) = self.groups.get(&group).map(|local| local.log().last()) else {
            return Self::answer(origin, Err(Error::NotLeader { leader: None }), out);
        };
        let routed = Routed {
            origin,
            deadline_ns: Self::answer_by(now, deadline_ns),
            bounded: false,
            group,
        };
        let wait = LevelWait::Held(group, key, through);
        if let Some(answer) = self.held_here(&wait) {
            Self::answer(origin, answer, out);
        } else if let Some(ticket) = self.ticket(&routed, What::Level(Box::new(wait)), out) {
            let waiting = self.levels.waiting.entry(group).or_default();
            waiting.insert(ticket);
        }
    }

    /// A mirror answers with the generation it shows.
    fn held_by_mirror(
        &mut self,
        (origin, deadline_ns): (Origin, u64),
        (keyspace, shard, key): (KeyspaceId, ShardId, Bytes),
        out: &mut Outputs,
    ) {
        let read = Read {
            keyspace,
            level: ReadLevel::Eventual,
            query: Query::Get { key },
            session: None,
        };
        let routed = Routed {
            origin,
            deadline_ns,
            bounded: false,
            group: self.home_group(keyspace, shard),
        };
        if let Err(error) = self.mirror_read(&routed, shard, read, out) {
            Self::answer(origin, Err(error), out);
        }
    }

    /// What this replica is to answer, once it has applied enough.
    pub(super) fn held_here(&self, wait: &LevelWait) -> Option<Result<Response, Error>> {
        let LevelWait::Held(group, key, through) = wait else {
            return None;
        };
        let shard = self.whole_replica(*group)?;
        let meta = shard.meta();
        if let Some(refusal) = self.groups.get(group).and_then(Group::refusal) {
            return Some(Err(refusal));
        }
        (meta.applied >= *through).then(|| {
            let set = versions::load(&*self.engine, Place::from(*group), key)?;
            let held = Held {
                rank: meta.applied,
                set,
                seen: meta.received.clone(),
                mirror: None,
            };
            Ok(InnerResponse::Held(Box::new(held)).into())
        })
    }
}

impl Held {
    /// Of a mirror's answer.
    pub(crate) fn of_mirror(answer: Answer) -> Option<Self> {
        let Answer::Mirrored(answer, stamp) = answer else {
            return None;
        };
        let Answer::Key(set) = *answer else {
            return None;
        };
        Some(Self {
            rank: stamp.cut_ms,
            set,
            seen: VersionVector::new(),
            mirror: Some(stamp),
        })
    }

    /// Of the home's answer.
    pub(crate) fn of_home(set: SiblingSet, seen: VersionVector) -> Self {
        Self {
            rank: u64::MAX,
            set,
            seen,
            mirror: None,
        }
    }
}
