//! The exchange: how the groups of one shard in different zones give one another their effects.
//!
//! Receiver-driven. A receiving leader subscribes with the vector of what it holds; the sending leader streams the
//! effects beyond it, in order per incarnation, within a window; each further subscription acknowledges, and one with
//! `rewind` makes the sender begin again from there. Links may lose, repeat and reorder: the vector is the only truth.
//! Any zone relays any incarnation it holds, to a receiver that makes no progress of its own with it (protocol rule 10).
//! Past the outbox's bound the receiver compares key ranges instead (`compare`, rule 11).
//!
//! What is kept here is volatile and belongs to a leader: lost with the leadership, found again from vectors.
//!
//! Invariants:
//! * only effects that are applied and written leave (they are sent after the turn's write);
//! * a receiver proposes each effect at most once per term, in order;
//! * `known` holds only what a group itself said it has stored, directly or through another zone.
//!
//! Read `docs/exchange.md`, then `sender`, `receiver`, `rhythm`, `compare`, `compared`, `seeding`, `garbage`, `quarantine`.

mod compare;
mod compared;
mod garbage;
mod quarantine;
mod receiver;
pub(crate) mod rhythm;
mod ring;
mod seeding;
mod sender;

use std::collections::BTreeMap;

use meridian_causal::{Dot, Incarnation, VersionVector};
use meridian_storage::Engine;
use rand::rngs::StdRng;

use crate::catalog::{Catalog, GroupRecord, Keyspace};
use crate::command::Effect;
use crate::config::CoreConfig;
use crate::group::{Group, RoleChange};
use crate::ids::{GroupId, KeyspaceId, NodeId, Side};
use crate::message::{Exchange, PeerMessage};
use crate::output::Outputs;
use crate::shard::garbage::Stability;
use crate::time::Now;
use receiver::Receiver;
use ring::Ring;
use seeding::{Seeding, seed_of};
use sender::Sender;

/// What the exchange needs of the core around it.
pub(crate) struct ExchangeContext<'a> {
    pub(crate) now: Now,
    pub(crate) config: &'a CoreConfig,
    pub(crate) catalog: &'a Catalog,
    pub(crate) engine: &'a dyn Engine,
    pub(crate) rng: &'a mut StdRng,
    /// Views the core may still open.
    /// See [`Settled::through`](crate::shard::garbage::Settled).
    pub(crate) tombstones_through: u64,
    pub(crate) views_left: usize,
    /// Where messages go.
    pub(crate) out: &'a mut Outputs,
}

/// A message of the exchange as it came in.
pub(crate) struct Arrived {
    pub(crate) from: Side,
    pub(crate) reply_to: NodeId,
    pub(crate) body: Exchange,
}

/// What a shard's apply tells the exchange.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) effects: Vec<(Dot, Effect)>,
    pub(crate) rewind: Vec<Incarnation>,
    /// The group's incarnation.
    pub(crate) own: Incarnation,
    /// The group goes on under another incarnation than this one.
    pub(crate) left: Option<Incarnation>,
}

/// A leader's volatile state of the exchange of one shard.
#[derive(Default)]
pub(crate) struct Exchanging {
    sender: Sender,
    receiver: Receiver,
    seeding: Seeding,
    ring: Ring,
    /// What each group of the shard said it holds, by its incarnation.
    known: BTreeMap<Incarnation, VersionVector>,
    stability: Stability,
    /// Effects were applied since the last `exchange_flush`.
    fresh: bool,
    garbage_due_ns: u64,
}

impl Exchanging {
    /// A command was applied in the turn under way.
    pub(crate) fn applied(&mut self, applied: Applied, leads: bool) {
        if let Some(left) = applied.left {
            // Links, the ring and open views speak of writes by names that are no longer theirs.
            self.begin_anew();
            self.known.remove(&left);
        }
        self.fresh |= !applied.effects.is_empty();
        self.receiver.refused(&applied.rewind);
        if leads {
            let of_own = |(dot, _): &(Dot, Effect)| dot.incarnation == applied.own;
            self.ring.extend(applied.effects.into_iter().filter(of_own));
        }
    }

    /// Everything is forgotten but what other groups said they hold.
    fn begin_anew(&mut self) {
        let known = std::mem::take(&mut self.known);
        *self = Self {
            known,
            ..Self::default()
        };
    }

    /// Proposals were refused by Raft: what was taken as proposed must be asked for again.
    pub(crate) fn proposals_lost(&mut self) {
        self.receiver.proposals_lost();
    }

