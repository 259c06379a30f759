//! The two clocks of the machine, as the core wants them told.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use meridian_core::Now;

/// Tells the time since one common start; copies agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts at zero.
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Both readings.
    pub(crate) fn now(self) -> Now {
        Now {
            mono_ns: self.mono_ns(),
            wall_ms: wall_ms(),
        }
    }

    /// The monotonic reading.
    pub(crate) fn mono_ns(self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Milliseconds since 1970; 0 on a machine that believes to be before it.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
