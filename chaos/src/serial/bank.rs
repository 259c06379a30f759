//! Banks: money moves between accounts, and is neither made nor lost.
//!
//! Every read of all accounts must show the same total, and none below zero. At the end, if each transfer left a receipt:
//! every acknowledged transfer has one, none without effect has, and the balances are what the receipts make of the first
//! ones.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Anomaly, Finding};
use super::model::Status;

/// Findings of one kind shown at most.
const SHOWN_MAX: usize = 5;

/// A read of all accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BankRead {
    /// When it was answered.
    pub complete_ns: u64,
    /// What each account held.
    pub balances: BTreeMap<u64, i64>,
}

/// One transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Unique: the name of its receipt.
    pub number: u64,
    /// The account it takes from.
    pub from: u64,
    /// The account it gives to.
    pub to: u64,
    /// How much.
    pub amount: i64,
    /// What came of it.
    pub status: Status,
}

/// What is there at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastState {
    /// When it was read.
    pub at_ns: u64,
    /// What each account holds.
    pub balances: BTreeMap<u64, i64>,
    /// The receipts.
    pub receipts: BTreeSet<u64>,
}

/// What the accounts held at first, by number.
pub type Opening = BTreeMap<u64, i64>;

/// Whether every read shows all the money, and no debt.
pub fn check_reads(opening: &Opening, reads: &[BankRead]) -> Vec<Finding> {
    let total: i64 = opening.values().sum();
    let changed = reads
        .iter()
        .filter_map(|read| check_total(opening, total, read));
    let negative = reads.iter().filter_map(check_negative);
    changed
        .take(SHOWN_MAX)
        .chain(negative.take(SHOWN_MAX))
        .collect()
}

fn check_total(opening: &Opening, total: i64, read: &BankRead) -> Option<Finding> {
    let sum: i64 = read.balances.values().sum();
    let is_whole = read.balances.keys().eq(opening.keys());
    if is_whole && sum == total {
        return None;
    }
    let message = format!(
        "{} of {} accounts were read, with {sum} in place of {total}",
        read.balances.len(),
        opening.len()
    );
    Some(Finding::new(Anomaly::Total, read.complete_ns, message))
}

fn check_negative(read: &BankRead) -> Option<Finding> {
    let (account, balance) = read.balances.iter().find(|(_, balance)| **balance < 0)?;
    let message = format!("account {account} holds {balance}");
    Some(Finding::new(Anomaly::Negative, read.complete_ns, message))
}

/// Whether the last state is what the transfers make of the first one.
pub fn check_last(opening: &Opening, transfers: &[Transfer], last: &LastState) -> Vec<Finding> {
    let mut wrong = check_receipts(transfers, last);
    let mut expected = opening.clone();
    for transfer in transfers
        .iter()
        .filter(|transfer| last.receipts.contains(&transfer.number))
    {
        *expected.entry(transfer.from).or_default() -= transfer.amount;
        *expected.entry(transfer.to).or_default() += transfer.amount;
    }
    let differing = expected
        .iter()
        .filter(|(account, balance)| last.balances.get(account) != Some(balance));
    for (account, balance) in differing.take(SHOWN_MAX) {
        let held = last.balances.get(account);
        let message = format!("account {account} holds {held:?}, and {balance} by the receipts");
        wrong.push(Finding::new(Anomaly::Transfer, last.at_ns, message));
    }
    wrong
}

fn check_receipts(transfers: &[Transfer], last: &LastState) -> Vec<Finding> {
    let statuses: BTreeMap<u64, Status> = transfers
        .iter()
        .map(|transfer| (transfer.number, transfer.status))
        .collect();
    let lost = statuses
        .iter()
        .filter(|(number, status)| **status == Status::Ok && !last.receipts.contains(number));
    let lost =
        lost.map(|(number, _)| format!("transfer {number} was acknowledged, and has no receipt"));
    let strange = last.receipts.iter().filter(|number| {
        let status = statuses.get(number);
        status.is_none_or(|status| *status == Status::Fail)
    });
    let strange =
        strange.map(|number| format!("transfer {number} had no effect, and has a receipt"));
    let messages = lost.take(SHOWN_MAX).chain(strange.take(SHOWN_MAX));
    messages
        .map(|message| Finding::new(Anomaly::Transfer, last.at_ns, message))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balances(of: &[i64]) -> BTreeMap<u64, i64> {
        (0..).zip(of.iter().copied()).collect()
    }

    fn transfer(number: u64, amount: i64, status: Status) -> Transfer {
        Transfer {
            number,
            from: 0,
            to: 1,
            amount,
            status,
        }
    }

    fn reads(of: &[i64]) -> Vec<&'static str> {
        let read = BankRead {
            complete_ns: 5,
            balances: balances(of),
        };
        let found = check_reads(&balances(&[10, 10]), &[read]);
        found.iter().map(|finding| finding.anomaly.name()).collect()
    }

    fn last(transfers: &[Transfer], of: &[i64], receipts: &[u64]) -> Vec<&'static str> {
        let state = LastState {
            at_ns: 9,
            balances: balances(of),
            receipts: receipts.iter().copied().collect(),
        };
        let found = check_last(&balances(&[10, 10]), transfers, &state);
        found.iter().map(|finding| finding.anomaly.name()).collect()
    }

    #[test]
    fn a_read_must_show_all_the_money_of_all_accounts_and_no_debt() {
        assert!(reads(&[3, 17]).is_empty());
        assert_eq!(reads(&[3, 16]), ["total-changed"]);
        assert_eq!(reads(&[20]), ["total-changed"]);
        assert_eq!(reads(&[-1, 21]), ["negative-balance"]);
    }

    #[test]
    fn an_acknowledged_transfer_has_a_receipt_and_is_in_the_balances() {
        let done = [transfer(1, 4, Status::Ok)];
        assert!(last(&done, &[6, 14], &[1]).is_empty());
        assert_eq!(last(&done, &[10, 10], &[]), ["transfer-lost"]);
        assert_eq!(
            last(&done, &[10, 10], &[1]),
            ["transfer-lost", "transfer-lost"]
        );
    }

    #[test]
    fn a_transfer_of_unknown_outcome_may_have_a_receipt_and_a_refused_one_may_not() {
        assert!(last(&[transfer(1, 4, Status::Info)], &[6, 14], &[1]).is_empty());
        assert!(last(&[transfer(1, 4, Status::Info)], &[10, 10], &[]).is_empty());
        assert_eq!(
            last(&[transfer(1, 4, Status::Fail)], &[6, 14], &[1]),
            ["transfer-lost"]
        );
    }
}
