//! What is measured, in order.

use std::time::{Duration, Instant};

use meridian_client::Error;
use meridian_client::proto::admin::v1 as admin;
use meridian_client::proto::kv::v1 as wire;
use wire::read_level::Kind;

use crate::local::ask::{Asker, Told, level, told};
use crate::local::table::{median_and_most, ms, print};
use crate::local::zones::{Zones, text};

/// A strong operation that cannot be done is refused within this (issue: at once, bounded by a second), and a little for
/// the machine.
const REFUSED_WITHIN: Duration = Duration::from_millis(1_500);
/// How long the majority side may need to go on: five election timeouts of a second, at most.
const GOES_ON_WITHIN: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
/// How old a mirror gets between two cuts.
const INTERVAL_MS: u64 = 1_000;

/// The keyspaces, by name.
const KEYSPACES: [&str; 4] = ["sync", "sync-all", "async", "snapshot"];
/// The zone that is cut off and lost, and the home of the snapshot keyspace.
const LOST: usize = 2;

/// A cluster under measurement.
pub(super) struct Bench {
    zones: Zones,
    /// Promises that did not hold.
    pub(super) broken: Vec<String>,
}

impl Bench {
    pub(super) const fn new(zones: Zones) -> Self {
        Self {
            zones,
            broken: Vec::new(),
        }
    }

    fn asker(&self, zone: usize) -> Result<&Asker, String> {
        self.zones.asker(zone)
    }

