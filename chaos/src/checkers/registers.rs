//! Registers: keys that one zone overwrites and reads, judged without any use of causality.
//!
//! Values are unique, so a history of writes and reads of a register is linearizable exactly when the *zones* of its
//! values allow it (Gibbons and Korach, "Testing Shared Memories", 1997, section 4): for each value take the time from the
//! first return to the last call among its write and its reads. Where the first return is before the last call the value
//! was surely the register's between the two (a forward zone); no two forward zones may overlap, and no value whose
//! operations all overlap one another (a backward zone) may lie within a forward one.
//!
//! A write of unknown outcome never returns; one that nobody read is left out. Where a mirror was promoted there is one register in
//! the keyspace before and another in the one that follows, which gets the values of both: only reads of the first era are
//! judged, and a write of a later one is of unknown outcome to it.

use std::collections::BTreeMap;

use bytes::Bytes;
use meridian_causal::Content;
use meridian_core::command::WriteIntent;
use meridian_core::request::ReadLevel;

use crate::history::{Action, History, Operation};
use crate::lineage::Lineage;
use crate::violation::{Checked, Violation};

/// The operations of one value.
#[derive(Clone, Debug, Default)]
struct Cluster {
    first_return: Option<u64>,
    last_call: u64,
    write_call: Option<u64>,
    first_read_return: Option<u64>,
    operations: Vec<usize>,
}

impl Cluster {
    fn add(&mut self, number: usize, call_ns: u64, return_ns: Option<u64>) {
        self.last_call = self.last_call.max(call_ns);
        self.first_return = [self.first_return, return_ns].into_iter().flatten().min();
        self.operations.push(number);
    }
}

/// Clusters of each register, by value; the empty value stands for "absent".
type Registers<'a> = BTreeMap<&'a Bytes, BTreeMap<Bytes, Cluster>>;

pub(super) fn check(history: &History, lineage: &Lineage) -> Checked {
    let mut registers = Registers::new();
    for (number, operation) in history.operations.iter().enumerate() {
        if let Some(key) = operation.key().filter(|key| key.starts_with(b"r/")) {
            let first_era = lineage.era(operation.keyspace) == 0;
            take(
                registers.entry(key).or_default(),
                (number, operation),
                first_era,
            )?;
        }
    }
    for (key, clusters) in &registers {
        check_register(key, clusters)?;
    }
    Ok(())
}

fn take(
    clusters: &mut BTreeMap<Bytes, Cluster>,
    (number, operation): (usize, &Operation),
    first_era: bool,
) -> Checked {
    match &operation.action {
        Action::Write {
            content: Content::Value(value),
            intent: WriteIntent::Overwrite,
            ..
        } => {
            let cluster = clusters.entry(value.clone()).or_default();
            cluster.write_call = Some(operation.call_ns);
            let acked = operation
                .return_ns
                .filter(|_| first_era && operation.receipt().is_some());
            cluster.add(number, operation.call_ns, acked);
            Ok(())
        }
        Action::Get {
            level: ReadLevel::Linearizable,
            ..
        } if first_era => take_read(clusters, number, operation),
        Action::Write { .. } | Action::Get { .. } | Action::Scan { .. } | Action::Visit { .. } => {
            Ok(())
        }
    }
}

fn take_read(
    clusters: &mut BTreeMap<Bytes, Cluster>,
    number: usize,
    operation: &Operation,
) -> Checked {
    let Some(return_ns) = operation.return_ns else {
        return Ok(());
    };
    for (key, set) in operation.found() {
        let values: Vec<&Bytes> = set
            .siblings()
            .iter()
            .filter_map(|sibling| sibling.content.value())
            .collect();
        let value = match values.as_slice() {
            [] => Bytes::new(),
            [only] => (*only).clone(),
            _ => {
                let message = format!(
                    "op {number} read {} siblings on register {key:?}",
                    values.len()
                );
                return Err(Violation::new("registers", return_ns, message));
            }
        };
        let cluster = clusters.entry(value).or_default();
        cluster.first_read_return = [cluster.first_read_return, Some(return_ns)]
            .into_iter()
            .flatten()
            .min();
        cluster.add(number, operation.attempt_ns, Some(return_ns));
    }
    Ok(())
}

/// A zone in the sense of the source: from, to, and whether it is a forward one.
struct Span<'a> {
    from: u64,
    to: u64,
    forward: bool,
    cluster: &'a Cluster,
}

fn check_register(key: &Bytes, clusters: &BTreeMap<Bytes, Cluster>) -> Checked {
    let mut spans: Vec<Span<'_>> = Vec::new();
    for (value, cluster) in clusters {
        let absent = value.is_empty();
        if let Some(read) = cluster.first_read_return
            && !absent
            && cluster.write_call.is_none_or(|call| call > read)
        {
            let message = format!(
                "ops {:?} read a value on {key:?} that nobody had written",
                cluster.operations
            );
            return Err(Violation::new("registers", read, message));
        }
        let Some(first_return) = cluster.first_return else {
            continue;
        };
        // The register is absent from the start, as if that had been written then.
        let first_return = if absent { 0 } else { first_return };
        let forward = first_return < cluster.last_call;
        let (from, to) = if forward {
            (first_return, cluster.last_call)
        } else {
            (cluster.last_call, first_return)
        };
        spans.push(Span {
            from,
            to,
            forward,
            cluster,
        });
    }
    spans.sort_by_key(|span| (span.from, span.to));
    check_spans(key, &spans)
}

fn check_spans(key: &Bytes, spans: &[Span<'_>]) -> Checked {
    for (place, span) in spans.iter().enumerate() {
        for other in spans.iter().skip(place + 1) {
            let overlap = span.forward && other.forward && other.from < span.to;
            let within = |inner: &Span<'_>, outer: &Span<'_>| {
                outer.forward && !inner.forward && outer.from < inner.from && inner.to < outer.to
            };
            if overlap || within(other, span) || within(span, other) {
                return Err(Violation::new(
                    "registers",
                    other.from,
                    format!(
                        "register {key:?} is not linearizable: ops {:?} against ops {:?}",
                        span.cluster.operations, other.cluster.operations
                    ),
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(first_return: u64, last_call: u64) -> Cluster {
        Cluster {
            first_return: Some(first_return),
            last_call,
            write_call: Some(0),
            first_read_return: None,
            operations: Vec::new(),
        }
    }

    fn judge(clusters: &[(&'static str, Cluster)]) -> Checked {
        let clusters = clusters
            .iter()
            .map(|(value, cluster)| (Bytes::from_static(value.as_bytes()), cluster.clone()));
        check_register(&Bytes::from_static(b"r/0/0"), &clusters.collect())
    }

    #[test]
    fn values_that_follow_one_another_pass() {
        assert!(judge(&[("a", cluster(10, 20)), ("b", cluster(30, 40))]).is_ok());
    }

    #[test]
    fn two_values_that_were_both_there_at_one_time_are_found() {
        assert!(judge(&[("a", cluster(10, 30)), ("b", cluster(20, 40))]).is_err());
    }

    #[test]
    fn a_short_value_inside_the_time_of_another_is_found() {
        assert!(judge(&[("a", cluster(10, 50)), ("b", cluster(30, 20))]).is_err());
        assert!(judge(&[("a", cluster(10, 50)), ("b", cluster(60, 20))]).is_ok());
    }

    #[test]
    fn an_absent_register_read_after_a_write_is_found() {
        assert!(judge(&[("a", cluster(10, 20)), ("", cluster(60, 50))]).is_err());
    }
}
