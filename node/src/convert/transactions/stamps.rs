//! Stamps on the wire: of a key, a byte 0 when it has no record, else a byte 1 and eight; of a range, 16 bytes.
//!
//! A stamp is a number of one log, and means nothing in another one: the keyspace may be altered between a read and the commit,
//! or the zone lose its disk and its group be founded anew. So it is masked with the incarnation of the group that gave it out,
//! and does not fit, whatever it is, where another group compares it: the transaction is a conflict.

use bytes::Bytes;
use meridian_causal::Incarnation;
use meridian_core::ids::ShardId;
use meridian_core::transaction::Stamp;
use meridian_proto::kv::v1 as kv;

use super::super::failure::Failure;

const ABSENT: u8 = 0;
const PRESENT: u8 = 1;

/// The stamp of a key, of a group's log.
pub(crate) fn key_to_wire(stamp: Stamp, log: Incarnation) -> Bytes {
    let Some(index) = stamp else {
        return Bytes::from_static(&[ABSENT]);
    };
    let mut bytes = vec![PRESENT];
    let masked = index ^ log.raw();
    bytes.extend_from_slice(&masked.to_be_bytes());
    bytes.into()
}

/// When the key was as it is shown, in the numbers of its shard's log; nothing for a key without a record, which may have
/// been written and forgotten in between.
pub(crate) fn span_to_wire(
    (shard, log): (ShardId, Incarnation),
    stamp: Stamp,
    through: u64,
) -> Option<kv::HeldSpan> {
    let shard = u32::from(shard.0);
    let span = |from| kv::HeldSpan {
        shard,
        from,
        through,
        log: log.raw(),
    };
    stamp.filter(|from| *from <= through).map(span)
}

/// The stamp of a range, of a group's log.
pub(crate) fn range_to_wire(stamp: u128, log: Incarnation) -> Bytes {
    let masked = stamp ^ u128::from(log.raw());
    Bytes::copy_from_slice(&masked.to_be_bytes())
}

/// The stamp that it is if this group gave it out.
pub(super) fn key_from_wire(bytes: &[u8], log: Incarnation) -> Result<Stamp, Failure> {
    match bytes.split_first() {
        Some((&ABSENT, [])) => Ok(None),
        Some((&PRESENT, index)) => match <[u8; 8]>::try_from(index) {
            Ok(masked) => Ok(Some(u64::from_be_bytes(masked) ^ log.raw())),
            Err(_size) => Err(bad_stamp("key")),
        },
        Some(_) | None => Err(bad_stamp("key")),
    }
}

/// The same of a range.
pub(super) fn range_from_wire(bytes: &[u8], log: Incarnation) -> Result<u128, Failure> {
    match <[u8; 16]>::try_from(bytes) {
        Ok(masked) => Ok(u128::from_be_bytes(masked) ^ u128::from(log.raw())),
        Err(_size) => Err(bad_stamp("range")),
    }
}

fn bad_stamp(what: &str) -> Failure {
    Failure::invalid(
        "BAD_TOKEN",
        format!("the stamp of a {what} is not one of ours"),
    )
}
