//! Quarantine: a group with one voter that finds itself on an old copy of its store (protocol rule 5).
//!
//! Such a group numbers new writes with dots that other zones know for other writes; they would skip them as repeated.
//! It is found out by what the other zones say they have of its writes: more than its log held at the start and than
//! it has offered since. Then it takes no writes and no part in the exchange, gets another incarnation from the control
//! group, renames its writes since the start to that one, and goes on; the writes it had forgotten come by relay.
//!
//! Its own writes are held back after each start until every other zone has spoken, or for a few seconds: once another
//! zone has taken one under a dot that a third knows for another write, no renaming helps.
//!
//! See `docs/exchange.md`, "Quarantine".

use meridian_causal::{CausalContext, Incarnation, VersionVector};

use super::{Arrived, ExchangeContext, others};
use crate::command::Op;
use crate::group::Group;
use crate::message::Exchange;
use crate::output::Notice;
use crate::shard::{Shard, ShardMeta};

impl Group {
    /// Whether a message may be taken up. One that shows this store to be an old copy may not, nor any after it: the
    /// effects of others may have replaced writes that bear the dots of ours.
    pub(super) fn may_hear(
        &mut self,
        arrived: &Arrived,
        context: &mut ExchangeContext<'_>,
    ) -> bool {
        if !self.alone() {
            return true;
        }
        let Some((given, meta)) = self.life.given().zip(self.shard().map(Shard::meta)) else {
            return false;
        };
        if self.quarantined() {
            return false;
        }
        if !contradicts(&arrived.body, meta, given) {
            if let Exchange::Subscribe { .. } | Exchange::Effects { .. } = &arrived.body {
                self.life.hear(arrived.from.zone);
            }
            return true;
        }
        let detail = format!(
            "group {}: zone {} has writes of it beyond {given}, the last it can have from this store: an old copy",
            self.id, arrived.from.zone
        );
        context.out.notices.push(Notice::Damaged { detail });
        self.life.contradicted = true;
        self.leave_incarnation(context);
        false
    }

    /// Whether this leader may send anything. In quarantine it works at its way out instead.
    pub(super) fn may_speak(&mut self, context: &ExchangeContext<'_>) -> bool {
        if !self.alone() {
            return true;
        }
        if self.life.base().is_none() {
            return false;
        }
        self.life.tick(context.now);
        let named = self.named_incarnation(context);
        let Some(meta) = self.shard().map(Shard::meta) else {
            return false;
        };
        // The catalog at hand may be older than the last change.
        let displaced =
            named.is_some_and(|named| named != meta.incarnation && !meta.former.contains(&named));
        if self.quarantined() || displaced {
            self.leave_incarnation(context);
            return false;
        }
        true
    }

    /// Whether own writes may go out.
    pub(super) fn may_offer(&self, context: &ExchangeContext<'_>) -> bool {
        let zones = others(context.catalog, self.id).map(|group| group.id.zone);
        !self.alone() || self.life.may_offer(zones, context.now)
    }

    /// Own writes up to `counter` go to another zone.
    pub(crate) fn offered(&mut self, incarnation: Incarnation, counter: u64) {
        let own = self.shard().map(|shard| shard.meta().incarnation);
        if own == Some(incarnation) {
            self.life.offer(counter);
        }
    }

    /// The next step out of quarantine: log it, have the control group name another incarnation, take that.
    fn leave_incarnation(&mut self, context: &ExchangeContext<'_>) {
        let named = self.named_incarnation(context);
        let Some((resume, meta)) = self.life.base().zip(self.shard().map(Shard::meta)) else {
            return;
        };
        let (own, logged) = (meta.incarnation, meta.quarantined.is_some());
        let takes = named.filter(|named| meta.may_become(*named));
        let stale = named.is_none_or(|named| meta.former.contains(&named));
        if !logged {
            self.enqueue(Op::Quarantine {
                incarnation: own,
                resume,
            });
        }
        if let Some(new) = takes {
            self.enqueue(Op::TakeIncarnation { old: own, new });
        } else {
            let replace = named.filter(|_| !stale).unwrap_or(own);
            self.life.wish(replace, context.now);
        }
    }

    /// The incarnation that the catalog names for this group.
    fn named_incarnation(&self, context: &ExchangeContext<'_>) -> Option<Incarnation> {
        let id = self.id;
        let record = context.catalog.group_of(id.keyspace, id.shard, id.zone)?;
        (record.id == id).then_some(record.incarnation)
    }
}

/// Whether a message shows a life of this group in which it made more writes than it can have given away in this one.
fn contradicts(body: &Exchange, meta: &ShardMeta, given: u64) -> bool {
    let own = meta.incarnation;
    let made = meta.received.get(own);
    let exceeds = |vector: &VersionVector| vector.get(own) > given;
    match body {
        Exchange::Subscribe {
            received, known, ..
        } => {
            // What is told of ourselves may be what we said, and we say what we made, not what we offered.
            let told = known.iter().any(|(group, vector)| {
                let most = if *group == own { made } else { given };
                vector.get(own) > most
            });
            exceeds(received) || told
        }
        Exchange::Effects {
            effects, received, ..
        } => {
            // A client may carry a context from here to another zone before the write itself gets there.
            let replaced = |context: &CausalContext| {
                let mut dots = context.dots().iter();
                context.vector().get(own) > made
                    || dots.any(|dot| dot.incarnation == own && dot.counter > made)
            };
            exceeds(received) || effects.iter().any(|effect| replaced(&effect.replaced))
        }
        Exchange::CompareOpened { snapshot, .. } => exceeds(snapshot),
        Exchange::MustCompare
        | Exchange::CompareOpen { .. }
        | Exchange::CompareHashes { .. }
        | Exchange::CompareRanges { .. }
        | Exchange::CompareFetch { .. }
        | Exchange::CompareStates { .. }
        | Exchange::CompareRecall { .. }
        | Exchange::CompareRecalled { .. }
        | Exchange::CompareLost { .. } => false,
    }
}
