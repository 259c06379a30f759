use std::collections::BTreeMap;

use bytes::Bytes;
use meridian_causal::{
    CausalContext, Content, Dot, Hlc, Incarnation, OpId, TransactionTag, VersionVector, ZoneId,
};
use meridian_core::command::{Effect, WriteIntent};
use meridian_core::ids::{GroupId, KeyspaceId, NodeId, RequestId, ShardId, Side};
use meridian_core::inner::InnerResponse;
use meridian_core::message::{Admission, Exchange, Image, PeerMessage, Standing};
use meridian_core::mirror::MirrorPage;
use meridian_core::request::{Request, Response, Write};
use meridian_proto::peer::v1 as pb;
use proptest::prelude::*;
use prost::Message as _;
use raft::eraftpb;

use super::peer;

fn through_bytes(message: PeerMessage) -> PeerMessage {
    let bytes = peer::to_wire(message).encode_to_vec();
    peer::from_wire(pb::PeerMessage::decode(&bytes[..]).unwrap()).unwrap()
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..24).prop_map(Bytes::from)
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    any::<u64>().prop_map(Incarnation::from_raw)
}

fn vector() -> impl Strategy<Value = VersionVector> {
    prop::collection::vec((incarnation(), 1..u64::MAX), 0..4)
        .prop_map(|entries| entries.into_iter().collect())
}

fn context() -> impl Strategy<Value = CausalContext> {
    (
        vector(),
        prop::collection::vec((incarnation(), 1..99_u64), 0..4),
    )
        .prop_map(|(vector, dots)| {
            let mut context = CausalContext::from_vector(vector);
            for (incarnation, counter) in dots {
                context.insert(Dot::new(incarnation, counter));
            }
            context
        })
}

fn group() -> impl Strategy<Value = GroupId> {
    any::<(u32, u16, u16, u32)>().prop_map(|(keyspace, shard, zone, epoch)| GroupId {
        keyspace: KeyspaceId(keyspace),
        shard: ShardId(shard),
        zone: ZoneId(zone),
        epoch,
    })
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![bytes().prop_map(Content::Value), Just(Content::Tombstone)]
}

fn effect() -> impl Strategy<Value = Effect> {
    let tail = any::<(u64, Option<u64>, Option<(u64, u128)>, Option<(u128, u16)>)>();
    (bytes(), content(), context(), tail).prop_map(
        |(key, content, replaced, (at, expires_at_ms, op_id, tag))| Effect {
            key,
            content,
            replaced,
            written_at: Hlc(at),
            expires_at_ms,
            op_id: op_id.map(|(stamp_ms, id)| OpId { stamp_ms, id }),
            transaction: tag.map(|(id, parts)| TransactionTag { id, parts }),
        },
    )
}

fn known() -> impl Strategy<Value = BTreeMap<Incarnation, VersionVector>> {
    prop::collection::btree_map(incarnation(), vector(), 0..3)
}

fn pairs() -> impl Strategy<Value = Vec<(Bytes, Bytes)>> {
    prop::collection::vec((bytes(), bytes()), 0..4)
}

#[expect(
    clippy::too_many_lines,
    reason = "one arm for each message, and nothing else"
)]
fn exchange() -> impl Strategy<Value = Exchange> {
    prop_oneof![
        (
            vector(),
            known(),
            prop::collection::vec(incarnation(), 0..3),
            any::<bool>(),
            incarnation()
        )
            .prop_map(|(received, known, relay, rewind, incarnation)| {
                Exchange::Subscribe {
                    received,
                    known,
                    relay,
                    rewind,
                    incarnation,
                }
            }),
        (
            incarnation(),
            any::<u64>(),
            prop::collection::vec(effect(), 0..4),
            vector()
        )
            .prop_map(
                |(incarnation, first, effects, received)| Exchange::Effects {
                    incarnation,
                    first,
                    effects,
                    received
                }
            ),
        Just(Exchange::MustCompare),
        any::<u64>().prop_map(|session| Exchange::CompareOpen { session }),
        (any::<u64>(), vector())
            .prop_map(|(session, snapshot)| Exchange::CompareOpened { session, snapshot }),
        (any::<u64>(), bytes())
            .prop_map(|(session, from)| Exchange::CompareHashes { session, from }),
        (
            any::<u64>(),
            bytes(),
            prop::collection::vec((bytes(), any::<u128>()), 0..3)
        )
            .prop_map(|(session, from, ranges)| Exchange::CompareRanges {
                session,
                from,
                ranges
            }),
        (any::<u64>(), bytes(), bytes()).prop_map(|(session, from, to)| Exchange::CompareFetch {
            session,
            from,
            to
        }),
        (any::<u64>(), bytes(), bytes(), pairs()).prop_map(|(session, from, to, states)| {
            Exchange::CompareStates {
                session,
                from,
                to,
                states,
            }
        }),
        (any::<u64>(), bytes(), vector()).prop_map(|(session, from, received)| {
            Exchange::CompareRecall {
                session,
                from,
                received,
            }
        }),
        (any::<(u64, u64)>(), bytes(), bytes(), pairs()).prop_map(
            |((session, floor_ms), from, next, operations)| Exchange::CompareRecalled {
                session,
                from,
                next,
                floor_ms,
                operations,
            }
        ),
        any::<u64>().prop_map(|session| Exchange::CompareLost { session }),
    ]
}

