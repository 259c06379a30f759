//! Which nodes hold what.

use meridian_causal::{Incarnation, ZoneId};

use crate::catalog::{Catalog, GroupRecord, Keyspace, Mode, NodeRecord, Policy};
use crate::config::ClusterSeed;
use crate::error::Error;
use crate::ids::{GroupId, KeyspaceId, NodeId, ReplicaId, ShardId};

/// Replicas of a shard inside a zone: one may fail without a stop.
const REPLICAS: usize = 3;

/// Most voters of the control group: two may fail without a stop, and more would only slow each change.
const CONTROL_VOTERS_MAX: usize = 5;

/// The catalog of a cluster that begins.
pub(crate) fn found(
    seed: &ClusterSeed,
    (shards, policy): (u16, Policy),
    cluster_id: u128,
    token_key: [u8; 32],
    nonce: u64,
) -> Result<Catalog, Error> {
    let mut catalog = Catalog {
        revision: 0,
        cluster_id,
        cluster: seed.cluster.clone(),
        token_key,
        zones: seed
            .zones
            .iter()
            .map(|zone| (zone.id, zone.name.clone()))
            .collect(),
        nodes: seed
            .nodes
            .iter()
            .map(|node| {
                let record = NodeRecord {
                    name: node.name.clone(),
                    zone: node.zone,
                    addr: node.addr.clone(),
                    peer_addr: node.peer_addr.clone(),
                    store: None,
                    generation: 0,
                };
                (node.id, record)
            })
            .collect(),
        keyspaces: std::collections::BTreeMap::new(),
        next_keyspace: KeyspaceId(KeyspaceId::DEFAULT.0.saturating_add(1)),
        control_voters: control_voters(seed),
    };
    let near = catalog.zones.keys().next().copied().unwrap_or_default();
    let policy = policy.settle(&catalog, near)?;
    let keyspace = keyspace(
        &catalog,
        KeyspaceId::DEFAULT,
        "default",
        (shards, policy),
        nonce,
    );
    catalog.keyspaces.insert(KeyspaceId::DEFAULT, keyspace);
    Ok(catalog)
}

/// A keyspace with its groups: where its mode wants them.
pub(super) fn keyspace(
    catalog: &Catalog,
    id: KeyspaceId,
    name: &str,
    (shards, policy): (u16, Policy),
    nonce: u64,
) -> Keyspace {
    let walls: Vec<ZoneId> = match policy.mode {
        Mode::Async => policy.zones.clone(),
        Mode::Sync => vec![ZoneId::GLOBAL],
        Mode::Snapshot => policy.home.into_iter().collect(),
    };
    let mut groups = Vec::new();
    for zone in walls {
        for shard in (0..shards).map(ShardId) {
            let group = GroupId {
                keyspace: id,
                shard,
                zone,
                epoch: 0,
            };
            let voters = if zone == ZoneId::GLOBAL {
                spanning_replicas(catalog, shard, &policy)
            } else {
                replicas(catalog, shard, zone)
            };
            let incarnation = incarnation(catalog, group, nonce);
            groups.push(GroupRecord {
                id: group,
                incarnation,
                founders: voters.clone(),
                voters,
                disk_lost: false,
            });
        }
    }
    Keyspace {
        groups,
        ..Keyspace::new(id, name, shards, policy)
    }
}

/// The replicas of a shard whose group spans zones: one in each, so that no zone has half of them (protocol rule 19). The
/// first is meant to lead first: in the home zone if there is one, else the zones take turns over the shards.
fn spanning_replicas(catalog: &Catalog, shard: ShardId, policy: &Policy) -> Vec<ReplicaId> {
    let zones = &policy.zones;
    let turn = usize::from(shard.0).checked_rem(zones.len()).unwrap_or(0);
    let mut order: Vec<ZoneId> = zones
        .iter()
        .cycle()
        .skip(turn)
        .take(zones.len())
        .copied()
        .collect();
    order.sort_by_key(|zone| Some(*zone) != policy.home);
    order
        .into_iter()
        .filter_map(|zone| replicas(catalog, shard, zone).first().copied())
        .collect()
}

/// The replicas of a shard in a zone, the one meant to lead first: the nodes take turns over the shards.
fn replicas(catalog: &Catalog, shard: ShardId, zone: ZoneId) -> Vec<ReplicaId> {
    let nodes: Vec<ReplicaId> = catalog
        .nodes
        .iter()
        .filter(|(_, record)| record.zone == zone)
        .map(|(id, record)| ReplicaId::new(*id, record.generation))
        .collect();
    let start = usize::from(shard.0).checked_rem(nodes.len()).unwrap_or(0);
    nodes
        .iter()
        .cycle()
        .skip(start)
        .take(nodes.len().min(REPLICAS))
        .copied()
        .collect()
}

/// A new actor for a group: hashed from chance drawn by the proposer, and different from any other of the catalog.
pub(super) fn incarnation(catalog: &Catalog, group: GroupId, nonce: u64) -> Incarnation {
    let taken = |candidate: Incarnation| {
        let groups = catalog
            .keyspaces
            .values()
            .flat_map(|keyspace| &keyspace.groups);
        groups
            .into_iter()
            .any(|record| record.incarnation == candidate)
    };
    let mut round = 0_u64;
    loop {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(&nonce.to_be_bytes())
            .update(&round.to_be_bytes());
        hasher.update(format!("{group}").as_bytes());
        let mut bytes = [0_u8; 8];
        hasher.finalize_xof().fill(&mut bytes);
        let candidate = Incarnation::new(group.zone, u64::from_be_bytes(bytes));
        if !taken(candidate) {
            return candidate;
        }
        round = round.saturating_add(1);
    }
}

