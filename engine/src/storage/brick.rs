//! The brick itself: the directory, its `.glusterfs`, and how a gfid or a name becomes an inode.
//!
//! The order of steps that make an entry is chosen so that a crash between any two leaves what a lookup repairs:
//! the name first, then `trusted.gfid`, then the handle. Removal goes the other way round.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ladrillo_translator::error::errno;
use ladrillo_translator::fop::Entry;
use ladrillo_translator::{FileType, FopError, FopResult, Gfid};
use parking_lot::{Mutex, RwLock};
use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::entry_lock::EntryLocks;
use super::file::OpenFiles;
use super::handle::{HIDDEN, check_name, directory_link, handle_path, parse_directory_link};
use super::inode::{GFID_KEY, Inode, InodeTable};
use super::options::StorageOptions;
use super::sys::{self, Explain};

/// The xattr of the brick's root that says which volume it belongs to.
pub const VOLUME_ID_KEY: &str = "trusted.glusterfs.volume-id";

/// errno of a chain of handles without end.
const ELOOP: i32 = libc::ELOOP;

/// Deepest directory we follow handles up to. Source: our bound; PATH_MAX allows 2048 one-letter levels.
const MAX_DEPTH: usize = 2048;

/// 512-byte blocks of what is removed inline: 1 MiB.
const FREED_AT_ONCE_BLOCKS: i64 = 2048;

/// Files whose times may wait to be stored; beyond that they are stored at once.
pub(super) const MAX_UNSAVED: usize = 65_536;

/// Why a brick does not start.
#[derive(Debug, thiserror::Error)]
pub enum BrickError {
    /// The directory is not there or cannot be used.
    #[error("brick {path}: {what}: {error}")]
    Io {
        /// The brick.
        path: String,
        /// What was attempted.
        what: String,
        /// How it failed.
        error: std::io::Error,
    },
    /// The directory is not this volume's brick.
    #[error("brick {path}: {what}")]
    Foreign {
        /// The brick.
        path: String,
        /// Why we refuse it.
        what: String,
    },
}

/// A brick directory in use.
pub struct Brick {
    /// The volfile's name of the translator.
    pub name: String,
    /// Where it is, for pathinfo and logs.
    pub path: PathBuf,
    /// O_PATH descriptor of the brick's root.
    pub root: OwnedFd,
    /// O_PATH descriptor of `.glusterfs`.
    pub hidden: OwnedFd,
    /// How it was configured when it was opened; see [`Brick::tuned`] for what may change.
    pub options: StorageOptions,
    tuned: RwLock<Arc<StorageOptions>>,
    /// Inodes in use.
    pub inodes: InodeTable,
    /// Files and directories clients hold open.
    pub files: OpenFiles,
    /// Held while entries change.
    pub entry_locks: EntryLocks,
    hidden_ino: u64,
    full: AtomicBool,
    space_checked_at: AtomicI64,
    /// Bytes read and written since start, for profiles.
    pub read_bytes: AtomicU64,
    /// See `read_bytes`.
    pub written_bytes: AtomicU64,
    /// Files whose times wait to be stored.
    pub(super) unsaved: Mutex<Vec<Weak<Inode>>>,
}

/// An entry that exists.
pub struct Found {
    /// Its inode.
    pub inode: Arc<Inode>,
    /// The O_PATH stat taken while finding it.
    pub stat: rustix::fs::Stat,
}

