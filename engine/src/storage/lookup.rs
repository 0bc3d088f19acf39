//! Lookups, attributes, directories.

use std::sync::Arc;

use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{DirEntry, Entry, File, PrePost, Statfs};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::{Context, Dict, FdId, FileType, FopError, FopResult, Gfid, Iatt, Reply, Timespec, Value};
use rustix::fs::{OFlags, SeekFrom};

use super::brick::{Brick, describe};
use super::entry::masked;
use super::file::OpenFile;
use super::handle::HIDDEN;
use super::inode::{Inode, Touch};
use super::sys::{self, Explain};

/// Most bytes of entries in one answer. Source: our bound; the stock client asks for 4 to 128 KiB.
pub const LISTING_MAX_BYTES: usize = 1 << 20;
/// What an entry costs of the client's budget beside its name, in bytes: its fixed part on the wire.
const ENTRY_BYTES: usize = 40;
/// The same with attributes.
const ENTRY_PLUS_BYTES: usize = 232;

impl Brick {
    /// LOOKUP, by name or by gfid alone.
    pub fn lookup(&self, gfid: Gfid, entry: Option<&Entry>, xdata: &Dict) -> FopResult {
        let Some(entry) = entry.filter(|e| !e.parent.is_null()) else {
            return self.lookup_nameless(gfid, xdata);
        };
        self.check_entry(entry)?;
        let parent = self.parent(entry.parent)?;
        let parent_iatt = parent.iatt()?;
        let with_parent = |e: FopError| e;
        let mut found = self.find(&parent, &entry.name);
        if matches!(&found, Err(e) if e.errno == errno::ENODATA) {
            // Whoever is making it may be about to give it its gfid.
            let _name_stays = self.entry_locks.name(entry.parent, &entry.name);
            found = self.find(&parent, &entry.name);
        }
        if let Err(e) = &found
            && e.errno == errno::ENODATA
        {
            if let Some(wanted) = xdata.gfid("gfid-req").filter(|g| !g.is_null() && !g.is_root()) {
                self.heal_gfid(&parent, &entry.name, wanted)?;
                found = self.find(&parent, &entry.name);
            } else if xdata.int("gfidless-lookup").is_some_and(|n| n != 0) {
                return self.lookup_gfidless(&parent, entry, parent_iatt);
            }
        }
        let Some(found) = found? else {
            return Err(with_parent(FopError::new(
                errno::ENOENT,
                format!("{} is not there", describe(entry.parent, &entry.name)),
            )));
        };
        self.ensure_handle(&found.inode, &parent, &entry.name)?;
        let iatt = found.inode.iatt_of(&found.stat)?;
        let out = self.answer_xdata(&found.inode, &iatt, xdata);
        Ok(Reply::Lookup { iatt: Box::new(iatt), parent: Box::new(parent_iatt), xdata: out })
    }

    fn lookup_nameless(&self, gfid: Gfid, xdata: &Dict) -> FopResult {
        let inode = match self.resolve(gfid) {
            Ok(inode) => inode,
            Err(e) => {
                // Heal asks whether an unlinked file still lives by its open descriptors.
                if xdata.int("unlinked-lookup").is_some_and(|n| n != 0)
                    && let Some(inode) = self.inodes.get_any(gfid).filter(|i| i.is_open())
                {
                    let iatt = Iatt { nlink: 0, ..inode.iatt()? };
                    return Ok(Reply::Lookup { iatt: Box::new(iatt), parent: Box::default(), xdata: Dict::new() });
                }
                return Err(e);
            }
        };
        let iatt = inode.iatt()?;
        let out = self.answer_xdata(&inode, &iatt, xdata);
        Ok(Reply::Lookup { iatt: Box::new(iatt), parent: Box::default(), xdata: out })
    }

