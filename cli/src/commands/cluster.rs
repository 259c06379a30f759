//! `status` and `health`: every node is asked.

use std::time::Duration;

use meridian_client::proto::admin::v1 as wire;
use meridian_client::{Error, Health, NodeAdmin};
use serde_json::{Value, json};

use crate::app::App;
use crate::exit::{Done, Failure, Outcome};
use crate::{human, json as shapes};

type Answered = (NodeAdmin, Result<wire::StatusResponse, Error>);

pub(crate) async fn status(app: &mut App<'_>) -> Outcome {
    let admin = app.client().await?.admin();
    let nodes = admin
        .each_node(|node| async move { node.status(wire::StatusRequest {}).await })
        .await;
    let topology = admin
        .any_node(|node| async move { node.topology(wire::TopologyRequest {}).await })
        .await?;
    if app.out.json {
        app.out.object(&as_json(&topology, &nodes))?;
    } else {
        app.out.line(&as_text(&topology, &nodes))?;
    }
    Ok(Done::AsAsked)
}

fn as_json(topology: &wire::TopologyResponse, nodes: &[Answered]) -> Value {
    let zones: Vec<_> = topology
        .zones
        .iter()
        .map(|zone| {
            let of_zone = nodes.iter().filter(|(node, _)| node.zone == zone.name);
            let listed: Vec<_> = of_zone.map(node_json).collect();
            json!({"zone": zone.name, "nodes": listed})
        })
        .collect();
    let keyspaces: Vec<_> = topology.keyspaces.iter().map(shapes::keyspace).collect();
    json!({
        "cluster": topology.cluster,
        "cluster_id": topology.cluster_id,
        "zones": zones,
        "keyspaces": keyspaces,
    })
}

fn node_json((node, answer): &Answered) -> Value {
    let mut object = json!({"node": node.node, "addr": node.addr, "up": answer.is_ok()});
    let rest = match answer {
        Ok(status) => json!({
            "serving": status.serving,
            "reason": status.reason,
            "version": status.version,
            "uptime_ms": status.uptime_ms,
            "control_leader": status.control_leader,
            "store_bytes": status.store_bytes,
            "groups": groups(status).0,
            "groups_led": groups(status).1,
            "groups_without_leader": groups(status).2,
            "degraded": degraded(status),
            "breach": breaches(status),
            "disk_lost": disk_lost(status),
            "unconnected_peers": unconnected(status),
            "differences": status.differences,
        }),
        Err(error) => json!({"serving": false, "reason": error.message()}),
    };
    if let (Value::Object(object), Value::Object(rest)) = (&mut object, rest) {
        object.extend(rest);
    }
    object
}

/// All groups, those led here, those without a known leader.
fn groups(status: &wire::StatusResponse) -> (u32, u32, u32) {
    let mut sums = (0, 0, 0);
    for keyspace in &status.keyspaces {
        sums.0 += keyspace.groups;
        sums.1 += keyspace.led;
        sums.2 += keyspace.groups.saturating_sub(keyspace.with_leader);
    }
    sums
}

/// Keyspaces whose acknowledgements do without zones for now, each with these zones.
fn degraded(status: &wire::StatusResponse) -> Vec<Value> {
    let degraded = status.keyspaces.iter().filter_map(|keyspace| {
        let zones = &keyspace.degraded_zones;
        let name = &keyspace.keyspace.as_ref()?.name;
        (!zones.is_empty()).then(|| json!({"keyspace": name, "zones": zones}))
    });
    degraded.collect()
}

/// Keyspaces that are past their bound on lag, each with how far the slowest zone is behind.
fn breaches(status: &wire::StatusResponse) -> Vec<Value> {
    let breaches = status.keyspaces.iter().filter_map(|keyspace| {
        let lag_ms = keyspace.breach_lag_ms;
        let name = &keyspace.keyspace.as_ref()?.name;
        (lag_ms > 0).then(|| json!({"keyspace": name, "lag_ms": lag_ms}))
    });
    breaches.collect()
}

/// Keyspaces that zones have lost with their disks, each with these zones.
fn disk_lost(status: &wire::StatusResponse) -> Vec<Value> {
    let lost = status.keyspaces.iter().filter_map(|keyspace| {
        let zones = &keyspace.disk_lost_zones;
        let name = &keyspace.keyspace.as_ref()?.name;
        (!zones.is_empty()).then(|| json!({"keyspace": name, "zones": zones}))
    });
    lost.collect()
}

fn unconnected(status: &wire::StatusResponse) -> Vec<&str> {
    let peers = status.peers.iter().filter(|peer| !peer.connected);
    peers.map(|peer| peer.node.as_str()).collect()
}

