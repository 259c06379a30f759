//! A delay line: what enters leaves later, in the order it entered, whatever the delay was changed to meanwhile.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Bytes under way; past it nothing more enters, and the queue in front fills instead.
const BYTES_MAX: usize = 64 << 20;

/// Things under way.
#[derive(Debug)]
pub(super) struct Line<T> {
    waiting: VecDeque<(Instant, T, usize)>,
    bytes: usize,
}

impl<T> Line<T> {
    pub(super) const fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Something of `bytes` enters, to leave after `delay`, and not before what entered earlier.
    pub(super) fn enter(&mut self, now: Instant, delay: Duration, item: T, bytes: usize) {
        let earliest = self.waiting.back().map_or(now, |(last, ..)| *last);
        self.bytes += bytes;
        self.waiting
            .push_back((earliest.max(now + delay), item, bytes));
    }

    /// What is due, oldest first.
    pub(super) fn leave(&mut self, now: Instant) -> Option<T> {
        if self.waiting.front().is_none_or(|(due, ..)| *due > now) {
            return None;
        }
        let (_, item, bytes) = self.waiting.pop_front()?;
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(item)
    }

    /// Waits until something is due; for ever when the line is empty.
    pub(super) async fn due(&self) {
        match self.waiting.front() {
            Some((due, ..)) => tokio::time::sleep_until(*due).await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) const fn has_room(&self) -> bool {
        self.bytes < BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn what_enters_leaves_in_order_though_the_delay_shrinks() {
        let mut line = Line::new();
        line.enter(Instant::now(), 50 * MS, "first", 1);
        line.enter(Instant::now(), 10 * MS, "second", 1);
        tokio::time::advance(20 * MS).await;
        assert_eq!(line.leave(Instant::now()), None);
        tokio::time::advance(30 * MS).await;
        assert_eq!(line.leave(Instant::now()), Some("first"));
        assert_eq!(line.leave(Instant::now()), Some("second"));
        assert!(line.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_due_when_the_delay_is_over() {
        let mut line = Line::new();
        let began = Instant::now();
        line.enter(began, 70 * MS, (), 1);
        line.due().await;
        assert_eq!(began.elapsed(), 70 * MS);
        assert!(line.leave(Instant::now()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_line_says_so() {
        let mut line = Line::new();
        line.enter(Instant::now(), MS, (), BYTES_MAX);
        assert!(!line.has_room());
        tokio::time::advance(MS).await;
        line.leave(Instant::now());
        assert!(line.has_room());
    }
}
