//! Transactions, validations and views: what they ask the cores, and how the answers are put together.

use std::time::Duration;

use meridian_core::ids::{KeyspaceId, ShardId};
use meridian_core::limits::VIEW_MS_MAX;
use meridian_core::request::{Answer, Request, Response};
use meridian_proto::kv::v1 as kv;

use super::KvService;
use super::serving::{Single, Worded};
use crate::calls::Ask;
use crate::clock::wall_ms;
use crate::convert::Failure;
use crate::convert::operations::Scope;
use crate::convert::transactions::ShardCompare;
use crate::convert::views;
use crate::cores::Kind;

/// Views are closed through one core, which tells the others.
const CLOSING_CORE: usize = 0;

/// The question whether one shard's comparisons hold.
pub(super) fn validation(scope: &Scope<'_>, part: ShardCompare) -> Ask {
    let prepared = scope.validation(part);
    Ask {
        kind: Kind::Validate,
        keyspace: scope.keyspace.id,
        shard: prepared.shard,
        request: prepared.request,
    }
}

impl KvService {
    /// Whether the comparisons of every shard hold.
    pub(super) async fn all_hold(
        &self,
        asks: Vec<Ask>,
        patience: Duration,
    ) -> Result<bool, Failure> {
        let mut all = true;
        for answer in self.calls.ask(asks, patience).await {
            let Response::Read(Answer::Holds(holds)) = answer.map_err(Failure::from_core)? else {
                return Err(Failure::unexpected_answer());
            };
            all &= holds;
        }
        Ok(all)
    }

    /// One transaction of a unary call.
    pub(super) async fn transact_once(
        &self,
        keyspace: &str,
        transact: kv::Transact,
        patience: Duration,
    ) -> Result<kv::TransactResponse, Failure> {
        let singles = vec![Single::Transact(transact)];
        let mut answers = self.singles(keyspace, singles, patience).await?;
        match answers.pop() {
            Some(Ok(Worded::Transact(done))) => Ok(done),
            Some(Ok(Worded::Get(_) | Worded::Write(_) | Worded::Validate(_))) => {
                Err(Failure::unexpected_answer())
            }
            Some(Err(failure)) => Err(failure),
            None => Err(Failure::unanswered(None)),
        }
    }

    /// Opens a view of a keyspace, at one core after the other.
    pub(super) async fn open_view(
        &self,
        keyspace: &str,
        patience: Duration,
    ) -> Result<kv::ViewOpenResponse, Failure> {
        self.admit()?;
        let catalog = self.calls.shared.catalog();
        let scope = Scope::find(&catalog, keyspace, (self.calls.shared.zone, wall_ms()))?;
        let keyspace = scope.keyspace.id;
        let ask = ask(keyspace, Request::ViewOpen { keyspace });
        let core = self.calls.next_core();
        let answer = self.calls.ask_core(core, ask, patience).await;
        let Response::ViewOpened(view) = answer.map_err(Failure::from_core)? else {
            return Err(Failure::unexpected_answer());
        };
        Ok(kv::ViewOpenResponse {
            view: views::seal(&catalog, &view),
            open_ms_max: u32::try_from(VIEW_MS_MAX).unwrap_or(u32::MAX),
            served_by: Some(self.calls.shared.served_by()),
            stamp_ms: scope.wall_ms,
        })
    }

    /// Closes a view, wherever it is held.
    pub(super) async fn close_view(&self, token: &[u8], patience: Duration) -> Result<(), Failure> {
        let view = views::open(&self.calls.shared.catalog(), token)?;
        let ask = ask(view.keyspace, Request::ViewClose { view });
        let answer = self.calls.ask_core(CLOSING_CORE, ask, patience).await;
        let Response::ViewClosed = answer.map_err(Failure::from_core)? else {
            return Err(Failure::unexpected_answer());
        };
        Ok(())
    }
}

fn ask(keyspace: KeyspaceId, request: Request) -> Ask {
    Ask {
        kind: Kind::View,
        keyspace,
        shard: ShardId(0),
        request,
    }
}
