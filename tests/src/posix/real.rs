//! The same operations on real file systems: one tree, seen through one or more mounts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, SeekFrom, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::op::{Answer, FallocateHow, Op, Outcome, SLOTS, Stat, XattrHow, pattern};

/// A directory on each of the mounts (the same one), and the files open on them.
#[derive(Debug)]
pub struct Real {
    directories: Vec<PathBuf>,
    slots: [Option<OwnedFd>; SLOTS],
}

type Done = Result<Answer, Errno>;

impl Real {
    /// On a directory seen through each of `directories`.
    pub fn new(directories: Vec<PathBuf>) -> Real {
        Real { directories, slots: [const { None }; SLOTS] }
    }

    /// Does one operation.
    pub fn apply(&mut self, op: &Op) -> Outcome {
        self.act(op).map_err(Errno::raw_os_error)
    }

    /// All paths seen through a mount, sorted as [`super::Model::walk`] has them.
    pub fn walk(&self, mount: usize) -> std::io::Result<Vec<String>> {
        let mut found = Vec::new();
        walk_below(&self.directories[mount], "", &mut found)?;
        Ok(found)
    }

    /// How many mounts there are.
    pub fn mounts(&self) -> usize {
        self.directories.len()
    }

    fn path(&self, mount: usize, path: &str) -> PathBuf {
        self.directories[mount].join(path)
    }

    fn slot(&self, slot: usize) -> Result<&OwnedFd, Errno> {
        self.slots[slot].as_ref().ok_or(Errno::BADF)
    }

