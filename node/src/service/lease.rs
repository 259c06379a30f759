//! kv.v1: leases. Unary calls: one is waited for, the others are seldom.

use std::time::Duration;

use meridian_causal::OpId;
use meridian_core::ids::{KeyspaceId, ShardId};
use meridian_core::request::{Answer, Request, Response};
use meridian_proto::kv::v1 as kv;

use super::KvService;
use super::serving::fresh_id;
use crate::calls::Ask;
use crate::clock::wall_ms;
use crate::convert::Failure;
use crate::convert::leases;
use crate::convert::operations::Scope;
use crate::cores::Kind;

impl KvService {
    pub(super) async fn acquire(
        &self,
        asked: kv::LeaseAcquireRequest,
        patience: Duration,
    ) -> Result<kv::LeaseResponse, Failure> {
        let keyspace = asked.keyspace.clone();
        let (place, acquire) = self.at(&keyspace, |scope| {
            let (shard, acquire) = scope.lease_acquire(asked, fresh_id)?;
            Ok(((scope.keyspace.id, shard), acquire))
        })?;
        let op_id = Some(acquire.op_id);
        let request = Request::LeaseAcquire(acquire);
        let answer = self.ask_about_lease(place, request, op_id, patience);
        self.held(answer.await?)
    }

    pub(super) async fn renew(
        &self,
        asked: kv::LeaseRenewRequest,
        patience: Duration,
    ) -> Result<kv::LeaseResponse, Failure> {
        let lease = leases::lease_from_wire(asked.lease.unwrap_or_default())?;
        let place = self.place_of(&asked.keyspace, &lease.name)?;
        let keyspace = place.0;
        let request = Request::LeaseRenew { keyspace, lease };
        let answer = self.ask_about_lease(place, request, None, patience);
        self.held(answer.await?)
    }

    pub(super) async fn end(
        &self,
        asked: kv::LeaseEndRequest,
        patience: Duration,
    ) -> Result<kv::LeaseEndResponse, Failure> {
        let lease = leases::lease_from_wire(asked.lease.unwrap_or_default())?;
        let place = self.place_of(&asked.keyspace, &lease.name)?;
        let keyspace = place.0;
        let request = Request::LeaseEnd { keyspace, lease };
        let answer = self.ask_about_lease(place, request, None, patience);
        let Response::LeaseEnded = answer.await? else {
            return Err(Failure::unexpected_answer());
        };
        Ok(kv::LeaseEndResponse {
            served_by: Some(self.calls.shared.served_by()),
        })
    }

    pub(super) async fn show(
        &self,
        asked: kv::LeaseGetRequest,
        patience: Duration,
    ) -> Result<kv::LeaseGetResponse, Failure> {
        let (keyspace, name) = (asked.keyspace.clone(), asked.name.clone());
        let (place, request) = self.at(&keyspace, |scope| {
            let (shard, request) = scope.lease_get(asked)?;
            Ok(((scope.keyspace.id, shard), request))
        })?;
        let answer = self.ask_about_lease(place, request, None, patience);
        let Response::Read(Answer::Leases(mut leases)) = answer.await? else {
            return Err(Failure::unexpected_answer());
        };
        let served_by = self.calls.shared.served_by();
        Ok(leases::shown(name, leases.pop().flatten(), served_by))
    }

    fn held(&self, response: Response) -> Result<kv::LeaseResponse, Failure> {
        let Response::LeaseHeld(holding) = response else {
            return Err(Failure::unexpected_answer());
        };
        let served_by = self.calls.shared.served_by();
        Ok(leases::held(holding, served_by, wall_ms()))
    }

    /// Does something with the keyspace of that name.
    fn at<T>(
        &self,
        keyspace: &str,
        act: impl FnOnce(&Scope<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.admit()?;
        let catalog = self.calls.shared.catalog();
        act(&Scope::find(
            &catalog,
            keyspace,
            (self.calls.shared.zone, wall_ms()),
        )?)
    }

    /// Where the lease of that name stands.
    fn place_of(&self, keyspace: &str, name: &[u8]) -> Result<(KeyspaceId, ShardId), Failure> {
        self.at(keyspace, |scope| {
            Ok((scope.keyspace.id, scope.keyspace.shard_of(name)))
        })
    }

    async fn ask_about_lease(
        &self,
        (keyspace, shard): (KeyspaceId, ShardId),
        request: Request,
        op_id: Option<OpId>,
        patience: Duration,
    ) -> Result<Response, Failure> {
        let ask = Ask {
            kind: Kind::Lease,
            keyspace,
            shard,
            request,
        };
        let answer = self.calls.ask_one(ask, patience).await;
        answer.map_err(|error| Failure::from_core(error).of_operation(op_id))
    }
}
