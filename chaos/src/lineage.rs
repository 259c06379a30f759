//! The keyspaces that the keyspace `default` has been: the first, and those that an alter made of it, one after the other.
//!
//! Told from the catalogs that nodes have, in the order of their revisions; the control group has one log, so there is one
//! such order. All of them are one history: whatever is written to one is there in those that follow.
//!
//! A promotion is where the history forks: the keyspace that a mirror was promoted to has what one cut had, and the writes that
//! its predecessor made after that come to it later. Each promotion begins a new *era*.
//!
//! What it is not: a judge. What must hold from one keyspace to the next stands in `checkers::moves` and `checkers::promotions`.
//!
//! Invariant: ids of keyspaces grow, so of two of a lineage the one with the greater id came later.

use std::collections::BTreeMap;

use meridian_causal::ZoneId;
use meridian_core::catalog::{Alter, Catalog, Keyspace, Mode, Policy, Returned, Shown};
use meridian_core::ids::KeyspaceId;

/// Whose linearizable operations are in one order: those of a keyspace, of one zone or of all ([`ZoneId::GLOBAL`]).
pub type Domain = (KeyspaceId, ZoneId);

/// One keyspace of the lineage.
#[derive(Clone, Debug)]
struct Known {
    policy: Policy,
    opened: bool,
}

/// A keyspace that was made of a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promoted {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The one that the mirror was of.
    pub before: KeyspaceId,
    /// The mirror's zone.
    pub zone: ZoneId,
    /// At which generation it stood.
    pub shown: Shown,
}

/// Whether a keyspace served before the first that was made of a mirror, if there is one.
pub fn is_of_first_era(keyspace: KeyspaceId, promoted: Option<KeyspaceId>) -> bool {
    promoted.is_none_or(|promoted| keyspace < promoted)
}

