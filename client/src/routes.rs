//! Who is asked: the cluster as last learned, and where the leaders of the home zone are believed to be.
//!
//! Beliefs may be wrong at any time: nodes forward what is not theirs, and every answer corrects them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meridian_proto::admin::v1::TopologyResponse;
use meridian_proto::routing::shard_of;

use crate::error::{Error, ErrorKind};
use crate::link::Link;

/// A leader that is not known.
const NOBODY: usize = usize::MAX;

/// A node as the topology lists it.
pub(crate) struct RouteNode {
    pub(crate) name: String,
    pub(crate) zone: String,
    pub(crate) addr: String,
    pub(crate) link: Arc<Link>,
}

struct KeyspaceRoutes {
    shards: u32,
    /// Its shards are led from one zone for all: a zone that is cut off has no quorum, whichever of its nodes is asked.
    spans_zones: bool,
    /// By shard: position in `Routes::nodes`, or [`NOBODY`].
    leaders: Vec<AtomicUsize>,
}

/// One snapshot of the cluster. Nodes of the home zone come first.
pub(crate) struct Routes {
    pub(crate) home: String,
    pub(crate) nodes: Vec<RouteNode>,
    /// How many of `nodes` are in the home zone.
    home_nodes: usize,
    keyspaces: BTreeMap<String, KeyspaceRoutes>,
}

/// Where an operation may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Nodes of the home zone only.
    Home,
    /// The home zone first, then any other.
    Anywhere,
    /// Nodes of this zone only.
    Zone(String),
}

impl Routes {
    /// `link_to` gives the link of an address, the same one each time.
    pub(crate) fn new(
        topology: &TopologyResponse,
        wanted_zone: Option<&str>,
        link_to: impl Fn(&str) -> Result<Arc<Link>, Error>,
    ) -> Result<Self, Error> {
        let home = wanted_zone.unwrap_or(&topology.zone).to_owned();
        if !topology.zones.iter().any(|zone| zone.name == home) {
            return Err(unknown_zone(&home, topology));
        }
        let mut listed: Vec<_> = topology.nodes.iter().collect();
        listed.sort_by_key(|node| (node.zone != home, node.id));
        let mut nodes = Vec::with_capacity(listed.len());
        for node in listed {
            nodes.push(RouteNode {
                name: node.name.clone(),
                zone: node.zone.clone(),
                addr: node.addr.clone(),
                link: link_to(&node.addr)?,
            });
        }
        let home_nodes = nodes.iter().filter(|node| node.zone == home).count();
        let keyspaces = topology.keyspaces.iter().map(|keyspace| {
            let leaders = (0..keyspace.shards.max(1)).map(|_| AtomicUsize::new(NOBODY));
            let routes = KeyspaceRoutes {
                shards: keyspace.shards.max(1),
                spans_zones: keyspace.mode == "sync",
                leaders: leaders.collect(),
            };
            (keyspace.name.clone(), routes)
        });
        let routes = Self {
            home,
            home_nodes,
            keyspaces: keyspaces.collect(),
            nodes,
        };
        for leader in &topology.leaders {
            if leader.zone.is_empty() || leader.zone == routes.home {
                routes.learn(&leader.keyspace, Some(leader.shard), &leader.node);
            }
        }
        Ok(routes)
    }

    /// The shard of `key`, when the keyspace is known.
    pub(crate) fn shard(&self, keyspace: &str, key: &[u8]) -> Option<u32> {
        let routes = self.keyspaces.get(keyspace)?;
        Some(shard_of(key, routes.shards))
    }

    /// Whether the keyspace's shards span zones.
    pub(crate) fn spans_zones(&self, keyspace: &str) -> bool {
        let routes = self.keyspaces.get(keyspace);
        routes.is_some_and(|routes| routes.spans_zones)
    }

