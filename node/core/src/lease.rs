//! Leases: the core's own words for them.
//!
//! A lease is a name that at most one holds at a time, in one zone. It stands in the shard of its name. Each acquisition
//! gets a fencing token, greater than all before; whoever guards a resource refuses what bears an older one. A lease that
//! is not renewed within its time ends, by the clock of the group's leader.
//!
//! Not here: what an entry does (`shard::leases`), deadlines and who waits (`group::leases`), where requests go
//! (`route::leases`). Read `docs/leases.md`.

use bytes::Bytes;
use meridian_causal::OpId;
use serde::{Deserialize, Serialize};

use crate::command::Waiter;
use crate::ids::KeyspaceId;

/// Bits of a fencing token below the group's epoch.
const COUNTER_BITS: u32 = 48;

/// Names one holding of a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseRef {
    /// The lease's name.
    pub name: Bytes,
    /// The fencing token of the acquisition.
    pub token: u64,
}

impl LeaseRef {
    /// About how many bytes it takes in the log.
    pub(crate) fn encoded_bytes(&self) -> usize {
        self.name.len().saturating_add(24)
    }
}

/// Asks for a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAcquire {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The lease's name.
    pub name: Bytes,
    /// How long it stands without being renewed.
    pub ttl_ms: u64,
    /// Names the acquisition through its retries: they get the token of the first that was granted.
    pub op_id: OpId,
    /// Waits while another holds it.
    pub wait: bool,
}

/// A lease that somebody has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The lease.
    pub lease: LeaseRef,
    /// How long it stands without being renewed.
    pub ttl_ms: u64,
}

/// An acquisition as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcquireOp {
    /// The lease's name.
    pub name: Bytes,
    /// How long it stands without being renewed.
    pub ttl_ms: u64,
    /// Who wants it: the id of the operation.
    pub owner: u128,
    /// Who waits for the outcome.
    pub waiter: Waiter,
}

/// What became of an operation on a lease, decided in apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// The owner has it, from now on or since an earlier attempt.
    Granted(Holding),
    /// Somebody else has it.
    Held,
    /// It has ended.
    Ended,
    /// It was not there to be ended.
    NotHeld,
    /// The shard is sealed: leases are to be had where the keyspace goes.
    Moving,
}

/// What an entry did to a lease, for the leader's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// It stands.
    Granted(Holding),
    /// It is gone.
    Gone(LeaseRef),
}

/// The fencing token of a group's `counter`-th acquisition. Groups of one shard and zone follow one another by epoch.
pub(crate) const fn token(epoch: u32, counter: u64) -> u64 {
    let (epoch, limit) = (epoch as u64, 1 << COUNTER_BITS);
    (epoch << COUNTER_BITS) | (counter & (limit - 1))
}

#[cfg(test)]
mod tests {
    use super::token;

    #[test]
    fn tokens_of_a_later_group_are_greater_than_all_of_an_earlier_one() {
        assert!(token(0, 1) < token(0, 2));
        assert!(token(0, (1 << 48) - 1) < token(1, 1));
    }
}
