use meridian_causal::{CausalContext, Content, Dot, Incarnation, OpId, SiblingSet, ZoneId, token};
use meridian_core::catalog::{Catalog, GroupRecord, Keyspace, Policy};
use meridian_core::command::WriteIntent;
use meridian_core::ids::{GroupId, KeyspaceId, ShardId};
use meridian_core::limits::{KEY_SIZE_BYTES_MAX, VALUE_SIZE_BYTES_MAX};
use meridian_core::transaction::{ActionResult, Compare, Stamp, Transacted};

use super::super::answers::Served;
use super::*;

const OP_ID: OpId = OpId { stamp_ms: 5, id: 6 };

fn catalog() -> Catalog {
    let keyspace = Keyspace::new(KeyspaceId(1), "default", 4, Policy::default());
    Catalog {
        revision: 1,
        keyspaces: [(KeyspaceId(1), keyspace)].into(),
        zones: [(ZoneId(1), "us".to_owned())].into(),
        ..Catalog::default()
    }
}

fn scoped<T>(check: impl FnOnce(Scope<'_>) -> T) -> T {
    let catalog = catalog();
    check(Scope::find(&catalog, "", (ZoneId(1), 0)).unwrap())
}

fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn compare(compare: kv::compare::Compare) -> kv::Compare {
    kv::Compare {
        compare: Some(compare),
    }
}

fn unchanged(of: &str, stamp: &'static [u8]) -> kv::Compare {
    compare(kv::compare::Compare::Unchanged(kv::Unchanged {
        key: key(of),
        stamp: stamp.into(),
    }))
}

fn range(shard: u32, stamp: &'static [u8]) -> kv::Compare {
    compare(kv::compare::Compare::RangeUnchanged(kv::RangeStamp {
        shard,
        from: key("a"),
        to: Bytes::new(),
        stamp: stamp.into(),
    }))
}

fn put(of: &str) -> kv::Put {
    kv::Put {
        key: key(of),
        value: key("v"),
        ..kv::Put::default()
    }
}

fn action(put: kv::Put) -> kv::Action {
    kv::Action {
        action: Some(kv::action::Action::Put(put)),
    }
}

fn get(of: &str) -> kv::Action {
    kv::Action {
        action: Some(kv::action::Action::Get(kv::Get {
            key: key(of),
            ..kv::Get::default()
        })),
    }
}

fn then(actions: Vec<kv::Action>) -> kv::Transact {
    kv::Transact {
        then: actions,
        ..kv::Transact::default()
    }
}

fn transaction(wire: kv::Transact) -> Result<Transaction, Failure> {
    let prepared = scoped(|scope| scope.transact(wire, || 6))?;
    let Request::Transact(transaction) = prepared.request else {
        panic!("another request")
    };
    Ok(*transaction)
}

fn refusal(wire: kv::Transact) -> &'static str {
    transaction(wire).unwrap_err().reason()
}

fn refused_compare(of: kv::Compare) -> &'static str {
    refusal(kv::Transact {
        compare: vec![of],
        ..kv::Transact::default()
    })
}

