//! The name of one attempt-independent operation: a retry carries the same one, so it takes effect once.
//!
//! Two texts name an operation: the compact form that [`OpId`] displays as, `stamp-id` in lower-case hex, and any
//! other text a caller likes, which is hashed and has no stamp of its own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest text that names an operation. A longer one is a value in the wrong field.
pub const OP_ID_TEXT_BYTES_MAX: usize = 128;

/// Names an operation through all its retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId {
    /// When the zone issued it: ids below a shard's floor are no longer remembered.
    pub stamp_ms: u64,
    /// Random, or the hash of a caller's text.
    pub id: u128,
}

/// Why a text names no operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpIdError {
    /// Nothing was given.
    #[error("op id is empty")]
    Empty,
    /// More than [`OP_ID_TEXT_BYTES_MAX`] bytes.
    #[error("op id of {bytes} bytes exceeds {OP_ID_TEXT_BYTES_MAX}")]
    TooLong {
        /// How many were given.
        bytes: usize,
    },
}

impl OpId {
    const ID_DIGITS: usize = 32;

    /// The operation that a caller's own `text` names: the same text is the same id.
    pub fn from_text(text: &str, stamp_ms: u64) -> Self {
        let mut id = [0; 16];
        blake3::Hasher::new()
            .update(text.as_bytes())
            .finalize_xof()
            .fill(&mut id);
        Self {
            stamp_ms,
            id: u128::from_be_bytes(id),
        }
    }

    /// Reads the displayed form, and only that: no second spelling of one id.
    fn from_compact(text: &str) -> Option<Self> {
        let (stamp, id) = text.split_once('-')?;
        if id.len() != Self::ID_DIGITS {
            return None;
        }
        let op_id = Self {
            stamp_ms: u64::from_str_radix(stamp, 16).ok()?,
            id: u128::from_str_radix(id, 16).ok()?,
        };
        (op_id.to_string() == text).then_some(op_id)
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:032x}", self.stamp_ms, self.id)
    }
}

impl FromStr for OpId {
    type Err = OpIdError;

    fn from_str(text: &str) -> Result<Self, OpIdError> {
        match text.len() {
            0 => Err(OpIdError::Empty),
            bytes if bytes > OP_ID_TEXT_BYTES_MAX => Err(OpIdError::TooLong { bytes }),
            _ => Ok(Self::from_compact(text).unwrap_or_else(|| Self::from_text(text, 0))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn any_other_text_is_hashed_and_has_no_stamp() {
        let named: OpId = "order-17".parse().unwrap();
        assert_eq!(named, OpId::from_text("order-17", 0));
        assert_ne!(named, "order-18".parse().unwrap());
        assert_eq!(OpId::from_text("order-17", 5).id, named.id);
    }

    #[test]
    fn a_second_spelling_of_a_compact_id_is_another_text() {
        let op_id = OpId {
            stamp_ms: 0xab,
            id: 7,
        };
        let text = op_id.to_string();
        for other in [
            text.to_uppercase(),
            format!("0{text}"),
            format!("+{text}"),
            format!("{text}0"),
        ] {
            assert_ne!(other.parse::<OpId>().unwrap(), op_id, "{other}");
        }
    }

    #[test]
    fn empty_and_oversized_texts_are_refused() {
        assert_eq!("".parse::<OpId>(), Err(OpIdError::Empty));
        assert!("x".repeat(128).parse::<OpId>().is_ok());
        assert_eq!(
            "x".repeat(129).parse::<OpId>(),
            Err(OpIdError::TooLong { bytes: 129 })
        );
    }

    proptest! {
        #[test]
        fn the_displayed_form_reads_back(stamp_ms: u64, id: u128) {
            let op_id = OpId { stamp_ms, id };
            prop_assert_eq!(op_id.to_string().parse(), Ok(op_id));
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            prop_assert_eq!(text.parse::<OpId>().is_ok(), (1..=OP_ID_TEXT_BYTES_MAX).contains(&text.len()));
        }
    }
}
