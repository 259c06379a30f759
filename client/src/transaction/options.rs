//! What bounds a transaction.

use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// Comparisons and actions that a node takes in one transaction.
const OPERATIONS_MAX: usize = 4096;
/// Comparisons and actions of a transaction that does not say otherwise: more is mostly a mistake, and each of them
/// makes a conflict more likely.
const OPERATIONS_DEFAULT: usize = 128;
/// Bytes of keys, values and contexts that a node takes in one transaction.
const BYTES_MAX: usize = 2 << 20;
const DURATION_DEFAULT: Duration = Duration::from_secs(10);
const ATTEMPTS_DEFAULT: u32 = 16;

/// Bounds of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnOptions {
    /// Keys and ranges read, and keys written, at most. More than 4096 counts as 4096. A scan reads one range of each
    /// shard in each page.
    pub operations_max: usize,
    /// Bytes of keys and values at most. More than 2 MiB counts as 2 MiB.
    pub bytes_max: usize,
    /// Time from the beginning to the commit, attempts that met a conflict included.
    pub duration_max: Duration,
    /// Attempts at most when they meet conflicts, the first included.
    pub attempts_max: u32,
}

impl Default for TxnOptions {
    fn default() -> Self {
        Self {
            operations_max: OPERATIONS_DEFAULT,
            bytes_max: BYTES_MAX,
            duration_max: DURATION_DEFAULT,
            attempts_max: ATTEMPTS_DEFAULT,
        }
    }
}

impl TxnOptions {
    /// Refuses what is too large, before anything is sent.
    pub(super) fn check(&self, operations: usize, bytes: usize) -> Result<(), Error> {
        let operations_max = self.operations_max.min(OPERATIONS_MAX);
        if operations > operations_max {
            let message =
                format!("transaction of {operations} reads and writes exceeds {operations_max}");
            return Err(too_large(
                "TXN_TOO_MANY_OPERATIONS",
                message,
                (operations, operations_max),
            ));
        }
        let bytes_max = self.bytes_max.min(BYTES_MAX);
        if bytes > bytes_max {
            let message = format!("transaction of {bytes} bytes exceeds {bytes_max}");
            return Err(too_large(
                "TRANSACTION_TOO_LARGE",
                message,
                (bytes, bytes_max),
            ));
        }
        Ok(())
    }
}

fn too_large(reason: &str, message: String, (found, limit): (usize, usize)) -> Error {
    Error::new(ErrorKind::InvalidArgument, reason, message)
        .with_metadata("found", found.to_string())
        .with_metadata("limit", limit.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_inclusive_and_never_above_those_of_a_node() {
        let options = TxnOptions::default();
        assert!(options.check(128, 2 << 20).is_ok());
        let reason = |options: TxnOptions, operations, bytes| {
            let refused = options.check(operations, bytes).unwrap_err();
            assert_eq!(refused.effect(), crate::Effect::None);
            refused.reason().to_owned()
        };
        assert_eq!(reason(options, 129, 0), "TXN_TOO_MANY_OPERATIONS");
        assert_eq!(reason(options, 0, (2 << 20) + 1), "TRANSACTION_TOO_LARGE");
        let boundless = TxnOptions {
            operations_max: usize::MAX,
            bytes_max: usize::MAX,
            ..options
        };
        assert!(boundless.check(4096, 2 << 20).is_ok());
        assert_eq!(reason(boundless, 4097, 0), "TXN_TOO_MANY_OPERATIONS");
        assert_eq!(reason(boundless, 0, (2 << 20) + 1), "TRANSACTION_TOO_LARGE");
    }
}
