//! What the stream and the unary calls have in common: from an operation to a core, from a core to an answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use meridian_core::Error;
use meridian_core::catalog::Catalog;
use meridian_core::ids::NodeId;
use meridian_core::mirror::MirrorStamp;
use meridian_core::request::{Answer, Request, Response, Shown};
use meridian_proto::kv::v1 as kv;

use super::KvService;
use crate::clock::wall_ms;
use crate::convert::Failure;
use crate::convert::answers::Served;
use crate::convert::operations::{Prepared, Scope};
use crate::convert::sessions;
use crate::convert::transactions::{ShardCompare, stamps};
use crate::cores::{Done, Kind, Replies, Submission, Ticket};

/// An answer in the words of the contract.
#[derive(Debug)]
pub(super) enum Worded {
    Get(kv::GetResponse),
    Write(kv::WriteResponse),
    Transact(kv::TransactResponse),
    Validate(kv::ValidateResponse),
}

/// Where an answer goes: the stream says once for many who serves and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Unary,
    Stream,
}

/// An operation that one shard answers.
#[derive(Debug)]
pub(super) enum Single {
    Get(kv::Get),
    Put(kv::Put),
    Delete(kv::Delete),
    Transact(kv::Transact),
    /// Comparisons that are all of one shard.
    Validate(ShardCompare),
}

impl Single {
    const fn kind(&self) -> Kind {
        match self {
            Self::Get(_) => Kind::Get,
            Self::Put(_) => Kind::Put,
            Self::Delete(_) => Kind::Delete,
            Self::Transact(_) => Kind::Transact,
            Self::Validate(_) => Kind::Validate,
        }
    }
}

/// Where the answer of an operation is to go, and by when.
pub(super) struct Slot<'a> {
    pub(super) replies: &'a Arc<Replies>,
    pub(super) id: u64,
    pub(super) patience: Duration,
    /// It may go to the home zone of a keyspace that is mirrored here.
    pub(super) forward: bool,
}

impl KvService {
    /// Refuses while the node is stopping.
    pub(super) fn admit(&self) -> Result<(), Failure> {
        if self.calls.shared.is_draining() {
            Err(Failure::draining())
        } else {
            Ok(())
        }
    }

    /// An operation, checked and ready for its core.
    pub(super) fn submission(
        &self,
        scope: &Scope<'_>,
        single: Single,
        slot: &Slot<'_>,
    ) -> Result<Submission, Failure> {
        let kind = single.kind();
        let prepared = match single {
            Single::Get(get) => scope.get(get),
            Single::Put(put) => scope.put(put, fresh_id),
            Single::Delete(delete) => scope.delete(delete, fresh_id),
            Single::Transact(transact) => scope.transact(transact, fresh_id),
            Single::Validate(part) => Ok(scope.validation(part)),
        };
        let prepared = prepared.inspect_err(|failure| {
            self.calls
                .shared
                .metrics
                .answered(kind, failure.reason(), Duration::ZERO);
        })?;
        let Prepared {
            shard,
            request,
            key,
            session,
            level,
            op_id,
            action_keys,
        } = prepared;
        let ticket = Ticket {
            replies: Arc::clone(slot.replies),
            slot: slot.id,
            kind,
            started: Instant::now(),
            deadline_ns: self
                .calls
                .shared
                .clock
                .now()
                .after_ms(crate::calls::millis(slot.patience)),
            keyspace: scope.keyspace.id,
            shard,
            key,
            session,
            level,
            op_id,
            action_keys,
        };
        let request = if slot.forward {
            Request::AtHome(Box::new(request))
        } else {
            request
        };
        Ok(Submission { request, ticket })
    }

    /// What a core answered, worded.
    pub(super) fn word(
        &self,
        catalog: &Catalog,
        done: Done,
        form: Form,
    ) -> Result<Worded, Failure> {
        let Done { ticket, by, result } = done;
        let op_id = ticket.op_id;
        let response =
            result.map_err(|error| Failure::named(error, catalog).of_operation(op_id))?;
        let (response, shown) = sessions::unwrap(response);
        let keyspace = catalog
            .keyspaces
            .get(&ticket.keyspace)
            .ok_or_else(|| Failure::from_core(Error::KeyspaceNotFound).of_operation(op_id))?;
        let scope = Scope {
            catalog,
            keyspace,
            zone: self.calls.shared.zone,
            wall_ms: wall_ms(),
        };
        let session = session_after(&scope, &ticket, (&response, shown.as_deref()));
        let (response, mirror) = from_mirror(response);
        let served = self.served(by, (session, mirror), form);
        self.word_response(&scope, (ticket, response), (served, shown))
    }

