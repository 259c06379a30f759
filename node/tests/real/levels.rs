//! Levels of reads and writes over three zones of one node each, and the bound on lag.

use bytes::Bytes;
use meridian_proto::admin::v1 as admin;
use meridian_proto::kv::v1 as kv;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::cluster::{Cluster, eventually};

const ALL: [usize; 3] = [0, 1, 2];

/// Asks for a session where there is none yet.
const BEGIN: Bytes = Bytes::from_static(&[0]);

fn three_zones() -> Cluster {
    Cluster::start(&[1, 1, 1], &["--allow-fault-injection"])
}

/// Cuts a zone off from both others.
async fn cut_off(cluster: &Cluster, zone: &str) {
    for node in ALL {
        for other in ["a", "b", "c"].into_iter().filter(|other| *other != zone) {
            let block = admin::FaultBlockRequest {
                from: zone.into(),
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

/// A call that is given so many milliseconds.
fn within<T>(ms: u64, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(std::time::Duration::from_millis(ms));
    request
}

fn read_level(kind: kv::read_level::Kind) -> kv::ReadLevel {
    kv::ReadLevel {
        kind: i32::from(kind),
        ..kv::ReadLevel::default()
    }
}

async fn get(
    cluster: &Cluster,
    node: usize,
    (level, session): (kv::ReadLevel, Bytes),
    patience_ms: u64,
) -> Result<kv::GetResponse, Status> {
    let request = kv::GetRequest {
        keyspace: String::new(),
        get: Some(kv::Get {
            key: "k".into(),
            level: Some(level),
            session,
            ..kv::Get::default()
        }),
    };
    let answer = cluster
        .kv(node)
        .await
        .get(within(patience_ms, request))
        .await?;
    Ok(answer.into_inner())
}

fn plain(value: &'static str) -> kv::Put {
    kv::Put {
        key: "k".into(),
        value: value.into(),
        ..kv::Put::default()
    }
}

async fn put_in(
    cluster: &Cluster,
    (node, keyspace): (usize, &str),
    put: kv::Put,
    patience_ms: u64,
) -> Result<kv::WriteResponse, Status> {
    let request = kv::PutRequest {
        keyspace: keyspace.into(),
        put: Some(put),
    };
    let answer = cluster
        .kv(node)
        .await
        .put(within(patience_ms, request))
        .await?;
    Ok(answer.into_inner())
}

async fn put(
    cluster: &Cluster,
    node: usize,
    put: kv::Put,
    patience_ms: u64,
) -> Result<kv::WriteResponse, Status> {
    put_in(cluster, (node, ""), put, patience_ms).await
}

fn fact(status: &Status, name: &str) -> Option<String> {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{status:?}"));
    match name {
        "reason" => Some(info.reason.clone()),
        name => info.metadata.get(name).cloned(),
    }
}

#[tokio::test]
async fn a_session_reads_its_own_write_in_another_zone_and_is_told_when_that_zone_lacks_it() {
    let cluster = three_zones();
    cluster.put(1, "k", "old").await.unwrap();
    cluster.expect(&ALL, "k", &["old"]).await;
    cut_off(&cluster, "a").await;
    let own = kv::Put {
        session: BEGIN,
        ..plain("new")
    };
    let written = put(&cluster, 0, own, 5_000).await.unwrap();
    assert!(!written.session.is_empty());

    let session = |behind: kv::OnBehind| {
        let level = kv::ReadLevel {
            on_behind: i32::from(behind),
            ..read_level(kv::read_level::Kind::Session)
        };
        (level, written.session.clone())
    };
    let refused = get(&cluster, 1, session(kv::OnBehind::Fail), 5_000).await;
    assert_eq!(fact(&refused.unwrap_err(), "reason").unwrap(), "STALE");
    let refused = get(&cluster, 1, session(kv::OnBehind::Redirect), 5_000).await;
    assert_eq!(fact(&refused.unwrap_err(), "zone").unwrap(), "a");
    let late = get(&cluster, 1, session(kv::OnBehind::Wait), 300).await;
    assert_eq!(fact(&late.unwrap_err(), "reason").unwrap(), "STALE");
    let eventual = (read_level(kv::read_level::Kind::Eventual), Bytes::new());
    let old = get(&cluster, 1, eventual, 5_000).await.unwrap();
    assert_eq!(old.siblings[0].value, "old");

    heal(&cluster).await;
    let read = eventually(async || get(&cluster, 1, session(kv::OnBehind::Wait), 5_000).await);
    let read = read.await.unwrap();
    assert_eq!(read.siblings[0].value, "new");
    assert!(!read.session.is_empty());
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_forged_session_token_is_refused() {
    let cluster = Cluster::start(&[1], &[]);
    let own = kv::Put {
        session: BEGIN,
        ..plain("v")
    };
    let written = put(&cluster, 0, own, 5_000).await.unwrap();
    let mut forged = written.session.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let level = read_level(kv::read_level::Kind::Session);
    let refused = get(&cluster, 0, (level, forged.into()), 5_000).await;
    assert_eq!(fact(&refused.unwrap_err(), "reason").unwrap(), "BAD_TOKEN");
}

#[tokio::test]
async fn a_bounded_read_is_answered_inside_the_bound_and_a_zone_cut_off_states_its_age() {
    let cluster = three_zones();
    cluster.put(1, "k", "v").await.unwrap();
    let bounded = |max_age_ms| {
        let level = kv::ReadLevel {
            max_age_ms,
            ..read_level(kv::read_level::Kind::Bounded)
        };
        (level, Bytes::new())
    };
    let read = eventually(async || get(&cluster, 0, bounded(2_000), 5_000).await);
    let read = read.await.unwrap();
    assert!(
        !read.staleness_unknown && read.staleness_ms <= 2_000,
        "{read:?}"
    );
    cut_off(&cluster, "a").await;
    let stale = eventually(async || match get(&cluster, 0, bounded(50), 5_000).await {
        Ok(read) => Err(format!("{read:?}")),
        Err(status) => Ok(status),
    });
    let stale = stale.await.unwrap();
    assert_eq!(fact(&stale, "reason").unwrap(), "STALE");
    let behind_ms: u64 = fact(&stale, "behind_ms").unwrap().parse().unwrap();
    assert!(behind_ms > 50);
    heal(&cluster).await;
    // Inside the bound the write may be missing yet.
    let read = eventually(async || {
        let read = get(&cluster, 0, bounded(2_000), 5_000).await;
        let read = read.map_err(|status| status.to_string())?;
        let first = read.siblings.first().map(|sibling| sibling.value.clone());
        first.ok_or_else(|| format!("{read:?}"))
    });
    assert_eq!(read.await.unwrap(), "v");
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_read_of_two_zones_shows_every_sibling_and_who_holds_it() {
    let cluster = three_zones();
    cut_off(&cluster, "a").await;
    put(&cluster, 0, plain("left"), 5_000).await.unwrap();
    put(&cluster, 1, plain("right"), 5_000).await.unwrap();
    let zones = |zones| {
        let level = kv::ReadLevel {
            zones,
            ..read_level(kv::read_level::Kind::Zones)
        };
        (level, Bytes::new())
    };
    let short = get(&cluster, 0, zones(2), 1_000).await.unwrap_err();
    assert_eq!(fact(&short, "reason").unwrap(), "ZONES_SHORT");
    assert_eq!(fact(&short, "zones").unwrap(), "a");
    assert_eq!(fact(&short, "effect").unwrap(), "none");
    heal(&cluster).await;
    let both = eventually(async || {
        let read = get(&cluster, 0, zones(3), 5_000).await;
        let read = read.map_err(|status| status.to_string())?;
        if read.siblings.len() == 2 {
            Ok(read)
        } else {
            Err(format!("{read:?}"))
        }
    });
    let both = both.await.unwrap();
    assert_eq!(both.zones, ["a", "b", "c"]);
    assert!(
        both.siblings
            .iter()
            .all(|sibling| !sibling.held_by.is_empty())
    );
    let too_many = get(&cluster, 0, zones(4), 1_000).await.unwrap_err();
    assert_eq!(fact(&too_many, "reason").unwrap(), "INVALID_ARGUMENT");
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_write_that_misses_its_level_stands_and_reaches_it_after_healing() {
    let cluster = three_zones();
    cluster.put(0, "k", "old").await.unwrap();
    cluster.expect(&ALL, "k", &["old"]).await;
    cut_off(&cluster, "c").await;
    let level = |kind: kv::write_level::Kind, zones| {
        Some(kv::WriteLevel {
            kind: i32::from(kind),
            zones,
        })
    };
    let op_id = Some(kv::OpId {
        stamp_ms: cluster.stamp(0).await,
        id: Bytes::from_static(&[9; 16]),
    });
    let all = kv::Put {
        level: level(kv::write_level::Kind::All, 0),
        op_id,
        ..plain("v")
    };
    let missed = put(&cluster, 0, all.clone(), 1_500).await.unwrap_err();
    assert_eq!(fact(&missed, "reason").unwrap(), "LEVEL_NOT_REACHED");
    assert_eq!(fact(&missed, "effect").unwrap(), "applied");
    assert_eq!(fact(&missed, "zones").unwrap(), "a,b");
    cluster.expect(&[0, 1], "k", &["v"]).await;
    let two = kv::Put {
        level: level(kv::write_level::Kind::Zones, 2),
        ..plain("w")
    };
    let receipt = put(&cluster, 0, two, 5_000).await.unwrap().receipt.unwrap();
    assert_eq!(receipt.zones, ["a", "b"]);
    assert_eq!(receipt.level.unwrap().zones, 2);

    heal(&cluster).await;
    let again = eventually(async || put(&cluster, 0, all.clone(), 2_000).await);
    let receipt = again.await.unwrap().receipt.unwrap();
    assert_eq!(receipt.zones, ["a", "b", "c"]);
    let four = kv::Put {
        level: level(kv::write_level::Kind::Zones, 4),
        ..plain("x")
    };
    let refused = put(&cluster, 0, four, 5_000).await.unwrap_err();
    assert_eq!(fact(&refused, "reason").unwrap(), "INVALID_ARGUMENT");
    cluster.expect_no_panic();
}

/// Writes go on until a zone that is cut off is too far behind, and again once it has caught up.
async fn expect_bounded_lag(on_breach: &str) {
    let cluster = three_zones();
    let create = admin::KeyspaceCreateRequest {
        name: "bounded".into(),
        policy: Some(admin::Policy {
            mode: "async".into(),
            max_lag_ms: 300,
            on_breach: on_breach.into(),
            ..admin::Policy::default()
        }),
        ..admin::KeyspaceCreateRequest::default()
    };
    cluster
        .admin(0)
        .await
        .keyspace_create(create)
        .await
        .unwrap();
    let written = async || put_in(&cluster, (0, "bounded"), plain("v"), 1_000).await;
    eventually(written).await.unwrap();
    cut_off(&cluster, "c").await;
    let limited = eventually(async || match written().await {
        Err(status) if fact(&status, "reason").as_deref() == Some("RATE_LIMITED") => Ok(status),
        other => Err(format!("{other:?}")),
    });
    let limited = limited.await.unwrap();
    assert_eq!(fact(&limited, "effect").unwrap(), "none");
    assert!(limited.get_error_details().retry_info().is_some());
    let breach_ms = async || {
        let mut operator = cluster.admin(0).await;
        let status = operator.status(admin::StatusRequest {}).await.unwrap();
        let keyspaces = status.into_inner().keyspaces.into_iter();
        keyspaces.map(|keyspace| keyspace.breach_lag_ms).max()
    };
    assert!(breach_ms().await > Some(300), "status shows it");
    heal(&cluster).await;
    eventually(written).await.unwrap();
    let over = eventually(async || match breach_ms().await {
        Some(0) => Ok(()),
        other => Err(other),
    });
    over.await.unwrap();
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_keyspace_that_rejects_takes_no_writes_while_a_zone_is_too_far_behind() {
    expect_bounded_lag("reject").await;
}

#[tokio::test]
async fn a_keyspace_that_throttles_lets_nothing_through_while_a_zone_takes_nothing_in() {
    expect_bounded_lag("throttle").await;
}
