//! What each command does to the catalog.

use meridian_causal::Incarnation;

use super::{ControlOp, alter, placement};
use crate::catalog::{Catalog, GroupRecord, Keyspace, Mode};
use crate::error::Error;
use crate::ids::{GroupId, KeyspaceId, NodeId, ReplicaId};
use crate::limits::{KEYSPACE_NAME_BYTES_MAX, KEYSPACES_MAX, SHARDS_MAX};
use crate::request::{KeyspaceCreate, Response};

pub(super) fn apply(catalog: &mut Catalog, op: ControlOp) -> Result<Response, Error> {
    match op {
        ControlOp::Found(first) => {
            if catalog.revision == 0 {
                *catalog = *first;
            }
            Ok(Response::KeyspaceCreated(KeyspaceId::DEFAULT))
        }
        ControlOp::KeyspaceCreate { create, nonce } => keyspace_create(catalog, *create, nonce),
        ControlOp::KeyspaceAlter {
            alter: asked,
            nonce,
        } => alter::alter(catalog, *asked, nonce),
        ControlOp::AlterReport { group, report } => {
            alter::report(catalog, group, report);
            Ok(Response::KeyspaceCreated(KeyspaceId::CONTROL))
        }
        ControlOp::GiveUpSealing { keyspace, round } => {
            alter::give_up_sealing(catalog, keyspace, round);
            Ok(Response::KeyspaceCreated(KeyspaceId::CONTROL))
        }
        ControlOp::KeyspaceDelete { name } => delete(catalog, &name),
        ControlOp::Admit {
            node,
            store,
            wiped,
            nonce,
        } => {
            admit(catalog, node, store, wiped, nonce);
            Ok(Response::KeyspaceCreated(KeyspaceId::CONTROL))
        }
        ControlOp::Reincarnate { group, old, nonce } => {
            reincarnate(catalog, group, old, nonce);
            Ok(Response::KeyspaceCreated(KeyspaceId::CONTROL))
        }
    }
}

fn keyspace_create(
    catalog: &mut Catalog,
    create: KeyspaceCreate,
    nonce: u64,
) -> Result<Response, Error> {
    let KeyspaceCreate { name, policy, .. } = create;
    let shards = create.shards.unwrap_or_default();
    if catalog.keyspace_named(&name).is_some() {
        return Err(Error::KeyspaceExists);
    }
    check_name(&name)?;
    if shards == 0 || shards > SHARDS_MAX {
        return Err(Error::InvalidArgument {
            message: format!("{shards} shards; between 1 and {SHARDS_MAX} are possible"),
        });
    }
    if catalog.keyspaces.len() >= KEYSPACES_MAX {
        return Err(Error::InvalidArgument {
            message: format!("{KEYSPACES_MAX} keyspaces exist already"),
        });
    }
    let policy = policy.settle(catalog, create.near)?;
    let id = catalog.next_keyspace;
    catalog.next_keyspace = KeyspaceId(id.0.saturating_add(1));
    let keyspace = placement::keyspace(catalog, id, &name, (shards, policy), nonce);
    catalog.keyspaces.insert(id, keyspace);
    Ok(Response::KeyspaceCreated(id))
}

/// Names stand in paths, metrics and command lines.
fn check_name(name: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > KEYSPACE_NAME_BYTES_MAX || !name.chars().all(allowed) {
        let message = format!(
            "a keyspace name has 1 to {KEYSPACE_NAME_BYTES_MAX} letters, digits, '-' or '_', not {name:?}"
        );
        return Err(Error::InvalidArgument { message });
    }
    Ok(())
}

/// Deletes a keyspace, and with it what it came from and what it is becoming.
fn delete(catalog: &mut Catalog, name: &str) -> Result<Response, Error> {
    let found = catalog.keyspace_named(name);
    let Some((id, lineage)) = found.map(|keyspace| (keyspace.id, keyspace.lineage)) else {
        return Err(Error::KeyspaceNotFound);
    };
    catalog
        .keyspaces
        .retain(|_, keyspace| keyspace.lineage != lineage);
    Ok(Response::KeyspaceDeleted(id))
}

/// Records a node's store. A wiped one is a new life of the node: it gets a new generation and so new replica ids (protocol rule 6), and shards whose only replica it was are founded anew under a new incarnation
/// (rule 5).
fn admit(catalog: &mut Catalog, node: NodeId, store: u128, wiped: bool, nonce: u64) {
    let Some(record) = catalog.nodes.get_mut(&node) else {
        return;
    };
    if record.store == Some(store) || (!wiped && record.store.is_some()) {
        return;
    }
    record.store = Some(store);
    if !wiped {
        return;
    }
    let old = ReplicaId::new(node, record.generation);
    record.generation = record.generation.saturating_add(1);
    let new = ReplicaId::new(node, record.generation);
    replace(&mut catalog.control_voters, old, new);
    let affected: Vec<GroupId> = catalog
        .keyspaces
        .values()
        .flat_map(|keyspace| &keyspace.groups)
        .filter(|group| group.voters.contains(&old))
        .map(|group| group.id)
        .collect();
    for id in affected {
        let incarnation = placement::incarnation(
            catalog,
            GroupId {
                epoch: id.epoch.saturating_add(1),
                ..id
            },
            nonce,
        );
        let keyspace = catalog.keyspaces.get_mut(&id.keyspace);
        let disk_lost = keyspace
            .as_deref()
            .is_some_and(|keyspace| is_missed(keyspace, id));
        let groups = keyspace.map(|keyspace| &mut keyspace.groups);
        let Some(group) = groups.and_then(|groups| groups.iter_mut().find(|group| group.id == id))
        else {
            continue;
        };
        if group.voters == [old] {
            let epoch = id.epoch.saturating_add(1);
            *group = GroupRecord {
                id: GroupId { epoch, ..id },
                incarnation,
                founders: vec![new],
                voters: vec![new],
                disk_lost,
            };
        } else {
            replace(&mut group.voters, old, new);
        }
    }
}

/// Whether a group that loses all it has had something that others have, or that nobody will see again. One of a successor that
/// is not open is filled anyhow.
fn is_missed(keyspace: &Keyspace, id: GroupId) -> bool {
    let served = keyspace.is_open() || keyspace.is_deposed();
    let same = |group: &&GroupRecord| group.id.shard == id.shard;
    let copied = keyspace.groups.iter().filter(same).count() > 1;
    served && (copied || keyspace.policy.mode == Mode::Snapshot)
}

/// Gives a group another incarnation, once however often it is asked: only while the catalog has the `old` one.
fn reincarnate(catalog: &mut Catalog, id: GroupId, old: Incarnation, nonce: u64) {
    let incarnation = placement::incarnation(catalog, id, nonce);
    let groups = catalog
        .keyspaces
        .get_mut(&id.keyspace)
        .into_iter()
        .flat_map(|keyspace| &mut keyspace.groups);
    for group in groups.filter(|group| group.id == id && group.incarnation == old) {
        group.incarnation = incarnation;
    }
}

fn replace(replicas: &mut [ReplicaId], old: ReplicaId, new: ReplicaId) {
    for replica in replicas.iter_mut().filter(|replica| **replica == old) {
        *replica = new;
    }
}
