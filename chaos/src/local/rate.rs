//! The maximal rate of puts: what a short closed loop comes to, all zones together, links as slow as they are.

use std::time::{Duration, Instant};

use super::puts::Puts;

/// Not counted at the beginning.
const WARM_UP: Duration = Duration::from_secs(2);

/// Puts acknowledged per second.
pub(super) async fn maximal_rate(
    puts: &Puts,
    in_flight: usize,
    seconds: u64,
) -> Result<f64, String> {
    let load = puts.closed(in_flight.max(1));
    tokio::time::sleep(WARM_UP).await;
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(seconds.max(1))).await;
    let ended = Instant::now();
    let outcomes = load.end().await?;
    let done = outcomes.within(begun, ended).len();
    if done == 0 {
        return Err(format!("no put was acknowledged: {:?}", outcomes.errors));
    }
    Ok(done as f64 / ended.saturating_duration_since(begun).as_secs_f64())
}
