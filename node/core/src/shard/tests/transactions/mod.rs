//! Transactions in apply: one entry in one shard; prepared, locked and resolved where another shard decides.

mod prepared;

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
