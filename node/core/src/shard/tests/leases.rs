//! Who gets a lease, under which token, and what vanishes with it.

use super::*;
use crate::lease::{AcquireOp, LeaseChange, LeaseOutcome, LeaseRef};
use crate::limits::LEASED_KEYS_VANISH_MAX;

impl Zone {
    fn acquire(&mut self, name: &str, owner: u128) -> LeaseOutcome {
        let op = Op::LeaseAcquire(AcquireOp {
            name: bytes(name),
            ttl_ms: 1_000,
            owner,
            waiter: Waiter::default(),
        });
        let mut applied = self.entry(vec![op]);
        applied.leases.pop().unwrap().1
    }

    fn granted(&mut self, name: &str, owner: u128) -> LeaseRef {
        let outcome = self.acquire(name, owner);
        let LeaseOutcome::Granted(holding) = outcome else {
            panic!("not granted: {outcome:?}")
        };
        holding.lease
    }

    fn end(&mut self, lease: &LeaseRef) -> LeaseOutcome {
        let op = Op::LeaseEnd {
            leases: vec![lease.clone()],
            waiter: Some(Waiter::default()),
        };
        let mut applied = self.entry(vec![op]);
        applied.leases.pop().unwrap().1
    }

    fn put_leased(&mut self, lease: &LeaseRef, home: bool, key: &str, text: &str) -> WriteOutcome {
        let op_id = self.new_op_id();
        let write = WriteOp {
            key: bytes(key),
            content: value(text),
            intent: WriteIntent::Blind,
            op_id,
            expires_at_ms: None,
            waiter: Waiter::default(),
        };
        let lease = lease.clone();
        let mut applied = self.entry(vec![Op::LeasedWrite { lease, home, write }]);
        applied.outcomes.pop().unwrap().2
    }
}

#[test]
fn tokens_grow_over_all_leases_of_a_shard_and_over_a_restart() {
    let mut zone = Zone::new(1);
    let first = zone.granted("a", 1);
    let second = zone.granted("b", 2);
    assert_eq!(zone.end(&first), LeaseOutcome::Ended);
    zone.restart(PlantedBugs::default());
    let third = zone.granted("a", 3);
    assert!(first.token < second.token && second.token < third.token);
}

#[test]
fn the_owner_that_asks_again_gets_the_same_token_and_another_gets_none() {
    let mut zone = Zone::new(1);
    let lease = zone.granted("a", 1);
    assert_eq!(zone.granted("a", 1), lease);
    assert_eq!(zone.acquire("a", 2), LeaseOutcome::Held);
    assert_eq!(zone.meta().fencing, 1);
}

#[test]
fn a_lease_ends_under_its_own_token_only() {
    let mut zone = Zone::new(1);
    let old = zone.granted("a", 1);
    assert_eq!(zone.end(&old), LeaseOutcome::Ended);
    assert_eq!(zone.end(&old), LeaseOutcome::NotHeld);
    zone.granted("a", 2);
    assert_eq!(zone.end(&old), LeaseOutcome::NotHeld);
    assert_eq!(zone.acquire("a", 3), LeaseOutcome::Held);
}

#[test]
fn the_leaders_clock_is_told_what_came_and_went_and_of_no_retry() {
    let mut zone = Zone::new(1);
    let acquire = |owner| {
        Op::LeaseAcquire(AcquireOp {
            name: bytes("a"),
            ttl_ms: 1_000,
            owner,
            waiter: Waiter::default(),
        })
    };
    let granted = zone.entry(vec![acquire(1)]).lease_changes;
    let [LeaseChange::Granted(holding)] = &granted[..] else {
        panic!("one was granted: {granted:?}")
    };
    assert_eq!(zone.entry(vec![acquire(1), acquire(2)]).lease_changes, []);
    let leases = vec![holding.lease.clone()];
    let ended = zone.entry(vec![Op::LeaseEnd {
        leases,
        waiter: None,
    }]);
    assert_eq!(
        ended.lease_changes,
        [LeaseChange::Gone(holding.lease.clone())]
    );
}

