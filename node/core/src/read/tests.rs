//! Reads of one shard.

use bytes::Bytes;
use meridian_causal::{CausalContext, Content, Hlc, Incarnation, OpId, SiblingSet, ZoneId};
use meridian_storage::{Durability, Engine, MemoryEngine};

use super::*;
use crate::command::{Command, Op, Waiter, WriteIntent, WriteOp};
use crate::config::PlantedBugs;
use crate::ids::GroupId;
use crate::limits::{SCAN_BYTES_MAX, SCAN_KEYS_MAX};
use crate::request::Filter;
use crate::shard::Shard;
use crate::workspace::Workspace;

const KEYSPACE: KeyspaceId = KeyspaceId(1);
const SHARD: ShardId = ShardId(0);

/// A shard with these writes: key, value (`None` deletes), and whether it replaces what is there.
fn engine(writes: &[(String, Option<Bytes>, bool)]) -> MemoryEngine {
    let group = GroupId {
        keyspace: KEYSPACE,
        shard: SHARD,
        zone: ZoneId(1),
        epoch: 0,
    };
    let engine = MemoryEngine::new();
    let mut shard = Shard::create(
        group,
        Incarnation::new(ZoneId(1), 1),
        PlantedBugs::default(),
    );
    let ops = writes
        .iter()
        .zip(1..)
        .map(|((key, content, replaces), id)| {
            Op::Write(WriteOp {
                key: Bytes::from(key.clone()),
                content: content.clone().map_or(Content::Tombstone, Content::Value),
                intent: if *replaces {
                    WriteIntent::Blind
                } else {
                    WriteIntent::Context(CausalContext::new())
                },
                op_id: OpId { stamp_ms: 1, id },
                expires_at_ms: None,
                waiter: Waiter::default(),
            })
        });
    let command = Command {
        hlc: Hlc(1),
        ops: ops.collect(),
    };
    let mut work = Workspace::new(&engine, false);
    shard.apply(1, command, &mut work).unwrap();
    shard.save(&mut work);
    let batch = work.into_batch();
    engine.write(&batch, Durability::Buffered).unwrap();
    engine
}

fn put(key: &str) -> (String, Option<Bytes>, bool) {
    (key.to_owned(), Some(Bytes::from_static(b"value")), true)
}

fn sibling(key: &str) -> (String, Option<Bytes>, bool) {
    (key.to_owned(), Some(Bytes::from_static(b"other")), false)
}

fn delete(key: &str) -> (String, Option<Bytes>, bool) {
    (key.to_owned(), None, true)
}

fn scan(
    engine: &MemoryEngine,
    from: &str,
    to: Option<&str>,
    limit: usize,
    filter: Filter,
) -> (Vec<String>, bool) {
    let query = Query::Scan {
        shard: SHARD,
        from: Bytes::from(from.to_owned()),
        to: to.map(|to| Bytes::from(to.to_owned())),
        limit,
        filter,
        keys_only: false,
    };
    let Answer::Page { keys, more } = serve(engine, KEYSPACE, 1, &query).unwrap() else {
        panic!("not a page")
    };
    (
        keys.into_iter()
            .map(|(key, _)| String::from_utf8(key.to_vec()).unwrap())
            .collect(),
        more,
    )
}

#[test]
fn an_absent_key_is_an_empty_set() {
    let answer = serve(
        &engine(&[]),
        KEYSPACE,
        1,
        &Query::Get {
            key: Bytes::from_static(b"k"),
        },
    );
    assert_eq!(answer, Ok(Answer::Key(SiblingSet::new())));
}

#[test]
fn a_get_shows_every_sibling() {
    let engine = engine(&[put("k"), sibling("k")]);
    let Ok(Answer::Key(set)) = serve(
        &engine,
        KEYSPACE,
        1,
        &Query::Get {
            key: Bytes::from_static(b"k"),
        },
    ) else {
        panic!("not a key")
    };
    assert_eq!(set.siblings().len(), 2);
}

#[test]
fn a_scan_shows_live_keys_of_its_range_and_says_whether_there_are_more() {
    let engine = engine(&[
        put("a"),
        put("b"),
        delete("b"),
        put("c"),
        put("d"),
        delete("d"),
    ]);
    assert_eq!(
        scan(&engine, "", None, 10, Filter::Live),
        (vec!["a".into(), "c".into()], false)
    );
    assert_eq!(
        scan(&engine, "", None, 1, Filter::Live),
        (vec!["a".into()], true)
    );
    assert_eq!(
        scan(&engine, "a\0", None, 1, Filter::Live),
        (vec!["c".into()], false)
    );
    assert_eq!(
        scan(&engine, "", Some("c"), 10, Filter::Live),
        (vec!["a".into()], false)
    );
    assert_eq!(
        scan(&engine, "x", Some("a"), 10, Filter::Live),
        (vec![], false)
    );
    assert_eq!(
        scan(&engine, "", None, 0, Filter::Live),
        (vec!["a".into()], true),
        "a page gets on"
    );
}

