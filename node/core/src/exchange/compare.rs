//! Catching up by comparing key ranges, when the sender no longer keeps the effects that are missing (rule 11).
//!
//! The receiver drives: it opens a view at the sender (vector S), logs `CompareBegin(S)`, walks the key ranges of the
//! view by hash, fetches and joins the states of those that differ, fetches the op ids that the view remembers of effects it
//! lacks, and logs `CompareEnd(S)`, which makes its vector the
//! maximum of both. Until then the shard takes no ordered effect of an incarnation that S is ahead of. A view that is
//! lost, or a receiving leader that changes, starts over with another view; joins done are kept, being joins.

use std::collections::VecDeque;

use bytes::Bytes;
use meridian_causal::{VersionVector, ZoneId};
use rand::Rng;

use super::ExchangeContext;
use super::seeding::seed_of;
use super::{ends, peer};
use crate::catalog::{Catalog, GroupRecord};
use crate::command::Op;
use crate::group::Group;
use crate::ids::Side;
use crate::message::Exchange;
use crate::output::Notice;
use crate::shard::compare;
use crate::time::Now;

/// A question not answered for this long is asked again.
const RETRY_MS: u64 = 1_000;

/// A step that waits for the log longer than this begins anew.
const LOG_MS: u64 = 10_000;

/// Times a question is asked before the comparison starts over.
const ASKED_MAX: u32 = 10;

/// A comparison as the receiving leader drives it.
pub(super) struct Comparing {
    side: Side,
    session: u64,
    phase: Phase,
    /// Ranges told and not looked at: first key, end, hash.
    ranges: VecDeque<(Bytes, Bytes, u128)>,
    asked_at: Now,
    asked: u32,
}

/// Whole key states of `[from, to)`.
struct Fetched {
    from: Bytes,
    to: Bytes,
    states: Vec<(Bytes, Bytes)>,
}

impl Comparing {
    /// Takes ranges to look at; where they end.
    fn look_at(&mut self, from: Bytes, ranges: Vec<(Bytes, u128)>) -> Bytes {
        self.asked = 0;
        let mut start = from;
        for (end, hash) in ranges {
            self.ranges.push_back((start, end.clone(), hash));
            start = end;
        }
        start
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    /// Waits for the view.
    Opening,
    /// `CompareBegin` is proposed; waits for it to be applied.
    Beginning(VersionVector),
    /// Waits for hashes from this key on.
    Hashing(Bytes),
    /// Waits for the states of this range.
    Fetching(Bytes, Bytes),
    /// Waits for operations that the view remembers, from this place on.
    Recalling(Bytes),
    /// `CompareEnd` is proposed; waits for it to be applied.
    Ending,
}

impl Group {
    /// Starts to compare with `zone`, unless a comparison is under way.
    pub(super) fn compare_start(&mut self, side: Side, context: &mut ExchangeContext<'_>) {
        if self.exchange.receiver.comparing.is_some() {
            return;
        }
        self.exchange.receiver.comparing = Some(Comparing {
            side,
            session: context.rng.random(),
            phase: Phase::Opening,
            ranges: VecDeque::new(),
            asked_at: context.now,
            asked: 0,
        });
        context
            .out
            .notices
            .push(Notice::Comparing { group: self.id });
        self.compare_ask(context);
    }

    /// Asks what the phase waits for.
    fn compare_ask(&mut self, context: &mut ExchangeContext<'_>) {
        let received = self.shard().map(|shard| shard.meta().received.clone());
        let received = received.unwrap_or_default();
        let recalls_all = self.exchange.seeding.recalls_all();
        let Some(comparing) = self.exchange.receiver.comparing.as_mut() else {
            return;
        };
        comparing.asked_at = context.now;
        comparing.asked = comparing.asked.saturating_add(1);
        let (side, session) = (comparing.side, comparing.session);
        let body = match comparing.phase.clone() {
            Phase::Opening => Exchange::CompareOpen { session },
            Phase::Hashing(from) => Exchange::CompareHashes { session, from },
            Phase::Fetching(from, to) => Exchange::CompareFetch { session, from, to },
            Phase::Recalling(from) => Exchange::CompareRecall {
                session,
                from,
                received: if recalls_all {
                    VersionVector::new()
                } else {
                    received
                },
            },
            Phase::Beginning(_) | Phase::Ending => return,
        };
        let mirror = seed_of(context.catalog, self.id).filter(|(seed, _)| *seed == side);
        let node = mirror.map(|(_, node)| node);
        if let Some(node) = node.or_else(|| self.node_of(side, context)) {
            self.say((side, node), body, context);
        }
    }

