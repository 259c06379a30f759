//! Context tokens: causal contexts in the hands of clients.
//!
//! A context from another zone may rightly be ahead of what this zone has received, so it cannot be checked against
//! local state; a forged one would erase writes nobody has read. Hence a token bears a code over cluster, keyspace,
//! key and context, under a key that the control group holds. It hides nothing: it is opaque by contract only.
//!
//! Form: a version byte, the context, 16 bytes of keyed blake3. Session tokens (`session`) are of another domain.

use std::fmt;

use bytes::Bytes;
use constant_time_eq::constant_time_eq_16;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{CausalContext, DecodeError};

/// Longest token that is looked at. Some ten thousand single dots fit; a context that large belongs to a writer that
/// has not read its key for as many conflicting writes, and has to.
pub const TOKEN_SIZE_BYTES_MAX: usize = 64 << 10;

const TOKEN_VERSION: u8 = 1;
const MAC_BYTES: usize = 16;
const DOMAIN: &[u8] = b"meridian context token";

/// The secret that tokens are authenticated with, the same in every zone of a cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKey([u8; 32]);

impl TokenKey {
    /// The key of these bytes, which are to be random.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the record that distributes the key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(secret)")
    }
}

/// What a token is bound to, besides its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenScope {
    /// The cluster that issued it.
    pub cluster: u128,
    /// The keyspace, by id: one dropped and created again by name shares nothing.
    pub keyspace: u32,
}

/// Why a token is no context. None of them had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// More than [`TOKEN_SIZE_BYTES_MAX`] bytes.
    #[error("token of {bytes} bytes exceeds {TOKEN_SIZE_BYTES_MAX}")]
    TooLarge {
        /// How many were given.
        bytes: usize,
    },
    /// Too short to be any token.
    #[error("token of {bytes} bytes is too short")]
    TooShort {
        /// How many were given.
        bytes: usize,
    },
    /// Of a form this program does not know.
    #[error("token version {found} is not {TOKEN_VERSION}")]
    Version {
        /// The version it names.
        found: u8,
    },
    /// Altered, cut, or issued for another key, keyspace or cluster.
    #[error("token was not issued for this key")]
    NotAuthentic,
    /// Authentic, and yet no context: the issuer is at fault.
    #[error("token holds no context: {0}")]
    Malformed(#[from] DecodeError),
}

/// The token that hands `context` of `key_bytes` to a client. A context of more than [`TOKEN_SIZE_BYTES_MAX`] bytes
/// gives a token that [`open`] refuses.
pub fn seal(key: &TokenKey, scope: TokenScope, key_bytes: &[u8], context: &CausalContext) -> Bytes {
    let mut token = Vec::with_capacity(64);
    token.push(TOKEN_VERSION);
    context.encode(&mut token);
    let code = code(key, scope, key_bytes, &token);
    token.extend_from_slice(&code);
    token.into()
}

/// The context that `token` hands back for `key_bytes`, if it is one of ours.
pub fn open(
    key: &TokenKey,
    scope: TokenScope,
    key_bytes: &[u8],
    token: &[u8],
) -> Result<CausalContext, TokenError> {
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
    if !constant_time_eq_16(claimed, &code(key, scope, key_bytes, signed)) {
        return Err(TokenError::NotAuthentic);
    }
    Ok(CausalContext::decode(body)?)
}

/// Fixed-size fields first and the key with its length, so that no two inputs run together.
fn code(key: &TokenKey, scope: TokenScope, key_bytes: &[u8], signed: &[u8]) -> [u8; MAC_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    hasher.update(DOMAIN);
    hasher.update(&scope.cluster.to_be_bytes());
    hasher.update(&scope.keyspace.to_be_bytes());
    hasher.update(&(key_bytes.len() as u64).to_be_bytes());
    hasher.update(key_bytes);
    hasher.update(signed);
    let mut code = [0; MAC_BYTES];
    hasher.finalize_xof().fill(&mut code);
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dot, Incarnation, ZoneId};
    use proptest::prelude::*;

    const KEY: TokenKey = TokenKey::new([7; 32]);
    const SCOPE: TokenScope = TokenScope {
        cluster: 1,
        keyspace: 2,
    };

    fn context(counters: impl IntoIterator<Item = u64>) -> CausalContext {
        let mut context = CausalContext::new();
        for counter in counters {
            context.insert(Dot::new(Incarnation::new(ZoneId(1), 99), counter));
        }
        context
    }

    #[test]
    fn a_token_opens_where_it_was_issued() {
        let token = seal(&KEY, SCOPE, b"k", &context([1, 2, 9]));
        assert_eq!(open(&KEY, SCOPE, b"k", &token), Ok(context([1, 2, 9])));
        let empty = seal(&KEY, SCOPE, b"k", &CausalContext::new());
        assert_eq!(open(&KEY, SCOPE, b"k", &empty), Ok(CausalContext::new()));
    }

    #[test]
    fn a_token_is_refused_for_another_key_keyspace_cluster_or_secret() {
        let token = seal(&KEY, SCOPE, b"k", &context([5]));
        let refused = Err(TokenError::NotAuthentic);
        assert_eq!(open(&KEY, SCOPE, b"other", &token), refused);
        assert_eq!(
            open(
                &KEY,
                TokenScope {
                    keyspace: 3,
                    ..SCOPE
                },
                b"k",
                &token
            ),
            refused
        );
        assert_eq!(
            open(
                &KEY,
                TokenScope {
                    cluster: 9,
                    ..SCOPE
                },
                b"k",
                &token
            ),
            refused
        );
        assert_eq!(open(&TokenKey::new([8; 32]), SCOPE, b"k", &token), refused);
    }

    #[test]
    fn every_truncation_is_refused() {
        let token = seal(&KEY, SCOPE, b"k", &context([5, 8]));
        for end in 0..token.len() {
            assert!(
                open(&KEY, SCOPE, b"k", &token[..end]).is_err(),
                "{end} bytes"
            );
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let token = seal(&KEY, SCOPE, b"k", &context([5, 8])).to_vec();
        for bit in 0..token.len() * 8 {
            let mut forged = token.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&KEY, SCOPE, b"k", &forged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn an_oversized_token_is_refused_unread_and_the_largest_is_not() {
        let spaced = |dots: u64| seal(&KEY, SCOPE, b"k", &context((1..=dots).map(|n| n * 2)));
        let bytes = TOKEN_SIZE_BYTES_MAX + 1;
        assert_eq!(
            open(&KEY, SCOPE, b"k", &vec![1; bytes]),
            Err(TokenError::TooLarge { bytes })
        );
        assert!(open(&KEY, SCOPE, b"k", &spaced(60_000)).is_ok());
        assert!(matches!(
            open(&KEY, SCOPE, b"k", &spaced(70_000)),
            Err(TokenError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut token = seal(&KEY, SCOPE, b"k", &context([5])).to_vec();
        token[0] = 2;
        assert_eq!(
            open(&KEY, SCOPE, b"k", &token),
            Err(TokenError::Version { found: 2 })
        );
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert_eq!(format!("{KEY:?}"), "TokenKey(secret)");
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_open(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(open(&KEY, SCOPE, b"k", &bytes).is_err());
        }
    }
}
