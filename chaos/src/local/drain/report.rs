//! What was measured, and whether the bars hold.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::local::experiment::{Findings, Wrong};
use crate::local::puts::{Answered, Outcomes, percentile};
use crate::local::rate::MaximalRate;
use crate::local::table::print;

/// How much faster than it built up a backlog must drain.
const FASTER: f64 = 3.0;
/// How many times what they are in quiet latencies may be while it drains.
const MEDIAN_TIMES: f64 = 1.5;
const P99_TIMES: f64 = 2.0;

/// When what began, and the backlog at that time.
pub(super) struct Times {
    pub(super) quiet_from: Instant,
    pub(super) blocked: Instant,
    pub(super) healed: Instant,
    pub(super) drained: Instant,
    /// The most in quiet.
    pub(super) quiet_backlog: u64,
    /// At the end of the block.
    pub(super) backlog: u64,
}

/// Latencies of puts, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Latencies {
    puts: usize,
    p50_ms: f64,
    p99_ms: f64,
    most_ms: f64,
}

impl Latencies {
    fn of(answered: &[Answered], zone: Option<usize>) -> Self {
        let of_zone = |put: &&Answered| zone.is_none_or(|zone| put.zone == zone);
        let latencies = answered.iter().filter(of_zone).map(|put| put.latency);
        let mut latencies: Vec<Duration> = latencies.collect();
        let mut at = |share| {
            let time = percentile(&mut latencies, share);
            time.map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
        };
        let (p50_ms, p99_ms, most_ms) = (at(500), at(990), at(1000));
        Self {
            puts: latencies.len(),
            p50_ms,
            p99_ms,
            most_ms,
        }
    }
}

/// The puts of one zone, or of all.
#[derive(Debug, Serialize)]
struct Puts {
    zone: String,
    quiet: Latencies,
    blocked: Latencies,
    draining: Latencies,
}

impl Puts {
    fn of(outcomes: &Outcomes, times: &Times, zone: Option<usize>) -> Self {
        let of = |from, to| Latencies::of(&outcomes.within(from, to), zone);
        Self {
            zone: zone.map_or_else(|| "all".to_owned(), |zone| format!("zone-{}", zone + 1)),
            quiet: of(times.quiet_from, times.blocked),
            blocked: of(times.blocked, times.healed),
            draining: of(times.healed, times.drained),
        }
    }
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    processors: usize,
    /// Puts per second that are in every zone.
    maximal_puts_per_second: f64,
    /// Puts per second that are acknowledged while a load lasts that is more than that.
    taken_puts_per_second: f64,
    quiet_backlog: u64,
    backlog: u64,
    blocked_s: f64,
    drained_s: f64,
    /// Effects per second.
    built_up_per_s: f64,
    drained_per_s: f64,
    faster: f64,
    median_times: f64,
    p99_times: f64,
    /// All zones first.
    puts: Vec<Puts>,
    /// Of all zones, of each second since the links were healed.
    draining_by_second: Vec<Latencies>,
    errors: BTreeMap<String, u64>,
    wrong: Wrong,
}

impl Report {
    pub(super) fn of(
        maximal: MaximalRate,
        times: Times,
        outcomes: &Outcomes,
        differs: Option<String>,
    ) -> Self {
        let seconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
        let blocked_s = seconds(times.blocked, times.healed);
        let drained_s = seconds(times.healed, times.drained);
        let all = Puts::of(outcomes, &times, None);
        let built_up_per_s = times.backlog as f64 / blocked_s;
        let drained_per_s = times.backlog as f64 / drained_s;
        let mut report = Self {
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            maximal_puts_per_second: maximal.carried,
            taken_puts_per_second: maximal.taken,
            quiet_backlog: times.quiet_backlog,
            backlog: times.backlog,
            blocked_s,
            drained_s,
            built_up_per_s,
            drained_per_s,
            faster: drained_per_s / built_up_per_s,
            median_times: all.draining.p50_ms / all.quiet.p50_ms,
            p99_times: all.draining.p99_ms / all.quiet.p99_ms,
            puts: (0..3)
                .map(|zone| Puts::of(outcomes, &times, Some(zone)))
                .collect(),
            draining_by_second: by_second(outcomes, &times),
            errors: outcomes.errors.clone(),
            wrong: Wrong::default(),
        };
        report.puts.insert(0, all);
        report.judge(differs);
        report
    }

