//! What the client does when nodes refuse, vanish, or answer late: shown against scripted nodes.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;
mod watching;

use std::time::Duration;

use meridian_client::proto::kv::v1 as kv;
use meridian_client::{Client, Effect, Error, Intent, ReadOptions, ScanQuery, WriteOptions};
use support::{Act, Node, cluster, error};

async fn client(of: &Node, timeout: Duration) -> Client {
    Client::builder()
        .endpoints([of.addr.to_string()])
        .zone("a")
        .timeout(timeout)
        .connect()
        .await
        .unwrap()
}

async fn patient(of: &Node) -> Client {
    client(of, Duration::from_secs(20)).await
}

async fn put(client: &Client) -> Result<(), Error> {
    client.put("k", "v", &WriteOptions::default()).await?;
    Ok(())
}

async fn put_if_absent(client: &Client) -> Result<(), Error> {
    let options = WriteOptions {
        intent: Intent::IfAbsent,
        ..WriteOptions::default()
    };
    client.put("k", "v", &options).await?;
    Ok(())
}

fn op_ids(node: &Node) -> Vec<Option<kv::OpId>> {
    let asked = node.asked().into_iter();
    asked.map(|asked| op_id(asked.operation.unwrap())).collect()
}

fn op_id(operation: kv::operation::Operation) -> Option<kv::OpId> {
    use kv::operation::Operation;
    match operation {
        Operation::Put(put) => put.op_id,
        Operation::Delete(delete) => delete.op_id,
        Operation::Transact(transact) => transact.op_id,
        Operation::Get(_) | Operation::Scan(_) | Operation::Validate(_) => None,
    }
}

#[tokio::test]
async fn a_write_goes_to_the_leader_with_a_stamped_op_id() {
    let [a1, a2, b1] = cluster(&[]).await;
    put(&patient(&b1).await).await.unwrap();
    let ids = op_ids(&a1);
    assert_eq!(ids.len(), 1);
    let op_id = ids[0].as_ref().unwrap();
    assert!(op_id.stamp_ms >= 1_000_000);
    assert_eq!(op_id.id.len(), 16);
    assert!(a2.asked().is_empty() && b1.asked().is_empty());
}

#[tokio::test]
async fn a_refused_write_is_retried_with_the_same_op_id() {
    let [a1, a2, _b1] = cluster(&[]).await;
    let refusal = || Act::Fail(error("NOT_LEADER", kv::Effect::None, true));
    a1.play([refusal(), refusal()]);
    a2.play([refusal(), refusal()]);
    let client = Client::builder()
        .endpoints([a1.addr.to_string()])
        .zone("a")
        .stay_in_zone()
        .timeout(Duration::from_secs(20))
        .connect()
        .await
        .unwrap();
    put(&client).await.unwrap();
    let ids = [op_ids(&a1), op_ids(&a2)].concat();
    assert!(ids.len() >= 3, "{ids:?}");
    assert!(
        ids.iter().all(|id| id.is_some() && *id == ids[0]),
        "{ids:?}"
    );
}

#[tokio::test]
async fn a_broken_stream_is_followed_by_a_retry_with_the_same_op_id_elsewhere() {
    let [a1, a2, _b1] = cluster(&[]).await;
    a1.play([Act::Hang]);
    put(&patient(&a1).await).await.unwrap();
    assert_eq!(op_ids(&a1).len(), 1);
    assert_eq!(op_ids(&a1), op_ids(&a2));
}

#[tokio::test]
async fn a_node_that_never_answers_leaves_time_for_another() {
    let [a1, a2, _b1] = cluster(&[]).await;
    a1.play([Act::Ignore]);
    let client = client(&a1, Duration::from_secs(2)).await;
    put(&client).await.unwrap();
    assert_eq!(op_ids(&a1), op_ids(&a2));
}

#[tokio::test]
async fn a_zone_that_is_down_is_replaced_by_another_for_an_unconditional_write() {
    let [_a1, _a2, b1] = cluster(&["a1", "a2"]).await;
    put(&patient(&b1).await).await.unwrap();
    assert_eq!(b1.asked().len(), 1);
}

#[tokio::test]
async fn a_conditional_write_fails_without_effect_when_its_zone_is_down() {
    let [_a1, _a2, b1] = cluster(&["a1", "a2"]).await;
    let client = client(&b1, Duration::from_secs(1)).await;
    let error = put_if_absent(&client).await.unwrap_err();
    assert_eq!(error.reason(), "UNREACHABLE");
    assert_eq!(error.effect(), Effect::None);
    assert!(b1.asked().is_empty());
}

