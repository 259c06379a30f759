//! The loop: what each event does, and how a core is driven.

use meridian_core::ids::RequestId;
use meridian_core::output::ReleasedRead;
use meridian_core::request::{Request, Response};
use meridian_core::{Input, address};

use super::{Event, World};
use crate::node::{Next, node_id};
use crate::operator;
use crate::rng::{Draw, MS, Streams};
use crate::violation::{Checked, Violation};

impl World {
    /// Starts every machine, client and the nemesis.
    pub(super) fn begin(&mut self) -> Checked {
        for node in 0..self.nodes.len() {
            self.start(node)?;
        }
        for client in 0..self.clients.len() {
            let pause = self.rng.between(0, 1000 * MS);
            self.queue.after(pause, Event::Wake { client });
        }
        for (at, errand) in operator::plan(&self.scenario, Streams::new(self.scenario.seed)) {
            self.queue.at(at, Event::Operate { errand, attempt: 0 });
        }
        for client in 0..self.transactors.len() {
            let pause = self.rng.between(0, 1000 * MS);
            self.queue.after(pause, Event::Transact { client });
        }
        self.queue.at(self.nemesis.first_at(), Event::Strike);
        self.queue.at(self.scenario.duration_ns, Event::Heal);
        Ok(())
    }

    pub(super) fn handle(&mut self, event: Event) -> Checked {
        if self.trace.on() {
            self.trace_event(&event);
        }
        match event {
            Event::Tick { node, boot } => self.tick(node, boot),
            Event::Deliver { from, to, message } => {
                self.stats.messages += 1;
                let cores = usize::try_from(self.scenario.cores).unwrap_or(1);
                let catalog = self.catalog_of(to);
                let catalog = catalog.as_deref().unwrap_or(&self.catalog);
                let (core, message) = address::incoming(*message, catalog, cores);
                self.input(
                    to,
                    core,
                    Input::Peer {
                        from: node_id(from),
                        message,
                    },
                )
            }
            Event::Arrive {
                node,
                id,
                patience_ns,
                request,
            } => self.arrive(node, id, patience_ns, *request),
            Event::Written { node, boot, core } => self.written(node, boot, core),
            Event::Due { node, boot, core } => self.due(node, boot, core),
            Event::Serve { node, boot, read } => {
                self.serve(node, boot, &read);
                Ok(())
            }
            Event::Answer { id, result } => {
                self.answer(id, *result);
                Ok(())
            }
            Event::Wake { client } => {
                self.wake(client);
                Ok(())
            }
            Event::Transact { client } => {
                self.wake_transactor(client);
                Ok(())
            }
            Event::Operate { errand, attempt } => {
                self.operate(errand, attempt);
                Ok(())
            }
            Event::Silence { id } => {
                self.silence(id);
                Ok(())
            }
            Event::Strike => {
                self.strike();
                Ok(())
            }
            Event::Undo(undo) => self.undo(undo),
            Event::Heal => self.heal(),
            Event::Poll => self.poll(),
        }
    }

    /// Starts a machine that is down.
    pub(super) fn start(&mut self, node: usize) -> Checked {
        let now = self.queue.now();
        let Some(machine) = self.nodes.get_mut(node).filter(|machine| !machine.is_up()) else {
            return Ok(());
        };
        let mut kept = machine.take_kept();
        self.watch(node, &mut kept)?;
        let Some(machine) = self.nodes.get_mut(node) else {
            return Ok(());
        };
        machine.start(now).map_err(|error| {
            Violation::new(
                "open",
                now,
                format!("node {} does not start again: {error}", machine.id),
            )
        })?;
        let (boot, cores, tick) = (machine.boot, machine.cores(), machine.tick_ns());
        self.observer.started(node);
        let phase = self.rng.between(0, tick);
        self.queue.after(phase, Event::Tick { node, boot });
        for core in 0..cores {
            self.drive(node, core)?;
        }
        Ok(())
    }

    fn tick(&mut self, node: usize, boot: u64) -> Checked {
        let Some(cores) = self.current(node, boot) else {
            return Ok(());
        };
        let tick = self
            .nodes
            .get(node)
            .map_or(MS, crate::node::SimNode::tick_ns);
        self.queue.after(tick, Event::Tick { node, boot });
        for core in 0..cores {
            self.input(node, core, Input::Tick)?;
        }
        Ok(())
    }

    /// The number of cores of a node that still lives the given boot.
    fn current(&self, node: usize, boot: u64) -> Option<usize> {
        self.nodes
            .get(node)
            .filter(|machine| machine.boot == boot && machine.is_up())
            .map(crate::node::SimNode::cores)
    }

