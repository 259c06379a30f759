//! Processor time of processes and of their threads, from `/proc`.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

/// Processor time so far, in seconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpu {
    nodes: f64,
    own: f64,
    threads: BTreeMap<String, f64>,
}

/// Processor time of a phase.
#[derive(Debug, Default, Serialize)]
pub(crate) struct CpuUse {
    /// Of all nodes together, per operation.
    pub(crate) nodes_us_per_op: f64,
    /// Of this program, per operation.
    pub(crate) client_us_per_op: f64,
    /// Of the nodes' threads by name, per operation; numbers at the end of names are left out.
    pub(crate) node_threads_us_per_op: BTreeMap<String, f64>,
    /// Of everything above, in processors.
    pub(crate) processors: f64,
}

impl Cpu {
    /// Processes that are gone count nothing.
    pub(crate) fn now(nodes: &[u32]) -> Self {
        let mut threads = BTreeMap::new();
        for pid in nodes {
            for (name, seconds) in threads_of(*pid) {
                *threads.entry(name).or_default() += seconds;
            }
        }
        let total = |process: &str| {
            fs::read_to_string(format!("/proc/{process}/stat"))
                .ok()
                .and_then(|stat| parse(&stat))
        };
        Self {
            nodes: nodes
                .iter()
                .filter_map(|pid| total(&pid.to_string()))
                .map(|(_, seconds)| seconds)
                .sum(),
            own: total("self").map_or(0.0, |(_, seconds)| seconds),
            threads,
        }
    }

    /// What was used since `earlier`, for so many operations.
    pub(crate) fn since(&self, earlier: &Self, operations: u64, seconds: f64) -> CpuUse {
        let per_op = |used: f64| used * 1e6 / operations.max(1) as f64;
        let nodes = self.nodes - earlier.nodes;
        let own = self.own - earlier.own;
        let threads = self.threads.iter().map(|(name, now)| {
            let before = earlier.threads.get(name).copied().unwrap_or_default();
            (name.clone(), per_op(now - before))
        });
        CpuUse {
            nodes_us_per_op: per_op(nodes),
            client_us_per_op: per_op(own),
            node_threads_us_per_op: threads.filter(|(_, used)| *used > 0.05).collect(),
            processors: (nodes + own) / seconds,
        }
    }
}

fn threads_of(pid: u32) -> Vec<(String, f64)> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let stats =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok());
    stats.filter_map(|stat| parse(&stat)).collect()
}

/// Name and seconds of user and system time, from a line of `stat`.
fn parse(stat: &str) -> Option<(String, f64)> {
    // The name is in parentheses and may hold any character, parentheses too.
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let name = name.trim_end_matches(|last: char| last.is_ascii_digit() || last == '-');
    Some((name.to_owned(), (user + system) / ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_read_behind_a_name_with_parentheses() {
        let ticks = rustix::param::clock_ticks_per_second();
        let stat = format!("7 (core) (x-12) S 1 2 3 4 5 6 7 8 9 10 {ticks} {ticks} 0 0");
        let (name, seconds) = parse(&stat).unwrap();
        assert_eq!(name, "core) (x");
        assert!((seconds - 2.0).abs() < 1e-9);
        assert!(parse("7 (core").is_none() && parse("7 (core) S 1 2").is_none());
    }

    #[test]
    fn this_process_has_used_some_time_by_the_end_of_a_busy_loop() {
        let before = Cpu::now(&[std::process::id()]);
        let mut sum = 0_u64;
        while Cpu::now(&[std::process::id()]).nodes <= before.nodes {
            sum = sum.wrapping_add(1);
        }
        let used = Cpu::now(&[std::process::id()]).since(&before, 1, 1.0);
        assert!(
            used.nodes_us_per_op > 0.0 && used.client_us_per_op > 0.0,
            "{sum}"
        );
    }
}
