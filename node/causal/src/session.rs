//! Session tokens: what a session has seen and written of a keyspace, in the hands of clients.
//!
//! Per shard a vector: the session has seen (or written) nothing beyond it. A replica that has received the vector of a
//! shard shows the session nothing older than what it knows (protocol rule 28). Like context tokens they bear a code under
//! the key that the control group holds: a forged one could make every read wait for ever, or name what another zone is
//! to be asked for.
//!
//! Form: a version byte, the number of shards, per shard its number (ascending) and its vector with its length, 16 bytes
//! of keyed blake3. Shards of which nothing was seen are left out.

use std::collections::BTreeMap;

use bytes::Bytes;
use constant_time_eq::constant_time_eq_16;

use crate::codec::{Reader, put_len};
use crate::token::{TOKEN_SIZE_BYTES_MAX, TokenError, TokenKey, TokenScope};
use crate::{CausalContext, DecodeError, Dot, Incarnation, VersionVector};

const TOKEN_VERSION: u8 = 1;
const MAC_BYTES: usize = 16;
const DOMAIN: &[u8] = b"meridian session token";

/// What a session has seen and written, per shard.
///
/// Invariant: no vector is empty, so that equal sessions are equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionVector {
    shards: BTreeMap<u16, VersionVector>,
}

impl SessionVector {
    /// A session that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it has seen of a shard.
    pub fn of(&self, shard: u16) -> VersionVector {
        self.shards.get(&shard).cloned().unwrap_or_default()
    }

    /// It has seen all that this vector covers of a shard.
    pub fn join(&mut self, shard: u16, seen: &VersionVector) {
        if !seen.is_empty() {
            self.shards.entry(shard).or_default().join(seen);
        }
    }

    /// It has seen all that another session has.
    pub fn absorb(&mut self, other: &Self) {
        for (shard, seen) in &other.shards {
            self.join(*shard, seen);
        }
    }

    /// It was given this context of a key of a shard.
    pub fn join_context(&mut self, shard: u16, context: &CausalContext) {
        self.join(shard, context.vector());
        for dot in context.dots() {
            self.join_dot(shard, *dot);
        }
    }

    /// It has seen or made this write.
    pub fn join_dot(&mut self, shard: u16, dot: Dot) {
        let seen = self.shards.entry(shard).or_default();
        seen.advance(dot.incarnation, dot.counter);
    }

    /// Forgets incarnations that `keep` does not name.
    pub fn retain(&mut self, keep: impl Fn(u16, Incarnation) -> bool) {
        for (shard, seen) in &mut self.shards {
            let kept = seen.iter().filter(|(one, _)| keep(*shard, *one));
            *seen = kept.collect();
        }
        self.shards.retain(|_, seen| !seen.is_empty());
    }

    /// The token that hands it to a client; one above [`TOKEN_SIZE_BYTES_MAX`] is refused by [`SessionVector::open`].
    pub fn seal(&self, key: &TokenKey, scope: TokenScope) -> Bytes {
        let mut token = vec![TOKEN_VERSION];
        put_len(&mut token, self.shards.len());
        for (shard, seen) in &self.shards {
            let mut vector = Vec::with_capacity(32);
            seen.encode(&mut vector);
            token.extend_from_slice(&shard.to_be_bytes());
            put_len(&mut token, vector.len());
            token.extend_from_slice(&vector);
        }
        let code = code(key, scope, &token);
        token.extend_from_slice(&code);
        token.into()
    }

    /// The session that `token` hands back, if it is one of ours.
    pub fn open(key: &TokenKey, scope: TokenScope, token: &[u8]) -> Result<Self, TokenError> {
        let bytes = token.len();
        if bytes > TOKEN_SIZE_BYTES_MAX {
            return Err(TokenError::TooLarge { bytes });
        }
        let (signed, claimed) = token
            .split_last_chunk::<MAC_BYTES>()
            .ok_or(TokenError::TooShort { bytes })?;
        let (version, body) = signed.split_first().ok_or(TokenError::TooShort { bytes })?;
        if *version != TOKEN_VERSION {
            return Err(TokenError::Version { found: *version });
        }
        if !constant_time_eq_16(claimed, &code(key, scope, signed)) {
            return Err(TokenError::NotAuthentic);
        }
        Ok(Self::decode(body)?)
    }

    fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut shards = BTreeMap::new();
        let mut previous = None;
        for _ in 0..reader.count(SHARD_BYTES_MIN)? {
            let shard = u16::from_be_bytes(reader.array()?);
            let len = reader.count(1)?;
            let seen = VersionVector::decode(reader.take(len)?)?;
            if previous.replace(shard) >= Some(shard) || seen.is_empty() {
                return Err(DecodeError::Malformed("shards out of order or empty"));
            }
            shards.insert(shard, seen);
        }
        reader.finish()?;
        Ok(Self { shards })
    }
}

/// Number, length, and a vector of one entry.
const SHARD_BYTES_MIN: usize = 12;

/// Fixed-size fields first, so that no two inputs run together.
fn code(key: &TokenKey, scope: TokenScope, signed: &[u8]) -> [u8; MAC_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
    hasher.update(DOMAIN);
    hasher.update(&scope.cluster.to_be_bytes());
    hasher.update(&scope.keyspace.to_be_bytes());
    hasher.update(signed);
    let mut code = [0; MAC_BYTES];
    hasher.finalize_xof().fill(&mut code);
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ZoneId;
    use proptest::prelude::*;

    const KEY: TokenKey = TokenKey::new([7; 32]);
    const SCOPE: TokenScope = TokenScope {
        cluster: 1,
        keyspace: 2,
    };

    fn dot(zone: u16, counter: u64) -> Dot {
        Dot::new(Incarnation::new(ZoneId(zone), 9), counter)
    }

    fn session(dots: &[(u16, u16, u64)]) -> SessionVector {
        let mut session = SessionVector::new();
        for (shard, zone, counter) in dots {
            session.join_dot(*shard, dot(*zone, *counter));
        }
        session
    }

    #[test]
    fn a_token_opens_where_it_was_issued_and_nowhere_else() {
        let session = session(&[(0, 1, 5), (3, 2, 7)]);
        let token = session.seal(&KEY, SCOPE);
        assert_eq!(SessionVector::open(&KEY, SCOPE, &token), Ok(session));
        let elsewhere = TokenScope {
            keyspace: 3,
            ..SCOPE
        };
        let refused = Err(TokenError::NotAuthentic);
        assert_eq!(SessionVector::open(&KEY, elsewhere, &token), refused);
        assert_eq!(
            SessionVector::open(&TokenKey::new([8; 32]), SCOPE, &token),
            refused
        );
    }

    #[test]
    fn a_context_token_is_no_session_token() {
        let token = crate::token::seal(&KEY, SCOPE, b"k", &CausalContext::from_dot(dot(1, 1)));
        assert!(SessionVector::open(&KEY, SCOPE, &token).is_err());
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        let token = session(&[(0, 1, 5), (3, 2, 7)]).seal(&KEY, SCOPE).to_vec();
        for bit in 0..token.len() * 8 {
            let mut forged = token.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(SessionVector::open(&KEY, SCOPE, &forged).is_err());
        }
        for end in 0..token.len() {
            assert!(SessionVector::open(&KEY, SCOPE, &token[..end]).is_err());
        }
    }

    #[test]
    fn an_oversized_token_is_refused_unread() {
        let bytes = TOKEN_SIZE_BYTES_MAX + 1;
        assert_eq!(
            SessionVector::open(&KEY, SCOPE, &vec![1; bytes]),
            Err(TokenError::TooLarge { bytes })
        );
    }

    #[test]
    fn a_session_keeps_the_furthest_of_what_it_saw_per_shard() {
        let mut seen = session(&[(1, 1, 5)]);
        seen.join_dot(1, dot(1, 3));
        seen.join_context(2, &CausalContext::from_dot(dot(2, 8)));
        assert_eq!(seen, session(&[(1, 1, 5), (2, 2, 8)]));
        assert!(seen.of(7).is_empty());
        seen.retain(|shard, _| shard == 2);
        assert_eq!(seen, session(&[(2, 2, 8)]));
    }

    proptest! {
        #[test]
        fn tokens_read_back(dots in prop::collection::vec((0..9u16, 0..4u16, 1..99u64), 0..20)) {
            let session = session(&dots);
            prop_assert_eq!(SessionVector::open(&KEY, SCOPE, &session.seal(&KEY, SCOPE)), Ok(session));
        }
    }
}
