//! A node made of a script: it answers the stream as a test tells it to, and remembers what it was asked.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::Stream;
use meridian_client::proto::admin::v1 as admin;
use meridian_client::proto::admin::v1::admin_server::{Admin, AdminServer};
use meridian_client::proto::kv::v1 as kv;
use meridian_client::proto::kv::v1::kv_server::{Kv, KvServer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// What a node does with one operation.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Answers that it is done.
    Serve,
    /// Answers that it is done, by another node.
    ServedBy(&'static str),
    /// Answers with this error.
    Fail(kv::Error),
    /// Never answers.
    Ignore,
    /// Ends the stream without an answer.
    Hang,
}

/// An error of a node.
pub(crate) fn error(reason: &str, effect: kv::Effect, retryable: bool) -> kv::Error {
    kv::Error {
        reason: reason.to_owned(),
        message: format!("scripted {reason}"),
        effect: effect.into(),
        retryable,
        code: 14,
        ..kv::Error::default()
    }
}

struct StreamEnds;

/// What a node remembers, and what it is to do.
#[derive(Default)]
pub(crate) struct Script {
    /// Acts for the next operations; when empty, everything is served.
    pub(crate) acts: VecDeque<Act>,
    /// Operations asked.
    pub(crate) asked: Vec<kv::Operation>,
    /// Messages with operations that arrived.
    pub(crate) messages: usize,
    /// What a watch after a revision is told; then it ends.
    pub(crate) watches: BTreeMap<Bytes, Vec<Result<kv::WatchResponse, Status>>>,
    /// When there is one, what is served is served from it.
    pub(crate) store: Option<Arc<Mutex<dyn Backend>>>,
}

/// What keeps state behind a node.
pub(crate) trait Backend: Send {
    fn serve(&mut self, operation: &kv::Operation) -> kv::outcome::Outcome;
    fn open_view(&mut self) -> Bytes;
    fn close_view(&mut self, token: &Bytes);
}

impl Script {
    fn serve_from_store(&self, operation: &kv::Operation) -> Option<kv::outcome::Outcome> {
        let store = Arc::clone(self.store.as_ref()?);
        let outcome = store.lock().unwrap().serve(operation);
        Some(outcome)
    }
}

#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) zone: &'static str,
    pub(crate) name: &'static str,
    pub(crate) addr: SocketAddr,
    pub(crate) script: Arc<Mutex<Script>>,
    topology: Arc<Mutex<admin::TopologyResponse>>,
}

impl Node {
    pub(crate) fn play(&self, acts: impl IntoIterator<Item = Act>) {
        self.script.lock().unwrap().acts.extend(acts);
    }

    pub(crate) fn asked(&self) -> Vec<kv::Operation> {
        self.script.lock().unwrap().asked.clone()
    }

    fn served_by(&self) -> kv::ServedBy {
        kv::ServedBy {
            zone: self.zone.to_owned(),
            node: self.name.to_owned(),
        }
    }

    /// The outcome, if there is one.
    fn act(&self, operation: kv::Operation) -> Result<Option<kv::Outcome>, StreamEnds> {
        let mut script = self.script.lock().unwrap();
        let act = script.acts.pop_front().unwrap_or(Act::Serve);
        let id = operation.id;
        let outcome = match act {
            Act::Serve if script.store.is_some() => script.serve_from_store(&operation),
            Act::Serve => Some(serve(&operation, None)),
            Act::ServedBy(node) => Some(serve(&operation, Some(node))),
            Act::Fail(error) => Some(kv::outcome::Outcome::Error(error)),
            Act::Ignore => None,
            Act::Hang => {
                script.asked.push(operation);
                return Err(StreamEnds);
            }
        };
        script.asked.push(operation);
        Ok(outcome.map(|outcome| kv::Outcome {
            id,
            outcome: Some(outcome),
        }))
    }

    async fn converse(
        self,
        mut requests: Streaming<kv::OperateRequest>,
        answers: mpsc::Sender<Result<kv::OperateResponse, Status>>,
    ) {
        while let Ok(Some(request)) = requests.message().await {
            if !request.operations.is_empty() {
                self.script.lock().unwrap().messages += 1;
            }
            let mut outcomes = Vec::new();
            for operation in request.operations {
                match self.act(operation) {
                    Ok(outcome) => outcomes.extend(outcome),
                    Err(StreamEnds) => return,
                }
            }
            let response = kv::OperateResponse {
                outcomes,
                stamp_ms: 1_000_000,
                served_by: Some(self.served_by()),
            };
            if answers.send(Ok(response)).await.is_err() {
                return;
            }
        }
    }
}