    /// Gives up on a comparison with `side` that has not been opened. False: it has, or is with another end.
    pub(super) fn gives_up_opening(&mut self, side: Side) -> bool {
        let logged = self.snapshot().is_some();
        let comparing = &mut self.exchange.receiver.comparing;
        let opening = comparing
            .as_ref()
            .is_none_or(|comparing| comparing.side == side && comparing.phase == Phase::Opening);
        if opening && !logged {
            *comparing = None;
        }
        opening && !logged
    }

    /// An answer of the zone compared with.
    pub(super) fn compare_answered(
        &mut self,
        side: Side,
        body: Exchange,
        context: &mut ExchangeContext<'_>,
    ) {
        if self.compare_turned(side, &body, context) {
            return;
        }
        let Some(comparing) = self
            .exchange
            .receiver
            .comparing
            .as_mut()
            .filter(|comparing| comparing.side == side)
        else {
            return;
        };
        let session = comparing.session;
        match (body, comparing.phase.clone()) {
            (
                Exchange::CompareOpened {
                    session: of,
                    snapshot,
                },
                Phase::Opening,
            ) if of == session => {
                comparing.phase = Phase::Beginning(snapshot.clone());
                self.exchange.receiver.forget_proposed();
                self.enqueue(Op::CompareBegin {
                    source: side.zone,
                    snapshot,
                });
            }
            (
                Exchange::CompareRanges {
                    session: of,
                    from,
                    ranges,
                },
                Phase::Hashing(asked),
            ) if of == session && from == asked => {
                let end = comparing.look_at(from, ranges);
                self.compare_next(&end, context);
            }
            (
                Exchange::CompareStates {
                    session: of,
                    from,
                    to,
                    states,
                },
                Phase::Fetching(asked, end),
            ) if of == session && from == asked => {
                comparing.asked = 0;
                self.compare_joined(Fetched { from, to, states }, end, context);
            }
            (answer @ Exchange::CompareRecalled { .. }, Phase::Recalling(asked)) => {
                self.compare_recalled(&asked, answer, context);
            }
            (Exchange::CompareLost { session: of }, _) if of == session => {
                // Taken up again by the next tick if it is logged, else by the next `MustCompare`.
                self.exchange.receiver.comparing = None;
            }
            // Answers to questions that were answered before.
            (_, _) => {}
        }
    }

    /// An answer with which a comparison begins, or is found to be needless.
    fn compare_turned(
        &mut self,
        side: Side,
        body: &Exchange,
        context: &mut ExchangeContext<'_>,
    ) -> bool {
        if *body == Exchange::MustCompare {
            self.compare_start(side, context);
            return true;
        }
        let Exchange::CompareOpened { snapshot, .. } = body else {
            return false;
        };
        let needless = self.has_seed(side, snapshot, context.catalog);
        if needless {
            self.exchange.receiver.comparing = None;
        }
        needless
    }

    fn snapshot(&self) -> Option<VersionVector> {
        let compare = self.shard()?.meta().compare.as_ref()?;
        Some(compare.snapshot.clone())
    }

