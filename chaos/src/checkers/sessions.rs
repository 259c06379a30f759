//! Levels: a read of a session is never older than its token (invariant 5), a bounded read never older than it says, and
//! a read of several zones shows what so many zones were said to hold.
//!
//! Judged from what clients sent and were answered alone. A write is *shown* by an answer whose context covers its dot:
//! it is there, or what superseded it was seen. An absent key has no context; then somebody must have deleted it.
//!
//! * Session: every dot that the session has read or written of this key before is shown.
//! * Bounded: every write of this key, of whatever client and zone, that was acknowledged longer before the read was sent
//!   than the age the answer states, is shown; and that age is within the bound. Clocks of nodes drift, hence some slack.
//! * Zones: every write acknowledged by w zones before a read of r was sent is shown when w + r exceeds all zones of the
//!   keyspace; and every one acknowledged by a keyspace that this one was before.
//!
//! What was written before a mirror was promoted, the last two do not ask for in the keyspace that came of it: the mirror may not
//! have had it. The first does: a session waits or is refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use meridian_causal::{Content, Dot, SiblingSet};
use meridian_core::ids::KeyspaceId;
use meridian_core::request::{Answer, ReadLevel, Shown};

use super::evidence::{describe_action, describe_outcome};
use crate::client::EXPIRING;
use crate::history::{Action, History, Operation, Outcome};
use crate::lineage::Lineage;
use crate::rng::MS;
use crate::violation::{Checked, Violation};

/// What ages are rounded to, and a hundredth for clocks that drift.
const SLACK_NS: u64 = 2 * MS;
const DRIFT_SHARE: u64 = 100;

/// A read at a level, and its place in the history.
struct Visit<'a> {
    number: usize,
    operation: &'a Operation,
    key: &'a Bytes,
    shown: &'a Shown,
    set: &'a SiblingSet,
}

pub(super) fn check(history: &History, lineage: &Lineage) -> Checked {
    let mut by_key: BTreeMap<&Bytes, Vec<usize>> = BTreeMap::new();
    for (number, operation) in history.operations.iter().enumerate() {
        if let Some(key) = operation.key() {
            by_key.entry(key).or_default().push(number);
        }
    }
    for visit in visits(history) {
        let of_key = by_key.get(visit.key).map(Vec::as_slice).unwrap_or_default();
        let must = must_show(history, &visit, of_key, lineage)?;
        for (number, dot) in must {
            if !is_shown(history, &visit, of_key, dot) {
                missing(history, &visit, (number, dot))?;
            }
        }
    }
    Ok(())
}

fn visits(history: &History) -> impl Iterator<Item = Visit<'_>> {
    let operations = history.operations.iter().enumerate();
    operations.filter_map(
        |(number, operation)| match (&operation.action, &operation.outcome) {
            (Action::Visit { key, .. }, Outcome::Read(Answer::Shown(shown))) => {
                let Answer::Key(set) = &shown.answer else {
                    return None;
                };
                Some(Visit {
                    number,
                    operation,
                    key,
                    shown,
                    set,
                })
            }
            (
                Action::Visit { .. }
                | Action::Write { .. }
                | Action::Get { .. }
                | Action::Scan { .. },
                _,
            ) => None,
        },
    )
}

/// The operations and dots that a read must show.
fn must_show(
    history: &History,
    visit: &Visit<'_>,
    of_key: &[usize],
    lineage: &Lineage,
) -> Result<Vec<(usize, Dot)>, Box<Violation>> {
    let Action::Visit { level, since, .. } = &visit.operation.action else {
        return Ok(Vec::new());
    };
    let earlier = of_key.iter().filter_map(|number| {
        let operation = history.operations.get(*number)?;
        Some((*number, operation))
    });
    Ok(match level {
        ReadLevel::Session => {
            let own = earlier.filter(|(number, operation)| {
                operation.client == visit.operation.client
                    && (*since..visit.number).contains(number)
            });
            own.flat_map(|(number, operation)| {
                dots_of(operation).into_iter().map(move |dot| (number, dot))
            })
            .collect()
        }
        ReadLevel::Bounded { max_age_ms } => {
            let age_ms = stated_age(visit, *max_age_ms)?;
            let age_ns = age_ms.saturating_mul(MS);
            let slack = SLACK_NS + age_ns / DRIFT_SHARE;
            let before = visit.operation.attempt_ns.saturating_sub(age_ns + slack);
            let era = lineage.era(visit.operation.keyspace);
            acknowledged(earlier, before, |of, _| lineage.era(of) == era)
        }
        ReadLevel::Zones { count } => {
            let keyspace = visit.operation.keyspace;
            let policy = lineage.policy(keyspace);
            let zones = policy.map_or(0, |policy| policy.zones.len());
            let enough = (zones + 1).saturating_sub(usize::from(*count));
            // What was written before the keyspace moved is in every zone.
            acknowledged(earlier, visit.operation.attempt_ns, |of, holders| {
                let moved = of < keyspace && lineage.era(of) == lineage.era(keyspace);
                moved || (of == keyspace && holders >= enough)
            })
        }
        ReadLevel::Linearizable
        | ReadLevel::Eventual
        | ReadLevel::View { .. }
        | ReadLevel::Mirror { .. } => Vec::new(),
    })
}

