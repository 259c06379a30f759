//! Which zones, nodes and addresses a cluster of real processes has, and its cluster file.
//!
//! A cluster takes a /24 of its own inside 127.78.0.0/16, proven free by binding every address of it at once.

use std::fmt;
use std::net::TcpListener;
use std::str::FromStr;

const CLIENT_PORT: u16 = 7400;
const PEER_PORT: u16 = 7401;
const METRICS_PORT: u16 = 7402;
/// Zones and nodes per zone at most; a host number is ten times the zone and the node.
const SIDE_MAX: u8 = 9;

/// How many zones, and nodes in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Zones.
    pub zones: u8,
    /// Nodes of each zone.
    pub nodes_per_zone: u8,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sides = text.split_once('x');
        let parsed =
            sides.and_then(|(zones, nodes)| Some((zones.parse().ok()?, nodes.parse().ok()?)));
        match parsed {
            Some((zones @ 1..=SIDE_MAX, nodes_per_zone @ 1..=SIDE_MAX)) => Ok(Self {
                zones,
                nodes_per_zone,
            }),
            Some(_) | None => Err(format!(
                "{text:?} is not of the form ZONESxNODES, each 1 to {SIDE_MAX}"
            )),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.zones, self.nodes_per_zone)
    }
}

/// One node of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The zone it stands in.
    pub zone: String,
    id: u8,
    host: String,
}

impl Node {
    /// Where clients reach it.
    pub fn addr(&self) -> String {
        format!("{}:{CLIENT_PORT}", self.host)
    }

    fn addrs(&self) -> [String; 3] {
        [CLIENT_PORT, PEER_PORT, METRICS_PORT].map(|port| format!("{}:{port}", self.host))
    }
}

/// A cluster on 127.78.`subnet`.0/24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    shape: Shape,
    subnet: u8,
}

impl Plan {
    /// A plan whose addresses nobody listens on, looked for from subnet `first`.
    pub fn free(shape: Shape, first: u8) -> Option<Self> {
        let plans = (0..=u8::MAX).map(|step| Self {
            shape,
            subnet: first.wrapping_add(step),
        });
        plans.into_iter().find(|plan| plan.is_free())
    }

    /// All addresses are held at once, so that none is counted twice.
    fn is_free(self) -> bool {
        let addrs = self.nodes().into_iter().flat_map(|node| node.addrs());
        let held: Result<Vec<_>, _> = addrs.map(TcpListener::bind).collect();
        held.is_ok()
    }

    /// Names of the zones.
    pub fn zones(self) -> Vec<String> {
        (1..=self.shape.zones)
            .map(|zone| format!("zone-{zone}"))
            .collect()
    }

    /// Nodes n1, n2, …, zone after zone.
    pub fn nodes(self) -> Vec<Node> {
        let places = (1..=self.shape.zones)
            .flat_map(|zone| (1..=self.shape.nodes_per_zone).map(move |node| (zone, node)));
        let nodes = (1..).zip(places).map(|(id, (zone, node))| Node {
            name: format!("n{id}"),
            zone: format!("zone-{zone}"),
            id,
            host: format!("127.78.{}.{}", self.subnet, zone * 10 + node),
        });
        nodes.collect()
    }

    /// The cluster file.
    pub fn cluster_file(self) -> String {
        let mut lines = vec!["cluster = \"experiment\"".to_owned()];
        lines.extend(
            self.zones()
                .iter()
                .map(|zone| format!("[[zone]]\nname = \"{zone}\"")),
        );
        for node in self.nodes() {
            let [addr, peer_addr, metrics_addr] = node.addrs();
            let Node {
                name,
                zone,
                id,
                host: _,
            } = node;
            lines.push(format!(
                "[[node]]\nname = \"{name}\"\nid = {id}\nzone = \"{zone}\"\naddr = \"{addr}\"\n\
                 peer_addr = \"{peer_addr}\"\nmetrics_addr = \"{metrics_addr}\""
            ));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_read_as_it_is_written_and_nonsense_is_refused() {
        let shape: Shape = "3x1".parse().unwrap();
        assert_eq!((shape.zones, shape.nodes_per_zone), (3, 1));
        assert_eq!(shape.to_string(), "3x1");
        for text in ["", "3", "x3", "0x1", "3x0", "10x1", "3x1x1", "-1x2"] {
            assert!(text.parse::<Shape>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_ids_and_addresses_are_unique_and_in_the_cluster_file() {
        let plan = Plan {
            shape: "3x3".parse().unwrap(),
            subnet: 9,
        };
        let nodes = plan.nodes();
        let mut addrs: Vec<_> = nodes.iter().flat_map(Node::addrs).collect();
        addrs.sort();
        addrs.dedup();
        assert_eq!((nodes.len(), addrs.len()), (9, 27));
        let file: toml::Table = plan.cluster_file().parse().unwrap();
        assert_eq!(file["zone"].as_array().unwrap().len(), 3);
        let last = &file["node"].as_array().unwrap()[8];
        assert_eq!(last["id"].as_integer(), Some(9));
        assert_eq!(last["zone"].as_str(), Some("zone-3"));
    }

    #[test]
    fn a_subnet_with_one_address_taken_is_passed_over() {
        let shape = "1x2".parse().unwrap();
        let plan = Plan::free(shape, 200).unwrap();
        let _taken = TcpListener::bind(plan.nodes()[1].addr()).unwrap();
        assert!(!plan.is_free());
        assert_ne!(Plan::free(shape, plan.subnet), Some(plan));
    }
}
