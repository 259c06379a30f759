//! What a caller may ask for, beside key and value.

use std::time::Duration;

use bytes::Bytes;
use meridian_proto::kv::v1 as wire;

use crate::ids::{Context, OpId, SessionToken};
use crate::lease::LeaseRef;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadLevel {
    /// What the keyspace says for reads that name no level; linearizable, unless its operator has chosen another.
    #[default]
    OfKeyspace,
    /// The newest committed value.
    Linearizable,
    /// Whatever the nearest replica holds.
    Eventual,
    /// Never older than the session token.
    Session,
    /// No older than this.
    Bounded(Duration),
    /// Merged from so many zones.
    Zones(u32),
}

impl ReadLevel {
    pub(crate) fn to_wire(self) -> Option<wire::ReadLevel> {
        use wire::read_level::Kind;
        let (kind, max_age_ms, zones) = match self {
            Self::OfKeyspace => return None,
            Self::Linearizable => (Kind::Linearizable, 0, 0),
            Self::Eventual => (Kind::Eventual, 0, 0),
            Self::Session => (Kind::Session, 0, 0),
            Self::Bounded(age) => (Kind::Bounded, millis(age), 0),
            Self::Zones(zones) => (Kind::Zones, 0, zones),
        };
        Some(wire::ReadLevel {
            kind: kind.into(),
            max_age_ms,
            zones,
            on_behind: 0,
        })
    }

    pub(crate) fn from_wire(level: Option<&wire::ReadLevel>) -> Self {
        use wire::read_level::Kind;
        let Some(level) = level else {
            return Self::OfKeyspace;
        };
        match level.kind() {
            Kind::Linearizable => Self::Linearizable,
            Kind::Eventual => Self::Eventual,
            Kind::Session => Self::Session,
            Kind::Bounded => Self::Bounded(Duration::from_millis(level.max_age_ms)),
            Kind::Zones => Self::Zones(level.zones),
        }
    }
}

/// What a read of the level `session` does when the replica at hand is behind its token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBehind {
    /// It waits for the replica, within the deadline.
    #[default]
    Wait,
    /// It goes on to a node that is further, of whatever zone the client may ask.
    Redirect,
    /// It fails at once with `STALE`.
    Fail,
}

/// Where a write must be durable before it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteLevel {
    /// In the zone that takes it.
    #[default]
    Zone,
    /// In so many zones.
    Zones(u32),
    /// In all zones.
    All,
}

impl WriteLevel {
    pub(crate) fn to_wire(self) -> Option<wire::WriteLevel> {
        use wire::write_level::Kind;
        let (kind, zones) = match self {
            Self::Zone => return None,
            Self::Zones(zones) => (Kind::Zones, zones),
            Self::All => (Kind::All, 0),
        };
        Some(wire::WriteLevel {
            kind: kind.into(),
            zones,
        })
    }

    pub(crate) fn from_wire(level: Option<&wire::WriteLevel>) -> Self {
        use wire::write_level::Kind;
        let Some(level) = level else {
            return Self::Zone;
        };
        match level.kind() {
            Kind::Zone => Self::Zone,
            Kind::Zones => Self::Zones(level.zones),
            Kind::All => Self::All,
        }
    }
}

/// What a write replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Intent {
    /// The key's version when there is exactly one; in a conflict the newest sibling its own zone wrote.
    #[default]
    Blind,
    /// Exactly what the context covers.
    Context(Context),
    /// Everything the zone holds of the key.
    Overwrite,
    /// Nothing: done only when the key is absent.
    IfAbsent,
    /// What the context covers: done only when the key holds nothing else.
    IfContext(Context),
    /// What is there: done only when the key holds exactly one version, with this value.
    IfValue(Bytes),
}

/// An intent in the words of the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WireIntent {
    pub(crate) intent: i32,
    pub(crate) context: Bytes,
    pub(crate) expected: Bytes,
}

