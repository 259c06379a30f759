//! What a node keeps of a keyspace that it mirrors: versions by key and generation, which keys each generation changed,
//! how far each shard is, and which generation the zone shows.
//!
//! A key may hold any byte, so it is escaped where something follows it: a zero byte becomes `00 ff`, and `00 01` ends the
//! key. Escaped keys sort as the keys do.

use bytes::Bytes;
use meridian_causal::{Incarnation, VersionVector};
use meridian_storage::prefix_end;
use serde::{Deserialize, Serialize};

use super::{Kind, PREFIX_BYTES, Place, at, corrupt, key, prefix, range, rest, successor};
use crate::error::Error;
use crate::ids::KeyspaceId;
use crate::mirror::Cut;
use crate::record::{self, Header};

const FORMAT: u8 = 1;

/// Of how far a shard is mirrored. 2: a generation bears the vector of its cut.
const PART_FORMAT: u8 = 2;

/// What follows a zero byte of a key.
const ZERO: u8 = 0xff;

/// What follows the zero byte that ends a key.
const END: u8 = 0x01;

/// `[MirrorVersion][keyspace][shard][key, escaped][generation u64 BE, inverted]` to a record of
/// [`VersionKey`](super::VersionKey): the newest generation of a key comes first.
pub struct MirrorVersionKey;

impl MirrorVersionKey {
    /// The stored key.
    pub fn encode(place: Place, user_key: &[u8], generation: u64) -> Vec<u8> {
        let mut stored = Self::start(place, user_key);
        stored.extend_from_slice(&(!generation).to_be_bytes());
        stored
    }

    /// The first stored key of `user_key` and of all that follow it.
    pub fn start(place: Place, user_key: &[u8]) -> Vec<u8> {
        let mut stored = prefix(Kind::MirrorVersion, place, user_key.len() + 10);
        for byte in user_key {
            stored.push(*byte);
            if *byte == 0 {
                stored.push(ZERO);
            }
        }
        stored.extend_from_slice(&[0, END]);
        stored
    }

    /// The versions of `user_key` of generations up to `through`, newest first.
    pub fn versions(place: Place, user_key: &[u8], through: u64) -> (Vec<u8>, Vec<u8>) {
        let end = prefix_end(&Self::start(place, user_key));
        (Self::encode(place, user_key, through), end)
    }

    /// Everything of a shard.
    pub fn all(place: Place) -> (Vec<u8>, Vec<u8>) {
        range(Kind::MirrorVersion, place)
    }

    /// The key and the generation.
    pub fn decode(stored: &[u8]) -> Result<(Vec<u8>, u64), Error> {
        let damaged = || corrupt(stored, "the key does not end in a generation");
        let (escaped, generation) = rest(stored)?.split_last_chunk::<8>().ok_or_else(damaged)?;
        let mut user_key = Vec::with_capacity(escaped.len());
        let mut bytes = escaped.iter();
        while let Some(byte) = bytes.next() {
            match (byte, (*byte == 0).then(|| bytes.next()).flatten()) {
                (0, Some(&ZERO)) => user_key.push(0),
                (0, Some(&END)) if bytes.len() == 0 => {
                    return Ok((user_key, !u64::from_be_bytes(*generation)));
                }
                (0, _) => return Err(damaged()),
                (byte, _) => user_key.push(*byte),
            }
        }
        Err(damaged())
    }
}

/// `[MirrorChange][keyspace][shard][generation u64 BE][key]` to nothing: the keys that a generation changed.
pub struct MirrorChangeKey;

impl MirrorChangeKey {
    /// The stored key.
    pub fn encode(place: Place, generation: u64, user_key: &[u8]) -> Vec<u8> {
        let mut stored = prefix(Kind::MirrorChange, place, 8 + user_key.len());
        stored.extend_from_slice(&generation.to_be_bytes());
        stored.extend_from_slice(user_key);
        stored
    }

    /// The keys of generations from `first` to `last`, both included.
    pub fn range(place: Place, first: u64, last: u64) -> (Vec<u8>, Vec<u8>) {
        let from = Self::encode(place, first, &[]);
        let to = match last.checked_add(1) {
            Some(next) => Self::encode(place, next, &[]),
            None => range(Kind::MirrorChange, place).1,
        };
        (from, to)
    }

    /// The generation and the key.
    pub fn decode(stored: &[u8]) -> Result<(u64, &[u8]), Error> {
        let (generation, user_key) = rest(stored)?
            .split_first_chunk::<8>()
            .ok_or_else(|| corrupt(stored, "the key has no generation"))?;
        Ok((u64::from_be_bytes(*generation), user_key))
    }

    /// The record.
    pub fn encode_record() -> Bytes {
        Bytes::from(record::begin(FORMAT, Header::default(), 0))
    }
}

