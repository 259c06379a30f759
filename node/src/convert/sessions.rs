//! Sessions and levels on the wire: tokens opened and sealed, what is said beside an answer, and errors with the names of
//! zones and nodes.
//!
//! A token is that of one keyspace. Joined into it is what an answer showed (protocol rule 28): the context of a key that
//! holds anything, and all that had been received where something was found absent, since an absent key has no context.

use bytes::Bytes;
use meridian_causal::{SessionVector, VersionVector, ZoneId};
use meridian_core::Error;
use meridian_core::catalog::Catalog;
use meridian_core::ids::{NodeId, ShardId};
use meridian_core::mirror::MirrorStamp;
use meridian_core::request::{Answer, OnBehind, ReadLevel, Receipt, Response, Session, Shown};
use meridian_proto::kv::v1 as kv;

use super::answers::mirror_to_wire;
use super::failure::Failure;
use super::operations::{Scope, check_session};
use crate::limits::SESSION_SIZE_BYTES_MAX;

/// What a client sends that has no token yet, and wants one.
const BEGIN: [u8; 1] = [0];

/// First byte of a bundle of tokens: a client whose answers came side by side cannot join what they brought.
const BUNDLE: u8 = 255;

/// The tokens of a bundle, each behind its length in four bytes; or the one token that it is.
fn tokens_of(bundle: &[u8]) -> Result<Vec<&[u8]>, Failure> {
    let Some((&BUNDLE, mut rest)) = bundle.split_first() else {
        return Ok(vec![bundle]);
    };
    let cut = || Failure::invalid("BAD_TOKEN", "the bundle of session tokens is cut");
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (token, after) = after.split_at_checked(length).ok_or_else(cut)?;
        tokens.push(token);
        rest = after;
    }
    Ok(tokens)
}

