//! What a node refuses, and that it goes on serving afterwards.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::cluster::{Cluster, PATIENCE, run_to_end};
use meridian_proto::admin::v1 as admin;
use meridian_proto::kv::v1 as kv;
use meridian_proto::peer::v1 as peer;
use meridian_proto::peer::v1::peer_client::PeerClient;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Code, reason and effect of a failure.
fn facts(status: &Status) -> (Code, String, String) {
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("{status:?} has no facts"));
    (
        status.code(),
        info.reason.clone(),
        info.metadata.get("effect").cloned().unwrap_or_default(),
    )
}

async fn put_refused(cluster: &Cluster, keyspace: &str, put: kv::Put) -> (Code, String, String) {
    let request = kv::PutRequest {
        keyspace: keyspace.into(),
        put: Some(put),
    };
    facts(&cluster.kv(0).await.put(request).await.unwrap_err())
}

fn none(code: Code, reason: &str) -> (Code, String, String) {
    (code, reason.into(), "none".into())
}

fn plain() -> kv::Put {
    kv::Put {
        key: "k".into(),
        value: "v".into(),
        ..kv::Put::default()
    }
}

fn argument(reason: &str) -> (Code, String, String) {
    none(Code::InvalidArgument, reason)
}

fn unsupported(reason: &str) -> (Code, String, String) {
    none(Code::FailedPrecondition, reason)
}

