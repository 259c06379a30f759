//! The bytes of sets and of the types around them.

use bytes::Bytes;
use meridian_causal::{
    CausalContext, DecodeError, Dot, Hlc, OpId, Sibling, SiblingSet, VersionVector,
};
use proptest::prelude::*;

use crate::laws::{any_set, context, dot, sibling};

fn bytes(set: &SiblingSet) -> Vec<u8> {
    let mut bytes = Vec::new();
    set.encode(&mut bytes);
    bytes
}

fn three_zones() -> SiblingSet {
    let mut set = SiblingSet::new();
    for dot in [dot(1, 4), dot(2, 6), dot(3, 8)] {
        set.apply(sibling(dot), &CausalContext::new(), &VersionVector::new());
    }
    set
}

#[test]
fn a_key_of_one_version_costs_few_bytes_beside_its_value() {
    let mut set = SiblingSet::new();
    let received = std::iter::once((dot(1, 1).incarnation, 1_000_000)).collect();
    let plain = Sibling {
        expires_at_ms: None,
        op_id: None,
        transaction: None,
        content: meridian_causal::Content::Value(Bytes::from_static(&[7; 100])),
        ..sibling(dot(1, 1_000_000))
    };
    set.apply(plain, &CausalContext::new(), &received);
    assert_eq!(bytes(&set).len(), 100 + 27);
}

#[test]
fn every_truncation_and_every_trailing_byte_is_refused() {
    let mut whole = bytes(&three_zones());
    for end in 0..whole.len() {
        assert!(SiblingSet::decode(&whole[..end]).is_err(), "{end} bytes");
    }
    whole.push(0);
    assert_eq!(
        SiblingSet::decode(&whole),
        Err(DecodeError::Trailing { bytes: 1 })
    );
}

#[test]
fn siblings_that_the_context_does_not_cover_or_out_of_order_are_refused() {
    let mut header = Vec::new();
    context([dot(1, 1), dot(1, 2)]).encode(&mut header);
    let record = |counter: u8| [&[0, counter, 1][..], &[0; 8]].concat();
    let set = |records: &[Vec<u8>]| {
        let count = u8::try_from(records.len()).unwrap();
        [header.as_slice(), &[count], &records.concat()].concat()
    };
    assert!(SiblingSet::decode(&set(&[record(1), record(2)])).is_ok());
    for bad in [
        set(&[record(3)]),
        set(&[record(2), record(1)]),
        set(&[record(1), record(1)]),
        set(&[record(0)]),
    ] {
        assert!(
            matches!(SiblingSet::decode(&bad), Err(DecodeError::Malformed(_))),
            "{bad:?}"
        );
    }
}

#[test]
fn unknown_flags_and_incarnations_are_refused() {
    let mut header = Vec::new();
    context([dot(1, 1)]).encode(&mut header);
    let set = |place: u8, flags: u8| [header.as_slice(), &[1, place, 1, flags], &[0; 8]].concat();
    assert!(SiblingSet::decode(&set(0, 1)).is_ok());
    for bad in [set(1, 1), set(0, 0x11)] {
        assert!(
            matches!(SiblingSet::decode(&bad), Err(DecodeError::Malformed(_))),
            "{bad:?}"
        );
    }
}

#[test]
fn shared_values_lie_in_the_bytes_they_were_read_from() {
    let source = Bytes::from(bytes(&three_zones()));
    let set = SiblingSet::decode_shared(&source).unwrap();
    assert_eq!(set, three_zones());
    let value = set.siblings()[1].content.value().unwrap();
    assert!(source.as_ptr_range().contains(&value.as_ptr()));
}

proptest! {
    #[test]
    fn sets_read_back(set in any_set()) {
        prop_assert_eq!(SiblingSet::decode(&bytes(&set)), Ok(set.clone()));
        let by_serde = postcard::to_stdvec(&set).unwrap();
        prop_assert_eq!(postcard::from_bytes::<SiblingSet>(&by_serde).unwrap(), set);
    }

    #[test]
    fn sets_are_equal_when_their_bytes_are(a in any_set(), b in any_set()) {
        prop_assert_eq!(a == b, bytes(&a) == bytes(&b));
    }

    #[test]
    fn foreign_bytes_are_refused_or_canonical(foreign in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(set) = SiblingSet::decode(&foreign) {
            prop_assert_eq!(bytes(&set), foreign);
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_canonical(set in any_set(), place in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let mut damaged = bytes(&set);
        let place = place.index(damaged.len());
        damaged[place] ^= flip;
        if let Ok(other) = SiblingSet::decode(&damaged) {
            prop_assert_eq!(bytes(&other), damaged);
            prop_assert_ne!(other, set);
        }
    }

    #[test]
    fn siblings_read_back_through_serde(counter in 1..100u64, at: u64, stamp_ms: u64, id: u128) {
        let written = Sibling {
            written_at: Hlc(at),
            op_id: Some(OpId { stamp_ms, id }),
            ..sibling(Dot::new(dot(2, 1).incarnation, counter))
        };
        let by_serde = postcard::to_stdvec(&written).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Sibling>(&by_serde).unwrap(), written);
    }
}
