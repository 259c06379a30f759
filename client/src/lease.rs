//! Leases: a name that at most one holds at a time, with a token that only grows.
//!
//! **What this is.** [`Client::lease`](crate::Client::lease) takes a lease or waits for it; the [`Lease`] renews itself in
//! the background until it is ended, dropped or lost.
//!
//! **What this is not.** It does not guard anything: a holder may be stopped for longer than its time and go on without
//! knowing. What is guarded must see the token and refuse an older one.
//!
//! **Invariants.**
//! * A lease counts as lost from nine tenths of its time after the last renewal that succeeded was *sent*, by this
//!   process's own monotonic clock: before the cluster hands it to another, if no clock runs more than a tenth faster
//!   than another.
//! * A lost lease stays lost.

use std::time::{Duration, Instant};

use bytes::Bytes;
use meridian_proto::kv::v1 as wire;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wire::kv_client::KvClient;

use crate::client::Client;
use crate::error::{Effect, Error};
use crate::ids::OpId;
use crate::link::explain;
use crate::options::millis;
use crate::retry::backoff;
use crate::routes::{Reach, RouteNode};

/// Longest time of one attempt to take a lease: a waiting request that its node has forgotten is asked again.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

type Node = KvClient<tonic::transport::Channel>;

/// How a lease is taken.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// How long it stands without being renewed.
    pub ttl: Duration,
    /// How long to wait while another holds it. Zero: not at all.
    pub wait: Duration,
    /// Given only to go on with an acquisition begun earlier; otherwise the client makes one.
    pub op_id: Option<OpId>,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(10),
            wait: Duration::ZERO,
            op_id: None,
        }
    }
}

/// Names one holding of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseRef {
    /// The lease's name.
    pub name: Bytes,
    /// The fencing token of the acquisition.
    pub token: u64,
}

impl LeaseRef {
    pub(crate) fn to_wire(&self) -> wire::LeaseRef {
        wire::LeaseRef {
            name: self.name.clone(),
            token: self.token,
        }
    }
}

/// A lease that somebody holds, as the cluster shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseShown {
    /// Name and token.
    pub lease: LeaseRef,
    /// How long it stands without being renewed.
    pub ttl: Duration,
    /// When it was acquired, by the zone's clock, in milliseconds since 1970.
    pub acquired_at_ms: u64,
}

/// A lease that was just taken or renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseHeld {
    /// Name and token.
    pub lease: LeaseRef,
    /// How long it stands without being renewed.
    pub ttl: Duration,
    /// Before this it was asked for: its time is counted from here.
    pub asked_at: Instant,
}

impl LeaseHeld {
    /// From then on it counts as lost, unless it is renewed.
    pub fn good_until(&self) -> Instant {
        self.asked_at + self.ttl.mul_f64(0.9)
    }
}

/// A lease that is held, and renewed in the background. Dropped, it is no longer renewed; [`Lease::end`] gives it up at
/// once.
pub struct Lease {
    client: Client,
    named: LeaseRef,
    /// Until when it is good; `None` once it is lost.
    good_until: watch::Receiver<Option<Instant>>,
    renewing: JoinHandle<()>,
}

impl Lease {
    fn begin(client: Client, held: LeaseHeld) -> Self {
        let (good, good_until) = watch::channel(Some(held.good_until()));
        let named = held.lease.clone();
        let renewing = tokio::spawn(keep(client.clone(), held, good));
        Self {
            client,
            named,
            good_until,
            renewing,
        }
    }

    /// The fencing token: greater than that of every earlier holder.
    pub fn token(&self) -> u64 {
        self.named.token
    }

    /// Name and token, to attach keys to it.
    pub fn named(&self) -> LeaseRef {
        self.named.clone()
    }

    /// Whether it must be taken for lost. It never comes back.
    pub fn is_lost(&self) -> bool {
        self.good_until
            .borrow()
            .is_none_or(|until| Instant::now() >= until)
    }

    /// Waits until it is lost.
    pub async fn lost(&self) {
        let mut good = self.good_until.clone();
        loop {
            let Some(until) = *good.borrow_and_update() else {
                return;
            };
            if Instant::now() >= until {
                return;
            }
            let changed = tokio::time::timeout_at(until.into(), good.changed()).await;
            if matches!(changed, Ok(Err(_closed))) {
                tokio::time::sleep_until(until.into()).await;
                return;
            }
        }
    }

