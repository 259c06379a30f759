//! What a remembered operation did: how a retry takes effect once.

use bytes::Bytes;
use meridian_causal::{CausalContext, Dot};
use serde::{Deserialize, Serialize};

use crate::record::{self, RecordError};

/// What a remembered operation did. It is stored with the others of its log entry, in an [`OpOrder`](super::OpOrder).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpIdRecord {
    /// The dot it got.
    pub dot: Dot,
    /// The context its writer may go on with.
    pub context: CausalContext,
    /// Hash of the key it wrote.
    pub key_hash: u64,
    /// When the zone issued the op id.
    pub stamp_ms: u64,
}

impl OpIdRecord {
    /// Its bytes: postcard.
    pub fn encode(&self) -> Bytes {
        Bytes::from(record::append(Vec::new(), self))
    }

    /// Reads its bytes.
    ///
    /// # Errors
    /// They are not such a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        record::decode_body(bytes)
    }
}
