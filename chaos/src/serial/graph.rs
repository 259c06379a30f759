//! The graph of what must stand before what.
//!
//! Nodes are transactions, numbered as in the history, and *relays*: a relay stands for "whatever follows" (a version of
//! a key, a moment), so that m transactions before and n after are m + n links, not m × n. A way from one transaction to
//! the next begins with a link that says why, and goes on over relays by links that pass. A relay is entered only from
//! transactions or relays and never left for a transaction that was before it by definition, so every cycle has at least two
//! transactions.

/// Why what a link comes from is before what it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A write followed a write.
    Ww,
    /// A read saw a write.
    Wr,
    /// A write replaced what was read.
    Rw,
    /// Process order or real time.
    Order,
    /// Out of a relay: the reason is that of the link into it.
    Pass,
}

/// What a link is inferred from; what a cycle of links of the lower layers shows needs no higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    /// From values alone.
    Values,
    /// From the order of what a process did.
    Process,
    /// From real time.
    Realtime,
    /// From real time between reads of a register.
    Reads,
}

impl Layer {
    /// All, lowest first.
    pub(super) const ALL: [Self; 4] = [Self::Values, Self::Process, Self::Realtime, Self::Reads];
}

/// The values by which a link is known; what does not apply is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Why {
    /// The key.
    pub(super) key: Option<u64>,
    /// The value written or read by what the link comes from.
    pub(super) from: Option<u64>,
    /// The value written by what it leads to.
    pub(super) to: Option<u64>,
}

/// A link to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Where it leads.
    pub(super) to: usize,
    /// Why.
    pub(super) kind: Kind,
    /// Known from what.
    pub(super) layer: Layer,
    /// The values.
    pub(super) why: Why,
}

/// One value per node.
#[derive(Clone, Debug)]
pub(super) struct PerNode<T>(Vec<T>);

impl<T: Copy> PerNode<T> {
    /// The same for every node.
    pub(super) fn new(nodes: usize, value: T) -> Self {
        Self(vec![value; nodes])
    }

    /// That of a node; `other` for one that is not there.
    pub(super) fn get(&self, node: usize, other: T) -> T {
        self.0.get(node).copied().unwrap_or(other)
    }

    /// Sets that of a node.
    pub(super) fn set(&mut self, node: usize, value: T) {
        if let Some(place) = self.0.get_mut(node) {
            *place = value;
        }
    }
}

/// A graph under construction.
#[derive(Debug)]
pub(super) struct Builder {
    txns: usize,
    nodes: usize,
    links: Vec<(usize, Link)>,
}

impl Builder {
    /// A graph of transactions without links.
    pub(super) const fn new(txns: usize) -> Self {
        Self {
            txns,
            nodes: txns,
            links: Vec::new(),
        }
    }

    /// A new relay.
    pub(super) const fn relay(&mut self) -> usize {
        self.nodes += 1;
        self.nodes - 1
    }

    /// Links two nodes; a node is never linked to itself.
    pub(super) fn link(&mut self, from: usize, link: Link) {
        if from != link.to {
            self.links.push((from, link));
        }
    }

    /// The graph.
    pub(super) fn build(mut self) -> Graph {
        self.links.sort_by_key(|(from, _)| *from);
        let mut starts = vec![0; self.nodes + 1];
        for (from, _) in &self.links {
            if let Some(start) = starts.get_mut(from + 1) {
                *start += 1;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        Graph {
            txns: self.txns,
            starts,
            links: self.links.into_iter().map(|(_, link)| link).collect(),
        }
    }
}

/// A graph.
#[derive(Debug)]
pub(super) struct Graph {
    txns: usize,
    starts: Vec<usize>,
    links: Vec<Link>,
}

impl Graph {
    /// How many nodes it has.
    pub(super) const fn nodes(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// How many of them are transactions: the first.
    pub(super) const fn txns(&self) -> usize {
        self.txns
    }

    /// The numbers of a node's links.
    pub(super) fn out(&self, node: usize) -> std::ops::Range<usize> {
        let place = |at: usize| self.starts.get(at).copied().unwrap_or_default();
        place(node)..place(node + 1)
    }

    /// A link by its number.
    pub(super) fn link(&self, number: usize) -> Option<&Link> {
        self.links.get(number)
    }
}
