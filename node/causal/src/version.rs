//! Versions: what a reader counts.
//!
//! An unconditional write that was retried in a second zone bears two dots and one op id. The dots stay apart in the
//! state, and are shown as one version, which a context covers whole.
//!
//! One op id with two *different* values is no retry but a caller's mistake, and stays two versions: a read never
//! hides a value. A dot that has expired counts as the value it was.

use crate::{CausalContext, Content, Dot, Sibling, SiblingSet, ZoneId};

/// The siblings of one write.
///
/// Invariant: at least one sibling, sorted by dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version<'a> {
    siblings: Vec<&'a Sibling>,
}

impl<'a> Version<'a> {
    /// Its siblings, sorted by dot; at least one.
    pub fn siblings(&self) -> &[&'a Sibling] {
        &self.siblings
    }

    /// Its dots, sorted.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.siblings.iter().map(|sibling| sibling.dot)
    }

    /// Whether one of its dots is live: expiry ends a version when it was logged for each.
    pub fn is_live(&self) -> bool {
        self.siblings.iter().any(|sibling| sibling.is_live())
    }

    /// What it says: the value for as long as it is live.
    pub fn content(&self) -> &'a Content {
        self.siblings
            .iter()
            .map(|sibling| &sibling.content)
            .min()
            .unwrap_or(&Content::Tombstone)
    }

    /// Its youngest record, by time and then by dot.
    pub fn newest(&self) -> Option<&'a Sibling> {
        self.siblings
            .iter()
            .copied()
            .max_by_key(|sibling| (sibling.written_at, sibling.dot))
    }

    /// A context that covers its dots, and nothing else.
    pub fn context(&self) -> CausalContext {
        let mut context = CausalContext::new();
        for dot in self.dots() {
            context.insert(dot);
        }
        context
    }

    /// When `zone` wrote it last, if it did: what "newest of the own zone" is judged by.
    pub(crate) fn age_in(&self, zone: ZoneId) -> Option<(crate::Hlc, Dot)> {
        let own = self
            .siblings
            .iter()
            .filter(|sibling| sibling.dot.zone() == zone);
        own.map(|sibling| (sibling.written_at, sibling.dot)).max()
    }

    fn takes(&self, sibling: &Sibling) -> bool {
        self.siblings.iter().all(|member| is_retry(member, sibling))
    }
}

/// Whether two siblings are attempts of one operation.
fn is_retry(a: &Sibling, b: &Sibling) -> bool {
    let same = a.content == b.content || a.is_expired() || b.is_expired();
    a.op_id.is_some() && a.op_id == b.op_id && same
}

impl SiblingSet {
    /// The siblings grouped into versions, sorted by the least dot of each.
    pub fn versions(&self) -> Vec<Version<'_>> {
        let mut versions: Vec<Version<'_>> = Vec::with_capacity(self.siblings().len());
        for sibling in self.siblings() {
            match versions.iter_mut().find(|version| version.takes(sibling)) {
                Some(version) => version.siblings.push(sibling),
                None => versions.push(Version {
                    siblings: vec![sibling],
                }),
            }
        }
        versions
    }

    /// How many versions are live.
    pub fn live_versions(&self) -> usize {
        match self.siblings() {
            [] => 0,
            [only] => usize::from(only.is_live()),
            _ => self
                .versions()
                .iter()
                .filter(|version| version.is_live())
                .count(),
        }
    }

    /// Whether a reader has to choose: more than one version, of which at least one is live. A `deleted` sibling
    /// beside a live one is a conflict; tombstones alone are none.
    pub fn is_conflict(&self) -> bool {
        self.siblings().len() > 1 && self.has_live() && self.versions().len() > 1
    }
}
