//! A mirror is promoted after its home zone was killed, as real processes: what it shows, what comes back, and the way back.

use std::time::Duration;

use meridian_proto::admin::v1 as admin;
use meridian_proto::kv::v1 as kv;
use tonic_types::StatusExt as _;

use crate::cluster::{Cluster, eventually};

const KEYSPACE: &str = "s";
const SHARDS: u32 = 3;

/// The home zone that is lost, and the zone that is promoted.
const OLD: usize = 0;
const NEW: usize = 1;

/// An interval that does not pass during the test: cuts are taken when asked for.
const NEVER_MS: u64 = 3_600_000;

async fn create(cluster: &Cluster) {
    let policy = admin::Policy {
        home: "a".into(),
        interval_ms: NEVER_MS,
        ..admin::Policy::default()
    };
    let request = admin::KeyspaceCreateRequest {
        name: KEYSPACE.into(),
        mode: "snapshot".into(),
        shards: SHARDS,
        policy: Some(policy),
    };
    let mut operator = cluster.admin(OLD).await;
    operator.keyspace_create(request).await.unwrap();
}

async fn put(cluster: &Cluster, node: usize, key: &str, value: &str) {
    let request = || kv::PutRequest {
        keyspace: KEYSPACE.into(),
        put: Some(kv::Put {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..kv::Put::default()
        }),
    };
    let put = eventually(async || cluster.kv(node).await.put(request()).await);
    put.await.unwrap();
}

async fn values(cluster: &Cluster, node: usize, key: &str) -> Vec<String> {
    let request = || kv::GetRequest {
        keyspace: KEYSPACE.into(),
        get: Some(kv::Get {
            key: key.to_owned().into(),
            ..kv::Get::default()
        }),
    };
    let got = eventually(async || cluster.kv(node).await.get(request()).await);
    let siblings = got.await.unwrap().into_inner().siblings;
    let live = siblings.iter().filter(|sibling| !sibling.deleted);
    let mut values: Vec<String> = live
        .map(|sibling| String::from_utf8(sibling.value.to_vec()).unwrap())
        .collect();
    values.sort();
    values
}

async fn mirror_now(cluster: &Cluster, node: usize) -> admin::MirrorResponse {
    let told = eventually(async || {
        let request = admin::MirrorRequest {
            keyspace: KEYSPACE.into(),
            now: true,
        };
        let mut asked = tonic::Request::new(request);
        asked.set_timeout(Duration::from_secs(20));
        cluster.admin(node).await.mirror(asked).await
    });
    told.await.unwrap().into_inner()
}

async fn alter(cluster: &Cluster, node: usize, request: admin::KeyspaceAlterRequest) {
    let altered = eventually(async || {
        let request = request.clone();
        cluster.admin(node).await.keyspace_alter(request).await
    });
    altered.await.unwrap();
}

async fn promote(cluster: &Cluster) {
    let request = admin::KeyspaceAlterRequest {
        name: KEYSPACE.into(),
        promote: "b".into(),
        force: true,
        ..admin::KeyspaceAlterRequest::default()
    };
    alter(cluster, NEW, request).await;
}

/// Waits until a node knows the keyspace to be as wanted.
async fn until(cluster: &Cluster, node: usize, wanted: impl Fn(&admin::Keyspace) -> bool) {
    let seen = eventually(async || {
        let request = admin::KeyspaceShowRequest {
            name: KEYSPACE.into(),
        };
        let shown = cluster.admin(node).await.keyspace_show(request).await;
        let keyspace = shown.map_err(|status| status.to_string())?;
        let keyspace = keyspace.into_inner().keyspace.unwrap_or_default();
        if wanted(&keyspace) {
            Ok(())
        } else {
            Err(format!("{keyspace:?}"))
        }
    });
    seen.await.unwrap();
}

fn home(keyspace: &admin::Keyspace) -> &str {
    let policy = keyspace.policy.as_ref();
    policy.map_or("", |policy| policy.home.as_str())
}

fn is_whole(keyspace: &admin::Keyspace) -> bool {
    let divergence = keyspace.divergence.as_ref();
    divergence.is_some_and(|divergence| divergence.returned == "whole")
}

