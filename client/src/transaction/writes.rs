//! What a transaction is to write: at most one thing per key, seen by its own reads, by nobody else before the commit.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use meridian_proto::kv::v1 as wire;

use super::range::KeyRange;
use super::reads::ReadSet;
use crate::ids::{Context, SessionToken};
use crate::options::ReadLevel;
use crate::results::{ServedBy, Sibling, Versions};

/// The last write of each key: a value, or nothing for a delete.
#[derive(Debug, Default)]
pub(super) struct WriteSet(BTreeMap<Bytes, Option<Bytes>>);

impl WriteSet {
    pub(super) fn set(&mut self, key: Bytes, value: Option<Bytes>) {
        self.0.insert(key, value);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Keys and bytes once this write is added.
    pub(super) fn with(&self, key: &[u8], value: Option<&Bytes>) -> (usize, usize) {
        let added = key.len() + value.map_or(0, Bytes::len);
        match self.0.get_key_value(key) {
            Some((key, old)) => (
                self.len(),
                self.bytes() - bytes_of(key, old.as_ref()) + added,
            ),
            None => (self.len() + 1, self.bytes() + added),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let bytes = |(key, value): (&Bytes, &Option<Bytes>)| bytes_of(key, value.as_ref());
        self.0.iter().map(bytes).sum()
    }

    /// The key as the transaction is to leave it, if it writes it.
    pub(super) fn own(&self, key: &[u8]) -> Option<Versions> {
        let (key, value) = self.0.get_key_value(key)?;
        Some(own_versions(key.clone(), value.clone()))
    }

    /// What a scan shows: what was read, with the transaction's own writes.
    pub(super) fn over(&self, entries: Vec<Versions>, range: &KeyRange) -> Vec<Versions> {
        let mut shown: BTreeMap<Bytes, Versions> = entries
            .into_iter()
            .map(|entry| (entry.key.clone(), entry))
            .collect();
        for (key, value) in self.0.iter().filter(|(key, _)| range.contains(key)) {
            if value.is_some() {
                shown.insert(key.clone(), own_versions(key.clone(), value.clone()));
            } else {
                shown.remove(key);
            }
        }
        shown.into_values().collect()
    }

    /// As actions. What was read is checked by the commit, so that a write of it may replace all that is there; what
    /// was not replaces what a single write would.
    pub(super) fn actions(&self, reads: &ReadSet) -> Vec<wire::Action> {
        let action = |(key, value): (&Bytes, &Option<Bytes>)| {
            let intent = if reads.covers(key) {
                wire::Intent::Overwrite
            } else {
                wire::Intent::Blind
            };
            action(key.clone(), value.clone(), intent)
        };
        self.0.iter().map(action).collect()
    }
}

fn action(key: Bytes, value: Option<Bytes>, intent: wire::Intent) -> wire::Action {
    let action = match value {
        Some(value) => wire::action::Action::Put(wire::Put {
            key,
            value,
            intent: intent.into(),
            ..wire::Put::default()
        }),
        None => wire::action::Action::Delete(wire::Delete {
            key,
            intent: intent.into(),
            ..wire::Delete::default()
        }),
    };
    wire::Action {
        action: Some(action),
    }
}

fn bytes_of(key: &Bytes, value: Option<&Bytes>) -> usize {
    key.len() + value.map_or(0, Bytes::len)
}

/// A key as its own transaction sees it: no node has given it a dot yet.
fn own_versions(key: Bytes, value: Option<Bytes>) -> Versions {
    let sibling = |value| Sibling {
        value,
        deleted: false,
        dot: String::new(),
        dots: Vec::new(),
        zone: String::new(),
        written_at_ms: 0,
        age: Duration::ZERO,
        op_id: None,
        held_by: Vec::new(),
    };
    let siblings: Vec<Sibling> = value.into_iter().map(sibling).collect();
    Versions {
        key,
        found: !siblings.is_empty(),
        siblings,
        context: Context::default(),
        level: ReadLevel::Linearizable,
        served_by: ServedBy::default(),
        staleness: Some(Duration::ZERO),
        zones: Vec::new(),
        mirror: None,
        mirrors: Vec::new(),
        session: SessionToken::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn shown(versions: &[Versions]) -> Vec<(String, String)> {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        versions
            .iter()
            .map(|one| (text(&one.key), text(one.value().unwrap())))
            .collect()
    }

    #[test]
    fn a_scan_shows_own_writes_in_place_of_what_was_read() {
        let read = ["a", "b", "c"].map(|key| own_versions(key.into(), Some(value("old"))));
        let mut writes = WriteSet::default();
        writes.set("b".into(), Some(value("new")));
        writes.set("c".into(), None);
        writes.set("d".into(), Some(value("added")));
        writes.set("z".into(), Some(value("outside")));
        let merged = writes.over(read.into(), &KeyRange::between("a", "e"));
        let expected = [("a", "old"), ("b", "new"), ("d", "added")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(shown(&merged), expected);
    }

    #[test]
    fn the_last_write_of_a_key_counts_alone() {
        let mut writes = WriteSet::default();
        writes.set("k".into(), Some(value("long value")));
        assert_eq!(writes.with(b"k", Some(&value("v"))), (1, 2));
        assert_eq!(writes.with(b"other", None), (2, 16));
        writes.set("k".into(), None);
        assert_eq!((writes.len(), writes.bytes()), (1, 1));
        assert!(!writes.own(b"k").unwrap().found);
        assert!(writes.own(b"other").is_none());
    }

    #[test]
    fn a_write_of_what_was_read_replaces_all_of_it() {
        let mut reads = ReadSet::default();
        reads
            .add_key("read".into(), Bytes::from_static(&[0]), None)
            .unwrap();
        reads.see(&[own_versions("scanned".into(), Some(value("1")))]);
        let mut writes = WriteSet::default();
        writes.set("read".into(), Some(value("2")));
        writes.set("scanned".into(), Some(value("2")));
        writes.set("unread".into(), None);
        let intents: Vec<_> = writes.actions(&reads).into_iter().map(intent).collect();
        let (overwrite, blind) = (wire::Intent::Overwrite, wire::Intent::Blind);
        assert_eq!(intents, [overwrite, overwrite, blind]);
    }

    fn intent(action: wire::Action) -> wire::Intent {
        match action.action.unwrap() {
            wire::action::Action::Get(_) => panic!("a read"),
            wire::action::Action::Put(put) => put.intent(),
            wire::action::Action::Delete(delete) => delete.intent(),
        }
    }
}
