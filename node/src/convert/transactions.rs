//! Transactions as clients ask them, and their answers.

use bytes::Bytes;
use meridian_core::transaction::{Action, Compare, Transaction};

/// Bytes of keys, values and contexts, near enough.
pub(crate) fn size_bytes(transaction: &Transaction) -> usize {
    let actions = transaction.then.iter().chain(&transaction.otherwise);
    compare_bytes(&transaction.compare) + actions.map(action_bytes).sum::<usize>()
}

/// Bytes of keys and values that are compared, near enough.
pub(crate) fn compare_bytes(compare: &[Compare]) -> usize {
    compare.iter().map(bytes_of_compare).sum()
}

fn bytes_of_compare(compare: &Compare) -> usize {
    match compare {
        Compare::Unchanged { key, .. } | Compare::Absent { key } | Compare::Exists { key } => {
            key.len()
        }
        Compare::RangeUnchanged { from, to, .. } => from.len() + to.len(),
        Compare::Value { key, value } => key.len() + value.len(),
        Compare::Context { key, .. } => key.len(),
    }
}

fn action_bytes(action: &Action) -> usize {
    match action {
        Action::Get { key } => key.len(),
        Action::Write { key, content, .. } => key.len() + content.value().map_or(0, Bytes::len),
    }
}
