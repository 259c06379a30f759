//! The queue between a watcher's task and its stream.
//!
//! Invariant: the reason of the end comes after everything that was queued before it.

use std::future::Future;
use std::time::Duration;

use meridian_proto::kv::v1 as kv;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::WatchStream;
use crate::convert::Failure;
use crate::task::AbortOnDrop;

/// Where the task puts messages.
pub(super) struct Inlet {
    messages: mpsc::Sender<kv::WatchResponse>,
    patience: Duration,
}

/// Where the stream takes them.
pub(super) struct Outlet {
    messages: mpsc::Receiver<kv::WatchResponse>,
}

/// A queue of at most `messages`, whose reader may take none for `patience` while it is full.
pub(super) fn queue(messages: usize, patience: Duration) -> (Inlet, Outlet) {
    let (sender, receiver) = mpsc::channel(messages);
    let inlet = Inlet {
        messages: sender,
        patience,
    };
    (inlet, Outlet { messages: receiver })
}

impl Inlet {
    /// Waits for room.
    pub(super) async fn send(&self, message: kv::WatchResponse) -> Result<(), Failure> {
        match timeout(self.patience, self.messages.send(message)).await {
            Ok(Ok(())) => Ok(()),
            // Nobody is there to read why.
            Ok(Err(_)) => Err(Failure::draining()),
            Err(_) => Err(Failure::watch_too_slow(self.patience)),
        }
    }

    /// Queues a message that may as well be left out.
    pub(super) fn offer(&self, message: kv::WatchResponse) {
        drop(self.messages.try_send(message));
    }
}

impl Outlet {
    /// What is queued while `task` runs, then why it ended. The task ends with the stream.
    pub(super) fn stream(
        self,
        task: impl Future<Output = Failure> + Send + 'static,
    ) -> WatchStream {
        let (reason, ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            // The stream may be gone.
            drop(reason.send(task.await));
        });
        let reading = Reading {
            messages: self.messages,
            ended: Some(ended),
            _task: AbortOnDrop(task),
        };
        Box::pin(futures::stream::unfold(reading, |mut reading| async move {
            let next = match reading.messages.recv().await {
                Some(message) => Ok(message),
                None => Err(reading.ended.take()?.await.ok()?.to_status()),
            };
            Some((next, reading))
        }))
    }
}

struct Reading {
    messages: mpsc::Receiver<kv::WatchResponse>,
    ended: Option<oneshot::Receiver<Failure>>,
    _task: AbortOnDrop,
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use tonic::Code;

    fn message(n: u8) -> kv::WatchResponse {
        kv::WatchResponse {
            revision: vec![n].into(),
            ..kv::WatchResponse::default()
        }
    }

    async fn fill(inlet: Inlet) -> Failure {
        for n in 0.. {
            if let Err(failure) = inlet.send(message(n)).await {
                return failure;
            }
        }
        Failure::draining()
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_cut_off_after_what_was_queued_for_it() {
        let (inlet, outlet) = queue(2, Duration::from_secs(10));
        let mut stream = outlet.stream(fill(inlet));
        let first = stream.next().await.unwrap().unwrap();
        assert_eq!(first, message(0));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(stream.next().await.unwrap().unwrap(), message(1));
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_secs(11)).await;
        let mut left = Vec::new();
        let status = loop {
            match stream.next().await.unwrap() {
                Ok(message) => left.push(message),
                Err(status) => break status,
            }
        };
        assert_eq!(left, [message(2), message(3)]);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_left_out_does_not_wait() {
        let (inlet, outlet) = queue(1, Duration::from_secs(10));
        inlet.offer(message(1));
        inlet.offer(message(2));
        drop(inlet);
        let all: Vec<_> = outlet.stream(async { Failure::draining() }).collect().await;
        assert_eq!(all.len(), 2, "{all:?}");
    }
}
