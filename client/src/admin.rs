//! Operators' calls: to one node, to one node of each zone, or to every node.
//!
//! Nothing here is repeated after an outcome that is not known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{join_all, select_ok};
use meridian_proto::admin::v1 as wire;
use meridian_proto::admin::v1::admin_client::AdminClient;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::client::{Inner, Links};
use crate::error::{Effect, Error};
use crate::link;
use crate::retry::{ATTEMPTS_MAX, backoff};

/// Whether a node says that it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Serving,
    /// It does not (draining, or failed).
    NotServing,
}

/// A node that did not answer, or refused.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Its zone.
    pub zone: String,
    /// Its name.
    pub node: String,
    /// Why.
    pub error: Error,
}

/// Calls to one node.
#[derive(Clone)]
pub struct NodeAdmin {
    /// Its zone.
    pub zone: String,
    /// Its name.
    pub node: String,
    /// Its address HOST:PORT.
    pub addr: String,
    channel: Channel,
    timeout: Duration,
}

/// A node said that it did nothing and that the same call may succeed later, as in a change of leader.
fn may_repeat(error: &Error, attempt: u32) -> bool {
    let refused = error.effect() == Effect::None && error.is_retryable();
    refused && error.retry_after().is_some() && attempt < ATTEMPTS_MAX
}

