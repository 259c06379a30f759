//! Leases as clients ask for them, and what they are told.

use meridian_core::ids::ShardId;
use meridian_core::keys::LeaseRecord;
use meridian_core::lease::{Holding, LeaseAcquire, LeaseRef};
use meridian_core::limits::LEASE_NAME_BYTES_MAX;
use meridian_core::request::{Query, Read, ReadLevel, Request};
use meridian_proto::kv::v1 as kv;

use super::failure::Failure;
use super::operations::{Prepared, Scope};

impl Scope<'_> {
    /// A request for a lease, and its shard. `fresh` makes an op id for a client that gave none.
    pub(crate) fn lease_acquire(
        &self,
        asked: kv::LeaseAcquireRequest,
        fresh: impl FnOnce() -> u128,
    ) -> Result<(ShardId, LeaseAcquire), Failure> {
        check_name(&asked.name)?;
        let op_id = self.op_id(asked.op_id, fresh)?;
        let shard = self.keyspace.shard_of(&asked.name);
        let acquire = LeaseAcquire {
            keyspace: self.keyspace.id,
            name: asked.name,
            ttl_ms: asked.ttl_ms,
            op_id,
            wait: asked.wait,
        };
        Ok((shard, acquire))
    }

    /// A read of a lease, and its shard.
    pub(crate) fn lease_get(
        &self,
        asked: kv::LeaseGetRequest,
    ) -> Result<(ShardId, Request), Failure> {
        check_name(&asked.name)?;
        let shard = self.keyspace.shard_of(&asked.name);
        let names = vec![asked.name];
        let read = Read {
            keyspace: self.keyspace.id,
            level: ReadLevel::Linearizable,
            query: Query::Leases { shard, names },
            session: None,
        };
        Ok((shard, Request::Read(read)))
    }
}

impl Prepared {
    /// The same write, which is to vanish with a lease.
    pub(crate) fn attached_to(mut self, lease: LeaseRef) -> Self {
        if let Request::Write(write) = self.request {
            self.request = Request::LeasedWrite { lease, write };
        }
        self
    }
}

/// A lease that is named.
pub(crate) fn lease_from_wire(lease: kv::LeaseRef) -> Result<LeaseRef, Failure> {
    check_name(&lease.name)?;
    Ok(LeaseRef {
        name: lease.name,
        token: lease.token,
    })
}

/// A lease that somebody has, in the words of the contract.
pub(crate) fn held(holding: Holding, served_by: kv::ServedBy, stamp_ms: u64) -> kv::LeaseResponse {
    kv::LeaseResponse {
        lease: Some(kv::LeaseRef {
            name: holding.lease.name,
            token: holding.lease.token,
        }),
        ttl_ms: holding.ttl_ms,
        served_by: Some(served_by),
        stamp_ms,
    }
}

/// What is known of a lease, in the words of the contract.
pub(crate) fn shown(
    name: bytes::Bytes,
    lease: Option<LeaseRecord>,
    served_by: kv::ServedBy,
) -> kv::LeaseGetResponse {
    let Some(lease) = lease else {
        return kv::LeaseGetResponse {
            served_by: Some(served_by),
            ..kv::LeaseGetResponse::default()
        };
    };
    kv::LeaseGetResponse {
        lease: Some(kv::LeaseRef {
            name,
            token: lease.token,
        }),
        ttl_ms: lease.ttl_ms,
        acquired_at_ms: lease.acquired.wall_ms(),
        served_by: Some(served_by),
    }
}

fn check_name(name: &[u8]) -> Result<(), Failure> {
    match name.len() {
        0 => Err(Failure::invalid(
            "INVALID_ARGUMENT",
            "a lease's name has at least one byte",
        )),
        bytes if bytes > LEASE_NAME_BYTES_MAX => Err(Failure::too_large(
            "INVALID_ARGUMENT",
            "lease name",
            bytes,
            LEASE_NAME_BYTES_MAX,
        )),
        _ => Ok(()),
    }
}