    /// A keyspace of each mode, known to every node.
    pub(super) async fn create_keyspaces(&self) -> Result<(), String> {
        let home = self.zones.name(0)?;
        for name in KEYSPACES {
            let policy = match name {
                "sync" => admin::Policy {
                    mode: "sync".to_owned(),
                    home: home.clone(),
                    ..admin::Policy::default()
                },
                "sync-all" => admin::Policy {
                    mode: "sync".to_owned(),
                    ack: "all".to_owned(),
                    home: home.clone(),
                    ..admin::Policy::default()
                },
                "snapshot" => admin::Policy {
                    mode: "snapshot".to_owned(),
                    home: self.zones.name(LOST)?,
                    interval_ms: INTERVAL_MS,
                    ..admin::Policy::default()
                },
                mode => admin::Policy {
                    mode: mode.to_owned(),
                    ..admin::Policy::default()
                },
            };
            Box::pin(self.zones.create(name, 0, policy)).await?;
        }
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    /// Times of operations one after the other, in every zone.
    pub(super) async fn quiet(&self, operations: usize) -> Result<(), String> {
        let mut rows = Vec::new();
        for keyspace in KEYSPACES {
            for zone in 0..self.zones.count() {
                let asker = self.asker(zone)?;
                let (mut puts, mut gets, mut eventual) = (Vec::new(), Vec::new(), Vec::new());
                for n in 0..operations {
                    let key = format!("quiet-{zone}-{n}");
                    puts.push(asker.put(keyspace, (&key, "v")).await);
                    gets.push(asker.get(keyspace, &key, level(Kind::Linearizable)).await);
                    eventual.push(asker.get(keyspace, &key, level(Kind::Eventual)).await);
                }
                rows.push([
                    keyspace.to_owned(),
                    format!("{}", zone + 1),
                    times(puts),
                    times(gets),
                    times(eventual),
                ]);
            }
        }
        let head = [
            "keyspace",
            "client in zone",
            "put: median (most)",
            "linearizable get",
            "eventual get",
        ];
        print(head, &rows);
        Ok(())
    }

    /// Cuts one zone off, and asks on both sides.
    pub(super) async fn cut_off(&mut self) -> Result<(), String> {
        self.zones.block(LOST).await?;
        let mut rows = Vec::new();
        for keyspace in KEYSPACES {
            let asker = self.asker(LOST)?.clone();
            // The first is asked right after the cut, the others when it is known.
            let minority = async {
                let put = asker.put(keyspace, ("cut", "minority")).await;
                let get = asker
                    .get(keyspace, "quiet-0-0", level(Kind::Linearizable))
                    .await;
                let eventual = asker
                    .get(keyspace, "quiet-0-0", level(Kind::Eventual))
                    .await;
                (put, get, eventual)
            };
            let majority = self.goes_on(keyspace);
            let ((put, get, eventual), goes_on) = tokio::join!(minority, majority);
            self.judge_cut(keyspace, (&put, &get), &eventual);
            rows.push([
                keyspace.to_owned(),
                goes_on?,
                told(&put),
                told(&get),
                told(&eventual),
            ]);
        }
        let head = [
            "keyspace",
            "majority side: put",
            "cut off: put",
            "linearizable get",
            "eventual get",
        ];
        print(head, &rows);
        self.zones.heal(LOST).await?;
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    /// Until the majority side has done a put; or why it refuses.
    async fn goes_on(&self, keyspace: &str) -> Result<String, String> {
        let asker = self.asker(0)?;
        let begun = Instant::now();
        loop {
            let put = asker.put(keyspace, ("cut", "majority")).await;
            match &put.1 {
                Ok(_) => {
                    return Ok(format!(
                        "{}, {} after asking began",
                        told(&put),
                        ms(begun.elapsed())
                    ));
                }
                Err(error) if !error.is_retryable() => return Ok(told(&put)),
                Err(_) if begun.elapsed() >= GOES_ON_WITHIN => return Ok(told(&put)),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    fn judge_cut(
        &mut self,
        keyspace: &str,
        (put, get): (&Told<wire::Receipt>, &Told<wire::GetResponse>),
        eventual: &Told<wire::GetResponse>,
    ) {
        let mut broken = |what: String| self.broken.push(format!("{keyspace}: {what}"));
        if eventual.1.is_err() {
            broken(format!(
                "an eventual get in the zone cut off: {}",
                told(eventual)
            ));
        }
        let goes_on = matches!(keyspace, "async" | "snapshot");
        if goes_on && put.1.is_err() {
            broken(format!("a put in the zone cut off: {}", told(put)));
        }
        if !goes_on && put.1.is_ok() {
            broken("a put was acknowledged on the minority side".to_owned());
        }
        for (what, time) in [("put", put.0), ("linearizable get", get.0)] {
            if time > REFUSED_WITHIN {
                broken(format!("a {what} in the zone cut off took {}", ms(time)));
            }
        }
    }

    /// Writes in the zone that is about to be lost, then loses it, and counts what the others lack.
    pub(super) async fn lose(&mut self, time: Duration) -> Result<(), String> {
        let asker = self.asker(LOST)?.clone();
        let writers = KEYSPACES.map(|keyspace| tokio::spawn(write(asker.clone(), keyspace)));
        tokio::time::sleep(time).await;
        for node in self.zones.cluster.plan.nodes() {
            if node.zone == self.zones.name(LOST)? {
                self.zones.cluster.kill(&node.name)?;
            }
        }
        let mut acknowledged = Vec::new();
        for writer in writers {
            acknowledged.push(writer.await.map_err(text)?);
        }
        tokio::time::sleep(SETTLE).await;
        let mut rows = Vec::new();
        for (keyspace, count) in KEYSPACES.into_iter().zip(acknowledged) {
            let (missing, note) = self.missing(keyspace, count).await?;
            if keyspace.starts_with("sync") && missing > 0 {
                self.broken.push(format!(
                    "{keyspace}: {missing} acknowledged writes are lost"
                ));
            }
            rows.push([
                keyspace.to_owned(),
                count.to_string(),
                missing.to_string(),
                note,
            ]);
        }
        let head = [
            "keyspace",
            "acknowledged in the zone",
            "missing once it is lost",
            "what is missing",
        ];
        print(head, &rows);
        Ok(())
    }

    async fn missing(&self, keyspace: &str, count: u64) -> Result<(u64, String), String> {
        let asker = self.asker(0)?;
        let kind = if keyspace == "snapshot" {
            Kind::Eventual
        } else {
            Kind::Linearizable
        };
        let (mut missing, mut first, mut errors) = (0, None, String::new());
        for n in 0..count {
            match asker.get(keyspace, &lost_key(n), level(kind)).await.1 {
                Ok(get) if get.found => {}
                Ok(_) => {
                    missing += 1;
                    first.get_or_insert(n);
                }
                Err(error) => {
                    missing += 1;
                    errors = format!(", {}", error.reason());
                }
            }
        }
        let note = match first {
            Some(first) => format!("the last {} of {count}", count - first),
            None => "nothing".to_owned(),
        };
        Ok((missing, note + &errors))
    }
}

fn lost_key(n: u64) -> String {
    format!("lost-{n}")
}

/// Writes one key after the other until one is not acknowledged; how many were.
async fn write(asker: Asker, keyspace: &'static str) -> u64 {
    let mut count = 0;
    while asker.put(keyspace, (&lost_key(count), "v")).await.1.is_ok() {
        count += 1;
    }
    count
}

fn times<T>(asked: Vec<Told<T>>) -> String {
    let failed: Vec<&Error> = asked
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().err())
        .collect();
    if let Some(error) = failed.first() {
        return format!("{} ({} of {})", error.reason(), failed.len(), asked.len());
    }
    median_and_most(asked.into_iter().map(|(time, _)| time).collect())
}