    /// Joins the states fetched and goes on.
    fn compare_joined(&mut self, fetched: Fetched, end: Bytes, context: &mut ExchangeContext<'_>) {
        let Fetched { from, to, states } = fetched;
        let Some(snapshot) = self.snapshot() else {
            // The log has ended this comparison.
            self.exchange.receiver.comparing = None;
            return;
        };
        if !compare::states_are_valid(&states) {
            self.exchange.receiver.comparing = None;
            let detail = format!("states to compare of group {} do not read", self.id);
            context.out.notices.push(Notice::Damaged { detail });
            return;
        }
        self.enqueue(Op::CompareJoin {
            snapshot,
            from,
            to: to.clone(),
            states,
        });
        let Some(comparing) = self.exchange.receiver.comparing.as_mut() else {
            return;
        };
        if to == end {
            self.compare_next(&end, context);
        } else {
            comparing.phase = Phase::Fetching(to, end);
            self.compare_ask(context);
        }
    }

    /// Looks at ranges until one differs; at the last one told, asks for more or ends.
    fn compare_next(&mut self, last_end: &Bytes, context: &mut ExchangeContext<'_>) {
        loop {
            let Some(comparing) = self.exchange.receiver.comparing.as_mut() else {
                return;
            };
            let Some((from, to, hash)) = comparing.ranges.pop_front() else {
                break;
            };
            let ours = match compare::range_hash(context.engine, self.id, &from, &to) {
                Ok(ours) => ours,
                Err(error) => {
                    context.out.notices.push(Notice::Damaged {
                        detail: error.to_string(),
                    });
                    return;
                }
            };
            if ours != hash {
                let Some(comparing) = self.exchange.receiver.comparing.as_mut() else {
                    return;
                };
                comparing.phase = Phase::Fetching(from, to);
                self.compare_ask(context);
                return;
            }
        }
        let Some(comparing) = self.exchange.receiver.comparing.as_mut() else {
            return;
        };
        comparing.phase = if last_end.is_empty() {
            Phase::Recalling(Bytes::new())
        } else {
            Phase::Hashing(last_end.clone())
        };
        self.compare_ask(context);
    }

    /// The floor of op ids to take over. A zone's own retries are its own affair; what takes over from another keyspace has all
    /// of them.
    fn floor_of(&self, side: Side, floor_ms: u64) -> u64 {
        let takes_over = side.keyspace != self.id.keyspace;
        if takes_over { floor_ms } else { 0 }
    }

    /// Remembers what the view does, and asks for more or ends.
    fn compare_recalled(
        &mut self,
        asked: &Bytes,
        answer: Exchange,
        context: &mut ExchangeContext<'_>,
    ) {
        let comparing = self.exchange.receiver.comparing.as_mut();
        let (
            Some(comparing),
            Exchange::CompareRecalled {
                session,
                from,
                next,
                floor_ms,
                operations,
            },
        ) = (comparing, answer)
        else {
            return;
        };
        if session != comparing.session || from != *asked {
            return;
        }
        comparing.asked = 0;
        let side = comparing.side;
        let floor_ms = self.floor_of(side, floor_ms);
        let Some(snapshot) = self.snapshot() else {
            // The log has ended this comparison.
            self.exchange.receiver.comparing = None;
            return;
        };
        self.enqueue(Op::CompareRemember {
            snapshot: snapshot.clone(),
            floor_ms,
            operations,
        });
        let Some(comparing) = self.exchange.receiver.comparing.as_mut() else {
            return;
        };
        if next.is_empty() {
            comparing.phase = Phase::Ending;
            self.enqueue(Op::CompareEnd { snapshot });
        } else {
            comparing.phase = Phase::Recalling(next);
            self.compare_ask(context);
        }
    }

