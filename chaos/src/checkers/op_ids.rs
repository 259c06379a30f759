//! Invariant 8: an operation takes effect at most once inside a zone, through retries, leader changes and restarts; and in at
//! most one of the keyspaces that an altered keyspace was, whatever the zones. A keyspace that was made of a mirror may know
//! nothing of what its predecessor did after the cut: there, an operation is done again.

use std::collections::BTreeMap;

use meridian_causal::{Dot, OpId, ZoneId};
use meridian_core::ids::KeyspaceId;

use super::dots::Seen;
use crate::history::History;
use crate::lineage::Lineage;
use crate::violation::{Checked, Violation};

/// Where an operation took effect: the keyspace and zone of the group that gave it the dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Made {
    keyspace: KeyspaceId,
    zone: ZoneId,
    dot: Dot,
}

/// The dots that each operation got.
#[derive(Debug, Default)]
pub(super) struct OpIds {
    made: BTreeMap<OpId, Vec<Made>>,
}

impl OpIds {
    /// Takes an effect in; merges of other groups' effects were judged when these made them.
    pub(super) fn effect(&mut self, now: u64, seen: &Seen, lineage: &Lineage) -> Checked {
        let Some(op_id) = seen.op_id else {
            return Ok(());
        };
        let all = self.made.entry(op_id).or_default();
        if all.iter().any(|one| one.dot == seen.dot) {
            return Ok(());
        }
        let made = Made {
            keyspace: seen.group.keyspace,
            zone: seen.dot.zone(),
            dot: seen.dot,
        };
        // Two zones of a keyspace need not know of one another's operations. What a keyspace knew when it was sealed, the one
        // that it became knows from the start.
        let era = lineage.era(made.keyspace);
        let twice = all
            .iter()
            .filter(|one| lineage.era(one.keyspace) == era)
            .find(|one| one.zone == made.zone || one.keyspace != made.keyspace);
        if let Some(first) = twice {
            return Err(Violation::new(
                "op-ids",
                now,
                format!(
                    "operation {op_id} on {:?} took effect twice: {} in keyspace {} and {} in keyspace {}",
                    seen.key, first.dot, first.keyspace.0, made.dot, made.keyspace.0
                ),
            ));
        }
        all.push(made);
        Ok(())
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
        let (mut op_ids, lineage) = (OpIds::default(), Lineage::default());
        assert!(op_ids.effect(0, &seen(1, 1, 1), &lineage).is_ok());
        assert!(op_ids.effect(0, &seen(2, 2, 1), &lineage).is_ok());
        assert!(op_ids.effect(0, &seen(1, 2, 1), &lineage).is_ok());
    }

    #[test]
    fn one_operation_twice_in_a_zone_is_found() {
        let (mut op_ids, lineage) = (OpIds::default(), Lineage::default());
        assert!(op_ids.effect(0, &seen(1, 1, 1), &lineage).is_ok());
        assert_eq!(
            op_ids
                .effect(0, &seen(1, 1, 2), &lineage)
                .unwrap_err()
                .check,
            "op-ids"
        );
    }
}