/// What has become of alters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlterCounts {
    /// Successors made.
    pub begun: u64,
    /// Names moved to a successor.
    pub moved: u64,
    /// Those of them that moved to a mirror, without the home zone.
    pub promoted: u64,
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
    /// Promotions begun whose mirror has said where it stands; those that were given up never open.
    promotions: BTreeMap<KeyspaceId, Promoted>,
    /// By the newest catalog, keyspaces whose home was deposed and that may have something to hand over.
    deposed: BTreeMap<KeyspaceId, Alter>,
    /// Since when all groups of a deposed keyspace are known to have made their last write.
    ended_ns: BTreeMap<KeyspaceId, u64>,
    /// Since when a keyspace that was made of a mirror is known to have all that the one before had.
    whole_ns: BTreeMap<KeyspaceId, u64>,
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
            promotions: BTreeMap::new(),
            deposed: BTreeMap::new(),
            ended_ns: BTreeMap::new(),
            whole_ns: BTreeMap::new(),
        }
    }

    /// A node has this catalog. Gives the keyspace that was promoted, if this is how that becomes known.
    pub fn hear(&mut self, now: u64, catalog: &Catalog) -> Option<Promoted> {
        if catalog.revision <= self.revision {
            return None;
        }
        self.revision = catalog.revision;
        self.under_way = None;
        self.deposed.clear();
        let served = self.serving;
        let of_lineage = catalog.keyspaces.values();
        for keyspace in of_lineage.filter(|one| one.lineage == KeyspaceId::DEFAULT) {
            self.hear_promotion(now, keyspace);
            let opened = keyspace.is_open() || keyspace.moved;
            let policy = keyspace.policy.clone();
            let known = Known { policy, opened };
            self.keyspaces.insert(keyspace.id, known);
            if keyspace.is_open() {
                self.serving = keyspace.id;
                self.hear_alter(keyspace.alter.as_ref());
            }
        }
        let promoted = self.promotions.get(&self.serving);
        promoted.filter(|_| self.serving != served).cloned()
    }

    fn hear_promotion(&mut self, now: u64, keyspace: &Keyspace) {
        let returned = keyspace
            .divergence
            .as_ref()
            .map(|divergence| divergence.returned);
        if returned == Some(Returned::Whole) {
            self.whole_ns.entry(keyspace.id).or_insert(now);
        }
        let Some(alter) = &keyspace.alter else {
            return;
        };
        if let Some(promotion) = &alter.promotion
            && let Some(shown) = &promotion.shown
        {
            let promoted = Promoted {
                keyspace: alter.successor,
                before: keyspace.id,
                zone: promotion.zone,
                shown: shown.clone(),
            };
            self.promotions.entry(alter.successor).or_insert(promoted);
        }
        if keyspace.is_deposed() {
            self.deposed.insert(keyspace.id, alter.clone());
            let mut groups = keyspace.groups.iter();
            if groups.all(|group| alter.finals.contains_key(&group.id)) {
                self.ended_ns.entry(keyspace.id).or_insert(now);
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

    /// The promotions that came to their end.
    pub fn promotions(&self) -> impl DoubleEndedIterator<Item = &Promoted> {
        let all = self.promotions.values();
        all.filter(|promoted| self.is_opened(promoted.keyspace))
    }

    /// The first keyspace that was made of a mirror.
    pub fn promoted(&self) -> Option<KeyspaceId> {
        self.promotions().map(|one| one.keyspace).next()
    }

    /// How many promotions it took to a keyspace.
    pub fn era(&self, keyspace: KeyspaceId) -> usize {
        let promotions = self.promotions();
        promotions.filter(|one| one.keyspace <= keyspace).count()
    }

    /// The first promotion from a keyspace to a later one.
    pub fn promotion_between(&self, from: KeyspaceId, to: KeyspaceId) -> Option<&Promoted> {
        let mut promotions = self.promotions();
        promotions.find(|one| from < one.keyspace && one.keyspace <= to)
    }

    /// By the newest catalog, a keyspace whose home was deposed and that has not gone yet.
    pub fn deposed(&self) -> Option<(KeyspaceId, &Alter)> {
        let (id, alter) = self.deposed.first_key_value()?;
        Some((*id, alter))
    }

    /// Since when a deposed keyspace was known to have made its last write.
    pub fn ended_ns(&self, keyspace: KeyspaceId) -> Option<u64> {
        self.ended_ns.get(&keyspace).copied()
    }

    /// Since when a keyspace that was made of a mirror was known to have all that the one before had.
    pub fn whole_ns(&self, keyspace: KeyspaceId) -> Option<u64> {
        self.whole_ns.get(&keyspace).copied()
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
            promoted: u64::try_from(self.promotions().count()).unwrap_or(u64::MAX),
            cancelled: begun.saturating_sub(moved + under_way),
            given_up: self.given_up,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_core::catalog::Promotion;

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
            let catalog = Catalog {
                revision,
                keyspaces: keyspaces.collect(),
                ..Catalog::default()
            };
            lineage.hear(revision, &catalog);
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
            promoted: 0,
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
        let older = Catalog {
            revision: 1,
            ..Catalog::default()
        };
        assert_eq!(lineage.hear(9, &older), None);
        assert!(lineage.under_way().is_some_and(|alter| alter.sealing == 7));
    }

    #[test]
    fn a_promotion_begins_an_era_once_the_name_has_moved() {
        let mut old = altering(2, 0);
        let shown = Shown {
            view: 7,
            ..Shown::default()
        };
        let promotion = old[0].alter.as_mut().map(|alter| {
            alter.promotion.insert(Promotion {
                zone: ZoneId(2),
                shown: Some(shown),
            })
        });
        assert!(promotion.is_some());
        let mut lineage = heard(vec![old.clone()]);
        assert_eq!(lineage.era(KeyspaceId(2)), 0);
        old[0].moved = true;
        old[1].name = "default".to_owned();
        let keyspaces = old.into_iter().map(|one| (one.id, one));
        let catalog = Catalog {
            revision: 2,
            keyspaces: keyspaces.collect(),
            ..Catalog::default()
        };
        let promoted = lineage.hear(5, &catalog);
        assert_eq!(
            promoted.map(|one| (one.zone, one.shown.view)),
            Some((ZoneId(2), 7))
        );
        assert_eq!(lineage.era(KeyspaceId(2)), 1);
        let deposed = lineage.deposed().map(|(keyspace, _)| keyspace);
        assert_eq!(deposed, Some(KeyspaceId::DEFAULT));
        // It has no groups here, so none that could write.
        assert_eq!(lineage.ended_ns(KeyspaceId::DEFAULT), Some(5));
        let between = lineage.promotion_between(KeyspaceId::DEFAULT, KeyspaceId(2));
        assert!(between.is_some());
        assert_eq!(
            lineage.promotion_between(KeyspaceId(2), KeyspaceId(3)),
            None
        );
    }
}
