//! The kernel's side of the lossy disk: FUSE calls in, calls of [`Disk`] out.
//!
//! Every write of the node reaches the disk before its system call returns (no write-back cache), and the kernel's cache
//! ends with the mount.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::disk::{Attributes, Disk, Inode, Lost, Refused};

/// All changes come through this mount, so the kernel may remember for as long as it stands.
const REMEMBER: Duration = Duration::from_mins(1);
const BLOCK_BYTES: u32 = 4096;
/// 64 GiB, mostly free: the experiment is not about full disks.
const BLOCKS: u64 = 16 << 20;
const NAME_BYTES_MAX: u32 = 255;

/// Why this machine cannot mount such a file system, if it cannot.
pub fn unavailable() -> Option<String> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    device
        .err()
        .map(|error| format!("/dev/fuse cannot be opened: {error}"))
}

/// A disk and where it is mounted.
#[derive(Debug)]
pub struct LossyDisk {
    disk: Arc<Mutex<Disk>>,
    folder: PathBuf,
    session: Option<BackgroundSession>,
}

impl LossyDisk {
    /// Mounts an empty disk on a folder.
    pub fn mount(folder: &Path) -> io::Result<Self> {
        let mut mounted = Self {
            disk: Arc::default(),
            folder: folder.to_owned(),
            session: None,
        };
        mounted.attach()?;
        Ok(mounted)
    }

    fn attach(&mut self) -> io::Result<()> {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("lossy".to_owned()),
            MountOption::NoAtime,
        ];
        let calls = Calls(Arc::clone(&self.disk));
        self.session = Some(fuser::spawn_mount(calls, &self.folder, &config)?);
        Ok(())
    }

    /// The disk lies about syncs of files until its next crash.
    pub fn deafen(&self) {
        lock(&self.disk).deafen();
    }

    /// What the machine's end does to it, once the node's process is gone; then it is mounted again. `keep` says how many
    /// of so many unsynced changes of a file or folder stay.
    pub fn crash(&mut self, keep: impl FnMut(usize) -> usize) -> io::Result<Lost> {
        if let Some(session) = self.session.take() {
            session.umount_and_join()?;
        }
        let lost = lock(&self.disk).crash(keep);
        self.attach()?;
        Ok(lost)
    }
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Calls(Arc<Mutex<Disk>>);

fn errno(refused: Refused) -> Errno {
    match refused {
        Refused::Absent => Errno::ENOENT,
        Refused::Exists => Errno::EEXIST,
        Refused::NotEmpty => Errno::ENOTEMPTY,
        Refused::NotFolder => Errno::ENOTDIR,
        Refused::IsFolder => Errno::EISDIR,
        Refused::TooLarge => Errno::EFBIG,
    }
}

fn attr(of: Attributes) -> FileAttr {
    let (kind, perm) = if of.folder {
        (FileType::Directory, 0o755)
    } else {
        (FileType::RegularFile, 0o644)
    };
    FileAttr {
        ino: INodeNo(of.inode),
        size: of.size,
        blocks: of.size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

fn done(result: Result<(), Refused>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(refused) => reply.error(errno(refused)),
    }
}

fn entry(result: Result<Attributes, Refused>, reply: ReplyEntry) {
    match result {
        Ok(found) => reply.entry(&REMEMBER, &attr(found), Generation(0)),
        Err(refused) => reply.error(errno(refused)),
    }
}

impl Calls {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.0)
    }

    fn sync(&self, inode: Inode, reply: ReplyEmpty) {
        done(self.disk().sync(inode), reply);
    }
}

impl Filesystem for Calls {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.disk().lookup(parent.0, name), reply);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.disk().attributes(ino.0) {
            Ok(found) => reply.attr(&REMEMBER, &attr(found)),
            Err(refused) => reply.error(errno(refused)),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.disk();
        let resized = size.map_or(Ok(()), |size| disk.resize(ino.0, size));
        match resized.and_then(|()| disk.attributes(ino.0)) {
            Ok(found) => reply.attr(&REMEMBER, &attr(found)),
            Err(refused) => reply.error(errno(refused)),
        }
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        entry(self.disk().create(parent.0, name, true), reply);
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut disk = self.disk();
        match disk.create(parent.0, name, false) {
            Ok(made) => {
                disk.opened(made.inode);
                reply.created(
                    &REMEMBER,
                    &attr(made),
                    Generation(0),
                    FileHandle(0),
                    FopenFlags::empty(),
                );
            }
            Err(refused) => reply.error(errno(refused)),
        }
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.disk().remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.disk().remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        done(
            self.disk()
                .rename((parent.0, name), (newparent.0, newname), replace),
            reply,
        );
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.disk().opened(ino.0);
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.disk().closed(ino.0);
        reply.ok();
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self
            .disk()
            .read(ino.0, offset, usize::try_from(size).unwrap_or(usize::MAX))
        {
            Ok(bytes) => reply.data(bytes),
            Err(refused) => reply.error(errno(refused)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.disk().write(ino.0, offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(refused) => reply.error(errno(refused)),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // A close promises nothing.
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.sync(ino.0, reply);
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.sync(ino.0, reply);
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = match self.disk().list(ino.0) {
            Ok(entries) => entries,
            Err(refused) => return reply.error(errno(refused)),
        };
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (name, found)) in (1..).zip(entries).skip(skip) {
            let kind = if found.folder {
                FileType::Directory
            } else {
                FileType::RegularFile
            };
            if reply.add(INodeNo(found.inode), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply.statfs(
            BLOCKS,
            BLOCKS,
            BLOCKS,
            BLOCKS,
            BLOCKS,
            BLOCK_BYTES,
            NAME_BYTES_MAX,
            BLOCK_BYTES,
        );
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        /// Room is set aside, the length stays: nothing to do in memory.
        const KEEP_SIZE: i32 = 1;
        if mode == KEEP_SIZE {
            reply.ok();
        } else {
            reply.error(Errno::EOPNOTSUPP);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_on_the_mounted_disk_keeps_its_synced_bytes_and_loses_the_others() {
        if let Some(why) = unavailable() {
            println!("skipped: {why}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut disk = LossyDisk::mount(folder.path()).unwrap();
        let path = folder.path().join("log");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"synced").unwrap();
        file.sync_data().unwrap();
        File::open(folder.path()).unwrap().sync_all().unwrap();
        file.write_all(b", not synced").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"synced, not synced");
        drop(file);
        fs::write(folder.path().join("nameless"), b"x").unwrap();
        let lost = disk.crash(|_| 0).unwrap();
        assert!(lost.writes > 0 && lost.entries == 1, "{lost:?}");
        assert_eq!(fs::read(&path).unwrap(), b"synced");
        assert!(!folder.path().join("nameless").exists());
    }
}
