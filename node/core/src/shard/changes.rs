//! The numbers of a shard's changes, by which a watcher says what it has seen.
//!
//! Every effect that enters the outbox, own or another zone's, takes the next number, and so does a version that comes to
//! its end by itself. Apply is a function of (state, entry), so a change has the same number on every replica.
//!
//! Invariant: of the numbers in `(changes_floor, changes]`, each stands in exactly one record: in the outbox, or under
//! [`ChangeKey`](crate::keys::ChangeKey).
//!
//! Read `docs/watch.md`, then `read::changes`, which shows them.

use std::ops::ControlFlow;

use meridian_storage::Read;

use super::step::Step;
use crate::error::Error;
use crate::keys::{ChangeKey, LocalChange};

impl Step<'_, '_, '_> {
    /// The number of a change that is being applied.
    pub(super) fn next_change(&mut self) -> u64 {
        let next = self.meta.changes.checked_add(1);
        #[expect(
            clippy::expect_used,
            reason = "2^64 changes of one shard do not happen; going on would repeat a number"
        )]
        let next = next.expect("the number of a shard's changes does not overflow");
        self.meta.changes = next;
        next
    }

    /// Keeps a change that is in no outbox.
    pub(super) fn note_change(&mut self, change: &LocalChange) {
        let number = self.next_change();
        self.work.put(
            ChangeKey::encode(self.place, number),
            ChangeKey::encode_record(self.header, change),
        );
    }

    /// Keys have changed in a way that is not shown change by change. Whoever watches has to read them anew.
    pub(super) fn lose_changes(&mut self) -> Result<(), Error> {
        let lost = self.next_change();
        self.forget_changes(lost)
    }

    /// A record of the change numbered `through` is gone.
    pub(super) fn forget_changes(&mut self, through: u64) -> Result<(), Error> {
        if through <= self.meta.changes_floor {
            return Ok(());
        }
        self.meta.changes_floor = through;
        let (from, to) = ChangeKey::range(self.place, 0, through);
        let mut any = false;
        self.work.scan(&from, &to, &mut |_, _| {
            any = true;
            ControlFlow::Break(())
        })?;
        if any {
            self.work.delete_range(from, to);
        }
        Ok(())
    }
}
