//! What the memory engine does when it is asked to fail.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::ops::ControlFlow;

use meridian_storage::{Batch, Durability, Engine, MemoryEngine, Read, StorageError, prefix_end};
use proptest::prelude::*;

fn put(key: &'static str, value: &'static str) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, value);
    batch
}

fn content(engine: &MemoryEngine) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        found.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    engine.scan(&[], &prefix_end(&[]), visit).unwrap();
    found
}

/// A synced "a", then three buffered batches: "b", a deletion of "a", "a" again.
fn three_unsynced() -> MemoryEngine {
    let engine = MemoryEngine::new();
    engine
        .write(&put("a", "synced"), Durability::Synced)
        .unwrap();
    engine.write(&put("b", "1"), Durability::Buffered).unwrap();
    let mut batch = Batch::new();
    batch.delete_range("a", "b");
    engine.write(&batch, Durability::Buffered).unwrap();
    engine.write(&put("a", "3"), Durability::Buffered).unwrap();
    engine
}

#[test]
fn a_crash_loses_a_suffix_of_the_unsynced_batches_and_nothing_synced() {
    let expected: [&[(&str, &str)]; 5] = [
        &[("a", "synced")],
        &[("a", "synced"), ("b", "1")],
        &[("b", "1")],
        &[("a", "3"), ("b", "1")],
        &[("a", "3"), ("b", "1")],
    ];
    for (keep, expected) in expected.iter().enumerate() {
        let engine = three_unsynced();
        assert_eq!(engine.unsynced(), 3);
        engine.crash(keep);
        let found = content(&engine);
        let found: Vec<(&[u8], &[u8])> = found.iter().map(|(k, v)| (&k[..], &v[..])).collect();
        let expected: Vec<(&[u8], &[u8])> = expected
            .iter()
            .map(|(k, v)| (k.as_bytes(), v.as_bytes()))
            .collect();
        assert_eq!(found, expected, "keeping {keep}");
        assert_eq!(engine.unsynced(), 0);
    }
}

#[test]
fn a_torn_batch_is_absent_as_a_whole() {
    let engine = three_unsynced();
    engine.crash_torn(1);
    assert_eq!(content(&engine), [(b"a".to_vec(), b"synced".to_vec())]);
}

#[test]
fn a_synced_write_makes_earlier_buffered_ones_durable() {
    let engine = three_unsynced();
    engine.write(&Batch::new(), Durability::Synced).unwrap();
    let before = content(&engine);
    engine.crash(0);
    assert_eq!(content(&engine), before);
}

#[test]
fn a_failed_write_poisons_until_restart_and_may_be_on_disk_or_not() {
    for keep in [0, 1] {
        let engine = MemoryEngine::new();
        engine.fail_next_write(StorageError::Io {
            detail: "injected".into(),
        });
        assert!(matches!(
            engine.write(&put("a", "1"), Durability::Synced),
            Err(StorageError::Io { .. })
        ));
        assert_eq!(engine.get(b"a"), Err(StorageError::Poisoned));
        assert_eq!(
            engine.write(&put("b", "1"), Durability::Buffered),
            Err(StorageError::Poisoned)
        );
        assert_eq!(engine.view().err(), Some(StorageError::Poisoned));
        engine.crash(keep);
        assert_eq!(engine.get(b"a").unwrap().is_some(), keep == 1);
    }
}

#[test]
fn a_full_disk_refuses_without_effect_and_serves_again_when_there_is_room() {
    let engine = MemoryEngine::new();
    engine.write(&put("a", "1"), Durability::Synced).unwrap();
    engine.fill_disk(true);
    let refused = engine
        .write(&put("b", "1"), Durability::Synced)
        .unwrap_err();
    assert!(refused.has_no_effect() && refused.is_retryable());
    assert_eq!(engine.get(b"a").unwrap().unwrap(), "1");
    assert_eq!(engine.get(b"b").unwrap(), None);
    engine.fill_disk(false);
    engine.write(&put("b", "1"), Durability::Synced).unwrap();
    assert_eq!(engine.get(b"b").unwrap().unwrap(), "1");
}

#[test]
fn a_corrupt_key_is_an_error_for_its_readers_only_and_heals_when_written() {
    let engine = three_unsynced();
    engine.corrupt(b"b");
    engine.corrupt(b"absent");
    assert!(matches!(
        engine.get(b"b"),
        Err(StorageError::Corruption { .. })
    ));
    assert_eq!(engine.get(b"a").unwrap().unwrap(), "3");
    assert_eq!(engine.get(b"absent").unwrap(), None);
    let mut seen = Vec::new();
    let result = engine.scan(b"a", b"z", &mut |key, _| {
        seen.push(key.to_vec());
        ControlFlow::Continue(())
    });
    assert!(matches!(result, Err(StorageError::Corruption { .. })));
    assert_eq!(seen, [b"a"]);
    engine.write(&put("b", "2"), Durability::Synced).unwrap();
    assert_eq!(engine.get(b"b").unwrap().unwrap(), "2");
}

#[test]
fn a_fork_and_its_origin_do_not_see_each_other_and_a_durable_copy_holds_what_is_synced() {
    let engine = three_unsynced();
    let durable = engine.durable_copy();
    let fork = engine.fork();
    fork.write(&put("c", "1"), Durability::Synced).unwrap();
    assert_eq!(engine.get(b"c").unwrap(), None);
    assert_eq!(fork.len(), 3);
    assert_eq!(content(&durable), [(b"a".to_vec(), b"synced".to_vec())]);
    assert_eq!(engine.unsynced(), 3);
}

proptest! {
    /// Whatever was written, undoing a suffix gives exactly the state before it, size included.
    #[test]
    fn a_crash_returns_exactly_to_the_state_after_the_kept_batches(
        batches in prop::collection::vec(prop::collection::vec((0_u8..6, 0_u8..6, 0_u8..4), 0..6), 1..12),
        synced in any::<prop::sample::Index>(),
        keep in any::<prop::sample::Index>(),
    ) {
        let synced = synced.index(batches.len());
        let engine = MemoryEngine::new();
        let mut states = Vec::new();
        for (at, changes) in batches.iter().enumerate() {
            let mut batch = Batch::new();
            // Never empty: an empty batch has no place in the log.
            batch.put(vec![9], vec![9]);
            for &(key, other, what) in changes {
                match what {
                    0 => batch.delete(vec![key]),
                    1 => batch.delete_range(vec![key], vec![other]),
                    _ => batch.put(vec![key], vec![other; usize::from(what)]),
                }
            }
            let durability = if at == synced { Durability::Synced } else { Durability::Buffered };
            engine.write(&batch, durability).unwrap();
            states.push((content(&engine), engine.size_bytes().unwrap()));
        }
        let keep = keep.index(batches.len() - synced);
        engine.crash(keep);
        prop_assert_eq!(&(content(&engine), engine.size_bytes().unwrap()), &states[synced + keep]);
    }
}
