//! What transactions of the client promise, shown against a store in memory that others write to meanwhile.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod store;
#[path = "../support/mod.rs"]
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use meridian_client::proto::kv::v1 as kv;
use meridian_client::{
    Action, ActionOutcome, Client, Compare, Effect, Error, KeyRange, ScanQuery, Transaction,
    TxnOptions, Versions,
};
use store::Store;
use support::{Act, Backend as _, Node, cluster, error};

struct Bench {
    nodes: [Node; 3],
    client: Client,
    store: Arc<Mutex<Store>>,
}

impl Bench {
    /// A store of two keys, served by every node of the zone.
    async fn new() -> Self {
        let nodes = cluster(&[]).await;
        let store = Arc::new(Mutex::new(Store::default()));
        for node in &nodes {
            let backend: Arc<Mutex<dyn support::Backend>> = store.clone();
            node.script.lock().unwrap().store = Some(backend);
        }
        store.lock().unwrap().put("a", "1");
        store.lock().unwrap().put("b", "2");
        let client = Client::builder()
            .endpoints([nodes[0].addr.to_string()])
            .zone("a")
            .timeout(Duration::from_secs(20))
            .connect()
            .await
            .unwrap();
        Self {
            nodes,
            client,
            store,
        }
    }

    /// Does this before each operation that is served.
    fn meanwhile(&self, act: impl FnMut(&kv::Operation, &mut Store) + Send + 'static) {
        self.store.lock().unwrap().meanwhile = Some(Box::new(act));
    }

    fn value(&self, key: &str) -> Option<String> {
        self.store.lock().unwrap().value(key)
    }

    /// Names of the operations asked, in order; all of them go to the leader.
    fn asked(&self) -> Vec<&'static str> {
        let asked = self.nodes[0].asked();
        asked.iter().map(name).collect()
    }

    fn transacts(&self) -> Vec<kv::Transact> {
        let transact = |asked: kv::Operation| match asked.operation.unwrap() {
            kv::operation::Operation::Transact(transact) => Some(transact),
            kv::operation::Operation::Get(_)
            | kv::operation::Operation::Put(_)
            | kv::operation::Operation::Delete(_)
            | kv::operation::Operation::Scan(_)
            | kv::operation::Operation::Validate(_) => None,
        };
        let asked = self.nodes.iter().flat_map(Node::asked);
        asked.filter_map(transact).collect()
    }
}

fn name(operation: &kv::Operation) -> &'static str {
    match operation.operation.as_ref().unwrap() {
        kv::operation::Operation::Get(_) => "get",
        kv::operation::Operation::Put(_) => "put",
        kv::operation::Operation::Delete(_) => "delete",
        kv::operation::Operation::Scan(_) => "scan",
        kv::operation::Operation::Transact(_) => "transact",
        kv::operation::Operation::Validate(_) => "validate",
    }
}

fn text(versions: &Versions) -> &str {
    versions
        .value()
        .map_or("", |value| std::str::from_utf8(value).unwrap())
}

fn options() -> TxnOptions {
    TxnOptions::default()
}

fn keys(entries: &[Versions]) -> Vec<&str> {
    entries
        .iter()
        .map(|entry| std::str::from_utf8(&entry.key).unwrap())
        .collect()
}

#[tokio::test]
async fn writes_are_buffered_and_made_as_one_with_what_was_read_compared() {
    let bench = Bench::new().await;
    let txn = bench.client.begin(&options());
    assert_eq!(text(&txn.get("a").await.unwrap()), "1");
    txn.put("a", "10").unwrap();
    txn.put("new", "3").unwrap();
    txn.delete("b").unwrap();
    assert_eq!(text(&txn.get("a").await.unwrap()), "10");
    assert!(!txn.get("b").await.unwrap().found);
    assert_eq!(bench.value("a").as_deref(), Some("1"));

    let committed = txn.commit().await.unwrap();
    assert!(committed.outcome.unwrap().op_id.is_some());
    assert_eq!(bench.value("a").as_deref(), Some("10"));
    assert_eq!(bench.value("new").as_deref(), Some("3"));
    assert_eq!(bench.value("b"), None);
    assert_eq!(bench.asked(), ["get", "transact"]);
    let [transact] = bench.transacts().try_into().unwrap();
    assert_eq!((transact.compare.len(), transact.then.len()), (1, 3));
}

