//! Where the lines of a shell come from: a terminal, standard input, or a script.

use std::io::{self, IsTerminal as _};
use std::path::Path;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};
use tokio::sync::mpsc;

use crate::exit::Failure;

/// Longest script.
const SCRIPT_BYTES_MAX: u64 = 16 << 20;

/// Lines of a shell.
pub(crate) enum Source {
    /// Somebody types.
    Terminal(Terminal),
    /// A pipe.
    Input(Lines<BufReader<Stdin>>),
    /// A file, read whole.
    Script(std::vec::IntoIter<String>),
}

impl Source {
    /// The script if there is one, else standard input.
    pub(crate) fn open(script: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = script else {
            let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
            return Ok(if terminal {
                Self::Terminal(Terminal::open()?)
            } else {
                Self::Input(BufReader::new(tokio::io::stdin()).lines())
            });
        };
        let failed = |error| Failure::other(format!("{}: {error}", path.display()));
        if std::fs::metadata(path).map_err(failed)?.len() > SCRIPT_BYTES_MAX {
            return Err(Failure::usage(format!("{} is too long", path.display())));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        Ok(Self::Script(lines.into_iter()))
    }

    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    pub(super) fn is_script(&self) -> bool {
        matches!(self, Self::Script(_))
    }

    /// The next line; `None` at the end.
    pub(crate) async fn next(&mut self, prompt: &str) -> Result<Option<String>, Failure> {
        match self {
            Self::Terminal(terminal) => Ok(terminal.next(prompt).await),
            Self::Input(lines) => Ok(lines.next_line().await?),
            Self::Script(lines) => Ok(lines.next()),
        }
    }
}

/// An editor in a thread of its own, since reading from a terminal blocks.
pub(crate) struct Terminal {
    prompts: std::sync::mpsc::Sender<String>,
    lines: mpsc::Receiver<Option<String>>,
}

impl Terminal {
    fn open() -> Result<Self, Failure> {
        let mut editor =
            DefaultEditor::new().map_err(|error| Failure::other(format!("terminal: {error}")))?;
        let (prompts, asked) = std::sync::mpsc::channel::<String>();
        let (typed, lines) = mpsc::channel(1);
        std::thread::spawn(move || {
            for prompt in asked {
                let line = read(&mut editor, &prompt);
                let ended = line.is_none();
                if typed.blocking_send(line).is_err() || ended {
                    return;
                }
            }
        });
        Ok(Self { prompts, lines })
    }

    async fn next(&mut self, prompt: &str) -> Option<String> {
        self.prompts.send(prompt.to_owned()).ok()?;
        self.lines.recv().await.flatten()
    }
}

/// An interrupt gives up the line, not the shell.
fn read(editor: &mut DefaultEditor, prompt: &str) -> Option<String> {
    match editor.readline(prompt) {
        Ok(line) => {
            // A history that cannot grow is no reason to stop.
            drop(editor.add_history_entry(&line));
            Some(line)
        }
        Err(ReadlineError::Interrupted) => Some(String::new()),
        Err(_ended) => None,
    }
}
