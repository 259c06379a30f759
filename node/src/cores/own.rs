//! Messages that cores of this node address to one another: they go from inbox to inbox, never over the network.
//!
//! As on a link, what finds no room is dropped: a core thread waits for nobody.

use std::sync::atomic::Ordering;

use meridian_core::catalog::Catalog;
use meridian_core::message::PeerMessage;

use super::{Cores, Inbox, Work, route};
use crate::limits::CORE_PEER_BYTES_MAX;
use crate::links::weight;

impl Cores {
    /// Brings messages of this node to the cores they are for.
    pub(super) fn loop_back(&self, messages: Vec<PeerMessage>) {
        let parts = by_core(messages, &self.shared.catalog(), self.inboxes.len());
        for (inbox, (part, bytes)) in self.inboxes.iter().zip(parts) {
            self.loop_back_to(inbox, part, bytes);
        }
    }

    fn loop_back_to(&self, inbox: &Inbox, messages: Vec<PeerMessage>, bytes: usize) {
        if messages.is_empty() {
            return;
        }
        let waiting = &inbox.depth.peer_bytes;
        if waiting.load(Ordering::Relaxed) > CORE_PEER_BYTES_MAX {
            self.shared.metrics.dropped_incoming(messages.len());
            return;
        }
        waiting.fetch_add(bytes, Ordering::Relaxed);
        let from = self.shared.node;
        let work = Work::Peer {
            from,
            messages,
            bytes,
        };
        if inbox.sender.send(work).is_err() {
            // The thread has ended, and so has all that waited for it.
            waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// The messages for each of `cores`, as that core knows them, and about how many bytes they are.
fn by_core(
    messages: Vec<PeerMessage>,
    catalog: &Catalog,
    cores: usize,
) -> Vec<(Vec<PeerMessage>, usize)> {
    let mut parts: Vec<(Vec<PeerMessage>, usize)> = Vec::new();
    parts.resize_with(cores, Default::default);
    for message in messages {
        let weight = weight(&message);
        let (index, message) = route::incoming(message, catalog, cores);
        if let Some((part, bytes)) = parts.get_mut(index) {
            part.push(message);
            *bytes += weight;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use meridian_core::Error;
    use meridian_core::ids::{KeyspaceId, RequestId, ShardId};
    use meridian_core::request::Request;

    use super::*;

    fn forward(shard: u16) -> PeerMessage {
        PeerMessage::Forward {
            id: RequestId(77),
            deadline_ms: 1,
            request: Box::new(Request::Lag {
                keyspace: KeyspaceId(1),
                shard: ShardId(shard),
            }),
        }
    }

    #[test]
    fn a_question_to_another_core_finds_it_and_its_answer_finds_back() {
        let catalog = Catalog::default();
        let asked = by_core(vec![route::outgoing(forward(6), 2)], &catalog, 4);
        let sizes: Vec<_> = asked.iter().map(|(part, _)| part.len()).collect();
        assert_eq!(sizes, [0, 0, 1, 0]);

        let asked = by_core(vec![route::outgoing(forward(5), 2)], &catalog, 4);
        let (part, bytes) = asked.into_iter().nth(1).unwrap();
        assert!(bytes > 0);
        let Some(PeerMessage::Forward { id, .. }) = part.into_iter().next() else {
            panic!("another message")
        };
        let result = Box::new(Err(Error::NoQuorum));
        let answered = by_core(vec![PeerMessage::Forwarded { id, result }], &catalog, 4);
        let (part, _) = answered.into_iter().nth(2).unwrap();
        let id = RequestId(77);
        assert!(matches!(part.as_slice(), [PeerMessage::Forwarded { id: own, .. }] if *own == id));
    }

    #[test]
    fn a_message_for_no_core_is_dropped() {
        assert!(by_core(vec![forward(1)], &Catalog::default(), 0).is_empty());
    }
}