    fn act(&mut self, op: &Op) -> Done {
        match op {
            Op::Mkdir { mount, path, mode } => {
                done(rustix::fs::mkdir(self.path(*mount, path), Mode::from_raw_mode(*mode)))
            }
            Op::Create { mount, path, mode, exclusive } => {
                let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let flags = if *exclusive { flags | OFlags::EXCL } else { flags };
                done(rustix::fs::open(self.path(*mount, path), flags, Mode::from_raw_mode(*mode)).map(drop))
            }
            Op::Mkfifo { mount, path, mode } => {
                let path = self.path(*mount, path);
                done(rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(*mode), 0))
            }
            Op::Symlink { mount, path, target } => done(rustix::fs::symlink(target.as_str(), self.path(*mount, path))),
            Op::Link { mount, from, to } => {
                done(rustix::fs::linkat(CWD, self.path(*mount, from), CWD, self.path(*mount, to), AtFlags::empty()))
            }
            Op::Unlink { mount, path } => done(rustix::fs::unlink(self.path(*mount, path))),
            Op::Rmdir { mount, path } => done(rustix::fs::rmdir(self.path(*mount, path))),
            Op::Rename { mount, from, to } => {
                let (from, to) = (self.path(*mount, from), self.path(*mount, to));
                if self.mounts() > 1 {
                    // A directory that another mount has moved is put in its place by the kernel when it looks it up, which it
                    // cannot do (ESTALE) while it holds the lock of a rename between directories (d_splice_alias).
                    let _ = (rustix::fs::lstat(&from), rustix::fs::lstat(&to));
                }
                done(rustix::fs::rename(from, to))
            }
            Op::Readdir { mount, path } => {
                let entries = fs::read_dir(self.path(*mount, path)).map_err(|e| errno(&e))?;
                let mut names = Vec::new();
                for entry in entries {
                    names.push(entry.map_err(|e| errno(&e))?.file_name().to_string_lossy().into_owned());
                }
                names.sort();
                Ok(Answer::Names(names))
            }
            Op::Readlink { mount, path } => {
                let target = rustix::fs::readlink(self.path(*mount, path), Vec::new())?;
                Ok(Answer::Target(target.to_string_lossy().into_owned()))
            }
            Op::Stat { mount, path } => Ok(Answer::Stat(stat(&rustix::fs::lstat(self.path(*mount, path))?))),
            Op::Chmod { mount, path, mode } => {
                done(rustix::fs::chmod(self.path(*mount, path), Mode::from_raw_mode(*mode)))
            }
            Op::Chown { mount, path, uid, gid } => {
                let (uid, gid) = (rustix::fs::Uid::from_raw(*uid), rustix::fs::Gid::from_raw(*gid));
                let nofollow = AtFlags::SYMLINK_NOFOLLOW;
                done(rustix::fs::chownat(CWD, self.path(*mount, path), Some(uid), Some(gid), nofollow))
            }
            Op::Utimens { mount, path, seconds } => {
                let time = Timespec { tv_sec: *seconds, tv_nsec: 0 };
                let times = Timestamps { last_access: time, last_modification: time };
                done(rustix::fs::utimensat(CWD, self.path(*mount, path), &times, AtFlags::SYMLINK_NOFOLLOW))
            }
            Op::Setxattr { mount, path, name, value, how } => {
                let flags = match how {
                    XattrHow::Any => XattrFlags::empty(),
                    XattrHow::Create => XattrFlags::CREATE,
                    XattrHow::Replace => XattrFlags::REPLACE,
                };
                done(rustix::fs::lsetxattr(self.path(*mount, path), name.as_str(), value, flags))
            }
            Op::Removexattr { mount, path, name } => {
                done(rustix::fs::lremovexattr(self.path(*mount, path), name.as_str()))
            }
            Op::Xattrs { mount, path } => Ok(Answer::Xattrs(xattrs(&self.path(*mount, path))?)),
            _ => self.act_on_contents(op),
        }
    }

    fn open(&self, mount: usize, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(self.path(mount, path), flags, Mode::empty())
    }

    fn act_on_contents(&mut self, op: &Op) -> Done {
        match op {
            Op::Truncate { mount, path, size } => done(truncate(&self.path(*mount, path), *size)),
            Op::Write { mount, path, offset, len, seed } => {
                let file = self.open(*mount, path, OFlags::WRONLY)?;
                write_all(&file, *offset, &pattern(*seed, *offset, *len))
            }
            Op::Append { mount, path, len, seed } => {
                let file = self.open(*mount, path, OFlags::WRONLY | OFlags::APPEND)?;
                write_once(&file, &pattern(*seed, 0, *len))
            }
            Op::Read { mount, path } => {
                let file = self.open(*mount, path, OFlags::RDONLY)?;
                if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::Fifo {
                    return Err(Errno::INVAL);
                }
                read_all(&file, 0, usize::MAX)
            }
            Op::Open { mount, path, slot, append, truncate } => {
                self.slots[*slot] = None;
                // Reading and writing a fifo would open it; the model has none open.
                let before = rustix::fs::lstat(self.path(*mount, path));
                if before.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo) {
                    return Err(Errno::INVAL);
                }
                let mut flags = OFlags::RDWR;
                flags.set(OFlags::APPEND, *append);
                flags.set(OFlags::TRUNC, *truncate);
                self.slots[*slot] = Some(self.open(*mount, path, flags)?);
                Ok(Answer::Done)
            }
            Op::Close { slot } => self.slots[*slot].take().map(|_| Answer::Done).ok_or(Errno::BADF),
            Op::SlotWrite { slot, offset, len, seed } => {
                let file = self.slot(*slot)?;
                let bytes = pattern(*seed, *offset, *len);
                let append = rustix::fs::fcntl_getfl(file)?.contains(OFlags::APPEND);
                if append { write_once(file, &bytes) } else { write_all(file, *offset, &bytes) }
            }
            Op::SlotRead { slot, offset, len } => read_all(self.slot(*slot)?, *offset, *len),
            Op::SlotTruncate { slot, size } => done(rustix::fs::ftruncate(self.slot(*slot)?, *size)),
            Op::SlotFallocate { slot, how, offset, len } => {
                let flags = match how {
                    FallocateHow::Extend => FallocateFlags::empty(),
                    FallocateHow::KeepSize => FallocateFlags::KEEP_SIZE,
                    FallocateHow::PunchHole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                    FallocateHow::ZeroRange => FallocateFlags::ZERO_RANGE,
                };
                done(rustix::fs::fallocate(self.slot(*slot)?, flags, *offset, *len))
            }
            Op::SlotSync { slot, data_only: true } => done(rustix::fs::fdatasync(self.slot(*slot)?)),
            Op::SlotSync { slot, data_only: false } => done(rustix::fs::fsync(self.slot(*slot)?)),
            Op::SlotStat { slot } => Ok(Answer::Stat(stat(&rustix::fs::fstat(self.slot(*slot)?)?))),
            Op::SlotSeek { slot, offset, hole } => {
                let whence = if *hole { SeekFrom::Hole(*offset) } else { SeekFrom::Data(*offset) };
                match rustix::fs::seek(self.slot(*slot)?, whence) {
                    Ok(found) => Ok(Answer::Seek(Some(found))),
                    Err(Errno::NXIO) => Ok(Answer::Seek(None)),
                    Err(error) => Err(error),
                }
            }
            Op::SlotCopy { from, from_offset, to, to_offset, len } => {
                let (source, target) = (self.slot(*from)?, self.slot(*to)?);
                // The kernel cuts the length by the size it knows: another mount may have changed it.
                let _ = rustix::fs::fstat(source)?;
                let (mut here, mut there) = (*from_offset, *to_offset);
                let copied = rustix::fs::copy_file_range(source, Some(&mut here), target, Some(&mut there), *len)?;
                Ok(Answer::Count(copied))
            }
            other => unreachable!("{other:?} is not about contents"),
        }
    }
}