    fn judge(&mut self, differs: Option<String>) {
        let Self {
            faster,
            median_times,
            p99_times,
            ..
        } = *self;
        let wrong = &mut self.wrong;
        wrong.broken.extend(differs);
        wrong.expect(faster >= FASTER, || {
            format!("it drains {faster:.1} times as fast as it built up, {FASTER} is wanted")
        });
        wrong.expect(median_times <= MEDIAN_TIMES, || {
            format!("the median while it drains is {median_times:.2} times the quiet one, at most {MEDIAN_TIMES} is wanted")
        });
        wrong.expect(p99_times <= P99_TIMES, || {
            format!("the 99th percentile while it drains is {p99_times:.2} times the quiet one, at most {P99_TIMES} is wanted")
        });
    }
}

fn by_second(outcomes: &Outcomes, times: &Times) -> Vec<Latencies> {
    let second = Duration::from_secs(1);
    let starts = std::iter::successors(Some(times.healed), |start| start.checked_add(second));
    let starts = starts.take_while(|start| *start < times.drained);
    let of = |start: Instant| outcomes.within(start, times.drained.min(start + second));
    starts
        .map(|start| Latencies::of(&of(start), None))
        .collect()
}

impl Findings for Report {
    fn wrong(&self) -> &Wrong {
        &self.wrong
    }

    fn show(&self) {
        print(
            [
                "maximal puts/s",
                "taken at most",
                "backlog in quiet, at most",
                "after the block",
                "built up",
                "drained",
                "faster",
                "errors",
            ],
            &[[
                format!("{:.0}", self.maximal_puts_per_second),
                format!("{:.0}", self.taken_puts_per_second),
                self.quiet_backlog.to_string(),
                self.backlog.to_string(),
                format!("{:.0}/s in {:.0} s", self.built_up_per_s, self.blocked_s),
                format!("{:.0}/s in {:.1} s", self.drained_per_s, self.drained_s),
                format!("{:.1} times", self.faster),
                format!("{:?}", self.errors),
            ]],
        );
        let told = |of: &Latencies| {
            format!(
                "{:.1} / {:.1} / {:.0} ms of {}",
                of.p50_ms, of.p99_ms, of.most_ms, of.puts
            )
        };
        let rows = self.puts.iter().map(|of| {
            [
                of.zone.clone(),
                told(&of.quiet),
                told(&of.blocked),
                told(&of.draining),
                format!("{:.2}", of.draining.p50_ms / of.quiet.p50_ms),
                format!("{:.2}", of.draining.p99_ms / of.quiet.p99_ms),
            ]
        });
        print(
            [
                "puts in zone: median / 99th percentile / most",
                "in quiet",
                "blocked",
                "draining",
                "median, times",
                "99th percentile, times",
            ],
            &rows.collect::<Vec<_>>(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// A second of quiet, six blocked, two draining; one put in each with these latencies.
    fn judged(latencies_ms: [u64; 3], differs: Option<String>) -> Wrong {
        let quiet_from = Instant::now();
        let (blocked, healed) = (quiet_from + S, quiet_from + 7 * S);
        let times = Times {
            quiet_from,
            blocked,
            healed,
            drained: healed + 2 * S,
            quiet_backlog: 1,
            backlog: 600,
        };
        let answered = [quiet_from, blocked, healed].into_iter().zip(latencies_ms);
        let answered = answered.map(|(at, ms)| Answered {
            zone: 0,
            at,
            latency: Duration::from_millis(ms),
        });
        let outcomes = Outcomes {
            answered: answered.collect(),
            ..Outcomes::default()
        };
        let maximal = MaximalRate {
            taken: 1200.0,
            carried: 1000.0,
        };
        Report::of(maximal, times, &outcomes, differs).wrong
    }

    #[test]
    fn a_block_does_not_count_and_draining_is_held_against_quiet() {
        assert_eq!(judged([10, 90, 15], None), Wrong::default());
        assert_eq!(judged([10, 10, 16], None).missed.len(), 1);
        assert_eq!(judged([10, 10, 21], None).missed.len(), 2);
    }

    #[test]
    fn zones_that_differ_have_broken_a_promise() {
        assert_eq!(
            judged([10, 10, 10], Some("differ".to_owned())).broken.len(),
            1
        );
    }
}
