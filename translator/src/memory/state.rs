//! Inodes, names and data of an in-memory brick.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use crate::error::errno;
use crate::fop::Name;
use crate::iatt::{FileType, Timespec};
use crate::{ClientId, FdId, FopError, FopResult, Gfid, Iatt};

use super::index::Index;

/// What is in a directory. Offsets only grow, so that listing goes on where it was whatever is removed meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    pub parent: Gfid,
    pub names: BTreeMap<Name, (u64, Gfid)>,
    pub by_offset: BTreeMap<u64, Name>,
    pub next_offset: u64,
}

/// "." is 1 and ".." is 2.
const FIRST_OFFSET: u64 = 3;

/// A change of a file's data that is not on the disk yet.
#[derive(Clone, Debug)]
pub(super) enum Unsynced {
    Write { offset: u64, data: Bytes },
    Resize(u64),
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    /// `data` is what readers see, `durable` what the disk has, `unsynced` what leads from one to the other.
    File {
        data: Vec<u8>,
        durable: Option<Vec<u8>>,
        unsynced: Vec<Unsynced>,
    },
    Directory(Directory),
    Symlink(Bytes),
    Special,
}

#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub gfid: Gfid,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub rdev: u64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    pub xattrs: BTreeMap<Bytes, Bytes>,
    pub content: Content,
    pub open_count: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct OpenFile {
    pub gfid: Gfid,
    pub flags: u32,
}

#[derive(Debug)]
pub(super) struct State {
    pub inodes: HashMap<Gfid, Inode>,
    pub fds: HashMap<(ClientId, FdId), OpenFile>,
    pub index: Index,
    next_ghost: u64,
}

impl Directory {
    pub fn new(parent: Gfid) -> Directory {
        Directory { parent, names: BTreeMap::new(), by_offset: BTreeMap::new(), next_offset: FIRST_OFFSET }
    }

    pub fn insert(&mut self, name: Name, gfid: Gfid) {
        let offset = self.next_offset;
        self.next_offset += 1;
        self.by_offset.insert(offset, name.clone());
        if let Some((old, _)) = self.names.insert(name, (offset, gfid)) {
            self.by_offset.remove(&old);
        }
    }

    pub fn remove(&mut self, name: &Name) -> Option<Gfid> {
        let (offset, gfid) = self.names.remove(name)?;
        self.by_offset.remove(&offset);
        Some(gfid)
    }
}

impl Inode {
    pub fn new(gfid: Gfid, mode: u32, content: Content, now: Timespec) -> Inode {
        let nlink = if matches!(content, Content::Directory(_)) { 2 } else { 1 };
        Inode {
            gfid,
            mode,
            uid: 0,
            gid: 0,
            nlink,
            rdev: 0,
            atime: now,
            mtime: now,
            ctime: now,
            xattrs: BTreeMap::new(),
            content,
            open_count: 0,
        }
    }

    pub fn size_bytes(&self) -> u64 {
        match &self.content {
            Content::File { data, .. } => data.len() as u64,
            Content::Symlink(target) => target.len() as u64,
            Content::Directory(_) => 4096,
            Content::Special => 0,
        }
    }

    pub fn iatt(&self) -> Iatt {
        let size_bytes = self.size_bytes();
        Iatt {
            flags: Iatt::VALID_BASIC,
            gfid: self.gfid,
            ino: self.gfid.ino(),
            dev: 1,
            rdev: self.rdev,
            size_bytes,
            blocks: size_bytes.div_ceil(512),
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            block_size_bytes: 4096,
            mode: self.mode,
            ..Iatt::default()
        }
    }

    pub fn file_type(&self) -> Option<FileType> {
        FileType::from_mode(self.mode)
    }

    /// A linkto file of distribute.
    pub fn is_linkto(&self) -> bool {
        self.file_type() == Some(FileType::Regular)
            && self.mode & 0o7777 == 0o1000
            && self.xattrs.contains_key(&b"trusted.glusterfs.dht.linkto"[..])
    }

    pub fn directory(&self) -> FopResult<&Directory> {
        match &self.content {
            Content::Directory(directory) => Ok(directory),
            _ => Err(FopError::new(errno::ENOTDIR, format!("{} is not a directory", self.gfid))),
        }
    }

    pub fn directory_mut(&mut self) -> FopResult<&mut Directory> {
        match &mut self.content {
            Content::Directory(directory) => Ok(directory),
            _ => Err(FopError::new(errno::ENOTDIR, format!("{} is not a directory", self.gfid))),
        }
    }

    /// The data of a regular file; EISDIR or EINVAL for others.
    pub fn data(&self) -> FopResult<&Vec<u8>> {
        match &self.content {
            Content::File { data, .. } => Ok(data),
            other => Err(not_a_file(self.gfid, other)),
        }
    }

    pub fn write(&mut self, offset: u64, bytes: Bytes) -> FopResult<()> {
        match &mut self.content {
            Content::File { data, durable, unsynced } => {
                durable.get_or_insert_with(|| data.clone());
                patch(data, offset, &bytes);
                unsynced.push(Unsynced::Write { offset, data: bytes });
                Ok(())
            }
            other => Err(not_a_file(self.gfid, other)),
        }
    }

    pub fn resize(&mut self, size_bytes: u64) -> FopResult<()> {
        match &mut self.content {
            Content::File { data, durable, unsynced } => {
                durable.get_or_insert_with(|| data.clone());
                data.resize(size_bytes as usize, 0);
                unsynced.push(Unsynced::Resize(size_bytes));
                Ok(())
            }
            other => Err(not_a_file(self.gfid, other)),
        }
    }

