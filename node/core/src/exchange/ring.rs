//! The newest effects of a leader's own incarnation, in memory: what the exchange sends is usually what was just applied, and need
//! not be read back from the engine. Those of others are relayed seldom, and are read from the outbox.
//!
//! Invariant: the effects of an incarnation are contiguous.

use std::collections::{BTreeMap, VecDeque};

use meridian_causal::{Dot, Incarnation};

use crate::command::Effect;

/// Bytes of effects kept per shard; older ones are read from the outbox.
const RING_BYTES_MAX: usize = 2 << 20;

/// See the module.
#[derive(Default)]
pub(super) struct Ring {
    effects: BTreeMap<Incarnation, VecDeque<(u64, Effect)>>,
    bytes: usize,
}

impl Ring {
    pub(super) fn extend(&mut self, effects: impl Iterator<Item = (Dot, Effect)>) {
        for (dot, effect) in effects {
            let of = self.effects.entry(dot.incarnation).or_default();
            if of
                .back()
                .is_some_and(|(last, _)| last.saturating_add(1) != dot.counter)
            {
                self.bytes = self
                    .bytes
                    .saturating_sub(of.iter().map(|(_, effect)| effect.encoded_bytes()).sum());
                of.clear();
            }
            self.bytes = self.bytes.saturating_add(effect.encoded_bytes());
            of.push_back((dot.counter, effect));
        }
        while self.bytes > RING_BYTES_MAX {
            let Some(longest) = self.effects.values_mut().max_by_key(|of| of.len()) else {
                break;
            };
            let Some((_, dropped)) = longest.pop_front() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(dropped.encoded_bytes());
        }
    }

    /// The effect after counter `after`, if it is here.
    pub(super) fn next(&self, incarnation: Incarnation, after: u64) -> Option<&Effect> {
        let of = self.effects.get(&incarnation)?;
        let first = of.front().map(|(counter, _)| *counter)?;
        let skip = after.saturating_add(1).checked_sub(first)?;
        let (_, effect) = of.get(usize::try_from(skip).ok()?)?;
        Some(effect)
    }

    /// The effects after counter `after`, at most about `max_bytes` of them, but never part of a transaction's; `None` when the ring does not reach back
    /// that far.
    pub(super) fn read(
        &self,
        incarnation: Incarnation,
        after: u64,
        max_bytes: usize,
    ) -> Option<Vec<Effect>> {
        let of = self.effects.get(&incarnation)?;
        let first = of.front().map(|(counter, _)| *counter)?;
        let skip = after.saturating_add(1).checked_sub(first)?;
        let mut bytes = 0_usize;
        let mut found = Vec::new();
        for (_, effect) in of.iter().skip(usize::try_from(skip).ok()?) {
            bytes = bytes.saturating_add(effect.encoded_bytes());
            let full = bytes > max_bytes && !found.is_empty();
            if full && !found.last().is_some_and(|last| effect.continues(last)) {
                break;
            }
            found.push(effect.clone());
        }
        Some(found)
    }
}
