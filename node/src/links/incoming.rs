//! The receiving side of links: peer.v1.

use std::sync::Arc;
use std::time::Duration;

use meridian_core::ids::NodeId;
use meridian_proto::peer::v1::frame::Frame as Body;
use meridian_proto::peer::v1::peer_server::Peer;
use meridian_proto::peer::v1::{Batch, Frame, Welcome};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::handshake::{PROTOCOL, Refusal, judge};
use super::log_limit::LogLimit;
use super::{Links, PeerPlace};
use crate::convert::peer;
use crate::convert::wire::WireError;
use crate::cores::Cores;
use crate::shared::Shared;

/// How long a new stream may take to say who speaks.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The service behind the peer address.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cores: Arc<Cores>,
    pub(crate) links: Arc<Links>,
    refusals: Arc<LogLimit>,
}

impl Incoming {
    pub(crate) fn new(shared: Arc<Shared>, cores: Arc<Cores>, links: Arc<Links>) -> Self {
        Self {
            shared,
            cores,
            links,
            refusals: Arc::default(),
        }
    }

    fn refuse(&self, status: Status, remote: Option<std::net::SocketAddr>) -> Status {
        self.shared.metrics.refused_link();
        if let Some(held_back) = self.refusals.allow() {
            let remote = remote.map(|remote| remote.to_string());
            let message = status.message();
            tracing::warn!(remote, message, held_back, "link refused");
        }
        status
    }

    async fn shake(&self, frames: &mut Streaming<Frame>) -> Result<(NodeId, PeerPlace), Status> {
        let first = timeout(HANDSHAKE_TIMEOUT, frames.message())
            .await
            .map_err(|_late| Status::deadline_exceeded("no handshake in time"))??;
        let Some(Frame {
            frame: Some(Body::Handshake(handshake)),
        }) = first
        else {
            return Err(Status::invalid_argument(Refusal::NoHandshake.to_string()));
        };
        judge(&handshake, &self.shared.cluster, self.shared.node, |node| {
            self.links.place_of(node)
        })
        .map_err(|refusal| Status::failed_precondition(refusal.to_string()))
    }

    /// Takes frames until the stream ends, breaks or makes no sense.
    async fn receive(
        &self,
        frames: &mut Streaming<Frame>,
        from: NodeId,
        place: &PeerPlace,
    ) -> Result<(), Status> {
        while let Some(frame) = frames.message().await? {
            let Some(Body::Batch(batch)) = frame.frame else {
                return Err(Status::invalid_argument(
                    "a frame after the first is not a batch",
                ));
            };
            if self
                .links
                .conditioner
                .rule(place.zone, self.shared.zone)
                .blocked
            {
                continue;
            }
            self.take(batch, from)
                .await
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
        }
        Ok(())
    }

    async fn take(&self, batch: Batch, from: NodeId) -> Result<(), WireError> {
        let bytes = batch.encoded_len();
        let mut messages = Vec::with_capacity(batch.messages.len());
        for message in batch.messages {
            match peer::from_wire(message) {
                Ok(message) => messages.push(message),
                Err(error) if error.is_other_version() => self.shared.metrics.dropped_incoming(1),
                Err(error) => return Err(error),
            }
        }
        self.cores.deliver(from, messages, bytes).await;
        Ok(())
    }
}

#[tonic::async_trait]
impl Peer for Incoming {
    type LinkStream = ReceiverStream<Result<Welcome, Status>>;

    async fn link(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let remote = request.remote_addr();
        let mut frames = request.into_inner();
        let (from, place) = self
            .shake(&mut frames)
            .await
            .map_err(|status| self.refuse(status, remote))?;
        let (answers, stream) = mpsc::channel(1);
        let service = self.clone();
        tokio::spawn(async move {
            let welcome = Welcome {
                protocol: PROTOCOL,
                node: service.shared.node.0,
            };
            if answers.send(Ok(welcome)).await.is_err() {
                return;
            }
            // Only a message that makes no sense is worth a line; connections break all the time.
            if let Err(status) = service.receive(&mut frames, from, &place).await
                && status.code() == tonic::Code::InvalidArgument
            {
                let status = service.refuse(status, remote);
                drop(answers.send(Err(status)).await);
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
