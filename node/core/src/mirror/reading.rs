//! What clients of a mirror zone get: reads of the generation that is shown, and for everything else the address of the
//! home zone.
//!
//! A generation is read through [`MirrorRead`], which shows versions as if they were the records of the shard itself; so
//! gets, scans and digests are the ones of the home zone. Nothing expires here: a version that had not expired in the home
//! zone's log at the cut is live (protocol rule 24).

use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_storage::{Read, StorageError, Visitor};

use super::{MirrorStamp, MirrorWant, mirror_node, mirror_zones};
use crate::core::Core;
use crate::error::Error;
use crate::ids::{GroupId, KeyspaceId, ShardId};
use crate::keys::mirror::place_of;
use crate::keys::{Kind, MirrorVersionKey, VersionKey};
use crate::output::{Outputs, Pinned, ReleasedRead};
use crate::request::{Answer, Filter, Query, Read as ReadRequest, ReadLevel, Request, Response};
use crate::route::Routed;
use crate::time::Now;
use crate::waiting::Origin;

/// The versions of one generation, shown under the keys of the shard's own records.
pub(super) struct MirrorRead<'r> {
    read: &'r dyn Read,
    generation: u64,
}

impl<'r> MirrorRead<'r> {
    pub(super) fn new(read: &'r dyn Read, generation: u64) -> Self {
        Self { read, generation }
    }

    fn translate(stored: &[u8]) -> Result<Vec<u8>, StorageError> {
        let place = place_of(stored).map_err(damaged)?;
        let user_key = VersionKey::user_key(stored).map_err(damaged)?;
        Ok(MirrorVersionKey::start(place, user_key))
    }
}

fn damaged(error: Error) -> StorageError {
    StorageError::Corruption {
        detail: error.to_string(),
    }
}

fn is_version(stored: &[u8]) -> bool {
    stored.first() == Some(&Kind::Version.number())
}

impl Read for MirrorRead<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        if !is_version(key) {
            return Ok(None);
        }
        let place = place_of(key).map_err(damaged)?;
        let user_key = VersionKey::user_key(key).map_err(damaged)?;
        let (from, to) = MirrorVersionKey::versions(place, user_key, self.generation);
        let mut found = None;
        self.read.scan(&from, &to, &mut |_, record| {
            found = Some(Bytes::copy_from_slice(record));
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Ranges of versions within one shard only; there is nothing else.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), StorageError> {
        if !is_version(from) || from >= to {
            return Ok(());
        }
        let place = place_of(from).map_err(damaged)?;
        let within = is_version(to) && place_of(to).is_ok_and(|end| end == place);
        let end = if within {
            Self::translate(to)?
        } else {
            MirrorVersionKey::all(place).1
        };
        let mut last: Option<Vec<u8>> = None;
        let mut outcome = Ok(());
        self.read
            .scan(&Self::translate(from)?, &end, &mut |stored, record| {
                let (user_key, generation) = match MirrorVersionKey::decode(stored) {
                    Ok(decoded) => decoded,
                    Err(error) => {
                        outcome = Err(damaged(error));
                        return ControlFlow::Break(());
                    }
                };
                if generation > self.generation || last.as_ref() == Some(&user_key) {
                    return ControlFlow::Continue(());
                }
                let flow = visit(&VersionKey::encode(place, &user_key), record);
                last = Some(user_key);
                flow
            })?;
        outcome
    }

    fn scan_back(
        &self,
        _from: &[u8],
        _to: &[u8],
        _visit: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        // No query that a mirror answers reads backwards.
        Err(StorageError::Corruption {
            detail: "a mirror is not read backwards".to_owned(),
        })
    }
}

/// Answers a query from a generation.
pub(crate) fn serve(
    read: &dyn Read,
    (keyspace, shards): (KeyspaceId, u16),
    query: &Query,
    stamp: MirrorStamp,
) -> Result<Answer, Error> {
    let shown = MirrorRead::new(read, stamp.generation);
    let answer = crate::read::serve(&shown, keyspace, shards, query)?;
    Ok(Answer::Mirrored(Box::new(answer), stamp))
}

