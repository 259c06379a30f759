//! Keys attached to leases of other shards: their leader asks the leases' home shards, about once a second, which of
//! the leases still stand, and lets vanish what is attached to those that do not.
//!
//! The question is a linearizable read. A token is known only once its acquisition is committed, so a lease that is not
//! there has ended; and what has ended does not come back. Answers may be lost or come twice.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::command::Op;
use crate::core::Core;
use crate::error::Error;
use crate::group::Group;
use crate::ids::{GroupId, ShardId};
use crate::keys::{LeaseRecord, LeasedKey, Place};
use crate::lease::LeaseRef;
use crate::limits::LEASES_ASKED_MAX;
use crate::message::PeerMessage;
use crate::output::Outputs;
use crate::read;
use crate::request::{Answer, Query, Read, ReadLevel, Request, Response};
use crate::route::Routed;
use crate::time::Now;
use crate::waiting::{Origin, What};

/// Time between two rounds of questions.
const ASK_MS: u64 = 1_000;

/// How long an answer is waited for.
const ANSWER_MS: u64 = 900;

/// A question to the home shard of some leases.
#[derive(Clone, Debug)]
pub(crate) struct LeaseCheck {
    /// The group that holds the attached keys.
    pub(crate) asking: GroupId,
    /// The group of the leases.
    pub(crate) home: GroupId,
    /// The leases, in the order of the question.
    pub(crate) leases: Vec<LeaseRef>,
}

impl LeaseCheck {
    fn query(&self) -> Query {
        Query::Leases {
            shard: self.home.shard,
            names: self.leases.iter().map(|lease| lease.name.clone()).collect(),
        }
    }

    /// The leases that an answer says have ended.
    fn gone(self, answer: &[Option<LeaseRecord>]) -> Vec<LeaseRef> {
        let stands = |(lease, held): &(LeaseRef, &Option<LeaseRecord>)| {
            held.as_ref().is_some_and(|held| held.token == lease.token)
        };
        let told = self.leases.into_iter().zip(answer);
        told.filter(|told| !stands(told))
            .map(|(lease, _)| lease)
            .collect()
    }
}

impl Core {
    /// Asks about the next leases with attached keys in a group, when it is time to.
    pub(super) fn ask_about_leases(&mut self, now: Now, id: GroupId, out: &mut Outputs) {
        let Some(group) = self
            .groups
            .get_mut(&id)
            .filter(|group| group.leases.ask_due_ns <= now.mono_ns)
        else {
            return;
        };
        group.leases.ask_due_ns = now.after_ms(ASK_MS);
        let after = group.leases.asked.take();
        let leases = self.with_attached_keys(id, after.as_ref());
        if leases.len() >= LEASES_ASKED_MAX
            && let Some(group) = self.groups.get_mut(&id)
        {
            group.leases.asked = leases.last().cloned();
        }
        for check in self.checks(id, leases) {
            self.ask_home(now, check, out);
        }
    }

    /// Leases that keys of a shard are attached to, in order, from the one behind `after`.
    fn with_attached_keys(&self, id: GroupId, after: Option<&LeaseRef>) -> Vec<LeaseRef> {
        let place = Place::from(id);
        let (mut from, to) = LeasedKey::all(place);
        if let Some(after) = after {
            from = LeasedKey::range(place, after).1;
        }
        let mut leases = Vec::new();
        while leases.len() < LEASES_ASKED_MAX {
            let mut found = None;
            let scanned = self.engine.scan(&from, &to, &mut |stored, _| {
                found = LeasedKey::parts(stored).ok().map(|(lease, _)| lease);
                ControlFlow::Break(())
            });
            let (Ok(()), Some(lease)) = (scanned, found) else {
                break;
            };
            from = LeasedKey::range(place, &lease).1;
            leases.push(lease);
        }
        leases
    }

    /// One question per home shard.
    fn checks(&self, asking: GroupId, leases: Vec<LeaseRef>) -> Vec<LeaseCheck> {
        let mut checks: Vec<LeaseCheck> = Vec::new();
        for lease in leases {
            let Some(home) = self.home_of(asking, &lease.name) else {
                continue;
            };
            match checks.iter_mut().find(|check| check.home == home) {
                Some(check) => check.leases.push(lease),
                None => checks.push(LeaseCheck {
                    asking,
                    home,
                    leases: vec![lease],
                }),
            }
        }
        checks
    }

    fn home_of(&self, asking: GroupId, name: &Bytes) -> Option<GroupId> {
        let keyspace = self.catalog.keyspaces.get(&asking.keyspace)?;
        let shard: ShardId = keyspace.shard_of(name);
        let record = self.catalog.group_of(asking.keyspace, shard, asking.zone)?;
        Some(record.id)
    }

    fn ask_home(&mut self, now: Now, check: LeaseCheck, out: &mut Outputs) {
        let home = check.home;
        let routed = Routed {
            origin: Origin::Core,
            deadline_ns: now.after_ms(ANSWER_MS),
            bounded: false,
            group: home,
        };
        let leads = self.groups.get(&home).is_some_and(Group::leads);
        let Some(node) = leads
            .then_some(self.config.node)
            .or_else(|| self.leader_guess(home))
        else {
            return;
        };
        let query = check.query();
        let what = What::LeaseCheck(Box::new(check));
        let Some(ticket) = self.ticket(&routed, what, out) else {
            return;
        };
        if leads {
            self.queue(home, |group| group.enqueue_read(ticket));
            return;
        }
        let read = Read {
            keyspace: home.keyspace,
            level: ReadLevel::Linearizable,
            query,
            session: None,
        };
        let forward = PeerMessage::Forward {
            id: ticket,
            deadline_ms: ANSWER_MS,
            request: Box::new(Request::Read(read)),
        };
        out.messages.push((node, forward));
    }

    /// The read index of a question to a shard of this core is there.
    pub(crate) fn check_leases(&mut self, check: LeaseCheck) {
        let shards = self.shards_of(check.home.keyspace);
        let answer = read::serve(&*self.engine, check.home.keyspace, shards, &check.query());
        self.leases_checked(check, answer.map(Response::Read));
    }

    /// A home shard has answered.
    pub(crate) fn leases_checked(&mut self, check: LeaseCheck, answer: Result<Response, Error>) {
        let (asking, home) = (check.asking, check.home);
        let gone = match answer {
            Ok(Response::Read(Answer::Leases(told))) => check.gone(&told),
            Ok(_) => return,
            Err(error) => {
                self.learn_leader(home, None, &error);
                return;
            }
        };
        let leads = self
            .groups
            .get(&asking)
            .is_some_and(|group| group.leads() && !group.quarantined());
        if leads && !gone.is_empty() {
            self.queue(asking, |group| {
                for lease in gone {
                    group.enqueue(Op::LeaseGone { lease });
                }
            });
        }
    }
}
