//! Messages of the exchange between zones.

use std::collections::BTreeMap;

use meridian_causal::{Content, Hlc, Incarnation, OpId, TransactionTag, VersionVector};
use meridian_core::command::Effect;
use meridian_core::message::Exchange;
use meridian_proto::peer::v1 as pb;
use pb::exchange::Body;

use super::wire::{
    WireError, context, context_bytes, needed, pairs_from_wire, pairs_to_wire, small, vector,
    vector_bytes, wide, wide_bytes,
};

#[expect(
    clippy::too_many_lines,
    reason = "one arm for each message, and nothing else"
)]
pub(crate) fn to_wire(body: Exchange) -> Body {
    match body {
        Exchange::Subscribe {
            received,
            known,
            relay,
            rewind,
            incarnation,
        } => Body::Subscribe(pb::Subscribe {
            received: vector_bytes(&received),
            known: known_to_wire(known),
            relay: relay.into_iter().map(Incarnation::raw).collect(),
            rewind,
            incarnation: incarnation.raw(),
        }),
        Exchange::Effects {
            incarnation,
            first,
            effects,
            received,
        } => Body::Effects(pb::Effects {
            incarnation: incarnation.raw(),
            first,
            effects: effects.into_iter().map(effect_to_wire).collect(),
            received: vector_bytes(&received),
        }),
        Exchange::MustCompare => Body::MustCompare(pb::MustCompare {}),
        Exchange::CompareOpen { session } => Body::CompareOpen(pb::CompareOpen { session }),
        Exchange::CompareOpened { session, snapshot } => Body::CompareOpened(pb::CompareOpened {
            session,
            snapshot: vector_bytes(&snapshot),
        }),
        Exchange::CompareHashes { session, from } => {
            Body::CompareHashes(pb::CompareHashes { session, from })
        }
        Exchange::CompareRanges {
            session,
            from,
            ranges,
        } => Body::CompareRanges(pb::CompareRanges {
            session,
            from,
            ranges: ranges.into_iter().map(range_to_wire).collect(),
        }),
        Exchange::CompareFetch { session, from, to } => {
            Body::CompareFetch(pb::CompareFetch { session, from, to })
        }
        Exchange::CompareStates {
            session,
            from,
            to,
            states,
        } => Body::CompareStates(pb::CompareStates {
            session,
            from,
            to,
            states: pairs_to_wire(states),
        }),
        Exchange::CompareRecall {
            session,
            from,
            received,
        } => Body::CompareRecall(pb::CompareRecall {
            session,
            from,
            received: vector_bytes(&received),
        }),
        Exchange::CompareRecalled {
            session,
            from,
            next,
            floor_ms,
            operations,
        } => Body::CompareRecalled(pb::CompareRecalled {
            session,
            from,
            next,
            floor_ms,
            operations: pairs_to_wire(operations),
        }),
        Exchange::CompareLost { session } => Body::CompareLost(pb::CompareLost { session }),
    }
}

fn range_to_wire((to, hash): (bytes::Bytes, u128)) -> pb::RangeHash {
    pb::RangeHash {
        to,
        hash: wide_bytes(hash),
    }
}

fn known_to_wire(known: BTreeMap<Incarnation, VersionVector>) -> Vec<pb::Known> {
    let known_of = |(group, received): (Incarnation, VersionVector)| pb::Known {
        incarnation: group.raw(),
        received: vector_bytes(&received),
    };
    known.into_iter().map(known_of).collect()
}

