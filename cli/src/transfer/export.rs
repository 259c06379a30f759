//! `export`: all records of a range, in order, as lines.
//!
//! A key in conflict gives one line for each live sibling, and is counted: a file of pairs cannot say more.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use indicatif::ProgressBar;
use meridian_client::{DEFAULT_KEYSPACE, Page, ScanQuery};
use serde_json::json;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::records::{Record, write};
use super::resume::{ExportProgress, ResumeFile};
use crate::app::{App, Session};
use crate::args::{ExportArgs, Format};
use crate::exit::{Done, Failure, Outcome};

const PAGE_KEYS: u32 = 1000;
const SAVE_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) async fn run(app: &mut App<'_>, args: ExportArgs) -> Outcome {
    let format = super::format_of(args.format, &args.file);
    let session = Session::of(&app.settings)?;
    let read = app.read_options(args.range.level, &session)?;
    let mut query = ScanQuery {
        page_size: PAGE_KEYS,
        ..args.range.query(read)
    };
    let keyspace = app.settings.keyspace.as_deref().unwrap_or(DEFAULT_KEYSPACE);
    let resume = ResumeFile::at(args.resume_file.as_deref(), &args.file, ".kv-export");
    let mut progress = ExportProgress {
        query: format!(
            "{keyspace} {format:?} {:?} {:?} {:?}",
            query.prefix, query.from, query.to
        ),
        ..ExportProgress::default()
    };
    let client = app.client().await?;
    let target = if args.file == Path::new("-") {
        Target::Output
    } else {
        let kept: Option<ExportProgress> = resume
            .as_ref()
            .filter(|_| !args.restart)
            .and_then(ResumeFile::load);
        if let Some(kept) = kept.filter(|kept| fits(kept, &progress, &args.file)) {
            query.from = after(&kept.last_key)?;
            app.out
                .hint(&format!("going on after {} records", kept.exported));
            progress = kept;
        }
        Target::File(open(&args.file, progress.bytes).await?)
    };
    let mut export = Export {
        format,
        target,
        resume,
        progress,
        in_conflict: 0,
        begun: Instant::now(),
        saved: Instant::now(),
        bar: super::progress_bar(app.out, None),
    };
    let mut scan = client.scan(query);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let page = tokio::select! {
            page = scan.next_page() => page,
            _ = &mut interrupted => return export.stopped(Failure::other("interrupted")).await,
        };
        match page {
            Ok(Some(page)) => export.add(app, page).await?,
            Ok(None) => break,
            Err(error) => return export.stopped(error.into()).await,
        }
    }
    export.finish(app).await
}

/// The file is still what the earlier export left, or longer.
fn fits(kept: &ExportProgress, now: &ExportProgress, file: &Path) -> bool {
    let bytes = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
    kept.query == now.query && bytes >= kept.bytes && !kept.last_key.is_empty()
}

/// The first possible key after the last one written.
fn after(last_key: &str) -> Result<Bytes, Failure> {
    let mut key = BASE64
        .decode(last_key)
        .map_err(|error| Failure::other(format!("resume file: {error}")))?;
    key.push(0);
    Ok(key.into())
}

async fn open(path: &Path, keep_bytes: u64) -> Result<File, Failure> {
    let opening = async {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .await?;
        file.set_len(keep_bytes).await?;
        file.seek(std::io::SeekFrom::Start(keep_bytes)).await?;
        Ok(file)
    };
    let opened: std::io::Result<File> = opening.await;
    opened.map_err(|error| Failure::other(format!("{}: {error}", path.display())))
}

enum Target {
    Output,
    File(File),
}

struct Export {
    format: Format,
    target: Target,
    resume: Option<ResumeFile>,
    progress: ExportProgress,
    in_conflict: u64,
    begun: Instant,
    saved: Instant,
    bar: ProgressBar,
}

impl Export {
    async fn add(&mut self, app: &mut App<'_>, page: Page) -> Result<(), Failure> {
        let mut lines = Vec::new();
        for entry in &page.entries {
            self.in_conflict += u64::from(entry.in_conflict());
            for sibling in entry.siblings.iter().filter(|sibling| !sibling.deleted) {
                let record = Record {
                    key: entry.key.clone(),
                    value: sibling.value.clone(),
                };
                write(self.format, &record, &mut lines);
                self.progress.exported += 1;
            }
            self.progress.last_key = BASE64.encode(&entry.key);
        }
        match &mut self.target {
            Target::Output => app.out.bytes(&lines)?,
            Target::File(file) => {
                file.write_all(&lines).await?;
                file.flush().await?;
            }
        }
        self.progress.bytes += u64::try_from(lines.len()).unwrap_or(0);
        self.bar
            .set_message(format!("{} records", self.progress.exported));
        self.bar.tick();
        if self.saved.elapsed() >= SAVE_INTERVAL {
            self.save().await?;
        }
        Ok(())
    }

    /// The file is on disk before the progress says so.
    async fn save(&mut self) -> Result<(), Failure> {
        self.saved = Instant::now();
        if let (Some(resume), Target::File(file)) = (&self.resume, &self.target) {
            file.sync_data().await?;
            resume.save(&self.progress)?;
        }
        Ok(())
    }

    async fn stopped(mut self, why: Failure) -> Outcome {
        self.bar.finish_and_clear();
        if self.progress.exported > 0 {
            self.save().await?;
        }
        Err(why)
    }

    async fn finish(self, app: &mut App<'_>) -> Outcome {
        self.bar.finish_and_clear();
        if let Target::File(file) = &self.target {
            file.sync_all().await?;
        }
        if let Some(resume) = &self.resume {
            resume.remove();
        }
        let exported = self.progress.exported;
        let seconds = self.begun.elapsed().as_secs_f64();
        if self.in_conflict > 0 {
            let keys = self.in_conflict;
            app.out.hint(&format!(
                "{keys} keys in conflict: each live sibling has its own line"
            ));
        }
        match &self.target {
            Target::Output => app.out.hint(&format!("exported {exported} records")),
            Target::File(_) if app.out.json => app.out.object(&json!({
                "exported": exported,
                "conflicts": self.in_conflict,
                "seconds": seconds,
            }))?,
            Target::File(_) => {
                app.out
                    .line(&format!("exported {exported} records in {seconds:.1} s"))?;
            }
        }
        Ok(Done::AsAsked)
    }
}
