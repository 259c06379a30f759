//! Which core of a node a message of another node is for.

use meridian_core::catalog::Catalog;
use meridian_core::ids::{KeyspaceId, RequestId, ShardId};
use meridian_core::message::PeerMessage;
use meridian_core::request::{Query, Request};

/// A forward's number carries the index of the core that sent it in its upper bits, so that the answer finds back.
const CORE_SHIFT: u32 = 56;

/// The message as it leaves core `index`.
pub(super) fn outgoing(message: PeerMessage, index: u64) -> PeerMessage {
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
pub(super) fn incoming(
    message: PeerMessage,
    catalog: &Catalog,
    cores: usize,
) -> (usize, PeerMessage) {
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
        PeerMessage::Forward { ref request, .. } => {
            (owner(shard_of(request, catalog), cores), message)
        }
        PeerMessage::Admission(_) => (0, message),
    }
}

fn owner(shard: ShardId, cores: usize) -> usize {
    usize::from(shard.0).checked_rem(cores).unwrap_or(0)
}

/// The shard a request is for; the control group's are on the first core.
fn shard_of(request: &Request, catalog: &Catalog) -> ShardId {
    match request {
        Request::Write(write) => shard_of_key(catalog, write.keyspace, &write.key),
        Request::Read(read) => match &read.query {
            Query::Get { key } => shard_of_key(catalog, read.keyspace, key),
            Query::Scan { shard, .. } | Query::Digest { shard } => *shard,
        },
        Request::Lag { shard, .. } => *shard,
        Request::KeyspaceCreate { .. }
        | Request::KeyspaceDelete { .. }
        | Request::Reincarnate { .. }
        | Request::Groups => ShardId(0),
    }
}

fn shard_of_key(catalog: &Catalog, keyspace: KeyspaceId, key: &[u8]) -> ShardId {
    catalog
        .keyspaces
        .get(&keyspace)
        .map_or(ShardId(0), |keyspace| keyspace.shard_of(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_core::Error;
    use meridian_core::ids::GroupId;

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
            body: meridian_core::message::Image::Lost { image: 1 },
        };
        assert_eq!(incoming(image, &Catalog::default(), 2).0, 1);
    }
}
