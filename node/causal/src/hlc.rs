//! A hybrid logical clock: wall time that never runs backwards, with a counter for events of one millisecond.
//!
//! It serves display and the choice of a newest version only; nothing is acknowledged, expired or collected by it
//! alone. Source: Kulkarni et al., "Logical Physical Clocks" (2014), with a bound on what a foreign clock can do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A reading: 48 bits of wall milliseconds, 16 bits of order within one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Hlc(pub u64);

impl Hlc {
    const LOGICAL_BITS: u32 = 16;
    const WALL_MS_MAX: u64 = (1 << (u64::BITS - Self::LOGICAL_BITS)) - 1;

    /// The reading `logical` within millisecond `ms`; a later `ms` than 48 bits hold counts as the last of them.
    pub fn new(ms: u64, logical: u16) -> Self {
        Self((ms.min(Self::WALL_MS_MAX) << Self::LOGICAL_BITS) | u64::from(logical))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn wall_ms(self) -> u64 {
        self.0 >> Self::LOGICAL_BITS
    }

    /// The order within the millisecond.
    pub fn logical(self) -> u16 {
        let [.., high, low] = self.0.to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    /// The next reading: later than `self`, and not before `now_ms`. More events in a millisecond than 16 bits count
    /// run into the next one.
    pub fn tick(self, now_ms: u64) -> Self {
        Self(self.0.saturating_add(1)).max(Self::new(now_ms, 0))
    }

    /// The next reading after seeing `other`: later than both. A clock more than `max_ahead_ms` ahead of `now_ms` is
    /// not followed: it would drag every zone into its future.
    pub fn observe(self, other: Self, now_ms: u64, max_ahead_ms: u64) -> Self {
        let followed = other.wall_ms() <= now_ms.saturating_add(max_ahead_ms);
        let base = if followed { self.max(other) } else { self };
        base.tick(now_ms)
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall_ms(), self.logical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wall_clock_set_back_does_not_take_the_reading_back() {
        let reading = Hlc::new(1_000, 0);
        assert_eq!(reading.tick(400), Hlc::new(1_000, 1));
    }

    #[test]
    fn a_full_millisecond_runs_into_the_next() {
        assert_eq!(Hlc::new(1_000, u16::MAX).tick(1_000), Hlc::new(1_001, 0));
    }

    #[test]
    fn a_far_future_clock_is_not_followed() {
        let reading = Hlc::new(1_000, 0);
        let poisoned = Hlc::new(u64::MAX, u16::MAX);
        assert_eq!(reading.observe(poisoned, 1_000, 500), Hlc::new(1_000, 1));
        assert_eq!(
            reading.observe(Hlc::new(1_500, 3), 1_000, 500),
            Hlc::new(1_500, 4)
        );
        assert_eq!(
            reading.observe(Hlc::new(1_501, 0), 1_000, 500),
            Hlc::new(1_000, 1)
        );
    }

    proptest! {
        #[test]
        fn a_tick_is_later_and_not_before_now(ms in 0..1u64 << 47, logical: u16, now in 0..1u64 << 47) {
            let before = Hlc::new(ms, logical);
            let after = before.tick(now);
            prop_assert!(after > before);
            prop_assert!(after.wall_ms() >= now);
            prop_assert_eq!(Hlc::new(after.wall_ms(), after.logical()), after);
        }

        #[test]
        fn an_observed_clock_moves_the_reading_at_most_by_the_bound(
            ms in 0..1u64 << 40, other: u64, now in 0..1u64 << 40, ahead in 0..1u64 << 20,
        ) {
            let before = Hlc::new(ms, 0);
            let after = before.observe(Hlc(other), now, ahead);
            prop_assert!(after > before);
            prop_assert!(after.wall_ms() <= ms.max(now + ahead) + 1);
        }
    }
}
