//! What comes out of a core: messages to the network, answers to clients, observations to the checkers.

use meridian_causal::ZoneId;
use meridian_core::error::Error;
use meridian_core::message::PeerMessage;
use meridian_core::output::{Notice, Observation, ReleasedRead};
use meridian_core::request::Response;
use meridian_core::{Input, Outputs, address};

use super::{Event, World};
use crate::checkers::Acked;
use crate::node::{node_index, zone_id};
use crate::rng::Draw;
use crate::violation::{Checked, Violation};

/// Attempts of clients have numbers whose upper half is the client; this one asks on behalf of the world.
pub(super) const WORLD_CLIENT: u64 = 0xffff;

/// The number of an attempt.
pub(super) fn attempt_id(client: usize, attempt: u32) -> u64 {
    (u64::try_from(client).unwrap_or(WORLD_CLIENT) << 32) | u64::from(attempt)
}

/// The client and attempt of a number.
pub(super) fn client_of(id: u64) -> (usize, u32) {
    let client = usize::try_from(id >> 32).unwrap_or(usize::MAX);
    (client, u32::try_from(id & 0xffff_ffff).unwrap_or(0))
}

/// The writes of sync keyspaces that a node says stand, to a client or to the node that asked for one.
fn acknowledgements(out: &Outputs) -> Vec<Acked> {
    let replies = out.replies.iter().map(|(_, result)| result);
    let forwarded = out
        .messages
        .iter()
        .filter_map(|(_, message)| match message {
            PeerMessage::Forwarded { result, .. } => Some(&**result),
            PeerMessage::Raft { .. }
            | PeerMessage::Forward { .. }
            | PeerMessage::Exchange { .. }
            | PeerMessage::Image { .. }
            | PeerMessage::Admission(_) => None,
        });
    let written = replies.chain(forwarded).filter_map(|result| match result {
        Ok(Response::Written(receipt)) if !receipt.repeated => Some(receipt),
        Ok(_) | Err(_) => None,
    });
    let spanning = written.filter(|receipt| receipt.dot.zone() == ZoneId::GLOBAL);
    spanning
        .map(|receipt| Acked {
            dot: receipt.dot,
            zones: receipt.zones.clone(),
        })
        .collect()
}

impl World {
    /// Takes everything out of `self.out`.
    pub(super) fn deliver(&mut self, node: usize, core: usize) -> Checked {
        let mut out = std::mem::take(&mut self.out);
        if self.dies_at_stage(node, &out) {
            // What it applied and observed counts; nothing of it was told to anybody.
            self.watch(node, &mut out.observations)?;
            self.die(node);
            return Ok(());
        }
        let acked = acknowledgements(&out);
        for (to, message) in out.messages.drain(..) {
            self.send(node, core, node_index(to), message);
        }
        for (id, result) in out.replies.drain(..) {
            self.reply(id.0, result);
        }
        for read in out.reads.drain(..) {
            self.release(node, read);
        }
        self.watch(node, &mut out.observations)?;
        for acked in &acked {
            let (now, topology) = (self.queue.now(), self.scenario.topology);
            let zone_of = |node| zone_id(topology.zone_of(node));
            self.observer.acknowledged(now, node, acked, zone_of)?;
        }
        for notice in out.notices.drain(..) {
            self.notice(node, &notice)?;
        }
        if let Some(catalog) = out.catalog.take() {
            self.tell_catalog(node, core, catalog)?;
        }
        // Nobody watches here.
        out.changed.clear();
        // Keeps the allocations of the vectors.
        if self.out.messages.is_empty()
            && self.out.replies.is_empty()
            && self.out.observations.is_empty()
        {
            self.out = out;
        }
        Ok(())
    }

