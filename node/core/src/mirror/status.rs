//! What an operator is told of the mirrors of a keyspace.

use meridian_causal::ZoneId;
use serde::{Deserialize, Serialize};

use super::ZoneReport;

/// What is asked about the mirrors of a keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorWant {
    /// What the node that is asked would show now. Answered at once, never forwarded.
    Shown,
    /// What the home zone knows.
    Status,
    /// A cut at once; answered when every mirror zone shows it, or a later one.
    Now,
}

/// The mirrors of a keyspace, as its home zone knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorStatus {
    /// The zone that takes writes.
    pub home: ZoneId,
    /// Between two cuts, in milliseconds.
    pub interval_ms: u64,
    /// The zones that mirror it.
    pub zones: Vec<ZoneMirror>,
}

/// The mirror in one zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneMirror {
    /// The zone.
    pub zone: ZoneId,
    /// What it said last; generation 0: it shows none, as far as home knows.
    pub report: ZoneReport,
    /// How old the cut is that it shows, by the wall clock of the home zone.
    pub age_ms: Option<u64>,
    /// How long ago the zone was last heard of by the present leader; `None`: never.
    pub heard_ms: Option<u64>,
}
