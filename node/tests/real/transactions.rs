//! What the shell adds to transactions: stamps, validations and refusals, through any node of a zone.

use std::collections::BTreeMap;

use meridian_proto::kv::v1 as kv;
use meridian_proto::kv::v1::operation::Operation;
use meridian_proto::kv::v1::outcome::Outcome;
use tonic_types::StatusExt as _;

use crate::cluster::{Cluster, eventually};

/// Sends operations in one message and takes their outcomes, by their place.
async fn operate(
    cluster: &Cluster,
    index: usize,
    operations: Vec<Operation>,
) -> BTreeMap<u64, Outcome> {
    let operations = (0..).zip(operations).map(|(id, operation)| kv::Operation {
        id,
        deadline_ms: 0,
        forward: false,
        operation: Some(operation),
    });
    let request = kv::OperateRequest {
        keyspace: String::new(),
        operations: operations.collect(),
    };
    let mut client = cluster.kv(index).await;
    let stream = futures::stream::iter([request]);
    let mut answers = client.operate(stream).await.unwrap().into_inner();
    let mut outcomes = BTreeMap::new();
    while let Some(message) = answers.message().await.unwrap() {
        outcomes.extend(
            message
                .outcomes
                .into_iter()
                .map(|outcome| (outcome.id, outcome.outcome.unwrap())),
        );
    }
    outcomes
}

/// Asks one thing until it is answered without an error that a retry helps.
async fn ask(cluster: &Cluster, index: usize, operation: Operation) -> Outcome {
    let answered = eventually(async || {
        let mut outcomes = operate(cluster, index, vec![operation.clone()]).await;
        let outcome = outcomes.remove(&0).unwrap();
        if let Outcome::Error(error) = &outcome
            && error.retryable
        {
            return Err(format!("{error:?}"));
        }
        Ok(outcome)
    });
    answered.await.unwrap()
}

fn stamped_get(key: &str) -> Operation {
    Operation::Get(kv::Get {
        key: key.to_owned().into(),
        stamped: true,
        ..kv::Get::default()
    })
}

async fn stamp_of(cluster: &Cluster, index: usize, key: &str) -> kv::Compare {
    let Outcome::Get(get) = ask(cluster, index, stamped_get(key)).await else {
        panic!("{key} was not read")
    };
    kv::Compare {
        compare: Some(kv::compare::Compare::Unchanged(kv::Unchanged {
            key: key.to_owned().into(),
            stamp: get.stamp,
        })),
    }
}

async fn ranges_of(cluster: &Cluster, index: usize, prefix: &str) -> Vec<kv::Compare> {
    let scan = kv::Scan {
        prefix: prefix.to_owned().into(),
        stamped: true,
        ..kv::Scan::default()
    };
    let Outcome::Scan(page) = ask(cluster, index, Operation::Scan(scan)).await else {
        panic!("{prefix} was not read")
    };
    let compare = page.range_stamps.into_iter().map(|range| kv::Compare {
        compare: Some(kv::compare::Compare::RangeUnchanged(range)),
    });
    compare.collect()
}

async fn holds(cluster: &Cluster, index: usize, compare: Vec<kv::Compare>) -> bool {
    let validate = Operation::Validate(kv::Validate { compare });
    let Outcome::Validate(answer) = ask(cluster, index, validate).await else {
        panic!("an answer to something else");
    };
    answer.holds
}

#[tokio::test]
async fn stamps_hold_through_any_node_until_what_they_name_changes() {
    let cluster = Cluster::start(&[3], &[]);
    for n in 0..8 {
        let key = format!("k{n}");
        cluster.put_until_acknowledged(n % 3, &key, "1").await;
    }
    let mut read = Vec::new();
    for n in 0..8 {
        read.push(stamp_of(&cluster, n % 3, &format!("k{n}")).await);
    }
    read.push(stamp_of(&cluster, 1, "absent").await);
    let ranges = ranges_of(&cluster, 2, "k").await;
    assert!(ranges.len() > 1, "every shard stamps its part");
    read.extend(ranges.clone());
    for node in 0..3 {
        assert!(holds(&cluster, node, read.clone()).await);
        assert!(holds(&cluster, node, read[..1].to_vec()).await);
        assert!(holds(&cluster, node, Vec::new()).await);
    }
    cluster.put_until_acknowledged(0, "k-new", "2").await;
    for node in 0..3 {
        assert!(holds(&cluster, node, read[..9].to_vec()).await);
        assert!(!holds(&cluster, node, ranges.clone()).await);
    }
    cluster.put_until_acknowledged(0, "absent", "3").await;
    assert!(!holds(&cluster, 1, read[8..9].to_vec()).await);
    assert!(holds(&cluster, 1, read[..8].to_vec()).await);
    cluster.expect_no_panic();
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_without_effect() {
    let cluster = Cluster::start(&[1], &[]);
    cluster.put_until_acknowledged(0, "k", "1").await;
    let forged = kv::Get {
        key: "k".into(),
        view: "forged".into(),
        ..kv::Get::default()
    };
    let bad_stamp = kv::Compare {
        compare: Some(kv::compare::Compare::Unchanged(kv::Unchanged {
            key: "k".into(),
            stamp: "forged".into(),
        })),
    };
    let outcomes = operate(
        &cluster,
        0,
        vec![
            Operation::Get(forged),
            Operation::Validate(kv::Validate {
                compare: vec![bad_stamp],
            }),
            Operation::Transact(kv::Transact::default()),
        ],
    );
    for (id, outcome) in outcomes.await {
        let Outcome::Error(error) = outcome else {
            panic!("{id}: {outcome:?}")
        };
        let expected = ["BAD_TOKEN", "BAD_TOKEN", "INVALID_ARGUMENT"][usize::try_from(id).unwrap()];
        assert_eq!(
            (error.reason.as_str(), error.effect()),
            (expected, kv::Effect::None)
        );
    }

    let get = kv::Action {
        action: Some(kv::action::Action::Get(kv::Get {
            key: "k".into(),
            ..kv::Get::default()
        })),
    };
    let request = kv::TransactRequest {
        transact: Some(kv::Transact {
            then: vec![get; 4097],
            ..kv::Transact::default()
        }),
        ..kv::TransactRequest::default()
    };
    let refused = cluster.kv(0).await.transact(request).await.unwrap_err();
    let details = refused.get_error_details();
    let reason = &details.error_info().unwrap().reason;
    assert_eq!(reason, "TRANSACTION_TOO_LARGE");
    let close = kv::ViewCloseRequest {
        view: "forged".into(),
    };
    let refused = cluster.kv(0).await.view_close(close).await.unwrap_err();
    let details = refused.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "BAD_TOKEN");
    cluster.expect_no_panic();
}

