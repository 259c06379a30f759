//! A mirror zone: one of its nodes, the holder, asks the home zone for cuts, has the zone's nodes receive them, and flips
//! the pointer. The other nodes ask the holder what it shows, and keep a copy.
//!
//! The holder is the node that mirrors the first shard; nobody elects it. What it has ordered is in memory: after a restart
//! it learns from the parts what they have and goes on.
//!
//! Invariant: `pointer` is what the store holds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;

use super::stop::is_stopped;
use super::{Cut, MirrorAsk, Order, PartReport, ZoneReport, mirror_node, mirror_zones};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{KeyspaceId, ShardId};
use crate::inner::{InnerRequest, InnerResponse};
use crate::keys::{MirrorPointer, MirrorPointerKey};
use crate::limits::{MIRROR_ASK_MS_MAX, MIRROR_ASK_MS_MIN};
use crate::output::{Outputs, Stage};
use crate::request::Response;
use crate::time::{MS, Now};
use crate::transaction::TransactionId;
use crate::waiting::{Origin, Own};
use crate::workspace::Workspace;

/// How long an answer to a question of this file may take, in milliseconds.
const ANSWER_MS_MAX: u64 = 1_000;

/// How often the parts are asked while they have nothing to receive, in milliseconds.
const PARTS_IDLE_MS: u64 = 1_000;

/// A keyspace that this zone mirrors.
#[derive(Default)]
pub(super) struct Zone {
    pub(super) pointer: Option<MirrorPointer>,
    /// The time of a cut, and a time of the own clock after which nothing is missing from it.
    fresh: Option<(u64, u64)>,
    pub(super) to_write: Option<MirrorPointer>,
    pub(super) writing: Option<MirrorPointer>,
    pub(super) order: Option<Order>,
    /// Of the order: see `fresh`.
    order_fresh_ns: u64,
    pub(super) parts: BTreeMap<ShardId, PartReport>,
    parts_asked: BTreeSet<ShardId>,
    parts_due_ns: u64,
    asked: bool,
    due_ns: u64,
    lost: Option<u64>,
    /// When the home zone last answered, by the wall clock; 0: not since the start.
    pub(super) heard_ms: u64,
    /// Keys that had come of a cut that was not whole when the mirror was stopped.
    pub(super) lacking_keys: u64,
}

impl Zone {
    fn report(&self) -> ZoneReport {
        let pointer = self.pointer.as_ref();
        let order = self.order.as_ref();
        let received = |part: &PartReport| match order {
            Some(order) if part.receiving == Some((order.generation, order.cut.view)) => {
                part.received.0
            }
            Some(order) if part.have == (order.generation, order.cut.view) => part.received.0,
            Some(_) | None => 0,
        };
        ZoneReport {
            generation: pointer.map_or(0, |pointer| pointer.generation),
            cut_ms: pointer.map_or(0, |pointer| pointer.cut.time_ms),
            bytes: pointer.map_or(0, |pointer| pointer.bytes),
            keys: pointer.map_or(0, |pointer| pointer.keys),
            receiving: order.map(|order| order.cut.view),
            received_bytes: self.parts.values().map(received).sum(),
            lost: self.lost,
        }
    }

    /// The number for a cut: the one under which parts have it already, else one that none has used.
    fn number(&self, cut: &Cut) -> u64 {
        let shown = self
            .pointer
            .as_ref()
            .map_or(0, |pointer| pointer.generation);
        let used = |part: &PartReport| part.receiving.map_or(0, |(of, _)| of).max(part.have.0);
        let most = self.parts.values().map(used).max().unwrap_or(0);
        let begun = self.parts.values().find_map(|part| {
            let both = [Some(part.have), part.receiving];
            let mut both = both.into_iter().flatten();
            both.find(|(_, view)| *view == cut.view)
        });
        match begun {
            Some((generation, _)) if generation == most && generation > shown => generation,
            Some(_) | None => most.max(shown) + 1,
        }
    }

    /// A part has said how far it is.
    pub(super) fn hear(&mut self, shard: ShardId, report: PartReport) {
        self.parts.insert(shard, report);
    }

    /// The number of the generation that is being received.
    #[cfg(test)]
    pub(super) fn ordered_number(&self) -> Option<u64> {
        self.order.as_ref().map(|order| order.generation)
    }

