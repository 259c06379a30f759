//! When versions expire, and that the expired one wins wherever zones meet.

use super::*;
use crate::shard::expiry;

impl Zone {
    fn put_until(&mut self, key: &str, text: &str, expires_at_ms: u64) -> Dot {
        let op_id = self.new_op_id();
        let op = WriteOp {
            key: bytes(key),
            content: value(text),
            intent: WriteIntent::Blind,
            op_id,
            expires_at_ms: Some(expires_at_ms),
            waiter: Waiter::default(),
        };
        let outcome = self.entry(vec![Op::Write(op)]).outcomes.pop().unwrap().2;
        let WriteOutcome::Written { dot, .. } = outcome else {
            panic!("not written: {outcome:?}")
        };
        dot
    }

    /// What a leader whose clock shows `now_ms` does.
    fn expire_at(&mut self, now_ms: u64) -> usize {
        let keys = expiry::due(&self.engine, PLACE, now_ms, 100).unwrap();
        let count = keys.len();
        self.clock_ms = self.clock_ms.max(now_ms);
        self.entry(vec![Op::Expire { keys }]);
        count
    }
}

#[test]
fn a_version_expires_at_its_time_and_not_before() {
    let mut zone = Zone::new(1);
    zone.put_until("k", "1", 5_000);
    zone.put("other", "stays");
    assert_eq!(zone.expire_at(4_999), 0);
    assert_eq!(zone.values("k"), ["1"]);
    assert_eq!(zone.expire_at(5_000), 1);
    assert_eq!(
        (zone.values("k"), zone.meta().keys),
        (vec!["-".to_owned()], 1)
    );
    assert_eq!(zone.expire_at(9_000), 0);
    zone.check();
}

#[test]
fn an_entry_whose_own_time_is_earlier_expires_nothing() {
    let mut zone = Zone::new(1);
    let dot = zone.put_until("k", "1", 5_000);
    let forever = zone.put("other", "1").0;
    let keys = vec![(bytes("k"), vec![dot]), (bytes("other"), vec![forever])];
    zone.entry(vec![Op::Expire { keys: keys.clone() }]);
    assert_eq!(zone.values("k"), ["1"]);
    zone.clock_ms = 5_000;
    zone.entry(vec![Op::Expire { keys }]);
    assert_eq!(zone.values("k"), ["-"]);
    assert_eq!(zone.values("other"), ["1"]);
    zone.check();
}

#[test]
fn what_was_written_over_a_version_that_expires_stays() {
    let mut zone = Zone::new(1);
    let dot = zone.put_until("k", "1", 5_000);
    zone.put("k", "2");
    assert_eq!(zone.expire_at(6_000), 0);
    zone.entry(vec![Op::Expire {
        keys: vec![(bytes("k"), vec![dot])],
    }]);
    assert_eq!(zone.values("k"), ["2"]);
    zone.check();
}

#[test]
fn an_effect_that_comes_again_after_its_expiry_changes_nothing() {
    let (mut a, mut b) = (Zone::new(1), Zone::new(2));
    a.put_until("k", "1", 5_000);
    b.pull_all(&a);
    b.expire_at(5_000);
    let effects = a.outbox(incarnation(1), 0);
    b.entry(vec![Op::Merge {
        incarnation: incarnation(1),
        first: 1,
        effects,
    }]);
    assert_eq!(
        (a.values("k"), b.values("k")),
        (vec!["1".into()], vec!["-".into()])
    );
    b.check();
}

#[test]
fn of_two_zones_that_compare_the_one_that_has_logged_the_expiry_wins() {
    let (mut a, mut b) = (Zone::new(1), Zone::new(2));
    a.put_until("k", "1", 5_000);
    b.pull_all(&a);
    b.expire_at(5_000);
    a.compare(&b, |_, _| {});
    assert_eq!(a.values("k"), ["-"]);
    a.check();
    b.compare(&a, |_, _| {});
    assert_eq!(a.set("k"), b.set("k"));
    b.check();
}

#[test]
fn the_only_zone_forgets_an_expired_key() {
    let mut zone = Zone::new(1);
    zone.put_until("k", "1", 5_000);
    zone.expire_at(5_000);
    assert_eq!(zone.collect(&[1]), 1);
    assert_eq!((zone.meta().tombstones, zone.meta().keys), (0, 0));
    zone.check();
}

#[test]
fn zones_with_other_clocks_end_the_same_and_keep_the_expired_key_until_it_is_written() {
    let mut zones = [Zone::new(1), Zone::new(2)];
    zones[0].put_until("k", "1", 5_000);
    exchange(&mut zones);
    zones[0].expire_at(5_000);
    assert_eq!(zones[1].values("k"), ["1"]);
    zones[1].expire_at(5_000);
    let [a, b] = &mut zones;
    assert_eq!(a.set("k"), b.set("k"));
    for _ in 0..3 {
        a.pull_all(b);
        b.pull_all(a);
        assert_eq!((a.collect(&[1, 2]), b.collect(&[1, 2])), (0, 0));
    }
    a.delete("k");
    for _ in 0..3 {
        b.pull_all(a);
        a.pull_all(b);
        a.collect(&[1, 2]);
        b.collect(&[1, 2]);
    }
    assert_eq!((a.meta().tombstones, b.meta().tombstones), (0, 0));
    zones.iter().for_each(Zone::check);
}

/// Simulated history 1179: the zone that had expired the version dropped the key with the tombstone beside it; the other
/// kept both, and had a `deleted` sibling beside the next write for ever.
#[test]
fn a_tombstone_is_not_dropped_with_a_version_that_another_zone_has_live() {
    let (mut a, mut b) = (Zone::new(1), Zone::new(2));
    a.put("k", "old");
    b.pull_all(&a);
    b.put_until("k", "1", 5_000);
    a.delete("k");
    let mut zones = [a, b];
    exchange(&mut zones);
    zones[1].expire_at(5_000);
    for _ in 0..3 {
        assert_eq!(zones[1].collect(&[1, 2]), 0);
        exchange(&mut zones);
    }
    zones[0].put("k", "2");
    exchange(&mut zones);
    for zone in &mut zones {
        zone.expire_at(5_000);
    }
    exchange(&mut zones);
    let [a, b] = &mut zones;
    assert_eq!(a.set("k"), b.set("k"));
    zones.iter().for_each(Zone::check);
}
