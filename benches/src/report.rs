//! What is reported, and what the figures are held against.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cpu::CpuUse;
use crate::disk::Fdatasync;
use crate::lag::Backlog;
use crate::latency::Latencies;
use crate::load::Outcomes;

/// Targets for two processors, three nodes, values of 100 bytes and 256 requests in flight.
pub(crate) const PUTS_PER_SECOND_MIN: f64 = 20_000.0;
pub(crate) const GETS_PER_SECOND_MIN: f64 = 40_000.0;
/// Transactions of two reads and two writes, as a part of the puts of the same run.
const ONE_SHARD_PART_MIN: f64 = 0.5;
const TWO_SHARDS_PART_MIN: f64 = 0.2;
/// A single put takes at most two fdatasyncs and so much more, in the median.
const PUT_OVERHEAD_US_MAX: f64 = 300.0;

/// What was measured in one phase.
#[derive(Debug, Serialize)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) per_second: f64,
    pub(crate) seconds: f64,
    pub(crate) latency: Latencies,
    pub(crate) found: u64,
    pub(crate) errors: std::collections::BTreeMap<String, u64>,
    pub(crate) cpu: CpuUse,
    /// Operations answered in each second.
    pub(crate) timeline: Vec<u64>,
}

impl Phase {
    pub(crate) fn of(name: &'static str, outcomes: Outcomes, cpu: CpuUse) -> Self {
        Self {
            name,
            per_second: outcomes.rate(),
            seconds: outcomes.seconds,
            latency: Latencies::of(&outcomes.latencies),
            found: outcomes.found,
            errors: outcomes.errors,
            cpu,
            timeline: outcomes.per_second,
        }
    }
}

/// One target.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) target: String,
    pub(crate) measured: String,
    pub(crate) passed: bool,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) cluster: String,
    pub(crate) in_flight: usize,
    pub(crate) value_bytes: usize,
    pub(crate) keys: u64,
    pub(crate) processors: usize,
    pub(crate) fdatasync: Option<Fdatasync>,
    pub(crate) single_put: Phase,
    pub(crate) puts: Phase,
    pub(crate) backlog: Backlog,
    pub(crate) gets: Phase,
    /// Kinds of transactions, then puts again.
    pub(crate) transactions: Vec<Phase>,
    pub(crate) verdicts: Vec<Verdict>,
}

impl Report {
    /// Holds the figures against the targets.
    pub(crate) fn judge(&mut self) {
        let least = |what: &str, phase: &Phase, least: f64| Verdict {
            target: format!("at least {least:.0} {what} per second"),
            measured: format!("{:.0}", phase.per_second),
            passed: phase.per_second >= least,
        };
        let mut verdicts = vec![
            least("puts", &self.puts, PUTS_PER_SECOND_MIN),
            least("linearizable gets", &self.gets, GETS_PER_SECOND_MIN),
        ];
        let entries: Vec<_> = at_thirds(&self.backlog)
            .map(|entries| entries.to_string())
            .collect();
        verdicts.push(Verdict {
            target: "no growing backlog between zones".to_owned(),
            measured: format!("entries at start, middle, end: {}", entries.join(", ")),
            passed: !self.backlog.grows && self.backlog.drained_after_s.is_some(),
        });
        if let Some(fdatasync) = &self.fdatasync {
            let most = 2.0 * fdatasync.latency.p50_us + PUT_OVERHEAD_US_MAX;
            verdicts.push(Verdict {
                target: format!("median of a single put at most 2 x fdatasync + {PUT_OVERHEAD_US_MAX:.0} us = {most:.0} us"),
                measured: format!("{:.0} us", self.single_put.latency.p50_us),
                passed: self.single_put.latency.p50_us <= most,
            });
        }
        verdicts.extend(self.transaction_verdicts());
        let errors: u64 = self.phases().flat_map(|phase| phase.errors.values()).sum();
        verdicts.push(Verdict {
            target: "no errors".to_owned(),
            measured: errors.to_string(),
            passed: errors == 0,
        });
        self.verdicts = verdicts;
    }

