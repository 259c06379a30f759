//! Interactive transactions over lists and registers: one to four steps over a few keys, so that shards are crossed.
//!
//! A list is one key whose value is its elements with commas between; an append reads it in the same transaction. Nothing is
//! tried again: each transaction in the history is one attempt, and a conflict is a failure.

use std::sync::Arc;
use std::time::Duration;

use meridian_client::{Error, Txn as Attempt, TxnOptions};
use rand::rngs::SmallRng;

use super::crew::{self, Worker};
use super::pool::Pool;
use super::session::{Session, status_of};
use crate::histories::journal::Process;
use crate::histories::transactions::Keys;
use crate::rng::Draw;
use crate::serial::{MicroOp, Status, Txn};

/// Keys in use when nobody says otherwise.
const KEYS: u64 = 12;
/// Steps of a transaction at most.
const STEPS_MAX: u64 = 4;
const DURATION_MAX: Duration = Duration::from_secs(5);

struct Client {
    session: Session,
    keys: Keys,
    process: Process,
    rng: SmallRng,
    pool: Arc<Pool>,
}

/// Runs the workload.
pub(super) async fn drive(session: &Session, keys: Keys) -> Result<Vec<Txn>, String> {
    let pool = Arc::new(Pool::new(session.settings.keys.unwrap_or(KEYS)));
    let clients = session.settings.clients;
    let workers = (0..clients).map(|number| Client {
        session: session.clone(),
        keys,
        process: Process::first(number, clients),
        rng: session.streams().stream("transactions", number),
        pool: Arc::clone(&pool),
    });
    crew::run(session, workers.collect()).await
}

impl Worker for Client {
    type Record = Txn;

    async fn step(&mut self) -> (Txn, Status) {
        let steps = self.rng.between(1, STEPS_MAX + 1);
        let mut ops: Vec<MicroOp> = (0..steps).map(|_| self.ask()).collect();
        let process = self.process.number();
        let invoke_ns = self.session.now_ns();
        let status = self.attempt(&mut ops).await;
        if status != Status::Ok {
            for op in &mut ops {
                *op = op.asked();
            }
        }
        let txn = Txn {
            process,
            invoke_ns,
            complete_ns: Some(self.session.now_ns()),
            status,
            ops,
        };
        self.process = self.process.after(status);
        (txn, status)
    }
}

impl Client {
    fn ask(&mut self) -> MicroOp {
        let is_write = self.rng.chance(0.5);
        let key = self.pool.key(&mut self.rng, is_write);
        match (self.keys, is_write) {
            (Keys::Lists, true) => MicroOp::Append {
                key,
                value: self.pool.value(),
            },
            (Keys::Lists, false) => MicroOp::ReadList { key, list: None },
            (Keys::Registers, true) => MicroOp::Write {
                key,
                value: self.pool.value(),
            },
            (Keys::Registers, false) => MicroOp::ReadRegister { key, value: None },
        }
    }

    /// Before the commit nothing can have had an effect.
    async fn attempt(&self, ops: &mut [MicroOp]) -> Status {
        let options = TxnOptions {
            duration_max: DURATION_MAX,
            ..TxnOptions::default()
        };
        let txn = self.session.client.begin(&options);
        for op in ops {
            if self.execute(&txn, op).await.is_err() {
                return Status::Fail;
            }
        }
        match txn.commit().await {
            Ok(_committed) => Status::Ok,
            Err(error) => status_of(&error),
        }
    }

    async fn execute(&self, txn: &Attempt, op: &mut MicroOp) -> Result<(), Error> {
        let name = self.session.key("t", op.key());
        match op {
            MicroOp::Write { value, .. } => txn.put(name, value.to_string()),
            MicroOp::Append { value, .. } => {
                let list = self.text(txn, &name).await?;
                let longer =
                    list.map_or_else(|| value.to_string(), |list| format!("{list},{value}"));
                txn.put(name, longer)
            }
            MicroOp::ReadList { list, .. } => {
                let found = self.text(txn, &name).await?;
                *list = Some(self.numbers(found.as_deref()));
                Ok(())
            }
            MicroOp::ReadRegister { value, .. } => {
                let found = self.text(txn, &name).await?;
                *value = Some(self.numbers(found.as_deref()).first().copied());
                Ok(())
            }
        }
    }

    async fn text(&self, txn: &Attempt, name: &str) -> Result<Option<String>, Error> {
        let versions = txn.get(name.to_owned()).await?;
        Ok(self.session.value(&versions))
    }

    fn numbers(&self, text: Option<&str>) -> Vec<u64> {
        let Some(text) = text else {
            return Vec::new();
        };
        let parsed: Option<Vec<u64>> = text.split(',').map(|number| number.parse().ok()).collect();
        if parsed.is_none() {
            self.session
                .note_strange(format!("a value that nobody wrote: {text:?}"));
        }
        parsed.unwrap_or_default()
    }
}