impl Brick {
    /// Opens a brick: checks whose it is, and makes `.glusterfs` complete.
    ///
    /// # Errors
    /// [`BrickError`]: not there, not a directory, no xattrs, another volume's, or another inode's gfid on its root.
    pub fn open(name: &str, options: StorageOptions) -> Result<Brick, BrickError> {
        let path = options.directory.clone();
        let shown = path.display().to_string();
        let io = |what: &str| {
            let (path, what) = (shown.clone(), what.to_owned());
            move |e: Errno| BrickError::Io { path, what, error: std::io::Error::from_raw_os_error(e.raw_os_error()) }
        };
        let foreign = |what: String| BrickError::Foreign { path: shown.clone(), what };
        let root = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(io("opening the directory"))?;
        if let Some(volume_id) = options.volume_id {
            match sys::get_xattr(&root, VOLUME_ID_KEY.as_bytes()).map_err(io("reading trusted.glusterfs.volume-id"))? {
                Some(raw) => match Gfid::from_slice(&raw) {
                    Some(found) if found == volume_id => {}
                    Some(found) => {
                        return Err(foreign(format!(
                            "it is already part of the volume with id {found}, this one's is {volume_id}"
                        )));
                    }
                    None => return Err(foreign(format!("{VOLUME_ID_KEY} has {} bytes instead of 16", raw.len()))),
                },
                None => {
                    return Err(foreign(format!(
                        "{VOLUME_ID_KEY} is absent: not a brick of this volume, or its disk is not mounted"
                    )));
                }
            }
        }
        match sys::get_xattr(&root, GFID_KEY.as_bytes()).map_err(io("reading trusted.gfid"))? {
            Some(raw) if Gfid::from_slice(&raw) == Some(Gfid::ROOT) => {}
            Some(raw) => {
                return Err(foreign(match Gfid::from_slice(&raw) {
                    Some(gfid) => {
                        format!("its gfid {gfid} is not that of a volume's root: it lies inside another brick")
                    }
                    None => format!("{GFID_KEY} has {} bytes instead of 16", raw.len()),
                }));
            }
            None => sys::set_xattr(&root, GFID_KEY.as_bytes(), &Gfid::ROOT.0, XattrFlags::CREATE)
                .map_err(io("setting trusted.gfid (does the file system support extended attributes?)"))?,
        }
        let hidden = make_hidden(&root).map_err(io("preparing .glusterfs"))?;
        let hidden_ino = sys::fstat(&hidden).map_err(io("stat of .glusterfs"))?.st_ino;
        let brick = Brick {
            name: name.to_owned(),
            inodes: InodeTable::new(options.inode_cache.min(descriptors() / 4)),
            files: OpenFiles::default(),
            entry_locks: EntryLocks::default(),
            path,
            hidden_ino,
            full: AtomicBool::new(false),
            space_checked_at: AtomicI64::new(0),
            read_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            unsaved: Mutex::default(),
            tuned: RwLock::new(Arc::new(options.clone())),
            options,
            root,
            hidden,
        };
        brick.own_root().map_err(|e| foreign(e.message.into_owned()))?;
        brick.check_root_handle().map_err(|e| foreign(e.message.into_owned()))?;
        Ok(brick)
    }

    /// Options as they are now: the reserve, what statfs tells, masks, health checks, limits.
    pub fn tuned(&self) -> Arc<StorageOptions> {
        self.tuned.read().clone()
    }

    /// Takes changed options. Returns whether some of them wait for the next start: which directory of which volume it is,
    /// and what is recorded with each inode.
    ///
    /// # Errors
    /// The root cannot be given its new owner.
    pub fn tune(&self, options: StorageOptions) -> FopResult<bool> {
        let fixed = |o: &StorageOptions| {
            (o.directory.clone(), o.volume_id, o.ctime, o.gfid2path, o.fips_mode_rchecksum, o.node_uuid, o.inode_cache)
        };
        let waits = fixed(&options) != fixed(&self.options);
        *self.tuned.write() = Arc::new(options);
        // The reserve may be another: look anew.
        self.space_checked_at.store(0, Ordering::Relaxed);
        self.own_root()?;
        Ok(waits)
    }

    /// `brick-uid`, `brick-gid`: the brick's root is theirs.
    fn own_root(&self) -> FopResult<()> {
        let (uid, gid) = self.tuned().brick_owner;
        if uid.is_none() && gid.is_none() {
            return Ok(());
        }
        let (uid, gid) = (uid.map(rustix::fs::Uid::from_raw), gid.map(rustix::fs::Gid::from_raw));
        rustix::fs::chownat(&self.root, "", uid, gid, AtFlags::EMPTY_PATH)
            .explain(|| "giving the brick's root its owner".to_owned())
    }

