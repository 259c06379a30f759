//! The opener's side: parts are asked for, then confirmed; what fails is begun anew.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;

use crate::core::Core;
use crate::error::Error;
use crate::ids::{KeyspaceId, NodeId, ShardId};
use crate::inner::{InnerRequest, InnerResponse};
use crate::limits::READ_VIEWS_MAX;
use crate::output::{Outputs, Stage};
use crate::request::Response;
use crate::time::Now;
use crate::transaction::{OpenView, TransactionId};
use crate::waiting::{Origin, Own};

/// How often the opening of a view is begun anew before its client is told.
const OPEN_ATTEMPTS_MAX: u32 = 4;

/// By how many bits the number of a view is shorter at each attempt: whoever was sent away is more likely to wait.
const ATTEMPT_BITS: u32 = 4;

/// How long the parts of a view may take to answer, in milliseconds.
const OPEN_STEP_MS: u64 = 500;

/// A view that is being opened here.
#[derive(Debug)]
pub(crate) struct Opening {
    keyspace: KeyspaceId,
    origin: Origin,
    deadline_ns: u64,
    attempts: u32,
    /// Per shard, who holds it and since which log index.
    pins: BTreeMap<ShardId, (NodeId, u64)>,
    confirmed: BTreeSet<ShardId>,
    shards: u16,
}

impl Opening {
    pub(crate) const fn origin(&self) -> Origin {
        self.origin
    }
}

impl Core {
    /// Opens a view.
    pub(crate) fn view_open(
        &mut self,
        now: Now,
        (origin, deadline_ns): (Origin, u64),
        keyspace: KeyspaceId,
        out: &mut Outputs,
    ) {
        let Some(shards) = self
            .catalog
            .keyspaces
            .get(&keyspace)
            .map(|found| found.shards)
        else {
            Self::answer(origin, Err(Error::KeyspaceNotFound), out);
            return;
        };
        if self.openings.len() >= READ_VIEWS_MAX {
            let what = "the table of views".to_owned();
            Self::answer(origin, Err(Error::Overloaded { what }), out);
            return;
        }
        let opening = Opening {
            keyspace,
            origin,
            deadline_ns,
            attempts: 0,
            pins: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            shards,
        };
        self.pin_all(now, opening, out);
    }

    fn pin_all(&mut self, now: Now, mut opening: Opening, out: &mut Outputs) {
        let view = self.rng.random::<u64>() >> (ATTEMPT_BITS * opening.attempts);
        opening.attempts += 1;
        opening.pins.clear();
        opening.confirmed.clear();
        let (keyspace, shards) = (opening.keyspace, opening.shards);
        let deadline_ns = opening.deadline_ns.min(now.after_ms(OPEN_STEP_MS));
        self.openings.insert(view, opening);
        for shard in (0..shards).map(ShardId) {
            let Some(group) = self.own_group(keyspace, shard) else {
                self.reopen(now, view, Error::KeyspaceNotFound, out);
                return;
            };
            let Some(node) = self.leader_guess(group) else {
                self.reopen(now, view, Error::NoQuorum, out);
                return;
            };
            let request = InnerRequest::ViewPin {
                keyspace,
                shard,
                id: view,
            };
            let own = Own::Pin { view, shard, node };
            self.ask_node(node, request, (own, deadline_ns), out);
        }
    }

    /// A shard's part is taken, or not.
    pub(crate) fn pinned(
        &mut self,
        view: u64,
        (shard, node): (ShardId, NodeId),
        result: Result<Response, Error>,
        out: &mut Outputs,
    ) {
        let now = self.now;
        let Some(opening) = self.openings.get_mut(&view) else {
            return;
        };
        match result {
            Ok(Response::Inner(inner)) => {
                let InnerResponse::ViewPinned { index } = *inner else {
                    return;
                };
                opening.pins.insert(shard, (node, index));
                if opening.pins.len() == usize::from(opening.shards) {
                    self.confirm_all(now, view, out);
                }
            }
            Ok(_) => self.reopen(now, view, Error::NoQuorum, out),
            Err(error) => {
                let keyspace = opening.keyspace;
                if let Some(group) = self.own_group(keyspace, shard) {
                    self.learn_leader(group, Some(node), &error);
                }
                self.reopen(now, view, error, out);
            }
        }
    }

