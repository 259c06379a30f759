//! A sync keyspace over three zones, as real processes: one store for all zones, and what a zone that is cut off says.

use meridian_proto::admin::v1 as admin;
use meridian_proto::kv::v1 as kv;
use tonic_types::StatusExt as _;

use crate::cluster::{Cluster, eventually};

const ALL: [usize; 3] = [0, 1, 2];
const KEYSPACE: &str = "ledger";

async fn create(cluster: &Cluster, policy: admin::Policy) {
    let request = admin::KeyspaceCreateRequest {
        name: KEYSPACE.into(),
        mode: "sync".into(),
        shards: 2,
        policy: Some(policy),
    };
    cluster
        .admin(0)
        .await
        .keyspace_create(request)
        .await
        .unwrap();
}

async fn put(
    cluster: &Cluster,
    node: usize,
    key: &str,
    value: &str,
) -> Result<kv::Receipt, tonic::Status> {
    let put = kv::Put {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        intent: i32::from(kv::Intent::Overwrite),
        ..kv::Put::default()
    };
    let request = kv::PutRequest {
        keyspace: KEYSPACE.into(),
        put: Some(put),
    };
    let answer = cluster.kv(node).await.put(request).await?;
    Ok(answer.into_inner().receipt.unwrap())
}

/// Puts until it is acknowledged.
async fn put_at_last(cluster: &Cluster, node: usize, key: &str, value: &str) -> kv::Receipt {
    let done = eventually(async || put(cluster, node, key, value).await);
    done.await
        .unwrap_or_else(|last| panic!("{key} at n{}: {last:?}", node + 1))
}

async fn get(
    cluster: &Cluster,
    node: usize,
    key: &str,
    kind: kv::read_level::Kind,
) -> Result<Vec<String>, tonic::Status> {
    let level = Some(kv::ReadLevel {
        kind: i32::from(kind),
        ..kv::ReadLevel::default()
    });
    let get = kv::Get {
        key: key.to_owned().into(),
        level,
        ..kv::Get::default()
    };
    let request = kv::GetRequest {
        keyspace: KEYSPACE.into(),
        get: Some(get),
    };
    let found = cluster.kv(node).await.get(request).await?.into_inner();
    let text = |sibling: &kv::Sibling| String::from_utf8(sibling.value.to_vec()).unwrap();
    Ok(found.siblings.iter().map(text).collect())
}

async fn linearizable(
    cluster: &Cluster,
    node: usize,
    key: &str,
) -> Result<Vec<String>, tonic::Status> {
    get(cluster, node, key, kv::read_level::Kind::Linearizable).await
}

/// Why something was refused, and what of it took effect.
fn facts(status: &tonic::Status) -> (String, String) {
    let info = status.get_error_details().error_info().unwrap().clone();
    let effect = info.metadata.get("effect").cloned().unwrap_or_default();
    (info.reason, effect)
}

/// Cuts zone `a` off, at every node.
async fn cut_off_a(cluster: &Cluster) {
    for node in ALL {
        for other in ["b", "c"] {
            let block = admin::FaultBlockRequest {
                from: "a".into(),
                to: other.into(),
                one_way: false,
            };
            cluster.admin(node).await.fault_block(block).await.unwrap();
        }
    }
}

async fn heal(cluster: &Cluster) {
    for node in ALL {
        let heal = admin::FaultHealRequest::default();
        cluster.admin(node).await.fault_heal(heal).await.unwrap();
    }
}

