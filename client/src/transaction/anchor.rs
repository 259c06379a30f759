//! Where a transaction is sent: the leader of the shard that decides is the node that has least to forward.
//!
//! The node computes the shard itself; a wrong guess here costs a forward and nothing else.

use meridian_proto::kv::v1 as wire;

/// A shard, by its number or by a key that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    Key(&'a [u8]),
    Shard(u32),
}

/// That of the first key written, else of the first thing compared, else of the first key read.
pub(crate) fn place_of_transact(transact: &wire::Transact) -> Option<Place<'_>> {
    let actions = || transact.then.iter().chain(&transact.otherwise);
    let written = actions().find_map(|action| place_of_action(action, Reads::Skipped));
    written
        .or_else(|| place_of_compare(&transact.compare))
        .or_else(|| actions().find_map(|action| place_of_action(action, Reads::Taken)))
}

/// That of the first thing compared.
pub(crate) fn place_of_compare(compare: &[wire::Compare]) -> Option<Place<'_>> {
    use wire::compare::Compare;
    Some(match compare.first()?.compare.as_ref()? {
        Compare::Unchanged(unchanged) => Place::Key(&unchanged.key),
        Compare::RangeUnchanged(range) => Place::Shard(range.shard),
        Compare::Absent(key) | Compare::Exists(key) => Place::Key(key),
        Compare::Value(is) => Place::Key(&is.key),
        Compare::Context(is) => Place::Key(&is.key),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    Taken,
    Skipped,
}

fn place_of_action(action: &wire::Action, reads: Reads) -> Option<Place<'_>> {
    use wire::action::Action;
    match action.action.as_ref()? {
        Action::Get(get) => (reads == Reads::Taken).then_some(Place::Key(&get.key)),
        Action::Put(put) => Some(Place::Key(&put.key)),
        Action::Delete(delete) => Some(Place::Key(&delete.key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::{Action, Compare, Transaction};

    fn place(transaction: Transaction) -> Option<String> {
        let wire = transaction.to_wire();
        place_of_transact(&wire).map(|place| match place {
            Place::Key(key) => String::from_utf8(key.to_vec()).unwrap(),
            Place::Shard(shard) => shard.to_string(),
        })
    }

    #[test]
    fn the_first_key_written_decides_then_what_is_compared_then_what_is_read() {
        let reads = || Transaction::new().then(Action::get("read"));
        let compares = || reads().when(Compare::exists("compared"));
        assert_eq!(place(reads()).as_deref(), Some("read"));
        assert_eq!(place(compares()).as_deref(), Some("compared"));
        let writes = compares().otherwise(Action::delete("written"));
        assert_eq!(place(writes).as_deref(), Some("written"));
        assert_eq!(place(Transaction::new()), None);
    }
}
