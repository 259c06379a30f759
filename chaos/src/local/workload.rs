//! Writers: each asks one zone, writes keys of its own in a chain, and now and then a key that all write.
//!
//! On keys of its own a writer goes on from its last acknowledged context without reading; after an unknown outcome it
//! reads first. On contended keys it always reads, and replaces everything it read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use meridian_client::{Client, Context, Effect, ReadOptions, Versions, WriteOptions};

use super::ledger::{Attempt, Held, Told};

/// Keys of its own each writer goes round.
const OWN_KEYS: u64 = 25;
/// Keys that all write.
const CONTENDED_KEYS: u64 = 20;
/// One write of so many goes to a contended key.
const CONTENDED_EVERY: u64 = 5;
/// After a failure the zone's node may be down.
const PAUSE: Duration = Duration::from_millis(20);

/// What a writer knows of a key of its own.
struct Chain {
    context: Context,
    values: Vec<String>,
}

/// One writer.
pub(super) struct Writer {
    name: String,
    client: Client,
    stop: Arc<AtomicBool>,
    chains: BTreeMap<String, Chain>,
    attempts: Vec<Attempt>,
    written: u64,
}

impl Writer {
    /// A writer whose values begin with its name.
    pub(super) fn new(name: String, client: Client, stop: Arc<AtomicBool>) -> Self {
        Self {
            name,
            client,
            stop,
            chains: BTreeMap::new(),
            attempts: Vec::new(),
            written: 0,
        }
    }

    /// Writes until told to stop; gives everything it tried.
    pub(super) async fn run(mut self) -> Vec<Attempt> {
        while !self.stop.load(Ordering::Relaxed) {
            self.written += 1;
            let number = self.written;
            let key = if number.is_multiple_of(CONTENDED_EVERY) {
                format!("contended-{}", number / CONTENDED_EVERY % CONTENDED_KEYS)
            } else {
                format!("own-{}-{}", self.name, number % OWN_KEYS)
            };
            if !self.write(key, number).await {
                tokio::time::sleep(PAUSE).await;
            }
        }
        self.attempts
    }

    /// What the next write of a key replaces: what is known of it, or else what a read finds.
    async fn chain(&mut self, key: &str) -> Option<Chain> {
        if let Some(chain) = self.chains.remove(key) {
            return Some(chain);
        }
        let versions = self
            .client
            .get(key.to_owned(), &ReadOptions::default())
            .await
            .ok()?;
        let values = held(&versions)
            .into_iter()
            .map(|sibling| sibling.value)
            .collect();
        Some(Chain {
            context: versions.context,
            values,
        })
    }

    /// Whether it was acknowledged.
    async fn write(&mut self, key: String, number: u64) -> bool {
        let Some(Chain { context, values }) = self.chain(&key).await else {
            return false;
        };
        let value = format!("{}:{number}", self.name);
        let written = self
            .client
            .put(
                key.clone(),
                value.clone(),
                &WriteOptions::replacing(context),
            )
            .await;
        let told = match written {
            Ok(written) => {
                if key.starts_with("own-") {
                    let chain = Chain {
                        context: written.context,
                        values: vec![value.clone()],
                    };
                    self.chains.insert(key.clone(), chain);
                }
                Told::Acknowledged(written.receipt.dot)
            }
            Err(error) => match error.effect() {
                Effect::None => Told::Refused,
                Effect::Unknown | Effect::Applied => Told::Unknown,
            },
        };
        let acknowledged = matches!(told, Told::Acknowledged(_));
        self.attempts.push(Attempt {
            key,
            value,
            replaces: values,
            told,
        });
        acknowledged
    }
}

/// The siblings of a key, as the ledger compares them.
pub(super) fn held(versions: &Versions) -> Vec<Held> {
    let siblings = versions.siblings.iter().map(|sibling| Held {
        value: String::from_utf8_lossy(&sibling.value).into_owned(),
        dot: sibling.dot.clone(),
    });
    siblings.collect()
}
