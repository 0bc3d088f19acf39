//! An in-memory brick: a storage translator without a disk.
//!
//! Promises: every fop as a brick answers it, over a tree of inodes with gfids, xattrs, hard links, open and
//! unlinked-open files, and the healing index ([`index`]); each fop is atomic. It is what the simulator kills and
//! restarts ([`Memory::crash`]), and the reference model of a file system for property tests ([`Memory::snapshot`]).
//!
//! What a crash of the machine loses: data that was not fsynced, as the caller says, write by write. Names, sizes and
//! xattrs are journaled by the file systems bricks live on; here they are durable at once.
//! Locks are not kept here: put [`crate::locks::Locks`] on top. Permissions are not checked: bricks run as root.

pub mod index;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod xattr;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::errno;
use crate::fop::{DirEntry, Entry, File, Name, PrePost, SeekWhat, Statfs};
use crate::iatt::{FileType, S_IFMT, SetattrValid, Timespec};
use crate::{
    ClientId, Context, Dict, FdId, Fop, FopError, FopFuture, FopResult, Gfid, Iatt, Parent, Payload, Reply, Runtime,
    Translator, Value,
};
pub use snapshot::{Marks, Node, Snapshot};
use state::{Content, Directory, Inode, OpenFile, State, check_name, missing, stale};

/// Largest file, in bytes. Source: our bound: it is memory.
pub const MAX_FILE_BYTES: u64 = 256 << 20;
/// Most unsynced writes of a file before they are written back. Source: our bound.
const MAX_UNSYNCED: usize = 4096;

const O_ACCMODE: u32 = 0o3;
const O_WRONLY: u32 = 0o1;
const O_RDONLY: u32 = 0o0;
const O_EXCL: u32 = 0o200;
const O_TRUNC: u32 = 0o1000;
const O_APPEND: u32 = 0o2000;
const O_DSYNC: u32 = 0o10000;
const FALLOC_FL_KEEP_SIZE: u32 = 1;
const ELOOP: i32 = 40;

/// The brick. Made by [`Memory::new`].
pub struct Memory {
    name: String,
    runtime: Arc<dyn Runtime>,
    state: Mutex<State>,
}

impl Memory {
    /// An empty brick: a root directory.
    pub fn new(name: impl Into<String>, runtime: Arc<dyn Runtime>) -> Arc<Memory> {
        let state = State::new(runtime.wall_clock());
        Arc::new(Memory { name: name.into(), runtime, state: Mutex::new(state) })
    }

    /// The machine stops: open files are gone, and of unsynced writes what `kept` does not keep (asked once for each,
    /// oldest first, inodes in the order of their gfids).
    pub fn crash(&self, kept: &mut dyn FnMut() -> bool) {
        let state = &mut *self.state.lock();
        state.fds.clear();
        state.inodes.retain(|_, inode| inode.nlink > 0);
        let mut gfids: Vec<Gfid> = state.inodes.keys().copied().collect();
        gfids.sort_unstable();
        for gfid in gfids {
            if let Some(inode) = state.inodes.get_mut(&gfid) {
                inode.open_count = 0;
                inode.lose_unsynced(kept);
            }
        }
    }

    /// Closes what a client session has open; returns how many files that were.
    pub fn release_client(&self, client: ClientId) -> usize {
        let state = &mut *self.state.lock();
        let mut fds: Vec<FdId> = state.fds.keys().filter(|(owner, _)| *owner == client).map(|(_, fd)| *fd).collect();
        fds.sort_unstable();
        for fd in &fds {
            state.close(client, *fd);
        }
        fds.len()
    }

    /// What is in it, without AFR's marks.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.state.lock())
    }

    /// AFR's marks that are not zero, in the order of the gfids.
    pub fn marks(&self) -> Marks {
        let state = self.state.lock();
        let mut marks: Marks = state
            .inodes
            .values()
            .filter(|inode| inode.nlink > 0)
            .flat_map(|inode| inode.xattrs.iter().map(|(key, value)| (inode.gfid, key.clone(), value.clone())))
            .filter(|(_, key, value)| key.starts_with(index::MARKS) && value.iter().any(|byte| *byte != 0))
            .collect();
        marks.sort();
        marks
    }

    /// Inodes in the index (pending, dirty, or with changed names), in order, each once.
    pub fn indexed(&self) -> Vec<Gfid> {
        let state = self.state.lock();
        let mut all: Vec<Gfid> = state.index.pending.iter().chain(&state.index.dirty).copied().collect();
        all.extend(state.index.entry_changes.keys());
        all.sort_unstable();
        all.dedup();
        all
    }

    /// When the contents and the attributes of directories last changed, by path. They only move forward, as on bricks that
    /// keep them in `trusted.glusterfs.mdata`: copies that did the same in another order have the same.
    pub fn directory_times(&self) -> BTreeMap<Bytes, (Timespec, Timespec)> {
        let state = self.state.lock();
        let nodes = Snapshot::of(&state).nodes.into_iter();
        let directories = nodes.filter_map(|(path, node)| Some((path, state.inodes.get(&node.gfid)?)));
        let directories = directories.filter(|(_, inode)| matches!(inode.content, Content::Directory(_)));
        directories.map(|(path, inode)| (path, (inode.mtime, inode.ctime))).collect()
    }

    /// Open files and directories of all clients.
    pub fn open_count(&self) -> usize {
        self.state.lock().fds.len()
    }

    fn now(&self, context: &Context) -> Timespec {
        if context.birth.seconds == 0 { self.runtime.wall_clock() } else { context.birth }
    }
}

