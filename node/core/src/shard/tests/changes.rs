//! What a watcher is shown: every change once, in the order of the group's log, or that the past is gone.

use meridian_storage::Batch;
use proptest::prelude::*;

use super::*;
use crate::group::log::GroupLog;
use crate::keys::{LocalChange, OutboxKey};
use crate::read::changes::{self, Change, Changes, PageLimits, Position, Selection};
use crate::record::Header;
use crate::shard::step::Step;

const ALL: PageLimits = PageLimits {
    changes: u64::MAX,
    bytes: usize::MAX,
};

fn everything() -> Selection {
    Selection::Prefix(Bytes::new())
}

impl Zone {
    fn position(&self, change: u64) -> Position {
        let present = changes::present(&self.engine, self.shard.group()).unwrap();
        Position {
            change,
            ..present.unwrap()
        }
    }

    fn changes(&self, after: u64, selection: &Selection, limits: PageLimits) -> Changes {
        let (group, after) = (self.shard.group(), self.position(after));
        changes::page(&self.engine, group, after, selection, limits).unwrap()
    }

    /// All changes after a position, page by page.
    fn watch(&self, after: u64, selection: &Selection, limits: PageLimits) -> Vec<Change> {
        let mut all = Vec::new();
        let mut at = after;
        loop {
            let page = self.changes(at, selection, limits);
            let Changes::Page {
                changes,
                through,
                more,
            } = page
            else {
                panic!("{page:?} after {at}")
            };
            assert!(through.change > at || !more, "a page goes on");
            all.extend(changes);
            at = through.change;
            if !more {
                assert_eq!(at, self.meta().changes);
                return all;
            }
        }
    }

    fn is_compacted(&self, after: u64) -> bool {
        match self.changes(after, &everything(), ALL) {
            Changes::Compacted(_) => true,
            Changes::Page { .. } => false,
            Changes::Absent => panic!("a whole replica is here"),
        }
    }

    fn come_to_its_end(&mut self, key: &str, dot: Dot) {
        let header = Header {
            index: self.index,
            hlc: Hlc(5),
        };
        self.turn(|shard, work| {
            let mut step = Step::new(shard, header, work);
            let key = bytes(key);
            step.note_change(&LocalChange { key, dot });
            step.finish();
        });
    }
}

fn keys(changes: &[Change]) -> Vec<String> {
    let text = |change: &Change| String::from_utf8(change.key.to_vec()).unwrap();
    changes.iter().map(text).collect()
}

fn numbers(changes: &[Change]) -> Vec<u64> {
    changes.iter().map(|change| change.number).collect()
}

/// Own writes, those of two other zones, and ends, in turns.
fn mixed() -> Zone {
    let [mut a, mut b, mut c] = [1, 2, 3].map(Zone::new);
    for round in 0..4 {
        a.put(&format!("a{round}"), "mine");
        b.put(&format!("b{round}"), "theirs");
        let (dot, _) = a.put("brief", "mine");
        c.delete(&format!("c{round}"));
        a.pull_all(&b);
        a.pull_all(&c);
        a.come_to_its_end("brief", dot);
    }
    a
}

#[test]
fn changes_of_all_zones_are_shown_in_the_order_of_the_log_with_their_origin() {
    let a = mixed();
    let shown = a.watch(0, &everything(), ALL);
    let rounds = (0..4).flat_map(|round| {
        let keys = ["a", "brief", "b", "c", "brief"];
        keys.map(|key| match key {
            "brief" => key.to_owned(),
            key => format!("{key}{round}"),
        })
    });
    assert_eq!(keys(&shown), rounds.collect::<Vec<_>>());
    assert!(numbers(&shown).into_iter().eq(1..=20));
    let zones: Vec<u16> = shown[..5]
        .iter()
        .map(|change| change.dot.incarnation.zone().0)
        .collect();
    assert_eq!(zones, [1, 1, 2, 3, 1]);
    let expired: Vec<bool> = shown[..5].iter().map(|change| change.expired).collect();
    assert_eq!(expired, [false, false, false, false, true]);
    assert_eq!(shown[0].content, value("mine"));
    assert_eq!(shown[3].content, Content::Tombstone);
    a.check();
}

