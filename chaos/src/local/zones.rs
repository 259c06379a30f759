//! Three zones of one node on real processes, as far apart as an experiment says: delays, blocks, keyspaces.
//!
//! What it is not: it measures nothing and judges nothing. Clients are never delayed; links between nodes are, at the node
//! that sends.
//!
//! Invariant: a fault is set at every node that runs, or the call fails.

use std::time::{Duration, Instant};

use meridian_client::proto::admin::v1 as admin;
use meridian_client::proto::kv::v1::read_level::Kind;
use meridian_client::{Admin, Client, Error, NodeAdmin};

use super::ask::{Asker, level};
use super::cluster::{Cluster, Setting};
use super::plan::Shape;

/// Pairs of zones, in the order in which delays are given: 1-2, 2-3, 1-3.
pub(super) const PAIRS: [(usize, usize); 3] = [(0, 1), (1, 2), (0, 2)];

/// Deadline of one request of an asker: longer than any promise, so that what answers late is seen.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
const CALL_TIME_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// Enough keys that every shard of a small keyspace has one.
const PROBE_KEYS: u32 = 32;

/// The cluster, and a way to each of its zones.
pub(super) struct Zones {
    pub(super) cluster: Cluster,
    /// Names.
    pub(super) names: Vec<String>,
    /// One per zone, without retries.
    pub(super) askers: Vec<Asker>,
    /// Asks any zone; for operators' calls.
    pub(super) client: Client,
    /// Between the zones, one way, as `PAIRS` has them.
    delays: [Duration; 3],
}

pub(super) fn text(error: impl ToString) -> String {
    error.to_string()
}

/// Three delays in milliseconds, as they were given.
pub(super) fn three(delays_ms: &[u64]) -> Result<[u64; 3], String> {
    <[u64; 3]>::try_from(delays_ms)
        .map_err(|_other| format!("{} delays are given, three are wanted", delays_ms.len()))
}

/// What to start: the folder below which everything lies, and what the arguments say of nodes.
pub(super) struct Start<'a> {
    pub(super) folder: &'a std::path::Path,
    pub(super) program: Option<std::path::PathBuf>,
    pub(super) core_threads: u32,
    pub(super) delays_ms: [u64; 3],
}

impl Zones {
    /// Starts the nodes, waits until each zone serves, and moves the zones apart.
    pub(super) async fn start(start: Start<'_>) -> Result<Self, String> {
        let shape = Shape {
            zones: 3,
            nodes_per_zone: 1,
        };
        let cluster = Cluster::create(&Setting {
            shape,
            program: start.program,
            folder: start.folder.to_owned(),
            core_threads: start.core_threads,
            first_subnet: std::process::id().to_le_bytes()[0],
        })?;
        let mut cluster = cluster.allow_faults();
        cluster.start_all().await?;
        let names = cluster.plan.zones();
        let mut askers = Vec::new();
        for node in cluster.plan.nodes() {
            askers.push(Asker::connect(&node.addr(), REQUEST_TIME_MAX).await?);
        }
        let first = names.first().ok_or("a cluster without zones")?;
        let client = cluster.client(first, CALL_TIME_MAX).await.map_err(text)?;
        let zones = Self {
            cluster,
            names,
            askers,
            client,
            delays: start.delays_ms.map(Duration::from_millis),
        };
        zones.move_apart().await?;
        Ok(zones)
    }

    pub(super) fn admin(&self) -> Admin {
        self.client.admin()
    }

    /// How many there are.
    pub(super) const fn count(&self) -> usize {
        self.names.len()
    }

    pub(super) fn asker(&self, zone: usize) -> Result<&Asker, String> {
        let asker = self.askers.get(zone);
        asker.ok_or_else(|| format!("no zone {}", zone + 1))
    }

    pub(super) fn name(&self, zone: usize) -> Result<String, String> {
        let name = self.names.get(zone).cloned();
        name.ok_or_else(|| format!("no zone {}", zone + 1))
    }

    /// The delay from one zone to another.
    pub(super) fn delay(&self, from: usize, to: usize) -> Duration {
        let place = PAIRS
            .iter()
            .position(|pair| *pair == (from, to) || *pair == (to, from));
        place
            .and_then(|place| self.delays.get(place).copied())
            .unwrap_or_default()
    }