impl Translator for Memory {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        let now = self.now(context);
        let result = Brick { state: &mut self.state.lock(), context, now }.answer(fop);
        Box::pin(std::future::ready(result))
    }

    fn set_parent(&self, _: Weak<dyn Parent>, _: usize) {}
}

/// One fop at work.
struct Brick<'a> {
    state: &'a mut State,
    context: &'a Context,
    now: Timespec,
}

/// What a new inode is made of.
struct Birth {
    mode: u32,
    rdev: u64,
    content: Content,
}

impl Brick<'_> {
    fn answer(&mut self, fop: Fop) -> FopResult {
        match fop {
            Fop::Lookup { gfid, entry, xdata } => self.lookup(gfid, entry, &xdata),
            Fop::Stat { gfid, xdata } => {
                let inode = self.state.inode(gfid)?;
                Ok(Reply::Iatt { iatt: Box::new(inode.iatt()), xdata: self.fill(inode, &xdata) })
            }
            Fop::Fstat { file, xdata } => {
                let gfid = self.open(file, None)?;
                let inode = self.inode(gfid)?;
                Ok(Reply::Iatt { iatt: Box::new(inode.iatt()), xdata: self.fill(inode, &xdata) })
            }
            Fop::Setattr { gfid, iatt, valid, xdata } => {
                self.state.inode(gfid)?;
                self.setattr(gfid, &iatt, valid, &xdata)
            }
            Fop::Fsetattr { file, iatt, valid, xdata } => {
                let gfid = self.open(file, None)?;
                self.setattr(gfid, &iatt, valid, &xdata)
            }
            Fop::Readlink { gfid, size_bytes, .. } => {
                let inode = self.state.inode(gfid)?;
                let Content::Symlink(target) = &inode.content else {
                    return Err(FopError::new(errno::EINVAL, format!("{gfid} is not a symlink")));
                };
                let target = target.slice(..target.len().min(size_bytes as usize));
                Ok(Reply::Readlink { target, iatt: Box::new(inode.iatt()), xdata: Dict::new() })
            }
            Fop::Mknod { entry, mode, rdev, umask, xdata } => {
                let mode = if mode & S_IFMT == 0 { mode | FileType::Regular.mode_bits() } else { mode };
                let content = match FileType::from_mode(mode) {
                    Some(FileType::Regular) => Content::File { data: Vec::new(), durable: None, unsynced: Vec::new() },
                    Some(FileType::Directory | FileType::Symlink) | None => {
                        return Err(FopError::new(errno::EINVAL, format!("mknod of mode {mode:o}")));
                    }
                    Some(_) => Content::Special,
                };
                self.make(&entry, Birth { mode: mode & !(umask & 0o777), rdev, content }, &xdata)
            }
            Fop::Mkdir { entry, mode, umask, xdata } => {
                let mode = FileType::Directory.mode_bits() | (mode & 0o7777 & !(umask & 0o777));
                let content = Content::Directory(Directory::new(entry.parent));
                self.make(&entry, Birth { mode, rdev: 0, content }, &xdata)
            }
            Fop::Symlink { entry, target, xdata, .. } => {
                if target.is_empty() || target.len() >= 4096 {
                    let code = if target.is_empty() { errno::ENOENT } else { errno::ENAMETOOLONG };
                    return Err(FopError::new(code, "a symlink's target of a length that cannot be"));
                }
                let mode = FileType::Symlink.mode_bits() | 0o777;
                self.make(&entry, Birth { mode, rdev: 0, content: Content::Symlink(target) }, &xdata)
            }
            Fop::Link { gfid, entry, xdata } => {
                self.replace_linkto(&entry, &xdata)?;
                self.link(gfid, &entry)
            }
            Fop::Unlink { entry, xdata, .. } => self.unlink(&entry, &xdata),
            Fop::Rmdir { entry, flags, .. } => self.rmdir(&entry, flags),
            Fop::Rename { from, to, .. } => self.rename(&from, &to),
            Fop::Create { entry, flags, mode, umask, fd, xdata } => self.create(&entry, flags, mode, umask, fd, &xdata),
            Fop::Open { gfid, flags, fd, .. } => self.open_file(gfid, flags, fd),
            Fop::Opendir { gfid, fd, .. } => {
                if self.state.index.directory(gfid).is_none() {
                    self.state.parent(gfid)?;
                }
                self.add_fd(gfid, O_RDONLY, fd)?;
                Ok(Reply::done())
            }
            Fop::Release { file } | Fop::Releasedir { file } => {
                if let Some(fd) = file.fd {
                    self.state.close(self.context.client, fd);
                }
                Ok(Reply::done())
            }
            Fop::Read { file, offset, size_bytes, .. } => self.read(file, offset, size_bytes),
            Fop::Write { file, offset, data, flags, xdata } => self.write(file, offset, data, flags, &xdata),
            Fop::Truncate { gfid, size_bytes, xdata } => {
                self.state.inode(gfid)?;
                self.resize(gfid, size_bytes, &xdata)
            }
            Fop::Ftruncate { file, size_bytes, xdata } => {
                let gfid = self.open(file, Some(O_WRONLY))?;
                self.resize(gfid, size_bytes, &xdata)
            }
            Fop::Flush { file, .. } => self.open(file, None).map(|_| Reply::done()),
            Fop::Fsync { file, xdata, .. } => {
                let gfid = self.open(file, None)?;
                self.change(gfid, &xdata, |inode, _| {
                    inode.sync();
                    Ok(())
                })
            }
            Fop::Fsyncdir { file, .. } => self.open(file, None).map(|_| Reply::done()),
            Fop::Statfs { gfid, .. } => {
                self.state.inode(gfid)?;
                Ok(Reply::Statfs { statfs: self.statfs(), xdata: Dict::new() })
            }
            Fop::Access { gfid, .. } => self.state.inode(gfid).map(|_| Reply::done()),
            Fop::Setxattr { gfid, xattrs, flags, xdata } => {
                self.state.inode(gfid)?;
                if xdata.contains("sync_backend_xattrs") {
                    self.inode_mut(gfid)?.xattrs.retain(|key, _| !xattr::is_shared(key));
                }
                self.setxattr(gfid, &xattrs, flags)
            }
            Fop::Fsetxattr { file, xattrs, flags, .. } => {
                let gfid = self.open(file, None)?;
                self.setxattr(gfid, &xattrs, flags)
            }
            Fop::Getxattr { gfid, name, .. } => {
                if self.state.index.directory(gfid).is_none() {
                    self.state.inode(gfid)?;
                }
                self.getxattr(gfid, &name)
            }
            Fop::Fgetxattr { file, name, .. } => {
                let gfid = self.open(file, None)?;
                self.getxattr(gfid, &name)
            }
            Fop::Removexattr { gfid, name, .. } => {
                self.state.inode(gfid)?;
                self.removexattr(gfid, &name)
            }
            Fop::Fremovexattr { file, name, .. } => {
                let gfid = self.open(file, None)?;
                self.removexattr(gfid, &name)
            }
            Fop::Xattrop { gfid, kind, xattrs, xdata } => {
                self.state.inode(gfid)?;
                self.xattrop(gfid, kind, &xattrs, &xdata)
            }
            Fop::Fxattrop { file, kind, xattrs, xdata } => {
                let gfid = self.open(file, None)?;
                self.xattrop(gfid, kind, &xattrs, &xdata)
            }
            Fop::Readdir { file, offset, size_bytes, .. } => self.readdir(file, offset, size_bytes, None),
            Fop::Readdirp { file, offset, size_bytes, xdata } => self.readdir(file, offset, size_bytes, Some(&xdata)),
            Fop::Lk { .. }
            | Fop::Inodelk { .. }
            | Fop::Finodelk { .. }
            | Fop::Entrylk { .. }
            | Fop::Fentrylk { .. } => {
                Err(FopError::new(errno::ENOSYS, "features/locks is not loaded above this brick"))
            }
            Fop::Rchecksum { file, offset, len, xdata } => self.rchecksum(file, offset, len, &xdata),
            Fop::Fallocate { file, flags, offset, len, xdata } => {
                if flags & !FALLOC_FL_KEEP_SIZE != 0 {
                    return Err(FopError::new(errno::EOPNOTSUPP, format!("fallocate with flags {flags:#x}")));
                }
                let end = end_of(offset, len)?;
                let gfid = self.open(file, Some(O_WRONLY))?;
                self.change(gfid, &xdata, |inode, now| {
                    if flags & FALLOC_FL_KEEP_SIZE == 0 && inode.data()?.len() < end as usize {
                        inode.resize(end)?;
                        inode.mtime = inode.mtime.max(now);
                    }
                    inode.ctime = inode.ctime.max(now);
                    Ok(())
                })
            }
            Fop::Discard { file, offset, len, xdata } => {
                let end = end_of(offset, len)?;
                let gfid = self.open(file, Some(O_WRONLY))?;
                self.change(gfid, &xdata, |inode, now| {
                    let end = end.min(inode.data()?.len() as u64);
                    zero(inode, offset, end, now)
                })
            }
            Fop::Zerofill { file, offset, len, xdata } => {
                let end = end_of(offset, len)?;
                let gfid = self.open(file, Some(O_WRONLY))?;
                self.change(gfid, &xdata, |inode, now| zero(inode, offset, end, now))
            }
            Fop::Seek { file, offset, what, .. } => {
                let gfid = self.open(file, None)?;
                let size_bytes = self.inode(gfid)?.data()?.len() as u64;
                if offset >= size_bytes {
                    return Err(FopError::new(errno::ENXIO, "seek behind the end"));
                }
                let offset = if what == SeekWhat::Data { offset } else { size_bytes };
                Ok(Reply::Seek { offset, xdata: Dict::new() })
            }
            Fop::CopyFileRange { from, from_offset, to, to_offset, len, .. } => {
                self.copy_file_range((from, from_offset), (to, to_offset), len)
            }
            Fop::Ipc { op, .. } => Err(FopError::new(errno::EOPNOTSUPP, format!("ipc {op}"))),
            Fop::Lease { .. } => Err(FopError::new(errno::ENOSYS, "leases are off")),
            // Nothing that is simulated sends them.
            Fop::Getactivelk { .. }
            | Fop::Setactivelk { .. }
            | Fop::Icreate { .. }
            | Fop::Namelink { .. }
            | Fop::Put { .. } => Err(FopError::new(errno::EOPNOTSUPP, "not in memory")),
        }
    }

    /// An inode that is open or has a name.
    fn inode(&self, gfid: Gfid) -> FopResult<&Inode> {
        self.state.inodes.get(&gfid).ok_or_else(|| stale(gfid))
    }

    fn inode_mut(&mut self, gfid: Gfid) -> FopResult<&mut Inode> {
        self.state.inodes.get_mut(&gfid).ok_or_else(|| stale(gfid))
    }

    /// The inode of an open file, or of an anonymous one; with `access` (O_RDONLY or O_WRONLY) also checks the mode it
    /// was opened with. Unknown fds are EBADFD, as bricks answer.
    fn open(&self, file: File, access: Option<u32>) -> FopResult<Gfid> {
        let Some(fd) = file.fd else {
            if self.state.index.directory(file.gfid).is_none() {
                self.state.inode(file.gfid)?;
            }
            return Ok(file.gfid);
        };
        let Some(open) = self.state.fds.get(&(self.context.client, fd)) else {
            return Err(FopError::new(errno::EBADFD, format!("fd {} of {} is not open", fd.0, file.gfid)));
        };
        let mode = open.flags & O_ACCMODE;
        match access {
            Some(O_RDONLY) if mode == O_WRONLY => Err(FopError::new(errno::EBADF, "not open for reading")),
            Some(O_WRONLY) if mode == O_RDONLY => Err(FopError::new(errno::EBADF, "not open for writing")),
            _ => Ok(open.gfid),
        }
    }

    fn add_fd(&mut self, gfid: Gfid, flags: u32, fd: FdId) -> FopResult<()> {
        let key = (self.context.client, fd);
        if self.state.fds.contains_key(&key) {
            return Err(FopError::new(errno::EINVAL, format!("fd {} is open already", fd.0)));
        }
        self.state.fds.insert(key, OpenFile { gfid, flags });
        if let Some(inode) = self.state.inodes.get_mut(&gfid) {
            inode.open_count += 1;
        }
        Ok(())
    }

    /// Changes an inode and answers with its attributes before and after.
    fn change(
        &mut self,
        gfid: Gfid,
        xdata: &Dict,
        work: impl FnOnce(&mut Inode, Timespec) -> FopResult<()>,
    ) -> FopResult {
        let now = self.now;
        let inode = self.inode_mut(gfid)?;
        let pre = inode.iatt();
        work(inode, now)?;
        let inode = self.inode(gfid)?;
        let attrs = Box::new(PrePost { pre, post: inode.iatt() });
        Ok(Reply::PrePost { attrs, written: 0, xdata: self.fill(inode, xdata) })
    }

    fn lookup(&mut self, gfid: Gfid, entry: Option<Entry>, xdata: &Dict) -> FopResult {
        let Some(entry) = entry.filter(|entry| !entry.name.is_empty()) else {
            if let Some(directory) = self.state.index.directory(gfid) {
                return Ok(virtual_entry(gfid, directory));
            }
            let inode = self.state.inode(gfid)?;
            let parent = match &inode.content {
                Content::Directory(directory) => self.state.inode(directory.parent)?.iatt(),
                _ => Iatt::default(),
            };
            return Ok(Reply::Lookup {
                iatt: Box::new(inode.iatt()),
                parent: Box::new(parent),
                xdata: self.fill(inode, xdata),
            });
        };
        if let Some(directory) = self.state.index.directory(entry.parent) {
            let found = self.state.index.lookup(directory, &entry.name);
            let gfid = found.ok_or_else(|| missing(entry.parent, &entry.name))?;
            return Ok(virtual_entry(gfid, directory));
        }
        let parent = self.state.inode(entry.parent)?.iatt();
        let inode = self.state.find(entry.parent, &entry.name)?;
        Ok(Reply::Lookup { iatt: Box::new(inode.iatt()), parent: Box::new(parent), xdata: self.fill(inode, xdata) })
    }

    fn setattr(&mut self, gfid: Gfid, iatt: &Iatt, valid: SetattrValid, xdata: &Dict) -> FopResult {
        self.change(gfid, xdata, |inode, now| {
            if valid.has(SetattrValid::MODE) {
                inode.mode = (inode.mode & S_IFMT) | (iatt.mode & 0o7777);
            }
            if valid.has(SetattrValid::UID) {
                inode.uid = iatt.uid;
            }
            if valid.has(SetattrValid::GID) {
                inode.gid = iatt.gid;
            }
            if valid.has(SetattrValid::ATIME) {
                inode.atime = if valid.has(SetattrValid::ATIME_NOW) { now } else { iatt.atime };
            }
            if valid.has(SetattrValid::MTIME) {
                inode.mtime = if valid.has(SetattrValid::MTIME_NOW) { now } else { iatt.mtime };
            }
            inode.ctime = if valid.has(SetattrValid::CTIME) { iatt.ctime } else { inode.ctime.max(now) };
            Ok(())
        })
    }

    /// Changes a directory's names and answers with its attributes before and after.
    fn in_directory<T>(
        &mut self,
        gfid: Gfid,
        work: impl FnOnce(&mut Directory) -> FopResult<T>,
    ) -> FopResult<(PrePost, T)> {
        let now = self.now;
        let inode = self.state.inode_mut(gfid)?;
        let pre = inode.iatt();
        let result = work(inode.directory_mut()?)?;
        inode.mtime = inode.mtime.max(now);
        inode.ctime = inode.ctime.max(now);
        Ok((PrePost { pre, post: inode.iatt() }, result))
    }

    fn make(&mut self, entry: &Entry, birth: Birth, xdata: &Dict) -> FopResult {
        check_name(&entry.name)?;
        let xdata = &self.checked_preop(entry, xdata)?;
        self.replace_linkto(entry, xdata)?;
        if self.state.parent(entry.parent)?.names.contains_key(&entry.name) {
            return Err(FopError::new(errno::EEXIST, "the name is taken"));
        }
        let gfid = match xdata.gfid("gfid-req") {
            Some(gfid) if !gfid.is_null() => gfid,
            _ => return Err(FopError::new(errno::EPERM, "a creating fop without gfid-req")),
        };
        self.state.set_aside_unlinked(gfid);
        if self.state.inodes.contains_key(&gfid) {
            // Healers recreate names this way: one of several hard links (posix_create_link_if_gfid_exists).
            if xdata.contains("glusterfs-internal-fop")
                && matches!(birth.content, Content::File { .. } | Content::Special)
            {
                return self.link(gfid, entry);
            }
            return Err(FopError::new(errno::EEXIST, format!("{gfid} exists under another name")));
        }
        let mut inode = Inode::new(gfid, birth.mode, birth.content, self.now);
        (inode.uid, inode.gid, inode.rdev) = (self.context.uid, self.context.gid, birth.rdev);
        let is_directory = matches!(inode.content, Content::Directory(_));
        let parent = self.state.inode(entry.parent)?;
        if parent.mode & 0o2000 != 0 {
            inode.gid = parent.gid;
            inode.mode |= if is_directory { 0o2000 } else { 0 };
        }
        for (key, value) in xdata.iter() {
            if xattr::is_storable(key) {
                inode.xattrs.insert(key.clone(), xattr::value_of(value)?);
            }
        }
        let iatt = inode.iatt();
        self.state.inodes.insert(gfid, inode);
        let (mut parent, ()) = self.in_directory(entry.parent, |directory| {
            directory.insert(entry.name.clone(), gfid);
            Ok(())
        })?;
        if is_directory {
            let inode = self.state.inode_mut(entry.parent)?;
            inode.nlink += 1;
            parent.post = inode.iatt();
        }
        Ok(Reply::Entry { iatt: Box::new(iatt), parent: Box::new(parent), xdata: Dict::new() })
    }

    fn link(&mut self, gfid: Gfid, entry: &Entry) -> FopResult {
        check_name(&entry.name)?;
        let inode = self.state.inode(gfid)?;
        if matches!(inode.content, Content::Directory(_)) {
            return Err(FopError::new(errno::EPERM, "a hard link to a directory"));
        }
        if inode.nlink >= 65_000 {
            return Err(FopError::new(errno::EMLINK, "65,000 names"));
        }
        if self.state.parent(entry.parent)?.names.contains_key(&entry.name) {
            return Err(FopError::new(errno::EEXIST, "the name is taken"));
        }
        let (parent, ()) = self.in_directory(entry.parent, |directory| {
            directory.insert(entry.name.clone(), gfid);
            Ok(())
        })?;
        let now = self.now;
        let inode = self.inode_mut(gfid)?;
        inode.nlink += 1;
        inode.ctime = inode.ctime.max(now);
        Ok(Reply::Entry { iatt: Box::new(inode.iatt()), parent: Box::new(parent), xdata: Dict::new() })
    }

    /// Distribute's guard: the parent's xattr must be as given. Answers xdata without it.
    fn checked_preop(&self, entry: &Entry, xdata: &Dict) -> FopResult<Dict> {
        const PREOP: &str = "glusterfs.preop.parent.key";
        let mut rest = xdata.clone();
        let Some(key) = xdata.text(PREOP).map(str::to_owned) else { return Ok(rest) };
        if let Some(expected) = xdata.bytes(&key)
            && self.state.inode(entry.parent)?.xattrs.get(key.as_bytes()) != Some(expected)
        {
            let out = Dict::new().with("glusterfs.preop.check.failed", Value::Int(1));
            return Err(FopError::new(errno::EIO, "the parent's xattr has changed").with_xdata(out));
        }
        rest.remove(&key);
        rest.remove(PREOP);
        Ok(rest)
    }

    /// `force-replace`: a linkto file of distribute that has the name gives way.
    fn replace_linkto(&mut self, entry: &Entry, xdata: &Dict) -> FopResult<()> {
        if xdata.contains("force-replace")
            && let Ok(inode) = self.state.find(entry.parent, &entry.name)
            && inode.is_linkto()
            && inode.open_count == 0
        {
            self.unlink(entry, &Dict::new())?;
        }
        Ok(())
    }

    /// Takes a name from an inode that is not a directory.
    fn drop_name(&mut self, gfid: Gfid) -> FopResult<()> {
        let now = self.now;
        let inode = self.inode_mut(gfid)?;
        inode.nlink = inode.nlink.saturating_sub(1);
        inode.ctime = inode.ctime.max(now);
        self.state.forget_if_unused(gfid);
        Ok(())
    }

    fn unlink(&mut self, entry: &Entry, xdata: &Dict) -> FopResult {
        if let Some(directory) = self.state.index.directory(entry.parent) {
            self.state.index.remove(directory, &entry.name);
            return Ok(Reply::Removed { parent: Box::default(), xdata: Dict::new() });
        }
        let inode = self.state.find(entry.parent, &entry.name)?;
        if matches!(inode.content, Content::Directory(_)) {
            return Err(FopError::new(errno::EISDIR, "unlink of a directory"));
        }
        let (gfid, nlink) = (inode.gfid, inode.nlink);
        if (xdata.contains("unlink-only-if-dht-linkto-file") && !inode.is_linkto())
            || (xdata.contains("dont-unlink-for-open-fd") && inode.open_count > 0)
        {
            return Err(FopError::new(errno::EBUSY, "no linkto file, or open"));
        }
        let mut answer = Dict::new();
        if xdata.contains("dht-get-iatt-in-xattr") {
            answer.set("dht-get-iatt-in-xattr", Value::Iatt(Box::new(inode.iatt())));
        }
        let (parent, _) = self.in_directory(entry.parent, |directory| Ok(directory.remove(&entry.name)))?;
        self.drop_name(gfid)?;
        if xdata.contains("gf_request_link_count") {
            answer.set("gf_response_link_count", Value::Uint(u64::from(nlink)));
        }
        Ok(Reply::Removed { parent: Box::new(parent), xdata: answer })
    }

    fn rmdir(&mut self, entry: &Entry, flags: u32) -> FopResult {
        if let Some(directory) = self.state.index.directory(entry.parent) {
            self.state.index.remove(directory, &entry.name);
            return Ok(Reply::Removed { parent: Box::default(), xdata: Dict::new() });
        }
        if matches!(entry.name.as_ref(), b"." | b"..") {
            let code = if entry.name.len() == 1 { errno::EINVAL } else { errno::ENOTEMPTY };
            return Err(FopError::new(code, "rmdir of a dot"));
        }
        let inode = self.state.find(entry.parent, &entry.name)?;
        let gfid = inode.gfid;
        if !inode.directory()?.names.is_empty() {
            // Any flag means: with all that is in it, as healers and rebalance ask.
            if flags == 0 {
                return Err(FopError::new(errno::ENOTEMPTY, "the directory is not empty"));
            }
            self.remove_contents(gfid)?;
        }
        let (mut parent, _) = self.in_directory(entry.parent, |directory| Ok(directory.remove(&entry.name)))?;
        self.inode_mut(gfid)?.nlink = 0;
        self.state.forget_if_unused(gfid);
        let holder = self.inode_mut(entry.parent)?;
        holder.nlink = holder.nlink.saturating_sub(1);
        parent.post = holder.iatt();
        Ok(Reply::Removed { parent: Box::new(parent), xdata: Dict::new() })
    }

    fn remove_contents(&mut self, top: Gfid) -> FopResult<()> {
        let (mut left, mut seen) = (vec![top], HashSet::new());
        while let Some(gfid) = left.pop() {
            if !seen.insert(gfid) {
                continue;
            }
            let names = match self.inode_mut(gfid)?.directory_mut() {
                Ok(directory) => {
                    directory.by_offset.clear();
                    std::mem::take(&mut directory.names)
                }
                Err(_) => continue,
            };
            for (_, child) in names.into_values() {
                if matches!(self.inode(child)?.content, Content::Directory(_)) {
                    left.push(child);
                } else {
                    self.drop_name(child)?;
                }
            }
        }
        seen.remove(&top);
        for gfid in seen {
            self.inode_mut(gfid)?.nlink = 0;
            self.state.forget_if_unused(gfid);
        }
        let inode = self.inode_mut(top)?;
        inode.nlink = 2;
        Ok(())
    }

    fn rename(&mut self, from: &Entry, to: &Entry) -> FopResult {
        check_name(&to.name)?;
        let moved = self.state.find(from.parent, &from.name)?;
        let (gfid, is_directory) = (moved.gfid, matches!(moved.content, Content::Directory(_)));
        if matches!(from.name.as_ref(), b"." | b"..") || matches!(to.name.as_ref(), b"." | b"..") {
            return Err(FopError::new(errno::EBUSY, "rename of a dot"));
        }
        self.state.parent(to.parent)?;
        if is_directory && self.state.is_ancestor(gfid, to.parent) {
            return Err(FopError::new(errno::EINVAL, "rename of a directory into itself"));
        }
        let replaced = match self.state.find(to.parent, &to.name) {
            // Its own name, or another of its names: nothing is done.
            Ok(inode) if inode.gfid == gfid => Some(gfid),
            Ok(inode) => match (&inode.content, is_directory) {
                (Content::Directory(directory), true) if !directory.names.is_empty() => {
                    return Err(FopError::new(errno::ENOTEMPTY, "the directory renamed over is not empty"));
                }
                (Content::Directory(_), false) => return Err(FopError::new(errno::EISDIR, "rename over a directory")),
                (content, true) if !matches!(content, Content::Directory(_)) => {
                    return Err(FopError::new(errno::ENOTDIR, "rename of a directory over a file"));
                }
                _ => Some(inode.gfid),
            },
            Err(error) if error.errno == errno::ENOENT => None,
            Err(error) => return Err(error),
        };
        if replaced == Some(gfid) {
            let attrs = |gfid| -> FopResult<Box<PrePost>> {
                let iatt = self.inode(gfid)?.iatt();
                Ok(Box::new(PrePost { pre: iatt.clone(), post: iatt }))
            };
            let iatt = Box::new(self.inode(gfid)?.iatt());
            return Ok(Reply::Rename {
                iatt,
                from_parent: attrs(from.parent)?,
                to_parent: attrs(to.parent)?,
                xdata: Dict::new(),
            });
        }
        let (mut from_parent, _) = self.in_directory(from.parent, |directory| Ok(directory.remove(&from.name)))?;
        let (mut to_parent, _) = self.in_directory(to.parent, |directory| {
            directory.remove(&to.name);
            directory.insert(to.name.clone(), gfid);
            Ok(())
        })?;
        if let Some(gone) = replaced {
            if is_directory {
                self.inode_mut(gone)?.nlink = 0;
                self.state.forget_if_unused(gone);
                let holder = self.inode_mut(to.parent)?;
                holder.nlink = holder.nlink.saturating_sub(1);
            } else {
                self.drop_name(gone)?;
            }
        }
        if is_directory {
            let holder = self.inode_mut(from.parent)?;
            holder.nlink = holder.nlink.saturating_sub(1);
            self.inode_mut(to.parent)?.nlink += 1;
            self.inode_mut(gfid)?.directory_mut()?.parent = to.parent;
        }
        let now = self.now;
        let inode = self.inode_mut(gfid)?;
        inode.ctime = inode.ctime.max(now);
        let iatt = Box::new(inode.iatt());
        from_parent.post = self.inode(from.parent)?.iatt();
        to_parent.post = self.inode(to.parent)?.iatt();
        Ok(Reply::Rename {
            iatt,
            from_parent: Box::new(from_parent),
            to_parent: Box::new(to_parent),
            xdata: Dict::new(),
        })
    }

    fn create(&mut self, entry: &Entry, flags: u32, mode: u32, umask: u32, fd: FdId, xdata: &Dict) -> FopResult {
        check_name(&entry.name)?;
        let found = self.state.parent(entry.parent)?.names.get(&entry.name).map(|(_, gfid)| *gfid);
        let mut reply = match found {
            Some(_) if flags & O_EXCL != 0 => return Err(FopError::new(errno::EEXIST, "the name is taken")),
            Some(gfid) => {
                self.open_file(gfid, flags, fd)?;
                let parent = self.inode(entry.parent)?.iatt();
                return Ok(Reply::Entry {
                    iatt: Box::new(self.inode(gfid)?.iatt()),
                    parent: Box::new(PrePost { pre: parent.clone(), post: parent }),
                    xdata: Dict::new(),
                });
            }
            None => {
                if self.state.fds.contains_key(&(self.context.client, fd)) {
                    return Err(FopError::new(errno::EINVAL, format!("fd {} is open already", fd.0)));
                }
                let mode = FileType::Regular.mode_bits() | (mode & 0o7777 & !(umask & 0o777));
                let content = Content::File { data: Vec::new(), durable: None, unsynced: Vec::new() };
                self.make(entry, Birth { mode, rdev: 0, content }, xdata)?
            }
        };
        if let Reply::Entry { iatt, .. } = &mut reply {
            let gfid = iatt.gfid;
            self.add_fd(gfid, flags, fd)?;
        }
        Ok(reply)
    }

    fn open_file(&mut self, gfid: Gfid, flags: u32, fd: FdId) -> FopResult {
        let inode = self.state.inode(gfid)?;
        match &inode.content {
            Content::Directory(_) if flags & O_ACCMODE != O_RDONLY => {
                return Err(FopError::new(errno::EISDIR, "a directory opened for writing"));
            }
            Content::Symlink(_) => return Err(FopError::new(ELOOP, "open of a symlink")),
            _ => {}
        }
        self.add_fd(gfid, flags, fd)?;
        if flags & O_TRUNC != 0 && flags & O_ACCMODE != O_RDONLY {
            self.resize(gfid, 0, &Dict::new())?;
        }
        Ok(Reply::done())
    }

    fn read(&self, file: File, offset: u64, size_bytes: u32) -> FopResult {
        let gfid = self.open(file, Some(O_RDONLY))?;
        let inode = self.inode(gfid)?;
        let data = inode.data()?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        let end = start.saturating_add(size_bytes as usize).min(data.len());
        Ok(Reply::Read {
            data: Payload::from_bytes(Bytes::copy_from_slice(&data[start..end])),
            iatt: Box::new(inode.iatt()),
            xdata: Dict::new(),
        })
    }

    fn write(&mut self, file: File, offset: u64, data: Payload, flags: u32, xdata: &Dict) -> FopResult {
        let gfid = self.open(file, Some(O_WRONLY))?;
        let open_flags = file.fd.and_then(|fd| self.state.fds.get(&(self.context.client, fd))).map_or(0, |fd| fd.flags);
        let size_bytes = self.inode(gfid)?.data()?.len() as u64;
        let offset = if open_flags & O_APPEND != 0 { size_bytes } else { offset };
        end_of(offset, data.len() as u64)?;
        let written = u32::try_from(data.len()).map_err(|_| FopError::new(errno::EINVAL, "a write over 4 GiB"))?;
        let mut reply = self.change(gfid, xdata, |inode, now| {
            inode.write(offset, data.into_bytes())?;
            inode.mtime = inode.mtime.max(now);
            inode.ctime = inode.ctime.max(now);
            let backlog = matches!(&inode.content, Content::File { unsynced, .. } if unsynced.len() > MAX_UNSYNCED);
            if (open_flags | flags) & O_DSYNC != 0 || backlog {
                inode.sync();
            }
            Ok(())
        })?;
        if let Reply::PrePost { written: count, xdata: answer, .. } = &mut reply {
            *count = written;
            if xdata.contains("glusterfs.write-is-append") {
                answer.set("glusterfs.write-is-append", Value::Uint(u64::from(offset == size_bytes)));
            }
        }
        Ok(reply)
    }

    fn resize(&mut self, gfid: Gfid, size_bytes: u64, xdata: &Dict) -> FopResult {
        end_of(size_bytes, 0)?;
        self.change(gfid, xdata, |inode, now| {
            inode.resize(size_bytes)?;
            inode.mtime = inode.mtime.max(now);
            inode.ctime = inode.ctime.max(now);
            Ok(())
        })
    }

    fn statfs(&self) -> Statfs {
        Statfs {
            block_size_bytes: 4096,
            fragment_size_bytes: 4096,
            blocks: 1 << 28,
            blocks_free: 1 << 27,
            blocks_available: 1 << 27,
            files: 1 << 20,
            files_free: (1 << 20) - self.state.inodes.len() as u64,
            files_available: (1 << 20) - self.state.inodes.len() as u64,
            fs_id: 1,
            flags: 0,
            name_max_bytes: 255,
        }
    }

    fn readdir(&self, file: File, offset: u64, size_bytes: u32, plus: Option<&Dict>) -> FopResult {
        let gfid = self.open(file, None)?;
        let mut entries = Vec::new();
        let mut left = size_bytes as usize;
        // A real brick's cost of an entry: its header (and attributes), its name and padding.
        let mut add = |offset: u64, name: &Name, inode: Option<&Inode>| {
            let cost = name.len() + if plus.is_some() { 256 } else { 32 };
            if cost > left && !entries.is_empty() {
                return false;
            }
            left = left.saturating_sub(cost);
            entries.push(DirEntry {
                ino: inode.map_or(u64::MAX, |inode| inode.gfid.ino()),
                offset,
                d_type: inode.and_then(Inode::file_type).map_or(0, FileType::d_type),
                name: name.clone(),
                iatt: plus.and(inode).map(Inode::iatt),
                xdata: plus.zip(inode).map(|(xdata, inode)| self.fill(inode, xdata)).unwrap_or_default(),
            });
            true
        };
        if let Some(directory) = self.state.index.directory(gfid) {
            let names = self.state.index.names(directory);
            for (at, name) in names.iter().enumerate().skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
                if !add(at as u64 + 1, name, None) {
                    break;
                }
            }
            return Ok(Reply::Entries { entries, xdata: Dict::new() });
        }
        let directory = self.inode(gfid)?.directory()?;
        let dots = [(1, Bytes::from_static(b"."), gfid), (2, Bytes::from_static(b".."), directory.parent)];
        for (at, name, dot) in &dots {
            if offset < *at && !add(*at, name, self.state.inodes.get(dot)) {
                return Ok(Reply::Entries { entries, xdata: Dict::new() });
            }
        }
        let after = offset.max(2).saturating_add(1);
        for (at, name) in directory.by_offset.range(after..) {
            let inode = directory.names.get(name).and_then(|(_, gfid)| self.state.inodes.get(gfid));
            let is_directory = inode.is_some_and(|inode| matches!(inode.content, Content::Directory(_)));
            if is_directory && plus.is_some_and(|xdata| xdata.contains("readdir-filter-directories")) {
                continue;
            }
            if !add(*at, name, inode) {
                break;
            }
        }
        Ok(Reply::Entries { entries, xdata: Dict::new() })
    }

    /// Equal data gives equal checksums; they are not GlusterFS's (weak adler, strong SHA-256) but as long.
    fn rchecksum(&self, file: File, offset: u64, len: u32, xdata: &Dict) -> FopResult {
        let Reply::Read { data, .. } = self.read(file, offset, len)? else {
            return Err(FopError::new(errno::EIO, "a read without data"));
        };
        let mut strong = Vec::with_capacity(32);
        for seed in 0..4_u64 {
            let mut sum = 0xcbf2_9ce4_8422_2325_u64 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            for byte in data.as_slice() {
                sum = (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3).rotate_left(seed as u32);
            }
            strong.extend_from_slice(&(sum ^ data.len() as u64).to_be_bytes());
        }
        let weak = data.as_slice().iter().fold(1_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
        let mut answer = Dict::new();
        if xdata.contains("check-zero-filled") {
            let zeroes = data.as_slice().iter().all(|byte| *byte == 0);
            answer.set("buf-has-zeroes", Value::Uint(u64::from(zeroes)));
        }
        Ok(Reply::Rchecksum { weak, strong: strong.into(), flags: 0, xdata: answer })
    }

    fn copy_file_range(&mut self, from: (File, u64), to: (File, u64), len: u64) -> FopResult {
        let len = u32::try_from(len.min(1 << 30)).unwrap_or(1 << 30);
        let Reply::Read { data, .. } = self.read(from.0, from.1, len)? else {
            return Err(FopError::new(errno::EIO, "a read without data"));
        };
        let Reply::PrePost { attrs, written, .. } = self.write(to.0, to.1, data, 0, &Dict::new())? else {
            return Err(FopError::new(errno::EIO, "a write without attributes"));
        };
        let source = self.inode(self.open(from.0, None)?)?.iatt();
        Ok(Reply::CopyFileRange {
            copied: written,
            iatt: Box::new(attrs.post.clone()),
            from: Box::new(PrePost { pre: source.clone(), post: source }),
            to: attrs,
            xdata: Dict::new(),
        })
    }
}

