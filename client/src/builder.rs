//! How a client is described and connected.

use std::time::Duration;

use crate::DEFAULT_KEYSPACE;
use crate::admin::discover;
use crate::client::{Client, Inner, Links};
use crate::error::Error;
use crate::routes::Routes;

/// Endpoints are asked in parallel, so their number is bounded.
const ENDPOINTS_MAX: usize = 64;

/// Describes a client.
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    pub(crate) endpoints: Vec<String>,
    pub(crate) zone: Option<String>,
    pub(crate) stay_in_zone: bool,
    pub(crate) forward: bool,
    pub(crate) keyspace: String,
    pub(crate) timeout: Duration,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            zone: None,
            stay_in_zone: false,
            forward: false,
            keyspace: DEFAULT_KEYSPACE.to_owned(),
            timeout: Duration::from_secs(5),
        }
    }
}

impl ClientBuilder {
    /// Addresses HOST:PORT of some nodes of the cluster; the others are learned from them.
    #[must_use]
    pub fn endpoints<S: Into<String>>(mut self, endpoints: impl IntoIterator<Item = S>) -> Self {
        self.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// The zone whose nodes are asked first. Without one, the zone of the endpoint that answers first.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Never asks another zone, even when the wanted one does not answer.
    #[must_use]
    pub fn stay_in_zone(mut self) -> Self {
        self.stay_in_zone = true;
        self
    }

    /// Lets a node whose zone only mirrors a keyspace forward what is for the home zone, reads too. Without it such a node
    /// answers reads of the level `eventual` and `bounded` itself, and refuses the rest with `NOT_HOME_ZONE`.
    #[must_use]
    pub fn forward(mut self) -> Self {
        self.forward = true;
        self
    }

    /// The keyspace, `default` without one.
    #[must_use]
    pub fn keyspace(mut self, keyspace: impl Into<String>) -> Self {
        self.keyspace = keyspace.into();
        self
    }

    /// Deadline of every call, retries included. 5 s without one.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Learns the topology from the first endpoint that answers.
    pub async fn connect(self) -> Result<Client, Error> {
        if self.endpoints.is_empty() || self.endpoints.len() > ENDPOINTS_MAX {
            return Err(Error::invalid(format!(
                "{} endpoints given, need 1 to {ENDPOINTS_MAX}",
                self.endpoints.len()
            )));
        }
        let links = Links::default();
        let topology = discover(&self.endpoints, &links, self.timeout).await?;
        let routes = Routes::new(&topology, self.zone.as_deref(), |addr| links.to(addr))?;
        let keyspace = self.keyspace.clone();
        Ok(Client::from_parts(
            Inner::new(self, links, routes),
            &keyspace,
        ))
    }
}