impl Intent {
    pub(crate) fn to_wire(&self) -> WireIntent {
        let nothing = Bytes::new();
        let (intent, context, expected) = match self {
            Self::Blind => (wire::Intent::Blind, &nothing, &nothing),
            Self::Context(context) => (wire::Intent::Context, context.as_bytes(), &nothing),
            Self::Overwrite => (wire::Intent::Overwrite, &nothing, &nothing),
            Self::IfAbsent => (wire::Intent::IfAbsent, &nothing, &nothing),
            Self::IfContext(context) => (wire::Intent::IfContext, context.as_bytes(), &nothing),
            Self::IfValue(value) => (wire::Intent::IfValue, &nothing, value),
        };
        WireIntent {
            intent: intent.into(),
            context: context.clone(),
            expected: expected.clone(),
        }
    }

    /// Bytes that it takes beside its key and value.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Blind | Self::Overwrite | Self::IfAbsent => 0,
            Self::Context(context) | Self::IfContext(context) => context.as_bytes().len(),
            Self::IfValue(value) => value.len(),
        }
    }
}

/// Options of a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// How fresh the answer must be.
    pub level: ReadLevel,
    /// Session token to honour and to join into the one returned.
    pub session: SessionToken,
    /// With [`ReadLevel::Session`].
    pub on_behind: OnBehind,
}

impl ReadOptions {
    pub(crate) fn level_to_wire(&self) -> Option<wire::ReadLevel> {
        let on_behind = match self.on_behind {
            OnBehind::Wait => wire::OnBehind::Wait,
            OnBehind::Redirect => wire::OnBehind::Redirect,
            OnBehind::Fail => wire::OnBehind::Fail,
        };
        self.level.to_wire().map(|level| wire::ReadLevel {
            on_behind: on_behind.into(),
            ..level
        })
    }

    /// A read at this level, without a session.
    pub fn level(level: ReadLevel) -> Self {
        Self {
            level,
            ..Self::default()
        }
    }
}

/// Options of a put or delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// What it replaces.
    pub intent: Intent,
    /// Where it must be durable.
    pub level: WriteLevel,
    /// Given only to go on with an operation begun earlier; otherwise the client makes one.
    pub op_id: Option<OpId>,
    /// The version expires after this long. Puts only.
    pub ttl: Option<Duration>,
    /// The version vanishes with this lease, which must be of the same zone. Puts only.
    pub lease: Option<LeaseRef>,
    /// Session token to join into the one returned.
    pub session: SessionToken,
}

impl WriteOptions {
    /// A write that replaces exactly what `context` covers.
    pub fn replacing(context: Context) -> Self {
        Self {
            intent: Intent::Context(context),
            ..Self::default()
        }
    }
}

/// Which keys a scan returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanQuery {
    /// Keys that begin with it.
    pub prefix: Bytes,
    /// First key, inclusive. Empty: from the start.
    pub from: Bytes,
    /// End, exclusive. Empty: to the end.
    pub to: Bytes,
    /// Most entries in one page; 0 for the server's default.
    pub page_size: u32,
    /// Without values.
    pub keys_only: bool,
    /// Only keys in conflict.
    pub conflicts_only: bool,
    /// How fresh, and which session.
    pub read: ReadOptions,
}

impl ScanQuery {
    pub(crate) fn to_wire(&self, page_token: Bytes) -> wire::Scan {
        wire::Scan {
            prefix: self.prefix.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            limit: self.page_size,
            keys_only: self.keys_only,
            conflicts_only: self.conflicts_only,
            level: self.read.level_to_wire(),
            page_token,
            session: self.read.session.as_bytes().clone(),
            stamped: false,
            view: Bytes::new(),
        }
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_survive_the_wire() {
        for level in [
            ReadLevel::OfKeyspace,
            ReadLevel::Linearizable,
            ReadLevel::Eventual,
            ReadLevel::Session,
            ReadLevel::Bounded(Duration::from_millis(500)),
            ReadLevel::Zones(2),
        ] {
            assert_eq!(ReadLevel::from_wire(level.to_wire().as_ref()), level);
        }
        for level in [WriteLevel::Zone, WriteLevel::Zones(2), WriteLevel::All] {
            assert_eq!(WriteLevel::from_wire(level.to_wire().as_ref()), level);
        }
    }

    #[test]
    fn an_empty_context_is_not_the_absence_of_one() {
        let blind = Intent::Blind.to_wire();
        let with_empty = Intent::Context(Context::default()).to_wire();
        assert_ne!(blind.intent, with_empty.intent);
        assert!(with_empty.context.is_empty());
    }
}
