//! Errors as clients see them: the one place where a reason gets its code and its facts.
//!
//! A [`Failure`] becomes a `Status` with `ErrorInfo` and `RetryInfo` on unary calls, and an `Error` on the stream;
//! both say the same.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use meridian_causal::{OpId, TokenError};
use meridian_core::Error;
use meridian_core::error::EffectOf;
use meridian_proto::kv::v1 as kv;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Domain of the reasons, as `ErrorInfo` asks for.
const DOMAIN: &str = "meridian";

/// When nothing better is known, how long a client waits before it tries again.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Why an operation was not done, in the words of the contract. Small; the facts are behind one pointer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure(Box<Facts>);

#[derive(Clone, Debug, PartialEq)]
struct Facts {
    reason: &'static str,
    code: Code,
    message: String,
    effect: EffectOf,
    retry_after: Option<Duration>,
    op_id: Option<OpId>,
    metadata: BTreeMap<String, String>,
}

impl Failure {
    /// A failure that surely had no effect and that trying again does not cure.
    fn refused(reason: &'static str, code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Facts {
            reason,
            code,
            message: message.into(),
            effect: EffectOf::None,
            retry_after: None,
            op_id: None,
            metadata: BTreeMap::new(),
        }))
    }

    /// Stable name of the failure.
    pub(crate) const fn reason(&self) -> &'static str {
        self.0.reason
    }

    fn retryable(mut self) -> Self {
        self.0.retry_after = Some(RETRY_AFTER);
        self
    }

    fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.0.metadata.insert(name.to_owned(), value.to_string());
        self
    }

    /// Names the operation, so that the client may ask again with it.
    pub(crate) fn of_operation(mut self, op_id: Option<OpId>) -> Self {
        self.0.op_id = self.0.op_id.or(op_id);
        self
    }

    /// Bad arguments of any kind.
    pub(crate) fn invalid(reason: &'static str, message: impl Into<String>) -> Self {
        Self::refused(reason, Code::InvalidArgument, message)
    }

    /// Something is larger than its limit.
    pub(crate) fn too_large(reason: &'static str, what: &str, found: usize, limit: usize) -> Self {
        Self::invalid(reason, format!("{what} of {found} bytes exceeds {limit}"))
            .with("found", found)
            .with("limit", limit)
    }

    /// A context that no node of this cluster issued for this key.
    pub(crate) fn bad_token(error: TokenError) -> Self {
        Self::invalid("BAD_TOKEN", error.to_string())
    }

    /// A level that this mode, or this version, does not offer.
    pub(crate) fn level_unsupported(level: &str) -> Self {
        Self::refused(
            "LEVEL_UNSUPPORTED",
            Code::FailedPrecondition,
            format!("level {level} is not offered"),
        )
        .with("level", level)
    }

    /// A mode that is not built.
    pub(crate) fn mode_unsupported(mode: &str) -> Self {
        Self::refused(
            "MODE_UNSUPPORTED",
            Code::FailedPrecondition,
            format!("mode {mode} is not offered"),
        )
        .with("mode", mode)
    }

    pub(crate) fn keyspace_not_found(name: &str) -> Self {
        Self::refused(
            "KEYSPACE_NOT_FOUND",
            Code::NotFound,
            format!("keyspace {name} is not known"),
        )
        .with("keyspace", name)
    }

    pub(crate) fn zone_not_found(name: &str) -> Self {
        Self::refused(
            "ZONE_NOT_FOUND",
            Code::NotFound,
            format!("zone {name} is not known"),
        )
        .with("zone", name)
    }

    /// The node was told to stop.
    pub(crate) fn draining() -> Self {
        Self::refused("DRAINING", Code::Unavailable, "the node is stopping").retryable()
    }

    /// Changes after a watcher's revision are not kept any more.
    pub(crate) fn compacted() -> Self {
        let message =
            "not all changes after the revision are kept: read the keys, and watch from now on";
        Self::refused("COMPACTED", Code::OutOfRange, message)
    }

    /// A watcher takes its messages too slowly. It may go on from the last revision it has taken.
    pub(crate) fn watch_too_slow(patience: Duration) -> Self {
        let seconds = patience.as_secs();
        let message = format!("no message was taken for {seconds} s while more waited");
        Self::refused("WATCH_TOO_SLOW", Code::ResourceExhausted, message).retryable()
    }

    /// The node has as many watchers as it takes.
    pub(crate) fn too_many_watchers(limit: usize) -> Self {
        let message = format!("the node has {limit} watchers, which is its limit");
        Self::refused("OVERLOADED", Code::ResourceExhausted, message).retryable()
    }

    /// The node cannot show the changes of a shard; another one of the zone may.
    pub(crate) fn no_replica(shard: meridian_core::ids::ShardId) -> Self {
        let message = format!("the node has no whole replica of shard {}", shard.0);
        Self::refused("NO_REPLICA", Code::Unavailable, message)
            .retryable()
            .with("shard", shard.0)
    }

    pub(crate) fn faults_disabled() -> Self {
        let message = "the node was started without --allow-fault-injection";
        Self::refused("FAULTS_DISABLED", Code::FailedPrecondition, message)
    }

    /// A core owes an answer and gave none in time.
    pub(crate) fn unanswered(op_id: Option<OpId>) -> Self {
        Self::from_core(match op_id {
            Some(op_id) => Error::OutcomeUnknown { op_id },
            None => Error::DeadlineExceeded {
                effect: EffectOf::Unknown,
            },
        })
    }

    /// A core gave an answer of another kind than the question: a fault of this program.
    pub(crate) fn unexpected_answer() -> Self {
        let mut failure = Self::refused(
            "INTERNAL",
            Code::Internal,
            "the answer is of another kind than the question",
        );
        failure.0.effect = EffectOf::Unknown;
        failure
    }

    /// The core, in words of the contract.
    pub(crate) fn from_core(error: Error) -> Self {
        let mut failure = Self::refused(error.reason(), code(&error), error.to_string());
        failure.0.effect = error.effect();
        failure.0.retry_after = error.is_retryable().then_some(RETRY_AFTER);
        match error {
            Error::NotLeader {
                leader: Some(leader),
            } => failure.with("leader_id", leader),
            Error::OutcomeUnknown { op_id } | Error::OpIdReused { op_id } => {
                failure.of_operation(Some(op_id))
            }
            Error::TooManySiblings { siblings, limit } => {
                failure.with("siblings", siblings).with("limit", limit)
            }
            Error::TooLarge { found, limit, .. } => {
                failure.with("found", found).with("limit", limit)
            }
            Error::NotHomeZone { home, addr } => {
                failure.with("home_zone", home).with("home_addr", addr)
            }
            Error::Stale { behind_ms, .. } => match behind_ms {
                Some(behind_ms) => failure.with("behind_ms", behind_ms),
                None => failure,
            },
            Error::ZonesShort { need, .. } => failure.with("need", need),
            Error::LevelNotReached { need, op_id, .. } => {
                failure.with("need", need).of_operation(Some(op_id))
            }
            Error::LevelUnsupported { level } => failure.with("level", level),
            Error::RateLimited {
                retry_after_ms,
                lag_ms,
            } => failure
                .retry_after(Duration::from_millis(retry_after_ms))
                .with("lag_ms", lag_ms),
            Error::NotLeader { leader: None }
            | Error::SessionLost
            | Error::NoQuorum
            | Error::DeadlineExceeded { .. }
            | Error::VersionMismatch { .. }
            | Error::Overloaded { .. }
            | Error::DiskFull
            | Error::InvalidArgument { .. }
            | Error::KeyspaceNotFound
            | Error::KeyspaceExists
            | Error::Corruption { .. }
            | Error::Poisoned
            | Error::NotAdmitted
            | Error::Conflict { .. }
            | Error::ViewLost
            | Error::LeaseHeld
            | Error::LeaseLost
            | Error::LeaseNotFound
            | Error::Quarantined
            | Error::DiskLost
            | Error::KeyspaceMoving => failure,
        }
    }

    /// As a unary call fails.
    pub(crate) fn to_status(&self) -> Status {
        let facts = &*self.0;
        let mut metadata: HashMap<String, String> = facts
            .metadata
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        metadata.insert("effect".to_owned(), effect_name(facts.effect).to_owned());
        if let Some(op_id) = facts.op_id {
            metadata.insert("op_id".to_owned(), op_id_text(op_id));
        }
        let mut details = ErrorDetails::with_error_info(facts.reason, DOMAIN, metadata);
        if facts.retry_after.is_some() {
            details.set_retry_info(facts.retry_after);
        }
        Status::with_error_details(facts.code, facts.message.clone(), details)
    }

    /// As it travels on the stream.
    pub(crate) fn into_wire(self) -> kv::Error {
        let facts = *self.0;
        let retry_after_ms = facts.retry_after.map_or(0, |after| after.as_millis());
        kv::Error {
            reason: facts.reason.to_owned(),
            message: facts.message,
            effect: i32::from(match facts.effect {
                EffectOf::None => kv::Effect::None,
                EffectOf::Applied => kv::Effect::Applied,
                EffectOf::Unknown => kv::Effect::Unknown,
            }),
            retryable: facts.retry_after.is_some(),
            retry_after_ms: u32::try_from(retry_after_ms).unwrap_or(u32::MAX),
            op_id: facts.op_id.map(op_id_to_wire),
            metadata: facts.metadata.into_iter().collect(),
            code: i32::from(facts.code),
        }
    }
}

