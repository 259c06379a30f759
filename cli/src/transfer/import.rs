//! `import`: many records in flight, in the order of the file for each key.
//!
//! Invariant: everything before the place that is kept for resuming is stored, or was reported as malformed.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use indicatif::ProgressBar;
use meridian_client::{Client, DEFAULT_KEYSPACE, Error, ErrorKind, WriteOptions};
use serde_json::json;
use tokio::io::{AsyncBufRead, AsyncSeekExt as _, BufReader};

use super::lines::{Line, Lines};
use super::records::{Record, parse};
use super::resume::{ImportProgress, Input, ResumeFile};
use crate::app::App;
use crate::args::{Format, ImportArgs};
use crate::exit::{Done, Failure, Outcome};
use crate::out::Out;
use crate::{human, json as shapes};

const READ_BYTES: usize = 1 << 20;
const SAVE_INTERVAL: Duration = Duration::from_millis(500);
/// Failures told one by one; the others are counted.
const FAILURES_SHOWN_MAX: u64 = 50;

type Reader = Box<dyn AsyncBufRead + Unpin + Send>;

pub(crate) async fn run(app: &mut App<'_>, args: ImportArgs) -> Outcome {
    let format = super::format_of(args.format, &args.file);
    let keyspace = app
        .settings
        .keyspace
        .as_deref()
        .unwrap_or(DEFAULT_KEYSPACE)
        .to_owned();
    let resume = ResumeFile::at(args.resume_file.as_deref(), &args.file, ".kv-import");
    let (lines, input, progress) = open(&args, &keyspace, format, resume.as_ref()).await?;
    let client = app.client().await?;
    if progress.line > 1 {
        app.out.hint(&format!("going on at line {}", progress.line));
    }
    let size = (input.bytes > 0).then_some(input.bytes);
    let bar = super::progress_bar(app.out, size);
    let mut import = Import {
        client,
        format,
        lines,
        limits: Limits {
            in_flight: usize::from(args.in_flight),
            failures: args.max_failures.max(1),
        },
        input,
        resume,
        unfinished: BTreeMap::new(),
        keys: HashSet::new(),
        held: None,
        imported: progress.imported,
        before: progress.imported,
        failed: 0,
        begun: Instant::now(),
        bar,
    };
    let end = import.transfer(app.out).await?;
    import.bar.finish_and_clear();
    import.report(app.out, end)
}

/// The lines to read, what they come from, and how far an earlier import got.
async fn open(
    args: &ImportArgs,
    keyspace: &str,
    format: Format,
    resume: Option<&ResumeFile>,
) -> Result<(Lines<Reader>, Input, ImportProgress), Failure> {
    let format_name = match format {
        Format::Jsonl => "jsonl",
        Format::Tsv => "tsv",
    };
    let start = ImportProgress {
        line: 1,
        ..ImportProgress::default()
    };
    if args.file == Path::new("-") {
        let reader: Reader = Box::new(BufReader::with_capacity(READ_BYTES, tokio::io::stdin()));
        let input = Input {
            keyspace: keyspace.to_owned(),
            format: format_name.to_owned(),
            ..Input::default()
        };
        return Ok((Lines::new(reader, 1, 0), input, start));
    }
    let failed = |error| Failure::other(format!("{}: {error}", args.file.display()));
    let mut file = tokio::fs::File::open(&args.file).await.map_err(failed)?;
    let metadata = std::fs::metadata(&args.file).map_err(failed)?;
    let input = Input::of(&metadata, keyspace, format_name);
    let kept: Option<ImportProgress> = resume.filter(|_| !args.restart).and_then(ResumeFile::load);
    let progress = kept.filter(|kept| kept.input == input).unwrap_or(start);
    file.seek(std::io::SeekFrom::Start(progress.offset))
        .await
        .map_err(failed)?;
    let reader: Reader = Box::new(BufReader::with_capacity(READ_BYTES, file));
    let lines = Lines::new(reader, progress.line, progress.offset);
    Ok((lines, input, progress))
}

struct Limits {
    in_flight: usize,
    failures: u64,
}

/// How the reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All lines were read.
    Complete,
    /// Somebody asked to stop.
    Interrupted,
    /// Too many records failed.
    TooManyFailures,
}

/// What became of one record.
struct Stored {
    line: u64,
    key: Bytes,
    result: Result<(), Error>,
}

type Storing = BoxFuture<'static, Stored>;

struct Import {
    client: Client,
    format: Format,
    lines: Lines<Reader>,
    limits: Limits,
    input: Input,
    resume: Option<ResumeFile>,
    /// Where lines begin that are in flight, or failed in a way that another try may mend. At most `in_flight` and the
    /// number of failures allowed.
    unfinished: BTreeMap<u64, u64>,
    /// Keys in flight. Two records of one key are never in flight at once, since they could change places.
    keys: HashSet<Bytes>,
    /// A record that waits for its key.
    held: Option<(Line, Record)>,
    imported: u64,
    /// Imported before an interruption.
    before: u64,
    failed: u64,
    begun: Instant,
    bar: ProgressBar,
}

