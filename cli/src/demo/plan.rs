//! What a demo cluster consists of: zones, nodes, addresses, and the cluster file. Pure.

use serde::{Deserialize, Serialize};

/// Zones of a demo.
pub(super) const ZONES: [&str; 3] = ["us-east", "eu-west", "ap-south"];

/// One-way delays between them, in milliseconds.
pub(super) const DELAYS_MS: [(&str, &str, u64); 3] = [
    ("us-east", "eu-west", 30),
    ("eu-west", "ap-south", 50),
    ("us-east", "ap-south", 70),
];

const CLIENT_PORT: u16 = 7400;
const PEER_PORT: u16 = 7401;
const METRICS_PORT: u16 = 7402;

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) zone: &'static str,
    id: usize,
    host: String,
}

impl Node {
    pub(crate) fn addr(&self) -> String {
        format!("{}:{CLIENT_PORT}", self.host)
    }

    /// All addresses it listens on.
    pub(super) fn addrs(&self) -> [String; 3] {
        [CLIENT_PORT, PEER_PORT, METRICS_PORT].map(|port| format!("{}:{port}", self.host))
    }
}

/// A demo cluster on 127.77.`subnet`.0/24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) subnet: u8,
    pub(crate) nodes_per_zone: u8,
}

impl Plan {
    /// Nodes n1, n2, …, zone after zone.
    pub(crate) fn nodes(self) -> Vec<Node> {
        let mut nodes = Vec::new();
        for (zone_number, zone) in (1..).zip(ZONES) {
            for number in 1..=self.nodes_per_zone {
                let id = nodes.len() + 1;
                let host = zone_number * 10 + number;
                nodes.push(Node {
                    name: format!("n{id}"),
                    zone,
                    id,
                    host: format!("127.77.{}.{host}", self.subnet),
                });
            }
        }
        nodes
    }

    /// The cluster file.
    pub(super) fn cluster_file(self) -> String {
        let zones = ZONES
            .iter()
            .map(|zone| format!("[[zone]]\nname = \"{zone}\"\n"));
        let nodes = self.nodes().into_iter().map(|node| {
            let [addr, peer_addr, metrics_addr] = node.addrs();
            let (name, id, zone) = (&node.name, node.id, node.zone);
            format!(
                "[[node]]\nname = \"{name}\"\nid = {id}\nzone = \"{zone}\"\naddr = \"{addr}\"\n\
                 peer_addr = \"{peer_addr}\"\nmetrics_addr = \"{metrics_addr}\"\n"
            )
        });
        let head = std::iter::once("cluster = \"demo\"\n".to_owned());
        head.chain(zones)
            .chain(nodes)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// For `KV_ENDPOINTS`: one node of each zone first.
    pub(crate) fn endpoints(self) -> Vec<String> {
        let mut nodes = self.nodes();
        let per_zone = usize::from(self.nodes_per_zone).max(1);
        nodes.sort_by_key(|node| (node.id - 1) % per_zone);
        nodes.iter().map(Node::addr).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ids_and_addresses_are_unique() {
        let nodes = Plan {
            subnet: 9,
            nodes_per_zone: 3,
        }
        .nodes();
        assert_eq!(nodes.len(), 9);
        let mut addrs: Vec<_> = nodes.iter().flat_map(Node::addrs).collect();
        addrs.sort();
        addrs.dedup();
        assert_eq!(addrs.len(), 27);
        assert_eq!(nodes[3].name, "n4");
        assert_eq!(nodes[3].zone, "eu-west");
        assert_eq!(nodes[3].addr(), "127.77.9.21:7400");
    }

    #[test]
    fn the_cluster_file_is_valid_toml_and_lists_every_node() {
        let plan = Plan {
            subnet: 1,
            nodes_per_zone: 2,
        };
        let file: toml::Table = plan.cluster_file().parse().unwrap();
        assert_eq!(file["cluster"].as_str(), Some("demo"));
        assert_eq!(file["zone"].as_array().unwrap().len(), 3);
        let nodes = file["node"].as_array().unwrap();
        assert_eq!(nodes.len(), 6);
        assert_eq!(nodes[5]["id"].as_integer(), Some(6));
        assert_eq!(nodes[5]["zone"].as_str(), Some("ap-south"));
    }

    #[test]
    fn the_first_endpoints_are_in_different_zones() {
        let plan = Plan {
            subnet: 1,
            nodes_per_zone: 2,
        };
        let endpoints = plan.endpoints();
        assert_eq!(
            endpoints[..3],
            ["127.77.1.11:7400", "127.77.1.21:7400", "127.77.1.31:7400"]
        );
    }
}
