//! Digests: what two zones compare to know that they hold the same.
//!
//! A digest covers the key, and the dots and contents of its siblings. Contexts are left out, because they differ
//! between zones for as long as an exchange is incomplete; and a key without a live sibling has no digest, because
//! zones drop its tombstones at different times.

use crate::{Content, SiblingSet};

/// Tells these hashes from all others that blake3 is used for.
const DIGEST_KEY: &[u8; 32] = b"meridian digest of a sibling set";

impl SiblingSet {
    /// The digest of `key` with these siblings; none when no sibling is live.
    pub fn digest(&self, key: &[u8]) -> Option<[u8; 16]> {
        if !self.has_live() {
            return None;
        }
        let mut hasher = blake3::Hasher::new_keyed(DIGEST_KEY);
        update_sized(&mut hasher, key);
        for sibling in self.siblings() {
            hasher.update(&sibling.dot.incarnation.raw().to_be_bytes());
            hasher.update(&sibling.dot.counter.to_be_bytes());
            match &sibling.content {
                Content::Value(value) => update_sized(hasher.update(&[1]), value),
                Content::Tombstone => {
                    hasher.update(&[0]);
                }
            }
        }
        let mut digest = [0; 16];
        hasher.finalize_xof().fill(&mut digest);
        Some(digest)
    }
}

/// The length goes first, so that no two inputs run together.
fn update_sized(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
}