/// Whether a mirror answers a query; others are of transactions and leases, or go by indexes that it does not keep.
pub(crate) const fn shown_by(query: &Query) -> bool {
    match query {
        Query::Get { .. } | Query::Digest { .. } => true,
        Query::Scan { filter, .. } => matches!(filter, Filter::Live),
        Query::Examine { .. }
        | Query::Range { .. }
        | Query::Validate { .. }
        | Query::Leases { .. }
        | Query::Returned { .. } => false,
    }
}

impl Core {
    /// What is for this node itself, or for a mirror, is answered; anything else is handed back, without the permission to
    /// forward it.
    pub(crate) fn own_affair(
        &mut self,
        now: Now,
        from: (Origin, u64),
        request: Request,
        out: &mut Outputs,
    ) -> Option<Request> {
        if let Request::AtHome(inner) = request {
            return Some(*inner);
        }
        let request = self.inner_to_node(now, from, request, out)?;
        self.at_mirror(now, from, request, out)
    }

    /// A client's request at this node: handed back where it is not a mirror's, else answered.
    fn at_mirror(
        &mut self,
        now: Now,
        (origin, deadline_ns): (Origin, u64),
        request: Request,
        out: &mut Outputs,
    ) -> Option<Request> {
        let keyspace = match &request {
            Request::Write(write)
            | Request::WriteAt { write, .. }
            | Request::LeasedWrite { write, .. } => write.keyspace,
            Request::Read(read) => read.keyspace,
            Request::Transact(transaction) => transaction.keyspace,
            Request::ViewOpen { keyspace }
            | Request::LeaseRenew { keyspace, .. }
            | Request::LeaseEnd { keyspace, .. } => *keyspace,
            Request::LeaseAcquire(acquire) => acquire.keyspace,
            Request::Mirrors {
                keyspace,
                want: MirrorWant::Shown,
            } => {
                let shown = self.mirror_shown(now, *keyspace).map(Response::MirrorShown);
                Self::answer(origin, shown, out);
                return None;
            }
            Request::KeyspaceCreate(_)
            | Request::KeyspaceDelete { .. }
            | Request::KeyspaceAlter(_)
            | Request::AlterReport { .. }
            | Request::Lag { .. }
            | Request::Groups
            | Request::Reincarnate { .. }
            | Request::ViewClose { .. }
            | Request::Inner(_)
            | Request::AtHome(_)
            | Request::Mirrors { .. } => return Some(request),
        };
        if !self.mirrors(keyspace) || asks_zones(&request) {
            return Some(request);
        }
        if let Some(old) = self.unfenced(keyspace) {
            return Some(redirected(request, old));
        }
        let shard = request.shard(&self.catalog);
        let shown = mirror_zones(&self.catalog, keyspace).contains(&self.zone());
        let routed = Routed {
            bounded: false,
            origin,
            deadline_ns,
            group: self.home_group(keyspace, shard),
        };
        let answered = if let Request::Read(read) = request
            && shown
            && shown_by(&read.query)
            && asks_mirror(read.level)
        {
            self.mirror_read(&routed, shard, read, out)
        } else {
            Err(self.not_home(keyspace, shard))
        };
        if let Err(error) = answered {
            Self::answer(origin, Err(error), out);
        }
        None
    }

    /// Of the planted bug: the keyspace of which this zone was home before it was deposed.
    fn unfenced(&self, keyspace: KeyspaceId) -> Option<KeyspaceId> {
        let before = self.catalog.keyspaces.get(&keyspace)?.before?;
        let old = self.catalog.keyspaces.get(&before)?;
        let was_home = old.is_deposed() && old.policy.home == Some(self.zone());
        (self.config.planted.deposed_home_serves && was_home).then_some(before)
    }

    /// The group that a mirror is of.
    pub(crate) fn home_group(&self, keyspace: KeyspaceId, shard: ShardId) -> GroupId {
        self.own_group(keyspace, shard).unwrap_or(GroupId::CONTROL)
    }

    /// The pointer is read here, once for the request, unless the request names a generation.
    pub(crate) fn mirror_read(
        &mut self,
        routed: &Routed,
        shard: ShardId,
        mut read: ReadRequest,
        out: &mut Outputs,
    ) -> Result<(), Error> {
        let generation = if let ReadLevel::Mirror { generation } = read.level {
            generation
        } else {
            let shown = self.pointer_shown(read.keyspace)?;
            fresh_enough(read.level, self.mirror_age(self.now, read.keyspace))?;
            shown.map_or(0, |shown| shown.generation)
        };
        if generation == 0 {
            return Err(Error::Stale {
                behind_ms: None,
                node: None,
            });
        }
        let node = mirror_node(&self.catalog, shard, self.zone());
        if node == Some(self.config.node) {
            return self.mirror_serve(routed.origin, (shard, generation), read, out);
        }
        read.level = ReadLevel::Mirror { generation };
        self.forward_to(routed, Request::Read(read), node, out);
        Ok(())
    }

