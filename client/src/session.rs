//! A session in the hands of many tasks: the tokens that its answers have brought.
//!
//! Tokens are opaque, so a client cannot join two of them. An answer's token covers the one that its request bore; of
//! answers that came side by side none covers the other. So a session keeps a token for each, gives the next request all
//! of them in one bundle, and drops those that its answer covers: the node joins them.
//!
//! Invariant: what any answer of the session has brought is covered by the tokens that are kept.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::ids::SessionToken;

/// First byte of a bundle; a single token begins with another one.
const BUNDLE: u8 = 255;

/// What a session has seen and written of one keyspace. Clones are the same session.
#[derive(Clone, Debug, Default)]
pub struct Session(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// In the order in which they came, each with its number.
    tokens: Vec<(u64, Bytes)>,
    next: u64,
}

/// What one request bears of a session.
#[derive(Clone, Debug)]
pub(crate) struct Borne {
    pub(crate) token: SessionToken,
    /// Tokens with smaller numbers are covered by the answer.
    below: u64,
}

impl Borne {
    /// A token that no session keeps.
    pub(crate) const fn of(token: SessionToken) -> Self {
        Self { token, below: 0 }
    }
}

impl Session {
    /// A session that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A session that goes on with what another one, perhaps of another process or zone, has seen.
    pub fn from_token(token: SessionToken) -> Self {
        let session = Self::new();
        session.add(token.as_bytes());
        session
    }

    /// The token by which another process, or a node of another zone, may go on.
    pub fn token(&self) -> SessionToken {
        self.bear().token
    }

    pub(crate) fn bear(&self) -> Borne {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let token = match kept.tokens.as_slice() {
            [] => SessionToken::begin(),
            [(_, only)] => only.clone().into(),
            many => bundle(many).into(),
        };
        Borne {
            token,
            below: kept.next,
        }
    }

    /// The answer to a request that bore this has brought `token`.
    pub(crate) fn brought(&self, borne: &Borne, token: &SessionToken) {
        if token.is_empty() {
            return;
        }
        {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.tokens.retain(|(number, _)| *number >= borne.below);
        }
        self.add(token.as_bytes());
    }

    fn add(&self, token: &Bytes) {
        if token.is_empty() {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = kept.next;
        kept.next += 1;
        kept.tokens.push((number, token.clone()));
    }
}

/// A marker, then each token with its length in four bytes.
fn bundle(tokens: &[(u64, Bytes)]) -> Bytes {
    let mut bundle = BytesMut::new();
    bundle.put_u8(BUNDLE);
    for (_, token) in tokens {
        bundle.put_u32(u32::try_from(token.len()).unwrap_or(u32::MAX));
        bundle.put_slice(token);
    }
    bundle.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(byte: u8) -> SessionToken {
        Bytes::from(vec![byte; 3]).into()
    }

    #[test]
    fn an_answer_replaces_what_its_request_bore() {
        let session = Session::new();
        let first = session.bear();
        assert_eq!(first.token, SessionToken::begin());
        session.brought(&first, &token(1));
        let second = session.bear();
        assert_eq!(second.token, token(1));
        session.brought(&second, &token(2));
        assert_eq!(session.token(), token(2));
    }

    #[test]
    fn answers_side_by_side_are_all_kept_until_one_answer_covers_them() {
        let session = Session::from_token(token(1));
        let (one, two) = (session.bear(), session.bear());
        session.brought(&one, &token(2));
        session.brought(&two, &token(3));
        let both = session.bear();
        let expected = [&[BUNDLE, 0, 0, 0, 3, 2, 2, 2][..], &[0, 0, 0, 3, 3, 3, 3]].concat();
        assert_eq!(both.token.as_bytes(), &expected);
        session.brought(&both, &token(4));
        assert_eq!(session.token(), token(4));
    }

    #[test]
    fn an_answer_without_a_token_forgets_nothing() {
        let session = Session::from_token(token(1));
        let borne = session.bear();
        session.brought(&borne, &SessionToken::default());
        assert_eq!(session.token(), token(1));
    }
}
