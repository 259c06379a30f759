//! Transactions in apply: one entry in one shard; prepared, locked and resolved where another shard decides.

use meridian_storage::Read as _;

use super::*;
use crate::inner::InnerResponse;
use crate::keys::IntentKey;
use crate::limits::PREPARED_MAX;
use crate::read::range;
use crate::request::{Answer, Response};
use crate::transaction::{Action, ActionResult, Compare, Transacted, TransactionId};
use crate::two_phase::{DecideOp, Part, PrepareOp, ResolveOp, TransactOp, Verdict, Vote};

const COMMITTED: Verdict = Verdict::Committed {
    succeeded: true,
    at: 1,
};

fn get(key: &str) -> Action {
    Action::Get { key: bytes(key) }
}

fn put_if(key: &str, text: &str, intent: WriteIntent) -> Action {
    Action::Write {
        key: bytes(key),
        content: value(text),
        intent,
        expires_at_ms: None,
    }
}

fn put(key: &str, text: &str) -> Action {
    put_if(key, text, WriteIntent::Blind)
}

fn remove(key: &str) -> Action {
    Action::Write {
        key: bytes(key),
        content: Content::Tombstone,
        intent: WriteIntent::Blind,
        expires_at_ms: None,
    }
}

fn part(compare: Vec<Compare>, then: Vec<Action>) -> Part {
    Part {
        compare,
        then,
        otherwise: Vec::new(),
    }
}

fn absent(key: &str) -> Compare {
    Compare::Absent { key: bytes(key) }
}

fn exists(key: &str) -> Compare {
    Compare::Exists { key: bytes(key) }
}

fn is_value(key: &str, text: &str) -> Compare {
    Compare::Value {
        key: bytes(key),
        value: bytes(text),
    }
}

impl Zone {
    fn transact_as(&mut self, op_id: OpId, part: Part) -> Result<Transacted, Error> {
        let op = Op::Transact(Box::new(TransactOp {
            op_id,
            part,
            waiter: Waiter::default(),
        }));
        transacted(self.answer(op))
    }

    fn transact(&mut self, part: Part) -> Result<Transacted, Error> {
        let op_id = self.new_op_id();
        self.transact_as(op_id, part)
    }

    fn answer(&mut self, op: Op) -> Result<Response, Error> {
        let mut applied = self.entry(vec![op]);
        assert_eq!(applied.transactions.len(), 1);
        applied.transactions.remove(0).1
    }

    fn prepare_op(&mut self, id: u128, part: Part) -> PrepareOp {
        PrepareOp {
            id: TransactionId(id),
            op_id: self.new_op_id(),
            anchor: ShardId(1),
            parts: 2,
            refuse: part.otherwise.is_empty(),
            part,
            waiter: Waiter::default(),
        }
    }

    fn try_prepare(&mut self, id: u128, part: Part) -> Result<Vote, Error> {
        let op = self.prepare_op(id, part);
        self.prepare_again(op)
    }

    fn prepare_again(&mut self, op: PrepareOp) -> Result<Vote, Error> {
        let Response::Inner(inner) = self.answer(Op::Prepare(Box::new(op)))? else {
            panic!("not a vote")
        };
        let InnerResponse::Voted(vote) = *inner else {
            panic!("not a vote")
        };
        Ok(vote)
    }

    fn prepare(&mut self, id: u128, part: Part) {
        assert!(self.try_prepare(id, part).unwrap().holds);
    }

    fn resolve(&mut self, id: u128, verdict: Verdict) -> Applied {
        let applied = self.entry(vec![Op::Resolve(ResolveOp {
            id: TransactionId(id),
            verdict,
            waiter: Waiter::default(),
        })]);
        let resolved = Ok(InnerResponse::Resolved.into());
        assert_eq!(applied.transactions, [(Waiter::default(), resolved)]);
        applied
    }

    fn decide(&mut self, id: u128, op_id: OpId, part: Part) -> Result<Transacted, Error> {
        transacted(self.answer(Op::Decide(Box::new(DecideOp {
            id: TransactionId(id),
            op_id,
            refuse: part.otherwise.is_empty(),
            part,
            others: vec![ShardId(3), ShardId(5)],
            others_hold: true,
            waiter: Waiter::default(),
        }))))
    }

