//! Invariant 8: an operation takes effect at most once inside a zone, through retries, leader changes and restarts.

use std::collections::BTreeMap;

use meridian_causal::{Dot, OpId, ZoneId};

use super::dots::Seen;
use crate::history::History;
use crate::violation::{Checked, Violation};

/// The dot that each operation got in each zone.
#[derive(Debug, Default)]
pub(super) struct OpIds {
    dots: BTreeMap<(ZoneId, OpId), Dot>,
}

impl OpIds {
    /// Takes an effect in; merges of other zones' effects are judged by their own zone.
    pub(super) fn effect(&mut self, now: u64, seen: &Seen) -> Checked {
        let zone = seen.dot.zone();
        let Some(op_id) = seen.op_id.filter(|_| zone == seen.group.zone) else {
            return Ok(());
        };
        let first = *self.dots.entry((zone, op_id)).or_insert(seen.dot);
        if first == seen.dot {
            return Ok(());
        }
        Err(Violation::new(
            "op-ids",
            now,
            format!(
                "operation {op_id} on {:?} took effect twice in zone {zone}: {first} and {}",
                seen.key, seen.dot
            ),
        ))
    }
}

/// Receipts name one dot per operation; an operation is answered once, so two operations must not share a dot.
pub(super) fn check_receipts(history: &History) -> Checked {
    let mut owners: BTreeMap<(&[u8], Dot), usize> = BTreeMap::new();
    for (number, operation) in history.operations.iter().enumerate() {
        let (Some(receipt), Some(key)) = (operation.receipt(), operation.key()) else {
            continue;
        };
        if let Some(first) = owners.insert((key.as_ref(), receipt.dot), number) {
            return Err(Violation::new(
                "op-ids",
                operation.return_ns.unwrap_or(0),
                format!(
                    "operations {first} and {number} on {key:?} were both acknowledged as {}",
                    receipt.dot
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use meridian_causal::Incarnation;
    use meridian_core::ids::{GroupId, KeyspaceId, ShardId};

    fn seen(group_zone: u16, dot_zone: u16, counter: u64) -> Seen {
        Seen {
            group: GroupId {
                keyspace: KeyspaceId::DEFAULT,
                shard: ShardId(0),
                zone: ZoneId(group_zone),
                epoch: 0,
            },
            index: counter,
            dot: Dot::new(Incarnation::new(ZoneId(dot_zone), 5), counter),
            key: Bytes::from_static(b"k"),
            op_id: Some(OpId { stamp_ms: 1, id: 2 }),
        }
    }

    #[test]
    fn one_operation_in_two_zones_passes() {
        let mut op_ids = OpIds::default();
        assert!(op_ids.effect(0, &seen(1, 1, 1)).is_ok());
        assert!(op_ids.effect(0, &seen(2, 2, 1)).is_ok());
        assert!(op_ids.effect(0, &seen(1, 2, 1)).is_ok());
    }

    #[test]
    fn one_operation_twice_in_a_zone_is_found() {
        let mut op_ids = OpIds::default();
        assert!(op_ids.effect(0, &seen(1, 1, 1)).is_ok());
        assert_eq!(
            op_ids.effect(0, &seen(1, 1, 2)).unwrap_err().check,
            "op-ids"
        );
    }
}
