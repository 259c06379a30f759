//! Page tokens of scans: opaque and authenticated, and good only for the range and the options they were issued for, so that no
//! page is skipped by mistake.

use bytes::Bytes;
use meridian_proto::kv::v1 as kv;

use crate::convert::Failure;
use crate::convert::answers::read_level;
use crate::convert::operations::Scope;

const TOKEN_VERSION: u8 = 1;
const MAC_BYTES: usize = 16;
const DOMAIN: &[u8] = b"meridian page token";

/// A keyed hash that has taken in all of a scan but its position.
#[derive(Clone, Debug)]
pub(super) struct Fingerprint(blake3::Hasher);

impl Fingerprint {
    pub(super) fn new(scope: &Scope<'_>, scan: &kv::Scan) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&scope.catalog.token_key);
        hasher.update(DOMAIN);
        hasher.update(&scope.catalog.cluster_id.to_be_bytes());
        hasher.update(&scope.keyspace.id.0.to_be_bytes());
        for part in [&scan.prefix, &scan.from, &scan.to] {
            hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(part);
        }
        hasher.update(&[u8::from(scan.keys_only), u8::from(scan.conflicts_only)]);
        if scan.stamped {
            hasher.update(b"stamped");
        }
        hasher.update(&scan.view);
        // Tokens of a mirror hold a generation as well.
        let level = scope.read_level(scan.level, scan.stamped);
        let kind = level.map_or(-1, |level| read_level(level).kind);
        hasher.update(&kind.to_be_bytes());
        Self(hasher)
    }

    fn code(&self, next: &[u8]) -> [u8; MAC_BYTES] {
        let mut hasher = self.0.clone();
        hasher.update(next);
        let mut code = [0; MAC_BYTES];
        hasher.finalize_xof().fill(&mut code);
        code
    }

    pub(super) fn seal(&self, next: &[u8]) -> Bytes {
        let mut token = vec![TOKEN_VERSION];
        token.extend_from_slice(&self.code(next));
        token.extend_from_slice(next);
        token.into()
    }

    pub(super) fn open(&self, token: &Bytes) -> Result<Bytes, Failure> {
        let bad = || {
            Failure::invalid(
                "BAD_PAGE_TOKEN",
                "the page token was not issued for this scan",
            )
        };
        let (version, rest) = token.split_first().ok_or_else(bad)?;
        let (code, next) = rest.split_first_chunk::<MAC_BYTES>().ok_or_else(bad)?;
        // blake3::Hash compares in constant time.
        let same = blake3::hash(code) == blake3::hash(&self.code(next));
        if *version == TOKEN_VERSION && same {
            Ok(token.slice_ref(next))
        } else {
            Err(bad())
        }
    }
}
