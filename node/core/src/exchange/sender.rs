//! The sending side: a window of effects in flight to each zone that subscribes.
//!
//! What was applied just now is sent from memory, as soon as the core speaks (`rhythm`). What is older, in memory or read back
//! from the store, goes in small chunks, and only in answer to what the other side says: so catching up goes at its pace and
//! holds nobody up here.

use std::collections::{BTreeMap, VecDeque};

use meridian_causal::{Incarnation, VersionVector};
use meridian_storage::View;

use super::{ExchangeContext, peer};
use crate::catalog::Keyspace;
use crate::command::Effect;
use crate::group::Group;
use crate::ids::{NodeId, Side};
use crate::limits::{
    BACKLOG_AGE_MS, EXCHANGE_BACKLOG_BYTES, EXCHANGE_CHUNK_BYTES, EXCHANGE_CHUNKS_READ,
    EXCHANGE_WINDOW_BYTES,
};
use crate::message::Exchange;
use crate::shard::{Shard, outbox};
use crate::time::Now;

/// A subscriber not heard of for this long is no longer sent to: its leader is gone or cut off, and will subscribe anew.
const SUBSCRIBER_IDLE_MS: u64 = 3_000;

/// Effects in flight and not acknowledged for this long are sent again.
const RESEND_MS: u64 = 2_000;

/// Least time between two requests to compare.
const MUST_COMPARE_MS: u64 = 1_000;

fn is_backlog(effect: &Effect, now: Now) -> bool {
    now.wall_ms.saturating_sub(effect.written_at.wall_ms()) > BACKLOG_AGE_MS
}

/// The sender of one shard.
#[derive(Default)]
pub(super) struct Sender {
    links: BTreeMap<Side, Link>,
    /// Views held open for zones that compare, by session.
    pub(super) views: BTreeMap<u64, CompareView>,
}

/// A view held open for a comparison.
pub(super) struct CompareView {
    pub(super) view: Box<dyn View>,
    pub(super) snapshot: VersionVector,
    pub(super) used_at: Now,
}

/// A zone that subscribed.
struct Link {
    node: NodeId,
    incarnation: Incarnation,
    acked: VersionVector,
    cursors: BTreeMap<Incarnation, u64>,
    flight: VecDeque<Flight>,
    flight_bytes: usize,
    relay: Vec<Incarnation>,
    heard_at: Now,
    progress_at: Now,
    compare_said_at: Option<Now>,
}

/// A message of effects not acknowledged yet.
struct Flight {
    incarnation: Incarnation,
    last: u64,
    bytes: usize,
}

/// What a subscription says.
pub(super) struct Subscription {
    pub(super) received: VersionVector,
    pub(super) relay: Vec<Incarnation>,
    pub(super) rewind: bool,
    pub(super) incarnation: Incarnation,
}

impl Link {
    fn new(node: NodeId, incarnation: Incarnation, now: Now) -> Self {
        Self {
            node,
            incarnation,
            acked: VersionVector::default(),
            cursors: BTreeMap::new(),
            flight: VecDeque::new(),
            flight_bytes: 0,
            relay: Vec::new(),
            heard_at: now,
            progress_at: now,
            compare_said_at: None,
        }
    }

    fn rewind(&mut self) {
        self.cursors.clear();
        self.flight.clear();
        self.flight_bytes = 0;
    }

    /// Takes what is acknowledged out of the window.
    fn acknowledge(&mut self, received: &VersionVector, now: Now) {
        self.acked.join(received);
        let before = self.flight.len();
        let acked = &self.acked;
        let mut bytes = self.flight_bytes;
        self.flight.retain(|flight| {
            let done = flight.last <= acked.get(flight.incarnation);
            if done {
                bytes = bytes.saturating_sub(flight.bytes);
            }
            !done
        });
        self.flight_bytes = bytes;
        if self.flight.len() != before || self.flight.is_empty() {
            self.progress_at = now;
        }
    }

    fn cursor(&self, incarnation: Incarnation) -> u64 {
        self.cursors
            .get(&incarnation)
            .copied()
            .unwrap_or(0)
            .max(self.acked.get(incarnation))
    }

