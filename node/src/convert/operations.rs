//! What clients ask, as requests to a core: every limit of the edge is checked here, before anything is begun.

use bytes::Bytes;
use meridian_causal::{
    CausalContext, Content, Incarnation, OpId, TokenKey, TokenScope, ZoneId, token,
};
use meridian_core::catalog::{Catalog, Keyspace};
use meridian_core::command::WriteIntent;
use meridian_core::ids::ShardId;
use meridian_core::limits::{CONTEXT_SIZE_BYTES_MAX, KEY_SIZE_BYTES_MAX, VALUE_SIZE_BYTES_MAX};
use meridian_core::request::{Query, Read, ReadLevel, Request, Write};
use meridian_proto::kv::v1 as kv;

use super::failure::Failure;
use super::leases;
use super::transactions::ActionKeys;
use super::views;
use crate::limits::{OP_ID_AHEAD_MS_MAX, SESSION_SIZE_BYTES_MAX};

/// The keyspace an operation is for, and what its tokens are bound to.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) keyspace: &'a Keyspace,
    /// The zone that is asked.
    pub(crate) zone: ZoneId,
    /// Wall clock at arrival.
    pub(crate) wall_ms: u64,
}

/// An operation found to make sense, with what is needed to word its answer.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) shard: ShardId,
    pub(crate) request: Request,
    pub(crate) key: Bytes,
    pub(crate) session: Bytes,
    pub(crate) level: ReadLevel,
    /// The op id of a write.
    pub(crate) op_id: Option<OpId>,
    /// The keys of a transaction's actions.
    pub(crate) action_keys: Option<Box<ActionKeys>>,
}

impl<'a> Scope<'a> {
    /// The keyspace `name` of `catalog`; empty means `default`.
    pub(crate) fn find(
        catalog: &'a Catalog,
        name: &str,
        (zone, wall_ms): (ZoneId, u64),
    ) -> Result<Self, Failure> {
        if catalog.revision == 0 {
            return Err(Failure::from_core(meridian_core::Error::NotAdmitted));
        }
        let name = if name.is_empty() { "default" } else { name };
        let keyspace = catalog
            .keyspace_named(name)
            .ok_or_else(|| Failure::keyspace_not_found(name))?;
        Ok(Self {
            catalog,
            keyspace,
            zone,
            wall_ms,
        })
    }

    /// Names the log that serves a shard here: that of the group, in its present life.
    pub(crate) fn log_of(&self, shard: ShardId) -> Incarnation {
        let group = self.catalog.serving(self.keyspace.id, shard, self.zone);
        group.map_or(Incarnation::from_raw(0), |group| group.incarnation)
    }

    /// A read of one key.
    pub(crate) fn get(&self, get: kv::Get) -> Result<Prepared, Failure> {
        check_key(&get.key)?;
        let shard = self.keyspace.shard_of(&get.key);
        let level = self.level_of_get(&get, shard)?;
        let session = self.session_of(&get.session, (get.level.as_ref(), level), shard)?;
        let key = get.key.clone();
        let query = if get.stamped {
            Query::Examine { key }
        } else {
            Query::Get { key }
        };
        Ok(Prepared {
            shard,
            request: Request::Read(Read {
                keyspace: self.keyspace.id,
                level,
                query,
                session,
            }),
            key: get.key,
            session: get.session,
            level,
            op_id: None,
            action_keys: None,
        })
    }

    /// The level of a read: the one it names, or else the keyspace's. What is stamped can only be linearizable.
    pub(crate) fn read_level(
        &self,
        named: Option<kv::ReadLevel>,
        stamped: bool,
    ) -> Result<ReadLevel, Failure> {
        match named {
            Some(named) => read_level(named),
            None if stamped => Ok(ReadLevel::Linearizable),
            None => Ok(self.keyspace.policy.read_level.level()),
        }
    }

    /// What a read of `shard` is to reflect: a view if one is named.
    fn level_of_get(&self, get: &kv::Get, shard: ShardId) -> Result<ReadLevel, Failure> {
        if get.view.is_empty() {
            let level = self.read_level(get.level, get.stamped)?;
            check_stamped(get.stamped, level)?;
            return Ok(level);
        }
        let level = views::level_of(&self.view(&get.view)?, shard)?;
        check_stamped(get.stamped, level)?;
        Ok(level)
    }

    /// A put. `fresh` makes an op id for a client that gave none.
    pub(crate) fn put(
        &self,
        put: kv::Put,
        fresh: impl FnOnce() -> u128,
    ) -> Result<Prepared, Failure> {
        check_value(&put.value)?;
        let intent = put.intent();
        let expires_at_ms = self.expires_at_ms(put.ttl_ms);
        let lease = put.lease.map(leases::lease_from_wire).transpose()?;
        if lease.is_some() && self.zones_of(put.level)?.is_some() {
            let level = "zones or all on a write attached to a lease";
            return Err(Failure::level_unsupported(level));
        }
        let prepared = self.write(
            WriteParts {
                key: put.key,
                content: Content::Value(put.value),
                intent,
                context: put.context,
                level: put.level,
                op_id: put.op_id,
                session: put.session,
                expected: put.expected,
                expires_at_ms,
            },
            fresh,
        )?;
        Ok(match lease {
            Some(lease) => prepared.attached_to(lease),
            None => prepared,
        })
    }

