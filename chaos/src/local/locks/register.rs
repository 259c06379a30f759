//! What the contenders act on: a register that refuses a token older than the newest it has seen. It also writes down
//! who said what in which order, and stops some of those that hold the lease.
//!
//! An answer is given after the event is written down, so what one contender says before another asks is written before
//! it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::LocksArgs;

/// Something that happened, in the order of the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The contender.
    pub(super) holder: u32,
    /// What it did.
    pub(super) what: What,
}

/// What a contender did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It is about to ask for the lease.
    Asked,
    /// It got it.
    Held { token: u64 },
    /// It was stopped for longer than the lease stands.
    Paused { token: u64 },
    /// It acted.
    Acted { token: u64, accepted: bool },
    /// It is done, and about to give the lease up. `kept`: by its own clock it held the lease all the time.
    Done { token: u64, kept: bool },
}

/// See the module.
pub(super) struct Register {
    acquisitions: u64,
    ttl_ms: u64,
    pause_one_in: u64,
    state: Mutex<State>,
}

struct State {
    rng: SmallRng,
    events: Vec<Event>,
    taken: u64,
    newest: u64,
}

/// When a holder is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pause {
    #[default]
    Never,
    /// Before it acts the first time.
    BeforeActing,
    /// After it has acted once.
    Between,
}

/// A contender at the other end of a line.
#[derive(Default)]
struct Contender {
    number: u32,
    pid: Option<Pid>,
    pause: Pause,
}

impl Register {
    pub(super) fn new(args: &LocksArgs) -> Self {
        Self {
            acquisitions: args.acquisitions,
            ttl_ms: args.ttl,
            pause_one_in: args.pause_one_in,
            state: Mutex::new(State {
                rng: SmallRng::seed_from_u64(args.seed),
                events: Vec::new(),
                taken: 0,
                newest: 0,
            }),
        }
    }

    /// What happened so far.
    pub(super) fn events(&self) -> Vec<Event> {
        self.with(|state| state.events.clone())
    }

    /// How often the lease was taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.with(|state| state.taken)
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves contenders until it is aborted.
    pub(super) async fn serve(self: Arc<Self>, listener: UnixListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let register = Arc::clone(&self);
            // A contender that is gone needs no answer; its process's end tells more.
            tokio::spawn(async move { drop(register.converse(stream).await) });
        }
    }

    async fn converse(&self, stream: UnixStream) -> io::Result<()> {
        let mut lines = BufReader::new(stream);
        let mut contender = Contender::default();
        let mut question = String::new();
        while lines.read_line(&mut question).await? > 0 {
            let answer = self.answer(&mut contender, question.trim_end()).await?;
            lines.write_all(answer.as_bytes()).await?;
            question.clear();
        }
        Ok(())
    }

    async fn answer(&self, contender: &mut Contender, question: &str) -> io::Result<&'static str> {
        let words: Vec<&str> = question.split(' ').collect();
        match words.as_slice() {
            ["hello", number, pid] => {
                contender.number = number.parse().map_err(io::Error::other)?;
                let pid = pid.parse().map_err(io::Error::other)?;
                contender.pid = Pid::from_raw(pid);
                Ok("ok\n")
            }
            ["ask"] => Ok(self.asked(contender)),
            ["held", token] => {
                let token = token.parse().map_err(io::Error::other)?;
                contender.pause = self.held(contender, token);
                self.pause(contender, Pause::BeforeActing, token).await?;
                Ok("ok\n")
            }
            ["act", token] => {
                let token = token.parse().map_err(io::Error::other)?;
                let accepted = self.acted(contender, token);
                self.pause(contender, Pause::Between, token).await?;
                Ok(if accepted { "ok\n" } else { "stale\n" })
            }
            ["done", token, how] => {
                let token = token.parse().map_err(io::Error::other)?;
                let kept = *how == "kept";
                self.note(contender, What::Done { token, kept });
                Ok("ok\n")
            }
            _ => Err(io::Error::other(format!("{question:?} is no question"))),
        }
    }

    fn note(&self, contender: &Contender, what: What) {
        let holder = contender.number;
        self.with(|state| state.events.push(Event { holder, what }));
    }

    fn asked(&self, contender: &Contender) -> &'static str {
        if self.taken() >= self.acquisitions {
            return "stop\n";
        }
        self.note(contender, What::Asked);
        "go\n"
    }

    /// Notes a holder, and decides whether it is to be stopped.
    fn held(&self, contender: &Contender, token: u64) -> Pause {
        let holder = contender.number;
        self.with(|state| {
            let what = What::Held { token };
            state.events.push(Event { holder, what });
            state.taken = state.taken.saturating_add(1);
            let chosen = state.taken.checked_rem(self.pause_one_in) == Some(0);
            match (chosen, state.rng.random_bool(0.5)) {
                (false, _) => Pause::Never,
                (true, false) => Pause::BeforeActing,
                (true, true) => Pause::Between,
            }
        })
    }

    /// The fencing check: nothing older than the newest.
    fn acted(&self, contender: &Contender, token: u64) -> bool {
        let holder = contender.number;
        self.with(|state| {
            let accepted = token >= state.newest;
            state.newest = state.newest.max(token);
            let what = What::Acted { token, accepted };
            state.events.push(Event { holder, what });
            accepted
        })
    }

    /// Stops the process for longer than the lease stands, if it is to be stopped here.
    async fn pause(&self, contender: &mut Contender, here: Pause, token: u64) -> io::Result<()> {
        let Some(pid) = contender.pid.filter(|_| contender.pause == here) else {
            return Ok(());
        };
        contender.pause = Pause::Never;
        let extra_ms = self.with(|state| state.rng.random_range(0..=self.ttl_ms));
        let pause_ms = self.ttl_ms.saturating_mul(3) / 2;
        kill_process(pid, Signal::STOP)?;
        self.note(contender, What::Paused { token });
        tokio::time::sleep(Duration::from_millis(pause_ms.saturating_add(extra_ms))).await;
        kill_process(pid, Signal::CONT)?;
        Ok(())
    }
}