/// `[MirrorPart][keyspace][shard]` to a [`MirrorPart`].
pub struct MirrorPartKey;

/// How far this node has mirrored a shard.
///
/// Invariants: `have` ascends by generation and holds each once; `partial` is of a greater generation than all of `have`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorPart {
    /// Generations held whole.
    pub have: Vec<HeldGeneration>,
    /// The one that is being received.
    pub partial: Option<PartialGeneration>,
    /// Keys that generations up to this one changed have no older versions any more.
    pub swept: u64,
}

/// A generation of a shard, held whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldGeneration {
    /// Its number.
    pub generation: u64,
    /// The view that the cut was.
    pub view: u64,
    /// When the cut was taken, by the wall clock of the home zone.
    pub cut_ms: u64,
    /// Whose log.
    pub source: Incarnation,
    /// Up to where of that log.
    pub index: u64,
    /// What the shard had received there.
    pub received: VersionVector,
    /// Bytes of the messages that came for it.
    pub bytes: u64,
    /// Keys that came for it.
    pub keys: u64,
}

/// A generation of a shard of which pages are missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialGeneration {
    /// Its number.
    pub generation: u64,
    /// The view that the cut is.
    pub view: u64,
    /// The first key that has not been asked for.
    pub from: Bytes,
    /// Bytes of the messages that have come.
    pub bytes: u64,
    /// Keys that have come.
    pub keys: u64,
}

impl MirrorPartKey {
    /// The stored key.
    pub fn encode(place: Place) -> Vec<u8> {
        key(Kind::MirrorPart, place, &[])
    }

    /// The shard.
    pub fn place(stored: &[u8]) -> Result<Place, Error> {
        place_of(stored)
    }

    /// Those of all keyspaces.
    pub fn everywhere() -> (Vec<u8>, Vec<u8>) {
        everywhere(Kind::MirrorPart)
    }

    /// The record.
    pub fn encode_record(part: &MirrorPart) -> Bytes {
        record::encode(PART_FORMAT, Header::default(), part, 128)
    }

    /// Reads a record.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<MirrorPart, Error> {
        record::decode(record, PART_FORMAT)
            .map(|(_, part)| part)
            .map_err(at(stored))
    }
}

/// `[MirrorPointer][keyspace][0]` to a [`MirrorPointer`].
pub struct MirrorPointerKey;

/// The generation that a zone shows.
///
/// Invariant: every shard's part of it is durable in the zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorPointer {
    /// Its number in this zone.
    pub generation: u64,
    /// The cut it is.
    pub cut: Cut,
    /// Bytes of the messages that were shipped for it.
    pub bytes: u64,
    /// Keys that were shipped for it.
    pub keys: u64,
}

impl MirrorPointerKey {
    /// The stored key.
    pub fn encode(keyspace: KeyspaceId) -> Vec<u8> {
        key(Kind::MirrorPointer, first_shard(keyspace), &[])
    }

    /// The keyspace.
    pub fn keyspace(stored: &[u8]) -> Result<KeyspaceId, Error> {
        place_of(stored).map(|place| place.keyspace)
    }

    /// Those of all keyspaces.
    pub fn everywhere() -> (Vec<u8>, Vec<u8>) {
        everywhere(Kind::MirrorPointer)
    }

    /// The record.
    pub fn encode_record(pointer: &MirrorPointer) -> Bytes {
        record::encode(FORMAT, Header::default(), pointer, 64)
    }

    /// Reads a record.
    pub fn decode_record(stored: &[u8], record: &[u8]) -> Result<MirrorPointer, Error> {
        record::decode(record, FORMAT)
            .map(|(_, pointer)| pointer)
            .map_err(at(stored))
    }
}

const fn first_shard(keyspace: KeyspaceId) -> Place {
    Place {
        keyspace,
        shard: crate::ids::ShardId(0),
    }
}

fn everywhere(kind: Kind) -> (Vec<u8>, Vec<u8>) {
    let from = vec![kind.number()];
    let to = prefix_end(&from);
    (from, to)
}

/// The shard that stands in front of every stored key.
pub(crate) fn place_of(stored: &[u8]) -> Result<Place, Error> {
    match stored.first_chunk::<PREFIX_BYTES>() {
        Some(&[_, k0, k1, k2, k3, s0, s1]) => Ok(Place {
            keyspace: KeyspaceId(u32::from_be_bytes([k0, k1, k2, k3])),
            shard: crate::ids::ShardId(u16::from_be_bytes([s0, s1])),
        }),
        None => Err(corrupt(stored, "the key is truncated")),
    }
}

