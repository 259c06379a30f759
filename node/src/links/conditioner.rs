//! Faults set on purpose, per ordered pair of zones: block, delay, loss. Each node applies them to what it sends; for a
//! block it also swallows what arrives, so that telling either side suffices.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use meridian_causal::ZoneId;

/// What happens to messages in one direction between two zones.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rule {
    pub(crate) blocked: bool,
    pub(crate) delay: Duration,
    /// Probability that a message is lost, 0 to 1.
    pub(crate) loss: f64,
}

/// A direction, or a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Between {
    pub(crate) from: ZoneId,
    pub(crate) to: ZoneId,
    pub(crate) one_way: bool,
}

/// The rules in force.
#[derive(Debug, Default)]
pub(crate) struct Conditioner {
    rules: RwLock<BTreeMap<(ZoneId, ZoneId), Rule>>,
    /// Most clusters never have a rule: then nothing is looked up.
    any: AtomicBool,
}

impl Conditioner {
    pub(crate) fn block(&self, between: Between) {
        self.change(between, |rule| rule.blocked = true);
    }

    pub(crate) fn delay(&self, between: Between, delay: Duration) {
        self.change(between, |rule| rule.delay = delay);
    }

    pub(crate) fn lose(&self, between: Between, probability: f64) {
        self.change(between, |rule| rule.loss = probability);
    }

    /// Removes blocks and losses, of one pair or of all. Delays stay: they are the emulated distance.
    pub(crate) fn heal(&self, pair: Option<Between>) {
        let heal = |rule: &mut Rule| {
            rule.blocked = false;
            rule.loss = 0.0;
        };
        if let Some(between) = pair {
            self.change(between, heal);
            return;
        }
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        rules.values_mut().for_each(heal);
        self.tidy(&mut rules);
    }

    /// The rule of a direction.
    pub(crate) fn rule(&self, from: ZoneId, to: ZoneId) -> Rule {
        if !self.any.load(Ordering::Acquire) {
            return Rule::default();
        }
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.get(&(from, to)).copied().unwrap_or_default()
    }

    /// Every rule that does something.
    pub(crate) fn list(&self) -> Vec<(ZoneId, ZoneId, Rule)> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules
            .iter()
            .map(|((from, to), rule)| (*from, *to, *rule))
            .collect()
    }

    fn change(&self, between: Between, change: impl Fn(&mut Rule)) {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        change(rules.entry((between.from, between.to)).or_default());
        if !between.one_way {
            change(rules.entry((between.to, between.from)).or_default());
        }
        self.tidy(&mut rules);
    }

    fn tidy(&self, rules: &mut BTreeMap<(ZoneId, ZoneId), Rule>) {
        rules.retain(|_, rule| *rule != Rule::default());
        self.any.store(!rules.is_empty(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ZoneId = ZoneId(1);
    const B: ZoneId = ZoneId(2);
    const DELAY: Duration = Duration::from_millis(30);

    fn both() -> Between {
        Between {
            from: A,
            to: B,
            one_way: false,
        }
    }

    #[test]
    fn a_one_way_block_leaves_the_way_back_open() {
        let conditioner = Conditioner::default();
        conditioner.block(Between {
            one_way: true,
            ..both()
        });
        assert!(conditioner.rule(A, B).blocked);
        assert!(!conditioner.rule(B, A).blocked);
    }

    #[test]
    fn healing_removes_blocks_and_losses_and_keeps_delays() {
        let conditioner = Conditioner::default();
        conditioner.delay(both(), DELAY);
        conditioner.block(both());
        conditioner.lose(both(), 0.5);
        conditioner.heal(None);
        let healed = Rule {
            delay: DELAY,
            ..Rule::default()
        };
        assert_eq!(
            (conditioner.rule(A, B), conditioner.rule(B, A)),
            (healed, healed)
        );
        conditioner.block(both());
        conditioner.heal(Some(both()));
        assert_eq!(conditioner.list().len(), 2);
        conditioner.delay(both(), Duration::ZERO);
        assert_eq!(conditioner.list(), Vec::new());
    }
}