    /// Views held open for zones that compare with this one.
    pub(crate) fn views(&self) -> usize {
        self.sender.views.len()
    }

    /// What the group of that incarnation is known to hold.
    pub(crate) fn known(&self, incarnation: Incarnation) -> Option<&VersionVector> {
        self.known.get(&incarnation)
    }

    fn learn(&mut self, incarnation: Incarnation, vector: &VersionVector) {
        self.known.entry(incarnation).or_default().join(vector);
    }
}

/// The groups of this shard in the keyspace's other zones.
pub(crate) fn others(catalog: &Catalog, id: GroupId) -> impl Iterator<Item = &GroupRecord> {
    groups_of(catalog, Some(id.keyspace), id).filter(move |group| group.id.zone != id.zone)
}

/// The groups that this one exchanges with: those of the other zones, and, while the keyspace is altered, those on the other
/// side of that. An old group hears of its successor only what that has: nobody writes there yet. Where a mirror is promoted,
/// the two sides know each other only once the new one is open: it opens with one cut and nothing else.
pub(crate) fn ends(catalog: &Catalog, id: GroupId) -> impl Iterator<Item = &GroupRecord> {
    let before = before(catalog, id.keyspace);
    takers(catalog, id).chain(groups_of(catalog, before, id))
}

/// Those of the ends that are to have what this group has.
fn takers(catalog: &Catalog, id: GroupId) -> impl Iterator<Item = &GroupRecord> {
    let own = catalog.keyspaces.get(&id.keyspace);
    let alter = own.and_then(|own| {
        own.alter
            .as_ref()
            .filter(|alter| own.moved || alter.promotion.is_none())
    });
    let after = alter.map(|alter| alter.successor);
    others(catalog, id).chain(groups_of(catalog, after, id))
}

/// The groups that have something for this one. Those of a keyspace that took over from this one's have not: a deposed home is to
/// hand over what it wrote, and no more than that.
pub(crate) fn givers(catalog: &Catalog, id: GroupId) -> impl Iterator<Item = &GroupRecord> {
    let own = catalog.keyspaces.get(&id.keyspace);
    let is_deposed = own.is_some_and(Keyspace::is_deposed);
    ends(catalog, id).filter(move |group| !is_deposed || group.id.keyspace <= id.keyspace)
}

/// The keyspace whose groups have something for those of this one.
fn before(catalog: &Catalog, keyspace: KeyspaceId) -> Option<KeyspaceId> {
    let own = catalog.keyspaces.get(&keyspace)?;
    let before = own.before?;
    let old = catalog.keyspaces.get(&before)?;
    let has_opened = own.is_open() || own.moved;
    (has_opened || old.promotion().is_none()).then_some(before)
}

/// The group of this shard at another end.
fn peer(catalog: &Catalog, id: GroupId, side: Side) -> Option<&GroupRecord> {
    ends(catalog, id).find(|group| Side::from(group.id) == side)
}

/// How many effects a group lacks that the groups of the keyspace before it are known to have; `None` while one of them has
/// not said what it has.
pub(crate) fn behind(catalog: &Catalog, group: &Group, before: KeyspaceId) -> Option<u64> {
    let received = &group.shard()?.meta().received;
    let mut behind = 0_u64;
    for old in groups_of(catalog, Some(before), group.id) {
        let has = group.exchange.known(old.incarnation)?;
        for (incarnation, counter) in has.iter() {
            behind = behind.saturating_add(counter.saturating_sub(received.get(incarnation)));
        }
    }
    Some(behind)
}

/// A keyspace's groups of the shard of `id`.
fn groups_of(
    catalog: &Catalog,
    keyspace: Option<KeyspaceId>,
    id: GroupId,
) -> impl Iterator<Item = &GroupRecord> {
    let keyspace = keyspace.and_then(|keyspace| catalog.keyspaces.get(&keyspace));
    let groups = keyspace.into_iter().flat_map(|keyspace| &keyspace.groups);
    groups.filter(move |group| group.id.shard == id.shard)
}

