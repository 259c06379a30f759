//! admin.v1: what operators ask.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use meridian_core::Error;
use meridian_core::catalog::{Catalog, Keyspace};
use meridian_core::ids::{KeyspaceId, ShardId};
use meridian_core::request::{
    GroupStatus, KeyspaceAlter, KeyspaceCreate, Request as CoreRequest, Response as CoreResponse,
};
use meridian_proto::admin::v1 as pb;
use meridian_proto::admin::v1::admin_server::Admin;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::{AdminService, deadline};
use crate::calls::Ask;
use crate::convert::Failure;
use crate::convert::policy::{self, keyspace_to_wire, keyspaces_to_wire};
use crate::cores::Kind;

/// Time of a call that names none: digests read everything.
const PATIENCE: Duration = Duration::from_secs(30);

/// An alter that is not answered within this time is asked for again.
const ALTER_TRY: Duration = Duration::from_secs(2);

/// Between two times that it is.
const ALTER_PAUSE: Duration = Duration::from_millis(100);

fn patience(metadata: &MetadataMap) -> Duration {
    deadline::of_call(metadata, PATIENCE)
}

fn status(failure: Failure) -> Status {
    failure.to_status()
}

impl AdminService {
    async fn create(
        &self,
        request: pb::KeyspaceCreateRequest,
        patience: Duration,
    ) -> Result<pb::Keyspace, Failure> {
        let policy =
            policy::from_wire(&self.calls.shared.catalog(), &request.mode, request.policy)?;
        let shards = match request.shards {
            0 => None,
            shards => Some(u16::try_from(shards).unwrap_or(u16::MAX)),
        };
        let create = CoreRequest::KeyspaceCreate(Box::new(KeyspaceCreate {
            name: request.name,
            shards,
            policy,
            near: self.calls.shared.zone,
        }));
        match self
            .calls
            .ask_one(control(create), patience)
            .await
            .map_err(Failure::from_core)?
        {
            CoreResponse::KeyspaceCreated(id) => self.known(id, patience).await,
            CoreResponse::KeyspaceDeleted(_)
            | CoreResponse::KeyspaceAltered { .. }
            | CoreResponse::Written(_)
            | CoreResponse::Read(_)
            | CoreResponse::Lag(_)
            | CoreResponse::Groups(_)
            | CoreResponse::Transacted(_)
            | CoreResponse::ViewOpened(_)
            | CoreResponse::ViewClosed
            | CoreResponse::Inner(_)
            | CoreResponse::LeaseHeld(_)
            | CoreResponse::LeaseEnded
            | CoreResponse::Mirror(_)
            | CoreResponse::MirrorShown(_) => Err(Failure::unexpected_answer()),
        }
    }

    async fn alter(
        &self,
        request: pb::KeyspaceAlterRequest,
        patience: Duration,
    ) -> Result<pb::Keyspace, Failure> {
        let catalog = self.calls.shared.catalog();
        let alter = KeyspaceAlter {
            ask: policy::ask_from_wire(&catalog, &request)?,
            name: request.name,
            near: self.calls.shared.zone,
        };
        match self.ask_alter(&alter, patience).await? {
            CoreResponse::KeyspaceAltered {
                keyspace,
                successor,
            } => {
                let known = successor.unwrap_or(keyspace);
                let seen = self.known(known, patience).await?;
                let catalog = self.calls.shared.catalog();
                let named = catalog.keyspace_named(&alter.name);
                Ok(named.map_or(seen, |named| keyspace_to_wire(&catalog, named)))
            }
            CoreResponse::KeyspaceCreated(_)
            | CoreResponse::KeyspaceDeleted(_)
            | CoreResponse::Written(_)
            | CoreResponse::Read(_)
            | CoreResponse::Lag(_)
            | CoreResponse::Groups(_)
            | CoreResponse::Transacted(_)
            | CoreResponse::ViewOpened(_)
            | CoreResponse::ViewClosed
            | CoreResponse::Inner(_)
            | CoreResponse::LeaseHeld(_)
            | CoreResponse::LeaseEnded
            | CoreResponse::Mirror(_)
            | CoreResponse::MirrorShown(_) => Err(Failure::unexpected_answer()),
        }
    }