pub(crate) fn from_wire(body: Option<Body>) -> Result<Exchange, WireError> {
    Ok(match needed("exchange", body)? {
        Body::Subscribe(subscribe) => subscribe_from_wire(subscribe)?,
        Body::Effects(effects) => Exchange::Effects {
            incarnation: Incarnation::from_raw(effects.incarnation),
            first: effects.first,
            effects: effects
                .effects
                .into_iter()
                .map(effect_from_wire)
                .collect::<Result<_, _>>()?,
            received: vector("received", &effects.received)?,
        },
        Body::MustCompare(pb::MustCompare {}) => Exchange::MustCompare,
        Body::CompareOpen(open) => Exchange::CompareOpen {
            session: open.session,
        },
        Body::CompareOpened(opened) => Exchange::CompareOpened {
            session: opened.session,
            snapshot: vector("snapshot", &opened.snapshot)?,
        },
        Body::CompareHashes(hashes) => Exchange::CompareHashes {
            session: hashes.session,
            from: hashes.from,
        },
        Body::CompareRanges(ranges) => ranges_from_wire(ranges)?,
        Body::CompareFetch(fetch) => Exchange::CompareFetch {
            session: fetch.session,
            from: fetch.from,
            to: fetch.to,
        },
        Body::CompareStates(states) => Exchange::CompareStates {
            session: states.session,
            from: states.from,
            to: states.to,
            states: pairs_from_wire(states.states),
        },
        Body::CompareRecall(recall) => Exchange::CompareRecall {
            session: recall.session,
            from: recall.from,
            received: vector("received", &recall.received)?,
        },
        Body::CompareRecalled(recalled) => Exchange::CompareRecalled {
            session: recalled.session,
            from: recalled.from,
            next: recalled.next,
            floor_ms: recalled.floor_ms,
            operations: pairs_from_wire(recalled.operations),
        },
        Body::CompareLost(lost) => Exchange::CompareLost {
            session: lost.session,
        },
    })
}

fn subscribe_from_wire(subscribe: pb::Subscribe) -> Result<Exchange, WireError> {
    let mut known = BTreeMap::new();
    for entry in subscribe.known {
        known.insert(
            Incarnation::from_raw(entry.incarnation),
            vector("known", &entry.received)?,
        );
    }
    Ok(Exchange::Subscribe {
        received: vector("received", &subscribe.received)?,
        known,
        relay: subscribe
            .relay
            .into_iter()
            .map(Incarnation::from_raw)
            .collect(),
        rewind: subscribe.rewind,
        incarnation: Incarnation::from_raw(subscribe.incarnation),
    })
}

fn ranges_from_wire(ranges: pb::CompareRanges) -> Result<Exchange, WireError> {
    let mut hashes = Vec::with_capacity(ranges.ranges.len());
    for range in ranges.ranges {
        hashes.push((range.to, wide("range hash", &range.hash)?));
    }
    Ok(Exchange::CompareRanges {
        session: ranges.session,
        from: ranges.from,
        ranges: hashes,
    })
}

fn effect_to_wire(effect: Effect) -> pb::Effect {
    pb::Effect {
        key: effect.key,
        value: match effect.content {
            Content::Value(value) => Some(value),
            Content::Tombstone => None,
        },
        replaced: context_bytes(&effect.replaced),
        written_at: effect.written_at.0,
        expires_at_ms: effect.expires_at_ms,
        op_id: effect.op_id.map(|op_id| pb::OpId {
            stamp_ms: op_id.stamp_ms,
            id: wide_bytes(op_id.id),
        }),
        transaction: effect.transaction.map(|tag| pb::TransactionTag {
            id: wide_bytes(tag.id),
            parts: u32::from(tag.parts),
        }),
    }
}

fn effect_from_wire(effect: pb::Effect) -> Result<Effect, WireError> {
    Ok(Effect {
        key: effect.key,
        content: effect.value.map_or(Content::Tombstone, Content::Value),
        replaced: context("replaced", &effect.replaced)?,
        written_at: Hlc(effect.written_at),
        expires_at_ms: effect.expires_at_ms,
        op_id: effect.op_id.map(op_id_from_wire).transpose()?,
        transaction: effect.transaction.map(tag_from_wire).transpose()?,
    })
}

fn op_id_from_wire(op_id: pb::OpId) -> Result<OpId, WireError> {
    Ok(OpId {
        stamp_ms: op_id.stamp_ms,
        id: wide("op id", &op_id.id)?,
    })
}

fn tag_from_wire(tag: pb::TransactionTag) -> Result<TransactionTag, WireError> {
    Ok(TransactionTag {
        id: wide("transaction", &tag.id)?,
        parts: small("parts", tag.parts)?,
    })
}
