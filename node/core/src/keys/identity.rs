//! Who this node is: what a store must agree on with the configuration it is opened with.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Kind, Place, at, prefix};
use crate::error::Error;
use crate::ids::{Generation, NodeId};
use crate::record::{self, Header};

const FORMAT: u8 = 1;

/// `[NodeIdentity][0][0]` to a [`NodeIdentity`].
pub struct NodeIdentityKey;

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIdentity {
    /// Name of the cluster.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
    /// Random identity of this store.
    pub store: u128,
    /// The life of the node's storage; `None` until the node is a member.
    pub admitted: Option<Generation>,
}

impl NodeIdentityKey {
    /// The stored key.
    pub fn encode() -> Vec<u8> {
        prefix(Kind::NodeIdentity, Place::NODE, 0)
    }

    /// The record.
    pub fn encode_record(identity: &NodeIdentity) -> Bytes {
        record::encode(FORMAT, Header::default(), identity, 64)
    }

    /// Reads a record.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<NodeIdentity, Error> {
        record::decode(record, FORMAT)
            .map(|(_, identity)| identity)
            .map_err(at(stored))
    }
}
