//! One transaction on its way: which request is next, and what the answers make of it.
//!
//! An interactive transaction reads key after key, and after each but the first makes sure that what it had read before
//! is still true, so that all it has seen was true together. Whatever it has read is compared when it commits.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use meridian_causal::{Content, OpId, SiblingSet};
use meridian_core::Error;
use meridian_core::command::WriteIntent;
use meridian_core::error::EffectOf;
use meridian_core::ids::{KeyspaceId, ShardId};
use meridian_core::request::{Answer, Filter, Query, Read, ReadLevel, Request, Response, Write};
use meridian_core::transaction::{Action, ActionResult, Compare, OpenView, Stamp, Transaction};

use super::program::{self, How, Program};
use super::stamped::{self, HeldSpan, Logs};
use super::values;
use crate::client::may_be_tried_again;
use crate::serial::Status;

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The request is to be sent.
    Send(Box<Request>),
    /// The request is to be sent again, after a pause.
    Again,
    /// It is over.
    Done(Status),
}

/// What was read of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The key.
    pub key: Bytes,
    /// What it held.
    pub set: SiblingSet,
    stamp: Stamp,
    span: Option<HeldSpan>,
}

impl Found {
    /// What was read without a stamp.
    fn plain(key: Bytes, set: SiblingSet) -> Self {
        Self {
            key,
            set,
            stamp: None,
            span: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Want {
    Key(Bytes),
    Range(ShardId, Bytes, Bytes),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Reading,
    Checking,
    Committing,
}

/// One transaction on its way.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What it is to do.
    pub program: Program,
    /// What it has read, in order.
    pub found: Vec<Found>,
    /// All comparisons held; known once it is over.
    pub succeeded: bool,
    /// What it read in the transaction itself is not known: an earlier attempt had done it.
    pub repeated: bool,
    ranges: Vec<Compare>,
    wants: VecDeque<Want>,
    checks: VecDeque<(ShardId, Vec<Compare>)>,
    phase: Phase,
    request: Option<Request>,
    /// The view it reads from, to be closed at the end.
    pub view: Option<OpenView>,
    shards: u16,
    zone: usize,
    op_id: OpId,
    may_have_effect: bool,
    /// The keyspace that it was last sent to.
    sent_to: Option<KeyspaceId>,
    newest: Option<KeyspaceId>,
    /// Of that keyspace, as whoever was asked knew them.
    logs: Logs,
    /// No attempt is begun later.
    pub give_up_at: u64,
}

impl Attempt {
    /// A transaction that has done nothing yet.
    pub fn new(program: Program, zone: usize, shards: u16, op_id: OpId, give_up_at: u64) -> Self {
        let mut wants: VecDeque<Want> = program.reads(zone).into_iter().map(Want::Key).collect();
        if let Some(prefix) = program.scans(zone) {
            let mut end = prefix.to_vec();
            if let Some(last) = end.last_mut() {
                *last += 1;
            }
            let end = Bytes::from(end);
            wants.extend(
                (0..shards).map(|shard| Want::Range(ShardId(shard), prefix.clone(), end.clone())),
            );
        }
        let phase = match program.how() {
            How::View => Phase::Opening,
            How::Interactive if !wants.is_empty() => Phase::Reading,
            How::Interactive | How::OneShot => Phase::Committing,
        };
        Self {
            program,
            found: Vec::new(),
            succeeded: false,
            repeated: false,
            ranges: Vec::new(),
            wants,
            checks: VecDeque::new(),
            phase,
            request: None,
            view: None,
            shards,
            zone,
            op_id,
            may_have_effect: false,
            sent_to: None,
            newest: None,
            logs: Logs::default(),
            give_up_at,
        }
    }

    /// The request under way, made when there is none.
    pub fn request(&mut self) -> Option<Request> {
        if self.request.is_none() {
            self.request = self.next_request();
        }
        self.request.clone()
    }

    fn next_request(&mut self) -> Option<Request> {
        match self.phase {
            Phase::Opening => Some(Request::ViewOpen {
                keyspace: KeyspaceId::DEFAULT,
            }),
            Phase::Reading => self.read_request(),
            Phase::Checking => self.checks.front().map(|(shard, compare)| {
                read(
                    ReadLevel::Linearizable,
                    Query::Validate {
                        shard: *shard,
                        compare: compare.clone(),
                    },
                )
            }),
            Phase::Committing => self.commit_request(),
        }
    }

    fn read_request(&self) -> Option<Request> {
        let want = self.wants.front()?;
        let level = |shard: ShardId| match &self.view {
            Some(view) => ReadLevel::View {
                id: view.id,
                node: view
                    .pins
                    .get(usize::from(shard.0))
                    .copied()
                    .unwrap_or_default(),
            },
            None => ReadLevel::Linearizable,
        };
        let view = self.view.is_some();
        Some(match want {
            Want::Key(key) => {
                let level = level(program::shard(key, self.shards));
                let key = key.clone();
                read(
                    level,
                    if view {
                        Query::Get { key }
                    } else {
                        Query::Examine { key }
                    },
                )
            }
            Want::Range(shard, from, to) => {
                let (from, to) = (from.clone(), Some(to.clone()));
                let query = if view {
                    Query::Scan {
                        shard: *shard,
                        from,
                        to,
                        limit: 100,
                        filter: Filter::Live,
                        keys_only: false,
                    }
                } else {
                    Query::Range {
                        shard: *shard,
                        from,
                        to,
                        limit: 100,
                    }
                };
                read(level(*shard), query)
            }
        })
    }

    /// It is about to be sent to a keyspace with these logs; false when it is not to be, since it may have taken effect in
    /// another.
    pub fn goes_to(&mut self, keyspace: KeyspaceId, logs: Logs) -> bool {
        let goes = !self.may_have_effect || self.sent_to == Some(keyspace);
        if goes {
            self.logs = logs;
            self.sent_to = Some(keyspace);
            self.newest = self.newest.max(self.sent_to);
        }
        goes
    }

    /// The keyspace that it was sent to last, and the newest of those that it was sent to.
    pub fn keyspaces(&self) -> (KeyspaceId, KeyspaceId) {
        let [last, newest] = [self.sent_to, self.newest].map(Option::unwrap_or_default);
        (last, newest)
    }

    /// Takes an answer.
    pub fn take(&mut self, now: u64, result: Result<Response, Error>) -> Next {
        match result {
            Ok(response) => self.answered(response),
            Err(error) => self.failed(now, &error),
        }
    }

    /// No answer came.
    pub fn silence(&mut self, now: u64) -> Next {
        self.may_have_effect |= self.phase == Phase::Committing && !self.program.is_read();
        if now < self.give_up_at && self.may_ask_again() {
            Next::Again
        } else {
            self.over()
        }
    }

    /// A view that was asked for may be open although nobody was told; it is asked for anew only.
    fn may_ask_again(&self) -> bool {
        match self.phase {
            Phase::Opening | Phase::Reading | Phase::Checking => true,
            Phase::Committing => self.op_id.id != 0,
        }
    }

    fn over(&self) -> Next {
        Next::Done(if self.may_have_effect {
            Status::Info
        } else {
            Status::Fail
        })
    }

    fn failed(&mut self, now: u64, error: &Error) -> Next {
        let committing = self.phase == Phase::Committing && !self.program.is_read();
        self.may_have_effect |= committing && error.effect() != EffectOf::None;
        if may_be_tried_again(error) && now < self.give_up_at {
            return Next::Again;
        }
        self.over()
    }

    fn answered(&mut self, response: Response) -> Next {
        self.request = None;
        match response {
            Response::ViewOpened(view) => {
                self.view = Some(view);
                self.phase = Phase::Reading;
                self.go_on()
            }
            Response::Read(Answer::Holds(true)) => {
                self.checks.pop_front();
                self.go_on()
            }
            Response::Read(Answer::Holds(false)) => Next::Done(Status::Fail),
            Response::Read(answer) => self.took(answer),
            Response::Written(_) => {
                self.succeeded = true;
                Next::Done(Status::Ok)
            }
            Response::Transacted(transacted) => {
                self.succeeded = transacted.succeeded;
                self.repeated = transacted.repeated;
                let keys = self.result_keys();
                for (key, result) in keys.into_iter().zip(transacted.results) {
                    if let ActionResult::Got(set) = result {
                        self.found.push(Found::plain(key, set));
                    }
                }
                Next::Done(Status::Ok)
            }
            Response::KeyspaceCreated(_)
            | Response::KeyspaceDeleted(_)
            | Response::KeyspaceAltered { .. }
            | Response::Lag(_)
            | Response::Groups(_)
            | Response::ViewClosed
            | Response::LeaseHeld(_)
            | Response::LeaseEnded
            | Response::Mirror(_)
            | Response::MirrorShown(_)
            | Response::Inner(_) => Next::Done(Status::Info),
        }
    }

    fn took(&mut self, answer: Answer) -> Next {
        let plain = self.phase == Phase::Committing;
        let key = match self.wants.pop_front() {
            Some(Want::Key(key)) => key,
            Some(Want::Range(..)) | None => Bytes::new(),
        };
        let checks = self.checks_of_earlier();
        match answer {
            Answer::Key(set) => self.found.push(Found::plain(key, set)),
            Answer::Examined {
                set,
                stamp,
                held_through,
            } => {
                let shard = program::shard(&key, self.shards);
                self.found.push(Found {
                    key,
                    set,
                    stamp: self.logs.key(shard, stamp),
                    span: self.logs.span(shard, stamp, held_through),
                });
            }
            Answer::Page { keys, .. } => self.found_all(keys),
            Answer::Range {
                keys, end, stamp, ..
            } => {
                let shard = ShardId(u16::try_from(self.ranges.len()).unwrap_or(0));
                let from = self.program.scans(self.zone).unwrap_or_default();
                self.ranges.push(Compare::RangeUnchanged {
                    shard,
                    from,
                    to: end,
                    stamp: self.logs.range(shard, stamp),
                });
                self.found_all(keys);
            }
            Answer::Digest(_)
            | Answer::Holds(_)
            | Answer::Leases(_)
            | Answer::Returned { .. }
            | Answer::Shown(_)
            | Answer::Mirrored(..) => {}
        }
        if plain {
            return Next::Done(Status::Ok);
        }
        if self.view.is_none() && !checks.is_empty() && !self.stood_together() {
            self.checks = checks;
            self.phase = Phase::Checking;
        }
        self.go_on()
    }

    fn found_all(&mut self, keys: Vec<(Bytes, SiblingSet)>) {
        let found = keys.into_iter().map(|(key, set)| Found::plain(key, set));
        self.found.extend(found);
    }

    /// Whether the answers alone show that all keys read were so at one time: the stretches in which they did not change are
    /// of one shard's log, and have an index in common.
    fn stood_together(&self) -> bool {
        let spans: Vec<_> = self.found.iter().map(|found| found.span).collect();
        self.ranges.is_empty() && stamped::overlap(&spans)
    }

    /// What was read so far, to be checked again, by shard.
    fn checks_of_earlier(&self) -> VecDeque<(ShardId, Vec<Compare>)> {
        let mut by_shard: BTreeMap<ShardId, Vec<Compare>> = BTreeMap::new();
        for compare in self.compares() {
            let shard = match &compare {
                Compare::RangeUnchanged { shard, .. } => *shard,
                Compare::Unchanged { key, .. }
                | Compare::Absent { key }
                | Compare::Exists { key }
                | Compare::Value { key, .. }
                | Compare::Context { key, .. } => program::shard(key, self.shards),
            };
            by_shard.entry(shard).or_default().push(compare);
        }
        by_shard.into_iter().collect()
    }

    fn compares(&self) -> Vec<Compare> {
        if !self.ranges.is_empty() {
            return self.ranges.clone();
        }
        self.found
            .iter()
            .map(|found| Compare::Unchanged {
                key: found.key.clone(),
                stamp: found.stamp,
            })
            .collect()
    }

    fn go_on(&mut self) -> Next {
        if self.phase == Phase::Checking && self.checks.is_empty() {
            self.phase = Phase::Reading;
        }
        if self.phase == Phase::Reading && self.wants.is_empty() {
            self.succeeded = true;
            if self.program.is_read() {
                return Next::Done(Status::Ok);
            }
            self.phase = Phase::Committing;
        }
        match self.request() {
            Some(request) => Next::Send(Box::new(request)),
            // It has nothing to write.
            None => Next::Done(Status::Ok),
        }
    }

    fn commit_request(&mut self) -> Option<Request> {
        match (&self.program, self.program.how()) {
            (Program::Registers(How::OneShot, steps), _) if steps.len() == 1 => {
                let step = steps.first()?;
                let key = program::register(self.zone, step.key);
                return Some(match step.write {
                    None => read(ReadLevel::Linearizable, Query::Get { key }),
                    Some(value) => self.plain_write(key, value),
                });
            }
            (Program::ForkWrite { group, key }, _) => {
                return Some(self.plain_write(program::fork(self.zone, *group, *key), 1));
            }
            (_, _) => {}
        }
        let (compare, then, otherwise) = self.lists()?;
        Some(Request::Transact(Box::new(Transaction {
            keyspace: KeyspaceId::DEFAULT,
            op_id: self.op_id,
            compare,
            then,
            otherwise,
        })))
    }

    fn plain_write(&self, key: Bytes, value: u64) -> Request {
        Request::Write(Write {
            keyspace: KeyspaceId::DEFAULT,
            key,
            content: Content::Value(values::number(value)),
            intent: WriteIntent::Overwrite,
            op_id: self.op_id,
            expires_at_ms: None,
        })
    }

    fn lists(&self) -> Option<(Vec<Compare>, Vec<Action>, Vec<Action>)> {
        if let Program::Swap {
            key,
            expected,
            other,
            writes: [first, second],
        } = self.program
        {
            let key = program::register(self.zone, key);
            let other = program::register(self.zone, other);
            let compare = Compare::Value {
                key: key.clone(),
                value: values::number(expected),
            };
            let get = |key: &Bytes| Action::Get { key: key.clone() };
            let put = |key: &Bytes, value| write(key, values::number(value));
            return Some((
                vec![compare],
                vec![put(&key, first), put(&other, second)],
                vec![get(&key), get(&other)],
            ));
        }
        if let Program::Registers(How::OneShot, steps) = &self.program {
            let actions = steps.iter().map(|step| {
                let key = program::register(self.zone, step.key);
                match step.write {
                    None => Action::Get { key },
                    Some(value) => write(&key, values::number(value)),
                }
            });
            return Some((Vec::new(), actions.collect(), Vec::new()));
        }
        let writes = values::writes(&self.program, self.zone, &self.found)?;
        Some((self.compares(), writes, Vec::new()))
    }

    /// The keys of the results of the list that was done.
    fn result_keys(&self) -> Vec<Bytes> {
        let Some((_, then, otherwise)) = self.lists() else {
            return Vec::new();
        };
        let list = if self.succeeded { then } else { otherwise };
        list.iter().map(|action| action.key().clone()).collect()
    }
}

/// A write of a transaction: whatever is there, since what was read is compared.
pub fn write(key: &Bytes, value: Bytes) -> Action {
    Action::Write {
        key: key.clone(),
        content: Content::Value(value),
        intent: WriteIntent::Overwrite,
        expires_at_ms: None,
    }
}

fn read(level: ReadLevel, query: Query) -> Request {
    Request::Read(Read {
        keyspace: KeyspaceId::DEFAULT,
        level,
        query,
        session: None,
    })
}
