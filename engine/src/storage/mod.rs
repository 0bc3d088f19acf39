//! storage/posix: a brick as a plain directory, in GlusterFS's layout (docs/brick-format.md).
//!
//! Promises: files stay files that `cat` can read; every inode has its gfid in `trusted.gfid` and a handle under
//! `.glusterfs`; a crash at any point leaves what the next lookup repairs; xattrop and times are atomic per inode; a
//! path in a request can never leave the brick, as every step is one name below an open directory.

pub mod acl;
pub mod brick;
mod entry;
mod entry_lock;
pub mod file;
pub mod handle;
pub mod inode;
mod janitor;
mod lookup;
pub mod options;
pub mod sys;
pub(crate) mod xattr;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use ladrillo_translator::error::errno;
use ladrillo_translator::{
    Context, Dict, Event, Fop, FopError, FopFuture, FopKind, FopResult, LocalFuture, Parent, Reply, Translator,
};
use rustix::fs::OFlags;

pub use brick::{Brick, BrickError};
pub use options::StorageOptions;
pub use xattr::matches_pattern;

use entry::{Contents, New};

/// What a fop's answer may hold beside its fixed parts, in bytes: for those who bound what is under way.
pub fn answer_bytes(fop: &Fop) -> usize {
    let xdata = fop.xdata();
    let content = xdata.and_then(|xdata| xdata.int("glusterfs.content")).and_then(|n| u64::try_from(n).ok());
    let asked = match fop {
        Fop::Read { size_bytes, .. } => (*size_bytes as usize).min(file::READ_MAX_BYTES),
        Fop::Readdir { size_bytes, .. } => (*size_bytes as usize).min(lookup::LISTING_MAX_BYTES),
        Fop::Readdirp { size_bytes, xdata, .. } => match xdata.is_empty() {
            true => (*size_bytes as usize).min(lookup::LISTING_MAX_BYTES),
            false => lookup::LISTING_MAX_BYTES,
        },
        // All of them, with their values; of one, what a file system takes at most.
        Fop::Getxattr { name, .. } | Fop::Fgetxattr { name, .. } if name.is_empty() => xattr::LIST_MAX_BYTES,
        Fop::Getxattr { .. } | Fop::Fgetxattr { .. } => xattr::VALUE_MAX_BYTES,
        _ => content.unwrap_or(0).min(xattr::CONTENT_MAX_BYTES) as usize,
    };
    let lists =
        xdata.is_some_and(|xdata| xdata.contains("list-xattr") || xdata.iter().any(|(key, _)| key.contains(&b'*')));
    asked + if lists { xattr::ANSWER_MAX_BYTES } else { 0 }
}

/// Work that may wait for a disk.
pub type Job = Box<dyn FnOnce() -> FopResult + Send>;

/// Where such work is done: a pool of threads beside the executor, or in place (tests, the simulator).
pub trait Offload: Send + Sync {
    /// Runs `job` and completes with what it returns.
    fn run(&self, job: Job) -> LocalFuture<'static, FopResult>;
}

/// Runs work in place.
pub struct InPlace;

impl Offload for InPlace {
    fn run(&self, job: Job) -> LocalFuture<'static, FopResult> {
        let outcome = job();
        Box::pin(async move { outcome })
    }
}

/// An inline operation that took longer sends its kind to the pool...
const SLOW: Duration = Duration::from_millis(5);
/// ... for so long.
const SLOW_FOR: Duration = Duration::from_secs(1);

/// The translator.
pub struct Storage {
    name: String,
    brick: Arc<Brick>,
    offload: Arc<dyn Offload>,
    parent: OnceLock<(Weak<dyn Parent>, usize)>,
    started: Instant,
    /// Per procedure: until when (milliseconds since `started`) it goes to the pool.
    slow_until: [AtomicU64; 64],
}

impl Storage {
    /// Opens the brick.
    ///
    /// # Errors
    /// [`BrickError`] says what is wrong with the directory.
    pub fn open(name: &str, options: StorageOptions, offload: Arc<dyn Offload>) -> Result<Storage, BrickError> {
        Ok(Storage {
            name: name.to_owned(),
            brick: Arc::new(Brick::open(name, options)?),
            offload,
            parent: OnceLock::new(),
            started: Instant::now(),
            slow_until: [const { AtomicU64::new(0) }; 64],
        })
    }

    /// The brick beneath, for index and for reports.
    pub fn brick(&self) -> &Arc<Brick> {
        &self.brick
    }

    fn is_slow(&self, kind: FopKind) -> bool {
        let until = self.slow_until.get(kind.procedure() as usize).map_or(0, |u| u.load(Ordering::Relaxed));
        until != 0 && (self.started.elapsed().as_millis() as u64) < until
    }

    fn note(&self, kind: FopKind, took: Duration) {
        if took > SLOW
            && let Some(slot) = self.slow_until.get(kind.procedure() as usize)
        {
            slot.store((self.started.elapsed() + SLOW_FOR).as_millis() as u64, Ordering::Relaxed);
        }
    }
}

