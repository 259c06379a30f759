//! What a caller gets back.

use std::time::Duration;

use bytes::Bytes;
use meridian_proto::kv::v1 as wire;

use crate::ids::{Context, OpId, SessionToken};
use crate::options::{ReadLevel, WriteLevel};

/// Who answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServedBy {
    /// Name of the zone.
    pub zone: String,
    /// Name of the node.
    pub node: String,
}

impl From<wire::ServedBy> for ServedBy {
    fn from(wire: wire::ServedBy) -> Self {
        Self {
            zone: wire.zone,
            node: wire.node,
        }
    }
}

/// What a mirror has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorStamp {
    /// The generation, as the zone numbers them.
    pub generation: u64,
    /// When the cut was taken, by the clock of the home zone, in milliseconds since 1970.
    pub cut_time_ms: u64,
}

impl MirrorStamp {
    fn boxed(wire: wire::MirrorStamp) -> Box<Self> {
        Box::new(Self {
            generation: wire.generation,
            cut_time_ms: wire.cut_time_ms,
        })
    }
}

/// What the mirror in one zone has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneMirrored {
    /// The zone.
    pub zone: String,
    /// What it has shown.
    pub mirror: MirrorStamp,
    /// How old that was.
    pub age: Duration,
}

impl ZoneMirrored {
    fn from_wire(wire: wire::ZoneMirrored) -> Self {
        Self {
            zone: wire.zone,
            mirror: *MirrorStamp::boxed(wire.mirror.unwrap_or_default()),
            age: Duration::from_millis(wire.age_ms),
        }
    }
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sibling {
    /// Empty when deleted.
    pub value: Bytes,
    /// A tombstone that stands beside a live version.
    pub deleted: bool,
    /// Its dot, as text.
    pub dot: String,
    /// All dots, when a retried write landed in two zones; otherwise empty.
    pub dots: Vec<String>,
    /// The zone that wrote it.
    pub zone: String,
    /// When, by that zone's clock, in milliseconds since 1970.
    pub written_at_ms: u64,
    /// How long ago.
    pub age: Duration,
    /// The operation that wrote it.
    pub op_id: Option<OpId>,
    /// At the level zones: those that hold it.
    pub held_by: Vec<String>,
}

impl From<wire::Sibling> for Sibling {
    fn from(wire: wire::Sibling) -> Self {
        Self {
            value: wire.value,
            deleted: wire.deleted,
            dot: wire.dot.map(|dot| dot.text).unwrap_or_default(),
            dots: wire.dots.into_iter().map(|dot| dot.text).collect(),
            zone: wire.zone,
            written_at_ms: wire.written_at_ms,
            age: Duration::from_millis(wire.age_ms),
            op_id: wire.op_id.as_ref().and_then(OpId::from_wire),
            held_by: wire.held_by,
        }
    }
}

/// All versions of one key, and the context that covers them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The key.
    pub key: Bytes,
    /// Whether a live version exists.
    pub found: bool,
    /// All of them.
    pub siblings: Vec<Sibling>,
    /// What has been read, to be given to a write that replaces it.
    pub context: Context,
    /// The level that was served.
    pub level: ReadLevel,
    /// Who answered.
    pub served_by: ServedBy,
    /// Everything acknowledged longer ago than this is in the answer (in the zone, for the level linearizable; in whatever
    /// zone, for the others). `None`: it is not known.
    pub staleness: Option<Duration>,
    /// At the level zones: those that answered.
    pub zones: Vec<String>,
    /// What it is of, when a mirror answered.
    pub mirror: Option<Box<MirrorStamp>>,
    /// At the level zones: what the mirrors among these zones have shown.
    pub mirrors: Vec<ZoneMirrored>,
    /// The session token to go on with.
    pub session: SessionToken,
}

impl Versions {
    /// Several versions stand side by side.
    pub fn in_conflict(&self) -> bool {
        self.siblings.len() > 1
    }

    /// The value, when there is exactly one version and it is live.
    pub fn value(&self) -> Option<&Bytes> {
        match self.siblings.as_slice() {
            [only] if !only.deleted => Some(&only.value),
            _ => None,
        }
    }

    pub(crate) fn from_wire(key: Bytes, wire: wire::GetResponse) -> Self {
        Self {
            key,
            found: wire.found,
            siblings: wire.siblings.into_iter().map(Sibling::from).collect(),
            context: wire.context.into(),
            level: ReadLevel::from_wire(wire.level.as_ref()),
            served_by: wire.served_by.map(ServedBy::from).unwrap_or_default(),
            staleness: staleness(wire.staleness_ms, wire.staleness_unknown),
            zones: wire.zones,
            mirror: wire.mirror.map(MirrorStamp::boxed),
            mirrors: wire
                .mirrors
                .into_iter()
                .map(ZoneMirrored::from_wire)
                .collect(),
            session: wire.session.into(),
        }
    }
}

fn staleness(ms: u64, unknown: bool) -> Option<Duration> {
    (!unknown).then(|| Duration::from_millis(ms))
}

/// The acknowledgement of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The dot of the version written, as text.
    pub dot: String,
    /// Mode of the keyspace in force.
    pub mode: String,
    /// The level that was reached.
    pub level: WriteLevel,
    /// Zones that hold it durably.
    pub zones: Vec<String>,
    /// Fewer safeguards held than the mode promises.
    pub degraded: bool,
    /// Epoch of the keyspace's policy: grows with each alter.
    pub epoch: u64,
    /// The operation.
    pub op_id: Option<OpId>,
}

impl From<wire::Receipt> for Receipt {
    fn from(wire: wire::Receipt) -> Self {
        Self {
            dot: wire.dot.map(|dot| dot.text).unwrap_or_default(),
            mode: wire.mode,
            level: WriteLevel::from_wire(wire.level.as_ref()),
            zones: wire.zones,
            degraded: wire.degraded,
            epoch: wire.epoch,
            op_id: wire.op_id.as_ref().and_then(OpId::from_wire),
        }
    }
}

/// An acknowledged write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The key.
    pub key: Bytes,
    /// Its acknowledgement.
    pub receipt: Receipt,
    /// Covers what was replaced, and the new version.
    pub context: Context,
    /// The session token to go on with.
    pub session: SessionToken,
}

impl Written {
    pub(crate) fn from_wire(key: Bytes, wire: wire::WriteResponse) -> Self {
        Self {
            key,
            receipt: wire.receipt.unwrap_or_default().into(),
            context: wire.context.into(),
            session: wire.session.into(),
        }
    }
}

/// One page of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Sorted by key.
    pub entries: Vec<Versions>,
}

impl Page {
    /// The page, and the token of the next one.
    pub(crate) fn from_wire(wire: wire::ScanResponse) -> (Self, Bytes) {
        let level = ReadLevel::from_wire(wire.level.as_ref());
        let served_by = wire.served_by.map(ServedBy::from).unwrap_or_default();
        let staleness = staleness(wire.staleness_ms, wire.staleness_unknown);
        let session = SessionToken::from(wire.session);
        let mirror = wire.mirror.map(MirrorStamp::boxed);
        let entries = wire.entries.into_iter().map(|entry| Versions {
            key: entry.key,
            found: entry.siblings.iter().any(|sibling| !sibling.deleted),
            siblings: entry.siblings.into_iter().map(Sibling::from).collect(),
            context: entry.context.into(),
            level,
            served_by: served_by.clone(),
            staleness,
            zones: Vec::new(),
            mirrors: Vec::new(),
            mirror: mirror.clone(),
            session: session.clone(),
        });
        let page = Self {
            entries: entries.collect(),
        };
        (page, wire.next_page_token)
    }
}