/// The age that a bounded answer states.
fn stated_age(visit: &Visit<'_>, max_age_ms: u64) -> Result<u64, Box<Violation>> {
    let stated = visit.shown.age_ms;
    stated
        .filter(|age_ms| *age_ms <= max_age_ms)
        .ok_or_else(|| {
            let message = format!("a read bounded to {max_age_ms} ms was answered with {stated:?}");
            let at_ns = visit.operation.return_ns.unwrap_or_default();
            Violation::new("staleness", at_ns, message)
        })
}

/// Writes acknowledged before a time, if their keyspace and the number of zones that held them are such.
fn acknowledged<'a>(
    operations: impl Iterator<Item = (usize, &'a Operation)>,
    before_ns: u64,
    such: impl Fn(KeyspaceId, usize) -> bool,
) -> Vec<(usize, Dot)> {
    operations
        .filter(|(_, operation)| operation.return_ns.is_some_and(|at| at < before_ns))
        .filter_map(|(number, operation)| {
            let receipt = operation.receipt()?;
            such(operation.keyspace, receipt.zones.len()).then_some((number, receipt.dot))
        })
        .collect()
}

/// What an operation has let its client know of its key.
fn dots_of(operation: &Operation) -> Vec<Dot> {
    let of_set = |set: &SiblingSet| set.siblings().iter().map(|one| one.dot).collect();
    match &operation.outcome {
        Outcome::Written(receipt) => vec![receipt.dot],
        Outcome::Read(Answer::Key(set)) => of_set(set),
        Outcome::Read(Answer::Shown(shown)) => {
            if let Answer::Key(set) = &shown.answer {
                of_set(set)
            } else {
                Vec::new()
            }
        }
        Outcome::Read(
            Answer::Page { .. }
            | Answer::Digest(_)
            | Answer::Examined { .. }
            | Answer::Range { .. }
            | Answer::Holds(_)
            | Answer::Mirrored(..)
            | Answer::Leases(_)
            | Answer::Returned { .. },
        )
        | Outcome::Info
        | Outcome::Fail(_) => Vec::new(),
    }
}

/// Whether an answer shows a write.
fn is_shown(history: &History, visit: &Visit<'_>, of_key: &[usize], dot: Dot) -> bool {
    if visit.set.context().covers(dot) {
        return true;
    }
    let until_ns = visit.operation.return_ns.unwrap_or(u64::MAX);
    let deletes = |number: &usize| {
        history.operations.get(*number).is_some_and(|operation| {
            let deletes = matches!(
                operation.action,
                Action::Write {
                    content: Content::Tombstone,
                    ..
                }
            );
            deletes && operation.call_ns <= until_ns
        })
    };
    if visit.set.is_empty() {
        return visit.key.starts_with(EXPIRING) || of_key.iter().any(deletes);
    }
    of_key
        .iter()
        .any(|number| deletes(number) && is_dropped_before(history, visit, of_key, (*number, dot)))
}

/// Whether a delete that had seen a write may have been dropped everywhere before all that is shown came, from clients that
/// had read less. Then what is shown was written after the delete, and the delete had seen none of it.
fn is_dropped_before(
    history: &History,
    visit: &Visit<'_>,
    of_key: &[usize],
    (delete, dot): (usize, Dot),
) -> bool {
    let Some(delete) = history.operations.get(delete) else {
        return false;
    };
    // Of a delete whose outcome its client never learned it is not known what it had seen.
    let receipt = delete.receipt();
    let seen = |of: Dot| receipt.map(|receipt| receipt.context.covers(of));
    let later = |shown: Dot| {
        let writes = of_key
            .iter()
            .filter_map(|number| history.operations.get(*number));
        let mut known = writes.filter(|write| write.receipt().is_some_and(|by| by.dot == shown));
        let began = known
            .next()
            .is_none_or(|write| write.call_ns > delete.call_ns);
        began && seen(shown) != Some(true)
    };
    seen(dot) != Some(false) && visit.set.siblings().iter().all(|shown| later(shown.dot))
}