#[tokio::test]
async fn a_conditional_write_that_broke_off_has_an_unknown_outcome_and_names_its_op_id() {
    let [a1, _a2, _b1] = cluster(&["a2"]).await;
    a1.play(std::iter::repeat_n(Act::Hang, 64));
    let client = client(&a1, Duration::from_secs(1)).await;
    let error = put_if_absent(&client).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    assert_eq!(error.reason(), "OUTCOME_UNKNOWN");
    assert!(error.op_id().is_some());
}

#[tokio::test]
async fn an_error_that_no_retry_helps_is_final() {
    let [a1, a2, _b1] = cluster(&[]).await;
    a1.play([Act::Fail(error(
        "VERSION_MISMATCH",
        kv::Effect::None,
        false,
    ))]);
    let error = put_if_absent(&patient(&a1).await).await.unwrap_err();
    assert_eq!(error.reason(), "VERSION_MISMATCH");
    assert_eq!(a1.asked().len() + a2.asked().len(), 1);
}

#[tokio::test]
async fn a_write_that_stands_but_missed_its_level_is_not_repeated() {
    let [a1, _a2, _b1] = cluster(&[]).await;
    a1.play([Act::Fail(error(
        "LEVEL_NOT_REACHED",
        kv::Effect::Applied,
        true,
    ))]);
    let error = put(&patient(&a1).await).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Applied);
    assert_eq!(a1.asked().len(), 1);
}

#[tokio::test]
async fn a_read_without_an_answer_has_no_effect() {
    let [a1, _a2, _b1] = cluster(&["a2", "b1"]).await;
    a1.play(std::iter::repeat_n(Act::Ignore, 64));
    let client = client(&a1, Duration::from_millis(600)).await;
    let error = client.get("k", &ReadOptions::default()).await.unwrap_err();
    assert_eq!(error.effect(), Effect::None);
}

#[tokio::test]
async fn the_node_that_served_is_asked_the_next_time() {
    let [a1, a2, _b1] = cluster(&[]).await;
    a1.play([Act::ServedBy("a2")]);
    let client = patient(&a1).await;
    put(&client).await.unwrap();
    put(&client).await.unwrap();
    assert_eq!((a1.asked().len(), a2.asked().len()), (1, 1));
}

#[tokio::test]
async fn many_operations_share_messages_and_each_gets_its_own_answer() {
    let [a1, _a2, _b1] = cluster(&[]).await;
    let client = patient(&a1).await;
    let keys: Vec<_> = (0..1_000).map(|n| format!("key-{n}").into()).collect();
    let answers = client
        .batch_get(keys.clone(), &ReadOptions::default())
        .await;
    for (key, answer) in keys.iter().zip(answers) {
        assert_eq!(answer.unwrap().value(), Some(key));
    }
    let script = a1.script.lock().unwrap();
    assert_eq!(script.asked.len(), 1_000);
    assert!(script.messages < 500, "{} messages", script.messages);
}

#[tokio::test]
async fn a_scan_reads_all_pages_in_order() {
    let [a1, _a2, _b1] = cluster(&[]).await;
    let mut scan = patient(&a1).await.scan(ScanQuery::default());
    let mut keys = Vec::new();
    while let Some(page) = scan.next_page().await.unwrap() {
        keys.extend(page.entries.into_iter().map(|entry| entry.key));
    }
    assert_eq!(keys, ["k1", "k2", "k3"]);
}

#[tokio::test]
async fn one_node_of_each_zone_is_asked_and_a_dead_one_replaced() {
    let [_a1, a2, _b1] = cluster(&["a1"]).await;
    let admin = patient(&a2).await.admin();
    let request = meridian_client::proto::admin::v1::LagRequest::default;
    let rows = admin
        .each_zone(|node| async move { node.lag(request()).await })
        .await;
    let from: Vec<_> = rows
        .into_iter()
        .map(|row| row.unwrap().rows[0].from.clone())
        .collect();
    assert_eq!(from, ["a", "b"]);
}

#[tokio::test]
async fn nobody_at_the_endpoints_is_unreachable_without_effect() {
    let [a1, _a2, _b1] = cluster(&["a1"]).await;
    let connecting = Client::builder()
        .endpoints([a1.addr.to_string()])
        .connect()
        .await;
    let error = connecting.err().unwrap();
    assert_eq!(error.effect(), Effect::None);
    assert_eq!(error.reason(), "UNREACHABLE");
}

#[tokio::test]
async fn malformed_endpoints_are_refused() {
    for endpoints in [vec![], vec!["not an address"]] {
        let connecting = Client::builder().endpoints(endpoints).connect().await;
        assert_eq!(connecting.err().unwrap().reason(), "INVALID_ARGUMENT");
    }
}