    /// After a turn: what was waited for may have been applied.
    pub(super) fn compare_proceed(&mut self, context: &mut ExchangeContext<'_>) {
        let applied = self.snapshot();
        let Some(comparing) = self.exchange.receiver.comparing.as_mut() else {
            return;
        };
        match &comparing.phase {
            Phase::Beginning(snapshot) if applied.as_ref() == Some(snapshot) => {
                comparing.phase = Phase::Hashing(Bytes::new());
                comparing.asked = 0;
                self.compare_ask(context);
            }
            Phase::Ending if applied.is_none() => {
                let side = comparing.side;
                self.exchange.receiver.comparing = None;
                self.compared_with(side, context.catalog);
                self.exchange.receiver.forget_proposed();
                context
                    .out
                    .notices
                    .push(Notice::Compared { group: self.id });
            }
            Phase::Opening
            | Phase::Beginning(_)
            | Phase::Hashing(_)
            | Phase::Fetching(..)
            | Phase::Recalling(_)
            | Phase::Ending => {}
        }
    }

    /// Asks again what was not answered, and takes up a comparison that a former leader left open.
    pub(super) fn compare_retry(&mut self, context: &mut ExchangeContext<'_>) {
        let logged = self
            .shard()
            .and_then(|shard| shard.meta().compare.as_ref())
            .map(|compare| compare.source);
        self.compare_with_none(context.catalog);
        let Some(comparing) = self.exchange.receiver.comparing.as_ref() else {
            // The log names the zone only: any end that holds the shard is as good, as the view will be another one.
            let side = logged.and_then(|zone| {
                if let Some((seed, _)) = seed_of(context.catalog, self.id)
                    && seed.zone == zone
                {
                    return Some(seed);
                }
                let at = |group: &&GroupRecord| group.id.zone == zone;
                let named = ends(context.catalog, self.id).find(at);
                let any = || ends(context.catalog, self.id).next();
                named.or_else(any).map(|group| Side::from(group.id))
            });
            match (side, logged) {
                (Some(side), _) => self.compare_start(side, context),
                (None, Some(zone)) => self.compare_abandon(zone),
                (None, None) => {}
            }
            return;
        };
        if context.now.mono_ns < comparing.asked_at.after_ms(RETRY_MS) {
            return;
        }
        let side = comparing.side;
        let waits_for_log = matches!(comparing.phase, Phase::Beginning(_) | Phase::Ending);
        if waits_for_log {
            // Apply may have refused it: then nothing more will come of it.
            if context.now.mono_ns >= comparing.asked_at.after_ms(LOG_MS) {
                self.exchange.receiver.comparing = None;
            }
        } else if comparing.asked < ASKED_MAX {
            self.compare_ask(context);
        } else if comparing.asked >= ASKED_MAX {
            // Another zone may be nearer to an answer; without a logged comparison any MustCompare starts a new one.
            let next = others_in_turn(context, self, side);
            self.exchange.receiver.comparing = None;
            if logged.is_some() {
                self.compare_start(next, context);
            }
        }
    }

    /// Ends a comparison with an end that is gone: the keyspace that was being taken over is.
    fn compare_with_none(&mut self, catalog: &Catalog) {
        let comparing = self.exchange.receiver.comparing.as_ref();
        let gone = comparing.is_some_and(|comparing| {
            let is_seed = seed_of(catalog, self.id).is_some_and(|(seed, _)| seed == comparing.side);
            !is_seed && peer(catalog, self.id, comparing.side).is_none()
        });
        if gone {
            self.exchange.receiver.comparing = None;
        }
    }

    /// Nobody is left to compare with: the name has moved, which it does when everything is here, and a comparison had begun
    /// once more meanwhile. Another one, with a view that has nothing, ends at once.
    fn compare_abandon(&mut self, source: ZoneId) {
        if self.queued() > 0 {
            return;
        }
        let snapshot = VersionVector::new();
        self.enqueue(Op::CompareBegin {
            source,
            snapshot: snapshot.clone(),
        });
        self.enqueue(Op::CompareEnd { snapshot });
    }
}

/// The end after `side` among those that hold the shard.
fn others_in_turn(context: &ExchangeContext<'_>, group: &Group, side: Side) -> Side {
    let sides: Vec<Side> = ends(context.catalog, group.id)
        .map(|other| other.id.into())
        .collect();
    let after = sides.iter().copied().find(|other| *other > side);
    after.or(sides.first().copied()).unwrap_or(side)
}
