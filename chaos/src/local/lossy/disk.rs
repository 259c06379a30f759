//! A disk that forgets at a crash what was not synced. Pure: no FUSE, no clock.
//!
//! What is modelled, as strictly as POSIX allows:
//! * bytes, lengths and truncations of a file are durable after an fsync or fdatasync of that file;
//! * entries of a folder (creations, removals, renames) are durable after an fsync of that folder, and only then: syncing
//!   a file does not make its name durable;
//! * a crash takes back, per file and per folder, everything after some point since its last sync. How much stays is the
//!   caller's choice: nothing, or any prefix, as when the system had begun to write back.
//!
//! What is not: reordering of writes inside one file, torn single writes, permissions, links, times that survive.
//!
//! How: the newest state is kept whole, and beside it what would undo each change since the last sync. A sync forgets
//! the undo log; a crash runs a part of it backwards. So the cost is that of what was written, not of what there is.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// The number of a file or folder.
pub type Inode = u64;
/// The number of the topmost folder.
pub const ROOT: Inode = 1;
/// Bytes of one file at most.
const FILE_SIZE_BYTES_MAX: u64 = 4 << 30;

/// Why an operation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No such file or folder.
    Absent,
    /// There is one already.
    Exists,
    /// The folder is not empty.
    NotEmpty,
    /// A folder was meant.
    NotFolder,
    /// A file was meant.
    IsFolder,
    /// Too large.
    TooLarge,
}

/// Takes back one change of a file: the length it had, and the bytes that were there.
#[derive(Debug)]
struct FileUndo {
    size: usize,
    at: usize,
    bytes: Vec<u8>,
}

/// Takes back one change of a folder: what the names stood for.
type FolderUndo = Vec<(OsString, Option<Inode>)>;

#[derive(Debug)]
enum Node {
    File {
        bytes: Vec<u8>,
        undo: Vec<FileUndo>,
    },
    Folder {
        names: BTreeMap<OsString, Inode>,
        undo: Vec<FolderUndo>,
    },
}

/// What a file or folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Its number.
    pub inode: Inode,
    /// Whether it is a folder.
    pub folder: bool,
    /// Length of a file.
    pub size: u64,
}

/// What a crash took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Changes of files.
    pub writes: usize,
    /// Changes of folders.
    pub entries: usize,
}

/// The disk.
#[derive(Debug)]
pub struct Disk {
    nodes: BTreeMap<Inode, Node>,
    open: BTreeMap<Inode, usize>,
    last: Inode,
    deaf: bool,
}

impl Default for Disk {
    fn default() -> Self {
        let root = Node::Folder {
            names: BTreeMap::new(),
            undo: Vec::new(),
        };
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            open: BTreeMap::new(),
            last: ROOT,
            deaf: false,
        }
    }
}

impl Disk {
    fn names(&self, folder: Inode) -> Result<&BTreeMap<OsString, Inode>, Refused> {
        match self.nodes.get(&folder) {
            Some(Node::Folder { names, undo: _ }) => Ok(names),
            Some(Node::File { .. }) => Err(Refused::NotFolder),
            None => Err(Refused::Absent),
        }
    }

    /// What an inode is.
    pub fn attributes(&self, inode: Inode) -> Result<Attributes, Refused> {
        match self.nodes.get(&inode) {
            Some(Node::File { bytes, undo: _ }) => Ok(Attributes {
                inode,
                folder: false,
                size: bytes.len() as u64,
            }),
            Some(Node::Folder { .. }) => Ok(Attributes {
                inode,
                folder: true,
                size: 0,
            }),
            None => Err(Refused::Absent),
        }
    }

    /// What a name stands for.
    pub fn lookup(&self, folder: Inode, name: &OsStr) -> Result<Attributes, Refused> {
        let inode = self
            .names(folder)?
            .get(name)
            .copied()
            .ok_or(Refused::Absent)?;
        self.attributes(inode)
    }

    /// Names of a folder, in order.
    pub fn list(&self, folder: Inode) -> Result<Vec<(OsString, Attributes)>, Refused> {
        let entries = self.names(folder)?.iter();
        entries
            .map(|(name, inode)| Ok((name.clone(), self.attributes(*inode)?)))
            .collect()
    }

