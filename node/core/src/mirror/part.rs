//! A shard in a mirror zone: pages of a generation come in, are written, and count when the last one is durable.
//!
//! Pulled, one page at a time. A page and the place to go on from are one batch, so a node that dies goes on where it
//! stood; a generation of another cut is taken back before a new one begins. Versions that no generation shown needs are
//! swept, by the list of keys that each generation has changed.
//!
//! Invariant: `state` is what the store holds: it changes when a batch is written, not before.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::SiblingSet;
use meridian_storage::Read;

use super::known::{Base, Ranges};
use super::packing::{self, Records};
use super::reading::MirrorRead;
use super::{MirrorAsk, MirrorPage, Order, PartReport, mirror_node};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{KeyspaceId, ShardId};
use crate::inner::{InnerRequest, InnerResponse, MirrorFetch};
use crate::keys::{
    HeldGeneration, MirrorChangeKey, MirrorPart, MirrorPartKey, MirrorVersionKey,
    PartialGeneration, Place, VersionKey,
};
use crate::limits::{MIRROR_FETCH_FAILURES_MAX, MIRROR_FETCHES_MAX, MIRROR_SWEEP_KEYS};
use crate::output::{Outputs, Stage};
use crate::record::{Header, RecordError};
use crate::request::Response;
use crate::shard::versions;
use crate::time::Now;
use crate::transaction::TransactionId;
use crate::waiting::{Origin, Own};
use crate::workspace::Workspace;

/// How long a page may take, in milliseconds.
const FETCH_MS_MAX: u64 = 5_000;

/// How long to wait where the source has not resolved what is prepared in it, in milliseconds.
const WAIT_MS: u64 = 50;

/// How long to wait after a page that did not come, in milliseconds.
const RETRY_MS: u64 = 200;

/// A shard that this core mirrors.
#[derive(Default)]
pub(super) struct Part {
    state: MirrorPart,
    /// What is to be received.
    order: Option<Order>,
    /// The generation that the zone shows.
    pointed: u64,
    asking: bool,
    retry_ns: u64,
    failures: u32,
    /// A view that cannot be read any more.
    lost: Option<u64>,
    /// What the keyspace before has left on this node, and what was said of it with the last question.
    base: Option<Base>,
    known: Ranges,
    /// A page that has come and is not being written yet.
    page: Option<Arrived>,
    /// What the store will hold after the batch that is being written.
    writing: Option<MirrorPart>,
    /// A deposed home zone may still hand over writes that are ignorant of deletes here. Should this mirror become a keyspace, it
    /// must know them: keys that hold nothing but tombstones are not swept.
    pub(super) keeps_deletes: bool,
}

/// A page that has come, and what was packed in it.
pub(super) struct Arrived {
    page: MirrorPage,
    records: Records,
}

impl Arrived {
    /// Unpacks a page.
    pub(super) fn open(page: MirrorPage) -> Result<Self, RecordError> {
        let records = packing::unpack(&page.records)?;
        Ok(Self { page, records })
    }
}

impl Part {
    pub(super) fn held(&self, generation: u64) -> Option<&HeldGeneration> {
        let mut have = self.state.have.iter();
        have.find(|held| held.generation == generation)
    }

    pub(super) fn newest(&self) -> Option<&HeldGeneration> {
        self.state.have.last()
    }

    /// The order, while it is not fulfilled.
    fn open_order(&self) -> Option<&Order> {
        let newest = self.newest().map_or(0, |held| held.generation);
        self.order
            .as_ref()
            .filter(|order| order.generation > newest && self.lost != Some(order.cut.view))
    }

    /// Whether the number of an order is not free here: another cut came to have it before the zone was told. Nothing more can
    /// come of such an order; the next one gets a number above all that parts have.
    fn is_taken(&self, order: &Order) -> bool {
        let newest = self.newest().map_or(0, |held| held.generation);
        let held = self.held(order.generation);
        order.generation <= newest && held.is_none_or(|held| held.view != order.cut.view)
    }

