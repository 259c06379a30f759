//! Leases that stand, and the keys attached to leases of any shard.

use bytes::Bytes;
use meridian_causal::{Hlc, OpId};
use meridian_storage::prefix_end;
use serde::{Deserialize, Serialize};

use super::{Kind, Place, at, corrupt, key, prefix, range, rest};
use crate::error::Error;
use crate::lease::LeaseRef;
use crate::record::{self, Header};

const FORMAT: u8 = 1;

/// `[Lease][keyspace][shard][name]` to a [`LeaseRecord`].
pub struct LeaseKey;

/// A lease that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The fencing token of its acquisition.
    pub token: u64,
    /// How long it stands without being renewed.
    pub ttl_ms: u64,
    /// Who acquired it: the id of the operation.
    pub owner: u128,
    /// When, by the group's clock. For display.
    pub acquired: Hlc,
}

impl LeaseKey {
    /// The stored key.
    pub fn encode(place: Place, name: &[u8]) -> Vec<u8> {
        key(Kind::Lease, place, name)
    }

    /// The lease's name.
    pub fn name(stored: &[u8]) -> Result<&[u8], Error> {
        rest(stored)
    }

    /// All leases of a shard.
    pub fn all(place: Place) -> (Vec<u8>, Vec<u8>) {
        range(Kind::Lease, place)
    }

    /// The record.
    pub fn encode_record(header: Header, lease: &LeaseRecord) -> Bytes {
        record::encode(FORMAT, header, lease, 40)
    }

    /// Reads a record.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<(Header, LeaseRecord), Error> {
        record::decode(record, FORMAT).map_err(at(stored))
    }
}

/// `[LeasedKey][keyspace][shard][length of name u16 BE][name][token u64 BE][key]` to the op id of the write that attached
/// the key. An op id, and not a dot: it stays the same when a restored group renames its dots.
pub struct LeasedKey;

impl LeasedKey {
    /// The stored key.
    pub fn encode(place: Place, lease: &LeaseRef, user_key: &[u8]) -> Vec<u8> {
        let mut stored = Self::of_lease(place, lease);
        stored.extend_from_slice(user_key);
        stored
    }

    /// All keys attached to any lease.
    pub fn all(place: Place) -> (Vec<u8>, Vec<u8>) {
        range(Kind::LeasedKey, place)
    }

    /// All keys attached to a lease.
    pub fn range(place: Place, lease: &LeaseRef) -> (Vec<u8>, Vec<u8>) {
        let from = Self::of_lease(place, lease);
        let to = prefix_end(&from);
        (from, to)
    }

    /// The lease and the key.
    pub fn parts(stored: &[u8]) -> Result<(LeaseRef, &[u8]), Error> {
        let parts = rest(stored)?
            .split_first_chunk()
            .map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))
            .and_then(|(length, rest)| rest.split_at_checked(length))
            .and_then(|(name, rest)| Some((name, rest.split_first_chunk()?)));
        let (name, (token, user_key)) =
            parts.ok_or_else(|| corrupt(stored, "the key is truncated"))?;
        let lease = LeaseRef {
            name: Bytes::copy_from_slice(name),
            token: u64::from_be_bytes(*token),
        };
        Ok((lease, user_key))
    }

    /// The record.
    pub fn encode_record(header: Header, op_id: OpId) -> Bytes {
        record::encode(FORMAT, header, &op_id, 24)
    }

    /// The op id of the write that attached the key.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<OpId, Error> {
        record::decode(record, FORMAT)
            .map(|(_, op_id)| op_id)
            .map_err(at(stored))
    }

    fn of_lease(place: Place, lease: &LeaseRef) -> Vec<u8> {
        let name = lease.name.as_ref();
        let mut stored = prefix(Kind::LeasedKey, place, name.len().saturating_add(64));
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        stored.extend_from_slice(&length.to_be_bytes());
        stored.extend_from_slice(name);
        stored.extend_from_slice(&lease.token.to_be_bytes());
        stored
    }
}
