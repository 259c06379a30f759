//! Three zones that write, delete, exchange, trim, compare and collect in any order hold the same in the end, and that
//! is what their writes say: a write is a sibling exactly when no other write has replaced it.

use proptest::prelude::*;

use super::*;
use crate::read::serve;
use crate::request::{Answer, Query};

const ZONES: [u16; 3] = [1, 2, 3];
const KEYS: u8 = 2;

#[derive(Clone, Debug)]
enum Act {
    /// A write of `key` in `zone`: with the context read in `reader`, or blind.
    Write {
        zone: usize,
        key: u8,
        reader: Option<usize>,
        delete: bool,
    },
    /// `to` asks `from` for effects of one zone, from its own position, one below or one above.
    Ship {
        to: usize,
        from: usize,
        of: u16,
        offset: u64,
        max_bytes: usize,
    },
    /// `zone` drops part of its outbox.
    Trim { zone: usize, of: u16, through: u64 },
    /// `to` compares with `from`, and writes meanwhile.
    Compare {
        to: usize,
        from: usize,
        write: Option<u8>,
    },
    /// `zone` hears what the others have, without their effects, and drops tombstones.
    Collect { zone: usize },
}

fn any_act() -> impl Strategy<Value = Act> {
    let zone = 0..ZONES.len();
    let other =
        (zone.clone(), 1..ZONES.len()).prop_map(|(to, step)| (to, (to + step) % ZONES.len()));
    prop_oneof![
        6 => (zone.clone(), 0..KEYS, prop::option::of(zone.clone()), any::<bool>())
            .prop_map(|(zone, key, reader, delete)| Act::Write { zone, key, reader, delete }),
        12 => (other.clone(), 1..=3_u16, prop_oneof![4 => Just(1), 1 => 0..3_u64], prop_oneof![1 => Just(0), 4 => Just(usize::MAX)])
            .prop_map(|((to, from), of, offset, max_bytes)| Act::Ship { to, from, of, offset, max_bytes }),
        1 => (zone.clone(), 1..=3_u16, 0..12_u64).prop_map(|(zone, of, through)| Act::Trim { zone, of, through }),
        1 => (other, prop::option::of(0..KEYS)).prop_map(|((to, from), write)| Act::Compare { to, from, write }),
        4 => zone.prop_map(|zone| Act::Collect { zone }),
    ]
}

/// Every write made, with what it replaced.
type History = BTreeMap<Dot, Effect>;

struct World {
    zones: Vec<Zone>,
    history: History,
}

impl World {
    fn new() -> Self {
        Self {
            zones: ZONES.map(Zone::new).into(),
            history: History::new(),
        }
    }

    fn note(&mut self, applied: Applied) {
        for (dot, effect) in applied.effects {
            let first = self.history.entry(dot).or_insert_with(|| effect.clone());
            assert_eq!(*first, effect, "a dot means one write");
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Write {
                zone,
                key,
                reader,
                delete,
            } => self.write(zone, key, reader, delete),
            Act::Ship {
                to,
                from,
                of,
                offset,
                max_bytes,
            } => {
                let Ok([to, from]) = self.zones.get_disjoint_mut([to, from]) else {
                    return;
                };
                let incarnation = incarnation(of);
                let after = (to.received().get(incarnation) + offset).saturating_sub(1);
                let group = from.shard.group();
                let effects =
                    outbox::read(&from.engine, group, incarnation, after, max_bytes).unwrap();
                let applied = to.entry(vec![Op::Merge {
                    incarnation,
                    first: after + 1,
                    effects,
                }]);
                self.note(applied);
            }
            Act::Trim { zone, of, through } => {
                let through = VersionVector::from_iter([(incarnation(of), through)]);
                self.zones[zone].entry(vec![Op::Trim { through }]);
            }
            Act::Compare { to, from, write } => self.compare(to, from, write),
            Act::Collect { zone } => {
                let told: Vec<_> = self
                    .zones
                    .iter()
                    .map(|z| (z.meta().incarnation, z.received().clone()))
                    .collect();
                let zone = &mut self.zones[zone];
                zone.known.extend(told);
                zone.collect(&ZONES);
            }
        }
    }

