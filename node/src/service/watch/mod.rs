//! Watching: the changes of a key or of a prefix, from this node's own replicas, for as long as the watcher takes them.
//!
//! What it is: a task per watcher, which reads pages of changes from the store and puts them into a queue of few
//! messages. It reads no more while the queue is full, and gives up when nothing is taken for long.
//!
//! What it is not: no part of a write waits for it. Core threads say which shards changed and go on.
//!
//! Positions are the same on every replica, so a watcher goes on at another node where it left this one. Read
//! `docs/watch.md`, then `meridian_core::read::changes`.

mod outlet;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use meridian_core::Error;
use meridian_core::catalog::Catalog;
use meridian_core::ids::{GroupId, KeyspaceId, ShardId};
use meridian_core::limits::KEY_SIZE_BYTES_MAX;
use meridian_core::read::changes::{self, Change, Changes, PageLimits, Position, Selection};
use meridian_proto::kv::v1 as kv;
use tonic::Status;

use super::KvService;
use crate::clock::wall_ms;
use crate::convert::Failure;
use crate::convert::operations::{Scope, check_key};
use crate::convert::revisions::{self, Positions};
use crate::limits::{
    WATCH_MESSAGES_MAX, WATCH_PAGE_BYTES, WATCH_PAGE_CHANGES, WATCH_PATIENCE, WATCH_SILENCE,
    WATCH_SKIPPED_MAX, WATCHERS_MAX,
};
use crate::watched::Registration;
use outlet::Inlet;

pub(super) type WatchStream = Pin<Box<dyn Stream<Item = Result<kv::WatchResponse, Status>> + Send>>;

/// Shards looked at in one go: bounds what is in memory for one watcher.
const SHARDS_AT_ONCE: usize = 8;

const PAGE: PageLimits = PageLimits {
    changes: WATCH_PAGE_CHANGES,
    bytes: WATCH_PAGE_BYTES,
};

/// One watcher.
struct Watching {
    service: KvService,
    catalog: Arc<Catalog>,
    keyspace: KeyspaceId,
    groups: BTreeMap<ShardId, GroupId>,
    selection: Selection,
    positions: Positions,
    registration: Registration,
    inlet: Inlet,
    /// Changes of keys that are not watched, since the watcher was told a revision.
    skipped: u64,
}

impl KvService {
    /// Serves one watcher.
    pub(super) async fn watch_on(&self, request: kv::WatchRequest) -> Result<WatchStream, Failure> {
        self.admit()?;
        let catalog = self.calls.shared.catalog();
        let scope = Scope::find(
            &catalog,
            &request.keyspace,
            (self.calls.shared.zone, wall_ms()),
        )?;
        let selection = selection(request.keys)?;
        let shards = shards_of(&scope, &selection);
        let keyspace = scope.keyspace.id;
        let registration = self
            .calls
            .shared
            .watched
            .register(keyspace, shards.clone(), WATCHERS_MAX)
            .ok_or_else(|| Failure::too_many_watchers(WATCHERS_MAX))?;
        let groups = self.groups_of(&catalog, keyspace, &shards)?;
        let present = self.present(groups.clone()).await?;
        let positions = if request.from.is_empty() {
            present
        } else {
            revisions::open(&scope, self.calls.shared.zone, &request.from, shards)?
        };
        let (inlet, outlet) = outlet::queue(WATCH_MESSAGES_MAX, WATCH_PATIENCE);
        let watching = Watching {
            service: self.clone(),
            catalog: Arc::clone(&catalog),
            keyspace,
            groups,
            selection,
            positions,
            registration,
            inlet,
            skipped: 0,
        };
        Ok(outlet.stream(watching.run()))
    }