    /// An entry without a gfid, looked at by heal, which then decides which gfid it gets.
    fn lookup_gfidless(&self, parent: &Inode, entry: &Entry, parent_iatt: Iatt) -> FopResult {
        let stat = rustix::fs::statat(&parent.path, &entry.name[..], rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .explain(|| describe(entry.parent, &entry.name))?;
        let iatt = super::inode::iatt_from_stat(Gfid::NULL, &stat);
        Ok(Reply::Lookup { iatt: Box::new(iatt), parent: Box::new(parent_iatt), xdata: Dict::new() })
    }

    /// STAT, FSTAT.
    pub fn stat(&self, inode: &Inode, xdata: &Dict) -> FopResult {
        let iatt = inode.iatt()?;
        let out = if xdata.is_empty() { Dict::new() } else { self.answer_xdata(inode, &iatt, xdata) };
        Ok(Reply::Iatt { iatt: Box::new(iatt), xdata: out })
    }

    /// SETATTR, FSETATTR: owner first, as chown takes set-id bits away, then permissions, then times.
    pub fn setattr(
        &self,
        context: &Context,
        inode: &Inode,
        wanted: &Iatt,
        valid: SetattrValid,
        xdata: &Dict,
    ) -> FopResult {
        let pre = inode.iatt()?;
        let what = || format!("setting attributes of {}", inode.gfid);
        if valid.has(SetattrValid::UID | SetattrValid::GID) {
            let uid = valid.has(SetattrValid::UID).then_some(wanted.uid);
            let gid = valid.has(SetattrValid::GID).then_some(wanted.gid);
            sys::chown(&inode.path, uid, gid).explain(what)?;
        }
        if valid.has(SetattrValid::MODE) && inode.kind != FileType::Symlink {
            let masks = self.tuned().masks;
            let mode = match inode.kind {
                FileType::Directory => masked(wanted.permissions(), masks.create_directory, masks.force_directory),
                _ => masked(wanted.permissions(), masks.create, masks.force_create),
            };
            sys::chmod(&inode.path, mode).explain(what)?;
        }
        let birth = match context.birth.seconds {
            0 => now(),
            _ => context.birth,
        };
        let pick = |given: u32, now_bit: u32, time: Timespec| match () {
            () if valid.has(now_bit) && !valid.has(given) => Some(birth),
            () if valid.has(given) => Some(time),
            () => None,
        };
        let atime = pick(SetattrValid::ATIME, SetattrValid::ATIME_NOW, wanted.atime);
        let mtime = pick(SetattrValid::MTIME, SetattrValid::MTIME_NOW, wanted.mtime);
        if atime.is_some() || mtime.is_some() {
            if [atime, mtime].into_iter().flatten().any(|t| t.nanos >= 1_000_000_000) {
                return Err(FopError::new(errno::EINVAL, "nanoseconds beyond a second"));
            }
            sys::set_times(&inode.path, atime, mtime).explain(what)?;
        }
        if self.options.ctime {
            if atime.is_some() || mtime.is_some() {
                inode.set_times(context.birth, atime, mtime)?;
            }
            self.touch(context, inode, Touch::CHANGE);
        }
        let post = inode.iatt()?;
        let out = if xdata.is_empty() { Dict::new() } else { self.answer_xdata(inode, &post, xdata) };
        Ok(Reply::PrePost { attrs: Box::new(PrePost { pre, post }), written: 0, xdata: out })
    }

    /// READLINK.
    pub fn readlink(&self, gfid: Gfid, size_bytes: u32) -> FopResult {
        let inode = self.resolve(gfid)?;
        if inode.kind != FileType::Symlink {
            return Err(FopError::new(errno::EINVAL, format!("{gfid} is not a symlink")));
        }
        let mut target = sys::read_link(&inode.path).explain(|| format!("reading symlink {gfid}"))?;
        target.truncate(size_bytes as usize);
        Ok(Reply::Readlink { target: target.into(), iatt: Box::new(inode.iatt()?), xdata: Dict::new() })
    }

    /// STATFS; what the reserve keeps is not available.
    pub fn statfs(&self) -> FopResult {
        let s = rustix::fs::fstatvfs(&self.root).explain(|| "statfs of the brick".to_owned())?;
        let tuned = self.tuned();
        let free = s.f_bfree.saturating_sub(tuned.reserved_blocks(s.f_blocks, s.f_bsize));
        let shared = tuned.shared_brick_count;
        // export-statfs-size off: sizes are nobody's business.
        let shown = |count: u64| if tuned.export_statfs { count / shared } else { 0 };
        Ok(Reply::Statfs {
            statfs: Statfs {
                block_size_bytes: s.f_bsize,
                fragment_size_bytes: s.f_frsize,
                blocks: shown(s.f_blocks),
                blocks_free: shown(free),
                blocks_available: shown(s.f_bavail.min(free)),
                files: shown(s.f_files),
                files_free: shown(s.f_ffree),
                files_available: shown(s.f_favail),
                fs_id: s.f_fsid,
                flags: s.f_flag.bits(),
                name_max_bytes: s.f_namemax,
            },
            xdata: Dict::new(),
        })
    }

    /// OPENDIR.
    pub fn opendir(&self, gfid: Gfid, id: FdId) -> FopResult {
        let inode = self.resolve(gfid)?;
        if inode.kind != FileType::Directory {
            return Err(FopError::new(errno::ENOTDIR, format!("{gfid} is not a directory")));
        }
        let fd = sys::reopen(&inode.path, OFlags::RDONLY | OFlags::DIRECTORY).explain(|| format!("opening {gfid}"))?;
        self.register(id, inode, fd, OFlags::RDONLY)?;
        Ok(Reply::done())
    }

    /// FSYNCDIR: entries made before are on the disk.
    pub fn fsyncdir(&self, file: File, datasync: bool) -> FopResult {
        let open = self.directory(file)?;
        match datasync {
            true => rustix::fs::fdatasync(&open.fd),
            false => rustix::fs::fsync(&open.fd),
        }
        .explain(|| format!("syncing directory {}", open.inode.gfid))?;
        Ok(Reply::done())
    }

    fn directory(&self, file: File) -> FopResult<Arc<OpenFile>> {
        let open = match file.fd {
            Some(id) => self.files.get(id),
            None => {
                // Anonymous: a descriptor for this once.
                let inode = self.resolve(file.gfid)?;
                let fd = sys::reopen(&inode.path, OFlags::RDONLY | OFlags::DIRECTORY)
                    .explain(|| format!("opening {}", file.gfid))?;
                Some(Arc::new(OpenFile {
                    inode,
                    fd,
                    direct: None,
                    sync: false,
                    append: false,
                    position: parking_lot::Mutex::new(()),
                }))
            }
        };
        match open {
            Some(open) if open.inode.kind == FileType::Directory => Ok(open),
            Some(open) => Err(FopError::new(errno::ENOTDIR, format!("{} is not a directory", open.inode.gfid))),
            None => Err(FopError::new(errno::EBADF, format!("no open descriptor for {}", file.gfid))),
        }
    }

    /// READDIR, READDIRP from `offset` on (an offset an entry gave, or 0).
    pub fn readdir(&self, file: File, offset: u64, size_bytes: u32, xdata: &Dict, plus: bool) -> FopResult {
        let open = self.directory(file)?;
        let what = || format!("listing {}", open.inode.gfid);
        let budget = (size_bytes as usize).min(LISTING_MAX_BYTES);
        let fixed = if plus { ENTRY_PLUS_BYTES } else { ENTRY_BYTES };
        let is_root = open.inode.gfid.is_root();
        // Distribute takes directories from another brick. A listing of nothing else must not look like the end.
        let without_directories = xdata.int("readdir-filter-directories").is_some_and(|skip| skip != 0);
        let (mut entries, mut used) = (Vec::new(), 0);
        {
            let _position = open.position.lock();
            rustix::fs::seek(&open.fd, SeekFrom::Start(offset)).explain(what)?;
            let mut buffer: Vec<u8> = Vec::with_capacity((budget / fixed * 48).clamp(4096, 64 << 10));
            let mut raw = rustix::fs::RawDir::new(&open.fd, buffer.spare_capacity_mut());
            while let Some(found) = raw.next() {
                let found = found.explain(what)?;
                let name = found.file_name().to_bytes();
                let d_type = d_type(found.file_type());
                if (is_root && name == HIDDEN.as_bytes())
                    || (without_directories && d_type == FileType::Directory.d_type())
                {
                    continue;
                }
                let cost = fixed + name.len() + 1;
                if used + cost > budget && !entries.is_empty() {
                    break;
                }
                used += cost;
                entries.push(DirEntry {
                    ino: found.ino(),
                    offset: found.next_entry_cookie(),
                    d_type,
                    name: name.to_vec().into(),
                    iatt: None,
                    xdata: Dict::new(),
                });
            }
        }
        if plus {
            // Contents are a lookup's to ask for; the other answers count, and what they leave no room for comes with
            // the client's next request.
            let mut asked = xdata.clone();
            asked.remove("glusterfs.content");
            let mut taken = 0;
            for entry in &mut entries {
                self.fill_entry(&open.inode, entry, &asked);
                used += dict_bytes(&entry.xdata);
                if used > LISTING_MAX_BYTES && taken > 0 {
                    break;
                }
                taken += 1;
            }
            entries.truncate(taken);
        }
        Ok(Reply::Entries { entries, xdata: Dict::new() })
    }

    fn fill_entry(&self, directory: &Inode, entry: &mut DirEntry, xdata: &Dict) {
        let name = &entry.name[..];
        let inode = match name {
            b"." => self.resolve(directory.gfid).ok(),
            // Its attributes are not asked for: the client knows the parent by itself.
            b".." => None,
            _ => match self.find(directory, name) {
                Ok(Some(found)) => Some(found.inode),
                Ok(None) => None,
                Err(e) => {
                    tracing::debug!(name = %describe(directory.gfid, name), error = %e, "an entry listed without attributes");
                    None
                }
            },
        };
        let Some(inode) = inode else { return };
        let Ok(iatt) = inode.iatt() else { return };
        entry.ino = inode.gfid.ino();
        entry.d_type = inode.kind.d_type();
        if !xdata.is_empty() {
            entry.xdata = self.answer_xdata(&inode, &iatt, xdata);
        }
        entry.iatt = Some(iatt);
    }
}

/// About what a dict takes in memory and on the wire.
fn dict_bytes(dict: &Dict) -> usize {
    let value_bytes = |value: &Value| super::xattr::value_bytes(value).map_or(64, |raw| raw.len());
    dict.iter().map(|(key, value)| 16 + key.len() + value_bytes(value)).sum()
}

fn d_type(kind: rustix::fs::FileType) -> u32 {
    use rustix::fs::FileType as Raw;
    match kind {
        Raw::RegularFile => 8,
        Raw::Directory => 4,
        Raw::Symlink => 10,
        Raw::Fifo => 1,
        Raw::Socket => 12,
        Raw::CharacterDevice => 2,
        Raw::BlockDevice => 6,
        Raw::Unknown => 0,
    }
}

/// The brick's own clock, for what clients date "now" without a time.
fn now() -> Timespec {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Timespec { seconds: t.tv_sec, nanos: u32::try_from(t.tv_nsec).unwrap_or(0) }
}
