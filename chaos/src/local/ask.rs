//! One request to one node, told by how long it took: no retries, no other node.

use std::time::{Duration, Instant};

use meridian_client::Error;
use meridian_client::proto::kv::v1 as wire;
use tonic::transport::Channel;
use wire::kv_client::KvClient;

use super::table::ms;

/// What a request comes to.
pub(super) type Told<T> = (Duration, Result<T, Error>);

/// What became of a request, and how fast.
pub(super) fn told<T>((time, answer): &Told<T>) -> String {
    match answer {
        Ok(_) => format!("done in {}", ms(*time)),
        Err(error) => format!("{} after {}", error.reason(), ms(*time)),
    }
}

/// A node, for the clients of its zone.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    client: KvClient<Channel>,
    deadline: Duration,
}

impl Asker {
    pub(super) async fn connect(addr: &str, deadline: Duration) -> Result<Self, String> {
        let endpoint = Channel::from_shared(format!("http://{addr}"));
        let channel = endpoint.map_err(|error| error.to_string())?.connect().await;
        let client = KvClient::new(channel.map_err(|error| error.to_string())?);
        Ok(Self { client, deadline })
    }

    fn timed<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.deadline);
        request
    }

    pub(super) async fn put(
        &self,
        keyspace: &str,
        (key, value): (&str, &str),
    ) -> Told<wire::Receipt> {
        let put = wire::Put {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..wire::Put::default()
        };
        let request = self.timed(wire::PutRequest {
            keyspace: keyspace.to_owned(),
            put: Some(put),
        });
        let begun = Instant::now();
        let answer = self.client.clone().put(request).await;
        let answer = answer
            .map(|written| written.into_inner().receipt.unwrap_or_default())
            .map_err(|status| Error::from_status(&status));
        (begun.elapsed(), answer)
    }

    pub(super) async fn get(
        &self,
        keyspace: &str,
        key: &str,
        level: wire::ReadLevel,
    ) -> Told<wire::GetResponse> {
        let get = wire::Get {
            key: key.to_owned().into(),
            level: Some(level),
            ..wire::Get::default()
        };
        let request = self.timed(wire::GetRequest {
            keyspace: keyspace.to_owned(),
            get: Some(get),
        });
        let begun = Instant::now();
        let answer = self.client.clone().get(request).await;
        let answer = answer
            .map(tonic::Response::into_inner)
            .map_err(|status| Error::from_status(&status));
        (begun.elapsed(), answer)
    }
}

/// A level without numbers.
pub(super) fn level(kind: wire::read_level::Kind) -> wire::ReadLevel {
    wire::ReadLevel {
        kind: kind.into(),
        ..wire::ReadLevel::default()
    }
}
