//! Numbers and bytes of a packed page: LEB128, and differences to the number before with the sign in the lowest bit.

use crate::record::RecordError;

/// Appends `value`, seven bits to a byte.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low(value) | 0x80);
        value >>= 7;
    }
    out.push(low(value));
}

/// The lowest eight bits.
pub(super) fn low(value: u64) -> u8 {
    let [.., low] = value.to_be_bytes();
    low
}

/// Appends a length.
pub(super) fn put_len(out: &mut Vec<u8>, len: usize) {
    put_varint(out, u64::try_from(len).unwrap_or(u64::MAX));
}

/// Appends what leads from `before` to `value`: few bytes when they are near one another, in either direction.
pub(super) fn put_step(out: &mut Vec<u8>, before: u64, value: u64) {
    let step = value.wrapping_sub(before).cast_signed();
    put_varint(out, ((step << 1) ^ (step >> 63)).cast_unsigned());
}

/// Reads what the functions above wrote. Never takes more than is there.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            len: bytes.len(),
        }
    }

    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let truncated = RecordError::Truncated { len: self.len };
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let truncated = RecordError::Truncated { len: self.len };
        let (taken, rest) = self.rest.split_first_chunk().ok_or(truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, RecordError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(super) fn varint(&mut self) -> Result<u64, RecordError> {
        let mut value = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError::body("an integer exceeds 64 bits"))
    }

    pub(super) fn step(&mut self, before: u64) -> Result<u64, RecordError> {
        let coded = self.varint()?;
        let step = (coded >> 1) ^ (coded & 1).wrapping_neg();
        Ok(before.wrapping_add(step))
    }

    /// A length of bytes that follow, or of items that take at least a byte each.
    pub(super) fn len(&mut self) -> Result<usize, RecordError> {
        let len = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if len > self.left() {
            return Err(RecordError::Truncated { len: self.len });
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_and_steps_read_back(before: u64, value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            put_step(&mut out, before, value);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.step(before), Ok(value));
            prop_assert_eq!(reader.left(), 0);
        }
    }

    #[test]
    fn a_length_beyond_what_is_there_is_refused() {
        assert_eq!(Reader::new(&[2, 0, 0]).len(), Ok(2));
        assert!(Reader::new(&[3, 0, 0]).len().is_err());
        assert!(Reader::new(&[0xff; 12]).varint().is_err());
    }
}