    /// Takes a cut that is offered, once it is known what all parts have.
    pub(super) fn consider(&mut self, cut: Cut, fresh_ns: u64, shards: u16) {
        let shown_ms = self
            .pointer
            .as_ref()
            .map_or(0, |pointer| pointer.cut.time_ms);
        let known = self.parts.len() == usize::from(shards);
        let fit = cut.pins.len() == usize::from(shards) && self.lost != Some(cut.view);
        let busy = self.order.is_some() || self.to_write.is_some() || self.writing.is_some();
        if busy || !known || !fit || cut.time_ms <= shown_ms {
            return;
        }
        self.order_fresh_ns = fresh_ns;
        self.parts_due_ns = 0;
        self.order = Some(Order {
            generation: self.number(&cut),
            cut,
        });
    }

    /// What is to be shown next, when every part of it is durable. `early`: a planted bug.
    pub(super) fn complete(&self, shards: u16, early: bool) -> Option<MirrorPointer> {
        let order = self.order.as_ref()?;
        let wanted = (order.generation, order.cut.view);
        let shards = if early {
            shards.saturating_sub(1)
        } else {
            shards
        };
        let durable = |shard: u16| {
            let part = self.parts.get(&ShardId(shard));
            part.is_some_and(|part| part.have == wanted)
        };
        let whole = (0..shards).all(durable);
        whole.then(|| MirrorPointer {
            generation: order.generation,
            cut: order.cut.clone(),
            bytes: self.parts.values().map(|part| part.received.0).sum(),
            keys: self.parts.values().map(|part| part.received.1).sum(),
        })
    }
}

impl Core {
    pub(super) fn load_pointers(&mut self) -> Result<(), Error> {
        let (from, to) = MirrorPointerKey::everywhere();
        let mut found = Vec::new();
        self.engine.scan(&from, &to, &mut |stored, record| {
            found.push((stored.to_vec(), Bytes::copy_from_slice(record)));
            ControlFlow::Continue(())
        })?;
        for (stored, record) in found {
            let pointer = MirrorPointerKey::decode_record(&stored, &record)?;
            let zone = Zone {
                pointer: Some(pointer),
                ..Zone::default()
            };
            self.mirrors
                .zones
                .insert(MirrorPointerKey::keyspace(&stored)?, zone);
        }
        Ok(())
    }

    pub(super) fn tick_zones(&mut self, now: Now, out: &mut Outputs) {
        let zone = self.zone();
        let keyspaces: Vec<(KeyspaceId, u16)> = self
            .catalog
            .keyspaces
            .values()
            .map(|found| (found.id, found.shards))
            .filter(|(id, _)| mirror_zones(&self.catalog, *id).contains(&zone))
            .collect();
        for (keyspace, shards) in keyspaces {
            self.mirrors.zones.entry(keyspace).or_default();
            if self.holds_pointer() {
                if !is_stopped(&self.catalog, keyspace, zone) {
                    self.ask_cut(now, keyspace, out);
                }
                self.ask_parts(now, keyspace, shards, out);
            } else {
                self.ask_pointer(now, keyspace, out);
            }
        }
    }

    /// Whether the pointers of this zone are this core's.
    pub(super) fn holds_pointer(&self) -> bool {
        let first = ShardId(0);
        self.is_own_shard(first)
            && mirror_node(&self.catalog, first, self.zone()) == Some(self.config.node)
    }

    fn ask_cut(&mut self, now: Now, keyspace: KeyspaceId, out: &mut Outputs) {
        let interval_ms = self.mirror_interval(keyspace);
        let zone = self.zone();
        let Some(mirror) = self.mirrors.zones.get_mut(&keyspace) else {
            return;
        };
        if mirror.asked || now.mono_ns < mirror.due_ns {
            return;
        }
        mirror.asked = true;
        mirror.due_ns = now.after_ms(ask_every_ms(interval_ms));
        let report = mirror.report();
        let request = InnerRequest::MirrorCut {
            keyspace,
            zone,
            report,
        };
        let ask = MirrorAsk::Cut {
            sent_ns: now.mono_ns,
        };
        let own = Own::Mirror { keyspace, ask };
        if let Some(group) = self.own_group(keyspace, ShardId(0)) {
            self.ask(group, request, (own, now.after_ms(ANSWER_MS_MAX)), out);
        }
    }

