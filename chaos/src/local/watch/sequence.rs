//! What a watcher must have seen: of every key the numbers from 1 on, each once, in order.
//!
//! Invariant of the load: the next number of a key is written only when the one before it is acknowledged, and a key
//! whose last write has no known outcome is never written again. So of such a key one number more may be seen.

use std::collections::BTreeMap;

/// What is known of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Of {
    /// The last number seen.
    seen: u64,
    /// The last number acknowledged.
    acknowledged: u64,
    /// The number after it may have been written.
    unknown: bool,
}

/// What was written and what was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Sequence {
    keys: BTreeMap<String, Of>,
    seen: u64,
}

impl Sequence {
    /// The watcher was shown a number. `Err` is a finding.
    pub(super) fn see(&mut self, key: &str, number: u64) -> Result<(), String> {
        let of = self.keys.entry(key.to_owned()).or_default();
        let expected = of.seen.saturating_add(1);
        if number != expected {
            return Err(format!("{key}: {number} was shown, {expected} is next"));
        }
        of.seen = number;
        self.seen = self.seen.saturating_add(1);
        Ok(())
    }

    /// A writer is done with a key.
    pub(super) fn wrote(&mut self, key: &str, acknowledged: u64, unknown: bool) {
        let of = self.keys.entry(key.to_owned()).or_default();
        of.acknowledged = acknowledged;
        of.unknown = unknown;
    }

    /// Changes seen.
    pub(super) const fn seen(&self) -> u64 {
        self.seen
    }

    /// Writes acknowledged, and writes of unknown outcome.
    pub(super) fn written(&self) -> (u64, u64) {
        let acknowledged = self.keys.values().map(|of| of.acknowledged).sum();
        let unknown = self.keys.values().filter(|of| of.unknown).count();
        (acknowledged, u64::try_from(unknown).unwrap_or(u64::MAX))
    }

    /// Keys of which something acknowledged was not seen.
    pub(super) fn missing(&self) -> Vec<String> {
        let missing = self.keys.iter().filter(|(_, of)| of.seen < of.acknowledged);
        missing
            .map(|(key, of)| {
                format!(
                    "{key}: shown up to {}, {} written",
                    of.seen, of.acknowledged
                )
            })
            .collect()
    }

    /// Keys of which something was seen that nobody wrote.
    pub(super) fn invented(&self) -> Vec<String> {
        let most = |of: &Of| of.acknowledged.saturating_add(u64::from(of.unknown));
        let invented = self.keys.iter().filter(|(_, of)| of.seen > most(of));
        invented
            .map(|(key, of)| format!("{key}: shown up to {}, {} written", of.seen, most(of)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_and_a_repetition_are_found_where_they_are_shown() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.see("k", 1), Ok(()));
        assert!(sequence.see("k", 1).is_err());
        assert!(sequence.see("k", 3).is_err());
        assert_eq!(sequence.see("k", 2), Ok(()));
        assert_eq!(sequence.seen(), 2);
    }

    #[test]
    fn what_was_acknowledged_must_be_seen_and_what_is_unknown_may_be() {
        let mut sequence = Sequence::default();
        sequence.see("k", 1).unwrap();
        sequence.wrote("k", 2, true);
        assert_eq!(sequence.missing().len(), 1);
        sequence.see("k", 2).unwrap();
        sequence.see("k", 3).unwrap();
        assert!(sequence.missing().is_empty() && sequence.invented().is_empty());
        sequence.see("k", 4).unwrap();
        assert_eq!(sequence.invented().len(), 1);
        assert_eq!(sequence.written(), (2, 1));
    }
}
