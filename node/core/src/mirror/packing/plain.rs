//! A record of the ordinary kind, taken apart: one sibling, whose dot is the newest of its incarnation that the key has seen.
//!
//! What it is not: every record. Conflicts and contexts with gaps travel as the bytes they are.
//!
//! Invariant: [`Plain::record`] gives the bytes that [`Plain::of`] was given.

use bytes::Bytes;
use meridian_causal::{
    CausalContext, Content, Dot, Hlc, Incarnation, OpId, Sibling, SiblingSet, TransactionTag,
    VersionVector,
};

use crate::keys::VersionKey;
use crate::record::Header;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plain {
    pub(super) header: Header,
    pub(super) dot: Dot,
    /// What the key has seen of other incarnations, ascending.
    pub(super) others: Vec<(Incarnation, u64)>,
    /// Where it is not the time of the entry that changed the record last.
    pub(super) written_at: Option<Hlc>,
    pub(super) expires_at_ms: Option<u64>,
    pub(super) op_id: Option<OpId>,
    pub(super) transaction: Option<TransactionTag>,
    pub(super) content: Content,
}

impl Plain {
    /// Takes a record apart, if it is of this kind.
    pub(super) fn of(record: &Bytes) -> Option<Self> {
        let (header, set) = VersionKey::decode_record(&[], record).ok()?;
        let [sibling] = set.siblings() else {
            return None;
        };
        let (dot, context) = (sibling.dot, set.context());
        let seen = context.vector();
        if !context.dots().is_empty() || seen.get(dot.incarnation) != dot.counter {
            return None;
        }
        let others = seen.iter().filter(|(of, _)| *of != dot.incarnation);
        let plain = Self {
            header,
            dot,
            others: others.collect(),
            written_at: Some(sibling.written_at).filter(|at| *at != header.hlc),
            expires_at_ms: sibling.expires_at_ms,
            op_id: sibling.op_id,
            transaction: sibling.transaction,
            content: sibling.content.clone(),
        };
        // Records have one spelling each; should one come to have two, it travels as it is.
        (plain.record() == *record).then_some(plain)
    }

    /// The record.
    ///
    /// The dot's counter is not 0, and no other incarnation is the dot's or has seen nothing: whoever reads it from bytes
    /// has made sure.
    pub(super) fn record(&self) -> Bytes {
        let mut others = VersionVector::new();
        for (incarnation, counter) in &self.others {
            others.advance(*incarnation, *counter);
        }
        let mut seen = VersionVector::new();
        seen.advance(self.dot.incarnation, self.dot.counter);
        let sibling = Sibling {
            dot: self.dot,
            content: self.content.clone(),
            written_at: self.written_at.unwrap_or(self.header.hlc),
            expires_at_ms: self.expires_at_ms,
            op_id: self.op_id,
            transaction: self.transaction,
        };
        let mut set = SiblingSet::new();
        set.apply(sibling, &CausalContext::from_vector(others), &seen);
        VersionKey::encode_record(self.header, &set)
    }
}