/// What a node says of a keyspace that is not as it should be, a line each.
fn warnings(node: &str, status: &wire::KeyspaceStatus) -> Vec<String> {
    let Some(keyspace) = &status.keyspace else {
        return Vec::new();
    };
    let (name, zones) = (&keyspace.name, status.degraded_zones.join(", "));
    let mut warnings = Vec::new();
    if !zones.is_empty() {
        warnings.push(format!("\n{node}: {name} is degraded, without {zones}"));
    }
    if status.breach_lag_ms > 0 {
        let lag = human::age(Duration::from_millis(status.breach_lag_ms));
        warnings.push(format!(
            "\n{node}: {name} is past its bound on lag, some zone is {lag} behind"
        ));
    }
    if !status.disk_lost_zones.is_empty() {
        let zones = status.disk_lost_zones.join(", ");
        let way = if keyspace.mode == "snapshot" {
            "promote a mirror (kv promote)"
        } else {
            "what it had comes from the other zones"
        };
        warnings.push(format!(
            "\n{node}: {zones} lost its disks with {name}: {way}"
        ));
    }
    warnings
}

fn as_text(topology: &wire::TopologyResponse, nodes: &[Answered]) -> String {
    let rows: Vec<_> = nodes.iter().map(row).collect();
    let head = [
        "zone", "node", "address", "state", "leads", "store", "up for",
    ];
    let keyspaces: Vec<_> = topology
        .keyspaces
        .iter()
        .map(|keyspace| {
            let (name, mode, shards) = (&keyspace.name, &keyspace.mode, keyspace.shards);
            let policy = keyspace.policy.clone().unwrap_or_default();
            let read_level = match human::read_level(&policy) {
                level if level == "linearizable" => String::new(),
                level => format!(", reads {level}"),
            };
            format!("  {name} ({mode}, {shards} shards{read_level})")
        })
        .collect();
    let mut text = format!(
        "cluster {}\n{}\nkeyspaces\n{}",
        topology.cluster,
        human::table(head, &rows),
        keyspaces.join("\n"),
    );
    for (node, answer) in nodes {
        for keyspace in answer.iter().flat_map(|status| &status.keyspaces) {
            text.extend(warnings(&node.node, keyspace));
        }
        for difference in answer.iter().flat_map(|status| &status.differences) {
            text.extend(["\n", &node.node, ": ", difference]);
        }
    }
    text
}

fn row((node, answer): &Answered) -> [String; 7] {
    let place = [node.zone.clone(), node.node.clone(), node.addr.clone()];
    let rest = match answer {
        Ok(status) => {
            let (all, led, without) = groups(status);
            let state = match (status.serving, without) {
                (false, _) => format!("not serving: {}", status.reason),
                (true, 0) => "serving".to_owned(),
                (true, without) => format!("{without} groups without a leader"),
            };
            let uptime = std::time::Duration::from_millis(status.uptime_ms);
            let store = format!("{:.1} MiB", bytes_as_f64(status.store_bytes) / 1_048_576.0);
            [state, format!("{led} of {all}"), store, human::age(uptime)]
        }
        Err(_error) => [
            "down".to_owned(),
            String::new(),
            String::new(),
            String::new(),
        ],
    };
    let [zone, name, addr] = place;
    let [state, leads, store, uptime] = rest;
    [zone, name, addr, state, leads, store, uptime]
}

/// For display: 4 GiB and more lose nothing that would be shown.
fn bytes_as_f64(bytes: u64) -> f64 {
    let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
    f64::from(kib) * 1024.0
}

pub(crate) async fn health(app: &mut App<'_>) -> Outcome {
    let admin = app.client().await?.admin();
    let answers = admin
        .each_node(|node| async move { node.health().await })
        .await;
    let mut all_serve = true;
    for (node, answer) in &answers {
        let health = match answer {
            Ok(Health::Serving) => "serving",
            Ok(Health::NotServing) => "not serving",
            Err(_error) => "unreachable",
        };
        all_serve &= matches!(answer, Ok(Health::Serving));
        if app.out.json {
            let word = health.replace(' ', "_");
            app.out.object(&json!({
                "zone": node.zone, "node": node.node, "addr": node.addr, "health": word,
            }))?;
        } else {
            let (zone, name, addr) = (&node.zone, &node.node, &node.addr);
            app.out.line(&format!("{zone} {name} {addr} {health}"))?;
        }
    }
    if all_serve {
        Ok(Done::AsAsked)
    } else {
        Err(Failure::incomplete())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyspace_past_its_bound_or_degraded_is_named_and_one_that_is_well_is_not() {
        let well = wire::KeyspaceStatus {
            keyspace: Some(wire::Keyspace {
                name: "k".to_owned(),
                ..wire::Keyspace::default()
            }),
            ..wire::KeyspaceStatus::default()
        };
        assert!(warnings("n1", &well).is_empty());
        let ill = wire::KeyspaceStatus {
            degraded_zones: vec!["a".to_owned()],
            breach_lag_ms: 7_000,
            disk_lost_zones: vec!["b".to_owned()],
            ..well
        };
        let said = warnings("n1", &ill).concat();
        assert!(said.contains("k is degraded, without a"), "{said}");
        assert!(said.contains("k is past its bound on lag"), "{said}");
        assert!(said.contains("b lost its disks"), "{said}");
        let status = wire::StatusResponse {
            keyspaces: vec![ill],
            ..wire::StatusResponse::default()
        };
        assert_eq!(
            breaches(&status),
            [json!({"keyspace": "k", "lag_ms": 7_000})]
        );
        assert_eq!(
            disk_lost(&status),
            [json!({"keyspace": "k", "zones": ["b"]})]
        );
    }
}
