//! What a core answered, in the words of the contract.

use bytes::Bytes;
use meridian_causal::{Dot, OpId, SiblingSet, Version, ZoneId, token};
use meridian_core::mirror::MirrorStamp;
use meridian_core::read::changes::Change;
use meridian_core::request::{ReadLevel, Receipt};
use meridian_proto::kv::v1 as kv;

use super::failure::op_id_to_wire;
use super::operations::Scope;

/// Who answered, and what the answer passes on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served {
    /// Unset where the stream says it.
    pub(crate) by: Option<kv::ServedBy>,
    /// Unset (0) where the stream says it.
    pub(crate) stamp_ms: u64,
    pub(crate) session: Bytes,
    /// When a mirror answered.
    pub(crate) mirror: Option<MirrorStamp>,
}

impl Scope<'_> {
    /// The answer to a read of one key.
    pub(crate) fn get_response(
        &self,
        key: &[u8],
        set: &SiblingSet,
        level: ReadLevel,
        served: Served,
    ) -> kv::GetResponse {
        let found = set.has_live();
        kv::GetResponse {
            found,
            siblings: if found {
                self.siblings(set)
            } else {
                Vec::new()
            },
            context: self.seal(key, set),
            level: Some(read_level(level)),
            served_by: served.by,
            staleness_ms: served.mirror.map_or(0, |stamp| stamp.age_ms),
            session: served.session,
            stamp_ms: served.stamp_ms,
            stamp: Bytes::new(),
            span: None,
            zones: Vec::new(),
            staleness_unknown: false,
            mirror: served.mirror.map(mirror_to_wire),
            mirrors: Vec::new(),
        }
    }

    /// The answer to a write.
    pub(crate) fn write_response(
        &self,
        key: &[u8],
        receipt: &Receipt,
        served: Served,
    ) -> kv::WriteResponse {
        let context = token::seal(&self.token_key(), self.token_scope(), key, &receipt.context);
        let zones = self.zone_names(&receipt.zones);
        kv::WriteResponse {
            receipt: Some(kv::Receipt {
                degraded: receipt.degraded,
                ..self.receipt(Some(receipt.dot), zones, receipt.op_id)
            }),
            context,
            session: served.session,
            served_by: served.by,
            stamp_ms: served.stamp_ms,
        }
    }

    /// The acknowledgement of one write.
    pub(super) fn receipt(&self, dot: Option<Dot>, zones: Vec<String>, op_id: OpId) -> kv::Receipt {
        kv::Receipt {
            dot: dot.map(|dot| self.dot(dot)),
            mode: self.keyspace.policy.mode.name().to_owned(),
            level: Some(self.level_reached(zones.len())),
            zones,
            degraded: false,
            op_id: Some(op_id_to_wire(op_id)),
            epoch: self.keyspace.policy.epoch,
        }
    }

    /// The write level that so many zones make.
    fn level_reached(&self, zones: usize) -> kv::WriteLevel {
        use kv::write_level::Kind;
        let count = u32::try_from(zones).unwrap_or(u32::MAX);
        let (kind, zones) = match zones {
            0 | 1 => (Kind::Zone, 0),
            all if all >= self.keyspace.policy.zones.len() => (Kind::All, 0),
            _some => (Kind::Zones, count),
        };
        kv::WriteLevel {
            kind: i32::from(kind),
            zones,
        }
    }

    pub(super) fn zone_names(&self, zones: &[ZoneId]) -> Vec<String> {
        zones.iter().map(|zone| self.zone_name(*zone)).collect()
    }

    /// One key of a scan.
    pub(crate) fn entry(&self, key: Bytes, set: &SiblingSet) -> kv::Entry {
        let context = self.seal(&key, set);
        kv::Entry {
            siblings: self.siblings(set),
            context,
            key,
        }
    }

    fn seal(&self, key: &[u8], set: &SiblingSet) -> Bytes {
        token::seal(
            &self.token_key(),
            self.token_scope(),
            key,
            &set.read_context(),
        )
    }

    fn siblings(&self, set: &SiblingSet) -> Vec<kv::Sibling> {
        set.versions()
            .iter()
            .filter_map(|version| self.sibling(version))
            .collect()
    }

    /// A version, shown as one sibling. It has at least one dot.
    fn sibling(&self, version: &Version<'_>) -> Option<kv::Sibling> {
        let newest = version.newest()?;
        let dots: Vec<Dot> = version.dots().collect();
        let first = dots.first().copied()?;
        let written_at_ms = newest.written_at.wall_ms();
        Some(kv::Sibling {
            value: version.content().value().cloned().unwrap_or_default(),
            deleted: !version.is_live(),
            dot: Some(self.dot(first)),
            zone: self.zone_name(first.zone()),
            written_at_ms,
            age_ms: self.wall_ms.saturating_sub(written_at_ms),
            op_id: newest.op_id.map(op_id_to_wire),
            dots: if dots.len() > 1 {
                dots.into_iter().map(|dot| self.dot(dot)).collect()
            } else {
                Vec::new()
            },
            held_by: Vec::new(),
        })
    }

    /// A change, as a watcher is shown it; `revision` is where to go on after it.
    pub(crate) fn event(&self, change: Change, revision: Bytes) -> kv::WatchEvent {
        kv::WatchEvent {
            deleted: change.content.value().is_none(),
            value: change.content.value().cloned().unwrap_or_default(),
            key: change.key,
            expired: change.expired,
            dot: Some(self.dot(change.dot)),
            zone: self.zone_name(change.dot.zone()),
            written_at_ms: change.written_at.wall_ms(),
            transaction: change.transaction.map(|tag| kv::TransactionTag {
                id: Bytes::copy_from_slice(&tag.id.to_be_bytes()),
                parts: u32::from(tag.parts),
            }),
            revision,
        }
    }

    fn dot(&self, dot: Dot) -> kv::Dot {
        let zone = self.zone_name(dot.zone());
        kv::Dot {
            text: format!("{zone}.{:012x}:{}", dot.incarnation.nonce(), dot.counter),
            zone,
            incarnation: dot.incarnation.raw(),
            counter: dot.counter,
        }
    }

    fn zone_name(&self, zone: ZoneId) -> String {
        self.catalog
            .zones
            .get(&zone)
            .cloned()
            .unwrap_or_else(|| zone.to_string())
    }
}

/// What a mirror says of an answer.
pub(crate) const fn mirror_to_wire(stamp: MirrorStamp) -> kv::MirrorStamp {
    kv::MirrorStamp {
        generation: stamp.generation,
        cut_time_ms: stamp.cut_ms,
    }
}

/// The level that was served.
pub(crate) fn read_level(level: ReadLevel) -> kv::ReadLevel {
    use kv::read_level::Kind;
    let (kind, max_age_ms, zones) = match level {
        // A view shows what was newest when it was opened.
        ReadLevel::Linearizable | ReadLevel::View { .. } => (Kind::Linearizable, 0, 0),
        ReadLevel::Eventual | ReadLevel::Mirror { .. } => (Kind::Eventual, 0, 0),
        ReadLevel::Session => (Kind::Session, 0, 0),
        ReadLevel::Bounded { max_age_ms } => (Kind::Bounded, max_age_ms, 0),
        ReadLevel::Zones { count } => (Kind::Zones, 0, u32::from(count)),
    };
    kv::ReadLevel {
        kind: i32::from(kind),
        max_age_ms,
        zones,
        ..kv::ReadLevel::default()
    }
}
