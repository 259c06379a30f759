//! A bank: transfers between accounts, each with a receipt in the same transaction, and reads of all accounts.
//!
//! Most reads are of a view, which blocks nobody; some are transactions that scan the accounts, and conflict with whatever
//! moves money meanwhile. At the end all accounts and receipts are read from one view.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meridian_client::{Error, KeyRange, ScanQuery, Txn as Attempt, TxnOptions, Versions, View};
use rand::rngs::SmallRng;

use super::crew::{self, Worker};
use super::session::{Session, status_of};
use super::set::number_after;
use super::steps::patiently;
use crate::histories::edn::Edn;
use crate::histories::journal::{Entry, Process};
use crate::histories::money::{self, READ, RECEIPTS, TRANSFER};
use crate::rng::Draw;
use crate::serial::Status;
use crate::serial::bank::Transfer;

/// What each account holds at first.
const OPENING: i64 = 100;
/// Most that one transfer moves.
const AMOUNT_MAX: u64 = 5;
/// Accounts opened in one transaction.
const OPENED_AT_ONCE: usize = 50;
const DURATION_MAX: Duration = Duration::from_secs(5);

/// What happened at a bank.
#[derive(Debug)]
pub struct BankRun {
    /// Everything, in the words of a history.
    pub entries: Vec<Entry>,
    /// Why the accounts and receipts could not be read at the end.
    pub unread: Option<String>,
}

/// How many operations of a kind ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Acknowledged.
    pub ok: usize,
    /// Surely without effect.
    pub fail: usize,
    /// Of unknown outcome.
    pub info: usize,
}

impl BankRun {
    /// How transfers ended.
    pub fn transfers(&self) -> Told {
        self.told(TRANSFER)
    }

    /// How reads of all accounts ended.
    pub fn reads(&self) -> Told {
        self.told(READ)
    }

    fn told(&self, function: &str) -> Told {
        let mut told = Told::default();
        for entry in self
            .entries
            .iter()
            .filter(|entry| entry.function == function)
        {
            match entry.status {
                Status::Ok => told.ok += 1,
                Status::Fail => told.fail += 1,
                Status::Info => told.info += 1,
            }
        }
        told
    }
}

struct Client {
    session: Session,
    process: Process,
    rng: SmallRng,
    next: Arc<AtomicU64>,
}

/// Opens the accounts, moves money until the session is stopped, and reads everything at the end.
pub async fn drive(session: &Session) -> Result<BankRun, String> {
    open(session).await?;
    let clients = session.settings.clients;
    let auditor = Process::first(clients, clients + 1);
    let mut entries = vec![audit(session, auditor).await?.0];
    let next = Arc::new(AtomicU64::new(1));
    let workers = (0..clients).map(|number| Client {
        session: session.clone(),
        process: Process::first(number, clients + 1),
        rng: session.streams().stream("bank", number),
        next: Arc::clone(&next),
    });
    entries.extend(crew::run(session, workers.collect()).await?);
    let last = audit(session, auditor).await;
    let unread = last.as_ref().err().cloned();
    entries.extend(
        last.into_iter()
            .flat_map(|(accounts, receipts)| [accounts, receipts]),
    );
    Ok(BankRun { entries, unread })
}

fn account(session: &Session, number: u64) -> String {
    session.key("account", format_args!("{number:06}"))
}

/// Overwriting what a lost attempt wrote already does no harm: nothing moves yet.
async fn open(session: &Session) -> Result<(), String> {
    let accounts: Vec<u64> = (0..session.settings.accounts).collect();
    for some in accounts.chunks(OPENED_AT_ONCE) {
        patiently(|| open_some(session, some)).await?;
    }
    Ok(())
}

async fn open_some(session: &Session, accounts: &[u64]) -> Result<(), Error> {
    let txn = session.client.begin(&TxnOptions::default());
    for number in accounts {
        txn.put(account(session, *number), OPENING.to_string())?;
    }
    txn.commit().await.map(drop)
}

/// All accounts and all receipts at one moment.
async fn audit(session: &Session, process: Process) -> Result<(Entry, Entry), String> {
    let invoke_ns = session.now_ns();
    let (balances, receipts) = patiently(|| read_all(session)).await?;
    let entry = |function: &str, answered: Edn, (begin, end): (u64, u64)| Entry {
        process: process.number(),
        invoke_ns: begin,
        complete_ns: Some(end),
        status: Status::Ok,
        line: 0,
        function: function.to_owned(),
        asked: Edn::Nil,
        answered,
    };
    let end = session.now_ns().max(invoke_ns + 2);
    let receipts = Edn::Sequence(receipts.into_iter().map(Edn::int).collect());
    Ok((
        entry(READ, money::balances(&balances), (invoke_ns, end - 1)),
        entry(RECEIPTS, receipts, (end, end + 1)),
    ))
}