    fn check_root_handle(&self) -> FopResult<()> {
        let path = handle_path(Gfid::ROOT);
        match rustix::fs::statat(&self.hidden, path.as_str(), AtFlags::empty()) {
            Ok(stat) => {
                let root = sys::fstat(&self.root).explain(|| "stat of the root".to_owned())?;
                if (stat.st_ino, stat.st_dev) == (root.st_ino, root.st_dev) {
                    return Ok(());
                }
                Err(FopError::new(
                    errno::EINVAL,
                    format!(".glusterfs/{path} leads to another directory than the brick's root"),
                ))
            }
            Err(Errno::NOENT) => {
                self.make_levels(Gfid::ROOT).explain(|| format!("making .glusterfs/{path}"))?;
                rustix::fs::symlinkat("../../..", &self.hidden, path.as_str())
                    .explain(|| format!("making .glusterfs/{path}"))
            }
            Err(e) => Err(sys::failure(e, &format!(".glusterfs/{path}"))),
        }
    }

    /// The inode of a gfid. ENOENT where there is no handle, EINVAL for the null gfid.
    pub fn resolve(&self, gfid: Gfid) -> FopResult<Arc<Inode>> {
        if gfid.is_null() {
            return Err(FopError::new(errno::EINVAL, "the null gfid names no inode"));
        }
        if let Some(inode) = self.inodes.get(gfid) {
            return Ok(inode);
        }
        // Names still to be opened, from the wanted directory up to the first ancestor that is known.
        let mut below: Vec<(Gfid, Entry)> = Vec::new();
        let mut at = gfid;
        let mut inode = loop {
            if let Some(known) = self.inodes.get(at) {
                break known;
            }
            if at.is_root() {
                let fd = sys::duplicate(&self.root).explain(|| "the root's descriptor".to_owned())?;
                break self.inodes.insert(at, fd, FileType::Directory);
            }
            let fd = sys::open_path(&self.hidden, handle_path(at).as_bytes()).explain(|| format!("handle of {at}"))?;
            let stat = sys::fstat(&fd).explain(|| format!("stat of the handle of {at}"))?;
            let kind = kind_of(&stat)?;
            if kind != FileType::Symlink || stat.st_nlink != 1 {
                if !below.is_empty() && kind != FileType::Directory {
                    return Err(FopError::new(errno::ESTALE, format!("{at}, above {gfid}, is no directory")));
                }
                break self.inodes.insert(at, fd, kind);
            }
            let link = sys::read_link(&fd).explain(|| format!("handle of {at}"))?;
            let Some((parent, name)) = parse_directory_link(&link) else {
                if below.is_empty() {
                    // A symlink whose name is gone but whose handle is not.
                    break self.inodes.insert(at, fd, kind);
                }
                return Err(FopError::new(errno::ESTALE, format!("the handle of {at} is malformed")));
            };
            below.push((at, Entry { parent, name }));
            if below.len() > MAX_DEPTH {
                return Err(FopError::new(ELOOP, format!("handles above {gfid} go round in a circle")));
            }
            at = parent;
        };
        while let Some((gfid, entry)) = below.pop() {
            let stale = || FopError::new(errno::ENOENT, format!("the handle of {gfid} leads nowhere"));
            let fd = sys::open_path(&inode.path, &entry.name).map_err(|_| stale())?;
            let stat = sys::fstat(&fd).map_err(|_| stale())?;
            let found = sys::get_xattr_array::<16>(&fd, GFID_KEY.as_bytes()).ok().flatten();
            if kind_of(&stat)? != FileType::Directory || found != Some(gfid.0) {
                return Err(stale());
            }
            inode = self.inodes.insert(gfid, fd, FileType::Directory);
        }
        Ok(inode)
    }

    /// The inode of a directory that is somebody's parent: ESTALE instead of ENOENT, as clients expect.
    pub fn parent(&self, gfid: Gfid) -> FopResult<Arc<Inode>> {
        let inode = self.resolve(gfid).map_err(|e| match e.errno {
            errno::ENOENT => FopError { errno: errno::ESTALE, ..e },
            _ => e,
        })?;
        match inode.kind {
            FileType::Directory => Ok(inode),
            _ => Err(FopError::new(errno::ENOTDIR, format!("{gfid} is not a directory"))),
        }
    }

