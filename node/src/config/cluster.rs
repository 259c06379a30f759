//! The cluster file: zones, nodes, addresses. It seeds the first start of a cluster; afterwards the control group's
//! record rules, and the core names the differences.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use meridian_causal::ZoneId;
use meridian_core::config::{ClusterSeed, NodeSeed, ZoneSeed};
use meridian_core::ids::NodeId;
use serde::Deserialize;

use super::error::ConfigError;

/// Longest name of a cluster, zone or node.
const NAME_BYTES_MAX: usize = 63;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterFile {
    cluster: String,
    #[serde(default)]
    zone: Vec<ZoneEntry>,
    #[serde(default)]
    node: Vec<NodeEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ZoneEntry {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeEntry {
    name: String,
    id: u64,
    zone: String,
    addr: String,
    peer_addr: String,
    metrics_addr: Option<String>,
}

/// A cluster file that makes sense.
///
/// Invariants: names and ids are unique; every node stands in a listed zone; a zone's id is its 1-based position.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// What the core is told of it.
    pub seed: ClusterSeed,
    /// Metrics addresses by node id; the core has no use for them.
    pub metrics_addrs: BTreeMap<u64, String>,
}

impl Cluster {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Judges `text`; `path` is for the message only.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: ClusterFile = toml::from_str(text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        check_name("cluster", &file.cluster)?;
        let zones = zones_of(&file)?;
        let nodes = file
            .node
            .iter()
            .map(|node| seed_of(node, &zones))
            .collect::<Result<Vec<_>, _>>()?;
        check_nodes(&nodes)?;
        let metrics_addrs = file
            .node
            .iter()
            .filter_map(|node| node.metrics_addr.clone().map(|addr| (node.id, addr)))
            .collect();
        Ok(Self {
            seed: ClusterSeed {
                cluster: file.cluster,
                zones,
                nodes,
            },
            metrics_addrs,
        })
    }

    /// The node of that name.
    pub fn node_named(&self, name: &str) -> Result<&NodeSeed, ConfigError> {
        self.seed
            .nodes
            .iter()
            .find(|node| node.name == name)
            .ok_or_else(|| ConfigError::UnknownNode {
                name: name.to_owned(),
                known: self
                    .seed
                    .nodes
                    .iter()
                    .map(|node| node.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// The name of a zone; empty for one that is not listed.
    pub fn zone_name(&self, zone: ZoneId) -> &str {
        self.seed
            .zones
            .iter()
            .find(|seed| seed.id == zone)
            .map_or("", |seed| seed.name.as_str())
    }
}

fn zones_of(file: &ClusterFile) -> Result<Vec<ZoneSeed>, ConfigError> {
    if file.zone.is_empty() {
        return Err(ConfigError::Empty { what: "zone" });
    }
    unique("zone", file.zone.iter().map(|zone| zone.name.clone()))?;
    let mut zones = Vec::new();
    for (position, zone) in (1..).zip(&file.zone) {
        check_name("zone", &zone.name)?;
        zones.push(ZoneSeed {
            id: ZoneId(position),
            name: zone.name.clone(),
        });
    }
    Ok(zones)
}

fn seed_of(node: &NodeEntry, zones: &[ZoneSeed]) -> Result<NodeSeed, ConfigError> {
    check_name("node", &node.name)?;
    if node.id == 0 || node.id > u64::from(u32::MAX) {
        return Err(ConfigError::OutOfRange {
            field: "node.id",
            found: node.id,
            min: 1,
            max: u64::from(u32::MAX),
        });
    }
    check_address("addr", &node.addr)?;
    check_address("peer_addr", &node.peer_addr)?;
    if let Some(addr) = &node.metrics_addr {
        check_address("metrics_addr", addr)?;
    }
    let zone = zones
        .iter()
        .find(|zone| zone.name == node.zone)
        .ok_or_else(|| ConfigError::UnknownZone {
            node: node.name.clone(),
            zone: node.zone.clone(),
        })?;
    Ok(NodeSeed {
        id: NodeId(node.id),
        name: node.name.clone(),
        zone: zone.id,
        addr: node.addr.clone(),
        peer_addr: node.peer_addr.clone(),
    })
}

fn check_nodes(nodes: &[NodeSeed]) -> Result<(), ConfigError> {
    if nodes.is_empty() {
        return Err(ConfigError::Empty { what: "node" });
    }
    unique("node", nodes.iter().map(|node| node.name.clone()))?;
    unique("node id", nodes.iter().map(|node| node.id.to_string()))?;
    unique(
        "address",
        nodes
            .iter()
            .flat_map(|node| [node.addr.clone(), node.peer_addr.clone()]),
    )
}

/// Names appear in dots (`zone.3:42`), lists and log lines, where other characters would be ambiguous.
fn check_name(what: &'static str, name: &str) -> Result<(), ConfigError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if fits && plain {
        Ok(())
    } else {
        Err(ConfigError::BadName {
            what,
            value: name.to_owned(),
        })
    }
}

/// `host:port`; the host is resolved only when it is used.
fn check_address(field: &'static str, address: &str) -> Result<(), ConfigError> {
    let bad = |reason: &str| ConfigError::BadAddress {
        field,
        address: address.to_owned(),
        reason: reason.to_owned(),
    };
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| bad("it has no port"))?;
    if host.is_empty() || host.contains(char::is_whitespace) || host.contains('/') {
        return Err(bad("the host is not a name or an IP address"));
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(()),
        Ok(_) | Err(_) => Err(bad("the port is not a number from 1 to 65535")),
    }
}

fn unique(what: &'static str, values: impl Iterator<Item = String>) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    for value in values {
        if seen.contains(&value) {
            return Err(ConfigError::Duplicate { what, value });
        }
        seen.insert(value);
    }
    Ok(())
}