#[test]
fn a_transaction_is_understood_as_it_was_meant() {
    let delete = kv::Delete {
        key: key("c"),
        intent: kv::Intent::IfValue.into(),
        expected: key("old"),
        ..kv::Delete::default()
    };
    let wire = kv::Transact {
        compare: vec![
            unchanged("a", &[0]),
            unchanged("b", &[1, 0, 0, 0, 0, 0, 0, 0, 9]),
            range(3, &[7; 16]),
            compare(kv::compare::Compare::Absent(key("d"))),
        ],
        then: vec![get("a"), action(put("b"))],
        otherwise: vec![kv::Action {
            action: Some(kv::action::Action::Delete(delete)),
        }],
        op_id: None,
    };
    let understood = transaction(wire).unwrap();
    assert_eq!(understood.op_id, OpId { stamp_ms: 0, id: 6 });
    assert_eq!(
        understood.compare,
        [
            Compare::Unchanged {
                key: key("a"),
                stamp: None
            },
            Compare::Unchanged {
                key: key("b"),
                stamp: Some(9)
            },
            Compare::RangeUnchanged {
                shard: ShardId(3),
                from: key("a"),
                to: Bytes::new(),
                stamp: u128::from_be_bytes([7; 16]),
            },
            Compare::Absent { key: key("d") },
        ]
    );
    let write = |of: &str, content, intent| Action::Write {
        key: key(of),
        content,
        intent,
        expires_at_ms: None,
    };
    let put = write("b", Content::Value(key("v")), WriteIntent::Blind);
    assert_eq!(understood.then, [Action::Get { key: key("a") }, put]);
    let delete = write("c", Content::Tombstone, WriteIntent::IfValue(key("old")));
    assert_eq!(understood.otherwise, [delete]);
}

#[test]
fn the_shard_of_the_first_write_decides() {
    let anchor = |wire| scoped(|scope| scope.transact(wire, || 6).unwrap().shard);
    let of = |text: &str| scoped(|scope| scope.keyspace.shard_of(text.as_bytes()));
    for name in ["a", "b", "c", "d", "e"] {
        let wire = then(vec![get("elsewhere"), action(put(name)), action(put("z"))]);
        assert_eq!(anchor(wire), of(name));
    }
}

