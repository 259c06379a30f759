//! A shard of a mirror and the holder of a zone, each by itself: what is shown after each batch, and after a batch that was
//! lost.

use std::collections::BTreeMap;

use bytes::Bytes;
use meridian_causal::{
    CausalContext, Content, Dot, Hlc, Incarnation, Sibling, SiblingSet, VersionVector,
};
use meridian_storage::{Durability, Engine, MemoryEngine};
use proptest::prelude::*;

use super::part::{Arrived, Part};
use super::reading::MirrorRead;
use super::source::changed;
use super::zone::Zone;
use super::*;
use crate::keys::{Place, VersionKey};
use crate::record::Header;
use crate::shard::versions;

const PLACE: Place = Place {
    keyspace: KeyspaceId(1),
    shard: ShardId(0),
};

/// What a shard shows: keys and their newest counters.
type Shown = BTreeMap<Vec<u8>, u64>;

fn record(index: u64, live: bool) -> Bytes {
    let content = if live {
        Content::Value(Bytes::from(index.to_be_bytes().to_vec()))
    } else {
        Content::Tombstone
    };
    let sibling = Sibling {
        dot: Dot::new(Incarnation::from_raw(9), index),
        content,
        written_at: Hlc(index),
        expires_at_ms: None,
        op_id: None,
        transaction: None,
    };
    let mut set = SiblingSet::new();
    set.apply(sibling, &CausalContext::new(), &VersionVector::new());
    let header = Header {
        index,
        hlc: Hlc(index),
    };
    VersionKey::encode_record(header, &set)
}

/// The home zone's shard.
#[derive(Default)]
struct Home {
    records: BTreeMap<Vec<u8>, (u64, bool)>,
    index: u64,
}

impl Home {
    fn write(&mut self, key: &[u8], live: bool) {
        self.index += 1;
        self.records.insert(key.to_vec(), (self.index, live));
    }

    fn shown(&self) -> Shown {
        let live = self.records.iter().filter(|(_, (_, live))| *live);
        live.map(|(key, (index, _))| (key.clone(), *index))
            .collect()
    }

    fn page(&self, since: u64, full: bool, from: &Bytes) -> MirrorPage {
        let engine = MemoryEngine::new();
        let mut work = Workspace::new(&engine, false);
        for (key, (index, live)) in &self.records {
            work.put(VersionKey::encode(PLACE, key), record(*index, *live));
        }
        let (records, next) = changed(&work, PLACE, since, from).unwrap();
        MirrorPage {
            received: VersionVector::new(),
            source: Incarnation::from_raw(9),
            index: self.index,
            full,
            from: from.clone(),
            records: packing::pack(&records),
            same: Vec::new(),
            next,
        }
    }
}

fn order(generation: u64, view: u64) -> Order {
    let cut = Cut {
        view,
        time_ms: view,
        pins: vec![NodeId(1)],
    };
    Order { generation, cut }
}

/// A mirror of one shard over a store that may lose what is not synced.
struct Mirror {
    engine: MemoryEngine,
    part: Part,
}

impl Mirror {
    fn new() -> Self {
        Self {
            engine: MemoryEngine::new(),
            part: Part::default(),
        }
    }

    /// One turn; false: there was nothing to write.
    fn turn(&mut self, page: Option<MirrorPage>) -> bool {
        let mut work = Workspace::new(&self.engine, false);
        let page = page.map(|page| Arrived::open(page).unwrap());
        let written = self.part.next_state(PLACE, page, &mut work).unwrap();
        let Some(state) = written else { return false };
        let stored = crate::keys::MirrorPartKey::encode(PLACE);
        work.put(stored, crate::keys::MirrorPartKey::encode_record(&state));
        self.engine
            .write(&work.into_batch(), Durability::Synced)
            .unwrap();
        self.part.become_state(state);
        true
    }

    fn rest(&mut self) {
        while self.turn(None) {}
    }

    /// Receives what home has as a generation.
    fn receive(&mut self, home: &Home, order: Order) {
        let full = self.part.newest().is_none();
        let since = self.part.newest().map_or(0, |held| held.index);
        self.part.take_order(Some(order));
        self.rest();
        let mut from = Bytes::new();
        loop {
            let page = home.page(since, full, &from);
            let next = page.next.clone();
            assert!(self.turn(Some(page)));
            match next {
                Some(next) => from = next,
                None => return,
            }
        }
    }