/// Whether a fop may wait for a disk for long: always done by the pool.
fn waits(fop: &Fop, brick: &Brick) -> bool {
    match fop {
        Fop::Fsync { .. }
        | Fop::Fsyncdir { .. }
        | Fop::Rchecksum { .. }
        | Fop::Fallocate { .. }
        | Fop::Discard { .. }
        | Fop::Zerofill { .. }
        | Fop::CopyFileRange { .. }
        | Fop::Truncate { .. }
        | Fop::Ftruncate { .. }
        | Fop::Readdir { .. }
        | Fop::Readdirp { .. }
        | Fop::Read { .. } => true,
        // What they remove or replace may be large, and is freed.
        Fop::Unlink { entry, .. } | Fop::Rmdir { entry, .. } | Fop::Rename { to: entry, .. } => {
            !brick.frees_little(entry)
        }
        // Writes that must be on the disk before they are answered.
        Fop::Write { file, flags, .. } => {
            OFlags::from_bits_retain(*flags).intersects(OFlags::SYNC | OFlags::DSYNC | OFlags::DIRECT)
                || file.fd.and_then(|id| brick.files.get(id)).is_some_and(|open| open.sync || open.direct.is_some())
        }
        // Closing the last descriptor of an unlinked file frees its blocks, and so does opening one to empty it.
        Fop::Release { file } => {
            file.fd.and_then(|id| brick.files.get(id)).is_some_and(|open| open.inode.unlinked.load(Ordering::SeqCst))
        }
        Fop::Open { flags, .. } => OFlags::from_bits_retain(*flags).contains(OFlags::TRUNC),
        Fop::Create { entry, flags, .. } | Fop::Put { entry, flags, .. } => {
            let flags = OFlags::from_bits_retain(*flags);
            matches!(fop, Fop::Put { .. }) && flags.intersects(OFlags::SYNC | OFlags::DSYNC | OFlags::DIRECT)
                || flags.contains(OFlags::TRUNC) && !flags.contains(OFlags::EXCL) && brick.has_entry(entry)
        }
        _ => false,
    }
}

impl Translator for Storage {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        Box::pin(async move {
            if let Fop::Read { file, offset, size_bytes, .. } = &fop
                && let Some(reply) = self.brick.read_cached(*file, *offset, *size_bytes)?
            {
                return Ok(reply);
            }
            let kind = fop.kind();
            if !waits(&fop, &self.brick) && !self.is_slow(kind) {
                let start = Instant::now();
                let outcome = self.brick.execute(context, fop);
                self.note(kind, start.elapsed());
                return outcome;
            }
            let (brick, context) = (self.brick.clone(), context.clone());
            self.offload.run(Box::new(move || brick.execute(&context, fop))).await
        })
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        let _ = self.parent.set((parent, child_index));
    }

    fn start(&self) {
        if let Some((parent, index)) = self.parent.get()
            && let Some(parent) = parent.upgrade()
        {
            parent.child_event(*index, Event::Up);
        }
    }
}

