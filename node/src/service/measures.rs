//! What is measured over all shards of a keyspace: lag and digests.

use std::collections::BTreeMap;
use std::time::Duration;

use meridian_causal::ZoneId;
use meridian_core::catalog::{Catalog, Keyspace, Mode};
use meridian_core::ids::ShardId;
use meridian_core::request::{
    Answer, Query, Read, ReadLevel, Request as CoreRequest, Response as CoreResponse, ShardDigest,
    ZoneLag,
};
use meridian_proto::admin::v1 as pb;

use super::AdminService;
use crate::calls::Ask;
use crate::convert::Failure;
use crate::cores::Kind;

impl AdminService {
    /// The keyspaces asked about: one by name, or all.
    fn keyspaces<'a>(catalog: &'a Catalog, name: &str) -> Result<Vec<&'a Keyspace>, Failure> {
        if name.is_empty() {
            return Ok(catalog.open_keyspaces().collect());
        }
        let keyspace = catalog
            .keyspace_named(name)
            .ok_or_else(|| Failure::keyspace_not_found(name))?;
        Ok(vec![keyspace])
    }

    pub(super) async fn lag_rows(
        &self,
        name: &str,
        patience: Duration,
    ) -> Result<Vec<pb::LagRow>, Failure> {
        let catalog = self.calls.shared.catalog();
        let mut rows = Vec::new();
        let zone = self.calls.shared.zone;
        let keyspaces = Self::keyspaces(&catalog, name)?.into_iter();
        // A mirror hands nothing to anybody.
        let own = keyspaces.filter(|keyspace| {
            keyspace.policy.mode != Mode::Snapshot || keyspace.policy.home == Some(zone)
        });
        for keyspace in own {
            let shards: Vec<_> = (0..keyspace.shards)
                .map(|shard| (keyspace.id, ShardId(shard)))
                .collect();
            let asks = shards.iter().map(|&(keyspace, shard)| Ask {
                kind: Kind::Admin,
                keyspace,
                shard,
                request: CoreRequest::Lag { keyspace, shard },
            });
            let mut sums: BTreeMap<_, ZoneLag> = BTreeMap::new();
            for answer in self.calls.ask(asks.collect(), patience).await {
                let CoreResponse::Lag(lags) = answer.map_err(Failure::from_core)? else {
                    return Err(Failure::unexpected_answer());
                };
                for lag in lags {
                    let sum = sums.entry(lag.to).or_insert(ZoneLag {
                        to: lag.to,
                        lag_ms: 0,
                        entries: 0,
                        bytes: 0,
                    });
                    sum.lag_ms = sum.lag_ms.max(lag.lag_ms);
                    sum.entries = sum.entries.saturating_add(lag.entries);
                    sum.bytes = sum.bytes.saturating_add(lag.bytes);
                }
            }
            // The leaders of a sync keyspace may be in several zones: it is behind them, not behind this zone.
            let from = match keyspace.policy.serving_zone(self.calls.shared.zone) {
                ZoneId::GLOBAL => ZoneId::GLOBAL.to_string(),
                _ => self.calls.shared.zone_name.clone(),
            };
            let bound = keyspace.policy.max_lag_ms;
            rows.extend(sums.into_values().map(|lag| pb::LagRow {
                from: from.clone(),
                to: catalog.zones.get(&lag.to).cloned().unwrap_or_default(),
                keyspace: keyspace.name.clone(),
                lag_ms: lag.lag_ms,
                entries: lag.entries,
                bytes: lag.bytes,
                breach: bound.is_some_and(|bound| lag.lag_ms > bound),
            }));
        }
        Ok(rows)
    }

    pub(super) async fn digest_rows(
        &self,
        name: &str,
        patience: Duration,
    ) -> Result<Vec<pb::DigestRow>, Failure> {
        let catalog = self.calls.shared.catalog();
        let mut rows = Vec::new();
        for keyspace in Self::keyspaces(&catalog, name)? {
            let shown = self.calls.mirror_shown(keyspace, patience).await;
            let level =
                shown
                    .map_err(Failure::from_core)?
                    .map_or(ReadLevel::Linearizable, |stamp| ReadLevel::Mirror {
                        generation: stamp.generation,
                    });
            let ask = |shard| Ask {
                kind: Kind::Digest,
                keyspace: keyspace.id,
                shard: ShardId(shard),
                request: CoreRequest::Read(Read {
                    keyspace: keyspace.id,
                    level,
                    query: Query::Digest {
                        shard: ShardId(shard),
                    },
                    session: None,
                }),
            };
            let mut total = ShardDigest::default();
            for answer in self
                .calls
                .ask((0..keyspace.shards).map(ask).collect(), patience)
                .await
            {
                let CoreResponse::Read(answer) = answer.map_err(Failure::from_core)? else {
                    return Err(Failure::unexpected_answer());
                };
                let Answer::Digest(digest) = answer.unwrapped() else {
                    return Err(Failure::unexpected_answer());
                };
                total = total.add(digest);
            }
            rows.push(pb::DigestRow {
                zone: self.calls.shared.zone_name.clone(),
                keyspace: keyspace.name.clone(),
                keys: total.keys,
                conflicts: total.conflicts,
                digest: format!("{:032x}", total.sum),
            });
        }
        Ok(rows)
    }
}