    fn phases(&self) -> impl Iterator<Item = &Phase> {
        [&self.single_put, &self.puts, &self.gets]
            .into_iter()
            .chain(&self.transactions)
    }

    /// Against the puts of the same run: the mean of those before and after.
    fn transaction_verdicts(&self) -> Vec<Verdict> {
        let Some((again, kinds)) = self.transactions.split_last() else {
            return Vec::new();
        };
        let puts = f64::midpoint(self.puts.per_second, again.per_second);
        let verdict = |phase: &Phase| {
            let least = if phase.name.starts_with("one shard") {
                ONE_SHARD_PART_MIN
            } else {
                TWO_SHARDS_PART_MIN
            };
            let part = phase.per_second / puts;
            Verdict {
                target: format!("{}: at least {least} of the puts", phase.name),
                measured: format!("{part:.2} of {puts:.0}"),
                passed: part >= least,
            }
        };
        kinds.iter().map(verdict).collect()
    }

    pub(crate) fn passed(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.passed)
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        match self.write(&mut text) {
            Ok(()) | Err(std::fmt::Error) => text,
        }
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "{}: {} in flight, values of {} bytes, {} keys, {} processors\n",
            self.cluster, self.in_flight, self.value_bytes, self.keys, self.processors
        )?;
        writeln!(
            text,
            "{:24}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "", "per s", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us"
        )?;
        if let Some(fdatasync) = &self.fdatasync {
            let name = format!("fdatasync, {} writers", fdatasync.writers);
            line(text, &name, None, &fdatasync.latency)?;
        }
        for phase in self.phases() {
            line(text, phase.name, Some(phase.per_second), &phase.latency)?;
        }
        writeln!(text, "\nprocessor time per operation, us (user and system)")?;
        for phase in self.phases() {
            let cpu = &phase.cpu;
            let threads: Vec<_> = cpu
                .node_threads_us_per_op
                .iter()
                .map(|(name, used)| format!("{name} {used:.1}"))
                .collect();
            writeln!(
                text,
                "{:24}nodes {:.1}, client {:.1}, together {:.2} processors; threads of nodes: {}",
                phase.name,
                cpu.nodes_us_per_op,
                cpu.client_us_per_op,
                cpu.processors,
                threads.join(", ")
            )?;
        }
        let drained = self
            .backlog
            .drained_after_s
            .map_or("not drained in time".to_owned(), |seconds| {
                format!("drained {seconds:.2} s after the last put")
            });
        let lag = self
            .backlog
            .samples
            .iter()
            .map(|sample| sample.lag_ms)
            .max()
            .unwrap_or_default();
        writeln!(
            text,
            "\nbacklog between zones: greatest lag {lag} ms; {drained}"
        )?;
        for phase in self.phases() {
            for (reason, count) in &phase.errors {
                writeln!(text, "{}: {count} times {reason}", phase.name)?;
            }
        }
        writeln!(text)?;
        for Verdict {
            target,
            measured,
            passed,
        } in &self.verdicts
        {
            let word = if *passed { "PASS" } else { "FAIL" };
            writeln!(text, "{word}  {target}: {measured}")?;
        }
        Ok(())
    }
}

fn line(text: &mut String, name: &str, rate: Option<f64>, latency: &Latencies) -> std::fmt::Result {
    let rate = rate.map_or(String::new(), |rate| format!("{rate:.0}"));
    let Latencies {
        p50_us,
        p90_us,
        p99_us,
        p999_us,
        max_us,
        count: _,
        mean_us: _,
    } = latency;
    writeln!(
        text,
        "{name:24}{rate:>10}{p50_us:>10.0}{p90_us:>10.0}{p99_us:>10.0}{p999_us:>10.0}{max_us:>10.0}"
    )
}

/// Entries of the first sample, one in the middle, and the last.
fn at_thirds(backlog: &Backlog) -> impl Iterator<Item = u64> + '_ {
    let last = backlog.samples.len().saturating_sub(1);
    let places = [0, last / 2, last];
    places
        .into_iter()
        .filter_map(|place| backlog.samples.get(place))
        .map(|sample| sample.entries)
}
