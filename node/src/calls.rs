//! Asking the cores and waiting for all the answers: what unary calls, scans, admin.v1 and metrics do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use meridian_core::Error;
use meridian_core::catalog::{Keyspace, Mode};
use meridian_core::error::EffectOf;
use meridian_core::ids::{KeyspaceId, ShardId};
use meridian_core::mirror::{MirrorStamp, MirrorStatus, MirrorWant};
use meridian_core::request::{GroupStatus, ReadLevel, Request, Response, ZoneLag};
use tokio::time::timeout;

use crate::cores::{Cores, Done, Kind, Replies, Submission, Ticket};
use crate::links::Links;
use crate::shared::Shared;

/// How much longer than its deadline an answer is waited for: the core answers at the deadline, on a tick.
const GRACE: Duration = Duration::from_secs(2);

/// One question.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) kind: Kind,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) shard: ShardId,
    pub(crate) request: Request,
}

impl Ask {
    /// The same, to be forwarded from a mirror zone if the client asks for that.
    pub(crate) fn forwardable(self, forward: bool) -> Self {
        let request = if forward {
            Request::AtHome(Box::new(self.request))
        } else {
            self.request
        };
        Self { request, ..self }
    }
}

/// The way from services to cores.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cores: Arc<Cores>,
    pub(crate) links: Arc<Links>,
    /// Varies the core that opens a view.
    pub(crate) turn: AtomicUsize,
}

impl Calls {
    /// A ticket with nothing to word an answer from.
    pub(crate) fn ticket(
        &self,
        ask: &Ask,
        slot: u64,
        replies: &Arc<Replies>,
        patience: Duration,
    ) -> Ticket {
        Ticket {
            replies: Arc::clone(replies),
            slot,
            kind: ask.kind,
            started: Instant::now(),
            deadline_ns: self.shared.clock.now().after_ms(millis(patience)),
            keyspace: ask.keyspace,
            shard: ask.shard,
            key: Bytes::new(),
            session: Bytes::new(),
            level: ReadLevel::Linearizable,
            op_id: None,
            action_keys: None,
        }
    }

    /// Asks everything at once; the answers come in the order of the questions.
    pub(crate) async fn ask(
        &self,
        asks: Vec<Ask>,
        patience: Duration,
    ) -> Vec<Result<Response, Error>> {
        let replies = Replies::new();
        let count = asks.len();
        let submissions = (0..).zip(asks).map(|(slot, ask)| Submission {
            ticket: self.ticket(&ask, slot, &replies, patience),
            request: ask.request,
        });
        self.cores.submit(submissions.collect());
        let done = self.gather(&replies, count, patience).await;
        in_order(done, count)
    }

    /// Asks one thing.
    pub(crate) async fn ask_one(&self, ask: Ask, patience: Duration) -> Result<Response, Error> {
        self.ask(vec![ask], patience)
            .await
            .pop()
            .unwrap_or(Err(LATE))
    }

    /// Asks one core, whatever the shard.
    pub(crate) async fn ask_core(
        &self,
        index: usize,
        ask: Ask,
        patience: Duration,
    ) -> Result<Response, Error> {
        let replies = Replies::new();
        let ticket = self.ticket(&ask, 0, &replies, patience);
        let request = ask.request;
        self.cores
            .submit_to(index, vec![Submission { request, ticket }]);
        let done = self.gather(&replies, 1, patience).await;
        in_order(done, 1).pop().unwrap_or(Err(LATE))
    }

    /// The generation that this node shows of a keyspace; `None` where it has no mirror of it. Whoever asks several shards
    /// asks for this first, and then for that generation of each.
    pub(crate) async fn mirror_shown(
        &self,
        keyspace: &Keyspace,
        patience: Duration,
    ) -> Result<Option<MirrorStamp>, Error> {
        if keyspace.policy.mode != Mode::Snapshot || keyspace.policy.home == Some(self.shared.zone)
        {
            return Ok(None);
        }
        let ask = Ask {
            kind: Kind::Admin,
            keyspace: keyspace.id,
            shard: ShardId(0),
            request: Request::Mirrors {
                keyspace: keyspace.id,
                want: MirrorWant::Shown,
            },
        };
        if let Response::MirrorShown(shown) = self.ask_one(ask, patience).await? {
            Ok(shown)
        } else {
            Err(LATE)
        }
    }

