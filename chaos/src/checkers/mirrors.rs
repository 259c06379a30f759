//! A mirror shows one cut, whole (invariant 6).
//!
//! From replicas: what every key held after each entry of its group's log, and at which index each part of each view was
//! taken. From clients: what they read in a mirror zone, with the generation and the view that the answer names. So each key
//! of an answer must be what the home zone's group held at the index of that view, no later and no earlier; a page must hold
//! all live keys of its range; a generation of a zone is one view for ever; and what a node shows never lies.
//!
//! What it is not: keys of transactions are left out, as a view shows what was prepared when it was taken and committed
//! later; and it judges no freshness.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use meridian_causal::SiblingSet;
use meridian_core::catalog::shard_of;
use meridian_core::ids::{GroupId, KeyspaceId, ShardId};
use meridian_core::mirror::MirrorStamp;
use meridian_core::output::Observation;
use meridian_core::request::Answer;

use super::promotions::Cut;
use crate::client::EXPIRING;
use crate::history::Action;
use crate::lineage::Promoted;
use crate::transact::program::is_transactional;
use crate::violation::{Checked, Violation};

/// Digest of what a key holds live, by the log index that made it so.
type Past = BTreeMap<u64, Option<[u8; 16]>>;

/// A generation of a keyspace in a zone.
type Generation = (KeyspaceId, usize, u64);

/// What was seen of cuts.
#[derive(Debug, Default)]
pub(super) struct Mirrors {
    stored: BTreeMap<GroupId, BTreeMap<Bytes, Past>>,
    /// Indexes at which a part of a view was taken: more than one if it was taken again.
    pins: BTreeMap<(u64, ShardId), BTreeSet<(GroupId, u64)>>,
    views: BTreeMap<Generation, u64>,
    /// Answers of mirrors that were judged.
    pub(super) judged: u64,
    /// Generations of which answers were judged.
    pub(super) generations: BTreeSet<Generation>,
}

impl Mirrors {
    pub(super) fn observe(&mut self, observation: &Observation) {
        match observation {
            Observation::Stored {
                group,
                index,
                key,
                live,
            } => {
                let keys = self.stored.entry(*group).or_default();
                keys.entry(key.clone()).or_default().insert(*index, *live);
            }
            Observation::Pinned { view, group, index } => {
                let pins = self.pins.entry((*view, group.shard)).or_default();
                pins.insert((*group, *index));
            }
            Observation::Applied { .. }
            | Observation::Effect { .. }
            | Observation::Stage { .. }
            | Observation::Durable { .. }
            | Observation::Leads { .. } => {}
        }
    }

    /// Where the parts of a view of a keyspace were taken.
    pub(super) fn cut(&self, keyspace: KeyspaceId, view: u64) -> Cut {
        let mut cut = Cut::new();
        let pins = self
            .pins
            .range((view, ShardId(0))..=(view, ShardId(u16::MAX)));
        for ((_, shard), pins) in pins {
            let of_keyspace = pins.iter().filter(|(group, _)| group.keyspace == keyspace);
            for (_, index) in of_keyspace {
                let (first, last) = cut.entry(*shard).or_insert((*index, *index));
                *first = (*first).min(*index);
                *last = (*last).max(*index);
            }
        }
        cut
    }

    /// A mirror of a keyspace has become another one: that holds what the cut of its view held, and nothing else.
    pub(super) fn check_promoted(&self, now: u64, shards: u16, promoted: &Promoted) -> Checked {
        let view = promoted.shown.view;
        for shard in (0..shards).map(ShardId) {
            let wrong = self.at_no_pin((promoted.before, shard, view), |past| {
                past.differs(&self.newest(promoted.keyspace, shard))
            });
            if let Some(wrong) = wrong {
                let message = format!(
                    "keyspace {} opens, made of cut {view} of keyspace {}: {wrong}",
                    promoted.keyspace.0, promoted.before.0
                );
                return Err(Violation::new("promotion", now, message));
            }
        }
        Ok(())
    }

