//! A world of zones that write and exchange, and beside it the truth: for every write, which writes its author had
//! seen, kept as plain sets of dots. Contexts are never asked what is true.
//!
//! Two truths are kept. `seen` is closed: whoever has read a key has seen all that this zone knew of it. `shown` is
//! strict: only the siblings that were handed to the author, and the dots of its own puts. Step by step a set must
//! agree with the first; at the end, with the second.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use meridian_causal::{
    CausalContext, Content, Dot, Hlc, Incarnation, OpId, Replace, Sibling, SiblingSet,
    VersionVector, ZoneId, put_context,
};

pub(crate) type Key = u8;
type Dots = BTreeSet<Dot>;

pub(crate) const KEYS: Key = 2;

/// One write as the exchange ships it, and what its author had seen of the key.
#[derive(Clone)]
struct Effect {
    key: Key,
    sibling: Sibling,
    replaced: CausalContext,
    truth: Truth,
}

#[derive(Clone, Debug, Default)]
struct Truth {
    seen: Dots,
    shown: Dots,
}

#[derive(Clone)]
struct Zone {
    incarnation: Incarnation,
    received: VersionVector,
    sets: BTreeMap<Key, SiblingSet>,
    /// Per key what was received or joined: more than `received` after a comparison that was not finished.
    known: BTreeMap<Key, VersionVector>,
    comparison: Option<Comparison>,
}

#[derive(Clone)]
struct Comparison {
    view: BTreeMap<Key, SiblingSet>,
    view_known: BTreeMap<Key, VersionVector>,
    seen: VersionVector,
    todo: Vec<Key>,
}

/// How a write in the world says what it replaces.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    Newest,
    All,
    Unread,
    Held,
}

/// Who writes where, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) zone: usize,
    pub(crate) key: Key,
    pub(crate) client: usize,
    pub(crate) mode: Mode,
}

pub(crate) type Deletes = bool;

/// The next `count` effects of one incarnation, and before them the last `again` once more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shipment {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) incarnation: usize,
    pub(crate) again: u64,
    pub(crate) count: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    Write(Write, Deletes),
    WriteInTwoZones {
        zones: [usize; 2],
        key: Key,
    },
    Read {
        zone: usize,
        key: Key,
        client: usize,
    },
    Deliver(Shipment),
    Reincarnate {
        zone: usize,
    },
    BeginComparison {
        from: usize,
        to: usize,
    },
    CompareOneKey {
        zone: usize,
    },
    AbandonComparison {
        zone: usize,
    },
}

#[derive(Clone)]
pub(crate) struct World {
    zones: Vec<Zone>,
    incarnations: Vec<Incarnation>,
    effects: BTreeMap<Incarnation, Vec<Effect>>,
    held: BTreeMap<(usize, Key), (CausalContext, Truth)>,
    /// Whether an absent key stands for everything received, as where tombstones are dropped.
    absent_is_received: bool,
    now: u64,
}

impl World {
    pub(crate) fn new(zones: u16, absent_is_received: bool) -> Self {
        let incarnations: Vec<_> = (1..=zones)
            .map(|zone| Incarnation::new(ZoneId(zone), 1))
            .collect();
        let zone = |incarnation: &Incarnation| Zone {
            incarnation: *incarnation,
            received: VersionVector::new(),
            sets: BTreeMap::new(),
            known: BTreeMap::new(),
            comparison: None,
        };
        let zones = incarnations.iter().map(zone).collect();
        let (effects, held) = (BTreeMap::new(), BTreeMap::new());
        Self {
            zones,
            incarnations,
            effects,
            held,
            absent_is_received,
            now: 0,
        }
    }

    pub(crate) fn run(&mut self, actions: &[Action]) {
        for action in actions {
            self.step(*action);
            self.check_every_set();
        }
    }