    /// This zone's groups of some shards.
    fn groups_of(
        &self,
        catalog: &Catalog,
        keyspace: KeyspaceId,
        shards: &BTreeSet<ShardId>,
    ) -> Result<BTreeMap<ShardId, GroupId>, Failure> {
        let zone = self.calls.shared.zone;
        let group = |shard: &ShardId| {
            let record = catalog.serving(keyspace, *shard, zone);
            let record = record.ok_or_else(|| Failure::no_replica(*shard))?;
            Ok((*shard, record.id))
        };
        shards.iter().map(group).collect()
    }

    /// Where each shard stands.
    async fn present(&self, groups: BTreeMap<ShardId, GroupId>) -> Result<Positions, Failure> {
        let engine = self.engine.clone();
        let read = move || -> Result<Positions, Failure> {
            let view = engine.0.view().map_err(from_store)?;
            let position = |(shard, group)| {
                let present = changes::present(&*view, group).map_err(Failure::from_core)?;
                let present = present.ok_or_else(|| Failure::no_replica(shard))?;
                Ok((shard, present))
            };
            groups.into_iter().map(position).collect()
        };
        off_thread(read).await?
    }
}

impl Watching {
    /// Why the watch ended; it does not end by itself.
    async fn run(mut self) -> Failure {
        let mut closing = self.service.calls.shared.watch_closing();
        tokio::select! {
            ended = self.follow() => match ended {
                Err(failure) => failure,
                Ok(never) => match never {},
            },
            _ = closing.wait_for(|closing| *closing) => Failure::draining(),
        }
    }

    async fn follow(&mut self) -> Result<Infallible, Failure> {
        self.tell(Vec::new()).await?;
        let mut behind = BTreeSet::new();
        loop {
            let changed = if behind.is_empty() {
                self.wait(WATCH_SILENCE).await
            } else {
                self.registration.taken()
            };
            behind.extend(changed);
            self.refresh()?;
            let now: Vec<ShardId> = behind.iter().copied().take(SHARDS_AT_ONCE).collect();
            for (shard, page) in self.read(now).await? {
                if !self.show(shard, page).await? {
                    behind.remove(&shard);
                }
            }
        }
    }

    /// Waits for changes. After a silence the watcher is told where it stands, unless it has yet to take what it was
    /// told before; and every shard is looked at, so that no missed call can hide a change for long.
    async fn wait(&mut self, silence: Duration) -> BTreeSet<ShardId> {
        if let Ok(changed) = tokio::time::timeout(silence, self.registration.take()).await {
            return changed;
        }
        if let Ok(message) = self.message(Vec::new()) {
            self.inlet.offer(message);
        }
        self.groups.keys().copied().collect()
    }

    /// Follows changes of the catalog: the keyspace may be gone, a group may have begun anew.
    fn refresh(&mut self) -> Result<(), Failure> {
        let catalog = self.service.calls.shared.catalog();
        if catalog.revision == self.catalog.revision {
            return Ok(());
        }
        self.catalog = catalog;
        self.scope()?;
        let shards = self.groups.keys().copied().collect();
        self.groups = self
            .service
            .groups_of(&self.catalog, self.keyspace, &shards)?;
        Ok(())
    }

