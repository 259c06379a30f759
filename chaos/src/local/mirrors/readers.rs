//! Readers: each reads all that one mirror shows, again and again, and judges it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meridian_client::{Client, ReadLevel, ReadOptions, ScanQuery};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::cut::Contents;

/// After a read, and after one that failed.
const PAUSE: Duration = Duration::from_millis(10);
/// Small pages, so that a read is several requests.
const PAGE: u32 = 50;
/// Findings of one reader that are kept.
const FOUND_MAX: usize = 20;

/// What a reader has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) zone: String,
    pub(super) reads: u64,
    pub(super) generations: u64,
    /// Reads that were not answered, by reason.
    pub(super) refused: BTreeMap<String, u64>,
    /// Promises that were broken.
    pub(super) found: Vec<String>,
    last: Option<(u64, Contents)>,
}

impl Seen {
    /// Judges what was shown as of a generation.
    fn note(&mut self, generation: u64, contents: Contents, (keys, shards): (usize, usize)) {
        self.reads += 1;
        let mut found = contents.mixed(keys, shards);
        if let Some((last, shown)) = &self.last {
            if generation < *last {
                found.push(format!("generation {generation} after {last}"));
            }
            if generation == *last && contents != *shown {
                found.push("it shows other contents than before".to_owned());
            }
        }
        self.generations += u64::from(
            self.last
                .as_ref()
                .is_none_or(|(last, _)| *last != generation),
        );
        let zone = self.zone.clone();
        let found = found
            .into_iter()
            .map(|what| format!("{zone}, generation {generation}: {what}"));
        self.found.extend(found);
        self.found.truncate(FOUND_MAX);
        self.last = Some((generation, contents));
    }

    /// Notes an answer that makes no sense.
    fn strange(&mut self, what: String) {
        if self.found.len() < FOUND_MAX {
            self.found.push(format!("{}: {what}", self.zone));
        }
    }
}

/// Readers under way.
pub(super) struct Readers {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    seen: Vec<Arc<Mutex<Seen>>>,
}

impl Readers {
    /// One reader for each zone but home.
    pub(super) fn begin(
        zones: &[String],
        clients: &[Client],
        (home, sizes): (usize, (usize, usize)),
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (mut tasks, mut all) = (Vec::new(), Vec::new());
        let mirrors = zones.iter().zip(clients).enumerate();
        for (_, (zone, client)) in mirrors.filter(|(zone, _)| *zone != home) {
            let seen = Arc::new(Mutex::new(Seen {
                zone: zone.clone(),
                ..Seen::default()
            }));
            all.push(Arc::clone(&seen));
            tasks.push(tokio::spawn(read(
                client.clone(),
                seen,
                sizes,
                stopped.clone(),
            )));
        }
        Self {
            stop,
            tasks,
            seen: all,
        }
    }

    /// Whether every mirror showed this at the last read.
    pub(super) fn show(&self, contents: &Contents) -> bool {
        self.seen.iter().all(|seen| {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.last
                .as_ref()
                .is_some_and(|(_, shown)| shown == contents)
        })
    }

    /// Ends them, and gives what they have seen.
    pub(super) async fn end(self) -> Result<Vec<Seen>, String> {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.map_err(|error| error.to_string())?;
        }
        let seen = self.seen.iter();
        let seen = seen
            .map(|seen| std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner)));
        Ok(seen.collect())
    }
}

async fn read(
    client: Client,
    seen: Arc<Mutex<Seen>>,
    sizes: (usize, usize),
    stopped: watch::Receiver<bool>,
) {
    while !*stopped.borrow() {
        let shown = shown(&client).await;
        {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            match shown {
                Ok(Some((generation, contents))) => seen.note(generation, contents, sizes),
                Ok(None) => {}
                Err(Unread::Refused(reason)) => *seen.refused.entry(reason).or_default() += 1,
                Err(Unread::Strange(what)) => seen.strange(what),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why there is nothing to judge.
enum Unread {
    Refused(String),
    Strange(String),
}

/// All that a mirror shows, and as of which generation; nothing when it shows nothing.
async fn shown(client: &Client) -> Result<Option<(u64, Contents)>, Unread> {
    let mut scan = client.scan(ScanQuery {
        page_size: PAGE,
        read: ReadOptions::level(ReadLevel::Eventual),
        ..ScanQuery::default()
    });
    let mut contents = Contents::default();
    let mut of = None;
    loop {
        let page = scan.next_page().await;
        let page = page.map_err(|error| Unread::Refused(error.reason().to_owned()))?;
        let Some(page) = page else {
            return Ok(of.map(|generation| (generation, contents)));
        };
        for entry in page.entries {
            let generation = entry.mirror.as_ref().map(|stamp| stamp.generation);
            let generation = generation.ok_or_else(|| {
                Unread::Strange("a mirror's answer without a generation".to_owned())
            })?;
            if *of.get_or_insert(generation) != generation {
                return Err(Unread::Strange(
                    "pages of one scan show two generations".to_owned(),
                ));
            }
            let value = entry.value().cloned().unwrap_or_default();
            contents.note(&entry.key, &value).map_err(Unread::Strange)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cut::key;
    use super::*;

    fn contents(number: u64) -> Contents {
        let mut contents = Contents::default();
        for place in 0..2 {
            let value = number.to_string();
            contents
                .note(key("batch-0", place).as_bytes(), value.as_bytes())
                .unwrap();
        }
        contents
    }

    fn found(shown: &[(u64, u64)]) -> usize {
        let mut seen = Seen::default();
        for (generation, number) in shown {
            seen.note(*generation, contents(*number), (2, 2));
        }
        seen.found.len()
    }

    #[test]
    fn generations_follow_one_another_and_each_has_one_content() {
        assert_eq!(found(&[(1, 1), (1, 1), (3, 2)]), 0);
        assert_eq!(found(&[(2, 2), (1, 1)]), 1);
        assert_eq!(found(&[(2, 2), (2, 1)]), 1);
    }
}