    fn word_response(
        &self,
        scope: &Scope<'_>,
        (ticket, response): (Ticket, Response),
        (served, shown): (Served, Option<Box<Shown>>),
    ) -> Result<Worded, Failure> {
        let say = |mut get: kv::GetResponse| {
            if let Some(shown) = &shown {
                scope.say_shown(&mut get, shown);
            }
            Worded::Get(get)
        };
        match response {
            Response::Read(Answer::Key(set)) => {
                self.calls
                    .shared
                    .metrics
                    .found(set.siblings().len(), set.is_conflict());
                Ok(say(scope.get_response(
                    &ticket.key,
                    &set,
                    ticket.level,
                    served,
                )))
            }
            Response::Read(Answer::Examined {
                set,
                stamp,
                held_through,
            }) => {
                let get = scope.get_response(&ticket.key, &set, ticket.level, served);
                let log = scope.log_of(ticket.shard);
                let span = stamps::span_to_wire((ticket.shard, log), stamp, held_through);
                Ok(say(kv::GetResponse {
                    stamp: stamps::key_to_wire(stamp, log),
                    span,
                    ..get
                }))
            }
            Response::Read(Answer::Holds(holds)) => {
                Ok(Worded::Validate(kv::ValidateResponse { holds }))
            }
            Response::Transacted(transacted) => {
                let keys = ticket.action_keys.unwrap_or_default();
                let response = scope.transact_response(&transacted, &keys, served);
                Ok(Worded::Transact(response))
            }
            Response::Written(receipt) => Ok(Worded::Write(scope.write_response(
                &ticket.key,
                &receipt,
                served,
            ))),
            Response::Read(
                Answer::Page { .. }
                | Answer::Digest(_)
                | Answer::Range { .. }
                | Answer::Leases(_)
                | Answer::Returned { .. }
                | Answer::Shown(_)
                | Answer::Mirrored(..),
            )
            | Response::ViewOpened(_)
            | Response::ViewClosed
            | Response::Inner(_)
            | Response::LeaseHeld(_)
            | Response::LeaseEnded
            | Response::Mirror(_)
            | Response::MirrorShown(_)
            | Response::KeyspaceCreated(_)
            | Response::KeyspaceDeleted(_)
            | Response::KeyspaceAltered { .. }
            | Response::Lag(_)
            | Response::Groups(_) => Err(Failure::unexpected_answer()),
        }
    }
}

impl KvService {
    /// Who served it and when; a stream's envelope says most of that once for all.
    fn served(
        &self,
        by: Option<NodeId>,
        (session, mirror): (Bytes, Option<MirrorStamp>),
        form: Form,
    ) -> Served {
        let other = by.and_then(|node| self.calls.shared.served_by_node(node));
        match form {
            Form::Stream => Served {
                by: other,
                stamp_ms: 0,
                session,
                mirror,
            },
            Form::Unary => Served {
                by: Some(other.unwrap_or_else(|| self.calls.shared.served_by())),
                stamp_ms: wall_ms(),
                session,
                mirror,
            },
        }
    }
}

/// The session token that goes with an answer; empty without a session.
fn session_after(
    scope: &Scope<'_>,
    ticket: &Ticket,
    (response, shown): (&Response, Option<&Shown>),
) -> Bytes {
    if let Response::Written(receipt) = response {
        scope.session_after_write(&ticket.session, ticket.shard, receipt)
    } else if let (Response::Read(answer), Some(shown)) = (response, shown) {
        scope.session_after_read(&ticket.session, ticket.shard, (answer, &shown.seen))
    } else {
        Bytes::new()
    }
}

/// The answer itself, and what a mirror says of it.
fn from_mirror(response: Response) -> (Response, Option<MirrorStamp>) {
    if let Response::Read(Answer::Mirrored(answer, stamp)) = response {
        (Response::Read(*answer), Some(stamp))
    } else {
        (response, None)
    }
}

/// Bits of an id that a process counts in: more than it can use up.
const NUMBER_BITS: u32 = 48;

/// An id for the write of a client that gave none: ten bytes of this process and a number, like those of our own clients, so
/// that records which bear them pack well where they travel together.
pub(super) fn fresh_id() -> u128 {
    static PROCESS: LazyLock<u128> = LazyLock::new(|| process_part() << NUMBER_BITS);
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    *PROCESS | u128::from(NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// What no other process has. Without entropy the time of its start stands in, lest every process count on from the same id.
fn process_part() -> u128 {
    let mut bytes = [0; 16];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u128::from_be_bytes(bytes),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos()),
    }
}