    /// Changes names of a folder as one step.
    fn rename_to(
        &mut self,
        folder: Inode,
        changes: Vec<(OsString, Option<Inode>)>,
    ) -> Result<(), Refused> {
        let Some(Node::Folder { names, undo }) = self.nodes.get_mut(&folder) else {
            return Err(Refused::NotFolder);
        };
        let mut step = Vec::with_capacity(changes.len());
        for (name, inode) in changes {
            let before = set(names, name.clone(), inode);
            step.push((name, before));
        }
        undo.push(step);
        Ok(())
    }

    /// Makes an empty file or folder.
    pub fn create(
        &mut self,
        parent: Inode,
        name: &OsStr,
        folder: bool,
    ) -> Result<Attributes, Refused> {
        if self.names(parent)?.contains_key(name) {
            return Err(Refused::Exists);
        }
        self.last += 1;
        let inode = self.last;
        let node = if folder {
            Node::Folder {
                names: BTreeMap::new(),
                undo: Vec::new(),
            }
        } else {
            Node::File {
                bytes: Vec::new(),
                undo: Vec::new(),
            }
        };
        self.nodes.insert(inode, node);
        self.rename_to(parent, vec![(name.to_owned(), Some(inode))])?;
        self.attributes(inode)
    }

    /// Removes a name.
    pub fn remove(&mut self, parent: Inode, name: &OsStr, folder: bool) -> Result<(), Refused> {
        let found = self.lookup(parent, name)?;
        self.check_removable(found, folder)?;
        self.rename_to(parent, vec![(name.to_owned(), None)])
    }

    fn check_removable(&self, found: Attributes, folder: bool) -> Result<(), Refused> {
        match (found.folder, folder) {
            (true, false) => Err(Refused::IsFolder),
            (false, true) => Err(Refused::NotFolder),
            (true, true) if !self.names(found.inode)?.is_empty() => Err(Refused::NotEmpty),
            (true, true) | (false, false) => Ok(()),
        }
    }

    /// Renames; what bore the new name goes. Inside one folder that is one step, between two folders it is two.
    pub fn rename(
        &mut self,
        from: (Inode, &OsStr),
        to: (Inode, &OsStr),
        replace: bool,
    ) -> Result<(), Refused> {
        let moved = self.lookup(from.0, from.1)?;
        match self.lookup(to.0, to.1) {
            Ok(_) if !replace => return Err(Refused::Exists),
            Ok(found) if found.inode == moved.inode => return Ok(()),
            Ok(found) => self.check_removable(found, moved.folder)?,
            Err(Refused::Absent) => {}
            Err(refused) => return Err(refused),
        }
        let (gone, there) = (
            (from.1.to_owned(), None),
            (to.1.to_owned(), Some(moved.inode)),
        );
        if from.0 == to.0 {
            return self.rename_to(from.0, vec![gone, there]);
        }
        self.rename_to(to.0, vec![there])?;
        self.rename_to(from.0, vec![gone])
    }

    /// Bytes of a file; fewer at its end.
    pub fn read(&self, inode: Inode, at: u64, len: usize) -> Result<&[u8], Refused> {
        match self.nodes.get(&inode) {
            Some(Node::File { bytes, undo: _ }) => {
                let begin = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let end = begin.saturating_add(len).min(bytes.len());
                Ok(bytes.get(begin..end).unwrap_or_default())
            }
            Some(Node::Folder { .. }) => Err(Refused::IsFolder),
            None => Err(Refused::Absent),
        }
    }

