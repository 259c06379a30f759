//! The receiving side: subscriptions, and effects turned into merge commands.

use std::collections::BTreeMap;

use meridian_causal::{Incarnation, VersionVector};

use super::compare::Comparing;
use super::{ExchangeContext, givers, groups_of, peer};
use crate::catalog::Catalog;
use crate::command::Effect;
use crate::group::Group;
use crate::ids::{KeyspaceId, NodeId, Side};
use crate::limits::EXCHANGE_EVERY_MS;
use crate::message::Exchange;
use crate::time::Now;

/// An incarnation that makes no progress for this long, though some zone holds more of it, is asked of that zone.
const RELAY_AFTER_MS: u64 = 700;

/// A node of another zone that does not answer for this long is passed over for the next one.
const NODE_SILENT_MS: u64 = 1_000;

/// An old group that has not spoken for this long may be away: its successors do not count as filled.
const SPOKE_MS: u64 = 2_000;

/// Least time between acknowledgements to one zone, unless much has come.
const ACKNOWLEDGE_MS: u64 = EXCHANGE_EVERY_MS;

/// Effects after which an acknowledgement does not wait.
const ACKNOWLEDGE_EFFECTS: u64 = 256;

/// Least time between two rewinds asked of one zone: what is in flight after the first must have time to arrive.
const REWIND_MS: u64 = 300;

/// The receiver of one shard.
#[derive(Default)]
pub(super) struct Receiver {
    sources: BTreeMap<Side, Source>,
    /// Per incarnation, the last counter proposed in this term.
    proposed: BTreeMap<Incarnation, u64>,
    /// Since when an incarnation stands at a counter though some zone holds more.
    stalled: BTreeMap<Incarnation, (u64, Now)>,
    rewind_wanted: bool,
    pub(super) comparing: Option<Comparing>,
}

/// A zone effects come from.
#[derive(Default)]
struct Source {
    /// The node that answered last.
    node: Option<NodeId>,
    /// Which of the group's replicas is tried when none answers.
    attempt: usize,
    heard_at: Now,
    /// When it said anything, a question too.
    spoke_at: Option<Now>,
    said_at: Option<Now>,
    unacknowledged: usize,
    /// How many effects of other groups had been received when it was last told.
    told: u64,
    rewound_at: Option<Now>,
    rewind: bool,
}

/// Effects as they arrived.
pub(super) struct Delivery {
    pub(super) incarnation: Incarnation,
    pub(super) first: u64,
    pub(super) effects: Vec<Effect>,
}

impl Receiver {
    pub(super) fn heard(&mut self, side: Side, node: NodeId, now: Now) {
        let source = self.sources.entry(side).or_default();
        source.node = Some(node);
        source.heard_at = now;
    }

    /// The end said something.
    pub(super) fn spoke(&mut self, side: Side, now: Now) {
        self.sources.entry(side).or_default().spoke_at = Some(now);
    }

    pub(super) fn is_to_acknowledge(&self) -> bool {
        let mut sources = self.sources.values();
        self.rewind_wanted || sources.any(|source| source.unacknowledged > 0 || source.rewind)
    }

    /// Apply refused merges of these incarnations: there was a gap.
    pub(super) fn refused(&mut self, incarnations: &[Incarnation]) {
        for incarnation in incarnations {
            self.proposed.remove(incarnation);
            self.rewind_wanted = true;
        }
    }

    /// Proposals were refused, perhaps the joins of a comparison: it begins anew.
    pub(super) fn proposals_lost(&mut self) {
        self.comparing = None;
        self.forget_proposed();
    }

    pub(super) fn forget_proposed(&mut self) {
        self.proposed.clear();
        self.rewind_wanted = true;
    }
}

impl Group {
    /// Whether every group of the keyspace before this one has spoken a moment ago.
    pub(crate) fn hears_all(&self, catalog: &Catalog, before: KeyspaceId, now: Now) -> bool {
        let sources = &self.exchange.receiver.sources;
        groups_of(catalog, Some(before), self.id).all(|group| {
            let source = sources.get(&Side::from(group.id));
            let spoke_at = source.and_then(|source| source.spoke_at);
            spoke_at.is_some_and(|at| now.mono_ns < at.after_ms(SPOKE_MS))
        })
    }

