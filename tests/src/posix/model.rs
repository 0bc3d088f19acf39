//! A file system in memory: what POSIX and Linux say each operation does, as root.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::op::{Answer, FallocateHow, Op, Outcome, SLOTS, Stat, XattrHow, pattern};

/// The root directory's number.
const ROOT: usize = 0;

#[derive(Clone, Debug)]
enum Kind {
    File(Vec<u8>),
    Directory(BTreeMap<String, usize>),
    Symlink(String),
    Fifo,
}

#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u64,
    xattrs: BTreeMap<String, Vec<u8>>,
    /// Where it was set, and nothing has changed it since.
    mtime_s: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct Opened {
    node: usize,
    mount: usize,
    append: bool,
}

/// The file system. Nodes live as long as it does, so that a file without names stays for those who have it open.
#[derive(Clone, Debug)]
pub struct Model {
    nodes: Vec<Node>,
    slots: [Option<Opened>; SLOTS],
}

type Done = Result<Answer, Errno>;

impl Default for Model {
    fn default() -> Model {
        let mut model = Model { nodes: Vec::new(), slots: [None; SLOTS] };
        model.add(Kind::Directory(BTreeMap::new()), 0o755);
        model
    }
}

impl Model {
    /// Does one operation.
    pub fn apply(&mut self, op: &Op) -> Outcome {
        self.act(op).map_err(Errno::raw_os_error)
    }

    /// All paths, sorted, with what they are: the last comparison.
    pub fn walk(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.walk_below(ROOT, "", &mut found);
        found
    }

    /// The contents behind a slot, to check a seek against.
    pub fn slot_data(&self, slot: usize) -> Option<&[u8]> {
        match &self.nodes[self.slots[slot]?.node].kind {
            Kind::File(data) => Some(data),
            _ => None,
        }
    }

    fn walk_below(&self, node: usize, prefix: &str, found: &mut Vec<String>) {
        let Kind::Directory(entries) = &self.nodes[node].kind else { return };
        for (name, child) in entries {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            found.push(path.clone());
            self.walk_below(*child, &path, found);
        }
    }

