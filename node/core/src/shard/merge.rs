//! Effects received from another zone (protocol rule 8).

use meridian_causal::{Dot, Incarnation};

use super::step::Step;
use crate::catalog::key_hash;
use crate::command::Effect;
use crate::error::Error;
use crate::keys::OpIdRecord;

impl Step<'_, '_, '_> {
    /// Skips the counters that are here, applies from the next one on; does nothing when there is a gap or when a
    /// comparison is to bring these effects, and asks for them again.
    pub(super) fn merge(
        &mut self,
        incarnation: Incarnation,
        first: u64,
        effects: Vec<Effect>,
    ) -> Result<(), Error> {
        if incarnation == self.meta.incarnation || first == 0 {
            // Our own effects are here, in whatever number they return; and no effect has counter 0.
            return Ok(());
        }
        let received = self.meta.received.get(incarnation);
        let skipped =
            usize::try_from(received.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX);
        if skipped >= effects.len() {
            return Ok(());
        }
        if first.saturating_sub(1) > received || self.meta.waits_for_comparison(incarnation) {
            self.refuse(incarnation);
            return Ok(());
        }
        for effect in effects.into_iter().skip(skipped) {
            self.merge_effect(incarnation, effect)?;
        }
        Ok(())
    }

    fn merge_effect(&mut self, incarnation: Incarnation, effect: Effect) -> Result<(), Error> {
        let counter = self.meta.received.get(incarnation).checked_add(1);
        let Some(counter) = counter else {
            return Ok(());
        };
        let dot = Dot::new(incarnation, counter);
        let held = self.hold(&effect.key)?;
        let known = held.set.context().covers(dot);
        self.meta.received.advance(incarnation, counter);
        let remembered = match effect.op_id {
            Some(op_id) if self.is_to_remember(op_id)? => Some((op_id, key_hash(&effect.key))),
            Some(_) | None => None,
        };
        let returned = (!known && self.meta.base.is_some()).then(|| effect.key.clone());
        let context = self.take_effect(dot, effect, held);
        if let Some(key) = returned {
            self.list_returned(&key, &[dot])?;
        }
        if let Some((op_id, key_hash)) = remembered {
            let operation = OpIdRecord {
                dot,
                context,
                key_hash,
                stamp_ms: op_id.stamp_ms,
            };
            self.enter_operation(op_id, operation);
        }
        Ok(())
    }

    fn refuse(&mut self, incarnation: Incarnation) {
        if !self.applied.rewind.contains(&incarnation) {
            self.applied.rewind.push(incarnation);
        }
    }
}
