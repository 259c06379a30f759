//! Pieces that several conversions share, and why bytes from the network are refused.

use bytes::Bytes;
use meridian_causal::{CausalContext, DecodeError, VersionVector, ZoneId};
use meridian_core::ids::{GroupId, KeyspaceId, ShardId};
use meridian_proto::peer::v1 as pb;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Why a message from another node makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum WireError {
    /// A part that must be there is not.
    #[error("{what} is missing")]
    Missing { what: &'static str },
    /// A number means nothing here.
    #[error("{what} of {found} is out of range")]
    OutOfRange { what: &'static str, found: i64 },
    /// A fixed-size field has another size.
    #[error("{what} of {found} bytes is not of 16")]
    Size { what: &'static str, found: usize },
    /// Causal bytes are not what they should be.
    #[error("{what}: {source}")]
    Causal {
        what: &'static str,
        source: DecodeError,
    },
    /// Packed bytes are not what they should be.
    #[error("{what} does not decode")]
    Packed { what: &'static str },
    /// Packed by a program of another version; the message is dropped, the link goes on.
    #[error("{what} has format {found}, not {PACKED_FORMAT}")]
    Format { what: &'static str, found: u8 },
}

impl WireError {
    /// Whether only the sender's version is at fault.
    pub(crate) const fn is_other_version(&self) -> bool {
        match self {
            Self::Format { .. } => true,
            Self::Missing { .. }
            | Self::OutOfRange { .. }
            | Self::Size { .. }
            | Self::Causal { .. }
            | Self::Packed { .. } => false,
        }
    }
}

/// Version of the fields that hold postcard.
const PACKED_FORMAT: u8 = 2;

/// A format byte and postcard of `value`.
pub(crate) fn pack<T: Serialize>(value: &T) -> Bytes {
    let start = vec![PACKED_FORMAT];
    // Serialising our own types into memory fails only if one of them breaks serde's rules; the receiver then finds
    // nothing behind the format byte and refuses it.
    postcard::to_extend(value, start)
        .unwrap_or_else(|_broken| vec![PACKED_FORMAT])
        .into()
}

/// Reads what [`pack`] wrote, and nothing else.
pub(crate) fn unpack<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, WireError> {
    let (format, body) = bytes.split_first().ok_or(WireError::Missing { what })?;
    if *format != PACKED_FORMAT {
        return Err(WireError::Format {
            what,
            found: *format,
        });
    }
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(WireError::Packed { what }),
    }
}

/// The part, or an error that names it.
pub(crate) fn needed<T>(what: &'static str, part: Option<T>) -> Result<T, WireError> {
    part.ok_or(WireError::Missing { what })
}

/// A number that must fit 16 bits.
pub(crate) fn small(what: &'static str, found: u32) -> Result<u16, WireError> {
    u16::try_from(found).map_err(|_wide| WireError::OutOfRange {
        what,
        found: i64::from(found),
    })
}

/// A 128-bit identity.
pub(crate) fn wide(what: &'static str, bytes: &[u8]) -> Result<u128, WireError> {
    let exact = <[u8; 16]>::try_from(bytes).map_err(|_size| WireError::Size {
        what,
        found: bytes.len(),
    })?;
    Ok(u128::from_be_bytes(exact))
}

/// The bytes of a 128-bit identity.
pub(crate) fn wide_bytes(value: u128) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

pub(crate) fn vector_bytes(vector: &VersionVector) -> Bytes {
    let mut out = Vec::new();
    vector.encode(&mut out);
    out.into()
}

pub(crate) fn vector(what: &'static str, bytes: &[u8]) -> Result<VersionVector, WireError> {
    VersionVector::decode(bytes).map_err(|source| WireError::Causal { what, source })
}

pub(crate) fn context_bytes(context: &CausalContext) -> Bytes {
    let mut out = Vec::new();
    context.encode(&mut out);
    out.into()
}

pub(crate) fn context(what: &'static str, bytes: &[u8]) -> Result<CausalContext, WireError> {
    CausalContext::decode(bytes).map_err(|source| WireError::Causal { what, source })
}

pub(crate) fn group_to_wire(group: GroupId) -> pb::GroupId {
    pb::GroupId {
        keyspace: group.keyspace.0,
        shard: u32::from(group.shard.0),
        zone: u32::from(group.zone.0),
        epoch: group.epoch,
    }
}

pub(crate) fn group_from_wire(group: Option<pb::GroupId>) -> Result<GroupId, WireError> {
    let group = needed("group", group)?;
    Ok(GroupId {
        keyspace: KeyspaceId(group.keyspace),
        shard: ShardId(small("shard", group.shard)?),
        zone: ZoneId(small("zone", group.zone)?),
        epoch: group.epoch,
    })
}

pub(crate) fn pairs_to_wire(pairs: Vec<(Bytes, Bytes)>) -> Vec<pb::KeyValue> {
    pairs
        .into_iter()
        .map(|(key, value)| pb::KeyValue { key, value })
        .collect()
}

pub(crate) fn pairs_from_wire(pairs: Vec<pb::KeyValue>) -> Vec<(Bytes, Bytes)> {
    pairs
        .into_iter()
        .map(|pair| (pair.key, pair.value))
        .collect()
}