#[test]
fn stamps_survive_the_wire_and_bad_ones_are_refused() {
    let log = Incarnation::new(ZoneId(1), 7);
    for stamp in [None, Some(0), Some(u64::MAX)] {
        let wire = stamps::key_to_wire(stamp, log);
        assert_eq!(stamps::key_from_wire(&wire, log).unwrap(), stamp);
    }
    let wire = stamps::range_to_wire(77, log);
    assert_eq!(stamps::range_from_wire(&wire, log).unwrap(), 77);
    let bad: [&'static [u8]; 5] = [&[], &[0, 0], &[1], &[2, 0, 0, 0, 0, 0, 0, 0, 9], &[1; 10]];
    for stamp in bad {
        assert_eq!(refused_compare(unchanged("a", stamp)), "BAD_TOKEN");
    }
    for stamp in [&[][..], &[0; 15], &[0; 17]] {
        assert!(stamps::range_from_wire(stamp, log).is_err());
    }
}

/// The catalog with groups in the zone, of lives so named.
fn catalog_of_lives(nonce: u64) -> Catalog {
    let mut catalog = catalog();
    for keyspace in catalog.keyspaces.values_mut() {
        let group = |shard| GroupRecord {
            id: GroupId {
                keyspace: keyspace.id,
                shard: ShardId(shard),
                zone: ZoneId(1),
                epoch: 0,
            },
            incarnation: Incarnation::new(ZoneId(1), nonce),
            founders: Vec::new(),
            voters: Vec::new(),
            disk_lost: false,
        };
        keyspace.groups = (0..keyspace.shards).map(group).collect();
    }
    catalog
}

/// What a comparison with a stamp of index 40 of one life, and one of a range, come to in another.
fn understood(given_by: &Catalog, here: &Catalog) -> (Stamp, u128) {
    let scope = |catalog| Scope::find(catalog, "", (ZoneId(1), 0)).unwrap();
    let shard = scope(here).keyspace.shard_of(b"a");
    let log = scope(given_by).log_of(shard);
    let wire = [
        kv::compare::Compare::Unchanged(kv::Unchanged {
            key: key("a"),
            stamp: stamps::key_to_wire(Some(40), log),
        }),
        kv::compare::Compare::RangeUnchanged(kv::RangeStamp {
            shard: shard.0.into(),
            stamp: stamps::range_to_wire(77, log),
            ..kv::RangeStamp::default()
        }),
    ];
    let compares = scope(here).comparisons(wire.map(compare).into()).unwrap();
    let [
        Compare::Unchanged { stamp, .. },
        Compare::RangeUnchanged { stamp: range, .. },
    ] = &compares[..]
    else {
        panic!("other comparisons: {compares:?}")
    };
    (*stamp, *range)
}

/// The same index of another log is another change.
#[test]
fn a_stamp_is_of_one_life_of_a_shard() {
    let [one, other] = [7, 8].map(catalog_of_lives);
    assert_eq!(understood(&one, &one), (Some(40), 77));
    let (stamp, range) = understood(&one, &other);
    assert_ne!(stamp, Some(40));
    assert_ne!(range, 77);
}

#[test]
fn ranges_of_shards_that_do_not_exist_are_refused() {
    for shard in [4, u32::from(u16::MAX) + 1, u32::MAX] {
        assert_eq!(refused_compare(range(shard, &[7; 16])), "INVALID_ARGUMENT");
    }
}

#[test]
fn a_key_is_written_at_most_once_in_a_list() {
    let twice = then(vec![action(put("a")), action(put("b")), action(put("a"))]);
    assert_eq!(refusal(twice), "INVALID_ARGUMENT");
    let once_in_each = kv::Transact {
        otherwise: vec![action(put("a"))],
        ..then(vec![get("a"), action(put("a"))])
    };
    assert!(transaction(once_in_each).is_ok());
}

#[test]
fn what_a_single_operation_would_be_refused_for_a_transaction_is_too() {
    let with = |change: fn(&mut kv::Put)| {
        let mut put = put("a");
        change(&mut put);
        refusal(then(vec![action(put)]))
    };
    assert_eq!(with(|put| put.key = Bytes::new()), "KEY_EMPTY");
    assert_eq!(
        with(|put| put.key = vec![0; KEY_SIZE_BYTES_MAX + 1].into()),
        "KEY_TOO_LARGE"
    );
    assert_eq!(
        with(|put| put.value = vec![0; VALUE_SIZE_BYTES_MAX + 1].into()),
        "VALUE_TOO_LARGE"
    );
    assert_eq!(
        with(|put| put.lease = Some(kv::LeaseRef::default())),
        "INVALID_ARGUMENT"
    );
    assert_eq!(
        with(|put| put.context = Bytes::from_static(b"unused")),
        "INVALID_ARGUMENT"
    );
    assert_eq!(
        with(|put| put.expected = Bytes::from_static(b"unused")),
        "INVALID_ARGUMENT"
    );
    assert_eq!(
        with(|put| {
            put.intent = kv::Intent::IfContext.into();
            put.context = Bytes::from_static(b"forged");
        }),
        "BAD_TOKEN"
    );
}

#[test]
fn parts_without_content_are_refused() {
    assert_eq!(refusal(kv::Transact::default()), "INVALID_ARGUMENT");
    assert_eq!(
        refusal(then(vec![kv::Action::default()])),
        "INVALID_ARGUMENT"
    );
    assert_eq!(refused_compare(kv::Compare::default()), "INVALID_ARGUMENT");
}

#[test]
fn a_transaction_of_the_largest_size_is_taken_and_a_larger_one_refused() {
    let of = |count: usize| {
        let actions = (0..count).map(|n| action(put(&format!("key {n}"))));
        transaction(then(actions.collect()))
    };
    assert!(of(TRANSACTION_OPERATIONS_MAX).is_ok());
    let refused = of(TRANSACTION_OPERATIONS_MAX + 1).unwrap_err();
    assert_eq!(refused.reason(), "TRANSACTION_TOO_LARGE");

    let heavy = |last: usize| {
        let value = |bytes: usize| vec![0; bytes].into();
        let mut puts = [put("a"), put("b"), put("c")];
        puts[0].value = value(VALUE_SIZE_BYTES_MAX);
        puts[1].value = value(VALUE_SIZE_BYTES_MAX - 3);
        puts[2].value = value(last);
        transaction(then(puts.map(action).into()))
    };
    assert!(heavy(0).is_ok());
    assert_eq!(heavy(1).unwrap_err().reason(), "TRANSACTION_TOO_LARGE");
}

#[test]
fn contexts_are_opened_for_their_own_key_only() {
    let mut context = CausalContext::new();
    context.insert(Dot::new(Incarnation::new(ZoneId(1), 9), 4));
    let sealed = scoped(|scope| {
        let token_key = scope.token_key();
        token::seal(&token_key, scope.token_scope(), b"a", &context)
    });
    let covers = |of: &str| {
        compare(kv::compare::Compare::Context(kv::ContextIs {
            key: key(of),
            context: sealed.clone(),
        }))
    };
    let good = kv::Transact {
        compare: vec![covers("a")],
        ..kv::Transact::default()
    };
    let key = key("a");
    assert_eq!(
        transaction(good).unwrap().compare,
        [Compare::Context { key, context }]
    );
    assert_eq!(refused_compare(covers("b")), "BAD_TOKEN");
}

#[test]
fn a_validation_is_split_by_shard() {
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let validate = kv::Validate {
        compare: keys.map(|name| unchanged(name, &[0])).into(),
    };
    let parts = scoped(|scope| scope.validate(validate)).unwrap();
    let shard_of = |key: &Bytes| scoped(|scope| scope.keyspace.shard_of(key));
    let mut seen = 0;
    for part in &parts {
        seen += part.compare.len();
        let at_home = |one: &Compare| one.key().is_some_and(|key| shard_of(key) == part.shard);
        assert!(part.compare.iter().all(at_home));
    }
    assert_eq!(seen, keys.len());
    let nothing = kv::Validate::default();
    assert_eq!(scoped(|scope| scope.validate(nothing)).unwrap(), []);
}

fn answered(transacted: &Transacted) -> kv::TransactResponse {
    let keys = ActionKeys {
        then: vec![key("a"), key("b"), key("c")],
        otherwise: vec![key("d")],
    };
    scoped(|scope| scope.transact_response(transacted, &keys, Served::default()))
}

fn transacted(succeeded: bool, results: Vec<ActionResult>) -> Transacted {
    Transacted {
        succeeded,
        results,
        parts: 2,
        zones: vec![ZoneId(1)],
        op_id: OP_ID,
        repeated: false,
        degraded: false,
    }
}

#[test]
fn each_action_of_the_list_that_was_done_gets_its_result() {
    let dot = Dot::new(Incarnation::new(ZoneId(1), 9), 4);
    let written = ActionResult::Written(Some((dot, CausalContext::new())));
    let results = vec![
        ActionResult::Got(SiblingSet::new()),
        written,
        ActionResult::Written(None),
    ];
    let answer = answered(&transacted(true, results));
    assert_eq!((answer.parts, answer.zones), (2, vec!["us".to_owned()]));
    let [got, here, elsewhere] = answer.results.as_slice() else {
        panic!("{} results", answer.results.len())
    };
    let dot_of = |result: &kv::ActionResult| match &result.result {
        Some(kv::action_result::Result::Write(receipt)) => receipt.dot.is_some(),
        other => panic!("{other:?}"),
    };
    assert_eq!(got.key, "a");
    assert!(matches!(
        got.result,
        Some(kv::action_result::Result::Get(_))
    ));
    assert!(dot_of(here) && !dot_of(elsewhere));

    let failed = answered(&transacted(false, vec![ActionResult::Written(None)]));
    assert!(!failed.succeeded);
    assert_eq!(failed.results.first().unwrap().key, "d");
}

#[test]
fn a_repeated_transaction_has_no_results() {
    let answer = answered(&Transacted {
        repeated: true,
        ..transacted(true, Vec::new())
    });
    assert!(answer.repeated && answer.results.is_empty());
}
