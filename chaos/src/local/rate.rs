//! The maximal rate of puts: what a short closed loop comes to, all zones together, links as slow as they are.
//!
//! Two rates. What is *taken* is acknowledged; what is *carried* is in every zone besides. Where processors are short a load can be
//! taken for a while that is not carried: the backlog grows as long as it lasts. The maximal rate that a share of is a load which
//! goes on is the carried one: the puts of the loop over the time until all of them are everywhere.

use std::time::{Duration, Instant};

use super::backlog;
use super::puts::Puts;
use super::zones::Zones;

/// Not counted at the beginning.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long it may take until everything is everywhere.
const DRAIN_TIME_MAX: Duration = Duration::from_mins(3);

/// Puts per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct MaximalRate {
    /// Acknowledged, while the load lasted.
    pub(super) taken: f64,
    /// In every zone.
    pub(super) carried: f64,
}

/// Finds both rates.
pub(super) async fn maximal_rate(
    (zones, puts): (&Zones, &Puts),
    in_flight: usize,
    seconds: u64,
) -> Result<MaximalRate, String> {
    let began = Instant::now();
    let load = puts.closed(in_flight.max(1));
    tokio::time::sleep(WARM_UP).await;
    let counted = Instant::now();
    tokio::time::sleep(Duration::from_secs(seconds.max(1))).await;
    let ended = Instant::now();
    let outcomes = load.end().await?;
    backlog::drained(zones, DRAIN_TIME_MAX).await?;
    let carried = began.elapsed().as_secs_f64();
    let done = outcomes.within(counted, ended).len();
    if done == 0 {
        return Err(format!("no put was acknowledged: {:?}", outcomes.errors));
    }
    Ok(MaximalRate {
        taken: done as f64 / ended.saturating_duration_since(counted).as_secs_f64(),
        carried: outcomes.answered.len() as f64 / carried,
    })
}
