//! `shell`: commands line by line, and the verbs of the demo.
//!
//! A script stops at the first line that fails; lines from standard input all run, and a failed one is told by the exit
//! code; at a terminal nothing is lost by a mistake. An absent key and a key in conflict are answers, not failures.

mod parse;
mod source;

use clap::Parser as _;

use self::parse::{Line, parse};
pub(crate) use self::source::Source;
use crate::app::{App, Clients};
use crate::args::{Cli, Command, ShellArgs};
use crate::commands;
use crate::demo::RECORD_VARIABLE;
use crate::demo::cluster::Cluster;
use crate::exit::{Done, Failure, Outcome};
use crate::out::{Kept, Out};
use crate::settings::Settings;

const HELP: &str = "\
every command of kv, without the word kv: put, get, delete, scan, conflicts, resolve, status, …
use ZONE              go on in a zone          expect TEXT   fail unless the last output contains it
block A B, heal       cut and mend links       delay, loss   as kv fault
kill NODE, start NODE (demo)                   exit";

pub(crate) async fn run(args: ShellArgs, settings: &Settings, out: &mut Out) -> Outcome {
    let source = Source::open(args.script.as_deref())?;
    let record = std::env::var_os(RECORD_VARIABLE);
    let cluster = record.and_then(|path| Cluster::found_by(path.as_ref()));
    Shell::new(settings.clone(), cluster).run(source, out).await
}

/// Whether there is a next line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    GoOn,
    Leave,
}

/// The state between lines.
pub(crate) struct Shell {
    settings: Settings,
    clients: Clients,
    cluster: Option<Cluster>,
    last: Kept,
}

impl Shell {
    pub(crate) fn new(settings: Settings, cluster: Option<Cluster>) -> Self {
        Self {
            settings,
            clients: Clients::default(),
            cluster,
            last: Kept::default(),
        }
    }

    pub(crate) fn into_cluster(self) -> Option<Cluster> {
        self.cluster
    }

    pub(crate) async fn run(&mut self, mut source: Source, out: &mut Out) -> Outcome {
        let mut first_failure = None;
        let mut number = 0;
        // At a terminal an interrupt gives up the line; elsewhere nobody is there to go on.
        let typed = source.is_terminal();
        loop {
            let prompt = self.prompt();
            let next = tokio::select! {
                line = source.next(&prompt) => line?,
                _ = tokio::signal::ctrl_c(), if !typed => return Err(Failure::other("interrupted")),
            };
            let Some(line) = next else {
                break;
            };
            number += 1;
            if source.is_script() && !matches!(parse(&line), Ok(Line::Nothing)) {
                out.hint(&format!("> {}", line.trim()));
            }
            match self.line(&line, out.json).await {
                Ok(After::GoOn) => {}
                Ok(After::Leave) => break,
                Err(failure) => {
                    Out::keeping(out.json, self.last.clone()).failure(&failure);
                    if source.is_script() {
                        out.note(&format!("line {number} failed: {}", line.trim()));
                        return Err(Failure::Said(failure.code().max(1)));
                    }
                    first_failure.get_or_insert(failure.code().max(1));
                }
            }
        }
        match first_failure {
            Some(code) if !typed => Err(Failure::Said(code)),
            Some(_) | None => Ok(Done::AsAsked),
        }
    }

    fn prompt(&self) -> String {
        match &self.settings.zone {
            Some(zone) => format!("{zone}> "),
            None => "kv> ".to_owned(),
        }
    }

    async fn line(&mut self, line: &str, json: bool) -> Result<After, Failure> {
        match parse(line).map_err(Failure::Usage)? {
            Line::Nothing => Ok(After::GoOn),
            Line::Exit => Ok(After::Leave),
            Line::Help => self.say(json, HELP),
            Line::Use(zone) => {
                self.settings.zone = zone;
                Ok(After::GoOn)
            }
            Line::Expect(text) => self.expect(&text),
            Line::Kill(name) => {
                let killed = self.demo()?.kill(&name).await?;
                self.say(json, &told("killed", &killed, "does not run"))
            }
            Line::Start(name) => {
                let started = self.demo()?.start(&name).await?;
                self.say(json, &told("started", &started, "runs already"))
            }
            Line::Command(words) => self.command(words, json).await,
        }
    }

