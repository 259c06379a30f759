//! What was measured, and whether the bar holds.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::samples::Sample;
use crate::local::experiment::{Findings, Wrong};
use crate::local::puts::{Outcomes, percentile};
use crate::local::rate::MaximalRate;
use crate::local::table::print;
use crate::local::zones::Zones;

/// What the 99th percentile may take beside the delay.
const BESIDE_DELAY_MS: f64 = 50.0;

/// One run.
pub(super) struct Run {
    samples: Vec<Sample>,
    latencies: Vec<Duration>,
    errors: BTreeMap<String, u64>,
}

impl Run {
    pub(super) fn of(samples: Vec<Sample>, load: &Outcomes) -> Self {
        let latencies = load.answered.iter().map(|put| put.latency);
        Self {
            samples,
            latencies: latencies.collect(),
            errors: load.errors.clone(),
        }
    }
}

/// Milliseconds of each run, and their median.
#[derive(Debug, Serialize)]
struct Over {
    median: f64,
    runs: Vec<f64>,
}

impl Over {
    fn of(runs: Vec<f64>) -> Self {
        let mut sorted = runs.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
        Self { median, runs }
    }
}

/// From one zone to another.
#[derive(Debug, Serialize)]
struct Pair {
    from: String,
    to: String,
    delay_ms: f64,
    samples: usize,
    /// Samples that were never seen.
    lost: usize,
    /// From acknowledged to seen.
    median_ms: Over,
    p99_ms: Over,
    most_ms: Over,
    /// From asked for to seen.
    since_asked_p99_ms: Over,
    holds: bool,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    processors: usize,
    /// Puts per second that are in every zone.
    maximal_puts_per_second: f64,
    /// Puts per second that are acknowledged while a load lasts that is more than that.
    taken_puts_per_second: f64,
    /// Answered in the runs, over their time.
    puts: usize,
    put_p50_ms: f64,
    put_p99_ms: f64,
    errors: BTreeMap<String, u64>,
    pairs: Vec<Pair>,
    wrong: Wrong,
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Report {
    pub(super) fn of(zones: &Zones, maximal: MaximalRate, runs: Vec<Run>) -> Self {
        let mut pairs = Vec::new();
        for from in 0..zones.count() {
            for to in (0..zones.count()).filter(|to| *to != from) {
                pairs.push(pair((from, to), ms(zones.delay(from, to)), &runs));
            }
        }
        let mut wrong = Wrong::default();
        for pair in &pairs {
            judge(pair, &mut wrong);
        }
        let mut errors = BTreeMap::new();
        let mut latencies = Vec::new();
        for run in runs {
            latencies.extend(run.latencies);
            for (reason, count) in run.errors {
                *errors.entry(reason).or_default() += count;
            }
        }
        let mut at = |share| percentile(&mut latencies, share).map_or(f64::NAN, ms);
        let (put_p50_ms, put_p99_ms) = (at(500), at(990));
        Self {
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            maximal_puts_per_second: maximal.carried,
            taken_puts_per_second: maximal.taken,
            puts: latencies.len(),
            put_p50_ms,
            put_p99_ms,
            errors,
            pairs,
            wrong,
        }
    }
}

fn pair((from, to): (usize, usize), delay_ms: f64, runs: &[Run]) -> Pair {
    let of = |run: &Run| -> Vec<Sample> {
        let samples = run.samples.iter();
        let samples = samples.filter(|sample| (sample.from, sample.to) == (from, to));
        samples.copied().collect()
    };
    let over = |share: usize, time: fn(&Sample) -> Option<Duration>| {
        let of_run = |run: &Run| {
            let mut times: Vec<Duration> = of(run).iter().filter_map(time).collect();
            percentile(&mut times, share).map_or(f64::NAN, ms)
        };
        Over::of(runs.iter().map(of_run).collect())
    };
    let all: Vec<Sample> = runs.iter().flat_map(of).collect();
    let p99_ms = over(990, |sample| sample.lag);
    Pair {
        from: format!("zone-{}", from + 1),
        to: format!("zone-{}", to + 1),
        delay_ms,
        samples: all.len(),
        lost: all.iter().filter(|sample| sample.lag.is_none()).count(),
        median_ms: over(500, |sample| sample.lag),
        holds: p99_ms.median <= delay_ms + BESIDE_DELAY_MS,
        p99_ms,
        most_ms: over(1000, |sample| sample.lag),
        since_asked_p99_ms: over(990, |sample| sample.since_asked),
    }
}

fn judge(pair: &Pair, wrong: &mut Wrong) {
    let Pair { from, to, .. } = pair;
    if pair.samples == 0 {
        wrong
            .broken
            .push(format!("{from} to {to}: no put was acknowledged"));
    }
    if pair.lost > 0 {
        let (lost, samples) = (pair.lost, pair.samples);
        wrong.broken.push(format!(
            "{from} to {to}: {lost} of {samples} puts were never seen"
        ));
    }
    let (p99, bar) = (pair.p99_ms.median, pair.delay_ms + BESIDE_DELAY_MS);
    wrong.expect(pair.holds || pair.samples == 0, || {
        format!("{from} to {to}: 99th percentile {p99:.0} ms, at most {bar:.0} ms is wanted")
    });
}

impl Findings for Report {
    fn wrong(&self) -> &Wrong {
        &self.wrong
    }