    fn send(
        &mut self,
        from: usize,
        core: usize,
        to: usize,
        message: meridian_core::message::PeerMessage,
    ) {
        if self.trace.on() {
            let shown = self.trace.show(&message);
            self.trace.line(
                self.queue.now(),
                format_args!("send n{}->n{} core {core} {shown}", from + 1, to + 1),
            );
        }
        let index = u64::try_from(core).unwrap_or(0);
        let message = address::outgoing(message, index);
        if from == to {
            // Between two cores of a node: no network.
            let message = Box::new(message);
            self.queue
                .after(20_000, Event::Deliver { from, to, message });
            return;
        }
        let arrivals = self.network.send(self.queue.now(), from, to);
        if let Some(at) = arrivals.second {
            self.queue.at(
                at,
                Event::Deliver {
                    from,
                    to,
                    message: Box::new(message.clone()),
                },
            );
        }
        if let Some(at) = arrivals.first {
            self.queue.at(
                at,
                Event::Deliver {
                    from,
                    to,
                    message: Box::new(message),
                },
            );
        }
    }

    /// An answer travels to the client; that link never fails.
    pub(super) fn reply(&mut self, id: u64, result: Result<Response, Error>) {
        let travel = self.rng.between(50_000, 300_000);
        self.queue.after(
            travel,
            Event::Answer {
                id,
                result: Box::new(result),
            },
        );
    }

    /// A released read is served by another thread of the shell, a little later.
    fn release(&mut self, node: usize, read: ReleasedRead) {
        let boot = self.nodes.get(node).map_or(0, |machine| machine.boot);
        let later = if self.rng.chance(0.8) {
            20_000
        } else {
            self.rng.between(0, 3_000_000)
        };
        self.queue.after(
            later,
            Event::Serve {
                node,
                boot,
                read: Box::new(read),
            },
        );
    }

    /// Takes in what a node has observed.
    pub(super) fn watch(&mut self, node: usize, observations: &mut Vec<Observation>) -> Checked {
        let now = self.queue.now();
        for observation in observations.drain(..) {
            if self.trace.on() {
                self.trace
                    .line(now, format_args!("observe n{} {observation:?}", node + 1));
            }
            if let Observation::Leads { .. } = observation {
                self.stats.leaders += 1;
            }
            self.observer.observe(now, node, observation)?;
        }
        Ok(())
    }

    fn notice(&mut self, node: usize, notice: &Notice) -> Checked {
        if self.trace.on() {
            self.trace.line(
                self.queue.now(),
                format_args!("notice n{} {notice:?}", node + 1),
            );
        }
        match notice {
            Notice::Comparing { group } => {
                self.stats.comparisons += 1;
                self.observer.compares(*group);
            }
            Notice::Compared { group } => self.observer.compares(*group),
            Notice::ImageInstalled { group, index } => {
                self.stats.images += 1;
                self.observer.imaged(node, *group, *index);
            }
            Notice::Damaged { detail } => {
                let message = format!(
                    "n{} found damage, and nothing was damaged: {detail}",
                    node + 1
                );
                return Err(Violation::new("damage", self.queue.now(), message));
            }
            Notice::Wiped if self.wiped.contains(&node) => {}
            Notice::Wiped => {
                let message = format!("n{} was taken for wiped, and it was not", node + 1);
                return Err(Violation::new("damage", self.queue.now(), message));
            }
            Notice::Leader { .. } | Notice::Admitted | Notice::SeedDiffers { .. } => {}
        }
        Ok(())
    }

    /// Core 0 tells the other cores of its node.
    fn tell_catalog(
        &mut self,
        node: usize,
        core: usize,
        catalog: std::sync::Arc<meridian_core::catalog::Catalog>,
    ) -> Checked {
        let now = self.queue.now();
        self.observer.catalog(now, self.scenario.shards, &catalog)?;
        let cores = self.nodes.get(node).map_or(0, crate::node::SimNode::cores);
        for other in (0..cores).filter(|other| core == 0 && *other != 0) {
            self.input(node, other, Input::Catalog(catalog.clone()))?;
        }
        Ok(())
    }
}
