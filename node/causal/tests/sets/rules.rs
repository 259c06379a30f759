//! The counter-examples that made the protocol's rules necessary, one test each.

use bytes::Bytes;
use meridian_causal::{
    CausalContext, Content, Dot, Hlc, Incarnation, OpId, Replace, Sibling, SiblingSet,
    VersionVector, ZoneId, put_context,
};

const A: ZoneId = ZoneId(1);
const B: ZoneId = ZoneId(2);
const C: ZoneId = ZoneId(3);

fn dot(zone: ZoneId, counter: u64) -> Dot {
    Dot::new(Incarnation::new(zone, 7), counter)
}

fn received(entries: &[(ZoneId, u64)]) -> VersionVector {
    entries
        .iter()
        .map(|(zone, counter)| (dot(*zone, 1).incarnation, *counter))
        .collect()
}

fn value(dot: Dot, text: &'static str) -> Sibling {
    Sibling {
        dot,
        content: Content::Value(Bytes::from_static(text.as_bytes())),
        written_at: Hlc::new(dot.counter * 10, 0),
        expires_at_ms: None,
        op_id: None,
        transaction: None,
    }
}

fn deleted(dot: Dot) -> Sibling {
    Sibling {
        content: Content::Tombstone,
        ..value(dot, "")
    }
}

fn operation(dot: Dot, text: &'static str, id: u128) -> Sibling {
    Sibling {
        op_id: Some(OpId { stamp_ms: 0, id }),
        ..value(dot, text)
    }
}

/// A set of concurrent writes, at a replica that has received nothing else.
fn concurrent(siblings: impl IntoIterator<Item = Sibling>) -> SiblingSet {
    let mut set = SiblingSet::new();
    for sibling in siblings {
        set.apply(sibling, &CausalContext::new(), &VersionVector::new());
    }
    set
}

/// Writes as `replace` says, and hands back what the put returns.
fn write(set: &mut SiblingSet, sibling: Sibling, replace: &Replace) -> CausalContext {
    let dot = sibling.dot;
    let replaced = set.replaced_by(dot.zone(), replace);
    let mut received = set.context().vector().clone();
    received.advance(dot.incarnation, dot.counter);
    set.apply(sibling, &replaced, &received);
    set.condensed(put_context(&replaced, dot))
}

#[track_caller]
fn expect(set: &SiblingSet, dots: &[Dot]) {
    let found: Vec<Dot> = set.siblings().iter().map(|sibling| sibling.dot).collect();
    assert_eq!(found, dots);
}

#[test]
fn rule_1_a_stale_writer_that_writes_twice_erases_nothing_it_has_not_read() {
    let mut set = concurrent([value(dot(A, 5), "x"), value(dot(B, 3), "y")]);
    let returned = write(
        &mut set,
        value(dot(A, 6), "stale"),
        &Replace::Exactly(CausalContext::new()),
    );
    assert!(!returned.covers(dot(A, 5)));
    write(
        &mut set,
        value(dot(A, 7), "stale again"),
        &Replace::Exactly(returned),
    );
    expect(&set, &[dot(A, 5), dot(A, 7), dot(B, 3)]);
}

#[test]
fn rule_1_folding_what_is_stored_leaves_what_is_returned_alone() {
    let mut set = concurrent([value(dot(A, 5), "x")]);
    let replaced = CausalContext::new();
    set.apply(value(dot(A, 6), "y"), &replaced, &received(&[(A, 6)]));
    assert_eq!(set.context().dots(), []);
    assert_eq!(put_context(&replaced, dot(A, 6)).dots(), [dot(A, 6)]);
}

#[test]
fn rule_1_a_writer_alone_on_its_key_carries_no_dot_more_with_each_put() {
    let mut set = SiblingSet::new();
    let mut held = CausalContext::new();
    for n in 1..200 {
        held = write(&mut set, value(dot(A, n * 3), "v"), &Replace::Exactly(held));
        assert!(held.dots().is_empty());
    }
    expect(&set, &[dot(A, 597)]);
}