    /// What is known of the mirrors of a keyspace, where its cuts are taken.
    pub(crate) async fn mirror_status(
        &self,
        keyspace: KeyspaceId,
        patience: Duration,
    ) -> Option<MirrorStatus> {
        let ask = Ask {
            kind: Kind::Admin,
            keyspace,
            shard: ShardId(0),
            request: Request::Mirrors {
                keyspace,
                want: MirrorWant::Status,
            },
        };
        if let Ok(Response::Mirror(status)) = self.ask_one(ask, patience).await {
            Some(*status)
        } else {
            None
        }
    }

    /// The cores in turn.
    pub(crate) fn next_core(&self) -> usize {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        turn.checked_rem(self.cores.count()).unwrap_or(0)
    }

    /// Waits for `count` answers, a little past their deadline.
    pub(crate) async fn gather(
        &self,
        replies: &Replies,
        count: usize,
        patience: Duration,
    ) -> Vec<Done> {
        let mut all = Vec::with_capacity(count);
        let gathered = timeout(patience + GRACE, async {
            while all.len() < count {
                all.extend(replies.take().await);
            }
        });
        // What has not come by then is answered as late.
        drop(gathered.await);
        for done in &all {
            self.count(done);
        }
        all
    }

    /// Counts an answer.
    pub(crate) fn count(&self, done: &Done) {
        let outcome = done.result.as_ref().map_or_else(Error::reason, |_| "ok");
        self.shared
            .metrics
            .answered(done.ticket.kind, outcome, done.ticket.started.elapsed());
    }

    /// Every group of this node; `None` when a core does not answer.
    pub(crate) async fn groups(&self, patience: Duration) -> Option<Vec<GroupStatus>> {
        let replies = Replies::new();
        let cores = self.cores.count();
        for index in 0..cores {
            let ask = Ask {
                kind: Kind::Admin,
                keyspace: KeyspaceId::CONTROL,
                shard: ShardId(0),
                request: Request::Groups,
            };
            let slot = u64::try_from(index).unwrap_or(u64::MAX);
            let ticket = self.ticket(&ask, slot, &replies, patience);
            self.cores.submit_to(
                index,
                vec![Submission {
                    request: ask.request,
                    ticket,
                }],
            );
        }
        let answers = in_order(self.gather(&replies, cores, patience).await, cores);
        let mut groups = Vec::new();
        for answer in answers {
            let Ok(Response::Groups(part)) = answer else {
                return None;
            };
            groups.extend(part);
        }
        Some(groups)
    }

    /// The lag of shards; those that do not answer are left out.
    pub(crate) async fn lag_of(
        &self,
        shards: Vec<(KeyspaceId, ShardId)>,
        patience: Duration,
    ) -> Vec<(KeyspaceId, ZoneLag)> {
        let ask = |&(keyspace, shard): &(KeyspaceId, ShardId)| Ask {
            kind: Kind::Admin,
            keyspace,
            shard,
            request: Request::Lag { keyspace, shard },
        };
        let answers = self.ask(shards.iter().map(ask).collect(), patience).await;
        let mut lags = Vec::new();
        for ((keyspace, _), answer) in shards.into_iter().zip(answers) {
            if let Ok(Response::Lag(zones)) = answer {
                lags.extend(zones.into_iter().map(|lag| (keyspace, lag)));
            }
        }
        lags
    }
}

/// No answer came, though the core owes one.
const LATE: Error = Error::DeadlineExceeded {
    effect: EffectOf::Unknown,
};

fn in_order(done: Vec<Done>, count: usize) -> Vec<Result<Response, Error>> {
    let mut by_slot: BTreeMap<u64, Result<Response, Error>> = done
        .into_iter()
        .map(|done| (done.ticket.slot, done.result))
        .collect();
    (0..)
        .take(count)
        .map(|slot| by_slot.remove(&slot).unwrap_or(Err(LATE)))
        .collect()
}

/// Whole milliseconds, at least one.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}
