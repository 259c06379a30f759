//! How long a core thread lets work come together before it writes again.
//!
//! A write of the disk costs the same however much is in it. Where processors are idle, that is nobody's loss, and whoever
//! asks is answered soonest if every turn is written at once. Where they are not, many small turns take away the time in which
//! larger ones would be done already. So a thread that finds itself waiting for a processor pauses between synced turns, a
//! little longer each time it looks, and a little shorter once it does not wait.
//!
//! What it is not: a delay for reads or for consensus (those who ask for them do not wait here), nor for who writes alone: his
//! write may cut short a pause that follows the merges of other zones.
//!
//! Source: the run delay of the thread, second number of `/proc/thread-self/schedstat` (Documentation/scheduler/sched-stats).
//! Where the kernel keeps none, nothing pauses.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::limits::{
    TURN_PAUSE_INPUTS_MIN, TURN_PAUSE_MAX, TURN_PAUSE_REQUESTS_MIN, TURN_PAUSE_STEP,
};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Of the time since the last look, in percent: above, a thread waits too much; below the other, it does not.
const WAITS_PERCENT: u128 = 10;
const WAITS_NOT_PERCENT: u128 = 4;

/// See the module.
pub(super) struct Pacing {
    schedstat: Option<File>,
    /// At the last look.
    looked_at: Instant,
    waited: Duration,
    pause: Duration,
    /// No synced turn before.
    until: Instant,
    /// Not for a client's request either.
    holds_clients: bool,
}

impl Pacing {
    /// Never pauses.
    pub(super) fn none() -> Self {
        let now = Instant::now();
        Self {
            schedstat: None,
            looked_at: now,
            waited: Duration::ZERO,
            pause: Duration::ZERO,
            until: now,
            holds_clients: false,
        }
    }

    /// Of the thread that calls this.
    pub(super) fn of_this_thread() -> Self {
        let schedstat = File::open("/proc/thread-self/schedstat").ok();
        let waited = schedstat.as_ref().and_then(run_delay).unwrap_or_default();
        Self {
            schedstat,
            waited,
            ..Self::none()
        }
    }

    /// A synced turn of so many inputs begins, of which so many are requests of clients.
    pub(super) fn begins(&mut self, now: Instant, inputs: usize, requests: usize) {
        self.look(now);
        if inputs >= TURN_PAUSE_INPUTS_MIN {
            self.until = now + self.pause;
            self.holds_clients = requests >= TURN_PAUSE_REQUESTS_MIN;
        }
    }

    /// How long work may still come together, while so many requests of clients wait.
    pub(super) fn left(&self, now: Instant, requests: usize) -> Duration {
        if requests > 0 && !self.holds_clients {
            return Duration::ZERO;
        }
        self.until.saturating_duration_since(now)
    }

    fn look(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.looked_at);
        if passed < LOOK_EVERY {
            return;
        }
        let Some(waited) = self.schedstat.as_ref().and_then(run_delay) else {
            return;
        };
        let share = waited.saturating_sub(self.waited);
        self.pause = adapted(self.pause, share, passed);
        (self.looked_at, self.waited) = (now, waited);
    }
}

/// The pause after a time of which so much was spent waiting for a processor.
fn adapted(pause: Duration, waited: Duration, passed: Duration) -> Duration {
    let percent = waited.as_nanos() * 100;
    if percent > passed.as_nanos() * WAITS_PERCENT {
        (pause + TURN_PAUSE_STEP).min(TURN_PAUSE_MAX)
    } else if percent < passed.as_nanos() * WAITS_NOT_PERCENT {
        pause.saturating_sub(TURN_PAUSE_STEP)
    } else {
        pause
    }
}

/// How long the thread has waited for a processor so far.
fn run_delay(schedstat: &File) -> Option<Duration> {
    let mut bytes = [0_u8; 96];
    let length = schedstat.read_at(&mut bytes, 0).ok()?;
    parsed(std::str::from_utf8(bytes.get(..length)?).ok()?)
}

fn parsed(schedstat: &str) -> Option<Duration> {
    let ns = schedstat.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: Duration = Duration::from_millis(50);

    fn after(looks: usize, waited: Duration, pause: Duration) -> Duration {
        (0..looks).fold(pause, |pause, _| adapted(pause, waited, PASSED))
    }

    #[test]
    fn a_thread_that_waits_for_a_processor_pauses_longer_up_to_a_bound() {
        let waited = PASSED / 5;
        assert_eq!(after(1, waited, Duration::ZERO), TURN_PAUSE_STEP);
        assert_eq!(after(1_000, waited, Duration::ZERO), TURN_PAUSE_MAX);
    }

    #[test]
    fn a_thread_that_does_not_wait_stops_pausing() {
        assert_eq!(after(1_000, PASSED / 100, TURN_PAUSE_MAX), Duration::ZERO);
    }

    #[test]
    fn between_the_two_nothing_changes() {
        let pause = 2 * TURN_PAUSE_STEP;
        assert_eq!(after(9, PASSED / 14, pause), pause);
    }

    #[test]
    fn few_inputs_do_not_wait_and_nor_does_who_writes_alone() {
        let mut pacing = Pacing::none();
        pacing.pause = TURN_PAUSE_MAX;
        let now = Instant::now();
        let many = TURN_PAUSE_INPUTS_MIN;
        pacing.begins(now, many - 1, many - 1);
        assert_eq!(pacing.left(now, 0), Duration::ZERO);
        pacing.begins(now, many, TURN_PAUSE_REQUESTS_MIN - 1);
        assert_eq!(pacing.left(now, 0), TURN_PAUSE_MAX);
        assert_eq!(pacing.left(now, 1), Duration::ZERO);
        pacing.begins(now, many, TURN_PAUSE_REQUESTS_MIN);
        assert_eq!(pacing.left(now, 1), TURN_PAUSE_MAX);
    }

    #[test]
    fn a_line_of_the_kernel_is_read_and_another_is_not() {
        assert_eq!(parsed("17 2300 4\n"), Some(Duration::from_nanos(2300)));
        assert_eq!(parsed("17"), None);
        assert_eq!(parsed("17 x 4"), None);
    }
}