    fn is_locked(&mut self, key: &str) -> bool {
        let op = self.write_op(key);
        let applied = self.entry(vec![Op::Write(op)]);
        assert_eq!(applied.outcomes.len() + applied.locked.len(), 1);
        applied.outcomes.is_empty()
    }

    fn write_op(&mut self, key: &str) -> WriteOp {
        WriteOp {
            key: bytes(key),
            content: value("plain"),
            intent: WriteIntent::Blind,
            op_id: self.new_op_id(),
            expires_at_ms: None,
            waiter: Waiter::default(),
        }
    }

    fn unchanged(&self, key: &str) -> Compare {
        let (stamp, _) = versions::examine(&self.engine, PLACE, key.as_bytes()).unwrap();
        let key = bytes(key);
        Compare::Unchanged { key, stamp }
    }

    fn range_unchanged(&self, from: &str, to: &str) -> Compare {
        let (from, to) = (bytes(from), bytes(to));
        let bounds = (&from[..], Some(&to[..]));
        let read = range::read(&self.engine, PLACE, bounds, 1000).unwrap();
        let Answer::Range { stamp, more, .. } = read else {
            panic!("another answer")
        };
        assert!(!more);
        let shard = PLACE.shard;
        Compare::RangeUnchanged {
            shard,
            from,
            to,
            stamp,
        }
    }

    /// Nothing is locked, in memory or on disk.
    fn expect_unlocked(&self) {
        assert!(self.shard.locks().is_empty());
        let again = Shard::load(self.shard.group(), &self.engine, PlantedBugs::default());
        assert!(again.unwrap().unwrap().locks().is_empty());
    }
}

fn transacted(response: Result<Response, Error>) -> Result<Transacted, Error> {
    let response = response?;
    let Response::Transacted(transacted) = response else {
        panic!("not transacted: {response:?}")
    };
    Ok(*transacted)
}

fn is_conflict<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Conflict { .. }))
}

// ---------------------------------------------------------------- one shard

#[test]
fn all_writes_of_a_transaction_are_one_entry_with_consecutive_dots() {
    let mut zone = Zone::new(1);
    zone.put("b", "old");
    let before = zone.received().get(incarnation(1));
    let actions = vec![get("b"), put("a", "1"), remove("b"), put("c", "3")];
    let done = zone.transact(part(vec![exists("b")], actions)).unwrap();
    assert!(done.succeeded && !done.repeated && done.parts == 1);
    let dots: Vec<u64> = done
        .results
        .iter()
        .filter_map(|result| match result {
            ActionResult::Got(_) => None,
            ActionResult::Written(written) => Some(written.as_ref().unwrap().0.counter),
        })
        .collect();
    assert_eq!(dots, [before + 1, before + 2, before + 3]);
    let ActionResult::Got(read) = &done.results[0] else {
        panic!("the first action reads")
    };
    assert_eq!(read.siblings().len(), 1, "it shows what was before");
    assert_eq!(zone.values("a"), ["1"]);
    assert_eq!(zone.values("b"), ["-"]);
    zone.check();
}

#[test]
fn a_transaction_that_is_refused_does_nothing_at_all() {
    let mut zone = Zone::new(1);
    zone.put("taken", "x");
    let before = zone.received().clone();
    let writes = vec![
        put("a", "1"),
        put_if("taken", "2", WriteIntent::IfAbsent),
        put("b", "3"),
    ];
    let refused = zone.transact(part(vec![], writes));
    assert!(matches!(refused, Err(Error::VersionMismatch { .. })));
    let refused = zone.transact(part(vec![absent("taken")], vec![put("a", "1")]));
    assert!(is_conflict(&refused));
    assert_eq!(zone.received(), &before);
    assert_eq!(zone.set("a"), SiblingSet::new());
    let writes = vec![put("a", "1"), put_if("b", "3", WriteIntent::IfAbsent)];
    assert!(zone.transact(part(vec![], writes)).is_ok());
    assert_eq!(zone.values("b"), ["3"]);
}

