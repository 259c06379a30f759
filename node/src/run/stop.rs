//! How a node ends.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic_health::ServingStatus;

use super::servers::{Servers, set_health};
use super::{Node, RunError};
use crate::config::NodeConfig;
use crate::shared::Shared;

/// How often is looked whether open requests are answered.
const POLL: Duration = Duration::from_millis(10);

/// Clients that have just been told `DRAINING` get this long to read it.
const PARTING: Duration = Duration::from_millis(100);

/// How long core threads may take to end.
const THREADS_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a node ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Told,
    Poisoned(String),
}

/// Waits for the end.
pub(super) struct Ending {
    terminate: Signal,
    interrupt: Signal,
    poison: watch::Receiver<Option<String>>,
}

impl Ending {
    pub(super) fn watch(shared: &Shared) -> Result<Self, RunError> {
        let listen = |kind| {
            signal(kind).map_err(|error| RunError::System {
                what: "listen for signals",
                detail: error.to_string(),
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            poison: shared.watch_poison(),
        })
    }

    pub(super) async fn wait(mut self) -> Ended {
        tokio::select! {
            _ = self.terminate.recv() => Ended::Told,
            _ = self.interrupt.recv() => Ended::Told,
            reason = self.poison.wait_for(Option::is_some) => {
                let reason = reason.ok().and_then(|reason| reason.clone());
                Ended::Poisoned(reason.unwrap_or_default())
            }
        }
    }
}

/// Ends everything, in order: no new work, open work, sockets, cores, store.
pub(super) async fn stop(
    config: &NodeConfig,
    node: Node,
    servers: Servers,
    ended: Ended,
) -> Result<(), RunError> {
    let shared = &node.calls.shared;
    tracing::info!(?ended, open = shared.in_flight(), "stopping");
    set_health(&servers.health, ServingStatus::NotServing).await;
    shared.drain();
    let began = Instant::now();
    let bound = match &ended {
        Ended::Told => config.drain,
        Ended::Poisoned(_) => PARTING,
    };
    while shared.in_flight() > 0 && began.elapsed() < bound {
        sleep(POLL).await;
    }
    sleep(PARTING).await;
    shared.close();
    servers.stop_clients();
    let mut servers = servers;
    let left = bound.saturating_sub(began.elapsed()).max(PARTING);
    if timeout(left, &mut servers.clients).await.is_err() {
        tracing::warn!(
            open = shared.in_flight(),
            "some clients did not end in time"
        );
        servers.clients.abort();
    }
    servers.stop_rest();
    end_threads(node).await;
    tracing::info!("stopped");
    match ended {
        Ended::Told => Ok(()),
        Ended::Poisoned(reason) => Err(RunError::Poisoned(reason)),
    }
}

async fn end_threads(node: Node) {
    node.calls.cores.stop();
    let joined = tokio::task::spawn_blocking(move || {
        for thread in node.threads {
            if thread.join().is_err() {
                tracing::error!("a core thread panicked");
            }
        }
    });
    if timeout(THREADS_TIMEOUT, joined).await.is_err() {
        tracing::warn!("core threads did not end in time");
    }
}
