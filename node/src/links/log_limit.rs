//! A line of log that a peer can provoke is written at most once in a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Least time between two lines.
const EVERY: Duration = Duration::from_secs(5);

/// Counts what it holds back.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    state: Mutex<(Option<Instant>, u64)>,
}

impl LogLimit {
    /// `Some(held back since the last line)` when a line may be written now.
    pub(super) fn allow(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, held_back) = &mut *state;
        if last.is_some_and(|last| last.elapsed() < EVERY) {
            *held_back += 1;
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_written_and_a_flood_is_held_back() {
        let limit = LogLimit::default();
        assert_eq!(limit.allow(), Some(0));
        assert!((0..100).all(|_| limit.allow().is_none()));
    }
}