    /// Proposes what continues the vector; asks for a rewind where something is missing (protocol rule 8).
    pub(super) fn take_effects(&mut self, side: Side, delivery: Delivery, now: Now) {
        let Some(shard) = self.shard() else { return };
        let meta = shard.meta();
        let Delivery {
            incarnation,
            first,
            effects,
        } = delivery;
        let blocked = meta.compare.as_ref().is_some_and(|compare| {
            compare.snapshot.get(incarnation) > meta.received.get(incarnation)
        });
        if incarnation == meta.incarnation || blocked || first == 0 {
            return;
        }
        let received = meta.received.get(incarnation);
        let receiver = &mut self.exchange.receiver;
        let have = receiver
            .proposed
            .get(&incarnation)
            .copied()
            .unwrap_or(0)
            .max(received);
        let source = receiver.sources.entry(side).or_default();
        source.unacknowledged = source.unacknowledged.saturating_add(effects.len());
        if first > have.saturating_add(1) {
            let waited = source
                .rewound_at
                .is_none_or(|at| now.mono_ns >= at.after_ms(REWIND_MS));
            source.rewind |= waited;
            return;
        }
        let skip =
            usize::try_from(have.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX);
        let rest: Vec<Effect> = effects.into_iter().skip(skip).collect();
        if rest.is_empty() {
            return;
        }
        let last = have.saturating_add(u64::try_from(rest.len()).unwrap_or(u64::MAX));
        receiver.proposed.insert(incarnation, last);
        let first = have.saturating_add(1);
        self.merges.push(incarnation, first, rest);
    }

    /// Acknowledges to zones from which enough has come, or long enough ago. What waits to be merged is acknowledged when it
    /// is: nothing is said meanwhile that was said before.
    pub(super) fn acknowledge(&mut self, context: &mut ExchangeContext<'_>) {
        let now = context.now;
        let merging = !self.merges.is_empty();
        let received = self.received_of_others();
        let all = std::mem::take(&mut self.exchange.receiver.rewind_wanted);
        let mut due = Vec::new();
        for (side, source) in &mut self.exchange.receiver.sources {
            source.rewind |= all;
            let waited = source
                .said_at
                .is_none_or(|at| now.mono_ns >= at.after_ms(ACKNOWLEDGE_MS));
            let news = received.saturating_sub(source.told);
            let ripe = source.unacknowledged > 0
                && (waited || news >= ACKNOWLEDGE_EFFECTS)
                && (news > 0 || !merging);
            if source.rewind || ripe {
                due.push(*side);
            }
        }
        self.subscribe_to(&due, context);
    }

    /// Effects leave for a zone, and with them the vector: no acknowledgement need follow for what it says.
    pub(super) fn told(&mut self, side: Side) {
        let (told, merging) = (self.received_of_others(), !self.merges.is_empty());
        let Some(source) = self.exchange.receiver.sources.get_mut(&side) else {
            return;
        };
        source.told = told;
        if !merging {
            source.unacknowledged = 0;
        }
    }

    /// How many effects of other groups this one has received.
    fn received_of_others(&self) -> u64 {
        self.shard().map_or(0, |shard| {
            let meta = shard.meta();
            let others = meta.received.iter();
            let others = others.filter(|(incarnation, _)| *incarnation != meta.incarnation);
            others.fold(0, |sum, (_, counter)| sum.saturating_add(counter))
        })
    }

