//! What every writer was told, and whether a zone holds what that promises.
//!
//! Every write of the experiment carries a context, so it is known exactly which values it replaces. That makes the
//! promise checkable without knowing anything of the order in which writes took effect:
//! * an acknowledged write is readable, with the dot it was acknowledged under, or replaced by a write that took effect;
//! * a write took effect if it was acknowledged, or if anybody has read it;
//! * nothing is readable that an acknowledged write has replaced, that was surely refused, or that nobody wrote.
//!
//! Pure: what zones hold comes in.

use std::collections::{BTreeMap, BTreeSet};

/// What the writer was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It stands, under this dot.
    Acknowledged(String),
    /// It may stand.
    Unknown,
    /// It surely does not.
    Refused,
}

/// One write.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The key.
    pub key: String,
    /// Unique among all writes of the experiment.
    pub value: String,
    /// Values that its context covers.
    pub replaces: Vec<String>,
    /// What the writer was told.
    pub told: Told,
}

/// One sibling that a zone holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its value.
    pub value: String,
    /// Its dot.
    pub dot: String,
}

/// All writes to one key.
#[derive(Debug, Default)]
struct KeyRecord {
    writes: BTreeMap<String, Attempt>,
}

/// All writes.
#[derive(Debug, Default)]
pub struct Ledger {
    keys: BTreeMap<String, KeyRecord>,
}

/// How many writes were told what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Acknowledged.
    pub acknowledged: usize,
    /// With unknown outcome.
    pub unknown: usize,
    /// Surely without effect.
    pub refused: usize,
}

impl Ledger {
    /// Notes a write.
    pub fn note(&mut self, attempt: Attempt) {
        let record = self.keys.entry(attempt.key.clone()).or_default();
        record.writes.insert(attempt.value.clone(), attempt);
    }

    /// The keys written.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// How many writes were told what.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for attempt in self.keys.values().flat_map(|record| record.writes.values()) {
            match attempt.told {
                Told::Acknowledged(_) => totals.acknowledged += 1,
                Told::Unknown => totals.unknown += 1,
                Told::Refused => totals.refused += 1,
            }
        }
        totals
    }

    /// What is wrong with what a zone holds of a key.
    pub fn check(&self, key: &str, held: &[Held]) -> Vec<String> {
        let Some(record) = self.keys.get(key) else {
            return vec![format!("{key}: nobody wrote it")];
        };
        let mut wrong = record.strangers(held);
        wrong.extend(record.lost(held));
        wrong
            .into_iter()
            .map(|what| format!("{key}: {what}"))
            .collect()
    }
}

impl KeyRecord {
    /// Whether a write certainly took effect.
    fn took_effect(attempt: &Attempt, read: &BTreeSet<&str>) -> bool {
        matches!(attempt.told, Told::Acknowledged(_)) || read.contains(attempt.value.as_str())
    }

    /// Values that somebody has read, during the experiment or now.
    fn read<'a>(&'a self, held: &'a [Held]) -> BTreeSet<&'a str> {
        let earlier = self
            .writes
            .values()
            .flat_map(|attempt| attempt.replaces.iter().map(String::as_str));
        earlier
            .chain(held.iter().map(|sibling| sibling.value.as_str()))
            .collect()
    }

