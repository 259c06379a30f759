//! A watch in progress: the changes of a key or of a prefix, in one zone, as long as they are asked for.
//!
//! It goes on by itself from its last revision, at another node of the zone, when a node is lost or a link breaks. What
//! another attempt cannot cure is returned, `COMPACTED` among it; and so is `WATCH_TOO_SLOW`, because who reads too slowly
//! should know. After either, the revision says where to go on.
//!
//! Invariant: between two batches nothing is left out and nothing is repeated, whatever happens to nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use meridian_proto::kv::v1 as wire;
use tokio::time::{sleep, timeout};
use tonic::Streaming;
use wire::kv_client::KvClient;

use crate::MESSAGE_SIZE_BYTES_MAX;
use crate::client::Inner;
use crate::error::Error;
use crate::ids::Revision;
use crate::link;
use crate::results::ServedBy;
use crate::retry::{ATTEMPTS_MAX, backoff};
use crate::routes::Reach;

/// A node that does not even say where it stands within this time is left.
const OPEN_TIME_MAX: Duration = Duration::from_secs(4);

/// A node that says nothing for this long is left: it says where it stands every 5 s.
const SILENCE_MAX: Duration = Duration::from_secs(12);

/// Which keys are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchKeys {
    /// This one.
    Key(Bytes),
    /// Those that begin so; all, when it is empty.
    Prefix(Bytes),
}

/// What is to be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchQuery {
    /// Which keys.
    pub keys: WatchKeys,
    /// After which revision; empty: from now on.
    pub from: Revision,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// The key.
    pub key: Bytes,
    /// What was written; `None` when it was deleted.
    pub value: Option<Bytes>,
    /// Nobody deleted it: it came to its end.
    pub expired: bool,
    /// The dot of the version, as text.
    pub dot: String,
    /// The zone where it was written.
    pub zone: String,
    /// When, by that zone's clock, in milliseconds since 1970.
    pub written_at_ms: u64,
    /// The transaction it belongs to, and in how many shards that wrote.
    pub transaction: Option<(u128, u32)>,
    /// Where to go on after this event.
    pub revision: Revision,
}

/// Changes that came together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// The changes; there may be none.
    pub events: Vec<WatchEvent>,
    /// Where to go on after all of them.
    pub revision: Revision,
    /// Who showed them.
    pub served_by: ServedBy,
}

/// A watch in progress.
pub struct Watch {
    inner: Arc<Inner>,
    keyspace: Arc<str>,
    keys: WatchKeys,
    revision: Revision,
    open: Option<Streaming<wire::WatchResponse>>,
    /// Varies the node that is asked.
    turn: usize,
    /// Attempts since the watch last got on.
    failures: u32,
}

impl WatchQuery {
    /// One key, from now on.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self {
            keys: WatchKeys::Key(key.into()),
            from: Revision::default(),
        }
    }

    /// All keys that begin so, from now on.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self {
            keys: WatchKeys::Prefix(prefix.into()),
            from: Revision::default(),
        }
    }

    /// The same, after `revision`.
    #[must_use]
    pub fn after(self, revision: Revision) -> Self {
        Self {
            from: revision,
            ..self
        }
    }
}

impl Watch {
    pub(crate) fn new(inner: Arc<Inner>, keyspace: Arc<str>, query: WatchQuery) -> Self {
        let turn = inner.next_turn();
        Self {
            inner,
            keyspace,
            keys: query.keys,
            revision: query.from,
            open: None,
            turn,
            failures: 0,
        }
    }

    /// Where to go on after all that was returned so far; empty until the first batch of a watch that began at the
    /// present.
    pub const fn revision(&self) -> &Revision {
        &self.revision
    }

    /// The next changes; waits for them. The first batch of a watch that begins at the present may be empty: it says
    /// that the watch has begun. May be called again after an error, and dropped while it waits.
    pub async fn next_batch(&mut self) -> Result<WatchBatch, Error> {
        loop {
            match self.message().await {
                Ok(message) => {
                    let batch = WatchBatch::from(message);
                    let same = batch.revision == self.revision;
                    if !same {
                        self.failures = 0;
                        self.revision = batch.revision.clone();
                    }
                    if !(same && batch.events.is_empty()) {
                        return Ok(batch);
                    }
                }
                Err(error) => self.give_way(error).await?,
            }
        }
    }