    fn mirror_serve(
        &self,
        origin: Origin,
        (shard, generation): (ShardId, u64),
        read: ReadRequest,
        out: &mut Outputs,
    ) -> Result<(), Error> {
        let now = self.now;
        let part = self.mirrors.parts.get(&(read.keyspace, shard));
        let held = part.and_then(|part| part.held(generation));
        let Some(held) = held.or_else(|| {
            // The planted bug shows whatever there is under the number.
            let early = self.config.planted.mirror_swap_early;
            part.filter(|_| early).and_then(super::part::Part::newest)
        }) else {
            // The pointer is ahead of this node's memory or long past it: never another generation instead.
            return Err(Error::Stale {
                behind_ms: None,
                node: None,
            });
        };
        let by_clock_ms = now.wall_ms.saturating_sub(held.cut_ms);
        let age_ms = self.mirror_age(now, read.keyspace);
        let stamp = MirrorStamp {
            generation,
            view: held.view,
            cut_ms: held.cut_ms,
            age_ms: age_ms.unwrap_or(by_clock_ms),
        };
        let pinned = Pinned::of(self.engine.view()?);
        let released = |id| ReleasedRead::of_mirror(id, (read.keyspace, read.query), pinned, stamp);
        match origin {
            Origin::Driver(id) => out.reads.push(released(id)),
            Origin::Core => {}
            Origin::Peer(_, id) | Origin::Inner(id) => {
                let shards = self.shards_of(read.keyspace);
                let answer = released(id).serve(&*self.engine, shards);
                Self::answer(origin, answer.map(Response::Read), out);
            }
        }
        Ok(())
    }

    /// What this node would show now: for requests that ask several shards, so that all are asked for one generation.
    fn mirror_shown(&self, now: Now, keyspace: KeyspaceId) -> Result<Option<MirrorStamp>, Error> {
        if !self.mirrors(keyspace) {
            return Ok(None);
        }
        let shown = self.pointer_shown(keyspace)?;
        let shown = shown.ok_or(Error::Stale {
            behind_ms: None,
            node: None,
        })?;
        let by_clock_ms = now.wall_ms.saturating_sub(shown.cut.time_ms);
        Ok(Some(MirrorStamp {
            generation: shown.generation,
            view: shown.cut.view,
            cut_ms: shown.cut.time_ms,
            age_ms: self.mirror_age(now, keyspace).unwrap_or(by_clock_ms),
        }))
    }
}

/// Of the planted bug: the same asked of another keyspace.
fn redirected(mut request: Request, keyspace: KeyspaceId) -> Request {
    if let Request::Write(write) = &mut request {
        write.keyspace = keyspace;
    } else if let Request::Read(read) = &mut request {
        read.keyspace = keyspace;
    }
    request
}

/// What several zones are asked for, whichever of them is asked.
fn asks_zones(request: &Request) -> bool {
    matches!(request, Request::Read(read) if matches!(read.level, ReadLevel::Zones { .. }))
}

const fn asks_mirror(level: ReadLevel) -> bool {
    match level {
        ReadLevel::Eventual | ReadLevel::Bounded { .. } | ReadLevel::Mirror { .. } => true,
        ReadLevel::Linearizable
        | ReadLevel::View { .. }
        | ReadLevel::Session
        | ReadLevel::Zones { .. } => false,
    }
}

/// A bound needs an age that this node can vouch for.
fn fresh_enough(level: ReadLevel, age_ms: Option<u64>) -> Result<(), Error> {
    let ReadLevel::Bounded { max_age_ms } = level else {
        return Ok(());
    };
    match age_ms {
        Some(age_ms) if age_ms <= max_age_ms => Ok(()),
        Some(age_ms) => Err(Error::Stale {
            behind_ms: Some(age_ms - max_age_ms),
            node: None,
        }),
        None => Err(Error::Stale {
            behind_ms: None,
            node: None,
        }),
    }
}