/// Asks until it is refused with this reason and surely without effect.
async fn expect_refused(cluster: &Cluster, node: usize, key: &str, reason: &str) {
    let refused = eventually(async || match put(cluster, node, key, "refused").await {
        Err(status) if facts(&status) == (reason.to_owned(), "none".to_owned()) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    refused
        .await
        .unwrap_or_else(|last| panic!("{key} at n{}: {last}, not {reason}", node + 1));
}

#[tokio::test]
async fn a_sync_write_is_read_in_every_zone_and_a_zone_cut_off_says_so_while_the_others_go_on() {
    let cluster = Cluster::start(&ALL.map(|_| 1), &["--allow-fault-injection"]);
    create(&cluster, admin::Policy::default()).await;
    let receipt = put_at_last(&cluster, 0, "k", "1").await;
    assert_eq!((receipt.mode.as_str(), receipt.degraded), ("sync", false));
    assert!(receipt.zones.len() >= 2, "{receipt:?}");
    for node in ALL {
        let read = eventually(async || linearizable(&cluster, node, "k").await).await;
        assert_eq!(read.unwrap(), ["1"]);
    }

    cut_off_a(&cluster).await;
    put_at_last(&cluster, 1, "k", "2").await;
    let read = eventually(async || linearizable(&cluster, 2, "k").await).await;
    assert_eq!(read.unwrap(), ["2"]);
    expect_refused(&cluster, 0, "k", "NO_QUORUM").await;
    let refused = linearizable(&cluster, 0, "k").await.unwrap_err();
    assert_eq!(facts(&refused), ("NO_QUORUM".into(), "none".into()));
    let old = get(&cluster, 0, "k", kv::read_level::Kind::Eventual).await;
    assert_eq!(old.unwrap(), ["1"]);

    heal(&cluster).await;
    let read = eventually(async || linearizable(&cluster, 0, "k").await).await;
    assert_eq!(read.unwrap(), ["2"]);
    put_at_last(&cluster, 0, "k", "3").await;
    assert_eq!(linearizable(&cluster, 2, "k").await.unwrap(), ["3"]);
    cluster.expect_no_panic();
}

#[tokio::test]
async fn writes_that_need_all_zones_are_refused_while_one_is_missing() {
    let cluster = Cluster::start(&ALL.map(|_| 1), &["--allow-fault-injection"]);
    let policy = admin::Policy {
        ack: "all".into(),
        ..admin::Policy::default()
    };
    create(&cluster, policy).await;
    let receipt = put_at_last(&cluster, 1, "k", "1").await;
    assert_eq!(receipt.zones, ["a", "b", "c"]);
    cut_off_a(&cluster).await;
    expect_refused(&cluster, 1, "k", "ZONES_SHORT").await;
    heal(&cluster).await;
    let receipt = put_at_last(&cluster, 1, "k", "2").await;
    assert_eq!(receipt.zones, ["a", "b", "c"]);
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_keyspace_that_degrades_says_so_and_returns_by_itself() {
    let cluster = Cluster::start(&ALL.map(|_| 1), &["--allow-fault-injection"]);
    let policy = admin::Policy {
        ack: "all".into(),
        on_zone_loss: "degrade".into(),
        ..admin::Policy::default()
    };
    create(&cluster, policy).await;
    assert!(!put_at_last(&cluster, 1, "k", "1").await.degraded);
    cut_off_a(&cluster).await;
    let degraded = eventually(async || match put(&cluster, 1, "k", "2").await {
        Ok(receipt) if receipt.degraded => Ok(receipt),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(degraded.await.unwrap().zones, ["b", "c"]);
    let shown = eventually(async || {
        let mut zones = Vec::new();
        for node in [1, 2] {
            let mut operator = cluster.admin(node).await;
            let status = operator.status(admin::StatusRequest {}).await.unwrap();
            for keyspace in status.into_inner().keyspaces {
                zones.extend(keyspace.degraded_zones);
            }
        }
        if zones.contains(&"a".to_owned()) {
            Ok(())
        } else {
            Err(zones)
        }
    });
    shown.await.unwrap();
    heal(&cluster).await;
    let whole = eventually(async || match put(&cluster, 1, "k", "3").await {
        Ok(receipt) if !receipt.degraded => Ok(receipt),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(whole.await.unwrap().zones, ["a", "b", "c"]);
    cluster.expect_no_panic();
}

/// Every zone reads the value, has the same digest, and lag is told as behind the store, not behind a zone.
async fn expect_one_store(cluster: &Cluster, key: &str, value: &str) {
    for node in ALL {
        let read = eventually(async || linearizable(cluster, node, key).await).await;
        assert_eq!(read.unwrap(), [value]);
    }
    let lag = admin::LagRequest {
        keyspace: KEYSPACE.into(),
    };
    let rows = cluster
        .admin(0)
        .await
        .lag(lag)
        .await
        .unwrap()
        .into_inner()
        .rows;
    assert!(
        !rows.is_empty() && rows.iter().all(|row| row.from == "global"),
        "{rows:?}"
    );
    let mut digests = std::collections::BTreeSet::new();
    for node in ALL {
        let digest = admin::DigestRequest {
            keyspace: KEYSPACE.into(),
        };
        let rows = cluster.admin(node).await.digest(digest).await.unwrap();
        digests.insert(rows.into_inner().rows[0].digest.clone());
    }
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[tokio::test]
async fn a_watcher_and_a_transaction_in_other_zones_see_one_store() {
    let cluster = Cluster::start(&ALL.map(|_| 1), &[]);
    create(&cluster, admin::Policy::default()).await;
    put_at_last(&cluster, 0, "a", "1").await;
    let watch = kv::WatchRequest {
        keyspace: KEYSPACE.into(),
        keys: Some(kv::watch_request::Keys::Prefix("".into())),
        from: Vec::new().into(),
    };
    let begun = eventually(async || cluster.kv(2).await.watch(watch.clone()).await);
    let mut changes = begun.await.unwrap().into_inner();
    let begun = changes.message().await.unwrap();
    assert!(begun.is_some(), "a watch says first where it begins");

    let write = |key: &str| kv::Action {
        action: Some(kv::action::Action::Put(kv::Put {
            key: key.to_owned().into(),
            value: "2".into(),
            intent: i32::from(kv::Intent::Overwrite),
            ..kv::Put::default()
        })),
    };
    let transact = kv::TransactRequest {
        keyspace: KEYSPACE.into(),
        transact: Some(kv::Transact {
            then: vec![write("a"), write("b"), write("c")],
            ..kv::Transact::default()
        }),
        deadline_ms: 0,
    };
    let done = eventually(async || cluster.kv(1).await.transact(transact.clone()).await);
    let done = done.await.unwrap().into_inner();
    assert!(done.succeeded && done.zones.len() >= 2, "{done:?}");

    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 3 {
        let message = tokio::time::timeout(crate::cluster::PATIENCE, changes.message());
        let message = message
            .await
            .expect("changes come in time")
            .unwrap()
            .unwrap();
        seen.extend(message.events.into_iter().map(|event| event.key));
    }
    assert!(seen.iter().map(AsRef::as_ref).eq([b"a", b"b", b"c"]));
    expect_one_store(&cluster, "c", "2").await;
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_write_and_a_read_may_ask_for_zones_and_are_told_which_hold_it() {
    let cluster = Cluster::start(&ALL.map(|_| 1), &["--allow-fault-injection"]);
    create(&cluster, admin::Policy::default()).await;
    put_at_last(&cluster, 1, "k", "0").await;
    let put_at = async |kind: kv::write_level::Kind, zones| {
        let put = kv::Put {
            key: "k".into(),
            value: "v".into(),
            intent: i32::from(kv::Intent::Overwrite),
            level: Some(kv::WriteLevel {
                kind: kind.into(),
                zones,
            }),
            ..kv::Put::default()
        };
        let request = kv::PutRequest {
            keyspace: KEYSPACE.into(),
            put: Some(put),
        };
        let answer = cluster.kv(1).await.put(request).await?;
        Ok::<_, tonic::Status>(answer.into_inner().receipt.unwrap())
    };
    let read_of = async |zones| {
        let get = kv::Get {
            key: "k".into(),
            level: Some(kv::ReadLevel {
                kind: kv::read_level::Kind::Zones.into(),
                zones,
                ..kv::ReadLevel::default()
            }),
            ..kv::Get::default()
        };
        let request = kv::GetRequest {
            keyspace: KEYSPACE.into(),
            get: Some(get),
        };
        Ok::<_, tonic::Status>(cluster.kv(1).await.get(request).await?.into_inner())
    };
    let all = eventually(async || put_at(kv::write_level::Kind::All, 0).await);
    assert_eq!(all.await.unwrap().zones, ["a", "b", "c"]);
    let read = eventually(async || read_of(3).await).await.unwrap();
    assert_eq!(read.zones, ["a", "b", "c"]);
    assert_eq!(read.siblings[0].held_by, ["a", "b", "c"]);

    cut_off_a(&cluster).await;
    let refused = eventually(async || match put_at(kv::write_level::Kind::All, 0).await {
        Err(status) if facts(&status).0 == "ZONES_SHORT" => Ok(status),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(facts(&refused.await.unwrap()).1, "none");
    let two = eventually(async || put_at(kv::write_level::Kind::Zones, 2).await);
    assert_eq!(two.await.unwrap().zones, ["b", "c"]);
    let short = read_of(3).await.unwrap_err();
    assert_eq!(facts(&short), ("ZONES_SHORT".into(), "none".into()));
    let read = eventually(async || read_of(2).await).await.unwrap();
    assert_eq!(read.siblings[0].held_by, ["b", "c"]);
    cluster.expect_no_panic();
}