    /// Asks for an alter until it is answered: the one who led the control group may be just what was lost. Asking for the
    /// same again changes nothing.
    async fn ask_alter(
        &self,
        alter: &KeyspaceAlter,
        patience: Duration,
    ) -> Result<CoreResponse, Failure> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let ask = control(CoreRequest::KeyspaceAlter(Box::new(alter.clone())));
            let answer = self.calls.ask_one(ask, left.min(ALTER_TRY)).await;
            match answer {
                Err(Error::DeadlineExceeded { .. } | Error::NotLeader { .. } | Error::NoQuorum)
                    if left > ALTER_TRY =>
                {
                    tokio::time::sleep(ALTER_PAUSE).await;
                }
                answer => return answer.map_err(Failure::from_core),
            }
        }
    }

    /// The keyspace, once this node's own catalog has it: whoever asks here next finds it.
    async fn known(&self, id: KeyspaceId, patience: Duration) -> Result<pb::Keyspace, Failure> {
        let mut catalogs = self.calls.shared.watch_catalog();
        let here = catalogs.wait_for(|catalog| catalog.keyspaces.contains_key(&id));
        let here = tokio::time::timeout(patience, here).await;
        match here {
            Ok(Ok(catalog)) => catalog
                .keyspaces
                .get(&id)
                .map(|keyspace| keyspace_to_wire(&catalog, keyspace))
                .ok_or_else(Failure::unexpected_answer),
            Ok(Err(_)) | Err(_) => Err(Failure::from_core(Error::DeadlineExceeded {
                effect: meridian_core::error::EffectOf::Applied,
            })),
        }
    }

    async fn status_now(&self, patience: Duration) -> pb::StatusResponse {
        let shared = &self.calls.shared;
        let catalog = shared.catalog();
        let trouble = shared.trouble();
        let groups = self.calls.groups(patience).await.unwrap_or_default();
        let control = groups
            .iter()
            .find(|group| group.group.keyspace == KeyspaceId::CONTROL);
        let control_leader = control
            .and_then(|group| group.leader)
            .and_then(|node| catalog.nodes.get(&node));
        let peers = self.calls.links.peers().into_iter();
        pb::StatusResponse {
            cluster: shared.cluster.clone(),
            zone: shared.zone_name.clone(),
            node: shared.node_name.clone(),
            node_id: shared.node.0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: shared.clock.mono_ns() / meridian_core::time::MS,
            serving: trouble.is_none() && catalog.revision > 0,
            reason: trouble.unwrap_or_else(|| not_admitted(&catalog)),
            control_leader: control_leader
                .map(|node| node.name.clone())
                .unwrap_or_default(),
            keyspaces: catalog
                .open_keyspaces()
                .map(|keyspace| keyspace_status(&catalog, keyspace, &groups))
                .collect(),
            peers: peers
                .map(|(place, connected)| pb::PeerStatus {
                    zone: place.zone_name,
                    node: place.name,
                    connected,
                })
                .collect(),
            store_bytes: self.engine.0.size_bytes().unwrap_or_default(),
            differences: shared.differences(),
        }
    }

    fn topology_now(&self) -> pb::TopologyResponse {
        let shared = &self.calls.shared;
        let catalog = shared.catalog();
        let zone = |id| catalog.zones.get(&id).cloned().unwrap_or_default();
        let leaders = shared.leaders().into_iter().filter_map(|(group, leader)| {
            Some(pb::LeaderHint {
                keyspace: catalog.keyspaces.get(&group.keyspace)?.name.clone(),
                shard: u32::from(group.shard.0),
                zone: zone(group.zone),
                node: catalog.nodes.get(&leader.node)?.name.clone(),
                term: leader.term,
            })
        });
        pb::TopologyResponse {
            cluster: shared.cluster.clone(),
            cluster_id: if catalog.revision > 0 {
                format!("{:032x}", catalog.cluster_id)
            } else {
                String::new()
            },
            zones: catalog
                .zones
                .values()
                .map(|name| pb::Zone { name: name.clone() })
                .collect(),
            nodes: catalog
                .nodes
                .iter()
                .map(|(id, node)| pb::Node {
                    name: node.name.clone(),
                    id: id.0,
                    zone: zone(node.zone),
                    addr: node.addr.clone(),
                    peer_addr: node.peer_addr.clone(),
                    metrics_addr: shared.metrics_addrs.get(&id.0).cloned().unwrap_or_default(),
                })
                .collect(),
            keyspaces: keyspaces_to_wire(&catalog),
            leaders: leaders.collect(),
            zone: shared.zone_name.clone(),
            node: shared.node_name.clone(),
        }
    }
}

