//! The sending side of a link: connects, shakes hands, and sends frames until the connection breaks; then again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meridian_core::ids::NodeId;
use meridian_core::message::PeerMessage;
use meridian_proto::peer::v1::frame::Frame as Body;
use meridian_proto::peer::v1::peer_client::PeerClient;
use meridian_proto::peer::v1::{Batch, Frame, Handshake, Welcome};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use super::PeerPlace;
use super::conditioner::{Conditioner, Rule};
use super::handshake::PROTOCOL;
use super::line::Line;
use super::log_limit::LogLimit;
use super::queue::Queue;
use crate::convert::peer;
use crate::limits::{MESSAGE_BYTES_MAX, WINDOW_BYTES};
use crate::shared::Shared;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const KEEPALIVE: Duration = Duration::from_secs(5);
const BACKOFF_MS_MIN: u64 = 50;
const BACKOFF_MS_MAX: u64 = 2_000;

/// How often a blocked link looks whether it still is before it connects.
const BLOCKED_POLL: Duration = Duration::from_millis(100);

/// Frames handed to the transport ahead of the socket; the queue in front takes the rest.
const FRAMES_AHEAD: usize = 4;

/// The link to one other node.
#[derive(Debug)]
pub(super) struct Outgoing {
    node: NodeId,
    place: Mutex<PeerPlace>,
    queue: Queue,
    connected: AtomicBool,
    shared: Arc<Shared>,
    conditioner: Arc<Conditioner>,
    troubles: LogLimit,
}

impl Outgoing {
    pub(super) fn new(
        node: NodeId,
        place: PeerPlace,
        shared: &Arc<Shared>,
        conditioner: &Arc<Conditioner>,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            place: Mutex::new(place),
            queue: Queue::default(),
            connected: AtomicBool::new(false),
            shared: Arc::clone(shared),
            conditioner: Arc::clone(conditioner),
            troubles: LogLimit::default(),
        })
    }

    pub(super) fn send(&self, messages: Vec<PeerMessage>) {
        let dropped = self.queue.push(messages);
        if dropped > 0 {
            self.shared.metrics.dropped_outgoing(dropped);
        }
    }

    pub(super) fn place(&self) -> PeerPlace {
        self.place
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn moved(&self, place: PeerPlace) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    pub(super) fn queued_messages(&self) -> usize {
        self.queue.len()
    }

    /// Keeps the link up for the life of the process.
    pub(super) async fn run(self: Arc<Self>) {
        let mut rng = seeded();
        let mut backoff_ms = BACKOFF_MS_MIN;
        loop {
            let place = self.place();
            let began = Instant::now();
            let Err(status) = self.once(&place, &mut rng).await;
            self.connected.store(false, Ordering::Relaxed);
            if let Some(held_back) = self.troubles.allow() {
                let (node, addr) = (&place.name, &place.peer_addr);
                let (code, message) = (status.code(), status.message());
                tracing::warn!(node, addr, ?code, message, held_back, "no link to node");
            }
            // What waited meanwhile is older than anything its protocol still waits for.
            self.shared.metrics.dropped_outgoing(self.queue.clear());
            if began.elapsed() > CONNECT_TIMEOUT {
                backoff_ms = BACKOFF_MS_MIN;
            }
            let jittered = rng.random_range(backoff_ms / 2..=backoff_ms);
            tokio::time::sleep(Duration::from_millis(jittered)).await;
            backoff_ms = (backoff_ms * 2).min(BACKOFF_MS_MAX);
        }
    }

    async fn once(
        &self,
        place: &PeerPlace,
        rng: &mut SmallRng,
    ) -> Result<std::convert::Infallible, Status> {
        while self.rule(place).blocked {
            // A cut is silent: nobody learns that an address answers behind it.
            self.shared.metrics.dropped_outgoing(self.queue.clear());
            tokio::time::sleep(BLOCKED_POLL).await;
        }
        let channel = connect(&place.peer_addr).await?;
        let mut client = PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (frames, outgoing) = mpsc::channel(FRAMES_AHEAD);
        send(&frames, Body::Handshake(self.handshake())).await?;
        let link = timeout(CONNECT_TIMEOUT, client.link(ReceiverStream::new(outgoing))).await;
        let mut answers = link.map_err(late)??.into_inner();
        let welcome = timeout(CONNECT_TIMEOUT, answers.message())
            .await
            .map_err(late)??;
        self.check(welcome.as_ref())?;
        self.connected.store(true, Ordering::Relaxed);
        tracing::info!(
            node = place.name,
            addr = place.peer_addr,
            "link to node stands"
        );
        self.pump(place, &frames, &mut answers, rng).await
    }

    fn handshake(&self) -> Handshake {
        Handshake {
            protocol: PROTOCOL,
            cluster: self.shared.cluster.clone(),
            node: self.shared.node.0,
            zone: self.shared.zone_name.clone(),
            to: self.node.0,
        }
    }

    fn check(&self, welcome: Option<&Welcome>) -> Result<(), Status> {
        match welcome {
            Some(welcome) if welcome.node == self.node.0 && welcome.protocol == PROTOCOL => Ok(()),
            Some(welcome) => {
                let (node, protocol) = (welcome.node, welcome.protocol);
                Err(Status::failed_precondition(format!(
                    "node {node} of protocol {protocol} answered"
                )))
            }
            None => Err(Status::unavailable("no welcome")),
        }
    }

    fn rule(&self, place: &PeerPlace) -> Rule {
        self.conditioner.rule(self.shared.zone, place.zone)
    }

    /// Sends what the queue holds, conditioned, until the connection breaks.
    async fn pump(
        &self,
        place: &PeerPlace,
        frames: &mpsc::Sender<Frame>,
        answers: &mut Streaming<Welcome>,
        rng: &mut SmallRng,
    ) -> Result<std::convert::Infallible, Status> {
        let mut line: Line<Batch> = Line::new();
        loop {
            tokio::select! {
                biased;
                () = line.due() => {
                    while let Some(batch) = line.leave(Instant::now()) {
                        if !self.rule(place).blocked {
                            send(frames, Body::Batch(batch)).await?;
                        }
                    }
                }
                () = self.queue.ready(), if line.has_room() => {
                    let (messages, bytes) = self.queue.take_frame();
                    let rule = self.rule(place);
                    let Some(batch) = condition(messages, rule, rng) else { continue };
                    if rule.delay.is_zero() && line.is_empty() {
                        send(frames, Body::Batch(batch)).await?;
                    } else {
                        line.enter(Instant::now(), rule.delay, batch, bytes);
                    }
                }
                end = answers.message() => {
                    end?;
                    return Err(Status::unavailable("the node closed the link"));
                }
            }
        }
    }
}

