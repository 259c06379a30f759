//! A zone of one node that keeps everything in memory, enough of one to run `kv` against it.
//!
//! It serves the operations of a message in reverse, since nothing promises their order.

mod transactions;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::pin::Pin;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};

use futures::Stream;
use meridian_client::proto::admin::v1 as admin;
use meridian_client::proto::admin::v1::admin_server::{Admin, AdminServer};
use meridian_client::proto::kv::v1 as kv;
use meridian_client::proto::kv::v1::kv_server::{Kv, KvServer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What the node keeps.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) keys: BTreeMap<Vec<u8>, Vec<kv::Sibling>>,
    /// Writes of this key are refused for lack of a quorum.
    pub(crate) refused: Vec<u8>,
    /// Written by others before each transaction is served, one after the other.
    pub(crate) meanwhile: Vec<(&'static str, &'static str)>,
    /// Transactions are answered with an unknown outcome.
    pub(crate) unknown: bool,
    pub(crate) views_open: usize,
    counter: u64,
    /// The lease that stands, if one does.
    pub(crate) lease: Option<kv::LeaseRef>,
    /// As it was created and altered.
    keyspace: admin::Keyspace,
}

#[derive(Clone)]
pub(crate) struct Node {
    addr: String,
    pub(crate) kept: Arc<Mutex<Kept>>,
}

impl Node {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = Self {
            addr: listener.local_addr().unwrap().to_string(),
            kept: Arc::default(),
        };
        let serving = tonic::transport::Server::builder()
            .add_service(KvServer::new(node.clone()))
            .add_service(AdminServer::new(node.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        node
    }

    /// Runs `kv` with these arguments in `folder`.
    pub(crate) async fn kv(&self, folder: &Path, arguments: &[&str]) -> Output {
        self.kv_reading(folder, arguments, "").await
    }

    /// The same, with this standard input.
    pub(crate) async fn kv_reading(
        &self,
        folder: &Path,
        arguments: &[&str],
        input: &str,
    ) -> Output {
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_kv"))
            .args(["--endpoints", &self.addr, "--timeout", "20s"])
            .args(arguments)
            .env("XDG_CONFIG_HOME", folder)
            .env_remove("KV_ENDPOINTS")
            .env_remove("KV_ZONE")
            .env_remove("KV_KEYSPACE")
            .env_remove("KV_TIMEOUT")
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Whoever reads nothing may have gone already.
        drop(stdin.write_all(input.as_bytes()).await);
        drop(stdin);
        child.wait_with_output().await.unwrap()
    }

    fn serve(&self, operation: kv::Operation) -> kv::Outcome {
        use kv::operation::Operation;
        let mut kept = self.kept.lock().unwrap();
        let outcome = match operation.operation.unwrap() {
            Operation::Get(get) => kv::outcome::Outcome::Get(kept.get(&get)),
            Operation::Put(put) => kept.put(put),
            Operation::Delete(delete)
                if !kept.value_fits(&delete.key, delete.intent(), &delete.expected) =>
            {
                transactions::failed("VERSION_MISMATCH", kv::Effect::None, 10)
            }
            Operation::Delete(delete) => {
                kept.keys.remove(delete.key.as_ref());
                kv::outcome::Outcome::Write(kv::WriteResponse::default())
            }
            Operation::Scan(scan) => kv::outcome::Outcome::Scan(kept.scan(&scan)),
            Operation::Transact(transact) => kept.transact(&transact),
            Operation::Validate(validate) => kept.validate(&validate),
        };
        kv::Outcome {
            id: operation.id,
            outcome: Some(outcome),
        }
    }

    async fn converse(
        self,
        mut requests: Streaming<kv::OperateRequest>,
        answers: mpsc::Sender<Result<kv::OperateResponse, Status>>,
    ) {
        while let Ok(Some(request)) = requests.message().await {
            let operations = request.operations.into_iter().rev();
            let response = kv::OperateResponse {
                outcomes: operations.map(|operation| self.serve(operation)).collect(),
                stamp_ms: 1,
                served_by: Some(kv::ServedBy {
                    zone: "a".to_owned(),
                    node: "n1".to_owned(),
                }),
            };
            if answers.send(Ok(response)).await.is_err() {
                return;
            }
        }
    }
}

impl Kept {
    fn get(&self, get: &kv::Get) -> kv::GetResponse {
        let siblings = self.keys.get(get.key.as_ref()).cloned().unwrap_or_default();
        kv::GetResponse {
            found: !siblings.is_empty(),
            context: context_of(&siblings),
            stamp: transactions::stamp_of(&siblings),
            siblings,
            ..kv::GetResponse::default()
        }
    }

