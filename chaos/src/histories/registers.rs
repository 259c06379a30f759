//! Operations on single keys, as lines of JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::BadHistory;
use crate::serial::Status;
use crate::serial::finding::Finding;
use crate::serial::linear::{self, Action, Operation, Verdict};

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Stores a value.
    Put,
    /// Reads it.
    Get,
    /// Stores a value if an expected one is there.
    Cas,
    /// Removes it.
    Del,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// It took effect.
    Ok,
    /// It surely had no effect.
    Fail,
    /// It may have taken effect, or may yet.
    Info,
}

impl Ended {
    const fn status(self) -> Status {
        match self {
            Self::Ok => Status::Ok,
            Self::Fail => Status::Fail,
            Self::Info => Status::Info,
        }
    }
}

/// One operation, all attempts of the client's library included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The client: it asks one thing at a time.
    pub client: u64,
    /// What it asked.
    pub op: Verb,
    /// The key.
    pub key: String,
    /// The value to store.
    #[serde(default)]
    pub value: Option<String>,
    /// The value that must be there.
    #[serde(default)]
    pub expected: Option<String>,
    /// When the call was made, in nanoseconds.
    pub call: u64,
    /// When it returned.
    #[serde(rename = "return")]
    pub returned: Option<u64>,
    /// What came of it.
    pub status: Ended,
    /// The value read.
    #[serde(default)]
    pub output: Option<String>,
    /// Whether a read found one.
    #[serde(default)]
    pub found: Option<bool>,
}

/// Writes a history, in the order of calls.
pub fn write(records: &[Record], out: &mut dyn Write) -> io::Result<()> {
    let mut sorted: Vec<&Record> = records.iter().collect();
    sorted.sort_by_key(|record| (record.call, record.client));
    for record in sorted {
        writeln!(out, "{}", serde_json::to_string(record)?)?;
    }
    out.flush()
}

/// Reads a history.
pub fn read(text: &str) -> Result<Vec<Record>, BadHistory> {
    let lines = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty());
    let records = lines.map(|(number, line)| {
        serde_json::from_str(line).map_err(|error| BadHistory::at(number, error.to_string()))
    });
    records.collect()
}

/// What was found in a history, and keys of which nothing can be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Keys whose search was given up.
    pub undecided: Vec<String>,
}

/// Numbers for values, per key.
#[derive(Debug, Default)]
struct Values<'a>(BTreeMap<&'a str, u64>);

impl<'a> Values<'a> {
    fn number(&mut self, value: Option<&'a str>) -> Option<u64> {
        let next = u64::try_from(self.0.len()).unwrap_or(u64::MAX);
        Some(*self.0.entry(value?).or_insert(next))
    }

    fn name(&self, number: u64) -> String {
        let value = self.0.iter().find(|(_, other)| **other == number);
        value.map_or_else(String::new, |(value, _)| (*value).to_owned())
    }
}

/// Whether each key is linearizable.
pub fn check(records: &[Record]) -> Judged {
    let mut keys: BTreeMap<&str, (Values<'_>, Vec<Operation>)> = BTreeMap::new();
    for record in records {
        let (values, operations) = keys.entry(&record.key).or_default();
        operations.extend(operation(record, values));
    }
    let mut judged = Judged::default();
    for (key, (values, operations)) in &keys {
        match linear::check(key, operations, &|number| values.name(number)) {
            Verdict::Linearizable => {}
            Verdict::Not(finding) => judged.findings.push(*finding),
            Verdict::Undecided => judged.undecided.push((*key).to_owned()),
        }
    }
    judged
}

/// `None` when the record lacks what its verb needs.
fn operation<'a>(record: &'a Record, values: &mut Values<'a>) -> Option<Operation> {
    let value = values.number(record.value.as_deref());
    let action = match record.op {
        Verb::Put => Action::Put(value?),
        Verb::Get if record.found == Some(false) => Action::Get(None),
        Verb::Get => Action::Get(values.number(record.output.as_deref())),
        Verb::Cas => Action::Cas {
            expected: values.number(record.expected.as_deref())?,
            value: value?,
        },
        Verb::Del => Action::Delete,
    };
    Some(Operation {
        call_ns: record.call,
        return_ns: record.returned.unwrap_or(u64::MAX),
        status: record.status.status(),
        action,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(op: Verb, times: (u64, u64), value: Option<&str>) -> Record {
        let is_get = op == Verb::Get;
        let value = value.map(str::to_owned);
        Record {
            client: 0,
            op,
            key: "k".to_owned(),
            value: value.clone().filter(|_| !is_get),
            expected: None,
            call: times.0,
            returned: Some(times.1),
            status: Ended::Ok,
            found: is_get.then_some(value.is_some()),
            output: value.filter(|_| is_get),
        }
    }

    #[test]
    fn a_record_has_the_fields_that_other_checkers_read() {
        let mut out = Vec::new();
        write(&[record(Verb::Get, (5, 9), Some("v"))], &mut out).unwrap();
        let expected = r#"{"client":0,"op":"get","key":"k","value":null,"expected":null,"call":5,"return":9,"status":"ok","output":"v","found":true}"#;
        assert_eq!(String::from_utf8(out).unwrap().trim_end(), expected);
    }

    #[test]
    fn what_was_written_is_read_and_a_bad_line_is_named() {
        let records = [
            record(Verb::Put, (0, 1), Some("v")),
            record(Verb::Get, (5, 9), None),
        ];
        let mut out = Vec::new();
        write(&records, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(read(&text).unwrap(), records);
        assert_eq!(read(&format!("{text}{{}}")).unwrap_err().line, 3);
    }

    #[test]
    fn a_read_of_what_was_replaced_is_found() {
        let writes = [
            record(Verb::Put, (0, 1), Some("a")),
            record(Verb::Put, (2, 3), Some("b")),
        ];
        let with = |value| {
            check(&[
                writes[0].clone(),
                writes[1].clone(),
                record(Verb::Get, (4, 5), value),
            ])
            .findings
            .len()
        };
        assert_eq!(with(Some("b")), 0);
        assert_eq!(with(Some("a")), 1);
        assert_eq!(with(None), 1);
        let found = check(&[
            writes[0].clone(),
            writes[1].clone(),
            record(Verb::Get, (4, 5), Some("a")),
        ]);
        let message =
            "no order of the operations on \"k\" allows get of a, called at 4 ns, returned at 5 ns";
        assert_eq!(found.findings[0].message, message);
        assert_eq!(found.findings[0].details, ["it may have held b"]);
    }
}