fn serve(operation: &kv::Operation, node: Option<&str>) -> kv::outcome::Outcome {
    use kv::operation::Operation;
    let served_by = node.map(|node| kv::ServedBy {
        zone: "a".to_owned(),
        node: node.to_owned(),
    });
    match operation.operation.as_ref().unwrap() {
        Operation::Get(get) => kv::outcome::Outcome::Get(kv::GetResponse {
            found: true,
            siblings: vec![kv::Sibling {
                value: get.key.clone(),
                ..kv::Sibling::default()
            }],
            served_by,
            ..kv::GetResponse::default()
        }),
        Operation::Put(_) | Operation::Delete(_) => {
            kv::outcome::Outcome::Write(kv::WriteResponse {
                served_by,
                ..kv::WriteResponse::default()
            })
        }
        Operation::Scan(scan) => kv::outcome::Outcome::Scan(page_after(&scan.page_token)),
        Operation::Transact(_) => kv::outcome::Outcome::Transact(kv::TransactResponse {
            succeeded: true,
            served_by,
            ..kv::TransactResponse::default()
        }),
        Operation::Validate(_) => {
            kv::outcome::Outcome::Validate(kv::ValidateResponse { holds: true })
        }
    }
}

/// Three pages of one key each.
fn page_after(token: &[u8]) -> kv::ScanResponse {
    let (key, next): (&'static str, &'static str) = match token {
        b"" => ("k1", "1"),
        b"1" => ("k2", "2"),
        _ => ("k3", ""),
    };
    kv::ScanResponse {
        entries: vec![kv::Entry {
            key: key.into(),
            ..kv::Entry::default()
        }],
        next_page_token: next.into(),
        ..kv::ScanResponse::default()
    }
}

fn not_scripted() -> Status {
    Status::unimplemented("not scripted")
}

type Unary<T> = Result<Response<T>, Status>;

type Answering<'a, T> = Pin<Box<dyn Future<Output = Unary<T>> + Send + 'a>>;

/// In the form that `async_trait` gives to the methods it sees; it does not see those of a macro.
macro_rules! not_scripted {
    ($($name:ident: $request:ty => $response:ty;)*) => {
        $(fn $name<'life0, 'async_trait>(
            &'life0 self,
            _: Request<$request>,
        ) -> Answering<'async_trait, $response>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(not_scripted()) })
        })*
    };
}

#[tonic::async_trait]
impl Kv for Node {
    type OperateStream = Pin<Box<dyn Stream<Item = Result<kv::OperateResponse, Status>> + Send>>;
    type WatchStream = Pin<Box<dyn Stream<Item = Result<kv::WatchResponse, Status>> + Send>>;

    async fn operate(
        &self,
        request: Request<Streaming<kv::OperateRequest>>,
    ) -> Unary<Self::OperateStream> {
        let (answers, answered) = mpsc::channel(64);
        tokio::spawn(self.clone().converse(request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(answered))))
    }

    async fn watch(&self, request: Request<kv::WatchRequest>) -> Unary<Self::WatchStream> {
        let from = request.into_inner().from;
        let said = self.script.lock().unwrap().watches.get(&from).cloned();
        let said = futures::stream::iter(said.unwrap_or_default());
        Ok(Response::new(Box::pin(said)))
    }

    async fn view_open(&self, _: Request<kv::ViewOpenRequest>) -> Unary<kv::ViewOpenResponse> {
        let mut script = self.script.lock().unwrap();
        if let Some(Act::Fail(error)) = script.acts.pop_front() {
            return Err(Status::unavailable(error.message));
        }
        let store = script.store.as_mut().ok_or_else(not_scripted)?;
        Ok(Response::new(kv::ViewOpenResponse {
            view: store.lock().unwrap().open_view(),
            open_ms_max: 30_000,
            ..kv::ViewOpenResponse::default()
        }))
    }

    async fn view_close(
        &self,
        request: Request<kv::ViewCloseRequest>,
    ) -> Unary<kv::ViewCloseResponse> {
        let script = self.script.lock().unwrap();
        let store = script.store.as_ref().ok_or_else(not_scripted)?;
        store.lock().unwrap().close_view(&request.get_ref().view);
        Ok(Response::new(kv::ViewCloseResponse {}))
    }

    not_scripted! {
        hello: kv::HelloRequest => kv::HelloResponse;
        get: kv::GetRequest => kv::GetResponse;
        put: kv::PutRequest => kv::WriteResponse;
        delete: kv::DeleteRequest => kv::WriteResponse;
        batch_get: kv::BatchGetRequest => kv::BatchGetResponse;
        batch_write: kv::BatchWriteRequest => kv::BatchWriteResponse;
        scan: kv::ScanRequest => kv::ScanResponse;
        transact: kv::TransactRequest => kv::TransactResponse;
        lease_acquire: kv::LeaseAcquireRequest => kv::LeaseResponse;
        lease_renew: kv::LeaseRenewRequest => kv::LeaseResponse;
        lease_end: kv::LeaseEndRequest => kv::LeaseEndResponse;
        lease_get: kv::LeaseGetRequest => kv::LeaseGetResponse;
    }
}