#[test]
fn replicas_number_changes_alike_wherever_their_turns_end() {
    let write = |n: u64| {
        let key = Bytes::from(format!("k{}", n % 7));
        Op::Write(WriteOp {
            key,
            content: value("v"),
            intent: WriteIntent::Blind,
            op_id: OpId {
                stamp_ms: 1_000,
                id: u128::from(n),
            },
            expires_at_ms: None,
            waiter: Waiter::default(),
        })
    };
    let [mut one, mut other] = [Zone::new(1), Zone::new(1)];
    for n in 0..30 {
        let ops = vec![write(2 * n), write(2 * n + 1)];
        one.entry(ops.clone());
        other.entry(ops);
        if n % 4 == 0 {
            other.restart(PlantedBugs::default());
        }
    }
    let shown = one.watch(0, &everything(), ALL);
    assert_eq!(shown.len(), 60);
    assert_eq!(shown, other.watch(0, &everything(), ALL));
}

#[test]
fn a_watcher_of_a_key_or_a_prefix_is_shown_nothing_else_and_goes_on_all_the_same() {
    let a = mixed();
    let limits = PageLimits {
        changes: 3,
        bytes: usize::MAX,
    };
    let key = a.watch(0, &Selection::Key(bytes("b2")), limits);
    assert_eq!(keys(&key), ["b2"]);
    let prefix = a.watch(7, &Selection::Prefix(bytes("b")), limits);
    assert_eq!(
        keys(&prefix),
        [
            "b1", "brief", "brief", "b2", "brief", "brief", "b3", "brief"
        ]
    );
    assert!(a.watch(20, &everything(), ALL).is_empty());
}

proptest! {
    #[test]
    fn pages_of_any_size_from_any_position_show_the_same_changes(
        changes in 1..8_u64, bytes in 0..900_usize, after in 0..20_u64,
    ) {
        let a = mixed();
        let shown = a.watch(after, &everything(), PageLimits { changes, bytes });
        let expected = a.watch(0, &everything(), ALL).split_off(usize::try_from(after).unwrap());
        prop_assert_eq!(shown, expected);
    }
}

#[test]
fn a_replica_that_lags_shows_nothing_until_it_is_past_the_position() {
    let mut a = Zone::new(1);
    a.put("k", "1");
    let ahead = a.changes(5, &everything(), ALL);
    let through = a.position(5);
    let nothing = Changes::Page {
        changes: Vec::new(),
        through,
        more: false,
    };
    assert_eq!(ahead, nothing);
}

#[test]
fn what_was_trimmed_is_compacted_and_what_came_after_is_not() {
    let mut a = mixed();
    let through = VersionVector::from_iter([(incarnation(1), 5)]);
    a.entry(vec![Op::Trim { through }]);
    // The fifth own write was change 11; of the other zones more is kept, which is of no use before it.
    assert_eq!(a.meta().changes_floor, 11);
    assert!(a.is_compacted(0) && a.is_compacted(10));
    let shown = a.watch(11, &everything(), ALL);
    assert!(numbers(&shown).into_iter().eq(12..=20));
    a.check();
    a.trim_all();
    assert_eq!(a.meta().changes_floor, 19, "the last change was an end");
    a.check();
}

#[test]
fn keys_that_came_by_comparison_are_not_shown_so_the_past_is_gone() {
    let [mut a, mut b] = [1, 2].map(Zone::new);
    b.put("theirs", "1");
    b.put("theirs too", "2");
    b.trim_all();
    a.put("mine", "1");
    let before = a.meta().changes;
    assert!(!a.is_compacted(before));
    a.compare(&b, |_, _| {});
    assert!(a.is_compacted(before));
    a.check();
    let after = a.meta().changes;
    b.put("theirs", "3");
    a.pull_all(&b);
    assert_eq!(keys(&a.watch(after, &everything(), ALL)), ["theirs"]);
    a.check();
}

