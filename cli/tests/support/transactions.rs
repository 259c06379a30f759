//! Transactions of the node in memory: a stamp is the dot of the newest sibling.

use meridian_client::proto::kv::v1 as kv;
use tonic::codegen::Bytes;

use super::Kept;

type Siblings = [kv::Sibling];

pub(super) fn stamp_of(siblings: &Siblings) -> Bytes {
    let dot = siblings.last().and_then(|sibling| sibling.dot.clone());
    dot.map_or_else(|| "absent".to_owned(), |dot| dot.text)
        .into_bytes()
        .into()
}

impl Kept {
    pub(super) fn range_stamp(&self, from: &[u8], to: &[u8]) -> kv::RangeStamp {
        let keys = self.keys.range(from.to_vec()..);
        let keys = keys.filter(|(key, _)| to.is_empty() || key.as_slice() < to);
        let stamps: Vec<_> = keys.map(|(key, all)| (key, stamp_of(all))).collect();
        kv::RangeStamp {
            shard: 0,
            from: from.to_vec().into(),
            to: to.to_vec().into(),
            stamp: format!("{stamps:?}").into(),
        }
    }

    fn siblings(&self, key: &Bytes) -> &Siblings {
        self.keys.get(key.as_ref()).map_or(&[], Vec::as_slice)
    }

    fn is(&self, key: &Bytes, value: &Bytes) -> bool {
        matches!(self.siblings(key), [only] if only.value == *value)
    }

    /// Whether a write bound to a value may be done.
    pub(super) fn value_fits(&self, key: &Bytes, intent: kv::Intent, expected: &Bytes) -> bool {
        intent != kv::Intent::IfValue || self.is(key, expected)
    }

    fn holds(&self, compare: &kv::Compare) -> bool {
        use kv::compare::Compare;
        match compare.compare.as_ref().unwrap() {
            Compare::Unchanged(read) => stamp_of(self.siblings(&read.key)) == read.stamp,
            Compare::RangeUnchanged(range) => self.range_stamp(&range.from, &range.to) == *range,
            Compare::Absent(key) => self.siblings(key).is_empty(),
            Compare::Exists(key) => !self.siblings(key).is_empty(),
            Compare::Value(is) => self.is(&is.key, &is.value),
            Compare::Context(is) => super::context_of(self.siblings(&is.key)) == is.context,
        }
    }

    pub(super) fn validate(&self, validate: &kv::Validate) -> kv::outcome::Outcome {
        let holds = validate.compare.iter().all(|one| self.holds(one));
        kv::outcome::Outcome::Validate(kv::ValidateResponse { holds })
    }

    pub(super) fn transact(&mut self, transact: &kv::Transact) -> kv::outcome::Outcome {
        if !self.meanwhile.is_empty() {
            let (key, value) = self.meanwhile.remove(0);
            self.put(kv::Put {
                key: key.into(),
                value: value.into(),
                ..kv::Put::default()
            });
        }
        if self.unknown {
            return failed("OUTCOME_UNKNOWN", kv::Effect::Unknown, 4);
        }
        let succeeded = transact.compare.iter().all(|one| self.holds(one));
        let actions = if succeeded {
            &transact.then
        } else {
            &transact.otherwise
        };
        if !succeeded && actions.is_empty() {
            return failed("CONFLICT", kv::Effect::None, 10);
        }
        let actions = actions.iter().map(|action| action.action.clone().unwrap());
        kv::outcome::Outcome::Transact(kv::TransactResponse {
            succeeded,
            results: actions.map(|action| self.act(action)).collect(),
            parts: 1,
            zones: vec!["a".to_owned()],
            op_id: transact.op_id.clone(),
            ..kv::TransactResponse::default()
        })
    }

    fn act(&mut self, action: kv::action::Action) -> kv::ActionResult {
        use kv::action::Action;
        use kv::action_result::Result as Done;
        let (key, result) = match action {
            Action::Get(get) => (get.key.clone(), Some(Done::Get(self.get(&get)))),
            Action::Put(put) => {
                let key = put.key.clone();
                let written = if let kv::outcome::Outcome::Write(write) = self.put(put) {
                    write.receipt
                } else {
                    None
                };
                (key, written.map(Done::Write))
            }
            Action::Delete(delete) => {
                self.keys.remove(delete.key.as_ref());
                (delete.key, Some(Done::Write(kv::Receipt::default())))
            }
        };
        kv::ActionResult { key, result }
    }
}

pub(super) fn failed(reason: &str, effect: kv::Effect, code: i32) -> kv::outcome::Outcome {
    kv::outcome::Outcome::Error(kv::Error {
        reason: reason.to_owned(),
        effect: effect.into(),
        code,
        ..kv::Error::default()
    })
}