    /// Remembers that `node` leads the shard in the home zone. Others are ignored.
    pub(crate) fn learn(&self, keyspace: &str, shard: Option<u32>, node: &str) {
        let position = self.nodes.iter().position(|known| known.name == node);
        let Some(position) = position.filter(|at| *at < self.home_nodes) else {
            return;
        };
        if let Some(leader) = self.leader_cell(keyspace, shard)
            && leader.load(Ordering::Relaxed) != position
        {
            leader.store(position, Ordering::Relaxed);
        }
    }

    fn leader_cell(&self, keyspace: &str, shard: Option<u32>) -> Option<&AtomicUsize> {
        let routes = self.keyspaces.get(keyspace)?;
        routes.leaders.get(usize::try_from(shard?).ok()?)
    }

    fn leader(&self, keyspace: &str, shard: Option<u32>) -> Option<usize> {
        let leader = self.leader_cell(keyspace, shard)?.load(Ordering::Relaxed);
        (leader < self.home_nodes).then_some(leader)
    }

    /// The node to ask first: the believed leader, unless it failed a moment ago. `spread` varies the choice among the
    /// zone's nodes when no leader is known. `None` only when nobody is within reach.
    pub(crate) fn first(
        &self,
        keyspace: &str,
        shard: Option<u32>,
        reach: &Reach,
        spread: usize,
    ) -> Option<&RouteNode> {
        let leader = match reach {
            Reach::Home | Reach::Anywhere => self.leader(keyspace, shard),
            Reach::Zone(_) => None,
        };
        let leader = leader.and_then(|at| self.nodes.get(at));
        if let Some(leader) = leader.filter(|node| !node.link.is_shunned()) {
            return Some(leader);
        }
        let order = self.order(keyspace, shard, reach, spread);
        let fit = order.iter().find(|node| !node.link.is_shunned());
        fit.or(order.first()).copied()
    }

    /// Everybody who may be asked, best first: the leader, the zone's other nodes, then (only with
    /// [`Reach::Anywhere`]) the other zones' nodes.
    pub(crate) fn order(
        &self,
        keyspace: &str,
        shard: Option<u32>,
        reach: &Reach,
        spread: usize,
    ) -> Vec<&RouteNode> {
        let (home, away) = self.nodes.split_at(self.home_nodes.min(self.nodes.len()));
        if let Reach::Zone(zone) = reach {
            return self
                .nodes
                .iter()
                .filter(|node| node.zone == *zone)
                .collect();
        }
        let leader = self.leader(keyspace, shard);
        let turn = spread.checked_rem(home.len()).unwrap_or(0);
        let mut order: Vec<&RouteNode> = home.iter().cycle().skip(turn).take(home.len()).collect();
        if let Some(leader) = leader.and_then(|at| home.get(at)) {
            order.sort_by_key(|node| node.name != leader.name);
        }
        if *reach == Reach::Anywhere {
            order.extend(away);
        }
        order
    }
}

