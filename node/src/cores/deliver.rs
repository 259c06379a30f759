//! What comes out of a core goes where it belongs: messages to links, answers to those who wait, reads to the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use meridian_core::error::Error;
use meridian_core::ids::NodeId;
use meridian_core::message::PeerMessage;
use meridian_core::mirror::mirror_node;
use meridian_core::output::{Notice, ReleasedRead};
use meridian_core::request::{Answer, Query, ReadLevel, Response};
use meridian_core::{Outputs, address};

use super::replies::{Done, Replies, Ticket};
use super::thread::CoreThread;

/// Comparisons that are checked on the core's own thread.
const SHORT_COMPARISONS: usize = 64;

impl CoreThread {
    /// Hands messages to their links, or to other cores of the node. They may leave before the write they came with.
    pub(super) fn deliver_messages(&mut self) {
        if self.out.messages.is_empty() {
            return;
        }
        let mut by_node: BTreeMap<NodeId, Vec<PeerMessage>> = BTreeMap::new();
        for (node, message) in self.out.messages.drain(..) {
            by_node
                .entry(node)
                .or_default()
                .push(address::outgoing(message, self.index));
        }
        if let Some(own) = by_node.remove(&self.shared.node)
            && let Some(cores) = self.cores.upgrade()
        {
            cores.loop_back(own);
        }
        for (node, messages) in by_node {
            self.links.send(node, messages);
        }
    }

    /// Hands out everything.
    pub(super) fn deliver_all(&mut self) {
        self.deliver_messages();
        let Outputs {
            replies,
            reads,
            catalog,
            notices,
            changed,
            ..
        } = std::mem::take(&mut self.out);
        if let Some(catalog) = catalog {
            self.catalog = Arc::clone(&catalog);
            self.share_catalog(catalog);
        }
        self.shared.watched.changed(&changed);
        for notice in notices {
            self.note(notice);
        }
        let mut touched: Vec<Arc<Replies>> = Vec::new();
        for (id, result) in replies {
            if let Some(ticket) = self.waiting.remove(&id.0) {
                let by = self.answered_elsewhere(&ticket, &result);
                self.finish(&mut touched, Done { ticket, by, result });
            }
        }
        for released in reads {
            self.serve(&mut touched, released);
        }
        for replies in touched {
            replies.wake();
        }
    }

    /// Serves a released read: a key at once, whole ranges on the blocking pool from a view.
    fn serve(&mut self, touched: &mut Vec<Arc<Replies>>, released: ReleasedRead) {
        let Some(ticket) = self.waiting.remove(&released.id.0) else {
            return;
        };
        let shards = self
            .catalog
            .keyspaces
            .get(&released.keyspace)
            .map_or(0, |keyspace| keyspace.shards);
        if shards == 0 {
            self.finish(
                touched,
                Done {
                    ticket,
                    by: None,
                    result: Err(Error::KeyspaceNotFound),
                },
            );
            return;
        }
        if is_short(&released.query) {
            let answer = released.serve(&*self.engine, shards);
            self.finish(
                touched,
                Done {
                    ticket,
                    by: None,
                    result: answer.map(Response::Read),
                },
            );
        } else {
            self.serve_apart(ticket, released, shards);
        }
    }

    /// Whole ranges are read on the blocking pool; the core has pinned what they are to see.
    fn serve_apart(&self, ticket: Ticket, released: ReleasedRead, shards: u16) {
        let (engine, shared) = (Arc::clone(&self.engine), Arc::clone(&self.shared));
        let serve = move || {
            let answer = released.serve(&*engine, shards);
            shared.finished(1);
            Done {
                ticket,
                by: None,
                result: answer.map(Response::Read),
            }
            .deliver();
        };
        // The pool answers through the ticket; nobody waits for the task itself.
        drop(self.runtime.spawn_blocking(serve));
    }

    pub(super) fn finish(&self, touched: &mut Vec<Arc<Replies>>, done: Done) {
        self.shared.finished(1);
        let replies = Arc::clone(&done.ticket.replies);
        if replies.push(done) {
            touched.push(replies);
        }
    }

    /// The node that answered in our place, as far as it is known: the leader, or whoever holds the view. Reads of our
    /// own are released instead.
    fn answered_elsewhere(
        &self,
        ticket: &Ticket,
        result: &Result<Response, Error>,
    ) -> Option<NodeId> {
        let pin = match ticket.level {
            ReadLevel::View { node, .. } => Some(node),
            ReadLevel::Linearizable
            | ReadLevel::Eventual
            | ReadLevel::Session
            | ReadLevel::Bounded { .. }
            | ReadLevel::Zones { .. }
            | ReadLevel::Mirror { .. } => None,
        };
        match result {
            Ok(Response::Read(Answer::Shown(shown))) => {
                Some(shown.by).filter(|node| *node != self.shared.node)
            }
            Ok(Response::Read(Answer::Mirrored(..))) => {
                mirror_node(&self.catalog, ticket.shard, self.shared.zone)
                    .filter(|node| *node != self.shared.node)
            }
            Ok(Response::Written(_) | Response::Read(_) | Response::Transacted(_)) => pin
                .or_else(|| self.shared.leader_of(ticket.keyspace, ticket.shard))
                .filter(|node| *node != self.shared.node),
            Ok(
                Response::KeyspaceCreated(_)
                | Response::KeyspaceDeleted(_)
                | Response::KeyspaceAltered { .. }
                | Response::Lag(_)
                | Response::Groups(_)
                | Response::ViewOpened(_)
                | Response::ViewClosed
                | Response::Inner(_)
                | Response::LeaseHeld(_)
                | Response::LeaseEnded
                | Response::Mirror(_)
                | Response::MirrorShown(_),
            )
            | Err(_) => None,
        }
    }

    fn note(&self, notice: Notice) {
        let core = self.index;
        match notice {
            Notice::Leader {
                group,
                leader,
                term,
            } => {
                tracing::debug!(core, %group, leader = leader.map(|node| node.0), term, "leader");
                self.shared.learn_leader(group, leader, term);
            }
            Notice::Wiped => tracing::warn!(
                core,
                "the store is empty where the cluster knows one: rejoining anew"
            ),
            Notice::Admitted => tracing::info!(core, "the node is a member of the cluster"),
            Notice::SeedDiffers { difference } => {
                tracing::warn!(
                    core,
                    difference,
                    "the cluster file differs from the control group's record"
                );
                self.shared.learn_difference(difference);
            }
            Notice::Comparing { group } => tracing::info!(core, %group, "catching up by comparing"),
            Notice::Compared { group } => tracing::info!(core, %group, "caught up by comparing"),
            Notice::ImageInstalled { group, index } => {
                tracing::info!(core, %group, index, "group image installed");
                self.shared.watched.changed(&[group]);
            }
            Notice::Damaged { detail } => {
                tracing::error!(core, detail, "damaged bytes");
                self.shared.metrics.damaged();
            }
        }
    }
}

/// A query that reads a few keys: not worth another thread.
fn is_short(query: &Query) -> bool {
    match query {
        Query::Get { .. } | Query::Examine { .. } | Query::Leases { .. } => true,
        Query::Validate { compare, .. } => {
            compare.len() <= SHORT_COMPARISONS && compare.iter().all(|one| one.key().is_some())
        }
        Query::Scan { .. }
        | Query::Digest { .. }
        | Query::Range { .. }
        | Query::Returned { .. } => false,
    }
}
