//! The client itself: what an application calls.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use meridian_proto::kv::v1 as wire;
use wire::operation::Operation;
use wire::outcome::Outcome;

use crate::admin::{Admin, discover};
use crate::builder::ClientBuilder;
use crate::error::Error;
use crate::execute::{Execution, may_leave_zone};
use crate::ids::SessionToken;
use crate::lease::LeaseRef;
use crate::link::{Link, Reply};
use crate::options::{ReadOptions, ScanQuery, WriteOptions, millis};
use crate::results::{ServedBy, Versions, Written};
use crate::retry::Budget;
use crate::routes::{Reach, Routes};
use crate::scan::Scan;
use crate::session::{Borne, Session};
use crate::watch::{Watch, WatchQuery};

/// Operations of one batch in flight at once.
const BATCH_IN_FLIGHT: usize = 256;
/// The topology is asked again at most this often.
const REFRESH_INTERVAL: Duration = Duration::from_millis(500);

/// What all clones of a client share.
pub(crate) struct Inner {
    pub(crate) endpoints: Vec<String>,
    pub(crate) zone: Option<String>,
    pub(crate) stay_in_zone: bool,
    pub(crate) forward: bool,
    pub(crate) timeout: Duration,
    pub(crate) budget: Budget,
    routes: RwLock<Arc<Routes>>,
    links: Arc<Links>,
    refreshed: Mutex<Instant>,
    turn: AtomicUsize,
}

/// One link per address, kept through changes of the topology.
#[derive(Default)]
pub(crate) struct Links(Mutex<HashMap<String, Arc<Link>>>);

impl Links {
    pub(crate) fn to(&self, addr: &str) -> Result<Arc<Link>, Error> {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(addr) {
            return Ok(Arc::clone(link));
        }
        let link = Arc::new(Link::new(addr)?);
        links.insert(addr.to_owned(), Arc::clone(&link));
        Ok(link)
    }
}

impl Inner {
    pub(crate) fn new(builder: ClientBuilder, links: Links, routes: Routes) -> Self {
        Self {
            endpoints: builder.endpoints,
            zone: builder.zone,
            stay_in_zone: builder.stay_in_zone,
            forward: builder.forward,
            timeout: builder.timeout,
            budget: Budget::new(),
            routes: RwLock::new(Arc::new(routes)),
            links: Arc::new(links),
            refreshed: Mutex::new(Instant::now()),
            turn: AtomicUsize::new(rand::random_range(0..1024)),
        }
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks for the topology in the background, unless that was done a moment ago.
    pub(crate) fn refresh_soon(self: &Arc<Self>) {
        {
            let mut refreshed = self
                .refreshed
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if refreshed.elapsed() < REFRESH_INTERVAL {
                return;
            }
            *refreshed = Instant::now();
        }
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = inner.refresh().await {
                tracing::debug!(%error, "topology not refreshed");
            }
        });
    }

    /// Asks the nodes known so far, and the endpoints, for the topology.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        let known = self.routes();
        let mut addrs: Vec<String> = known.nodes.iter().map(|node| node.addr.clone()).collect();
        addrs.extend(self.endpoints.iter().cloned());
        addrs.dedup();
        let topology = discover(&addrs, &self.links, self.timeout).await?;
        let zone = self.zone.as_deref().unwrap_or(&known.home);
        let routes = Routes::new(&topology, Some(zone), |addr| self.links.to(addr))?;
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routes);
        Ok(())
    }

    fn reach(&self, operation: &Operation) -> Reach {
        if !self.stay_in_zone && may_leave_zone(operation) {
            Reach::Anywhere
        } else {
            Reach::Home
        }
    }
}

/// One write of a batch.
#[derive(Clone, Debug)]
pub enum Write {
    /// Stores a value.
    Put {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
        /// How.
        options: WriteOptions,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Bytes,
        /// How.
        options: WriteOptions,
    },
}

/// A client of one keyspace. Clones share connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    keyspace: Arc<str>,
    session: Option<Session>,
}

