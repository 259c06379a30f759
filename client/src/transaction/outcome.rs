//! What became of a transaction.

use bytes::Bytes;
use meridian_proto::kv::v1 as wire;

use crate::error::Error;
use crate::ids::OpId;
use crate::results::{Receipt, ServedBy, Versions};

/// A transaction that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionOutcome {
    /// All comparisons held, and `then` was done; otherwise `otherwise` was.
    pub succeeded: bool,
    /// One per action of the list that was done. Empty when `repeated`.
    pub results: Vec<ActionOutcome>,
    /// Shards it took part in.
    pub parts: u32,
    /// Mode of the keyspace in force.
    pub mode: String,
    /// Zones that hold it durably.
    pub zones: Vec<String>,
    /// Fewer safeguards held than the mode promises.
    pub degraded: bool,
    /// The operation.
    pub op_id: Option<OpId>,
    /// An earlier attempt had already taken effect; what it read is no longer known.
    pub repeated: bool,
    /// Who answered.
    pub served_by: ServedBy,
}

/// What one action did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionOutcome {
    /// What was read, before the transaction's own writes.
    Got(Versions),
    /// It was written.
    Written {
        /// The key.
        key: Bytes,
        /// Its acknowledgement. Without a dot where another shard assigns it a moment later.
        receipt: Receipt,
    },
}

/// A committed transaction and what its body returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<T> {
    /// What the body returned.
    pub value: T,
    /// What the commit did; `None` when nothing was written.
    pub outcome: Option<TransactionOutcome>,
    /// Attempts it took, the last included.
    pub attempts: u32,
}

impl TransactionOutcome {
    pub(super) fn from_wire(
        wire: wire::TransactResponse,
        via: &wire::ServedBy,
    ) -> Result<Self, Error> {
        let served_by = wire.served_by.unwrap_or_else(|| via.clone());
        let results = wire.results.into_iter();
        Ok(Self {
            succeeded: wire.succeeded,
            results: results
                .map(|result| ActionOutcome::from_wire(result, &served_by))
                .collect::<Result<_, _>>()?,
            parts: wire.parts,
            mode: wire.mode,
            zones: wire.zones,
            degraded: wire.degraded,
            op_id: wire.op_id.as_ref().and_then(OpId::from_wire),
            repeated: wire.repeated,
            served_by: served_by.into(),
        })
    }
}

impl ActionOutcome {
    fn from_wire(wire: wire::ActionResult, served_by: &wire::ServedBy) -> Result<Self, Error> {
        use wire::action_result::Result as Wire;
        match wire.result {
            Some(Wire::Get(mut get)) => {
                get.served_by.get_or_insert_with(|| served_by.clone());
                Ok(Self::Got(Versions::from_wire(wire.key, get)))
            }
            Some(Wire::Write(receipt)) => Ok(Self::Written {
                key: wire.key,
                receipt: receipt.into(),
            }),
            None => Err(Error::bad_answer("a result without content")),
        }
    }
}
