//! Where results and messages go.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::exit::Failure;
use crate::json;

/// Bytes that a shell keeps of the last command's output, for `expect`.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// Bytes written, kept for a later look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    pub(crate) fn clear(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    pub(crate) fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }

    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend(bytes.iter().take(room));
    }
}

/// Standard output and standard error, or what stands for them.
pub(crate) struct Out {
    pub(crate) json: bool,
    results: Box<dyn Write + Send>,
    messages: Box<dyn Write + Send>,
    kept: Option<Kept>,
    /// Progress may be drawn on standard error.
    pub(crate) progress: bool,
}

impl Out {
    /// The process's own.
    pub(crate) fn standard(json: bool) -> Self {
        Self {
            json,
            results: Box::new(io::BufWriter::new(io::stdout())),
            messages: Box::new(io::stderr()),
            kept: None,
            progress: io::stderr().is_terminal() && !json,
        }
    }

    /// The process's own, kept too.
    pub(crate) fn keeping(json: bool, kept: Kept) -> Self {
        Self {
            kept: Some(kept),
            ..Self::standard(json)
        }
    }

    /// Nowhere but where it is kept.
    #[cfg(test)]
    pub(crate) fn kept_only(json: bool, kept: Kept) -> Self {
        Self {
            json,
            results: Box::new(io::sink()),
            messages: Box::new(io::sink()),
            kept: Some(kept),
            progress: false,
        }
    }

    /// Results, as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(kept) = &self.kept {
            kept.keep(bytes);
        }
        self.results.write_all(bytes)?;
        self.results.flush()
    }

    /// One line of results.
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        self.bytes(format!("{line}\n").as_bytes())
    }

    /// One result as JSON.
    pub(crate) fn object(&mut self, object: &Value) -> io::Result<()> {
        self.line(&object.to_string())
    }

    /// A line for people. Nobody may be there to read it.
    pub(crate) fn note(&mut self, line: &str) {
        let line = format!("{line}\n");
        if let Some(kept) = &self.kept {
            kept.keep(line.as_bytes());
        }
        drop(self.messages.write_all(line.as_bytes()));
        drop(self.messages.flush());
    }

    /// A line for people, left out when output is for programs.
    pub(crate) fn hint(&mut self, line: &str) {
        if !self.json {
            self.note(line);
        }
    }

    /// Why a command was not carried out.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        if self.json {
            if let Some(object) = json::failure(failure) {
                self.note(&object.to_string());
            }
        } else if let Some(line) = crate::human::failure(failure) {
            self.note(&line);
        }
    }
}
