//! Sets: `:f :add, :value 5`, and at the end `:f :read, :value [1 5]`.

use std::collections::BTreeSet;

use super::BadHistory;
use super::edn::Edn;
use super::journal::{self, Entry};
use crate::serial::Status;
use crate::serial::finding::Finding;
use crate::serial::sets::{self, Add};

/// The function that adds.
pub const ADD: &str = "add";
/// The function that reads all elements.
pub const READ: &str = "read";

/// Judges entries: by the last acknowledged read that began after every addition had ended. Without one, nothing can be said.
pub fn check(entries: &[Entry]) -> Option<Vec<Finding>> {
    let is = |entry: &&Entry, function: &str| entry.function == function;
    let read = entries
        .iter()
        .filter(|entry| is(entry, READ) && entry.status == Status::Ok);
    let read = read.max_by_key(|entry| entry.invoke_ns)?;
    let elements: BTreeSet<u64> = read
        .answered
        .items()?
        .iter()
        .filter_map(Edn::number)
        .collect();
    let adds = entries.iter().filter(|entry| is(entry, ADD));
    let adds = adds.filter_map(|entry| {
        let is_late = entry.complete_ns.is_none_or(|end| end > read.invoke_ns);
        Some(Add {
            element: entry.asked.number()?,
            status: match entry.status {
                Status::Ok if is_late => Status::Info,
                Status::Ok => Status::Ok,
                Status::Fail => Status::Fail,
                Status::Info => Status::Info,
            },
        })
    });
    Some(sets::findings(
        &adds.collect::<Vec<Add>>(),
        &elements,
        read.complete_ns.unwrap_or_default(),
    ))
}

/// Reads and judges a history.
pub fn check_text(text: &str) -> Result<Vec<Finding>, BadHistory> {
    let entries = journal::read(text)?;
    check(&entries)
        .ok_or_else(|| BadHistory::at(text.lines().count(), "no acknowledged read of the set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDED: &str = "{:type :invoke, :f :add, :value 5, :process 0, :time 1, :index 0}\n\
                         {:type :ok, :f :add, :value 5, :process 0, :time 2, :index 1}\n\
                         {:type :invoke, :f :read, :value nil, :process 1, :time 3, :index 2}\n";

    #[test]
    fn an_acknowledged_element_must_be_in_the_last_read() {
        let with = |read: &str| {
            let line =
                format!("{{:type :ok, :f :read, :value {read}, :process 1, :time 4, :index 3}}");
            check_text(&format!("{ADDED}{line}")).unwrap().len()
        };
        assert_eq!(with("#{5}"), 0);
        assert_eq!(with("[]"), 1);
    }

    #[test]
    fn without_a_read_nothing_is_said() {
        assert!(check_text(ADDED).is_err());
    }
}
