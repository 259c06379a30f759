//! What a node makes of the name in a request: the keyspace that has it, by the node's own catalog.
//!
//! It also takes the mask off the stamps that a transaction compares, as the shell does.
//!
//! Here requests name [`KeyspaceId::DEFAULT`] for "the keyspace `default`", as clients do by name. The node asked puts the id
//! in, as the shell does, and does what a client has left to it: what is not for a mirror is forwarded to the home zone, and
//! some writes to an async keyspace want two zones.

use std::sync::Arc;

use meridian_causal::ZoneId;
use meridian_core::catalog::{Catalog, Keyspace, Mode, Policy};
use meridian_core::ids::KeyspaceId;
use meridian_core::request::{ReadLevel, Request};

use super::World;
use super::outputs::client_of;
use super::transactors::transactor_of;
use crate::node::zone_id;
use crate::transact::stamped::Logs;

/// One request in so many goes to a deposed home.
const LATE_EVERY: u64 = 8;

/// The keyspace of a run.
pub(super) const NAME: &str = "default";

impl World {
    /// The catalog of a node that is up.
    pub(super) fn catalog_of(&self, node: usize) -> Option<Arc<Catalog>> {
        self.nodes.get(node)?.catalog()
    }

    /// How the keyspace is replicated, as a zone's first node has it; at first, as the scenario has it.
    pub(super) fn policy_in(&self, zone: usize) -> Policy {
        let node = self.scenario.topology.nodes_of(zone).start;
        let catalog = self.catalog_of(node);
        let found = catalog.as_ref().and_then(|one| one.keyspace_named(NAME));
        found.map_or_else(
            || self.scenario.policy.clone(),
            |keyspace| keyspace.policy.clone(),
        )
    }

    /// Whether clients of a zone are served from a mirror.
    pub(super) fn mirrors(&self, zone: usize) -> bool {
        let policy = self.policy_in(zone);
        policy.mode == Mode::Snapshot && policy.home != Some(zone_id(zone))
    }

    /// A request as the cores of a node get it; nothing when whoever asked does not want it sent there.
    pub(super) fn resolved(&mut self, node: usize, id: u64, request: Request) -> Option<Request> {
        let catalog = self.catalog_of(node)?;
        let Some(keyspace) = catalog.keyspace_named(NAME) else {
            // The node is not admitted yet, and will say so.
            return Some(request);
        };
        let zone = self.scenario.topology.zone_of(node);
        let late = named_late(&catalog, id, zone_id(zone));
        let keyspace = late.unwrap_or(keyspace);
        let logs = Logs::of(&catalog, keyspace.id, zone_id(zone));
        let mut request = at_levels(keyspace, request);
        logs.unmask(&mut request);
        if !self.goes_to(id, keyspace.id, logs) {
            return None;
        }
        name_keyspace(&mut request, keyspace.id);
        if keyspace.policy.mode == Mode::Snapshot
            && keyspace.policy.home != Some(zone_id(zone))
            && is_of_home(&request)
        {
            request = Request::AtHome(Box::new(request));
        }
        Some(request)
    }

    /// Remembers which keyspace an attempt was for. False: it is not to be sent there.
    fn goes_to(&mut self, id: u64, keyspace: KeyspaceId, logs: Logs) -> bool {
        if let Some(place) = transactor_of(id) {
            return self.transactor_goes_to(place, keyspace, logs);
        }
        let (client, attempt) = client_of(id);
        let running = self
            .clients
            .get(client)
            .and_then(|one| one.running.as_ref());
        let running = running.filter(|running| running.attempt == attempt);
        let operation = running.map(|running| running.operation);
        let operation = operation.or_else(|| self.probed(id));
        if let Some(operation) = operation.and_then(|at| self.history.operations.get_mut(at)) {
            operation.keyspace = keyspace;
        }
        true
    }
}

/// Some requests reach a home that is deposed by now, under the name that its keyspace had: a node that knows no better has sent
/// them there.
fn named_late(catalog: &Catalog, id: u64, zone: ZoneId) -> Option<&Keyspace> {
    let mut deposed = catalog.keyspaces.values();
    let deposed = deposed.find(|one| one.is_deposed() && one.policy.home == Some(zone));
    deposed.filter(|_| id.is_multiple_of(LATE_EVERY))
}

/// Some writes of an async keyspace want two zones to have them. Which, follows from the op id, so that retries want the
/// same.
fn at_levels(keyspace: &Keyspace, request: Request) -> Request {
    let policy = &keyspace.policy;
    if let Request::Write(write) = request {
        let has_two = policy.mode == Mode::Async && policy.zones.len() > 1;
        if has_two && write.op_id.id.is_multiple_of(8) {
            return Request::WriteAt { write, zones: 2 };
        }
        return Request::Write(write);
    }
    request
}

/// In a mirror zone, all but reads of the mirror ask to be forwarded.
fn is_of_home(request: &Request) -> bool {
    match request {
        Request::Read(read) => read.level != ReadLevel::Eventual,
        Request::ViewClose { .. } | Request::Groups | Request::KeyspaceAlter(_) => false,
        Request::Write(_)
        | Request::WriteAt { .. }
        | Request::Transact(_)
        | Request::ViewOpen { .. }
        | Request::Lag { .. }
        | Request::LeaseAcquire(_)
        | Request::LeaseRenew { .. }
        | Request::LeaseEnd { .. }
        | Request::LeasedWrite { .. } => true,
        Request::AtHome(_)
        | Request::KeyspaceCreate(_)
        | Request::KeyspaceDelete { .. }
        | Request::AlterReport { .. }
        | Request::Reincarnate { .. }
        | Request::Inner(_)
        | Request::Mirrors { .. } => false,
    }
}

/// Puts the id where the name was.
fn name_keyspace(request: &mut Request, id: KeyspaceId) {
    match request {
        Request::Write(write)
        | Request::WriteAt { write, .. }
        | Request::LeasedWrite { write, .. } => write.keyspace = id,
        Request::Read(read) => read.keyspace = id,
        Request::Transact(transaction) => transaction.keyspace = id,
        Request::AtHome(inner) => name_keyspace(inner, id),
        Request::LeaseAcquire(acquire) => acquire.keyspace = id,
        Request::Lag { keyspace, .. }
        | Request::ViewOpen { keyspace }
        | Request::LeaseRenew { keyspace, .. }
        | Request::LeaseEnd { keyspace, .. }
        | Request::Mirrors { keyspace, .. } => *keyspace = id,
        Request::KeyspaceCreate(_)
        | Request::KeyspaceAlter(_)
        | Request::KeyspaceDelete { .. }
        | Request::AlterReport { .. }
        | Request::Reincarnate { .. }
        | Request::Groups
        | Request::ViewClose { .. }
        | Request::Inner(_) => {}
    }
}