    /// What the groups of a shard hold live.
    fn newest(&self, keyspace: KeyspaceId, shard: ShardId) -> BTreeMap<&Bytes, [u8; 16]> {
        let groups = self.stored.iter();
        let own = groups.filter(|(id, _)| id.keyspace == keyspace && id.shard == shard);
        let keys = own.flat_map(|(_, keys)| keys);
        keys.filter_map(|(key, past)| Some((key, (*past.last_key_value()?.1)?)))
            .collect()
    }

    /// Judges what a client was answered in a mirror zone.
    pub(super) fn judge(
        &mut self,
        (now, zone, keyspace): (u64, usize, KeyspaceId),
        shards: u16,
        (action, answer): (&Action, &Answer),
        stamp: MirrorStamp,
    ) -> Checked {
        self.judged += 1;
        let generation = (keyspace, zone, stamp.generation);
        self.generations.insert(generation);
        let named = *self.views.entry(generation).or_insert(stamp.view);
        if named != stamp.view {
            let message = format!(
                "zone {} shows cuts {named} and {} as generation {}",
                zone + 1,
                stamp.view,
                stamp.generation
            );
            return Err(Violation::new("mirrors", now, message));
        }
        let wrong = match (action, answer) {
            (Action::Get { key, .. }, Answer::Key(set)) => {
                let shard = shard_of(key, shards);
                self.at_no_pin((keyspace, shard, stamp.view), |past| past.holds(key, set))
            }
            (Action::Scan { shard, from, .. }, Answer::Page { keys, more }) => self
                .at_no_pin((keyspace, ShardId(*shard), stamp.view), |past| {
                    past.holds_page(from, keys, *more)
                }),
            (
                Action::Get { .. }
                | Action::Scan { .. }
                | Action::Write { .. }
                | Action::Visit { .. },
                _,
            ) => Some("another kind of answer".to_owned()),
        };
        match wrong {
            None => Ok(()),
            Some(wrong) => {
                let message = format!(
                    "zone {} shows as generation {}, cut {}: {wrong}; asked {action:?}",
                    zone + 1,
                    stamp.generation,
                    stamp.view
                );
                Err(Violation::new("mirrors", now, message))
            }
        }
    }

    /// What is wrong with an answer at every index at which its part of the view was taken.
    fn at_no_pin(
        &self,
        place: (KeyspaceId, ShardId, u64),
        check: impl Fn(At<'_>) -> Option<String>,
    ) -> Option<String> {
        let (keyspace, shard, view) = place;
        let Some(pins) = self.pins.get(&(view, shard)) else {
            return Some(format!("shard {} of it was never taken", shard.0));
        };
        let nothing = BTreeMap::new();
        let mut first = None;
        let of_keyspace = pins.iter().filter(|(group, _)| group.keyspace == keyspace);
        for (group, index) in of_keyspace {
            let keys = self.stored.get(group).unwrap_or(&nothing);
            // Right at one of them is right.
            let wrong = check(At {
                keys,
                index: *index,
            })?;
            first.get_or_insert(wrong);
        }
        first
    }
}

/// The state of a group at an index.
struct At<'p> {
    keys: &'p BTreeMap<Bytes, Past>,
    index: u64,
}