    /// A client of each zone, for one keyspace, that never asks another.
    pub(super) async fn clients(&self, keyspace: &str) -> Result<Vec<Client>, String> {
        let mut clients = Vec::new();
        for name in &self.names {
            let client = self.cluster.client(name, CALL_TIME_MAX).await;
            clients.push(client.map_err(text)?.keyspace(keyspace));
        }
        Ok(clients)
    }

    /// Tells every node of the delays between the zones.
    pub(super) async fn move_apart(&self) -> Result<(), String> {
        for (from, to) in PAIRS {
            let delay_ms = u64::try_from(self.delay(from, to).as_millis()).unwrap_or(u64::MAX);
            let request = admin::FaultDelayRequest {
                from: self.name(from)?,
                to: self.name(to)?,
                delay_ms,
                one_way: false,
            };
            self.every_node(|node| {
                let request = request.clone();
                async move { node.fault_delay(request).await.map(drop) }
            })
            .await?;
        }
        Ok(())
    }

    /// Cuts a zone off from the others.
    pub(super) async fn block(&self, zone: usize) -> Result<(), String> {
        for (from, to) in self.links_of(zone)? {
            self.every_node(|node| {
                let (from, to) = (from.clone(), to.clone());
                let one_way = false;
                let block = admin::FaultBlockRequest { from, to, one_way };
                async move { node.fault_block(block).await.map(drop) }
            })
            .await?;
        }
        Ok(())
    }

    /// Undoes `block`.
    pub(super) async fn heal(&self, zone: usize) -> Result<(), String> {
        for (from, to) in self.links_of(zone)? {
            self.every_node(|node| {
                let heal = admin::FaultHealRequest {
                    from: from.clone(),
                    to: to.clone(),
                };
                async move { node.fault_heal(heal).await.map(drop) }
            })
            .await?;
        }
        Ok(())
    }

    fn links_of(&self, zone: usize) -> Result<Vec<(String, String)>, String> {
        let from = self.name(zone)?;
        let others = self.names.iter().filter(|name| **name != from);
        Ok(others.map(|to| (from.clone(), to.clone())).collect())
    }

    async fn every_node<F>(&self, call: impl Fn(NodeAdmin) -> F) -> Result<(), String>
    where
        F: Future<Output = Result<(), Error>>,
    {
        let told = self.admin().each_node(call).await;
        told.into_iter()
            .try_for_each(|(_, answer)| answer.map_err(text))
    }

    /// Creates a keyspace, and waits until every zone answers for every shard.
    pub(super) async fn create(
        &self,
        name: &str,
        shards: u32,
        policy: admin::Policy,
    ) -> Result<(), String> {
        let request = admin::KeyspaceCreateRequest {
            name: name.to_owned(),
            shards,
            policy: Some(policy),
            ..admin::KeyspaceCreateRequest::default()
        };
        let admin = self.admin();
        let created = admin.any_node(|node| {
            let request = request.clone();
            async move { node.keyspace_create(request).await }
        });
        created.await.map_err(text)?;
        for zone in 0..self.count() {
            self.serves(name, zone).await?;
        }
        Ok(())
    }

    /// Waits until a zone answers for every shard of a keyspace, whatever it answers.
    pub(super) async fn serves(&self, keyspace: &str, zone: usize) -> Result<(), String> {
        let until = Instant::now() + CALL_TIME_MAX;
        let asker = self.asker(zone)?;
        for n in 0..PROBE_KEYS {
            let key = format!("probe-{n}");
            while let (_, Err(error)) = asker.get(keyspace, &key, level(Kind::Eventual)).await {
                if Instant::now() >= until {
                    let zone = zone + 1;
                    return Err(format!("{keyspace} does not serve in zone {zone}: {error}"));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_delays_are_taken_and_any_other_number_is_refused() {
        assert_eq!(three(&[30, 50, 70]), Ok([30, 50, 70]));
        assert!(three(&[30, 50]).is_err());
        assert!(three(&[1, 2, 3, 4]).is_err());
    }
}
