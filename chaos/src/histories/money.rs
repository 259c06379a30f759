//! Banks: `:f :transfer, :value {:from 1, :to 2, :amount 5, :receipt 7}`, `:f :read, :value {0 10, 1 11}`, and at the end
//! `:f :receipts, :value [7 …]`.

use std::collections::{BTreeMap, BTreeSet};

use super::BadHistory;
use super::edn::Edn;
use super::journal::{self, Entry};
use crate::serial::Status;
use crate::serial::bank::{self, BankRead, LastState, Opening, Transfer};
use crate::serial::finding::Finding;

/// The function that moves money.
pub const TRANSFER: &str = "transfer";
/// The function that reads all accounts.
pub const READ: &str = "read";
/// The function that lists the receipts, when everything has ended.
pub const RECEIPTS: &str = "receipts";

/// A transfer as it is asked for.
pub fn transfer(transfer: &Transfer) -> Edn {
    let field = |name: &str, value: Edn| (Edn::keyword(name), value);
    Edn::Map(vec![
        field("from", Edn::int(transfer.from)),
        field("to", Edn::int(transfer.to)),
        field("amount", Edn::Int(transfer.amount)),
        field("receipt", Edn::int(transfer.number)),
    ])
}

/// Balances as they are read.
pub fn balances(balances: &BTreeMap<u64, i64>) -> Edn {
    let entries = balances.iter();
    Edn::Map(
        entries
            .map(|(account, balance)| (Edn::int(*account), Edn::Int(*balance)))
            .collect(),
    )
}

fn to_balances(value: &Edn) -> Option<BTreeMap<u64, i64>> {
    let Edn::Map(entries) = value else {
        return None;
    };
    let balances = entries.iter().map(|(account, balance)| match balance {
        Edn::Int(balance) => Some((account.number()?, *balance)),
        Edn::Nil
        | Edn::Bool(_)
        | Edn::Keyword(_)
        | Edn::Text(_)
        | Edn::Sequence(_)
        | Edn::Map(_) => None,
    });
    balances.collect()
}

fn to_transfer(entry: &Entry) -> Option<Transfer> {
    let number = |name: &str| entry.asked.get(name).and_then(Edn::number);
    Some(Transfer {
        number: number("receipt")?,
        from: number("from")?,
        to: number("to")?,
        amount: i64::try_from(number("amount")?).ok()?,
        status: entry.status,
    })
}

/// Judges entries. What the accounts held at first is told by the first read.
pub fn check(entries: &[Entry]) -> Vec<Finding> {
    let acknowledged = |function: &'static str| {
        let of = entries
            .iter()
            .filter(move |entry| entry.function == function);
        of.filter(|entry| entry.status == Status::Ok)
    };
    let mut reads: Vec<BankRead> = acknowledged(READ).filter_map(read).collect();
    reads.sort_by_key(|read| read.complete_ns);
    let (Some(first), Some(last)) = (reads.first(), reads.last()) else {
        return Vec::new();
    };
    let opening: Opening = first.balances.clone();
    let mut findings = bank::check_reads(&opening, &reads);
    let receipts = acknowledged(RECEIPTS)
        .next_back()
        .and_then(|entry| entry.answered.items());
    if let Some(receipts) = receipts {
        let state = LastState {
            at_ns: last.complete_ns,
            balances: last.balances.clone(),
            receipts: receipts
                .iter()
                .filter_map(Edn::number)
                .collect::<BTreeSet<u64>>(),
        };
        let transfers = entries.iter().filter(|entry| entry.function == TRANSFER);
        let transfers: Vec<Transfer> = transfers.filter_map(to_transfer).collect();
        findings.extend(bank::check_last(&opening, &transfers, &state));
    }
    findings
}

fn read(entry: &Entry) -> Option<BankRead> {
    Some(BankRead {
        complete_ns: entry.complete_ns?,
        balances: to_balances(&entry.answered)?,
    })
}

/// Reads and judges a history.
pub fn check_text(text: &str) -> Result<Vec<Finding>, BadHistory> {
    Ok(check(&journal::read(text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(last: &str, receipts: &str) -> String {
        let lines = [
            ("invoke", "read", "nil".to_owned()),
            ("ok", "read", "{0 10, 1 10}".to_owned()),
            (
                "invoke",
                "transfer",
                "{:from 0, :to 1, :amount 4, :receipt 7}".to_owned(),
            ),
            (
                "ok",
                "transfer",
                "{:from 0, :to 1, :amount 4, :receipt 7}".to_owned(),
            ),
            ("invoke", "read", "nil".to_owned()),
            ("ok", "read", last.to_owned()),
            ("invoke", "receipts", "nil".to_owned()),
            ("ok", "receipts", receipts.to_owned()),
        ];
        let lines = (0..).zip(lines).map(|(time, (kind, function, value))| {
            format!("{{:type :{kind}, :f :{function}, :value {value}, :process 0, :time {time}, :index {time}}}")
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn names(last: &str, receipts: &str) -> Vec<&'static str> {
        let found = check_text(&history(last, receipts)).unwrap();
        found.iter().map(|finding| finding.anomaly.name()).collect()
    }

    #[test]
    fn money_that_moved_as_the_receipts_say_is_right() {
        assert!(names("{0 6, 1 14}", "[7]").is_empty());
    }

    #[test]
    fn money_that_is_gone_and_transfers_that_are_gone_are_found() {
        assert!(names("{0 6, 1 10}", "[7]").contains(&"total-changed"));
        assert_eq!(names("{0 10, 1 10}", "[]"), ["transfer-lost"]);
    }

    #[test]
    fn a_transfer_is_written_as_it_is_read() {
        let asked = Transfer {
            number: 7,
            from: 0,
            to: 1,
            amount: 4,
            status: Status::Ok,
        };
        assert_eq!(
            transfer(&asked).to_string(),
            "{:from 0, :to 1, :amount 4, :receipt 7}"
        );
        assert_eq!(
            to_balances(&balances(&BTreeMap::from([(3, -4)]))),
            Some(BTreeMap::from([(3, -4)]))
        );
    }
}
