//! The data directory: whose it is, which format it has, and that nobody else has it open.
//!
//! ```text
//! DIR/LOCK      locked for the life of the process
//! DIR/FORMAT    the version of everything below, one number
//! DIR/node.toml cluster, node id, node name, random id of the store
//! DIR/store/    the engine's
//! ```
//!
//! FORMAT is written last when a directory is made: one without it is one whose making was interrupted, and is made
//! again. What the core knows of its identity stands in the store; this is the check before anything is opened.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use meridian_core::ids::NodeId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of the data directory that this program writes, and the newest it reads.
const FORMAT: u32 = 1;

/// How often is looked whether the process that has the directory has ended.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Why a data directory was refused.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// The operating system failed a call.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has it.
    #[error("data directory {} is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A newer program wrote it.
    #[error("data directory {} has format {found}, this program reads up to {FORMAT}", path.display())]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: u32,
    },
    /// A file in it is not what it should be.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// It belongs to somebody else.
    #[error("data directory {} belongs to {what} {found}, this is {what} {expected}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What it says.
        found: String,
        /// What this node is.
        expected: String,
    },
}

/// Whose a directory is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    cluster: String,
    node_id: u64,
    node: String,
    store: String,
}

/// A data directory that is ours, and locked.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Takes the directory for a node, making it when there is none. A process that is just ending may keep it for as
    /// long as `patience`.
    pub fn open(
        path: &Path,
        cluster: &str,
        (node, name): (NodeId, &str),
        patience: Duration,
    ) -> Result<Self, DataDirError> {
        fs::create_dir_all(path).map_err(|source| failed("create", path, source))?;
        let lock = lock(path, patience)?;
        let dir = Self {
            path: path.to_owned(),
            _lock: lock,
        };
        match dir.format()? {
            Some(found) if found > FORMAT => {
                return Err(DataDirError::NewerFormat {
                    path: dir.path,
                    found,
                });
            }
            Some(_) => dir.check(cluster, node, name)?,
            None => dir.make(cluster, node, name)?,
        }
        Ok(dir)
    }

    /// Where the engine keeps its files.
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    fn format(&self) -> Result<Option<u32>, DataDirError> {
        let path = self.path.join("FORMAT");
        match fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(format) => Ok(Some(format)),
                Err(_) => Err(DataDirError::Damaged {
                    path,
                    detail: format!("{:?} is not a number", text.trim()),
                }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("read", &path, source)),
        }
    }

    fn check(&self, cluster: &str, node: NodeId, name: &str) -> Result<(), DataDirError> {
        let path = self.path.join("node.toml");
        let text = fs::read_to_string(&path).map_err(|source| failed("read", &path, source))?;
        let identity: Identity = toml::from_str(&text).map_err(|error| DataDirError::Damaged {
            path,
            detail: error.to_string(),
        })?;
        self.same("cluster", identity.cluster, cluster.to_owned())?;
        self.same("node id", identity.node_id.to_string(), node.to_string())?;
        self.same("node", identity.node, name.to_owned())
    }

    fn same(
        &self,
        what: &'static str,
        found: String,
        expected: String,
    ) -> Result<(), DataDirError> {
        if found == expected {
            return Ok(());
        }
        Err(DataDirError::Foreign {
            path: self.path.clone(),
            what,
            found,
            expected,
        })
    }

    fn make(&self, cluster: &str, node: NodeId, name: &str) -> Result<(), DataDirError> {
        let mut store = [0; 16];
        getrandom::fill(&mut store)
            .map_err(|error| failed("name", &self.path, io::Error::other(error.to_string())))?;
        let identity = Identity {
            cluster: cluster.to_owned(),
            node_id: node.0,
            node: name.to_owned(),
            store: format!("{:032x}", u128::from_be_bytes(store)),
        };
        let text = toml::to_string(&identity).map_err(|error| DataDirError::Damaged {
            path: self.path.clone(),
            detail: error.to_string(),
        })?;
        self.write("node.toml", &text)?;
        self.write("FORMAT", &format!("{FORMAT}\n"))?;
        let sync = File::open(&self.path).and_then(|folder| folder.sync_all());
        sync.map_err(|source| failed("sync", &self.path, source))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), DataDirError> {
        let path = self.path.join(name);
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|source| failed("write", &path, source))
    }
}

fn lock(folder: &Path, patience: Duration) -> Result<File, DataDirError> {
    let path = folder.join("LOCK");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| failed("open", &path, source))?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if began.elapsed() < patience => {
                std::thread::sleep(LOCK_POLL);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(DataDirError::InUse {
                    path: folder.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path, source)),
        }
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> DataDirError {
    DataDirError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, cluster: &str, id: u64, name: &str) -> Result<DataDir, String> {
        DataDir::open(path, cluster, (NodeId(id), name), Duration::ZERO)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_directory_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        drop(open(&path, "demo", 1, "n1").unwrap());
        let identity = fs::read_to_string(path.join("node.toml")).unwrap();
        drop(open(&path, "demo", 1, "n1").unwrap());
        assert_eq!(
            fs::read_to_string(path.join("node.toml")).unwrap(),
            identity,
            "the identity is kept"
        );
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path(), "demo", 1, "n1").unwrap());
        let refused = |cluster, id, name| open(folder.path(), cluster, id, name).unwrap_err();
        assert!(refused("prod", 1, "n1").contains("belongs to cluster demo, this is cluster prod"));
        assert!(refused("demo", 2, "n1").contains("belongs to node id 1, this is node id 2"));
        assert!(refused("demo", 1, "n2").contains("belongs to node n1, this is node n2"));
    }

    #[test]
    fn a_newer_or_damaged_directory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path(), "demo", 1, "n1").unwrap());
        fs::write(folder.path().join("node.toml"), "cluster = 7").unwrap();
        assert!(
            open(folder.path(), "demo", 1, "n1")
                .unwrap_err()
                .contains("node.toml is damaged")
        );
        fs::write(folder.path().join("FORMAT"), "2\n").unwrap();
        assert!(
            open(folder.path(), "demo", 1, "n1")
                .unwrap_err()
                .contains("format 2, this program reads up to 1")
        );
        fs::write(folder.path().join("FORMAT"), "two").unwrap();
        assert!(
            open(folder.path(), "demo", 1, "n1")
                .unwrap_err()
                .contains("FORMAT is damaged")
        );
    }

    #[test]
    fn a_directory_in_use_is_refused_and_an_interrupted_one_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path(), "demo", 1, "n1").unwrap();
        assert!(
            open(folder.path(), "demo", 1, "n1")
                .unwrap_err()
                .contains("in use by another process")
        );
        drop(first);
        fs::remove_file(folder.path().join("FORMAT")).unwrap();
        open(folder.path(), "demo", 1, "n1").unwrap();
    }
}
