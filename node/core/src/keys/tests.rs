//! Every key and record reads back, sorts as it must, and refuses damage by name.

use bytes::Bytes;
use meridian_causal::{
    CausalContext, Content, Dot, Hlc, Incarnation, OpId, Sibling, SiblingSet, VersionVector, ZoneId,
};
use meridian_storage::LOG_FAMILY_FIRST;
use proptest::prelude::*;

use super::raft_log::{RaftEntryKey, RaftStateKey};
use super::*;
use crate::catalog::Catalog;
use crate::command::Effect;
use crate::ids::NodeId;
use crate::lease::LeaseRef;
use crate::record::Header;
use crate::shard::ShardMeta;

fn any_place() -> impl Strategy<Value = Place> {
    any::<(u32, u16)>().prop_map(|(keyspace, shard)| Place {
        keyspace: KeyspaceId(keyspace),
        shard: ShardId(shard),
    })
}

fn any_group() -> impl Strategy<Value = GroupId> {
    (any_place(), any::<(u16, u32)>()).prop_map(|(Place { keyspace, shard }, (zone, epoch))| {
        GroupId {
            keyspace,
            shard,
            zone: ZoneId(zone),
            epoch,
        }
    })
}

fn any_dot() -> impl Strategy<Value = Dot> {
    (any::<u64>(), 1..u64::MAX)
        .prop_map(|(raw, counter)| Dot::new(Incarnation::from_raw(raw), counter))
}

fn any_header() -> impl Strategy<Value = Header> {
    any::<(u64, u64)>().prop_map(|(index, hlc)| Header {
        index,
        hlc: Hlc(hlc),
    })
}

