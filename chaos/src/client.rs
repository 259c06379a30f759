//! A client: what it does next, and what it makes of an answer.
//!
//! Closed loop: one operation at a time, a pause, the next. A retry carries the same op id and goes to another node of
//! the zone; an unconditional write may go to another zone too (protocol rule 17). It remembers the contexts it was
//! given and writes with them, fresh or stale, as real clients do.

use std::collections::BTreeMap;

use bytes::Bytes;
use meridian_causal::{CausalContext, Content, OpId, SessionVector};
use meridian_core::Error;
use meridian_core::catalog::shard_of;
use meridian_core::command::WriteIntent;
use meridian_core::error::EffectOf;
use meridian_core::ids::{KeyspaceId, ShardId};
use meridian_core::request::{
    Answer, Filter, OnBehind, Query, Read, ReadLevel, Request, Response, Session, Write,
};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::history::{Action, Outcome};
use crate::rng::Draw;
use crate::scenario::{Scenario, WorkloadProfile};

/// How keys begin whose versions may expire.
pub const EXPIRING: &[u8] = b"ttl/";

/// The keys of a run.
#[derive(Clone, Debug)]
pub struct Keys {
    hot: Vec<Bytes>,
    wide: Vec<Bytes>,
    expiring: Vec<Bytes>,
    /// Per zone; where the store is one, those of the first are everybody's.
    registers: Vec<Vec<Bytes>>,
    shards: u16,
}

impl Keys {
    /// The keys of a scenario.
    pub fn new(scenario: &Scenario) -> Self {
        let named = |prefix: &str, count: usize| {
            (0..count)
                .map(|n| Bytes::from(format!("{prefix}/{n:03}")))
                .collect()
        };
        let profile = &scenario.workload;
        let zones = if scenario.is_one_store() {
            0..1
        } else {
            0..scenario.topology.zones
        };
        Self {
            hot: named("h", profile.hot_keys),
            wide: named("w", profile.wide_keys),
            expiring: named("ttl", profile.ttl_keys),
            registers: zones
                .map(|zone| named(&format!("r/{zone}"), profile.register_keys))
                .collect(),
            shards: scenario.shards,
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Bytes> {
        self.hot
            .iter()
            .chain(&self.wide)
            .chain(&self.expiring)
            .chain(self.registers.iter().flatten())
    }

    /// The shard of a key.
    pub fn shard_of(&self, key: &[u8]) -> ShardId {
        shard_of(key, self.shards)
    }
}

/// The operation a client is at.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its place in the history.
    pub operation: usize,
    /// Number of the attempt under way, over all operations of the client; 0 while it pauses between two attempts.
    pub attempt: u32,
    /// Attempts made.
    pub attempts: u32,
    /// No attempt is begun later.
    pub give_up_at: u64,
    /// An earlier attempt may have taken effect.
    pub may_have_effect: bool,
    /// What is asked.
    pub action: Action,
}

/// What an answer means to the client.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The operation is over.
    Done(Outcome),
    /// It is to be tried again.
    Retry,
}

/// A client of one zone.
#[derive(Debug)]
pub struct Client {
    /// Its number over all zones.
    pub index: usize,
    /// Its zone, from 0.
    pub zone: usize,
    /// Its chance.
    pub rng: SmallRng,
    /// What it is at.
    pub running: Option<Running>,
    /// Attempts begun so far.
    pub attempts: u32,
    profile: WorkloadProfile,
    written: u64,
    /// What its session has seen, by shard.
    session: SessionVector,
    /// The first operation of its session, by its place in the history.
    session_since: usize,
    read_contexts: BTreeMap<Bytes, CausalContext>,
    put_contexts: BTreeMap<Bytes, CausalContext>,
}

impl Client {
    /// A client that has done nothing yet.
    pub fn new(index: usize, zone: usize, profile: WorkloadProfile, rng: SmallRng) -> Self {
        Self {
            index,
            zone,
            rng,
            running: None,
            attempts: 0,
            profile,
            written: 0,
            session: SessionVector::new(),
            session_since: 0,
            read_contexts: BTreeMap::new(),
            put_contexts: BTreeMap::new(),
        }
    }

    /// The pause before its next operation.
    pub fn think_ns(&mut self) -> u64 {
        self.rng.exponential(self.profile.think_ns)
    }

