//! Why an operation failed, and whether it may have had an effect.
//!
//! Callers decide by [`Error::kind`], [`Error::reason`] and [`Error::effect`], never by the text.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use meridian_proto::kv::v1 as wire;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::ids::OpId;

/// Whether a failed operation had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Surely not.
    None,
    /// Surely.
    Applied,
    /// It cannot be said.
    Unknown,
}

impl Effect {
    /// As it appears in JSON and in metadata.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Applied => "applied",
            Self::Unknown => "unknown",
        }
    }

    fn from_metadata(text: Option<&String>) -> Self {
        match text.map(String::as_str) {
            Some("none") => Self::None,
            Some("applied") => Self::Applied,
            _ => Self::Unknown,
        }
    }

    fn from_wire(effect: wire::Effect) -> Self {
        match effect {
            wire::Effect::Unknown => Self::Unknown,
            wire::Effect::None => Self::None,
            wire::Effect::Applied => Self::Applied,
        }
    }
}

/// What sort of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request makes no sense, whoever is asked.
    InvalidArgument,
    /// What the request names does not exist (a keyspace, a zone; an absent key is no error).
    NotFound,
    /// It exists already.
    AlreadyExists,
    /// The condition of a write did not hold, or a transaction met a conflict.
    ConditionNotMet,
    /// Nobody who could do it answers, or not in time.
    Unavailable,
    /// Too much work, or no room.
    Exhausted,
    /// Not allowed, not here, or not offered.
    Refused,
    /// Stored bytes are damaged.
    Corruption,
    /// Something is broken.
    Internal,
}

impl ErrorKind {
    fn from_code(code: Code) -> Self {
        match code {
            Code::InvalidArgument | Code::OutOfRange => Self::InvalidArgument,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::Aborted => Self::ConditionNotMet,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                Self::Unavailable
            }
            Code::ResourceExhausted => Self::Exhausted,
            Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented => Self::Refused,
            Code::DataLoss => Self::Corruption,
            Code::Ok | Code::Internal => Self::Internal,
        }
    }
}

#[derive(Clone, Debug)]
struct Facts {
    kind: ErrorKind,
    reason: String,
    message: String,
    effect: Effect,
    retryable: bool,
    retry_after: Option<Duration>,
    op_id: Option<OpId>,
    metadata: BTreeMap<String, String>,
}

/// Why an operation failed. Small; the facts are behind one pointer.
#[derive(Clone, Debug)]
pub struct Error(Box<Facts>);

