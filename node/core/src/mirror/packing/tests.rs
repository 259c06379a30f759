//! Pages are packed and unpacked; damaged ones are refused; how much packing leaves is measured.

use meridian_causal::{
    CausalContext, Content, Dot, Hlc, Incarnation, OpId, Sibling, SiblingSet, TransactionTag,
    VersionVector, ZoneId,
};
use proptest::prelude::*;

use super::*;
use crate::keys::VersionKey;
use crate::mirror::PAGE_BYTES;
use crate::record::Header;

fn incarnation(number: u64) -> Incarnation {
    Incarnation::new(ZoneId(1), number)
}

fn sibling(counter: u64, value: &[u8]) -> Sibling {
    Sibling {
        dot: Dot::new(incarnation(1), counter),
        content: Content::Value(Bytes::copy_from_slice(value)),
        written_at: Hlc::new(1_700_000_000_000 + counter, 0),
        expires_at_ms: None,
        op_id: None,
        transaction: None,
    }
}

/// A record that was written by one entry, on a key that has seen `others` too.
fn record(sibling: Sibling, others: &[(Incarnation, u64)]) -> Bytes {
    let (mut replaced, mut seen) = (VersionVector::new(), VersionVector::new());
    for (other, counter) in others {
        replaced.advance(*other, *counter);
    }
    seen.advance(sibling.dot.incarnation, sibling.dot.counter);
    let header = Header {
        index: sibling.dot.counter + 7,
        hlc: sibling.written_at,
    };
    let mut set = SiblingSet::new();
    set.apply(sibling, &CausalContext::from_vector(replaced), &seen);
    VersionKey::encode_record(header, &set)
}

fn conflict() -> Bytes {
    let mut set = SiblingSet::new();
    for counter in [3, 9] {
        set.apply(
            sibling(counter, b"v"),
            &CausalContext::new(),
            &VersionVector::new(),
        );
    }
    assert_eq!(set.siblings().len(), 2);
    VersionKey::encode_record(Header::default(), &set)
}

fn check(records: &[(Bytes, Bytes)]) {
    let packed = pack(records);
    assert_eq!(unpack(&packed).as_deref(), Ok(records));
}

fn any_sibling() -> impl Strategy<Value = Sibling> {
    let times = (0..1_u64 << 50, any::<bool>(), any::<u64>());
    let op_id = prop_oneof![
        Just(None),
        (0..3_u128, 0..9_u64).prop_map(|(client, number)| Some((client << 48 | 7, number))),
        any::<(u128, u64)>().prop_map(Some),
    ];
    let transaction = prop::option::of((0..2_u128, any::<u16>()));
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..5));
    (
        (0..3_u64, 1..40_u64),
        times,
        op_id,
        transaction,
        value,
        prop::option::of(any::<u64>()),
    )
        .prop_map(
            |((of, counter), (time, near, far), op_id, transaction, value, expires_at_ms)| {
                Sibling {
                    dot: Dot::new(incarnation(of), counter),
                    content: value.map_or(Content::Tombstone, |value| Content::Value(value.into())),
                    written_at: Hlc(if near { time } else { far }),
                    expires_at_ms,
                    op_id: op_id.map(|(id, stamp_ms)| OpId { stamp_ms, id }),
                    transaction: transaction.map(|(id, parts)| TransactionTag { id, parts }),
                }
            },
        )
}

fn any_record() -> impl Strategy<Value = Bytes> {
    let header = (any::<u64>(), prop_oneof![0..1_u64 << 40, any::<u64>()]);
    let siblings = prop::collection::vec((any_sibling(), any::<bool>()), 0..3);
    (header, siblings).prop_map(|((index, hlc), siblings)| {
        let mut set = SiblingSet::new();
        for (sibling, folded) in siblings {
            let mut seen = VersionVector::new();
            if folded {
                seen.advance(sibling.dot.incarnation, sibling.dot.counter);
            }
            let replaced = set.read_context();
            set.apply(sibling, &replaced, &seen);
        }
        let header = Header {
            index,
            hlc: Hlc(hlc),
        };
        VersionKey::encode_record(header, &set)
    })
}

fn any_records() -> impl Strategy<Value = Vec<(Bytes, Bytes)>> {
    let key = prop::collection::vec(0..3_u8, 1..90);
    prop::collection::btree_map(key, any_record(), 0..12).prop_map(|records| {
        let records = records.into_iter();
        records.map(|(key, record)| (key.into(), record)).collect()
    })
}

proptest! {
    #[test]
    fn any_records_are_unpacked_as_they_were_packed(records in any_records()) {
        let packed = pack(&records);
        prop_assert_eq!(unpack(&packed), Ok(records));
    }

    #[test]
    fn a_page_cut_short_is_refused(records in any_records()) {
        let packed = pack(&records);
        for end in 0..packed.len() {
            prop_assert!(unpack(&packed[..end]).is_err());
        }
    }

    #[test]
    fn a_damaged_page_never_panics(records in any_records(), at: prop::sample::Index, byte: u8) {
        let mut packed = pack(&records).to_vec();
        let at = at.index(packed.len());
        packed[at] = byte;
        let _refused_or_other_records = unpack(&packed).is_ok();
    }

    #[test]
    fn foreign_bytes_never_panic(mut bytes: Vec<u8>) {
        bytes.insert(0, FORMAT);
        let _refused_or_records = unpack(&bytes).is_ok();
    }
}