    /// Whether what has come of the newest generation belongs to another cut than the one ordered.
    fn is_stray(&self) -> bool {
        match (&self.state.partial, self.open_order()) {
            (Some(partial), Some(order)) => {
                (partial.generation, partial.view) != (order.generation, order.cut.view)
            }
            (Some(_), None) | (None, _) => false,
        }
    }

    pub(super) fn report(&self) -> PartReport {
        let newest = self.newest();
        let partial = self.state.partial.as_ref();
        PartReport {
            have: newest.map_or((0, 0), |held| (held.generation, held.view)),
            receiving: partial.map(|partial| (partial.generation, partial.view)),
            received: partial
                .map(|partial| (partial.bytes, partial.keys))
                .or_else(|| newest.map(|held| (held.bytes, held.keys)))
                .unwrap_or_default(),
            lost: self
                .order
                .as_ref()
                .is_some_and(|order| self.lost == Some(order.cut.view) || self.is_taken(order)),
        }
    }

    /// The oldest generation that stays: the one before the one shown.
    fn floor(&self) -> u64 {
        let mut shown = self.state.have.iter().rev();
        let mut shown = shown
            .by_ref()
            .filter(|held| held.generation <= self.pointed);
        shown.nth(1).map_or(0, |held| held.generation)
    }

    fn idle(&self) -> bool {
        !self.asking && self.page.is_none() && self.writing.is_none()
    }

    pub(super) fn point(&mut self, pointed: u64) {
        self.pointed = self.pointed.max(pointed);
    }

    /// The store holds this now.
    pub(super) fn become_state(&mut self, state: MirrorPart) {
        self.state = state;
    }

    pub(super) fn take_order(&mut self, order: Option<Order>) {
        if order.is_none() || order == self.order {
            return;
        }
        self.order = order;
        self.page = None;
        self.failures = 0;
        self.retry_ns = 0;
    }
}

impl Core {
    pub(super) fn load_parts(&mut self) -> Result<(), Error> {
        let (from, to) = MirrorPartKey::everywhere();
        let mut found = Vec::new();
        self.engine.scan(&from, &to, &mut |stored, record| {
            found.push((stored.to_vec(), Bytes::copy_from_slice(record)));
            ControlFlow::Continue(())
        })?;
        for (stored, record) in found {
            let place = MirrorPartKey::place(&stored)?;
            if self.is_own_shard(place.shard) {
                let part = Part {
                    state: MirrorPartKey::decode_record(&stored, &record)?,
                    ..Part::default()
                };
                self.mirrors
                    .parts
                    .insert((place.keyspace, place.shard), part);
            }
        }
        Ok(())
    }

    /// The holder of the zone says what to receive and what is shown, and hears how far this part is.
    pub(crate) fn mirror_receive(
        &mut self,
        origin: Origin,
        (keyspace, shard): (KeyspaceId, ShardId),
        (order, pointed): (Option<Order>, u64),
        out: &mut Outputs,
    ) {
        let own = mirror_node(&self.catalog, shard, self.zone()) == Some(self.config.node);
        if !own || !self.mirrors(keyspace) || !self.mirrors.loaded {
            Self::answer(origin, Err(Error::NotAdmitted), out);
            return;
        }
        let part = self.mirrors.parts.entry((keyspace, shard)).or_default();
        part.point(pointed);
        part.take_order(order);
        let answer = InnerResponse::MirrorPart(part.report());
        Self::answer(origin, Ok(answer.into()), out);
    }

    pub(super) fn tick_parts(&mut self, now: Now, out: &mut Outputs) {
        let parts: Vec<(KeyspaceId, ShardId)> = self.mirrors.parts.keys().copied().collect();
        for place in parts {
            self.fetch_page(now, place, out);
        }
    }