#[test]
fn a_comparison_that_brings_nothing_new_costs_watchers_nothing() {
    let [mut a, mut b] = [1, 2].map(Zone::new);
    b.put("theirs", "1");
    a.pull_all(&b);
    a.compare(&b, |_, _| {});
    assert!(!a.is_compacted(0));
    assert_eq!(keys(&a.watch(0, &everything(), ALL)), ["theirs"]);
}

#[test]
fn another_life_of_the_group_numbers_other_changes() {
    let mut a = Zone::new(1);
    a.put("k", "1");
    a.put("k", "2");
    let seen = a.position(2);
    let (old, new) = (incarnation(1), Incarnation::new(ZoneId(1), 99));
    a.entry(vec![Op::Quarantine {
        incarnation: old,
        resume: 1,
    }]);
    a.entry(vec![Op::TakeIncarnation { old, new }]);
    a.check();
    for _ in 0..3 {
        a.put("k", "3");
    }
    let group = a.shard.group();
    let page = changes::page(&a.engine, group, seen, &everything(), ALL).unwrap();
    let floor = a.position(a.meta().changes_floor);
    assert_eq!(page, Changes::Compacted(floor));
    assert_eq!(a.watch(floor.change, &everything(), ALL).len(), 3);
}

#[test]
fn a_missing_change_is_damage_and_never_a_gap() {
    let a = mixed();
    let mut batch = Batch::new();
    batch.delete(OutboxKey::encode(PLACE, Dot::new(incarnation(2), 2)));
    a.engine.write(&batch, Durability::Buffered).unwrap();
    let (group, start) = (a.shard.group(), a.position(0));
    let page = changes::page(&a.engine, group, start, &everything(), ALL);
    assert!(matches!(page, Err(Error::Corruption { .. })), "{page:?}");
}

#[test]
fn a_replica_that_installs_an_image_or_is_none_shows_nothing() {
    let a = mixed();
    let elsewhere = GroupId {
        shard: ShardId(9),
        ..a.shard.group()
    };
    let page = |group| changes::page(&a.engine, group, a.position(0), &everything(), ALL).unwrap();
    assert_eq!(page(elsewhere), Changes::Absent);
    let group = a.shard.group();
    let mut log = GroupLog::create(group, raft::eraftpb::ConfState::default());
    for installing in [true, false] {
        log.set_installing(installing);
        let mut work = Workspace::new(&a.engine, false);
        log.save(&mut work);
        let batch = work.into_batch();
        a.engine.write(&batch, Durability::Buffered).unwrap();
        let after = Position::default();
        let page = changes::page(&a.engine, group, after, &everything(), ALL).unwrap();
        assert_eq!(page == Changes::Absent, installing);
        assert_eq!(
            changes::present(&a.engine, group).unwrap().is_none(),
            installing
        );
    }
}

#[test]
fn about_as_many_bytes_as_asked_for_are_kept_for_watchers() {
    let [mut a, mut b] = [1, 2].map(Zone::new);
    for n in 0..200 {
        a.put(&format!("k{n}"), &"v".repeat(50));
        b.put(&format!("k{n}"), &"v".repeat(20));
        if n % 3 == 0 {
            a.pull_all(&b);
        }
    }
    let beyond = |a: &Zone, keep| {
        outbox::beyond_watchers(&a.engine, a.meta(), a.shard.group(), keep).unwrap()
    };
    let before = a.meta().outbox_bytes;
    assert_eq!(beyond(&a, before), VersionVector::new());
    assert_eq!(beyond(&a, before / 8 * 7 + before), VersionVector::new());
    let through = beyond(&a, 4_000);
    a.entry(vec![Op::Trim { through }]);
    let kept = a.meta().outbox_bytes;
    assert!((4_000..4_500).contains(&kept), "{kept} of {before}");
    assert_eq!(beyond(&a, 4_000), VersionVector::new());
    a.check();
    let floor = a.meta().changes_floor;
    let shown = a.watch(floor, &everything(), ALL);
    assert!(numbers(&shown).into_iter().eq(floor + 1..=a.meta().changes));
    assert_eq!(beyond(&a, 0), *a.received());
    assert_eq!(b.meta().changes, 200);
}
