//! Keys in memory, enough of a zone to try transactions against. A stamp is the number of the change it names.

use std::collections::BTreeMap;

use bytes::Bytes;
use kv::outcome::Outcome;
use meridian_client::proto::kv::v1 as kv;

use crate::support::{Backend, error};

#[derive(Clone, Debug)]
struct Kept {
    value: Bytes,
    stamp: u64,
}

type Keys = BTreeMap<Bytes, Kept>;

/// What is done to the store before an operation is served.
pub(crate) type Meanwhile = Box<dyn FnMut(&kv::Operation, &mut Store) + Send>;

#[derive(Default)]
pub(crate) struct Store {
    keys: Keys,
    changes: u64,
    /// Open views, by their token.
    views: BTreeMap<Bytes, Keys>,
    pub(crate) views_opened: usize,
    pub(crate) views_closed: usize,
    /// Happens before each operation is served.
    pub(crate) meanwhile: Option<Meanwhile>,
    /// Keys in one page of a scan.
    pub(crate) page: usize,
}

impl Store {
    pub(crate) fn put(&mut self, key: &str, value: &str) {
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.set(key, Some(Bytes::copy_from_slice(value.as_bytes())));
    }

    pub(crate) fn value(&self, key: &str) -> Option<String> {
        let kept = self.keys.get(key.as_bytes())?;
        Some(String::from_utf8(kept.value.to_vec()).unwrap())
    }

    fn set(&mut self, key: Bytes, value: Option<Bytes>) {
        self.changes += 1;
        let stamp = self.changes;
        match value {
            Some(value) => self.keys.insert(key, Kept { value, stamp }),
            None => self.keys.remove(&key),
        };
    }

    fn serve_one(&mut self, operation: &kv::Operation) -> Outcome {
        use kv::operation::Operation;
        match operation.operation.as_ref().unwrap() {
            Operation::Get(get) => self.get(get),
            Operation::Scan(scan) => self.scan(scan),
            Operation::Validate(validate) => Outcome::Validate(kv::ValidateResponse {
                holds: validate.compare.iter().all(|one| self.holds(one)),
            }),
            Operation::Transact(transact) => self.transact(transact),
            Operation::Put(put) => {
                self.set(put.key.clone(), Some(put.value.clone()));
                Outcome::Write(kv::WriteResponse::default())
            }
            Operation::Delete(delete) => {
                self.set(delete.key.clone(), None);
                Outcome::Write(kv::WriteResponse::default())
            }
        }
    }

    /// The keys of a view, or those of now.
    fn source(&self, view: &Bytes) -> Option<&Keys> {
        if view.is_empty() {
            Some(&self.keys)
        } else {
            self.views.get(view)
        }
    }

    fn get(&self, get: &kv::Get) -> Outcome {
        let Some(keys) = self.source(&get.view) else {
            return lost();
        };
        let kept = keys.get(&get.key);
        Outcome::Get(kv::GetResponse {
            found: kept.is_some(),
            siblings: kept.map(sibling).into_iter().collect(),
            stamp: if get.stamped {
                stamp_of(kept)
            } else {
                Bytes::new()
            },
            ..kv::GetResponse::default()
        })
    }

    fn scan(&self, scan: &kv::Scan) -> Outcome {
        let Some(keys) = self.source(&scan.view) else {
            return lost();
        };
        let from = scan.from.clone().max(scan.page_token.clone());
        let end = |key: &Bytes| scan.to.is_empty() || *key < scan.to;
        let mut found = keys
            .range(from.clone()..)
            .filter(|(key, _)| key.starts_with(&scan.prefix) && end(key));
        let page: Vec<_> = found.by_ref().take(self.page.max(1)).collect();
        let next = found.next().map(|(key, _)| key.clone());
        let to = next.clone().unwrap_or_else(|| scan.to.clone());
        let range = kv::RangeStamp {
            shard: 0,
            stamp: range_stamp(keys, &from, &to),
            from,
            to,
        };
        Outcome::Scan(kv::ScanResponse {
            entries: page
                .into_iter()
                .map(|(key, kept)| kv::Entry {
                    key: key.clone(),
                    siblings: vec![sibling(kept)],
                    ..kv::Entry::default()
                })
                .collect(),
            next_page_token: next.unwrap_or_default(),
            range_stamps: if scan.stamped { vec![range] } else { vec![] },
            ..kv::ScanResponse::default()
        })
    }

