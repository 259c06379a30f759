//! Whether comparisons of a transaction hold in one state of a shard.

use meridian_storage::Read;

use super::range;
use crate::error::Error;
use crate::keys::Place;
use crate::shard::versions;
use crate::transaction::Compare;

/// Whether all hold.
pub(crate) fn all_hold(read: &dyn Read, place: Place, compare: &[Compare]) -> Result<bool, Error> {
    for one in compare {
        if !holds(read, place, one)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether one holds.
pub(crate) fn holds(read: &dyn Read, place: Place, compare: &Compare) -> Result<bool, Error> {
    let set = |key: &[u8]| versions::load(read, place, key);
    Ok(match compare {
        Compare::Unchanged { key, stamp } => versions::stamp(read, place, key)? == *stamp,
        Compare::RangeUnchanged {
            from, to, stamp, ..
        } => range::stamp(read, place, from, to)? == Some(*stamp),
        Compare::Absent { key } => !set(key)?.has_live(),
        Compare::Exists { key } => set(key)?.has_live(),
        Compare::Value { key, value } => versions::holds_value(&set(key)?, value),
        Compare::Context { key, context } => set(key)?
            .siblings()
            .iter()
            .all(|sibling| context.covers(sibling.dot)),
    })
}