    /// What it does next; `wall_ms` is its zone's time, with which op ids are stamped.
    pub fn next_action(&mut self, keys: &Keys, wall_ms: u64) -> Action {
        if self.rng.chance(0.08) {
            return self.visit(keys);
        }
        let drawn = self.rng.between(0, 100);
        if drawn >= 96 {
            return self.register_action(keys, wall_ms);
        }
        let key = if self.profile.ttl_keys > 0 && self.rng.chance(0.2) {
            self.rng.pick(&keys.expiring)
        } else if self.rng.chance(0.7) {
            self.rng.pick(&keys.hot)
        } else {
            self.rng.pick(&keys.wide)
        };
        let key = key.cloned().unwrap_or_default();
        let read = self.read_contexts.get(&key).cloned();
        let put = self.put_contexts.get(&key).cloned();
        let value = self.next_value();
        match drawn {
            0..22 => self.write(key, value, WriteIntent::Blind, wall_ms),
            22..36 => self.write_with(key, value, read.map(WriteIntent::Context), wall_ms),
            36..41 => self.write_with(key, value, put.map(WriteIntent::Context), wall_ms),
            41..44 => self.write(key, value, WriteIntent::Overwrite, wall_ms),
            44..47 => self.write(key, value, WriteIntent::IfAbsent, wall_ms),
            47..51 => self.write_with(key, value, read.map(WriteIntent::IfContext), wall_ms),
            51..56 => self.write(key, Content::Tombstone, WriteIntent::Blind, wall_ms),
            56..60 => self.write_with(
                key,
                Content::Tombstone,
                read.map(WriteIntent::Context),
                wall_ms,
            ),
            60..86 => Action::Get {
                key,
                level: ReadLevel::Linearizable,
            },
            86..93 => Action::Get {
                key,
                level: ReadLevel::Eventual,
            },
            _ => Action::Scan {
                shard: keys.shard_of(&key).0,
                from: key,
                level: ReadLevel::Linearizable,
            },
        }
    }

    /// It moves to some zone, with its session, and reads there.
    fn visit(&mut self, keys: &Keys) -> Action {
        let key = self.rng.pick(&keys.hot).cloned().unwrap_or_default();
        let level = match self.rng.between(0, 10) {
            0..=5 => ReadLevel::Session,
            6..=7 => ReadLevel::Bounded {
                max_age_ms: self.rng.between(50, 2_000),
            },
            _ => ReadLevel::Zones { count: 2 },
        };
        Action::Visit {
            after: self.session.of(keys.shard_of(&key).0),
            key,
            zone: self.rng.index(keys.registers.len()),
            level,
            since: self.session_since,
        }
    }

    /// What an operation has shown its session, or has made of it. A session that cannot go on is given up for another.
    pub fn session_goes_on(&mut self, keys: &Keys, running: &Running, outcome: &Outcome) {
        let key = match &running.action {
            Action::Write { key, .. } | Action::Get { key, .. } | Action::Visit { key, .. } => key,
            Action::Scan { .. } => return,
        };
        let shard = keys.shard_of(key).0;
        match outcome {
            Outcome::Written(receipt) => {
                self.session.join_context(shard, &receipt.context);
                self.session.join_dot(shard, receipt.dot);
            }
            Outcome::Read(Answer::Key(set)) => self.session.join_context(shard, set.context()),
            Outcome::Read(Answer::Shown(shown)) => {
                if let Answer::Key(set) = &shown.answer
                    && !set.is_empty()
                {
                    self.session.join_context(shard, set.context());
                } else {
                    self.session.join(shard, &shown.seen);
                }
            }
            Outcome::Read(_) => {}
            Outcome::Info | Outcome::Fail(_) => {
                if matches!(running.action, Action::Visit { .. }) && self.rng.chance(0.3) {
                    self.session = SessionVector::new();
                    self.session_since = running.operation + 1;
                }
            }
        }
    }

    fn register_action(&mut self, keys: &Keys, wall_ms: u64) -> Action {
        let registers = keys
            .registers
            .get(self.zone)
            .or(keys.registers.first())
            .map(Vec::as_slice)
            .unwrap_or_default();
        let key = self.rng.pick(registers).cloned().unwrap_or_default();
        if self.rng.chance(0.5) {
            let value = self.next_value();
            self.write(key, value, WriteIntent::Overwrite, wall_ms)
        } else {
            Action::Get {
                key,
                level: ReadLevel::Linearizable,
            }
        }
    }

    /// Values are unique, so that a value read names its write.
    fn next_value(&mut self) -> Content {
        self.written += 1;
        let mut value = format!("c{}-{}", self.index, self.written).into_bytes();
        value.resize(self.profile.value_bytes.max(value.len()), b'.');
        Content::Value(Bytes::from(value))
    }

    fn write(&mut self, key: Bytes, content: Content, intent: WriteIntent, wall_ms: u64) -> Action {
        let ttl_ms = self.ttl_ms(&key, &content);
        Action::Write {
            key,
            content,
            intent,
            op_id: OpId {
                stamp_ms: wall_ms,
                id: self.rng.random(),
            },
            ttl_ms,
        }
    }

