//! What all parts of the shell look at: who this node is, the catalog, where leaders are, how the node is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use meridian_causal::ZoneId;
use meridian_core::catalog::Catalog;
use meridian_core::ids::{GroupId, KeyspaceId, NodeId, ShardId};
use meridian_proto::kv::v1 as kv;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::NodeConfig;
use crate::metrics::Metrics;
use crate::watched::Watched;

/// Where the leader of a group is thought to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) node: NodeId,
    pub(crate) term: u64,
}

/// The state of the process that is not a core's.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) cluster: String,
    pub(crate) node: NodeId,
    pub(crate) node_name: String,
    pub(crate) zone: ZoneId,
    pub(crate) zone_name: String,
    pub(crate) metrics_addrs: BTreeMap<u64, String>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    catalog: watch::Sender<Arc<Catalog>>,
    leaders: RwLock<BTreeMap<GroupId, Leader>>,
    differences: Mutex<BTreeSet<String>>,
    draining: AtomicBool,
    /// Streams are to end once everything on them is answered.
    closing: watch::Sender<bool>,
    disk_full: AtomicBool,
    /// Requests given to cores and not answered.
    in_flight: AtomicUsize,
    poisoned: watch::Sender<Option<String>>,
    /// Whom core threads wake.
    pub(crate) watched: Arc<Watched>,
}

impl Shared {
    pub(crate) fn new(config: &NodeConfig, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            cluster: config.cluster.cluster.clone(),
            node: config.node.id,
            node_name: config.node.name.clone(),
            zone: config.node.zone,
            zone_name: config.zone_name.clone(),
            metrics_addrs: config.metrics_addrs.clone(),
            clock,
            metrics: Metrics::new(),
            catalog: watch::Sender::new(Arc::new(Catalog::default())),
            leaders: RwLock::default(),
            differences: Mutex::default(),
            draining: AtomicBool::new(false),
            closing: watch::Sender::new(false),
            disk_full: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            poisoned: watch::Sender::new(None),
            watched: Arc::default(),
        })
    }

    /// The catalog as this node knows it; of revision 0 until the cluster is founded or has admitted it.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.borrow())
    }

    /// For whoever waits for a change of the catalog.
    pub(crate) fn watch_catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.subscribe()
    }

    pub(crate) fn learn_catalog(&self, catalog: Arc<Catalog>) {
        self.catalog.send_replace(catalog);
    }

    pub(crate) fn learn_leader(&self, group: GroupId, leader: Option<NodeId>, term: u64) {
        let mut leaders = self.leaders.write().unwrap_or_else(PoisonError::into_inner);
        match leader {
            Some(node) => leaders.insert(group, Leader { node, term }),
            None => leaders.remove(&group),
        };
    }

    /// Every leader this node knows of.
    pub(crate) fn leaders(&self) -> BTreeMap<GroupId, Leader> {
        self.leaders
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The leader of a shard in this zone.
    pub(crate) fn leader_of(&self, keyspace: KeyspaceId, shard: ShardId) -> Option<NodeId> {
        let leaders = self.leaders.read().unwrap_or_else(PoisonError::into_inner);
        let zone = self
            .catalog()
            .keyspaces
            .get(&keyspace)
            .map_or(self.zone, |found| found.policy.serving_zone(self.zone));
        let first = GroupId {
            keyspace,
            shard,
            zone,
            epoch: 0,
        };
        let last = GroupId {
            epoch: u32::MAX,
            ..first
        };
        leaders
            .range(first..=last)
            .next_back()
            .map(|(_, leader)| leader.node)
    }

    pub(crate) fn learn_difference(&self, difference: String) {
        self.differences
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(difference);
    }

    /// Differences between the cluster file and the catalog.
    pub(crate) fn differences(&self) -> Vec<String> {
        self.differences
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Lets streams end.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }

    pub(crate) fn watch_closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(crate) fn disk_full(&self, full: bool) {
        self.disk_full.store(full, Ordering::Release);
    }

    /// Why the node does not serve, if it does not.
    pub(crate) fn trouble(&self) -> Option<String> {
        if let Some(reason) = self.poisoned.borrow().clone() {
            return Some(reason);
        }
        if self.is_draining() {
            return Some("the node is stopping".to_owned());
        }
        self.disk_full
            .load(Ordering::Acquire)
            .then(|| "the disk is full".to_owned())
    }

    /// The store failed: the node is to stop, with an error.
    pub(crate) fn poison(&self, reason: String) {
        self.poisoned.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(reason);
            }
            first
        });
    }

    /// For whoever waits for the store to fail.
    pub(crate) fn watch_poison(&self) -> watch::Receiver<Option<String>> {
        self.poisoned.subscribe()
    }

    pub(crate) fn began(&self, requests: usize) {
        self.in_flight.fetch_add(requests, Ordering::Relaxed);
    }

    pub(crate) fn finished(&self, requests: usize) {
        self.in_flight.fetch_sub(requests, Ordering::Relaxed);
    }

    /// Requests given to cores and not answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// This node, as the one who answers.
    pub(crate) fn served_by(&self) -> kv::ServedBy {
        kv::ServedBy {
            zone: self.zone_name.clone(),
            node: self.node_name.clone(),
        }
    }

    /// Another node, as the one who answers.
    pub(crate) fn served_by_node(&self, node: NodeId) -> Option<kv::ServedBy> {
        let catalog = self.catalog.borrow();
        let record = catalog.nodes.get(&node)?;
        let zone = catalog.zones.get(&record.zone)?;
        Some(kv::ServedBy {
            zone: zone.clone(),
            node: record.name.clone(),
        })
    }
}