    fn holds(&self, compare: &kv::Compare) -> bool {
        use kv::compare::Compare;
        let value = |key: &Bytes| self.keys.get(key).map(|kept| &kept.value);
        match compare.compare.as_ref().unwrap() {
            Compare::Unchanged(read) => stamp_of(self.keys.get(&read.key)) == read.stamp,
            Compare::RangeUnchanged(range) => {
                range_stamp(&self.keys, &range.from, &range.to) == range.stamp
            }
            Compare::Absent(key) => value(key).is_none(),
            Compare::Exists(key) => value(key).is_some(),
            Compare::Value(is) => value(&is.key) == Some(&is.value),
            // Contexts are not kept.
            Compare::Context(_) => false,
        }
    }

    fn transact(&mut self, transact: &kv::Transact) -> Outcome {
        let succeeded = transact.compare.iter().all(|one| self.holds(one));
        let actions = if succeeded {
            &transact.then
        } else {
            &transact.otherwise
        };
        if !succeeded && actions.is_empty() {
            return Outcome::Error(kv::Error {
                code: 10,
                ..error("CONFLICT", kv::Effect::None, false)
            });
        }
        let results = actions.iter().map(|action| self.act(action));
        Outcome::Transact(kv::TransactResponse {
            succeeded,
            results: results.collect(),
            parts: 1,
            op_id: transact.op_id.clone(),
            ..kv::TransactResponse::default()
        })
    }

    fn act(&mut self, action: &kv::Action) -> kv::ActionResult {
        use kv::action::Action;
        use kv::action_result::Result as Done;
        let written = || Some(Done::Write(kv::Receipt::default()));
        let (key, result) = match action.action.clone().unwrap() {
            Action::Get(get) => {
                let got = if let Outcome::Get(got) = self.get(&get) {
                    Some(Done::Get(got))
                } else {
                    None
                };
                (get.key, got)
            }
            Action::Put(put) => {
                self.set(put.key.clone(), Some(put.value));
                (put.key, written())
            }
            Action::Delete(delete) => {
                self.set(delete.key.clone(), None);
                (delete.key, written())
            }
        };
        kv::ActionResult { key, result }
    }
}

impl Backend for Store {
    fn serve(&mut self, operation: &kv::Operation) -> Outcome {
        if let Some(mut meanwhile) = self.meanwhile.take() {
            meanwhile(operation, self);
            self.meanwhile = Some(meanwhile);
        }
        self.serve_one(operation)
    }

    fn open_view(&mut self) -> Bytes {
        self.views_opened += 1;
        let token = Bytes::from(format!("view {}", self.views_opened));
        self.views.insert(token.clone(), self.keys.clone());
        token
    }

    fn close_view(&mut self, token: &Bytes) {
        self.views_closed += usize::from(self.views.remove(token).is_some());
    }
}

fn lost() -> Outcome {
    Outcome::Error(error("VIEW_LOST", kv::Effect::None, false))
}

fn sibling(kept: &Kept) -> kv::Sibling {
    kv::Sibling {
        value: kept.value.clone(),
        ..kv::Sibling::default()
    }
}

fn stamp_of(kept: Option<&Kept>) -> Bytes {
    kept.map_or_else(
        || Bytes::from_static(b"absent"),
        |kept| kept.stamp.to_string().into(),
    )
}

fn range_stamp(keys: &Keys, from: &Bytes, to: &Bytes) -> Bytes {
    let held = keys.range(from.clone()..);
    let held = held.filter(|(key, _)| to.is_empty() || *key < to);
    let stamps: Vec<_> = held.map(|(key, kept)| (key, kept.stamp)).collect();
    format!("{stamps:?}").into()
}
