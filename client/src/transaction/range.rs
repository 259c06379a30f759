//! Which keys a transaction scans.

use bytes::Bytes;

/// Keys in order: all that begin with a prefix, within bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// Keys that begin with it.
    pub prefix: Bytes,
    /// First key, inclusive. Empty: from the start.
    pub from: Bytes,
    /// End, exclusive. Empty: to the end.
    pub to: Bytes,
}

impl KeyRange {
    /// All keys that begin with it.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self {
            prefix: prefix.into(),
            ..Self::default()
        }
    }

    /// Keys from the first to the second, which is not among them.
    pub fn between(from: impl Into<Bytes>, to: impl Into<Bytes>) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
            ..Self::default()
        }
    }

    /// Whether the key is among them.
    pub fn contains(&self, key: &[u8]) -> bool {
        let before_end = self.to.is_empty() || key < self.to.as_ref();
        key.starts_with(&self.prefix) && key >= self.from.as_ref() && before_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_first_key_and_not_its_end() {
        let range = KeyRange::between("b", "d");
        let held = ["a", "b", "c", "d"].map(|key| range.contains(key.as_bytes()));
        assert_eq!(held, [false, true, true, false]);
        assert!(KeyRange::default().contains(b"anything"));
        let prefix = KeyRange::prefix("ab");
        assert!(prefix.contains(b"abc") && !prefix.contains(b"b") && !prefix.contains(b"a"));
    }
}
