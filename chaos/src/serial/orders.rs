//! Orders that do not follow from values: what one process did, and what was over before another began.
//!
//! Real time is a chain of relays, one per end of a transaction: an end leads into its relay, relays follow one another,
//! and whatever began later hangs on the last relay before its beginning. That is linear in the history, and says the same as a
//! link from every transaction to every later one.

use std::collections::BTreeMap;

use super::graph::{Builder, Kind, Layer, Link, Why};
use super::known::Known;

/// A chain of moments, each with the relay that stands for everything after it.
#[derive(Debug, Default)]
pub(super) struct Moments {
    chain: Vec<(u64, usize)>,
}

impl Moments {
    /// A chain of these moments, which are sorted, linked from the earlier to the later.
    pub(super) fn new(
        graph: &mut Builder,
        moments: impl Iterator<Item = u64>,
        layer: Layer,
    ) -> Self {
        let chain: Vec<(u64, usize)> = moments.map(|moment| (moment, graph.relay())).collect();
        for ((_, earlier), (_, later)) in chain.iter().zip(chain.iter().skip(1)) {
            graph.link(*earlier, passes(*later, layer, Why::default()));
        }
        Self { chain }
    }

    /// The relay of each moment, in order.
    pub(super) fn relays(&self) -> impl Iterator<Item = usize> {
        self.chain.iter().map(|(_, relay)| *relay)
    }

    /// The relay of the last moment before a time.
    pub(super) fn before(&self, time: u64) -> Option<usize> {
        let later = self.chain.partition_point(|(moment, _)| *moment < time);
        let place = later.checked_sub(1)?;
        self.chain.get(place).map(|(_, relay)| *relay)
    }
}

/// A link out of a relay.
pub(super) const fn passes(to: usize, layer: Layer, why: Why) -> Link {
    Link {
        to,
        kind: Kind::Pass,
        layer,
        why,
    }
}

/// Links what one process did one after the other.
pub(super) fn link_processes(known: &Known<'_>, graph: &mut Builder) {
    let mut processes: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (number, txn) in known.happened() {
        processes.entry(txn.process).or_default().push(number);
    }
    for numbers in processes.values_mut() {
        numbers.sort_by_key(|number| known.invoked_ns(*number));
        for (earlier, later) in numbers.iter().zip(numbers.iter().skip(1)) {
            let end = known.ended_ns(*earlier);
            if end.is_some_and(|end| end <= known.invoked_ns(*later)) {
                graph.link(*earlier, order(*later, Layer::Process));
            }
        }
    }
}

/// Links what was over to what began later.
pub(super) fn link_real_time(known: &Known<'_>, graph: &mut Builder) {
    let ended = known
        .happened()
        .filter_map(|(number, txn)| Some((txn.ended_ns()?, number)));
    let mut ends: Vec<(u64, usize)> = ended.collect();
    ends.sort_unstable();
    let moments = Moments::new(graph, ends.iter().map(|(end, _)| *end), Layer::Realtime);
    for ((_, number), relay) in ends.iter().zip(moments.relays()) {
        graph.link(*number, order(relay, Layer::Realtime));
    }
    for (number, txn) in known.happened() {
        if let Some(relay) = moments.before(txn.invoke_ns) {
            graph.link(relay, passes(number, Layer::Realtime, Why::default()));
        }
    }
}

fn order(to: usize, layer: Layer) -> Link {
    Link {
        to,
        kind: Kind::Order,
        layer,
        why: Why::default(),
    }
}
