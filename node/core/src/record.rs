//! The frame of every stored record: `[format u8][log index varint][hybrid time u64 BE]`, then a body.
//!
//! What it is not: it knows no kind of record. Each kind, in `keys`, has its own format numbers and its own body.
//!
//! Invariant: a record of a format that this program does not know is an error, never a guess. So a format may change,
//! and an older program refuses what a newer one wrote.

use bytes::Bytes;
use meridian_causal::Hlc;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What every record says of its last change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Log index of the entry that wrote the record; 0 for what no log wrote.
    pub index: u64,
    /// Hybrid time of that entry.
    pub hlc: Hlc,
}

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The record ends inside its frame or body.
    #[error("record of {len} bytes is truncated")]
    Truncated {
        /// Its length.
        len: usize,
    },
    /// A format this program does not know.
    #[error("format {found} is not known, {known} is")]
    Format {
        /// The format found.
        found: u8,
        /// The format known.
        known: u8,
    },
    /// The body does not read as what it should be.
    #[error("body does not read: {reason}")]
    Body {
        /// In the decoder's words.
        reason: String,
    },
}

impl RecordError {
    /// A body that a decoder refused.
    pub fn body(reason: impl ToString) -> Self {
        Self::Body {
            reason: reason.to_string(),
        }
    }
}

/// Bytes of a frame at most: format, index, time.
const FRAME_BYTES_MAX: usize = 1 + 10 + 8;

/// A buffer that holds the frame, with room for a body of `body_bytes`.
pub fn begin(format: u8, header: Header, body_bytes: usize) -> Vec<u8> {
    let mut record = Vec::with_capacity(FRAME_BYTES_MAX + body_bytes);
    record.push(format);
    let mut rest = header.index;
    while let Some(more) = (rest >= 0x80).then_some(rest >> 7) {
        record.push(low_bits(rest) | 0x80);
        rest = more;
    }
    record.push(low_bits(rest));
    record.extend_from_slice(&header.hlc.0.to_be_bytes());
    record
}

fn low_bits(value: u64) -> u8 {
    let [.., low] = value.to_be_bytes();
    low & 0x7f
}

/// The frame of a record, and where its body begins.
pub fn open(record: &[u8], known: u8) -> Result<(Header, &[u8]), RecordError> {
    let truncated = || RecordError::Truncated { len: record.len() };
    let (&found, rest) = record.split_first().ok_or_else(truncated)?;
    if found != known {
        return Err(RecordError::Format { found, known });
    }
    let (index, rest) = read_varint(rest).ok_or_else(truncated)?;
    let (hlc, body) = rest.split_first_chunk().ok_or_else(truncated)?;
    Ok((
        Header {
            index,
            hlc: Hlc(u64::from_be_bytes(*hlc)),
        },
        body,
    ))
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    let mut rest = bytes;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        rest = tail;
        if byte & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

/// A record whose body is `body` in postcard.
pub fn encode<T: Serialize>(format: u8, header: Header, body: &T, body_bytes: usize) -> Bytes {
    Bytes::from(append(begin(format, header, body_bytes), body))
}

/// `record` with `body` in postcard behind it.
pub fn append<T: Serialize>(record: Vec<u8>, body: &T) -> Vec<u8> {
    let encoded = postcard::to_extend(body, record);
    #[expect(
        clippy::panic,
        reason = "a vector takes any length, and no body of ours refuses to be serialized"
    )]
    encoded.unwrap_or_else(|error| panic!("a record body is always serializable: {error}"))
}

/// Reads what [`encode`] wrote.
pub fn decode<T: DeserializeOwned>(record: &[u8], known: u8) -> Result<(Header, T), RecordError> {
    let (header, body) = open(record, known)?;
    Ok((header, decode_body(body)?))
}

/// Reads a body in postcard, to its last byte.
pub fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, RecordError> {
    let (value, rest) = postcard::take_from_bytes(body).map_err(RecordError::body)?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(RecordError::body(format!("{} trailing bytes", rest.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_reads_back(index: u64, hlc: u64, body: Vec<u8>) {
            let header = Header { index, hlc: Hlc(hlc) };
            let record = encode(3, header, &body, body.len());
            prop_assert_eq!(decode(&record, 3), Ok((header, body)));
        }

        #[test]
        fn a_record_cut_short_is_an_error(index: u64, body in prop::collection::vec(any::<u8>(), 1..40)) {
            let record = encode(3, Header { index, hlc: Hlc(5) }, &body, body.len());
            for end in 0..record.len() {
                prop_assert!(decode::<Vec<u8>>(&record[..end], 3).is_err());
            }
        }

        #[test]
        fn foreign_bytes_never_panic(record: Vec<u8>) {
            let _read_or_refused = decode::<Vec<u8>>(&record, 1).is_ok();
        }
    }

    #[test]
    fn an_unknown_format_is_refused_by_number() {
        let record = encode(4, Header::default(), &0_u8, 1);
        assert_eq!(
            decode::<u8>(&record, 3),
            Err(RecordError::Format { found: 4, known: 3 })
        );
    }

    #[test]
    fn an_index_past_64_bits_is_refused() {
        let mut record = vec![1];
        record.extend([0xff; 9]);
        record.extend([2; 9]);
        assert!(open(&record, 1).is_err());
    }
}
