//! A keyspace that becomes another one while it is written to, and while a node is killed.

use meridian_proto::admin::v1 as admin;
use meridian_proto::kv::v1 as kv;

use crate::cluster::{Cluster, eventually};

const ALL: [usize; 3] = [0, 1, 2];
const VICTIM: usize = 2;
/// Writes until a new mode has to be in force: many times what it takes.
const WRITES_MAX: usize = 5_000;

async fn alter(cluster: &Cluster, mode: &str) {
    let request = || admin::KeyspaceAlterRequest {
        name: "default".into(),
        policy: Some(admin::Policy {
            mode: mode.into(),
            ..admin::Policy::default()
        }),
        ..admin::KeyspaceAlterRequest::default()
    };
    let altered = eventually(async || cluster.admin(0).await.keyspace_alter(request()).await);
    altered.await.unwrap();
}

/// The modes in which the nodes know the keyspace.
async fn modes(cluster: &Cluster) -> Vec<String> {
    let mut modes = Vec::new();
    for node in ALL {
        let name = "default".into();
        let request = admin::KeyspaceShowRequest { name };
        let shown = cluster.admin(node).await.keyspace_show(request).await;
        let keyspace = shown.unwrap().into_inner().keyspace.unwrap();
        modes.push(keyspace.mode);
    }
    modes
}

/// One attempt; whether it was acknowledged.
async fn put(cluster: &Cluster, key: &str) -> bool {
    let put = kv::Put {
        key: key.to_owned().into(),
        value: key.to_owned().into(),
        ..kv::Put::default()
    };
    let request = kv::PutRequest {
        keyspace: String::new(),
        put: Some(put),
    };
    cluster.kv(0).await.put(request).await.is_ok()
}

/// Writes until every node has the keyspace in its new mode; a node is killed on the way.
async fn write_through(cluster: &mut Cluster, mode: &str, acknowledged: &mut Vec<String>) {
    for n in 0..WRITES_MAX {
        let key = format!("{mode}-{n}");
        if put(cluster, &key).await {
            acknowledged.push(key);
        }
        if n == 3 {
            cluster.kill(VICTIM);
            cluster.spawn(VICTIM);
            cluster.wait_ready(VICTIM);
        }
        if n > 3 && modes(cluster).await.iter().all(|at| at == mode) {
            return;
        }
    }
    panic!("never {mode}: {:?}", modes(cluster).await);
}

#[tokio::test]
async fn what_is_acknowledged_on_the_way_is_there_though_a_node_is_killed() {
    let mut cluster = Cluster::start(&[1, 1, 1], &[]);
    let mut acknowledged = Vec::new();
    for n in 0..20 {
        let key = format!("before-{n}");
        cluster.put_until_acknowledged(0, &key, &key).await;
        acknowledged.push(key);
    }
    for mode in ["sync", "snapshot", "async"] {
        alter(&cluster, mode).await;
        write_through(&mut cluster, mode, &mut acknowledged).await;
    }
    for key in &acknowledged {
        cluster.expect(&ALL, key, &[key]).await;
    }
    assert!(acknowledged.len() > 30, "{}", acknowledged.len());
    cluster.expect_no_panic();
}

#[tokio::test]
async fn an_alter_that_cannot_be_is_refused_and_changes_nothing() {
    let cluster = Cluster::start(&[1, 1], &[]);
    let request = |mode: &str| admin::KeyspaceAlterRequest {
        name: "default".into(),
        policy: Some(admin::Policy {
            mode: mode.into(),
            ..admin::Policy::default()
        }),
        ..admin::KeyspaceAlterRequest::default()
    };
    // Two zones: one of them would have half of the voters.
    let sync = cluster.admin(0).await.keyspace_alter(request("sync")).await;
    assert_eq!(sync.unwrap_err().code(), tonic::Code::InvalidArgument);
    let cancel = admin::KeyspaceAlterRequest {
        cancel: true,
        ..request("")
    };
    let nothing = cluster.admin(0).await.keyspace_alter(cancel).await;
    assert_eq!(nothing.unwrap_err().code(), tonic::Code::InvalidArgument);
    cluster.put_until_acknowledged(0, "k", "v").await;
    cluster.expect(&[0, 1], "k", &["v"]).await;
}
