//! The loop of attempts: which node is asked when, and what an error means after several of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meridian_proto::kv::v1 as wire;
use wire::operation::Operation;
use wire::outcome::Outcome;

use crate::client::Inner;
use crate::error::{Effect, Error};
use crate::ids::OpId;
use crate::link::Reply;
use crate::options::millis;
use crate::retry::{ATTEMPTS_MAX, attempt_time, backoff};
use crate::routes::{Reach, RouteNode, Routes};
use crate::transaction::{Place, place_of_compare, place_of_transact};

/// How long a client goes on asking a zone that says it has no quorum, where shards span zones: the node that says so may
/// be cut off for hours, and a majority that goes on has found its leader within a moment.
const QUORUM_PATIENCE: Duration = Duration::from_secs(1);

/// One operation on its way.
pub(crate) struct Execution<'a> {
    inner: &'a Arc<Inner>,
    keyspace: &'a Arc<str>,
    operation: Operation,
    reach: Reach,
    time: Duration,
    deadline: Instant,
    /// Addresses asked since everybody within reach was.
    tried: Vec<String>,
    /// Varies the node that is asked when no leader is known.
    spread: usize,
    attempts: u32,
    /// An attempt may have had an effect.
    unknown: bool,
}

impl<'a> Execution<'a> {
    pub(crate) fn new(
        inner: &'a Arc<Inner>,
        keyspace: &'a Arc<str>,
        operation: Operation,
        reach: Reach,
    ) -> Self {
        Self {
            inner,
            keyspace,
            operation,
            reach,
            time: inner.timeout,
            deadline: Instant::now() + inner.timeout,
            tried: Vec::new(),
            spread: inner.next_turn(),
            attempts: 0,
            unknown: false,
        }
    }

    /// Tries until there is an answer, a final error, or no time left.
    pub(crate) async fn run(mut self) -> Result<Reply, Error> {
        loop {
            let error = match self.attempt().await {
                Ok(reply) => {
                    self.inner.budget.succeeded();
                    return Ok(reply);
                }
                Err(error) => error,
            };
            self.unknown |= error.effect() == Effect::Unknown;
            if self.redirected(&error) {
                continue;
            }
            match self.wait_before_retry(&error) {
                Some(wait) if wait.is_zero() => {}
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(self.finish(error)),
            }
        }
    }

    async fn attempt(&mut self) -> Result<Reply, Error> {
        let routes = self.inner.routes();
        let shard = match place_of(&self.operation) {
            Some(Place::Key(key)) => routes.shard(self.keyspace, key),
            Some(Place::Shard(shard)) => Some(shard),
            None => None,
        };
        let node = self.choose(&routes, shard)?;
        self.attempts += 1;
        let until = Instant::now() + attempt_time(self.time_left());
        let sent = async {
            self.ensure_op_id(node, until).await?;
            node.link
                .call(self.keyspace, self.message(until), until)
                .await
        };
        let result = match sent.await {
            Ok(reply) => without_errors(reply),
            Err(error) => {
                node.link.shun();
                self.inner.refresh_soon();
                Err(error)
            }
        };
        if result.is_err() {
            self.tried.push(node.addr.clone());
        }
        let effectless = is_read(&self.operation);
        match result {
            Ok(reply) => {
                self.learn(&routes, shard, &reply);
                Ok(reply)
            }
            Err(error) if effectless => Err(error.without_effect()),
            Err(error) => Err(error),
        }
    }

