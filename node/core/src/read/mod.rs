//! Reads of one shard, from an engine or a view.
//!
//! What it is: the part of a read that follows its release. When a read may be served is the core's to decide; from
//! then on any later state of the engine will do.
//!
//! What it is not: it waits for nothing, forwards nothing, and knows one shard at a time; `merge` puts the shards of a
//! keyspace together.

pub mod changes;
pub(crate) mod compare;
pub mod merge;
pub(crate) mod range;

mod scan;

pub use merge::merge_pages;

use std::ops::ControlFlow;

use meridian_storage::Read;

use crate::catalog::shard_of;
use crate::error::Error;
use crate::ids::{KeyspaceId, ShardId};
use crate::keys::{Place, VersionKey};
use crate::request::{Answer, Query, ShardDigest};
use crate::shard::{leases, returned, versions};

/// Answers a query of a keyspace that has `shards` shards.
pub fn serve(
    read: &dyn Read,
    keyspace: KeyspaceId,
    shards: u16,
    query: &Query,
) -> Result<Answer, Error> {
    let place = |shard: ShardId| Place { keyspace, shard };
    match query {
        Query::Get { key } => {
            versions::load(read, place(shard_of(key, shards)), key).map(Answer::Key)
        }
        Query::Scan {
            shard,
            from,
            to,
            limit,
            filter,
            keys_only,
        } => {
            let scan = scan::Scan {
                from,
                to: to.as_deref(),
                limit: *limit,
                filter: *filter,
                keys_only: *keys_only,
            };
            scan.page(read, place(*shard))
        }
        Query::Digest { shard } => digest(read, place(*shard)).map(Answer::Digest),
        Query::Examine { key } => {
            let (stamp, set) = versions::examine(read, place(shard_of(key, shards)), key)?;
            Ok(Answer::Examined {
                set,
                stamp,
                held_through: 0,
            })
        }
        Query::Range {
            shard,
            from,
            to,
            limit,
        } => range::read(read, place(*shard), (from, to.as_deref()), *limit),
        Query::Validate { shard, compare } => {
            compare::all_hold(read, place(*shard), compare).map(Answer::Holds)
        }
        Query::Leases { shard, names } => names
            .iter()
            .map(|name| leases::load(read, place(*shard), name))
            .collect::<Result<_, _>>()
            .map(Answer::Leases),
        Query::Returned { shard, from } => returned::page(read, place(*shard), from),
    }
}

fn digest(read: &dyn Read, place: Place) -> Result<ShardDigest, Error> {
    let mut total = ShardDigest::default();
    versions::scan(read, place, (&[], None), &mut |stored, record| {
        let (_, set) = VersionKey::decode_visited(stored, record)?;
        if let Some(digest) = set.digest(VersionKey::user_key(stored)?) {
            let conflicts = u64::from(set.is_conflict());
            total = total.add(ShardDigest {
                sum: u128::from_be_bytes(digest),
                keys: 1,
                conflicts,
            });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(total)
}

#[cfg(test)]
mod tests;
