//! Bytes and numbers: the canonical pieces that stored and sent values are made of.
//!
//! Integers are LEB128 in their shortest form, incarnations a zone and six bytes, texts and values a length and their
//! bytes. A reader refuses every other spelling, so that equal values are equal bytes, and never allocates more than
//! a constant times what it was given.

use bytes::Bytes;
use thiserror::Error;

use crate::{Incarnation, ZoneId};

/// Why bytes are not a value of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end inside the value.
    #[error("truncated: {needed} bytes needed where {left} are left")]
    Truncated {
        /// At least so many more were needed.
        needed: usize,
        /// So many were there.
        left: usize,
    },
    /// Bytes follow the value.
    #[error("{bytes} trailing bytes")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The bytes are complete and break a rule of the format, or an invariant of the value.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

/// Appends `value` as LEB128.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        let [.., low] = value.to_be_bytes();
        out.push(low | 0x80);
        value >>= 7;
    }
    let [.., low] = value.to_be_bytes();
    out.push(low);
}

/// Appends a length.
pub(crate) fn put_len(out: &mut Vec<u8>, len: usize) {
    put_varint(out, len as u64);
}

/// Appends an incarnation: seven bytes for zones below 128.
pub(crate) fn put_incarnation(out: &mut Vec<u8>, incarnation: Incarnation) {
    put_varint(out, u64::from(incarnation.zone().0));
    let [_, _, nonce @ ..] = incarnation.nonce().to_be_bytes();
    out.extend_from_slice(&nonce);
}

/// Reads what the functions above wrote. `source` is the buffer `rest` lies in, where values may share it.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    source: Option<&'a Bytes>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            source: None,
        }
    }

    /// A reader whose values are slices of `source` rather than copies.
    pub(crate) fn sharing(source: &'a Bytes) -> Self {
        Self {
            rest: source,
            source: Some(source),
        }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let left = self.rest.len();
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(DecodeError::Truncated { needed: len, left })?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let left = self.rest.len();
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::Truncated { needed: N, left })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(DecodeError::Malformed("integer exceeds 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                let shortest = byte != 0 || shift == 0;
                return if shortest {
                    Ok(value)
                } else {
                    Err(DecodeError::Malformed("integer not in its shortest form"))
                };
            }
        }
        Err(DecodeError::Malformed("integer exceeds 64 bits"))
    }

    /// How many items follow, of which each takes at least `item_bytes_min`: no more than can be there.
    pub(crate) fn count(&mut self, item_bytes_min: usize) -> Result<usize, DecodeError> {
        let declared = self.varint()?;
        let left = self.rest.len();
        let count = usize::try_from(declared).unwrap_or(usize::MAX);
        let needed = count.saturating_mul(item_bytes_min);
        if needed > left {
            Err(DecodeError::Truncated { needed, left })
        } else {
            Ok(count)
        }
    }

    pub(crate) fn incarnation(&mut self) -> Result<Incarnation, DecodeError> {
        let zone = u16::try_from(self.varint()?)
            .map_err(|_out_of_range| DecodeError::Malformed("zone exceeds 16 bits"))?;
        let nonce: [u8; 6] = self.array()?;
        let nonce = nonce
            .iter()
            .fold(0, |high, low| high << 8 | u64::from(*low));
        Ok(Incarnation::new(ZoneId(zone), nonce))
    }

    pub(crate) fn value(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.count(1)?;
        let taken = self.take(len)?;
        Ok(self.source.map_or_else(
            || Bytes::copy_from_slice(taken),
            |source| source.slice_ref(taken),
        ))
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }
}

/// Gives a type serde through its canonical bytes, so that what serde reads is validated like what storage reads.
macro_rules! serde_by_bytes {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut bytes = Vec::new();
                self.encode(&mut bytes);
                serializer.serialize_bytes(&bytes)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bytes = <bytes::Bytes as serde::Deserialize>::deserialize(deserializer)?;
                Self::decode(&bytes).map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_by_bytes;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn varint(bytes: &[u8]) -> Result<u64, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = reader.varint()?;
        reader.finish()?;
        Ok(value)
    }

    #[test]
    fn a_longer_spelling_of_an_integer_is_refused() {
        assert_eq!(varint(&[0x05]), Ok(5));
        assert_eq!(varint(&[0x00]), Ok(0));
        assert_eq!(
            varint(&[0x85, 0x00]),
            Err(DecodeError::Malformed("integer not in its shortest form"))
        );
        assert_eq!(
            varint(&[0x80, 0x00]),
            Err(DecodeError::Malformed("integer not in its shortest form"))
        );
    }

    #[test]
    fn an_integer_past_64_bits_is_refused() {
        let mut bytes = vec![0xff; 9];
        bytes.push(0x01);
        assert_eq!(varint(&bytes), Ok(u64::MAX));
        bytes.pop();
        bytes.push(0x02);
        assert_eq!(
            varint(&bytes),
            Err(DecodeError::Malformed("integer exceeds 64 bits"))
        );
        assert_eq!(
            varint(&[0xff; 11]),
            Err(DecodeError::Malformed("integer exceeds 64 bits"))
        );
    }

    #[test]
    fn a_count_beyond_what_is_left_is_refused_before_it_is_allocated() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, u64::MAX);
        assert_eq!(
            Reader::new(&bytes).count(8),
            Err(DecodeError::Truncated {
                needed: usize::MAX,
                left: 0
            })
        );
    }

    proptest! {
        #[test]
        fn integers_read_back(value: u64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(varint(&bytes), Ok(value));
        }

        #[test]
        fn incarnations_read_back(zone: u16, nonce: u64) {
            let incarnation = Incarnation::new(ZoneId(zone), nonce);
            let mut bytes = Vec::new();
            put_incarnation(&mut bytes, incarnation);
            prop_assert_eq!(Reader::new(&bytes).incarnation(), Ok(incarnation));
        }
    }
}