    /// Brings the data to the disk.
    pub fn sync(&mut self) {
        if let Content::File { durable, unsynced, .. } = &mut self.content {
            *durable = None;
            unsynced.clear();
        }
    }

    /// What the disk has after a crash that kept those unsynced changes that `kept` says, in their order.
    pub fn lose_unsynced(&mut self, kept: &mut dyn FnMut() -> bool) {
        if let Content::File { data, durable, unsynced } = &mut self.content
            && let Some(mut disk) = durable.take()
        {
            for change in std::mem::take(unsynced) {
                match change {
                    // Sizes are metadata, which is on the disk at once.
                    Unsynced::Resize(size_bytes) => disk.resize(size_bytes as usize, 0),
                    Unsynced::Write { offset, data } if kept() => patch(&mut disk, offset, &data),
                    Unsynced::Write { .. } => {}
                }
            }
            *data = disk;
        }
    }
}

fn patch(data: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if data.len() < end {
        data.resize(end, 0);
    }
    data[start..end].copy_from_slice(bytes);
}

fn not_a_file(gfid: Gfid, content: &Content) -> FopError {
    let code = if matches!(content, Content::Directory(_)) { errno::EISDIR } else { errno::EINVAL };
    FopError::new(code, format!("{gfid} is not a regular file"))
}

impl State {
    pub fn new(now: Timespec) -> State {
        let root = Inode::new(Gfid::ROOT, 0o040755, Content::Directory(Directory::new(Gfid::ROOT)), now);
        State {
            inodes: HashMap::from([(Gfid::ROOT, root)]),
            fds: HashMap::new(),
            index: Index::default(),
            next_ghost: 0,
        }
    }

    /// An inode that has a name; ESTALE for others, as bricks answer for a gfid without a handle.
    pub fn inode(&self, gfid: Gfid) -> FopResult<&Inode> {
        self.inodes.get(&gfid).filter(|inode| inode.nlink > 0).ok_or_else(|| stale(gfid))
    }

    pub fn inode_mut(&mut self, gfid: Gfid) -> FopResult<&mut Inode> {
        self.inodes.get_mut(&gfid).filter(|inode| inode.nlink > 0).ok_or_else(|| stale(gfid))
    }

    /// The directory that a named entry is to be found in.
    pub fn parent(&self, gfid: Gfid) -> FopResult<&Directory> {
        self.inode(gfid)?.directory()
    }

    pub fn find(&self, parent: Gfid, name: &Name) -> FopResult<&Inode> {
        check_name(name)?;
        let directory = self.parent(parent)?;
        let gfid = match name.as_ref() {
            b"." => parent,
            b".." => directory.parent,
            _ => directory.names.get(name).map(|(_, gfid)| *gfid).ok_or_else(|| missing(parent, name))?,
        };
        self.inode(gfid)
    }

    /// Forgets an inode that has neither names nor open files.
    pub fn forget_if_unused(&mut self, gfid: Gfid) {
        if self.inodes.get(&gfid).is_some_and(|inode| inode.nlink == 0 && inode.open_count == 0) {
            self.inodes.remove(&gfid);
        }
    }

    /// Makes room for a new inode of the gfid of one that lost its last name but is still open: that one lives on under
    /// a number of its own until it is closed (a brick keeps it in `.glusterfs/unlink`).
    pub fn set_aside_unlinked(&mut self, gfid: Gfid) {
        if self.inodes.get(&gfid).is_none_or(|inode| inode.nlink > 0) {
            return;
        }
        let mut ghost = [0xff; 16];
        ghost[8..].copy_from_slice(&self.next_ghost.to_be_bytes());
        self.next_ghost += 1;
        if let Some(inode) = self.inodes.remove(&gfid) {
            self.inodes.insert(Gfid(ghost), inode);
        }
        self.fds.values_mut().filter(|open| open.gfid == gfid).for_each(|open| open.gfid = Gfid(ghost));
    }

    pub fn close(&mut self, client: ClientId, fd: FdId) {
        if let Some(open) = self.fds.remove(&(client, fd)) {
            if let Some(inode) = self.inodes.get_mut(&open.gfid) {
                inode.open_count = inode.open_count.saturating_sub(1);
            }
            self.forget_if_unused(open.gfid);
        }
    }

    /// Whether `gfid` is `below` or one of its ancestors.
    pub fn is_ancestor(&self, gfid: Gfid, below: Gfid) -> bool {
        let mut seen = BTreeSet::new();
        let mut at = below;
        while seen.insert(at) {
            if at == gfid {
                return true;
            }
            match self.inodes.get(&at).map(|inode| &inode.content) {
                Some(Content::Directory(directory)) => at = directory.parent,
                _ => return false,
            }
        }
        false
    }
}

pub(super) fn check_name(name: &Name) -> FopResult<()> {
    if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
        return Err(FopError::new(errno::EINVAL, "a name that no directory can hold"));
    }
    match name.len() {
        0..=255 => Ok(()),
        _ => Err(FopError::new(errno::ENAMETOOLONG, "a name of more than 255 bytes")),
    }
}

pub(super) fn missing(parent: Gfid, name: &Name) -> FopError {
    FopError::new(errno::ENOENT, format!("no {} in {parent}", String::from_utf8_lossy(name)))
}

pub(super) fn stale(gfid: Gfid) -> FopError {
    FopError::new(errno::ESTALE, format!("no inode {gfid}"))
}
