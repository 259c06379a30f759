//! Which shard a key belongs to: the one computation that clients and nodes must do alike.
//!
//! FNV-1a with 64 bits, modulo the keyspace's number of shards. It spreads keys; it does not protect against somebody
//! who chooses keys so that they meet in one shard. Changing it would move stored keys to other shards: it never
//! changes for an existing keyspace.

const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a, 64 bits.
#[must_use]
pub const fn fnv1a_64(bytes: &[u8]) -> u64 {
    let mut hash = OFFSET_BASIS;
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        hash = (hash ^ *byte as u64).wrapping_mul(PRIME);
        rest = tail;
    }
    hash
}

/// The shard of `key` in a keyspace of `shards` shards. A keyspace without shards does not exist; 0 counts as 1.
#[must_use]
pub fn shard_of(key: &[u8], shards: u32) -> u32 {
    let shard = fnv1a_64(key) % u64::from(shards.max(1));
    u32::try_from(shard).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_equal_the_published_test_vectors() {
        assert_eq!(fnv1a_64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a_64(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a_64(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn every_shard_is_used_and_none_is_out_of_range() {
        let mut used = [false; 8];
        for n in 0..1_000_u32 {
            let shard = shard_of(format!("key-{n}").as_bytes(), 8);
            used[usize::try_from(shard).unwrap()] = true;
        }
        assert_eq!(used, [true; 8]);
    }

    #[test]
    fn a_keyspace_said_to_have_no_shards_routes_to_the_first() {
        assert_eq!(shard_of(b"k", 0), 0);
    }
}