#[test]
fn each_comparison_holds_exactly_when_it_says_so() {
    let mut zone = Zone::new(1);
    let (_, first) = zone.put("k", "1");
    let stale = zone.unchanged("k");
    let (_, second) = zone.put("k", "2");
    let context = |context: &CausalContext| Compare::Context {
        key: bytes("k"),
        context: context.clone(),
    };
    zone.delete("gone");
    let cases = [
        (zone.unchanged("k"), stale),
        (
            zone.unchanged("gone"),
            Compare::Unchanged {
                key: bytes("gone"),
                stamp: None,
            },
        ),
        (
            zone.unchanged("never"),
            Compare::Unchanged {
                key: bytes("never"),
                stamp: Some(1),
            },
        ),
        (absent("never"), absent("k")),
        (absent("gone"), exists("gone")),
        (exists("k"), exists("never")),
        (is_value("k", "2"), is_value("k", "1")),
        (context(&second), context(&first)),
    ];
    for (holds, fails) in cases {
        let done = zone.transact(part(vec![holds.clone()], vec![get("k")]));
        assert!(done.is_ok(), "{holds:?}");
        let refused = zone.transact(part(vec![fails.clone()], vec![get("k")]));
        assert!(is_conflict(&refused), "{fails:?}");
    }
}

#[test]
fn a_key_in_conflict_has_no_one_value() {
    let [mut a, mut b] = [Zone::new(1), Zone::new(2)];
    a.put("k", "a");
    b.put("k", "b");
    a.pull_all(&b);
    for text in ["a", "b"] {
        let refused = a.transact(part(vec![is_value("k", text)], vec![put("x", "1")]));
        assert!(is_conflict(&refused));
    }
    let both = a.set("k").read_context();
    let resolve = vec![put_if("k", "ab", WriteIntent::IfContext(both))];
    assert!(a.transact(part(vec![exists("k")], resolve)).is_ok());
    assert_eq!(a.values("k"), ["ab"]);
}

#[test]
fn a_change_in_a_compared_range_refuses_and_one_beside_it_does_not() {
    type Change = fn(&mut Zone);
    let changes: [(&str, Change); 4] = [
        ("a changed key", |zone| drop(zone.put("m1", "x"))),
        ("a new key", |zone| drop(zone.put("m2", "x"))),
        ("a key that went", |zone| drop(zone.delete("m1"))),
        ("the first key", |zone| drop(zone.put("m", "x"))),
    ];
    for (what, change) in changes {
        let mut zone = Zone::new(1);
        zone.put("m1", "1");
        let range = zone.range_unchanged("m", "n");
        change(&mut zone);
        let refused = zone.transact(part(vec![range], vec![put("out", "1")]));
        assert!(is_conflict(&refused), "{what}");
    }
    let mut zone = Zone::new(1);
    zone.put("m1", "1");
    let range = zone.range_unchanged("m", "n");
    zone.put("n", "the end is not part of it");
    zone.put("l", "nor what is before");
    assert!(
        zone.transact(part(vec![range], vec![put("out", "1")]))
            .is_ok()
    );
}

#[test]
fn a_range_in_which_a_key_came_and_went_has_changed() {
    let mut zone = Zone::new(1);
    zone.put("m1", "1");
    let range = zone.range_unchanged("m", "n");
    zone.put("m2", "came");
    zone.delete("m2");
    let refused = zone.transact(part(vec![range], vec![put("out", "1")]));
    assert!(is_conflict(&refused));
}

#[test]
fn when_a_comparison_fails_the_other_list_is_done() {
    let mut zone = Zone::new(1);
    zone.put("k", "1");
    let both = |expected: &str| Part {
        compare: vec![is_value("k", expected)],
        then: vec![put("k", "then")],
        otherwise: vec![get("k"), put("log", "else")],
    };
    let done = zone.transact(both("2")).unwrap();
    assert!(!done.succeeded);
    assert_eq!(done.results.len(), 2);
    assert_eq!(
        (zone.values("k"), zone.values("log")),
        (vec!["1".to_owned()], vec!["else".to_owned()])
    );
    let done = zone.transact(both("1")).unwrap();
    assert!(done.succeeded);
    assert_eq!(zone.values("k"), ["then"]);
}

