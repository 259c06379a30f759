//! Comparisons and actions, from the wire's words to the core's.

use std::collections::BTreeSet;

use bytes::Bytes;
use meridian_causal::Content;
use meridian_core::ids::ShardId;
use meridian_core::limits::KEY_SIZE_BYTES_MAX;
use meridian_core::transaction::{Action, Compare};
use meridian_proto::kv::v1 as kv;

use super::super::failure::Failure;
use super::super::operations::{Scope, check_key, check_value};
use super::stamps;

impl Scope<'_> {
    pub(super) fn comparisons(&self, wire: Vec<kv::Compare>) -> Result<Vec<Compare>, Failure> {
        wire.into_iter().map(|one| self.compare(one)).collect()
    }

    fn compare(&self, wire: kv::Compare) -> Result<Compare, Failure> {
        use kv::compare::Compare as Wire;
        let compare = match wire.compare {
            Some(Wire::Unchanged(kv::Unchanged { key, stamp })) => Compare::Unchanged {
                stamp: stamps::key_from_wire(&stamp, self.log_of(self.keyspace.shard_of(&key)))?,
                key,
            },
            Some(Wire::RangeUnchanged(range)) => return self.range(range),
            Some(Wire::Absent(key)) => Compare::Absent { key },
            Some(Wire::Exists(key)) => Compare::Exists { key },
            Some(Wire::Value(kv::ValueIs { key, value })) => Compare::Value { key, value },
            Some(Wire::Context(kv::ContextIs { key, context })) => Compare::Context {
                context: self.open(&key, &context)?,
                key,
            },
            None => return Err(missing("comparison")),
        };
        compare.key().map_or(Ok(()), |key| check_key(key))?;
        Ok(compare)
    }

    fn range(&self, range: kv::RangeStamp) -> Result<Compare, Failure> {
        let shards = self.keyspace.shards;
        let shard = u16::try_from(range.shard).ok().filter(|at| *at < shards);
        let Some(shard) = shard else {
            let message = format!("shard {} of a range is not below {shards}", range.shard);
            return Err(Failure::invalid("INVALID_ARGUMENT", message));
        };
        check_bound(&range.from)?;
        check_bound(&range.to)?;
        Ok(Compare::RangeUnchanged {
            shard: ShardId(shard),
            stamp: stamps::range_from_wire(&range.stamp, self.log_of(ShardId(shard)))?,
            from: range.from,
            to: range.to,
        })
    }

    /// A list of actions: each makes sense, and no key is written twice.
    pub(super) fn actions(&self, wire: Vec<kv::Action>) -> Result<Vec<Action>, Failure> {
        let actions: Vec<Action> = wire
            .into_iter()
            .map(|one| self.action(one))
            .collect::<Result<_, _>>()?;
        let mut written = BTreeSet::new();
        for action in actions.iter().filter(|action| action.is_write()) {
            if !written.insert(action.key()) {
                let message = "a key is written twice in one list of a transaction";
                return Err(Failure::invalid("INVALID_ARGUMENT", message));
            }
        }
        Ok(actions)
    }

    fn action(&self, wire: kv::Action) -> Result<Action, Failure> {
        use kv::action::Action as Wire;
        match wire.action {
            Some(Wire::Get(get)) => {
                check_key(&get.key)?;
                Ok(Action::Get { key: get.key })
            }
            Some(Wire::Put(put)) => self.put_action(put),
            Some(Wire::Delete(delete)) => self.delete_action(delete),
            None => Err(missing("action")),
        }
    }

    fn put_action(&self, put: kv::Put) -> Result<Action, Failure> {
        check_key(&put.key)?;
        check_value(&put.value)?;
        if put.lease.is_some() {
            let message = "a put in a transaction is attached to no lease";
            return Err(Failure::invalid("INVALID_ARGUMENT", message));
        }
        let intent = self.intent(&put.key, put.intent(), &put.context, &put.expected)?;
        Ok(Action::Write {
            key: put.key,
            content: Content::Value(put.value),
            intent,
            expires_at_ms: self.expires_at_ms(put.ttl_ms),
        })
    }

    fn delete_action(&self, delete: kv::Delete) -> Result<Action, Failure> {
        check_key(&delete.key)?;
        let (intent, expected) = (delete.intent(), &delete.expected);
        let intent = self.intent(&delete.key, intent, &delete.context, expected)?;
        Ok(Action::Write {
            key: delete.key,
            content: Content::Tombstone,
            intent,
            expires_at_ms: None,
        })
    }
}

fn missing(what: &str) -> Failure {
    Failure::invalid("INVALID_ARGUMENT", format!("the {what} is missing"))
}

/// A bound may be the successor of the longest key, which has one byte more; an empty one bounds nothing.
fn check_bound(bound: &[u8]) -> Result<(), Failure> {
    let limit = KEY_SIZE_BYTES_MAX + 1;
    if bound.len() > limit {
        return Err(Failure::too_large(
            "KEY_TOO_LARGE",
            "bound of a range",
            bound.len(),
            limit,
        ));
    }
    Ok(())
}

/// Bytes of keys, values and contexts of a transaction.
pub(super) fn bytes_of_transact(transact: &kv::Transact) -> usize {
    let actions = transact.then.iter().chain(&transact.otherwise);
    bytes_of_compare(&transact.compare) + actions.map(bytes_of_action).sum::<usize>()
}

/// Bytes of keys, values and contexts that are compared.
pub(super) fn bytes_of_compare(compare: &[kv::Compare]) -> usize {
    use kv::compare::Compare as Wire;
    let bytes_of = |one: &kv::Compare| match &one.compare {
        Some(Wire::Unchanged(unchanged)) => unchanged.key.len(),
        Some(Wire::RangeUnchanged(range)) => range.from.len() + range.to.len(),
        Some(Wire::Absent(key) | Wire::Exists(key)) => key.len(),
        Some(Wire::Value(is)) => is.key.len() + is.value.len(),
        Some(Wire::Context(is)) => is.key.len() + is.context.len(),
        None => 0,
    };
    compare.iter().map(bytes_of).sum()
}

fn bytes_of_action(action: &kv::Action) -> usize {
    use kv::action::Action as Wire;
    let sum = |parts: [&Bytes; 4]| parts.iter().map(|part| part.len()).sum();
    match &action.action {
        Some(Wire::Get(get)) => get.key.len(),
        Some(Wire::Put(put)) => sum([&put.key, &put.value, &put.context, &put.expected]),
        Some(Wire::Delete(delete)) => sum([
            &delete.key,
            &delete.context,
            &delete.expected,
            &Bytes::new(),
        ]),
        None => 0,
    }
}
