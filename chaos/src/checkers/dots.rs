//! Invariant 3: no dot is used twice in a shard; dots of one incarnation are gapless at every receiver.
//!
//! A receiver is a group. Its replicas apply the same log, so the first replica that shows an entry speaks for the group,
//! and every other one must show the same effects for it. After a comparison a group's vector jumps, and with it the next
//! counter: then, and only then, a gap is let pass.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use meridian_causal::{Dot, Incarnation, OpId};
use meridian_core::ids::{GroupId, ShardId};

use crate::violation::{Checked, Violation};

/// An effect as a replica showed it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    /// The group.
    pub(super) group: GroupId,
    /// The entry.
    pub(super) index: u64,
    /// The dot.
    pub(super) dot: Dot,
    /// The key.
    pub(super) key: Bytes,
    /// The op id.
    pub(super) op_id: Option<OpId>,
}

/// A dot in its shard. The groups of all keyspaces of a lineage share it: a run has one.
type ShardDot = (ShardId, Dot);

#[derive(Debug, Default)]
struct GroupLog {
    /// Per entry, its effects in order.
    entries: BTreeMap<u64, Vec<Dot>>,
    /// Per incarnation, the last counter seen.
    last: BTreeMap<Incarnation, u64>,
    /// It has compared.
    compared: bool,
    /// Incarnations whose counter has jumped since.
    jumped: BTreeSet<Incarnation>,
}

/// Every dot seen, and where each group and replica stands.
#[derive(Debug, Default)]
pub(super) struct Dots {
    uses: BTreeMap<ShardDot, (Bytes, Option<OpId>)>,
    groups: BTreeMap<GroupId, GroupLog>,
    /// Where each replica is: the entry, and how many of its effects were shown.
    replicas: BTreeMap<(usize, GroupId), (u64, usize)>,
}

impl Dots {
    /// A node was started: it shows entries again from wherever its disk stands.
    pub(super) fn started(&mut self, node: usize) {
        self.replicas.retain(|(of, _), _| *of != node);
    }

    /// The group's vector may jump from now on.
    pub(super) fn compares(&mut self, group: GroupId) {
        let log = self.groups.entry(group).or_default();
        log.compared = true;
        log.jumped.clear();
    }

    /// Takes an effect in; true when no replica of the group has shown it before.
    pub(super) fn effect(
        &mut self,
        now: u64,
        node: usize,
        seen: &Seen,
    ) -> Result<bool, Box<Violation>> {
        self.check_use(now, seen)?;
        let place = self
            .replicas
            .entry((node, seen.group))
            .or_insert((seen.index, 0));
        if place.0 != seen.index {
            *place = (seen.index, 0);
        }
        let position = place.1;
        place.1 += 1;
        let log = self.groups.entry(seen.group).or_default();
        let effects = log.entries.entry(seen.index).or_default();
        match effects.get(position) {
            Some(dot) if *dot == seen.dot => Ok(false),
            Some(dot) => Err(Violation::new(
                "dots",
                now,
                format!(
                    "entry {} of {} is {} on n{} and was {dot} before",
                    seen.index,
                    seen.group,
                    seen.dot,
                    node + 1
                ),
            )),
            None => {
                effects.push(seen.dot);
                log.check_gap(now, seen).map(|()| true)
            }
        }
    }

    fn check_use(&mut self, now: u64, seen: &Seen) -> Checked {
        let place = (seen.group.shard, seen.dot);
        let (key, op_id) = self
            .uses
            .entry(place)
            .or_insert_with(|| (seen.key.clone(), seen.op_id));
        if *key == seen.key && *op_id == seen.op_id {
            return Ok(());
        }
        Err(Violation::new(
            "dots",
            now,
            format!(
                "dot {} of shard {} names {key:?} op {op_id:?} and {:?} op {:?}",
                seen.dot, seen.group.shard.0, seen.key, seen.op_id
            ),
        ))
    }
}

impl GroupLog {
    fn check_gap(&mut self, now: u64, seen: &Seen) -> Checked {
        let incarnation = seen.dot.incarnation;
        let last = self.last.insert(incarnation, seen.dot.counter).unwrap_or(0);
        let follows = seen.dot.counter == last + 1;
        if follows || (self.compared && seen.dot.counter > last && self.jumped.insert(incarnation))
        {
            return Ok(());
        }
        Err(Violation::new(
            "dots",
            now,
            format!(
                "group {} takes {} after counter {last} at entry {}",
                seen.group, seen.dot, seen.index
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_causal::ZoneId;
    use meridian_core::ids::KeyspaceId;

    fn seen(index: u64, counter: u64, key: &'static str) -> Seen {
        let incarnation = Incarnation::new(ZoneId(1), 5);
        Seen {
            group: GroupId {
                keyspace: KeyspaceId::DEFAULT,
                shard: ShardId(0),
                zone: ZoneId(2),
                epoch: 0,
            },
            index,
            dot: Dot::new(incarnation, counter),
            key: Bytes::from_static(key.as_bytes()),
            op_id: None,
        }
    }

    #[test]
    fn a_gapless_run_seen_by_two_replicas_passes() {
        let mut dots = Dots::default();
        assert_eq!(dots.effect(0, 0, &seen(5, 1, "a")), Ok(true));
        assert_eq!(dots.effect(0, 0, &seen(6, 2, "b")), Ok(true));
        assert_eq!(dots.effect(0, 1, &seen(5, 1, "a")), Ok(false));
    }

    #[test]
    fn a_gap_is_found() {
        let mut dots = Dots::default();
        assert_eq!(dots.effect(0, 0, &seen(5, 1, "a")), Ok(true));
        assert!(dots.effect(0, 0, &seen(6, 3, "b")).is_err());
    }

    #[test]
    fn a_jump_passes_once_after_a_comparison() {
        let mut dots = Dots::default();
        assert_eq!(dots.effect(0, 0, &seen(5, 1, "a")), Ok(true));
        dots.compares(seen(0, 1, "a").group);
        assert_eq!(dots.effect(0, 0, &seen(6, 9, "b")), Ok(true));
        assert!(dots.effect(0, 0, &seen(7, 12, "c")).is_err());
    }

    #[test]
    fn a_dot_used_for_two_keys_is_found() {
        let mut dots = Dots::default();
        assert_eq!(dots.effect(0, 0, &seen(5, 1, "a")), Ok(true));
        assert!(dots.effect(0, 1, &seen(5, 1, "b")).is_err());
    }
}