fn done(result: Result<(), Errno>) -> Done {
    result.map(|()| Answer::Done)
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// truncate(2), which rustix lacks.
fn truncate(path: &Path, size: u64) -> Result<(), Errno> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    let size = i64::try_from(size).map_err(|_| Errno::FBIG)?;
    // SAFETY: `path` is a C string that outlives the call, which keeps nothing.
    let code = unsafe { libc::truncate(path.as_ptr(), size) };
    if code == 0 { Ok(()) } else { Err(errno(&std::io::Error::last_os_error())) }
}

fn write_all(file: &OwnedFd, offset: u64, bytes: &[u8]) -> Done {
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::pwrite(file, &bytes[written..], offset + written as u64)?;
    }
    Ok(Answer::Count(written))
}

/// One write(2): an append is one.
fn write_once(file: &OwnedFd, bytes: &[u8]) -> Done {
    Ok(Answer::Count(rustix::io::write(file, bytes)?))
}

fn read_all(file: &OwnedFd, offset: u64, len: usize) -> Done {
    let mut data = Vec::new();
    let mut buffer = vec![0; 1 << 17];
    while data.len() < len {
        let wanted = (len - data.len()).min(buffer.len());
        let n = rustix::io::pread(file, &mut buffer[..wanted], offset + data.len() as u64)?;
        if n == 0 {
            break;
        }
        data.extend_from_slice(&buffer[..n]);
    }
    Ok(Answer::Data(data))
}

fn stat(stat: &rustix::fs::Stat) -> Stat {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        _ => "other",
    };
    let directory = kind == "directory";
    Stat {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        nlink: if directory { 0 } else { stat.st_nlink },
        size: if directory { 0 } else { stat.st_size.max(0) as u64 },
        mtime_s: Some(stat.st_mtime),
    }
}

fn xattrs(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, Errno> {
    let mut names = vec![0u8; 65536];
    let n = rustix::fs::llistxattr(path, &mut names[..])?;
    let mut all = BTreeMap::new();
    for name in names[..n].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        let mut value = vec![0u8; 65536];
        let n = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(n);
        all.insert(String::from_utf8_lossy(name).into_owned(), value);
    }
    Ok(all)
}

fn walk_below(directory: &Path, prefix: &str, found: &mut Vec<String>) -> std::io::Result<()> {
    let mut entries = fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        found.push(path.clone());
        let kind = entry.file_type()?;
        if kind.is_dir() && !kind.is_fifo() {
            walk_below(&entry.path(), &path, found)?;
        }
    }
    Ok(())
}