    /// All changes, one by one. Ends after the first error.
    pub fn events(self) -> impl Stream<Item = Result<WatchEvent, Error>> + Send {
        let nothing = Vec::new().into_iter();
        stream::unfold(Some((self, nothing)), |state| async move {
            let (mut watch, mut events) = state?;
            loop {
                if let Some(event) = events.next() {
                    return Some((Ok(event), Some((watch, events))));
                }
                match watch.next_batch().await {
                    Ok(batch) => events = batch.events.into_iter(),
                    Err(error) => return Some((Err(error), None)),
                }
            }
        })
    }

    async fn message(&mut self) -> Result<wire::WatchResponse, Error> {
        if self.open.is_none() {
            self.open = Some(self.begin().await?);
        }
        let Some(stream) = &mut self.open else {
            return Err(Error::unanswered("the watch ended"));
        };
        match timeout(SILENCE_MAX, stream.message()).await {
            Ok(Ok(Some(message))) => Ok(message),
            Ok(Ok(None)) => Err(Error::unanswered("the watch ended")),
            Ok(Err(status)) => Err(Error::from_status(&status)),
            Err(_) => Err(Error::unanswered("the node fell silent")),
        }
    }

    /// Asks the next node of the home zone. A connection of its own: a watcher that reads slowly must not fill the
    /// window of the one that operations share.
    async fn begin(&mut self) -> Result<Streaming<wire::WatchResponse>, Error> {
        let routes = self.inner.routes();
        let order = routes.order(&self.keyspace, None, &Reach::Home, self.turn);
        let fit = order.iter().find(|node| !node.link.is_shunned());
        let Some(node) = fit.or(order.first()) else {
            return Err(Error::unreachable("the zone has no nodes"));
        };
        let mut client = KvClient::new(link::channel(&node.addr)?)
            .max_decoding_message_size(MESSAGE_SIZE_BYTES_MAX);
        match timeout(OPEN_TIME_MAX, client.watch(self.request())).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Error::from_status(&status)),
            Err(_) => Err(Error::unanswered(format!("{} does not answer", node.addr))),
        }
        .inspect_err(|_| node.link.shun())
    }

    fn request(&self) -> wire::WatchRequest {
        use wire::watch_request::Keys;
        wire::WatchRequest {
            keyspace: self.keyspace.to_string(),
            keys: Some(match &self.keys {
                WatchKeys::Key(key) => Keys::Key(key.clone()),
                WatchKeys::Prefix(prefix) => Keys::Prefix(prefix.clone()),
            }),
            from: self.revision.as_bytes().clone(),
        }
    }

    /// Leaves the node, and waits before the next is asked; or gives the error back.
    async fn give_way(&mut self, error: Error) -> Result<(), Error> {
        self.open = None;
        self.turn = self.turn.wrapping_add(1);
        self.failures = self.failures.saturating_add(1);
        if !may_go_on(&error) || self.failures >= ATTEMPTS_MAX {
            self.failures = 0;
            return Err(error.without_effect());
        }
        tracing::debug!(%error, attempt = self.failures, "the watch goes on elsewhere");
        self.inner.refresh_soon();
        sleep(backoff(self.failures, rand::random())).await;
        Ok(())
    }
}

/// Whether another node, or the same a moment later, may show what comes next. A broken link has many names.
fn may_go_on(error: &Error) -> bool {
    let broken = error.reason() == "TRANSPORT";
    (broken || error.is_retryable()) && error.reason() != "WATCH_TOO_SLOW"
}

impl From<wire::WatchResponse> for WatchBatch {
    fn from(wire: wire::WatchResponse) -> Self {
        Self {
            events: wire.events.into_iter().map(WatchEvent::from).collect(),
            revision: wire.revision.into(),
            served_by: wire.served_by.map(ServedBy::from).unwrap_or_default(),
        }
    }
}

impl From<wire::WatchEvent> for WatchEvent {
    fn from(wire: wire::WatchEvent) -> Self {
        let transaction = wire.transaction.and_then(|tag| {
            let id = <[u8; 16]>::try_from(tag.id.as_ref()).ok()?;
            Some((u128::from_be_bytes(id), tag.parts))
        });
        Self {
            key: wire.key,
            value: (!wire.deleted).then_some(wire.value),
            expired: wire.expired,
            dot: wire.dot.map(|dot| dot.text).unwrap_or_default(),
            zone: wire.zone,
            written_at_ms: wire.written_at_ms,
            transaction,
            revision: wire.revision.into(),
        }
    }
}