    /// Refuses names that are none, and `.glusterfs` at the root.
    pub fn check_entry(&self, entry: &Entry) -> FopResult<()> {
        check_name(&entry.name)?;
        if entry.parent.is_root() && entry.name == HIDDEN.as_bytes() {
            return Err(FopError::new(errno::EPERM, "`.glusterfs` is the brick's own"));
        }
        Ok(())
    }

    /// What `name` in `parent` is. `None` = no such entry; an entry without a gfid fails with ENODATA, see
    /// [`Brick::heal_gfid`].
    pub fn find(&self, parent: &Inode, name: &[u8]) -> FopResult<Option<Found>> {
        // An inode in use is recognised by its number; any other is opened, to read its gfid.
        match rustix::fs::statat(&parent.path, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                if let Some(inode) = self.inodes.by_number(&stat) {
                    return Ok(Some(Found { inode, stat }));
                }
            }
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(sys::failure(e, &describe(parent.gfid, name))),
        }
        let fd = match sys::open_path(&parent.path, name) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(sys::failure(e, &describe(parent.gfid, name))),
        };
        let stat = sys::fstat(&fd).explain(|| describe(parent.gfid, name))?;
        if stat.st_ino == self.hidden_ino && parent.gfid.is_root() {
            return Ok(None);
        }
        let kind = kind_of(&stat)?;
        let raw = sys::get_xattr_array::<16>(&fd, GFID_KEY.as_bytes())
            .explain(|| format!("{GFID_KEY} of {}", describe(parent.gfid, name)))?;
        let Some(raw) = raw else {
            return Err(FopError::new(errno::ENODATA, format!("{} has no gfid", describe(parent.gfid, name))));
        };
        Ok(self.adopt(Gfid(raw), fd, kind, &stat)?.map(|inode| Found { inode, stat }))
    }

    /// The table's inode for what was found by name; `None` where that was removed meanwhile.
    fn adopt(&self, gfid: Gfid, fd: OwnedFd, kind: FileType, stat: &rustix::fs::Stat) -> FopResult<Option<Arc<Inode>>> {
        if let Some(known) = self.inodes.get_any(gfid) {
            let same = sys::fstat(&known.path).explain(|| format!("stat of {gfid}"))?;
            if (same.st_ino, same.st_dev) == (stat.st_ino, stat.st_dev) {
                self.inodes.note_number(&known, stat);
                return Ok(self.inodes.get(gfid));
            }
            if same.st_nlink == 0 || kind == FileType::Directory || known.unlinked.load(Ordering::SeqCst) {
                // What we remember was removed behind our back, or an old directory with this gfid is being replaced.
                self.inodes.remove(&known);
            } else {
                return Err(FopError::new(errno::EIO, format!("two files of this brick have the gfid {gfid}")));
            }
        }
        let inode = self.inodes.insert(gfid, fd, kind);
        // Whoever removes the last name empties its place in the table afterwards: here we come before or after both.
        let now = sys::fstat(&inode.path).explain(|| format!("stat of {gfid}"))?;
        if now.st_nlink == 0 {
            self.inodes.remove(&inode);
            return Ok(None);
        }
        self.inodes.note_number(&inode, &now);
        Ok(Some(inode))
    }

    /// Whether removing what `entry` names, if it names anything, frees so little that nobody waits for it: half a
    /// millisecond at most on ext4 and XFS. `false` where that cannot be told at once.
    pub fn frees_little(&self, entry: &Entry) -> bool {
        let Some(parent) = self.inodes.get(entry.parent).filter(|_| self.check_entry(entry).is_ok()) else {
            return false;
        };
        match rustix::fs::statat(&parent.path, &entry.name[..], AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat.st_blocks <= FREED_AT_ONCE_BLOCKS,
            Err(e) => e == Errno::NOENT,
        }
    }

    /// Makes sure that an inode found by name has its handle, and that a directory's handle leads somewhere: a crash may
    /// have come between the steps of a creation or a rename. Looked at once for each inode in use.
    pub fn ensure_handle(&self, inode: &Inode, directory: &Inode, name: &[u8]) -> FopResult<()> {
        if inode.handle_seen.load(Ordering::Relaxed) || inode.gfid.is_root() {
            return Ok(());
        }
        let parent = directory.gfid;
        let _names_stay = self.entry_locks.inode(inode.gfid);
        // A handle must not come back once the name it is for has gone, nor follow one that is no longer right.
        let still = rustix::fs::statat(&directory.path, name, AtFlags::SYMLINK_NOFOLLOW);
        let ours = sys::fstat(&inode.path).explain(|| format!("stat of {}", inode.gfid))?;
        if !still.is_ok_and(|s| (s.st_ino, s.st_dev) == (ours.st_ino, ours.st_dev)) {
            return Ok(());
        }
        let path = handle_path(inode.gfid);
        let what = || format!("handle of {}", inode.gfid);
        match rustix::fs::statat(&self.hidden, path.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) if inode.kind == FileType::Directory => {
                let link = rustix::fs::readlinkat(&self.hidden, path.as_str(), Vec::new()).explain(what)?;
                // Another place may be right, too: heal has two directories of one gfid for a moment.
                let stale = link.as_bytes() != directory_link(parent, name)
                    && matches!(rustix::fs::statat(&self.hidden, path.as_str(), AtFlags::empty()), Err(Errno::NOENT));
                if stale {
                    tracing::info!(gfid = %inode.gfid, "the handle led nowhere: it follows the name");
                    self.replace_directory_handle(inode.gfid, parent, name)?;
                }
            }
            Ok(_) => {}
            Err(Errno::NOENT) => {
                tracing::info!(gfid = %inode.gfid, "making the handle that was missing");
                self.make_handle(inode.gfid, inode.kind, &inode.path, parent, name)?;
            }
            Err(e) => return Err(sys::failure(e, &what())),
        }
        inode.handle_seen.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn make_levels(&self, gfid: Gfid) -> Result<(), Errno> {
        let path = handle_path(gfid);
        for level in [&path[..2], &path[..5]] {
            match rustix::fs::mkdirat(&self.hidden, level, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Makes the handle of an inode: a hard link, or a symlink for a directory. One that is there already must lead to
    /// the same inode (EEXIST otherwise).
    pub fn make_handle(&self, gfid: Gfid, kind: FileType, fd: &OwnedFd, parent: Gfid, name: &[u8]) -> FopResult<()> {
        let path = handle_path(gfid);
        let what = || format!("making the handle of {gfid}");
        let make = || match kind {
            FileType::Directory => {
                rustix::fs::symlinkat(&directory_link(parent, name)[..], &self.hidden, path.as_str())
            }
            _ => rustix::fs::linkat(fd, "", &self.hidden, path.as_str(), AtFlags::EMPTY_PATH),
        };
        let mut result = make();
        if result == Err(Errno::NOENT) {
            self.make_levels(gfid).explain(what)?;
            result = make();
        }
        match result {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) if kind == FileType::Directory => {
                let found = rustix::fs::readlinkat(&self.hidden, path.as_str(), Vec::new()).explain(what)?;
                if found.as_bytes() == directory_link(parent, name) {
                    return Ok(());
                }
                // The old place of a directory that heal moved, or a handle that leads nowhere: the name counts.
                self.replace_directory_handle(gfid, parent, name)
            }
            Err(Errno::EXIST) => {
                let theirs =
                    rustix::fs::statat(&self.hidden, path.as_str(), AtFlags::SYMLINK_NOFOLLOW).explain(what)?;
                let ours = sys::fstat(fd).explain(what)?;
                if (theirs.st_ino, theirs.st_dev) == (ours.st_ino, ours.st_dev) {
                    return Ok(());
                }
                Err(FopError::new(errno::EEXIST, format!("the gfid {gfid} already belongs to another file")))
            }
            Err(e) => Err(sys::failure(e, &what())),
        }
    }

    /// Points a directory's handle at its new place, atomically.
    pub fn replace_directory_handle(&self, gfid: Gfid, parent: Gfid, name: &[u8]) -> FopResult<()> {
        let what = || format!("moving the handle of {gfid}");
        self.make_levels(gfid).explain(what)?;
        let path = handle_path(gfid);
        // Nobody else's, and gone with the next start should a crash leave it.
        let temporary = Brick::unlinked_path(Gfid::random());
        rustix::fs::symlinkat(&directory_link(parent, name)[..], &self.hidden, temporary.as_str()).explain(what)?;
        let moved = rustix::fs::renameat(&self.hidden, temporary.as_str(), &self.hidden, path.as_str());
        if moved.is_err() {
            let _ = rustix::fs::unlinkat(&self.hidden, temporary.as_str(), AtFlags::empty());
        }
        moved.explain(what)
    }

    /// Removes an inode's handle, if there is one.
    pub fn remove_handle(&self, gfid: Gfid) -> FopResult<()> {
        match rustix::fs::unlinkat(&self.hidden, handle_path(gfid).as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(sys::failure(e, &format!("removing the handle of {gfid}"))),
        }
    }

    /// The place of a file that is open without a name.
    pub fn unlinked_path(gfid: Gfid) -> String {
        format!("unlink/{gfid}")
    }

    /// Removes the handle of a file whose last name is going, or sets it aside while clients hold the file open.
    pub fn drop_last_handle(&self, inode: &Arc<Inode>) -> FopResult<()> {
        // Marked first: an open that comes now either counts before we look, or finds the mark.
        inode.unlinked.store(true, Ordering::SeqCst);
        if inode.is_open() {
            let from = handle_path(inode.gfid);
            let to = Brick::unlinked_path(inode.gfid);
            match rustix::fs::renameat(&self.hidden, from.as_str(), &self.hidden, to.as_str()) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(e) => return Err(sys::failure(e, &format!("setting the open file {} aside", inode.gfid))),
            }
        }
        self.remove_handle(inode.gfid)?;
        self.inodes.remove(inode);
        Ok(())
    }

    /// Called when a descriptor on `inode` is gone.
    pub fn closed(&self, inode: &Arc<Inode>) {
        if inode.opens.fetch_sub(1, Ordering::SeqCst) == 1 && inode.unlinked.load(Ordering::SeqCst) {
            if let Err(e) =
                rustix::fs::unlinkat(&self.hidden, Brick::unlinked_path(inode.gfid).as_str(), AtFlags::empty())
                && e != Errno::NOENT
            {
                tracing::warn!(gfid = %inode.gfid, error = %e, "removing an unlinked file that was open");
            }
            self.inodes.remove(inode);
        }
    }

    /// Gives an entry that has none the gfid a lookup asks for. A file younger than a second is left to whoever is
    /// creating it: it reads as absent.
    pub fn heal_gfid(&self, parent: &Inode, name: &[u8], gfid: Gfid) -> FopResult<()> {
        let what = || format!("giving {} its gfid", describe(parent.gfid, name));
        let _name_stays = self.entry_locks.name(parent.gfid, name);
        let fd = sys::open_path(&parent.path, name).explain(what)?;
        let stat = sys::fstat(&fd).explain(what)?;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        if now.tv_sec - stat.st_ctime < 2 {
            return Err(FopError::new(errno::ENOENT, format!("{} is being created", describe(parent.gfid, name))));
        }
        match sys::set_xattr(&fd, GFID_KEY.as_bytes(), &gfid.0, XattrFlags::CREATE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(sys::failure(e, &what())),
        }
        let Some(found) = sys::get_xattr_array::<16>(&fd, GFID_KEY.as_bytes()).explain(what)? else {
            return Err(FopError::new(errno::EIO, format!("{GFID_KEY} of {} vanished", describe(parent.gfid, name))));
        };
        let _names_stay = self.entry_locks.inode(Gfid(found));
        self.make_handle(Gfid(found), kind_of(&stat)?, &fd, parent.gfid, name)
    }

    /// ENOSPC when the brick's free space is below its reserve; GlusterFS's own services may go on.
    pub fn check_space(&self, context: &ladrillo_translator::Context) -> FopResult<()> {
        if context.is_internal() {
            return Ok(());
        }
        let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse).tv_sec;
        let last = self.space_checked_at.load(Ordering::Relaxed);
        if now - last >= 5 || last == 0 {
            self.space_checked_at.store(now.max(1), Ordering::Relaxed);
            if let Ok(s) = rustix::fs::fstatvfs(&self.root) {
                let reserved = self.tuned().reserved_blocks(s.f_blocks, s.f_bsize);
                self.full.store(reserved > 0 && s.f_bfree < reserved, Ordering::Relaxed);
            }
        }
        match self.full.load(Ordering::Relaxed) {
            true => Err(FopError::new(errno::ENOSPC, "the brick's free space is below its reserve (storage.reserve)")),
            false => Ok(()),
        }
    }

    /// Path of a directory within the volume (`/a/b`), out of its handles.
    pub fn directory_path(&self, gfid: Gfid) -> FopResult<Vec<u8>> {
        let mut parts = Vec::new();
        let mut at = gfid;
        while !at.is_root() {
            let link = rustix::fs::readlinkat(&self.hidden, handle_path(at).as_str(), Vec::new())
                .explain(|| format!("handle of {at}"))?;
            let Some((parent, name)) = parse_directory_link(link.as_bytes()) else {
                return Err(FopError::new(errno::ESTALE, format!("the handle of {at} is no directory's")));
            };
            parts.push(name);
            if parts.len() > MAX_DEPTH {
                return Err(FopError::new(ELOOP, format!("handles above {gfid} go round in a circle")));
            }
            at = parent;
        }
        let mut path = Vec::new();
        for name in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Ok(path)
    }
}

