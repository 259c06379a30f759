//! The nemesis's side of the world: what its acts do, and how they end.

use meridian_core::catalog::Mode;

use super::{Event, World};
use crate::nemesis::Act;
use crate::violation::Checked;

/// The end of a fault.
#[derive(Clone, Debug)]
pub enum Undo {
    /// Links are mended.
    Mend(Vec<(usize, usize)>),
    /// Links calm down.
    Calm(Vec<(usize, usize)>),
    /// A node gets power again, unless it was started since.
    Start {
        /// The node.
        node: usize,
        /// The start it had when it lost power.
        boot: u64,
    },
    /// A disk is as fast as before.
    Fast(usize),
}

impl World {
    pub(super) fn strike(&mut self) {
        if self.healing {
            return;
        }
        let (strike, pause) = self.nemesis.strike();
        self.queue.after(pause, Event::Strike);
        let Some((kind, act)) = strike else {
            return;
        };
        if self.trace.on() {
            self.trace.line(
                self.queue.now(),
                format_args!("fault {} {act:?}", kind.name()),
            );
        }
        if matches!(act, Act::Wipe { .. } | Act::WipeZone { .. }) && !self.wiped.is_empty() {
            return;
        }
        if let Act::WipeZone { nodes } = &act
            && !self.survives_the_loss_of(nodes.first().map(|(node, _)| *node))
        {
            return;
        }
        *self.stats.faults.entry(kind).or_default() += 1;
        self.act(act);
    }

    /// What a fault does.
    pub(super) fn act(&mut self, act: Act) {
        match act {
            Act::Cut { links, for_ns } => {
                for (from, to) in &links {
                    self.network.cut(*from, *to);
                }
                self.queue.after(for_ns, Event::Undo(Undo::Mend(links)));
            }
            Act::Disturb { links, for_ns } => {
                for (from, to) in &links {
                    self.network.disturb(*from, *to);
                }
                self.queue.after(for_ns, Event::Undo(Undo::Calm(links)));
            }
            Act::Crash { nodes } => nodes
                .into_iter()
                .for_each(|(node, down_ns)| self.crash(node, down_ns)),
            Act::Jump { node, most_ms } => {
                if let Some(machine) = self.nodes.get_mut(node) {
                    machine.clock.jump(most_ms);
                }
            }
            Act::Slow {
                node,
                factor,
                for_ns,
            } => {
                if let Some(machine) = self.nodes.get_mut(node) {
                    machine.slow = factor;
                }
                self.queue.after(for_ns, Event::Undo(Undo::Fast(node)));
            }
            Act::Stall { node, for_ns } => {
                if let Some(machine) = self.nodes.get_mut(node) {
                    machine.stall_ns = for_ns;
                }
            }
            Act::Wipe { node, down_ns } => self.wipe(node, down_ns),
            Act::WipeZone { nodes } => nodes
                .into_iter()
                .for_each(|(node, down_ns)| self.wipe(node, down_ns)),
            Act::FailWrite { node } => {
                if let Some(machine) = self.nodes.get_mut(node).filter(|machine| machine.is_up()) {
                    machine.fail_next_write();
                }
            }
        }
    }

    /// The power of a node goes, and comes back after a time.
    pub(super) fn crash(&mut self, node: usize, down_ns: u64) {
        let Some(machine) = self.nodes.get_mut(node).filter(|machine| machine.is_up()) else {
            return;
        };
        let lost = machine.crash();
        let boot = machine.boot;
        self.stats.batches_lost += u64::try_from(lost).unwrap_or(0);
        if self.trace.on() {
            self.trace.line(
                self.queue.now(),
                format_args!("crash n{} loses {lost} batches", node + 1),
            );
        }
        self.queue
            .after(down_ns, Event::Undo(Undo::Start { node, boot }));
    }

    /// By the newest catalog: until a node has a newer one, nobody writes to the keyspace that it opens. Every write is in two
    /// zones, and the zone of that node is not the home to which they are being moved.
    fn survives_the_loss_of(&self, node: Option<usize>) -> bool {
        let lineage = self.observer.lineage();
        let zone = node
            .and_then(|node| self.nodes.get(node))
            .map(|machine| machine.zone);
        let successor = lineage.under_way().map(|alter| alter.successor);
        let home = successor.and_then(|successor| {
            let policy = lineage.policy(successor)?;
            policy.home.filter(|_| policy.mode == Mode::Snapshot)
        });
        lineage.serving_policy().mode == Mode::Sync && (home.is_none() || home != zone)
    }

    /// A node loses its disk. A second one might take the last copy of something with it, so there is none, but with all of
    /// its zone.
    fn wipe(&mut self, node: usize, down_ns: u64) {
        self.crash(node, down_ns);
        if let Some(machine) = self.nodes.get_mut(node).filter(|machine| !machine.is_up()) {
            machine.wipe();
            self.wiped.push(node);
            self.observer.wiped(node);
        }
    }

    pub(super) fn undo(&mut self, undo: Undo) -> Checked {
        match undo {
            Undo::Mend(links) => links
                .iter()
                .for_each(|(from, to)| self.network.mend(*from, *to)),
            Undo::Calm(links) => links
                .iter()
                .for_each(|(from, to)| self.network.calm(*from, *to)),
            Undo::Fast(node) => {
                if let Some(machine) = self.nodes.get_mut(node) {
                    machine.slow = 1;
                }
            }
            Undo::Start { node, boot } => {
                if self
                    .nodes
                    .get(node)
                    .is_some_and(|machine| machine.boot == boot)
                {
                    return self.start(node);
                }
            }
        }
        Ok(())
    }

    /// The safety phase is over: links are whole, disks fast, machines on.
    pub(super) fn heal(&mut self) -> Checked {
        self.healing = true;
        self.settle.begun_at = self.queue.now();
        self.network.heal_all();
        for machine in &mut self.nodes {
            machine.slow = 1;
            machine.stall_ns = 0;
        }
        for node in 0..self.nodes.len() {
            self.start(node)?;
        }
        self.queue.after(super::settle::POLL_NS, Event::Poll);
        Ok(())
    }
}
