//! What workloads have in common: patience with a cluster that is being disturbed.

use std::time::{Duration, Instant};

use meridian_client::Error;

/// What must be read before and after the load is asked for so long.
const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(100);

/// Asks until there is an answer: for calls that may be repeated.
pub(super) async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, Error>>,
{
    let until = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= until => return Err(error.to_string()),
            Err(_disturbed) => tokio::time::sleep(PAUSE).await,
        }
    }
}