fn control(request: CoreRequest) -> Ask {
    Ask {
        kind: Kind::Admin,
        keyspace: KeyspaceId::CONTROL,
        shard: ShardId(0),
        request,
    }
}

fn not_admitted(catalog: &Catalog) -> String {
    if catalog.revision > 0 {
        String::new()
    } else {
        "the node is not a member of the cluster yet".to_owned()
    }
}

fn keyspace_status(
    catalog: &Catalog,
    keyspace: &Keyspace,
    groups: &[GroupStatus],
) -> pb::KeyspaceStatus {
    let own = groups
        .iter()
        .filter(|group| group.group.keyspace == keyspace.id);
    let count = |matches: fn(&GroupStatus) -> bool| {
        u32::try_from(own.clone().filter(|group| matches(group)).count()).unwrap_or(u32::MAX)
    };
    pb::KeyspaceStatus {
        keyspace: Some(keyspace_to_wire(catalog, keyspace)),
        groups: count(|_| true),
        with_leader: count(|group| group.leader.is_some()),
        led: count(|group| group.leads),
        degraded_zones: degraded(catalog, own.clone()),
        breach_lag_ms: own
            .clone()
            .filter_map(|group| group.breach_ms)
            .max()
            .unwrap_or(0),
        disk_lost_zones: disk_lost(catalog, keyspace),
    }
}

/// The zones of which a group has lost what it had, by name.
fn disk_lost(catalog: &Catalog, keyspace: &Keyspace) -> Vec<String> {
    let lost = keyspace.groups.iter().filter(|group| group.disk_lost);
    let zones: BTreeSet<_> = lost.map(|group| group.id.zone).collect();
    let names = zones.iter().filter_map(|zone| catalog.zones.get(zone));
    names.cloned().collect()
}

