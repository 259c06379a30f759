//! The keyspaces that the keyspace `default` has been: the first, and those that an alter made of it, one after the other.
//!
//! Told from the catalogs that nodes have, in the order of their revisions; the control group has one log, so there is one
//! such order. All of them are one history: whatever is written to one is there in those that follow.
//!
//! What it is not: a judge. What must hold from one keyspace to the next stands in `checkers::moves`.
//!
//! Invariant: ids of keyspaces grow, so of two of a lineage the one with the greater id came later.

use std::collections::BTreeMap;

use meridian_causal::ZoneId;
use meridian_core::catalog::{Alter, Catalog, Mode, Policy};
use meridian_core::ids::KeyspaceId;

/// Whose linearizable operations are in one order: those of a keyspace, of one zone or of all ([`ZoneId::GLOBAL`]).
pub type Domain = (KeyspaceId, ZoneId);

/// One keyspace of the lineage.
#[derive(Clone, Debug)]
struct Known {
    policy: Policy,
    opened: bool,
}

/// What has become of alters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlterCounts {
    /// Successors made.
    pub begun: u64,
    /// Names moved to a successor.
    pub moved: u64,
    /// Alters cancelled by an operator.
    pub cancelled: u64,
    /// Rounds of sealing given up since they took too long.
    pub given_up: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Lineage {
    revision: u64,
    keyspaces: BTreeMap<KeyspaceId, Known>,
    serving: KeyspaceId,
    under_way: Option<Alter>,
    /// The round of sealing of each successor, as last heard of.
    rounds: BTreeMap<KeyspaceId, u64>,
    given_up: u64,
}

impl Default for Lineage {
    fn default() -> Self {
        Self::new(Policy::default())
    }
}

impl Lineage {
    /// A keyspace that has not been altered.
    pub fn new(policy: Policy) -> Self {
        let first = Known {
            policy,
            opened: true,
        };
        Self {
            revision: 0,
            keyspaces: BTreeMap::from([(KeyspaceId::DEFAULT, first)]),
            serving: KeyspaceId::DEFAULT,
            under_way: None,
            rounds: BTreeMap::new(),
            given_up: 0,
        }
    }

    /// A node has this catalog.
    pub fn hear(&mut self, catalog: &Catalog) {
        if catalog.revision <= self.revision {
            return;
        }
        self.revision = catalog.revision;
        self.under_way = None;
        let of_lineage = catalog.keyspaces.values();
        for keyspace in of_lineage.filter(|one| one.lineage == KeyspaceId::DEFAULT) {
            let opened = keyspace.is_open() || keyspace.moved;
            let policy = keyspace.policy.clone();
            let known = Known { policy, opened };
            self.keyspaces.insert(keyspace.id, known);
            if keyspace.is_open() {
                self.serving = keyspace.id;
                self.hear_alter(keyspace.alter.as_ref());
            }
        }
    }

    fn hear_alter(&mut self, alter: Option<&Alter>) {
        self.under_way = alter.cloned();
        if let Some(alter) = alter {
            let round = self.rounds.entry(alter.successor).or_default();
            self.given_up += u64::from(*round > 0 && *round != alter.sealing);
            *round = alter.sealing;
        }
    }

    /// The keyspace that has the name, by the newest catalog.
    pub const fn serving(&self) -> KeyspaceId {
        self.serving
    }

    /// How that is replicated.
    pub fn serving_policy(&self) -> Policy {
        self.policy(self.serving).cloned().unwrap_or_default()
    }

    /// How a keyspace is replicated.
    pub fn policy(&self, keyspace: KeyspaceId) -> Option<&Policy> {
        self.keyspaces.get(&keyspace).map(|known| &known.policy)
    }

    /// The alter that is under way, by the newest catalog.
    pub const fn under_way(&self) -> Option<&Alter> {
        self.under_way.as_ref()
    }

