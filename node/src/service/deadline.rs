//! How long an operation may take: what its client says, within bounds.

use std::time::Duration;

use tonic::metadata::MetadataMap;

use crate::limits::{DEADLINE_DEFAULT, DEADLINE_MAX};

/// The time of an operation of the stream; 0 means the default.
pub(super) fn from_ms(deadline_ms: u32) -> Duration {
    match deadline_ms {
        0 => DEADLINE_DEFAULT,
        ms => Duration::from_millis(u64::from(ms)).min(DEADLINE_MAX),
    }
}

/// Kept back of a call's time, so that the answer still finds somebody waiting: the transport ends the call without
/// saying whether it had an effect.
const ANSWER_MARGIN: Duration = Duration::from_millis(100);

/// The time of a unary call, as gRPC says it in the header `grpc-timeout`.
pub(super) fn of_call(metadata: &MetadataMap, default: Duration) -> Duration {
    let asked = metadata
        .get("grpc-timeout")
        .and_then(|value| value.to_str().ok())
        .and_then(parse);
    asked
        .map_or(default, |asked| {
            asked.saturating_sub(ANSWER_MARGIN.min(asked / 5))
        })
        .min(DEADLINE_MAX)
}

/// The time of a unary call that may say it in its message too: the shorter of both.
pub(super) fn of_either(metadata: &MetadataMap, deadline_ms: u32) -> Duration {
    of_call(metadata, DEADLINE_MAX).min(from_ms(deadline_ms))
}

/// At most eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let amount: u64 = text.strip_suffix(unit)?.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(amount.saturating_mul(3600))),
        'M' => Some(Duration::from_secs(amount.saturating_mul(60))),
        'S' => Some(Duration::from_secs(amount)),
        'm' => Some(Duration::from_millis(amount)),
        'u' => Some(Duration::from_micros(amount)),
        'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(timeout: &'static str) -> Duration {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", timeout.parse().unwrap());
        of_call(&metadata, DEADLINE_DEFAULT)
    }

    #[test]
    fn a_call_may_take_what_its_header_says_within_bounds() {
        assert_eq!(call("250m"), Duration::from_millis(200));
        assert_eq!(call("3S"), Duration::from_millis(2_900));
        assert_eq!(call("9H"), DEADLINE_MAX);
        assert_eq!(
            of_call(&MetadataMap::new(), DEADLINE_DEFAULT),
            DEADLINE_DEFAULT
        );
        for bad in ["", "m", "12", "x9m", "-1S", "1µ"] {
            if let Ok(value) = bad.parse() {
                let mut metadata = MetadataMap::new();
                metadata.insert("grpc-timeout", value);
                assert_eq!(
                    of_call(&metadata, DEADLINE_DEFAULT),
                    DEADLINE_DEFAULT,
                    "{bad}"
                );
            }
        }
    }

    #[test]
    fn an_operation_may_take_what_it_says_within_bounds() {
        assert_eq!(from_ms(0), DEADLINE_DEFAULT);
        assert_eq!(from_ms(20), Duration::from_millis(20));
        assert_eq!(from_ms(u32::MAX), DEADLINE_MAX);
    }
}
