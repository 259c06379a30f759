//! Which workload a history is of, and what its checker says.

use std::fmt;
use std::str::FromStr;

use super::transactions::{self, Keys};
use super::{BadHistory, elements, journal, money, registers};
use crate::serial::{self, Finding};

/// What clients did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Puts, gets, compare-and-sets and deletes of single keys.
    Register,
    /// Transactions that append to lists and read them.
    Append,
    /// Transactions that write registers and read them.
    Rw,
    /// Transfers between accounts, and reads of all of them.
    Bank,
    /// Additions to a set, and a read of it at the end.
    Set,
}

impl Workload {
    /// All, by name.
    pub const ALL: [(&'static str, Self); 5] = [
        ("register", Self::Register),
        ("append", Self::Append),
        ("rw", Self::Rw),
        ("bank", Self::Bank),
        ("set", Self::Set),
    ];

    /// Told from a history.
    pub fn of(text: &str) -> Self {
        let holds = |function: &str| text.contains(&format!(":f :{function}"));
        if text.trim_start().starts_with("{\"") {
            Self::Register
        } else if holds(money::TRANSFER) {
            Self::Bank
        } else if holds(elements::ADD) {
            Self::Set
        } else {
            match Keys::of(text) {
                Keys::Lists => Self::Append,
                Keys::Registers => Self::Rw,
            }
        }
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        let found = found.map(|(_, workload)| *workload);
        found.ok_or_else(|| format!("{text:?} is none of register, append, rw, bank, set"))
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::ALL.iter().find(|(_, workload)| workload == self);
        f.write_str(found.map_or("", |(name, _)| *name))
    }
}

/// What a checker says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// How many operations it looked at.
    pub operations: usize,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Of what nothing can be said, and why.
    pub undecided: Vec<String>,
}

/// Reads and judges a history.
pub fn judge(workload: Workload, text: &str) -> Result<Judgement, BadHistory> {
    match workload {
        Workload::Register => Ok(judge_records(&registers::read(text)?)),
        Workload::Append => judge_txns(text, Keys::Lists),
        Workload::Rw => judge_txns(text, Keys::Registers),
        Workload::Bank => {
            let entries = journal::read(text)?;
            Ok(Judgement {
                operations: entries.len(),
                findings: money::check(&entries),
                undecided: Vec::new(),
            })
        }
        Workload::Set => Ok(judge_elements(&journal::read(text)?)),
    }
}

fn judge_txns(text: &str, keys: Keys) -> Result<Judgement, BadHistory> {
    let txns = transactions::read(text, Some(keys))?;
    Ok(Judgement {
        operations: txns.len(),
        findings: serial::findings(&txns),
        undecided: Vec::new(),
    })
}

/// Judges operations on single keys.
pub fn judge_records(records: &[registers::Record]) -> Judgement {
    let judged = registers::check(records);
    let undecided = judged.undecided.iter();
    let undecided = undecided.map(|key| format!("the search on key {key:?} was given up"));
    Judgement {
        operations: records.len(),
        undecided: undecided.collect(),
        findings: judged.findings,
    }
}

/// Judges a set.
pub fn judge_elements(entries: &[journal::Entry]) -> Judgement {
    let findings = elements::check(entries);
    let undecided = match &findings {
        Some(_) => Vec::new(),
        None => vec!["no acknowledged read of the set".to_owned()],
    };
    Judgement {
        operations: entries.len(),
        findings: findings.unwrap_or_default(),
        undecided,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workload_is_told_from_the_history() {
        let line = |function: &str, value: &str| {
            format!(
                "{{:type :invoke, :f :{function}, :value {value}, :process 0, :time 1, :index 0}}"
            )
        };
        let told = [
            ("{\"client\":0}".to_owned(), Workload::Register),
            (line("txn", "[[:r 1 nil] [:append 1 1]]"), Workload::Append),
            (line("txn", "[[:r 1 nil] [:w 1 1]]"), Workload::Rw),
            (line("transfer", "{}"), Workload::Bank),
            (line("add", "1"), Workload::Set),
        ];
        for (text, workload) in told {
            assert_eq!(Workload::of(&text), workload, "{text}");
            assert_eq!(workload.to_string().parse(), Ok(workload));
        }
        assert!("lists".parse::<Workload>().is_err());
    }

    #[test]
    fn a_broken_history_is_judged_by_its_workload() {
        let text = "{:type :invoke, :f :txn, :value [[:w 1 1] [:r 1 nil]], :process 0, :time 1, :index 0}\n\
                    {:type :ok, :f :txn, :value [[:w 1 1] [:r 1 2]], :process 0, :time 2, :index 1}";
        let judged = judge(Workload::of(text), text).unwrap();
        assert_eq!(judged.operations, 1);
        assert_eq!(judged.findings.first().unwrap().anomaly.name(), "internal");
    }
}