    /// A context is a number of siblings: that many, the oldest, are replaced. Without one, all are.
    fn put(&mut self, put: kv::Put) -> kv::outcome::Outcome {
        if put.key == self.refused || put.key == "malformed" {
            return kv::outcome::Outcome::Error(refusal(&put.key));
        }
        if !self.value_fits(&put.key, put.intent(), &put.expected) {
            return transactions::failed("VERSION_MISMATCH", kv::Effect::None, 10);
        }
        self.counter += 1;
        let siblings = self.keys.entry(put.key.to_vec()).or_default();
        let covered = match put.intent() {
            kv::Intent::Context => put.context.first().map_or(0, |count| usize::from(*count)),
            kv::Intent::Blind
            | kv::Intent::Overwrite
            | kv::Intent::IfAbsent
            | kv::Intent::IfContext
            | kv::Intent::IfValue => siblings.len(),
        };
        siblings.drain(..covered.min(siblings.len()));
        let dot = kv::Dot {
            text: format!("a.1:{}", self.counter),
            ..kv::Dot::default()
        };
        siblings.push(kv::Sibling {
            value: put.value,
            dot: Some(dot.clone()),
            zone: "a".to_owned(),
            ..kv::Sibling::default()
        });
        let receipt = kv::Receipt {
            dot: Some(dot),
            zones: vec!["a".to_owned()],
            op_id: put.op_id,
            ..kv::Receipt::default()
        };
        kv::outcome::Outcome::Write(kv::WriteResponse {
            receipt: Some(receipt),
            ..kv::WriteResponse::default()
        })
    }