impl Import {
    async fn transfer(&mut self, out: &mut Out) -> Result<End, Failure> {
        let mut in_flight: FuturesUnordered<Storing> = FuturesUnordered::new();
        let mut ticks = tokio::time::interval(SAVE_INTERVAL);
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        let mut end = None;
        while end.is_none() || !in_flight.is_empty() {
            let room = in_flight.len() < self.limits.in_flight;
            let reading = end.is_none() && room && self.held.is_none();
            tokio::select! {
                Some(stored) = in_flight.next() => {
                    self.settle(stored, out);
                    if let Some(record) = self.release() {
                        in_flight.push(record);
                    }
                }
                line = self.lines.next(), if reading => match line {
                    Ok(Some(line)) => in_flight.extend(self.take(line, out)),
                    Ok(None) => end = Some(End::Complete),
                    Err(error) => return Err(Failure::other(format!("reading: {error}"))),
                },
                _ = ticks.tick() => self.tick()?,
                _ = &mut interrupted, if end.is_none() => end = Some(End::Interrupted),
            }
            if self.failed >= self.limits.failures {
                end = end.or(Some(End::TooManyFailures));
            }
            // A record that still waits for its key keeps the import going, even at the end of the file.
            if end == Some(End::Complete) && in_flight.is_empty() && self.held.is_some() {
                in_flight.extend(self.release());
            }
        }
        Ok(end.unwrap_or(End::Complete))
    }

    /// A line becomes a record in flight, or is reported, or waits for its key.
    fn take(&mut self, line: Line, out: &mut Out) -> Option<Storing> {
        let record = match &line.text {
            None => Err("the line is too long".to_owned()),
            Some(text) if text.is_empty() => return None,
            Some(text) => parse(self.format, text),
        };
        match record {
            Ok(record) => {
                self.unfinished.insert(line.number, line.start);
                self.held = Some((line, record));
                self.release()
            }
            Err(reason) => {
                self.complain(out, line.number, "MALFORMED", &reason);
                None
            }
        }
    }

    /// The held record, unless its key is in flight.
    fn release(&mut self) -> Option<Storing> {
        let (_, record) = self.held.as_ref()?;
        if !self.keys.insert(record.key.clone()) {
            return None;
        }
        let (line, record) = self.held.take()?;
        let client = self.client.clone();
        let storing = async move {
            let key = record.key.clone();
            let written = client
                .put(record.key, record.value, &WriteOptions::default())
                .await;
            Stored {
                line: line.number,
                key,
                result: written.map(drop),
            }
        };
        Some(storing.boxed())
    }

    fn settle(&mut self, stored: Stored, out: &mut Out) {
        self.keys.remove(&stored.key);
        match stored.result {
            Ok(()) => {
                self.unfinished.remove(&stored.line);
                self.imported += 1;
            }
            Err(error) => {
                if error.kind() == ErrorKind::InvalidArgument {
                    self.unfinished.remove(&stored.line);
                }
                let key = human::text(&stored.key);
                let reason = format!("{key}: {}", human::error(&error));
                self.complain(out, stored.line, error.reason(), &reason);
            }
        }
    }

    fn complain(&mut self, out: &mut Out, line: u64, reason: &str, message: &str) {
        self.failed += 1;
        if self.failed > FAILURES_SHOWN_MAX {
            return;
        }
        let message = format!("line {line}: {message}");
        let text = if out.json {
            shapes::local_error(reason, &message).to_string()
        } else {
            message
        };
        self.bar.suspend(|| out.note(&text));
    }

    /// Everything before this is done: number of the line, and where it begins.
    fn done_before(&self) -> (u64, u64) {
        match self.unfinished.first_key_value() {
            Some((line, start)) => (*line, *start),
            None => self.lines.position(),
        }
    }

    fn tick(&self) -> Result<(), Failure> {
        self.bar.set_position(self.lines.position().1);
        self.bar.set_message(format!("{} records", self.imported));
        self.save()
    }

    fn save(&self) -> Result<(), Failure> {
        let Some(resume) = &self.resume else {
            return Ok(());
        };
        let (line, offset) = self.done_before();
        resume.save(&ImportProgress {
            input: self.input.clone(),
            offset,
            line,
            imported: self.imported,
        })
    }

    fn report(&self, out: &mut Out, end: End) -> Outcome {
        let finished = end == End::Complete && self.unfinished.is_empty();
        match &self.resume {
            Some(resume) if finished => resume.remove(),
            Some(_) | None => self.save()?,
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        let imported = self.imported - self.before;
        if out.json {
            out.object(&json!({
                "imported": imported,
                "failed": self.failed,
                "resumed_after": self.before,
                "complete": end == End::Complete,
                "seconds": seconds,
            }))?;
        } else {
            let rate = records_per_second(imported, seconds);
            out.line(&format!(
                "imported {imported} records in {seconds:.1} s ({rate:.0}/s), {} failed",
                self.failed
            ))?;
        }
        if !finished && self.resume.is_some() {
            let line = self.done_before().0;
            out.hint(&format!("run it again to go on at line {line}"));
        }
        match end {
            End::Complete if self.failed == 0 => Ok(Done::AsAsked),
            End::Complete => Err(Failure::some_failed()),
            End::Interrupted => Err(Failure::other("interrupted")),
            End::TooManyFailures => Err(Failure::other("stopped: too many records failed")),
        }
    }
}

fn records_per_second(records: u64, seconds: f64) -> f64 {
    let records = u32::try_from(records).unwrap_or(u32::MAX);
    f64::from(records) / seconds.max(0.001)
}
