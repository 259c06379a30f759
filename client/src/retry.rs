//! When to try again: jittered backoff, and a budget that keeps retries a fraction of the work.
//!
//! Pure: chance and time come in as arguments.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Attempts of one operation at most, however long its deadline.
pub(crate) const ATTEMPTS_MAX: u32 = 24;

/// Waiting time before attempt `retry` (1 is the first retry), for `chance` between 0 and 1: between half of the
/// doubled time and all of it.
pub(crate) fn backoff(retry: u32, chance: f64) -> Duration {
    let doublings = retry.saturating_sub(1).min(16);
    let full = BACKOFF_FIRST
        .saturating_mul(1_u32 << doublings)
        .min(BACKOFF_MAX);
    full.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
}

/// How long one attempt may take: half of what is left, so that a node that hangs leaves time for another one.
pub(crate) fn attempt_time(left: Duration) -> Duration {
    const LEAST: Duration = Duration::from_millis(250);
    (left / 2).max(LEAST).min(left)
}

/// A bucket of tokens: a retry takes one, a success gives a fifth back.
///
/// A cluster that fails everything sees at most [`Budget::FULL`] retries in a burst, then one for five successes.
#[derive(Debug)]
pub(crate) struct Budget {
    fifths: AtomicI64,
}

impl Budget {
    /// A full in-flight window may be retried a few times, as in a change of leader.
    pub(crate) const FULL: i64 = 8_192;

    pub(crate) const fn new() -> Self {
        Self {
            fifths: AtomicI64::new(Self::FULL * 5),
        }
    }

    pub(crate) fn succeeded(&self) {
        if self.fifths.load(Ordering::Relaxed) < Self::FULL * 5 {
            self.fifths.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes a token, if there is one.
    pub(crate) fn try_retry(&self) -> bool {
        let before = self.fifths.fetch_sub(5, Ordering::Relaxed);
        if before < 5 {
            self.fifths.fetch_add(5, Ordering::Relaxed);
        }
        before >= 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_within_its_bounds() {
        assert_eq!(backoff(1, 0.0), Duration::from_millis(10));
        assert_eq!(backoff(1, 1.0), Duration::from_millis(20));
        assert_eq!(backoff(3, 1.0), Duration::from_millis(80));
        for retry in [0, 1, 7, 16, 17, u32::MAX] {
            for chance in [0.0, 0.3, 1.0, 7.0, -1.0] {
                let wait = backoff(retry, chance);
                assert!(wait >= BACKOFF_FIRST / 2 && wait <= BACKOFF_MAX, "{wait:?}");
            }
        }
    }

    #[test]
    fn an_attempt_leaves_time_for_another_and_never_passes_the_deadline() {
        assert_eq!(attempt_time(Duration::from_secs(4)), Duration::from_secs(2));
        assert_eq!(
            attempt_time(Duration::from_millis(100)),
            Duration::from_millis(100)
        );
        assert_eq!(attempt_time(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn the_budget_runs_dry_and_refills_by_successes() {
        let budget = Budget::new();
        assert!((0..Budget::FULL).all(|_| budget.try_retry()));
        assert!(!budget.try_retry());
        (0..5).for_each(|_| budget.succeeded());
        assert!(budget.try_retry());
        assert!(!budget.try_retry());
    }
}
