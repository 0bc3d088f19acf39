//! Entries: create, link, rename, remove.

use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{Entry, File, PrePost};
use ladrillo_translator::{Context, Dict, FdId, FileType, FopError, FopResult, Gfid, Iatt, Payload, Reply, Value};
use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::brick::{Brick, Found, describe, kind_of};
use super::file::open_flags;
use super::handle::{gfid2path, handle_path};
use super::inode::{GFID_KEY, Inode, Touch};
use super::sys::{self, Explain};
use super::xattr::{gfid_request, is_xattr_name};

/// Numbers the descriptors of PUTs under way.
static PUTS: AtomicU64 = AtomicU64::new(0);

/// Symlink targets are shorter (PATH_MAX), in bytes.
const TARGET_MAX_BYTES: usize = 4096;

/// What PUT puts into a file.
pub struct Contents<'a> {
    pub offset: u64,
    pub data: &'a Payload,
    pub xattrs: &'a Dict,
}

/// What MKNOD, MKDIR, SYMLINK and CREATE make.
pub enum New<'a> {
    /// A file, device, FIFO or socket by mode and device number.
    Node { mode: u32, rdev: u64, umask: u32 },
    /// A directory.
    Directory { mode: u32, umask: u32 },
    /// A symlink.
    Symlink { target: &'a Bytes },
    /// A file, opened as `fd`.
    File { flags: u32, mode: u32, umask: u32, fd: FdId },
}

/// `storage.create-mask` and its kin: they decide about permissions only, set-id and sticky bits stay.
pub(super) fn masked(mode: u32, mask: u32, force: u32) -> u32 {
    mode & !0o777 | ((mode & mask | force) & 0o777)
}