    /// A delete.
    pub(crate) fn delete(
        &self,
        delete: kv::Delete,
        fresh: impl FnOnce() -> u128,
    ) -> Result<Prepared, Failure> {
        let intent = delete.intent();
        self.write(
            WriteParts {
                key: delete.key,
                content: Content::Tombstone,
                intent,
                context: delete.context,
                level: delete.level,
                op_id: delete.op_id,
                session: delete.session,
                expected: delete.expected,
                expires_at_ms: None,
            },
            fresh,
        )
    }

    fn write(&self, parts: WriteParts, fresh: impl FnOnce() -> u128) -> Result<Prepared, Failure> {
        check_key(&parts.key)?;
        self.session(&parts.session)?;
        let zones = self.zones_of(parts.level)?;
        let op_id = self.op_id(parts.op_id, fresh)?;
        let intent = self.intent(&parts.key, parts.intent, &parts.context, &parts.expected)?;
        let write = Write {
            keyspace: self.keyspace.id,
            key: parts.key.clone(),
            content: parts.content,
            intent,
            op_id,
            expires_at_ms: parts.expires_at_ms,
        };
        Ok(Prepared {
            shard: self.keyspace.shard_of(&parts.key),
            request: match zones {
                Some(zones) => Request::WriteAt { write, zones },
                None => Request::Write(write),
            },
            key: parts.key,
            session: parts.session,
            level: ReadLevel::Linearizable,
            op_id: Some(op_id),
            action_keys: None,
        })
    }

    /// When a version with this time to live expires, by the clock of the edge; 0: never.
    pub(super) fn expires_at_ms(&self, ttl_ms: u64) -> Option<u64> {
        (ttl_ms > 0).then(|| self.wall_ms.saturating_add(ttl_ms))
    }

    pub(super) fn op_id(
        &self,
        given: Option<kv::OpId>,
        fresh: impl FnOnce() -> u128,
    ) -> Result<OpId, Failure> {
        let Some(given) = given else {
            return Ok(OpId {
                stamp_ms: self.wall_ms,
                id: fresh(),
            });
        };
        let op_id = op_id_from_wire(&given)?;
        let ahead = op_id.stamp_ms.saturating_sub(self.wall_ms);
        if ahead > OP_ID_AHEAD_MS_MAX {
            let message = format!(
                "op id is stamped {ahead} ms in the future, at most {OP_ID_AHEAD_MS_MAX} is allowed"
            );
            return Err(Failure::invalid("BAD_OP_ID", message));
        }
        Ok(op_id)
    }

    pub(super) fn intent(
        &self,
        key: &[u8],
        intent: kv::Intent,
        context: &[u8],
        expected: &Bytes,
    ) -> Result<WriteIntent, Failure> {
        let needs_context = matches!(intent, kv::Intent::Context | kv::Intent::IfContext);
        if !needs_context && !context.is_empty() {
            return Err(Failure::invalid(
                "INVALID_ARGUMENT",
                "a context is given and the intent uses none",
            ));
        }
        if intent != kv::Intent::IfValue && !expected.is_empty() {
            return Err(Failure::invalid(
                "INVALID_ARGUMENT",
                "an expected value is given and the intent uses none",
            ));
        }
        Ok(match intent {
            kv::Intent::Blind => WriteIntent::Blind,
            kv::Intent::Overwrite => WriteIntent::Overwrite,
            kv::Intent::IfAbsent => WriteIntent::IfAbsent,
            kv::Intent::IfValue => WriteIntent::IfValue(expected.clone()),
            kv::Intent::Context => WriteIntent::Context(self.open(key, context)?),
            kv::Intent::IfContext => WriteIntent::IfContext(self.open(key, context)?),
        })
    }

    /// The context a client hands back; the empty token is the empty context.
    pub(super) fn open(&self, key: &[u8], context: &[u8]) -> Result<CausalContext, Failure> {
        if context.is_empty() {
            return Ok(CausalContext::new());
        }
        if context.len() > CONTEXT_SIZE_BYTES_MAX {
            return Err(Failure::too_large(
                "BAD_TOKEN",
                "context",
                context.len(),
                CONTEXT_SIZE_BYTES_MAX,
            ));
        }
        token::open(&self.token_key(), self.token_scope(), key, context).map_err(Failure::bad_token)
    }

    pub(crate) fn token_key(&self) -> TokenKey {
        TokenKey::new(self.catalog.token_key)
    }

    pub(crate) const fn token_scope(&self) -> TokenScope {
        TokenScope {
            cluster: self.catalog.cluster_id,
            keyspace: self.keyspace.lineage.0,
        }
    }
}