    /// Some writes of keys that are to expire do.
    fn ttl_ms(&mut self, key: &[u8], content: &Content) -> Option<u64> {
        let may = key.starts_with(EXPIRING) && *content != Content::Tombstone;
        (may && self.rng.chance(0.7)).then(|| self.rng.between(2_000, 10_000))
    }

    /// A write with a context; a read of the key when there is no context yet.
    fn write_with(
        &mut self,
        key: Bytes,
        content: Content,
        intent: Option<WriteIntent>,
        wall_ms: u64,
    ) -> Action {
        match intent {
            Some(intent) => self.write(key, content, intent, wall_ms),
            None => Action::Get {
                key,
                level: ReadLevel::Linearizable,
            },
        }
    }

    /// What it makes of an answer to the attempt under way.
    pub fn judge(&mut self, now: u64, result: Result<Response, Error>) -> Verdict {
        let Some(running) = &mut self.running else {
            return Verdict::Retry;
        };
        let is_write = matches!(running.action, Action::Write { .. });
        match result {
            Ok(Response::Written(receipt)) => {
                if let Action::Write { key, .. } = &running.action {
                    self.put_contexts
                        .insert(key.clone(), receipt.context.clone());
                }
                Verdict::Done(Outcome::Written(receipt))
            }
            Ok(Response::Read(answer)) => {
                let answer = answer.unwrapped();
                self.remember(&answer);
                Verdict::Done(Outcome::Read(answer))
            }
            Ok(
                Response::KeyspaceCreated(_)
                | Response::KeyspaceDeleted(_)
                | Response::KeyspaceAltered { .. }
                | Response::Lag(_)
                | Response::Groups(_)
                | Response::Transacted(_)
                | Response::ViewOpened(_)
                | Response::ViewClosed
                | Response::Inner(_)
                | Response::LeaseHeld(_)
                | Response::LeaseEnded
                | Response::Mirror(_)
                | Response::MirrorShown(_),
            ) => Verdict::Done(Outcome::Info),
            Err(error) => {
                running.may_have_effect |= is_write && error.effect() != EffectOf::None;
                if may_be_tried_again(&error) && now < running.give_up_at {
                    return Verdict::Retry;
                }
                let unknown = running.may_have_effect;
                Verdict::Done(if unknown {
                    Outcome::Info
                } else {
                    Outcome::Fail(error)
                })
            }
        }
    }

    /// What it makes of silence.
    pub fn judge_silence(&mut self, now: u64) -> Verdict {
        let Some(running) = &mut self.running else {
            return Verdict::Retry;
        };
        running.may_have_effect |= matches!(running.action, Action::Write { .. });
        if now < running.give_up_at {
            Verdict::Retry
        } else {
            Verdict::Done(Outcome::Info)
        }
    }

    fn remember(&mut self, answer: &Answer) {
        let Some(Running {
            action: Action::Get { key, .. },
            ..
        }) = &self.running
        else {
            return;
        };
        if let Answer::Key(set) = answer {
            self.read_contexts.insert(key.clone(), set.read_context());
        }
    }

    /// How long it waits before it tries again.
    pub fn backoff_ns(&mut self) -> u64 {
        self.rng.between(20, 150) * crate::rng::MS
    }
}

/// Whether a client tries again. A keyspace that a node does not know may be the one it has become, or was.
pub fn may_be_tried_again(error: &Error) -> bool {
    error.is_retryable() || *error == Error::KeyspaceNotFound
}

/// The request that an action sends. It names the keyspace; whose id that is, the node asked finds out.
pub fn request_of(action: &Action) -> Request {
    let keyspace = KeyspaceId::DEFAULT;
    match action {
        Action::Write {
            key,
            content,
            intent,
            op_id,
            ttl_ms,
        } => Request::Write(Write {
            keyspace,
            key: key.clone(),
            content: content.clone(),
            intent: intent.clone(),
            op_id: *op_id,
            expires_at_ms: ttl_ms.map(|ttl_ms| op_id.stamp_ms.saturating_add(ttl_ms)),
        }),
        Action::Get { key, level } => Request::Read(Read {
            keyspace,
            level: *level,
            query: Query::Get { key: key.clone() },
            session: None,
        }),
        Action::Visit {
            key, level, after, ..
        } => Request::Read(Read {
            keyspace,
            level: *level,
            query: Query::Get { key: key.clone() },
            session: Some(Box::new(Session {
                after: after.clone(),
                behind: OnBehind::Wait,
            })),
        }),
        Action::Scan { shard, from, level } => {
            let query = Query::Scan {
                shard: ShardId(*shard),
                from: from.clone(),
                to: None,
                limit: 5,
                filter: Filter::Live,
                keys_only: false,
            };
            Request::Read(Read {
                keyspace,
                level: *level,
                query,
                session: None,
            })
        }
    }
}
