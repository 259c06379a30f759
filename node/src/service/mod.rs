//! The services that clients and operators call.
//!
//! What it is not: nothing is stored or decided here. A call is checked, its operations go to the cores, and what they
//! answer is worded by `convert`.
//!
//! Read `operate` for the stream, `unary` for single calls, `scan` for ranges, `transact` for transactions and views, `admin` for operators.

mod admin;
mod deadline;
mod faults;
mod lease;
mod measures;
mod mirrors;
mod operate;
mod page_token;
mod returned;
mod scan;
mod serving;
mod transact;
mod unary;
mod watch;

use std::sync::Arc;

use crate::calls::Calls;

/// kv.v1.
#[derive(Clone, Debug)]
pub(crate) struct KvService {
    pub(crate) calls: Arc<Calls>,
    /// What watchers are shown is read by their own tasks.
    pub(crate) engine: Engine,
}

/// admin.v1.
#[derive(Clone, Debug)]
pub(crate) struct AdminService {
    pub(crate) calls: Arc<Calls>,
    /// Whether link faults may be set.
    pub(crate) faults: bool,
    /// Zones by the cluster file: faults are set before a catalog is there.
    pub(crate) seed_zones: Arc<[meridian_core::config::ZoneSeed]>,
    pub(crate) engine: Engine,
}

/// The store, for its size and for the changes in it.
#[derive(Clone)]
pub(crate) struct Engine(pub(crate) Arc<dyn meridian_storage::Engine>);

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}
