//! The side that must refuse, and still answers what it holds.

use std::time::Duration;

use meridian_client::proto::kv::v1::read_level::Kind;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::KEYSPACE;
use crate::local::ask::{Asker, Told, level};

/// From one round of questions to the next.
const EVERY: Duration = Duration::from_millis(50);

/// What was asked on the minority side, and what came of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// Of strong operations that were refused: how long it took, and why.
    pub(super) refused: Vec<(Duration, String)>,
    /// Strong operations that were done.
    pub(super) done: Vec<String>,
    /// Times of eventual gets.
    pub(super) eventual: Vec<Duration>,
    /// Reasons of eventual gets that were not answered.
    pub(super) unanswered: Vec<String>,
}

impl Asked {
    fn strong<T>(&mut self, what: &str, told: Told<T>) {
        match told {
            (_, Ok(_)) => self.done.push(what.to_owned()),
            (time, Err(error)) => self.refused.push((time, error.reason().to_owned())),
        }
    }

    fn eventual<T>(&mut self, told: Told<T>) {
        match told {
            (time, Ok(_)) => self.eventual.push(time),
            (_, Err(error)) => self.unanswered.push(error.to_string()),
        }
    }
}

/// Questions under way.
pub(super) struct Minority {
    stop: watch::Sender<bool>,
    kinds: Vec<JoinHandle<Asked>>,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
enum Question {
    Put,
    Linearizable,
    Eventual,
}

impl Minority {
    /// Begins to ask; each kind by itself, since a refusal may take long.
    pub(super) fn begin(asker: &Asker, keys: &[String]) -> Self {
        let (stop, stopped) = watch::channel(false);
        let questions = [Question::Put, Question::Linearizable, Question::Eventual];
        let kinds = questions.map(|question| {
            tokio::spawn(ask(asker.clone(), keys.to_vec(), question, stopped.clone()))
        });
        Self {
            stop,
            kinds: kinds.into(),
        }
    }

    /// Ends it, and gives what came of it.
    pub(super) async fn end(self) -> Result<Asked, String> {
        self.stop.send_replace(true);
        let mut all = Asked::default();
        for kind in self.kinds {
            let asked = kind.await.map_err(|error| error.to_string())?;
            all.refused.extend(asked.refused);
            all.done.extend(asked.done);
            all.eventual.extend(asked.eventual);
            all.unanswered.extend(asked.unanswered);
        }
        Ok(all)
    }
}

async fn ask(
    asker: Asker,
    keys: Vec<String>,
    question: Question,
    stopped: watch::Receiver<bool>,
) -> Asked {
    let mut asked = Asked::default();
    for key in keys.iter().cycle() {
        if *stopped.borrow() {
            break;
        }
        match question {
            Question::Put => asked.strong("put", asker.put(KEYSPACE, (key, "minority")).await),
            Question::Linearizable => {
                let get = asker.get(KEYSPACE, key, level(Kind::Linearizable)).await;
                asked.strong("linearizable get", get);
            }
            Question::Eventual => {
                asked.eventual(asker.get(KEYSPACE, key, level(Kind::Eventual)).await);
            }
        }
        tokio::time::sleep(EVERY).await;
    }
    asked
}
