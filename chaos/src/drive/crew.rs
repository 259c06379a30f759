//! The clients of a run: each does one step after another until the load is to end.

use std::time::Duration;

use tokio::task::JoinSet;

use super::session::Session;
use crate::serial::Status;

/// After a failure, so that a cluster without a leader is not asked in a tight loop.
const PAUSE: Duration = Duration::from_millis(5);

/// One client of a workload.
pub(super) trait Worker: Send + 'static {
    /// What the history holds of a step.
    type Record: Send + 'static;

    /// Asks one thing, and writes down what came of it.
    fn step(&mut self) -> impl Future<Output = (Self::Record, Status)> + Send;
}

/// Runs workers until the load is to end; everything they wrote down.
pub(super) async fn run<W: Worker>(
    session: &Session,
    workers: Vec<W>,
) -> Result<Vec<W::Record>, String> {
    let mut running = JoinSet::new();
    for worker in workers {
        running.spawn(work(session.clone(), worker));
    }
    let mut records = Vec::new();
    while let Some(written) = running.join_next().await {
        records.extend(written.map_err(|error| error.to_string())?);
    }
    Ok(records)
}

async fn work<W: Worker>(session: Session, mut worker: W) -> Vec<W::Record> {
    let mut records = Vec::new();
    while !session.is_stopped() {
        let (record, status) = worker.step().await;
        records.push(record);
        session.ended(status);
        if status != Status::Ok {
            tokio::time::sleep(PAUSE).await;
        }
    }
    records
}
