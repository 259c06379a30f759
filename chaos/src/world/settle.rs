//! The liveness phase: when is the world settled. What it holds then, `holdings` reads.
//!
//! Settled means: no client waits; no alter is under way, what deposed homes had has come back, and every node has the same catalog; every node's cores know their groups, with a leader, everything committed applied, no
//! comparison under way and nothing kept for other zones; every leader says that every other zone has all of its effects;
//! every zone has taken one more write and answered one more linearizable read of every shard; and no version waits to
//! expire. A world that is not
//! settled within the bound breaks a promise.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use meridian_causal::{Content, OpId};
use meridian_core::Input;
use meridian_core::catalog::Mode;
use meridian_core::command::WriteIntent;
use meridian_core::error::Error;
use meridian_core::ids::{GroupId, KeyspaceId, RequestId, ShardId};
use meridian_core::keys::{ExpiryKey, Place};
use meridian_core::request::{Answer, GroupStatus, Query, Read, ReadLevel, Request, Response};
use meridian_storage::Read as _;

use super::names::NAME;
use super::outputs::WORLD_CLIENT;
use super::{Event, World};
use crate::client::request_of;
use crate::history::{Action, Operation, Outcome};
use crate::node::zone_id;
use crate::operator::Errand;
use crate::rng::{MS, SEC};
use crate::transact::judge::judge;
use crate::violation::{Checked, Violation};

/// Time between two looks.
pub(super) const POLL_NS: u64 = 400 * MS;

/// How long an alter may take to come to its end by itself, where a zone was lost.
const ALTER_WAITS_NS: u64 = 20 * SEC;

/// What was asked, to read the answers by.
#[derive(Clone, Debug)]
enum Question {
    Groups { node: usize, core: usize },
    Lag { zone: usize, shard: u16 },
    Read { zone: usize, shard: u16 },
    Write { zone: usize, operation: usize },
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Groups { node, core } => write!(f, "the groups of n{} core {core}", node + 1),
            Self::Lag { zone, shard } => write!(f, "the lag of zone {} shard {shard}", zone + 1),
            Self::Read { zone, shard } => write!(f, "a read of zone {} shard {shard}", zone + 1),
            Self::Write { zone, .. } => write!(f, "a write in zone {}", zone + 1),
        }
    }
}

/// Where settling stands.
#[derive(Debug, Default)]
pub(super) struct Settle {
    pub(super) begun_at: u64,
    pub(super) done: bool,
    /// Answers to the world's own questions.
    pub(super) answers: BTreeMap<u64, Result<Response, Error>>,
    questions: BTreeMap<u64, Question>,
    asked: u64,
    /// Per zone, the operation of its last write; filled at the first look.
    probes: BTreeMap<usize, usize>,
    /// Last writes that were given up: they had waited for so long that nobody remembered them.
    forgotten: u64,
}

impl World {
    pub(super) fn poll(&mut self) -> Checked {
        let now = self.queue.now();
        let unsettled = self.look();
        let Some(reason) = unsettled else {
            self.stats.settled_ns = now - self.settle.begun_at;
            self.settle.done = true;
            let state = self.final_state()?;
            self.observer.judge(&self.history, &state)?;
            return judge(&self.records, self.observer.lineage().promoted());
        };
        if self.trace.on() {
            self.trace.line(now, format_args!("unsettled: {reason}"));
        }
        if now - self.settle.begun_at > self.scenario.settle_ns {
            let message = format!(
                "not settled {} s after everything was healed: {reason}",
                self.scenario.settle_ns / SEC
            );
            return Err(Violation::new("liveness", now, message).with(self.last_groups()));
        }
        self.queue.after(POLL_NS, Event::Poll);
        self.ask()
    }