/// The zones without which groups led here do for now, by name. Led here only: a follower hears of it a moment later.
fn degraded<'a>(catalog: &Catalog, groups: impl Iterator<Item = &'a GroupStatus>) -> Vec<String> {
    let led = groups.filter(|group| group.leads);
    let zones: BTreeSet<_> = led.flat_map(|group| &group.degraded).collect();
    let names = zones.into_iter().filter_map(|zone| catalog.zones.get(zone));
    names.cloned().collect()
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn topology(
        &self,
        _request: Request<pb::TopologyRequest>,
    ) -> Result<Response<pb::TopologyResponse>, Status> {
        Ok(Response::new(self.topology_now()))
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        Ok(Response::new(
            self.status_now(patience(request.metadata())).await,
        ))
    }

    async fn keyspace_create(
        &self,
        request: Request<pb::KeyspaceCreateRequest>,
    ) -> Result<Response<pb::KeyspaceCreateResponse>, Status> {
        let patience = patience(request.metadata());
        let keyspace = self
            .create(request.into_inner(), patience)
            .await
            .map_err(status)?;
        Ok(Response::new(pb::KeyspaceCreateResponse {
            keyspace: Some(keyspace),
        }))
    }

    async fn keyspace_show(
        &self,
        request: Request<pb::KeyspaceShowRequest>,
    ) -> Result<Response<pb::KeyspaceShowResponse>, Status> {
        let name = request.into_inner().name;
        let catalog = self.calls.shared.catalog();
        let keyspace = catalog
            .keyspace_named(&name)
            .ok_or_else(|| status(Failure::keyspace_not_found(&name)))?;
        Ok(Response::new(pb::KeyspaceShowResponse {
            keyspace: Some(keyspace_to_wire(&catalog, keyspace)),
        }))
    }

    async fn keyspace_list(
        &self,
        _request: Request<pb::KeyspaceListRequest>,
    ) -> Result<Response<pb::KeyspaceListResponse>, Status> {
        let catalog = self.calls.shared.catalog();
        let keyspaces = keyspaces_to_wire(&catalog);
        Ok(Response::new(pb::KeyspaceListResponse { keyspaces }))
    }

    async fn keyspace_alter(
        &self,
        request: Request<pb::KeyspaceAlterRequest>,
    ) -> Result<Response<pb::KeyspaceAlterResponse>, Status> {
        let patience = patience(request.metadata());
        let keyspace = self.alter(request.into_inner(), patience).await;
        Ok(Response::new(pb::KeyspaceAlterResponse {
            keyspace: Some(keyspace.map_err(status)?),
        }))
    }

    async fn returned(
        &self,
        request: Request<pb::ReturnedRequest>,
    ) -> Result<Response<pb::ReturnedResponse>, Status> {
        let patience = patience(request.metadata());
        let told = self.returned_page(request.into_inner(), patience).await;
        told.map(Response::new).map_err(status)
    }

    async fn keyspace_delete(
        &self,
        request: Request<pb::KeyspaceDeleteRequest>,
    ) -> Result<Response<pb::KeyspaceDeleteResponse>, Status> {
        let patience = patience(request.metadata());
        let delete = CoreRequest::KeyspaceDelete {
            name: request.into_inner().name,
        };
        let answer = self.calls.ask_one(control(delete), patience).await;
        answer.map_err(|error| status(Failure::from_core(error)))?;
        Ok(Response::new(pb::KeyspaceDeleteResponse {}))
    }

    async fn mirror(
        &self,
        request: Request<pb::MirrorRequest>,
    ) -> Result<Response<pb::MirrorResponse>, Status> {
        let patience = patience(request.metadata());
        let told = self.mirrors(&request.into_inner(), patience).await;
        told.map(Response::new).map_err(status)
    }

    async fn lag(
        &self,
        request: Request<pb::LagRequest>,
    ) -> Result<Response<pb::LagResponse>, Status> {
        let patience = patience(request.metadata());
        let rows = self
            .lag_rows(&request.into_inner().keyspace, patience)
            .await
            .map_err(status)?;
        Ok(Response::new(pb::LagResponse { rows }))
    }

    async fn digest(
        &self,
        request: Request<pb::DigestRequest>,
    ) -> Result<Response<pb::DigestResponse>, Status> {
        let patience = patience(request.metadata());
        let rows = self
            .digest_rows(&request.into_inner().keyspace, patience)
            .await
            .map_err(status)?;
        Ok(Response::new(pb::DigestResponse { rows }))
    }

    async fn fault_block(
        &self,
        request: Request<pb::FaultBlockRequest>,
    ) -> Result<Response<pb::FaultBlockResponse>, Status> {
        self.block(&request.into_inner()).map_err(status)?;
        Ok(Response::new(pb::FaultBlockResponse {}))
    }

    async fn fault_heal(
        &self,
        request: Request<pb::FaultHealRequest>,
    ) -> Result<Response<pb::FaultHealResponse>, Status> {
        self.heal(&request.into_inner()).map_err(status)?;
        Ok(Response::new(pb::FaultHealResponse {}))
    }

    async fn fault_delay(
        &self,
        request: Request<pb::FaultDelayRequest>,
    ) -> Result<Response<pb::FaultDelayResponse>, Status> {
        self.delay(&request.into_inner()).map_err(status)?;
        Ok(Response::new(pb::FaultDelayResponse {}))
    }

    async fn fault_loss(
        &self,
        request: Request<pb::FaultLossRequest>,
    ) -> Result<Response<pb::FaultLossResponse>, Status> {
        self.lose(&request.into_inner()).map_err(status)?;
        Ok(Response::new(pb::FaultLossResponse {}))
    }

    async fn fault_list(
        &self,
        _request: Request<pb::FaultListRequest>,
    ) -> Result<Response<pb::FaultListResponse>, Status> {
        Ok(Response::new(pb::FaultListResponse {
            faults: self.faults().map_err(status)?,
        }))
    }
}