impl Scope<'_> {
    /// The session that a request bears, if it bears one.
    pub(crate) fn session(&self, token: &[u8]) -> Result<Option<SessionVector>, Failure> {
        check_session(token)?;
        if token.is_empty() {
            return Ok(None);
        }
        let mut session = SessionVector::new();
        for token in tokens_of(token)? {
            session.absorb(&self.open_session(token)?);
        }
        Ok(Some(session))
    }

    fn open_session(&self, token: &[u8]) -> Result<SessionVector, Failure> {
        if token == BEGIN {
            return Ok(SessionVector::new());
        }
        let opened = SessionVector::open(&self.token_key(), self.token_scope(), token);
        opened.map_err(Failure::bad_token)
    }

    /// The part of a session that a read of `shard` is told of. `named`: the level that the request names, `level`: the one
    /// it is served at.
    pub(crate) fn session_of(
        &self,
        token: &[u8],
        (named, level): (Option<&kv::ReadLevel>, ReadLevel),
        shard: ShardId,
    ) -> Result<Option<Box<Session>>, Failure> {
        let behind = match named.map(kv::ReadLevel::on_behind).unwrap_or_default() {
            kv::OnBehind::Wait => OnBehind::Wait,
            kv::OnBehind::Redirect => OnBehind::Redirect,
            kv::OnBehind::Fail => OnBehind::Fail,
        };
        let session = self.session(token)?;
        // What is not linearizable says how old it is.
        let asked = !matches!(level, ReadLevel::Linearizable | ReadLevel::View { .. });
        Ok((asked || session.is_some()).then(|| {
            let after = session.unwrap_or_default().of(shard.0);
            Box::new(Session { after, behind })
        }))
    }

    /// The token to go on with. Past its bound it forgets incarnations that no group has any more.
    fn seal_session(&self, mut session: SessionVector) -> Bytes {
        let (key, scope) = (self.token_key(), self.token_scope());
        let token = session.seal(&key, scope);
        if token.len() <= SESSION_SIZE_BYTES_MAX {
            return token;
        }
        session.retain(|shard, incarnation| {
            let mut groups = self.keyspace.groups.iter();
            groups.any(|group| group.id.shard.0 == shard && group.incarnation == incarnation)
        });
        session.seal(&key, scope)
    }

    /// The token after a write; empty without a session.
    pub(crate) fn session_after_write(
        &self,
        token: &[u8],
        shard: ShardId,
        receipt: &Receipt,
    ) -> Bytes {
        self.session_after(token, |session| {
            session.join_context(shard.0, &receipt.context);
            session.join_dot(shard.0, receipt.dot);
        })
    }

    /// The token after a read of one key.
    pub(crate) fn session_after_read(
        &self,
        token: &[u8],
        shard: ShardId,
        (answer, seen): (&Answer, &VersionVector),
    ) -> Bytes {
        self.session_after(token, |session| {
            if let Answer::Key(set) | Answer::Examined { set, .. } = answer
                && !set.is_empty()
            {
                session.join_context(shard.0, set.context());
            } else {
                session.join(shard.0, seen);
            }
        })
    }

    /// The token after a read of many shards.
    pub(crate) fn session_after_scan(
        &self,
        token: &[u8],
        seen: &[(ShardId, VersionVector)],
    ) -> Bytes {
        self.session_after(token, |session| {
            for (shard, seen) in seen {
                session.join(shard.0, seen);
            }
        })
    }

    fn session_after(&self, token: &[u8], join: impl FnOnce(&mut SessionVector)) -> Bytes {
        // The same token was opened when the request came.
        let Ok(Some(mut session)) = self.session(token) else {
            return Bytes::new();
        };
        join(&mut session);
        self.seal_session(session)
    }

    /// Says of an answer what is known of the state it was read from.
    pub(crate) fn say_shown(&self, get: &mut kv::GetResponse, shown: &Shown) {
        get.staleness_ms = shown.age_ms.unwrap_or(0);
        get.staleness_unknown = shown.age_ms.is_none();
        get.zones = self.zone_names(&shown.zones);
        let mirrored = |(zone, stamp): &(ZoneId, MirrorStamp)| kv::ZoneMirrored {
            zone: self.catalog.zones.get(zone).cloned().unwrap_or_default(),
            mirror: Some(mirror_to_wire(*stamp)),
            age_ms: stamp.age_ms,
        };
        get.mirrors = shown.mirrors.iter().map(mirrored).collect();
        for sibling in &mut get.siblings {
            let mut holders = shown.held.iter().filter(|(dot, _)| {
                let named = sibling.dot.iter().chain(&sibling.dots);
                let is = |one: &kv::Dot| {
                    one.incarnation == dot.incarnation.raw() && one.counter == dot.counter
                };
                named.into_iter().any(is)
            });
            let mut zones: Vec<ZoneId> = Vec::new();
            holders.by_ref().for_each(|(_, more)| zones.extend(more));
            zones.sort();
            zones.dedup();
            sibling.held_by = self.zone_names(&zones);
        }
    }
}

/// Takes an answer out of what is said of it.
pub(crate) fn unwrap(response: Response) -> (Response, Option<Box<Shown>>) {
    if let Response::Read(Answer::Shown(mut shown)) = response {
        let answer = std::mem::replace(&mut shown.answer, Answer::Holds(false));
        (Response::Read(answer), Some(shown))
    } else {
        (response, None)
    }
}

impl Failure {
    /// The core's error, with the names of the zones and nodes it speaks of.
    pub(crate) fn named(error: Error, catalog: &Catalog) -> Self {
        let name = |zone: &ZoneId| {
            let name = catalog.zones.get(zone).cloned();
            name.unwrap_or_else(|| zone.to_string())
        };
        let names = |zones: &[ZoneId]| zones.iter().map(name).collect::<Vec<_>>().join(",");
        let failure = Self::from_core(error.clone());
        if let Error::LevelNotReached { dot, zones, .. } = error {
            let (zone, nonce) = (name(&dot.zone()), dot.incarnation.nonce());
            let text = format!("{zone}.{nonce:012x}:{}", dot.counter);
            failure.with("dot", text).with("zones", names(&zones))
        } else if let Error::ZonesShort { zones, .. } = error {
            failure.with("zones", names(&zones))
        } else if let Error::Stale {
            node: Some(node), ..
        } = error
        {
            failure.with_node(node, catalog, name)
        } else {
            failure
        }
    }

