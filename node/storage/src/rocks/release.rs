//! Deleted files give their blocks back little by little.
//!
//! Where the file system tells the disk of every block that becomes free (mount option `discard`, as many cloud images have it),
//! deleting a log or table file of 13 MB keeps the disk busy for 15 to 30 ms; each sync of the log waits for that, and
//! RocksDB deletes several files at once. So each file gets a second name in the folder `deleted`. Once RocksDB has deleted its own
//! one, the file is cut off from its end in small steps, with pauses, until nothing of it is left.
//!
//! What it is not: a condition for anything. Where a second name cannot be given, RocksDB's deletions do what they did before.
//! RocksDB has a rate limit for deletions (`SstFileManager`), which its binding does not offer.
//!
//! Invariants:
//! * only a file whose one name is in `deleted` is cut off: RocksDB deletes no file that it still reads;
//!   Where a power loss brings the first name back, with less behind it, it is of a file that the manifest, synced before
//!   the deletion, has dismissed: nothing of it is read;
//! * that name is the file's inode number, so it names no other file as long as it is there;
//! * what waits to be given back is bounded: past [`WAITING_BYTES_MAX`], or short of room, there are no pauses.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::space::Room;

/// Beside the database's files; RocksDB leaves alone what bears no name of its own.
const FOLDER: &str = "deleted";
/// Files live for seconds at least; one that does not is deleted as a whole.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A step keeps the disk busy for about half a millisecond.
const STEP_BYTES: u64 = 256 << 10;
/// With it 32 MiB are given back in a second, some times what a node deletes under its highest load.
const PAUSE: Duration = Duration::from_millis(8);
/// More than that waits for nothing.
const WAITING_BYTES_MAX: u64 = 256 << 20;

/// The thread that does it; ends when this is dropped.
#[derive(Debug)]
pub(super) struct Release {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Release {
    /// Of the files of a database's folder, of which so many bytes are to stay free.
    pub(super) fn start(path: &Path, reserve_bytes: u64) -> Self {
        let (stop, stopped) = channel();
        let work = Files::new(path, reserve_bytes);
        let named = std::thread::Builder::new().name("store-release".to_owned());
        // Without a thread, or after an error, RocksDB's deletions are as they would be without this module.
        let thread = named.spawn(move || drop(work.and_then(|mut work| work.run(&stopped))));
        Self {
            stop: Some(stop),
            thread: thread.ok(),
        }
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say; what it left over goes after the next start.
            drop(thread.join());
        }
    }
}

/// The files of a folder, and their second names.
struct Files {
    path: PathBuf,
    folder: PathBuf,
    reserve_bytes: u64,
    /// Inodes that have a name in the folder.
    known: BTreeSet<u64>,
}

/// A file that RocksDB has deleted.
#[derive(Debug, PartialEq, Eq)]
struct Orphan {
    inode: u64,
    bytes: u64,
}