    fn say(&self, json: bool, text: &str) -> Result<After, Failure> {
        self.last.clear();
        Out::keeping(json, self.last.clone()).line(text)?;
        Ok(After::GoOn)
    }

    fn demo(&mut self) -> Result<&mut Cluster, Failure> {
        let missing = || Failure::usage("only in the shell of a demo");
        self.cluster.as_mut().ok_or_else(missing)
    }

    fn expect(&self, text: &str) -> Result<After, Failure> {
        let found = self.last.text();
        if found.contains(text) {
            return Ok(After::GoOn);
        }
        Err(Failure::other(format!(
            "expected {text:?} in the last output"
        )))
    }

    async fn command(&mut self, words: Vec<String>, json: bool) -> Result<After, Failure> {
        self.last.clear();
        let cli = match Cli::try_parse_from(std::iter::once("kv".to_owned()).chain(words)) {
            Ok(cli) => cli,
            Err(error) => return self.explain(&error, json),
        };
        let Command::OnCluster(command) = cli.command else {
            return Err(Failure::usage("this command cannot be used in a shell"));
        };
        let settings = self.settings.overridden_by(&cli.global);
        let mut out = Out::keeping(json || cli.global.json, self.last.clone());
        let mut app = App::new(settings, &mut self.clients, &mut out);
        let running = Box::pin(commands::run(&mut app, *command));
        tokio::select! {
            outcome = running => outcome.map(|_done| After::GoOn),
            _ = tokio::signal::ctrl_c() => Err(Failure::other("interrupted")),
        }
    }

    /// Help is an answer; what cannot be understood is a failure.
    fn explain(&self, error: &clap::Error, json: bool) -> Result<After, Failure> {
        let text = error.render().to_string();
        if error.use_stderr() {
            let text = text.trim_end();
            Err(Failure::Usage(
                text.strip_prefix("error: ").unwrap_or(text).to_owned(),
            ))
        } else {
            Out::keeping(json, self.last.clone()).line(text.trim_end())?;
            Ok(After::GoOn)
        }
    }
}

fn told(verb: &str, names: &[String], otherwise: &str) -> String {
    if names.is_empty() {
        otherwise.to_owned()
    } else {
        format!("{verb} {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shell() -> Shell {
        let settings = Settings {
            endpoints: vec!["127.0.0.1:1".to_owned()],
            zone: None,
            keyspace: None,
            timeout: Duration::from_millis(500),
            session: None,
            forward: false,
        };
        Shell::new(settings, None)
    }

    async fn script(lines: &str) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        std::fs::write(&path, lines).unwrap();
        let mut out = Out::kept_only(false, Kept::default());
        shell()
            .run(Source::open(Some(&path)).unwrap(), &mut out)
            .await
    }

    #[tokio::test]
    async fn a_script_that_does_what_it_expects_succeeds() {
        assert!(
            script("# help\nhelp\nexpect kill NODE\n!put k v\n")
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn a_script_stops_at_an_expectation_that_is_not_met() {
        let failure = script("help\nexpect nothing of this\nexit")
            .await
            .unwrap_err();
        assert_eq!(failure.code(), 1);
    }

    #[tokio::test]
    async fn a_script_stops_at_a_command_that_fails() {
        let failure = script("get k\nexit").await.unwrap_err();
        assert_eq!(failure.code(), 5);
        assert_eq!(script("frobnicate").await.unwrap_err().code(), 2);
        assert_eq!(script("kill n1").await.unwrap_err().code(), 2);
        assert_eq!(script("demo").await.unwrap_err().code(), 2);
    }

    #[tokio::test]
    async fn nothing_runs_after_leaving() {
        assert!(script("exit\nfrobnicate").await.is_ok());
    }

    #[tokio::test]
    async fn the_zone_in_use_is_shown_and_may_be_left() {
        let mut shell = shell();
        shell.line("use eu-west", false).await.unwrap();
        assert_eq!(shell.prompt(), "eu-west> ");
        shell.line("use", false).await.unwrap();
        assert_eq!(shell.prompt(), "kv> ");
    }
}