/// An op id as clients write it.
pub(crate) fn op_id_to_wire(op_id: OpId) -> kv::OpId {
    kv::OpId {
        stamp_ms: op_id.stamp_ms,
        id: Bytes::copy_from_slice(&op_id.id.to_be_bytes()),
    }
}

/// An op id as clients read it: the stamp in decimal, the id in hexadecimal.
fn op_id_text(op_id: OpId) -> String {
    format!("{}-{:032x}", op_id.stamp_ms, op_id.id)
}

const fn effect_name(effect: EffectOf) -> &'static str {
    match effect {
        EffectOf::None => "none",
        EffectOf::Applied => "applied",
        EffectOf::Unknown => "unknown",
    }
}

const fn code(error: &Error) -> Code {
    match error {
        Error::NotLeader { .. }
        | Error::NoQuorum
        | Error::NotAdmitted
        | Error::Quarantined
        | Error::DiskLost
        | Error::Stale { .. }
        | Error::ZonesShort { .. }
        | Error::KeyspaceMoving
        | Error::ViewLost => Code::Unavailable,
        Error::OutcomeUnknown { .. }
        | Error::LevelNotReached { .. }
        | Error::DeadlineExceeded { .. } => Code::DeadlineExceeded,
        Error::VersionMismatch { .. }
        | Error::Conflict { .. }
        | Error::LeaseHeld
        | Error::LeaseLost => Code::Aborted,
        Error::TooManySiblings { .. }
        | Error::LeaseNotFound
        | Error::NotHomeZone { .. }
        | Error::SessionLost
        | Error::LevelUnsupported { .. } => Code::FailedPrecondition,
        Error::Overloaded { .. } | Error::DiskFull | Error::RateLimited { .. } => {
            Code::ResourceExhausted
        }
        Error::TooLarge { .. } | Error::InvalidArgument { .. } | Error::OpIdReused { .. } => {
            Code::InvalidArgument
        }
        Error::KeyspaceNotFound => Code::NotFound,
        Error::KeyspaceExists => Code::AlreadyExists,
        Error::Corruption { .. } => Code::DataLoss,
        Error::Poisoned => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OP_ID: OpId = OpId { stamp_ms: 7, id: 9 };

    #[test]
    fn a_status_and_a_stream_error_say_the_same() {
        let failure = Failure::from_core(Error::OutcomeUnknown { op_id: OP_ID });
        let status = failure.to_status();
        let info = status.get_error_details().error_info().unwrap().clone();
        let wire = failure.into_wire();
        assert_eq!(
            (info.reason.as_str(), status.code()),
            ("OUTCOME_UNKNOWN", Code::DeadlineExceeded)
        );
        assert_eq!(
            (info.reason, i32::from(status.code())),
            (wire.reason, wire.code)
        );
        assert_eq!(info.metadata["effect"], "unknown");
        assert_eq!(info.metadata["op_id"], "7-00000000000000000000000000000009");
        assert!(wire.retryable && status.get_error_details().retry_info().is_some());
        assert_eq!(wire.op_id, Some(op_id_to_wire(OP_ID)));
    }

    #[test]
    fn what_retrying_does_not_cure_bears_no_retry_info() {
        let failure = Failure::too_large("KEY_TOO_LARGE", "key", 5000, 4096);
        let status = failure.to_status();
        assert!(status.get_error_details().retry_info().is_none());
        assert_eq!(status.message(), "key of 5000 bytes exceeds 4096");
        assert_eq!(failure.into_wire().effect(), kv::Effect::None);
    }
}
