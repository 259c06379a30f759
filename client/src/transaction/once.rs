//! One-shot transactions: what must hold, what is done when it does, and what when it does not.

use std::time::Instant;

use bytes::Bytes;
use meridian_proto::kv::v1 as wire;
use wire::operation::Operation;
use wire::outcome::Outcome;

use super::options::TxnOptions;
use super::outcome::TransactionOutcome;
use super::run::{begin_anew, is_conflict};
use crate::client::{Client, wrong_kind};
use crate::error::Error;
use crate::ids::{Context, OpId};
use crate::options::Intent;

/// Something that must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key has no live version.
    Absent(Bytes),
    /// The key has a live version.
    Exists(Bytes),
    /// The key holds exactly one version, with this value.
    Value {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// The context covers every sibling of the key.
    Context {
        /// The key.
        key: Bytes,
        /// From a read or a write of this very key.
        context: Context,
    },
}

impl Compare {
    /// The key has no live version.
    pub fn absent(key: impl Into<Bytes>) -> Self {
        Self::Absent(key.into())
    }

    /// The key has a live version.
    pub fn exists(key: impl Into<Bytes>) -> Self {
        Self::Exists(key.into())
    }

    /// The key holds exactly one version, with this value.
    pub fn value(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Value {
            key: key.into(),
            value: value.into(),
        }
    }

    /// The context covers every sibling of the key.
    pub fn context(key: impl Into<Bytes>, context: Context) -> Self {
        Self::Context {
            key: key.into(),
            context,
        }
    }

    fn to_wire(&self) -> wire::Compare {
        use wire::compare::Compare as Wire;
        let compare = match self.clone() {
            Self::Absent(key) => Wire::Absent(key),
            Self::Exists(key) => Wire::Exists(key),
            Self::Value { key, value } => Wire::Value(wire::ValueIs { key, value }),
            Self::Context { key, context } => Wire::Context(wire::ContextIs {
                key,
                context: context.as_bytes().clone(),
            }),
        };
        wire::Compare {
            compare: Some(compare),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Absent(key) | Self::Exists(key) => key.len(),
            Self::Value { key, value } => key.len() + value.len(),
            Self::Context { key, context } => key.len() + context.as_bytes().len(),
        }
    }
}

/// Something to be done to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reads it, as it is before the transaction's own writes.
    Get(Bytes),
    /// Stores a value.
    Put {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
        /// What it replaces. When a condition does not hold, the transaction is refused.
        intent: Intent,
    },
    /// Removes it.
    Delete {
        /// The key.
        key: Bytes,
        /// What it replaces. When a condition does not hold, the transaction is refused.
        intent: Intent,
    },
}

impl Action {
    /// Reads a key.
    pub fn get(key: impl Into<Bytes>) -> Self {
        Self::Get(key.into())
    }

    /// Stores a value.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Put {
            key: key.into(),
            value: value.into(),
            intent: Intent::Blind,
        }
    }

    /// Removes a key.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::Delete {
            key: key.into(),
            intent: Intent::Blind,
        }
    }

    fn to_wire(&self) -> wire::Action {
        use wire::action::Action as Wire;
        let action = match self.clone() {
            Self::Get(key) => Wire::Get(wire::Get {
                key,
                ..wire::Get::default()
            }),
            Self::Put { key, value, intent } => {
                let intent = intent.to_wire();
                Wire::Put(wire::Put {
                    key,
                    value,
                    intent: intent.intent,
                    context: intent.context,
                    expected: intent.expected,
                    ..wire::Put::default()
                })
            }
            Self::Delete { key, intent } => {
                let intent = intent.to_wire();
                Wire::Delete(wire::Delete {
                    key,
                    intent: intent.intent,
                    context: intent.context,
                    expected: intent.expected,
                    ..wire::Delete::default()
                })
            }
        };
        wire::Action {
            action: Some(action),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Get(key) => key.len(),
            Self::Put { key, value, intent } => key.len() + value.len() + intent.bytes(),
            Self::Delete { key, intent } => key.len() + intent.bytes(),
        }
    }
}

/// A transaction that is sent whole: if all comparisons hold the first list is done, otherwise the second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    compare: Vec<Compare>,
    then: Vec<Action>,
    otherwise: Vec<Action>,
    op_id: Option<OpId>,
    options: TxnOptions,
}

impl Transaction {
    /// One that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// This must hold.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compare.push(compare);
        self
    }

    /// Done when all comparisons hold. A key is written once at most.
    #[must_use]
    pub fn then(mut self, action: Action) -> Self {
        self.then.push(action);
        self
    }

    /// Done when one does not. Without any such action the transaction fails with `CONFLICT`.
    #[must_use]
    pub fn otherwise(mut self, action: Action) -> Self {
        self.otherwise.push(action);
        self
    }

    /// Goes on with a transaction sent earlier, whose outcome is not known.
    #[must_use]
    pub const fn op_id(mut self, op_id: OpId) -> Self {
        self.op_id = Some(op_id);
        self
    }

    /// Other bounds than usual; time and attempts are not looked at.
    #[must_use]
    pub const fn options(mut self, options: TxnOptions) -> Self {
        self.options = options;
        self
    }

    fn check(&self) -> Result<(), Error> {
        let actions = || self.then.iter().chain(&self.otherwise);
        let bytes = self.compare.iter().map(Compare::bytes).sum::<usize>()
            + actions().map(Action::bytes).sum::<usize>();
        self.options
            .check(self.compare.len() + actions().count(), bytes)
    }

    pub(super) fn to_wire(&self) -> wire::Transact {
        let actions = |list: &[Action]| list.iter().map(Action::to_wire).collect();
        wire::Transact {
            compare: self.compare.iter().map(Compare::to_wire).collect(),
            then: actions(&self.then),
            otherwise: actions(&self.otherwise),
            op_id: self.op_id.map(OpId::to_wire),
        }
    }
}

impl Client {
    /// Does a transaction as one. It is repeated with the same op id when an attempt goes unanswered. One without
    /// comparisons can only have met another transaction when it is refused with `CONFLICT`, and is begun anew, as often
    /// as [`TxnOptions`] has it by default; with comparisons it never is: one that does not hold is an answer.
    pub async fn transact(&self, transaction: Transaction) -> Result<TransactionOutcome, Error> {
        transaction.check()?;
        let wire = transaction.to_wire();
        if !wire.compare.is_empty() {
            return self.transact_wire(wire).await;
        }
        let options = TxnOptions::default();
        let until = Instant::now() + options.duration_max;
        let mut attempts = 1;
        loop {
            match self.transact_wire(wire.clone()).await {
                Err(error) if is_conflict(&error) => {
                    attempts = begin_anew(error, attempts, &options, until).await?;
                }
                done => return done,
            }
        }
    }

    pub(super) async fn transact_wire(
        &self,
        transact: wire::Transact,
    ) -> Result<TransactionOutcome, Error> {
        let operation = Operation::Transact(transact);
        let (outcome, via) = self.operate_named(operation).await?;
        match outcome {
            Outcome::Transact(done) => TransactionOutcome::from_wire(done, &via),
            Outcome::Get(_)
            | Outcome::Write(_)
            | Outcome::Scan(_)
            | Outcome::Validate(_)
            | Outcome::Error(_) => Err(wrong_kind()),
        }
    }
}