impl Error {
    pub(crate) fn new(kind: ErrorKind, reason: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Facts {
            kind,
            reason: reason.to_owned(),
            message: message.into(),
            effect: Effect::None,
            retryable: false,
            retry_after: None,
            op_id: None,
            metadata: BTreeMap::new(),
        }))
    }

    /// Nothing was sent: nobody could be reached.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorKind::Unavailable, "UNREACHABLE", message);
        error.0.retryable = true;
        error
    }

    /// The link broke, or no answer came in time, after the operation may have been sent.
    pub(crate) fn unanswered(message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorKind::Unavailable, "OUTCOME_UNKNOWN", message);
        error.0.retryable = true;
        error.0.effect = Effect::Unknown;
        error
    }

    /// A node answered what the contract does not allow.
    pub(crate) fn bad_answer(message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorKind::Internal, "BAD_ANSWER", message);
        error.0.effect = Effect::Unknown;
        error
    }

    /// A transaction met another one, or what it had read has changed.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ConditionNotMet, "CONFLICT", message)
    }

    /// For the body of a transaction that is to end without effect.
    pub fn abort(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ConditionNotMet, "TXN_ABORTED", message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, "INVALID_ARGUMENT", message)
    }

    fn from_wire(wire: wire::Error) -> Self {
        let effect = Effect::from_wire(wire.effect());
        let retry_after = match wire.retry_after_ms {
            0 => None,
            ms => Some(Duration::from_millis(u64::from(ms))),
        };
        Self(Box::new(Facts {
            kind: ErrorKind::from_code(Code::from_i32(wire.code)),
            reason: wire.reason,
            message: wire.message,
            effect,
            retryable: wire.retryable,
            retry_after,
            op_id: wire.op_id.as_ref().and_then(OpId::from_wire),
            metadata: wire.metadata.into_iter().collect(),
        }))
    }

    /// From the status of a unary call; the facts are in its details.
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        let Some(info) = details.error_info() else {
            return Self::from_bare_status(status);
        };
        let metadata: BTreeMap<String, String> = info
            .metadata
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        Self(Box::new(Facts {
            kind: ErrorKind::from_code(status.code()),
            reason: info.reason.clone(),
            message: status.message().to_owned(),
            effect: Effect::from_metadata(metadata.get("effect")),
            retryable: retry_after.is_some(),
            retry_after,
            op_id: metadata.get("op_id").and_then(|text| text.parse().ok()),
            metadata,
        }))
    }

    /// A status that no Meridian node made: the transport, or a proxy.
    fn from_bare_status(status: &Status) -> Self {
        let kind = ErrorKind::from_code(status.code());
        match kind {
            ErrorKind::Unavailable => Self::unanswered(status.message()),
            ErrorKind::InvalidArgument
            | ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::Refused => Self::new(kind, "TRANSPORT", status.message()),
            ErrorKind::ConditionNotMet
            | ErrorKind::Exhausted
            | ErrorKind::Corruption
            | ErrorKind::Internal => {
                let mut error = Self::new(kind, "TRANSPORT", status.message());
                error.0.effect = Effect::Unknown;
                error
            }
        }
    }

    /// A read has no effect, whatever happened to it.
    pub(crate) fn without_effect(mut self) -> Self {
        self.0.effect = Effect::None;
        if self.0.reason == "OUTCOME_UNKNOWN" {
            "DEADLINE_EXCEEDED".clone_into(&mut self.0.reason);
        }
        self
    }

    /// This attempt failed as said, but an earlier one of the same operation may have had an effect.
    pub(crate) fn after_unknown_attempt(mut self) -> Self {
        if self.0.effect == Effect::None {
            let last = std::mem::replace(&mut self.0.reason, "OUTCOME_UNKNOWN".to_owned());
            self.0.metadata.insert("last_reason".to_owned(), last);
            self.0.kind = ErrorKind::Unavailable;
            self.0.effect = Effect::Unknown;
        }
        self
    }

    pub(crate) fn with_op_id(mut self, op_id: Option<OpId>) -> Self {
        self.0.op_id = self.0.op_id.or(op_id);
        self
    }

    pub(crate) fn with_metadata(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.metadata.insert(name.to_owned(), value.into());
        self
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Stable name of the failure, such as `NO_QUORUM`.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// For people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether the operation had an effect.
    pub fn effect(&self) -> Effect {
        self.0.effect
    }

    /// Whether the same operation, with the same op id, may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// When to try again, if the node said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The operation that failed, to go on with it.
    pub fn op_id(&self) -> Option<OpId> {
        self.0.op_id
    }

    /// Further facts, by name.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.0.metadata
    }
}

impl From<wire::Error> for Error {
    /// As it travels on the `Operate` stream and in batches.
    fn from(wire: wire::Error) -> Self {
        Self::from_wire(wire)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0.message, self.0.reason)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn the_details_of_a_status_become_facts() {
        let facts = HashMap::from([("effect".to_owned(), "none".to_owned())]);
        let mut details = ErrorDetails::with_error_info("NO_QUORUM", "meridian", facts);
        details.set_retry_info(Some(Duration::from_millis(200)));
        let status = Status::with_error_details(Code::Unavailable, "no majority", details);

        let error = Error::from_status(&status);
        assert_eq!(error.reason(), "NO_QUORUM");
        assert_eq!(error.effect(), Effect::None);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.retry_after(), Some(Duration::from_millis(200)));
    }

    #[test]
    fn a_transport_error_leaves_the_outcome_unknown() {
        let error = Error::from_status(&Status::unknown("transport error"));
        assert_eq!(error.effect(), Effect::Unknown);
        assert_eq!(error.reason(), "OUTCOME_UNKNOWN");
    }

    #[test]
    fn a_refusal_after_an_unanswered_attempt_is_an_unknown_outcome() {
        let refused = Error::unreachable("connection refused");
        assert_eq!(refused.effect(), Effect::None);
        let error = refused.after_unknown_attempt();
        assert_eq!(error.effect(), Effect::Unknown);
        assert_eq!(error.reason(), "OUTCOME_UNKNOWN");
        assert_eq!(error.metadata().get("last_reason").unwrap(), "UNREACHABLE");
    }

    #[test]
    fn an_error_without_a_stated_effect_may_have_had_one() {
        let error = Error::from(wire::Error::default());
        assert_eq!(error.effect(), Effect::Unknown);
    }
}