    /// Why the world is not settled, by the answers to the last questions.
    fn look(&mut self) -> Option<String> {
        if let Some(client) = self.clients.iter().find(|client| client.running.is_some()) {
            return Some(format!("client {} waits", client.index));
        }
        if let Some(client) = self.transactors.iter().find(|one| one.running.is_some()) {
            return Some(format!("transactional client {} waits", client.index));
        }
        if let Some(reason) = self.still_altering() {
            return Some(reason);
        }
        if self.settle.questions.is_empty() {
            return Some("nothing was asked yet".to_string());
        }
        let mut groups: BTreeMap<GroupId, (usize, GroupStatus)> = BTreeMap::new();
        let (questions, answers) = (&self.settle.questions, &self.settle.answers);
        let (mut written, mut forgotten) = (Vec::new(), Vec::new());
        let mut reason = None;
        for (id, question) in questions {
            let found = match (question, answers.get(id)) {
                (_, None) => Some(format!("no answer to {question}")),
                (question, Some(Err(error))) => {
                    if let (Question::Write { zone, .. }, Error::OutcomeUnknown { .. }) =
                        (question, error)
                    {
                        forgotten.push(*zone);
                    }
                    Some(format!("{question} is answered: {error}"))
                }
                (Question::Groups { node, core }, Some(Ok(Response::Groups(found)))) => {
                    self.check_groups((*node, *core), found, &mut groups)
                }
                (Question::Lag { zone, shard }, Some(Ok(Response::Lag(lags)))) => {
                    lags.iter().find(|lag| lag.entries > 0).map(|lag| {
                        format!(
                            "zone {} shard {shard} has not shipped to: {lag:?}",
                            zone + 1
                        )
                    })
                }
                (Question::Write { operation, .. }, Some(Ok(Response::Written(receipt)))) => {
                    written.push((*operation, receipt.clone()));
                    Some("a last write was just taken".to_string())
                }
                (Question::Read { zone, shard }, Some(Ok(Response::Read(answer)))) => {
                    self.unlike_home(*zone, *shard, answer)
                }
                (_, Some(Ok(other))) => Some(format!("{question} is answered {other:?}")),
            };
            reason = reason.or(found);
        }
        for zone in forgotten {
            self.settle.probes.remove(&zone);
            self.settle.forgotten += 1;
        }
        let now = self.queue.now();
        for (number, receipt) in written {
            if let Some(operation) = self.history.operations.get_mut(number) {
                operation.return_ns = Some(now);
                operation.outcome = Outcome::Written(receipt);
            }
        }
        reason.or_else(|| self.still_expiring())
    }

    /// An alter that is under way, or a node that does not know yet what came of one. What has begun comes to its end by
    /// itself once nothing is in its way.
    fn still_altering(&mut self) -> Option<String> {
        if let Some(alter) = self.observer.lineage().under_way().cloned() {
            self.give_up_if_lost();
            return Some(format!("an alter is under way: {alter:?}"));
        }
        if let Some((deposed, alter)) = self.observer.lineage().deposed() {
            let told = "is deposed and has not gone";
            return Some(format!("keyspace {} {told}: {alter:?}", deposed.0));
        }
        let serving = self.observer.lineage().serving();
        let knows = |node: &usize| {
            let catalog = self.catalog_of(*node);
            let found = catalog.as_ref().and_then(|one| one.keyspace_named(NAME));
            found.is_some_and(|keyspace| keyspace.id == serving && keyspace.alter.is_none())
        };
        let node = (0..self.nodes.len()).find(|node| !knows(node))?;
        let told = "does not know which keyspace serves";
        Some(format!("n{} {told}: it is {}", node + 1, serving.0))
    }

    /// A zone of several nodes whose disks were all lost has lost the groups of the successor that stood in it; and a node that lost
    /// its disk, its part of the mirror that is promoted. Such an alter waits for ever, and is to be cancelled.
    fn give_up_if_lost(&mut self) {
        let per_zone = usize::from(self.scenario.topology.nodes_per_zone);
        let under_way = self.observer.lineage().under_way();
        let promotes = under_way.is_some_and(|alter| alter.promotion.is_some());
        let lost_for_good = if promotes { 1 } else { per_zone };
        let lost = per_zone > 1 && self.wiped.len() >= lost_for_good;
        let waited_ns = self.queue.now() - self.settle.begun_at;
        if lost && waited_ns > ALTER_WAITS_NS && self.operator.is_idle() {
            self.operate(Errand::Cancel, 0);
        }
    }

    /// The zones that hold the keyspace, from 0.
    pub(super) fn zones(&self) -> Vec<usize> {
        let policy = self.observer.lineage().serving_policy();
        let all = 0..usize::from(self.scenario.topology.zones);
        let holds =
            |zone: &usize| policy.zones.is_empty() || policy.zones.contains(&zone_id(*zone));
        all.filter(holds).collect()
    }

    /// Where a snapshot keyspace takes writes.
    fn home(&self) -> Option<usize> {
        let home = self.observer.lineage().serving_policy().home?;
        self.zones().into_iter().find(|zone| zone_id(*zone) == home)
    }

