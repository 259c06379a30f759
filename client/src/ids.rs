//! Tokens and ids that a client holds: causal contexts, session tokens, op ids, and their text forms.
//!
//! Contexts and session tokens are opaque: a client only passes them on. As text they are URL-safe base64.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use meridian_proto::kv::v1 as wire;
use thiserror::Error;

/// Why a text is not a token or an id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Not base64.
    #[error("{0:?} is not URL-safe base64")]
    NotBase64(String),
    /// Not an op id.
    #[error("{0:?} is not an op id of the form STAMP-ID, a number and 32 hexadecimal digits")]
    NotOpId(String),
}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(Bytes);

        impl $name {
            /// The bytes as a node issued them.
            pub const fn as_bytes(&self) -> &Bytes {
                &self.0
            }

            /// Whether there is none.
            pub const fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }

        impl From<Bytes> for $name {
            fn from(bytes: Bytes) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&BASE64.encode(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = TokenError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match BASE64.decode(text.trim_end_matches('=')) {
                    Ok(bytes) => Ok(Self(bytes.into())),
                    Err(_reason) => Err(TokenError::NotBase64(text.to_owned())),
                }
            }
        }
    };
}

token! {
    /// What a client has read of one key. A write that carries it replaces exactly that.
    Context
}

token! {
    /// What a client has seen and written, across keys.
    SessionToken
}

token! {
    /// Up to where a watch has shown the changes of a zone. Valid in that zone.
    Revision
}

impl SessionToken {
    /// Asks the node for a token, where there is none yet.
    pub const fn begin() -> Self {
        Self(Bytes::from_static(&[0]))
    }
}

/// Names one operation through all of its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId {
    /// The stamp a node issued, in milliseconds.
    pub stamp_ms: u64,
    /// Ten bytes that a process has chosen at random, and a number that it counts on; or whatever else a caller likes.
    pub id: u128,
}

/// Bits of an id that a process counts in: more than it can use up.
const NUMBER_BITS: u32 = 48;

impl OpId {
    /// A fresh one.
    ///
    /// Ids of one process differ in their number only, so that records which bear them pack well where they travel
    /// together; those of two processes differ in eighty random bits. A process that was copied while it ran, with its
    /// memory, gives ids that its copy gives too: it is to be started anew.
    pub fn fresh(stamp_ms: u64) -> Self {
        static PROCESS: LazyLock<u128> = LazyLock::new(|| rand::random::<u128>() << NUMBER_BITS);
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self {
            stamp_ms,
            id: *PROCESS | u128::from(number),
        }
    }

    pub(crate) fn to_wire(self) -> wire::OpId {
        wire::OpId {
            stamp_ms: self.stamp_ms,
            id: Bytes::copy_from_slice(&self.id.to_be_bytes()),
        }
    }

    /// `None` unless the id has 16 bytes.
    pub fn from_wire(op_id: &wire::OpId) -> Option<Self> {
        let id = <[u8; 16]>::try_from(op_id.id.as_ref()).ok()?;
        Some(Self {
            stamp_ms: op_id.stamp_ms,
            id: u128::from_be_bytes(id),
        })
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:032x}", self.stamp_ms, self.id)
    }
}

impl FromStr for OpId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_op_id(text).ok_or_else(|| TokenError::NotOpId(text.to_owned()))
    }
}

fn parse_op_id(text: &str) -> Option<OpId> {
    let (stamp, id) = text.split_once('-')?;
    let digits_only = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !digits_only {
        return None;
    }
    Some(OpId {
        stamp_ms: stamp.parse().ok()?,
        id: u128::from_str_radix(id, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_op_id_survives_its_text_and_its_wire_form() {
        let op_id = OpId::fresh(1_700_000_000_123);
        assert_eq!(op_id.to_string().parse(), Ok(op_id));
        assert_eq!(OpId::from_wire(&op_id.to_wire()), Some(op_id));
    }

    #[test]
    fn fresh_op_ids_differ_in_their_number_only() {
        let (one, two) = (OpId::fresh(7).id, OpId::fresh(7).id);
        assert!(one < two);
        assert_eq!(one >> NUMBER_BITS, two >> NUMBER_BITS);
    }

    #[test]
    fn malformed_op_ids_are_refused() {
        for text in [
            "",
            "1",
            "1-",
            "x-00000000000000000000000000000000",
            "1-0",
            "1-+0000000000000000000000000000000",
        ] {
            assert!(text.parse::<OpId>().is_err(), "{text:?}");
        }
        let short = wire::OpId {
            stamp_ms: 1,
            id: Bytes::from_static(b"short"),
        };
        assert_eq!(OpId::from_wire(&short), None);
    }

    #[test]
    fn a_context_survives_its_text_form_and_bad_text_is_refused() {
        let context = Context::from(Bytes::from_static(&[0, 255, 62, 63]));
        assert_eq!(context.to_string().parse(), Ok(context));
        assert!("not base64!".parse::<Context>().is_err());
    }
}