fn raft_message() -> impl Strategy<Value = eraftpb::Message> {
    let entry = (0..3_i32, any::<(u64, u64)>(), bytes(), bytes()).prop_map(
        |(entry_type, (term, index), data, context)| eraftpb::Entry {
            entry_type,
            term,
            index,
            data: data.into(),
            context: context.into(),
            ..eraftpb::Entry::default()
        },
    );
    let snapshot = (
        bytes(),
        prop::collection::vec(any::<u64>(), 0..4),
        any::<(u64, u64)>(),
    )
        .prop_map(|(data, voters, (index, term))| eraftpb::Snapshot {
            data: data.into(),
            metadata: Some(eraftpb::SnapshotMetadata {
                conf_state: Some(eraftpb::ConfState {
                    voters,
                    auto_leave: true,
                    ..eraftpb::ConfState::default()
                }),
                index,
                term,
            }),
        });
    let numbers = any::<(u64, u64, u64, u64, u64, u64, u64, u64, u64, i64)>();
    (
        0..19_i32,
        numbers,
        prop::collection::vec(entry, 0..3),
        prop::option::of(snapshot),
        any::<bool>(),
        bytes(),
    )
        .prop_map(
            |(msg_type, n, entries, snapshot, reject, context)| eraftpb::Message {
                msg_type,
                to: n.0,
                from: n.1,
                term: n.2,
                log_term: n.3,
                index: n.4,
                entries,
                commit: n.5,
                commit_term: n.6,
                snapshot,
                request_snapshot: n.7,
                reject,
                reject_hint: n.8,
                context: context.into(),
                deprecated_priority: n.0,
                priority: n.9,
            },
        )
}

fn message() -> impl Strategy<Value = PeerMessage> {
    prop_oneof![
        (group(), raft_message()).prop_map(|(group, message)| PeerMessage::Raft {
            group,
            message: Box::new(message)
        }),
        (any::<(u32, u32, u16, u16, u16, u64, bool)>(), exchange()).prop_map(|(n, body)| {
            let side = |keyspace, zone| Side {
                keyspace: KeyspaceId(keyspace),
                zone: ZoneId(zone),
            };
            PeerMessage::Exchange {
                shard: ShardId(n.2),
                from: side(n.0, n.3),
                to: side(n.1, n.4),
                reply_to: NodeId(n.5),
                passed: n.6,
                body,
            }
        }),
        (group(), any::<u64>(), bytes(), pairs(), any::<bool>()).prop_map(
            |(group, image, after, records, done)| {
                PeerMessage::Image {
                    group,
                    body: Image::Page {
                        image,
                        after,
                        records,
                        done,
                    },
                }
            }
        ),
        (group(), any::<u64>(), bytes()).prop_map(|(group, image, after)| PeerMessage::Image {
            group,
            body: Image::Fetch { image, after }
        }),
        admission(),
        forwarding(),
    ]
}