/// The end of a range within the largest file; EINVAL or EFBIG.
fn end_of(offset: u64, len: u64) -> FopResult<u64> {
    match offset.checked_add(len) {
        Some(end) if end <= MAX_FILE_BYTES => Ok(end),
        Some(end) if end <= i64::MAX as u64 => Err(FopError::new(errno::EFBIG, format!("a file of {end} bytes"))),
        _ => Err(FopError::new(errno::EINVAL, "an offset that no file has")),
    }
}

fn zero(inode: &mut Inode, offset: u64, end: u64, now: Timespec) -> FopResult<()> {
    inode.data()?;
    if end > offset {
        inode.write(offset, Bytes::from(vec![0; (end - offset) as usize]))?;
    }
    inode.mtime = inode.mtime.max(now);
    inode.ctime = inode.ctime.max(now);
    Ok(())
}

/// A lookup of the index: virtual, so no more than a kind and a gfid.
fn virtual_entry(gfid: Gfid, directory: index::Directory) -> Reply {
    let is_file = gfid == index::FILE;
    let kind = if is_file { FileType::Regular } else { FileType::Directory };
    let iatt = Iatt {
        flags: Iatt::VALID_BASIC,
        gfid,
        ino: u64::MAX,
        mode: kind.mode_bits() | 0o600,
        nlink: 1,
        ..Iatt::default()
    };
    let mut xdata = Dict::new();
    if !is_file {
        // IA_IFREG is 1 and IA_IFDIR 2: what the names in it stand for.
        let stands_for = if directory == index::Directory::EntryChanges { 2 } else { 1 };
        xdata.set("glusterfs.index-ia-type-get-rsp", Value::Uint(stands_for));
    }
    Reply::Lookup { iatt: Box::new(iatt), parent: Box::default(), xdata }
}
