//! Transactions and validations as clients ask them: every limit of the edge is checked here, before anything is begun.
//!
//! What it is not: it looks at one request alone. Whether comparisons hold, and what is locked, is the core's to know.
//!
//! Invariants: no list writes a key twice; comparisons, actions and bytes of a transaction are bounded.
//!
//! Read `parts` for comparisons and actions, `stamps` for what identifies a read, `answer` for the way back.

mod answer;
mod parts;
pub(crate) mod stamps;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use meridian_core::ids::ShardId;
use meridian_core::limits::{TRANSACTION_BYTES_MAX, TRANSACTION_OPERATIONS_MAX};
use meridian_core::request::{Query, Read, ReadLevel, Request};
use meridian_core::transaction::{Action, Compare, Transaction};
use meridian_proto::kv::v1 as kv;

use super::failure::Failure;
use super::operations::{Prepared, Scope};

/// The keys of a transaction's two lists of actions, to word its answer with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ActionKeys {
    pub(super) then: Vec<Bytes>,
    pub(super) otherwise: Vec<Bytes>,
}

/// Comparisons of one shard.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ShardCompare {
    pub(crate) shard: ShardId,
    pub(crate) compare: Vec<Compare>,
}

impl Scope<'_> {
    /// A transaction. `fresh` makes an op id for a client that gave none.
    pub(crate) fn transact(
        &self,
        transact: kv::Transact,
        fresh: impl FnOnce() -> u128,
    ) -> Result<Prepared, Failure> {
        let operations = transact.compare.len() + transact.then.len() + transact.otherwise.len();
        if operations == 0 {
            let message = "a transaction without comparisons and actions";
            return Err(Failure::invalid("INVALID_ARGUMENT", message));
        }
        check_size(operations, parts::bytes_of_transact(&transact))?;
        let op_id = self.op_id(transact.op_id, fresh)?;
        let transaction = Transaction {
            keyspace: self.keyspace.id,
            op_id,
            compare: self.comparisons(transact.compare)?,
            then: self.actions(transact.then)?,
            otherwise: self.actions(transact.otherwise)?,
        };
        Ok(Prepared {
            shard: transaction.anchor(|key| self.keyspace.shard_of(key)),
            action_keys: Some(Box::new(keys_of(&transaction))),
            request: Request::Transact(Box::new(transaction)),
            key: Bytes::new(),
            session: Bytes::new(),
            level: ReadLevel::Linearizable,
            op_id: Some(op_id),
        })
    }

    /// The comparisons of a validation, by shard.
    pub(crate) fn validate(&self, validate: kv::Validate) -> Result<Vec<ShardCompare>, Failure> {
        let bytes = parts::bytes_of_compare(&validate.compare);
        check_size(validate.compare.len(), bytes)?;
        let mut by_shard: BTreeMap<ShardId, Vec<Compare>> = BTreeMap::new();
        for compare in self.comparisons(validate.compare)? {
            let shard = self.shard_of(&compare);
            by_shard.entry(shard).or_default().push(compare);
        }
        let parts = by_shard.into_iter();
        Ok(parts
            .map(|(shard, compare)| ShardCompare { shard, compare })
            .collect())
    }

    fn shard_of(&self, compare: &Compare) -> ShardId {
        match compare {
            Compare::RangeUnchanged { shard, .. } => *shard,
            Compare::Unchanged { key, .. }
            | Compare::Absent { key }
            | Compare::Exists { key }
            | Compare::Value { key, .. }
            | Compare::Context { key, .. } => self.keyspace.shard_of(key),
        }
    }

    /// The question whether one shard's comparisons hold.
    pub(crate) fn validation(&self, part: ShardCompare) -> Prepared {
        let ShardCompare { shard, compare } = part;
        Prepared {
            shard,
            request: Request::Read(Read {
                keyspace: self.keyspace.id,
                level: ReadLevel::Linearizable,
                query: Query::Validate { shard, compare },
                session: None,
            }),
            key: Bytes::new(),
            session: Bytes::new(),
            level: ReadLevel::Linearizable,
            op_id: None,
            action_keys: None,
        }
    }
}

fn check_size(operations: usize, bytes: usize) -> Result<(), Failure> {
    let reason = "TRANSACTION_TOO_LARGE";
    if operations > TRANSACTION_OPERATIONS_MAX {
        let message = format!(
            "transaction of {operations} comparisons and actions exceeds {TRANSACTION_OPERATIONS_MAX}"
        );
        return Err(Failure::invalid(reason, message)
            .with("found", operations)
            .with("limit", TRANSACTION_OPERATIONS_MAX));
    }
    if bytes > TRANSACTION_BYTES_MAX {
        return Err(Failure::too_large(
            reason,
            "transaction",
            bytes,
            TRANSACTION_BYTES_MAX,
        ));
    }
    Ok(())
}

fn keys_of(transaction: &Transaction) -> ActionKeys {
    let keys = |actions: &[Action]| actions.iter().map(|action| action.key().clone()).collect();
    ActionKeys {
        then: keys(&transaction.then),
        otherwise: keys(&transaction.otherwise),
    }
}

/// Bytes of keys and values of a transaction, near enough for the bounds of queues.
pub(crate) fn size_bytes(transaction: &Transaction) -> usize {
    let actions = transaction.then.iter().chain(&transaction.otherwise);
    compare_bytes(&transaction.compare) + actions.map(action_bytes).sum::<usize>()
}

/// Bytes of keys and values that are compared, near enough for the bounds of queues.
pub(crate) fn compare_bytes(compare: &[Compare]) -> usize {
    let bytes_of = |one: &Compare| match one {
        Compare::Unchanged { key, .. }
        | Compare::Absent { key }
        | Compare::Exists { key }
        | Compare::Context { key, .. } => key.len(),
        Compare::RangeUnchanged { from, to, .. } => from.len() + to.len(),
        Compare::Value { key, value } => key.len() + value.len(),
    };
    compare.iter().map(bytes_of).sum()
}

fn action_bytes(action: &Action) -> usize {
    match action {
        Action::Get { key } => key.len(),
        Action::Write { key, content, .. } => key.len() + content.value().map_or(0, Bytes::len),
    }
}