    fn file(&mut self, inode: Inode) -> Result<(&mut Vec<u8>, &mut Vec<FileUndo>), Refused> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File { bytes, undo }) => Ok((bytes, undo)),
            Some(Node::Folder { .. }) => Err(Refused::IsFolder),
            None => Err(Refused::Absent),
        }
    }

    /// Writes; a gap before it is filled with zeros.
    pub fn write(&mut self, inode: Inode, at: u64, new: &[u8]) -> Result<(), Refused> {
        let end = at.saturating_add(new.len() as u64);
        if end > FILE_SIZE_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        let (at, end) = (to_usize(at), to_usize(end));
        let (bytes, undo) = self.file(inode)?;
        let size = bytes.len();
        let overwritten = bytes
            .get(at.min(size)..end.min(size))
            .unwrap_or_default()
            .to_vec();
        undo.push(FileUndo {
            size,
            at,
            bytes: overwritten,
        });
        if end > size {
            bytes.resize(end, 0);
        }
        if let Some(place) = bytes.get_mut(at..end) {
            place.copy_from_slice(new);
        }
        Ok(())
    }

    /// Cuts a file, or grows it with zeros.
    pub fn resize(&mut self, inode: Inode, size: u64) -> Result<(), Refused> {
        if size > FILE_SIZE_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        let size = to_usize(size);
        let (bytes, undo) = self.file(inode)?;
        let cut = bytes
            .get(size.min(bytes.len())..)
            .unwrap_or_default()
            .to_vec();
        undo.push(FileUndo {
            size: bytes.len(),
            at: size,
            bytes: cut,
        });
        bytes.resize(size, 0);
        Ok(())
    }

    /// From now on it says that a file is synced and does nothing: a liar, by which an experiment shows that it would
    /// notice. A crash ends it.
    pub fn deafen(&mut self) {
        self.deaf = true;
    }

    /// Makes durable what was done to a file, or to the names of a folder.
    pub fn sync(&mut self, inode: Inode) -> Result<(), Refused> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File { .. }) if self.deaf => {}
            Some(Node::File { bytes: _, undo }) => undo.clear(),
            Some(Node::Folder { names: _, undo }) => {
                undo.clear();
                self.forget_unnamed();
            }
            None => return Err(Refused::Absent),
        }
        Ok(())
    }

    /// A handle on the inode is opened: it stays readable without a name.
    pub fn opened(&mut self, inode: Inode) {
        *self.open.entry(inode).or_default() += 1;
    }

    /// A handle is closed.
    pub fn closed(&mut self, inode: Inode) {
        if let Some(handles) = self.open.get_mut(&inode) {
            *handles = handles.saturating_sub(1);
            if *handles == 0 {
                self.open.remove(&inode);
                self.forget_unnamed();
            }
        }
    }

    /// Lets go of whatever no name stands for, now or after a crash, and nobody has open.
    fn forget_unnamed(&mut self) {
        let mut kept: Vec<Inode> = vec![ROOT];
        kept.extend(self.open.keys());
        for node in self.nodes.values() {
            if let Node::Folder { names, undo } = node {
                kept.extend(names.values());
                kept.extend(undo.iter().flatten().filter_map(|(_, inode)| *inode));
            }
        }
        kept.sort_unstable();
        self.nodes
            .retain(|inode, _| kept.binary_search(inode).is_ok());
    }

    /// The machine goes. Of the `n` changes of each file and folder since its last sync, the first `keep(n)` stay.
    pub fn crash(&mut self, mut keep: impl FnMut(usize) -> usize) -> Lost {
        let mut lost = Lost::default();
        self.open.clear();
        self.deaf = false;
        for node in self.nodes.values_mut() {
            match node {
                Node::File { bytes, undo } => {
                    for FileUndo {
                        size,
                        at,
                        bytes: before,
                    } in undo.drain(keep(undo.len()).min(undo.len())..).rev()
                    {
                        bytes.resize(size, 0);
                        if let Some(place) = bytes.get_mut(at..at + before.len()) {
                            place.copy_from_slice(&before);
                        }
                        lost.writes += 1;
                    }
                    undo.clear();
                }
                Node::Folder { names, undo } => {
                    for step in undo.drain(keep(undo.len()).min(undo.len())..).rev() {
                        for (name, before) in step.into_iter().rev() {
                            set(names, name, before);
                        }
                        lost.entries += 1;
                    }
                    undo.clear();
                }
            }
        }
        self.forget_unnamed();
        lost
    }
}

