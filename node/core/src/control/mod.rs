//! The control group's state machine: the catalog, and the commands that change it.
//!
//! One small group across zones. The data plane reads the catalog and never waits for this group: while it has no
//! quorum, changes stop, reads and writes go on.
//!
//! Invariants: see [`Catalog`]; `apply` is a function of (catalog, command) (invariant 10). Chance (ids, keys) is drawn
//! by the proposer and stands in the command.

mod alter;
mod apply;
mod placement;
mod promote;

use std::sync::Arc;

use meridian_causal::Incarnation;
use meridian_storage::Read;
use serde::{Deserialize, Serialize};

use crate::catalog::{AlterReport, Catalog};
use crate::command::Waiter;
use crate::error::Error;
use crate::ids::{GroupId, KeyspaceId, NodeId};
use crate::keys::CatalogKey;
use crate::record::Header;
use crate::request::{KeyspaceAlter, KeyspaceCreate, Response};
use crate::workspace::Workspace;

pub(crate) use placement::{control_learners, control_voters, found};

/// Version of the stored forms of the control group.
const FORMAT: u8 = 4;

/// One entry of the control group's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ControlCommand {
    pub(crate) waiter: Waiter,
    pub(crate) op: ControlOp,
}

/// A change of the catalog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum ControlOp {
    /// The first catalog; no effect on a cluster that has one.
    Found(Box<Catalog>),
    KeyspaceCreate {
        create: Box<KeyspaceCreate>,
        /// Seeds the incarnations of its groups.
        nonce: u64,
    },
    KeyspaceAlter {
        alter: Box<KeyspaceAlter>,
        /// Seeds the incarnations of the successor's groups.
        nonce: u64,
    },
    /// A group tells how far it is in an alter.
    AlterReport {
        group: GroupId,
        report: AlterReport,
    },
    /// The round of sealing has taken too long.
    GiveUpSealing {
        keyspace: KeyspaceId,
        round: u64,
    },
    KeyspaceDelete {
        name: String,
    },
    /// A node came back with an empty store, or tells its identity for the first time.
    Admit {
        node: NodeId,
        store: u128,
        /// The node's store is another one than the cluster knew, so it begins a new life.
        wiped: bool,
        /// Seeds the incarnations of groups founded anew.
        nonce: u64,
    },
    /// A group in quarantine needs another incarnation than `old` (protocol rule 5).
    Reincarnate {
        group: GroupId,
        old: Incarnation,
        /// Seeds the new one.
        nonce: u64,
    },
}

impl ControlCommand {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match postcard::to_stdvec(&(FORMAT, self)) {
            Ok(bytes) => bytes,
            Err(error) => unreachable!("a command in memory always encodes: {error}"),
        }
    }
}

/// The catalog as applied, and how far.
pub(crate) struct Control {
    applied: u64,
    catalog: Arc<Catalog>,
}

impl Control {
    pub(crate) fn create() -> Self {
        Self {
            applied: 0,
            catalog: Arc::new(Catalog::default()),
        }
    }

    pub(crate) fn load(read: &dyn Read) -> Result<Option<Self>, Error> {
        let key = CatalogKey::encode();
        let Some(bytes) = read.get(&key).map_err(Error::from)? else {
            return Ok(None);
        };
        let (header, catalog) = CatalogKey::decode_record(&key, &bytes)?;
        Ok(Some(Self {
            applied: header.index,
            catalog: Arc::new(catalog),
        }))
    }

    pub(crate) const fn applied(&self) -> u64 {
        self.applied
    }

    pub(crate) const fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    pub(crate) const fn apply_empty(&mut self, index: u64) {
        self.applied = index;
    }

    pub(crate) fn apply(
        &mut self,
        index: u64,
        data: &[u8],
    ) -> Result<(Waiter, Result<Response, Error>), Error> {
        let (format, command): (u8, ControlCommand) =
            postcard::from_bytes(data).map_err(|error| Error::Corruption {
                detail: format!("control entry {index}: {error}"),
            })?;
        if format != FORMAT {
            return Err(Error::Corruption {
                detail: format!("control entry {index}: format {format} is not known"),
            });
        }
        self.applied = index;
        let mut catalog = Catalog::clone(&self.catalog);
        let result = apply::apply(&mut catalog, command.op);
        if catalog != *self.catalog {
            catalog.revision = self.catalog.revision.saturating_add(1);
            self.catalog = Arc::new(catalog);
        }
        Ok((command.waiter, result))
    }

    pub(crate) fn save(&self, work: &mut Workspace<'_>) {
        let header = Header {
            index: self.applied,
            ..Header::default()
        };
        work.put(
            CatalogKey::encode(),
            CatalogKey::encode_record(header, &self.catalog),
        );
    }
}
