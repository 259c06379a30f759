//! Watching real nodes: every change once, in order, whoever dies.

use std::collections::BTreeMap;

use bytes::Bytes;
use meridian_proto::kv::v1 as kv;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::cluster::{Cluster, PATIENCE, eventually};

/// A watcher that goes on by hand.
struct Watcher {
    prefix: &'static str,
    revision: Bytes,
    stream: Streaming<kv::WatchResponse>,
}

impl Watcher {
    async fn begin(
        cluster: &Cluster,
        index: usize,
        prefix: &'static str,
        from: Bytes,
    ) -> Result<Self, Status> {
        let request = kv::WatchRequest {
            keyspace: String::new(),
            keys: Some(kv::watch_request::Keys::Prefix(prefix.into())),
            from,
        };
        let mut client = cluster.kv(index).await;
        let mut stream = client.watch(request).await?.into_inner();
        let first = stream.message().await?.expect("a watch does not end");
        Ok(Self {
            prefix,
            revision: first.revision,
            stream,
        })
    }

    /// A watch from now on, once the node serves it.
    async fn start(cluster: &Cluster, index: usize, prefix: &'static str) -> Self {
        let begun = eventually(async || Self::begin(cluster, index, prefix, Bytes::new()).await);
        begun.await.unwrap()
    }

    /// The same watch at another node.
    async fn go_on(self, cluster: &Cluster, index: usize) -> Self {
        let (prefix, from) = (self.prefix, self.revision);
        let begun = eventually(async || Self::begin(cluster, index, prefix, from.clone()).await);
        begun.await.unwrap()
    }

    /// The next changes, until there are `count`; the revision is that of the last one.
    async fn take(&mut self, count: usize) -> Result<Vec<kv::WatchEvent>, Status> {
        let mut events = Vec::new();
        while events.len() < count {
            let message = tokio::time::timeout(PATIENCE, self.stream.message());
            let message = message.await.expect("changes come in time")?;
            let message = message.expect("a watch ends with an error only");
            self.revision = message.revision;
            events.extend(message.events);
        }
        // What came with them is seen again by whoever goes on from here.
        if let Some(last) = events.get(count.saturating_sub(1)) {
            self.revision = last.revision.clone();
        }
        events.truncate(count);
        Ok(events)
    }
}

/// Writes until the write is acknowledged, under one op id.
async fn put_once(cluster: &Cluster, index: usize, key: &str, value: &str) {
    let mut client = cluster.kv(index).await;
    let stamp = client.hello(kv::HelloRequest {}).await.unwrap();
    let id = blake3::hash(format!("{key} {value}").as_bytes());
    let request = kv::PutRequest {
        keyspace: String::new(),
        put: Some(kv::Put {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            op_id: Some(kv::OpId {
                stamp_ms: stamp.into_inner().stamp_ms,
                id: Bytes::copy_from_slice(&id.as_bytes()[..16]),
            }),
            ..kv::Put::default()
        }),
    };
    let written = eventually(async || cluster.kv(index).await.put(request.clone()).await);
    written.await.unwrap();
}

fn by_key(events: &[kv::WatchEvent]) -> BTreeMap<String, Vec<String>> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in events {
        let of = by_key.entry(text(&event.key)).or_default();
        of.push(text(&event.value));
    }
    by_key
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().expect("a status says why");
    info.reason.clone()
}

#[tokio::test]
async fn a_watcher_sees_each_write_once_and_in_order_when_its_node_is_killed_and_it_goes_on_elsewhere()
 {
    let mut cluster = Cluster::start(&[3], &[]);
    let mut watcher = Watcher::start(&cluster, 0, "k").await;
    let mut seen = Vec::new();
    for round in 0..3 {
        for n in 0..20 {
            let (key, value) = (format!("k{}", n % 5), format!("{round}.{n:02}"));
            let writer = if round == 1 { 2 } else { 1 };
            put_once(&cluster, writer, &key, &value).await;
            if round == 0 && n == 10 {
                // Fewer than have come: the rest comes again.
                seen.extend(watcher.take(7).await.unwrap());
            }
        }
        let node = [0, 1, 2][round];
        cluster.kill(node);
        watcher = watcher.go_on(&cluster, (round + 1) % 3).await;
        let missing = 20 * (round + 1) - seen.len();
        seen.extend(watcher.take(missing).await.unwrap());
        cluster.spawn(node);
        cluster.wait_ready(node);
    }
    let expected = (0..5).map(|key| {
        let values = (0..3).flat_map(|round| {
            (0..20)
                .filter(move |n| n % 5 == key)
                .map(move |n| format!("{round}.{n:02}"))
        });
        (format!("k{key}"), values.collect::<Vec<_>>())
    });
    assert_eq!(by_key(&seen), expected.collect());
    cluster.expect_no_panic();
}

#[tokio::test]
async fn writes_of_another_zone_are_shown_with_their_zone_and_revisions_stay_in_theirs() {
    let cluster = Cluster::start(&[1, 1], &[]);
    let mut watcher = Watcher::start(&cluster, 0, "k").await;
    cluster.put(0, "k1", "here").await.unwrap();
    cluster.put(1, "k2", "there").await.unwrap();
    cluster.put(1, "other", "unwatched").await.unwrap();
    let mut events = watcher.take(2).await.unwrap();
    events.sort_by(|a, b| a.key.cmp(&b.key));
    let zones: Vec<&str> = events.iter().map(|event| event.zone.as_str()).collect();
    assert_eq!(zones, ["a", "b"]);
    assert!(events.iter().all(|event| {
        let dot = event.dot.as_ref().unwrap();
        !event.deleted && dot.zone == event.zone && !event.revision.is_empty()
    }));
    let refused = Watcher::begin(&cluster, 1, "k", watcher.revision.clone()).await;
    let status = refused.err().unwrap();
    assert_eq!(
        (reason(&status).as_str(), status.code()),
        ("BAD_TOKEN", Code::InvalidArgument)
    );
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_watcher_whose_past_is_gone_is_told_so() {
    let mut cluster = Cluster::prepare(&[1], &[]);
    let file = cluster.folder.path().join("node.toml");
    std::fs::write(file, "[bounds]\nwatch_bytes = 0\n").unwrap();
    cluster.spawn(0);
    cluster.wait_ready(0);
    let watcher = Watcher::start(&cluster, 0, "").await;
    let old = watcher.revision.clone();
    drop(watcher);
    cluster.put_until_acknowledged(0, "k", "1").await;
    let told = eventually(async || {
        let mut again = Watcher::begin(&cluster, 0, "", old.clone()).await;
        let watched = match &mut again {
            Ok(watcher) => watcher.take(1).await.map(drop),
            Err(status) => Err(status.clone()),
        };
        match watched {
            Err(status) if reason(&status) == "COMPACTED" => Ok(status.code()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(told.await, Ok(Code::OutOfRange));
}
