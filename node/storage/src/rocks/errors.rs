//! What RocksDB and the operating system say, in our words. The only place that looks at RocksDB's messages.

use std::path::Path;

use rocksdb::ErrorKind;

use crate::StorageError;

pub(super) fn from_rocksdb(error: &rocksdb::Error) -> StorageError {
    let detail = error.as_ref().to_owned();
    match error.kind() {
        ErrorKind::Corruption | ErrorKind::NotFound => StorageError::Corruption { detail },
        ErrorKind::NotSupported | ErrorKind::InvalidArgument | ErrorKind::ColumnFamilyDropped => {
            StorageError::Format { detail }
        }
        ErrorKind::IOError
        | ErrorKind::MergeInProgress
        | ErrorKind::Incomplete
        | ErrorKind::ShutdownInProgress
        | ErrorKind::TimedOut
        | ErrorKind::Aborted
        | ErrorKind::Busy
        | ErrorKind::Expired
        | ErrorKind::TryAgain
        | ErrorKind::CompactionTooLarge
        | ErrorKind::Unknown => StorageError::Io { detail },
    }
}

/// As [`from_rocksdb`], for opening `path`: there, a lock that is held has a name of its own.
pub(super) fn from_opening(path: &Path, error: &rocksdb::Error) -> StorageError {
    let text = error.as_ref();
    let names_the_lock =
        text.contains("While lock file") || text.contains("lock hold by current process");
    if error.kind() == ErrorKind::IOError && names_the_lock {
        return StorageError::Locked {
            path: path.to_path_buf(),
        };
    }
    from_rocksdb(error)
}

pub(super) fn from_io(what: &str, path: &Path, error: &std::io::Error) -> StorageError {
    StorageError::Io {
        detail: format!("{what} {}: {error}", path.display()),
    }
}
