//! The event queue: virtual nanoseconds, ties broken by the order of scheduling.
//!
//! Invariant: time never goes back; an event scheduled for the past happens now.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Events in the order of their time.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    now: u64,
    sequence: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: u64,
    sequence: u64,
    event: E,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            now: 0,
            sequence: 0,
        }
    }
}

impl<E> Queue<E> {
    /// Virtual nanoseconds since the start.
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// Schedules an event.
    pub fn at(&mut self, at: u64, event: E) {
        let at = at.max(self.now);
        self.sequence += 1;
        self.heap.push(Entry {
            at,
            sequence: self.sequence,
            event,
        });
    }

    /// Schedules an event some time from now.
    pub fn after(&mut self, delay: u64, event: E) {
        self.at(self.now.saturating_add(delay), event);
    }

    /// The next event; time moves to it.
    pub fn pop(&mut self) -> Option<E> {
        let entry = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }

    /// Time of the next event.
    pub fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.at)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    /// Reversed: the heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_then_of_scheduling() {
        let mut queue = Queue::default();
        queue.at(20, "late");
        queue.at(10, "first");
        queue.at(10, "second");
        assert_eq!(
            [queue.pop(), queue.pop(), queue.pop()],
            [Some("first"), Some("second"), Some("late")]
        );
    }

    #[test]
    fn an_event_scheduled_for_the_past_happens_now() {
        let mut queue = Queue::default();
        queue.at(20, "a");
        queue.pop();
        queue.at(5, "b");
        queue.pop();
        assert_eq!(queue.now(), 20);
    }
}
