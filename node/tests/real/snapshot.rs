//! A keyspace of mode `snapshot` over three zones, one node each, as real processes: writes in the home zone, reads of the
//! mirrors, and mirrors that are killed while they receive.

use std::time::Duration;

use meridian_proto::admin::v1 as admin;
use meridian_proto::kv::v1 as kv;
use tonic_types::StatusExt as _;

use crate::cluster::{Cluster, eventually};

const KEYSPACE: &str = "s";
const HOME: usize = 0;
const MIRROR: usize = 1;

/// Keys that are written together in each round, spread over all shards.
const KEYS: usize = 64;

/// How often the mirror is killed.
const KILLS: usize = 5;

/// An interval that does not pass during the test: cuts are taken when asked for.
const NEVER_MS: u64 = 3_600_000;

async fn create(cluster: &Cluster, interval_ms: u64) {
    let policy = admin::Policy {
        home: "a".into(),
        interval_ms,
        ..admin::Policy::default()
    };
    create_as(cluster, policy).await;
}

async fn create_as(cluster: &Cluster, policy: admin::Policy) {
    let request = admin::KeyspaceCreateRequest {
        name: KEYSPACE.into(),
        mode: "snapshot".into(),
        shards: 4,
        policy: Some(policy),
    };
    let mut operator = cluster.admin(HOME).await;
    operator.keyspace_create(request).await.unwrap();
}

async fn put(cluster: &Cluster, node: usize, key: &str, value: &str) -> Result<(), tonic::Status> {
    let put = kv::Put {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..kv::Put::default()
    };
    let request = kv::PutRequest {
        keyspace: KEYSPACE.into(),
        put: Some(put),
    };
    cluster.kv(node).await.put(request).await.map(|_| ())
}

async fn put_at_home(cluster: &Cluster, key: &str, value: &str) {
    let put = eventually(async || put(cluster, HOME, key, value).await);
    put.await.unwrap();
}

fn level(kind: kv::read_level::Kind, max_age_ms: u64) -> kv::ReadLevel {
    kv::ReadLevel {
        kind: kind.into(),
        max_age_ms,
        ..kv::ReadLevel::default()
    }
}

async fn get(
    cluster: &Cluster,
    key: &str,
    level: Option<kv::ReadLevel>,
) -> Result<kv::GetResponse, tonic::Status> {
    let get = kv::Get {
        key: key.to_owned().into(),
        level,
        ..kv::Get::default()
    };
    let request = kv::GetRequest {
        keyspace: KEYSPACE.into(),
        get: Some(get),
    };
    let answer = cluster.kv(MIRROR).await.get(request).await?;
    Ok(answer.into_inner())
}

/// Takes a cut and waits until every mirror shows it.
async fn mirror_now(cluster: &Cluster) -> admin::MirrorResponse {
    let told = eventually(async || {
        let request = admin::MirrorRequest {
            keyspace: KEYSPACE.into(),
            now: true,
        };
        let mut asked = tonic::Request::new(request);
        asked.set_timeout(Duration::from_secs(20));
        cluster.admin(HOME).await.mirror(asked).await
    });
    told.await.unwrap().into_inner()
}

/// All that a mirror shows, page by page, and the generation; small pages, so that there are several.
async fn scan(cluster: &Cluster) -> Result<(u64, Vec<String>), tonic::Status> {
    let mut values = Vec::new();
    let mut generation = None;
    let mut page_token = bytes::Bytes::new();
    loop {
        let scan = kv::Scan {
            level: Some(level(kv::read_level::Kind::Eventual, 0)),
            limit: 20,
            page_token,
            ..kv::Scan::default()
        };
        let request = kv::ScanRequest {
            keyspace: KEYSPACE.into(),
            scan: Some(scan),
        };
        let page = cluster.kv(MIRROR).await.scan(request).await?.into_inner();
        let shown = page.mirror.unwrap().generation;
        assert_eq!(*generation.get_or_insert(shown), shown, "pages of one scan");
        for entry in &page.entries {
            let value = entry.siblings[0].value.to_vec();
            values.push(String::from_utf8(value).unwrap());
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok((shown, values));
        }
    }
}

fn reason(status: &tonic::Status) -> (String, std::collections::HashMap<String, String>) {
    let info = status.get_error_details().error_info().unwrap().clone();
    (info.reason, info.metadata)
}