#[tokio::test]
async fn a_transaction_that_is_dropped_or_aborted_leaves_nothing() {
    let bench = Bench::new().await;
    for end in [drop, meridian_client::Txn::abort] {
        let txn = bench.client.begin(&options());
        txn.put("a", "lost").unwrap();
        let other = txn.clone();
        end(txn);
        drop(other);
    }
    assert_eq!(bench.value("a").as_deref(), Some("1"));
    assert!(bench.transacts().is_empty());
}

#[tokio::test]
async fn nothing_can_be_done_with_a_transaction_that_has_ended() {
    let bench = Bench::new().await;
    let txn = bench.client.begin(&options());
    txn.clone().abort();
    assert_eq!(txn.put("a", "x").unwrap_err().reason(), "INVALID_ARGUMENT");
    assert!(txn.get("a").await.is_err());
    assert!(txn.commit().await.is_err());
}

#[tokio::test]
async fn each_read_after_the_first_asks_once_whether_the_earlier_ones_hold() {
    let bench = Bench::new().await;
    let txn = bench.client.begin(&options());
    txn.get("a").await.unwrap();
    txn.get("b").await.unwrap();
    txn.get("a").await.unwrap();
    assert!(txn.commit().await.unwrap().outcome.is_none());
    assert_eq!(bench.asked(), ["get", "get", "validate"]);
}

#[tokio::test]
async fn a_read_that_does_not_fit_the_earlier_ones_is_a_conflict_at_once() {
    let bench = Bench::new().await;
    let txn = bench.client.begin(&options());
    txn.get("a").await.unwrap();
    bench.store.lock().unwrap().put("a", "changed");
    let conflict = txn.get("b").await.unwrap_err();
    assert_eq!(
        (conflict.reason(), conflict.effect()),
        ("CONFLICT", Effect::None)
    );
    assert_eq!(txn.commit().await.unwrap_err().reason(), "CONFLICT");
}

#[tokio::test]
async fn a_change_between_the_read_and_the_question_is_noticed() {
    let bench = Bench::new().await;
    bench.meanwhile(|operation, store| {
        if name(operation) == "validate" {
            store.put("a", "changed");
        }
    });
    let txn = bench.client.begin(&options());
    txn.get("a").await.unwrap();
    assert_eq!(txn.get("b").await.unwrap_err().reason(), "CONFLICT");
}

#[tokio::test]
async fn a_key_that_appears_in_a_range_that_was_read_is_a_conflict() {
    let bench = Bench::new().await;
    let txn = bench.client.begin(&options());
    let seen = txn.scan(&KeyRange::between("a", "z")).await.unwrap();
    assert_eq!(keys(&seen), ["a", "b"]);
    txn.put("result", "2").unwrap();
    bench.store.lock().unwrap().put("c", "phantom");
    assert_eq!(txn.commit().await.unwrap_err().reason(), "CONFLICT");
    assert_eq!(bench.value("result"), None);
}

#[tokio::test]
async fn a_scan_reads_all_pages_shows_own_writes_and_is_checked_as_a_whole() {
    let bench = Bench::new().await;
    {
        let mut store = bench.store.lock().unwrap();
        store.page = 2;
        for key in ["c", "d", "e"] {
            store.put(key, "x");
        }
    }
    let txn = bench.client.begin(&options());
    txn.put("aa", "own").unwrap();
    txn.delete("d").unwrap();
    let seen = txn.scan(&KeyRange::default()).await.unwrap();
    assert_eq!(keys(&seen), ["a", "aa", "b", "c", "e"]);
    let asked: Vec<_> = bench.nodes.iter().flat_map(Node::asked).collect();
    let count = |of: &str| asked.iter().filter(|asked| name(asked) == of).count();
    assert_eq!((count("scan"), count("validate")), (3, 1));
    txn.commit().await.unwrap();
    let [transact] = bench.transacts().try_into().unwrap();
    assert_eq!(transact.compare.len(), 3);
}