    /// Whom to ask next: the zone's nodes in turn; another zone's only when those at home cannot be reached, or have
    /// not helped for half of the time.
    fn choose<'r>(
        &mut self,
        routes: &'r Routes,
        shard: Option<u32>,
    ) -> Result<&'r RouteNode, Error> {
        let nobody =
            || Error::unreachable(format!("no node within reach of zone {:?}", routes.home));
        if self.attempts == 0 {
            let first = routes.first(self.keyspace, shard, &self.reach, self.spread);
            return first.ok_or_else(nobody);
        }
        let mut order = routes.order(self.keyspace, shard, &self.reach, self.spread);
        let at_home = |node: &&RouteNode| node.zone == routes.home;
        let home_reachable = order
            .iter()
            .any(|node| at_home(node) && !node.link.is_shunned());
        if self.reach == Reach::Anywhere && home_reachable && self.time_left() > self.time / 2 {
            order.retain(at_home);
        }
        let fit = |node: &&&RouteNode| !node.link.is_shunned();
        let untried = order
            .iter()
            .filter(fit)
            .find(|node| !self.tried.contains(&node.addr));
        if untried.is_none() {
            self.tried.clear();
        }
        let choice = untried.or(order.iter().find(fit)).or(order.first());
        choice.copied().ok_or_else(nobody)
    }

    fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// A write gets its op id once, with the stamp of the first zone that is asked.
    async fn ensure_op_id(&mut self, node: &RouteNode, until: Instant) -> Result<(), Error> {
        if let Some(op_id) = op_id_of(&mut self.operation)
            && op_id.is_none()
        {
            let stamp_ms = node.link.stamp_ms(until).await?;
            *op_id = Some(OpId::fresh(stamp_ms).to_wire());
        }
        Ok(())
    }

    fn message(&self, until: Instant) -> wire::Operation {
        let left = until.saturating_duration_since(Instant::now());
        wire::Operation {
            id: 0,
            deadline_ms: u32::try_from(millis(left)).unwrap_or(u32::MAX).max(1),
            forward: self.inner.forward,
            operation: Some(self.operation.clone()),
        }
    }

    /// Whoever served a write or a linearizable read leads the shard.
    fn learn(&self, routes: &Routes, shard: Option<u32>, reply: &Reply) {
        let served_by = match &reply.outcome {
            Outcome::Get(get) if get.level.is_none_or(is_linearizable) => &get.served_by,
            Outcome::Write(write) => &write.served_by,
            Outcome::Transact(transact) => &transact.served_by,
            Outcome::Get(_) | Outcome::Scan(_) | Outcome::Validate(_) | Outcome::Error(_) => return,
        };
        let node = served_by.as_ref().unwrap_or(&reply.via);
        routes.learn(self.keyspace, shard, &node.node);
    }

    /// Whether a node that is behind has named another one, and that may be asked.
    fn redirected(&mut self, error: &Error) -> bool {
        let redirects = behind_of(&self.operation) == Some(wire::OnBehind::Redirect);
        let Some(zone) = error.metadata().get("zone").filter(|_| redirects) else {
            return false;
        };
        let elsewhere = Reach::Zone(zone.clone());
        let may = self.reach == Reach::Anywhere && error.reason() == "STALE";
        if may {
            // Once: there it is up to the zone's own nodes.
            self.reach = elsewhere;
        }
        may
    }

    /// How long to wait before another attempt; `None` when there is to be none.
    fn wait_before_retry(&self, error: &Error) -> Option<Duration> {
        if is_final(&self.operation, error) {
            return None;
        }
        if !error.is_retryable() || error.effect() == Effect::Applied {
            return None;
        }
        let waited = self.time.saturating_sub(self.time_left());
        if error.reason() == "NO_QUORUM"
            && waited >= QUORUM_PATIENCE
            && self.inner.routes().spans_zones(self.keyspace)
        {
            return None;
        }
        if self.attempts >= ATTEMPTS_MAX || !self.inner.budget.try_retry() {
            return None;
        }
        let others = self
            .inner
            .routes()
            .order(self.keyspace, None, &self.reach, 0)
            .len();
        let untried = usize::try_from(self.attempts).unwrap_or(usize::MAX) < others;
        let wait = match error.retry_after() {
            Some(wait) => wait,
            None if untried && error.reason() == "UNREACHABLE" => Duration::ZERO,
            None => backoff(self.attempts, rand::random()),
        };
        (wait < self.time_left()).then_some(wait)
    }

    fn finish(mut self, error: Error) -> Error {
        let op_id = op_id_of(&mut self.operation)
            .and_then(|op_id| op_id.as_ref())
            .and_then(OpId::from_wire);
        let error = error.with_op_id(op_id);
        if self.unknown && !is_read(&self.operation) {
            error.after_unknown_attempt()
        } else {
            error
        }
    }
}

/// What a read of a session is to do when a replica is behind; `None` for everything else.
fn behind_of(operation: &Operation) -> Option<wire::OnBehind> {
    let level = match operation {
        Operation::Get(get) => get.level.as_ref(),
        Operation::Scan(scan) => scan.level.as_ref(),
        Operation::Put(_)
        | Operation::Delete(_)
        | Operation::Transact(_)
        | Operation::Validate(_) => None,
    };
    let session = level.filter(|level| level.kind() == wire::read_level::Kind::Session);
    session.map(wire::ReadLevel::on_behind)
}

/// Errors that may pass, and that a caller wants to hear of at once: the node has waited as long as it was worth, or the
/// caller has asked for just this.
fn is_final(operation: &Operation, error: &Error) -> bool {
    match error.reason() {
        "RATE_LIMITED" | "ZONES_SHORT" => true,
        "STALE" => behind_of(operation) != Some(wire::OnBehind::Wait),
        _ => false,
    }
}