#[test]
fn rule_2_a_blind_write_replaces_the_only_version_whoever_wrote_it() {
    let mut set = concurrent([value(dot(B, 3), "y")]);
    write(&mut set, value(dot(A, 6), "z"), &Replace::Newest);
    expect(&set, &[dot(A, 6)]);
}

#[test]
fn rule_2_a_blind_write_in_conflict_replaces_the_newest_of_its_own_zone_in_any_incarnation() {
    let old = Dot::new(Incarnation::new(A, 99), 2);
    let newest = Sibling {
        written_at: Hlc::new(9_999, 0),
        ..value(old, "newest")
    };
    let mut set = concurrent([value(dot(A, 5), "x"), newest, value(dot(B, 300), "y")]);
    let returned = write(&mut set, value(dot(A, 6), "z"), &Replace::Newest);
    expect(&set, &[dot(A, 5), dot(A, 6), dot(B, 300)]);
    assert!(returned.covers(old) && !returned.covers(dot(A, 5)) && !returned.covers(dot(B, 300)));
}

#[test]
fn rule_2_a_blind_write_of_a_zone_without_a_sibling_joins_the_conflict() {
    let mut set = concurrent([value(dot(A, 5), "x"), value(dot(B, 3), "y")]);
    write(&mut set, value(dot(C, 1), "z"), &Replace::Newest);
    expect(&set, &[dot(A, 5), dot(B, 3), dot(C, 1)]);
}

#[test]
fn rule_2_writing_with_an_empty_context_replaces_nothing() {
    let mut set = concurrent([value(dot(A, 5), "x")]);
    write(
        &mut set,
        value(dot(A, 6), "z"),
        &Replace::Exactly(CausalContext::new()),
    );
    expect(&set, &[dot(A, 5), dot(A, 6)]);
}

#[test]
fn rule_2_an_explicit_overwrite_replaces_everything() {
    let mut set = concurrent([
        value(dot(A, 5), "x"),
        value(dot(B, 3), "y"),
        deleted(dot(C, 2)),
    ]);
    write(&mut set, value(dot(A, 6), "z"), &Replace::All);
    expect(&set, &[dot(A, 6)]);
}

#[test]
fn rule_3_a_blind_delete_of_one_of_two_siblings_leaves_a_conflict() {
    let mut set = concurrent([value(dot(A, 5), "x"), value(dot(B, 3), "y")]);
    write(&mut set, deleted(dot(A, 6)), &Replace::Newest);
    expect(&set, &[dot(A, 6), dot(B, 3)]);
    assert!(set.is_conflict());
    write(&mut set, value(dot(C, 1), "z"), &Replace::Newest);
    expect(&set, &[dot(A, 6), dot(B, 3), dot(C, 1)]);
}

#[test]
fn rule_3_a_delete_that_a_stale_writer_has_not_seen_shows_beside_its_write() {
    let mut set = concurrent([value(dot(A, 5), "x")]);
    let read = set.read_context();
    write(&mut set, deleted(dot(A, 6)), &Replace::Newest);
    assert!(set.all_tombstones() && !set.is_conflict());
    write(&mut set, value(dot(A, 7), "y"), &Replace::Exactly(read));
    expect(&set, &[dot(A, 6), dot(A, 7)]);
    assert!(set.is_conflict());
}

#[test]
fn rule_3_tombstones_alone_are_no_conflict_and_give_way_to_a_blind_write() {
    let mut set = concurrent([deleted(dot(A, 5)), deleted(dot(B, 3))]);
    assert!(!set.is_conflict());
    write(&mut set, value(dot(C, 1), "z"), &Replace::Newest);
    expect(&set, &[dot(C, 1)]);
}

#[test]
fn rule_4_an_expired_version_keeps_its_dot_and_wins_over_the_live_one() {
    let lease = Sibling {
        expires_at_ms: Some(50),
        ..value(dot(A, 5), "x")
    };
    let live = concurrent([lease, value(dot(B, 3), "y")]);
    let mut expired = live.clone();
    assert!(expired.expire(dot(A, 5)));
    assert!(!expired.expire(dot(A, 5)), "it has expired already");
    assert!(!expired.expire(dot(B, 3)), "it has no expiry");
    let mut merged = live;
    merged.merge(&expired);
    assert_eq!(merged, expired);
    expect(&merged, &[dot(A, 5), dot(B, 3)]);
    assert!(merged.siblings()[0].is_expired() && merged.is_conflict());
}