    fn fetch_page(&mut self, now: Now, place: (KeyspaceId, ShardId), out: &mut Outputs) {
        let asking = self.mirrors.parts.values().filter(|part| part.asking);
        let asking = asking.count();
        let zone = self.zone();
        let is_fresh = self
            .mirrors
            .parts
            .get(&place)
            .is_some_and(|part| part.newest().is_none() && part.open_order().is_some());
        let base = is_fresh.then(|| self.base_of(place.0, place.1)).flatten();
        let Some(part) = self.mirrors.parts.get_mut(&place) else {
            return;
        };
        if asking >= MIRROR_FETCHES_MAX
            || !part.idle()
            || part.is_stray()
            || now.mono_ns < part.retry_ns
        {
            return;
        }
        let Some(order) = part.open_order() else {
            return;
        };
        let (keyspace, shard) = place;
        let Some(node) = order.cut.pins.get(usize::from(shard.0)).copied() else {
            return;
        };
        let view = order.cut.view;
        let since = part.newest().map(|held| (held.source, held.index));
        let partial = part.state.partial.as_ref();
        let from = partial.map(|partial| partial.from.clone());
        let from = from.unwrap_or_default();
        // What cannot be read here is not known to be the same.
        let known = base.as_ref().map(|base| base.ranges(&*self.engine, &from));
        let known = known.and_then(Result::ok).unwrap_or_default();
        part.base = base;
        part.known.clone_from(&known);
        let fetch = MirrorFetch {
            keyspace,
            shard,
            view,
            zone,
            since,
            from,
            known,
        };
        part.asking = true;
        let ask = MirrorAsk::Page { shard, view };
        let deadline_ns = now.after_ms(FETCH_MS_MAX);
        let own = Own::Mirror { keyspace, ask };
        self.ask_node(
            node,
            InnerRequest::MirrorFetch(fetch),
            (own, deadline_ns),
            out,
        );
    }

    /// A page has come, or has not.
    pub(super) fn page_arrived(
        &mut self,
        now: Now,
        place: (KeyspaceId, ShardId),
        view: u64,
        result: Result<Response, Error>,
    ) {
        let Some(part) = self.mirrors.parts.get_mut(&place) else {
            return;
        };
        part.asking = false;
        if part.open_order().is_none_or(|order| order.cut.view != view) {
            return;
        }
        let answer = match result {
            Ok(Response::Inner(inner)) => Ok(*inner),
            Ok(_) => return,
            Err(error) => Err(error),
        };
        match answer {
            Ok(InnerResponse::MirrorPage(page)) => part.take_page(now, *page),
            Ok(_) => part.retry_ns = now.after_ms(WAIT_MS),
            Err(Error::ViewLost) => part.lost = Some(view),
            Err(_) => part.fail(now),
        }
    }

    pub(super) fn collect_parts(&mut self, work: &mut Workspace<'_>) -> Result<bool, Error> {
        let mut sync = false;
        for ((keyspace, shard), part) in &mut self.mirrors.parts {
            if part.writing.is_some() {
                continue;
            }
            let place = Place {
                keyspace: *keyspace,
                shard: *shard,
            };
            let page = part.page.take();
            let found = self.catalog.keyspaces.get(keyspace);
            part.keeps_deletes = found.is_some_and(|found| found.before.is_some());
            let written = part.next_state(place, page, work)?;
            if let Some(state) = &written {
                sync |= state.have.last() != part.newest();
                work.put(
                    MirrorPartKey::encode(place),
                    MirrorPartKey::encode_record(state),
                );
            }
            part.writing = written;
        }
        Ok(sync)
    }

    pub(super) fn settle_parts(&mut self, now: Now, out: &mut Outputs) {
        let mut written = Vec::new();
        for (place, part) in &mut self.mirrors.parts {
            if let Some(state) = part.writing.take() {
                part.become_state(state);
                written.push(*place);
            }
        }
        if !written.is_empty() {
            self.stage(TransactionId(0), Stage::MirrorPage, out);
        }
        for place in written {
            self.fetch_page(now, place, out);
        }
    }
}

impl Part {
    fn take_page(&mut self, now: Now, page: MirrorPage) {
        match Arrived::open(page) {
            Ok(arrived) => {
                self.failures = 0;
                self.page = Some(arrived);
            }
            Err(_unreadable) => self.fail(now),
        }
    }

