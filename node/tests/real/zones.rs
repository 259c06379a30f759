//! Three zones, one node each, as real processes.

use crate::cluster::{Cluster, eventually};
use meridian_proto::admin::v1 as admin;
use meridian_proto::kv::v1 as kv;

const ALL: [usize; 3] = [0, 1, 2];

fn block(from: &str, to: &str) -> admin::FaultBlockRequest {
    admin::FaultBlockRequest {
        from: from.into(),
        to: to.into(),
        one_way: false,
    }
}

#[tokio::test]
async fn a_write_in_one_zone_is_read_in_every_zone_and_survives_kill_and_restart() {
    let mut cluster = Cluster::start(&[1, 1, 1], &[]);
    cluster.put(0, "k", "1").await.unwrap();
    cluster.expect(&ALL, "k", &["1"]).await;
    cluster.kill(0);
    cluster.put(1, "while-away", "2").await.unwrap();
    cluster.spawn(0);
    cluster.wait_ready(0);
    cluster.expect(&ALL, "k", &["1"]).await;
    cluster.expect(&ALL, "while-away", &["2"]).await;
    cluster.put(0, "k", "3").await.unwrap();
    cluster.expect(&ALL, "k", &["3"]).await;
    cluster.expect_no_panic();
}

#[tokio::test]
async fn concurrent_writes_across_a_block_are_siblings_everywhere_after_healing_and_can_be_resolved()
 {
    let cluster = Cluster::start(&[1, 1, 1], &["--allow-fault-injection"]);
    for node in ALL {
        let mut operator = cluster.admin(node).await;
        operator.fault_block(block("a", "b")).await.unwrap();
        operator.fault_block(block("a", "c")).await.unwrap();
    }
    cluster.put(0, "k", "left").await.unwrap();
    cluster.put(1, "k", "right").await.unwrap();
    cluster.expect(&[1, 2], "k", &["right"]).await;
    cluster.expect(&[0], "k", &["left"]).await;
    for node in ALL {
        cluster
            .admin(node)
            .await
            .fault_heal(admin::FaultHealRequest::default())
            .await
            .unwrap();
    }
    cluster.expect(&ALL, "k", &["left", "right"]).await;

    let get = kv::Get {
        key: "k".into(),
        ..kv::Get::default()
    };
    let read = cluster
        .kv(2)
        .await
        .get(kv::GetRequest {
            keyspace: String::new(),
            get: Some(get),
        })
        .await
        .unwrap();
    let resolve = kv::Put {
        key: "k".into(),
        value: "both".into(),
        intent: i32::from(kv::Intent::Context),
        context: read.into_inner().context,
        ..kv::Put::default()
    };
    cluster
        .kv(2)
        .await
        .put(kv::PutRequest {
            keyspace: String::new(),
            put: Some(resolve),
        })
        .await
        .unwrap();
    cluster.expect(&ALL, "k", &["both"]).await;
    expect_equal_digests(&cluster).await;
    cluster.expect_no_panic();
}

async fn expect_equal_digests(cluster: &Cluster) {
    let same = eventually(async || {
        let mut digests = Vec::new();
        for node in ALL {
            let rows = cluster
                .admin(node)
                .await
                .digest(admin::DigestRequest::default())
                .await;
            digests.push(
                rows.map_err(|status| status.to_string())?.into_inner().rows[0]
                    .digest
                    .clone(),
            );
        }
        digests.dedup();
        if digests.len() == 1 {
            Ok(())
        } else {
            Err(format!("{digests:?}"))
        }
    });
    same.await.unwrap();
}

#[tokio::test]
async fn a_stream_answers_every_operation_by_id_and_pages_of_a_scan_add_up() {
    let cluster = Cluster::start(&[1, 1, 1], &[]);
    let puts = (0..500_u64).map(|id| kv::Operation {
        id,
        deadline_ms: 0,
        forward: false,
        operation: Some(kv::operation::Operation::Put(kv::Put {
            key: format!("key-{id:03}").into(),
            value: format!("{id}").into(),
            ..kv::Put::default()
        })),
    });
    let message = kv::OperateRequest {
        keyspace: "default".into(),
        operations: puts.collect(),
    };
    let empty = kv::OperateRequest::default();
    let stream = tokio_stream::iter([message, empty]);
    let mut answers = cluster
        .kv(0)
        .await
        .operate(stream)
        .await
        .unwrap()
        .into_inner();
    let mut ids = Vec::new();
    let mut stamped = false;
    while let Some(answer) = answers.message().await.unwrap() {
        stamped |= answer.stamp_ms > 0 && answer.served_by.is_some();
        for outcome in answer.outcomes {
            assert!(
                matches!(outcome.outcome, Some(kv::outcome::Outcome::Write(_))),
                "{outcome:?}"
            );
            ids.push(outcome.id);
        }
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..500).collect::<Vec<_>>());
    assert!(stamped);
    assert_eq!(scan_all(&cluster, 0).await.len(), 500);
}

async fn scan_all(cluster: &Cluster, node: usize) -> Vec<String> {
    let mut keys = Vec::new();
    let mut scan = kv::Scan {
        prefix: "key-".into(),
        limit: 37,
        keys_only: true,
        ..kv::Scan::default()
    };
    loop {
        let request = kv::ScanRequest {
            keyspace: String::new(),
            scan: Some(scan.clone()),
        };
        let page = cluster
            .kv(node)
            .await
            .scan(request)
            .await
            .unwrap()
            .into_inner();
        keys.extend(
            page.entries
                .iter()
                .map(|entry| String::from_utf8(entry.key.to_vec()).unwrap()),
        );
        if page.next_page_token.is_empty() {
            assert!(keys.is_sorted(), "pages follow one another in order");
            return keys;
        }
        scan.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn a_zone_that_lost_its_disk_gets_everything_back_from_the_others() {
    let mut cluster = Cluster::start(&[1, 1, 1], &[]);
    for key in 0..8 {
        cluster.put(0, &format!("k{key}"), "1").await.unwrap();
        cluster.expect(&ALL, &format!("k{key}"), &["1"]).await;
    }
    cluster.kill(0);
    cluster.wipe(0);
    cluster.spawn(0);
    cluster.wait_ready(0);
    for key in 0..8 {
        cluster.expect(&ALL, &format!("k{key}"), &["1"]).await;
    }
    cluster.put_until_acknowledged(0, "k0", "2").await;
    cluster.expect(&ALL, "k0", &["2"]).await;
    expect_equal_digests(&cluster).await;
    cluster.expect_no_panic();
}