    /// A mirror that does not show what the home zone holds: at rest it soon does.
    fn unlike_home(&self, zone: usize, shard: u16, answer: &Answer) -> Option<String> {
        if !self.mirrors(zone) {
            return None;
        }
        let home = self.home();
        let asked = self.settle.questions.iter().find(|(_, question)| {
            matches!(question, Question::Read { zone, shard: of } if *of == shard && Some(*zone) == home)
        });
        let home = asked.and_then(|(id, _)| self.settle.answers.get(id));
        match (answer, home) {
            (Answer::Mirrored(shown, _), Some(Ok(Response::Read(home)))) if **shown == *home => {
                None
            }
            (answer, home) => Some(format!(
                "zone {} shard {shard} shows {answer:?}, home {home:?}",
                zone + 1
            )),
        }
    }

    /// A node that holds versions whose time is still to come, or whose expiry is not logged.
    fn still_expiring(&self) -> Option<String> {
        let keyspace = self.observer.lineage().serving();
        let shards = 0..self.scenario.shards;
        let expires = |machine: &crate::node::SimNode| {
            shards.clone().any(|shard| {
                let place = Place {
                    keyspace,
                    shard: ShardId(shard),
                };
                let (from, to) = ExpiryKey::due(place, u64::MAX - 1);
                let mut any = false;
                let scanned = machine.engine.scan(&from, &to, &mut |_, _| {
                    any = true;
                    ControlFlow::Break(())
                });
                any || scanned.is_err()
            })
        };
        let node = self.nodes.iter().position(expires)?;
        Some(format!("n{} holds versions that expire", node + 1))
    }

    fn check_groups(
        &self,
        (node, core): (usize, usize),
        found: &[GroupStatus],
        groups: &mut BTreeMap<GroupId, (usize, GroupStatus)>,
    ) -> Option<String> {
        let cores = usize::try_from(self.scenario.cores).unwrap_or(1);
        let zone = self.scenario.topology.zone_of(node);
        let has_groups = self.zones().contains(&zone) && !self.mirrors(zone);
        let holds = |shard: &u16| has_groups && self.holder(node, ShardId(*shard)) == node;
        let expected = (0..self.scenario.shards)
            .filter(|shard| usize::from(*shard) % cores == core && holds(shard))
            .count();
        let held = found
            .iter()
            .filter(|status| status.group.keyspace != KeyspaceId::CONTROL)
            .count();
        if held != expected {
            return Some(format!(
                "n{} core {core} holds {held} of {expected} groups",
                node + 1
            ));
        }
        for status in found {
            let whole =
                status.leader.is_some() && status.commit == status.applied && !status.comparing;
            let data = status.group.keyspace != KeyspaceId::CONTROL;
            if !whole || (data && status.outbox_bytes > 0) {
                return Some(format!("n{}: {status:?}", node + 1));
            }
            let (first, seen) = groups
                .entry(status.group)
                .or_insert_with(|| (node, status.clone()));
            if seen.applied != status.applied {
                return Some(format!(
                    "n{}: {status:?}, but n{}: {seen:?}",
                    node + 1,
                    *first + 1
                ));
            }
        }
        None
    }

    /// The operation whose write the world asks for under a number.
    pub(super) fn probed(&self, id: u64) -> Option<usize> {
        match self.settle.questions.get(&id)? {
            Question::Write { operation, .. } => Some(*operation),
            Question::Groups { .. } | Question::Lag { .. } | Question::Read { .. } => None,
        }
    }

    /// Asks everybody everything.
    fn ask(&mut self) -> Checked {
        self.settle.questions.clear();
        self.settle.answers.clear();
        if self.clients.iter().any(|client| client.running.is_some()) {
            return Ok(());
        }
        for node in 0..self.nodes.len() {
            for core in 0..self.nodes.get(node).map_or(0, crate::node::SimNode::cores) {
                self.put(Question::Groups { node, core }, node, core, Request::Groups)?;
            }
        }
        for zone in self.zones() {
            for shard in 0..self.scenario.shards {
                self.ask_shard(zone, shard)?;
            }
            self.ask_write(zone)?;
        }
        Ok(())
    }

