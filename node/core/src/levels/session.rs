//! The level `session`: any replica that has received what the session's token names for this shard.
//!
//! A token holds counters per incarnation. V is gapless (protocol rule 9), so a write was received exactly when V has its
//! counter. No replica at hand: the leader is asked, which judges in the same way.
//!
//! Counters above the final vector of a retired incarnation will never come: `SESSION_LOST`.

use meridian_causal::{Incarnation, VersionVector};

use super::{LevelWait, OnBehind, Session};
use crate::core::Core;
use crate::error::Error;
use crate::exchange;
use crate::ids::{GroupId, NodeId};
use crate::output::Outputs;
use crate::request::{Read, Request};
use crate::route::Routed;
use crate::shard::{Shard, ShardMeta};
use crate::time::Now;
use crate::waiting::What;

impl Core {
    pub(super) fn read_session(
        &mut self,
        now: Now,
        routed: Routed,
        read: Box<Read>,
        out: &mut Outputs,
    ) {
        let Some(shard) = self.whole_replica(routed.group) else {
            self.forward_leveled(&routed, *read, out);
            return;
        };
        let session = read.session.clone().unwrap_or_default();
        if is_lost(shard.meta(), &session.after) {
            Self::answer(routed.origin, Err(Error::SessionLost), out);
        } else if self.has_seen(shard, Some(&session)) {
            self.serve(routed.origin, *read, (None, 0), out);
        } else {
            self.behind_session(now, &routed, (read, &session), out);
        }
    }

    fn behind_session(
        &mut self,
        now: Now,
        routed: &Routed,
        (read, session): (Box<Read>, &Session),
        out: &mut Outputs,
    ) {
        let node = match session.behind {
            OnBehind::Wait => {
                self.wait_for_replica(now, routed, read, out);
                return;
            }
            OnBehind::Redirect => self.further(routed.group, &session.after),
            OnBehind::Fail => None,
        };
        let error = Error::Stale {
            behind_ms: self.age_ms(now, routed.group),
            node,
        };
        Self::answer(routed.origin, Err(error), out);
    }

    /// Whether a replica has received what a session has seen.
    pub(super) fn has_seen(&self, shard: &Shard, session: Option<&Session>) -> bool {
        let ignores = self.config.planted.session_ignores_a_shard && shard.group().shard.0 == 0;
        ignores || session.is_none_or(|session| shard.meta().received.includes(&session.after))
    }

    /// A node that is surely further than this one, if one is known: a replica of the zone's leader, or of a zone that
    /// has said that it has received everything, or of one that wrote what is missing.
    fn further(&self, group: GroupId, after: &VersionVector) -> Option<NodeId> {
        let local = self.groups.get(&group)?;
        if let Some(leader) = local.leader().filter(|leader| *leader != self.config.node) {
            return Some(leader);
        }
        let received = &local.shard()?.meta().received;
        let missing: Vec<Incarnation> = after
            .iter()
            .filter(|(incarnation, counter)| *counter > received.get(*incarnation))
            .map(|(incarnation, _)| incarnation)
            .collect();
        let others: Vec<_> = exchange::others(&self.catalog, group).collect();
        let has_all = others.iter().find(|other| {
            let known = local.exchange.known(other.incarnation);
            known.is_some_and(|known| known.includes(after))
        });
        let wrote = || {
            let wrote = |incarnation: &Incarnation| missing.first() == Some(incarnation);
            others.iter().find(|other| wrote(&other.incarnation))
        };
        self.leader_guess(has_all.or_else(wrote)?.id)
    }

    /// Sends a read to the node that leads; what it answers is passed on.
    pub(super) fn forward_leveled(&mut self, routed: &Routed, read: Read, out: &mut Outputs) {
        let leader = self.leader_elsewhere(routed.group);
        let what = What::Level(Box::new(LevelWait::Forwarded(routed.group)));
        self.forward_as(routed, Request::Read(read), (leader, what), out);
    }
}

/// Whether a session has seen writes that no zone will ever have: they are above what was agreed to be the last of a
/// retired incarnation (protocol rules 15 and 28).
fn is_lost(meta: &ShardMeta, after: &VersionVector) -> bool {
    let finals = meta.finals.iter();
    finals
        .into_iter()
        .any(|(incarnation, last)| after.get(*incarnation) > *last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_causal::ZoneId;

    fn vector(incarnation: Incarnation, counter: u64) -> VersionVector {
        [(incarnation, counter)].into_iter().collect()
    }

    #[test]
    fn what_is_above_a_final_vector_is_lost_and_what_is_within_is_not() {
        let (own, gone) = (
            Incarnation::new(ZoneId(1), 1),
            Incarnation::new(ZoneId(2), 2),
        );
        let mut meta = ShardMeta::new(own);
        assert!(!is_lost(&meta, &vector(gone, 9)));
        meta.finals.insert(gone, 7);
        assert!(!is_lost(&meta, &vector(gone, 7)));
        assert!(is_lost(&meta, &vector(gone, 8)));
    }
}