impl Brick {
    /// Carries out a fop; may wait for the disk.
    pub fn execute(&self, context: &Context, fop: Fop) -> FopResult {
        match fop {
            Fop::Lookup { gfid, entry, xdata } => self.lookup(gfid, entry.as_ref(), &xdata),
            Fop::Stat { gfid, xdata } => self.stat(&*self.resolve(gfid)?, &xdata),
            Fop::Fstat { file, xdata } => self.stat(&*self.inode_of(file)?, &xdata),
            Fop::Setattr { gfid, iatt, valid, xdata } => {
                self.setattr(context, &*self.resolve(gfid)?, &iatt, valid, &xdata)
            }
            Fop::Fsetattr { file, iatt, valid, xdata } => {
                self.setattr(context, &*self.inode_of(file)?, &iatt, valid, &xdata)
            }
            Fop::Readlink { gfid, size_bytes, .. } => self.readlink(gfid, size_bytes),
            Fop::Mknod { entry, mode, rdev, umask, xdata } => {
                self.create(context, &entry, New::Node { mode, rdev, umask }, &xdata)
            }
            Fop::Mkdir { entry, mode, umask, xdata } => {
                self.create(context, &entry, New::Directory { mode, umask }, &xdata)
            }
            Fop::Symlink { entry, target, xdata, .. } => {
                self.create(context, &entry, New::Symlink { target: &target }, &xdata)
            }
            Fop::Create { entry, flags, mode, umask, fd, xdata } => {
                self.create(context, &entry, New::File { flags, mode, umask, fd }, &xdata)
            }
            Fop::Link { gfid, entry, xdata } => self.link(context, gfid, &entry, &xdata),
            Fop::Unlink { entry, xdata, .. } => self.unlink(context, &entry, &xdata),
            Fop::Rmdir { entry, flags, .. } => self.rmdir(context, &entry, flags),
            Fop::Rename { from, to, xdata } => self.rename(context, &from, &to, &xdata),
            Fop::Open { gfid, flags, fd, .. } => self.open_file(context, gfid, flags, fd),
            Fop::Opendir { gfid, fd, .. } => self.opendir(gfid, fd),
            Fop::Release { file } | Fop::Releasedir { file } => {
                if let Some(fd) = file.fd {
                    self.release(fd);
                }
                Ok(Reply::done())
            }
            Fop::Read { file, offset, size_bytes, .. } => self.read(file, offset, size_bytes),
            Fop::Write { file, offset, data, flags, xdata } => self.write(context, file, offset, &data, flags, &xdata),
            Fop::Truncate { gfid, size_bytes, .. } => {
                self.truncate(context, ladrillo_translator::fop::File { gfid, fd: None }, size_bytes)
            }
            Fop::Ftruncate { file, size_bytes, .. } => self.truncate(context, file, size_bytes),
            Fop::Flush { file, .. } => self.flush(file),
            Fop::Fsync { file, datasync, .. } => self.fsync(file, datasync),
            Fop::Fsyncdir { file, datasync, .. } => self.fsyncdir(file, datasync),
            Fop::Statfs { .. } => self.statfs(),
            // The mode bits are access-control's to check; here the inode only has to exist.
            Fop::Access { gfid, .. } => self.resolve(gfid).map(|_| Reply::done()),
            Fop::Setxattr { gfid, xattrs, flags, xdata } => {
                self.setxattr(context, &*self.resolve(gfid)?, &xattrs, flags, &xdata)
            }
            Fop::Fsetxattr { file, xattrs, flags, xdata } => {
                self.setxattr(context, &*self.inode_of(file)?, &xattrs, flags, &xdata)
            }
            Fop::Getxattr { gfid, name, xdata } => self.getxattr(context, &self.resolve(gfid)?, &name, &xdata),
            Fop::Fgetxattr { file, name, xdata } => self.getxattr(context, &self.inode_of(file)?, &name, &xdata),
            Fop::Removexattr { gfid, name, xdata } => self.removexattr(context, &*self.resolve(gfid)?, &name, &xdata),
            Fop::Fremovexattr { file, name, xdata } => self.removexattr(context, &*self.inode_of(file)?, &name, &xdata),
            // Also of a file that only open descriptors hold: whoever has marked it takes the mark back.
            Fop::Xattrop { gfid, kind, xattrs, xdata } => {
                self.xattrop(&*self.inode_of(ladrillo_translator::fop::File { gfid, fd: None })?, kind, &xattrs, &xdata)
            }
            Fop::Fxattrop { file, kind, xattrs, xdata } => self.xattrop(&*self.inode_of(file)?, kind, &xattrs, &xdata),
            Fop::Readdir { file, offset, size_bytes, xdata } => self.readdir(file, offset, size_bytes, &xdata, false),
            Fop::Readdirp { file, offset, size_bytes, xdata } => self.readdir(file, offset, size_bytes, &xdata, true),
            Fop::Rchecksum { file, offset, len, xdata } => self.rchecksum(file, offset, len, &xdata),
            Fop::Fallocate { file, flags, offset, len, .. } => self.fallocate(context, file, flags, offset, len),
            Fop::Discard { file, offset, len, .. } => self.discard(context, file, offset, len),
            Fop::Zerofill { file, offset, len, .. } => self.zerofill(context, file, offset, len),
            Fop::Seek { file, offset, what, .. } => self.seek(file, offset, what),
            Fop::CopyFileRange { from, from_offset, to, to_offset, len, flags, .. } => {
                self.copy_range(context, from, from_offset, to, to_offset, len, flags)
            }
            Fop::Lk { .. }
            | Fop::Inodelk { .. }
            | Fop::Finodelk { .. }
            | Fop::Entrylk { .. }
            | Fop::Fentrylk { .. } => {
                Err(FopError::new(errno::ENOSYS, "a lock reached storage: features/locks is not in the brick's graph"))
            }
            Fop::Put { entry, mode, umask, flags, offset, data, xattrs, xdata } => {
                let contents = Contents { offset, data: &data, xattrs: &xattrs };
                self.put(context, &entry, mode, umask, flags, &contents, &xdata)
            }
            // With leases off stock's bricks say so, too.
            Fop::Lease { .. } => Err(FopError::new(errno::ENOSYS, "leases are off (features.leases)")),
            Fop::Getactivelk { gfid, .. } => {
                self.resolve(gfid).map(|_| Reply::Activelk { locks: Vec::new(), xdata: Dict::new() })
            }
            Fop::Setactivelk { .. } => {
                Err(FopError::new(errno::ENOSYS, "a lock reached storage: features/locks is not in the brick's graph"))
            }
            Fop::Icreate { .. } | Fop::Namelink { .. } => {
                Err(FopError::new(errno::EOPNOTSUPP, "inodes without a name are not supported"))
            }
            Fop::Ipc { op, .. } => Err(FopError::new(errno::EOPNOTSUPP, format!("ipc {op} is nobody's"))),
        }
    }
}

#[cfg(test)]
mod tests;