    fn scope(&self) -> Result<Scope<'_>, Failure> {
        let keyspace = self.catalog.keyspaces.get(&self.keyspace);
        Ok(Scope {
            catalog: &self.catalog,
            keyspace: keyspace.ok_or_else(|| Failure::from_core(Error::KeyspaceNotFound))?,
            zone: self.service.calls.shared.zone,
            wall_ms: wall_ms(),
        })
    }

    /// What comes next in each of some shards, in one state of the store.
    async fn read(&self, shards: Vec<ShardId>) -> Result<Vec<(ShardId, Changes)>, Failure> {
        let place = |shard: ShardId| {
            let (group, at) = (self.groups.get(&shard)?, self.positions.get(&shard)?);
            Some((shard, *group, *at))
        };
        let places: Vec<(ShardId, GroupId, Position)> =
            shards.into_iter().filter_map(place).collect();
        let (engine, selection) = (self.service.engine.clone(), self.selection.clone());
        let read = move || -> Result<Vec<(ShardId, Changes)>, Failure> {
            let view = engine.0.view().map_err(from_store)?;
            let page = |(shard, group, at)| {
                let page = changes::page(&*view, group, at, &selection, PAGE);
                page.map(|page| (shard, page)).map_err(Failure::from_core)
            };
            places.into_iter().map(page).collect()
        };
        off_thread(read).await?
    }

    /// Shows a page; true when there is more after it.
    async fn show(&mut self, shard: ShardId, page: Changes) -> Result<bool, Failure> {
        match page {
            Changes::Page {
                changes,
                through,
                more,
            } => {
                let before = self.positions.get(&shard).copied().unwrap_or_default();
                let passed = through.change.saturating_sub(before.change);
                let events = self.events(shard, through.life, changes)?;
                self.positions.insert(shard, through);
                if events.is_empty() {
                    self.skipped = self.skipped.saturating_add(passed);
                }
                if !events.is_empty() || self.skipped > WATCH_SKIPPED_MAX {
                    self.tell(events).await?;
                }
                Ok(more)
            }
            Changes::Compacted(_) => Err(Failure::compacted()),
            Changes::Absent => Err(Failure::no_replica(shard)),
        }
    }

    /// The events of a page of one shard, each with the revision after it.
    fn events(
        &mut self,
        shard: ShardId,
        life: u32,
        changes: Vec<Change>,
    ) -> Result<Vec<kv::WatchEvent>, Failure> {
        let mut events = Vec::with_capacity(changes.len());
        for change in changes {
            let number = change.number;
            self.positions.insert(
                shard,
                Position {
                    life,
                    change: number,
                },
            );
            let revision = self.revision()?;
            events.push(self.scope()?.event(change, revision));
        }
        Ok(events)
    }

    fn revision(&self) -> Result<Bytes, Failure> {
        let zone = self.service.calls.shared.zone;
        Ok(revisions::seal(&self.scope()?, zone, &self.positions))
    }

    fn message(&self, events: Vec<kv::WatchEvent>) -> Result<kv::WatchResponse, Failure> {
        Ok(kv::WatchResponse {
            events,
            revision: self.revision()?,
            served_by: Some(self.service.calls.shared.served_by()),
        })
    }

    async fn tell(&mut self, events: Vec<kv::WatchEvent>) -> Result<(), Failure> {
        self.skipped = 0;
        let message = self.message(events)?;
        self.inlet.send(message).await
    }
}

fn selection(keys: Option<kv::watch_request::Keys>) -> Result<Selection, Failure> {
    use kv::watch_request::Keys;
    match keys {
        Some(Keys::Key(key)) => check_key(&key).map(|()| Selection::Key(key)),
        Some(Keys::Prefix(prefix)) if prefix.len() > KEY_SIZE_BYTES_MAX => Err(Failure::too_large(
            "KEY_TOO_LARGE",
            "prefix",
            prefix.len(),
            KEY_SIZE_BYTES_MAX,
        )),
        Some(Keys::Prefix(prefix)) => Ok(Selection::Prefix(prefix)),
        None => Err(Failure::invalid(
            "INVALID_ARGUMENT",
            "neither a key nor a prefix to watch",
        )),
    }
}

fn shards_of(scope: &Scope<'_>, selection: &Selection) -> BTreeSet<ShardId> {
    match selection {
        Selection::Key(key) => BTreeSet::from([scope.keyspace.shard_of(key)]),
        Selection::Prefix(_) => (0..scope.keyspace.shards).map(ShardId).collect(),
    }
}

fn from_store(error: meridian_storage::StorageError) -> Failure {
    Failure::from_core(error.into())
}

async fn off_thread<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(read).await {
        Ok(read) => Ok(read),
        // The pool is ending with the process.
        Err(_) => Err(Failure::draining()),
    }
}
