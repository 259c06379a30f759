//! Cycles: what cannot be put into any order.
//!
//! The layers are tried from the lowest, the shapes from the strongest, so that what is reported needs no more than its
//! name says. Of the cycles of a component a shortest one is shown, within a budget: in a component of a hundred thousand
//! transactions not every cycle is looked at, but that there is one is always found.

use std::collections::VecDeque;

use super::components::components;
use super::finding::{Order, Shape};
use super::graph::{Graph, Kind, Layer, Link, PerNode};

/// Components shown at most.
const SHOWN_MAX: usize = 8;
/// Links looked at for one shape of one component.
const LINKS_LOOKED_AT_MAX: usize = 20_000_000;
/// Once a cycle is known, so many further beginnings are tried for a shorter one.
const BEGINNINGS_MAX: usize = 256;

/// One transaction before another: the first link says why, the last one leads there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The earlier.
    pub(super) from: usize,
    /// The later.
    pub(super) to: usize,
    /// The link out of the earlier.
    pub(super) first: Link,
    /// The link into the later; the same when no relay is between.
    pub(super) last: Link,
    /// The highest layer on the way.
    pub(super) layer: Layer,
}

/// Transactions each of which is before the next, and the last before the first.
#[derive(Clone, Debug)]
pub(super) struct Cycle {
    /// The steps, in order.
    pub(super) steps: Vec<Step>,
}

impl Cycle {
    /// The shape, told from its steps.
    pub(super) fn shape(&self) -> Shape {
        let count = |kind| {
            self.steps
                .iter()
                .filter(|step| step.first.kind == kind)
                .count()
        };
        match (count(Kind::Rw), count(Kind::Wr)) {
            (0, 0) => Shape::G0,
            (0, _) => Shape::G1c,
            (1, _) => Shape::GSingle,
            (_, _) => Shape::G2,
        }
    }

    /// The orders it needs, told from its steps.
    pub(super) fn order(&self) -> Order {
        let highest = self.steps.iter().map(|step| step.layer).max();
        match highest.unwrap_or(Layer::Values) {
            Layer::Values => Order::Dependencies,
            Layer::Process => Order::Process,
            Layer::Realtime | Layer::Reads => Order::Realtime,
        }
    }
}

/// Cycles at the lowest layer that has any; none when the transactions can be put into an order.
pub(super) fn cycles(graph: &Graph) -> Vec<Cycle> {
    let found = Layer::ALL.into_iter().map(|layer| cycles_at(graph, layer));
    found
        .into_iter()
        .find(|cycles| !cycles.is_empty())
        .unwrap_or_default()
}

fn cycles_at(graph: &Graph, layer: Layer) -> Vec<Cycle> {
    let all = components(graph, |link| link.layer <= layer);
    if all.is_empty() {
        return Vec::new();
    }
    let mut found = Found {
        graph,
        layer,
        covered: PerNode::new(graph.nodes(), false),
        cycles: Vec::new(),
    };
    found.within(Shape::G0, Kind::Ww);
    found.within(Shape::G1c, Kind::Wr);
    for component in all {
        found.with_reads(&component);
    }
    found.cycles
}

/// Whether cycles of a shape may hold a link, beside the one they begin with.
const fn admits(shape: Shape, kind: Kind) -> bool {
    match kind {
        Kind::Ww | Kind::Order | Kind::Pass => true,
        Kind::Wr => !matches!(shape, Shape::G0),
        Kind::Rw => matches!(shape, Shape::G2),
    }
}

struct Found<'a> {
    graph: &'a Graph,
    layer: Layer,
    covered: PerNode<bool>,
    cycles: Vec<Cycle>,
}

impl Found<'_> {
    /// Shapes whose every link is admitted: their own components hold them.
    fn within(&mut self, shape: Shape, begin: Kind) {
        let layer = self.layer;
        let takes = |link: &Link| link.layer <= layer && admits(shape, link.kind);
        for component in components(self.graph, takes) {
            self.cover(&component, shape, begin);
        }
    }

    /// A component with links from reads to writes, unless a stronger shape was found in it.
    fn with_reads(&mut self, component: &[usize]) {
        if !self.cover(component, Shape::GSingle, Kind::Rw) {
            self.cover(component, Shape::G2, Kind::Rw);
        }
    }

    /// Whether the component is covered now.
    fn cover(&mut self, component: &[usize], shape: Shape, begin: Kind) -> bool {
        if self.cycles.len() >= SHOWN_MAX
            || component.iter().any(|node| self.covered.get(*node, false))
        {
            return true;
        }
        let layer = self.layer;
        let takes = |link: &Link| link.layer <= layer && admits(shape, link.kind);
        let cycle = Shortest::new(self.graph, component, takes).beginning_with(begin, layer);
        let is_found = cycle.is_some();
        if is_found {
            for node in component {
                self.covered.set(*node, true);
            }
        }
        self.cycles.extend(cycle);
        is_found
    }
}

