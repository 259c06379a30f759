//! Attempts of an interactive transaction, until one commits.

use std::time::{Duration, Instant};

use super::options::TxnOptions;
use super::outcome::Committed;
use super::txn::Txn;
use crate::client::Client;
use crate::error::{Effect, Error};

const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

impl Client {
    /// Begins a transaction that its caller commits; a conflict is the caller's to deal with.
    pub fn begin(&self, options: &TxnOptions) -> Txn {
        let until = Instant::now() + options.duration_max;
        Txn::new(self.clone(), *options, until)
    }

    /// Runs `body` in a transaction and commits it. When something that was read has changed meanwhile, the body is run
    /// again from its beginning, so it should have no effects of its own.
    ///
    /// An error of the body ends the transaction without effect, [`Error::abort`] on purpose. An unknown outcome is
    /// returned as it is: another attempt might do everything twice.
    pub async fn txn<F, Fut, T>(&self, options: &TxnOptions, body: F) -> Result<Committed<T>, Error>
    where
        F: Fn(Txn) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        let until = Instant::now() + options.duration_max;
        let mut attempts = 1;
        loop {
            let txn = Txn::new(self.clone(), *options, until);
            let conflict = match attempt(txn, &body).await {
                Ok(committed) => {
                    return Ok(Committed {
                        attempts,
                        ..committed
                    });
                }
                Err(error) if is_conflict(&error) => error,
                Err(error) => return Err(error),
            };
            attempts = begin_anew(conflict, attempts, options, until).await?;
        }
    }
}

/// Waits for the next attempt, and counts it; the conflict, when there is to be none.
pub(super) async fn begin_anew(
    conflict: Error,
    attempts: u32,
    options: &TxnOptions,
    until: Instant,
) -> Result<u32, Error> {
    let wait = wait_after(attempts, rand::random());
    let in_time = Instant::now() + wait < until;
    if attempts >= options.attempts_max || !in_time {
        return Err(conflict.with_metadata("attempts", attempts.to_string()));
    }
    tokio::time::sleep(wait).await;
    Ok(attempts.saturating_add(1))
}

async fn attempt<F, Fut, T>(txn: Txn, body: &F) -> Result<Committed<T>, Error>
where
    F: Fn(Txn) -> Fut,
    Fut: Future<Output = Result<T, Error>>,
{
    let value = body(txn.clone()).await?;
    let committed = txn.commit().await?;
    Ok(Committed {
        value,
        outcome: committed.outcome,
        attempts: 1,
    })
}

/// Met another transaction, or what was read has changed; nothing was done.
pub(super) fn is_conflict(error: &Error) -> bool {
    error.reason() == "CONFLICT" && error.effect() == Effect::None
}

/// Full jitter: anything up to the doubled time, so that those who met do not meet again.
fn wait_after(attempts: u32, chance: f64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    let full = BACKOFF_FIRST
        .saturating_mul(1_u32 << doublings)
        .min(BACKOFF_MAX);
    full.mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_doubles_up_to_its_bound_and_may_be_nothing() {
        assert_eq!(wait_after(1, 1.0), Duration::from_millis(5));
        assert_eq!(wait_after(3, 1.0), Duration::from_millis(20));
        assert_eq!(wait_after(3, 0.0), Duration::ZERO);
        for attempts in [0, 16, 17, u32::MAX] {
            assert!(wait_after(attempts, 2.0) <= BACKOFF_MAX);
        }
    }

    #[test]
    fn only_a_conflict_without_effect_begins_anew() {
        let conflict = Error::conflict("met another");
        assert!(is_conflict(&conflict));
        assert!(!is_conflict(&conflict.after_unknown_attempt()));
        assert!(!is_conflict(&Error::abort("not wanted")));
    }
}