    /// Gives it up. Keys attached to it vanish. One that is lost already is no error.
    pub async fn end(self) -> Result<(), Error> {
        self.renewing.abort();
        match self.client.lease_end(&self.named).await {
            Err(error) if error.reason() == "LEASE_LOST" => Ok(()),
            ended => ended,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// Renews until the lease is lost: three times within its time, more often when that fails.
async fn keep(client: Client, mut held: LeaseHeld, good: watch::Sender<Option<Instant>>) {
    let mut failures = 0;
    loop {
        let wait = match failures {
            0 => held.ttl / 3,
            failed => backoff(failed, rand::random()).min(held.ttl / 6),
        };
        tokio::time::sleep(wait).await;
        let until = held.good_until();
        if Instant::now() >= until {
            break;
        }
        let left = until.saturating_duration_since(Instant::now());
        let attempt = left.min(held.ttl / 3);
        match client
            .lease_renew_once(&held.lease, attempt, failures)
            .await
        {
            // An answer that came too late does not bring a lease back.
            Ok(renewed) if Instant::now() < until => {
                failures = 0;
                held = renewed;
                good.send_replace(Some(held.good_until()));
            }
            Ok(_) => break,
            Err(error) if error.reason() == "LEASE_LOST" => break,
            Err(_) => failures = failures.saturating_add(1),
        }
    }
    good.send_replace(None);
}

impl Client {
    /// Takes a lease, waiting for it as long as the options say, and keeps it.
    pub async fn lease(
        &self,
        name: impl Into<Bytes>,
        options: &LeaseOptions,
    ) -> Result<Lease, Error> {
        let held = self.lease_acquire(name, options).await?;
        Ok(Lease::begin(self.clone(), held))
    }

    /// Takes a lease, waiting for it as long as the options say. It is not kept: the caller renews it.
    pub async fn lease_acquire(
        &self,
        name: impl Into<Bytes>,
        options: &LeaseOptions,
    ) -> Result<LeaseHeld, Error> {
        let name = name.into();
        let began = Instant::now();
        let waits_until = began + options.wait;
        let deadline = began + options.wait.max(self.inner().timeout);
        let op_id = match options.op_id {
            Some(op_id) => op_id,
            None => OpId::fresh(self.stamp_ms(&name, deadline).await?),
        };
        let mut unknown = false;
        let mut attempts = 0;
        loop {
            let asked = wire::LeaseAcquireRequest {
                keyspace: self.keyspace_name().to_owned(),
                name: name.clone(),
                ttl_ms: millis(options.ttl),
                op_id: Some(op_id.to_wire()),
                wait: Instant::now() < waits_until,
            };
            let until = if asked.wait { waits_until } else { deadline };
            let error = match self.acquire_once(asked, until, attempts).await {
                Ok(held) => return Ok(held),
                Err(error) => error,
            };
            unknown |= error.effect() == Effect::Unknown;
            attempts += 1;
            let held = error.reason() == "LEASE_HELD";
            let again = if held {
                Instant::now() < waits_until
            } else {
                error.is_retryable() && Instant::now() < deadline
            };
            if !again {
                let error = error.with_op_id(Some(op_id));
                // Who is told that another holds it does not hold it, whatever earlier attempts did.
                return Err(if unknown && !held {
                    error.after_unknown_attempt()
                } else {
                    error
                });
            }
            tokio::time::sleep(backoff(attempts.min(4), rand::random())).await;
        }
    }

    async fn acquire_once(
        &self,
        asked: wire::LeaseAcquireRequest,
        until: Instant,
        attempts: u32,
    ) -> Result<LeaseHeld, Error> {
        let asked_at = Instant::now();
        let left = until.saturating_duration_since(asked_at);
        let patience = left.clamp(Duration::from_millis(250), ATTEMPT_MAX);
        let waits = asked.wait;
        let name = asked.name.clone();
        let call = |mut node: Node, request| async move { node.lease_acquire(request).await };
        let (held, answered_at) = self.call(&name, asked, (patience, attempts), call).await?;
        // Whoever waited does not know when the lease was granted, only that it was after it was asked for: renewed at
        // once, its time is counted from now.
        let held = from_wire(held, asked_at)?;
        if waits && answered_at.saturating_duration_since(asked_at) > held.ttl / 10 {
            let renewed = self.lease_renew_once(&held.lease, patience, attempts).await;
            // Asked again, the same acquisition is answered at once, and anew if its time was over meanwhile.
            return renewed.map_err(|error| Error::unanswered(error.message()));
        }
        Ok(held)
    }

    /// Gives a lease its full time again.
    pub async fn lease_renew(&self, lease: &LeaseRef) -> Result<LeaseHeld, Error> {
        let deadline = Instant::now() + self.inner().timeout;
        for attempts in 0.. {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lease_renew_once(lease, left / 2, attempts).await {
                Err(error) if error.is_retryable() && Instant::now() < deadline => {
                    tokio::time::sleep(backoff(attempts + 1, rand::random())).await;
                }
                done => return done,
            }
        }
        Err(Error::unanswered("no answer in time"))
    }

    async fn lease_renew_once(
        &self,
        lease: &LeaseRef,
        patience: Duration,
        attempts: u32,
    ) -> Result<LeaseHeld, Error> {
        let asked_at = Instant::now();
        let asked = wire::LeaseRenewRequest {
            keyspace: self.keyspace_name().to_owned(),
            lease: Some(lease.to_wire()),
        };
        let call = |mut node: Node, request| async move { node.lease_renew(request).await };
        let answer = self
            .call(&lease.name, asked, (patience, attempts), call)
            .await;
        let (held, _) = answer.map_err(Error::without_effect)?;
        from_wire(held, asked_at)
    }

    /// Gives a lease up. Keys attached to it vanish.
    pub async fn lease_end(&self, lease: &LeaseRef) -> Result<(), Error> {
        let deadline = Instant::now() + self.inner().timeout;
        let mut unknown = false;
        for attempts in 0.. {
            let asked = wire::LeaseEndRequest {
                keyspace: self.keyspace_name().to_owned(),
                lease: Some(lease.to_wire()),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let call = |mut node: Node, request| async move { node.lease_end(request).await };
            let error = match self
                .call(&lease.name, asked, (left / 2, attempts), call)
                .await
            {
                Ok(_ended) => return Ok(()),
                // An earlier attempt has ended it, or somebody else did: it stands no longer.
                Err(error) if unknown && error.reason() == "LEASE_LOST" => return Ok(()),
                Err(error) => error,
            };
            unknown |= error.effect() == Effect::Unknown;
            if !error.is_retryable() || Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(backoff(attempts + 1, rand::random())).await;
        }
        Ok(())
    }

    /// Who holds a lease, if anybody does.
    pub async fn lease_show(&self, name: impl Into<Bytes>) -> Result<Option<LeaseShown>, Error> {
        let name = name.into();
        let deadline = Instant::now() + self.inner().timeout;
        for attempts in 0.. {
            let asked = wire::LeaseGetRequest {
                keyspace: self.keyspace_name().to_owned(),
                name: name.clone(),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let call = |mut node: Node, request| async move { node.lease_get(request).await };
            match self.call(&name, asked, (left / 2, attempts), call).await {
                Ok((shown, _)) => return Ok(shown_from_wire(shown)),
                Err(error) if error.is_retryable() && Instant::now() < deadline => {
                    tokio::time::sleep(backoff(attempts + 1, rand::random())).await;
                }
                Err(error) => return Err(error.without_effect()),
            }
        }
        Ok(None)
    }

    /// One call to a node of the home zone: the believed leader first, the others in turn. Also says when the answer
    /// was there.
    async fn call<Q, A, F>(
        &self,
        name: &Bytes,
        request: Q,
        (patience, attempts): (Duration, u32),
        call: impl FnOnce(Node, tonic::Request<Q>) -> F,
    ) -> Result<(A, Instant), Error>
    where
        F: Future<Output = Result<tonic::Response<A>, tonic::Status>>,
    {
        let patience = patience.max(Duration::from_millis(20));
        let routes = self.inner().routes();
        let shard = routes.shard(self.keyspace_name(), name);
        let turn = usize::try_from(attempts).unwrap_or(0);
        let order = routes.order(self.keyspace_name(), shard, &Reach::Home, 0);
        let fit: Vec<&RouteNode> = order
            .iter()
            .copied()
            .filter(|node| !node.link.is_shunned())
            .collect();
        let among = if fit.is_empty() { &order } else { &fit };
        let place = turn.checked_rem(among.len()).unwrap_or(0);
        let Some(node) = among.get(place) else {
            return Err(Error::unreachable("the zone has no nodes"));
        };
        let mut request = tonic::Request::new(request);
        request.set_timeout(patience);
        let client = KvClient::new(node.link.channel());
        let answer = tokio::time::timeout(patience, call(client, request)).await;
        let error = match answer {
            Ok(Ok(answer)) => return Ok((answer.into_inner(), Instant::now())),
            Ok(Err(status)) => explain(&node.addr, &status),
            Err(_elapsed) => Error::unanswered(format!("no answer from {} in time", node.addr)),
        };
        if matches!(error.reason(), "UNREACHABLE" | "OUTCOME_UNKNOWN") {
            node.link.shun();
            self.inner().refresh_soon();
        }
        Err(error)
    }

    async fn stamp_ms(&self, name: &Bytes, deadline: Instant) -> Result<u64, Error> {
        let patience = self.inner().timeout / 2;
        for attempts in 0.. {
            let call = |mut node: Node, request| async move { node.hello(request).await };
            let hello = wire::HelloRequest {};
            match self.call(name, hello, (patience, attempts), call).await {
                Ok((hello, _)) => return Ok(hello.stamp_ms),
                Err(error) if error.is_retryable() && Instant::now() < deadline => {
                    tokio::time::sleep(backoff(attempts + 1, rand::random())).await;
                }
                Err(error) => return Err(error.without_effect()),
            }
        }
        Ok(0)
    }
}

fn from_wire(held: wire::LeaseResponse, asked_at: Instant) -> Result<LeaseHeld, Error> {
    let lease = held
        .lease
        .ok_or_else(|| Error::bad_answer("a lease without a name"))?;
    Ok(LeaseHeld {
        lease: LeaseRef {
            name: lease.name,
            token: lease.token,
        },
        ttl: Duration::from_millis(held.ttl_ms),
        asked_at,
    })
}

fn shown_from_wire(shown: wire::LeaseGetResponse) -> Option<LeaseShown> {
    let lease = shown.lease?;
    Some(LeaseShown {
        lease: LeaseRef {
            name: lease.name,
            token: lease.token,
        },
        ttl: Duration::from_millis(shown.ttl_ms),
        acquired_at_ms: shown.acquired_at_ms,
    })
}
