//! The same seed twice gives the same bytes: every event, with its time and a hash of every message.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use meridian_chaos::run::run;
use meridian_chaos::scenario::{Alters, Options, Topology};
use meridian_chaos::trace::Trace;
use meridian_core::config::PlantedBugs;

/// Bytes that outlive the trace that wrote them.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn trace_of((seed, alters): (u64, Alters), topology: Topology) -> Vec<u8> {
    let shared = Shared::default();
    let options = Options {
        seed,
        seconds: 12,
        topology: Some(topology),
        mode: meridian_core::catalog::Mode::Async,
        alters,
        planted: PlantedBugs::default(),
    };
    let report = run(options, Trace::to(Box::new(shared.clone()), false));
    assert!(report.violation.is_none(), "{:?}", report.violation);
    let bytes = shared
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    assert!(bytes.len() > 100_000, "a trace of {} bytes", bytes.len());
    bytes
}

fn check(seed: u64, topology: Topology) {
    check_of((seed, Alters::Never), topology);
}

fn check_of(seed: (u64, Alters), topology: Topology) {
    let (first, again) = (trace_of(seed, topology), trace_of(seed, topology));
    let lines = first
        .split(|byte| *byte == b'\n')
        .zip(again.split(|byte| *byte == b'\n'));
    for (number, (one, two)) in lines.enumerate() {
        assert_eq!(
            String::from_utf8_lossy(one),
            String::from_utf8_lossy(two),
            "line {}",
            number + 1
        );
    }
    assert_eq!(first.len(), again.len());
}

#[test]
fn a_seed_gives_the_same_trace_twice_with_zones_of_one_node() {
    check(11, Topology::THREE_BY_ONE);
}

#[test]
fn a_seed_gives_the_same_trace_twice_with_zones_of_three_nodes() {
    check(12, Topology::THREE_BY_THREE);
}

#[test]
fn a_seed_gives_the_same_trace_twice_in_one_zone() {
    check(13, Topology::ONE_BY_THREE);
}

#[test]
fn a_seed_gives_the_same_trace_twice_while_the_keyspace_is_altered() {
    check_of((16, Alters::Always), Topology::THREE_BY_ONE);
}

#[test]
fn two_seeds_give_different_traces() {
    assert_ne!(
        trace_of((14, Alters::Never), Topology::ONE_BY_THREE),
        trace_of((15, Alters::Never), Topology::ONE_BY_THREE)
    );
}
