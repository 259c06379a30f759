//! The network between nodes: base delay by zones, jitter, loss, duplication, overtaking, cuts.
//!
//! Links are directed. A cut is counted, not set: two faults may cut the same link, and it opens when both are over.
//! A message in flight when a link is cut still arrives, as on a real network. Links between clients and nodes are not
//! here: they never fail.

use rand::rngs::SmallRng;

use crate::rng::{Draw, MS, Streams};
use crate::scenario::{NetworkProfile, Topology};

/// When the copies of a message arrive; empty when it is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// Of the message.
    pub first: Option<u64>,
    /// Of its duplicate.
    pub second: Option<u64>,
}

/// A disturbance of one directed link.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    cuts: u32,
    bursts: u32,
    arrives_last: u64,
}

/// All links between nodes.
#[derive(Debug)]
pub struct Network {
    topology: Topology,
    profile: NetworkProfile,
    rng: SmallRng,
    links: Vec<Link>,
    /// Share of messages lost and repeated on a link in a burst.
    burst: f64,
}

impl Network {
    /// The network of a scenario.
    pub fn new(topology: Topology, profile: NetworkProfile, streams: Streams) -> Self {
        let nodes = topology.nodes();
        Self {
            topology,
            profile,
            rng: streams.stream("network", 0),
            links: vec![Link::default(); nodes * nodes],
            burst: 0.25,
        }
    }

    /// When a message sent now arrives.
    pub fn send(&mut self, now: u64, from: usize, to: usize) -> Arrivals {
        let base = self.base_delay_ns(from, to);
        let index = from * self.topology.nodes() + to;
        let Some(link) = self.links.get_mut(index) else {
            return Arrivals::default();
        };
        if link.cuts > 0 {
            return Arrivals::default();
        }
        let extra = if link.bursts > 0 { self.burst } else { 0.0 };
        if self.rng.chance(self.profile.loss + extra) {
            return Arrivals::default();
        }
        let delay = base + base * self.rng.between(0, self.profile.jitter_permille + 1) / 1000;
        let mut arrives = now + delay;
        if self.rng.chance(self.profile.reordering) {
            arrives += self.rng.between(0, base * 2);
        } else {
            arrives = arrives.max(link.arrives_last);
            link.arrives_last = arrives;
        }
        let twice = self.rng.chance(self.profile.duplication + extra);
        let second = twice.then(|| arrives + self.rng.between(0, base * 4));
        Arrivals {
            first: Some(arrives),
            second,
        }
    }

    /// Cuts a directed link once more.
    pub fn cut(&mut self, from: usize, to: usize) {
        if let Some(link) = self.link_mut(from, to) {
            link.cuts += 1;
        }
    }

    /// Takes one cut back.
    pub fn mend(&mut self, from: usize, to: usize) {
        if let Some(link) = self.link_mut(from, to) {
            link.cuts = link.cuts.saturating_sub(1);
        }
    }

    /// Makes a directed link lose and repeat much.
    pub fn disturb(&mut self, from: usize, to: usize) {
        if let Some(link) = self.link_mut(from, to) {
            link.bursts += 1;
        }
    }

    /// Takes one disturbance back.
    pub fn calm(&mut self, from: usize, to: usize) {
        if let Some(link) = self.link_mut(from, to) {
            link.bursts = link.bursts.saturating_sub(1);
        }
    }

    /// Takes back every cut, disturbance, loss and duplication, for good.
    pub fn heal_all(&mut self) {
        for link in &mut self.links {
            link.cuts = 0;
            link.bursts = 0;
        }
        self.profile.loss = 0.0;
        self.profile.duplication = 0.0;
    }

    fn link_mut(&mut self, from: usize, to: usize) -> Option<&mut Link> {
        let index = from * self.topology.nodes() + to;
        self.links.get_mut(index)
    }

    /// One way: 30, 50 and 70 ms between the zones of a triangle, 0.3 ms inside a zone.
    fn base_delay_ns(&self, from: usize, to: usize) -> u64 {
        let (a, b) = (self.topology.zone_of(from), self.topology.zone_of(to));
        if a == b {
            return 300_000;
        }
        match a.abs_diff(b) + a.min(b) {
            1 => 30 * MS,
            2 if a.min(b) == 1 => 50 * MS,
            _ => 70 * MS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm_network() -> Network {
        let profile = NetworkProfile {
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            jitter_permille: 0,
        };
        Network::new(Topology::THREE_BY_ONE, profile, Streams::new(1))
    }

    fn delay(network: &mut Network, from: usize, to: usize) -> Option<u64> {
        network.send(0, from, to).first
    }

    #[test]
    fn pairs_of_zones_have_their_delays_both_ways() {
        let mut network = calm_network();
        assert_eq!(delay(&mut network, 0, 1), Some(30 * MS));
        assert_eq!(delay(&mut network, 1, 0), Some(30 * MS));
        assert_eq!(delay(&mut network, 1, 2), Some(50 * MS));
        assert_eq!(delay(&mut network, 0, 2), Some(70 * MS));
    }

    #[test]
    fn a_cut_is_one_way_and_counts() {
        let mut network = calm_network();
        network.cut(0, 1);
        network.cut(0, 1);
        network.mend(0, 1);
        assert_eq!(delay(&mut network, 0, 1), None);
        assert_eq!(delay(&mut network, 1, 0), Some(30 * MS));
        network.mend(0, 1);
        assert_eq!(delay(&mut network, 0, 1), Some(30 * MS));
    }

    #[test]
    fn healing_all_takes_back_every_cut() {
        let mut network = calm_network();
        network.cut(0, 1);
        network.disturb(0, 2);
        network.heal_all();
        assert_eq!(delay(&mut network, 0, 1), Some(30 * MS));
        assert_eq!(delay(&mut network, 0, 2), Some(70 * MS));
    }
}
