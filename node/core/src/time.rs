//! The time a step is told. The core has no clock of its own.

/// A reading of the two clocks of the machine, taken by the shell (or the simulator) once per step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Monotonic nanoseconds since an arbitrary start; never goes back. Every timeout is measured on it.
    pub mono_ns: u64,
    /// Wall-clock milliseconds since 1970; may jump. Serves stamps and display only.
    pub wall_ms: u64,
}

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;

impl Now {
    /// The monotonic time `ms` milliseconds from now.
    pub const fn after_ms(self, ms: u64) -> u64 {
        self.mono_ns.saturating_add(ms.saturating_mul(MS))
    }
}
