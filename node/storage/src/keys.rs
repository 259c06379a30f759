//! What the engine knows of keys: their order, and which family they belong to.

/// First byte of the keys that live in the log family: written once, read seldom, deleted soon.
pub const LOG_FAMILY_FIRST: u8 = 0x80;

/// Length of the end that stands for "no key is greater": no stored key begins with this many `0xff` bytes.
const OPEN_END_LEN: usize = 16;

/// The end of the range of all keys that begin with `prefix`: `[prefix, prefix_end(prefix))`.
///
/// A prefix of nothing but `0xff` bytes (or an empty one) has no successor; then the end is a run of sixteen `0xff`
/// bytes, which is greater than any key in use (a key begins with its kind, and no kind is `0xff`).
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    vec![0xff; OPEN_END_LEN]
}

/// The two families, in the order of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// All other keys.
    State,
    /// Keys from [`LOG_FAMILY_FIRST`] on.
    Log,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::State, Self::Log];

    /// Where `key` lives.
    pub(crate) fn of(key: &[u8]) -> Self {
        match key.first() {
            Some(&first) if first >= LOG_FAMILY_FIRST => Self::Log,
            Some(_) | None => Self::State,
        }
    }

    /// The part of `[from, to)` that lies in this family, or `None` when it is empty.
    pub(crate) fn clip<'a>(self, from: &'a [u8], to: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        const BORDER: &[u8] = &[LOG_FAMILY_FIRST];
        let (from, to) = match self {
            Self::State => (from, to.min(BORDER)),
            Self::Log => (from.max(BORDER), to),
        };
        (from < to).then_some((from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_prefix_of_the_same_length_or_shorter() {
        assert_eq!(prefix_end(b"ab"), b"ac");
        assert_eq!(prefix_end(&[1, 0xff]), [2]);
        assert_eq!(prefix_end(&[0]), [1]);
    }

    #[test]
    fn a_prefix_without_successor_ends_above_every_key_in_use() {
        assert_eq!(prefix_end(&[]), [0xff; OPEN_END_LEN]);
        assert_eq!(prefix_end(&[0xff, 0xff]), [0xff; OPEN_END_LEN]);
    }

    #[test]
    fn a_range_over_both_families_is_cut_at_the_border() {
        assert_eq!(
            Family::State.clip(b"a", &[0x90]),
            Some((&b"a"[..], &[0x80][..]))
        );
        assert_eq!(
            Family::Log.clip(b"a", &[0x90]),
            Some((&[0x80][..], &[0x90][..]))
        );
    }

    #[test]
    fn a_range_outside_a_family_or_inverted_is_empty_there() {
        assert_eq!(Family::Log.clip(b"a", b"b"), None);
        assert_eq!(Family::State.clip(&[0x80], &[0x90]), None);
        assert_eq!(Family::State.clip(b"b", b"a"), None);
        assert_eq!(Family::State.clip(b"a", b"a"), None);
    }
}