    fn with_node(self, node: NodeId, catalog: &Catalog, name: impl Fn(&ZoneId) -> String) -> Self {
        match catalog.nodes.get(&node) {
            Some(record) => self
                .with("zone", name(&record.zone))
                .with("node", &record.name)
                .with("addr", &record.addr),
            None => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_causal::{CausalContext, Dot, Incarnation, OpId, SiblingSet};
    use meridian_core::catalog::{Keyspace, Policy};
    use meridian_core::ids::KeyspaceId;

    fn catalog() -> Catalog {
        let keyspace = |id, name: &str| Keyspace::new(KeyspaceId(id), name, 2, Policy::default());
        let keyspaces = [keyspace(1, "default"), keyspace(2, "other")];
        Catalog {
            revision: 1,
            zones: [(ZoneId(1), "east".to_owned())].into(),
            keyspaces: keyspaces.into_iter().map(|one| (one.id, one)).collect(),
            ..Catalog::default()
        }
    }

    fn dot(counter: u64) -> Dot {
        Dot::new(Incarnation::new(ZoneId(1), 9), counter)
    }

    fn receipt(counter: u64) -> Receipt {
        Receipt {
            dot: dot(counter),
            context: CausalContext::from_dot(dot(counter)),
            zones: vec![ZoneId(1)],
            op_id: OpId { stamp_ms: 1, id: 1 },
            degraded: false,
            repeated: false,
        }
    }

    #[test]
    fn a_session_begins_with_a_zero_byte_and_keeps_what_it_wrote() {
        let catalog = catalog();
        let scope = Scope::find(&catalog, "", (ZoneId(1), 0)).unwrap();
        let token = scope.session_after_write(&BEGIN, ShardId(1), &receipt(5));
        let session = scope.session(&token).unwrap().unwrap();
        assert!(session.of(1).covers(dot(5)) && session.of(0).is_empty());
        assert!(scope.session(&[]).unwrap().is_none());
        let none = scope.session_after_write(&[], ShardId(1), &receipt(5));
        assert!(none.is_empty());
    }

    #[test]
    fn a_bundle_is_the_join_of_its_tokens_and_a_cut_one_is_refused() {
        let catalog = catalog();
        let scope = Scope::find(&catalog, "", (ZoneId(1), 0)).unwrap();
        let tokens =
            [1, 0].map(|shard| scope.session_after_write(&BEGIN, ShardId(shard), &receipt(5)));
        let mut bundle = vec![BUNDLE];
        for token in &tokens {
            bundle.extend_from_slice(&u32::try_from(token.len()).unwrap().to_be_bytes());
            bundle.extend_from_slice(token);
        }
        let session = scope.session(&bundle).unwrap().unwrap();
        assert!(session.of(0).covers(dot(5)) && session.of(1).covers(dot(5)));
        bundle.pop();
        assert_eq!(scope.session(&bundle).unwrap_err().reason(), "BAD_TOKEN");
    }

    #[test]
    fn a_token_of_another_keyspace_is_refused() {
        let catalog = catalog();
        let scope = Scope::find(&catalog, "", (ZoneId(1), 0)).unwrap();
        let token = scope.session_after_write(&BEGIN, ShardId(1), &receipt(5));
        let other = Scope::find(&catalog, "other", (ZoneId(1), 0)).unwrap();
        assert_eq!(other.session(&token).unwrap_err().reason(), "BAD_TOKEN");
    }

    #[test]
    fn an_absent_key_is_remembered_by_all_that_had_been_received() {
        let catalog = catalog();
        let scope = Scope::find(&catalog, "", (ZoneId(1), 0)).unwrap();
        let seen = [(dot(1).incarnation, 8)].into_iter().collect();
        let absent = Answer::Key(SiblingSet::new());
        let token = scope.session_after_read(&BEGIN, ShardId(0), (&absent, &seen));
        assert_eq!(scope.session(&token).unwrap().unwrap().of(0), seen);
    }

    #[test]
    fn a_level_not_reached_names_the_zones_that_have_the_write() {
        let error = Error::LevelNotReached {
            dot: dot(3),
            zones: vec![ZoneId(1)],
            need: 2,
            op_id: OpId { stamp_ms: 1, id: 1 },
        };
        let wire = Failure::named(error, &catalog()).into_wire();
        assert_eq!(wire.metadata["zones"], "east");
        assert_eq!(wire.effect(), kv::Effect::Applied);
    }
}