    fn confirm_all(&mut self, now: Now, view: u64, out: &mut Outputs) {
        self.stage(TransactionId(0), Stage::AllPinned, out);
        let Some(opening) = self.openings.get(&view) else {
            return;
        };
        let keyspace = opening.keyspace;
        let pins: Vec<(NodeId, u64)> = opening.pins.values().copied().collect();
        let deadline_ns = opening.deadline_ns.min(now.after_ms(OPEN_STEP_MS));
        let shards: Vec<(ShardId, NodeId)> = opening
            .pins
            .iter()
            .map(|(shard, (node, _))| (*shard, *node))
            .collect();
        for (shard, node) in shards {
            let request = InnerRequest::ViewConfirm {
                keyspace,
                shard,
                id: view,
                pins: pins.clone(),
            };
            let own = Own::Confirm { view, shard };
            self.ask_node(node, request, (own, deadline_ns), out);
        }
    }

    /// A shard's part is good, or not.
    pub(crate) fn confirmed(
        &mut self,
        view: u64,
        shard: ShardId,
        result: &Result<Response, Error>,
        out: &mut Outputs,
    ) {
        let now = self.now;
        let Some(opening) = self.openings.get_mut(&view) else {
            return;
        };
        if let Err(error) = result {
            let error = error.clone();
            self.reopen(now, view, error, out);
            return;
        }
        opening.confirmed.insert(shard);
        if opening.confirmed.len() == usize::from(opening.shards)
            && let Some(opening) = self.openings.remove(&view)
        {
            let open = OpenView {
                id: view,
                keyspace: opening.keyspace,
                pins: opening.pins.values().map(|(node, _)| *node).collect(),
            };
            Self::answer(opening.origin, Ok(Response::ViewOpened(open)), out);
        }
    }

    /// A view could not be opened: what there is of it goes, and it is begun anew.
    fn reopen(&mut self, now: Now, view: u64, error: Error, out: &mut Outputs) {
        let Some(opening) = self.openings.remove(&view) else {
            return;
        };
        let pins = opening
            .pins
            .iter()
            .map(|(shard, (node, _))| (*shard, *node));
        self.drop_parts(now, (opening.keyspace, view), pins.collect(), out);
        let may_help = matches!(
            error,
            Error::NotLeader { leader: Some(_) } | Error::ViewLost
        );
        if may_help && opening.attempts < OPEN_ATTEMPTS_MAX && now.mono_ns < opening.deadline_ns {
            self.pin_all(now, opening, out);
        } else {
            let nobody = matches!(
                error,
                Error::NotLeader { .. } | Error::DeadlineExceeded { .. } | Error::ViewLost
            );
            let error = if nobody { Error::NoQuorum } else { error };
            Self::answer(opening.origin, Err(error), out);
        }
    }

    /// A view is no longer needed.
    pub(crate) fn view_close(&mut self, now: Now, view: &OpenView, out: &mut Outputs) {
        let pins = (0..).map(ShardId).zip(view.pins.iter().copied());
        self.drop_parts(now, (view.keyspace, view.id), pins.collect(), out);
    }

    fn drop_parts(
        &mut self,
        now: Now,
        (keyspace, id): (KeyspaceId, u64),
        pins: Vec<(ShardId, NodeId)>,
        out: &mut Outputs,
    ) {
        for (shard, node) in pins {
            let request = InnerRequest::ViewDrop {
                keyspace,
                shard,
                id,
            };
            self.tell_node(now, node, request, out);
        }
    }
}