    fn write(&mut self, zone: usize, key: u8, reader: Option<usize>, delete: bool) {
        let key = format!("k{key}");
        let intent = match reader {
            Some(reader) => WriteIntent::Context(self.zones[reader].set(&key).read_context()),
            None => WriteIntent::Blind,
        };
        let zone = &mut self.zones[zone];
        let op_id = zone.new_op_id();
        let content = if delete {
            Content::Tombstone
        } else {
            value(&op_id.to_string())
        };
        let op = WriteOp {
            key: bytes(&key),
            content,
            intent,
            op_id,
            expires_at_ms: None,
            waiter: Waiter::default(),
        };
        let applied = zone.entry(vec![Op::Write(op)]);
        self.note(applied);
    }

    fn compare(&mut self, to: usize, from: usize, write: Option<u8>) {
        let mut noted = Vec::new();
        {
            let Ok([to, from]) = self.zones.get_disjoint_mut([to, from]) else {
                return;
            };
            to.compare(from, |to, range| {
                let Some(key) = write.filter(|_| range == 0) else {
                    return;
                };
                let op_id = to.new_op_id();
                let op = WriteOp {
                    key: bytes(&format!("k{key}")),
                    content: value(&op_id.to_string()),
                    intent: WriteIntent::Blind,
                    op_id,
                    expires_at_ms: None,
                    waiter: Waiter::default(),
                };
                noted.push(to.entry(vec![Op::Write(op)]));
            });
        }
        for applied in noted {
            self.note(applied);
        }
    }

    /// Exchanges until everybody has everything, comparing where effects are no longer kept.
    fn settle(&mut self) {
        for _ in 0..4 {
            exchange(&mut self.zones);
            for to in 0..ZONES.len() {
                for from in 0..ZONES.len() {
                    if to != from
                        && !self.zones[to]
                            .received()
                            .includes(self.zones[from].received())
                    {
                        self.compare(to, from, None);
                    }
                }
            }
        }
    }

    /// The live siblings and the tombstones beside them, as the writes say.
    fn expected(&self, key: &str) -> Vec<Dot> {
        let of_key: Vec<_> = self
            .history
            .iter()
            .filter(|(_, effect)| effect.key == key)
            .collect();
        let replaced = |dot: Dot| {
            of_key
                .iter()
                .any(|(other, effect)| **other != dot && effect.replaced.covers(dot))
        };
        let kept: Vec<_> = of_key.iter().filter(|(dot, _)| !replaced(**dot)).collect();
        let live = kept
            .iter()
            .any(|(_, effect)| effect.content.value().is_some());
        kept.iter().filter(|_| live).map(|(dot, _)| **dot).collect()
    }

    fn check(&self) {
        let digest = |zone: &Zone| {
            serve(
                &zone.engine,
                PLACE.keyspace,
                1,
                &Query::Digest { shard: PLACE.shard },
            )
            .unwrap()
        };
        for zone in &self.zones {
            zone.check();
            assert_eq!(zone.received(), self.zones[0].received());
            for key in (0..KEYS).map(|key| format!("k{key}")) {
                let set = zone.set(&key);
                let shown: Vec<_> = versions::dots(&set).filter(|_| set.has_live()).collect();
                assert_eq!(
                    shown,
                    self.expected(&key),
                    "{key} in zone {}",
                    zone.shard.group().zone
                );
            }
            let Answer::Digest(digest_here) = digest(zone) else {
                panic!("not a digest")
            };
            assert_eq!(Answer::Digest(digest_here), digest(&self.zones[0]));
            assert_eq!(
                (digest_here.keys, digest_here.conflicts),
                (zone.meta().keys, zone.meta().conflicts)
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]
    #[test]
    fn zones_that_have_exchanged_everything_hold_what_their_writes_say(
        acts in prop::collection::vec(any_act(), 0..60),
    ) {
        let mut world = World::new();
        for act in acts {
            world.act(act);
        }
        world.settle();
        world.check();
    }
}