    fn live(&self, now: Now) -> bool {
        now < Now {
            mono_ns: self.heard_at.after_ms(SUBSCRIBER_IDLE_MS),
            ..now
        }
    }
}

impl Group {
    /// A zone subscribed, acknowledged or rewound.
    pub(super) fn subscribed(
        &mut self,
        side: Side,
        node: NodeId,
        subscription: Subscription,
        context: &mut ExchangeContext<'_>,
    ) {
        let group = peer(context.catalog, self.id, side);
        if group.is_none_or(|group| group.incarnation != subscription.incarnation) {
            // Of a group this catalog does not know (yet, or any more): its vector must not count.
            return;
        }
        self.exchange
            .learn(subscription.incarnation, &subscription.received);
        let now = context.now;
        let links = &mut self.exchange.sender.links;
        let link = links
            .entry(side)
            .or_insert_with(|| Link::new(node, subscription.incarnation, now));
        if link.incarnation != subscription.incarnation {
            *link = Link::new(node, subscription.incarnation, now);
        }
        if link.node != node || subscription.rewind {
            // Another leader at the other end: what its predecessor was sent may never have been proposed.
            link.rewind();
            link.node = node;
        }
        link.heard_at = now;
        link.relay = subscription.relay;
        link.acknowledge(&subscription.received, now);
        self.pump(side, EXCHANGE_CHUNKS_READ, context);
    }

    /// Effects that come the other way bear the vector of whoever sends them: that acknowledges as a subscription does.
    pub(super) fn acknowledged_beside(
        &mut self,
        (side, node, incarnation): (Side, NodeId, Incarnation),
        received: &VersionVector,
        context: &mut ExchangeContext<'_>,
    ) {
        let link = self.exchange.sender.links.get_mut(&side);
        let link = link.filter(|link| link.node == node && link.incarnation == incarnation);
        let Some(link) = link else {
            return;
        };
        let before = link.flight.len();
        link.acknowledge(received, context.now);
        if link.flight.len() < before {
            self.pump(side, EXCHANGE_CHUNKS_READ, context);
        }
    }

    /// Sends what is new to every subscriber.
    pub(super) fn pump_all(&mut self, context: &mut ExchangeContext<'_>) {
        let sides: Vec<Side> = self.exchange.sender.links.keys().copied().collect();
        for side in sides {
            self.pump(side, 0, context);
        }
    }

    /// Sends a zone what it lacks, at most so many chunks of what is not fresh.
    fn pump(&mut self, side: Side, chunks_read: usize, context: &mut ExchangeContext<'_>) {
        let Some(link) = self.exchange.sender.links.get(&side) else {
            return;
        };
        if !link.live(context.now) {
            self.exchange.sender.links.remove(&side);
            return;
        }
        for incarnation in self.offers(link, context) {
            self.pump_incarnation(side, (incarnation, chunks_read), context);
        }
    }

    /// Whose effects a subscriber is sent: this group's own, and what it asks for beside them. A deposed home hands over all that it
    /// has: it hears of nobody, so nobody hears from it what to ask for.
    fn offers(&self, link: &Link, context: &ExchangeContext<'_>) -> Vec<Incarnation> {
        let Some(meta) = self.shard().map(Shard::meta) else {
            return Vec::new();
        };
        let keyspace = context.catalog.keyspaces.get(&self.id.keyspace);
        let mut offers: Vec<Incarnation> = if keyspace.is_some_and(Keyspace::is_deposed) {
            meta.received.iter().map(|(of, _)| of).collect()
        } else {
            link.relay.clone()
        };
        offers.retain(|incarnation| *incarnation != meta.incarnation);
        if self.may_offer(context) {
            offers.insert(0, meta.incarnation);
        }
        offers
    }

