//! Which core of a node a message is for, and how an answer finds back to the core that asked.
//!
//! Drivers use it on both ends: what leaves a core goes through [`outgoing`], what reaches a node through [`incoming`],
//! also when a node's cores speak to one another.

use crate::catalog::Catalog;
use crate::ids::{RequestId, ShardId};
use crate::message::PeerMessage;

/// A forward's number carries the index of the core that sent it in its upper bits, so that the answer finds back.
const CORE_SHIFT: u32 = 56;

/// The message as it leaves core `index`.
pub fn outgoing(message: PeerMessage, index: u64) -> PeerMessage {
    match message {
        PeerMessage::Forward {
            id,
            deadline_ms,
            request,
        } => PeerMessage::Forward {
            id: RequestId(id.0 | (index << CORE_SHIFT)),
            deadline_ms,
            request,
        },
        PeerMessage::Raft { .. }
        | PeerMessage::Forwarded { .. }
        | PeerMessage::Exchange { .. }
        | PeerMessage::Image { .. }
        | PeerMessage::Admission(_) => message,
    }
}

/// The core that `message` is for, of `cores`, and the message as that core knows it.
pub fn incoming(message: PeerMessage, catalog: &Catalog, cores: usize) -> (usize, PeerMessage) {
    let cores = cores.max(1);
    match message {
        PeerMessage::Forwarded { id, result } => {
            let index = usize::try_from(id.0 >> CORE_SHIFT).unwrap_or(0) % cores;
            let own = RequestId(id.0 & ((1 << CORE_SHIFT) - 1));
            (index, PeerMessage::Forwarded { id: own, result })
        }
        PeerMessage::Raft { group, .. } | PeerMessage::Image { group, .. } => {
            (owner(group.shard, cores), message)
        }
        PeerMessage::Exchange { shard, .. } => (owner(shard, cores), message),
        PeerMessage::Forward { ref request, .. } => (owner(request.shard(catalog), cores), message),
        PeerMessage::Admission(_) => (0, message),
    }
}

fn owner(shard: ShardId, cores: usize) -> usize {
    usize::from(shard.0).checked_rem(cores).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::ids::GroupId;
    use crate::request::Request;

    #[test]
    fn an_answer_to_a_forward_finds_the_core_that_sent_it() {
        let forward = PeerMessage::Forward {
            id: RequestId(77),
            deadline_ms: 1,
            request: Box::new(Request::Groups),
        };
        let PeerMessage::Forward { id, .. } = outgoing(forward, 3) else {
            panic!("another message")
        };
        let answer = PeerMessage::Forwarded {
            id,
            result: Box::new(Err(Error::NoQuorum)),
        };
        let (index, own) = incoming(answer, &Catalog::default(), 4);
        assert_eq!(index, 3);
        assert!(matches!(
            own,
            PeerMessage::Forwarded {
                id: RequestId(77),
                ..
            }
        ));
    }

    #[test]
    fn a_core_that_does_not_exist_is_never_named() {
        let answer = PeerMessage::Forwarded {
            id: RequestId(u64::MAX),
            result: Box::new(Err(Error::NoQuorum)),
        };
        assert!(incoming(answer, &Catalog::default(), 2).0 < 2);
        let group = GroupId {
            shard: ShardId(u16::MAX),
            ..GroupId::default()
        };
        let image = PeerMessage::Image {
            group,
            body: crate::message::Image::Lost { image: 1 },
        };
        assert_eq!(incoming(image, &Catalog::default(), 2).0, 1);
    }
}