/// What puts and deletes have in common.
struct WriteParts {
    key: Bytes,
    content: Content,
    intent: kv::Intent,
    context: Bytes,
    level: Option<kv::WriteLevel>,
    op_id: Option<kv::OpId>,
    session: Bytes,
    expected: Bytes,
    expires_at_ms: Option<u64>,
}

fn op_id_from_wire(op_id: &kv::OpId) -> Result<OpId, Failure> {
    let id = <[u8; 16]>::try_from(op_id.id.as_ref()).map_err(|_size| {
        Failure::invalid(
            "BAD_OP_ID",
            format!("op id of {} bytes is not of 16", op_id.id.len()),
        )
    })?;
    Ok(OpId {
        stamp_ms: op_id.stamp_ms,
        id: u128::from_be_bytes(id),
    })
}

/// A key that may be stored.
pub(crate) fn check_key(key: &[u8]) -> Result<(), Failure> {
    match key.len() {
        0 => Err(Failure::invalid("KEY_EMPTY", "a key has at least one byte")),
        bytes if bytes > KEY_SIZE_BYTES_MAX => Err(Failure::too_large(
            "KEY_TOO_LARGE",
            "key",
            bytes,
            KEY_SIZE_BYTES_MAX,
        )),
        _ => Ok(()),
    }
}

/// A value that may be stored.
pub(crate) fn check_value(value: &[u8]) -> Result<(), Failure> {
    if value.len() > VALUE_SIZE_BYTES_MAX {
        return Err(Failure::too_large(
            "VALUE_TOO_LARGE",
            "value",
            value.len(),
            VALUE_SIZE_BYTES_MAX,
        ));
    }
    Ok(())
}

/// Stamps are given for what is newest only: a transaction that compares them could not commit otherwise.
pub(crate) fn check_stamped(stamped: bool, level: ReadLevel) -> Result<(), Failure> {
    match level {
        ReadLevel::Linearizable => Ok(()),
        ReadLevel::Eventual
        | ReadLevel::View { .. }
        | ReadLevel::Session
        | ReadLevel::Bounded { .. }
        | ReadLevel::Zones { .. }
        | ReadLevel::Mirror { .. }
            if !stamped =>
        {
            Ok(())
        }
        ReadLevel::Eventual
        | ReadLevel::View { .. }
        | ReadLevel::Session
        | ReadLevel::Bounded { .. }
        | ReadLevel::Zones { .. }
        | ReadLevel::Mirror { .. } => Err(Failure::invalid(
            "INVALID_ARGUMENT",
            "stamps are given at the level linearizable only",
        )),
    }
}

/// A session token that may be handed back.
pub(crate) fn check_session(session: &[u8]) -> Result<(), Failure> {
    if session.len() > SESSION_SIZE_BYTES_MAX {
        return Err(Failure::too_large(
            "BAD_TOKEN",
            "session token",
            session.len(),
            SESSION_SIZE_BYTES_MAX,
        ));
    }
    Ok(())
}

/// The read level asked for, if there is one of that number.
fn read_level(level: kv::ReadLevel) -> Result<ReadLevel, Failure> {
    use kv::read_level::Kind;
    match Kind::try_from(level.kind) {
        Ok(Kind::Linearizable) => Ok(ReadLevel::Linearizable),
        Ok(Kind::Eventual) => Ok(ReadLevel::Eventual),
        Ok(Kind::Session) => Ok(ReadLevel::Session),
        Ok(Kind::Bounded) => Ok(ReadLevel::Bounded {
            max_age_ms: level.max_age_ms,
        }),
        Ok(Kind::Zones) => Ok(ReadLevel::Zones {
            count: zone_count(level.zones)?,
        }),
        Err(unknown) => Err(Failure::level_unsupported(&unknown.0.to_string())),
    }
}

/// A number of zones; whether the keyspace has as many is for the core to say.
fn zone_count(zones: u32) -> Result<u16, Failure> {
    u16::try_from(zones)
        .ok()
        .filter(|zones| *zones > 0)
        .ok_or_else(|| Failure::invalid("INVALID_ARGUMENT", format!("a level of {zones} zones")))
}

impl Scope<'_> {
    /// How many zones a write is to be in before it is acknowledged; `None` when its own is enough.
    fn zones_of(&self, level: Option<kv::WriteLevel>) -> Result<Option<u16>, Failure> {
        use kv::write_level::Kind;
        let level = level.unwrap_or_default();
        match Kind::try_from(level.kind) {
            Ok(Kind::Zone) => Ok(None),
            Ok(Kind::Zones) if level.zones == 1 => Ok(None),
            Ok(Kind::Zones) => zone_count(level.zones).map(Some),
            Ok(Kind::All) => {
                let zones = u32::try_from(self.keyspace.policy.zones.len()).unwrap_or(u32::MAX);
                zone_count(zones.max(1)).map(Some)
            }
            Err(unknown) => Err(Failure::level_unsupported(&unknown.0.to_string())),
        }
    }
}
