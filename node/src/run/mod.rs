//! The life of a node: what is opened in which order, when it is ready, and how it ends.
//!
//! ```text
//! lock the data directory, open the store, bind the sockets     (errors here cost nothing and are clear)
//! start links and cores, serve                                  (READY once the cluster has admitted us)
//! SIGTERM, SIGINT: refuse new work, answer what is open, end    (exit code 0)
//! the store fails a write: answer everybody, end                (exit code 1)
//! ```

mod disk;
mod ready;
mod servers;
mod stop;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;

use meridian_core::CoreConfig;
use meridian_core::catalog::Policy;
use meridian_core::config::PlantedBugs;
use meridian_storage::{Engine, RocksEngine, StorageError};
use thiserror::Error;
use tokio::net::TcpListener;

use crate::calls::Calls;
use crate::clock::Clock;
use crate::config::NodeConfig;
use crate::cores::{self, StartError};
use crate::datadir::{DataDir, DataDirError};
use crate::links::Links;
use crate::shared::Shared;
use stop::Ending;

/// How long a process that is just ending may keep the data directory: a killed one closes large files first.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Why a node did not start, or ended with an error.
#[derive(Debug, Error)]
pub enum RunError {
    /// The data directory is not ours to use.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The store does not open.
    #[error("cannot open the store: {0}")]
    Store(#[from] StorageError),
    /// A core does not start.
    #[error(transparent)]
    Core(#[from] StartError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({what}): {source}")]
    Listen {
        /// Which service.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The operating system refused something a node cannot do without.
    #[error("cannot {what}: {detail}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        detail: String,
    },
    /// The store failed while the node was serving.
    #[error("POISONED: {0}")]
    Poisoned(String),
}

/// Sockets that are bound and not yet served.
struct Listeners {
    clients: TcpListener,
    peers: TcpListener,
    metrics: Option<TcpListener>,
}

/// Everything that runs.
struct Node {
    calls: Arc<Calls>,
    engine: Arc<dyn Engine>,
    threads: Vec<JoinHandle<()>>,
}

/// Runs a node until it is told to stop, or its store fails.
///
/// # Errors
/// It does not start, or its store failed a write.
pub fn run(config: NodeConfig) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(shell_threads())
        .enable_all()
        .max_blocking_threads(16)
        .thread_name("shell")
        .build()
        .map_err(|error| RunError::System {
            what: "start the runtime",
            detail: error.to_string(),
        })?;
    let outcome = runtime.block_on(serve(config));
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

/// Threads for connections: half as many as there are processors. They have a third to a half of the cores' work, and each more is one
/// more to be woken.
fn shell_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |all| all.get().div_ceil(2))
}

async fn serve(config: NodeConfig) -> Result<(), RunError> {
    if config.exposed {
        tracing::warn!(
            "serving addresses other than loopback without TLS: whoever reaches them may do anything"
        );
    }
    if config.fault_injection {
        tracing::warn!("link faults may be set through admin.v1");
    }
    let node = (config.node.id, config.node.name.as_str());
    let dir = DataDir::open(&config.data, &config.cluster.cluster, node, LOCK_PATIENCE)?;
    let engine: Arc<dyn Engine> = Arc::new(RocksEngine::open(dir.store(), &config.store)?);
    let listeners = Listeners::bind(&config).await?;
    let node = Node::start(&config, engine)?;
    let ending = Ending::watch(&node.calls.shared)?;
    let servers = servers::start(&config, &node, listeners).await?;
    let _disk = disk::watch(&dir.store(), &config.store, &node.calls);
    ready::announce(&config, &node.calls, &servers);
    let ended = ending.wait().await;
    stop::stop(&config, node, servers, ended).await
}

impl Listeners {
    async fn bind(config: &NodeConfig) -> Result<Self, RunError> {
        let metrics = match config.listen_metrics {
            Some(address) => Some(bind("metrics", address).await?),
            None => None,
        };
        Ok(Self {
            clients: bind("kv.v1", config.listen).await?,
            peers: bind("peer.v1", config.listen_peer).await?,
            metrics,
        })
    }
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Listen {
            what,
            address,
            source,
        })
}

impl Node {
    fn start(config: &NodeConfig, engine: Arc<dyn Engine>) -> Result<Self, RunError> {
        let shared = Shared::new(config, Clock::start());
        let links = Links::start(&config.cluster, &shared);
        let configs = (0..config.core_threads)
            .map(|index| core_config(config, index))
            .collect::<Result<_, _>>()?;
        let (cores, threads) = cores::start(configs, &engine, &shared, &links)?;
        Ok(Self {
            calls: Arc::new(Calls {
                shared,
                cores,
                links,
                turn: AtomicUsize::new(0),
            }),
            engine,
            threads,
        })
    }
}

/// What core `index` is told. Its entropy is new with each start.
fn core_config(config: &NodeConfig, index: u32) -> Result<CoreConfig, RunError> {
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy).map_err(|error| RunError::System {
        what: "get random bytes",
        detail: error.to_string(),
    })?;
    Ok(CoreConfig {
        node: config.node.id,
        seed: config.cluster.clone(),
        core_index: index,
        core_count: config.core_threads,
        entropy,
        default_shards: config.default_shards,
        default_policy: Policy::default(),
        timing: config.timing,
        bounds: config.bounds,
        observe: false,
        planted: PlantedBugs::default(),
    })
}