#[test]
fn records_of_every_kind_travel_together() {
    let mut expired = sibling(4, b"");
    expired.content = Content::Tombstone;
    expired.expires_at_ms = Some(1_800_000_000_000);
    let mut of_transaction = sibling(6, b"t");
    of_transaction.transaction = Some(TransactionTag { id: 5, parts: 2 });
    let seen_before = [(incarnation(0), 3), (incarnation(9), 8)];
    let records = [
        ("a", record(sibling(5, b"one"), &[])),
        ("ab", record(expired, &[])),
        ("b", conflict()),
        (
            "b\0",
            VersionKey::encode_record(Header::default(), &SiblingSet::new()),
        ),
        ("c", record(of_transaction, &seen_before)),
    ];
    check(&records.map(|(key, record)| (Bytes::from_static(key.as_bytes()), record)));
    check(&[]);
}

#[test]
fn a_conflict_travels_as_the_bytes_it_is_and_one_version_does_not() {
    assert!(Plain::of(&conflict()).is_none());
    assert!(Plain::of(&record(sibling(5, b"one"), &[])).is_some());
}

#[test]
fn a_page_of_another_format_or_with_bytes_behind_it_is_refused() {
    let good = pack(&[(Bytes::from_static(b"k"), record(sibling(1, b"v"), &[]))]);
    assert!(unpack(&good).is_ok());
    assert!(unpack(&[good.as_ref(), &[0]].concat()).is_err());
    assert!(unpack(&[&[FORMAT + 1], &good[1..]].concat()).is_err());
    assert!(unpack(&[]).is_err());
}

#[test]
fn a_page_whose_keys_would_unpack_to_more_than_a_page_is_refused() {
    let mut key = vec![b'k'; KEY_BYTES];
    let records: Vec<(Bytes, Bytes)> = (0..2_000_u64)
        .map(|number| {
            key.truncate(KEY_BYTES - 8);
            key.extend_from_slice(&number.to_be_bytes());
            (
                Bytes::copy_from_slice(&key),
                record(sibling(number + 1, b""), &[]),
            )
        })
        .collect();
    let packed = pack(&records);
    assert!(packed.len() < MIRROR_PAGE_BYTES / 10);
    assert!(unpack(&packed).is_err());
    let half = records.len() / 10;
    assert!(unpack(&pack(&records[..half])).is_ok());
}

const KEY_BYTES: usize = crate::limits::KEY_SIZE_BYTES_MAX;

/// Keys of a shard in a page.
const MEASURED: u64 = 6_250;

/// What chance would give, the same in every run.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_be_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// Bytes packed per hundred bytes of keys and values: one put after another by one client, on keys without order.
fn measured(value_bytes: usize, op_id: impl Fn(u64) -> u128) -> u64 {
    let mut records: Vec<(Bytes, Bytes)> = (1..=MEASURED)
        .map(|counter| {
            let mut sibling = sibling(counter, &noise(counter, value_bytes));
            let stamp_ms = 1_700_000_000_000 + counter;
            let id = op_id(counter);
            sibling.op_id = Some(OpId { stamp_ms, id });
            (
                noise(counter, 40)[24..].to_vec().into(),
                record(sibling, &[]),
            )
        })
        .collect();
    records.sort();
    let changed: usize = records.len() * (16 + value_bytes);
    let page = MIRROR_PAGE_BYTES / (value_bytes + 100);
    let shipped: usize = records
        .chunks(page)
        .map(|records| {
            let packed = pack(records);
            assert!(unpack(&packed).as_deref() == Ok(records));
            packed.len() + PAGE_BYTES
        })
        .sum();
    u64::try_from(shipped * 100 / changed).unwrap()
}

#[test]
fn values_of_16_bytes_ship_within_a_fifth_of_what_changed_where_clients_number_their_operations() {
    let numbered = |counter: u64| 0xfeed << 100 | u128::from(counter);
    for value_bytes in [16, 64, 100, 256, 1024] {
        let percent = measured(value_bytes, numbered);
        assert!(percent <= 120, "{value_bytes} bytes: {percent} %");
    }
}

#[test]
fn values_of_100_bytes_ship_within_a_fifth_of_what_changed_whatever_the_op_ids() {
    let by_chance = |counter: u64| {
        let bytes = noise(counter + MEASURED, 16);
        u128::from_be_bytes(bytes.try_into().unwrap())
    };
    for value_bytes in [100, 256, 1024] {
        let percent = measured(value_bytes, by_chance);
        assert!(percent <= 120, "{value_bytes} bytes: {percent} %");
    }
}