#[test]
fn rule_8_a_write_that_arrives_after_its_successor_stays_superseded() {
    let mut set = SiblingSet::new();
    let seen = put_context(&CausalContext::new(), dot(B, 3));
    set.apply(value(dot(A, 5), "successor"), &seen, &received(&[(A, 5)]));
    set.apply(
        value(dot(B, 3), "late"),
        &CausalContext::new(),
        &received(&[(A, 5), (B, 3)]),
    );
    expect(&set, &[dot(A, 5)]);
    assert_eq!(
        set.context(),
        &CausalContext::from_vector(received(&[(A, 5), (B, 3)]))
    );
}

#[test]
fn rule_9_an_absent_key_has_seen_what_its_shard_has_received() {
    let held = concurrent([
        value(dot(A, 5), "deleted and dropped there"),
        value(dot(B, 3), "unknown there"),
    ]);
    let mut joined = held.clone();
    joined.join_at(
        &SiblingSet::new(),
        &received(&[(A, 5), (B, 3)]),
        &received(&[(A, 9)]),
    );
    expect(&joined, &[dot(B, 3)]);
    let mut reverse = SiblingSet::new();
    reverse.join_at(&held, &received(&[(A, 9)]), &received(&[(A, 5), (B, 3)]));
    assert_eq!(reverse, joined);
}

#[test]
fn rule_11_a_write_joined_out_of_order_is_not_brought_back_after_the_comparison_is_abandoned() {
    // There: B 3 was replaced by A 9. Here neither has arrived in order.
    let mut there = concurrent([value(dot(B, 3), "old")]);
    let replaced = there.read_context();
    there.apply(
        value(dot(A, 9), "new"),
        &replaced,
        &received(&[(A, 9), (B, 3)]),
    );
    let mut here = SiblingSet::new();
    here.join_at(&there, &VersionVector::new(), &received(&[(A, 9), (B, 3)]));
    here.apply(
        value(dot(B, 3), "old"),
        &CausalContext::new(),
        &received(&[(B, 3)]),
    );
    expect(&here, &[dot(A, 9)]);
}

#[test]
fn rule_11_a_key_emptied_by_a_comparison_is_kept_until_the_vector_covers_it() {
    let mut here = concurrent([value(dot(A, 5), "joined out of order from a third zone")]);
    here.join_at(
        &SiblingSet::new(),
        &VersionVector::new(),
        &received(&[(A, 9)]),
    );
    assert!(here.is_empty());
    assert!(!here.context().within(&VersionVector::new()));
    assert!(here.context().within(&received(&[(A, 9)])));
    here.apply(
        value(dot(A, 5), "late"),
        &CausalContext::new(),
        &received(&[(A, 5)]),
    );
    expect(&here, &[]);
}

#[test]
fn rule_12_a_digest_covers_key_dots_and_values_and_no_context() {
    let set = concurrent([value(dot(A, 5), "x"), deleted(dot(B, 3))]);
    let mut folded = SiblingSet::new();
    folded.apply(
        value(dot(A, 5), "x"),
        &CausalContext::new(),
        &received(&[(A, 5)]),
    );
    folded.apply(
        deleted(dot(B, 3)),
        &CausalContext::new(),
        &received(&[(A, 5), (B, 3)]),
    );
    assert_ne!(set.context(), folded.context());
    assert_eq!(set.digest(b"k"), folded.digest(b"k"));
    assert_ne!(set.digest(b"k"), set.digest(b"other"));
    assert_ne!(
        set.digest(b"k"),
        concurrent([value(dot(A, 5), "z"), deleted(dot(B, 3))]).digest(b"k")
    );
    assert_ne!(
        set.digest(b"k"),
        concurrent([value(dot(A, 6), "x"), deleted(dot(B, 3))]).digest(b"k")
    );
    assert_ne!(
        set.digest(b"k"),
        concurrent([value(dot(A, 5), "x")]).digest(b"k")
    );
}