#[test]
fn a_repeated_op_id_does_nothing_and_says_which_list_was_done() {
    let mut zone = Zone::new(1);
    let op_id = zone.new_op_id();
    let asked = Part {
        compare: vec![exists("k")],
        then: vec![put("k", "then")],
        otherwise: vec![put("k", "else")],
    };
    assert!(!zone.transact_as(op_id, asked.clone()).unwrap().succeeded);
    let before = zone.received().clone();
    zone.restart(PlantedBugs::default());
    let again = zone.transact_as(op_id, asked.clone()).unwrap();
    assert!(again.repeated && !again.succeeded && again.results.is_empty());
    assert_eq!(zone.received(), &before);
    assert_eq!(zone.values("k"), ["else"]);
    let fresh = zone.transact(asked).unwrap();
    assert!(fresh.succeeded && !fresh.repeated);
}

#[test]
fn an_op_id_of_a_plain_write_is_not_one_of_a_transaction() {
    let mut zone = Zone::new(1);
    let op_id = zone.new_op_id();
    zone.write_as(op_id, "k", value("1"), WriteIntent::Blind);
    let reused = zone.transact_as(op_id, part(vec![], vec![put("k", "2")]));
    assert_eq!(reused, Err(Error::OpIdReused { op_id }));
    let op_id = zone.new_op_id();
    zone.transact_as(op_id, part(vec![], vec![put("k", "2")]))
        .unwrap();
    let outcome = zone.write_as(op_id, "k", value("3"), WriteIntent::Blind);
    assert_eq!(outcome, WriteOutcome::OpIdReused);
}

#[test]
fn effects_of_a_transaction_bear_its_tag_and_travel_as_one() {
    let [mut a, mut b] = [Zone::new(1), Zone::new(2)];
    let op_id = a.new_op_id();
    a.put("before", "1");
    a.transact_as(op_id, part(vec![], vec![put("x", "1"), put("y", "1")]))
        .unwrap();
    a.put("after", "1");
    let tags: Vec<_> = a
        .outbox(incarnation(1), 0)
        .iter()
        .map(|effect| effect.transaction)
        .collect();
    let tag = Some(meridian_causal::TransactionTag {
        id: op_id.id,
        parts: 1,
    });
    assert_eq!(tags, [None, tag, tag, None]);
    let group = a.shard.group();
    let counts: Vec<usize> = (0..4)
        .map(|after| {
            outbox::read(&a.engine, group, incarnation(1), after, 1)
                .unwrap()
                .len()
        })
        .collect();
    assert_eq!(
        counts,
        [1, 2, 1, 1],
        "not parted, however small a message is"
    );
    b.pull_all(&a);
    for key in ["x", "y"] {
        assert_eq!(b.set(key).siblings()[0].transaction, tag);
    }
}

// ---------------------------------------------------------------- prepared

#[test]
fn a_prepared_write_locks_its_key_until_it_is_resolved() {
    for verdict in [COMMITTED, Verdict::Aborted] {
        let mut zone = Zone::new(1);
        zone.put("k", "1");
        zone.prepare(7, part(vec![], vec![put("k", "2")]));
        assert!(zone.is_locked("k") && !zone.is_locked("other"));
        let other = zone.transact(part(vec![], vec![put("k", "3")]));
        assert!(is_conflict(&other));
        let reads = zone.transact(part(vec![], vec![get("k"), put("x", "1")]));
        assert!(is_conflict(&reads), "nobody reads it");
        assert!(is_conflict(
            &zone.try_prepare(8, part(vec![exists("k")], vec![]))
        ));
        let applied = zone.resolve(7, verdict);
        assert_eq!(applied.resolved.len(), 1);
        assert_eq!(applied.resolved[0].verdict, verdict);
        zone.expect_unlocked();
        let expected = if verdict == COMMITTED { "2" } else { "1" };
        assert_eq!(zone.values("k"), [expected]);
        assert!(!zone.is_locked("k"));
        zone.check();
    }
}