    /// Whether the name has been given to a keyspace.
    pub fn is_opened(&self, keyspace: KeyspaceId) -> bool {
        self.keyspaces
            .get(&keyspace)
            .is_some_and(|known| known.opened)
    }

    /// Where an operation of a keyspace belongs that a zone took.
    pub fn domain(&self, keyspace: KeyspaceId, zone: ZoneId) -> Domain {
        match self.policy(keyspace).map(|policy| policy.mode) {
            Some(Mode::Async) | None => (keyspace, zone),
            Some(Mode::Sync | Mode::Snapshot) => (keyspace, ZoneId::GLOBAL),
        }
    }

    /// Whether clients of a zone are served from a mirror of a keyspace.
    pub fn mirrors(&self, keyspace: KeyspaceId, zone: ZoneId) -> bool {
        self.policy(keyspace)
            .is_some_and(|policy| policy.mode == Mode::Snapshot && policy.home != Some(zone))
    }

    /// What has become of alters.
    pub fn counts(&self) -> AlterCounts {
        let count = |which: &dyn Fn(&Known) -> bool| {
            let successors = self.keyspaces.iter();
            let successors = successors.filter(|(id, _)| **id != KeyspaceId::DEFAULT);
            let counted = successors.filter(|(_, known)| which(known)).count();
            u64::try_from(counted).unwrap_or(u64::MAX)
        };
        let (begun, moved) = (count(&|_| true), count(&|known| known.opened));
        let under_way = u64::from(self.under_way.is_some());
        AlterCounts {
            begun,
            moved,
            cancelled: begun.saturating_sub(moved + under_way),
            given_up: self.given_up,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_core::catalog::Keyspace;

    fn keyspace(id: u32, before: Option<u32>) -> Keyspace {
        let name = if before.is_some() { "" } else { "default" };
        let mut keyspace = Keyspace::new(KeyspaceId(id), name, 2, Policy::default());
        keyspace.lineage = KeyspaceId::DEFAULT;
        keyspace.before = before.map(KeyspaceId);
        keyspace
    }

    fn altering(successor: u32, sealing: u64) -> Vec<Keyspace> {
        let mut old = keyspace(1, None);
        old.alter = Some(Alter {
            successor: KeyspaceId(successor),
            filled: [].into(),
            sealing,
            finals: [].into(),
            ready: [].into(),
            promotion: None,
        });
        vec![old, keyspace(successor, Some(1))]
    }

    fn heard(catalogs: Vec<Vec<Keyspace>>) -> Lineage {
        let mut lineage = Lineage::default();
        for (revision, keyspaces) in (1..).zip(catalogs) {
            let keyspaces = keyspaces.into_iter().map(|one| (one.id, one));
            lineage.hear(&Catalog {
                revision,
                keyspaces: keyspaces.collect(),
                ..Catalog::default()
            });
        }
        lineage
    }

    #[test]
    fn alters_are_counted_by_what_became_of_them() {
        let mut moved = keyspace(1, None);
        moved.moved = true;
        let lineage = heard(vec![
            altering(2, 0),
            altering(2, 7),
            altering(2, 0),
            vec![keyspace(1, None)],
            altering(3, 0),
            vec![moved, keyspace(3, None)],
        ]);
        let counts = AlterCounts {
            begun: 2,
            moved: 1,
            cancelled: 1,
            given_up: 1,
        };
        assert_eq!(lineage.counts(), counts);
        assert_eq!(lineage.serving(), KeyspaceId(3));
        assert!(!lineage.is_opened(KeyspaceId(2)));
    }

    #[test]
    fn an_older_catalog_changes_nothing() {
        let mut lineage = heard(vec![altering(2, 0), altering(2, 7)]);
        lineage.hear(&Catalog {
            revision: 1,
            ..Catalog::default()
        });
        assert!(lineage.under_way().is_some_and(|alter| alter.sealing == 7));
    }
}