impl Brick {
    /// MKNOD, MKDIR, SYMLINK, CREATE.
    pub fn create(&self, context: &Context, entry: &Entry, new: New<'_>, xdata: &Dict) -> FopResult {
        self.check_entry(entry)?;
        let gfid = gfid_request(xdata)?;
        self.check_space(context)?;
        let parent = self.parent(entry.parent)?;
        let what = || format!("creating {}", describe(entry.parent, &entry.name));
        let _name_stays = self.entry_locks.name(entry.parent, &entry.name);
        let pre = parent.iatt()?;
        let xdata = &*self.check_preop(&parent, xdata)?;
        // A linkto file of distribute, or heal, for an inode that has other names here already.
        let may_link = xdata.contains("glusterfs-internal-fop") && matches!(new, New::Node { .. });
        if let Ok(existing) = self.resolve(gfid) {
            if may_link && existing.kind == FileType::Regular {
                match self.link_existing(context, &existing, &parent, entry, pre.clone()) {
                    Err(e)
                        if e.errno == errno::EEXIST
                            && xdata.contains("force-replace")
                            && self.remove_stale_linkto(&parent, &entry.name)? =>
                    {
                        // What gave way may have been the only name of this very inode: then it is made anew below.
                        if !existing.unlinked.load(Ordering::SeqCst) {
                            return self.link_existing(context, &existing, &parent, entry, pre);
                        }
                    }
                    outcome => return outcome,
                }
            } else if existing.kind == FileType::Directory && matches!(new, New::Directory { .. }) {
                // A directory that was renamed while this brick was away: heal makes it anew at its new name.
                match self.find(&parent, &entry.name) {
                    Ok(Some(found)) if found.inode.gfid == gfid => {
                        return Err(FopError::new(
                            errno::EEXIST,
                            format!("{} exists", describe(entry.parent, &entry.name)),
                        ));
                    }
                    _ if context.pid != Context::PID_SELF_HEALD => tracing::warn!(
                        %gfid, name = %describe(entry.parent, &entry.name),
                        "mkdir with the gfid of a directory that exists elsewhere on this brick"
                    ),
                    _ => {}
                }
            } else if self.exists(&parent, &entry.name)? {
                return Err(FopError::new(errno::EEXIST, format!("{} exists", describe(entry.parent, &entry.name))));
            } else if existing.kind == FileType::Directory {
                return Err(FopError::new(errno::EEXIST, format!("the gfid {gfid} already belongs to a directory")));
            }
        }
        let uid = context.uid;
        let inherits = pre.mode & 0o2000 != 0;
        let gid = if inherits { pre.gid } else { context.gid };
        let tuned = self.tuned();
        let masks = tuned.masks;
        let file_mode = |mode: u32, umask: u32| {
            masked(self.apply_umask(&parent, mode & 0o7777, umask, xdata), masks.create, masks.force_create)
        };
        let mut opened: Option<(OwnedFd, OFlags)> = None;
        let mut make = || -> Result<(), Errno> {
            match &new {
                New::Node { mode, rdev, umask } => {
                    let kind = rustix::fs::FileType::from_raw_mode(if mode & 0o170000 == 0 { 0o100000 } else { *mode });
                    let permissions = Mode::from_raw_mode(file_mode(*mode, *umask));
                    rustix::fs::mknodat(&parent.path, &entry.name[..], kind, permissions, *rdev)
                }
                New::Directory { mode, umask } => {
                    let permissions = self.apply_umask(&parent, mode & 0o7777, *umask, xdata);
                    let mode = masked(permissions, masks.create_directory, masks.force_directory)
                        | if inherits { 0o2000 } else { 0 };
                    rustix::fs::mkdirat(&parent.path, &entry.name[..], Mode::from_raw_mode(mode))?;
                    if mode & 0o7000 != 0 {
                        // mkdir(2) keeps only the sticky bit; what it made of the others may be a default ACL's.
                        let made = rustix::fs::statat(&parent.path, &entry.name[..], AtFlags::SYMLINK_NOFOLLOW)?;
                        rustix::fs::chmodat(
                            &parent.path,
                            &entry.name[..],
                            Mode::from_raw_mode(made.st_mode & 0o777 | mode & 0o7000),
                            AtFlags::empty(),
                        )?;
                    }
                    Ok(())
                }
                New::Symlink { target } => rustix::fs::symlinkat(&target[..], &parent.path, &entry.name[..]),
                New::File { flags, mode, umask, .. } => {
                    let mut flags = open_flags(*flags);
                    if tuned.o_direct {
                        flags |= OFlags::DIRECT;
                    }
                    let create = (flags & !(OFlags::DIRECT | OFlags::TRUNC))
                        | OFlags::CREATE
                        | OFlags::EXCL
                        | OFlags::CLOEXEC
                        | OFlags::NOFOLLOW;
                    let permissions = Mode::from_raw_mode(file_mode(*mode, *umask));
                    let fd = rustix::fs::openat(&parent.path, &entry.name[..], create, permissions)?;
                    opened = Some((fd, flags));
                    Ok(())
                }
            }
        };
        if let New::Symlink { target } = &new
            && (target.is_empty() || target.len() >= TARGET_MAX_BYTES || target.contains(&0))
        {
            return Err(FopError::new(errno::EINVAL, format!("a symlink's target of {} bytes", target.len())));
        }
        let mut made = sys::as_owner(uid, gid, &mut make);
        if made == Err(Errno::EXIST) {
            if let New::File { flags, .. } = &new
                && !OFlags::from_bits_retain(*flags).contains(OFlags::EXCL)
                && let Some(found) = self.find(&parent, &entry.name)?
            {
                return self.open_existing(context, &new, found, &parent, pre);
            }
            if xdata.contains("force-replace") && self.remove_stale_linkto(&parent, &entry.name)? {
                made = sys::as_owner(uid, gid, &mut make);
            }
        }
        made.explain(what)?;
        let finished = self.finish_create(context, gfid, &parent, entry, xdata);
        let inode = match finished {
            Ok(inode) => inode,
            Err(e) => {
                let flags = if matches!(new, New::Directory { .. }) { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                let _ = rustix::fs::unlinkat(&parent.path, &entry.name[..], flags);
                return Err(e);
            }
        };
        if let (New::File { fd, .. }, Some((file, flags))) = (&new, opened) {
            self.register(*fd, inode.clone(), file, flags)?;
        }
        self.touch(context, &parent, Touch::CONTENT);
        let post = parent.iatt()?;
        let iatt = inode.iatt()?;
        Ok(Reply::Entry { iatt: Box::new(iatt), parent: Box::new(PrePost { pre, post }), xdata: Dict::new() })
    }

    /// PUT: CREATE, WRITE, SETXATTR and closing at once. As in stock a step that fails leaves what the steps before it made.
    #[allow(clippy::too_many_arguments)] // the procedure's own
    pub fn put(
        &self,
        context: &Context,
        entry: &Entry,
        mode: u32,
        umask: u32,
        flags: u32,
        contents: &Contents<'_>,
        xdata: &Dict,
    ) -> FopResult {
        // Ids of clients count up from 1: this one is nobody's.
        let fd = FdId(u64::MAX - 1 - PUTS.fetch_add(1, Ordering::Relaxed));
        // The data go in, whatever the client opens for; a file that is there is not for PUT to replace.
        let access = (flags & !(libc::O_ACCMODE as u32)) | (libc::O_RDWR | libc::O_EXCL) as u32;
        let made = self.create(context, entry, New::File { flags: access, mode, umask, fd }, xdata)?;
        let Reply::Entry { iatt, parent, xdata: out } = made else {
            return Err(FopError::new(errno::EIO, "CREATE answered with something else"));
        };
        let file = File { gfid: iatt.gfid, fd: Some(fd) };
        let fill = || -> FopResult<Iatt> {
            if !contents.data.is_empty() {
                let written = self.write(context, file, contents.offset, contents.data, flags, &Dict::new())?;
                if let Reply::PrePost { written, .. } = written
                    && (written as usize) < contents.data.len()
                {
                    return Err(FopError::new(errno::ENOSPC, format!("only {written} bytes of a PUT were written")));
                }
            }
            let inode = self.inode_of(file)?;
            if !contents.xattrs.is_empty() {
                self.setxattr(context, &inode, contents.xattrs, 0, &Dict::new())?;
            }
            inode.iatt()
        };
        let filled = fill();
        self.release(fd);
        Ok(Reply::Entry { iatt: Box::new(filled?), parent, xdata: out })
    }

    /// Gives what was just made its gfid, handle, names, xattrs and times, in an order that a lookup can complete.
    fn finish_create(
        &self,
        context: &Context,
        gfid: Gfid,
        parent: &Inode,
        entry: &Entry,
        xdata: &Dict,
    ) -> FopResult<Arc<Inode>> {
        let what = || format!("creating {}", describe(entry.parent, &entry.name));
        let fd = sys::open_path(&parent.path, &entry.name).explain(what)?;
        let stat = sys::fstat(&fd).explain(what)?;
        let kind = kind_of(&stat)?;
        let _names_stay = self.entry_locks.inode(gfid);
        // Marks of replicate first: from the moment the gfid is there, they count.
        for (key, value) in xdata.iter().filter(|(key, _)| is_xattr_name(key) && key.as_ref() != GFID_KEY.as_bytes()) {
            let Some(raw) = super::xattr::stored_bytes(value) else { continue };
            if key.as_ref() == super::inode::MDATA_KEY.as_bytes() {
                continue;
            }
            match sys::set_xattr(&fd, key, &raw, XattrFlags::CREATE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => {
                    return Err(sys::failure(e, &format!("{}: setting {}", what(), String::from_utf8_lossy(key))));
                }
            }
        }
        // The name before the gfid: a brick killed in between is completed by a lookup, which would not know of the name.
        if self.options.gfid2path && kind != FileType::Directory {
            self.record_name(&fd, entry);
        }
        sys::set_xattr(&fd, GFID_KEY.as_bytes(), &gfid.0, XattrFlags::CREATE)
            .explain(|| format!("{}: setting {GFID_KEY}", what()))?;
        self.make_handle(gfid, kind, &fd, entry.parent, &entry.name)?;
        if let Some(known) = self.inodes.get_any(gfid) {
            // A leftover of an inode with this gfid whose place this one takes.
            self.inodes.remove(&known);
        }
        let inode = self.inodes.insert(gfid, fd, kind);
        inode.handle_seen.store(true, Ordering::Relaxed);
        self.touch(context, &inode, Touch::ALL);
        Ok(inode)
    }

    /// CREATE without O_EXCL on a file that is there: opens it.
    fn open_existing(&self, context: &Context, new: &New<'_>, found: Found, parent: &Inode, pre: Iatt) -> FopResult {
        let New::File { flags, fd, .. } = new else {
            return Err(FopError::new(errno::EEXIST, "exists"));
        };
        self.open_file(context, found.inode.gfid, *flags, *fd)?;
        let post = parent.iatt()?;
        let iatt = found.inode.iatt()?;
        Ok(Reply::Entry { iatt: Box::new(iatt), parent: Box::new(PrePost { pre, post }), xdata: Dict::new() })
    }

    /// Whether an entry is there already, as far as can be seen.
    pub fn has_entry(&self, entry: &Entry) -> bool {
        self.check_entry(entry).is_ok()
            && self.parent(entry.parent).is_ok_and(|parent| self.exists(&parent, &entry.name).unwrap_or(false))
    }

    fn exists(&self, parent: &Inode, name: &[u8]) -> FopResult<bool> {
        match rustix::fs::statat(&parent.path, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(sys::failure(e, &describe(parent.gfid, name))),
        }
    }

    /// A default ACL takes the umask's place. Clients have applied theirs already; those with ACLs say what the mode was
    /// before.
    fn apply_umask(&self, parent: &Inode, mode: u32, umask: u32, xdata: &Dict) -> u32 {
        let umask = umask & 0o777;
        if umask == 0 || !matches!(sys::get_xattr(&parent.path, b"system.posix_acl_default"), Ok(Some(_))) {
            return mode & !umask;
        }
        let asked = xdata.int("mode").and_then(|asked| u32::try_from(asked).ok());
        mode | asked.map_or(0, |asked| asked & umask)
    }

    /// Distribute's guard on create and mkdir: the parent's layout must still be what the client believes it is. Answers
    /// the request's xdata without it: it is the parent's layout, not the new inode's.
    fn check_preop<'a>(&self, parent: &Inode, xdata: &'a Dict) -> FopResult<Cow<'a, Dict>> {
        const PREOP: &str = "glusterfs.preop.parent.key";
        let Some(key) = xdata.text(PREOP) else { return Ok(Cow::Borrowed(xdata)) };
        if let Some(expected) = xdata.get(key).and_then(super::xattr::value_bytes) {
            let found = sys::get_xattr(&parent.path, key.as_bytes()).explain(|| format!("{key} of {}", parent.gfid))?;
            if found.as_deref() != Some(&expected[..]) {
                let mut out = Dict::new().with("glusterfs.preop.check.failed", Value::Int(1));
                if let Some(found) = found {
                    out.set(key.to_owned(), Value::Ptr(found.into()));
                }
                let message = format!("{key} of {} has changed", parent.gfid);
                return Err(FopError::new(errno::EIO, message).with_xdata(out));
            }
        }
        let key = key.to_owned();
        let mut rest = xdata.clone();
        rest.remove(&key);
        rest.remove(PREOP);
        Ok(Cow::Owned(rest))
    }

    fn record_name(&self, fd: &OwnedFd, entry: &Entry) {
        let (key, value) = gfid2path(entry.parent, &entry.name);
        if let Err(e) = sys::set_xattr(fd, key.as_bytes(), &value, XattrFlags::empty()) {
            tracing::warn!(name = %describe(entry.parent, &entry.name), error = %e, "recording a name in {key}");
        }
    }

    fn forget_name(&self, fd: &OwnedFd, entry: &Entry) {
        let (key, _) = gfid2path(entry.parent, &entry.name);
        match sys::remove_xattr(fd, key.as_bytes()) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(e) => tracing::warn!(name = %describe(entry.parent, &entry.name), error = %e, "removing {key}"),
        }
    }

    /// LINK.
    pub fn link(&self, context: &Context, gfid: Gfid, entry: &Entry, xdata: &Dict) -> FopResult {
        self.check_entry(entry)?;
        self.check_space(context)?;
        let inode = self.resolve(gfid)?;
        let parent = self.parent(entry.parent)?;
        let pre = parent.iatt()?;
        let _name_stays = self.entry_locks.name(entry.parent, &entry.name);
        match self.link_existing(context, &inode, &parent, entry, pre.clone()) {
            Err(e)
                if e.errno == errno::EEXIST
                    && xdata.contains("force-replace")
                    && self.remove_stale_linkto(&parent, &entry.name)? =>
            {
                self.link_existing(context, &inode, &parent, entry, pre)
            }
            outcome => outcome,
        }
    }

    fn link_existing(
        &self,
        context: &Context,
        inode: &Arc<Inode>,
        parent: &Inode,
        entry: &Entry,
        pre: Iatt,
    ) -> FopResult {
        if inode.kind == FileType::Directory {
            return Err(FopError::new(errno::EPERM, format!("{} is a directory", inode.gfid)));
        }
        let _names_stay = self.entry_locks.inode(inode.gfid);
        if inode.unlinked.load(Ordering::SeqCst) {
            return Err(FopError::new(errno::ENOENT, format!("the last name of {} was removed", inode.gfid)));
        }
        let most = self.tuned().max_hardlinks;
        if most > 0 && inode.iatt()?.nlink >= most {
            return Err(FopError::new(
                errno::EMLINK,
                format!("{} has the {most} links storage.max-hardlinks allows", inode.gfid),
            ));
        }
        rustix::fs::linkat(&inode.path, "", &parent.path, &entry.name[..], AtFlags::EMPTY_PATH)
            .explain(|| format!("linking {} as {}", inode.gfid, describe(entry.parent, &entry.name)))?;
        if self.options.gfid2path {
            self.record_name(&inode.path, entry);
        }
        self.touch(context, inode, Touch::CHANGE);
        self.touch(context, parent, Touch::CONTENT);
        let iatt = inode.iatt()?;
        let post = parent.iatt()?;
        Ok(Reply::Entry { iatt: Box::new(iatt), parent: Box::new(PrePost { pre, post }), xdata: Dict::new() })
    }

    /// UNLINK.
    pub fn unlink(&self, context: &Context, entry: &Entry, xdata: &Dict) -> FopResult {
        self.check_entry(entry)?;
        let parent = self.parent(entry.parent)?;
        let _name_stays = self.entry_locks.name(entry.parent, &entry.name);
        let pre = parent.iatt()?;
        let gone = || FopError::new(errno::ENOENT, format!("{} is not there", describe(entry.parent, &entry.name)));
        let found = match self.find(&parent, &entry.name) {
            Ok(found) => found.ok_or_else(gone)?,
            // No gfid: nothing but the name to remove.
            Err(e) if e.errno == errno::ENODATA => {
                rustix::fs::unlinkat(&parent.path, &entry.name[..], AtFlags::empty())
                    .explain(|| format!("removing {}", describe(entry.parent, &entry.name)))?;
                let post = parent.iatt()?;
                return Ok(Reply::Removed { parent: Box::new(PrePost { pre, post }), xdata: Dict::new() });
            }
            Err(e) => return Err(e),
        };
        let inode = found.inode;
        if inode.kind == FileType::Directory {
            return Err(FopError::new(
                errno::EISDIR,
                format!("{} is a directory", describe(entry.parent, &entry.name)),
            ));
        }
        if xdata.int("dont-unlink-for-open-fd").is_some_and(|n| n != 0) && inode.is_open() {
            return Err(FopError::new(errno::EBUSY, format!("{} is open", inode.gfid)));
        }
        self.ensure_handle(&inode, &parent, &entry.name)?;
        let _names_stay = self.entry_locks.inode(inode.gfid);
        let iatt = inode.iatt()?;
        if xdata.int("unlink-only-if-dht-linkto-file").is_some_and(|n| n != 0) && !self.is_linkto(&inode, &iatt) {
            return Err(FopError::new(errno::EBUSY, format!("{} is no linkto file", inode.gfid)));
        }
        let mut out = Dict::new();
        if xdata.contains("gf_get_file_block_count") {
            out.set("gf_get_file_block_count", Value::Uint(iatt.blocks));
        }
        if xdata.contains("gf_request_link_count") {
            out.set("gf_response_link_count", Value::Uint(u64::from(iatt.nlink)));
        }
        if xdata.contains("get-link-count") {
            out.set("get-link-count", Value::Uint(u64::from(iatt.nlink)));
        }
        self.remove_name(context, &inode, &parent, entry, iatt.nlink)?;
        if xdata.contains("dht-get-iatt-in-xattr") && inode.kind == FileType::Regular {
            out.set("dht-get-iatt-in-xattr", Value::Iatt(Box::new(inode.iatt()?)));
        }
        self.touch(context, &parent, Touch::CONTENT);
        let post = parent.iatt()?;
        Ok(Reply::Removed { parent: Box::new(PrePost { pre, post }), xdata: out })
    }

    /// Takes one name of a file away, and its handle with the last one. The handle goes first: a crash in between
    /// leaves a name, whose lookup makes the handle again. The caller holds the locks of both, under which it counted
    /// `nlink`.
    fn remove_name(
        &self,
        context: &Context,
        inode: &Arc<Inode>,
        parent: &Inode,
        entry: &Entry,
        nlink: u32,
    ) -> FopResult<()> {
        let last = nlink <= 1;
        if last {
            self.drop_last_handle(inode)?;
        } else if self.options.gfid2path {
            self.forget_name(&inode.path, entry);
        }
        if let Err(e) = rustix::fs::unlinkat(&parent.path, &entry.name[..], AtFlags::empty()) {
            if last {
                // It stays: give it its handle back.
                inode.unlinked.store(false, Ordering::SeqCst);
                if let Ok(fd) = sys::open_path(&parent.path, &entry.name) {
                    let _ = self.make_handle(inode.gfid, inode.kind, &fd, entry.parent, &entry.name);
                }
            }
            return Err(sys::failure(e, &format!("removing {}", describe(entry.parent, &entry.name))));
        }
        match last {
            false => self.touch(context, inode, Touch::CHANGE),
            true => self.forget_late_finds(inode),
        }
        Ok(())
    }

    /// Takes from the table what somebody found by the last name of `inode` after we took `inode` itself out.
    fn forget_late_finds(&self, inode: &Arc<Inode>) {
        if let Some(late) = self.inodes.get(inode.gfid).filter(|late| !Arc::ptr_eq(late, inode))
            && let (Ok(a), Ok(b)) = (sys::fstat(&late.path), sys::fstat(&inode.path))
            && (a.st_ino, a.st_dev) == (b.st_ino, b.st_dev)
        {
            late.unlinked.store(true, Ordering::SeqCst);
            self.inodes.remove(&late);
        }
    }

    /// A linkto file of distribute: mode exactly `---------T`, and the xattr that says where the file is.
    fn is_linkto(&self, inode: &Inode, iatt: &Iatt) -> bool {
        iatt.is_regular()
            && iatt.permissions() == 0o1000
            && matches!(sys::get_xattr(&inode.path, b"trusted.glusterfs.dht.linkto"), Ok(Some(v)) if !v.is_empty())
    }

    fn remove_stale_linkto(&self, parent: &Inode, name: &[u8]) -> FopResult<bool> {
        let Some(found) = self.find(parent, name)? else { return Ok(true) };
        self.ensure_handle(&found.inode, parent, name)?;
        let _names_stay = self.entry_locks.inode(found.inode.gfid);
        let iatt = found.inode.iatt()?;
        if !self.is_linkto(&found.inode, &iatt) || found.inode.is_open() {
            return Ok(false);
        }
        let entry = Entry { parent: parent.gfid, name: Bytes::copy_from_slice(name) };
        self.remove_name(&Context::root(), &found.inode, parent, &entry, iatt.nlink)?;
        Ok(true)
    }

    /// RMDIR; with flags (recursive removal, as heal asks for) the directory goes to `landfill` as it is.
    pub fn rmdir(&self, context: &Context, entry: &Entry, flags: u32) -> FopResult {
        self.check_entry(entry)?;
        let parent = self.parent(entry.parent)?;
        let pre = parent.iatt()?;
        let what = || format!("removing directory {}", describe(entry.parent, &entry.name));
        let _name_stays = self.entry_locks.name(entry.parent, &entry.name);
        let found = match self.find(&parent, &entry.name) {
            Ok(found) => found,
            Err(e) if e.errno == errno::ENODATA => None,
            Err(e) => return Err(e),
        };
        let _handle_stays = found.as_ref().map(|found| self.entry_locks.inode(found.inode.gfid));
        if flags != 0
            && let Some(found) = &found
        {
            if found.inode.kind != FileType::Directory {
                return Err(FopError::new(
                    errno::ENOTDIR,
                    format!("{} is no directory", describe(entry.parent, &entry.name)),
                ));
            }
            let to = format!("landfill/{}", found.inode.gfid);
            match rustix::fs::renameat(&parent.path, &entry.name[..], &self.hidden, to.as_str()) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    let to = format!("landfill/{}", Gfid::random());
                    rustix::fs::renameat(&parent.path, &entry.name[..], &self.hidden, to.as_str())
                }
                other => other,
            }
            .explain(what)?;
            self.inodes.forget_directories();
        } else {
            rustix::fs::unlinkat(&parent.path, &entry.name[..], AtFlags::REMOVEDIR)
                .map_err(|e| if e == Errno::EXIST { Errno::NOTEMPTY } else { e })
                .explain(what)?;
        }
        if let Some(found) = found {
            // The handle may by now be that of the same directory at another name, made by heal.
            let handle = rustix::fs::readlinkat(&self.hidden, handle_path(found.inode.gfid).as_str(), Vec::new());
            if handle.is_ok_and(|link| link.as_bytes() == super::handle::directory_link(entry.parent, &entry.name)) {
                self.remove_handle(found.inode.gfid)?;
            }
            found.inode.unlinked.store(true, Ordering::SeqCst);
            self.inodes.remove(&found.inode);
        }
        self.touch(context, &parent, Touch::CONTENT);
        let post = parent.iatt()?;
        Ok(Reply::Removed { parent: Box::new(PrePost { pre, post }), xdata: Dict::new() })
    }

    /// RENAME. A directory's handle follows it; what it replaces loses its handle.
    pub fn rename(&self, context: &Context, from: &Entry, to: &Entry, xdata: &Dict) -> FopResult {
        self.check_entry(from)?;
        self.check_entry(to)?;
        let from_parent = self.parent(from.parent)?;
        let to_parent = self.parent(to.parent)?;
        let _names_stay = self.entry_locks.names(from, to);
        let (from_pre, to_pre) = (from_parent.iatt()?, to_parent.iatt()?);
        let gone = || FopError::new(errno::ENOENT, format!("{} is not there", describe(from.parent, &from.name)));
        let inode = self.find(&from_parent, &from.name)?.ok_or_else(gone)?.inode;
        let victim = match self.find(&to_parent, &to.name) {
            Ok(found) => found,
            Err(e) if e.errno == errno::ENODATA => None,
            Err(e) => return Err(e),
        };
        let victim = victim.filter(|v| v.inode.gfid != inode.gfid || v.inode.kind == FileType::Directory);
        if let Some(victim) = &victim
            && victim.inode.kind != FileType::Directory
        {
            self.ensure_handle(&victim.inode, &to_parent, &to.name)?;
        }
        let other = victim.as_ref().map_or(inode.gfid, |v| v.inode.gfid);
        let _inodes_stay = self.entry_locks.inodes(inode.gfid, other);
        let mut out = Dict::new();
        let victim_nlink = match &victim {
            Some(v) => v.inode.iatt()?.nlink,
            None => 0,
        };
        if xdata.contains("get-link-count") && victim.is_some() {
            out.set("get-link-count", Value::Uint(u64::from(victim_nlink)));
        }
        if xdata.contains("gf_request_link_count") && victim.is_some() {
            out.set("gf_response_link_count", Value::Uint(u64::from(victim_nlink)));
        }
        let is_dir = inode.kind == FileType::Directory;
        rustix::fs::renameat(&from_parent.path, &from.name[..], &to_parent.path, &to.name[..]).explain(|| {
            format!("renaming {} to {}", describe(from.parent, &from.name), describe(to.parent, &to.name))
        })?;
        // rename(2) of one name of a file over another name of it does nothing.
        let same = match sys::fstat(&inode.path) {
            Ok(stat) if !is_dir => {
                self.find(&from_parent, &from.name)?.is_some_and(|f| f.stat.st_ino == stat.st_ino) && from != to
            }
            _ => false,
        };
        if is_dir && (from != to) {
            self.replace_directory_handle(inode.gfid, to.parent, &to.name)?;
        }
        if let Some(victim) = victim.filter(|v| !Arc::ptr_eq(&v.inode, &inode)) {
            if victim.inode.kind == FileType::Directory {
                self.remove_handle(victim.inode.gfid)?;
                victim.inode.unlinked.store(true, Ordering::SeqCst);
                self.inodes.remove(&victim.inode);
            } else if victim_nlink <= 1 {
                self.drop_last_handle(&victim.inode)?;
                self.forget_late_finds(&victim.inode);
            } else {
                if self.options.gfid2path {
                    self.forget_name(&victim.inode.path, to);
                }
                self.touch(context, &victim.inode, Touch::CHANGE);
            }
        }
        if !is_dir && self.options.gfid2path && from != to && !same {
            self.forget_name(&inode.path, from);
            self.record_name(&inode.path, to);
        }
        self.touch(context, &inode, Touch::CHANGE);
        self.touch(context, &from_parent, Touch::CONTENT);
        if to.parent != from.parent {
            self.touch(context, &to_parent, Touch::CONTENT);
        }
        let (from_post, to_post) = (from_parent.iatt()?, to_parent.iatt()?);
        Ok(Reply::Rename {
            iatt: Box::new(inode.iatt()?),
            from_parent: Box::new(PrePost { pre: from_pre, post: from_post }),
            to_parent: Box::new(PrePost { pre: to_pre, post: to_post }),
            xdata: out,
        })
    }
}