#[tokio::test]
async fn pages_that_were_never_true_together_are_a_conflict() {
    let bench = Bench::new().await;
    bench.store.lock().unwrap().page = 1;
    bench.meanwhile(|operation, store| {
        // The key moves from the second page to the first, between the two.
        let second = matches!(&operation.operation, Some(kv::operation::Operation::Scan(scan)) if !scan.page_token.is_empty());
        if second {
            store.put("0", "moved");
        }
    });
    let txn = bench.client.begin(&options());
    let conflict = txn.scan(&KeyRange::default()).await.unwrap_err();
    assert_eq!(conflict.reason(), "CONFLICT");
}

#[tokio::test]
async fn reads_at_the_same_time_are_checked_against_each_other() {
    let bench = Bench::new().await;
    let txn = bench.client.begin(&options());
    let (a, b) = futures::join!(txn.get("a"), txn.get("b"));
    assert_eq!((text(&a.unwrap()), text(&b.unwrap())), ("1", "2"));
    let asked = bench.asked();
    assert_eq!(asked.iter().filter(|name| **name == "validate").count(), 1);
}

#[tokio::test]
async fn the_closure_is_run_again_after_a_conflict_until_it_commits() {
    let bench = Bench::new().await;
    let mut left = 3;
    bench.meanwhile(move |operation, store| {
        if name(operation) == "transact" && left > 0 {
            left -= 1;
            store.put("a", "5");
        }
    });
    let committed = bench
        .client
        .txn(&options(), |txn| async move {
            let read = txn.get("a").await?;
            txn.put("sum", format!("{}+1", text(&read)))?;
            Ok(text(&read).to_owned())
        })
        .await
        .unwrap();
    assert_eq!((committed.value.as_str(), committed.attempts), ("5", 4));
    assert_eq!(bench.value("sum").as_deref(), Some("5+1"));
    let mut op_ids: Vec<_> = bench
        .transacts()
        .into_iter()
        .map(|transact| transact.op_id.unwrap().id)
        .collect();
    op_ids.sort();
    op_ids.dedup();
    assert_eq!(op_ids.len(), 4, "each attempt is an operation of its own");
}

#[tokio::test]
async fn conflicts_without_end_are_given_up_after_so_many_attempts() {
    let bench = Bench::new().await;
    let mut count = 0;
    bench.meanwhile(move |operation, store| {
        if name(operation) == "transact" {
            count += 1;
            store.put("a", &count.to_string());
        }
    });
    let limited = TxnOptions {
        attempts_max: 3,
        ..options()
    };
    let conflict = bench.client.txn(&limited, increment).await.unwrap_err();
    assert_eq!(
        (conflict.reason(), conflict.effect()),
        ("CONFLICT", Effect::None)
    );
    assert_eq!(bench.transacts().len(), 3);
}

async fn increment(txn: meridian_client::Txn) -> Result<(), Error> {
    txn.get("a").await?;
    txn.put("a", "next")
}

#[tokio::test]
async fn an_error_of_the_body_ends_the_transaction_without_effect() {
    let bench = Bench::new().await;
    let body = |txn: meridian_client::Txn| async move {
        txn.put("a", "unwanted")?;
        Err::<(), _>(Error::abort("not wanted"))
    };
    let aborted = bench.client.txn(&options(), body).await.unwrap_err();
    assert_eq!(
        (aborted.reason(), aborted.effect()),
        ("TXN_ABORTED", Effect::None)
    );
    assert!(bench.transacts().is_empty());
}

#[tokio::test]
async fn a_conflict_that_the_body_swallows_is_a_conflict_all_the_same() {
    let bench = Bench::new().await;
    let mut left = 1;
    bench.meanwhile(move |operation, store| {
        if name(operation) == "validate" && left > 0 {
            left -= 1;
            store.put("a", "changed");
        }
    });
    let body = |txn: meridian_client::Txn| async move {
        txn.get("a").await?;
        drop(txn.get("b").await);
        txn.put("c", "3")
    };
    let committed = bench.client.txn(&options(), body).await.unwrap();
    assert_eq!((committed.attempts, bench.transacts().len()), (2, 1));
}

