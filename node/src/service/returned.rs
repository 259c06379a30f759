//! Writes of a deposed home zone that came back, for operators: a page of one shard's list.

use std::time::Duration;

use meridian_core::catalog::Catalog;
use meridian_core::ids::ShardId;
use meridian_core::keys::{Became, ReturnedWrite};
use meridian_core::request::{Answer, Query, Read, ReadLevel, Request, Response, ReturnedRow};
use meridian_proto::admin::v1 as pb;

use super::AdminService;
use crate::calls::Ask;
use crate::convert::Failure;
use crate::cores::Kind;

impl AdminService {
    pub(super) async fn returned_page(
        &self,
        asked: pb::ReturnedRequest,
        patience: Duration,
    ) -> Result<pb::ReturnedResponse, Failure> {
        let catalog = self.calls.shared.catalog();
        let keyspace = catalog
            .keyspace_named(&asked.keyspace)
            .ok_or_else(|| Failure::keyspace_not_found(&asked.keyspace))?;
        let shard = u16::try_from(asked.shard).map(ShardId);
        let shard = shard.ok().filter(|shard| shard.0 < keyspace.shards);
        let Some(shard) = shard else {
            let message = format!(
                "the keyspace has {} shards, no {}",
                keyspace.shards, asked.shard
            );
            return Err(Failure::invalid("BAD_SHARD", message));
        };
        let read = Request::Read(Read {
            keyspace: keyspace.id,
            level: ReadLevel::Linearizable,
            query: Query::Returned {
                shard,
                from: asked.from,
            },
            session: None,
        });
        let ask = Ask {
            kind: Kind::Admin,
            keyspace: keyspace.id,
            shard,
            request: Request::AtHome(Box::new(read)),
        };
        let answer = self.calls.ask_one(ask, patience).await;
        let answer = answer.map_err(Failure::from_core)?;
        let Response::Read(Answer::Returned { counts, rows, next }) = answer else {
            return Err(Failure::unexpected_answer());
        };
        Ok(pb::ReturnedResponse {
            shards: u32::from(keyspace.shards),
            writes: counts.writes,
            versions: counts.versions,
            keys: counts.keys,
            rows: rows
                .into_iter()
                .map(|row| row_to_wire(&catalog, row))
                .collect(),
            next: next.unwrap_or_default(),
        })
    }
}

fn row_to_wire(catalog: &Catalog, row: ReturnedRow) -> pb::ReturnedKey {
    let writes = row.writes.iter();
    pb::ReturnedKey {
        key: row.key,
        writes: writes.map(|write| write_to_wire(catalog, *write)).collect(),
    }
}

fn write_to_wire(catalog: &Catalog, write: ReturnedWrite) -> pb::ReturnedWrite {
    let became = match write.became {
        Became::Newest => "newest",
        Became::Sibling => "sibling",
        Became::Unseen => "unseen",
    };
    let zone = catalog.zones.get(&write.dot.incarnation.zone());
    pb::ReturnedWrite {
        zone: zone.cloned().unwrap_or_default(),
        counter: write.dot.counter,
        became: became.to_owned(),
    }
}
