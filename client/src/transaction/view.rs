//! Read-only transactions: a view of a whole keyspace at one point in time, held open by the nodes of the zone.
//!
//! Reading from a view blocks no writer and is aborted by none. A view is lost when a node that holds a part of it
//! goes, or when its time is over; what was read before stays true.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meridian_proto::kv::v1 as wire;
use meridian_proto::kv::v1::kv_client::KvClient;
use tonic::Request;
use wire::operation::Operation;
use wire::outcome::Outcome;

use crate::client::{Client, Inner, wrong_kind};
use crate::error::Error;
use crate::options::{ScanQuery, millis};
use crate::results::Versions;
use crate::retry::{ATTEMPTS_MAX, attempt_time, backoff};
use crate::routes::Reach;
use crate::scan::Scan;

/// A consistent view of a keyspace. It closes itself when it is dropped.
pub struct View {
    client: Client,
    token: Bytes,
    open_max: Duration,
    closed: bool,
}

impl Client {
    /// Opens a view of the keyspace, in the client's zone. It shows every write that was acknowledged before.
    pub async fn view(&self) -> Result<View, Error> {
        let opened = open(self.inner(), self.keyspace_name()).await?;
        Ok(View {
            client: self.clone(),
            token: opened.view,
            open_max: Duration::from_millis(u64::from(opened.open_ms_max)),
            closed: false,
        })
    }
}

impl View {
    /// How long it stays open at most.
    pub const fn open_max(&self) -> Duration {
        self.open_max
    }

    /// Reads a key as it was when the view was opened.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Versions, Error> {
        let key = key.into();
        let operation = Operation::Get(wire::Get {
            key: key.clone(),
            view: self.token.clone(),
            ..wire::Get::default()
        });
        let (outcome, via) = self.client.operate_named(operation).await?;
        let Outcome::Get(mut get) = outcome else {
            return Err(wrong_kind());
        };
        get.served_by.get_or_insert_with(|| via.as_ref().clone());
        Ok(Versions::from_wire(key, get))
    }

    /// Reads keys in order as they were when the view was opened. The level of the query is not looked at. The view
    /// must stay open as long as pages are asked for.
    pub fn scan(&self, query: ScanQuery) -> Scan {
        Scan::of_view(self.client.clone(), query, self.token.clone())
    }

    /// Closes it. A view that cannot be closed is closed by its nodes after its time.
    pub async fn close(mut self) -> Result<(), Error> {
        self.closed = true;
        close(self.client.inner(), self.token.clone()).await
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        let inner = Arc::clone(self.client.inner());
        let token = std::mem::take(&mut self.token);
        // Outside of a runtime nobody can be told; the nodes close it after its time.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn(async move {
                if let Err(error) = close(&inner, token).await {
                    tracing::debug!(%error, "view not closed");
                }
            }));
        }
    }
}

/// A node of the zone, another one with each attempt, that did not fail a moment ago if there is one.
fn kv_of(inner: &Inner, turn: usize) -> Result<KvClient<tonic::transport::Channel>, Error> {
    let routes = inner.routes();
    let order = routes.order("", None, &Reach::Home, turn);
    let fit = order.iter().find(|node| !node.link.is_shunned());
    let node = fit.or(order.first()).ok_or_else(|| {
        Error::unreachable(format!("no node within reach of zone {:?}", routes.home))
    })?;
    Ok(KvClient::new(node.link.channel()))
}

/// Opening has no effect that matters, so it is tried until it succeeds or no time is left.
async fn open(inner: &Arc<Inner>, keyspace: &str) -> Result<wire::ViewOpenResponse, Error> {
    let deadline = Instant::now() + inner.timeout;
    let first = inner.next_turn();
    let mut attempts = 0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let turn = first.wrapping_add(usize::try_from(attempts).unwrap_or(0));
        let error = match open_once(inner, keyspace, turn, attempt_time(left)).await {
            Ok(opened) => return Ok(opened),
            Err(error) => error.without_effect(),
        };
        attempts += 1;
        let wait = error
            .retry_after()
            .unwrap_or_else(|| backoff(attempts, rand::random()));
        let left = deadline.saturating_duration_since(Instant::now());
        let last = attempts >= ATTEMPTS_MAX || wait >= left;
        if last || !error.is_retryable() || !inner.budget.try_retry() {
            return Err(error);
        }
        inner.refresh_soon();
        tokio::time::sleep(wait).await;
    }
}

async fn open_once(
    inner: &Inner,
    keyspace: &str,
    turn: usize,
    time: Duration,
) -> Result<wire::ViewOpenResponse, Error> {
    let mut request = Request::new(wire::ViewOpenRequest {
        keyspace: keyspace.to_owned(),
        deadline_ms: u32::try_from(millis(time)).unwrap_or(u32::MAX).max(1),
    });
    request.set_timeout(time);
    let answer = kv_of(inner, turn)?.view_open(request).await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| Error::from_status(&status))
}

/// Once: a view that is not closed is closed after its time.
async fn close(inner: &Inner, token: Bytes) -> Result<(), Error> {
    let mut request = Request::new(wire::ViewCloseRequest { view: token });
    request.set_timeout(inner.timeout);
    match kv_of(inner, inner.next_turn())?.view_close(request).await {
        Ok(_closed) => Ok(()),
        Err(status) => Err(Error::from_status(&status).without_effect()),
    }
}
