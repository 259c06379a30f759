//! Stamps as programs hold them: masked with the log that gave them out.
//!
//! A stamp is a number of one log. Nodes mask it before it leaves them, so that it fits nowhere but in that log
//! (`node/src/convert/transactions/stamps.rs`); here the world stands for that part of a node. The logs are those that the
//! node asked knew when the request came.
//!
//! What it is not: the decision what is compared (`attempt`).

use meridian_causal::{Incarnation, ZoneId};
use meridian_core::catalog::Catalog;
use meridian_core::ids::{KeyspaceId, ShardId};
use meridian_core::request::{Query, Request};
use meridian_core::transaction::{Compare, Stamp};

use super::program;

/// The stretch of a log in which a key was as it was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeldSpan {
    pub(super) log: Incarnation,
    pub(super) from: u64,
    pub(super) through: u64,
}

/// The logs that serve the shards of a keyspace in a zone.
#[derive(Clone, Debug, Default)]
pub struct Logs(Vec<Incarnation>);

impl Logs {
    /// As a node's catalog has them.
    pub fn of(catalog: &Catalog, keyspace: KeyspaceId, zone: ZoneId) -> Self {
        let shards = catalog.keyspaces.get(&keyspace).map_or(0, |one| one.shards);
        let log = |shard| {
            let group = catalog.serving(keyspace, ShardId(shard), zone);
            group.map_or(Incarnation::from_raw(0), |group| group.incarnation)
        };
        Self((0..shards).map(log).collect())
    }

    fn of_shard(&self, shard: ShardId) -> Incarnation {
        let found = self.0.get(usize::from(shard.0)).copied();
        found.unwrap_or(Incarnation::from_raw(0))
    }

    /// What a program gets of a key's stamp; and takes back of its own, the mask being its own inverse.
    pub(super) fn key(&self, shard: ShardId, stamp: Stamp) -> Stamp {
        stamp.map(|index| index ^ self.of_shard(shard).raw())
    }

    /// The same of a range.
    pub(super) fn range(&self, shard: ShardId, stamp: u128) -> u128 {
        stamp ^ u128::from(self.of_shard(shard).raw())
    }

    /// When a key was as it is shown; nothing for one without a record.
    pub(super) fn span(&self, shard: ShardId, stamp: Stamp, through: u64) -> Option<HeldSpan> {
        let log = self.of_shard(shard);
        let from = stamp.filter(|from| *from <= through)?;
        Some(HeldSpan { log, from, through })
    }

    /// A request as cores get it.
    pub fn unmask(&self, request: &mut Request) {
        if let Request::Transact(transaction) = request {
            self.unmask_all(&mut transaction.compare);
        } else if let Request::Read(read) = request
            && let Query::Validate { compare, .. } = &mut read.query
        {
            self.unmask_all(compare);
        }
    }

    fn unmask_all(&self, compares: &mut [Compare]) {
        for compare in compares {
            self.unmask_compare(compare);
        }
    }

    fn unmask_compare(&self, compare: &mut Compare) {
        let shards = u16::try_from(self.0.len()).unwrap_or(u16::MAX);
        match compare {
            Compare::Unchanged { key, stamp } => {
                *stamp = self.key(program::shard(key, shards.max(1)), *stamp);
            }
            Compare::RangeUnchanged { shard, stamp, .. } => *stamp = self.range(*shard, *stamp),
            Compare::Absent { .. }
            | Compare::Exists { .. }
            | Compare::Value { .. }
            | Compare::Context { .. } => {}
        }
    }
}

/// Whether all were as shown at one time: one log, and an index common to all the stretches.
pub(super) fn overlap(spans: &[Option<HeldSpan>]) -> bool {
    let Some(spans) = spans.iter().copied().collect::<Option<Vec<_>>>() else {
        return false;
    };
    let one_log = spans
        .windows(2)
        .all(|pair| matches!(pair, [one, other] if one.log == other.log));
    let from = spans.iter().map(|span| span.from).max();
    let through = spans.iter().map(|span| span.through).min();
    one_log && from <= through
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use meridian_core::request::{Read, ReadLevel};

    use super::*;

    fn logs(raw: u64) -> Logs {
        Logs(vec![
            Incarnation::from_raw(raw),
            Incarnation::from_raw(raw + 1),
        ])
    }

    fn validate(stamp: Stamp, range: u128) -> Request {
        let key = Bytes::from_static(b"x/0/r/0");
        let range = Compare::RangeUnchanged {
            shard: ShardId(1),
            from: Bytes::new(),
            to: Bytes::new(),
            stamp: range,
        };
        Request::Read(Read {
            keyspace: KeyspaceId::DEFAULT,
            level: ReadLevel::Linearizable,
            query: Query::Validate {
                shard: ShardId(0),
                compare: vec![Compare::Unchanged { key, stamp }, range],
            },
            session: None,
        })
    }

    #[test]
    fn a_stamp_comes_back_in_its_own_log_and_in_no_other() {
        let (ours, others) = (logs(0x5555), logs(0x7777));
        let shard = program::shard(b"x/0/r/0", 2);
        let masked = validate(ours.key(shard, Some(8)), ours.range(ShardId(1), 9));
        let (mut here, mut there) = (masked.clone(), masked);
        ours.unmask(&mut here);
        others.unmask(&mut there);
        assert_eq!(here, validate(Some(8), 9));
        assert_ne!(there, validate(Some(8), 9));
    }

    #[test]
    fn stretches_of_two_logs_have_no_time_in_common() {
        let (ours, others) = (logs(0x5555), logs(0x7777));
        let one = ours.span(ShardId(0), Some(3), 8);
        assert!(overlap(&[one, ours.span(ShardId(0), Some(8), 9)]));
        assert!(!overlap(&[one, ours.span(ShardId(0), Some(9), 9)]));
        assert!(!overlap(&[one, others.span(ShardId(0), Some(3), 8)]));
        assert!(!overlap(&[one, ours.span(ShardId(0), None, 9)]));
    }
}