impl Group {
    /// Takes one message of the exchange. Only a leader whose state is current is shown any.
    pub(crate) fn exchange_receive(&mut self, arrived: Arrived, context: &mut ExchangeContext<'_>) {
        if !self.may_hear(&arrived, context) {
            return;
        }
        let Arrived {
            from,
            reply_to,
            body,
        } = arrived;
        let of_mirror = seed_of(context.catalog, self.id).is_some_and(|(side, _)| side == from);
        if peer(context.catalog, self.id, from).is_none() && !of_mirror {
            // Of a keyspace that is not this one's successor, or not any more.
            return;
        }
        self.exchange.receiver.spoke(from, context.now);
        match body {
            Exchange::Subscribe {
                received,
                known,
                relay,
                rewind,
                incarnation,
            } => {
                for (group, vector) in &known {
                    self.exchange.learn(*group, vector);
                }
                let subscription = sender::Subscription {
                    received,
                    relay,
                    rewind,
                    incarnation,
                };
                self.subscribed(from, reply_to, subscription, context);
            }
            Exchange::Effects {
                incarnation,
                first,
                effects,
                received,
            } => {
                let delivery = receiver::Delivery {
                    incarnation,
                    first,
                    effects,
                };
                self.effects_arrived((from, reply_to), delivery, &received, context);
            }
            Exchange::MustCompare
            | Exchange::CompareOpened { .. }
            | Exchange::CompareRanges { .. }
            | Exchange::CompareStates { .. }
            | Exchange::CompareRecalled { .. }
            | Exchange::CompareLost { .. } => {
                self.exchange.receiver.heard(from, reply_to, context.now);
                self.compare_answered(from, body, context);
            }
            Exchange::CompareOpen { .. }
            | Exchange::CompareHashes { .. }
            | Exchange::CompareFetch { .. }
            | Exchange::CompareRecall { .. } => {
                self.compare_asked(from, reply_to, body, context);
            }
        }
    }

    /// Effects came, and with them what the group that sent them holds.
    fn effects_arrived(
        &mut self,
        (from, reply_to): (Side, NodeId),
        delivery: receiver::Delivery,
        received: &VersionVector,
        context: &mut ExchangeContext<'_>,
    ) {
        self.exchange.receiver.heard(from, reply_to, context.now);
        let group = peer(context.catalog, self.id, from);
        // A vector without the group's own writes may be one of its former life.
        let group = group.filter(|group| received.get(group.incarnation) > 0);
        if let Some(incarnation) = group.map(|group| group.incarnation) {
            self.exchange.learn(incarnation, received);
            self.acknowledged_beside((from, reply_to, incarnation), received, context);
        }
        self.take_effects(from, delivery, context.now);
    }

    /// Whether something was applied that other zones are to have, or came from them and is not acknowledged.
    pub(crate) fn has_news(&self) -> bool {
        let has_news = self.exchange.fresh || self.exchange.receiver.is_to_acknowledge();
        has_news && self.established()
    }

    /// Whether the shard is compared with another zone's.
    pub(crate) const fn is_in_comparison(&self) -> bool {
        self.exchange.receiver.comparing.is_some()
    }

    /// After a turn: what was applied goes out, and acknowledgements that are due.
    pub(crate) fn exchange_flush(&mut self, context: &mut ExchangeContext<'_>) {
        if !self.established() || self.shard().is_none() || self.quarantined() {
            return;
        }
        if std::mem::take(&mut self.exchange.fresh) {
            self.pump_all(context);
        }
        self.acknowledge(context);
        self.compare_proceed(context);
    }

    /// Time passed: subscriptions, retries, garbage.
    pub(crate) fn exchange_tick(&mut self, context: &mut ExchangeContext<'_>) {
        if !self.established() || self.shard().is_none() || !self.may_speak(context) {
            return;
        }
        self.seed_tick(context);
        if std::mem::take(&mut self.exchange.fresh) {
            // At the latest now, whatever kept it from leaving with the core's other groups.
            self.pump_all(context);
        }
        self.subscribe_due(context);
        self.resend_due(context);
        self.compare_retry(context);
        self.close_idle_views(context.now);
        self.collect_garbage(context);
    }

    /// Leadership came or went: nothing volatile outlives it.
    pub(crate) fn exchange_role(&mut self, change: RoleChange) {
        match change {
            RoleChange::Gained | RoleChange::Lost => self.exchange.begin_anew(),
        }
    }

    /// Sends `body` to a node of another zone's group.
    fn say(&self, to: (Side, NodeId), body: Exchange, context: &mut ExchangeContext<'_>) {
        let message = PeerMessage::Exchange {
            shard: self.id.shard,
            from: self.id.into(),
            to: to.0,
            reply_to: context.config.node,
            passed: false,
            body,
        };
        context.out.messages.push((to.1, message));
    }
}