fn any_operations() -> impl Strategy<Value = Vec<(u128, OpIdRecord)>> {
    let operation = (any::<u128>(), any_dot(), any::<u64>(), any::<u64>());
    let operation = operation.prop_map(|(id, dot, key_hash, stamp_ms)| {
        let context = CausalContext::from_dot(dot);
        let operation = OpIdRecord {
            dot,
            context,
            key_hash,
            stamp_ms,
        };
        (id, operation)
    });
    prop::collection::vec(operation, 0..5)
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn any_effect() -> impl Strategy<Value = Effect> {
    (
        any_bytes(),
        prop::option::of(any_bytes()),
        any_dot(),
        any::<(u64, Option<u64>, Option<(u64, u128)>)>(),
    )
        .prop_map(
            |(key, value, replaced, (written_at, expires_at_ms, op_id))| Effect {
                key,
                content: value.map_or(Content::Tombstone, Content::Value),
                replaced: CausalContext::from_dot(replaced),
                written_at: Hlc(written_at),
                expires_at_ms,
                op_id: op_id.map(|(stamp_ms, id)| OpId { stamp_ms, id }),
                transaction: None,
            },
        )
}

fn set_of(dot: Dot, value: Bytes) -> SiblingSet {
    let mut set = SiblingSet::new();
    let sibling = Sibling {
        dot,
        content: Content::Value(value),
        written_at: Hlc(5),
        expires_at_ms: None,
        op_id: None,
        transaction: None,
    };
    set.apply(sibling, &CausalContext::new(), &VersionVector::new());
    set
}

proptest! {
    #[test]
    fn a_version_reads_back(place in any_place(), key in any_bytes(), header in any_header(), dot in any_dot()) {
        let stored = VersionKey::encode(place, &key);
        let set = set_of(dot, key.clone());
        let record = VersionKey::encode_record(header, &set);
        prop_assert_eq!(VersionKey::user_key(&stored), Ok(&key[..]));
        prop_assert_eq!(VersionKey::decode_visited(&stored, &record), Ok((header, set.clone())));
        prop_assert_eq!(VersionKey::decode_record(&stored, &record), Ok((header, set)));
    }

    #[test]
    fn versions_sort_by_key_inside_their_shard(place in any_place(), a in any_bytes(), b in any_bytes()) {
        let [stored_a, stored_b] = [&a, &b].map(|key| VersionKey::encode(place, key));
        prop_assert_eq!(a.cmp(&b), stored_a.cmp(&stored_b));
        let (from, to) = VersionKey::range(place, &a, Some(&b));
        prop_assert_eq!((stored_a, stored_b.clone()), (from, to));
        let (from, to) = VersionKey::range(place, &[], None);
        prop_assert!(from <= stored_b && stored_b < to);
    }

    #[test]
    fn a_conflict_reads_back(place in any_place(), key in any_bytes()) {
        let stored = ConflictKey::encode(place, &key);
        prop_assert_eq!(ConflictKey::user_key(&stored), Ok(&key[..]));
        let (from, to) = ConflictKey::range(place, &[], None);
        prop_assert!(from <= stored && stored < to);
    }

    #[test]
    fn a_tombstone_reads_back_and_lies_in_the_ranges_up_to_it(
        place in any_place(), dot in any_dot(), key in any_bytes(), header in any_header(),
    ) {
        let stored = TombstoneKey::encode(place, dot);
        prop_assert_eq!(TombstoneKey::dot(&stored), Ok(dot));
        let record = TombstoneKey::encode_record(header, &key);
        prop_assert_eq!(TombstoneKey::decode_record(&stored, &record), Ok(&key[..]));
        let within = |through| {
            let (from, to) = TombstoneKey::through(place, dot.incarnation, through);
            from <= stored && stored < to
        };
        prop_assert!(within(dot.counter) && within(u64::MAX) && !within(dot.counter - 1));
    }

    #[test]
    fn op_order_reads_back_whole_opened_and_in_summary(
        place in any_place(), index: u64, stamp_ms_max: u64, operations in any_operations(), header in any_header(),
    ) {
        let stored = OpOrderKey::encode(place, index);
        let order = OpOrder { stamp_ms_max, operations };
        let record = OpOrderKey::encode_record(header, &order);
        prop_assert_eq!(OpOrderKey::index(&stored), Ok(index));
        let (_, opened) = OpOrderKey::open_record(&stored, &record).unwrap();
        prop_assert_eq!(opened.operations.len(), order.operations.len());
        for ((id, bytes), (own, operation)) in opened.operations.iter().zip(&order.operations) {
            prop_assert_eq!((*id, OpIdRecord::decode(bytes)), (*own, Ok(operation.clone())));
            prop_assert_eq!(*bytes, operation.encode());
        }
        let (_, summary) = OpOrderKey::summary(&stored, &record).unwrap();
        let operations = u32::try_from(order.operations.len()).unwrap();
        prop_assert_eq!(summary, OpOrderSummary { stamp_ms_max, operations });
        prop_assert!(OpOrderKey::decode_record(&stored, &record[..record.len() - 1]).is_err());
        prop_assert!(OpOrderKey::decode_record(&stored, &[&record[..], &[0]].concat()).is_err());
        prop_assert_eq!(OpOrderKey::decode_record(&stored, &record), Ok((header, order)));
    }

    #[test]
    fn an_effect_reads_back_with_its_bytes(
        place in any_place(), dot in any_dot(), effect in any_effect(), before in 0..1_u64 << 40, change: u64,
        header in any_header(),
    ) {
        let stored = OutboxKey::encode(place, dot);
        let (record, through) = OutboxKey::encode_record(header, before, change, &effect);
        let read = OutboxKey::decode_record(&stored, &record);
        prop_assert_eq!(read, Ok(OutboxRecord { bytes_before: before, bytes_through: through, change, effect }));
        prop_assert_eq!(OutboxKey::dot(&stored), Ok(dot));
        for end in 0..record.len() {
            prop_assert!(OutboxKey::decode_record(&stored, &record[..end]).is_err());
        }
    }

    #[test]
    fn a_local_change_reads_back_and_lies_between_its_neighbours(
        place in any_place(), change in 1..u64::MAX, key in any_bytes(), dot in any_dot(), header in any_header(),
    ) {
        let stored = ChangeKey::encode(place, change);
        let local = LocalChange { key, dot };
        let record = ChangeKey::encode_record(header, &local);
        prop_assert_eq!(ChangeKey::number(&stored), Ok(change));
        prop_assert_eq!(ChangeKey::decode_record(&stored, &record), Ok((header, local)));
        prop_assert!(ChangeKey::decode_record(&stored, &record[..record.len() - 1]).is_err());
        let within = |first, last| {
            let (from, to) = ChangeKey::range(place, first, last);
            from <= stored && stored < to
        };
        prop_assert!(within(change, change) && !within(change + 1, u64::MAX) && !within(0, change - 1));
    }

    #[test]
    fn shard_meta_reads_back(group in any_group(), dot in any_dot(), numbers: [u64; 4]) {
        let mut meta = ShardMeta::new(dot.incarnation);
        meta.received.advance(dot.incarnation, dot.counter);
        [meta.applied, meta.outbox_bytes, meta.op_floor_ms, meta.keys] = numbers;
        let stored = ShardMetaKey::encode(group);
        prop_assert_eq!(ShardMetaKey::decode_record(&stored, &ShardMetaKey::encode_record(&meta)), Ok(meta));
    }

    #[test]
    fn a_log_entry_lies_in_its_groups_ranges_only(group in any_group(), index in 1..u64::MAX) {
        let stored = RaftEntryKey::encode(group, index);
        prop_assert_eq!(RaftEntryKey::index(&stored), Ok(index));
        let within = |(from, to): (Vec<u8>, Vec<u8>)| from <= stored && stored < to;
        prop_assert!(within(RaftEntryKey::all(group)) && within(RaftEntryKey::range(group, index, index + 1)));
        prop_assert!(!within(RaftEntryKey::range(group, 0, index)));
        let other = GroupId { epoch: group.epoch ^ 1, ..group };
        prop_assert!(!within(RaftEntryKey::all(other)));
    }

    #[test]
    fn a_group_image_holds_its_shards_state_and_nothing_of_its_log(group in any_group(), key in any_bytes(), dot in any_dot()) {
        prop_assume!(group != GroupId::CONTROL);
        let ranges = group_state_ranges(group);
        let within = |stored: Vec<u8>| ranges.iter().any(|(from, to)| *from <= stored && stored < *to);
        let place = Place::from(group);
        prop_assert!(within(VersionKey::encode(place, &key)) && within(ConflictKey::encode(place, &key)));
        prop_assert!(within(TombstoneKey::encode(place, dot)) && within(OutboxKey::encode(place, dot)));
        prop_assert!(within(OpOrderKey::encode(place, 7)));
        prop_assert!(within(ChangeKey::encode(place, 7)));
        prop_assert!(within(ShardMetaKey::encode(group)));
        let lease = LeaseRef { name: key.clone(), token: 1 };
        prop_assert!(within(LeaseKey::encode(place, &key)) && within(LeasedKey::encode(place, &lease, &key)));
        prop_assert!(within(ExpiryKey::encode(place, 1, &key)));
        let other_group = GroupId { epoch: group.epoch ^ 1, ..group };
        prop_assert!(!within(ShardMetaKey::encode(other_group)));
        prop_assert!(!within(RaftEntryKey::encode(group, 1)) && !within(RaftStateKey::encode(group)));
        let other_shard = Place { shard: ShardId(group.shard.0 ^ 1), ..place };
        prop_assert!(!within(VersionKey::encode(other_shard, &key)));
        prop_assert!(!within(CatalogKey::encode()) && !within(NodeIdentityKey::encode()));
        prop_assert!(ranges.is_sorted());
    }

    #[test]
    fn a_lease_reads_back(place in any_place(), name in any_bytes(), token: u64, header in any_header()) {
        let stored = LeaseKey::encode(place, &name);
        let lease = LeaseRecord { token, ttl_ms: 5, owner: 6, acquired: header.hlc };
        let record = LeaseKey::encode_record(header, &lease);
        prop_assert_eq!(LeaseKey::name(&stored), Ok(&name[..]));
        prop_assert_eq!(LeaseKey::decode_record(&stored, &record), Ok((header, lease)));
        let (from, to) = LeaseKey::all(place);
        prop_assert!(from <= stored && stored < to);
        prop_assert!(LeaseKey::decode_record(&stored, &record[..record.len() - 1]).is_err());
    }

    #[test]
    fn an_attached_key_reads_back_and_lies_among_those_of_its_lease_only(
        place in any_place(), name in any_bytes(), other in any_bytes(), token: u64, key in any_bytes(), header in any_header(),
    ) {
        let lease = LeaseRef { name, token };
        let stored = LeasedKey::encode(place, &lease, &key);
        let op_id = OpId { stamp_ms: 3, id: u128::MAX };
        let record = LeasedKey::encode_record(header, op_id);
        prop_assert_eq!(LeasedKey::parts(&stored), Ok((lease.clone(), &key[..])));
        prop_assert_eq!(LeasedKey::decode_record(&stored, &record), Ok(op_id));
        let within = |(from, to): (Vec<u8>, Vec<u8>)| from <= stored && stored < to;
        prop_assert!(within(LeasedKey::range(place, &lease)) && within(LeasedKey::all(place)));
        let foreign = LeaseRef { name: other, ..lease.clone() };
        prop_assert!(foreign == lease || !within(LeasedKey::range(place, &foreign)));
        let older = LeaseRef { token: token ^ 1, ..lease };
        prop_assert!(!within(LeasedKey::range(place, &older)));
    }

    #[test]
    fn an_expiry_reads_back_and_is_due_from_its_time_on(place in any_place(), at in 1..u64::MAX, key in any_bytes()) {
        let stored = ExpiryKey::encode(place, at, &key);
        prop_assert_eq!(ExpiryKey::parts(&stored), Ok((at, &key[..])));
        let due = |now_ms| {
            let (from, to) = ExpiryKey::due(place, now_ms);
            from <= stored && stored < to
        };
        prop_assert!(due(at) && !due(at - 1));
    }

    #[test]
    fn foreign_bytes_are_refused_or_read_and_never_panic(stored in any_bytes(), record in any_bytes()) {
        let _decided = (
            VersionKey::user_key(&stored).is_ok(),
            VersionKey::decode_record(&stored, &record).is_ok(),
            TombstoneKey::dot(&stored).is_ok(),
            TombstoneKey::decode_record(&stored, &record).is_ok(),
            OpIdRecord::decode(&record).is_ok(),
            OpOrderKey::decode_record(&stored, &record).is_ok(),
            OutboxKey::decode_record(&stored, &record).is_ok(),
            ChangeKey::number(&stored).is_ok(),
            ChangeKey::decode_record(&stored, &record).is_ok(),
            ShardMetaKey::decode_record(&stored, &record).is_ok(),
            CatalogKey::decode_record(&stored, &record).is_ok(),
            RaftEntryKey::index(&stored).is_ok(),
            LeaseKey::decode_record(&stored, &record).is_ok(),
            LeasedKey::parts(&stored).is_ok(),
            LeasedKey::decode_record(&stored, &record).is_ok(),
            ExpiryKey::parts(&stored).is_ok(),
            describe(&stored),
        );
    }
}

#[test]
fn node_records_read_back() {
    let catalog = Catalog {
        cluster: "c".into(),
        revision: 9,
        ..Catalog::default()
    };
    let header = Header {
        index: 3,
        hlc: Hlc(4),
    };
    let record = CatalogKey::encode_record(header, &catalog);
    assert_eq!(
        CatalogKey::decode_record(&CatalogKey::encode(), &record),
        Ok((header, catalog))
    );
    let [(from, to)] = &group_state_ranges(GroupId::CONTROL)[..] else {
        panic!("one range")
    };
    assert!(*from <= CatalogKey::encode() && CatalogKey::encode() < *to);

    let identity = NodeIdentity {
        cluster: "c".into(),
        node: NodeId(4),
        store: u128::MAX,
        admitted: Some(2),
    };
    let record = NodeIdentityKey::encode_record(&identity);
    assert_eq!(
        NodeIdentityKey::decode_record(&NodeIdentityKey::encode(), &record),
        Ok(identity)
    );

    let stored = PeerStoreKey::encode(NodeId(8));
    assert_eq!(PeerStoreKey::node(&stored), Ok(NodeId(8)));
    assert_eq!(
        PeerStoreKey::decode_record(&stored, &PeerStoreKey::encode_record(77)),
        Ok(77)
    );
    let (from, to) = PeerStoreKey::range();
    assert!(from <= stored && stored < to);
}

#[test]
fn kinds_have_distinct_numbers_and_stand_in_their_family() {
    for (n, kind) in Kind::ALL.into_iter().enumerate() {
        assert_eq!(Kind::from_number(kind.number()), Some(kind));
        assert!(
            Kind::ALL[n + 1..]
                .iter()
                .all(|other| other.number() > kind.number())
        );
        let short_lived = matches!(
            kind,
            Kind::Outbox | Kind::RaftEntry | Kind::RaftState | Kind::Change | Kind::MirrorChange
        );
        assert_eq!(kind.number() >= LOG_FAMILY_FIRST, short_lived, "{kind:?}");
    }
    assert_eq!(Kind::from_number(0x7f), None);
}

#[test]
fn an_effect_of_the_format_before_reads_as_a_change_without_number() {
    let place = Place {
        keyspace: KeyspaceId(3),
        shard: ShardId(4),
    };
    let effect = Effect {
        key: "k".into(),
        content: Content::Value("v".into()),
        replaced: CausalContext::new(),
        written_at: Hlc(5),
        expires_at_ms: None,
        op_id: None,
        transaction: None,
    };
    let stored = OutboxKey::encode(place, Dot::new(Incarnation::from_raw(9), 1));
    let mut body = crate::record::append(Vec::new(), &effect);
    let bytes_through = 10 + u64::try_from(body.len()).unwrap();
    let mut record = crate::record::begin(1, Header::default(), 40);
    record.extend_from_slice(&bytes_through.to_be_bytes());
    record.append(&mut body);
    let expected = OutboxRecord {
        bytes_before: 10,
        bytes_through,
        change: 0,
        effect,
    };
    assert_eq!(OutboxKey::decode_record(&stored, &record), Ok(expected));
    for end in 0..record.len() {
        assert!(OutboxKey::decode_record(&stored, &record[..end]).is_err());
    }
    let [format, ..] = &mut record[..] else {
        panic!("a record is not empty")
    };
    *format = 3;
    let refused = OutboxKey::decode_record(&stored, &record).unwrap_err();
    assert!(
        refused.to_string().contains("format 3 is not known, 2 is"),
        "{refused}"
    );
}

#[test]
fn a_key_is_described_in_words() {
    let place = Place {
        keyspace: KeyspaceId(3),
        shard: ShardId(4),
    };
    assert_eq!(
        describe(&VersionKey::encode(place, b"a\xff")),
        r#"Version "a\xff" of shard 3/4"#
    );
    assert_eq!(
        describe(&[0x7f, 0, 0, 0, 1, 0, 2]),
        r#"kind 127 "" of shard 1/2"#
    );
    assert_eq!(describe(b"\x01ab"), r#"key "\x01ab""#);
}

#[test]
fn a_shard_meta_of_a_format_before_is_refused() {
    let group = GroupId {
        keyspace: KeyspaceId::DEFAULT,
        ..GroupId::CONTROL
    };
    let stored = ShardMetaKey::encode(group);
    let meta = ShardMeta::new(Incarnation::new(ZoneId(1), 7));
    let mut record = ShardMetaKey::encode_record(&meta).to_vec();
    assert_eq!(ShardMetaKey::decode_record(&stored, &record), Ok(meta));
    for format in 1..7 {
        record[0] = format;
        assert!(ShardMetaKey::decode_record(&stored, &record).is_err());
    }
}
