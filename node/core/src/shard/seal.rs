//! The end of a shard whose keyspace is altered: no more writes of its own, so that its successor can have them all.
//!
//! A sealed shard still resolves what was prepared before, and merges what other zones bring. Leases end with it: what is
//! attached to them vanishes, as the successor knows nothing of them.
//!
//! Invariant: while a shard is sealed, no transaction is prepared in it and no key attached, its own counter does not grow. It
//! is unsealed only by a revision of the catalog later than the round it was sealed for.

use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::{OpId, VersionVector};
use meridian_storage::Read;

use super::step::Step;
use super::{Shard, ShardMeta};
use crate::error::Error;
use crate::keys::{LeasedKey, Place};
use crate::limits::LEASED_KEYS_VANISH_MAX;

impl Shard {
    /// What the shard has received, once it makes no more writes of its own. `read`: the state as it is written.
    pub fn last_vector(&self, read: &dyn Read) -> Result<Option<VersionVector>, Error> {
        let meta = self.meta();
        let open = !meta.is_sealed() || !self.locks().prepared().is_empty();
        if open || !attached(read, self.group().into(), 1)?.is_empty() {
            return Ok(None);
        }
        Ok(Some(meta.received.clone()))
    }
}

impl Step<'_, '_, '_> {
    /// Seals the shard, and makes some of what is attached to leases vanish; repeated until nothing is.
    pub(super) fn seal(&mut self, round: u64) -> Result<(), Error> {
        self.meta.sealed = self.meta.sealed.max(round);
        for (stored, key, op_id) in attached(self.work, self.place, LEASED_KEYS_VANISH_MAX)? {
            if !self.is_locked(&key) {
                self.delete_version(&key, op_id)?;
                self.work.delete(stored);
            }
        }
        Ok(())
    }
}

impl Step<'_, '_, '_> {
    /// The shard serves again, unless it was sealed for a round that `revision` does not know yet.
    pub(super) const fn unseal(&mut self, revision: u64) {
        if revision > self.meta.sealed {
            self.meta.sealed = 0;
        }
    }
}

impl ShardMeta {
    /// It takes no more writes of clients.
    pub const fn is_sealed(&self) -> bool {
        self.sealed > 0
    }
}

/// Keys attached to whatever lease, with the op id of the write that attached them; at most `limit`.
fn attached(
    read: &dyn Read,
    place: Place,
    limit: usize,
) -> Result<Vec<(Vec<u8>, Bytes, OpId)>, Error> {
    let (from, to) = LeasedKey::all(place);
    let mut attached = Vec::new();
    let mut outcome = Ok(());
    read.scan(&from, &to, &mut |stored, record| {
        let entry = LeasedKey::parts(stored).and_then(|(_, key)| {
            let op_id = LeasedKey::decode_record(stored, record)?;
            Ok((stored.to_vec(), Bytes::copy_from_slice(key), op_id))
        });
        outcome = entry.map(|entry| attached.push(entry));
        if outcome.is_err() || attached.len() >= limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    outcome.map(|()| attached)
}