fn unknown_zone(zone: &str, topology: &TopologyResponse) -> Error {
    let known: Vec<_> = topology
        .zones
        .iter()
        .map(|zone| zone.name.as_str())
        .collect();
    Error::new(
        ErrorKind::NotFound,
        "ZONE_NOT_FOUND",
        format!(
            "no zone {zone:?} in this cluster; zones are {}",
            known.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use meridian_proto::admin::v1::{Keyspace, LeaderHint, Node, Zone};

    use super::*;

    /// Zones a and b with nodes a1, a2, b1, b2; answered by b1; shard 0 of `default` led by a2 and b2.
    fn topology() -> TopologyResponse {
        let node = |id, name: &str| Node {
            id,
            name: name.to_owned(),
            zone: zone_of(name),
            addr: format!("127.0.0.1:{id}"),
            ..Node::default()
        };
        let leader = |name: &str| LeaderHint {
            keyspace: "default".to_owned(),
            zone: zone_of(name),
            node: name.to_owned(),
            ..LeaderHint::default()
        };
        TopologyResponse {
            zones: ["a", "b"]
                .map(|name| Zone {
                    name: name.to_owned(),
                })
                .into(),
            nodes: vec![node(1, "a1"), node(2, "a2"), node(3, "b1"), node(4, "b2")],
            keyspaces: vec![Keyspace {
                name: "default".to_owned(),
                shards: 1,
                ..Keyspace::default()
            }],
            leaders: vec![leader("a2"), leader("b2")],
            zone: "b".to_owned(),
            node: "b1".to_owned(),
            ..TopologyResponse::default()
        }
    }

    fn zone_of(node: &str) -> String {
        node.chars().take(1).collect()
    }

    fn routes(zone: Option<&str>) -> Result<Routes, Error> {
        Routes::new(&topology(), zone, |addr| Link::new(addr).map(Arc::new))
    }

    fn names(order: Vec<&RouteNode>) -> Vec<&str> {
        order.into_iter().map(|node| node.name.as_str()).collect()
    }

    #[tokio::test]
    async fn the_leader_of_the_wanted_zone_comes_first_and_other_zones_last() {
        let routes = routes(Some("a")).unwrap();
        let order = names(routes.order("default", Some(0), &Reach::Anywhere, 0));
        assert_eq!(order, ["a2", "a1", "b1", "b2"]);
        let first = routes.first("default", Some(0), &Reach::Home, 7).unwrap();
        assert_eq!(first.name, "a2");
    }

    #[tokio::test]
    async fn without_a_wanted_zone_the_answering_nodes_zone_is_home() {
        let routes = routes(None).unwrap();
        assert_eq!(
            names(routes.order("default", None, &Reach::Home, 1)),
            ["b2", "b1"]
        );
    }

    #[tokio::test]
    async fn a_conditional_write_never_leaves_its_zone() {
        let routes = routes(Some("a")).unwrap();
        assert_eq!(
            names(routes.order("default", Some(0), &Reach::Home, 0)),
            ["a2", "a1"]
        );
        let zone = Reach::Zone("b".to_owned());
        assert_eq!(
            names(routes.order("default", Some(0), &zone, 0)),
            ["b1", "b2"]
        );
    }

    #[tokio::test]
    async fn a_leader_that_failed_is_passed_over_until_all_have() {
        let routes = routes(Some("a")).unwrap();
        let first = || routes.first("default", Some(0), &Reach::Home, 0).unwrap();
        first().link.shun();
        assert_eq!(first().name, "a1");
        first().link.shun();
        assert_eq!(first().name, "a2");
    }

    #[tokio::test]
    async fn a_learned_leader_is_asked_and_one_of_another_zone_is_not_believed() {
        let routes = routes(Some("a")).unwrap();
        let first = || routes.first("default", Some(0), &Reach::Home, 0).unwrap();
        routes.learn("default", Some(0), "a1");
        assert_eq!(first().name, "a1");
        routes.learn("default", Some(0), "b1");
        routes.learn("default", Some(9), "a2");
        routes.learn("elsewhere", Some(0), "a2");
        assert_eq!(first().name, "a1");
    }

    #[tokio::test]
    async fn only_a_sync_keyspace_spans_zones() {
        let mut topology = topology();
        topology.keyspaces.push(Keyspace {
            name: "ledger".to_owned(),
            mode: "sync".to_owned(),
            shards: 1,
            ..Keyspace::default()
        });
        let routes = Routes::new(&topology, None, |addr| Link::new(addr).map(Arc::new)).unwrap();
        assert!(routes.spans_zones("ledger"));
        assert!(!routes.spans_zones("default") && !routes.spans_zones("elsewhere"));
    }

    #[tokio::test]
    async fn an_unknown_zone_is_named_with_the_known_ones() {
        let error = routes(Some("c")).err().unwrap();
        assert_eq!(error.reason(), "ZONE_NOT_FOUND");
        assert!(error.message().contains("a, b"));
    }
}
