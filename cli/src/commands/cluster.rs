//! `status` and `health`: every node is asked.

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

fn unconnected(status: &wire::StatusResponse) -> Vec<&str> {
    let peers = status.peers.iter().filter(|peer| !peer.connected);
    peers.map(|peer| peer.node.as_str()).collect()
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
            let zones = keyspace.degraded_zones.join(", ");
            if let Some(named) = keyspace.keyspace.as_ref().filter(|_| !zones.is_empty()) {
                let line = format!(
                    "\n{}: {} is degraded, without {zones}",
                    node.node, named.name
                );
                text.push_str(&line);
            }
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