#[test]
fn rule_12_a_key_without_a_live_sibling_has_no_digest() {
    assert_eq!(
        concurrent([deleted(dot(A, 5)), deleted(dot(B, 3))]).digest(b"k"),
        None
    );
    assert_eq!(SiblingSet::new().digest(b"k"), None);
}

#[test]
fn rule_13_a_write_where_a_tombstone_was_dropped_replaces_it_where_it_was_not() {
    let seen = received(&[(A, 5), (B, 3)]);
    let still_there = concurrent([deleted(dot(B, 3))]);
    for replace in [
        Replace::Newest,
        Replace::All,
        Replace::Exactly(CausalContext::new()),
    ] {
        let replaced = SiblingSet::absent(&seen).replaced_by(A, &replace);
        let mut set = still_there.clone();
        set.apply(
            value(dot(A, 6), "new"),
            &replaced,
            &received(&[(A, 6), (B, 3)]),
        );
        expect(&set, &[dot(A, 6)]);
    }
}

#[test]
fn rule_17_one_operation_that_landed_in_two_zones_is_one_version() {
    let set = concurrent([
        operation(dot(A, 5), "x", 1),
        operation(dot(B, 3), "x", 1),
        value(dot(C, 2), "y"),
    ]);
    let versions = set.versions();
    assert_eq!(versions.len(), 2);
    assert_eq!(
        versions[0].dots().collect::<Vec<_>>(),
        [dot(A, 5), dot(B, 3)]
    );
    assert_eq!(set.live_versions(), 2);
    let covered = versions[0].context();
    assert!(covered.covers(dot(A, 5)) && covered.covers(dot(B, 3)) && !covered.covers(dot(A, 4)));
}

#[test]
fn rule_17_a_doubled_operation_alone_is_no_conflict_and_goes_with_one_blind_write() {
    let mut set = concurrent([operation(dot(A, 5), "x", 1), operation(dot(B, 3), "x", 1)]);
    assert!(!set.is_conflict());
    write(&mut set, value(dot(C, 1), "z"), &Replace::Newest);
    expect(&set, &[dot(C, 1)]);
}

#[test]
fn rule_17_in_a_conflict_a_doubled_operation_is_replaced_whole() {
    let doubled = [operation(dot(A, 5), "x", 1), operation(dot(B, 3), "x", 1)];
    let mut set = concurrent(doubled.into_iter().chain([value(dot(C, 2), "y")]));
    write(&mut set, value(dot(A, 6), "z"), &Replace::Newest);
    expect(&set, &[dot(A, 6), dot(C, 2)]);
}

#[test]
fn rule_17_an_operation_superseded_in_one_zone_stays_visible_from_the_other() {
    let mut here = concurrent([operation(dot(A, 5), "x", 1)]);
    write(&mut here, value(dot(A, 6), "z"), &Replace::Newest);
    here.merge(&concurrent([operation(dot(B, 3), "x", 1)]));
    expect(&here, &[dot(A, 6), dot(B, 3)]);
    assert!(here.is_conflict());
}

#[test]
fn rule_17_one_op_id_on_two_values_hides_neither() {
    let set = concurrent([
        operation(dot(A, 5), "x", 1),
        operation(dot(B, 3), "other", 1),
    ]);
    assert!(set.is_conflict());
    assert_eq!(set.live_versions(), 2);
}

#[test]
fn rule_17_a_version_lives_until_each_of_its_dots_has_expired() {
    let leased = |dot| Sibling {
        expires_at_ms: Some(50),
        ..operation(dot, "x", 1)
    };
    let mut set = concurrent([leased(dot(A, 5)), leased(dot(B, 3))]);
    set.expire(dot(A, 5));
    assert!(set.has_live() && !set.is_conflict());
    assert!(set.versions()[0].is_live() && set.versions()[0].content().value().is_some());
    set.expire(dot(B, 3));
    assert_eq!((set.live_versions(), set.versions().len()), (0, 1));
}
