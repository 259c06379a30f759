//! Damaged records are errors that name their key; and indexes say what records say.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use meridian_storage::{Batch, Read};

use super::*;
use crate::keys::{
    self, ChangeKey, ConflictKey, ExpiryKey, Kind, OpIdRecord, OpOrderKey, OutboxKey, ShardMetaKey,
    TombstoneKey, VersionKey,
};

/// All records of a kind in the shard.
fn records(zone: &Zone, kind: Kind) -> Vec<(Vec<u8>, Bytes)> {
    let mut all = Vec::new();
    let from = [
        &[kind.number()][..],
        &1_u32.to_be_bytes(),
        &0_u16.to_be_bytes(),
    ]
    .concat();
    zone.engine
        .scan(
            &from,
            &meridian_storage::prefix_end(&from),
            &mut |key, value| {
                all.push((key.to_vec(), Bytes::copy_from_slice(value)));
                ControlFlow::Continue(())
            },
        )
        .unwrap();
    all
}

fn count(records: &[(Vec<u8>, Bytes)]) -> u64 {
    u64::try_from(records.len()).unwrap()
}

pub(super) fn check_indexes(zone: &Zone) {
    let versions = records(zone, Kind::Version);
    let (mut live, mut conflicts, mut tombstones) = (0, Vec::new(), Vec::new());
    let mut expiries = BTreeSet::new();
    for (stored, record) in &versions {
        let (_, set) = VersionKey::decode_record(stored, record).unwrap();
        let key = VersionKey::user_key(stored).unwrap();
        live += u64::from(set.has_live());
        let alive = set.siblings().iter().filter(|sibling| sibling.is_live());
        let times = alive.filter_map(|sibling| sibling.expires_at_ms);
        expiries.extend(times.map(|time| ExpiryKey::encode(PLACE, time, key)));
        if set.is_conflict() {
            conflicts.push(ConflictKey::encode(PLACE, key));
        }
        if set.all_tombstones() {
            tombstones.extend(
                set.siblings()
                    .iter()
                    .map(|s| (TombstoneKey::encode(PLACE, s.dot), key.to_vec())),
            );
        }
    }
    tombstones.sort();
    let meta = zone.meta();
    let stored_conflicts: Vec<_> = records(zone, Kind::Conflict)
        .into_iter()
        .map(|(stored, _)| stored)
        .collect();
    let stored_tombstones: Vec<_> = records(zone, Kind::Tombstone)
        .into_iter()
        .map(|(stored, record)| {
            (
                stored.clone(),
                TombstoneKey::decode_record(&stored, &record)
                    .unwrap()
                    .to_vec(),
            )
        })
        .collect();
    assert_eq!(
        (meta.keys, meta.conflicts),
        (live, count(&records(zone, Kind::Conflict)))
    );
    assert_eq!(stored_conflicts, conflicts);
    assert_eq!(
        (stored_tombstones, meta.tombstones),
        (tombstones.clone(), u64::try_from(tombstones.len()).unwrap())
    );
    let stored_expiries: Vec<_> = records(zone, Kind::Expiry)
        .into_iter()
        .map(|(stored, _)| stored)
        .collect();
    assert_eq!(stored_expiries, expiries.into_iter().collect::<Vec<_>>());
    check_op_ids(zone);
    check_outbox(zone);
    assert!(meta.received.includes(&meta.dropped) && meta.received.includes(&meta.outbox_floor));
    assert_eq!(
        load_meta(&zone.engine, zone.shard.group())
            .unwrap()
            .as_ref(),
        Some(meta)
    );
}

fn check_op_ids(zone: &Zone) {
    let mut ordered = Vec::new();
    for (stored, record) in records(zone, Kind::OpOrder) {
        assert!(OpOrderKey::index(&stored).unwrap() >= zone.meta().op_first_index);
        let (_, order) = OpOrderKey::decode_record(&stored, &record).unwrap();
        let stamps = order.operations.iter().map(|(_, done)| done.stamp_ms);
        assert_eq!(stamps.max(), Some(order.stamp_ms_max));
        ordered.extend(order.operations);
    }
    let remembered = usize::try_from(zone.meta().op_count).unwrap();
    assert_eq!(ordered.len(), remembered);
    for (id, OpIdRecord { stamp_ms, .. }) in &ordered {
        let op_id = OpId {
            stamp_ms: *stamp_ms,
            id: *id,
        };
        assert!(zone.shard.remembers(&zone.engine, op_id).unwrap());
    }
    ordered.sort_unstable_by_key(|(id, _)| *id);
    ordered.dedup_by_key(|(id, _)| *id);
    assert_eq!(ordered.len(), remembered, "each is entered once");
}

fn check_outbox(zone: &Zone) {
    let mut bytes = 0;
    let mut entries = 0;
    for (stored, record) in records(zone, Kind::Outbox) {
        let dot = OutboxKey::dot(&stored).unwrap();
        assert!(dot.counter > zone.meta().outbox_floor.get(dot.incarnation));
        assert!(zone.meta().received.covers(dot));
        let record = OutboxKey::decode_record(&stored, &record).unwrap();
        bytes += record.bytes_through - record.bytes_before;
        entries += 1;
    }
    let floor = &zone.meta().outbox_floor;
    let kept: u64 = zone
        .meta()
        .received
        .iter()
        .map(|(of, counter)| counter - floor.get(of))
        .sum();
    assert_eq!((bytes, entries), (zone.meta().outbox_bytes, kept));
    check_changes(zone);
}