fn admission() -> impl Strategy<Value = PeerMessage> {
    prop_oneof![
        any::<(u128, u128, Option<u32>)>().prop_map(|(store, on_record, admitted)| {
            PeerMessage::Admission(Admission::Known {
                store,
                on_record,
                admitted,
            })
        }),
        (0..3_u8, any::<u128>()).prop_map(|(standing, store)| {
            let standing =
                [Standing::Asking, Standing::Wiped, Standing::Member][usize::from(standing)];
            PeerMessage::Admission(Admission::Hello {
                cluster: "demo".into(),
                store,
                standing,
            })
        }),
    ]
}

fn forwarding() -> impl Strategy<Value = PeerMessage> {
    prop_oneof![
        (bytes(), content(), context(), any::<(u64, u64, u128)>()).prop_map(
            |(key, content, context, n)| {
                let op_id = OpId {
                    stamp_ms: n.1,
                    id: n.2,
                };
                let intent = WriteIntent::IfContext(context);
                let write = Write {
                    keyspace: KeyspaceId(1),
                    key,
                    content,
                    intent,
                    op_id,
                    expires_at_ms: None,
                };
                PeerMessage::Forward {
                    id: RequestId(n.0),
                    deadline_ms: 9,
                    request: Box::new(Request::Write(write)),
                }
            }
        ),
        any::<(u64, u64, u128)>().prop_map(|n| PeerMessage::Forwarded {
            id: RequestId(n.0),
            result: Box::new(Err(meridian_core::Error::OutcomeUnknown {
                op_id: OpId {
                    stamp_ms: n.1,
                    id: n.2
                }
            })),
        }),
    ]
}

proptest! {
    #[test]
    fn messages_between_nodes_read_back(message in message()) {
        prop_assert_eq!(through_bytes(message.clone()), message);
    }

    #[test]
    fn foreign_bytes_are_refused_or_understood_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(wire) = pb::PeerMessage::decode(&bytes[..]) {
            drop(peer::from_wire(wire));
        }
    }
}

#[test]
fn a_message_packed_by_another_version_is_told_from_a_damaged_one() {
    let forward = |request: &'static [u8]| pb::PeerMessage {
        message: Some(pb::peer_message::Message::Forward(pb::Forward {
            id: 1,
            deadline_ms: 1,
            request: Bytes::from_static(request),
        })),
    };
    assert!(
        peer::from_wire(forward(&[1, 0]))
            .unwrap_err()
            .is_other_version()
    );
    assert!(
        !peer::from_wire(forward(&[2, 0xff]))
            .unwrap_err()
            .is_other_version()
    );
    assert!(
        !peer::from_wire(forward(&[]))
            .unwrap_err()
            .is_other_version()
    );
}

#[test]
fn unknown_raft_types_and_odd_sizes_are_refused() {
    let mut wire = peer::to_wire(PeerMessage::Raft {
        group: GroupId::CONTROL,
        message: Box::new(eraftpb::Message::default()),
    });
    if let Some(pb::peer_message::Message::Raft(raft)) = &mut wire.message {
        raft.message.as_mut().unwrap().msg_type = 77;
    }
    assert_eq!(
        peer::from_wire(wire).unwrap_err().to_string(),
        "message type of 77 is out of range"
    );
    assert_eq!(
        peer::from_wire(pb::PeerMessage::default())
            .unwrap_err()
            .to_string(),
        "message is missing"
    );
}

#[test]
fn a_page_to_a_mirror_weighs_what_is_told_of_it() {
    for (key_bytes, packed_bytes) in [(0, 0), (1, 100), (16, 70_000), (4096, 1 << 20)] {
        let mut received = VersionVector::new();
        received.advance(Incarnation::from_raw(u64::MAX), u64::MAX);
        let page = MirrorPage {
            received,
            same: vec![(vec![4; key_bytes].into(), vec![5; key_bytes].into())],
            source: Incarnation::from_raw(u64::MAX),
            index: u64::MAX,
            full: true,
            from: vec![1; key_bytes].into(),
            records: vec![2; packed_bytes].into(),
            next: Some(vec![3; key_bytes].into()),
        };
        let told = page.shipped_bytes();
        let answer: Response = InnerResponse::MirrorPage(Box::new(page)).into();
        let message = PeerMessage::Forwarded {
            id: RequestId(u64::MAX),
            result: Box::new(Ok(answer)),
        };
        let sent = peer::to_wire(message).encoded_len();
        assert!(
            sent <= told && told < sent + 64,
            "{told} told and {sent} sent"
        );
    }
}
