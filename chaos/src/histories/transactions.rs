//! Transactions over lists and registers: `[[:append 5 1] [:r 3 [1 2]]]`, `[[:w 5 1] [:r 3 nil]]`.
//!
//! In an acknowledged transaction an empty list is written as `[]` (`nil` is read as the same), and an absent register as `nil`.

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

/// Reads a history; what kind of keys it has is told from it, unless given.
pub fn read(text: &str, keys: Option<Keys>) -> Result<Vec<Txn>, BadHistory> {
    let keys = keys.unwrap_or_else(|| Keys::of(text));
    let entries = journal::read(text)?;
    let txns = entries.into_iter().enumerate().map(|(number, entry)| {
        let txn = to_txn(&entry, keys);
        txn.ok_or_else(|| {
            BadHistory::at(
                number + 1,
                format!(
                    "transaction {number} from 0 has steps that are not known: {}",
                    entry.answered
                ),
            )
        })
    });
    txns.collect()
}

fn to_txn(entry: &Entry, keys: Keys) -> Option<Txn> {
    let is_answered = entry.status == Status::Ok;
    let ops = if is_answered {
        &entry.answered
    } else {
        &entry.asked
    };
    let ops = ops
        .items()?
        .iter()
        .map(|op| from_edn(op, keys, is_answered));
    Some(Txn {
        process: entry.process,
        invoke_ns: entry.invoke_ns,
        complete_ns: entry.complete_ns,
        status: entry.status,
        ops: ops.collect::<Option<Vec<MicroOp>>>()?,
    })
}

fn from_edn(op: &Edn, keys: Keys, is_answered: bool) -> Option<MicroOp> {
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
        "r" if !is_answered => Some(unanswered(key, keys)),
        "r" => answered(key, keys, value),
        _ => None,
    }
}

const fn unanswered(key: u64, keys: Keys) -> MicroOp {
    match keys {
        Keys::Lists => MicroOp::ReadList { key, list: None },
        Keys::Registers => MicroOp::ReadRegister { key, value: None },
    }
}

fn answered(key: u64, keys: Keys, value: &Edn) -> Option<MicroOp> {
    match keys {
        Keys::Lists if *value == Edn::Nil => Some(MicroOp::ReadList {
            key,
            list: Some(Vec::new()),
        }),
        Keys::Lists => {
            let list: Option<Vec<u64>> = value.items()?.iter().map(Edn::number).collect();
            Some(MicroOp::ReadList {
                key,
                list: Some(list?),
            })
        }
        Keys::Registers if *value == Edn::Nil => Some(MicroOp::ReadRegister {
            key,
            value: Some(None),
        }),
        Keys::Registers => Some(MicroOp::ReadRegister {
            key,
            value: Some(Some(value.number()?)),
        }),
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
        assert!(read(line, None).unwrap_err().why.contains(":increment"));
    }
}