    fn arrive(&mut self, node: usize, id: u64, patience_ns: u64, request: Request) -> Checked {
        let core = self.core_of(&request);
        let Some(request) = self.resolved(node, id, request) else {
            return Ok(());
        };
        let Some(machine) = self.nodes.get(node) else {
            return Ok(());
        };
        let deadline_ns = machine.clock.now(self.queue.now()).mono_ns + patience_ns;
        self.input(
            node,
            core,
            Input::Request {
                id: RequestId(id),
                deadline_ns,
                request,
            },
        )
    }

    /// The core of every node that serves the shard of a request.
    fn core_of(&self, request: &Request) -> usize {
        let shard = request.shard(&self.catalog);
        let cores = usize::try_from(self.scenario.cores).unwrap_or(1);
        usize::from(shard.0).checked_rem(cores).unwrap_or(0)
    }

    /// Drives a core until it has nothing to do or waits for its disk.
    pub(super) fn drive(&mut self, node: usize, core: usize) -> Checked {
        let now = self.queue.now();
        loop {
            let Some(machine) = self.nodes.get_mut(node) else {
                return Ok(());
            };
            let next = machine.advance(core, now, &mut self.out);
            self.deliver(node, core)?;
            if !self.follow(node, core, next) {
                return Ok(());
            }
        }
    }

    fn written(&mut self, node: usize, boot: u64, core: usize) -> Checked {
        if self.current(node, boot).is_none() {
            return Ok(());
        }
        let now = self.queue.now();
        let Some(machine) = self.nodes.get_mut(node) else {
            return Ok(());
        };
        let next = machine.written(core, now, &mut self.out);
        self.deliver(node, core)?;
        if self.follow(node, core, next) {
            self.drive(node, core)
        } else {
            Ok(())
        }
    }

    /// Does what a core wants next; true when it is to be driven on.
    fn follow(&mut self, node: usize, core: usize, next: Next) -> bool {
        match next {
            Next::Again => true,
            Next::Idle => {
                self.wake_later(node, core);
                false
            }
            Next::Write(ns) => {
                let boot = self.nodes.get(node).map_or(0, |machine| machine.boot);
                self.queue.after(ns, Event::Written { node, boot, core });
                false
            }
            Next::Stop => {
                self.crash(node, 500 * MS);
                false
            }
        }
    }

    /// An idle core that wants a turn at some time gets it then.
    fn wake_later(&mut self, node: usize, core: usize) {
        let now = self.queue.now();
        let Some(machine) = self.nodes.get_mut(node) else {
            return;
        };
        let boot = machine.boot;
        if let Some(ns) = machine.wake_after_ns(core, now) {
            self.queue.after(ns, Event::Due { node, boot, core });
        }
    }

    fn due(&mut self, node: usize, boot: u64, core: usize) -> Checked {
        if self.current(node, boot).is_none() {
            return Ok(());
        }
        if let Some(machine) = self.nodes.get_mut(node) {
            machine.wakes(core);
        }
        self.drive(node, core)
    }

    fn serve(&mut self, node: usize, boot: u64, released: &ReleasedRead) {
        if self.current(node, boot).is_none() {
            return;
        }
        let Some(machine) = self.nodes.get(node) else {
            return;
        };
        let result = released.serve(machine.engine.as_ref(), self.scenario.shards);
        self.reply(released.id.0, result.map(Response::Read));
    }

    fn trace_event(&mut self, event: &Event) {
        let now = self.queue.now();
        match event {
            Event::Deliver { from, to, message } => {
                let shown = self.trace.show(message);
                self.trace.line(
                    now,
                    format_args!("deliver n{}->n{} {shown}", from + 1, to + 1),
                );
            }
            Event::Tick { node, boot } => self
                .trace
                .line(now, format_args!("tick n{} boot {boot}", node + 1)),
            Event::Written { node, boot, core } => {
                self.trace.line(
                    now,
                    format_args!("written n{} boot {boot} core {core}", node + 1),
                );
            }
            Event::Due { node, boot, core } => self.trace.line(
                now,
                format_args!("due n{} boot {boot} core {core}", node + 1),
            ),
            other @ (Event::Arrive { .. }
            | Event::Serve { .. }
            | Event::Answer { .. }
            | Event::Wake { .. }
            | Event::Transact { .. }
            | Event::Silence { .. }
            | Event::Operate { .. }
            | Event::Strike
            | Event::Undo(_)
            | Event::Heal
            | Event::Poll) => self.trace.line(now, format_args!("{other:?}")),
        }
    }
}
