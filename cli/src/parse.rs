//! How single arguments are read.

use std::time::Duration;

use bytes::Bytes;
use meridian_client::{LeaseRef, OnBehind, ReadLevel, WriteLevel};

/// `5s`, `500ms`, `10m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; durations look like 500ms, 5s or 10m"))
}

/// A duration that is not nothing.
pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than 0".to_owned()),
        timeout => Ok(timeout),
    }
}

/// `linearizable`, `session`, `bounded:500ms`, `eventual`, `zones:N`.
pub(crate) fn read_level(text: &str) -> Result<ReadLevel, String> {
    match text.split_once(':') {
        None if text == "linearizable" => Ok(ReadLevel::Linearizable),
        None if text == "session" => Ok(ReadLevel::Session),
        None if text == "eventual" => Ok(ReadLevel::Eventual),
        Some(("bounded", age)) => Ok(ReadLevel::Bounded(duration(age)?)),
        Some(("zones", zones)) => Ok(ReadLevel::Zones(zone_count(zones)?)),
        _ => Err("levels are linearizable, session, bounded:500ms, eventual, zones:N".to_owned()),
    }
}

/// `wait`, `redirect`, `fail`.
pub(crate) fn on_behind(text: &str) -> Result<OnBehind, String> {
    match text {
        "wait" => Ok(OnBehind::Wait),
        "redirect" => Ok(OnBehind::Redirect),
        "fail" => Ok(OnBehind::Fail),
        _ => Err("one of wait, redirect, fail".to_owned()),
    }
}

/// `zone`, `zones:N`, `all`.
pub(crate) fn write_level(text: &str) -> Result<WriteLevel, String> {
    match text.split_once(':') {
        None if text == "zone" => Ok(WriteLevel::Zone),
        None if text == "all" => Ok(WriteLevel::All),
        Some(("zones", zones)) => Ok(WriteLevel::Zones(zone_count(zones)?)),
        _ => Err("levels are zone, zones:N, all".to_owned()),
    }
}

fn zone_count(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is not a number of zones")),
        Ok(zones) => Ok(zones),
    }
}

/// Between 0 and 1.
pub(crate) fn probability(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(chance) if (0.0..=1.0).contains(&chance) => Ok(chance),
        _ => Err("a probability is between 0 and 1".to_owned()),
    }
}

/// `NAME:TOKEN`; the name may hold colons.
pub(crate) fn lease(text: &str) -> Result<LeaseRef, String> {
    let parts = text
        .rsplit_once(':')
        .filter(|(name, _)| !name.is_empty())
        .and_then(|(name, token)| Some((name, token.parse().ok()?)));
    let (name, token) = parts.ok_or("a lease is NAME:TOKEN, and the token a number")?;
    Ok(LeaseRef {
        name: Bytes::copy_from_slice(name.as_bytes()),
        token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_in_all_their_forms() {
        assert_eq!(read_level("eventual"), Ok(ReadLevel::Eventual));
        assert_eq!(
            read_level("bounded:500ms"),
            Ok(ReadLevel::Bounded(Duration::from_millis(500)))
        );
        assert_eq!(read_level("zones:2"), Ok(ReadLevel::Zones(2)));
        assert_eq!(write_level("zones:3"), Ok(WriteLevel::Zones(3)));
        assert_eq!(write_level("all"), Ok(WriteLevel::All));
        assert_eq!(on_behind("redirect"), Ok(OnBehind::Redirect));
    }

    #[test]
    fn malformed_levels_are_refused() {
        for text in [
            "",
            "Eventual",
            "bounded",
            "bounded:",
            "bounded:x",
            "zones:0",
            "zones:-1",
        ] {
            assert!(read_level(text).is_err(), "{text:?}");
        }
        assert!(on_behind("").is_err() && on_behind("Wait").is_err());
        for text in ["", "zone:1", "zones", "zones:0", "all:1"] {
            assert!(write_level(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_lease_is_a_name_that_may_hold_colons_and_a_token() {
        let read = lease("a:b:7").unwrap();
        assert_eq!((read.name.as_ref(), read.token), (&b"a:b"[..], 7));
        for text in ["", "a", "a:", ":7", "a:-1", "a:b"] {
            assert!(lease(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn malformed_numbers_are_refused() {
        assert!(probability("1.1").is_err() && probability("NaN").is_err());
        assert_eq!(probability("0.1"), Ok(0.1));
        assert!(timeout("0s").is_err() && timeout("5").is_err());
        assert_eq!(timeout("5s"), Ok(Duration::from_secs(5)));
    }
}