#[test]
fn an_attached_key_vanishes_with_its_lease_in_every_zone() {
    let mut zones = [Zone::new(1), Zone::new(2)];
    let lease = zones[0].granted("a", 1);
    assert!(matches!(
        zones[0].put_leased(&lease, true, "k", "1"),
        WriteOutcome::Written { .. }
    ));
    exchange(&mut zones);
    assert_eq!(zones[1].values("k"), ["1"]);
    zones[0].end(&lease);
    assert_eq!(zones[0].values("k"), ["-"]);
    exchange(&mut zones);
    assert_eq!(zones[1].values("k"), ["-"]);
    zones.iter().for_each(Zone::check);
}

#[test]
fn what_was_written_over_an_attached_key_stays_when_the_lease_ends() {
    let mut zones = [Zone::new(1), Zone::new(2)];
    let lease = zones[0].granted("a", 1);
    zones[0].put_leased(&lease, true, "over", "1");
    zones[0].put_leased(&lease, true, "beside", "1");
    zones[0].put("over", "2");
    zones[1].put("beside", "other zone");
    exchange(&mut zones);
    zones[0].end(&lease);
    exchange(&mut zones);
    for zone in &zones {
        assert_eq!(zone.values("over"), ["2"]);
        assert_eq!(zone.values("beside"), ["-", "other zone"]);
        zone.check();
    }
}

#[test]
fn a_put_with_a_lease_that_does_not_stand_has_no_effect_at_its_home() {
    let mut zone = Zone::new(1);
    let lease = zone.granted("a", 1);
    zone.end(&lease);
    let refused = zone.put_leased(&lease, true, "k", "1");
    assert_eq!(refused, WriteOutcome::LeaseNotFound);
    let unknown = LeaseRef {
        name: bytes("never"),
        token: 1,
    };
    let refused = zone.put_leased(&unknown, true, "k", "1");
    assert_eq!(refused, WriteOutcome::LeaseNotFound);
    assert_eq!(zone.values("k"), Vec::<String>::new());
    zone.check();
}

#[test]
fn a_key_attached_to_a_lease_of_another_shard_vanishes_when_that_is_said_to_be_gone() {
    let mut zone = Zone::new(1);
    let lease = LeaseRef {
        name: bytes("elsewhere"),
        token: 9,
    };
    let newer = LeaseRef {
        token: 10,
        ..lease.clone()
    };
    zone.put_leased(&lease, false, "old", "1");
    zone.put_leased(&newer, false, "new", "1");
    zone.entry(vec![Op::LeaseGone {
        lease: lease.clone(),
    }]);
    assert_eq!(
        (zone.values("old"), zone.values("new")),
        (vec!["-".to_owned()], vec!["1".to_owned()])
    );
    // A second word of it, and one of a lease that still stands here, change nothing.
    let own = zone.granted("a", 1);
    zone.put_leased(&own, true, "own", "1");
    zone.entry(vec![
        Op::LeaseGone { lease },
        Op::LeaseGone { lease: own.clone() },
    ]);
    assert_eq!(zone.values("own"), ["1"]);
    zone.check();
}

#[test]
fn more_attached_keys_than_one_operation_may_delete_vanish_with_the_next_one() {
    let mut zone = Zone::new(1);
    let lease = zone.granted("a", 1);
    for n in 0..=LEASED_KEYS_VANISH_MAX {
        zone.put_leased(&lease, true, &format!("k{n}"), "1");
    }
    zone.end(&lease);
    assert_eq!(zone.meta().keys, 1);
    zone.entry(vec![Op::LeaseGone { lease }]);
    assert_eq!(zone.meta().keys, 0);
    zone.check();
}

#[test]
fn a_group_restored_from_an_old_copy_hands_out_no_token_a_second_time() {
    let mut zone = Zone::new(1);
    zone.granted("a", 1);
    let (engine, index) = (zone.engine.fork(), zone.index);
    let lost = zone.granted("b", 2);
    zone.engine = engine;
    zone.index = index;
    zone.restart(PlantedBugs::default());
    let old = zone.meta().incarnation;
    zone.entry(vec![Op::Quarantine {
        incarnation: old,
        resume: 0,
    }]);
    zone.entry(vec![Op::TakeIncarnation {
        old,
        new: Incarnation::new(ZoneId(1), 99),
    }]);
    assert!(zone.granted("c", 3).token > lost.token);
}
