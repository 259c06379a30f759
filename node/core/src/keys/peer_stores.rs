//! Stores of other nodes as they were told here: how a wiped node is recognised by those who knew it.

use bytes::Bytes;

use super::{Kind, Place, at, corrupt, key, range, rest};
use crate::error::Error;
use crate::ids::NodeId;
use crate::record::{self, Header};

const FORMAT: u8 = 1;

/// `[PeerStore][0][0][node u64 BE]` to the identity of its store.
pub struct PeerStoreKey;

impl PeerStoreKey {
    /// The stored key.
    pub fn encode(node: NodeId) -> Vec<u8> {
        key(Kind::PeerStore, Place::NODE, &node.0.to_be_bytes())
    }

    /// The node.
    pub fn node(stored: &[u8]) -> Result<NodeId, Error> {
        let bytes = rest(stored)?
            .try_into()
            .map_err(|_length| corrupt(stored, "the key is not a node"))?;
        Ok(NodeId(u64::from_be_bytes(bytes)))
    }

    /// All of them.
    pub fn range() -> (Vec<u8>, Vec<u8>) {
        range(Kind::PeerStore, Place::NODE)
    }

    /// The record.
    pub fn encode_record(store: u128) -> Bytes {
        record::encode(FORMAT, Header::default(), &store, 19)
    }

    /// Reads a record.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<u128, Error> {
        record::decode(record, FORMAT)
            .map(|(_, store)| store)
            .map_err(at(stored))
    }
}
