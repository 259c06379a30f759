//! The home zone's side of a shard: pages of what changed since a generation, read from the view that a cut is.
//!
//! Changed records are found by the log index that each bears: the view's records are walked, and only their headers read.
//! The walk is bounded per page; where nothing changed since, there is none.

use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::{Incarnation, ZoneId};
use meridian_storage::Read;

use super::known::{Differing, differing};
use super::packing::{self, Records};
use super::{MirrorPage, mirror_zones};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{GroupId, KeyspaceId, ShardId};
use crate::inner::{InnerResponse, MirrorFetch};
use crate::keys::{Place, VersionKey};
use crate::limits::{MIRROR_PAGE_BYTES, MIRROR_PAGE_VISITS};
use crate::output::Outputs;
use crate::shard::{load_meta, versions};
use crate::time::Now;
use crate::waiting::Origin;

impl Core {
    /// A page of a cut's part that this core holds.
    pub(crate) fn mirror_fetch(
        &mut self,
        now: Now,
        origin: Origin,
        fetch: MirrorFetch,
        out: &mut Outputs,
    ) {
        let answer = self.fetched(now, fetch);
        Self::answer(origin, answer.map(Into::into), out);
    }

    fn fetched(&mut self, now: Now, fetch: MirrorFetch) -> Result<InnerResponse, Error> {
        let MirrorFetch {
            keyspace,
            shard,
            view,
            zone,
            since,
            from,
            known,
        } = fetch;
        let group = self.own_group(keyspace, shard).ok_or(Error::ViewLost)?;
        let source = self
            .groups
            .get(&group)
            .and_then(|group| group.shard())
            .map(|shard| shard.meta().incarnation)
            .ok_or(Error::ViewLost)?;
        let held = self.held_views.get_mut(&view).ok_or(Error::ViewLost)?;
        let (index, pinned) = held.of_cut(now, group).ok_or(Error::ViewLost)?;
        let base = since.filter(|(of, base)| *of == source && *base <= index);
        if let Some(base) = base {
            self.mirrors.passed.insert((group, zone), base);
        }
        let Some(pinned) = pinned else {
            return Ok(InnerResponse::MirrorWait);
        };
        let meta = pinned.read(|state| load_meta(state, group))?;
        let received = meta.map(|meta| meta.received).unwrap_or_default();
        if let Some(group) = self.groups.get_mut(&group) {
            group.offered(source, received.get(source));
        }
        let unchanged = base.is_some_and(|(_, base)| base == index) && !pinned.is_overlaid();
        let place = Place { keyspace, shard };
        let found = if unchanged {
            Differing::default()
        } else if base.is_none() && !known.is_empty() {
            pinned.read(|state| differing(state, place, &from, &known))?
        } else {
            let since = base.map_or(0, |(_, base)| base);
            let (records, next) = pinned.read(|state| changed(state, place, since, &from))?;
            Differing {
                records,
                next,
                ..Differing::default()
            }
        };
        Ok(InnerResponse::MirrorPage(Box::new(MirrorPage {
            source,
            index,
            received,
            full: base.is_none(),
            from,
            records: packing::pack(&found.records),
            same: found.same,
            next: found.next,
        })))
    }

    /// Up to which log index every mirror of a group's shard has passed: tombstones of later entries stay (rule 24).
    pub(crate) fn mirrors_passed(&self, group: GroupId) -> u64 {
        let zones = mirror_zones(&self.catalog, group.keyspace);
        let own = self
            .groups
            .get(&group)
            .and_then(|group| group.shard())
            .map(|shard| shard.meta().incarnation);
        let passed = |zone: ZoneId| passed_by(self.mirrors.passed.get(&(group, zone)), own);
        zones.into_iter().map(passed).min().unwrap_or(u64::MAX)
    }
}

fn passed_by(passed: Option<&(Incarnation, u64)>, own: Option<Incarnation>) -> u64 {
    match passed {
        Some((source, index)) if Some(*source) == own => *index,
        Some(_) | None => 0,
    }
}

/// Records of a shard, from the key `from` on, that changed after the log index `since`, and where to go on.
pub(super) fn changed(
    state: &dyn Read,
    place: Place,
    since: u64,
    from: &[u8],
) -> Result<(Records, Option<Bytes>), Error> {
    let mut records: Records = Vec::new();
    let (mut bytes, mut visits, mut next) = (0_usize, 0_usize, None);
    versions::scan(state, place, (from, None), &mut |stored, record| {
        let key = VersionKey::user_key(stored)?;
        if bytes >= MIRROR_PAGE_BYTES || visits >= MIRROR_PAGE_VISITS {
            next = Some(Bytes::copy_from_slice(key));
            return Ok(ControlFlow::Break(()));
        }
        visits += 1;
        if since == 0 || VersionKey::header(stored, record)?.index > since {
            bytes += key.len() + record.len();
            records.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(record)));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((records, next))
}

/// The shard a fetch is for.
impl MirrorFetch {
    pub(crate) const fn place(&self) -> (KeyspaceId, ShardId) {
        (self.keyspace, self.shard)
    }
}