fn put(key: &str, value: &str) -> kv::Action {
    kv::Action {
        action: Some(kv::action::Action::Put(kv::Put {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..kv::Put::default()
        })),
    }
}

fn absent(key: &str) -> kv::Compare {
    kv::Compare {
        compare: Some(kv::compare::Compare::Absent(key.to_owned().into())),
    }
}

/// Writes every key, if the first one is absent; otherwise reads it, if asked to.
fn fill(value: &str, otherwise: bool) -> kv::Transact {
    let get = kv::Action {
        action: Some(kv::action::Action::Get(kv::Get {
            key: "k0".into(),
            ..kv::Get::default()
        })),
    };
    kv::Transact {
        compare: vec![absent("k0")],
        then: (0..8).map(|n| put(&format!("k{n}"), value)).collect(),
        otherwise: if otherwise { vec![get] } else { Vec::new() },
        op_id: None,
    }
}

#[tokio::test]
async fn a_transaction_over_many_shards_takes_effect_in_all_of_them_or_in_none() {
    let cluster = Cluster::start(&[3], &[]);
    let done = match ask(&cluster, 1, Operation::Transact(fill("1", false))).await {
        Outcome::Transact(done) => done,
        Outcome::Get(_)
        | Outcome::Write(_)
        | Outcome::Scan(_)
        | Outcome::Validate(_)
        | Outcome::Error(_) => panic!("not done"),
    };
    assert!(done.succeeded && done.parts > 1 && done.results.len() == 8);
    let keys: Vec<String> = (0..8).map(|n| format!("k{n}")).collect();
    for key in &keys {
        cluster.expect(&[0, 1, 2], key, &["1"]).await;
    }
    let refused = ask(&cluster, 2, Operation::Transact(fill("2", false))).await;
    let Outcome::Error(error) = refused else {
        panic!("the first key was there")
    };
    assert_eq!(
        (error.reason.as_str(), error.effect()),
        ("CONFLICT", kv::Effect::None)
    );
    let Outcome::Transact(read) = ask(&cluster, 0, Operation::Transact(fill("2", true))).await
    else {
        panic!("the other list was to be done")
    };
    assert!(!read.succeeded && read.results.len() == 1);
    for key in &keys {
        cluster.expect(&[0], key, &["1"]).await;
    }
    cluster.expect_no_panic();
}

#[tokio::test]
async fn a_view_shows_what_was_there_when_it_was_opened_whichever_node_is_asked() {
    let cluster = Cluster::start(&[3], &[]);
    for n in 0..8 {
        cluster
            .put_until_acknowledged(n % 3, &format!("k{n}"), "1")
            .await;
    }
    let opened = eventually(async || {
        let request = kv::ViewOpenRequest::default();
        let mut client = cluster.kv(0).await;
        client.view_open(request).await
    });
    let view = opened.await.unwrap().into_inner().view;
    for n in 0..8 {
        cluster
            .put_until_acknowledged(n % 3, &format!("k{n}"), "2")
            .await;
    }
    for n in 0..8 {
        let get = kv::Get {
            key: format!("k{n}").into(),
            view: view.clone(),
            ..kv::Get::default()
        };
        let Outcome::Get(found) = ask(&cluster, n % 3, Operation::Get(get)).await else {
            panic!("k{n} was not read")
        };
        assert_eq!(found.siblings.len(), 1);
        assert_eq!(found.siblings[0].value, "1");
    }
    let closed = kv::ViewCloseRequest { view };
    cluster.kv(1).await.view_close(closed).await.unwrap();
    cluster.expect_no_panic();
}