    fn step(&mut self, action: Action) {
        self.now += 1;
        match action {
            Action::Write(write, deletes) => {
                let value = Bytes::from(format!("value {}", self.now));
                let content = if deletes {
                    Content::Tombstone
                } else {
                    Content::Value(value)
                };
                self.write(write, content, None);
            }
            Action::WriteInTwoZones { zones, key } => {
                let op_id = OpId {
                    stamp_ms: 0,
                    id: u128::from(self.now),
                };
                let content = Content::Value(Bytes::from(format!("retried {}", self.now)));
                for zone in zones {
                    let write = Write {
                        zone,
                        key,
                        client: 0,
                        mode: Mode::Newest,
                    };
                    self.write(write, content.clone(), Some(op_id));
                }
            }
            Action::Read { zone, key, client } => {
                let truth = Truth {
                    seen: self.everything_known(zone, key),
                    shown: self.live(zone, key),
                };
                let context = self.set(zone, key).read_context();
                self.held.insert((client, key), (context, truth));
            }
            Action::Deliver(shipment) => self.deliver(shipment),
            Action::Reincarnate { zone } => {
                let old = self.zones[zone].incarnation;
                let fresh = Incarnation::new(old.zone(), old.nonce() + 1);
                self.zones[zone].incarnation = fresh;
                self.incarnations.push(fresh);
            }
            Action::BeginComparison { from, to } => self.begin_comparison(from, to),
            Action::CompareOneKey { zone } => self.compare_one_key(zone),
            Action::AbandonComparison { zone } => self.zones[zone].comparison = None,
        }
    }

    /// The set of a key as the zone would act on it.
    fn set(&self, zone: usize, key: Key) -> SiblingSet {
        let zone = &self.zones[zone];
        let absent = || {
            if self.absent_is_received {
                SiblingSet::absent(&zone.received)
            } else {
                SiblingSet::new()
            }
        };
        zone.sets.get(&key).cloned().unwrap_or_else(absent)
    }

    fn known(&self, zone: usize, key: Key) -> VersionVector {
        let zone = &self.zones[zone];
        let mut known = zone.known.get(&key).cloned().unwrap_or_default();
        known.join(&zone.received);
        known
    }

    fn known_effects(&self, zone: usize, key: Key) -> impl Iterator<Item = &Effect> {
        let known = self.known(zone, key);
        let all = self
            .effects
            .values()
            .flatten()
            .filter(move |effect| effect.key == key);
        all.filter(move |effect| known.covers(effect.sibling.dot))
    }

    /// What the model says the key's siblings are.
    fn live(&self, zone: usize, key: Key) -> Dots {
        let mut live: Dots = self
            .known_effects(zone, key)
            .map(|effect| effect.sibling.dot)
            .collect();
        for effect in self.known_effects(zone, key) {
            live.retain(|dot| !effect.truth.seen.contains(dot));
        }
        live
    }

    fn everything_known(&self, zone: usize, key: Key) -> Dots {
        let effects = self.known_effects(zone, key);
        effects
            .flat_map(|effect| {
                effect
                    .truth
                    .seen
                    .iter()
                    .copied()
                    .chain([effect.sibling.dot])
            })
            .collect()
    }

    /// Rule 2, by brute force over the live effects.
    fn replaced_when_blind(&self, zone: usize, key: Key) -> Truth {
        let live = self.live(zone, key);
        let siblings: Vec<&Sibling> = self
            .known_effects(zone, key)
            .map(|effect| &effect.sibling)
            .collect();
        let siblings: Vec<_> = siblings
            .into_iter()
            .filter(|sibling| live.contains(&sibling.dot))
            .collect();
        let name = |sibling: &Sibling| sibling.op_id.ok_or(sibling.dot);
        let versions: BTreeSet<_> = siblings.iter().map(|sibling| name(sibling)).collect();
        if versions.len() < 2
            || siblings
                .iter()
                .all(|sibling| sibling.content == Content::Tombstone)
        {
            return Truth {
                seen: self.everything_known(zone, key),
                shown: live,
            };
        }
        let own_zone = self.zones[zone].incarnation.zone();
        let own = siblings
            .iter()
            .filter(|sibling| sibling.dot.zone() == own_zone);
        let newest = own
            .max_by_key(|sibling| (sibling.written_at, sibling.dot))
            .map(|sibling| name(sibling));
        let dots = siblings
            .iter()
            .filter(|sibling| Some(name(sibling)) == newest)
            .map(|sibling| sibling.dot);
        let dots: Dots = dots.collect();
        Truth {
            seen: dots.clone(),
            shown: dots,
        }
    }

