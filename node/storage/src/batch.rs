//! A list of changes that happen together or not at all.

use bytes::Bytes;

/// One change of a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets the value of a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its value from now on.
        value: Bytes,
    },
    /// Removes a key, if it is there.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Removes every key in `[from, to)`; an empty or inverted range removes nothing.
    DeleteRange {
        /// First key to go.
        from: Bytes,
        /// First key to stay.
        to: Bytes,
    },
}

impl Op {
    /// Bytes of keys and values.
    fn size_bytes(&self) -> usize {
        match self {
            Self::Put { key, value } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
            Self::DeleteRange { from, to } => from.len() + to.len(),
        }
    }
}

/// Changes in order; a later one wins over an earlier one of the same key.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Batch {
    ops: Vec<Op>,
    size_bytes: usize,
}

impl Batch {
    /// A batch without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// One with room for so many changes.
    pub fn with_capacity(len: usize) -> Self {
        Self {
            ops: Vec::with_capacity(len),
            size_bytes: 0,
        }
    }

    /// Sets the value of `key`.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.push(Op::Put {
            key: key.into(),
            value: value.into(),
        });
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.push(Op::Delete { key: key.into() });
    }

    /// Removes the keys in `[from, to)`.
    pub fn delete_range(&mut self, from: impl Into<Bytes>, to: impl Into<Bytes>) {
        self.push(Op::DeleteRange {
            from: from.into(),
            to: to.into(),
        });
    }

    /// Puts the changes of `other` behind those of this batch.
    pub fn append(&mut self, mut other: Self) {
        self.size_bytes += other.size_bytes;
        self.ops.append(&mut other.ops);
    }

    /// True when there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Bytes of all keys and values, without any overhead.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// The changes, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Op> {
        self.ops.iter()
    }

    fn push(&mut self, op: Op) {
        self.size_bytes += op.size_bytes();
        self.ops.push(op);
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = &'a Op;
    type IntoIter = std::slice::Iter<'a, Op>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Batch {
    type Item = Op;
    type IntoIter = std::vec::IntoIter<Op>;

    fn into_iter(self) -> Self::IntoIter {
        self.ops.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_and_length_follow_every_change() {
        let mut batch = Batch::new();
        assert!(batch.is_empty());
        batch.put("key", "value");
        batch.delete("k");
        batch.delete_range("a", "bc");
        assert_eq!((batch.len(), batch.size_bytes()), (3, 8 + 1 + 3));

        let mut longer = Batch::new();
        longer.put("x", "");
        longer.append(batch);
        assert_eq!((longer.len(), longer.size_bytes()), (4, 13));
        assert_eq!(
            longer.iter().next(),
            Some(&Op::Put {
                key: "x".into(),
                value: "".into()
            })
        );
    }
}
