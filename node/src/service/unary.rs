//! kv.v1: unary calls, and the door to the stream.

use std::time::Duration;

use meridian_proto::kv::v1 as kv;
use meridian_proto::kv::v1::kv_server::Kv;
use tonic::{Request, Response, Status, Streaming};

use super::operate::OperateStream;
use super::serving::{Form, Single, Slot, Worded};
use super::watch::WatchStream;
use super::{KvService, deadline};
use crate::clock::wall_ms;
use crate::convert::Failure;
use crate::convert::operations::Scope;
use crate::cores::Replies;
use crate::limits::{BATCH_OPERATIONS_MAX, DEADLINE_DEFAULT};

impl KvService {
    /// Does operations that came in one call; one answer each, in order.
    pub(super) async fn singles(
        &self,
        keyspace: &str,
        singles: Vec<Single>,
        patience: Duration,
    ) -> Result<Vec<Result<Worded, Failure>>, Failure> {
        self.admit()?;
        let count = singles.len();
        if count > BATCH_OPERATIONS_MAX {
            let message = format!("{count} operations in one call, at most {BATCH_OPERATIONS_MAX}");
            return Err(Failure::invalid("BATCH_TOO_LARGE", message));
        }
        let catalog = self.calls.shared.catalog();
        let scope = Scope::find(&catalog, keyspace, (self.calls.shared.zone, wall_ms()))?;
        let replies = Replies::new();
        let mut answers: Vec<Option<Result<Worded, Failure>>> = Vec::new();
        let mut batch = Vec::new();
        let mut op_ids = Vec::new();
        for (slot, single) in (0..).zip(singles) {
            let submission = self.submission(
                &scope,
                single,
                &Slot {
                    replies: &replies,
                    id: slot,
                    patience,
                    forward: false,
                },
            );
            op_ids.push(
                submission
                    .as_ref()
                    .ok()
                    .and_then(|submission| submission.ticket.op_id),
            );
            match submission {
                Ok(submission) => {
                    batch.push(submission);
                    answers.push(None);
                }
                Err(failure) => answers.push(Some(Err(failure))),
            }
        }
        let submitted = batch.len();
        self.calls.cores.submit(batch);
        let done = self.calls.gather(&replies, submitted, patience).await;
        let catalog = self.calls.shared.catalog();
        for done in done {
            let place = usize::try_from(done.ticket.slot)
                .ok()
                .and_then(|slot| answers.get_mut(slot));
            if let Some(place) = place {
                *place = Some(self.word(&catalog, done, Form::Unary));
            }
        }
        let answers = answers.into_iter().zip(op_ids);
        Ok(answers
            .map(|(answer, op_id)| answer.unwrap_or_else(|| Err(Failure::unanswered(op_id))))
            .collect())
    }

    async fn single<T>(
        &self,
        keyspace: &str,
        single: Single,
        request: &Request<T>,
    ) -> Result<Worded, Status>
    where
        T: Sync,
    {
        let patience = deadline::of_call(request.metadata(), DEADLINE_DEFAULT);
        let answers = self.singles(keyspace, vec![single], patience).await;
        let answer = answers.and_then(|mut answers| {
            answers
                .pop()
                .unwrap_or_else(|| Err(Failure::unanswered(None)))
        });
        answer.map_err(|failure| failure.to_status())
    }

