//! One node, and the multiplexed stream to it.
//!
//! **What this is.** A [`Link`] opens the `Operate` stream when it is first used, sends operations down it, and pairs
//! answers with callers. A stream that breaks fails what was in flight; the next call opens another.
//!
//! **What this is not.** It retries nothing and knows of no other node: that is `execute`'s part.
//!
//! **Invariants.**
//! * At most `session::SLOTS_MAX` operations (large values count more) are queued or unanswered.
//! * An error with `effect none` is given only for an operation that was never handed to the stream.

mod session;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use meridian_proto::kv::v1 as wire;
use tokio::time::timeout_at;
use tonic::transport::{Channel, Endpoint};

use crate::error::Error;
use session::Session;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
const OPEN_TIME_MAX: Duration = Duration::from_secs(3);
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failure, others go elsewhere first for this long.
const SHUN_TIME: Duration = Duration::from_millis(500);
/// Callers that waited for an attempt to open share its failure for this long.
const FAILURE_SHARED: Duration = Duration::from_millis(100);

/// A channel to `addr` (HOST:PORT), connected when first used.
pub(crate) fn channel(addr: &str) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).map_err(|reason| {
        Error::invalid(format!("{addr:?} is not an address HOST:PORT: {reason}"))
    })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIME_MAX)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_lazy())
}

/// What a node answered to one operation.
pub(crate) struct Reply {
    pub(crate) outcome: wire::outcome::Outcome,
    /// Who holds the other end of the stream.
    pub(crate) via: Arc<wire::ServedBy>,
}

#[derive(Debug)]
struct LastFailure {
    at: Instant,
    error: Error,
}

/// A node, and the stream to it when there is one.
pub(crate) struct Link {
    addr: String,
    channel: Channel,
    session: RwLock<Option<Arc<Session>>>,
    opening: tokio::sync::Mutex<Option<LastFailure>>,
    born: Instant,
    /// Milliseconds since `born`.
    shunned_until_ms: AtomicU64,
}

impl Link {
    pub(crate) fn new(addr: &str) -> Result<Self, Error> {
        Ok(Self {
            addr: addr.to_owned(),
            channel: channel(addr)?,
            session: RwLock::new(None),
            opening: tokio::sync::Mutex::new(None),
            born: Instant::now(),
            shunned_until_ms: AtomicU64::new(0),
        })
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// It failed a moment ago: try others first.
    pub(crate) fn is_shunned(&self) -> bool {
        let until = self.shunned_until_ms.load(Ordering::Relaxed);
        until != 0 && self.elapsed_ms() < until
    }

    pub(crate) fn shun(&self) {
        let until = self.elapsed_ms() + crate::options::millis(SHUN_TIME);
        self.shunned_until_ms.store(until, Ordering::Relaxed);
    }

    fn elapsed_ms(&self) -> u64 {
        crate::options::millis(self.born.elapsed())
    }

    /// A stamp for a new op id, as the node's zone would issue it now.
    pub(crate) async fn stamp_ms(&self, until: Instant) -> Result<u64, Error> {
        Ok(self.session(until).await?.stamp_ms())
    }

    /// Sends one operation and waits for its outcome, until `until` at the latest.
    pub(crate) async fn call(
        &self,
        keyspace: &Arc<str>,
        operation: wire::Operation,
        until: Instant,
    ) -> Result<Reply, Error> {
        let session = self.session(until).await?;
        let waiting = session.submit(keyspace, operation, until).await?;
        match timeout_at(until.into(), waiting).await {
            Ok(Ok(Ok(outcome))) => Ok(Reply {
                outcome,
                via: session.served_by(),
            }),
            Ok(Ok(Err(broken))) => Err(broken),
            Ok(Err(_dropped)) => Err(Error::unanswered(format!(
                "the stream to {} ended",
                self.addr
            ))),
            Err(_elapsed) => Err(Error::unanswered(format!(
                "no answer from {} in time",
                self.addr
            ))),
        }
    }

    async fn session(&self, until: Instant) -> Result<Arc<Session>, Error> {
        if let Some(session) = self.open_session() {
            return Ok(session);
        }
        let limit = until.min(Instant::now() + OPEN_TIME_MAX);
        match timeout_at(limit.into(), self.open()).await {
            Ok(opened) => opened,
            Err(_elapsed) => Err(self.unreachable("no connection in time")),
        }
    }

    fn open_session(&self) -> Option<Arc<Session>> {
        let session = self.session.read().unwrap_or_else(PoisonError::into_inner);
        session.as_ref().filter(|open| !open.is_closed()).cloned()
    }

    async fn open(&self) -> Result<Arc<Session>, Error> {
        let mut last_failure = self.opening.lock().await;
        if let Some(session) = self.open_session() {
            return Ok(session);
        }
        if let Some(failure) = last_failure.as_ref()
            && failure.at.elapsed() < FAILURE_SHARED
        {
            return Err(failure.error.clone());
        }
        match Session::open(self.channel()).await {
            Ok(session) => {
                *last_failure = None;
                let mut current = self.session.write().unwrap_or_else(PoisonError::into_inner);
                *current = Some(Arc::clone(&session));
                Ok(session)
            }
            Err(status) => {
                let error = self.unreachable(&describe(&status));
                *last_failure = Some(LastFailure {
                    at: Instant::now(),
                    error: error.clone(),
                });
                Err(error)
            }
        }
    }

    fn unreachable(&self, why: &str) -> Error {
        Error::unreachable(format!("cannot reach {}: {why}", self.addr))
    }
}

/// The error of a unary call to `addr`. A connection that was never made is told apart from one that broke.
pub(crate) fn explain(addr: &str, status: &tonic::Status) -> Error {
    let cause = describe(status);
    let refused = status.code() == tonic::Code::Unavailable && cause != status.message();
    if refused {
        Error::unreachable(format!("cannot reach {addr}: {cause}"))
    } else {
        Error::from_status(status)
    }
    .with_metadata("addr", addr)
}

/// The innermost cause says most: "connection refused" rather than "transport error".
pub(crate) fn describe(status: &tonic::Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    let mut depth = 0;
    while let Some(deeper) = cause.source()
        && depth < 16
    {
        cause = deeper;
        depth += 1;
    }
    if depth == 0 {
        status.message().to_owned()
    } else {
        cause.to_string()
    }
}
