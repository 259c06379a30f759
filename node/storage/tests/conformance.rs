//! One suite for both engines, through `&dyn Engine`: what the contract says, whoever keeps it.
//!
//! Every case runs on RocksDB and on the memory engine; the last one compares each with a plain ordered map, over random
//! batches, scans and views.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use meridian_storage::{
    Batch, Durability, Engine, MemoryEngine, Read, RocksEngine, RocksOptions, prefix_end,
};
use proptest::prelude::*;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Runs `case` on a fresh engine of each kind.
fn on_each_engine(case: impl Fn(&dyn Engine)) {
    case(&MemoryEngine::new());
    let folder = tempfile::tempdir().unwrap();
    case(&RocksEngine::open(folder.path(), &small()).unwrap());
}

fn small() -> RocksOptions {
    RocksOptions {
        block_cache_bytes: 1 << 20,
        write_buffer_bytes: 1 << 16,
        ..RocksOptions::default()
    }
}

fn puts(pairs: &[(&'static str, &'static str)]) -> Batch {
    let mut batch = Batch::new();
    for (key, value) in pairs {
        batch.put(*key, *value);
    }
    batch
}

fn up(source: &(impl Read + ?Sized), from: &[u8], to: &[u8]) -> Pairs {
    let mut found = Pairs::new();
    source
        .scan(from, to, &mut collect(&mut found, usize::MAX))
        .unwrap();
    found
}

fn down(source: &(impl Read + ?Sized), from: &[u8], to: &[u8]) -> Pairs {
    let mut found = Pairs::new();
    source
        .scan_back(from, to, &mut collect(&mut found, usize::MAX))
        .unwrap();
    found
}

