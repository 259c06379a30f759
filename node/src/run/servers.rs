//! The sockets of a node: kv.v1, admin.v1, health and reflection for clients; peer.v1 for nodes; metrics.

use std::sync::Arc;
use std::time::Duration;

use meridian_proto::FILE_DESCRIPTOR_SET;
use meridian_proto::admin::v1::admin_server::AdminServer;
use meridian_proto::kv::v1::kv_server::KvServer;
use meridian_proto::peer::v1::peer_server::PeerServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::server::NamedService as _;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::{Listeners, Node, RunError};
use crate::config::NodeConfig;
use crate::limits::{MESSAGE_BYTES_MAX, WINDOW_BYTES};
use crate::links::Incoming;
use crate::metrics::{self, Scraper};
use crate::service::{AdminService, Engine, KvService};

/// The node as a whole, in the words of grpc.health.v1.
const NODE: &str = "";

const KEEPALIVE: Duration = Duration::from_secs(10);

/// What is being served.
pub(super) struct Servers {
    pub(super) health: HealthReporter,
    pub(super) clients: JoinHandle<()>,
    rest: Vec<JoinHandle<()>>,
    stop_clients: watch::Sender<bool>,
    stop_rest: watch::Sender<bool>,
}

impl Servers {
    /// No new connections of clients; the server ends when the streams have.
    pub(super) fn stop_clients(&self) {
        self.stop_clients.send_replace(true);
    }

    /// No more links and metrics.
    pub(super) fn stop_rest(&self) {
        self.stop_rest.send_replace(true);
        for server in &self.rest {
            server.abort();
        }
    }
}

/// Says of every service, and of the node as a whole, how it is.
pub(super) async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for service in [
        NODE,
        <KvServer<KvService>>::NAME,
        <AdminServer<AdminService>>::NAME,
    ] {
        health.set_service_status(service, status).await;
    }
}

pub(super) async fn start(
    config: &NodeConfig,
    node: &Node,
    listeners: Listeners,
) -> Result<Servers, RunError> {
    let (stop_clients, clients_end) = watch::channel(false);
    let (stop_rest, rest_end) = watch::channel(false);
    let (health, clients) = client_server(config, node, listeners.clients, clients_end)?;
    set_health(&health, ServingStatus::NotServing).await;
    let mut rest = vec![peer_server(node, listeners.peers, rest_end.clone())];
    if let Some(listener) = listeners.metrics {
        let scraper = Scraper {
            calls: Arc::clone(&node.calls),
            engine: Arc::clone(&node.engine),
        };
        rest.push(tokio::spawn(async move {
            let served = metrics::serve(listener, Arc::new(scraper), told(rest_end)).await;
            report("metrics", served.err());
        }));
    }
    Ok(Servers {
        health,
        clients,
        rest,
        stop_clients,
        stop_rest,
    })
}

fn client_server(
    config: &NodeConfig,
    node: &Node,
    listener: TcpListener,
    end: watch::Receiver<bool>,
) -> Result<(HealthReporter, JoinHandle<()>), RunError> {
    let kv = KvServer::new(KvService {
        calls: Arc::clone(&node.calls),
        engine: Engine(Arc::clone(&node.engine)),
    })
    .max_decoding_message_size(MESSAGE_BYTES_MAX)
    .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let admin = AdminServer::new(AdminService {
        calls: Arc::clone(&node.calls),
        faults: config.fault_injection,
        seed_zones: config.cluster.zones.clone().into(),
        engine: Engine(Arc::clone(&node.engine)),
    });
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| RunError::System {
            what: "describe the services",
            detail: error.to_string(),
        })?;
    let serve = server()
        .add_service(kv)
        .add_service(admin)
        .add_service(health_service)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming(listener), told(end));
    let task = tokio::spawn(async move { report("kv.v1", serve.await.err()) });
    Ok((health, task))
}

fn peer_server(node: &Node, listener: TcpListener, end: watch::Receiver<bool>) -> JoinHandle<()> {
    let calls = &node.calls;
    let links = Incoming::new(
        Arc::clone(&calls.shared),
        Arc::clone(&calls.cores),
        Arc::clone(&calls.links),
    );
    let peer = PeerServer::new(links)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let serve = server()
        .add_service(peer)
        .serve_with_incoming_shutdown(incoming(listener), told(end));
    tokio::spawn(async move { report("peer.v1", serve.await.err()) })
}

fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
}

fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// Done when told to stop, or when nobody is left to tell.
async fn told(mut end: watch::Receiver<bool>) {
    drop(end.wait_for(|stop| *stop).await);
}

fn report(what: &'static str, error: Option<impl std::error::Error>) {
    if let Some(error) = error {
        tracing::error!(what, %error, "a server ended");
    }
}