/// The first voters of the control group: an odd number (two nodes: both), taken from the zones in turn.
pub(crate) fn control_voters(seed: &ClusterSeed) -> Vec<ReplicaId> {
    let mut order: Vec<(usize, ZoneId, NodeId)> = Vec::new();
    for zone in &seed.zones {
        let mut nodes: Vec<NodeId> = seed
            .nodes
            .iter()
            .filter(|node| node.zone == zone.id)
            .map(|node| node.id)
            .collect();
        nodes.sort();
        order.extend(
            nodes
                .into_iter()
                .enumerate()
                .map(|(rank, node)| (rank, zone.id, node)),
        );
    }
    order.sort();
    let count = match order.len() {
        0..=2 => order.len(),
        len => {
            let most = len.min(CONTROL_VOTERS_MAX);
            if most % 2 == 0 {
                most.saturating_sub(1)
            } else {
                most
            }
        }
    };
    order
        .into_iter()
        .take(count)
        .map(|(_, _, node)| ReplicaId::new(node, 0))
        .collect()
}

/// The other nodes, which follow the catalog as learners.
pub(crate) fn control_learners(seed: &ClusterSeed) -> Vec<ReplicaId> {
    let voters = control_voters(seed);
    let all = seed.nodes.iter().map(|node| ReplicaId::new(node.id, 0));
    all.filter(|replica| !voters.contains(replica)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NodeSeed, ZoneSeed};

    fn seed(zones: u16, nodes: u64) -> ClusterSeed {
        ClusterSeed {
            cluster: "test".to_owned(),
            zones: (1..=zones)
                .map(|id| ZoneSeed {
                    id: ZoneId(id),
                    name: format!("z{id}"),
                })
                .collect(),
            nodes: (1..=zones)
                .flat_map(|zone| (0..nodes).map(move |rank| (zone, rank)))
                .map(|(zone, rank)| NodeSeed {
                    id: NodeId(u64::from(zone) * 10 + rank),
                    name: format!("n{zone}{rank}"),
                    zone: ZoneId(zone),
                    addr: String::new(),
                    peer_addr: String::new(),
                })
                .collect(),
        }
    }

    #[test]
    fn control_voters_are_odd_and_spread_over_zones() {
        let zones = |seed: &ClusterSeed| -> Vec<u64> {
            control_voters(seed)
                .iter()
                .map(|id| id.node().0 / 10)
                .collect()
        };
        assert_eq!(zones(&seed(3, 1)), [1, 2, 3]);
        assert_eq!(zones(&seed(3, 3)), [1, 2, 3, 1, 2]);
        assert_eq!(zones(&seed(1, 3)), [1, 1, 1]);
        assert_eq!(zones(&seed(2, 2)), [1, 2, 1]);
        assert_eq!(control_learners(&seed(3, 3)).len(), 4);
    }

    #[test]
    fn first_catalog_has_a_group_per_shard_and_zone_with_distinct_incarnations() {
        let catalog = found(&seed(3, 3), (4, Policy::default()), 7, [0; 32], 9).unwrap();
        let groups = &catalog.keyspaces[&KeyspaceId::DEFAULT].groups;
        assert_eq!(groups.len(), 12);
        let distinct: std::collections::BTreeSet<_> =
            groups.iter().map(|group| group.incarnation).collect();
        assert_eq!(distinct.len(), 12);
        assert!(
            groups
                .iter()
                .all(|group| group.voters.len() == 3 && group.incarnation.zone() == group.id.zone)
        );
    }

    #[test]
    fn shards_take_turns_over_the_nodes_of_a_zone() {
        let catalog = found(&seed(1, 3), (3, Policy::default()), 7, [0; 32], 9).unwrap();
        let groups = &catalog.keyspaces[&KeyspaceId::DEFAULT].groups;
        let first: std::collections::BTreeSet<_> =
            groups.iter().map(|group| group.voters[0]).collect();
        assert_eq!(first.len(), 3);
    }

    #[test]
    fn a_sync_keyspace_has_one_group_per_shard_and_no_zone_has_half_of_it() {
        let policy = Policy {
            mode: Mode::Sync,
            ..Policy::default()
        };
        let catalog = found(&seed(3, 3), (6, policy), 7, [0; 32], 9).unwrap();
        let groups = &catalog.keyspaces[&KeyspaceId::DEFAULT].groups;
        assert_eq!(groups.len(), 6);
        for group in groups {
            assert_eq!(group.id.zone, ZoneId::GLOBAL);
            let zones: std::collections::BTreeSet<_> = group
                .voters
                .iter()
                .map(|voter| voter.node().0 / 10)
                .collect();
            assert_eq!(zones.len(), 3);
        }
        let first: std::collections::BTreeSet<_> = groups
            .iter()
            .map(|group| group.founders[0].node().0 / 10)
            .collect();
        assert_eq!(first.len(), 3, "the zones take turns to lead");
    }

    #[test]
    fn a_sync_keyspace_is_led_from_its_home_and_refused_without_three_zones() {
        let policy = Policy {
            mode: Mode::Sync,
            home: Some(ZoneId(2)),
            ..Policy::default()
        };
        let catalog = found(&seed(3, 1), (6, policy.clone()), 7, [0; 32], 9).unwrap();
        let groups = &catalog.keyspaces[&KeyspaceId::DEFAULT].groups;
        assert!(
            groups
                .iter()
                .all(|group| group.founders[0].node().0 / 10 == 2)
        );
        assert!(found(&seed(2, 1), (6, policy), 7, [0; 32], 9).is_err());
    }
}