    /// Pages of two keys; the token is the key that the next one begins with.
    fn scan(&self, scan: &kv::Scan) -> kv::ScanResponse {
        let from = if scan.page_token.is_empty() {
            &scan.from
        } else {
            &scan.page_token
        };
        let first = from.to_vec();
        let mut found = self
            .keys
            .range(first.clone()..)
            .filter(|(key, _)| key.starts_with(&scan.prefix))
            .filter(|(_, siblings)| siblings.len() > 1 || !scan.conflicts_only);
        let page: Vec<_> = found.by_ref().take(2).collect();
        let entries = page.into_iter().map(|(key, siblings)| kv::Entry {
            key: key.clone().into(),
            context: context_of(siblings),
            siblings: siblings.clone(),
        });
        let entries = entries.collect();
        let next = found.next().map_or_else(Vec::new, |(key, _)| key.clone());
        kv::ScanResponse {
            entries,
            range_stamps: vec![self.range_stamp(&first, &next)],
            next_page_token: next.into(),
            ..kv::ScanResponse::default()
        }
    }
}

fn context_of(siblings: &[kv::Sibling]) -> tonic::codegen::Bytes {
    vec![u8::try_from(siblings.len()).unwrap()].into()
}

fn refusal(key: &[u8]) -> kv::Error {
    let (reason, code) = if key == b"malformed" {
        ("VALUE_TOO_LARGE", 3)
    } else {
        ("NO_QUORUM", 14)
    };
    kv::Error {
        reason: reason.to_owned(),
        effect: kv::Effect::None.into(),
        code,
        ..kv::Error::default()
    }
}

fn lease_error(code: tonic::Code, reason: &str) -> Status {
    let effect = HashMap::from([("effect".to_owned(), "none".to_owned())]);
    let details = ErrorDetails::with_error_info(reason, "meridian", effect);
    Status::with_error_details(code, "the lease", details)
}

type Unary<T> = Result<Response<T>, Status>;
type Answering<'a, T> = Pin<Box<dyn Future<Output = Unary<T>> + Send + 'a>>;

/// In the form that `async_trait` gives to the methods it sees; it does not see those of a macro.
macro_rules! not_served {
    ($($name:ident: $request:ty => $response:ty;)*) => {
        $(fn $name<'life0, 'async_trait>(
            &'life0 self,
            _: Request<$request>,
        ) -> Answering<'async_trait, $response>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(Status::unimplemented("not served")) })
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

    async fn view_open(&self, _: Request<kv::ViewOpenRequest>) -> Unary<kv::ViewOpenResponse> {
        self.kept.lock().unwrap().views_open += 1;
        Ok(Response::new(kv::ViewOpenResponse {
            view: b"view".to_vec().into(),
            ..kv::ViewOpenResponse::default()
        }))
    }

    async fn view_close(&self, _: Request<kv::ViewCloseRequest>) -> Unary<kv::ViewCloseResponse> {
        self.kept.lock().unwrap().views_open -= 1;
        Ok(Response::new(kv::ViewCloseResponse {}))
    }

    async fn hello(&self, _: Request<kv::HelloRequest>) -> Unary<kv::HelloResponse> {
        Ok(Response::new(kv::HelloResponse {
            stamp_ms: 1,
            ..kv::HelloResponse::default()
        }))
    }

    async fn lease_acquire(
        &self,
        request: Request<kv::LeaseAcquireRequest>,
    ) -> Unary<kv::LeaseResponse> {
        let asked = request.into_inner();
        let mut kept = self.kept.lock().unwrap();
        if kept.lease.is_some() {
            return Err(lease_error(tonic::Code::Aborted, "LEASE_HELD"));
        }
        kept.counter += 1;
        let lease = kv::LeaseRef {
            name: asked.name,
            token: kept.counter,
        };
        kept.lease = Some(lease.clone());
        Ok(Response::new(kv::LeaseResponse {
            lease: Some(lease),
            ttl_ms: asked.ttl_ms,
            ..kv::LeaseResponse::default()
        }))
    }

    async fn lease_renew(
        &self,
        request: Request<kv::LeaseRenewRequest>,
    ) -> Unary<kv::LeaseResponse> {
        let asked = request.into_inner().lease;
        let kept = self.kept.lock().unwrap();
        if kept.lease != asked {
            return Err(lease_error(tonic::Code::Aborted, "LEASE_LOST"));
        }
        Ok(Response::new(kv::LeaseResponse {
            lease: asked,
            ttl_ms: 10_000,
            ..kv::LeaseResponse::default()
        }))
    }

    async fn lease_end(
        &self,
        request: Request<kv::LeaseEndRequest>,
    ) -> Unary<kv::LeaseEndResponse> {
        let asked = request.into_inner().lease;
        let mut kept = self.kept.lock().unwrap();
        if kept.lease != asked {
            return Err(lease_error(tonic::Code::Aborted, "LEASE_LOST"));
        }
        kept.lease = None;
        Ok(Response::new(kv::LeaseEndResponse::default()))
    }

    async fn lease_get(&self, _: Request<kv::LeaseGetRequest>) -> Unary<kv::LeaseGetResponse> {
        let kept = self.kept.lock().unwrap();
        Ok(Response::new(kv::LeaseGetResponse {
            lease: kept.lease.clone(),
            ttl_ms: 10_000,
            ..kv::LeaseGetResponse::default()
        }))
    }

    not_served! {
        get: kv::GetRequest => kv::GetResponse;
        put: kv::PutRequest => kv::WriteResponse;
        delete: kv::DeleteRequest => kv::WriteResponse;
        batch_get: kv::BatchGetRequest => kv::BatchGetResponse;
        batch_write: kv::BatchWriteRequest => kv::BatchWriteResponse;
        scan: kv::ScanRequest => kv::ScanResponse;
        transact: kv::TransactRequest => kv::TransactResponse;
        watch: kv::WatchRequest => Self::WatchStream;
    }
}

#[tonic::async_trait]
impl Admin for Node {
    async fn topology(&self, _: Request<admin::TopologyRequest>) -> Unary<admin::TopologyResponse> {
        Ok(Response::new(admin::TopologyResponse {
            zones: vec![admin::Zone {
                name: "a".to_owned(),
            }],
            nodes: vec![admin::Node {
                name: "n1".to_owned(),
                zone: "a".to_owned(),
                addr: self.addr.clone(),
                ..admin::Node::default()
            }],
            zone: "a".to_owned(),
            node: "n1".to_owned(),
            ..admin::TopologyResponse::default()
        }))
    }

    async fn keyspace_create(
        &self,
        request: Request<admin::KeyspaceCreateRequest>,
    ) -> Unary<admin::KeyspaceCreateResponse> {
        let asked = request.into_inner();
        let mut kept = self.kept.lock().unwrap();
        kept.keyspace = admin::Keyspace {
            name: asked.name,
            mode: "async".to_owned(),
            policy: asked.policy,
            ..admin::Keyspace::default()
        };
        let keyspace = Some(kept.keyspace.clone());
        Ok(Response::new(admin::KeyspaceCreateResponse { keyspace }))
    }

    async fn keyspace_show(
        &self,
        _: Request<admin::KeyspaceShowRequest>,
    ) -> Unary<admin::KeyspaceShowResponse> {
        let keyspace = Some(self.kept.lock().unwrap().keyspace.clone());
        Ok(Response::new(admin::KeyspaceShowResponse { keyspace }))
    }

    async fn keyspace_list(
        &self,
        _: Request<admin::KeyspaceListRequest>,
    ) -> Unary<admin::KeyspaceListResponse> {
        let keyspaces = vec![self.kept.lock().unwrap().keyspace.clone()];
        Ok(Response::new(admin::KeyspaceListResponse { keyspaces }))
    }

    not_served! {
        status: admin::StatusRequest => admin::StatusResponse;
        mirror: admin::MirrorRequest => admin::MirrorResponse;
        keyspace_alter: admin::KeyspaceAlterRequest => admin::KeyspaceAlterResponse;
        returned: admin::ReturnedRequest => admin::ReturnedResponse;
        keyspace_delete: admin::KeyspaceDeleteRequest => admin::KeyspaceDeleteResponse;
        lag: admin::LagRequest => admin::LagResponse;
        digest: admin::DigestRequest => admin::DigestResponse;
        fault_block: admin::FaultBlockRequest => admin::FaultBlockResponse;
        fault_heal: admin::FaultHealRequest => admin::FaultHealResponse;
        fault_delay: admin::FaultDelayRequest => admin::FaultDelayResponse;
        fault_loss: admin::FaultLossRequest => admin::FaultLossResponse;
        fault_list: admin::FaultListRequest => admin::FaultListResponse;
    }
}
