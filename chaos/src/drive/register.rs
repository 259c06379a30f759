//! Registers: puts, gets, compare-and-sets and deletes on a few keys.
//!
//! The library tries an operation again under its op id, so a record spans all of its attempts. A compare-and-set expects the
//! value that its client read last, which others may have replaced: some succeed, some do not.

use std::collections::BTreeMap;

use meridian_client::{Error, Intent, ReadLevel, ReadOptions, WriteOptions, Written};
use rand::rngs::SmallRng;

use super::crew::{self, Worker};
use super::session::{Session, status_of};
use crate::histories::registers::{Ended, Record, Verb};
use crate::rng::Draw;
use crate::serial::Status;

/// Keys when nobody says otherwise.
const KEYS: u64 = 5;

struct Client {
    session: Session,
    number: u64,
    rng: SmallRng,
    written: u64,
    /// What it read last, by key.
    last: BTreeMap<u64, String>,
}

/// Runs the workload.
pub(super) async fn drive(session: &Session) -> Result<Vec<Record>, String> {
    let workers = (0..session.settings.clients).map(|number| Client {
        session: session.clone(),
        number,
        rng: session.streams().stream("register", number),
        written: 0,
        last: BTreeMap::new(),
    });
    crew::run(session, workers.collect()).await
}

impl Worker for Client {
    type Record = Record;

    async fn step(&mut self) -> (Record, Status) {
        let key = self
            .rng
            .between(0, self.session.settings.keys.unwrap_or(KEYS).max(1));
        let mut record = self.asked(key);
        let name = self.session.key("r", &record.key);
        record.call = self.session.now_ns();
        let status = match record.op {
            Verb::Get => self.get(key, name, &mut record).await,
            Verb::Put | Verb::Cas | Verb::Del => self.write(name, &record).await,
        };
        record.returned = Some(self.session.now_ns());
        record.status = match status {
            Status::Ok => Ended::Ok,
            Status::Fail => Ended::Fail,
            Status::Info => Ended::Info,
        };
        (record, status)
    }
}

impl Client {
    fn asked(&mut self, key: u64) -> Record {
        let expected = self.last.get(&key).cloned();
        let op = match (self.rng.between(0, 10), &expected) {
            (0..=3, _) => Verb::Get,
            (4..=5, Some(_)) => Verb::Cas,
            (9, _) => Verb::Del,
            (_, _) => Verb::Put,
        };
        self.written += 1;
        let is_write = matches!(op, Verb::Put | Verb::Cas);
        Record {
            client: self.number,
            op,
            key: format!("r{key}"),
            value: is_write.then(|| format!("{}.{}", self.number, self.written)),
            expected: expected.filter(|_| op == Verb::Cas),
            call: 0,
            returned: None,
            status: Ended::Info,
            output: None,
            found: None,
        }
    }

    /// A read has no effect: one without an answer failed.
    async fn get(&mut self, key: u64, name: String, record: &mut Record) -> Status {
        let Ok(versions) = self
            .session
            .client
            .get(name, &ReadOptions::level(ReadLevel::Linearizable))
            .await
        else {
            return Status::Fail;
        };
        let value = self.session.value(&versions);
        record.found = Some(value.is_some());
        match &value {
            Some(value) => self.last.insert(key, value.clone()),
            None => self.last.remove(&key),
        };
        record.output = value;
        Status::Ok
    }

    async fn write(&self, name: String, record: &Record) -> Status {
        match self.send(name, record).await {
            Ok(_receipt) => Status::Ok,
            Err(error) => status_of(&error),
        }
    }

    async fn send(&self, name: String, record: &Record) -> Result<Written, Error> {
        let value = record.value.clone().unwrap_or_default();
        let intent = match &record.expected {
            Some(expected) => Intent::IfValue(expected.clone().into()),
            None => Intent::Overwrite,
        };
        let options = WriteOptions {
            intent,
            ..WriteOptions::default()
        };
        match record.op {
            Verb::Del => self.session.client.delete(name, &options).await,
            Verb::Put | Verb::Cas | Verb::Get => {
                self.session.client.put(name, value, &options).await
            }
        }
    }
}