    /// A page did not come: it is asked for again, but not for ever.
    fn fail(&mut self, now: Now) {
        self.failures += 1;
        self.retry_ns = now.after_ms(RETRY_MS);
        if self.failures >= MIRROR_FETCH_FAILURES_MAX {
            self.lost = self.order.as_ref().map(|order| order.cut.view);
        }
    }

    /// What a turn writes, if anything, and the state that follows from it.
    pub(super) fn next_state(
        &self,
        place: Place,
        page: Option<Arrived>,
        work: &mut Workspace<'_>,
    ) -> Result<Option<MirrorPart>, Error> {
        match page {
            Some(page) => self.write_page(place, page, work),
            None if self.is_stray() => self.take_back(place, work),
            None => self.sweep(place, work),
        }
    }

    /// Lays a page over what there is. Writing it twice is the same as once.
    fn write_page(
        &self,
        place: Place,
        Arrived { page, records }: Arrived,
        work: &mut Workspace<'_>,
    ) -> Result<Option<MirrorPart>, Error> {
        let Some(order) = self.open_order() else {
            return Ok(None);
        };
        let mut state = self.state.clone();
        let mut partial = state.partial.take().unwrap_or(PartialGeneration {
            generation: order.generation,
            view: order.cut.view,
            from: Bytes::new(),
            bytes: 0,
            keys: 0,
        });
        let ahead = page.next.as_ref().is_none_or(|next| *next > partial.from);
        if page.from != partial.from || !ahead {
            return Ok(None);
        }
        let generation = partial.generation;
        // Nothing is written before all of it is known to be right: of what is not, nobody would know to take it back.
        let Some(same) = self.same(&page, work)? else {
            return Ok(None);
        };
        if page.full {
            self.lay_absent(place, (&page, &records, generation), work)?;
        }
        for (key, record) in same {
            put_version(place, (generation, &key), record, work);
        }
        partial.bytes += u64::try_from(page.shipped_bytes()).unwrap_or(u64::MAX);
        for (key, record) in records {
            put_version(place, (generation, &key), record, work);
            partial.keys += 1;
        }
        if let Some(next) = page.next {
            partial.from = next;
            state.partial = Some(partial);
        } else {
            state.have.push(HeldGeneration {
                generation,
                view: partial.view,
                cut_ms: order.cut.time_ms,
                source: page.source,
                index: page.index,
                received: page.received,
                bytes: partial.bytes,
                keys: partial.keys,
            });
        }
        Ok(Some(state))
    }

