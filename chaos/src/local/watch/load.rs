//! Writers of numbered values.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use meridian_client::{Client, Effect, WriteOptions};

/// Keys each writer goes round.
const KEYS: usize = 8;

/// After a failure nobody may lead.
const PAUSE: Duration = Duration::from_millis(20);

/// What all writers share.
#[derive(Debug)]
pub(super) struct Progress {
    /// Writes not begun.
    left: AtomicI64,
    /// Writes acknowledged.
    acknowledged: AtomicU64,
}

/// One key of a writer.
struct Chain {
    key: String,
    acknowledged: u64,
}

/// What became of a key: its name, the last number acknowledged, whether one more may have been written.
pub(super) type Written = (String, u64, bool);

impl Progress {
    pub(super) fn new(changes: u64) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicI64::new(i64::try_from(changes).unwrap_or(i64::MAX)),
            acknowledged: AtomicU64::new(0),
        })
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }
}

/// Writes until nothing is left to write; gives what became of every key.
pub(super) async fn write(name: String, client: Client, progress: Arc<Progress>) -> Vec<Written> {
    let mut done = Vec::new();
    let mut made = 0_u64;
    let mut fresh = || {
        made += 1;
        Chain {
            key: format!("watched-{name}-{made}"),
            acknowledged: 0,
        }
    };
    let mut chains: Vec<Chain> = (0..KEYS).map(|_| fresh()).collect();
    let mut turn = 0_usize;
    while progress.left.fetch_sub(1, Ordering::Relaxed) > 0 {
        turn = turn.wrapping_add(1);
        let Some(chain) = chains.get_mut(turn % KEYS) else {
            break;
        };
        let number = chain.acknowledged.saturating_add(1);
        let options = WriteOptions::default();
        let written = client.put(chain.key.clone(), number.to_string(), &options);
        match written.await {
            Ok(_) => {
                chain.acknowledged = number;
                progress.acknowledged.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Err(error) if error.effect() == Effect::None => {}
            Err(_) => {
                let left = std::mem::replace(chain, fresh());
                done.push((left.key, left.acknowledged, true));
            }
        }
        // It is to be made up for.
        progress.left.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
    done.extend(
        chains
            .into_iter()
            .map(|chain| (chain.key, chain.acknowledged, false)),
    );
    done
}