impl At<'_> {
    fn live(&self, key: &Bytes) -> Option<[u8; 16]> {
        let (_, live) = self.keys.get(key)?.range(..=self.index).next_back()?;
        *live
    }

    /// What another state has that this one has not, or the other way round.
    fn differs(&self, other: &BTreeMap<&Bytes, [u8; 16]>) -> Option<String> {
        let judged = |key: &&Bytes| !is_transactional(key) && !key.starts_with(EXPIRING);
        let mut keys = self.keys.keys().chain(other.keys().copied()).filter(judged);
        let odd = keys.find(|key| self.live(key) != other.get(key).copied())?;
        let (here, there) = (self.live(odd).is_some(), other.contains_key(odd));
        Some(format!(
            "{odd:?} is there: {there}; it was there at index {}: {here}; or with other versions",
            self.index
        ))
    }

    fn holds(&self, key: &Bytes, set: &SiblingSet) -> Option<String> {
        let same = is_transactional(key) || self.live(key) == set.digest(key);
        (!same).then(|| {
            let shown = crate::history::show_set(set);
            format!(
                "{key:?} = {shown}, which it was not at index {}",
                self.index
            )
        })
    }

    fn holds_page(&self, from: &Bytes, keys: &[(Bytes, SiblingSet)], more: bool) -> Option<String> {
        if let Some(wrong) = keys.iter().find_map(|(key, set)| self.holds(key, set)) {
            return Some(wrong);
        }
        let shown: BTreeSet<&Bytes> = keys.iter().map(|(key, _)| key).collect();
        let last = keys.last().map(|(key, _)| key).filter(|_| more);
        let mut within = self.keys.keys().filter(|key| {
            *key >= from && last.is_none_or(|last| *key <= last) && !is_transactional(key)
        });
        within
            .find(|key| self.live(key).is_some() && !shown.contains(key))
            .map(|key| format!("no {key:?}, which was there at index {}", self.index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_causal::{CausalContext, Content, Dot, Hlc, Incarnation, Sibling, VersionVector};
    use meridian_core::request::ReadLevel;

    fn set(counter: u64) -> SiblingSet {
        let mut set = SiblingSet::new();
        let sibling = Sibling {
            dot: Dot::new(Incarnation::from_raw(7), counter),
            content: Content::Value(Bytes::from_static(b"v")),
            written_at: Hlc(1),
            expires_at_ms: None,
            op_id: None,
            transaction: None,
        };
        set.apply(sibling, &CausalContext::new(), &VersionVector::new());
        set
    }

    fn seen() -> Mirrors {
        let mut mirrors = Mirrors::default();
        let key = Bytes::from_static(b"k");
        for index in [3, 5] {
            mirrors.observe(&Observation::Stored {
                group: GroupId::default(),
                index,
                live: set(index).digest(&key),
                key: key.clone(),
            });
        }
        mirrors.observe(&Observation::Pinned {
            view: 9,
            group: GroupId::default(),
            index: 4,
        });
        mirrors
    }

    fn judge(mirrors: &mut Mirrors, answer: &Answer, view: u64) -> Checked {
        let level = ReadLevel::Eventual;
        let action = if matches!(answer, Answer::Page { .. }) {
            Action::Scan {
                shard: 0,
                from: Bytes::new(),
                level,
            }
        } else {
            Action::Get {
                key: Bytes::from_static(b"k"),
                level,
            }
        };
        let stamp = MirrorStamp {
            generation: 1,
            view,
            cut_ms: 0,
            age_ms: 0,
        };
        let keyspace = GroupId::default().keyspace;
        mirrors.judge((0, 1, keyspace), 1, (&action, answer), stamp)
    }

    #[test]
    fn what_a_key_held_at_the_cut_is_right_and_what_it_held_before_or_after_is_not() {
        assert!(judge(&mut seen(), &Answer::Key(set(3)), 9).is_ok());
        assert!(judge(&mut seen(), &Answer::Key(set(5)), 9).is_err());
        assert!(judge(&mut seen(), &Answer::Key(SiblingSet::new()), 9).is_err());
    }

    #[test]
    fn a_page_without_a_live_key_is_found() {
        let page = |keys| Answer::Page { keys, more: false };
        let key = Bytes::from_static(b"k");
        assert!(judge(&mut seen(), &page(vec![(key, set(3))]), 9).is_ok());
        assert!(judge(&mut seen(), &page(Vec::new()), 9).is_err());
    }

    #[test]
    fn two_cuts_under_one_number_are_found() {
        let mut mirrors = seen();
        assert!(judge(&mut mirrors, &Answer::Key(set(3)), 9).is_ok());
        assert!(judge(&mut mirrors, &Answer::Key(set(3)), 8).is_err());
    }
}