/// What of the messages gets through, as one batch.
fn condition(messages: Vec<PeerMessage>, rule: Rule, rng: &mut SmallRng) -> Option<Batch> {
    if rule.blocked {
        return None;
    }
    let kept = messages
        .into_iter()
        .filter(|_| rule.loss <= 0.0 || !rng.random_bool(rule.loss.min(1.0)));
    let messages: Vec<_> = kept.map(peer::to_wire).collect();
    if messages.is_empty() {
        None
    } else {
        Some(Batch { messages })
    }
}

async fn send(frames: &mpsc::Sender<Frame>, body: Body) -> Result<(), Status> {
    let frame = Frame { frame: Some(body) };
    frames
        .send(frame)
        .await
        .map_err(|_closed| Status::unavailable("the link is closed"))
}

async fn connect(addr: &str) -> Result<Channel, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))
        .map_err(|error| Status::invalid_argument(error.to_string()))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    endpoint
        .connect()
        .await
        .map_err(|error| Status::unavailable(chain(&error)))
}

/// An error with its causes: the transport's own text says nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn late(_elapsed: tokio::time::error::Elapsed) -> Status {
    Status::deadline_exceeded("no answer to the handshake")
}

/// Jitter and loss need no secrecy; without entropy they are the same at each start.
fn seeded() -> SmallRng {
    SmallRng::seed_from_u64(getrandom::u64().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_core::ids::GroupId;
    use meridian_core::message::Image;

    fn messages(count: u64) -> Vec<PeerMessage> {
        let lost = |image| PeerMessage::Image {
            group: GroupId::CONTROL,
            body: Image::Lost { image },
        };
        (0..count).map(lost).collect()
    }

    fn kept(rule: Rule) -> usize {
        condition(messages(1000), rule, &mut SmallRng::seed_from_u64(1))
            .map_or(0, |batch| batch.messages.len())
    }

    #[test]
    fn a_block_swallows_everything_and_a_loss_its_share() {
        assert_eq!(kept(Rule::default()), 1000);
        assert_eq!(
            kept(Rule {
                blocked: true,
                ..Rule::default()
            }),
            0
        );
        assert_eq!(
            kept(Rule {
                loss: 1.0,
                ..Rule::default()
            }),
            0
        );
        let half = kept(Rule {
            loss: 0.5,
            ..Rule::default()
        });
        assert!((400..600).contains(&half), "{half}");
    }
}