    /// What this node has in the ranges that a page says to be the same. `None`: it is not what was told any more.
    fn same(&self, page: &MirrorPage, work: &Workspace<'_>) -> Result<Option<Records>, Error> {
        let mut all = Records::new();
        for (from, to) in &page.same {
            let told = self.known.iter().find(|(end, _)| end == to);
            let Some(((_, hash), base)) = told.zip(self.base.as_ref()) else {
                return Ok(None);
            };
            match base.same(work, (from, to), *hash)? {
                Some(records) => all.extend(records),
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    }

    /// A full page says of keys that it does not hold that they are not there.
    fn lay_absent(
        &self,
        place: Place,
        (page, records, generation): (&MirrorPage, &Records, u64),
        work: &mut Workspace<'_>,
    ) -> Result<(), Error> {
        let Some(base) = self.newest() else {
            return Ok(());
        };
        let there: BTreeSet<&[u8]> = records.iter().map(|(key, _)| key.as_ref()).collect();
        let mut gone: Vec<Vec<u8>> = Vec::new();
        let shown = MirrorRead::new(&*work, base.generation);
        let range = (page.from.as_ref(), page.next.as_deref());
        versions::scan(&shown, place, range, &mut |stored, _| {
            let key = VersionKey::user_key(stored)?;
            if !there.contains(key) {
                gone.push(key.to_vec());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let header = Header {
            index: page.index,
            ..Header::default()
        };
        let absent = VersionKey::encode_record(header, &SiblingSet::new());
        for key in gone {
            put_version(place, (generation, &key), absent.clone(), work);
        }
        Ok(())
    }

    /// Takes back what has come of a generation that is no longer wanted.
    fn take_back(
        &self,
        place: Place,
        work: &mut Workspace<'_>,
    ) -> Result<Option<MirrorPart>, Error> {
        let first = self.newest().map_or(0, |held| held.generation) + 1;
        let changes = changes_in(work, place, (first, u64::MAX))?;
        for (stored, generation, key) in &changes {
            work.delete(MirrorVersionKey::encode(place, key, *generation));
            work.delete(stored.clone());
        }
        let mut state = self.state.clone();
        if changes.len() < MIRROR_SWEEP_KEYS {
            state.partial = None;
        }
        Ok(Some(state))
    }

    /// Drops generations before the one before the one shown, and versions that only they needed. Deletes that are kept stand as
    /// changes of generation 0, so that they are found once they may go.
    fn sweep(&self, place: Place, work: &mut Workspace<'_>) -> Result<Option<MirrorPart>, Error> {
        let floor = self.floor();
        if floor <= self.state.swept {
            return Ok(None);
        }
        let mut state = self.state.clone();
        state.have.retain(|held| held.generation >= floor);
        let first = u64::from(self.keeps_deletes);
        let changes = changes_in(work, place, (first, floor))?;
        for (stored, _, key) in &changes {
            let deleted = sweep_key(place, (key, floor), work)?;
            work.delete(stored.clone());
            if let Some(newest) = deleted {
                if self.keeps_deletes {
                    let kept = MirrorChangeKey::encode(place, 0, key);
                    work.put(kept, MirrorChangeKey::encode_record());
                } else {
                    work.delete(newest);
                }
            }
        }
        if changes.len() < MIRROR_SWEEP_KEYS {
            state.swept = floor;
        }
        Ok(Some(state))
    }
}

fn put_version(
    place: Place,
    (generation, key): (u64, &[u8]),
    record: Bytes,
    work: &mut Workspace<'_>,
) {
    work.put(MirrorVersionKey::encode(place, key, generation), record);
    work.put(
        MirrorChangeKey::encode(place, generation, key),
        MirrorChangeKey::encode_record(),
    );
}

/// A stored change, its generation, its key.
type Change = (Vec<u8>, u64, Vec<u8>);

/// The first changes of some generations; as many as one turn sweeps.
fn changes_in(
    read: &dyn Read,
    place: Place,
    (first, last): (u64, u64),
) -> Result<Vec<Change>, Error> {
    let (from, to) = MirrorChangeKey::range(place, first, last);
    let mut changes = Vec::new();
    let mut outcome = Ok(());
    read.scan(&from, &to, &mut |stored, _| {
        outcome = MirrorChangeKey::decode(stored)
            .map(|(generation, key)| changes.push((stored.to_vec(), generation, key.to_vec())));
        if outcome.is_err() || changes.len() >= MIRROR_SWEEP_KEYS {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    outcome.map(|()| changes)
}

/// Of the versions of a key up to `floor`, the newest stays. If it shows nothing, it need not: then it is the answer.
fn sweep_key(
    place: Place,
    (key, floor): (&[u8], u64),
    work: &mut Workspace<'_>,
) -> Result<Option<Vec<u8>>, Error> {
    let (from, to) = MirrorVersionKey::versions(place, key, floor);
    let mut older: Vec<Vec<u8>> = Vec::new();
    let mut newest: Option<Result<Option<Vec<u8>>, Error>> = None;
    work.scan(&from, &to, &mut |stored, record| {
        if newest.is_none() {
            let set = VersionKey::decode_visited(stored, record).map(|(_, set)| set);
            newest = Some(set.map(|set| (!set.has_live()).then(|| stored.to_vec())));
        } else {
            older.push(stored.to_vec());
        }
        ControlFlow::Continue(())
    })?;
    for stored in older {
        work.delete(stored);
    }
    newest.unwrap_or(Ok(None))
}