#[tokio::test]
async fn an_unanswered_commit_is_repeated_with_the_same_op_id() {
    let bench = Bench::new().await;
    let txn = bench.client.begin(&options());
    txn.put("a", "9").unwrap();
    bench.nodes[0].play([Act::Hang]);
    txn.commit().await.unwrap();
    let [first, second] = bench.transacts().try_into().unwrap();
    assert!(first.op_id.is_some() && first.op_id == second.op_id);
}

#[tokio::test]
async fn a_commit_goes_to_the_node_that_answered_the_last_one() {
    let bench = Bench::new().await;
    bench.nodes[0].play([Act::ServedBy("a2")]);
    for _ in 0..2 {
        let txn = bench.client.begin(&options());
        txn.put("a", "9").unwrap();
        txn.commit().await.unwrap();
    }
    let asked = bench.nodes.each_ref().map(|node| node.asked().len());
    assert_eq!(asked, [1, 1, 0]);
}

#[tokio::test]
async fn a_read_that_was_given_up_is_checked_by_the_commit() {
    let bench = Bench::new().await;
    let txn = bench.client.begin(&options());
    txn.get("a").await.unwrap();
    bench.nodes[0].play([Act::Serve, Act::Ignore]);
    let reading = txn.clone();
    let read = tokio::spawn(async move { reading.get("b").await.map(drop) });
    // The read is given up while the question about the earlier one is open.
    while bench.asked() != ["get", "get", "validate"] {
        tokio::task::yield_now().await;
    }
    read.abort();
    assert!(read.await.unwrap_err().is_cancelled());
    bench.store.lock().unwrap().put("a", "changed");
    assert_eq!(txn.commit().await.unwrap_err().reason(), "CONFLICT");
}

#[tokio::test]
async fn a_commit_whose_outcome_stays_unknown_is_not_begun_anew() {
    let bench = Bench::new().await;
    for node in &bench.nodes {
        node.play(std::iter::repeat_n(
            Act::Fail(error("OUTCOME_UNKNOWN", kv::Effect::Unknown, false)),
            64,
        ));
    }
    let body = |txn: meridian_client::Txn| async move { txn.put("a", "9") };
    let unknown = bench.client.txn(&options(), body).await.unwrap_err();
    assert_eq!(unknown.effect(), Effect::Unknown);
    assert!(unknown.op_id().is_some());
    assert_eq!(bench.transacts().len(), 1);
}

#[tokio::test]
async fn a_conflict_after_an_unanswered_commit_is_an_unknown_outcome() {
    let bench = Bench::new().await;
    let conflict = || Act::Fail(error("CONFLICT", kv::Effect::None, false));
    bench.nodes[0].play([Act::Hang, conflict()]);
    bench.nodes[1].play([conflict()]);
    let body = |txn: meridian_client::Txn| async move { txn.put("a", "9") };
    let unknown = bench.client.txn(&options(), body).await.unwrap_err();
    assert_eq!(unknown.reason(), "OUTCOME_UNKNOWN");
    assert_eq!(bench.transacts().len(), 2);
}

#[tokio::test]
async fn limits_are_told_before_anything_is_sent() {
    let bench = Bench::new().await;
    let reason = |refused: Error| {
        assert_eq!(refused.effect(), Effect::None);
        refused.reason().to_owned()
    };
    let small = TxnOptions {
        operations_max: 2,
        bytes_max: 100,
        ..options()
    };
    let txn = bench.client.begin(&small);
    txn.put("x", vec![0; 99]).unwrap();
    let heavy = txn.put("x", vec![0; 100]).unwrap_err();
    assert_eq!(reason(heavy), "TRANSACTION_TOO_LARGE");
    txn.put("x", "light").unwrap();
    txn.get("a").await.unwrap();
    let many = txn.delete("y").unwrap_err();
    assert_eq!(reason(many), "TXN_TOO_MANY_OPERATIONS");
    let many = txn.get("b").await.unwrap_err();
    assert_eq!(reason(many), "TXN_TOO_MANY_OPERATIONS");
    txn.commit().await.unwrap();

    let aged = TxnOptions {
        duration_max: Duration::ZERO,
        ..options()
    };
    let txn = bench.client.begin(&aged);
    assert_eq!(reason(txn.get("a").await.unwrap_err()), "TXN_TOO_OLD");
    assert_eq!(reason(txn.commit().await.unwrap_err()), "TXN_TOO_OLD");

    let many = (0..129).map(|n| Action::get(format!("key {n}")));
    let many = many.fold(Transaction::new(), Transaction::then);
    let many = bench.client.transact(many).await.unwrap_err();
    assert_eq!(reason(many), "TXN_TOO_MANY_OPERATIONS");
    let empty = bench.client.begin(&options()).put("", "v").unwrap_err();
    assert_eq!(reason(empty), "INVALID_ARGUMENT");
}

