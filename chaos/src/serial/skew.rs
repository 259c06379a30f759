//! Write-skew bait: pairs of numbers x and y, whose sum must never fall below zero.
//!
//! A transaction reads both, and takes from one of them as much as the sum allows. Under snapshot isolation two of them may
//! take from x and y at the same time, each of which was allowed to; serializability forbids it. So it is enough to look at
//! the sums that are read.

use super::finding::{Anomaly, Finding};

/// One acknowledged read of a pair, within a transaction or by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairRead {
    /// When it was answered.
    pub complete_ns: u64,
    /// The pair.
    pub pair: u64,
    /// One half.
    pub x: i64,
    /// The other half.
    pub y: i64,
}

/// Whether the sum of each pair was never below zero.
pub fn findings(reads: &[PairRead]) -> Vec<Finding> {
    let broken = reads.iter().find(|read| read.x.saturating_add(read.y) < 0);
    let broken = broken.map(
        |PairRead {
             complete_ns,
             pair,
             x,
             y,
         }| {
            let message = format!("pair {pair} was read as {x} and {y}, whose sum is below zero");
            Finding::new(Anomaly::WriteSkew, *complete_ns, message)
        },
    );
    broken.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(x: i64, y: i64) -> usize {
        let read = PairRead {
            complete_ns: 1,
            pair: 7,
            x,
            y,
        };
        findings(&[read]).len()
    }

    #[test]
    fn a_sum_of_zero_is_kept_and_one_below_is_write_skew() {
        assert_eq!(found(-5, 5), 0);
        assert_eq!(found(-5, 4), 1);
    }
}
