//! What all clients of a run share: the cluster, the clock, the names of keys, and whether to go on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use meridian_client::{Client, Effect, Error, Versions};

use crate::rng::Streams;
use crate::serial::Status;

/// What a run is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many clients.
    pub clients: u64,
    /// Decides what they ask.
    pub seed: u64,
    /// Keys in use at one time.
    pub keys: Option<u64>,
    /// Accounts of a bank.
    pub accounts: u64,
}

/// How operations ended so far.
#[derive(Debug, Default)]
pub struct Counts {
    ok: AtomicU64,
    fail: AtomicU64,
    info: AtomicU64,
}

impl Counts {
    fn add(&self, status: Status) {
        let count = match status {
            Status::Ok => &self.ok,
            Status::Fail => &self.fail,
            Status::Info => &self.info,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// On a line.
    pub fn line(&self) -> String {
        let [ok, fail, info] =
            [&self.ok, &self.fail, &self.info].map(|count| count.load(Ordering::Relaxed));
        format!("{ok} ok, {fail} fail, {info} info")
    }
}

/// What all clients of a run share.
#[derive(Clone)]
pub struct Session {
    /// The cluster, in one zone.
    pub client: Client,
    /// What the run is asked for.
    pub settings: Settings,
    /// How operations ended.
    pub counts: Arc<Counts>,
    prefix: Arc<str>,
    begun: Instant,
    stop: Arc<AtomicBool>,
    strange: Arc<Mutex<Vec<String>>>,
}

impl Session {
    /// A session whose keys no other one uses.
    pub fn new(client: Client, settings: Settings) -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            client,
            settings,
            counts: Arc::default(),
            prefix: format!("drive/{:x}-{:x}", since.as_nanos(), std::process::id()).into(),
            begun: Instant::now(),
            stop: Arc::default(),
            strange: Arc::default(),
        }
    }

    /// Nanoseconds since the session began.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The key under this name.
    pub fn key(&self, kind: &str, name: impl std::fmt::Display) -> String {
        format!("{}/{kind}/{name}", self.prefix)
    }

    /// The streams of chance.
    pub const fn streams(&self) -> Streams {
        Streams::new(self.settings.seed)
    }

    /// Ends the load: nothing new is begun.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the load is to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Counts the end of an operation.
    pub fn ended(&self, status: Status) {
        self.counts.add(status);
    }

    /// Notes an answer that no checker could take in, which is wrong by itself.
    pub fn note_strange(&self, what: String) {
        self.strange
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(what);
        self.stop();
    }

    /// What was noted.
    pub fn strange(&self) -> Vec<String> {
        self.strange
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The one value of a key, or nothing. Within one zone that writes there are no siblings.
    pub fn value(&self, versions: &Versions) -> Option<String> {
        let live = versions.siblings.iter().filter(|sibling| !sibling.deleted);
        let mut values = live.map(|sibling| String::from_utf8_lossy(&sibling.value).into_owned());
        let value = values.next();
        if versions.in_conflict() {
            let key = String::from_utf8_lossy(&versions.key);
            self.note_strange(format!("{} siblings of key {key}", versions.siblings.len()));
        }
        value
    }
}

/// What an error says of a write.
pub(super) fn status_of(error: &Error) -> Status {
    match error.effect() {
        Effect::None => Status::Fail,
        Effect::Applied | Effect::Unknown => Status::Info,
    }
}
