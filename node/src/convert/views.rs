//! View tokens: what a client holds of an open view.
//!
//! Opaque and authenticated: a token names nodes that reads are sent to, and only those that a node of this cluster
//! named may be. Form: a version byte, 16 bytes of keyed blake3, postcard of the view.

use bytes::Bytes;
use meridian_core::catalog::Catalog;
use meridian_core::ids::ShardId;
use meridian_core::request::ReadLevel;
use meridian_core::transaction::OpenView;

use super::failure::Failure;
use super::operations::Scope;

const TOKEN_VERSION: u8 = 1;
const MAC_BYTES: usize = 16;
const DOMAIN: &[u8] = b"meridian view token";

/// The token of a view. The keyspace is part of the view, hence of the code.
pub(crate) fn seal(catalog: &Catalog, view: &OpenView) -> Bytes {
    // Serialising our own type into memory does not fail; if it did, nobody could open the token.
    let body = postcard::to_allocvec(view).unwrap_or_default();
    let mut token = vec![TOKEN_VERSION];
    token.extend_from_slice(&code(catalog, &body));
    token.extend_from_slice(&body);
    token.into()
}

/// The view that `token` names, if it is one of ours.
pub(crate) fn open(catalog: &Catalog, token: &[u8]) -> Result<OpenView, Failure> {
    let (version, rest) = token.split_first().ok_or_else(bad_token)?;
    let (claimed, body) = rest
        .split_first_chunk::<MAC_BYTES>()
        .ok_or_else(bad_token)?;
    // blake3::Hash compares in constant time.
    let same = blake3::hash(claimed) == blake3::hash(&code(catalog, body));
    if *version != TOKEN_VERSION || !same {
        return Err(bad_token());
    }
    match postcard::from_bytes(body) {
        Ok(view) => Ok(view),
        Err(_malformed) => Err(bad_token()),
    }
}

impl Scope<'_> {
    /// The view of this keyspace that `token` names.
    pub(crate) fn view(&self, token: &[u8]) -> Result<OpenView, Failure> {
        let view = open(self.catalog, token)?;
        let whole = view.pins.len() == usize::from(self.keyspace.shards);
        if view.keyspace == self.keyspace.id && whole {
            Ok(view)
        } else {
            Err(bad_token())
        }
    }
}

/// Where the view holds `shard`.
pub(crate) fn level_of(view: &OpenView, shard: ShardId) -> Result<ReadLevel, Failure> {
    let pin = view.pins.get(usize::from(shard.0));
    let node = *pin.ok_or_else(bad_token)?;
    Ok(ReadLevel::View { id: view.id, node })
}

fn code(catalog: &Catalog, body: &[u8]) -> [u8; MAC_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(&catalog.token_key);
    hasher.update(DOMAIN);
    hasher.update(&catalog.cluster_id.to_be_bytes());
    hasher.update(body);
    let mut code = [0; MAC_BYTES];
    hasher.finalize_xof().fill(&mut code);
    code
}

fn bad_token() -> Failure {
    Failure::invalid(
        "BAD_TOKEN",
        "the view token was not issued for this keyspace",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_causal::ZoneId;
    use meridian_core::catalog::{Keyspace, Policy};
    use meridian_core::ids::{KeyspaceId, NodeId};

    fn catalog(secret: u8) -> Catalog {
        let keyspace = Keyspace::new(KeyspaceId(1), "default", 2, Policy::default());
        Catalog {
            revision: 1,
            token_key: [secret; 32],
            keyspaces: [(KeyspaceId(1), keyspace)].into(),
            ..Catalog::default()
        }
    }

    fn view(keyspace: u32, pins: usize) -> OpenView {
        OpenView {
            id: 7,
            keyspace: KeyspaceId(keyspace),
            pins: vec![NodeId(3); pins],
        }
    }

    #[test]
    fn a_token_opens_as_the_view_it_names() {
        let catalog = catalog(1);
        let scope = Scope::find(&catalog, "", (ZoneId(1), 0)).unwrap();
        let token = seal(&catalog, &view(1, 2));
        let opened = scope.view(&token).unwrap();
        assert_eq!(opened, view(1, 2));
        let level = level_of(&opened, ShardId(1)).unwrap();
        let (id, node) = (7, NodeId(3));
        assert_eq!(level, ReadLevel::View { id, node });
        assert!(level_of(&opened, ShardId(2)).is_err());
    }

    #[test]
    fn forged_cut_and_foreign_tokens_are_refused() {
        let catalog = catalog(1);
        let scope = Scope::find(&catalog, "", (ZoneId(1), 0)).unwrap();
        let good = seal(&catalog, &view(1, 2));
        let mut forged = good.to_vec();
        *forged.last_mut().unwrap() ^= 1;
        let bad = [
            forged,
            good[..10].to_vec(),
            Vec::new(),
            seal(&self::catalog(2), &view(1, 2)).to_vec(),
            seal(&catalog, &view(2, 2)).to_vec(),
            seal(&catalog, &view(1, 1)).to_vec(),
        ];
        for token in bad {
            assert_eq!(scope.view(&token).unwrap_err().reason(), "BAD_TOKEN");
        }
    }
}