    fn show(&self) {
        let head = [
            "from".to_owned(),
            "to".to_owned(),
            "delay".to_owned(),
            "median".to_owned(),
            "99th percentile (of the runs)".to_owned(),
            "most".to_owned(),
            "99th percentile since asked for".to_owned(),
            "bar".to_owned(),
        ];
        let rows: Vec<[String; 8]> = self.pairs.iter().map(row).collect();
        print(head.each_ref().map(String::as_str), &rows);
        print(
            [
                "maximal puts/s",
                "taken at most",
                "puts in the runs",
                "put: median",
                "put: 99th percentile",
                "errors",
            ],
            &[[
                format!("{:.0}", self.maximal_puts_per_second),
                format!("{:.0}", self.taken_puts_per_second),
                self.puts.to_string(),
                format!("{:.1} ms", self.put_p50_ms),
                format!("{:.1} ms", self.put_p99_ms),
                format!("{:?}", self.errors),
            ]],
        );
    }
}

fn row(pair: &Pair) -> [String; 8] {
    let runs: Vec<String> = pair
        .p99_ms
        .runs
        .iter()
        .map(|ms| format!("{ms:.0}"))
        .collect();
    [
        pair.from.clone(),
        pair.to.clone(),
        format!("{:.0} ms", pair.delay_ms),
        format!("{:.0} ms", pair.median_ms.median),
        format!("{:.0} ms ({})", pair.p99_ms.median, runs.join(", ")),
        format!("{:.0} ms", pair.most_ms.median),
        format!("{:.0} ms", pair.since_asked_p99_ms.median),
        format!("{:.0} ms", pair.delay_ms + BESIDE_DELAY_MS),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lags_ms: &[Option<u64>]) -> Run {
        let sample = |ms: &Option<u64>| Sample {
            from: 0,
            to: 1,
            lag: ms.map(Duration::from_millis),
            since_asked: ms.map(|ms| Duration::from_millis(ms + 5)),
        };
        let samples = lags_ms.iter().map(sample).collect();
        Run::of(samples, &Outcomes::default())
    }

    fn judged(runs: &[Run]) -> Wrong {
        let mut wrong = Wrong::default();
        judge(&pair((0, 1), 30.0, runs), &mut wrong);
        wrong
    }

    #[test]
    fn the_median_of_the_runs_decides_not_the_worst() {
        let good = || run(&[Some(31), Some(80)]);
        let bad = || run(&[Some(31), Some(81)]);
        assert_eq!(judged(&[good(), bad(), good()]), Wrong::default());
        assert_eq!(judged(&[bad(), bad(), good()]).missed.len(), 1);
    }

    #[test]
    fn a_put_that_is_never_seen_is_a_broken_promise_and_so_is_none_at_all() {
        assert_eq!(judged(&[run(&[Some(31), None])]).broken.len(), 1);
        assert_eq!(judged(&[run(&[])]).broken.len(), 1);
    }
}
