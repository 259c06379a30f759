//! How a command ends, and the exit code that tells it to scripts.

use std::io;

use meridian_client::{Effect, Error, ErrorKind};

/// The command line made no sense.
pub(crate) const USAGE: u8 = 2;
const OTHER: u8 = 1;
const NOT_FOUND: u8 = 3;
const CONFLICT: u8 = 4;
const UNAVAILABLE: u8 = 5;
const OUTCOME_UNKNOWN: u8 = 6;
const REFUSED: u8 = 7;

/// A command that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// Nothing more to say.
    AsAsked,
    /// The key is absent.
    NotFound,
    /// The key holds several siblings.
    Conflict,
}

impl Done {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::AsAsked => 0,
            Self::NotFound => NOT_FOUND,
            Self::Conflict => CONFLICT,
        }
    }
}

/// A command that was not carried out.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It makes no sense.
    Usage(String),
    /// The cluster refused, or did not answer.
    Client(Error),
    /// Writing the output failed. A reader that left is no reason to complain.
    Output(io::Error),
    /// Anything else.
    Other(String),
    /// Everything has been said already.
    Said(u8),
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self::Other(message.into())
    }

    /// Some of many did not succeed; each was reported.
    pub(crate) const fn some_failed() -> Self {
        Self::Said(OTHER)
    }

    /// Not everybody who was needed answered; each was reported.
    pub(crate) const fn incomplete() -> Self {
        Self::Said(UNAVAILABLE)
    }

    /// A command that ran under a lease was killed in the middle: what it did is not known. It was reported.
    pub(crate) const fn lock_lost() -> Self {
        Self::Said(OUTCOME_UNKNOWN)
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Client(error) => code_of(error),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Output(_) | Self::Other(_) => OTHER,
            Self::Said(code) => *code,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// What a command returns.
pub(crate) type Outcome = Result<Done, Failure>;

fn code_of(error: &Error) -> u8 {
    if error.reason() == "COMPACTED" {
        // The command made sense; what it asks for is gone.
        return OTHER;
    }
    match (error.effect(), error.kind()) {
        (Effect::Applied | Effect::Unknown, _) => OUTCOME_UNKNOWN,
        (Effect::None, ErrorKind::InvalidArgument) => USAGE,
        (Effect::None, ErrorKind::ConditionNotMet) => CONFLICT,
        (Effect::None, ErrorKind::Unavailable | ErrorKind::Exhausted) => UNAVAILABLE,
        (Effect::None, ErrorKind::Refused) => REFUSED,
        (
            Effect::None,
            ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::Corruption
            | ErrorKind::Internal,
        ) => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use meridian_client::proto::kv::v1 as wire;

    use super::*;

    /// Exit code of an error with this google.rpc.Code.
    fn code(grpc: i32, effect: wire::Effect) -> u8 {
        let error = wire::Error {
            code: grpc,
            effect: effect.into(),
            ..wire::Error::default()
        };
        Failure::from(Error::from(error)).code()
    }

    #[test]
    fn an_error_without_effect_exits_by_its_kind() {
        let none = wire::Effect::None;
        assert_eq!(code(3, none), 2, "invalid argument");
        assert_eq!(code(5, none), 1, "unknown keyspace");
        assert_eq!(code(10, none), 4, "condition not met");
        assert_eq!(code(14, none), 5, "no quorum");
        assert_eq!(code(4, none), 5, "a read that ran out of time");
        assert_eq!(code(8, none), 5, "overloaded");
        assert_eq!(code(9, none), 7, "level not offered");
        assert_eq!(code(7, none), 7, "permission denied");
        assert_eq!(code(15, none), 1, "corruption");
    }

    #[test]
    fn an_unknown_or_partial_outcome_is_six_whatever_its_kind() {
        for grpc in [4, 13, 14] {
            assert_eq!(code(grpc, wire::Effect::Unknown), 6);
            assert_eq!(code(grpc, wire::Effect::Applied), 6);
        }
    }

    #[test]
    fn answers_have_codes_of_their_own() {
        assert_eq!(Done::NotFound.code(), 3);
        assert_eq!(Done::Conflict.code(), 4);
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::from(gone).code(), 0);
    }
}
