//! Latencies: how they are kept, and what of them is reported.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// A minute; longer counts as a minute.
const NANOS_MAX: u64 = 60_000_000_000;

/// Three digits, from a microsecond to a minute.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, NANOS_MAX, 3)
        .expect("the bounds are in order and three digits are allowed")
}

pub(crate) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(NANOS_MAX));
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Latencies {
    pub(crate) count: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

impl Latencies {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            count: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_microseconds_and_what_is_too_long_counts_as_the_longest() {
        let mut histogram = histogram();
        for micros in 1..=1000 {
            record(&mut histogram, Duration::from_micros(micros));
        }
        record(&mut histogram, Duration::from_hours(1));
        let latencies = Latencies::of(&histogram);
        assert_eq!(latencies.count, 1001);
        assert!((495.0..506.0).contains(&latencies.p50_us), "{latencies:?}");
        assert!(latencies.max_us > 59e6, "{latencies:?}");
    }
}