    fn mirror_interval(&self, keyspace: KeyspaceId) -> u64 {
        let found = self.catalog.keyspaces.get(&keyspace);
        found.map_or(0, |found| found.policy.interval_ms)
    }

    /// The home zone has answered.
    pub(super) fn cut_offered(
        &mut self,
        now: Now,
        keyspace: KeyspaceId,
        sent_ns: u64,
        result: Result<Response, Error>,
    ) {
        if let (Err(error), Some(group)) = (&result, self.own_group(keyspace, ShardId(0))) {
            let asked = self.leader_guess(group);
            self.learn_leader(group, asked, error);
        }
        let shards = self.shards_of(keyspace);
        let stopped = is_stopped(&self.catalog, keyspace, self.zone());
        let Some(zone) = self.mirrors.zones.get_mut(&keyspace) else {
            return;
        };
        zone.asked = false;
        let Ok(Response::Inner(inner)) = result else {
            zone.due_ns = zone.due_ns.max(now.after_ms(MIRROR_ASK_MS_MIN));
            return;
        };
        zone.heard_ms = now.wall_ms;
        if stopped {
            return;
        }
        if let InnerResponse::MirrorCut {
            offer: Some((cut, age_ms)),
        } = *inner
        {
            zone.consider(cut, sent_ns.saturating_sub(age_ms * MS), shards);
        }
    }

    fn ask_parts(&mut self, now: Now, keyspace: KeyspaceId, shards: u16, out: &mut Outputs) {
        let own_zone = self.zone();
        let Some(zone) = self.mirrors.zones.get_mut(&keyspace) else {
            return;
        };
        let known = zone.parts.len() == usize::from(shards);
        if now.mono_ns < zone.parts_due_ns && known && zone.order.is_none() {
            return;
        }
        zone.parts_due_ns = now.after_ms(PARTS_IDLE_MS);
        let order = zone.order.clone();
        let pointed = zone
            .pointer
            .as_ref()
            .map_or(0, |pointer| pointer.generation);
        let asked = std::mem::take(&mut zone.parts_asked);
        let idle = (0..shards)
            .map(ShardId)
            .filter(|shard| !asked.contains(shard));
        let idle: Vec<ShardId> = idle.collect();
        zone.parts_asked = (0..shards).map(ShardId).collect();
        for shard in idle {
            let request = InnerRequest::MirrorReceive {
                keyspace,
                shard,
                order: order.clone(),
                pointed,
            };
            let ask = MirrorAsk::Part { shard };
            let own = Own::Mirror { keyspace, ask };
            if let Some(node) = mirror_node(&self.catalog, shard, own_zone) {
                self.ask_node(node, request, (own, now.after_ms(ANSWER_MS_MAX)), out);
            }
        }
    }

    /// A part says how far it is.
    pub(super) fn part_reported(
        &mut self,
        now: Now,
        (keyspace, shard): (KeyspaceId, ShardId),
        result: Result<Response, Error>,
    ) {
        let shards = self.shards_of(keyspace);
        let early = self.config.planted.mirror_swap_early;
        let stopped = is_stopped(&self.catalog, keyspace, self.zone());
        let Some(zone) = self.mirrors.zones.get_mut(&keyspace) else {
            return;
        };
        zone.parts_asked.remove(&shard);
        let Ok(Response::Inner(inner)) = result else {
            return;
        };
        let InnerResponse::MirrorPart(report) = *inner else {
            return;
        };
        let lost = report.lost;
        zone.hear(shard, report);
        if lost && let Some(order) = zone.order.take() {
            zone.lost = Some(order.cut.view);
            zone.due_ns = now.mono_ns;
            return;
        }
        if zone.to_write.is_none() && zone.writing.is_none() && !stopped {
            zone.to_write = zone.complete(shards, early);
        }
    }

    fn ask_pointer(&mut self, now: Now, keyspace: KeyspaceId, out: &mut Outputs) {
        let interval_ms = self.mirror_interval(keyspace);
        let Some(node) = mirror_node(&self.catalog, ShardId(0), self.zone()) else {
            return;
        };
        let Some(zone) = self.mirrors.zones.get_mut(&keyspace) else {
            return;
        };
        if zone.asked || now.mono_ns < zone.due_ns {
            return;
        }
        zone.asked = true;
        zone.due_ns = now.after_ms(ask_every_ms(interval_ms));
        let ask = MirrorAsk::Pointer {
            sent_ns: now.mono_ns,
        };
        let own = Own::Mirror { keyspace, ask };
        let request = InnerRequest::MirrorPointer { keyspace };
        self.ask_node(node, request, (own, now.after_ms(ANSWER_MS_MAX)), out);
    }

