//! What becomes of requests under way: reads are released and served, refused proposals and outcomes are answered.
//!
//! What it is not: it decides nothing. Where a request goes is in `route`, who waits for what in `waiting`.

use crate::command::Waiter as Proposer;
use crate::command::WriteOutcome;
use crate::core::Core;
use crate::error::{EffectOf, Error};
use crate::ids::{GroupId, KeyspaceId, NodeId, RequestId, ShardId};
use crate::inner::InnerResponse;
use crate::limits::SIBLINGS_MAX;
use crate::message::PeerMessage;
use crate::output::{Outputs, Pinned, ReleasedRead};
use crate::request::{Read, Receipt, Response, ZoneLag};
use crate::shard::outbox;
use crate::time::Now;
use crate::waiting::{Origin, Waiter, What};
use meridian_causal::{OpId, VersionVector, ZoneId};

impl Core {
    /// A proposal did not enter the log.
    pub(crate) fn refused(&mut self, now: Now, proposer: Proposer, out: &mut Outputs) {
        if let Some(waiter) = self.waiting.take(proposer.ticket) {
            let what = "the log of uncommitted writes".to_owned();
            self.conclude(now, waiter, Err(Error::Overloaded { what }), out);
        }
    }

    /// A linearizable read may be served.
    pub(crate) fn release(
        &mut self,
        now: Now,
        (ticket, group): (RequestId, GroupId),
        out: &mut Outputs,
    ) {
        let Some(waiter) = self.waiting.take(ticket) else {
            return;
        };
        let Waiter {
            origin,
            deadline_ns,
            what,
            ..
        } = waiter;
        let answer = match what {
            What::Read(read) => {
                self.release_read((ticket, group), (origin, deadline_ns), read, out);
                return;
            }
            What::Inquire(group, id) => Ok(InnerResponse::Inquired(self.verdict(group, id)).into()),
            What::Confirm(group, term) => {
                let local = self.groups.get(&group);
                if local.is_some_and(|local| local.leads() && local.term() == term) {
                    Ok(InnerResponse::ViewConfirmed.into())
                } else {
                    Err(Error::ViewLost)
                }
            }
            What::Pin(group, view) => self.pinned_at(group, view),
            What::Renew(group, lease) => self.renewed(now, group, &lease),
            What::LeaseCheck(check) => {
                self.check_leases(*check);
                return;
            }
            What::Level(_) => self.measure_answer(now, group),
            What::Write(..)
            | What::Control
            | What::ForwardedWrite(_)
            | What::ForwardedRead
            | What::Across(_)
            | What::Mirrored
            | What::Own(_)
            | What::Acquire(..)
            | What::EndLease(_) => return,
        };
        Self::answer(origin, answer, out);
    }

    /// Lets the driver serve a read of its own; serves one of another node. `applied` is what the group had applied when
    /// the read was released.
    pub(crate) fn serve(
        &self,
        origin: Origin,
        read: Read,
        (pinned, applied): (Option<Pinned>, u64),
        out: &mut Outputs,
    ) {
        let shown = self.shown(&read);
        let released = |id| ReleasedRead {
            id,
            keyspace: read.keyspace,
            query: read.query,
            pinned,
            applied,
            shown,
            mirror: None,
        };
        match origin {
            Origin::Driver(id) => out.reads.push(released(id)),
            Origin::Core => {}
            Origin::Peer(_, id) | Origin::Inner(id) => {
                let shards = self.shards_of(read.keyspace);
                let answer = released(id).serve(&*self.engine, shards);
                Self::answer(origin, answer.map(Response::Read), out);
            }
        }
    }

    pub(crate) fn answer(origin: Origin, result: Result<Response, Error>, out: &mut Outputs) {
        match origin {
            Origin::Driver(id) => out.replies.push((id, result)),
            Origin::Core => {}
            Origin::Inner(ticket) => out.inner.push((ticket, result)),
            Origin::Peer(node, id) => {
                out.messages.push((
                    node,
                    PeerMessage::Forwarded {
                        id,
                        result: Box::new(result),
                    },
                ));
            }
        }
    }