/// Every change above the floor stands in one record, and none at or below it under its number.
fn check_changes(zone: &Zone) {
    let numbered = |(stored, record): (Vec<u8>, Bytes)| {
        OutboxKey::decode_record(&stored, &record).unwrap().change
    };
    let floor = zone.meta().changes_floor;
    let mut changes: Vec<u64> = records(zone, Kind::Outbox)
        .into_iter()
        .map(numbered)
        .filter(|change| *change > floor)
        .collect();
    let local = records(zone, Kind::Change);
    changes.extend(
        local
            .iter()
            .map(|(stored, _)| ChangeKey::number(stored).unwrap()),
    );
    changes.sort_unstable();
    assert!(
        changes.iter().copied().eq(floor + 1..=zone.meta().changes),
        "{changes:?} are not all above {floor}"
    );
}

/// A zone with a record of every kind.
fn full() -> Zone {
    let (mut a, mut b) = (Zone::new(1), Zone::new(2));
    a.put("conflict", "a");
    b.put("conflict", "b");
    a.delete("dead");
    a.pull_all(&b);
    a
}

/// What reads every record in some way.
fn use_everything(zone: &mut Zone) -> Result<(), Error> {
    let group = zone.shard.group();
    let stable = zone.received().clone();
    Shard::load(group, &zone.engine, PlantedBugs::default())?;
    for zone_written in [1, 2] {
        outbox::read(
            &zone.engine,
            group,
            incarnation(zone_written),
            0,
            usize::MAX,
        )?;
    }
    outbox::pending(&zone.engine, zone.meta(), group, incarnation(1), 0)?;
    let settled = garbage::Settled {
        stable: &stable,
        expired: garbage::Expired::Kept,
        through: u64::MAX,
    };
    garbage::tombstone_candidates(&zone.engine, zone.meta(), group, settled, 9)?;
    compare::range_hashes(&zone.engine, group, b"", 9, 9)?;
    zone.try_entry(vec![Op::EvictOpIds {
        through_index: u64::MAX,
        floor_ms: 0,
    }])?;
    for key in ["conflict", "dead"] {
        let op_id = OpId {
            stamp_ms: u64::MAX,
            id: (1 << 64) + 1,
        };
        let op = WriteOp {
            key: bytes(key),
            content: value("x"),
            intent: WriteIntent::Blind,
            op_id,
            expires_at_ms: None,
            waiter: Waiter::default(),
        };
        zone.try_entry(vec![Op::Write(op)])?;
    }
    Ok(())
}

#[test]
fn a_damaged_record_is_an_error_and_never_a_panic() {
    for kind in [Kind::Version, Kind::Tombstone, Kind::OpOrder, Kind::Outbox] {
        let found = records(&full(), kind);
        assert!(!found.is_empty());
        for (stored, record) in found {
            for damaged in [
                Bytes::new(),
                bytes("\u{7f}junk"),
                record.slice(..record.len() - 1),
            ] {
                // A tombstone's record names a key; a shorter name is another key.
                if kind == Kind::Tombstone && damaged.len() + 1 == record.len() {
                    continue;
                }
                let mut zone = full();
                let mut batch = Batch::new();
                batch.put(stored.clone(), damaged.clone());
                zone.engine.write(&batch, Durability::Buffered).unwrap();
                let error = use_everything(&mut zone).unwrap_err();
                let Error::Corruption { detail } = &error else {
                    panic!("{error:?}")
                };
                assert!(detail.starts_with(&format!("{kind:?} ")), "{detail}");
            }
        }
    }
}

#[test]
fn an_operations_or_meta_record_of_an_unknown_format_is_refused() {
    let zone = full();
    let group = zone.shard.group();
    let (order, _) = records(&zone, Kind::OpOrder).swap_remove(0);
    for (stored, known) in [(ShardMetaKey::encode(group), 7), (order.clone(), 2)] {
        let zone = full();
        let mut batch = Batch::new();
        batch.put(stored.clone(), bytes("\u{8}"));
        zone.engine.write(&batch, Durability::Buffered).unwrap();
        let loaded = Shard::load(group, &zone.engine, PlantedBugs::default()).map(|_| ());
        let reason = format!("format 8 is not known, {known} is");
        assert_eq!(loaded.unwrap_err(), keys::corrupt(&stored, &reason));
    }
}

#[test]
fn operations_that_are_missing_are_corruption_to_a_retry() {
    let mut zone = Zone::new(1);
    let op_id = zone.new_op_id();
    zone.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    let mut batch = Batch::new();
    for (stored, _) in records(&zone, Kind::OpOrder) {
        batch.delete(stored);
    }
    zone.engine.write(&batch, Durability::Buffered).unwrap();
    let op = WriteOp {
        key: bytes("k"),
        content: value("1"),
        intent: WriteIntent::Blind,
        op_id,
        expires_at_ms: None,
        waiter: Waiter::default(),
    };
    let error = zone.try_entry(vec![Op::Write(op)]).unwrap_err();
    assert!(matches!(error, Error::Corruption { .. }), "{error:?}");
}

#[test]
fn an_engine_that_finds_a_bad_block_is_believed() {
    let mut zone = full();
    zone.engine.corrupt(&VersionKey::encode(PLACE, b"conflict"));
    let error = use_everything(&mut zone).unwrap_err();
    assert!(matches!(error, Error::Corruption { .. }), "{error:?}");
}

#[test]
fn an_effect_missing_from_the_outbox_is_corruption() {
    let mut zone = full();
    let mut batch = Batch::new();
    batch.delete(OutboxKey::encode(PLACE, Dot::new(incarnation(1), 1)));
    zone.engine.write(&batch, Durability::Buffered).unwrap();
    let through = VersionVector::from_iter([(incarnation(1), 1)]);
    let error = zone.try_entry(vec![Op::Trim { through }]).unwrap_err();
    assert!(matches!(error, Error::Corruption { .. }), "{error:?}");
}