fn collect(found: &mut Pairs, limit: usize) -> impl FnMut(&[u8], &[u8]) -> ControlFlow<()> {
    move |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        if found.len() == limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

fn keys(pairs: &Pairs) -> Vec<&[u8]> {
    pairs.iter().map(|(key, _)| key.as_slice()).collect()
}

#[test]
fn a_written_key_is_read_and_an_absent_one_is_none() {
    on_each_engine(|engine| {
        engine
            .write(&puts(&[("a", "1"), ("b", "")]), Durability::Synced)
            .unwrap();
        assert_eq!(engine.get(b"a").unwrap().unwrap(), "1");
        assert_eq!(engine.get(b"b").unwrap().unwrap(), "");
        assert_eq!(engine.get(b"c").unwrap(), None);
        assert_eq!(engine.get(b"").unwrap(), None);
    });
}

#[test]
fn later_changes_of_a_batch_win_over_earlier_ones() {
    on_each_engine(|engine| {
        let mut batch = puts(&[("a", "1"), ("a", "2"), ("b", "1"), ("c", "1")]);
        batch.delete("b");
        batch.delete_range("c", "d");
        batch.put("cc", "3");
        engine.write(&batch, Durability::Buffered).unwrap();
        assert_eq!(
            up(engine, b"a", b"z"),
            [
                (b"a".to_vec(), b"2".to_vec()),
                (b"cc".to_vec(), b"3".to_vec())
            ]
        );
    });
}

#[test]
fn scans_are_ordered_half_open_and_stop_where_the_visitor_breaks() {
    on_each_engine(|engine| {
        engine
            .write(
                &puts(&[("b", "2"), ("a", "1"), ("d", "4"), ("c", "3")]),
                Durability::Buffered,
            )
            .unwrap();
        assert_eq!(keys(&up(engine, b"a", b"d")), [b"a", b"b", b"c"]);
        assert_eq!(keys(&down(engine, b"a", b"d")), [b"c", b"b", b"a"]);
        let mut found = Pairs::new();
        engine
            .scan(b"b", b"z", &mut collect(&mut found, 2))
            .unwrap();
        assert_eq!(keys(&found), [b"b", b"c"]);
        let mut found = Pairs::new();
        engine
            .scan_back(b"a", b"z", &mut collect(&mut found, 1))
            .unwrap();
        assert_eq!(keys(&found), [b"d"]);
    });
}

#[test]
fn empty_and_inverted_ranges_hold_nothing_and_delete_nothing() {
    on_each_engine(|engine| {
        let mut batch = puts(&[("a", "1"), ("b", "2")]);
        batch.delete_range("b", "a");
        batch.delete_range("a", "a");
        engine.write(&batch, Durability::Synced).unwrap();
        assert_eq!(keys(&up(engine, b"", b"z")), [b"a", b"b"]);
        assert!(up(engine, b"b", b"a").is_empty());
        assert!(down(engine, b"b", b"b").is_empty());
    });
}

#[test]
fn ranges_over_the_border_of_the_families_are_one_range() {
    on_each_engine(|engine| {
        let mut batch = Batch::new();
        for first in [0x01, 0x7f, 0x80, 0x81] {
            batch.put(vec![first, 1], vec![first]);
        }
        engine.write(&batch, Durability::Synced).unwrap();
        let all: [&[u8]; 4] = [&[0x01, 1], &[0x7f, 1], &[0x80, 1], &[0x81, 1]];
        assert_eq!(keys(&up(engine, &[], &prefix_end(&[]))), all);
        let view = engine.view().unwrap();
        let mut reversed = all;
        reversed.reverse();
        assert_eq!(keys(&down(&*view, &[], &prefix_end(&[]))), reversed);

        let mut batch = Batch::new();
        batch.delete_range(vec![0x7f], vec![0x81]);
        engine.write(&batch, Durability::Synced).unwrap();
        assert_eq!(keys(&up(engine, &[], &prefix_end(&[]))), [all[0], all[3]]);
    });
}

#[test]
fn a_view_does_not_change_and_outlives_deletions() {
    on_each_engine(|engine| {
        engine
            .write(&puts(&[("a", "1"), ("b", "2")]), Durability::Synced)
            .unwrap();
        let view = engine.view().unwrap();
        let mut batch = puts(&[("a", "9"), ("c", "3")]);
        batch.delete("b");
        engine.write(&batch, Durability::Synced).unwrap();

        assert_eq!(view.get(b"a").unwrap().unwrap(), "1");
        assert_eq!(keys(&up(&*view, b"", b"z")), [b"a", b"b"]);
        assert_eq!(keys(&down(&*view, b"", b"z")), [b"b", b"a"]);
        assert_eq!(keys(&up(engine, b"", b"z")), [b"a", b"c"]);
    });
}

#[test]
fn a_visitor_may_use_the_engine_and_its_scan_still_sees_one_state() {
    on_each_engine(|engine| {
        engine
            .write(&puts(&[("a", "1"), ("b", "2")]), Durability::Synced)
            .unwrap();
        let mut seen = 0;
        let visit = &mut |key: &[u8], _: &[u8]| {
            seen += 1;
            assert!(engine.get(key).unwrap().is_some());
            engine
                .write(&puts(&[("c", "3")]), Durability::Buffered)
                .unwrap();
            ControlFlow::Continue(())
        };
        engine.scan(b"a", b"z", visit).unwrap();
        assert_eq!(seen, 2);
        assert_eq!(engine.get(b"c").unwrap().unwrap(), "3");
    });
}

#[test]
fn an_empty_batch_is_a_sync_and_changes_nothing() {
    on_each_engine(|engine| {
        engine
            .write(&puts(&[("a", "1")]), Durability::Buffered)
            .unwrap();
        engine.write(&Batch::new(), Durability::Buffered).unwrap();
        engine.write(&Batch::new(), Durability::Synced).unwrap();
        assert_eq!(keys(&up(engine, b"", b"z")), [b"a"]);
    });
}

#[test]
fn the_engine_grows_with_what_is_written() {
    on_each_engine(|engine| {
        let before = engine.size_bytes().unwrap();
        let mut batch = Batch::new();
        batch.put("big", vec![7; 100_000]);
        engine.write(&batch, Durability::Synced).unwrap();
        assert!(engine.size_bytes().unwrap() >= before + 100_000);
    });
}

/// One step of the comparison with a plain map.
#[derive(Debug, Clone)]
enum Step {
    Write(Vec<Change>, bool),
    Scan(Vec<u8>, Vec<u8>, usize),
    TakeView,
    ReadView,
}

#[derive(Debug, Clone)]
enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

/// Few keys, many collisions, on both sides of the family border.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(
        prop::sample::select(vec![0x00, 0x41, 0x7f, 0x80, 0x81, 0xfe]),
        0..4,
    )
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (key(), prop::collection::vec(any::<u8>(), 0..6)).prop_map(|(key, value)| Change::Put(key, value)),
        2 => key().prop_map(Change::Delete),
        1 => (key(), key()).prop_map(|(from, to)| Change::DeleteRange(from, to)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (prop::collection::vec(change(), 0..8), any::<bool>()).prop_map(|(ops, sync)| Step::Write(ops, sync)),
        3 => (key(), key(), 1_usize..6).prop_map(|(from, to, limit)| Step::Scan(from, to, limit)),
        1 => Just(Step::TakeView),
        1 => Just(Step::ReadView),
    ]
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn model_range(model: &Model, from: &[u8], to: &[u8]) -> Pairs {
    let inside = |key: &[u8]| from <= key && key < to;
    model
        .iter()
        .filter(|(key, _)| inside(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn apply(changes: &[Change], model: &mut Model) -> Batch {
    let mut batch = Batch::new();
    for change in changes {
        match change.clone() {
            Change::Put(key, value) => {
                model.insert(key.clone(), value.clone());
                batch.put(key, value);
            }
            Change::Delete(key) => {
                model.remove(&key);
                batch.delete(key);
            }
            Change::DeleteRange(from, to) => {
                model.retain(|key, _| !(from <= *key && *key < to));
                batch.delete_range(from, to);
            }
        }
    }
    batch
}

fn same_content(source: &(impl Read + ?Sized), model: &Model) {
    let mut expected = model_range(model, &[], &prefix_end(&[]));
    assert_eq!(up(source, &[], &prefix_end(&[])), expected);
    for (key, value) in &expected {
        assert_eq!(source.get(key).unwrap().unwrap(), value);
    }
    expected.reverse();
    assert_eq!(down(source, &[], &prefix_end(&[])), expected);
}

fn compare_with_model(engine: &dyn Engine, steps: &[Step]) {
    let mut model = Model::new();
    let mut view = (engine.view().unwrap(), model.clone());
    for step in steps {
        match step {
            Step::Write(changes, sync) => {
                let durability = if *sync {
                    Durability::Synced
                } else {
                    Durability::Buffered
                };
                engine
                    .write(&apply(changes, &mut model), durability)
                    .unwrap();
            }
            Step::Scan(from, to, limit) => {
                let mut expected = model_range(&model, from, to);
                expected.truncate(*limit);
                let mut found = Pairs::new();
                engine
                    .scan(from, to, &mut collect(&mut found, *limit))
                    .unwrap();
                assert_eq!(found, expected);
            }
            Step::TakeView => view = (engine.view().unwrap(), model.clone()),
            Step::ReadView => same_content(&*view.0, &view.1),
        }
    }
    same_content(engine, &model);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn the_memory_engine_behaves_like_an_ordered_map(steps in prop::collection::vec(step(), 0..40)) {
        compare_with_model(&MemoryEngine::new(), &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn rocksdb_behaves_like_an_ordered_map(steps in prop::collection::vec(step(), 0..40)) {
        let folder = tempfile::tempdir().unwrap();
        compare_with_model(&RocksEngine::open(folder.path(), &small()).unwrap(), &steps);
    }
}
