//! When a node says that it is ready: the cluster has admitted it, and its groups have leaders or had their time.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic_health::ServingStatus;

use super::servers::Servers;
use crate::calls::Calls;
use crate::config::NodeConfig;

/// How long leaders are waited for: without them, eventual reads are served.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(10);

/// How often is looked.
const POLL: Duration = Duration::from_millis(20);

/// How long one look may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Announces readiness when it is reached: health, log, and one line on standard output.
pub(super) fn announce(config: &NodeConfig, calls: &Arc<Calls>, servers: &Servers) {
    let (calls, health) = (Arc::clone(calls), servers.health.clone());
    let line = format!(
        "READY zone={} node={} addr={}",
        config.zone_name, config.node.name, config.node.addr
    );
    tokio::spawn(async move {
        let mut catalogs = calls.shared.watch_catalog();
        if catalogs
            .wait_for(|catalog| catalog.revision > 0)
            .await
            .is_err()
        {
            return;
        }
        let began = Instant::now();
        while began.elapsed() < LEADERS_TIMEOUT && !all_led(&calls).await {
            sleep(POLL).await;
        }
        if calls.shared.is_draining() {
            return;
        }
        super::servers::set_health(&health, ServingStatus::Serving).await;
        let mut out = std::io::stdout().lock();
        if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
            tracing::warn!(%error, "cannot say so on standard output");
        }
        tracing::info!("{line}");
    });
}

async fn all_led(calls: &Calls) -> bool {
    let groups = calls.groups(PATIENCE).await;
    groups.is_some_and(|groups| {
        !groups.is_empty() && groups.iter().all(|group| group.leader.is_some())
    })
}