#[test]
fn what_a_prepared_part_compares_may_be_read_and_not_written() {
    let mut zone = Zone::new(1);
    zone.put("k", "1");
    let compared = || {
        part(
            vec![exists("k"), absent("none")],
            vec![get("read"), put("w", "1")],
        )
    };
    zone.prepare(7, compared());
    for key in ["k", "none", "read"] {
        assert!(zone.is_locked(key), "{key}");
        let only_reads = zone.transact(part(vec![], vec![get(key)]));
        assert!(only_reads.is_ok(), "{key}");
    }
    let shared = part(vec![exists("k")], vec![put("v", "1")]);
    zone.prepare(8, shared);
    zone.resolve(7, COMMITTED);
    assert!(zone.is_locked("k"), "the other one still reads it");
    assert!(!zone.is_locked("none"));
    zone.resolve(8, Verdict::Aborted);
    assert!(!zone.is_locked("k"));
    zone.expect_unlocked();
}

#[test]
fn a_compared_range_is_locked_for_keys_that_do_not_exist() {
    let mut zone = Zone::new(1);
    let range = zone.range_unchanged("m", "n");
    zone.prepare(7, part(vec![range], vec![put("w", "1")]));
    assert!(zone.is_locked("m") && zone.is_locked("mm"));
    assert!(!zone.is_locked("n") && !zone.is_locked("l"));
    zone.resolve(7, COMMITTED);
    assert!(!zone.is_locked("mm"));
}

#[test]
fn a_range_that_a_prepared_part_writes_into_cannot_be_compared() {
    let mut zone = Zone::new(1);
    let (inside, beside) = (
        zone.range_unchanged("m", "n"),
        zone.range_unchanged("n", "o"),
    );
    zone.prepare(7, part(vec![], vec![put("mm", "1")]));
    assert!(is_conflict(&zone.transact(part(vec![inside], vec![]))));
    assert!(zone.transact(part(vec![beside], vec![])).is_ok());
}

#[test]
fn a_part_that_does_not_hold_is_refused_or_promised_with_the_other_list() {
    let mut zone = Zone::new(1);
    let refused = zone.try_prepare(7, part(vec![exists("k")], vec![put("k", "1")]));
    assert!(is_conflict(&refused));
    zone.expect_unlocked();
    let asked = Part {
        compare: vec![exists("k")],
        then: vec![put("k", "then")],
        otherwise: vec![put("k", "else"), get("r")],
    };
    let vote = zone.try_prepare(8, asked).unwrap();
    assert!(!vote.holds);
    assert_eq!(vote.otherwise.len(), 1);
    let verdict = Verdict::Committed {
        succeeded: false,
        at: 1,
    };
    zone.resolve(8, verdict);
    assert_eq!(zone.values("k"), ["else"]);
}

#[test]
fn a_condition_of_a_prepared_write_is_checked_when_it_is_promised() {
    let mut zone = Zone::new(1);
    zone.put("k", "1");
    let write = |text: &str| {
        part(
            vec![],
            vec![put_if("k", "2", WriteIntent::IfValue(bytes(text)))],
        )
    };
    let refused = zone.try_prepare(7, write("0"));
    assert!(matches!(refused, Err(Error::VersionMismatch { .. })));
    zone.expect_unlocked();
    zone.prepare(8, write("1"));
    zone.resolve(8, COMMITTED);
    assert_eq!(zone.values("k"), ["2"]);
}

#[test]
fn a_merge_goes_through_a_lock_and_its_version_stays_beside_the_commit() {
    let [mut a, mut b] = [Zone::new(1), Zone::new(2)];
    a.put("k", "old");
    b.pull_all(&a);
    a.prepare(7, part(vec![is_value("k", "old")], vec![put("k", "new")]));
    b.put("k", "elsewhere");
    a.pull_all(&b);
    assert_eq!(a.values("k"), ["elsewhere"]);
    a.resolve(7, COMMITTED);
    let mut values = a.values("k");
    values.sort();
    assert_eq!(values, ["elsewhere", "new"]);
    b.pull_all(&a);
    assert_eq!(b.set("k").siblings(), a.set("k").siblings());
    a.check();
    b.check();
}