/// How many descriptors the process may have: each remembered inode takes one.
fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// An entry, for messages.
pub fn describe(parent: Gfid, name: &[u8]) -> String {
    format!("<{parent}>/{}", String::from_utf8_lossy(name))
}

/// The kind a stat tells of.
pub fn kind_of(stat: &rustix::fs::Stat) -> FopResult<FileType> {
    FileType::from_mode(stat.st_mode)
        .ok_or_else(|| FopError::new(errno::EIO, format!("an inode of unknown kind, mode {:o}", stat.st_mode)))
}

/// Makes `.glusterfs` and what stands in it, and empties what a crash left in `unlink`.
fn make_hidden(root: &OwnedFd) -> Result<OwnedFd, Errno> {
    let mkdir = |dir: &OwnedFd, name: &str, mode: u32| match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e),
    };
    mkdir(root, HIDDEN, 0o600)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let hidden = rustix::fs::openat(root, HIDDEN, flags, Mode::empty())?;
    for (name, mode) in [("landfill", 0o755), ("unlink", 0o600), ("indices", 0o600), ("changelogs", 0o600)] {
        mkdir(&hidden, name, mode)?;
    }
    let unlink =
        rustix::fs::openat(&hidden, "unlink", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&unlink)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            let _ = rustix::fs::unlinkat(&unlink, entry.file_name(), AtFlags::empty());
        }
    }
    Ok(hidden)
}

/// Writes the time into `.glusterfs/health_check` and reads it back: does the disk still work? Written through to the
/// disk, and read from it where the cache lets go: a cache that works says nothing of the disk.
pub fn health_check(brick_path: &Path) -> std::io::Result<()> {
    use std::io::{Read, Write};
    use std::os::unix::fs::OpenOptionsExt;
    let path = brick_path.join(HIDDEN).join("health_check");
    let stamp = format!("{:?}", std::time::SystemTime::now());
    let mut file = std::fs::File::options().create(true).truncate(true).write(true).mode(0o644).open(&path)?;
    file.write_all(stamp.as_bytes())?;
    file.sync_data()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    drop(file);
    let mut found = String::new();
    std::fs::File::open(&path)?.take(4096).read_to_string(&mut found)?;
    if found == stamp { Ok(()) } else { Err(std::io::Error::other("what was written is not what was read")) }
}