    fn write(&mut self, write: Write, content: Content, op_id: Option<OpId>) {
        let Write {
            zone,
            key,
            client,
            mode,
        } = write;
        let mut set = self.set(zone, key);
        let held = self.held.get(&(client, key)).cloned().unwrap_or_default();
        let (replace, mut truth) = match mode {
            Mode::Newest => (Replace::Newest, self.replaced_when_blind(zone, key)),
            Mode::All => {
                let truth = Truth {
                    seen: self.everything_known(zone, key),
                    shown: self.live(zone, key),
                };
                (Replace::All, truth)
            }
            Mode::Unread => (Replace::Exactly(CausalContext::new()), Truth::default()),
            Mode::Held => (Replace::Exactly(held.0), held.1),
        };
        let incarnation = self.zones[zone].incarnation;
        let replaced = set.replaced_by(incarnation.zone(), &replace);
        let dot = Dot::new(incarnation, self.zones[zone].received.get(incarnation) + 1);
        let written_at = Hlc::new(self.now, 0);
        let sibling = Sibling {
            dot,
            content,
            written_at,
            expires_at_ms: None,
            op_id,
            transaction: None,
        };
        let effect = Effect {
            key,
            sibling: sibling.clone(),
            replaced: replaced.clone(),
            truth: truth.clone(),
        };
        self.effects.entry(incarnation).or_default().push(effect);

        self.zones[zone].received.advance(incarnation, dot.counter);
        set.apply(sibling, &replaced, &self.zones[zone].received);
        let returned = set.condensed(put_context(&replaced, dot));
        self.zones[zone].sets.insert(key, set);
        truth.shown.insert(dot);
        truth.seen.insert(dot);
        if truth.seen.is_superset(&self.live(zone, key)) {
            truth.seen = self.everything_known(zone, key);
        }
        self.held.insert((client, key), (returned, truth));
    }

    /// Ships what `from` holds of it; nothing while `to` compares itself with somebody ahead of it.
    fn deliver(&mut self, shipment: Shipment) {
        let Shipment {
            from,
            to,
            incarnation,
            again,
            count,
        } = shipment;
        let incarnation = self.incarnations[incarnation % self.incarnations.len()];
        let has = self.zones[to].received.get(incarnation);
        let compared = self.zones[to]
            .comparison
            .as_ref()
            .map_or(0, |comparison| comparison.seen.get(incarnation));
        if compared > has {
            return;
        }
        let holds = self.zones[from].received.get(incarnation);
        let zone = &mut self.zones[to];
        let effects = self.effects.get(&incarnation).into_iter().flatten();
        let next = effects
            .filter(|effect| effect.sibling.dot.counter + again > has)
            .take(count);
        for effect in next.take_while(|effect| effect.sibling.dot.counter <= holds) {
            let dot = effect.sibling.dot;
            let repeated = zone.received.covers(dot);
            zone.received.advance(incarnation, dot.counter);
            let set = zone.sets.entry(effect.key).or_default();
            let before = repeated.then(|| set.siblings().to_vec());
            set.apply(effect.sibling.clone(), &effect.replaced, &zone.received);
            assert!(
                before.is_none_or(|before| before == set.siblings()),
                "a repeated effect changed something"
            );
        }
    }

