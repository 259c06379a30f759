//! Strongly connected components: the sets of nodes of which each is before each other.
//!
//! Source: Tarjan, "Depth-first search and linear graph algorithms" (1972), with a stack of its own instead of recursion.

use super::graph::{Graph, Link, PerNode};

/// Not met yet.
const NEW: usize = usize::MAX;

struct Search<'a, F> {
    graph: &'a Graph,
    takes: F,
    order: PerNode<usize>,
    lowest: PerNode<usize>,
    open: PerNode<bool>,
    met: usize,
    stack: Vec<usize>,
    found: Vec<Vec<usize>>,
}

/// The components of more than one node, over the links that `takes` accepts; each sorted.
pub(super) fn components(graph: &Graph, takes: impl Fn(&Link) -> bool) -> Vec<Vec<usize>> {
    let nodes = graph.nodes();
    let mut search = Search {
        graph,
        takes,
        order: PerNode::new(nodes, NEW),
        lowest: PerNode::new(nodes, NEW),
        open: PerNode::new(nodes, false),
        met: 0,
        stack: Vec::new(),
        found: Vec::new(),
    };
    for node in 0..nodes {
        if search.order.get(node, 0) == NEW {
            search.visit(node);
        }
    }
    search.found
}

impl<F: Fn(&Link) -> bool> Search<'_, F> {
    fn visit(&mut self, root: usize) {
        let mut path = vec![self.enter(root)];
        while let Some((node, mut rest)) = path.pop() {
            let Some(number) = rest.next() else {
                self.leave(node);
                if let Some((parent, _)) = path.last() {
                    self.lower(*parent, self.lowest.get(node, NEW));
                }
                continue;
            };
            path.push((node, rest));
            if let Some(next) = self.follow(node, number) {
                path.push(self.enter(next));
            }
        }
    }

    fn enter(&mut self, node: usize) -> (usize, std::ops::Range<usize>) {
        self.order.set(node, self.met);
        self.lowest.set(node, self.met);
        self.open.set(node, true);
        self.met += 1;
        self.stack.push(node);
        (node, self.graph.out(node))
    }

    /// The node to enter next, when the link leads to a new one.
    fn follow(&mut self, node: usize, number: usize) -> Option<usize> {
        let link = self.graph.link(number).filter(|link| (self.takes)(link))?;
        let order = self.order.get(link.to, 0);
        if order == NEW {
            return Some(link.to);
        }
        if self.open.get(link.to, false) {
            self.lower(node, order);
        }
        None
    }

    fn lower(&mut self, node: usize, to: usize) {
        let lowest = self.lowest.get(node, NEW).min(to);
        self.lowest.set(node, lowest);
    }

    /// A node that reaches nothing met before it closes its component.
    fn leave(&mut self, node: usize) {
        if self.lowest.get(node, 0) != self.order.get(node, 1) {
            return;
        }
        let place = self.stack.iter().rposition(|open| *open == node);
        let mut component = self.stack.split_off(place.unwrap_or_default());
        for node in &component {
            self.open.set(*node, false);
        }
        if component.len() > 1 {
            component.sort_unstable();
            self.found.push(component);
        }
    }
}