#[tonic::async_trait]
impl Admin for Node {
    async fn topology(&self, _: Request<admin::TopologyRequest>) -> Unary<admin::TopologyResponse> {
        let mut topology = self.topology.lock().unwrap().clone();
        self.zone.clone_into(&mut topology.zone);
        self.name.clone_into(&mut topology.node);
        Ok(Response::new(topology))
    }

    async fn lag(&self, _: Request<admin::LagRequest>) -> Unary<admin::LagResponse> {
        Ok(Response::new(admin::LagResponse {
            rows: vec![admin::LagRow {
                from: self.zone.to_owned(),
                ..admin::LagRow::default()
            }],
        }))
    }

    not_scripted! {
        status: admin::StatusRequest => admin::StatusResponse;
        keyspace_create: admin::KeyspaceCreateRequest => admin::KeyspaceCreateResponse;
        keyspace_show: admin::KeyspaceShowRequest => admin::KeyspaceShowResponse;
        keyspace_list: admin::KeyspaceListRequest => admin::KeyspaceListResponse;
        mirror: admin::MirrorRequest => admin::MirrorResponse;
        keyspace_alter: admin::KeyspaceAlterRequest => admin::KeyspaceAlterResponse;
        returned: admin::ReturnedRequest => admin::ReturnedResponse;
        keyspace_delete: admin::KeyspaceDeleteRequest => admin::KeyspaceDeleteResponse;
        digest: admin::DigestRequest => admin::DigestResponse;
        fault_block: admin::FaultBlockRequest => admin::FaultBlockResponse;
        fault_heal: admin::FaultHealRequest => admin::FaultHealResponse;
        fault_delay: admin::FaultDelayRequest => admin::FaultDelayResponse;
        fault_loss: admin::FaultLossRequest => admin::FaultLossResponse;
        fault_list: admin::FaultListRequest => admin::FaultListResponse;
    }
}

/// Nodes a1 and a2 in zone a, b1 in zone b; one keyspace of one shard, led by a1. `down` nodes are listed, but nobody
/// listens at their address.
pub(crate) async fn cluster(down: &[&str]) -> [Node; 3] {
    let topology = Arc::new(Mutex::new(admin::TopologyResponse::default()));
    let mut nodes = Vec::new();
    for (id, (zone, name)) in [("a", "a1"), ("a", "a2"), ("b", "b1")]
        .into_iter()
        .enumerate()
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = Node {
            zone,
            name,
            addr: listener.local_addr().unwrap(),
            script: Arc::default(),
            topology: Arc::clone(&topology),
        };
        topology.lock().unwrap().nodes.push(admin::Node {
            id: u64::try_from(id).unwrap(),
            name: name.to_owned(),
            zone: zone.to_owned(),
            addr: node.addr.to_string(),
            ..admin::Node::default()
        });
        if !down.contains(&name) {
            let serving = tonic::transport::Server::builder()
                .add_service(KvServer::new(node.clone()))
                .add_service(AdminServer::new(node.clone()))
                .serve_with_incoming(TcpListenerStream::new(listener));
            tokio::spawn(serving);
        }
        nodes.push(node);
    }
    complete(&mut topology.lock().unwrap());
    nodes.try_into().ok().unwrap()
}

fn complete(topology: &mut admin::TopologyResponse) {
    topology.zones = ["a", "b"]
        .map(|name| admin::Zone {
            name: name.to_owned(),
        })
        .into();
    topology.keyspaces = vec![admin::Keyspace {
        name: "default".to_owned(),
        shards: 1,
        ..admin::Keyspace::default()
    }];
    topology.leaders = vec![admin::LeaderHint {
        keyspace: "default".to_owned(),
        zone: "a".to_owned(),
        node: "a1".to_owned(),
        ..admin::LeaderHint::default()
    }];
}