#[test]
fn a_resolution_of_nothing_does_nothing() {
    let mut zone = Zone::new(1);
    zone.put("k", "1");
    let before = zone.received().clone();
    for verdict in [COMMITTED, Verdict::Aborted] {
        assert!(zone.resolve(7, verdict).resolved.is_empty());
    }
    assert_eq!(zone.received(), &before);
    zone.prepare(8, part(vec![], vec![put("k", "2")]));
    zone.resolve(8, COMMITTED);
    let once = zone.received().clone();
    zone.resolve(8, COMMITTED);
    zone.resolve(8, Verdict::Aborted);
    assert_eq!(zone.received(), &once);
    assert_eq!(zone.values("k"), ["2"]);
}

#[test]
fn a_prepare_again_gives_the_same_vote_and_one_after_the_commit_is_refused() {
    let mut zone = Zone::new(1);
    zone.put("k", "1");
    let op = zone.prepare_op(7, part(vec![exists("k")], vec![get("k"), put("k", "2")]));
    let vote = zone.prepare_again(op.clone()).unwrap();
    assert_eq!(zone.prepare_again(op.clone()).unwrap(), vote);
    zone.resolve(7, COMMITTED);
    zone.restart(PlantedBugs::default());
    assert!(is_conflict(&zone.prepare_again(op.clone())));
    let through_index = zone.index;
    zone.entry(vec![Op::EvictOpIds {
        through_index,
        floor_ms: 0,
    }]);
    assert!(
        is_conflict(&zone.prepare_again(op)),
        "its stamp is below the floor"
    );
    zone.expect_unlocked();
    assert_eq!(zone.values("k"), ["2"]);
}

#[test]
fn locks_and_decisions_are_what_the_store_says_after_a_restart() {
    let mut zone = Zone::new(1);
    zone.put("k", "1");
    let range = zone.range_unchanged("m", "n");
    zone.prepare(7, part(vec![exists("k"), range], vec![put("w", "1")]));
    let op_id = zone.new_op_id();
    assert_eq!(
        zone.decide(9, op_id, part(vec![], vec![put("d", "1")]))
            .unwrap()
            .parts,
        3
    );
    let decided_at = zone.index;
    zone.restart(PlantedBugs::default());
    for key in ["k", "w", "mm"] {
        assert!(zone.is_locked(key), "{key}");
    }
    let decided = zone.shard.locks().decided();
    let (at, decision) = decided.get(&TransactionId(9)).unwrap();
    assert_eq!((*at, decision.succeeded), (decided_at, true));
    assert_eq!(decision.others, [ShardId(3), ShardId(5)]);
    zone.entry(vec![Op::Forget {
        ids: vec![TransactionId(9)],
    }]);
    zone.restart(PlantedBugs::default());
    assert!(zone.shard.locks().decided().is_empty());
    zone.resolve(7, COMMITTED);
    zone.restart(PlantedBugs::default());
    zone.expect_unlocked();
    assert_eq!(zone.values("w"), ["1"]);
}

#[test]
fn a_bug_that_forgets_locks_at_a_restart_is_one() {
    let mut zone = Zone::new(1);
    zone.prepare(7, part(vec![], vec![put("k", "1")]));
    let forgets = PlantedBugs {
        forget_locks_at_restart: true,
        ..PlantedBugs::default()
    };
    zone.restart(forgets);
    assert!(!zone.is_locked("k"));
}

// ---------------------------------------------------------------- decided

#[test]
fn a_decision_is_taken_once_per_op_id_and_refused_without_effect() {
    let mut zone = Zone::new(1);
    let op_id = zone.new_op_id();
    let refused = zone.decide(1, op_id, part(vec![exists("k")], vec![put("k", "1")]));
    assert!(is_conflict(&refused));
    assert!(zone.shard.locks().decided().is_empty());
    let done = zone
        .decide(2, op_id, part(vec![absent("k")], vec![put("k", "1")]))
        .unwrap();
    assert!(done.succeeded && !done.repeated);
    let again = zone
        .decide(3, op_id, part(vec![absent("k")], vec![put("k", "2")]))
        .unwrap();
    assert!(again.repeated && again.succeeded);
    let attempts: Vec<_> = zone.shard.locks().decided().keys().copied().collect();
    assert_eq!(attempts, [TransactionId(2)]);
    assert_eq!(zone.values("k"), ["1"]);
    let tag = zone.set("k").siblings()[0].transaction.unwrap();
    assert_eq!((tag.id, tag.parts), (op_id.id, 3));
}