    /// How far the other zones are behind a group of this zone.
    pub(crate) fn lag(&self, now: Now, id: GroupId) -> Result<Vec<ZoneLag>, Error> {
        let Some((group, meta)) = self
            .groups
            .get(&id)
            .and_then(|group| Some((group, group.shard()?.meta())))
        else {
            return Err(Error::NotLeader { leader: None });
        };
        if let Some(lags) = group.behind(now) {
            return Ok(lags);
        }
        let nothing = VersionVector::default();
        let others = crate::exchange::others(&self.catalog, id);
        others
            .map(|other| {
                let acked = group
                    .exchange
                    .known(other.incarnation)
                    .unwrap_or(&nothing)
                    .get(meta.incarnation);
                let (entries, bytes, oldest) =
                    outbox::pending(&*self.engine, meta, id, meta.incarnation, acked)?;
                let lag_ms =
                    oldest.map_or(0, |oldest| now.wall_ms.saturating_sub(oldest.wall_ms()));
                Ok(ZoneLag {
                    to: other.id.zone,
                    lag_ms,
                    entries,
                    bytes,
                })
            })
            .collect()
    }

    /// The nodes in the group's zone that a client may try, the leader first; for the shell's topology.
    pub fn leader_of(&self, keyspace: KeyspaceId, shard: ShardId) -> Option<NodeId> {
        let group = self.group_at(keyspace, shard).ok()?;
        self.groups.get(&group)?.leader()
    }
}

/// The answer to a write whose outcome apply has decided.
pub(crate) fn written(
    op_id: OpId,
    outcome: WriteOutcome,
    (zones, degraded): (Vec<ZoneId>, bool),
    missed: Option<usize>,
) -> Result<Response, Error> {
    match (outcome, missed) {
        (WriteOutcome::Written { dot, .. }, Some(need)) => Err(Error::LevelNotReached {
            dot,
            zones,
            need: u16::try_from(need).unwrap_or(u16::MAX),
            op_id,
        }),
        (outcome, _) => decided(op_id, outcome, (zones, degraded)),
    }
}

/// What a transaction, or a part of one, is answered. One that was to be in all zones and is not in time stands, but it has
/// no one dot to name it by: its outcome is said not to be known, and a retry with its op id finds out.
pub(crate) fn transacted(
    result: Result<Response, Error>,
    (zones, degraded): (Vec<ZoneId>, bool),
    missed: Option<usize>,
) -> Result<Response, Error> {
    match result {
        Ok(Response::Transacted(mut transacted)) => {
            if missed.is_some() {
                let op_id = transacted.op_id;
                return Err(Error::OutcomeUnknown { op_id });
            }
            transacted.zones = zones;
            transacted.degraded = degraded;
            Ok(Response::Transacted(transacted))
        }
        Ok(_) if missed.is_some() => Err(Error::DeadlineExceeded {
            effect: EffectOf::Unknown,
        }),
        result => result,
    }
}

fn decided(
    op_id: OpId,
    outcome: WriteOutcome,
    (zones, degraded): (Vec<ZoneId>, bool),
) -> Result<Response, Error> {
    match outcome {
        WriteOutcome::Written {
            dot,
            context,
            repeated,
        } => Ok(Response::Written(Receipt {
            dot,
            context,
            zones,
            op_id,
            repeated,
            degraded,
        })),
        WriteOutcome::VersionMismatch { found } => Err(Error::VersionMismatch { found }),
        WriteOutcome::OutcomeUnknown => Err(Error::OutcomeUnknown { op_id }),
        WriteOutcome::OpIdReused => Err(Error::OpIdReused { op_id }),
        WriteOutcome::Locked => Err(Error::Overloaded {
            what: "the queue behind a prepared transaction".to_owned(),
        }),
        WriteOutcome::LeaseNotFound => Err(Error::LeaseNotFound),
        WriteOutcome::Moving => Err(Error::KeyspaceMoving),
        WriteOutcome::TooManySiblings { siblings } => Err(Error::TooManySiblings {
            siblings,
            limit: SIBLINGS_MAX,
        }),
    }
}
