//! What waits for one other node: bounded in messages and bytes. What finds no room is dropped, newest first, since
//! the oldest are what the other side waits for.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use meridian_core::message::PeerMessage;
use tokio::sync::Notify;

use super::weight::weight;
use crate::limits::{FRAME_BYTES_MAX, FRAME_MESSAGES_MAX, LINK_BYTES_MAX, LINK_MESSAGES_MAX};

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<(PeerMessage, usize)>,
    bytes: usize,
}

/// The queue of one link.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    some: Notify,
}

impl Queue {
    /// Adds messages; says how many found no room.
    pub(super) fn push(&self, messages: Vec<PeerMessage>) -> usize {
        let mut dropped = 0;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for message in messages {
            let bytes = weight(&message);
            let full = waiting.messages.len() >= LINK_MESSAGES_MAX
                || waiting.bytes + bytes > LINK_BYTES_MAX;
            if full && !waiting.messages.is_empty() {
                dropped += 1;
            } else {
                waiting.bytes += bytes;
                waiting.messages.push_back((message, bytes));
            }
        }
        drop(waiting);
        self.some.notify_one();
        dropped
    }

    /// Takes what fits one frame, with its size; at least one message if there is any.
    pub(super) fn take_frame(&self) -> (Vec<PeerMessage>, usize) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        let mut size = 0;
        while let Some((_, bytes)) = waiting.messages.front() {
            let fits = taken.len() < FRAME_MESSAGES_MAX && size + bytes <= FRAME_BYTES_MAX;
            if !fits && !taken.is_empty() {
                break;
            }
            if let Some((message, bytes)) = waiting.messages.pop_front() {
                waiting.bytes = waiting.bytes.saturating_sub(bytes);
                size += bytes;
                taken.push(message);
            }
        }
        (taken, size)
    }

    /// Waits until there may be a message.
    pub(super) async fn ready(&self) {
        while self.len() == 0 {
            self.some.notified().await;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .messages
            .len()
    }

    /// Forgets what waits: it was meant for a moment that has passed.
    pub(super) fn clear(&self) -> usize {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.bytes = 0;
        let dropped = waiting.messages.len();
        waiting.messages.clear();
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use meridian_core::ids::GroupId;
    use meridian_core::message::Image;

    fn page(value: usize) -> PeerMessage {
        let records = vec![(Bytes::new(), Bytes::from(vec![0; value]))];
        let body = Image::Page {
            image: 1,
            after: Bytes::new(),
            records,
            done: false,
        };
        PeerMessage::Image {
            group: GroupId::CONTROL,
            body,
        }
    }

    #[test]
    fn a_full_queue_drops_the_newest_and_says_how_many() {
        let queue = Queue::default();
        let pages = LINK_BYTES_MAX / (1 << 20);
        let dropped = queue.push((0..pages + 3).map(|_| page(1 << 20)).collect());
        assert!(dropped >= 3, "{dropped}");
        assert_eq!(queue.len() + dropped, pages + 3);
    }

    #[test]
    fn a_frame_is_bounded_and_holds_at_least_one_message() {
        let queue = Queue::default();
        queue.push(vec![page(FRAME_BYTES_MAX * 2), page(1)]);
        assert_eq!(queue.take_frame().0.len(), 1);
        assert_eq!(queue.take_frame().0.len(), 1);
        assert_eq!(queue.take_frame().0.len(), 0);
        queue.push((0..=FRAME_MESSAGES_MAX).map(|_| page(1)).collect());
        assert_eq!(queue.take_frame().0.len(), FRAME_MESSAGES_MAX);
    }

    #[test]
    fn a_message_larger_than_the_queue_still_passes_when_it_is_alone() {
        let queue = Queue::default();
        assert_eq!(queue.push(vec![page(LINK_BYTES_MAX + 1)]), 0);
        assert_eq!(queue.len(), 1);
    }
}