    fn add(&mut self, kind: Kind, mode: u32) -> usize {
        let node = Node { kind, mode, uid: 0, gid: 0, nlink: 1, xattrs: BTreeMap::new(), mtime_s: None };
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn entries(&self, directory: usize) -> Result<&BTreeMap<String, usize>, Errno> {
        match &self.nodes[directory].kind {
            Kind::Directory(entries) => Ok(entries),
            // All symlinks here lead nowhere.
            Kind::Symlink(_) => Err(Errno::NOENT),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn entries_mut(&mut self, directory: usize) -> &mut BTreeMap<String, usize> {
        self.nodes[directory].mtime_s = None;
        match &mut self.nodes[directory].kind {
            Kind::Directory(entries) => entries,
            other => unreachable!("checked to be a directory: {other:?}"),
        }
    }

    /// The directory a path's last name is in, and that name.
    fn parent<'a>(&self, path: &'a str) -> Result<(usize, &'a str), Errno> {
        let (above, name) = path.rsplit_once('/').map_or(("", path), |(above, name)| (above, name));
        let mut directory = ROOT;
        for part in above.split('/').filter(|part| !part.is_empty()) {
            directory = *self.entries(directory)?.get(part).ok_or(Errno::NOENT)?;
        }
        self.entries(directory)?;
        Ok((directory, name))
    }

    /// What a path is, itself.
    fn find(&self, path: &str) -> Result<usize, Errno> {
        let (directory, name) = self.parent(path)?;
        self.entries(directory)?.get(name).copied().ok_or(Errno::NOENT)
    }

    /// What a path leads to.
    fn follow(&self, path: &str) -> Result<usize, Errno> {
        let node = self.find(path)?;
        if matches!(self.nodes[node].kind, Kind::Symlink(_)) { Err(Errno::NOENT) } else { Ok(node) }
    }

    fn create(&mut self, path: &str, kind: Kind, mode: u32) -> Done {
        let (directory, name) = self.parent(path)?;
        if self.entries(directory)?.contains_key(name) {
            return Err(Errno::EXIST);
        }
        let node = self.add(kind, mode);
        self.entries_mut(directory).insert(name.to_owned(), node);
        Ok(Answer::Done)
    }

    /// A file to open for reading or writing, as open(2) with O_NOFOLLOW and O_NONBLOCK.
    fn open(&self, path: &str, write: bool) -> Result<usize, Errno> {
        let node = self.find(path)?;
        match &self.nodes[node].kind {
            Kind::File(_) => Ok(node),
            Kind::Directory(_) => Err(Errno::ISDIR),
            Kind::Symlink(_) => Err(Errno::LOOP),
            Kind::Fifo if write => Err(Errno::NXIO),
            Kind::Fifo => Err(Errno::INVAL),
        }
    }

    fn data(&mut self, node: usize) -> &mut Vec<u8> {
        match &mut self.nodes[node].kind {
            Kind::File(data) => data,
            other => unreachable!("only files are opened: {other:?}"),
        }
    }

    fn write(&mut self, node: usize, offset: u64, bytes: &[u8]) {
        self.nodes[node].mtime_s = None;
        let (start, data) = (offset as usize, self.data(node));
        if data.len() < start + bytes.len() {
            data.resize(start + bytes.len(), 0);
        }
        data[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn opened(&self, slot: usize) -> Result<Opened, Errno> {
        self.slots[slot].ok_or(Errno::BADF)
    }

    fn stat(&self, node: usize) -> Stat {
        let n = &self.nodes[node];
        let (kind, size, nlink) = match &n.kind {
            Kind::File(data) => ("file", data.len() as u64, n.nlink),
            Kind::Directory(_) => ("directory", 0, 0),
            Kind::Symlink(target) => ("symlink", target.len() as u64, n.nlink),
            Kind::Fifo => ("fifo", 0, n.nlink),
        };
        Stat { kind, mode: n.mode, uid: n.uid, gid: n.gid, nlink, size, mtime_s: n.mtime_s }
    }

    fn xattr_owner(&mut self, path: &str) -> Result<&mut BTreeMap<String, Vec<u8>>, Errno> {
        let node = self.find(path)?;
        match &self.nodes[node].kind {
            Kind::File(_) | Kind::Directory(_) => Ok(&mut self.nodes[node].xattrs),
            _ => Err(Errno::PERM),
        }
    }

    fn rename(&mut self, from: &str, to: &str) -> Done {
        let (from_directory, from_name) = self.parent(from)?;
        let (to_directory, to_name) = self.parent(to)?;
        let node = *self.entries(from_directory)?.get(from_name).ok_or(Errno::NOENT)?;
        if to_directory == node || self.is_below(to_directory, node) {
            return Err(Errno::INVAL);
        }
        let target = self.entries(to_directory)?.get(to_name).copied();
        let is_directory = |node: usize| matches!(self.nodes[node].kind, Kind::Directory(_));
        if let Some(target) = target {
            if target == from_directory || self.is_below(from_directory, target) {
                return Err(Errno::NOTEMPTY);
            }
            if target == node {
                return Ok(Answer::Done);
            }
            match (is_directory(node), is_directory(target)) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) if !self.entries(target)?.is_empty() => return Err(Errno::NOTEMPTY),
                _ => {}
            }
            self.nodes[target].nlink -= 1;
        }
        self.entries_mut(from_directory).remove(from_name);
        self.entries_mut(to_directory).insert(to_name.to_owned(), node);
        Ok(Answer::Done)
    }

    fn is_below(&self, node: usize, above: usize) -> bool {
        match &self.nodes[above].kind {
            Kind::Directory(entries) => entries.values().any(|child| *child == node || self.is_below(node, *child)),
            _ => false,
        }
    }

    fn remove(&mut self, path: &str, directory: bool) -> Done {
        let (parent, name) = self.parent(path)?;
        let node = *self.entries(parent)?.get(name).ok_or(Errno::NOENT)?;
        match (&self.nodes[node].kind, directory) {
            (Kind::Directory(_), false) => return Err(Errno::ISDIR),
            (Kind::Directory(entries), true) if !entries.is_empty() => return Err(Errno::NOTEMPTY),
            (Kind::Directory(_), true) | (_, false) => {}
            (_, true) => return Err(Errno::NOTDIR),
        }
        self.nodes[node].nlink -= 1;
        self.entries_mut(parent).remove(name);
        Ok(Answer::Done)
    }

    fn act(&mut self, op: &Op) -> Done {
        match op {
            Op::Mkdir { path, mode, .. } => self.create(path, Kind::Directory(BTreeMap::new()), *mode),
            Op::Mkfifo { path, mode, .. } => self.create(path, Kind::Fifo, *mode),
            Op::Symlink { path, target, .. } => self.create(path, Kind::Symlink(target.clone()), 0o777),
            Op::Create { path, mode, exclusive, .. } => match self.find(path) {
                Err(Errno::NOENT) => self.create(path, Kind::File(Vec::new()), *mode),
                Err(error) => Err(error),
                Ok(_) if *exclusive => Err(Errno::EXIST),
                Ok(node) => match &self.nodes[node].kind {
                    Kind::Directory(_) => Err(Errno::ISDIR),
                    Kind::Symlink(_) => Err(Errno::LOOP),
                    Kind::File(_) | Kind::Fifo => Ok(Answer::Done),
                },
            },
            Op::Link { from, to, .. } => {
                let node = self.find(from)?;
                let (directory, name) = self.parent(to)?;
                if self.entries(directory)?.contains_key(name) {
                    return Err(Errno::EXIST);
                }
                if matches!(self.nodes[node].kind, Kind::Directory(_)) {
                    return Err(Errno::PERM);
                }
                self.nodes[node].nlink += 1;
                self.entries_mut(directory).insert(name.to_owned(), node);
                Ok(Answer::Done)
            }
            Op::Unlink { path, .. } => self.remove(path, false),
            Op::Rmdir { path, .. } => self.remove(path, true),
            Op::Rename { from, to, .. } => self.rename(from, to),
            Op::Readdir { path, .. } => {
                let node = self.follow(path)?;
                Ok(Answer::Names(self.entries(node)?.keys().cloned().collect()))
            }
            Op::Readlink { path, .. } => match &self.nodes[self.find(path)?].kind {
                Kind::Symlink(target) => Ok(Answer::Target(target.clone())),
                _ => Err(Errno::INVAL),
            },
            Op::Stat { path, .. } => Ok(Answer::Stat(self.stat(self.find(path)?))),
            Op::Chmod { path, mode, .. } => {
                let node = self.follow(path)?;
                self.nodes[node].mode = *mode;
                Ok(Answer::Done)
            }
            Op::Chown { path, uid, gid, .. } => {
                let node = self.find(path)?;
                (self.nodes[node].uid, self.nodes[node].gid) = (*uid, *gid);
                Ok(Answer::Done)
            }
            Op::Utimens { path, seconds, .. } => {
                let node = self.find(path)?;
                self.nodes[node].mtime_s = Some(*seconds);
                Ok(Answer::Done)
            }
            Op::Setxattr { path, name, value, how, .. } => {
                let xattrs = self.xattr_owner(path)?;
                match (how, xattrs.contains_key(name)) {
                    (XattrHow::Create, true) => Err(Errno::EXIST),
                    (XattrHow::Replace, false) => Err(Errno::NODATA),
                    _ => {
                        xattrs.insert(name.clone(), value.clone());
                        Ok(Answer::Done)
                    }
                }
            }
            Op::Removexattr { path, name, .. } => {
                self.xattr_owner(path)?.remove(name).map(|_| Answer::Done).ok_or(Errno::NODATA)
            }
            Op::Xattrs { path, .. } => Ok(Answer::Xattrs(self.nodes[self.find(path)?].xattrs.clone())),
            _ => self.act_on_contents(op),
        }
    }

    fn act_on_contents(&mut self, op: &Op) -> Done {
        match op {
            Op::Truncate { path, size, .. } => {
                let node = self.follow(path)?;
                match &self.nodes[node].kind {
                    Kind::File(_) => self.truncate(node, *size),
                    Kind::Directory(_) => return Err(Errno::ISDIR),
                    _ => return Err(Errno::INVAL),
                }
                Ok(Answer::Done)
            }
            Op::Write { path, offset, len, seed, .. } => {
                let node = self.open(path, true)?;
                self.write(node, *offset, &pattern(*seed, *offset, *len));
                Ok(Answer::Count(*len))
            }
            Op::Append { path, len, seed, .. } => {
                let node = self.open(path, true)?;
                let end = self.data(node).len() as u64;
                self.write(node, end, &pattern(*seed, 0, *len));
                Ok(Answer::Count(*len))
            }
            Op::Read { path, .. } => {
                let node = self.open(path, false)?;
                Ok(Answer::Data(self.data(node).clone()))
            }
            Op::Open { path, slot, append, truncate, mount } => {
                self.slots[*slot] = None;
                let node = self.open(path, false)?;
                if *truncate {
                    self.truncate(node, 0);
                }
                self.slots[*slot] = Some(Opened { node, mount: *mount, append: *append });
                Ok(Answer::Done)
            }
            Op::Close { slot } => self.slots[*slot].take().map(|_| Answer::Done).ok_or(Errno::BADF),
            Op::SlotWrite { slot, offset, len, seed } => {
                let file = self.opened(*slot)?;
                let at = if file.append { self.data(file.node).len() as u64 } else { *offset };
                self.write(file.node, at, &pattern(*seed, *offset, *len));
                Ok(Answer::Count(*len))
            }
            Op::SlotRead { slot, offset, len } => {
                let node = self.opened(*slot)?.node;
                let data = self.data(node);
                let start = (*offset as usize).min(data.len());
                let end = (start + len).min(data.len());
                Ok(Answer::Data(data[start..end].to_vec()))
            }
            Op::SlotTruncate { slot, size } => {
                let node = self.opened(*slot)?.node;
                self.truncate(node, *size);
                Ok(Answer::Done)
            }
            Op::SlotFallocate { slot, how, offset, len } => {
                let node = self.opened(*slot)?.node;
                let (start, end) = (*offset as usize, (offset + len) as usize);
                let extends = matches!(how, FallocateHow::Extend | FallocateHow::ZeroRange);
                // fallocate(2): a change of the contents or the size is one of the times as well.
                self.nodes[node].mtime_s = None;
                let data = self.data(node);
                if extends && data.len() < end {
                    data.resize(end, 0);
                }
                if matches!(how, FallocateHow::PunchHole | FallocateHow::ZeroRange) {
                    let (start, end) = (start.min(data.len()), end.min(data.len()));
                    data[start..end].fill(0);
                }
                Ok(Answer::Done)
            }
            Op::SlotSync { slot, .. } => self.opened(*slot).map(|_| Answer::Done),
            Op::SlotStat { slot } => Ok(Answer::Stat(self.stat(self.opened(*slot)?.node))),
            Op::SlotSeek { slot, offset, .. } => {
                let node = self.opened(*slot)?.node;
                if *offset >= self.data(node).len() as u64 { Err(Errno::NXIO) } else { Ok(Answer::Seek(None)) }
            }
            Op::SlotCopy { from, from_offset, to, to_offset, len } => {
                let (source, target) = (self.opened(*from)?, self.opened(*to)?);
                if target.append {
                    return Err(Errno::BADF);
                }
                let data = self.data(source.node);
                let start = (*from_offset as usize).min(data.len());
                let bytes = data[start..(start + len).min(data.len())].to_vec();
                let (here, there, count) = (*from_offset, *to_offset, bytes.len() as u64);
                if source.node == target.node && there + count > here && there < here + count {
                    return Err(Errno::INVAL);
                }
                if !bytes.is_empty() {
                    self.write(target.node, *to_offset, &bytes);
                }
                Ok(Answer::Count(bytes.len()))
            }
            other => unreachable!("{other:?} is not about contents"),
        }
    }

    fn truncate(&mut self, node: usize, size: u64) {
        self.nodes[node].mtime_s = None;
        self.data(node).resize(size as usize, 0);
    }

    /// Whether both slots were opened on one mount.
    pub fn same_mount(&self, one: usize, other: usize) -> bool {
        matches!((self.slots[one], self.slots[other]), (Some(a), Some(b)) if a.mount == b.mount)
    }
}