macro_rules! calls {
    ($($(#[$doc:meta])* $kind:ident $name:ident: $request:ident => $response:ident;)*) => {
        $(
            $(#[$doc])*
            pub async fn $name(&self, request: wire::$request) -> Result<wire::$response, Error> {
                let until = Instant::now() + self.timeout;
                for attempt in 1.. {
                    let mut client = AdminClient::new(self.channel.clone())
                        .max_decoding_message_size(crate::MESSAGE_SIZE_BYTES_MAX);
                    let answer = self.$kind(client.$name(self.request(request.clone()))).await;
                    match answer {
                        Err(error) if may_repeat(&error, attempt) && Instant::now() < until => {
                            tokio::time::sleep(backoff(attempt, rand::random())).await;
                        }
                        done => return done,
                    }
                }
                unreachable!("the attempts are bounded")
            }
        )*
    };
}

impl NodeAdmin {
    calls! {
        /// The cluster as this node knows it.
        read topology: TopologyRequest => TopologyResponse;
        /// How this node is.
        read status: StatusRequest => StatusResponse;
        /// Creates a keyspace.
        within keyspace_create: KeyspaceCreateRequest => KeyspaceCreateResponse;
        /// One keyspace.
        read keyspace_show: KeyspaceShowRequest => KeyspaceShowResponse;
        /// All keyspaces.
        read keyspace_list: KeyspaceListRequest => KeyspaceListResponse;
        /// Changes how a keyspace is replicated.
        within keyspace_alter: KeyspaceAlterRequest => KeyspaceAlterResponse;
        /// Keys to which writes of a deposed home zone came back.
        read returned: ReturnedRequest => ReturnedResponse;
        /// Deletes a keyspace and its data.
        within keyspace_delete: KeyspaceDeleteRequest => KeyspaceDeleteResponse;
        /// The mirrors of a keyspace, and a cut on demand.
        within mirror: MirrorRequest => MirrorResponse;
        /// What this node's zone has not yet handed to the others.
        read lag: LagRequest => LagResponse;
        /// A hash over the contents of this node's zone.
        read digest: DigestRequest => DigestResponse;
        /// Cuts a link at this node.
        within fault_block: FaultBlockRequest => FaultBlockResponse;
        /// Mends links at this node.
        within fault_heal: FaultHealRequest => FaultHealResponse;
        /// Delays a link at this node.
        within fault_delay: FaultDelayRequest => FaultDelayResponse;
        /// Makes a link at this node lose messages.
        within fault_loss: FaultLossRequest => FaultLossResponse;
        /// Faults at this node.
        read fault_list: FaultListRequest => FaultListResponse;
    }

    /// For an address that is not (yet) part of a known topology. Zone and name are left empty.
    pub fn at(addr: &str, timeout: Duration) -> Result<Self, Error> {
        Ok(Self {
            zone: String::new(),
            node: String::new(),
            addr: addr.to_owned(),
            channel: link::channel(addr)?,
            timeout,
        })
    }

    /// Asks the health service.
    pub async fn health(&self) -> Result<Health, Error> {
        let mut client = HealthClient::new(self.channel.clone());
        let request = self.request(HealthCheckRequest::default());
        let answer = self.read(client.check(request)).await?;
        match answer.status() {
            ServingStatus::Serving => Ok(Health::Serving),
            ServingStatus::NotServing | ServingStatus::Unknown | ServingStatus::ServiceUnknown => {
                Ok(Health::NotServing)
            }
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    /// A call that changes nothing, whatever happens to it.
    async fn read<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        self.within(call).await.map_err(Error::without_effect)
    }

    async fn within<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(link::explain(&self.addr, &status)),
            Err(_elapsed) => Err(Error::unanswered(format!(
                "no answer from {} in time",
                self.addr
            ))),
        }
    }
}

/// Head start of each address over the next one: where several are about as near, the first listed answers.
const HEAD_START: Duration = Duration::from_millis(15);

/// Asks all addresses for the topology, each a little later than the one before; the first answer counts.
pub(crate) async fn discover(
    addrs: &[String],
    links: &Links,
    timeout: Duration,
) -> Result<wire::TopologyResponse, Error> {
    let mut asked = Vec::with_capacity(addrs.len());
    let mut head_start = Duration::ZERO;
    for addr in addrs {
        let wait = head_start;
        head_start += HEAD_START;
        let node = NodeAdmin {
            zone: String::new(),
            node: String::new(),
            addr: addr.clone(),
            channel: links.to(addr)?.channel(),
            timeout,
        };
        asked.push(Box::pin(async move {
            tokio::time::sleep(wait).await;
            node.topology(wire::TopologyRequest {}).await
        }));
    }
    let (topology, _slower) = select_ok(asked).await?;
    Ok(topology)
}

/// Operators' calls to the cluster.
#[derive(Clone)]
pub struct Admin {
    inner: Arc<Inner>,
}

impl Admin {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// All nodes as last learned, those of the home zone first.
    pub fn nodes(&self) -> Vec<NodeAdmin> {
        let routes = self.inner.routes();
        let nodes = routes.nodes.iter().map(|node| NodeAdmin {
            zone: node.zone.clone(),
            node: node.name.clone(),
            addr: node.addr.clone(),
            channel: node.link.channel(),
            timeout: self.inner.timeout,
        });
        nodes.collect()
    }

    /// Asks nodes one after the other, those of the home zone first, until one answers or says what another would say
    /// too.
    pub async fn any_node<T, F>(&self, call: impl Fn(NodeAdmin) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let nodes = self.nodes();
        first_answer(nodes, &call)
            .await
            .map_err(|failed| failed.error)
    }

    /// Asks one node of each zone, another one if the first does not answer. All zones at once.
    pub async fn each_zone<T, F>(&self, call: impl Fn(NodeAdmin) -> F) -> Vec<Result<T, Failed>>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut zones: Vec<(String, Vec<NodeAdmin>)> = Vec::new();
        for node in self.nodes() {
            match zones.iter_mut().find(|(zone, _)| *zone == node.zone) {
                Some((_, nodes)) => nodes.push(node),
                None => zones.push((node.zone.clone(), vec![node])),
            }
        }
        zones.sort_by(|(a, _), (b, _)| a.cmp(b));
        let asked = zones
            .into_iter()
            .map(|(_, nodes)| first_answer(nodes, &call));
        join_all(asked).await
    }

    /// Asks every node, all at once.
    pub async fn each_node<T, F>(
        &self,
        call: impl Fn(NodeAdmin) -> F,
    ) -> Vec<(NodeAdmin, Result<T, Error>)>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let asked = self.nodes().into_iter().map(|node| {
            let answer = call(node.clone());
            async move { (node, answer.await) }
        });
        join_all(asked).await
    }

    /// Learns the topology anew, so that what was just changed is known.
    pub async fn refresh(&self) -> Result<(), Error> {
        self.inner.refresh().await
    }
}

async fn first_answer<T, F>(
    nodes: Vec<NodeAdmin>,
    call: &impl Fn(NodeAdmin) -> F,
) -> Result<T, Failed>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut last = None;
    for node in nodes {
        let (zone, name) = (node.zone.clone(), node.node.clone());
        match call(node).await {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                let go_on = error.is_retryable() && error.effect() == Effect::None;
                last = Some(Failed {
                    zone,
                    node: name,
                    error,
                });
                if !go_on {
                    break;
                }
            }
        }
    }
    Err(last.unwrap_or_else(|| Failed {
        zone: String::new(),
        node: String::new(),
        error: Error::unreachable("the zone has no nodes"),
    }))
}
