//! A set: elements are added as keys below a prefix, and when all have ended the prefix is scanned.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use meridian_client::{Error, ScanQuery, WriteOptions};

use super::crew::{self, Worker};
use super::session::{Session, status_of};
use super::steps::patiently;
use crate::histories::edn::Edn;
use crate::histories::elements::{ADD, READ};
use crate::histories::journal::{Entry, Process};
use crate::serial::Status;

struct Client {
    session: Session,
    process: Process,
    next: Arc<AtomicU64>,
}

/// Runs the workload.
pub(super) async fn drive(session: &Session) -> Result<Vec<Entry>, String> {
    let next = Arc::new(AtomicU64::new(1));
    let clients = session.settings.clients;
    let workers = (0..clients).map(|number| Client {
        session: session.clone(),
        process: Process::first(number, clients + 1),
        next: Arc::clone(&next),
    });
    let mut entries = crew::run(session, workers.collect()).await?;
    // Without it the history is written all the same, and nothing can be said.
    entries.extend(read(session, Process::first(clients, clients + 1)).await);
    Ok(entries)
}

impl Worker for Client {
    type Record = Entry;

    async fn step(&mut self) -> (Entry, Status) {
        let element = self.next.fetch_add(1, Ordering::Relaxed);
        let name = self.session.key("s", format_args!("{element:012}"));
        let process = self.process.number();
        let invoke_ns = self.session.now_ns();
        let added = self
            .session
            .client
            .put(name, "1", &WriteOptions::default())
            .await;
        let complete_ns = Some(self.session.now_ns());
        let status = added.map_or_else(|error| status_of(&error), |_receipt| Status::Ok);
        self.process = self.process.after(status);
        let entry = Entry {
            process,
            invoke_ns,
            complete_ns,
            status,
            line: 0,
            function: ADD.to_owned(),
            asked: Edn::int(element),
            answered: Edn::int(element),
        };
        (entry, status)
    }
}

async fn read(session: &Session, process: Process) -> Result<Entry, String> {
    let invoke_ns = session.now_ns();
    let elements = patiently(|| scan(session)).await?;
    Ok(Entry {
        process: process.number(),
        invoke_ns,
        complete_ns: Some(session.now_ns()),
        status: Status::Ok,
        line: 0,
        function: READ.to_owned(),
        asked: Edn::Nil,
        answered: Edn::Sequence(elements.into_iter().map(Edn::int).collect()),
    })
}

async fn scan(session: &Session) -> Result<BTreeSet<u64>, Error> {
    let prefix = session.key("s", "");
    let query = ScanQuery {
        prefix: prefix.clone().into(),
        keys_only: true,
        ..ScanQuery::default()
    };
    let mut scan = session.client.scan(query);
    let mut elements = BTreeSet::new();
    while let Some(page) = scan.next_page().await? {
        let found = page.entries.iter().filter(|entry| entry.found);
        elements.extend(found.filter_map(|entry| number_after(&prefix, &entry.key)));
    }
    Ok(elements)
}

/// The number that a key ends in.
pub(super) fn number_after(prefix: &str, key: &[u8]) -> Option<u64> {
    let name = key.strip_prefix(prefix.as_bytes())?;
    std::str::from_utf8(name).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_below_the_prefix_ends_in_its_number() {
        assert_eq!(number_after("a/", b"a/0012"), Some(12));
        assert_eq!(number_after("a/", b"b/0012"), None);
        assert_eq!(number_after("a/", b"a/x"), None);
    }
}
