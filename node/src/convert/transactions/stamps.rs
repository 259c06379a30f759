//! Stamps on the wire: of a key, a byte 0 when it has no record, else a byte 1 and the log index; of a range, 16 bytes.

use bytes::Bytes;
use meridian_core::ids::ShardId;
use meridian_core::transaction::Stamp;
use meridian_proto::kv::v1 as kv;

use super::super::failure::Failure;

const ABSENT: u8 = 0;
const PRESENT: u8 = 1;

/// The stamp of a key.
pub(crate) fn key_to_wire(stamp: Stamp) -> Bytes {
    let Some(index) = stamp else {
        return Bytes::from_static(&[ABSENT]);
    };
    let mut bytes = vec![PRESENT];
    bytes.extend_from_slice(&index.to_be_bytes());
    bytes.into()
}

/// When the key was as it is shown, in the numbers of its shard's log; nothing for a key without a record, which may have
/// been written and forgotten in between.
pub(crate) fn span_to_wire(shard: ShardId, stamp: Stamp, through: u64) -> Option<kv::HeldSpan> {
    let shard = u32::from(shard.0);
    let span = |from| kv::HeldSpan {
        shard,
        from,
        through,
    };
    stamp.filter(|from| *from <= through).map(span)
}

/// The stamp of a range.
pub(crate) fn range_to_wire(stamp: u128) -> Bytes {
    Bytes::copy_from_slice(&stamp.to_be_bytes())
}

pub(super) fn key_from_wire(bytes: &[u8]) -> Result<Stamp, Failure> {
    match bytes.split_first() {
        Some((&ABSENT, [])) => Ok(None),
        Some((&PRESENT, index)) => match <[u8; 8]>::try_from(index) {
            Ok(index) => Ok(Some(u64::from_be_bytes(index))),
            Err(_size) => Err(bad_stamp("key")),
        },
        Some(_) | None => Err(bad_stamp("key")),
    }
}

pub(super) fn range_from_wire(bytes: &[u8]) -> Result<u128, Failure> {
    match <[u8; 16]>::try_from(bytes) {
        Ok(stamp) => Ok(u128::from_be_bytes(stamp)),
        Err(_size) => Err(bad_stamp("range")),
    }
}

fn bad_stamp(what: &str) -> Failure {
    Failure::invalid(
        "BAD_TOKEN",
        format!("the stamp of a {what} is not one of ours"),
    )
}