fn missing(history: &History, visit: &Visit<'_>, (number, dot): (usize, Dot)) -> Checked {
    let key = String::from_utf8_lossy(visit.key);
    let (check, level) = match visit.operation.level() {
        Some(ReadLevel::Session) => ("session", "of a session"),
        Some(ReadLevel::Bounded { .. }) => ("staleness", "with a bound"),
        Some(_) | None => ("zones", "of several zones"),
    };
    let at_ns = visit.operation.return_ns.unwrap_or_default();
    let place = visit.number;
    let message =
        format!("read {place} of {key} {level} does not show {dot} of operation {number}");
    let concerned = [number, place].into_iter();
    let details = concerned.filter_map(|number| {
        let operation = history.operations.get(number)?;
        Some(format!(
            "{number}: at {} ms client {} {} -> {}",
            operation.attempt_ns / MS,
            operation.client,
            describe_action(&operation.action),
            describe_outcome(operation)
        ))
    });
    Err(Violation::new(check, at_ns, message).with(details.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_causal::{CausalContext, Hlc, Incarnation, OpId, Sibling, VersionVector, ZoneId};
    use meridian_core::catalog::Policy;
    use meridian_core::command::WriteIntent;
    use meridian_core::ids::NodeId;
    use meridian_core::request::Receipt;

    fn dot(counter: u64) -> Dot {
        Dot::new(Incarnation::new(ZoneId(1), 1), counter)
    }

    fn write(client: usize, at_ms: u64, counter: u64, zones: u16) -> Operation {
        let op_id = OpId {
            stamp_ms: 0,
            id: u128::from(counter),
        };
        Operation {
            client,
            zone: 0,
            call_ns: at_ms * MS,
            attempt_ns: at_ms * MS,
            return_ns: Some((at_ms + 1) * MS),
            attempts: 1,
            keyspace: KeyspaceId::DEFAULT,
            action: Action::Write {
                key: Bytes::from_static(b"k"),
                content: Content::Value(Bytes::from_static(b"v")),
                intent: WriteIntent::Blind,
                op_id,
                ttl_ms: None,
            },
            outcome: Outcome::Written(Receipt {
                dot: dot(counter),
                context: CausalContext::from_dot(dot(counter)),
                zones: (1..=zones).map(ZoneId).collect(),
                op_id,
                repeated: false,
                degraded: false,
            }),
        }
    }

    fn visit(client: usize, at_ms: u64, level: ReadLevel, seen: &[u64]) -> Operation {
        let mut set = SiblingSet::new();
        for counter in seen {
            let sibling = Sibling {
                dot: dot(*counter),
                content: Content::Value(Bytes::from_static(b"v")),
                written_at: Hlc::default(),
                expires_at_ms: None,
                op_id: None,
                transaction: None,
            };
            set.apply(sibling, &CausalContext::new(), &VersionVector::new());
        }
        Operation {
            action: Action::Visit {
                key: Bytes::from_static(b"k"),
                zone: 1,
                level,
                after: VersionVector::new(),
                since: 0,
            },
            outcome: Outcome::Read(Answer::Shown(Box::new(Shown {
                answer: Answer::Key(set),
                by: NodeId(1),
                seen: VersionVector::new(),
                age_ms: Some(100),
                zones: Vec::new(),
                held: Vec::new(),
                mirrors: Vec::new(),
            }))),
            ..write(client, at_ms, 99, 1)
        }
    }

    fn verdict(operations: Vec<Operation>) -> Option<&'static str> {
        let policy = Policy {
            zones: (1..=3).map(ZoneId).collect(),
            ..Policy::default()
        };
        check(&History { operations }, &Lineage::new(policy))
            .err()
            .map(|found| found.check)
    }

    #[test]
    fn a_session_that_does_not_see_its_own_write_is_found_and_another_client_need_not() {
        let read = |client, seen: &[u64]| {
            verdict(vec![
                write(1, 0, 1, 1),
                visit(client, 5, ReadLevel::Session, seen),
            ])
        };
        assert_eq!(read(1, &[1]), None);
        assert_eq!(read(1, &[]), Some("session"));
        assert_eq!(read(2, &[]), None);
    }

    #[test]
    fn a_bounded_read_that_lacks_an_old_write_is_found_and_one_that_lacks_a_new_one_is_not() {
        let read = |at_ms, max_age_ms| {
            let level = ReadLevel::Bounded { max_age_ms };
            verdict(vec![write(1, 0, 1, 1), visit(2, at_ms, level, &[])])
        };
        assert_eq!(read(500, 200), Some("staleness"));
        assert_eq!(read(50, 200), None);
        assert_eq!(read(50, 99), Some("staleness"), "it states 100 ms");
    }

    #[test]
    fn a_read_of_two_zones_of_three_shows_what_two_zones_have_acknowledged() {
        let read = |zones, seen: &[u64]| {
            let level = ReadLevel::Zones { count: 2 };
            verdict(vec![write(1, 0, 1, zones), visit(2, 9, level, seen)])
        };
        assert_eq!(read(2, &[]), Some("zones"));
        assert_eq!(read(2, &[1]), None);
        assert_eq!(read(1, &[]), None);
    }
}