    /// Repeats subscriptions that are due.
    pub(super) fn subscribe_due(&mut self, context: &mut ExchangeContext<'_>) {
        let now = context.now;
        if self.awaits_seed(context) {
            return;
        }
        let interval = context.config.timing.exchange_interval_ms;
        let sides: Vec<Side> = givers(context.catalog, self.id)
            .map(|group| group.id.into())
            .collect();
        let known = &mut self.exchange.receiver.sources;
        let due: Vec<Side> = sides
            .into_iter()
            .filter(|side| {
                let source = known.entry(*side).or_default();
                let waited = |ms| {
                    source
                        .said_at
                        .is_none_or(|at| now.mono_ns >= at.after_ms(ms))
                };
                (source.unacknowledged > 0 && waited(ACKNOWLEDGE_MS)) || waited(interval)
            })
            .collect();
        self.subscribe_to(&due, context);
    }

    fn subscribe_to(&mut self, sides: &[Side], context: &mut ExchangeContext<'_>) {
        if sides.is_empty() {
            return;
        }
        let Some(shard) = self.shard() else { return };
        let (incarnation, received) = (shard.meta().incarnation, shard.meta().received.clone());
        self.exchange.learn(incarnation, &received);
        self.note_stalls(&received, context.now);
        let (told, merging) = (self.received_of_others(), !self.merges.is_empty());
        for side in sides {
            let Some(node) = self.node_of(*side, context) else {
                continue;
            };
            let relay = self.relay_from(*side, context);
            let source = self.exchange.receiver.sources.entry(*side).or_default();
            let rewind = std::mem::take(&mut source.rewind);
            source.rewound_at = if rewind {
                Some(context.now)
            } else {
                source.rewound_at
            };
            source.said_at = Some(context.now);
            source.told = told;
            if !merging {
                source.unacknowledged = 0;
            }
            let (received, known) = (received.clone(), self.exchange.known.clone());
            let body = Exchange::Subscribe {
                received,
                known,
                relay,
                rewind,
                incarnation,
            };
            self.say((*side, node), body, context);
        }
    }

    /// The node of a zone's group to speak to: the one that spoke last, or the group's replicas in turn.
    pub(super) fn node_of(&mut self, side: Side, context: &ExchangeContext<'_>) -> Option<NodeId> {
        let group = peer(context.catalog, self.id, side)?;
        let source = self.exchange.receiver.sources.entry(side).or_default();
        if context.now.mono_ns < source.heard_at.after_ms(NODE_SILENT_MS)
            && let Some(node) = source.node
        {
            return Some(node);
        }
        source.attempt = source.attempt.wrapping_add(1);
        let replica = group
            .voters
            .get(source.attempt.checked_rem(group.voters.len())?)?;
        Some(replica.node())
    }

    /// Notes since when each incarnation makes no progress though some zone holds more of it.
    fn note_stalls(&mut self, received: &VersionVector, now: Now) {
        let mut ahead: Vec<Incarnation> = Vec::new();
        for vector in self.exchange.known.values() {
            ahead.extend(
                vector
                    .iter()
                    .filter(|(inc, counter)| *counter > received.get(*inc))
                    .map(|(inc, _)| inc),
            );
        }
        let stalled = &mut self.exchange.receiver.stalled;
        stalled.retain(|incarnation, _| ahead.contains(incarnation));
        for incarnation in ahead {
            let stands = received.get(incarnation);
            let entry = stalled.entry(incarnation).or_insert((stands, now));
            if entry.0 != stands {
                *entry = (stands, now);
            }
        }
    }

    /// What to ask of a zone beside its own effects.
    fn relay_from(&self, side: Side, context: &ExchangeContext<'_>) -> Vec<Incarnation> {
        let Some(group) = peer(context.catalog, self.id, side) else {
            return Vec::new();
        };
        let Some(theirs) = self.exchange.known.get(&group.incarnation) else {
            return Vec::new();
        };
        let own = self.shard().map(|shard| shard.meta().incarnation);
        let stalled = self.exchange.receiver.stalled.iter();
        let long =
            stalled.filter(|(_, (_, since))| context.now.mono_ns >= since.after_ms(RELAY_AFTER_MS));
        long.filter(|(incarnation, (stands, _))| {
            theirs.get(**incarnation) > *stands && Some(**incarnation) != own
        })
        .map(|(incarnation, _)| *incarnation)
        .collect()
    }
}
