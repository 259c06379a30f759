//! A group that came back on an old copy of its store goes on under another incarnation, and nothing is lost.

use super::*;
use crate::keys::{OutboxKey, OutboxRecord};

const NEW: u64 = 99;

fn new_life() -> Incarnation {
    Incarnation::new(ZoneId(1), NEW)
}

/// A zone as it was when `copy` was taken, with what it has counted since forgotten.
struct Copy {
    engine: MemoryEngine,
    index: u64,
}

fn copy(zone: &Zone) -> Copy {
    Copy {
        engine: zone.engine.fork(),
        index: zone.index,
    }
}

fn restore(zone: &mut Zone, copy: &Copy) {
    zone.engine = copy.engine.fork();
    zone.index = copy.index;
    zone.restart(PlantedBugs::default());
}

fn quarantine(zone: &mut Zone, resume: u64) {
    let incarnation = zone.meta().incarnation;
    zone.entry(vec![Op::Quarantine {
        incarnation,
        resume,
    }]);
    assert_eq!(zone.meta().quarantined, Some(resume));
}

fn take(zone: &mut Zone, new: Incarnation) -> Applied {
    let old = zone.meta().incarnation;
    zone.entry(vec![Op::TakeIncarnation { old, new }])
}

/// Zone 1 makes two writes that both others have, is copied, makes two more that only zone 3 gets, and comes back as
/// the copy.
fn restored() -> [Zone; 3] {
    let (mut a, mut b, mut c) = (Zone::new(1), Zone::new(2), Zone::new(3));
    a.put("both", "1");
    b.put("foreign", "b");
    a.pull_all(&b);
    a.put("kept", "2");
    b.pull_all(&a);
    let image = copy(&a);
    a.put("both", "true 3");
    a.put("true", "true 4");
    c.pull_all(&a);
    restore(&mut a, &image);
    [a, b, c]
}

fn converged(mut zones: [Zone; 3], keys: &[&str]) -> [Zone; 3] {
    exchange(&mut zones);
    let [a, b, c] = &zones;
    for key in keys {
        assert_eq!(a.set(key).siblings(), b.set(key).siblings(), "{key}");
        assert_eq!(a.set(key).siblings(), c.set(key).siblings(), "{key}");
    }
    assert!(a.received() == b.received() && b.received() == c.received());
    for zone in &zones {
        zone.check();
        check_outbox(zone);
    }
    zones
}

/// The outbox holds what it should, and its bytes add up.
fn check_outbox(zone: &Zone) {
    let meta = zone.meta();
    let mut bytes = 0;
    for (incarnation, received) in meta.received.iter() {
        let floor = meta.outbox_floor.get(incarnation);
        let kept = zone.outbox(incarnation, floor).len();
        assert_eq!(u64::try_from(kept).unwrap(), received - floor);
        let totals = meta.outbox_totals.get(&incarnation);
        let totals = totals.copied().unwrap_or_default();
        let mut before = totals.dropped;
        for counter in floor + 1..=received {
            let stored = OutboxKey::encode(PLACE, Dot::new(incarnation, counter));
            let record: OutboxRecord = OutboxKey::decode_record(
                &stored,
                &meridian_storage::Read::get(&zone.engine, &stored)
                    .unwrap()
                    .unwrap(),
            )
            .unwrap();
            assert_eq!(record.bytes_before, before);
            before = record.bytes_through;
        }
        assert_eq!(before, totals.entered);
        bytes += totals.kept();
    }
    assert_eq!(bytes, meta.outbox_bytes);
}

#[test]
fn writes_since_the_copy_and_writes_it_had_forgotten_all_live() {
    let [mut a, b, c] = restored();
    let (dot, _) = a.put("mine", "new 3");
    assert_eq!(
        dot,
        Dot::new(incarnation(1), 3),
        "known elsewhere as another"
    );
    a.put("both", "new 4");
    a.put("foreign", "new 5");
    quarantine(&mut a, 2);
    let applied = take(&mut a, new_life());
    assert!(applied.reincarnated);
    let dots: Vec<Dot> = applied.effects.iter().map(|(dot, _)| *dot).collect();
    assert_eq!(dots, [1, 2, 3].map(|n| Dot::new(new_life(), n)));
    assert_eq!(a.received().get(incarnation(1)), 2);
    check_outbox(&a);
    let [a, ..] = converged([a, b, c], &["both", "kept", "mine", "true", "foreign"]);
    assert_eq!(a.values("mine"), ["new 3"]);
    assert_eq!(a.values("true"), ["true 4"]);
    assert_eq!(a.values("both").len(), 2, "neither had seen the other");
    assert_eq!(
        a.values("foreign"),
        ["new 5"],
        "it had seen what it replaced"
    );
}