fn without_errors(reply: Reply) -> Result<Reply, Error> {
    let via = reply.via;
    match reply.outcome {
        Outcome::Error(error) => Err(Error::from(error)),
        outcome @ (Outcome::Get(_)
        | Outcome::Write(_)
        | Outcome::Scan(_)
        | Outcome::Transact(_)
        | Outcome::Validate(_)) => Ok(Reply { outcome, via }),
    }
}

fn is_linearizable(level: wire::ReadLevel) -> bool {
    level.kind() == wire::read_level::Kind::Linearizable
}

fn is_read(operation: &Operation) -> bool {
    match operation {
        Operation::Get(_) | Operation::Scan(_) | Operation::Validate(_) => true,
        Operation::Put(_) | Operation::Delete(_) | Operation::Transact(_) => false,
    }
}

/// Where the shard is that does most of the work; a view may be held anywhere.
fn place_of(operation: &Operation) -> Option<Place<'_>> {
    match operation {
        Operation::Get(get) => get.view.is_empty().then_some(Place::Key(&get.key)),
        Operation::Put(put) => Some(Place::Key(&put.key)),
        Operation::Delete(delete) => Some(Place::Key(&delete.key)),
        Operation::Transact(transact) => place_of_transact(transact),
        Operation::Validate(validate) => place_of_compare(&validate.compare),
        Operation::Scan(_) => None,
    }
}

/// The place of the op id in a write; `None` for reads.
fn op_id_of(operation: &mut Operation) -> Option<&mut Option<wire::OpId>> {
    match operation {
        Operation::Put(put) => Some(&mut put.op_id),
        Operation::Delete(delete) => Some(&mut delete.op_id),
        Operation::Transact(transact) => Some(&mut transact.op_id),
        Operation::Get(_) | Operation::Scan(_) | Operation::Validate(_) => None,
    }
}

/// Whether an operation may be tried in another zone: reads of a whole answer, and writes without a condition. A
/// lease is its zone's only.
pub(crate) fn may_leave_zone(operation: &Operation) -> bool {
    let unconditional = |intent: wire::Intent| match intent {
        wire::Intent::Blind | wire::Intent::Context | wire::Intent::Overwrite => true,
        wire::Intent::IfAbsent | wire::Intent::IfContext | wire::Intent::IfValue => false,
    };
    match operation {
        Operation::Get(get) => !get.stamped && get.view.is_empty(),
        Operation::Put(put) => put.lease.is_none() && unconditional(put.intent()),
        Operation::Delete(delete) => unconditional(delete.intent()),
        Operation::Scan(scan) => {
            scan.page_token.is_empty() && !scan.stamped && scan.view.is_empty()
        }
        Operation::Transact(_) | Operation::Validate(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn put(intent: wire::Intent) -> Operation {
        Operation::Put(wire::Put {
            intent: intent.into(),
            ..wire::Put::default()
        })
    }

    #[test]
    fn only_reads_and_writes_without_a_condition_leave_their_zone() {
        assert!(may_leave_zone(&Operation::Get(wire::Get::default())));
        assert!(may_leave_zone(&put(wire::Intent::Blind)));
        assert!(!may_leave_zone(&put(wire::Intent::IfAbsent)));
        assert!(!may_leave_zone(&put(wire::Intent::IfContext)));
        assert!(!may_leave_zone(&Operation::Put(wire::Put {
            lease: Some(wire::LeaseRef::default()),
            ..wire::Put::default()
        })));
    }

    #[test]
    fn a_replica_that_is_behind_is_waited_for_only_by_a_session_that_waits() {
        let stale = Error::from(wire::Error {
            reason: "STALE".to_owned(),
            ..wire::Error::default()
        });
        let get = |kind: wire::read_level::Kind, on_behind: wire::OnBehind| {
            Operation::Get(wire::Get {
                level: Some(wire::ReadLevel {
                    kind: kind.into(),
                    on_behind: on_behind.into(),
                    ..wire::ReadLevel::default()
                }),
                ..wire::Get::default()
            })
        };
        use wire::read_level::Kind;
        assert!(!is_final(&get(Kind::Session, wire::OnBehind::Wait), &stale));
        assert!(is_final(&get(Kind::Session, wire::OnBehind::Fail), &stale));
        assert!(is_final(&get(Kind::Bounded, wire::OnBehind::Wait), &stale));
    }

    #[test]
    fn a_scan_goes_on_where_it_began() {
        let mut scan = wire::Scan::default();
        assert!(may_leave_zone(&Operation::Scan(scan.clone())));
        scan.page_token = Bytes::from_static(b"token");
        assert!(!may_leave_zone(&Operation::Scan(scan)));
    }
}