#[tokio::test]
async fn a_one_shot_transaction_does_the_list_that_its_comparisons_choose() {
    let bench = Bench::new().await;
    let transaction = || {
        Transaction::new()
            .when(Compare::value("a", "1"))
            .when(Compare::absent("c"))
            .then(Action::put("c", "3"))
            .then(Action::get("b"))
            .otherwise(Action::get("c"))
    };
    let done = bench.client.transact(transaction()).await.unwrap();
    assert!(done.succeeded);
    let [ActionOutcome::Written { key, .. }, ActionOutcome::Got(b)] = done.results.as_slice()
    else {
        panic!("{:?}", done.results)
    };
    assert_eq!((key.as_ref(), text(b)), (&b"c"[..], "2"));
    let done = bench.client.transact(transaction()).await.unwrap();
    let [ActionOutcome::Got(c)] = done.results.as_slice() else {
        panic!("{:?}", done.results)
    };
    assert_eq!((done.succeeded, text(c)), (false, "3"));
}

#[tokio::test]
async fn a_one_shot_transaction_without_otherwise_fails_when_a_comparison_does_not_hold() {
    let bench = Bench::new().await;
    let transaction = Transaction::new()
        .when(Compare::exists("nowhere"))
        .then(Action::delete("a"));
    let refused = bench.client.transact(transaction).await.unwrap_err();
    assert_eq!(refused.reason(), "CONFLICT");
    assert_eq!(
        bench.transacts().len(),
        1,
        "a comparison is an answer, not a reason to retry"
    );
    assert_eq!(bench.value("a").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_view_shows_one_point_in_time_and_is_closed() {
    let bench = Bench::new().await;
    let view = bench.client.view().await.unwrap();
    bench.store.lock().unwrap().put("a", "later");
    assert_eq!(text(&view.get("a").await.unwrap()), "1");
    let mut scan = view.scan(ScanQuery::default());
    let mut seen = Vec::new();
    while let Some(page) = scan.next_page().await.unwrap() {
        seen.extend(page.entries);
    }
    assert_eq!(seen.iter().map(text).collect::<Vec<_>>(), ["1", "2"]);
    view.close().await.unwrap();
    assert_eq!(bench.store.lock().unwrap().views_closed, 1);
}

#[tokio::test]
async fn a_dropped_view_is_closed_in_the_background() {
    let bench = Bench::new().await;
    drop(bench.client.view().await.unwrap());
    // It is closed by a task of its own: wait for it, however long it takes.
    while bench.store.lock().unwrap().views_closed == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_view_that_a_node_cannot_open_is_opened_at_another_one() {
    let bench = Bench::new().await;
    for node in &bench.nodes[..2] {
        node.play([Act::Fail(error("NO_QUORUM", kv::Effect::None, true))]);
    }
    let view = bench.client.view().await.unwrap();
    assert_eq!(bench.store.lock().unwrap().views_opened, 1);
    view.close().await.unwrap();
}

#[tokio::test]
async fn a_lost_view_is_told_and_not_asked_again() {
    let bench = Bench::new().await;
    let view = bench.client.view().await.unwrap();
    let token = Bytes::from_static(b"view 1");
    bench.store.lock().unwrap().close_view(&token);
    let lost = view.get("a").await.unwrap_err();
    assert_eq!((lost.reason(), lost.effect()), ("VIEW_LOST", Effect::None));
    assert_eq!(
        bench
            .nodes
            .iter()
            .map(|node| node.asked().len())
            .sum::<usize>(),
        1
    );
}