#[test]
fn a_decision_meets_locks_as_any_other_part() {
    let mut zone = Zone::new(1);
    zone.prepare(7, part(vec![], vec![put("k", "1")]));
    let op_id = zone.new_op_id();
    assert!(is_conflict(&zone.decide(
        8,
        op_id,
        part(vec![], vec![put("k", "2")])
    )));
    zone.resolve(7, Verdict::Aborted);
    assert!(
        zone.decide(9, op_id, part(vec![], vec![put("k", "2")]))
            .is_ok()
    );
}

#[test]
fn a_decision_without_a_write_of_its_own_is_remembered_too() {
    let mut zone = Zone::new(1);
    let op_id = zone.new_op_id();
    assert!(
        !zone
            .decide(1, op_id, part(vec![absent("k")], vec![]))
            .unwrap()
            .repeated
    );
    zone.put("k", "1");
    assert!(
        zone.decide(2, op_id, part(vec![absent("k")], vec![]))
            .unwrap()
            .repeated
    );
}

// ---------------------------------------------------------------- what else there is

#[test]
fn too_many_prepared_parts_are_refused_and_room_is_room_again() {
    let mut zone = Zone::new(1);
    let ids = 1..=u128::try_from(PREPARED_MAX).unwrap();
    let ops = ids.map(|id| {
        Op::Prepare(Box::new(
            zone.prepare_op(id, part(vec![], vec![put(&format!("k{id}"), "1")])),
        ))
    });
    let ops: Vec<Op> = ops.collect();
    let applied = zone.entry(ops);
    assert!(applied.transactions.iter().all(|(_, vote)| vote.is_ok()));
    let more = || part(vec![], vec![put("more", "1")]);
    let refused = zone.try_prepare(0, more());
    assert!(matches!(refused, Err(Error::Overloaded { .. })));
    zone.resolve(1, Verdict::Aborted);
    zone.prepare(0, more());
}

#[test]
fn another_incarnation_renames_what_a_prepared_write_replaces() {
    let mut zone = Zone::new(1);
    let old = zone.meta().incarnation;
    zone.put("k", "kept");
    let resume = zone.received().get(old);
    let (since, _) = zone.put("k", "since");
    zone.prepare(7, part(vec![], vec![put("k", "new")]));
    let new = Incarnation::new(ZoneId(1), 99);
    zone.entry(vec![Op::Quarantine {
        incarnation: old,
        resume,
    }]);
    zone.entry(vec![Op::TakeIncarnation { old, new }]);
    let stored = IntentKey::encode(PLACE, TransactionId(7));
    let record = zone.engine.get(&stored).unwrap().unwrap();
    let (_, intent) = IntentKey::decode_record(&stored, &record).unwrap();
    assert!(
        intent.then[0]
            .replaced
            .covers(Dot::new(new, since.counter - resume))
    );
    assert!(!intent.then[0].replaced.covers(since));
    zone.resolve(7, COMMITTED);
    assert_eq!(zone.values("k"), ["new"]);
    assert_eq!(zone.set("k").siblings()[0].dot.incarnation, new);
    zone.check();
}

#[test]
fn a_locked_version_does_not_expire_before_its_transaction_is_resolved() {
    let mut zone = Zone::new(1);
    let op = WriteOp {
        expires_at_ms: Some(5_000),
        ..zone.write_op("k")
    };
    zone.entry(vec![Op::Write(op)]);
    zone.prepare(7, part(vec![exists("k")], vec![put("x", "1")]));
    zone.clock_ms = 6_000;
    let keys = crate::shard::expiry::due(&zone.engine, PLACE, 6_000, 10).unwrap();
    assert_eq!(keys.len(), 1);
    zone.entry(vec![Op::Expire { keys: keys.clone() }]);
    assert_eq!(zone.values("k"), ["plain"]);
    zone.resolve(7, COMMITTED);
    zone.entry(vec![Op::Expire { keys }]);
    assert_eq!(zone.values("k"), ["-"]);
}