#[tokio::test]
async fn a_mirror_shows_what_home_wrote_and_refuses_what_is_for_home() {
    let cluster = Cluster::start(&[1, 1, 1], &[]);
    create(&cluster, NEVER_MS).await;
    put_at_home(&cluster, "k", "1").await;
    let told = mirror_now(&cluster).await;
    assert_eq!(told.home, "a");
    assert!(told.zones.len() == 2 && told.zones.iter().all(|zone| zone.generation > 0));

    let eventual = Some(level(kv::read_level::Kind::Eventual, 0));
    let read = get(&cluster, "k", eventual).await.unwrap();
    assert_eq!(read.siblings[0].value, "1");
    assert!(read.mirror.unwrap().cut_time_ms > 0);

    put_at_home(&cluster, "k", "2").await;
    let read = get(&cluster, "k", eventual).await.unwrap();
    assert_eq!(read.siblings[0].value, "1", "not before the next cut");
    let told = mirror_now(&cluster).await;
    assert!(told.zones.iter().all(|zone| zone.keys == 1), "{told:?}");
    let read = get(&cluster, "k", eventual).await.unwrap();
    assert_eq!(read.siblings[0].value, "2");

    let wide = Some(level(kv::read_level::Kind::Bounded, 600_000));
    assert!(get(&cluster, "k", wide).await.is_ok());
    let narrow = Some(level(kv::read_level::Kind::Bounded, 0));
    let refused = get(&cluster, "k", narrow).await.unwrap_err();
    assert_eq!(reason(&refused).0, "STALE");
    for refused in [
        put(&cluster, MIRROR, "k", "3").await.unwrap_err(),
        get(&cluster, "k", None).await.unwrap_err(),
    ] {
        let (reason, facts) = reason(&refused);
        assert_eq!(reason, "NOT_HOME_ZONE");
        assert_eq!(facts["home_zone"], "a");
        assert_eq!(facts["effect"], "none");
        assert_eq!(
            facts["home_addr"],
            format!("{}:7400", cluster.nodes[HOME].ip)
        );
    }
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_mirror_that_is_killed_while_it_receives_never_shows_a_mixed_cut() {
    let mut cluster = Cluster::start(&[1, 1, 1], &[]);
    create(&cluster, 100).await;
    let padding = "x".repeat(20_000);
    let mut last = 0;
    for round in 0..=KILLS {
        // Every key of a round is written before any of the next: a cut shows at most two rounds, in the order of keys.
        for key in 0..KEYS {
            put_at_home(
                &cluster,
                &format!("k{key:03}"),
                &format!("{round:03}{padding}"),
            )
            .await;
            if round > 0 && key == KEYS / 2 {
                cluster.kill(MIRROR);
                cluster.spawn(MIRROR);
                cluster.wait_ready(MIRROR);
            }
            if key % 8 == 0
                && let Ok((generation, values)) = scan(&cluster).await
            {
                assert!(
                    generation >= last,
                    "a mirror goes back to generation {generation}"
                );
                last = generation;
                expect_one_cut(&values);
            }
        }
    }
    mirror_now(&cluster).await;
    let (_, values) = eventually(async || scan(&cluster).await).await.unwrap();
    assert_eq!(values.len(), KEYS);
    assert!(values.iter().all(|value| value.starts_with("005")));
    cluster.expect_no_panic();
}

/// Keys are written one after the other, in their order: a point in time shows a new round up to some key, the round before
/// from there on, and nothing else.
fn expect_one_cut(values: &[String]) {
    let rounds: Vec<u64> = values
        .iter()
        .map(|value| value.trim_end_matches('x').parse().unwrap())
        .collect();
    assert!(rounds.is_sorted_by(|a, b| a >= b), "{rounds:?}");
    if let (Some(first), Some(last)) = (rounds.first(), rounds.last()) {
        assert!(first - last <= 1, "{rounds:?}");
        assert!(*first == 0 || values.len() == KEYS, "{rounds:?}");
    }
}

#[tokio::test]
async fn reads_that_name_no_level_go_by_the_keyspace_and_an_alter_changes_it_live() {
    let cluster = Cluster::start(&[1, 1, 1], &[]);
    let policy = admin::Policy {
        home: "a".into(),
        interval_ms: NEVER_MS,
        read_level: "eventual".into(),
        ..admin::Policy::default()
    };
    create_as(&cluster, policy).await;
    put_at_home(&cluster, "k", "1").await;
    mirror_now(&cluster).await;
    let unnamed = get(&cluster, "k", None).await.unwrap();
    assert_eq!(unnamed.siblings[0].value, "1");
    let served = unnamed.level.unwrap();
    assert_eq!(served.kind(), kv::read_level::Kind::Eventual);
    let named = Some(level(kv::read_level::Kind::Linearizable, 0));
    let refused = get(&cluster, "k", named).await.unwrap_err();
    assert_eq!(reason(&refused).0, "NOT_HOME_ZONE", "it is named");

    let alter = |read_level: &str, read_zones| admin::KeyspaceAlterRequest {
        name: KEYSPACE.into(),
        policy: Some(admin::Policy {
            read_level: read_level.into(),
            read_zones,
            ..admin::Policy::default()
        }),
        ..admin::KeyspaceAlterRequest::default()
    };
    let mut operator = cluster.admin(HOME).await;
    let many = operator.keyspace_alter(alter("zones", 4)).await;
    assert_eq!(reason(&many.unwrap_err()).0, "INVALID_ARGUMENT");
    let altered = operator.keyspace_alter(alter("linearizable", 0)).await;
    let altered = altered.unwrap().into_inner().keyspace.unwrap();
    assert!(altered.altering.is_none(), "no group moves for it");
    assert_eq!(altered.policy.unwrap().read_level, "linearizable");
    let refused = eventually(async || match get(&cluster, "k", None).await {
        Err(refused) => Ok(refused),
        Ok(read) => Err(format!("{read:?}")),
    });
    assert_eq!(reason(&refused.await.unwrap()).0, "NOT_HOME_ZONE");
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_read_of_home_and_mirrors_names_who_holds_what_and_their_generations() {
    let cluster = Cluster::start(&[1, 1, 1], &[]);
    create(&cluster, NEVER_MS).await;
    put_at_home(&cluster, "k", "old").await;
    let shown = mirror_now(&cluster).await;
    put_at_home(&cluster, "k", "new").await;
    let zones = Some(kv::ReadLevel {
        zones: 3,
        ..level(kv::read_level::Kind::Zones, 0)
    });
    let read = eventually(async || get(&cluster, "k", zones).await);
    let read = read.await.unwrap();
    assert_eq!(read.zones, ["a", "b", "c"]);
    assert_eq!(read.siblings.len(), 1, "{read:?}");
    assert_eq!(read.siblings[0].value, "new");
    assert_eq!(read.siblings[0].held_by, ["a"]);
    for mirror in &read.mirrors {
        let zone = shown.zones.iter().find(|zone| zone.zone == mirror.zone);
        let generation = mirror.mirror.unwrap().generation;
        assert_eq!(generation, zone.unwrap().generation);
    }
    assert_eq!(read.mirrors.len(), 2);
    mirror_now(&cluster).await;
    let read = get(&cluster, "k", zones).await.unwrap();
    assert_eq!(read.siblings[0].held_by, ["a", "b", "c"]);
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_write_at_home_may_ask_for_one_zone_and_not_for_mirrors() {
    let cluster = Cluster::start(&[1, 1, 1], &[]);
    create(&cluster, NEVER_MS).await;
    put_at_home(&cluster, "k", "1").await;
    let put = async |zones| {
        let put = kv::Put {
            key: "k".into(),
            value: "2".into(),
            level: Some(kv::WriteLevel {
                kind: kv::write_level::Kind::Zones.into(),
                zones,
            }),
            ..kv::Put::default()
        };
        let request = kv::PutRequest {
            keyspace: KEYSPACE.into(),
            put: Some(put),
        };
        cluster.kv(HOME).await.put(request).await
    };
    let receipt = put(1).await.unwrap().into_inner().receipt.unwrap();
    assert_eq!(receipt.zones, ["a"]);
    let refused = put(2).await.unwrap_err();
    assert_eq!(reason(&refused).0, "LEVEL_UNSUPPORTED");
    assert!(refused.message().contains("kv mirror now"), "{refused}");
}

#[tokio::test]
async fn a_mirror_tells_the_bytes_of_the_messages_that_came() {
    let cluster = Cluster::start(&[1, 1, 1], &[]);
    create(&cluster, NEVER_MS).await;
    mirror_now(&cluster).await;
    for key in 0..KEYS {
        put_at_home(&cluster, &format!("key-{key:012}"), &"v".repeat(64)).await;
    }
    let told = mirror_now(&cluster).await;
    let changed = u64::try_from(KEYS * (16 + 64)).unwrap();
    for zone in &told.zones {
        assert_eq!(zone.keys, u64::try_from(KEYS).unwrap());
        assert!(zone.bytes >= u64::try_from(KEYS * 64).unwrap(), "{zone:?}");
        assert!(zone.bytes <= changed * 12 / 10 + (64 << 10), "{zone:?}");
    }
}