    fn point(&mut self, generation: u64) {
        self.part.point(generation);
        self.rest();
    }

    fn shown(&self, generation: u64) -> Shown {
        let mut shown = Shown::new();
        let read = MirrorRead::new(&self.engine, generation);
        versions::scan(&read, PLACE, (&[], None), &mut |stored, record| {
            let (header, set) = VersionKey::decode_visited(stored, record)?;
            if set.has_live() {
                let key = VersionKey::user_key(stored)?;
                shown.insert(key.to_vec(), header.index);
                assert_eq!(versions::load(&read, PLACE, key)?, set);
            }
            Ok(std::ops::ControlFlow::Continue(()))
        })
        .unwrap();
        shown
    }

    fn stored_versions(&self) -> usize {
        let (from, to) = crate::keys::MirrorVersionKey::all(PLACE);
        let mut count = 0;
        meridian_storage::Read::scan(&self.engine, &from, &to, &mut |_, _| {
            count += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        count
    }
}

#[test]
fn a_generation_that_is_being_received_changes_nothing_of_those_before_it() {
    let (mut home, mut mirror) = (Home::default(), Mirror::new());
    home.write(b"a", true);
    home.write(b"b", true);
    mirror.receive(&home, order(1, 10));
    let first = home.shown();
    home.write(b"a", true);
    home.write(b"b", false);
    home.write(b"c", true);
    mirror.receive(&home, order(2, 20));
    assert_eq!(mirror.shown(1), first);
    assert_eq!(mirror.shown(2), home.shown());
}

#[test]
fn a_key_that_changed_often_is_shipped_once_and_one_that_did_not_is_not() {
    let (mut home, mut mirror) = (Home::default(), Mirror::new());
    home.write(b"quiet", true);
    mirror.receive(&home, order(1, 10));
    for _ in 0..5 {
        home.write(b"busy", true);
    }
    mirror.receive(&home, order(2, 20));
    assert_eq!(mirror.part.newest().unwrap().keys, 1);
}

#[test]
fn what_came_of_a_cut_that_was_given_up_is_taken_back() {
    let (mut home, mut mirror) = (Home::default(), Mirror::new());
    home.write(b"a", true);
    mirror.receive(&home, order(1, 10));
    let first = home.shown();
    home.write(b"a", true);
    let mut half = home.page(1, false, &Bytes::new());
    half.next = Some(Bytes::from_static(b"b"));
    mirror.part.take_order(Some(order(2, 20)));
    assert!(mirror.turn(Some(half)));
    assert_ne!(mirror.shown(2), first, "half of a generation stands there");
    mirror.part.take_order(Some(order(3, 30)));
    mirror.rest();
    assert_eq!(mirror.shown(3), first);
    home.write(b"c", true);
    mirror.receive(&home, order(3, 30));
    assert_eq!(mirror.shown(3), home.shown());
}

#[test]
fn a_full_page_over_an_older_generation_removes_what_it_does_not_hold() {
    let (mut home, mut mirror) = (Home::default(), Mirror::new());
    home.write(b"a", true);
    home.write(b"b", true);
    mirror.receive(&home, order(1, 10));
    let first = home.shown();
    let mut other = Home::default();
    other.write(b"b", true);
    mirror.part.take_order(Some(order(2, 20)));
    assert!(mirror.turn(Some(other.page(0, true, &Bytes::new()))));
    assert_eq!(mirror.shown(2), other.shown());
    assert_eq!(mirror.shown(1), first);
}

#[test]
fn the_generation_shown_and_the_one_before_it_stay_and_older_versions_go() {
    let (mut home, mut mirror) = (Home::default(), Mirror::new());
    let mut shown = vec![Shown::new()];
    for generation in 1..=6 {
        home.write(b"a", true);
        home.write(b"gone", generation != 3);
        mirror.receive(&home, order(generation, generation * 10));
        mirror.point(generation);
        shown.push(home.shown());
        assert_eq!(mirror.shown(generation), home.shown());
        let before = usize::try_from(generation).unwrap() - 1;
        assert_eq!(mirror.shown(generation - 1), shown[before]);
    }
    assert!(mirror.part.held(4).is_none());
    assert!(mirror.part.held(5).is_some());
    assert_eq!(mirror.stored_versions(), 4);
}

#[test]
fn a_page_that_does_not_begin_where_the_last_one_ended_is_left_out() {
    let (mut home, mut mirror) = (Home::default(), Mirror::new());
    home.write(b"a", true);
    mirror.part.take_order(Some(order(1, 10)));
    let page = home.page(0, true, &Bytes::from_static(b"a"));
    assert!(!mirror.turn(Some(page)));
    assert!(mirror.part.newest().is_none());
}

proptest! {
    #[test]
    fn every_generation_shows_the_state_at_its_cut(
        rounds in prop::collection::vec(prop::collection::vec((0..6_u8, any::<bool>()), 0..8), 1..8),
    ) {
        let (mut home, mut mirror) = (Home::default(), Mirror::new());
        let mut before = Shown::new();
        for (generation, writes) in (1..).zip(rounds) {
            for (key, live) in writes {
                home.write(&[key, 0], live);
            }
            mirror.receive(&home, order(generation, generation));
            if generation > 1 {
                prop_assert_eq!(&mirror.shown(generation - 1), &before);
            }
            prop_assert_eq!(mirror.shown(generation), home.shown());
            mirror.point(generation);
            prop_assert_eq!(mirror.shown(generation), home.shown());
            before = home.shown();
        }
    }
}

fn durable(generation: u64, view: u64) -> PartReport {
    PartReport {
        have: (generation, view),
        ..PartReport::default()
    }
}

fn ordered(parts: [PartReport; 2]) -> Zone {
    let mut zone = Zone::default();
    for (shard, part) in (0..).map(ShardId).zip(parts) {
        zone.hear(shard, part);
    }
    zone.consider(
        Cut {
            view: 7,
            time_ms: 7,
            pins: vec![NodeId(1); 2],
        },
        0,
        2,
    );
    zone
}

#[test]
fn a_pointer_flips_when_the_last_shard_is_durable_and_not_before() {
    let mut zone = ordered([durable(0, 0), durable(0, 0)]);
    assert!(zone.complete(2, false).is_none());
    zone.hear(ShardId(0), durable(1, 7));
    assert!(zone.complete(2, false).is_none());
    assert!(zone.complete(2, true).is_some(), "the planted bug");
    zone.hear(ShardId(1), durable(1, 6));
    assert!(zone.complete(2, false).is_none(), "of another cut");
    zone.hear(ShardId(1), durable(1, 7));
    assert_eq!(
        zone.complete(2, false).map(|shown| shown.generation),
        Some(1)
    );
}

#[test]
fn an_order_under_a_number_that_another_cut_has_is_given_up() {
    let held = |view| crate::keys::HeldGeneration {
        received: VersionVector::new(),
        generation: 3,
        view,
        cut_ms: 1,
        source: Incarnation::from_raw(9),
        index: 1,
        bytes: 0,
        keys: 0,
    };
    let lost = |view, ordered: Order| {
        let mut part = Part::default();
        part.become_state(crate::keys::MirrorPart {
            have: vec![held(view)],
            ..crate::keys::MirrorPart::default()
        });
        part.take_order(Some(ordered));
        part.report().lost
    };
    assert!(!lost(7, order(3, 7)), "it is this cut");
    assert!(lost(8, order(3, 7)), "another cut came to have it");
}

#[test]
fn a_cut_that_parts_have_keeps_its_number_and_another_gets_one_that_none_has_used() {
    let number = |parts| ordered(parts).ordered_number();
    assert_eq!(number([durable(4, 7), durable(3, 5)]), Some(4));
    assert_eq!(number([durable(4, 6), durable(3, 5)]), Some(5));
    assert_eq!(number([durable(3, 7), durable(4, 6)]), Some(5));
}

#[test]
fn no_cut_is_taken_before_all_parts_are_heard_of() {
    let mut zone = Zone::default();
    zone.hear(ShardId(0), durable(0, 0));
    let cut = Cut {
        view: 7,
        time_ms: 7,
        pins: vec![NodeId(1); 2],
    };
    zone.consider(cut, 0, 2);
    assert_eq!(zone.ordered_number(), None);
}
