//! Writers at home: chains and batches, until they are told to stop.

use std::time::Duration;

use bytes::Bytes;
use meridian_client::{Action, Client, Transaction, WriteOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::MirrorsArgs;
use super::cut::{BATCH, CHAIN, Contents, key, key_in};

/// After a refusal: of a transaction that met a cut, for example.
const PAUSE: Duration = Duration::from_millis(5);

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// The last of everything.
    pub(super) last: Contents,
    /// Puts and transactions that were acknowledged.
    pub(super) puts: u64,
    pub(super) transactions: u64,
}

/// Writers under way.
pub(super) struct Writers {
    stop: watch::Sender<bool>,
    chains: Vec<JoinHandle<Writer>>,
    batches: Vec<JoinHandle<Writer>>,
}

impl Writers {
    pub(super) fn begin(args: &MirrorsArgs, home: &Client) -> Self {
        let (stop, stopped) = watch::channel(false);
        let shards = args.shards.max(1);
        let writer = |kind: &str, number: usize| Writer {
            name: format!("{kind}-{number}"),
            client: home.clone(),
            padding: vec![b'x'; args.value_bytes],
            stopped: stopped.clone(),
            last: Contents::default(),
            acknowledged: 0,
        };
        let keys = args.keys.max(1);
        let chains = (0..args.chains).map(|number| tokio::spawn(writer(CHAIN, number).chain(keys)));
        let chains = chains.collect();
        let batches =
            (0..args.batches).map(|number| tokio::spawn(writer(BATCH, number).batch(shards)));
        Self {
            batches: batches.collect(),
            chains,
            stop,
        }
    }

    /// Ends them, and gives what they wrote.
    pub(super) async fn end(self) -> Result<Written, String> {
        self.stop.send_replace(true);
        let mut written = Written::default();
        for writer in self.chains {
            let writer = writer.await.map_err(|error| error.to_string())?;
            written.puts += writer.acknowledged;
            written.last.0.extend(writer.last.0);
        }
        for writer in self.batches {
            let writer = writer.await.map_err(|error| error.to_string())?;
            written.transactions += writer.acknowledged;
            written.last.0.extend(writer.last.0);
        }
        Ok(written)
    }
}

struct Writer {
    name: String,
    client: Client,
    padding: Vec<u8>,
    stopped: watch::Receiver<bool>,
    last: Contents,
    acknowledged: u64,
}

impl Writer {
    fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    fn value(&self, number: u64) -> Bytes {
        let mut value = number.to_string().into_bytes();
        value.extend(&self.padding);
        value.into()
    }

    fn note(&mut self, place: usize, number: u64) {
        let numbers = self.last.0.entry(self.name.clone()).or_default();
        numbers.insert(place, number);
    }

    /// Ends between two rounds only, so that the end is known.
    async fn chain(mut self, keys: usize) -> Self {
        for number in 1.. {
            if self.is_stopped() {
                break;
            }
            for place in 0..keys {
                self.put(place, number).await;
                self.note(place, number);
            }
        }
        self
    }

    /// Until it is acknowledged: the next key must not be written before.
    async fn put(&mut self, place: usize, number: u64) {
        let (key, value) = (key(&self.name, place), self.value(number));
        let options = WriteOptions::default();
        while let Err(_refusal) = self.client.put(key.clone(), value.clone(), &options).await {
            tokio::time::sleep(PAUSE).await;
        }
        self.acknowledged += 1;
    }

    async fn batch(mut self, shards: u32) -> Self {
        let keys: Vec<String> = (0..shards)
            .map(|shard| key_in(&self.name, (shard, shards)))
            .collect();
        for number in 1.. {
            if self.is_stopped() {
                break;
            }
            let puts = keys.iter().cloned();
            let puts = puts.map(|key| Action::put(key, self.value(number)));
            let transaction = puts.fold(Transaction::new(), Transaction::then);
            while self.client.transact(transaction.clone()).await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
            self.acknowledged += 1;
            for place in 0..keys.len() {
                self.note(place, number);
            }
        }
        self
    }
}
