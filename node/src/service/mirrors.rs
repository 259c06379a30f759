//! The mirrors of a keyspace, for operators: what the home zone knows of them, and a cut on demand.

use std::time::Duration;

use meridian_core::catalog::Catalog;
use meridian_core::ids::ShardId;
use meridian_core::mirror::{MirrorStatus, MirrorWant, ZoneMirror};
use meridian_core::request::{Request, Response};
use meridian_proto::admin::v1 as pb;

use super::AdminService;
use crate::calls::Ask;
use crate::convert::Failure;
use crate::cores::Kind;

impl AdminService {
    pub(super) async fn mirrors(
        &self,
        asked: &pb::MirrorRequest,
        patience: Duration,
    ) -> Result<pb::MirrorResponse, Failure> {
        let catalog = self.calls.shared.catalog();
        let keyspace = catalog
            .keyspace_named(&asked.keyspace)
            .ok_or_else(|| Failure::keyspace_not_found(&asked.keyspace))?
            .id;
        let ask = Ask {
            kind: Kind::Admin,
            keyspace,
            shard: ShardId(0),
            request: Request::Mirrors {
                keyspace,
                want: if asked.now {
                    MirrorWant::Now
                } else {
                    MirrorWant::Status
                },
            },
        };
        let answer = self.calls.ask_one(ask, patience).await;
        match answer.map_err(Failure::from_core)? {
            Response::Mirror(status) => Ok(to_wire(&catalog, &status)),
            Response::MirrorShown(_)
            | Response::Written(_)
            | Response::Read(_)
            | Response::KeyspaceCreated(_)
            | Response::KeyspaceDeleted(_)
            | Response::KeyspaceAltered { .. }
            | Response::Lag(_)
            | Response::Groups(_)
            | Response::Transacted(_)
            | Response::ViewOpened(_)
            | Response::ViewClosed
            | Response::Inner(_)
            | Response::LeaseHeld(_)
            | Response::LeaseEnded => Err(Failure::unexpected_answer()),
        }
    }
}

fn to_wire(catalog: &Catalog, status: &MirrorStatus) -> pb::MirrorResponse {
    let zones = status.zones.iter();
    pb::MirrorResponse {
        home: catalog.zones.get(&status.home).cloned().unwrap_or_default(),
        interval_ms: status.interval_ms,
        zones: zones.map(|mirror| zone_to_wire(catalog, mirror)).collect(),
    }
}

fn zone_to_wire(catalog: &Catalog, mirror: &ZoneMirror) -> pb::ZoneMirror {
    let report = &mirror.report;
    pb::ZoneMirror {
        zone: catalog.zones.get(&mirror.zone).cloned().unwrap_or_default(),
        generation: report.generation,
        cut_time_ms: report.cut_ms,
        age_ms: mirror.age_ms.unwrap_or_default(),
        bytes: report.bytes,
        keys: report.keys,
        receiving: report.receiving.is_some(),
        received_bytes: report.received_bytes,
        heard: mirror.heard_ms.is_some(),
        heard_ms: mirror.heard_ms.unwrap_or_default(),
    }
}
