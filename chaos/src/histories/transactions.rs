//! Transactions over lists and registers: `[[:append 5 1] [:r 3 [1 2]]]`, `[[:w 5 1] [:r 3 nil]]`.
//!
//! In an acknowledged transaction an empty list is written as `[]` (`nil` is read as the same), and an absent register as `nil`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::BadHistory;
use super::edn::Edn;
use super::journal::{self, Entry};
use crate::serial::{MicroOp, Status, Txn};

/// What kind of keys a history has: a read is written alike for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Lists, appended to.
    Lists,
    /// Registers, overwritten.
    Registers,
}

impl Keys {
    /// Told from the first write of a text; lists when there is none.
    pub fn of(text: &str) -> Self {
        let registers = text.find("[:w ");
        match text.find("[:append ") {
            Some(lists) if registers.is_none_or(|registers| lists < registers) => Self::Lists,
            None if registers.is_none() => Self::Lists,
            Some(_) | None => Self::Registers,
        }
    }
}

/// Writes a history.
pub fn write(txns: &[Txn], out: &mut dyn Write) -> io::Result<()> {
    let entries: Vec<Entry> = txns.iter().map(entry).collect();
    journal::write(&entries, out)
}

fn entry(txn: &Txn) -> Entry {
    let asked: Vec<Edn> = txn.ops.iter().map(|op| to_edn(&op.asked())).collect();
    let answered: Vec<Edn> = txn.ops.iter().map(to_edn).collect();
    Entry {
        process: txn.process,
        invoke_ns: txn.invoke_ns,
        complete_ns: txn.complete_ns,
        status: txn.status,
        line: 0,
        function: "txn".to_owned(),
        asked: Edn::Sequence(asked),
        answered: Edn::Sequence(answered),
    }
}

fn to_edn(op: &MicroOp) -> Edn {
    let (name, value) = match op {
        MicroOp::Append { value, .. } => ("append", Edn::int(*value)),
        MicroOp::Write { value, .. } => ("w", Edn::int(*value)),
        MicroOp::ReadList { list, .. } => {
            let list = list.as_ref();
            let items = list.map(|list| list.iter().copied().map(Edn::int).collect());
            ("r", items.map_or(Edn::Nil, Edn::Sequence))
        }
        MicroOp::ReadRegister { value, .. } => ("r", Edn::maybe(value.flatten())),
    };
    Edn::Sequence(vec![Edn::keyword(name), Edn::int(op.key()), value])
}

/// Reads a history. A key is a list or a register by what is done to it; keys of which that cannot be told are taken for
/// `keys`, or when that is not given for what the first write of the history is on.
pub fn read(text: &str, keys: Option<Keys>) -> Result<Vec<Txn>, BadHistory> {
    let entries = journal::read(text)?;
    let kinds = Kinds::of(&entries, keys.unwrap_or_else(|| Keys::of(text)));
    let txns = entries.iter().map(|entry| {
        let unknown = || {
            BadHistory::at(
                entry.line,
                format!("steps that are not known: {}", entry.asked),
            )
        };
        to_txn(entry, &kinds).ok_or_else(unknown)
    });
    txns.collect()
}

/// Which keys are lists, and which are registers.
struct Kinds {
    known: BTreeMap<u64, Keys>,
    others: Keys,
}

impl Kinds {
    fn of(entries: &[Entry], others: Keys) -> Self {
        let steps = entries
            .iter()
            .flat_map(|entry| [&entry.asked, &entry.answered]);
        let steps = steps.filter_map(Edn::items).flatten();
        let known = steps.filter_map(|step| match step.items()? {
            [name, key, value] => Some((key.number()?, kind(name.name()?, value)?)),
            _ => None,
        });
        Self {
            known: known.collect(),
            others,
        }
    }

    fn get(&self, key: u64) -> Keys {
        self.known.get(&key).copied().unwrap_or(self.others)
    }
}

/// What a step says of its key.
fn kind(name: &str, value: &Edn) -> Option<Keys> {
    match (name, value) {
        ("append", _) | ("r", Edn::Sequence(_)) => Some(Keys::Lists),
        ("w", _) | ("r", Edn::Int(_)) => Some(Keys::Registers),
        _ => None,
    }
}

fn to_txn(entry: &Entry, kinds: &Kinds) -> Option<Txn> {
    let is_answered = entry.status == Status::Ok;
    let ops = if is_answered {
        &entry.answered
    } else {
        &entry.asked
    };
    let ops = ops
        .items()?
        .iter()
        .map(|op| from_edn(op, kinds, is_answered));
    Some(Txn {
        process: entry.process,
        invoke_ns: entry.invoke_ns,
        complete_ns: entry.complete_ns,
        status: entry.status,
        ops: ops.collect::<Option<Vec<MicroOp>>>()?,
    })
}

