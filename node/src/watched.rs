//! Who is to be woken when shards change.
//!
//! Core threads say which groups changed, after each turn that is written; watchers look at what is stored. A turn that
//! nobody watches costs a fence and a load.
//!
//! Invariant: a watcher that is registered and then looks at the store misses nothing: either it sees a change there, or
//! it is woken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use meridian_core::ids::{GroupId, KeyspaceId, ShardId};
use tokio::sync::Notify;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    count: AtomicUsize,
    wakers: RwLock<BTreeMap<KeyspaceId, Vec<Arc<Waker>>>>,
}

/// What one watcher is told.
#[derive(Debug)]
struct Waker {
    shards: BTreeSet<ShardId>,
    changed: Mutex<BTreeSet<ShardId>>,
    notify: Notify,
}

/// A watcher, as long as it is held.
#[derive(Debug)]
pub(crate) struct Registration {
    watched: Arc<Watched>,
    keyspace: KeyspaceId,
    waker: Arc<Waker>,
}

impl Watched {
    /// A watcher of some shards; `None` when there are `max` already. All of them count as changed.
    pub(crate) fn register(
        self: &Arc<Self>,
        keyspace: KeyspaceId,
        shards: BTreeSet<ShardId>,
        max: usize,
    ) -> Option<Registration> {
        if self.count.fetch_add(1, Ordering::SeqCst) >= max {
            self.count.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        let waker = Arc::new(Waker {
            changed: Mutex::new(shards.clone()),
            shards,
            notify: Notify::new(),
        });
        let mut wakers = self.wakers.write().unwrap_or_else(PoisonError::into_inner);
        wakers.entry(keyspace).or_default().push(Arc::clone(&waker));
        Some(Registration {
            watched: Arc::clone(self),
            keyspace,
            waker,
        })
    }

    /// These groups have changed, and what changed is in the store.
    pub(crate) fn changed(&self, groups: &[GroupId]) {
        // Against the store's last write: without it the count could be read before a watcher can see the change.
        fence(Ordering::SeqCst);
        if groups.is_empty() || self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let wakers = self.wakers.read().unwrap_or_else(PoisonError::into_inner);
        for group in groups {
            for waker in wakers.get(&group.keyspace).into_iter().flatten() {
                waker.wake(group.shard);
            }
        }
    }
}

impl Waker {
    fn wake(&self, shard: ShardId) {
        if !self.shards.contains(&shard) {
            return;
        }
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.insert(shard);
        self.notify.notify_one();
    }
}

impl Registration {
    /// The shards that have changed since they were last taken.
    pub(crate) fn taken(&self) -> BTreeSet<ShardId> {
        let changed = &self.waker.changed;
        std::mem::take(&mut *changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same, once there is one.
    pub(crate) async fn take(&self) -> BTreeSet<ShardId> {
        loop {
            let notified = self.waker.notify.notified();
            let changed = self.taken();
            if !changed.is_empty() {
                return changed;
            }
            notified.await;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut wakers = self
            .watched
            .wakers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(of) = wakers.get_mut(&self.keyspace) {
            of.retain(|waker| !Arc::ptr_eq(waker, &self.waker));
            if of.is_empty() {
                wakers.remove(&self.keyspace);
            }
        }
        drop(wakers);
        self.watched.count.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use meridian_causal::ZoneId;

    fn group(keyspace: u32, shard: u16) -> GroupId {
        GroupId {
            keyspace: KeyspaceId(keyspace),
            shard: ShardId(shard),
            zone: ZoneId(1),
            epoch: 0,
        }
    }

    fn register(watched: &Arc<Watched>, shards: &[u16]) -> Registration {
        let shards = shards.iter().copied().map(ShardId).collect();
        watched.register(KeyspaceId(1), shards, 2).unwrap()
    }

    fn taken(registration: &Registration) -> Option<Vec<u16>> {
        let taken = registration.take().now_or_never()?;
        Some(taken.into_iter().map(|shard| shard.0).collect())
    }

    #[test]
    fn a_watcher_is_woken_for_its_shards_only_and_finds_all_of_them_changed_at_first() {
        let watched = Arc::new(Watched::default());
        let watcher = register(&watched, &[1, 2]);
        assert_eq!(taken(&watcher), Some(vec![1, 2]));
        assert_eq!(taken(&watcher), None);
        watched.changed(&[group(1, 3), group(2, 1)]);
        assert_eq!(taken(&watcher), None);
        watched.changed(&[group(1, 2)]);
        watched.changed(&[group(1, 2), group(1, 1)]);
        assert_eq!(taken(&watcher), Some(vec![1, 2]));
        assert_eq!(taken(&watcher), None);
    }

    #[test]
    fn past_their_number_watchers_are_refused_until_one_leaves() {
        let watched = Arc::new(Watched::default());
        let (one, _two) = (register(&watched, &[1]), register(&watched, &[1]));
        let more = || watched.register(KeyspaceId(1), BTreeSet::new(), 2);
        assert!(more().is_none());
        drop(one);
        assert!(more().is_some());
    }
}