    /// Another core of the zone asks what is shown.
    pub(crate) fn mirror_pointer(
        &self,
        now: Now,
        origin: Origin,
        keyspace: KeyspaceId,
        out: &mut Outputs,
    ) {
        let zone = self.mirrors.zones.get(&keyspace);
        let shown = zone.filter(|_| self.holds_pointer()).and_then(|zone| {
            let pointer = zone.pointer.clone()?;
            Some((pointer, self.mirror_age(now, keyspace)))
        });
        Self::answer(origin, Ok(InnerResponse::MirrorPointed(shown).into()), out);
    }

    /// The holder has said what it shows.
    pub(super) fn pointer_told(
        &mut self,
        keyspace: KeyspaceId,
        sent_ns: u64,
        result: Result<Response, Error>,
    ) {
        let writes = self.is_own_shard(ShardId(0));
        let Some(zone) = self.mirrors.zones.get_mut(&keyspace) else {
            return;
        };
        zone.asked = false;
        let Ok(Response::Inner(inner)) = result else {
            return;
        };
        let InnerResponse::MirrorPointed(Some((pointer, age_ms))) = *inner else {
            return;
        };
        if let Some(age_ms) = age_ms {
            let fresh_ns = sent_ns.saturating_sub(age_ms * MS);
            zone.fresh = Some((pointer.cut.time_ms, fresh_ns));
        }
        if writes && zone.pointer.as_ref() != Some(&pointer) {
            zone.to_write = Some(pointer);
        }
    }

    /// How old the cut is that this zone shows, as far as this core can vouch for it (protocol rule 29).
    pub(super) fn mirror_age(&self, now: Now, keyspace: KeyspaceId) -> Option<u64> {
        let zone = self.mirrors.zones.get(&keyspace)?;
        let (cut_ms, fresh_ns) = zone.fresh?;
        let shown = self.pointer_shown(keyspace).ok()??;
        let age_ns = now.mono_ns.saturating_sub(fresh_ns);
        (shown.cut.time_ms == cut_ms).then(|| age_ns.div_ceil(MS))
    }

    /// What this node knows to be shown. Read from the store: all cores of a node share it.
    pub(super) fn pointer_shown(
        &self,
        keyspace: KeyspaceId,
    ) -> Result<Option<MirrorPointer>, Error> {
        let stored = MirrorPointerKey::encode(keyspace);
        let record = self.engine.get(&stored)?;
        record
            .map(|record| MirrorPointerKey::decode_record(&stored, &record))
            .transpose()
    }

    /// A pointer of this core flips with the turn that is collected. True: it must be durable first.
    pub(super) fn collect_pointers(&mut self, work: &mut Workspace<'_>) -> bool {
        let mut any = false;
        for (keyspace, zone) in &mut self.mirrors.zones {
            if let Some(pointer) = zone.to_write.take() {
                work.put(
                    MirrorPointerKey::encode(*keyspace),
                    MirrorPointerKey::encode_record(&pointer),
                );
                zone.writing = Some(pointer);
                any = true;
            }
        }
        any
    }

    pub(super) fn settle_pointers(&mut self, out: &mut Outputs) {
        let mut flipped = false;
        for zone in self.mirrors.zones.values_mut() {
            let Some(pointer) = zone.writing.take() else {
                continue;
            };
            if let Some(order) = zone
                .order
                .take_if(|order| order.generation == pointer.generation)
            {
                zone.fresh = Some((order.cut.time_ms, zone.order_fresh_ns));
                zone.due_ns = 0;
                zone.parts_due_ns = 0;
            }
            zone.pointer = Some(pointer);
            flipped = true;
        }
        if flipped {
            self.stage(TransactionId(0), Stage::MirrorFlipped, out);
        }
    }
}

/// How often a zone asks: several times per interval, within bounds.
fn ask_every_ms(interval_ms: u64) -> u64 {
    (interval_ms / 4).clamp(MIRROR_ASK_MS_MIN, MIRROR_ASK_MS_MAX)
}
