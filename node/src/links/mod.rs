//! Links to other nodes: one outgoing stream per node, one incoming stream from each.
//!
//! What it is not: reliable. A link may lose messages (full queues, broken connections, faults set on purpose); the
//! protocols inside the core cope. Nothing here looks into a message beyond its size and its core.
//!
//! Invariants: what waits for a node is bounded in messages and bytes; a core thread never waits for a link; bytes
//! that make no sense close their stream and nothing else.
//!
//! Read `outgoing` for the sending side, `incoming` for the receiving one, `conditioner` for faults.

pub(crate) mod conditioner;
mod handshake;
mod incoming;
mod line;
mod log_limit;
mod outgoing;
mod queue;
mod weight;

pub(crate) use weight::weight;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use meridian_causal::ZoneId;
use meridian_core::catalog::Catalog;
use meridian_core::config::ClusterSeed;
use meridian_core::ids::NodeId;
use meridian_core::message::PeerMessage;

use crate::shared::Shared;
use conditioner::Conditioner;
use outgoing::Outgoing;

pub(crate) use incoming::Incoming;

/// Where another node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerPlace {
    pub(crate) name: String,
    pub(crate) zone: ZoneId,
    pub(crate) zone_name: String,
    pub(crate) peer_addr: String,
}

/// The links of this node.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) conditioner: Arc<Conditioner>,
    shared: Arc<Shared>,
    outgoing: RwLock<BTreeMap<NodeId, Arc<Outgoing>>>,
    runtime: tokio::runtime::Handle,
}

impl Links {
    /// Links to the nodes that the cluster file names. To be called inside the runtime.
    pub(crate) fn start(seed: &ClusterSeed, shared: &Arc<Shared>) -> Arc<Self> {
        let links = Arc::new(Self {
            conditioner: Arc::new(Conditioner::default()),
            shared: Arc::clone(shared),
            outgoing: RwLock::default(),
            runtime: tokio::runtime::Handle::current(),
        });
        for node in &seed.nodes {
            let zone_name = seed
                .zones
                .iter()
                .find(|zone| zone.id == node.zone)
                .map(|zone| zone.name.clone());
            links.place(
                node.id,
                PeerPlace {
                    name: node.name.clone(),
                    zone: node.zone,
                    zone_name: zone_name.unwrap_or_default(),
                    peer_addr: node.peer_addr.clone(),
                },
            );
        }
        links
    }

    /// Follows the catalog: nodes that are new, and nodes that have moved.
    pub(crate) fn learn(&self, catalog: &Catalog) {
        for (id, node) in &catalog.nodes {
            self.place(
                *id,
                PeerPlace {
                    name: node.name.clone(),
                    zone: node.zone,
                    zone_name: catalog.zones.get(&node.zone).cloned().unwrap_or_default(),
                    peer_addr: node.peer_addr.clone(),
                },
            );
        }
    }

    fn place(&self, node: NodeId, place: PeerPlace) {
        if node == self.shared.node {
            return;
        }
        let mut outgoing = self
            .outgoing
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = outgoing.get(&node) {
            link.moved(place);
            return;
        }
        let link = Outgoing::new(node, place, &self.shared, &self.conditioner);
        self.runtime.spawn(Arc::clone(&link).run());
        outgoing.insert(node, link);
    }

    /// Queues messages for a node; what finds no room is dropped and counted.
    pub(crate) fn send(&self, node: NodeId, messages: Vec<PeerMessage>) {
        let outgoing = self.outgoing.read().unwrap_or_else(PoisonError::into_inner);
        match outgoing.get(&node) {
            Some(link) => link.send(messages),
            None => self.shared.metrics.dropped_outgoing(messages.len()),
        }
    }

    /// Where `node` is, if it is known.
    pub(crate) fn place_of(&self, node: NodeId) -> Option<PeerPlace> {
        let outgoing = self.outgoing.read().unwrap_or_else(PoisonError::into_inner);
        outgoing.get(&node).map(|link| link.place())
    }

    /// Every other node, and whether the link to it stands.
    pub(crate) fn peers(&self) -> Vec<(PeerPlace, bool)> {
        let outgoing = self.outgoing.read().unwrap_or_else(PoisonError::into_inner);
        outgoing
            .values()
            .map(|link| (link.place(), link.is_connected()))
            .collect()
    }

    /// Messages that wait for other nodes.
    pub(crate) fn queued_messages(&self) -> usize {
        let outgoing = self.outgoing.read().unwrap_or_else(PoisonError::into_inner);
        outgoing.values().map(|link| link.queued_messages()).sum()
    }
}