    fn begin_comparison(&mut self, from: usize, to: usize) {
        let source = &self.zones[from];
        let view_known = (0..KEYS).map(|key| (key, self.known(from, key))).collect();
        let (view, seen) = (source.sets.clone(), source.received.clone());
        self.zones[to].comparison = Some(Comparison {
            view,
            view_known,
            seen,
            todo: (0..KEYS).collect(),
        });
    }

    fn compare_one_key(&mut self, zone: usize) {
        let zone = &mut self.zones[zone];
        let Some(comparison) = &mut zone.comparison else {
            return;
        };
        if let Some(key) = comparison.todo.pop() {
            let theirs = comparison.view.get(&key).cloned().unwrap_or_default();
            let ours = zone.sets.get(&key).cloned().unwrap_or_default();
            let (mut joined, mut reverse) = (ours.clone(), theirs.clone());
            joined.join_at(&theirs, &zone.received, &comparison.seen);
            reverse.join_at(&ours, &comparison.seen, &zone.received);
            assert_eq!(joined, reverse, "the sides disagree");
            zone.sets.insert(key, joined);
            zone.known
                .entry(key)
                .or_default()
                .join(&comparison.view_known[&key]);
        }
        if comparison.todo.is_empty() {
            zone.received.join(&comparison.seen);
            zone.comparison = None;
        }
    }

    fn check_every_set(&self) {
        for (zone, state) in self.zones.iter().enumerate() {
            for (key, set) in &state.sets {
                let dots: Dots = set.siblings().iter().map(|sibling| sibling.dot).collect();
                assert_eq!(
                    dots,
                    self.live(zone, *key),
                    "zone {zone}, key {key}: {set:?}"
                );
            }
        }
    }

    /// Ships everything to everybody; abandons what is under way.
    pub(crate) fn settle(&mut self) {
        self.zones
            .iter_mut()
            .for_each(|zone| zone.comparison = None);
        let zones = self.zones.len();
        for _round in 0..zones {
            for (from, to) in (0..zones).flat_map(|from| (0..zones).map(move |to| (from, to))) {
                self.deliver_all(from, to);
            }
        }
        self.check_every_set();
    }

    pub(crate) fn deliver_all(&mut self, from: usize, to: usize) {
        for incarnation in 0..self.incarnations.len() {
            self.deliver(Shipment {
                from,
                to,
                incarnation,
                again: 0,
                count: usize::MAX,
            });
        }
    }

    pub(crate) fn compare_all(&mut self, from: usize, to: usize) {
        self.begin_comparison(from, to);
        for _key in 0..KEYS {
            self.compare_one_key(to);
        }
    }

    /// What a zone holds. A key that was compared and never written is as good as absent.
    pub(crate) fn sets(&self, zone: usize) -> BTreeMap<Key, SiblingSet> {
        let written = self.zones[zone]
            .sets
            .iter()
            .filter(|(_, set)| !set.context().is_empty());
        written.map(|(key, set)| (*key, set.clone())).collect()
    }

    /// What a zone holds, as bytes.
    pub(crate) fn stored(&self, zone: usize) -> BTreeMap<Key, Vec<u8>> {
        let encoded = |set: SiblingSet| {
            let mut bytes = Vec::new();
            set.encode(&mut bytes);
            bytes
        };
        self.sets(zone)
            .into_iter()
            .map(|(key, set)| (key, encoded(set)))
            .collect()
    }

    /// Every write that nobody who was shown it has replaced, of all zones together.
    pub(crate) fn must_live(&self, key: Key) -> Dots {
        let of_key = || {
            self.effects
                .values()
                .flatten()
                .filter(move |effect| effect.key == key)
        };
        let shown: Dots = of_key()
            .flat_map(|effect| effect.truth.shown.iter().copied())
            .collect();
        of_key()
            .map(|effect| effect.sibling.dot)
            .filter(|dot| !shown.contains(dot))
            .collect()
    }
}
