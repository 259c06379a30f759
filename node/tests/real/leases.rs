//! Leases and times to live, over the wire, in a zone of three real nodes.

use std::time::Duration;

use meridian_proto::kv::v1 as kv;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::cluster::{Cluster, eventually};

/// Long enough that no lease of it ends while a test asks on.
const LONG_MS: u64 = 600_000;

fn acquisition(name: &str, ttl_ms: u64, owner: u8, wait: bool) -> kv::LeaseAcquireRequest {
    kv::LeaseAcquireRequest {
        keyspace: String::new(),
        name: name.to_owned().into(),
        ttl_ms,
        op_id: Some(kv::OpId {
            stamp_ms: 1,
            id: vec![owner; 16].into(),
        }),
        wait,
    }
}

impl Cluster {
    async fn acquire(
        &self,
        index: usize,
        asked: kv::LeaseAcquireRequest,
    ) -> Result<kv::LeaseRef, Status> {
        let mut request = Request::new(asked);
        request.set_timeout(Duration::from_secs(20));
        let answer = self.kv(index).await.lease_acquire(request).await?;
        Ok(answer.into_inner().lease.unwrap())
    }

    /// Acquires until it is granted; a retry carries the same op id.
    async fn acquired(&self, index: usize, asked: &kv::LeaseAcquireRequest) -> kv::LeaseRef {
        let granted = eventually(async || self.acquire(index, asked.clone()).await);
        granted
            .await
            .unwrap_or_else(|last| panic!("at n{}: {last}", index + 1))
    }

    async fn renew(&self, index: usize, lease: &kv::LeaseRef) -> Result<(), Status> {
        let request = kv::LeaseRenewRequest {
            keyspace: String::new(),
            lease: Some(lease.clone()),
        };
        self.kv(index).await.lease_renew(request).await.map(drop)
    }

    async fn end(&self, index: usize, lease: &kv::LeaseRef) -> Result<(), Status> {
        let request = kv::LeaseEndRequest {
            keyspace: String::new(),
            lease: Some(lease.clone()),
        };
        self.kv(index).await.lease_end(request).await.map(drop)
    }

    async fn put_with(&self, index: usize, put: kv::Put) -> Result<(), Status> {
        let request = kv::PutRequest {
            keyspace: String::new(),
            put: Some(put),
        };
        self.kv(index).await.put(request).await.map(drop)
    }
}

fn reason(status: &Status) -> String {
    status
        .get_error_details()
        .error_info()
        .unwrap()
        .reason
        .clone()
}

fn put(key: &str) -> kv::Put {
    kv::Put {
        key: key.to_owned().into(),
        value: "1".into(),
        ..kv::Put::default()
    }
}

#[tokio::test]
async fn a_lease_has_one_holder_at_every_node_and_a_greater_token_each_time() {
    let cluster = Cluster::start(&[3], &[]);
    let first = cluster
        .acquired(0, &acquisition("l", LONG_MS, 1, false))
        .await;
    // The same owner at another node gets the same token; another owner none.
    let again = cluster
        .acquired(1, &acquisition("l", LONG_MS, 1, false))
        .await;
    assert_eq!(again, first);
    let refused = eventually(async || {
        match cluster
            .acquire(2, acquisition("l", LONG_MS, 2, false))
            .await
        {
            Err(status) if status.code() == Code::Aborted => Ok(reason(&status)),
            other => Err(other),
        }
    });
    assert_eq!(refused.await.unwrap(), "LEASE_HELD");
    let shown = cluster
        .kv(2)
        .await
        .lease_get(kv::LeaseGetRequest {
            keyspace: String::new(),
            name: "l".into(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((shown.lease, shown.ttl_ms), (Some(first.clone()), LONG_MS));
    eventually(async || cluster.renew(1, &first).await)
        .await
        .unwrap();

    // One waits at another node until the lease is given up.
    let waiting = cluster.acquire(2, acquisition("l", LONG_MS, 3, true));
    let ending = async { eventually(async || cluster.end(0, &first).await).await };
    let (next, ended) = tokio::join!(waiting, ending);
    ended.unwrap();
    let next = next.unwrap();
    assert!(next.token > first.token, "{next:?} after {first:?}");
    let lost = cluster.renew(0, &first).await.unwrap_err();
    assert_eq!(reason(&lost), "LEASE_LOST");
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_lease_survives_its_leader_and_ends_when_nobody_renews_it() {
    let mut cluster = Cluster::start(&[3], &[]);
    let lease = cluster
        .acquired(0, &acquisition("l", 2_000, 1, false))
        .await;
    for lost in 0..3 {
        cluster.kill(lost);
        let other = (lost + 1) % 3;
        // Waits for the end of a holder that is gone.
        let next = cluster
            .acquired(
                other,
                &acquisition("l", 2_000, u8::try_from(lost).unwrap() + 2, true),
            )
            .await;
        assert!(next.token > lease.token);
        cluster.spawn(lost);
        cluster.wait_ready(lost);
    }
    cluster.expect_no_panic();
}

#[tokio::test]
async fn keys_of_all_shards_vanish_with_their_lease() {
    let cluster = Cluster::start(&[3], &[]);
    let lease = cluster
        .acquired(0, &acquisition("l", LONG_MS, 1, false))
        .await;
    let keys: Vec<String> = (0..16).map(|key| format!("k{key}")).collect();
    for key in &keys {
        let leased = || kv::Put {
            lease: Some(lease.clone()),
            ..put(key)
        };
        eventually(async || cluster.put_with(0, leased()).await)
            .await
            .unwrap();
    }
    cluster.expect(&[0, 1, 2], "k0", &["1"]).await;
    cluster.end(1, &lease).await.unwrap();
    for key in &keys {
        cluster.expect(&[0], key, &[]).await;
    }
    // The lease's name hashes to one shard; a key of the same name stands in it.
    let late = kv::Put {
        lease: Some(lease.clone()),
        ..put("l")
    };
    let refused = cluster.put_with(0, late).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::FailedPrecondition, "LEASE_NOT_FOUND")
    );
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_value_with_a_time_to_live_goes_by_itself_in_every_zone() {
    let cluster = Cluster::start(&[1, 1], &[]);
    let passing = kv::Put {
        ttl_ms: 1,
        ..put("passing")
    };
    let lasting = kv::Put {
        ttl_ms: LONG_MS,
        ..put("lasting")
    };
    cluster.put_with(0, lasting).await.unwrap();
    cluster.put_with(0, passing).await.unwrap();
    cluster.expect(&[0, 1], "lasting", &["1"]).await;
    cluster.expect(&[0, 1], "passing", &[]).await;
    cluster.expect(&[0, 1], "lasting", &["1"]).await;
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_lease_without_a_name_or_with_an_impossible_time_is_refused() {
    let cluster = Cluster::start(&[1], &[]);
    for (name, ttl_ms) in [("", 1_000), ("l", 0), ("l", u64::MAX)] {
        let refused = cluster
            .acquire(0, acquisition(name, ttl_ms, 1, false))
            .await;
        assert_eq!(
            refused.unwrap_err().code(),
            Code::InvalidArgument,
            "{name:?} {ttl_ms}"
        );
    }
    cluster.expect_no_panic();
}