    /// Sends effects of one incarnation as far as the window allows.
    fn pump_incarnation(
        &mut self,
        side: Side,
        (incarnation, mut chunks_read): (Incarnation, usize),
        context: &mut ExchangeContext<'_>,
    ) {
        loop {
            let (Some(shard), Some(link)) = (self.shard(), self.exchange.sender.links.get(&side))
            else {
                return;
            };
            let (meta, after) = (shard.meta(), link.cursor(incarnation));
            if after >= meta.received.get(incarnation) || link.flight_bytes >= EXCHANGE_WINDOW_BYTES
            {
                return;
            }
            if after < meta.outbox_floor.get(incarnation) {
                self.say_must_compare(side, context);
                return;
            }
            let room = EXCHANGE_WINDOW_BYTES
                .saturating_sub(link.flight_bytes)
                .min(EXCHANGE_CHUNK_BYTES);
            let ring = &self.exchange.ring;
            let next = ring.next(incarnation, after);
            if next.is_none_or(|effect| is_backlog(effect, context.now)) {
                if chunks_read == 0 || link.flight_bytes >= EXCHANGE_BACKLOG_BYTES {
                    return;
                }
                chunks_read -= 1;
            } else if self.exchange.fresh {
                // It leaves when the core speaks, with what comes until then.
                return;
            }
            let effects = ring
                .read(incarnation, after, room)
                .unwrap_or_else(|| self.read_back((incarnation, after), room, context));
            if effects.is_empty() {
                return;
            }
            self.send_effects(side, (incarnation, after), effects, context);
        }
    }

    /// Effects from the store; none where it does not read.
    fn read_back(
        &self,
        (incarnation, after): (Incarnation, u64),
        room: usize,
        context: &mut ExchangeContext<'_>,
    ) -> Vec<Effect> {
        let read = outbox::read(context.engine, self.id, incarnation, after, room);
        read.unwrap_or_else(|error| {
            context.out.notices.push(crate::output::Notice::Damaged {
                detail: error.to_string(),
            });
            Vec::new()
        })
    }

    fn send_effects(
        &mut self,
        side: Side,
        (incarnation, after): (Incarnation, u64),
        effects: Vec<Effect>,
        context: &mut ExchangeContext<'_>,
    ) {
        let Some(meta) = self.shard().map(Shard::meta) else {
            return;
        };
        let (received, is_own) = (meta.received.clone(), incarnation == meta.incarnation);
        let Some(link) = self.exchange.sender.links.get_mut(&side) else {
            return;
        };
        let last = after.saturating_add(u64::try_from(effects.len()).unwrap_or(u64::MAX));
        let bytes = effects.iter().map(Effect::encoded_bytes).sum();
        link.cursors.insert(incarnation, last);
        link.flight.push_back(Flight {
            incarnation,
            last,
            bytes,
        });
        link.flight_bytes = link.flight_bytes.saturating_add(bytes);
        let to = (side, link.node);
        self.offered(incarnation, last);
        let body = Exchange::Effects {
            incarnation,
            first: after.saturating_add(1),
            effects,
            received,
        };
        self.say(to, body, context);
        if is_own {
            self.told(side);
        }
    }

    fn say_must_compare(&mut self, side: Side, context: &mut ExchangeContext<'_>) {
        let Some(link) = self.exchange.sender.links.get_mut(&side) else {
            return;
        };
        let said = link.compare_said_at;
        if said.is_some_and(|said| context.now.mono_ns < said.after_ms(MUST_COMPARE_MS)) {
            return;
        }
        link.compare_said_at = Some(context.now);
        let to = (side, link.node);
        self.say(to, Exchange::MustCompare, context);
    }

    /// Effects in flight for too long were lost: begin again behind what is acknowledged.
    pub(super) fn resend_due(&mut self, context: &mut ExchangeContext<'_>) {
        let now = context.now;
        let mut due = Vec::new();
        for (side, link) in &mut self.exchange.sender.links {
            if !link.flight.is_empty() && now.mono_ns >= link.progress_at.after_ms(RESEND_MS) {
                link.rewind();
                link.progress_at = now;
                due.push(*side);
            }
        }
        for side in due {
            self.pump(side, EXCHANGE_CHUNKS_READ, context);
        }
    }
}
