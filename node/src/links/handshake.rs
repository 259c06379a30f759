//! The first frame of a link: who speaks, of which cluster, to whom.

use meridian_core::ids::NodeId;
use meridian_proto::peer::v1::Handshake;
use thiserror::Error;

use super::PeerPlace;

/// Version of peer.v1 that this program speaks.
pub(super) const PROTOCOL: u32 = 1;

/// Why a link was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Refusal {
    /// The first frame is something else.
    #[error("the first frame is not a handshake")]
    NoHandshake,
    /// Another version.
    #[error("the node speaks protocol {found}, not {PROTOCOL}")]
    Protocol { found: u32 },
    /// Another cluster.
    #[error("the node is of cluster {found:?}, not {expected:?}")]
    Cluster { found: String, expected: String },
    /// An address that another node had.
    #[error("the node means to reach node {meant}, this is node {this}")]
    NotMeant { meant: u64, this: NodeId },
    /// Nobody knows it.
    #[error("node {node} is not known")]
    UnknownNode { node: u64 },
    /// It says it is where it is not.
    #[error("node {node} says it is in zone {found:?}, and is known in zone {expected:?}")]
    Zone {
        node: u64,
        found: String,
        expected: String,
    },
}

/// Judges a handshake. `place_of` tells where a node is known to be.
pub(super) fn judge(
    handshake: &Handshake,
    cluster: &str,
    this: NodeId,
    place_of: impl Fn(NodeId) -> Option<PeerPlace>,
) -> Result<(NodeId, PeerPlace), Refusal> {
    if handshake.protocol != PROTOCOL {
        return Err(Refusal::Protocol {
            found: handshake.protocol,
        });
    }
    if handshake.cluster != cluster {
        return Err(Refusal::Cluster {
            found: handshake.cluster.clone(),
            expected: cluster.to_owned(),
        });
    }
    if handshake.to != this.0 {
        return Err(Refusal::NotMeant {
            meant: handshake.to,
            this,
        });
    }
    let node = NodeId(handshake.node);
    let place = place_of(node).ok_or(Refusal::UnknownNode { node: node.0 })?;
    if place.zone_name != handshake.zone {
        let (found, expected) = (handshake.zone.clone(), place.zone_name);
        return Err(Refusal::Zone {
            node: node.0,
            found,
            expected,
        });
    }
    Ok((node, place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_causal::ZoneId;

    fn good() -> Handshake {
        Handshake {
            protocol: PROTOCOL,
            cluster: "demo".into(),
            node: 2,
            zone: "eu".into(),
            to: 1,
        }
    }

    fn judged(handshake: &Handshake) -> Result<NodeId, Refusal> {
        let place = PeerPlace {
            name: "n2".into(),
            zone: ZoneId(2),
            zone_name: "eu".into(),
            peer_addr: "127.0.0.1:1".into(),
        };
        let place_of = |node: NodeId| (node == NodeId(2)).then(|| place.clone());
        judge(handshake, "demo", NodeId(1), place_of).map(|(node, _)| node)
    }

    #[test]
    fn a_known_node_of_the_cluster_is_welcome() {
        assert_eq!(judged(&good()), Ok(NodeId(2)));
    }

    #[test]
    fn whatever_does_not_fit_is_refused_by_name() {
        let cases = [
            (
                Handshake {
                    protocol: 9,
                    ..good()
                },
                "protocol 9",
            ),
            (
                Handshake {
                    cluster: "prod".into(),
                    ..good()
                },
                "cluster \"prod\", not \"demo\"",
            ),
            (
                Handshake { to: 3, ..good() },
                "means to reach node 3, this is node 1",
            ),
            (Handshake { node: 7, ..good() }, "node 7 is not known"),
            (
                Handshake {
                    zone: "us".into(),
                    ..good()
                },
                "zone \"us\", and is known in zone \"eu\"",
            ),
            (Handshake::default(), "protocol 0"),
        ];
        for (handshake, expected) in cases {
            let message = judged(&handshake).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
