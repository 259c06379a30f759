//! Opening a folder: who owns it, what its log says, and when that is not believed.
//!
//! After a crash the log ends somewhere behind the last sync, possibly in the middle of a record, and with several log
//! files alive possibly in each of them. RocksDB has two ways to read such a log, and neither alone keeps our promise:
//!
//! * *point in time* stops at the first record that does not fit, whatever the reason. So what is recovered is always a
//!   prefix of what was written, but damage inside the synced part passes for the end of the log: acknowledged
//!   writes would be gone without a word, and the replica could vote or acknowledge against what it had promised.
//! * *tolerate corrupted tail* accepts a record cut short by the end of a file, and reports everything else. But it goes
//!   on behind the cut with the next file, which can leave a hole.
//!
//! So the log is read twice. First without writing, the second way: damage that a crash cannot explain is
//! [`StorageError::Corruption`], and nothing has been touched. Then the first way, which drops what is behind a cut.
//! Everything synced is before it: a synced write syncs the older log files first. The bound on the log's length
//! (`wal_bytes`) bounds the price.
//!
//! Not told apart from a crash: damage to the *length* of a record in the last 32 KiB of a log file, since RocksDB
//! takes it for a cut. Closed log files are covered all the same, because the manifest keeps their synced sizes.

use std::fs::{File, TryLockError};
use std::path::Path;

use rocksdb::DBRecoveryMode;

use super::space::Room;
use super::{Db, errors, options};
use crate::{RocksOptions, StorageError};

/// Held as long as the engine lives. RocksDB has a lock of its own, but takes it too late for the first reading.
const LOCK_FILE: &str = "ENGINE_LOCK";
/// RocksDB's pointer to its newest manifest: a folder with data has it.
const CURRENT_FILE: &str = "CURRENT";

/// The opened database and the lock on its folder.
pub(super) fn open(path: &Path, options: &RocksOptions) -> Result<(Db, File), StorageError> {
    create(path)?;
    let lock = lock(path)?;
    let options = &options.fitted(Room::of(path)?.total_bytes);
    if path.join(CURRENT_FILE).exists() {
        let present = check_families(path)?;
        check_log(path, options, &present)?;
    } else {
        check_unused(path)?;
    }
    let db_options = options::database(options, DBRecoveryMode::PointInTime);
    let families = options::families(options, &options::known_families());
    let db = Db::open_cf_descriptors(&db_options, path, families)
        .map_err(|error| errors::from_opening(path, &error))?;
    Ok((db, lock))
}

/// Makes the folder, durably: a synced write means nothing in a folder that a crash removes.
fn create(path: &Path) -> Result<(), StorageError> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(|error| errors::from_io("create", path, &error))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let synced = File::open(parent).and_then(|folder| folder.sync_all());
    synced.map_err(|error| errors::from_io("sync", parent, &error))
}

fn lock(path: &Path) -> Result<File, StorageError> {
    let name = path.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name);
    let file = file.map_err(|error| errors::from_io("open", &name, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked {
            path: path.to_path_buf(),
        }),
        Err(TryLockError::Error(error)) => Err(errors::from_io("lock", &name, &error)),
    }
}

/// The families in the folder, all of them known. A crash while it was created may have left fewer.
fn check_families(path: &Path) -> Result<Vec<&'static str>, StorageError> {
    let stored = Db::list_cf(&rocksdb::Options::default(), path)
        .map_err(|error| errors::from_opening(path, &error))?;
    let known = options::known_families();
    if let Some(stranger) = stored.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(StorageError::Format {
            detail: format!("unknown column family {stranger:?}"),
        });
    }
    Ok(known
        .into_iter()
        .filter(|name| stored.iter().any(|found| found == name))
        .collect())
}

/// Reads the log without writing anything, and reports damage that a crash cannot explain.
fn check_log(
    path: &Path,
    options: &RocksOptions,
    present: &[&'static str],
) -> Result<(), StorageError> {
    if !has_files(path, |name, len| is_log(name) && len > 0)? {
        return Ok(());
    }
    let db_options = options::database(options, DBRecoveryMode::TolerateCorruptedTailRecords);
    let families = options::families(options, present);
    Db::open_cf_descriptors_read_only(&db_options, path, families, false)
        .map(drop)
        .map_err(|error| errors::from_opening(path, &error))
}

/// A folder without `CURRENT` would be filled anew: it must not hold anything.
fn check_unused(path: &Path) -> Result<(), StorageError> {
    let has_data = |name: &Path, len| {
        len > 0 && (is_log(name) || name.extension().is_some_and(|ext| ext == "sst"))
    };
    if has_files(path, has_data)? {
        return Err(StorageError::Corruption {
            detail: format!("{}: CURRENT is missing", path.display()),
        });
    }
    Ok(())
}

fn is_log(name: &Path) -> bool {
    name.extension().is_some_and(|ext| ext == "log")
}

fn has_files(path: &Path, wanted: impl Fn(&Path, u64) -> bool) -> Result<bool, StorageError> {
    let fail = |error: &std::io::Error| errors::from_io("list", path, error);
    for entry in std::fs::read_dir(path).map_err(|error| fail(&error))? {
        let entry = entry.map_err(|error| fail(&error))?;
        let len = entry.metadata().map_err(|error| fail(&error))?.len();
        if wanted(&entry.path(), len) {
            return Ok(true);
        }
    }
    Ok(false)
}