#[test]
fn a_scan_for_conflicts_shows_those_and_no_others() {
    let engine = engine(&[
        put("a"),
        sibling("a"),
        put("b"),
        put("c"),
        sibling("c"),
        put("d"),
        sibling("d"),
        put("d"),
    ]);
    assert_eq!(
        scan(&engine, "", None, 10, Filter::Conflicts),
        (vec!["a".into(), "c".into(), "d".into()], false)
    );
    assert_eq!(
        scan(&engine, "", None, 1, Filter::Conflicts),
        (vec!["a".into()], true)
    );
    assert_eq!(
        scan(&engine, "b", Some("d"), 10, Filter::Conflicts),
        (vec!["c".into()], false)
    );
}

#[test]
fn keys_only_leaves_values_out_and_dots_in() {
    let engine = engine(&[put("a"), sibling("a")]);
    let page = |keys_only| {
        let from = Bytes::new();
        let query = Query::Scan {
            shard: SHARD,
            from,
            to: None,
            limit: 5,
            filter: Filter::Live,
            keys_only,
        };
        let Ok(Answer::Page { keys, .. }) = serve(&engine, KEYSPACE, 1, &query) else {
            panic!("not a page")
        };
        keys.into_iter().next().unwrap().1
    };
    let (full, bare) = (page(false), page(true));
    assert!(
        bare.siblings()
            .iter()
            .all(|sibling| sibling.content == Content::Value(Bytes::new()))
    );
    let dots = |set: &SiblingSet| {
        set.siblings()
            .iter()
            .map(|sibling| sibling.dot)
            .collect::<Vec<_>>()
    };
    assert_eq!(dots(&bare), dots(&full));
}

#[test]
fn a_page_is_bounded_in_keys_and_in_bytes_but_holds_at_least_one() {
    let many: Vec<_> = (0..SCAN_KEYS_MAX + 5)
        .map(|n| put(&format!("{n:06}")))
        .collect();
    let (keys, more) = scan(&engine(&many), "", None, usize::MAX, Filter::Live);
    assert_eq!((keys.len(), more), (SCAN_KEYS_MAX, true));

    let large = |key: &str| {
        (
            key.to_owned(),
            Some(Bytes::from(vec![7; SCAN_BYTES_MAX])),
            true,
        )
    };
    let (keys, more) = scan(
        &engine(&[large("a"), large("b")]),
        "",
        None,
        9,
        Filter::Live,
    );
    assert_eq!((keys, more), (vec!["a".to_owned()], true));
}

#[test]
fn a_digest_counts_live_content_and_does_not_see_tombstones() {
    let digest =
        |engine: &MemoryEngine| match serve(engine, KEYSPACE, 1, &Query::Digest { shard: SHARD }) {
            Ok(Answer::Digest(digest)) => digest,
            other => panic!("not a digest: {other:?}"),
        };
    let plain = digest(&engine(&[put("a"), put("b"), sibling("b")]));
    assert_eq!((plain.keys, plain.conflicts), (2, 1));
    assert_eq!(
        digest(&engine(&[put("a"), put("b"), sibling("b"), delete("c")])),
        plain
    );
    assert_ne!(digest(&engine(&[put("a"), put("b")])).sum, plain.sum);
    assert_eq!(digest(&engine(&[])), ShardDigest::default());
}

#[test]
fn a_damaged_record_is_an_error_of_the_read() {
    let engine = engine(&[put("a")]);
    let place = Place {
        keyspace: KEYSPACE,
        shard: SHARD,
    };
    let mut batch = meridian_storage::Batch::new();
    batch.put(VersionKey::encode(place, b"a"), &b"\x09junk"[..]);
    engine.write(&batch, Durability::Buffered).unwrap();
    let key = Bytes::from_static(b"a");
    let from = Bytes::new();
    let scan = Query::Scan {
        shard: SHARD,
        from,
        to: None,
        limit: 5,
        filter: Filter::Live,
        keys_only: true,
    };
    for query in [Query::Get { key }, scan, Query::Digest { shard: SHARD }] {
        let detail = "Version \"a\" of shard 1/0: format 9 is not known, 1 is".to_owned();
        assert_eq!(
            serve(&engine, KEYSPACE, 1, &query),
            Err(Error::Corruption { detail })
        );
    }
}
