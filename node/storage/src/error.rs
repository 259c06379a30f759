//! Why the disk did not do what was asked.

use std::path::PathBuf;

/// An error of an engine. Whether an operation may have had an effect follows from the variant: see
/// [`StorageError::has_no_effect`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The operating system failed a call. A write may or may not be on disk; the engine is poisoned from here on.
    #[error("i/o error in the storage engine: {detail}")]
    Io {
        /// What was tried, and the system's words.
        detail: String,
    },
    /// Stored bytes do not match their checksum, or a file that must be there is not. What was asked for is lost here;
    /// other keys may be fine.
    #[error("corruption in the storage engine: {detail}")]
    Corruption {
        /// Where, as far as it is known.
        detail: String,
    },
    /// The write would have left less than the reserve free. Nothing was written.
    #[error("disk full: {free_bytes} bytes free, {reserve_bytes} bytes are kept in reserve")]
    DiskFull {
        /// Free for us on the file system.
        free_bytes: u64,
        /// What must stay free for the engine's own work.
        reserve_bytes: u64,
    },
    /// An earlier write has failed with unknown outcome. Only opening the engine again tells what is on disk.
    #[error("storage engine poisoned by an earlier failed write")]
    Poisoned,
    /// Another process, or another engine of this one, has the folder open.
    #[error("storage folder {} is in use", path.display())]
    Locked {
        /// The engine's folder.
        path: PathBuf,
    },
    /// The folder holds something that this engine does not understand: a newer format, or not an engine's folder.
    #[error("storage format not understood: {detail}")]
    Format {
        /// What was found.
        detail: String,
    },
}

impl StorageError {
    /// True when the operation surely changed nothing on disk.
    pub fn has_no_effect(&self) -> bool {
        match self {
            Self::DiskFull { .. } | Self::Poisoned | Self::Locked { .. } | Self::Format { .. } => {
                true
            }
            Self::Io { .. } | Self::Corruption { .. } => false,
        }
    }

    /// True when the same operation may succeed later on this engine.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            Self::Io { .. }
            | Self::Corruption { .. }
            | Self::Poisoned
            | Self::Locked { .. }
            | Self::Format { .. } => false,
        }
    }
}