    async fn write<T: Sync>(
        &self,
        keyspace: &str,
        single: Single,
        request: &Request<T>,
    ) -> Result<Response<kv::WriteResponse>, Status> {
        match self.single(keyspace, single, request).await? {
            Worded::Write(write) => Ok(Response::new(write)),
            Worded::Get(_) | Worded::Transact(_) | Worded::Validate(_) => {
                Err(Failure::unexpected_answer().to_status())
            }
        }
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    type OperateStream = OperateStream;
    type WatchStream = WatchStream;

    async fn hello(
        &self,
        _request: Request<kv::HelloRequest>,
    ) -> Result<Response<kv::HelloResponse>, Status> {
        Ok(Response::new(kv::HelloResponse {
            cluster: self.calls.shared.cluster.clone(),
            served_by: Some(self.calls.shared.served_by()),
            stamp_ms: wall_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn get(
        &self,
        mut request: Request<kv::GetRequest>,
    ) -> Result<Response<kv::GetResponse>, Status> {
        let kv::GetRequest { keyspace, get } = std::mem::take(request.get_mut());
        match self
            .single(&keyspace, Single::Get(get.unwrap_or_default()), &request)
            .await?
        {
            Worded::Get(get) => Ok(Response::new(get)),
            Worded::Write(_) | Worded::Transact(_) | Worded::Validate(_) => {
                Err(Failure::unexpected_answer().to_status())
            }
        }
    }

    async fn put(
        &self,
        mut request: Request<kv::PutRequest>,
    ) -> Result<Response<kv::WriteResponse>, Status> {
        let kv::PutRequest { keyspace, put } = std::mem::take(request.get_mut());
        self.write(&keyspace, Single::Put(put.unwrap_or_default()), &request)
            .await
    }

    async fn delete(
        &self,
        mut request: Request<kv::DeleteRequest>,
    ) -> Result<Response<kv::WriteResponse>, Status> {
        let kv::DeleteRequest { keyspace, delete } = std::mem::take(request.get_mut());
        self.write(
            &keyspace,
            Single::Delete(delete.unwrap_or_default()),
            &request,
        )
        .await
    }

    async fn batch_get(
        &self,
        request: Request<kv::BatchGetRequest>,
    ) -> Result<Response<kv::BatchGetResponse>, Status> {
        let patience = deadline::of_call(request.metadata(), DEADLINE_DEFAULT);
        let kv::BatchGetRequest {
            keyspace,
            keys,
            level,
            session,
        } = request.into_inner();
        let get = |key: &bytes::Bytes| {
            Single::Get(kv::Get {
                key: key.clone(),
                level,
                session: session.clone(),
                stamped: false,
                view: bytes::Bytes::new(),
            })
        };
        let singles = keys.iter().map(get).collect();
        let answers = self
            .singles(&keyspace, singles, patience)
            .await
            .map_err(|failure| failure.to_status())?;
        let outcomes = keys.into_iter().zip(answers).map(|(key, answer)| {
            let outcome = match answer {
                Ok(Worded::Get(get)) => kv::get_outcome::Outcome::Get(get),
                Ok(Worded::Write(_) | Worded::Transact(_) | Worded::Validate(_)) => {
                    kv::get_outcome::Outcome::Error(Failure::unexpected_answer().into_wire())
                }
                Err(failure) => kv::get_outcome::Outcome::Error(failure.into_wire()),
            };
            kv::GetOutcome {
                key,
                outcome: Some(outcome),
            }
        });
        Ok(Response::new(kv::BatchGetResponse {
            outcomes: outcomes.collect(),
            served_by: Some(self.calls.shared.served_by()),
            stamp_ms: wall_ms(),
        }))
    }

    async fn batch_write(
        &self,
        request: Request<kv::BatchWriteRequest>,
    ) -> Result<Response<kv::BatchWriteResponse>, Status> {
        let patience = deadline::of_call(request.metadata(), DEADLINE_DEFAULT);
        let kv::BatchWriteRequest { keyspace, writes } = request.into_inner();
        let singles: Vec<Single> = writes.into_iter().map(single_write).collect();
        let keys: Vec<bytes::Bytes> = singles.iter().map(key_of).collect();
        let answers = self
            .singles(&keyspace, singles, patience)
            .await
            .map_err(|failure| failure.to_status())?;
        let outcomes = keys.into_iter().zip(answers).map(|(key, answer)| {
            let outcome = match answer {
                Ok(Worded::Write(write)) => kv::write_outcome::Outcome::Write(write),
                Ok(Worded::Get(_) | Worded::Transact(_) | Worded::Validate(_)) => {
                    kv::write_outcome::Outcome::Error(Failure::unexpected_answer().into_wire())
                }
                Err(failure) => kv::write_outcome::Outcome::Error(failure.into_wire()),
            };
            kv::WriteOutcome {
                key,
                outcome: Some(outcome),
            }
        });
        Ok(Response::new(kv::BatchWriteResponse {
            outcomes: outcomes.collect(),
            served_by: Some(self.calls.shared.served_by()),
            stamp_ms: wall_ms(),
        }))
    }

    async fn scan(
        &self,
        request: Request<kv::ScanRequest>,
    ) -> Result<Response<kv::ScanResponse>, Status> {
        let patience = deadline::of_call(request.metadata(), DEADLINE_DEFAULT);
        let kv::ScanRequest { keyspace, scan } = request.into_inner();
        self.admit().map_err(|failure| failure.to_status())?;
        let page = self
            .scan_page(
                &keyspace,
                scan.unwrap_or_default(),
                patience,
                (Form::Unary, false),
            )
            .await;
        page.map(Response::new)
            .map_err(|failure| failure.to_status())
    }

    async fn transact(
        &self,
        mut request: Request<kv::TransactRequest>,
    ) -> Result<Response<kv::TransactResponse>, Status> {
        let asked = std::mem::take(request.get_mut());
        let patience = deadline::of_either(request.metadata(), asked.deadline_ms);
        let done = self.transact_once(
            &asked.keyspace,
            asked.transact.unwrap_or_default(),
            patience,
        );
        done.await
            .map(Response::new)
            .map_err(|failure| failure.to_status())
    }

    async fn view_open(
        &self,
        request: Request<kv::ViewOpenRequest>,
    ) -> Result<Response<kv::ViewOpenResponse>, Status> {
        let patience = deadline::of_either(request.metadata(), request.get_ref().deadline_ms);
        let opened = self.open_view(&request.get_ref().keyspace, patience);
        opened
            .await
            .map(Response::new)
            .map_err(|failure| failure.to_status())
    }

    async fn view_close(
        &self,
        request: Request<kv::ViewCloseRequest>,
    ) -> Result<Response<kv::ViewCloseResponse>, Status> {
        let patience = deadline::of_call(request.metadata(), DEADLINE_DEFAULT);
        let closed = self.close_view(&request.get_ref().view, patience).await;
        closed
            .map(|()| Response::new(kv::ViewCloseResponse {}))
            .map_err(|failure| failure.to_status())
    }

    async fn lease_acquire(
        &self,
        request: Request<kv::LeaseAcquireRequest>,
    ) -> Result<Response<kv::LeaseResponse>, Status> {
        let patience = deadline::of_call(request.metadata(), DEADLINE_DEFAULT);
        let held = self.acquire(request.into_inner(), patience).await;
        held.map(Response::new)
            .map_err(|failure| failure.to_status())
    }

    async fn lease_renew(
        &self,
        request: Request<kv::LeaseRenewRequest>,
    ) -> Result<Response<kv::LeaseResponse>, Status> {
        let patience = deadline::of_call(request.metadata(), DEADLINE_DEFAULT);
        let held = self.renew(request.into_inner(), patience).await;
        held.map(Response::new)
            .map_err(|failure| failure.to_status())
    }

    async fn lease_end(
        &self,
        request: Request<kv::LeaseEndRequest>,
    ) -> Result<Response<kv::LeaseEndResponse>, Status> {
        let patience = deadline::of_call(request.metadata(), DEADLINE_DEFAULT);
        let ended = self.end(request.into_inner(), patience).await;
        ended
            .map(Response::new)
            .map_err(|failure| failure.to_status())
    }

    async fn lease_get(
        &self,
        request: Request<kv::LeaseGetRequest>,
    ) -> Result<Response<kv::LeaseGetResponse>, Status> {
        let patience = deadline::of_call(request.metadata(), DEADLINE_DEFAULT);
        let lease = self.show(request.into_inner(), patience).await;
        lease
            .map(Response::new)
            .map_err(|failure| failure.to_status())
    }

    async fn operate(
        &self,
        request: Request<Streaming<kv::OperateRequest>>,
    ) -> Result<Response<Self::OperateStream>, Status> {
        self.admit().map_err(|failure| failure.to_status())?;
        Ok(Response::new(self.operate_on(request.into_inner())))
    }

    async fn watch(
        &self,
        request: Request<kv::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let stream = self.watch_on(request.into_inner()).await;
        stream
            .map(Response::new)
            .map_err(|failure| failure.to_status())
    }
}

/// A write without content is a put of nothing to no key, which is refused for its key.
fn single_write(write: kv::Write) -> Single {
    match write.write {
        Some(kv::write::Write::Put(put)) => Single::Put(put),
        Some(kv::write::Write::Delete(delete)) => Single::Delete(delete),
        None => Single::Put(kv::Put::default()),
    }
}

fn key_of(single: &Single) -> bytes::Bytes {
    match single {
        Single::Get(get) => get.key.clone(),
        Single::Put(put) => put.key.clone(),
        Single::Delete(delete) => delete.key.clone(),
        Single::Transact(_) | Single::Validate(_) => bytes::Bytes::new(),
    }
}
