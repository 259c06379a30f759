//! The envelope of messages between nodes, with images, forwards and admission.

use meridian_causal::ZoneId;
use meridian_core::ids::{KeyspaceId, NodeId, RequestId, ShardId, Side};
use meridian_core::message::{Admission, Image, PeerMessage, Standing};
use meridian_proto::peer::v1 as pb;
use pb::peer_message::Message as Wire;

use super::wire::{
    WireError, group_from_wire, group_to_wire, needed, pack, pairs_from_wire, pairs_to_wire, small,
    unpack, wide, wide_bytes,
};
use super::{exchange, raft};

/// What goes onto a link.
pub(crate) fn to_wire(message: PeerMessage) -> pb::PeerMessage {
    let wire = match message {
        PeerMessage::Raft { group, message } => Wire::Raft(pb::Raft {
            group: Some(group_to_wire(group)),
            message: Some(raft::to_wire(*message)),
        }),
        PeerMessage::Forward {
            id,
            deadline_ms,
            request,
        } => Wire::Forward(pb::Forward {
            id: id.0,
            deadline_ms,
            request: pack(&*request),
        }),
        PeerMessage::Forwarded { id, result } => Wire::Forwarded(pb::Forwarded {
            id: id.0,
            result: pack(&*result),
        }),
        PeerMessage::Exchange {
            shard,
            from,
            to,
            reply_to,
            passed,
            body,
        } => Wire::Exchange(pb::Exchange {
            keyspace: to.keyspace.0,
            from_keyspace: from.keyspace.0,
            shard: u32::from(shard.0),
            from_zone: u32::from(from.zone.0),
            to_zone: u32::from(to.zone.0),
            reply_to: reply_to.0,
            passed,
            body: Some(exchange::to_wire(body)),
        }),
        PeerMessage::Image { group, body } => Wire::Image(pb::Image {
            group: Some(group_to_wire(group)),
            body: Some(image_to_wire(body)),
        }),
        PeerMessage::Admission(admission) => Wire::Admission(pb::Admission {
            body: Some(admission_to_wire(admission)),
        }),
    };
    pb::PeerMessage {
        message: Some(wire),
    }
}

/// What came from a link.
pub(crate) fn from_wire(message: pb::PeerMessage) -> Result<PeerMessage, WireError> {
    Ok(match needed("message", message.message)? {
        Wire::Raft(raft_message) => PeerMessage::Raft {
            group: group_from_wire(raft_message.group)?,
            message: Box::new(raft::from_wire(raft_message.message)?),
        },
        Wire::Forward(forward) => PeerMessage::Forward {
            id: RequestId(forward.id),
            deadline_ms: forward.deadline_ms,
            request: Box::new(unpack("request", &forward.request)?),
        },
        Wire::Forwarded(forwarded) => PeerMessage::Forwarded {
            id: RequestId(forwarded.id),
            result: Box::new(unpack("result", &forwarded.result)?),
        },
        Wire::Exchange(message) => PeerMessage::Exchange {
            shard: ShardId(small("shard", message.shard)?),
            from: Side {
                keyspace: KeyspaceId(message.from_keyspace),
                zone: ZoneId(small("zone", message.from_zone)?),
            },
            to: Side {
                keyspace: KeyspaceId(message.keyspace),
                zone: ZoneId(small("zone", message.to_zone)?),
            },
            reply_to: NodeId(message.reply_to),
            passed: message.passed,
            body: exchange::from_wire(message.body)?,
        },
        Wire::Image(image) => PeerMessage::Image {
            group: group_from_wire(image.group)?,
            body: image_from_wire(needed("image", image.body)?),
        },
        Wire::Admission(admission) => {
            PeerMessage::Admission(admission_from_wire(needed("admission", admission.body)?)?)
        }
    })
}

fn image_to_wire(image: Image) -> pb::image::Body {
    match image {
        Image::Fetch { image, after } => pb::image::Body::Fetch(pb::ImageFetch { image, after }),
        Image::Page {
            image,
            after,
            records,
            done,
        } => pb::image::Body::Page(pb::ImagePage {
            image,
            after,
            records: pairs_to_wire(records),
            done,
        }),
        Image::Lost { image } => pb::image::Body::Lost(pb::ImageLost { image }),
    }
}

fn image_from_wire(body: pb::image::Body) -> Image {
    match body {
        pb::image::Body::Fetch(fetch) => Image::Fetch {
            image: fetch.image,
            after: fetch.after,
        },
        pb::image::Body::Page(page) => Image::Page {
            image: page.image,
            after: page.after,
            records: pairs_from_wire(page.records),
            done: page.done,
        },
        pb::image::Body::Lost(lost) => Image::Lost { image: lost.image },
    }
}

fn admission_to_wire(admission: Admission) -> pb::admission::Body {
    match admission {
        Admission::Hello {
            cluster,
            store,
            standing,
        } => pb::admission::Body::Hello(pb::Hello {
            cluster,
            store: wide_bytes(store),
            standing: i32::from(standing_to_wire(standing)),
        }),
        Admission::Known {
            store,
            on_record,
            admitted,
        } => pb::admission::Body::Known(pb::StoreKnown {
            store: wide_bytes(store),
            on_record: wide_bytes(on_record),
            admitted,
        }),
    }
}

fn admission_from_wire(body: pb::admission::Body) -> Result<Admission, WireError> {
    Ok(match body {
        pb::admission::Body::Hello(hello) => Admission::Hello {
            store: wide("store", &hello.store)?,
            standing: standing_from_wire(hello.standing)?,
            cluster: hello.cluster,
        },
        pb::admission::Body::Known(known) => Admission::Known {
            store: wide("store", &known.store)?,
            on_record: wide("store", &known.on_record)?,
            admitted: known.admitted,
        },
    })
}

const fn standing_to_wire(standing: Standing) -> pb::Standing {
    match standing {
        Standing::Asking => pb::Standing::Asking,
        Standing::Wiped => pb::Standing::Wiped,
        Standing::Member => pb::Standing::Member,
    }
}

fn standing_from_wire(standing: i32) -> Result<Standing, WireError> {
    match pb::Standing::try_from(standing) {
        Ok(pb::Standing::Asking) => Ok(Standing::Asking),
        Ok(pb::Standing::Wiped) => Ok(Standing::Wiped),
        Ok(pb::Standing::Member) => Ok(Standing::Member),
        Ok(pb::Standing::Unspecified) | Err(_) => Err(WireError::OutOfRange {
            what: "standing",
            found: i64::from(standing),
        }),
    }
}