/// Keys that writes came back to, and what the last of them became.
async fn returned(cluster: &Cluster) -> Vec<(String, String)> {
    let mut listed = Vec::new();
    for shard in 0..SHARDS {
        let request = admin::ReturnedRequest {
            keyspace: KEYSPACE.into(),
            shard,
            ..admin::ReturnedRequest::default()
        };
        // Asked anywhere: the home zone answers.
        let page = cluster.admin(OLD).await.returned(request).await;
        for row in page.unwrap().into_inner().rows {
            let key = String::from_utf8(row.key.to_vec()).unwrap();
            listed.push((key, row.writes.last().unwrap().became.clone()));
        }
    }
    listed.sort();
    listed
}

#[tokio::test]
async fn a_killed_home_is_replaced_by_its_mirror_and_its_last_writes_come_back() {
    let mut cluster = Cluster::start(&[1, 1, 1], &[]);
    create(&cluster).await;
    for key in ["both", "old", "kept"] {
        put(&cluster, OLD, key, "cut").await;
    }
    mirror_now(&cluster, OLD).await;
    put(&cluster, OLD, "both", "old").await;
    put(&cluster, OLD, "old", "old").await;
    put(&cluster, OLD, "added", "old").await;
    cluster.kill(OLD);

    promote(&cluster).await;
    until(&cluster, NEW, |keyspace| home(keyspace) == "b").await;
    for key in ["both", "old", "kept"] {
        assert_eq!(values(&cluster, NEW, key).await, ["cut"], "{key}");
    }
    assert_eq!(values(&cluster, NEW, "added").await, [""; 0]);
    put(&cluster, NEW, "both", "new").await;

    cluster.spawn(OLD);
    cluster.wait_ready(OLD);
    until(&cluster, OLD, is_whole).await;
    assert_eq!(values(&cluster, NEW, "both").await, ["new", "old"]);
    assert_eq!(values(&cluster, NEW, "old").await, ["old"]);
    assert_eq!(values(&cluster, NEW, "added").await, ["old"]);
    assert_eq!(values(&cluster, NEW, "kept").await, ["cut"]);
    let listed = [("added", "newest"), ("both", "sibling"), ("old", "newest")];
    let listed = listed.map(|(key, became)| (key.to_owned(), became.to_owned()));
    assert_eq!(returned(&cluster).await, listed);
    let refused = {
        let request = kv::PutRequest {
            keyspace: KEYSPACE.into(),
            put: Some(kv::Put {
                key: "kept".into(),
                ..kv::Put::default()
            }),
        };
        cluster.kv(OLD).await.put(request).await.unwrap_err()
    };
    let info = refused.get_error_details().error_info().unwrap().clone();
    assert_eq!(
        (info.reason.as_str(), info.metadata["home_zone"].as_str()),
        ("NOT_HOME_ZONE", "b")
    );

    // The way back: the old home mirrors the new one, and takes over from it.
    mirror_now(&cluster, NEW).await;
    let failback = admin::KeyspaceAlterRequest {
        name: KEYSPACE.into(),
        policy: Some(admin::Policy {
            home: "a".into(),
            ..admin::Policy::default()
        }),
        ..admin::KeyspaceAlterRequest::default()
    };
    alter(&cluster, NEW, failback).await;
    until(&cluster, OLD, |keyspace| home(keyspace) == "a").await;
    assert_eq!(values(&cluster, OLD, "both").await, ["new", "old"]);
    put(&cluster, OLD, "kept", "back").await;
    assert_eq!(values(&cluster, OLD, "kept").await, ["back"]);
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_promotion_needs_force_a_mirror_and_a_zone_that_exists() {
    let cluster = Cluster::start(&[1, 1, 1], &[]);
    create(&cluster).await;
    let refused = async |promote: &str, force| {
        let request = admin::KeyspaceAlterRequest {
            name: KEYSPACE.into(),
            promote: promote.into(),
            force,
            ..admin::KeyspaceAlterRequest::default()
        };
        let asked = eventually(async || {
            let answer = cluster
                .admin(NEW)
                .await
                .keyspace_alter(request.clone())
                .await;
            match answer {
                Err(status) if status.code() == tonic::Code::Unavailable => Err(status),
                answer => Ok(answer),
            }
        });
        asked.await.unwrap().unwrap_err().code()
    };
    assert_eq!(refused("b", false).await, tonic::Code::InvalidArgument);
    assert_eq!(refused("a", true).await, tonic::Code::InvalidArgument);
    assert_eq!(refused("nowhere", true).await, tonic::Code::NotFound);
}