    fn ask_shard(&mut self, zone: usize, shard: u16) -> Checked {
        let node = self.scenario.topology.nodes_of(zone).start;
        let core = self.core_of_shard(shard);
        let keyspace = KeyspaceId::DEFAULT;
        let lag = Request::Lag {
            keyspace,
            shard: ShardId(shard),
        };
        if !self.mirrors(zone) {
            self.put(Question::Lag { zone, shard }, node, core, lag)?;
        }
        let query = Query::Digest {
            shard: ShardId(shard),
        };
        let read = Request::Read(Read {
            keyspace,
            level: if self.mirrors(zone) {
                ReadLevel::Eventual
            } else {
                ReadLevel::Linearizable
            },
            query,
            session: None,
        });
        self.put(Question::Read { zone, shard }, node, core, read)
    }

    /// Each zone's last write, until it is taken. It stands in the history like any other.
    fn ask_write(&mut self, zone: usize) -> Checked {
        let next = self.history.operations.len();
        let number = *self.settle.probes.entry(zone).or_insert(next);
        if number == next {
            let operation = self.probe(zone);
            self.history.operations.push(operation);
        }
        let Some(operation) = self.history.operations.get(number) else {
            return Ok(());
        };
        if operation.receipt().is_some() {
            return Ok(());
        }
        let request = request_of(&operation.action);
        let shard = operation
            .key()
            .map_or(ShardId(0), |key| self.keys.shard_of(key));
        let core = self.core_of_shard(shard.0);
        let node = self.scenario.topology.nodes_of(zone).start;
        self.put(
            Question::Write {
                zone,
                operation: number,
            },
            node,
            core,
            request,
        )
    }

    fn probe(&self, zone: usize) -> Operation {
        let now = self.queue.now();
        let node = self.scenario.topology.nodes_of(zone).start;
        let stamp_ms = self
            .nodes
            .get(node)
            .map_or(0, |machine| machine.clock.now(now).wall_ms);
        let number = u128::from(self.settle.forgotten) << 16 | u128::try_from(zone).unwrap_or(0);
        let id = u128::from(WORLD_CLIENT) << 64 | number;
        Operation {
            client: usize::try_from(WORLD_CLIENT).unwrap_or(usize::MAX),
            zone,
            call_ns: now,
            attempt_ns: now,
            return_ns: None,
            attempts: 1,
            keyspace: KeyspaceId::DEFAULT,
            action: Action::Write {
                key: Bytes::from(format!("p/{zone}")),
                content: Content::Value(Bytes::from(format!("last-{number}"))),
                intent: WriteIntent::Blind,
                op_id: OpId { stamp_ms, id },
                ttl_ms: None,
            },
            outcome: Outcome::Info,
        }
    }

    fn core_of_shard(&self, shard: u16) -> usize {
        let cores = usize::try_from(self.scenario.cores).unwrap_or(1);
        usize::from(shard).checked_rem(cores).unwrap_or(0)
    }

    fn put(&mut self, question: Question, node: usize, core: usize, request: Request) -> Checked {
        self.settle.asked += 1;
        let id = (WORLD_CLIENT << 32) | self.settle.asked;
        self.settle.questions.insert(id, question);
        let Some(request) = self.resolved(node, id, request) else {
            return Ok(());
        };
        let Some(machine) = self.nodes.get(node) else {
            return Ok(());
        };
        let deadline_ns = machine.clock.now(self.queue.now()).mono_ns + POLL_NS;
        self.input(
            node,
            core,
            Input::Request {
                id: RequestId(id),
                deadline_ns,
                request,
            },
        )
    }

    fn last_groups(&self) -> Vec<String> {
        let answers = self.settle.questions.iter().filter_map(|(id, question)| {
            match (question, self.settle.answers.get(id)) {
                (Question::Groups { node, .. }, Some(Ok(Response::Groups(found)))) => {
                    Some((*node, found))
                }
                (
                    Question::Groups { .. }
                    | Question::Lag { .. }
                    | Question::Read { .. }
                    | Question::Write { .. },
                    _,
                ) => None,
            }
        });
        answers
            .flat_map(|(node, found)| {
                found
                    .iter()
                    .map(move |status| format!("n{}: {status:?}", node + 1))
            })
            .collect()
    }

    /// The node that holds a shard on behalf of `node`: itself, but where a zone has one replica of each shard the zone's
    /// nodes take turns over the shards.
    pub(super) fn holder(&self, node: usize, shard: ShardId) -> usize {
        if self.observer.lineage().serving_policy().mode != Mode::Sync {
            return node;
        }
        let topology = self.scenario.topology;
        let nodes = topology.nodes_of(topology.zone_of(node));
        let turn = usize::from(shard.0).checked_rem(nodes.len()).unwrap_or(0);
        nodes.start + turn
    }
}
