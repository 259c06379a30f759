//! Revisions: up to where a watcher has seen the changes of each shard.
//!
//! Opaque and authenticated. Form: a version byte, 16 bytes of keyed blake3, postcard of [`Revision`].

use bytes::Bytes;
use meridian_causal::ZoneId;
use meridian_core::ids::{KeyspaceId, ShardId};
use meridian_core::read::changes::Position;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::failure::Failure;
use super::operations::Scope;

const TOKEN_VERSION: u8 = 2;
const MAC_BYTES: usize = 16;
const DOMAIN: &[u8] = b"meridian watch revision";

/// Positions of shards, by number.
pub(crate) type Positions = BTreeMap<ShardId, Position>;

/// What a token says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Revision {
    zone: u16,
    keyspace: u32,
    lineage: u32,
    /// Shard, life of its group, last change seen.
    shards: Vec<(u16, u32, u64)>,
}

/// The token of `positions` in this node's zone.
pub(crate) fn seal(scope: &Scope<'_>, zone: ZoneId, positions: &Positions) -> Bytes {
    let entry = |(shard, at): (&ShardId, &Position)| (shard.0, at.life, at.change);
    let revision = Revision {
        zone: zone.0,
        keyspace: scope.keyspace.id.0,
        lineage: scope.keyspace.lineage.0,
        shards: positions.iter().map(entry).collect(),
    };
    // Serialising our own type into memory does not fail; if it did, nobody could open the token.
    let body = postcard::to_allocvec(&revision).unwrap_or_default();
    let mut token = Vec::with_capacity(1 + MAC_BYTES + body.len());
    token.push(TOKEN_VERSION);
    token.extend_from_slice(&code(scope, &body));
    token.extend_from_slice(&body);
    token.into()
}

/// The positions that `token` names of `shards`, if it was issued in `zone` for this keyspace and names all of them.
pub(crate) fn open(
    scope: &Scope<'_>,
    zone: ZoneId,
    token: &[u8],
    shards: impl IntoIterator<Item = ShardId>,
) -> Result<Positions, Failure> {
    let revision = authentic(scope, token)?;
    if revision.zone != zone.0 {
        return Err(bad_token("a revision is valid in its zone"));
    }
    if KeyspaceId(revision.lineage) != scope.keyspace.lineage {
        return Err(bad_token("a revision is valid in its keyspace"));
    }
    if KeyspaceId(revision.keyspace) != scope.keyspace.id {
        // The keyspace was altered since: its groups are others, and count from the beginning.
        return Err(Failure::compacted());
    }
    let entry = |(shard, life, change)| (ShardId(shard), Position { life, change });
    let known: Positions = revision.shards.into_iter().map(entry).collect();
    let of = |shard| known.get(&shard).map(|position| (shard, *position));
    let found: Option<Positions> = shards.into_iter().map(of).collect();
    found.ok_or_else(|| bad_token("the revision is of a watch of fewer keys"))
}

fn authentic(scope: &Scope<'_>, token: &[u8]) -> Result<Revision, Failure> {
    let foreign = || bad_token("the revision was not issued by this cluster");
    let (version, rest) = token.split_first().ok_or_else(foreign)?;
    let (claimed, body) = rest.split_first_chunk::<MAC_BYTES>().ok_or_else(foreign)?;
    // blake3::Hash compares in constant time.
    let same = blake3::hash(claimed) == blake3::hash(&code(scope, body));
    if *version != TOKEN_VERSION || !same {
        return Err(foreign());
    }
    match postcard::from_bytes(body) {
        Ok(revision) => Ok(revision),
        Err(_malformed) => Err(foreign()),
    }
}

fn code(scope: &Scope<'_>, body: &[u8]) -> [u8; MAC_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(&scope.catalog.token_key);
    hasher.update(DOMAIN);
    hasher.update(&scope.catalog.cluster_id.to_be_bytes());
    hasher.update(body);
    let mut code = [0; MAC_BYTES];
    hasher.finalize_xof().fill(&mut code);
    code
}

fn bad_token(message: &str) -> Failure {
    Failure::invalid("BAD_TOKEN", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_core::catalog::{Catalog, Keyspace, Policy};

    fn catalog(secret: u8) -> Catalog {
        let keyspace = |id, name: &str| Keyspace::new(KeyspaceId(id), name, 3, Policy::default());
        Catalog {
            revision: 1,
            token_key: [secret; 32],
            keyspaces: [
                (KeyspaceId(1), keyspace(1, "default")),
                (KeyspaceId(2), keyspace(2, "other")),
            ]
            .into(),
            ..Catalog::default()
        }
    }

    fn positions(shards: &[u16]) -> Positions {
        let at = |shard: &u16| {
            let (life, change) = (7, 1_000_000 + u64::from(*shard));
            (ShardId(*shard), Position { life, change })
        };
        shards.iter().map(at).collect()
    }

    #[test]
    fn a_revision_opens_as_the_positions_it_names() {
        let catalog = catalog(1);
        let scope = Scope::find(&catalog, "", (ZoneId(1), 0)).unwrap();
        let token = seal(&scope, ZoneId(2), &positions(&[0, 1, 2]));
        let all = open(&scope, ZoneId(2), &token, [0, 1, 2].map(ShardId));
        assert_eq!(all, Ok(positions(&[0, 1, 2])));
        let one = open(&scope, ZoneId(2), &token, [ShardId(1)]);
        assert_eq!(one, Ok(positions(&[1])), "a key may go on from a prefix");
    }

    #[test]
    fn a_revision_of_another_zone_keyspace_or_cluster_is_refused_and_so_is_a_forged_one() {
        let (catalog, foreign) = (catalog(1), catalog(2));
        let scope = Scope::find(&catalog, "", (ZoneId(1), 0)).unwrap();
        let other = Scope::find(&catalog, "other", (ZoneId(1), 0)).unwrap();
        let foreign = Scope::find(&foreign, "", (ZoneId(1), 0)).unwrap();
        let (zone, all) = (ZoneId(2), positions(&[0, 1, 2]));
        let good = seal(&scope, zone, &all);
        let mut forged = good.to_vec();
        *forged.last_mut().unwrap() ^= 1;
        let bad = [
            seal(&scope, ZoneId(1), &all).to_vec(),
            seal(&other, zone, &all).to_vec(),
            seal(&foreign, zone, &all).to_vec(),
            seal(&scope, zone, &positions(&[0, 2])).to_vec(),
            good[..9].to_vec(),
            Vec::new(),
            forged,
        ];
        for token in bad {
            let refused = open(&scope, zone, &token, [0, 1, 2].map(ShardId)).unwrap_err();
            assert_eq!(refused.reason(), "BAD_TOKEN");
        }
    }
}