#[tokio::test]
async fn sizes_out_of_bounds_and_bad_op_ids_are_refused_without_effect() {
    let cluster = Cluster::start(&[1], &[]);
    let stamped = |stamp_ms, id: &'static [u8]| kv::Put {
        op_id: Some(kv::OpId {
            stamp_ms,
            id: id.into(),
        }),
        ..plain()
    };
    let cases = [
        (
            kv::Put {
                key: vec![b'k'; 4097].into(),
                ..plain()
            },
            argument("KEY_TOO_LARGE"),
        ),
        (
            kv::Put {
                key: bytes::Bytes::new(),
                ..plain()
            },
            argument("KEY_EMPTY"),
        ),
        (
            kv::Put {
                value: vec![0; (1 << 20) + 1].into(),
                ..plain()
            },
            argument("VALUE_TOO_LARGE"),
        ),
        (stamped(u64::MAX, &[7; 16]), argument("BAD_OP_ID")),
        (stamped(1, &[7; 3]), argument("BAD_OP_ID")),
    ];
    for (put, expected) in cases {
        assert_eq!(put_refused(&cluster, "", put).await, expected);
    }
    let nowhere = none(Code::NotFound, "KEYSPACE_NOT_FOUND");
    assert_eq!(put_refused(&cluster, "nowhere", plain()).await, nowhere);
    assert_eq!(cluster.get(0, "k").await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn forged_and_foreign_contexts_and_levels_not_offered_are_refused_without_effect() {
    let cluster = Cluster::start(&[1], &[]);
    let context = cluster.put(0, "other", "v").await.unwrap().context;
    let with_context = |context: bytes::Bytes| kv::Put {
        intent: i32::from(kv::Intent::Context),
        context,
        ..plain()
    };
    let level = |kind| kv::Put {
        level: Some(kv::WriteLevel { kind, zones: 2 }),
        ..plain()
    };
    let cases = [
        (with_context(context.clone()), argument("BAD_TOKEN")),
        (with_context("forged".into()), argument("BAD_TOKEN")),
        (with_context(vec![1; 70_000].into()), argument("BAD_TOKEN")),
        (kv::Put { context, ..plain() }, argument("INVALID_ARGUMENT")),
        (level(1), argument("INVALID_ARGUMENT")),
        (level(77), unsupported("LEVEL_UNSUPPORTED")),
    ];
    for (put, expected) in cases {
        assert_eq!(put_refused(&cluster, "", put).await, expected);
    }
    assert_eq!(cluster.get(0, "k").await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn reads_are_refused_by_reason() {
    let cluster = Cluster::start(&[1], &[]);
    let mut client = cluster.kv(0).await;
    let keyspace = String::new();
    let zones = i32::from(kv::read_level::Kind::Zones);
    for (kind, count, expected) in [
        (zones, 0, argument("INVALID_ARGUMENT")),
        (zones, 2, argument("INVALID_ARGUMENT")),
        (77, 0, unsupported("LEVEL_UNSUPPORTED")),
    ] {
        let level = Some(kv::ReadLevel {
            kind,
            zones: count,
            ..kv::ReadLevel::default()
        });
        let get = Some(kv::Get {
            key: "k".into(),
            level,
            ..kv::Get::default()
        });
        let request = kv::GetRequest {
            keyspace: keyspace.clone(),
            get,
        };
        let refused = client.get(request).await.unwrap_err();
        assert_eq!(facts(&refused), expected);
    }
    let scan = Some(kv::Scan {
        page_token: "x".into(),
        ..kv::Scan::default()
    });
    let refused = client
        .scan(kv::ScanRequest { keyspace, scan })
        .await
        .unwrap_err();
    assert_eq!(facts(&refused), argument("BAD_PAGE_TOKEN"));
}

#[tokio::test]
async fn operators_are_refused_by_reason() {
    let cluster = Cluster::start(&[1, 1], &[]);
    let mut operator = cluster.admin(0).await;
    let block = admin::FaultBlockRequest {
        from: "a".into(),
        to: "b".into(),
        one_way: false,
    };
    let refused = operator.fault_block(block).await.unwrap_err();
    assert_eq!(facts(&refused), unsupported("FAULTS_DISABLED"));
    let create = |name: &str, mode: &str| admin::KeyspaceCreateRequest {
        name: name.into(),
        mode: mode.into(),
        shards: 2,
        policy: None,
    };
    operator
        .keyspace_create(create("mine", "async"))
        .await
        .unwrap();
    let cases = [
        (create("no spaces", ""), argument("INVALID_ARGUMENT")),
        // Two zones: one of them would have half of the voters.
        (create("s", "sync"), argument("INVALID_ARGUMENT")),
        (create("s", "quorum"), unsupported("MODE_UNSUPPORTED")),
        (
            create("mine", "async"),
            none(Code::AlreadyExists, "KEYSPACE_EXISTS"),
        ),
    ];
    for (request, expected) in cases {
        let refused = operator.keyspace_create(request).await.unwrap_err();
        assert_eq!(facts(&refused), expected);
    }
}

#[tokio::test]
async fn bytes_that_make_no_sense_on_any_port_leave_the_node_serving() {
    let cluster = Cluster::start(&[1, 1], &[]);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut noise = vec![0; 4096];
    for round in 0..8 {
        getrandom::fill(&mut noise).unwrap();
        for port in [7400, 7401, 7402] {
            let mut socket = TcpStream::connect((cluster.nodes[0].ip.as_str(), port)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            if round % 2 == 1 {
                socket.write_all(preface).unwrap();
            }
            // The node may have closed the socket already, which is as good an answer as any.
            drop(socket.write_all(&noise));
            drop(socket.shutdown(std::net::Shutdown::Write));
            drop(socket.read_to_end(&mut Vec::new()));
        }
    }
    cluster.put(0, "k", "1").await.unwrap();
    cluster.expect(&[0, 1], "k", &["1"]).await;
    cluster.expect_no_panic();
}

fn handshake(cluster: &str, node: u64) -> peer::Frame {
    let handshake = peer::Handshake {
        protocol: 1,
        cluster: cluster.into(),
        node,
        zone: "b".into(),
        to: 1,
    };
    peer::Frame {
        frame: Some(peer::frame::Frame::Handshake(handshake)),
    }
}

/// How a link that sends these frames ends.
async fn link_ends(cluster: &Cluster, frames: Vec<peer::Frame>) -> Status {
    let address = format!("http://{}:7401", cluster.nodes[0].ip);
    let mut client = PeerClient::connect(address).await.unwrap();
    // The stream stays open behind its last frame: the node ends the link, not we.
    let frames = futures::StreamExt::chain(tokio_stream::iter(frames), futures::stream::pending());
    let mut answers = match client.link(frames).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return status,
    };
    loop {
        match answers.message().await {
            Ok(Some(_welcome)) => {}
            Ok(None) => return Status::ok("ended"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn a_link_that_does_not_fit_or_makes_no_sense_is_closed_with_its_reason() {
    let cluster = Cluster::start(&[1, 1], &[]);
    let refused = link_ends(&cluster, vec![handshake("prod", 2)]).await;
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("cluster \"prod\", not \"test\""),
        "{refused:?}"
    );
    let refused = link_ends(&cluster, vec![handshake("test", 9)]).await;
    assert!(
        refused.message().contains("node 9 is not known"),
        "{refused:?}"
    );
    assert_eq!(
        link_ends(&cluster, vec![peer::Frame::default()])
            .await
            .code(),
        Code::InvalidArgument
    );
    let empty = peer::Batch {
        messages: vec![peer::PeerMessage::default()],
    };
    let empty = peer::Frame {
        frame: Some(peer::frame::Frame::Batch(empty)),
    };
    let refused = link_ends(&cluster, vec![handshake("test", 2), empty]).await;
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "message is missing")
    );
    cluster.put(0, "k", "1").await.unwrap();
    cluster.expect(&[1], "k", &["1"]).await;
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_directory_in_use_or_of_somebody_else_is_refused_with_exit_code_1() {
    let mut cluster = Cluster::start(&[1, 1], &[]);
    let (code, said) = run_to_end(cluster.command(0));
    assert_eq!(code, Some(1));
    assert!(said.contains("is in use by another process"), "{said}");
    assert!(cluster.terminate(1).success());
    cluster.nodes[1].name = "n1".into();
    let (code, said) = run_to_end(cluster.command(1));
    assert_eq!(code, Some(1));
    assert!(
        said.contains("belongs to node id 2, this is node id 1"),
        "{said}"
    );
    std::fs::write(cluster.nodes[1].data.join("FORMAT"), "99\n").unwrap();
    let (code, said) = run_to_end(cluster.command(1));
    assert_eq!(code, Some(1));
    assert!(said.contains("has format 99"), "{said}");
}

#[tokio::test]
async fn a_node_told_to_stop_ends_open_streams_and_exits_with_0() {
    let mut cluster = Cluster::start(&[1], &[]);
    cluster.put(0, "k", "1").await.unwrap();
    let (keep_open, requests) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    keep_open.send(kv::OperateRequest::default()).await.unwrap();
    let mut answers = cluster
        .kv(0)
        .await
        .operate(requests)
        .await
        .unwrap()
        .into_inner();
    assert!(answers.message().await.unwrap().is_some());
    let ended = tokio::task::spawn_blocking(move || cluster.terminate(0));
    while let Ok(Some(_)) = answers.message().await {}
    assert!(ended.await.unwrap().success());
}
