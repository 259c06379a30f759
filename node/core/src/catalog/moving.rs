//! A keyspace on its way to becoming another one.

use std::collections::{BTreeMap, BTreeSet};

use meridian_causal::{VersionVector, ZoneId};
use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, KeyspaceId};

/// How far a keyspace has got on its way to becoming another one.
///
/// A change of where groups stand makes a *successor*: a keyspace with groups of its own, which take over everything by the
/// exchange while the old ones go on serving. Then the old groups are sealed, the successor's take over the rest, and the
/// name moves to it (protocol rule 26).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alter {
    /// The keyspace that takes over.
    pub successor: KeyspaceId,
    /// Groups of the successor that have nearly everything.
    pub filled: BTreeSet<GroupId>,
    /// The old groups are to be sealed: the revision of the catalog that said so, 0 while none has. It names the round, as
    /// sealing that takes too long is given up and begun anew.
    pub sealing: u64,
    /// Old groups that are sealed and have no transaction open: what they had received by then. Whatever any of them
    /// receives later, another one wrote before.
    pub finals: BTreeMap<GroupId, VersionVector>,
    /// Groups of the successor that have everything.
    pub ready: BTreeSet<GroupId>,
    /// The successor is made of a mirror, and opens without the old groups.
    pub promotion: Option<Promotion>,
}

/// A mirror that becomes the home zone while the old one is not there to agree (`control::promote`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// The mirror's zone.
    pub zone: ZoneId,
    /// The generation that becomes the new keyspace; `None` until the zone has said which, and that it stays at it.
    pub shown: Option<Shown>,
}

/// The generation at which a mirror that is promoted stands still, and what its zone knows to have come after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its number in the zone.
    pub generation: u64,
    /// The view that its cut was.
    pub view: u64,
    /// When the cut was taken, by the wall clock of the old home zone.
    pub cut_ms: u64,
    /// When the old home zone last answered, by the wall clock of the zone: it may have acknowledged writes at least until
    /// then. 0: not since the zone's node has started.
    pub heard_ms: u64,
    /// When the zone stopped at this generation, by its wall clock.
    pub stopped_ms: u64,
    /// Changed keys that had come of a later cut, which was not whole: writes known to be lacking.
    pub lacking_keys: u64,
}

/// What a promoted mirror lacked of what its keyspace had acknowledged, as far as it is known, and what has become of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// The zone that was home.
    pub old_home: ZoneId,
    /// What the mirror had.
    pub shown: Shown,
    /// Whether the rest has come.
    pub returned: Returned,
}

/// Whether the last writes of a deposed home zone have come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Returned {
    /// Not all of them.
    Awaited,
    /// All of them.
    Whole,
    /// Nobody waits for them any more: what has not come is lost.
    GivenUp,
}

/// What a group tells the control group: of its part in an alter, or that it has got back what it had lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlterReport {
    /// A group of the successor has nearly everything.
    Filled,
    /// An old group has made its last write.
    Final {
        /// The round of sealing, as in [`Alter::sealing`]. A report of another one counts for nothing: since then the group
        /// may have written again.
        round: u64,
        /// All it has received, its own last write included.
        received: VersionVector,
    },
    /// A group of the successor has everything.
    Ready {
        /// The round of sealing.
        round: u64,
    },
    /// The zone that was home mirrors the successor, of which this is the first shard's group: what the old groups have is not
    /// needed any more.
    Mirrored,
    /// A mirror that is promoted stands still, and has nothing in writing. Told by the zone's holder in the name of a group of
    /// the successor.
    Shown(Shown),
    /// The zone of the mirror that is promoted shows nothing of the keyspace, and will not as long as that is so. Told as the
    /// other.
    NothingShown,
    /// A group that was founded anew, its disk being lost, has what another zone has.
    Refilled,
}