impl Client {
    /// Begins to describe a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn from_parts(inner: Inner, keyspace: &str) -> Self {
        Self {
            inner: Arc::new(inner),
            keyspace: keyspace.into(),
            session: None,
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    pub(crate) fn keyspace_name(&self) -> &str {
        &self.keyspace
    }

    /// The same client, for another keyspace, in no session: a session is of one keyspace.
    pub fn keyspace(&self, name: &str) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            keyspace: name.into(),
            session: None,
        }
    }

    /// The same client, whose reads and writes of single keys all belong to a session. Reads heed it at the level
    /// [`ReadLevel::Session`](crate::ReadLevel::Session).
    pub fn in_session(&self, session: &Session) -> Self {
        Self {
            session: Some(session.clone()),
            ..self.clone()
        }
    }

    /// The session that a request bears: its own token, or that of the client's session.
    fn bear(&self, own: &SessionToken) -> Borne {
        match &self.session {
            Some(session) if own.is_empty() => session.bear(),
            Some(_) | None => Borne::of(own.clone()),
        }
    }

    fn brought(&self, borne: &Borne, token: &SessionToken) {
        if let Some(session) = &self.session {
            session.brought(borne, token);
        }
    }

    /// The zone whose nodes are asked first.
    pub fn zone(&self) -> String {
        self.inner.routes().home.clone()
    }

    /// Operators' calls.
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.inner))
    }

    /// Reads all versions of a key. An absent key is not an error.
    pub async fn get(
        &self,
        key: impl Into<Bytes>,
        options: &ReadOptions,
    ) -> Result<Versions, Error> {
        let key = key.into();
        let borne = self.bear(&options.session);
        let get = wire::Get {
            key: key.clone(),
            level: options.level_to_wire(),
            session: borne.token.as_bytes().clone(),
            stamped: false,
            view: Bytes::new(),
        };
        let (outcome, served_by) = self.operate_named(Operation::Get(get)).await?;
        match outcome {
            Outcome::Get(mut get) => {
                get.served_by
                    .get_or_insert_with(|| served_by.as_ref().clone());
                let versions = Versions::from_wire(key, get);
                self.brought(&borne, &versions.session);
                Ok(versions)
            }
            Outcome::Write(_)
            | Outcome::Scan(_)
            | Outcome::Transact(_)
            | Outcome::Validate(_)
            | Outcome::Error(_) => Err(wrong_kind()),
        }
    }

    /// Stores a value.
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        options: &WriteOptions,
    ) -> Result<Written, Error> {
        let intent = options.intent.to_wire();
        let key = key.into();
        let borne = self.bear(&options.session);
        let put = wire::Put {
            key: key.clone(),
            value: value.into(),
            intent: intent.intent,
            context: intent.context,
            level: options.level.to_wire(),
            op_id: options.op_id.map(crate::OpId::to_wire),
            ttl_ms: options.ttl.map_or(0, |ttl| millis(ttl).max(1)),
            session: borne.token.as_bytes().clone(),
            expected: intent.expected,
            lease: options.lease.as_ref().map(LeaseRef::to_wire),
        };
        self.write(key, Operation::Put(put), &borne).await
    }

    /// Removes a key.
    pub async fn delete(
        &self,
        key: impl Into<Bytes>,
        options: &WriteOptions,
    ) -> Result<Written, Error> {
        let intent = options.intent.to_wire();
        let key = key.into();
        let borne = self.bear(&options.session);
        let delete = wire::Delete {
            key: key.clone(),
            intent: intent.intent,
            context: intent.context,
            level: options.level.to_wire(),
            op_id: options.op_id.map(crate::OpId::to_wire),
            session: borne.token.as_bytes().clone(),
            expected: intent.expected,
        };
        self.write(key, Operation::Delete(delete), &borne).await
    }

    async fn write(
        &self,
        key: Bytes,
        operation: Operation,
        borne: &Borne,
    ) -> Result<Written, Error> {
        match self.operate(operation).await? {
            Outcome::Write(write) => {
                let written = Written::from_wire(key, write);
                self.brought(borne, &written.session);
                Ok(written)
            }
            Outcome::Get(_)
            | Outcome::Scan(_)
            | Outcome::Transact(_)
            | Outcome::Validate(_)
            | Outcome::Error(_) => Err(wrong_kind()),
        }
    }

    /// Reads keys in order, page by page.
    pub fn scan(&self, query: ScanQuery) -> Scan {
        Scan::new(self.clone(), query)
    }

    /// Shows the changes of a key or of a prefix, of whatever zone, as the home zone comes to hold them.
    pub fn watch(&self, query: WatchQuery) -> Watch {
        Watch::new(Arc::clone(&self.inner), Arc::clone(&self.keyspace), query)
    }

    /// Reads many keys. Not atomic: one result per key, in the order asked.
    pub async fn batch_get(
        &self,
        keys: Vec<Bytes>,
        options: &ReadOptions,
    ) -> Vec<Result<Versions, Error>> {
        let reads = keys.into_iter().map(|key| self.get(key, options));
        stream::iter(reads)
            .buffered(BATCH_IN_FLIGHT)
            .collect()
            .await
    }

    /// Makes many writes. Not atomic: one result per write, in the order given; writes of one batch to the same key
    /// take effect in any order.
    pub async fn batch_write(&self, writes: Vec<Write>) -> Vec<Result<Written, Error>> {
        let writes = writes.into_iter().map(|write| self.write_one(write));
        stream::iter(writes)
            .buffered(BATCH_IN_FLIGHT)
            .collect()
            .await
    }

    async fn write_one(&self, write: Write) -> Result<Written, Error> {
        match write {
            Write::Put {
                key,
                value,
                options,
            } => self.put(key, value, &options).await,
            Write::Delete { key, options } => self.delete(key, &options).await,
        }
    }

    /// Executes one operation in the words of the wire, with routing and retries: for callers that keep very many in
    /// flight. Writes without an op id are given one. The outcome is never [`Outcome::Error`].
    pub async fn operate(&self, operation: Operation) -> Result<Outcome, Error> {
        let reach = self.inner.reach(&operation);
        let reply = self.execute(operation, reach).await?;
        Ok(reply.outcome)
    }

    pub(crate) async fn operate_named(
        &self,
        operation: Operation,
    ) -> Result<(Outcome, Arc<wire::ServedBy>), Error> {
        let reach = self.inner.reach(&operation);
        let reply = self.execute(operation, reach).await?;
        Ok((reply.outcome, reply.via))
    }

    async fn execute(&self, operation: Operation, reach: Reach) -> Result<Reply, Error> {
        Execution::new(&self.inner, &self.keyspace, operation, reach)
            .run()
            .await
    }

    /// One page, from `zone` if given. Who served it is always filled in.
    pub(crate) async fn scan_page(
        &self,
        scan: wire::Scan,
        zone: Option<&str>,
    ) -> Result<wire::ScanResponse, Error> {
        let operation = Operation::Scan(scan);
        let reach = match zone {
            Some(zone) => Reach::Zone(zone.to_owned()),
            None => self.inner.reach(&operation),
        };
        let reply = self.execute(operation, reach).await?;
        match reply.outcome {
            Outcome::Scan(mut page) => {
                page.served_by
                    .get_or_insert_with(|| reply.via.as_ref().clone());
                Ok(page)
            }
            Outcome::Get(_)
            | Outcome::Write(_)
            | Outcome::Transact(_)
            | Outcome::Validate(_)
            | Outcome::Error(_) => Err(wrong_kind()),
        }
    }

    /// Who answers at the moment: asks the first node within reach, without a leader's help.
    pub fn nearest(&self) -> Option<ServedBy> {
        let routes = self.inner.routes();
        let node = routes.first(&self.keyspace, None, &Reach::Anywhere, 0)?;
        Some(ServedBy {
            zone: node.zone.clone(),
            node: node.name.clone(),
        })
    }
}

pub(crate) fn wrong_kind() -> Error {
    Error::bad_answer("an answer to another kind of operation")
}