    /// Values replaced by writes that took effect.
    fn replaced<'a>(&'a self, read: &BTreeSet<&str>) -> BTreeSet<&'a str> {
        let effective = self
            .writes
            .values()
            .filter(|attempt| Self::took_effect(attempt, read));
        effective
            .flat_map(|attempt| attempt.replaces.iter().map(String::as_str))
            .collect()
    }

    fn strangers(&self, held: &[Held]) -> Vec<String> {
        let acknowledged = self
            .writes
            .values()
            .filter(|attempt| matches!(attempt.told, Told::Acknowledged(_)));
        let replaced: BTreeSet<&str> = acknowledged
            .flat_map(|attempt| attempt.replaces.iter().map(String::as_str))
            .collect();
        let judge = |sibling: &Held| {
            let Held { value, dot } = sibling;
            let Some(attempt) = self.writes.get(value) else {
                return Some(format!("{value} is readable and nobody wrote it"));
            };
            match &attempt.told {
                Told::Refused => Some(format!("{value} is readable and was refused")),
                Told::Acknowledged(other) if other != dot => Some(format!(
                    "{value} has dot {dot} and was acknowledged as {other}"
                )),
                Told::Acknowledged(_) | Told::Unknown => {
                    replaced.contains(value.as_str()).then(|| {
                        format!("{value} is readable again, an acknowledged write had replaced it")
                    })
                }
            }
        };
        held.iter().filter_map(judge).collect()
    }

    fn lost(&self, held: &[Held]) -> Vec<String> {
        let read = self.read(held);
        let replaced = self.replaced(&read);
        let readable: BTreeSet<&str> = held.iter().map(|sibling| sibling.value.as_str()).collect();
        let is_lost = |attempt: &&Attempt| {
            let value = attempt.value.as_str();
            matches!(attempt.told, Told::Acknowledged(_))
                && !readable.contains(value)
                && !replaced.contains(value)
        };
        let lost = self.writes.values().filter(is_lost);
        lost.map(|attempt| {
            format!(
                "acknowledged {} is neither readable nor replaced (held: {readable:?})",
                attempt.value
            )
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(value: &str) -> Told {
        Told::Acknowledged(format!("dot-{value}"))
    }

    /// What is wrong when these writes were made and this is held.
    fn check(writes: &[(&str, &[&str], Told)], held: &[&str]) -> String {
        let mut ledger = Ledger::default();
        for (value, replaces, told) in writes {
            ledger.note(Attempt {
                key: "k".to_owned(),
                value: (*value).to_owned(),
                replaces: replaces.iter().map(|value| (*value).to_owned()).collect(),
                told: told.clone(),
            });
        }
        let sibling = |value: &&str| Held {
            value: (*value).to_owned(),
            dot: format!("dot-{value}"),
        };
        ledger
            .check("k", &held.iter().map(sibling).collect::<Vec<_>>())
            .join("; ")
    }

    #[test]
    fn the_last_of_a_chain_is_enough_and_siblings_stand_together() {
        let chain = [
            ("1", &[][..], acknowledged("1")),
            ("2", &["1"], acknowledged("2")),
        ];
        assert_eq!(check(&chain, &["2"]), "");
        let both = [
            ("a", &[][..], acknowledged("a")),
            ("b", &[], acknowledged("b")),
        ];
        assert_eq!(check(&both, &["a", "b"]), "");
    }

    #[test]
    fn an_acknowledged_write_that_is_neither_readable_nor_replaced_is_lost() {
        let chain = [
            ("1", &[][..], acknowledged("1")),
            ("2", &["1"], acknowledged("2")),
        ];
        assert!(check(&chain, &[]).contains("acknowledged 2 is neither"));
        let unseen = [
            ("1", &[][..], acknowledged("1")),
            ("2", &["1"], Told::Unknown),
        ];
        assert!(
            check(&unseen, &[]).contains("acknowledged 1 is neither"),
            "nobody saw 2 take effect"
        );
    }

    #[test]
    fn a_write_of_unknown_outcome_replaces_if_somebody_saw_it() {
        let now = [
            ("1", &[][..], acknowledged("1")),
            ("2", &["1"], Told::Unknown),
        ];
        assert_eq!(check(&now, &["2"]), "");
        assert_eq!(check(&now, &["1"]), "");
        let earlier = [
            now[0].clone(),
            now[1].clone(),
            ("3", &["2"], acknowledged("3")),
        ];
        assert_eq!(check(&earlier, &["3"]), "");
    }

    #[test]
    fn what_was_replaced_refused_or_never_written_is_not_readable() {
        let chain = [
            ("1", &[][..], acknowledged("1")),
            ("2", &["1"], acknowledged("2")),
        ];
        assert!(check(&chain, &["1", "2"]).contains("1 is readable again"));
        assert!(check(&chain, &["2", "9"]).contains("nobody wrote"));
        assert!(check(&[("1", &[], Told::Refused)], &["1"]).contains("was refused"));
    }

    #[test]
    fn a_write_is_held_under_the_dot_it_was_acknowledged_as() {
        let other = Told::Acknowledged("dot-other".to_owned());
        assert!(check(&[("1", &[], other)], &["1"]).contains("was acknowledged as dot-other"));
    }
}