/// Lets a name stand for something or nothing; gives what it stood for.
fn set(
    names: &mut BTreeMap<OsString, Inode>,
    name: OsString,
    inode: Option<Inode>,
) -> Option<Inode> {
    match inode {
        Some(inode) => names.insert(name, inode),
        None => names.remove(&name),
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    /// A disk with one durable file `f` that holds `durable`.
    fn with_file(durable: &[u8]) -> (Disk, Inode) {
        let mut disk = Disk::default();
        let file = disk.create(ROOT, name("f"), false).unwrap().inode;
        disk.write(file, 0, durable).unwrap();
        disk.sync(file).unwrap();
        disk.sync(ROOT).unwrap();
        (disk, file)
    }

    fn content(disk: &Disk, file: &str) -> Option<Vec<u8>> {
        let found = disk.lookup(ROOT, name(file)).ok()?;
        Some(disk.read(found.inode, 0, usize::MAX).unwrap().to_vec())
    }

    #[test]
    fn bytes_that_were_not_synced_are_gone_and_synced_ones_stay() {
        let (mut disk, file) = with_file(b"durable");
        disk.write(file, 7, b" and more").unwrap();
        disk.write(file, 0, b"D").unwrap();
        disk.resize(file, 3).unwrap();
        disk.write(file, 10, b"x").unwrap();
        assert_eq!(content(&disk, "f").unwrap(), b"Dur\0\0\0\0\0\0\0x");
        let lost = disk.crash(|_| 0);
        assert_eq!(
            lost,
            Lost {
                writes: 4,
                entries: 0
            }
        );
        assert_eq!(content(&disk, "f").unwrap(), b"durable");
    }

    #[test]
    fn a_deaf_disk_loses_what_it_said_was_synced() {
        let (mut disk, file) = with_file(b"durable");
        disk.deafen();
        disk.write(file, 0, b"DURABLE").unwrap();
        disk.sync(file).unwrap();
        disk.crash(|_| 0);
        assert_eq!(content(&disk, "f").unwrap(), b"durable");
    }

    #[test]
    fn a_prefix_of_the_unsynced_writes_may_stay() {
        let (mut disk, file) = with_file(b"");
        for byte in [b"a", b"b", b"c"] {
            let size = disk.attributes(file).unwrap().size;
            disk.write(file, size, byte).unwrap();
        }
        disk.crash(|changes| changes.min(2));
        assert_eq!(content(&disk, "f").unwrap(), b"ab");
        disk.crash(|_| 0);
        assert_eq!(
            content(&disk, "f").unwrap(),
            b"ab",
            "what survived one crash survives the next"
        );
    }

    #[test]
    fn a_synced_file_without_a_synced_name_is_gone() {
        let mut disk = Disk::default();
        let file = disk.create(ROOT, name("new"), false).unwrap().inode;
        disk.write(file, 0, b"x").unwrap();
        disk.sync(file).unwrap();
        disk.crash(|_| 0);
        assert_eq!(content(&disk, "new"), None);
    }

    #[test]
    fn a_rename_that_was_not_synced_is_taken_back_whole() {
        let (mut disk, _) = with_file(b"old");
        let fresh = disk.create(ROOT, name("f.tmp"), false).unwrap().inode;
        disk.write(fresh, 0, b"new").unwrap();
        disk.sync(fresh).unwrap();
        disk.rename((ROOT, name("f.tmp")), (ROOT, name("f")), true)
            .unwrap();
        assert_eq!(content(&disk, "f").unwrap(), b"new");
        disk.crash(|_| 0);
        assert_eq!(content(&disk, "f").unwrap(), b"old");
        assert_eq!(content(&disk, "f.tmp"), None);
    }

    #[test]
    fn a_removal_is_taken_back_until_the_folder_is_synced_and_then_the_file_is_forgotten() {
        let (mut disk, file) = with_file(b"kept");
        disk.remove(ROOT, name("f"), false).unwrap();
        disk.crash(|_| 0);
        assert_eq!(content(&disk, "f").unwrap(), b"kept");
        disk.opened(file);
        disk.remove(ROOT, name("f"), false).unwrap();
        disk.sync(ROOT).unwrap();
        assert_eq!(
            disk.read(file, 0, 4),
            Ok(&b"kept"[..]),
            "open files outlive their names"
        );
        disk.closed(file);
        assert_eq!(disk.attributes(file), Err(Refused::Absent));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (mut disk, file) = with_file(b"");
        let folder = disk.create(ROOT, name("d"), true).unwrap().inode;
        disk.create(folder, name("inside"), false).unwrap();
        assert_eq!(disk.create(ROOT, name("f"), true), Err(Refused::Exists));
        assert_eq!(disk.remove(ROOT, name("d"), true), Err(Refused::NotEmpty));
        assert_eq!(disk.remove(ROOT, name("d"), false), Err(Refused::IsFolder));
        assert_eq!(disk.remove(ROOT, name("f"), true), Err(Refused::NotFolder));
        assert_eq!(
            disk.rename((ROOT, name("f")), (ROOT, name("d")), true),
            Err(Refused::IsFolder)
        );
        assert_eq!(
            disk.rename((ROOT, name("d")), (ROOT, name("f")), false),
            Err(Refused::Exists)
        );
        assert_eq!(disk.write(folder, 0, b"x"), Err(Refused::IsFolder));
        assert_eq!(
            disk.write(file, FILE_SIZE_BYTES_MAX, b"x"),
            Err(Refused::TooLarge)
        );
        assert_eq!(disk.lookup(file, name("x")), Err(Refused::NotFolder));
        assert_eq!(disk.sync(999), Err(Refused::Absent));
    }
}