impl Files {
    /// With what an earlier run has left over. Names of files that live are given anew: the folder may be a copy of another.
    fn new(path: &Path, reserve_bytes: u64) -> io::Result<Self> {
        let folder = path.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let mut known = BTreeSet::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let inode = name.to_str().and_then(|name| name.parse().ok());
            match inode {
                Some(inode) if entry.metadata()?.nlink() == 1 => {
                    known.insert(inode);
                }
                Some(_) | None => fs::remove_file(entry.path())?,
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
            folder,
            reserve_bytes,
            known,
        })
    }

    fn run(&mut self, stopped: &Receiver<()>) -> io::Result<()> {
        while !passes(LOOK_EVERY, stopped) {
            self.adopt()?;
            for orphan in self.orphans()? {
                if !self.give_back(&orphan, stopped)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Gives new files their second name.
    fn adopt(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if !is_data(&entry) || self.known.contains(&entry.ino()) {
                continue;
            }
            match fs::hard_link(entry.path(), self.name(entry.ino())) {
                Ok(()) => {
                    self.known.insert(entry.ino());
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn orphans(&self) -> io::Result<Vec<Orphan>> {
        let mut orphans = Vec::new();
        for inode in &self.known {
            let metadata = fs::metadata(self.name(*inode))?;
            if metadata.nlink() == 1 {
                let (inode, bytes) = (*inode, metadata.len());
                orphans.push(Orphan { inode, bytes });
            }
        }
        Ok(orphans)
    }

    /// Cuts a file off until nothing is left; false: it is to end before.
    fn give_back(&mut self, orphan: &Orphan, stopped: &Receiver<()>) -> io::Result<bool> {
        let pause = self.pause()?;
        let name = self.name(orphan.inode);
        let file = File::options().write(true).open(&name)?;
        let mut bytes = orphan.bytes;
        while bytes > 0 {
            bytes = bytes.saturating_sub(STEP_BYTES);
            file.set_len(bytes)?;
            if passes(pause, stopped) {
                return Ok(false);
            }
        }
        fs::remove_file(&name)?;
        self.known.remove(&orphan.inode);
        Ok(true)
    }

    /// The pause after each step of the next file.
    fn pause(&self) -> io::Result<Duration> {
        let waiting: u64 = self.orphans()?.iter().map(|orphan| orphan.bytes).sum();
        let is_short = Room::of(&self.path).is_ok_and(|room| room.is_short_of(self.reserve_bytes));
        let hurries = waiting > WAITING_BYTES_MAX || is_short;
        Ok(if hurries { Duration::ZERO } else { PAUSE })
    }

    fn name(&self, inode: u64) -> PathBuf {
        self.folder.join(inode.to_string())
    }
}

/// Lets a time pass; true when the end comes before.
fn passes(time: Duration, stopped: &Receiver<()>) -> bool {
    !matches!(stopped.recv_timeout(time), Err(RecvTimeoutError::Timeout))
}

/// Whether it is a file of the log or a table: what is large.
fn is_data(entry: &DirEntry) -> bool {
    let name = entry.path();
    let extension = name.extension();
    extension.is_some_and(|extension| extension == "log" || extension == "sst")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 3 * STEP_BYTES + 1;

    struct Store {
        folder: tempfile::TempDir,
        _stop: Sender<()>,
        stopped: Receiver<()>,
    }

    impl Store {
        fn new() -> Self {
            let (stop, stopped) = channel();
            let store = Self {
                folder: tempfile::tempdir().unwrap(),
                _stop: stop,
                stopped,
            };
            store.write("000001.log");
            store
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str) {
            let bytes = usize::try_from(BYTES).unwrap();
            fs::write(self.path(name), vec![7; bytes]).unwrap();
        }

        fn files(&self) -> Files {
            Files::new(self.folder.path(), 0).unwrap()
        }

        fn second_names(&self) -> usize {
            fs::read_dir(self.path(FOLDER)).unwrap().count()
        }
    }

    #[test]
    fn a_file_that_lives_keeps_its_bytes_and_one_that_is_deleted_goes() {
        let store = Store::new();
        store.write("000002.sst");
        store.write("MANIFEST-000003");
        let mut files = store.files();
        files.adopt().unwrap();
        files.adopt().unwrap();
        assert_eq!(
            (store.second_names(), files.orphans().unwrap()),
            (2, vec![])
        );
        fs::remove_file(store.path("000001.log")).unwrap();
        let orphans = files.orphans().unwrap();
        assert_eq!(orphans.iter().map(|one| one.bytes).sum::<u64>(), BYTES);
        for orphan in &orphans {
            assert!(files.give_back(orphan, &store.stopped).unwrap());
        }
        assert_eq!(
            (store.second_names(), files.orphans().unwrap()),
            (1, vec![])
        );
        assert_eq!(fs::metadata(store.path("000002.sst")).unwrap().len(), BYTES);
    }

    #[test]
    fn what_an_earlier_run_left_over_goes_and_what_lives_does_not() {
        let store = Store::new();
        let mut files = store.files();
        files.adopt().unwrap();
        store.write("000002.sst");
        files.adopt().unwrap();
        drop(files);
        fs::remove_file(store.path("000001.log")).unwrap();
        // A copy of a folder has names that are not its inodes.
        fs::hard_link(store.path("000002.sst"), store.path(FOLDER).join("1")).unwrap();
        let mut files = store.files();
        assert_eq!(
            (store.second_names(), files.orphans().unwrap().len()),
            (1, 1)
        );
        files.adopt().unwrap();
        for orphan in files.orphans().unwrap() {
            assert!(files.give_back(&orphan, &store.stopped).unwrap());
        }
        assert_eq!(store.second_names(), 1);
        assert_eq!(fs::metadata(store.path("000002.sst")).unwrap().len(), BYTES);
    }

    #[test]
    fn it_ends_in_the_middle_of_a_file_when_it_is_told_to() {
        let store = Store::new();
        let mut files = store.files();
        files.adopt().unwrap();
        fs::remove_file(store.path("000001.log")).unwrap();
        let orphan = files.orphans().unwrap().pop().unwrap();
        let (stop, stopped) = channel();
        drop(stop);
        assert!(!files.give_back(&orphan, &stopped).unwrap());
        let left = files.orphans().unwrap().pop().unwrap();
        assert_eq!(left.bytes, BYTES - STEP_BYTES);
    }
}