async fn read_all(session: &Session) -> Result<(BTreeMap<u64, i64>, Vec<u64>), Error> {
    let view = session.client.view().await?;
    let accounts = scan(&view, session.key("account", "")).await?;
    let prefix = session.key("receipt", "");
    let receipts = scan(&view, prefix.clone()).await?;
    drop(view.close().await);
    let numbers = receipts
        .iter()
        .filter_map(|entry| number_after(&prefix, &entry.key));
    Ok((balances(session, &accounts), numbers.collect()))
}

async fn scan(view: &View, prefix: String) -> Result<Vec<Versions>, Error> {
    let query = ScanQuery {
        prefix: prefix.into(),
        ..ScanQuery::default()
    };
    let mut scan = view.scan(query);
    let mut entries = Vec::new();
    while let Some(page) = scan.next_page().await? {
        entries.extend(page.entries.into_iter().filter(|entry| entry.found));
    }
    Ok(entries)
}

fn balances(session: &Session, entries: &[Versions]) -> BTreeMap<u64, i64> {
    let prefix = session.key("account", "");
    let balances = entries.iter().filter_map(|entry| {
        let number = number_after(&prefix, &entry.key)?;
        Some((number, balance(session, entry)?))
    });
    balances.collect()
}

fn balance(session: &Session, versions: &Versions) -> Option<i64> {
    let text = session.value(versions)?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        session.note_strange(format!("a balance that nobody wrote: {text:?}"));
    }
    parsed
}

impl Worker for Client {
    type Record = Entry;

    async fn step(&mut self) -> (Entry, Status) {
        let mut entry = match self.rng.between(0, 20) {
            0..=2 => self.read(false).await,
            3 => self.read(true).await,
            _ => self.transfer().await,
        };
        entry.complete_ns = Some(self.session.now_ns());
        self.process = self.process.after(entry.status);
        let status = entry.status;
        (entry, status)
    }
}

impl Client {
    fn begun(&self, function: &str, asked: Edn) -> Entry {
        Entry {
            process: self.process.number(),
            invoke_ns: self.session.now_ns(),
            complete_ns: None,
            status: Status::Fail,
            line: 0,
            function: function.to_owned(),
            answered: asked.clone(),
            asked,
        }
    }

    fn options() -> TxnOptions {
        TxnOptions {
            duration_max: DURATION_MAX,
            ..TxnOptions::default()
        }
    }

    /// A read has no effect: one without an answer failed.
    async fn read(&self, in_transaction: bool) -> Entry {
        let mut entry = self.begun(READ, Edn::Nil);
        let read = if in_transaction {
            self.read_in_transaction().await
        } else {
            self.read_view().await
        };
        if let Ok(accounts) = read {
            entry.status = Status::Ok;
            entry.answered = money::balances(&balances(&self.session, &accounts));
        }
        entry
    }

    async fn read_view(&self) -> Result<Vec<Versions>, Error> {
        let view = self.session.client.view().await?;
        let accounts = scan(&view, self.session.key("account", "")).await;
        drop(view.close().await);
        accounts
    }

    async fn read_in_transaction(&self) -> Result<Vec<Versions>, Error> {
        let txn = self.session.client.begin(&Self::options());
        let accounts = txn
            .scan(&KeyRange::prefix(self.session.key("account", "")))
            .await?;
        txn.commit().await?;
        Ok(accounts.into_iter().filter(|entry| entry.found).collect())
    }

    async fn transfer(&mut self) -> Entry {
        let accounts = self.session.settings.accounts.max(2);
        let from = self.rng.between(0, accounts);
        let to = (from + self.rng.between(1, accounts)) % accounts;
        let transfer = Transfer {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            from,
            to,
            amount: i64::try_from(self.rng.between(1, AMOUNT_MAX + 1)).unwrap_or(1),
            status: Status::Info,
        };
        let mut entry = self.begun(TRANSFER, money::transfer(&transfer));
        entry.status = self.attempt(&transfer).await;
        entry
    }

    /// Before the commit nothing can have had an effect.
    async fn attempt(&self, transfer: &Transfer) -> Status {
        let txn = self.session.client.begin(&Self::options());
        match self.move_money(&txn, transfer).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return Status::Fail,
        }
        match txn.commit().await {
            Ok(_committed) => Status::Ok,
            Err(error) => status_of(&error),
        }
    }

    /// Whether there was enough of it.
    async fn move_money(&self, txn: &Attempt, transfer: &Transfer) -> Result<bool, Error> {
        let names = [transfer.from, transfer.to].map(|number| account(&self.session, number));
        let mut held = Vec::new();
        for name in &names {
            held.push(balance(&self.session, &txn.get(name.clone()).await?));
        }
        let [from, to] = names;
        let [Some(given), Some(taken)] = held.as_slice() else {
            self.session
                .note_strange(format!("account {from} or {to} is gone"));
            return Ok(false);
        };
        if *given < transfer.amount {
            return Ok(false);
        }
        txn.put(from, (given - transfer.amount).to_string())?;
        txn.put(to, (taken + transfer.amount).to_string())?;
        let receipt = self
            .session
            .key("receipt", format_args!("{:012}", transfer.number));
        txn.put(receipt, transfer.amount.to_string())?;
        Ok(true)
    }
}