fn from_edn(op: &Edn, kinds: &Kinds, is_answered: bool) -> Option<MicroOp> {
    let [name, key, value] = op.items()? else {
        return None;
    };
    let key = key.number()?;
    match name.name()? {
        "append" => Some(MicroOp::Append {
            key,
            value: value.number()?,
        }),
        "w" => Some(MicroOp::Write {
            key,
            value: value.number()?,
        }),
        "r" => read_of(key, kinds.get(key), is_answered.then_some(value)),
        _ => None,
    }
}

/// A read, with its answer if it has one.
fn read_of(key: u64, keys: Keys, answer: Option<&Edn>) -> Option<MicroOp> {
    match keys {
        Keys::Lists => {
            let list = answer.map(|value| match value {
                Edn::Nil => Some(Vec::new()),
                Edn::Sequence(items) => items.iter().map(Edn::number).collect(),
                Edn::Bool(_) | Edn::Int(_) | Edn::Keyword(_) | Edn::Text(_) | Edn::Map(_) => None,
            });
            let is_bad = matches!(list, Some(None));
            (!is_bad).then(|| MicroOp::ReadList {
                key,
                list: list.flatten(),
            })
        }
        Keys::Registers => {
            let value = answer.map(Edn::number);
            let is_bad = value == Some(None) && answer != Some(&Edn::Nil);
            (!is_bad).then_some(MicroOp::ReadRegister { key, value })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn(status: Status, ops: Vec<MicroOp>) -> Txn {
        Txn {
            process: 0,
            invoke_ns: 123,
            complete_ns: Some(456),
            status,
            ops,
        }
    }

    fn written(txns: &[Txn]) -> String {
        let mut out = Vec::new();
        write(txns, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_transaction_is_two_lines_as_jepsen_writes_them() {
        let list = Some(vec![1, 2]);
        let ops = vec![
            MicroOp::Append { key: 5, value: 1 },
            MicroOp::ReadList { key: 3, list },
        ];
        let expected = "{:type :invoke, :f :txn, :value [[:append 5 1] [:r 3 nil]], :process 0, :time 123, :index 0}\n\
                        {:type :ok, :f :txn, :value [[:append 5 1] [:r 3 [1 2]]], :process 0, :time 456, :index 1}\n";
        assert_eq!(written(&[txn(Status::Ok, ops)]), expected);
    }

    #[test]
    fn what_was_written_is_read() {
        let lists = [txn(
            Status::Ok,
            vec![
                MicroOp::Append { key: 5, value: 1 },
                MicroOp::ReadList {
                    key: 3,
                    list: Some(Vec::new()),
                },
            ],
        )];
        assert_eq!(read(&written(&lists), None).unwrap(), lists);
        let registers = [txn(
            Status::Ok,
            vec![
                MicroOp::Write { key: 5, value: 1 },
                MicroOp::ReadRegister {
                    key: 3,
                    value: Some(None),
                },
            ],
        )];
        assert_eq!(read(&written(&registers), None).unwrap(), registers);
        let unknown = [txn(
            Status::Info,
            vec![
                MicroOp::Write { key: 5, value: 1 },
                MicroOp::ReadRegister {
                    key: 3,
                    value: None,
                },
            ],
        )];
        assert_eq!(read(&written(&unknown), None).unwrap(), unknown);
    }

    #[test]
    fn a_step_that_is_not_known_is_refused() {
        let line =
            "{:type :invoke, :f :txn, :value [[:increment 5 1]], :process 0, :time 1, :index 0}";
        let refused = read(line, None).unwrap_err();
        assert!(refused.why.contains(":increment"));
        assert_eq!(refused.line, 1);
    }

    #[test]
    fn lists_and_registers_in_one_history_are_told_apart_key_by_key() {
        let ops = vec![
            MicroOp::Append { key: 2, value: 1 },
            MicroOp::Write { key: 3, value: 1 },
            MicroOp::ReadRegister {
                key: 3,
                value: Some(Some(1)),
            },
            MicroOp::ReadList {
                key: 4,
                list: Some(Vec::new()),
            },
            MicroOp::ReadRegister {
                key: 5,
                value: Some(Some(9)),
            },
        ];
        let mixed = [
            txn(Status::Ok, ops),
            txn(
                Status::Info,
                vec![
                    MicroOp::ReadRegister {
                        key: 3,
                        value: None,
                    },
                    MicroOp::ReadList { key: 4, list: None },
                ],
            ),
        ];
        let mixed = [
            mixed[0].clone(),
            Txn {
                process: 1,
                ..mixed[1].clone()
            },
        ];
        assert_eq!(read(&written(&mixed), None).unwrap(), mixed);
    }

    #[test]
    fn an_answer_that_fits_no_read_is_refused() {
        for answer in ["[nil]", ":x", "[1 :x]"] {
            let text = format!(
                "{{:type :invoke, :f :txn, :value [[:r 1 nil]], :process 0, :time 1, :index 0}}\n\
                 {{:type :ok, :f :txn, :value [[:r 1 {answer}]], :process 0, :time 2, :index 1}}"
            );
            assert!(read(&text, None).is_err(), "{answer}");
        }
    }
}
