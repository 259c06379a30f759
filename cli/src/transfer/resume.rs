//! Where an interrupted transfer goes on: a small file beside the input or output.
//!
//! It is written often and replaced in one step, so that even a killed process leaves a usable one. Repeating a few
//! records after it is harmless: an import writes the same values again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exit::Failure;

/// Progress of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImportProgress {
    /// What is imported, and where to.
    pub(super) input: Input,
    /// Everything before this byte is done, or was reported as malformed.
    pub(super) offset: u64,
    /// The line that begins there.
    pub(super) line: u64,
    /// Records stored before the interruption.
    pub(super) imported: u64,
}

/// Tells whether a file is still the one that was being imported, to the same place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Input {
    pub(super) keyspace: String,
    pub(super) format: String,
    pub(super) bytes: u64,
    pub(super) modified_ms: u64,
}

impl Input {
    pub(super) fn of(metadata: &std::fs::Metadata, keyspace: &str, format: &str) -> Self {
        let modified = metadata.modified().ok();
        let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self {
            keyspace: keyspace.to_owned(),
            format: format.to_owned(),
            bytes: metadata.len(),
            modified_ms: since.map_or(0, crate::json::millis),
        }
    }
}

/// Progress of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExportProgress {
    /// What is exported, as text.
    pub(super) query: String,
    /// The last key written, in base64.
    pub(super) last_key: String,
    /// Bytes of the file up to the end of its record.
    pub(super) bytes: u64,
    pub(super) exported: u64,
}

/// The file that progress is kept in.
pub(super) struct ResumeFile {
    path: PathBuf,
}

impl ResumeFile {
    /// `wanted`, or a hidden file beside `file`; none for standard input or output.
    pub(super) fn at(wanted: Option<&Path>, file: &Path, suffix: &str) -> Option<Self> {
        let path = match wanted {
            Some(path) => path.to_owned(),
            None if file == Path::new("-") => return None,
            None => {
                let mut name = OsString::from(".");
                name.push(file.file_name()?);
                name.push(suffix);
                file.with_file_name(name)
            }
        };
        Some(Self { path })
    }

    /// What was kept. A file that cannot be understood counts as none.
    pub(super) fn load<T: DeserializeOwned>(&self) -> Option<T> {
        let text = std::fs::read(&self.path).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub(super) fn save<T: Serialize>(&self, progress: &T) -> Result<(), Failure> {
        let text = serde_json::to_vec(progress).map_err(|error| self.failure(&error))?;
        let mut next = self.path.clone().into_os_string();
        next.push(".next");
        std::fs::write(&next, text).map_err(|error| self.failure(&error))?;
        std::fs::rename(&next, &self.path).map_err(|error| self.failure(&error))
    }

    /// Nothing is left to go on with.
    pub(super) fn remove(&self) {
        drop(std::fs::remove_file(&self.path));
    }

    fn failure(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::other(format!("{}: {error}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_kept_beside_the_file_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data.jsonl");
        let resume = ResumeFile::at(None, &file, ".kv-import").unwrap();
        assert_eq!(resume.load::<ImportProgress>(), None);
        let progress = ImportProgress {
            offset: 7,
            line: 2,
            ..ImportProgress::default()
        };
        resume.save(&progress).unwrap();
        assert!(folder.path().join(".data.jsonl.kv-import").exists());
        assert_eq!(resume.load(), Some(progress));
        resume.remove();
        assert_eq!(resume.load::<ImportProgress>(), None);
    }

    #[test]
    fn a_damaged_progress_file_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("progress");
        std::fs::write(&path, "{\"offset\":").unwrap();
        let resume = ResumeFile::at(Some(&path), Path::new("-"), "").unwrap();
        assert_eq!(resume.load::<ImportProgress>(), None);
    }

    #[test]
    fn standard_input_keeps_no_progress_unless_told_where() {
        assert!(ResumeFile::at(None, Path::new("-"), ".kv-import").is_none());
    }
}