/// How a node was reached: from which, and over which link.
type Origin = Option<(usize, usize)>;

/// A search for shortest ways within a component.
struct Shortest<'a, F> {
    graph: &'a Graph,
    component: &'a [usize],
    inside: PerNode<bool>,
    takes: F,
    round: PerNode<usize>,
    origin: PerNode<Origin>,
    rounds: usize,
    looked_at: usize,
}

impl<'a, F: Fn(&Link) -> bool> Shortest<'a, F> {
    fn new(graph: &'a Graph, component: &'a [usize], takes: F) -> Self {
        let nodes = graph.nodes();
        let mut inside = PerNode::new(nodes, false);
        for node in component {
            inside.set(*node, true);
        }
        Self {
            graph,
            component,
            inside,
            takes,
            round: PerNode::new(nodes, 0),
            origin: PerNode::new(nodes, None),
            rounds: 0,
            looked_at: 0,
        }
    }

    /// A shortest cycle among those tried that begin with a link of this kind.
    fn beginning_with(&mut self, kind: Kind, layer: Layer) -> Option<Cycle> {
        let mut best: Option<Cycle> = None;
        let mut tried = 0;
        for from in self.component {
            for number in self.graph.out(*from) {
                let Some(link) = self
                    .graph
                    .link(number)
                    .filter(|link| link.kind == kind && link.layer <= layer)
                else {
                    continue;
                };
                let enough = best
                    .as_ref()
                    .is_some_and(|cycle| cycle.steps.len() <= 2 || tried >= BEGINNINGS_MAX);
                if enough || self.looked_at > LINKS_LOOKED_AT_MAX {
                    return best;
                }
                tried += usize::from(best.is_some());
                best = shorter(best, self.closing(*from, number, link.to));
            }
        }
        best
    }

    /// A cycle that begins with this link.
    fn closing(&mut self, from: usize, number: usize, to: usize) -> Option<Cycle> {
        if !self.inside.get(to, false) || !self.reach(to, from) {
            return None;
        }
        let mut links = Vec::new();
        let mut node = from;
        while node != to {
            let (before, number) = self.origin.get(node, None)?;
            links.push((before, number));
            node = before;
        }
        links.push((from, number));
        links.reverse();
        Some(Cycle {
            steps: steps(self.graph, &links),
        })
    }

    /// Breadth first, where relays cost nothing: whether there is a way.
    fn reach(&mut self, start: usize, goal: usize) -> bool {
        self.rounds += 1;
        self.round.set(start, self.rounds);
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            if node == goal {
                return true;
            }
            for number in self.graph.out(node) {
                self.step(node, number, &mut queue);
            }
        }
        false
    }

    fn step(&mut self, node: usize, number: usize, queue: &mut VecDeque<usize>) {
        self.looked_at += 1;
        let Some(link) = self.graph.link(number).filter(|link| (self.takes)(link)) else {
            return;
        };
        if !self.inside.get(link.to, false) || self.round.get(link.to, 0) == self.rounds {
            return;
        }
        self.round.set(link.to, self.rounds);
        self.origin.set(link.to, Some((node, number)));
        if link.to >= self.graph.txns() {
            queue.push_front(link.to);
        } else {
            queue.push_back(link.to);
        }
    }
}

fn shorter(best: Option<Cycle>, other: Option<Cycle>) -> Option<Cycle> {
    [best, other]
        .into_iter()
        .flatten()
        .min_by_key(|cycle| cycle.steps.len())
}

/// From links between nodes to steps between transactions; the first link leaves a transaction.
fn steps(graph: &Graph, links: &[(usize, usize)]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (from, number) in links {
        let Some(link) = graph.link(*number) else {
            continue;
        };
        match steps.last_mut().filter(|_| *from >= graph.txns()) {
            Some(step) => {
                step.to = link.to;
                step.last = *link;
                step.layer = step.layer.max(link.layer);
            }
            None => steps.push(Step {
                from: *from,
                to: link.to,
                first: *link,
                last: *link,
                layer: link.layer,
            }),
        }
    }
    steps
}