#[test]
fn what_a_superseded_write_replaced_stays_replaced_everywhere() {
    let [mut a, b, c] = restored();
    a.put("foreign", "new 3");
    a.put("foreign", "new 4");
    quarantine(&mut a, 2);
    take(&mut a, new_life());
    let [a, ..] = converged([a, b, c], &["foreign"]);
    assert_eq!(a.values("foreign"), ["new 4"]);
}

#[test]
fn a_retry_gets_the_new_dot_and_takes_effect_once() {
    let [mut a, b, c] = restored();
    let op_id = a.new_op_id();
    a.write_as(op_id, "mine", value("new 3"), WriteIntent::Blind);
    quarantine(&mut a, 2);
    take(&mut a, new_life());
    let dot = Dot::new(new_life(), 1);
    let again = a.write_as(op_id, "mine", value("new 3"), WriteIntent::Blind);
    let WriteOutcome::Written {
        dot: repeated_as,
        context,
        repeated: true,
    } = again
    else {
        panic!("not repeated: {again:?}")
    };
    assert_eq!(repeated_as, dot);
    assert!(context.covers(dot) && !context.covers(Dot::new(incarnation(1), 3)));
    let [_, mut b, _] = converged([a, b, c], &["mine"]);
    let elsewhere = b.write_as(op_id, "mine", value("new 3"), WriteIntent::Blind);
    assert!(
        matches!(elsewhere, WriteOutcome::Written { dot: at, repeated: true, .. } if at == dot)
    );
    assert_eq!(b.values("mine"), ["new 3"]);
}

#[test]
fn a_key_deleted_since_the_copy_stays_deleted() {
    let [mut a, b, c] = restored();
    a.delete("kept");
    a.delete("foreign");
    quarantine(&mut a, 2);
    take(&mut a, new_life());
    let zones = converged([a, b, c], &["kept", "foreign"]);
    for zone in &zones {
        assert!(!zone.set("kept").has_live() && !zone.set("foreign").has_live());
    }
}

#[test]
fn writes_cut_from_the_outbox_at_its_bound_are_renamed_and_come_by_comparison() {
    let [mut a, mut b, mut c] = restored();
    a.put("mine", "new 3");
    a.put("later", "new 4");
    let through = VersionVector::from_iter([(incarnation(1), 3)]);
    a.entry(vec![Op::Trim { through }]);
    quarantine(&mut a, 2);
    take(&mut a, new_life());
    check_outbox(&a);
    assert_eq!(a.meta().outbox_floor.get(new_life()), 1);
    for zone in [&mut b, &mut c] {
        zone.compare(&a, |_, _| {});
    }
    let [a, b, _] = converged([a, b, c], &["mine", "later", "true"]);
    assert_eq!(b.values("mine"), ["new 3"]);
    assert_eq!(a.values("true"), ["true 4"]);
}

#[test]
fn going_on_continues_the_new_incarnation() {
    let [mut a, b, c] = restored();
    a.put("mine", "new 3");
    quarantine(&mut a, 2);
    take(&mut a, new_life());
    a.restart(PlantedBugs::default());
    assert_eq!(a.put("mine", "later").0, Dot::new(new_life(), 2));
    let [a, ..] = converged([a, b, c], &["mine"]);
    assert_eq!(a.values("mine"), ["later"]);
}

#[test]
fn an_incarnation_is_taken_only_out_of_quarantine_and_never_one_that_was_or_is_known() {
    let [mut a, b, _] = restored();
    a.pull_all(&b);
    let before = a.meta().clone();
    take(&mut a, new_life());
    assert_eq!(
        a.meta().incarnation,
        before.incarnation,
        "not in quarantine"
    );
    quarantine(&mut a, 2);
    for refused in [incarnation(1), incarnation(2)] {
        assert!(!take(&mut a, refused).reincarnated);
    }
    take(&mut a, new_life());
    quarantine(&mut a, 0);
    assert!(
        !take(&mut a, incarnation(1)).reincarnated,
        "it was that once"
    );
    assert_eq!(a.meta().incarnation, new_life());
}

#[test]
fn a_quarantine_of_another_life_or_beyond_what_was_made_has_no_effect() {
    let [mut a, ..] = restored();
    for (incarnation, resume) in [(new_life(), 0), (incarnation(1), 9)] {
        a.entry(vec![Op::Quarantine {
            incarnation,
            resume,
        }]);
        assert_eq!(a.meta().quarantined, None);
    }
    quarantine(&mut a, 1);
    let incarnation = a.meta().incarnation;
    a.entry(vec![Op::Quarantine {
        incarnation,
        resume: 2,
    }]);
    assert_eq!(a.meta().quarantined, Some(1), "the first is right");
}
