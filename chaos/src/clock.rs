//! A node's clocks: a monotonic one that drifts and starts anywhere at each boot, a wall clock that is skewed, drifts
//! and is set.

use meridian_core::Now;
use rand::rngs::SmallRng;

use crate::rng::{Draw, MS, SEC};
use crate::scenario::FaultProfile;

/// Wall-clock milliseconds of the true time at the start of every run: 2026-01-01.
pub const EPOCH_MS: u64 = 1_767_225_600_000;

/// The clocks of one node.
#[derive(Debug)]
pub struct NodeClock {
    rng: SmallRng,
    /// Nanoseconds gained per true millisecond, offset by `drift_max`.
    drift: u64,
    drift_max: u64,
    boot_at: u64,
    mono_base: u64,
    wall_base_ms: u64,
}

impl NodeClock {
    /// The clocks of a node that boots at virtual time 0.
    pub fn new(profile: &FaultProfile, mut rng: SmallRng) -> Self {
        let drift_max = profile.drift_ppm_max;
        let drift = rng.between(0, drift_max * 2 + 1);
        let wall_base_ms =
            EPOCH_MS + rng.between(0, profile.skew_ms_max * 2 + 1) - profile.skew_ms_max;
        let mono_base = rng.between(0, 1000 * SEC);
        Self {
            rng,
            drift,
            drift_max,
            boot_at: 0,
            mono_base,
            wall_base_ms,
        }
    }

    /// The machine starts again: its monotonic clock starts anywhere.
    pub fn reboot(&mut self, virtual_ns: u64) {
        self.boot_at = virtual_ns;
        self.mono_base = self.rng.between(0, 1000 * SEC);
    }

    /// Somebody sets the wall clock, by up to `most_ms` either way.
    pub fn jump(&mut self, most_ms: u64) {
        self.wall_base_ms = self.wall_base_ms + self.rng.between(0, most_ms * 2 + 1) - most_ms;
    }

    /// What a step at this virtual time is told.
    pub fn now(&self, virtual_ns: u64) -> Now {
        let elapsed = virtual_ns.saturating_sub(self.boot_at);
        Now {
            mono_ns: self.mono_base + self.drifted(elapsed),
            wall_ms: self.wall_base_ms + self.drifted(virtual_ns) / MS,
        }
    }

    fn drifted(&self, elapsed: u64) -> u64 {
        let millis = elapsed / MS;
        (elapsed + millis * self.drift).saturating_sub(millis * self.drift_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Streams;
    use crate::scenario::{Options, Scenario};
    use meridian_core::config::PlantedBugs;

    fn clock(seed: u64) -> NodeClock {
        let options = Options {
            seed,
            seconds: 60,
            topology: None,
            mode: meridian_core::catalog::Mode::Async,
            alters: crate::scenario::Alters::Never,
            planted: PlantedBugs::default(),
        };
        NodeClock::new(
            &Scenario::draw(&options).faults,
            Streams::new(seed).stream("clock", 0),
        )
    }

    #[test]
    fn the_monotonic_clock_never_goes_back_while_a_boot_lasts() {
        for seed in 0..20 {
            let mut clock = clock(seed);
            let mut last = clock.now(0);
            for step in 1..1000_u64 {
                if step % 100 == 0 {
                    clock.jump(1000);
                }
                let now = clock.now(step * 777_777);
                assert!(now.mono_ns >= last.mono_ns);
                last = now;
            }
        }
    }

    #[test]
    fn clocks_of_two_nodes_differ() {
        assert_ne!(clock(1).now(60 * SEC), clock(2).now(60 * SEC));
    }
}
