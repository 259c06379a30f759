//! A watch goes on where it was, at another node, and gives back what no node can cure.

use std::collections::HashMap;

use meridian_client::proto::kv::v1 as kv;
use meridian_client::{Revision, WatchQuery};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::patient;
use crate::support::{Node, cluster};

#[expect(
    clippy::unnecessary_wraps,
    reason = "it stands in a list beside failures"
)]
fn message(values: &[&'static str], revision: &'static str) -> Result<kv::WatchResponse, Status> {
    let event = |value: &&'static str| kv::WatchEvent {
        key: "k".into(),
        value: (*value).into(),
        revision: revision.into(),
        ..kv::WatchEvent::default()
    };
    Ok(kv::WatchResponse {
        events: values.iter().map(event).collect(),
        revision: revision.into(),
        served_by: None,
    })
}

fn failure(code: Code, reason: &str, retry: bool) -> Result<kv::WatchResponse, Status> {
    let facts = HashMap::from([("effect".to_owned(), "none".to_owned())]);
    let mut details = ErrorDetails::with_error_info(reason, "meridian", facts);
    if retry {
        details.set_retry_info(Some(std::time::Duration::from_millis(1)));
    }
    Err(Status::with_error_details(code, reason, details))
}

/// Whichever node of the zone is asked after `from` says this.
fn script(nodes: &[Node; 3], from: &'static str, said: &[Result<kv::WatchResponse, Status>]) {
    for node in nodes {
        let mut script = node.script.lock().unwrap();
        script.watches.insert(from.into(), said.to_vec());
    }
}

#[tokio::test]
async fn a_watch_goes_on_from_its_last_revision_when_a_node_ends_and_stops_when_the_past_is_gone() {
    let nodes = cluster(&[]).await;
    let draining = || failure(Code::Unavailable, "DRAINING", true);
    script(
        &nodes,
        "",
        &[message(&[], "r1"), message(&["1", "2"], "r2")],
    );
    script(&nodes, "r2", &[message(&[], "r2"), draining()]);
    let mut watch = patient(&nodes[0]).await.watch(WatchQuery::key("k"));
    let first = watch.next_batch().await.unwrap();
    assert!(first.events.is_empty() && watch.revision() == &first.revision);
    assert_eq!(watch.next_batch().await.unwrap().events.len(), 2);

    let gone = || failure(Code::OutOfRange, "COMPACTED", false);
    script(
        &nodes,
        "r2",
        &[message(&[], "r2"), message(&["3"], "r3"), draining()],
    );
    script(&nodes, "r3", &[message(&[], "r3"), gone()]);
    let batch = watch.next_batch().await.unwrap();
    assert_eq!(batch.events[0].value.as_deref(), Some(&b"3"[..]));
    assert_eq!(watch.next_batch().await.unwrap_err().reason(), "COMPACTED");
    assert_eq!(watch.revision(), &Revision::from(bytes::Bytes::from("r3")));
}

#[tokio::test]
async fn a_watcher_that_was_too_slow_is_told_and_may_go_on() {
    let nodes = cluster(&[]).await;
    let slow = || failure(Code::ResourceExhausted, "WATCH_TOO_SLOW", true);
    script(&nodes, "r1", &[message(&["1"], "r2"), slow()]);
    script(&nodes, "r2", &[message(&["2"], "r3")]);
    let query = WatchQuery::prefix("k").after(Revision::from(bytes::Bytes::from("r1")));
    let mut watch = patient(&nodes[0]).await.watch(query);
    assert_eq!(watch.next_batch().await.unwrap().events.len(), 1);
    let told = watch.next_batch().await.unwrap_err();
    assert!(told.is_retryable() && told.reason() == "WATCH_TOO_SLOW");
    assert_eq!(watch.next_batch().await.unwrap().events.len(), 1);
}