/// Everything that a mirror keeps of a shard; of the first shard, the pointer of the keyspace too.
pub fn mirror_ranges(place: Place) -> Vec<(Vec<u8>, Vec<u8>)> {
    let part = MirrorPartKey::encode(place);
    let mut ranges = vec![
        MirrorVersionKey::all(place),
        range(Kind::MirrorChange, place),
        (part.clone(), successor(&part)),
    ];
    if place.shard.0 == 0 {
        let pointer = MirrorPointerKey::encode(place.keyspace);
        let end = successor(&pointer);
        ranges.push((pointer, end));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;
    use proptest::prelude::*;

    const PLACE: Place = Place {
        keyspace: KeyspaceId(7),
        shard: ShardId(3),
    };

    fn any_key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()], 0..6)
    }

    proptest! {
        #[test]
        fn a_version_reads_back(user_key in any_key(), generation: u64) {
            let stored = MirrorVersionKey::encode(PLACE, &user_key, generation);
            prop_assert_eq!(MirrorVersionKey::decode(&stored), Ok((user_key, generation)));
        }

        #[test]
        fn versions_sort_by_key_and_then_the_newest_first(a in any_key(), b in any_key(), m: u64, n: u64) {
            let stored = MirrorVersionKey::encode(PLACE, &a, m).cmp(&MirrorVersionKey::encode(PLACE, &b, n));
            prop_assert_eq!(stored, (a, !m).cmp(&(b, !n)));
        }

        #[test]
        fn versions_of_a_key_are_those_up_to_the_generation(a in any_key(), b in any_key(), m: u64, n: u64) {
            let (from, to) = MirrorVersionKey::versions(PLACE, &a, m);
            let stored = MirrorVersionKey::encode(PLACE, &b, n);
            prop_assert_eq!(from <= stored && stored < to, a == b && n <= m);
        }

        #[test]
        fn a_change_reads_back_and_lies_in_its_generations(key in any_key(), n: u64, first: u64, last: u64) {
            let stored = MirrorChangeKey::encode(PLACE, n, &key);
            prop_assert_eq!(MirrorChangeKey::decode(&stored), Ok((n, key.as_slice())));
            let (from, to) = MirrorChangeKey::range(PLACE, first, last);
            prop_assert_eq!(from <= stored && stored < to, first <= n && n <= last);
        }

        #[test]
        fn foreign_bytes_never_panic(stored: Vec<u8>) {
            let _version = MirrorVersionKey::decode(&stored).is_ok();
            let _change = MirrorChangeKey::decode(&stored).is_ok();
            let _place = place_of(&stored).is_ok();
        }
    }

    #[test]
    fn a_version_without_its_end_is_refused() {
        let stored = MirrorVersionKey::encode(PLACE, b"k", 4);
        assert!(MirrorVersionKey::decode(&stored[..stored.len() - 9]).is_err());
    }

    #[test]
    fn state_of_a_mirror_reads_back() {
        let part = MirrorPart {
            have: vec![HeldGeneration {
                generation: 3,
                view: 9,
                cut_ms: 4,
                source: Incarnation::from_raw(5),
                index: 6,
                received: VersionVector::new(),
                bytes: 7,
                keys: 8,
            }],
            partial: Some(PartialGeneration {
                generation: 4,
                view: 10,
                from: Bytes::from_static(b"k"),
                bytes: 1,
                keys: 2,
            }),
            swept: 2,
        };
        let stored = MirrorPartKey::encode(PLACE);
        let record = MirrorPartKey::encode_record(&part);
        assert_eq!(MirrorPartKey::decode_record(&stored, &record), Ok(part));
        assert!(MirrorPartKey::decode_record(&stored, &record[..4]).is_err());
        assert_eq!(MirrorPartKey::place(&stored), Ok(PLACE));

        let pointer = MirrorPointer {
            generation: 4,
            cut: Cut::default(),
            bytes: 1,
            keys: 2,
        };
        let stored = MirrorPointerKey::encode(PLACE.keyspace);
        let record = MirrorPointerKey::encode_record(&pointer);
        assert_eq!(
            MirrorPointerKey::decode_record(&stored, &record),
            Ok(pointer)
        );
        assert_eq!(MirrorPointerKey::keyspace(&stored), Ok(PLACE.keyspace));
    }

    #[test]
    fn everything_of_a_shard_lies_in_its_ranges_and_nothing_of_another() {
        let kept = |place: Place| {
            [
                MirrorVersionKey::encode(place, b"k", 4),
                MirrorChangeKey::encode(place, 4, b"k"),
                MirrorPartKey::encode(place),
            ]
        };
        let within = |stored: &Vec<u8>| {
            mirror_ranges(PLACE)
                .iter()
                .any(|(from, to)| from <= stored && stored < to)
        };
        assert!(kept(PLACE).iter().all(within));
        let other = Place {
            shard: ShardId(4),
            ..PLACE
        };
        assert!(!kept(other).iter().any(within));
    }
}
