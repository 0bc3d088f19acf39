//! features/index: which inodes need heal, kept in `.glusterfs/indices` so that heal need not search the brick.
//!
//! Promises: before a mark becomes non-zero its inode is in the index, and it leaves the index only when the marks have
//! become zero, on the disk, in that order; a crash in between leaves an entry too many, never one too few. Clients
//! read the index through virtual gfids (`glusterfs.xattrop_index_gfid` and its kin), stock ones and ours alike.
//!
//! On disk, in each of `xattrop`, `dirty` and `entry-changes/<gfid>`: hard links to one empty base file
//! (`xattrop-<uuid>`), named by gfid, or by entry name in `entry-changes`.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{DirEntry, Entry, File, PrePost, XattropKind};
use ladrillo_translator::option::Options;
use ladrillo_translator::{
    Context, Dict, FdId, Fop, FopError, FopFuture, FopResult, Gfid, Iatt, Parent, Reply, Translator, Value,
};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::storage::Offload;
use crate::storage::handle::check_name;
use crate::storage::inode::iatt_from_stat;
use crate::storage::sys::{self, Explain};

/// Kinds of index, by subdirectory and by the xattr that asks for its virtual gfid.
const KINDS: [(&str, &str); 3] = [
    ("xattrop", "glusterfs.xattrop_index_gfid"),
    ("dirty", "glusterfs.xattrop_dirty_gfid"),
    ("entry-changes", "glusterfs.xattrop_entry_changes_gfid"),
];
const XATTROP: usize = 0;
const DIRTY: usize = 1;
const ENTRY_CHANGES: usize = 2;

/// Xattrs that ask how many entries there are.
const COUNTS: [(&str, usize); 2] =
    [("glusterfs.xattrop_index_count", XATTROP), ("glusterfs.xattrop_dirty_count", DIRTY)];

/// Inodes whose xattrops are in order: one async lock each, shared by gfids that fall together.
const LANES: usize = 256;
/// Directories of `entry-changes` that clients look at, remembered at most. Source: our bound.
const MAX_SUBDIRECTORIES: usize = 65536;

/// The translator.
pub struct Index {
    name: String,
    child: Arc<dyn Translator>,
    offload: Arc<dyn Offload>,
    lanes: Vec<futures::lock::Mutex<()>>,
    core: Arc<Core>,
}

/// The index itself, apart from the graph, so that its work can be done by other threads.
struct Core {
    /// O_PATH descriptors of the subdirectories.
    directories: [OwnedFd; 3],
    virtual_gfids: [Gfid; 3],
    dirty_watchlist: Vec<String>,
    pending_watchlist: Vec<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Base files links are made to, by kind.
    bases: [Option<String>; 3],
    /// Open virtual directories.
    open: HashMap<FdId, OwnedFd>,
    /// Virtual gfids of subdirectories of `entry-changes`.
    subdirectories: HashMap<Gfid, Gfid>,
    /// Entries of `xattrop`.
    pending: u64,
}

/// What a virtual gfid stands for.
#[derive(Clone, Copy)]
enum Virtual {
    Kind(usize),
    /// `entry-changes/<gfid>`.
    Entries(Gfid),
}

impl Index {
    /// Over `child`, with the options of the volfile (`index-base`, `xattrop-dirty-watchlist`, `xattrop-pending-watchlist`,
    /// `xattrop64-watchlist`). Reads what is in the index already.
    ///
    /// # Errors
    /// A sentence: no `index-base`, or it cannot be prepared.
    pub fn open(
        name: &str,
        options: &Options,
        offload: Arc<dyn Offload>,
        child: Arc<dyn Translator>,
    ) -> Result<Index, String> {
        let path = PathBuf::from(options.get("index-base").ok_or("option index-base is missing")?);
        let fail = |what: &str, e: Errno| format!("{}: {what}: {e}", path.display());
        let base = open_or_make(&path).map_err(|e| fail("opening the index", e))?;
        let mut directories = Vec::new();
        for (kind, _) in KINDS {
            match rustix::fs::mkdirat(&base, kind, Mode::from_raw_mode(0o600)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(fail(kind, e)),
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            directories.push(rustix::fs::openat(&base, kind, flags, Mode::empty()).map_err(|e| fail(kind, e))?);
        }
        let directories: [OwnedFd; 3] = directories.try_into().map_err(|_| "three kinds of index".to_owned())?;
        let list = |key: &str| -> Vec<String> {
            let words = options.get(key).unwrap_or_default().split([',', ' ']);
            words.filter(|w| !w.is_empty()).map(str::to_owned).collect()
        };
        let mut pending_watchlist = list("xattrop-pending-watchlist");
        pending_watchlist.extend(list("xattrop64-watchlist"));
        let mut state = State::default();
        for (kind, (word, _)) in KINDS.into_iter().enumerate() {
            let (base, others) = scan(&directories[kind], word).map_err(|e| fail(word, e))?;
            state.bases[kind] = base;
            if kind == XATTROP {
                state.pending = others;
            }
        }
        let core = Core {
            directories,
            virtual_gfids: [Gfid::random(), Gfid::random(), Gfid::random()],
            dirty_watchlist: list("xattrop-dirty-watchlist"),
            pending_watchlist,
            state: Mutex::new(state),
        };
        Ok(Index {
            name: name.to_owned(),
            child,
            offload,
            lanes: (0..LANES).map(|_| futures::lock::Mutex::new(())).collect(),
            core: Arc::new(core),
        })
    }

    /// Work that reads whole directories waits for the disk elsewhere.
    async fn in_pool(&self, work: impl FnOnce(&Core) -> FopResult + Send + 'static) -> FopResult {
        let core = self.core.clone();
        self.offload.run(Box::new(move || work(&core))).await
    }

    async fn xattrop(&self, context: &Context, gfid: Gfid, fop: Fop) -> FopResult {
        let (xattrs, xdata) = match &fop {
            Fop::Xattrop { xattrs, xdata, .. } | Fop::Fxattrop { xattrs, xdata, .. } => (xattrs, xdata.clone()),
            _ => return self.child.submit(context, fop).await,
        };
        let lane = self.lanes[usize::from(gfid.0[15]) % LANES].lock().await;
        for (kind, mark) in self.core.marks(xattrs).into_iter().enumerate() {
            if mark == Some(true) {
                self.core.add(kind, gfid)?;
            }
        }
        if let Some(name) = xdata.bytes("glusterfs.xattrop-entry-create") {
            self.core.add_entry(gfid, trim(name))?;
        }
        let result = self.child.submit(context, fop).await;
        if result.is_err() && self.is_gone(gfid).await {
            // It was removed meanwhile, and its marks with it: nothing is left to be healed here.
            [XATTROP, DIRTY].into_iter().for_each(|kind| self.core.remove(kind, gfid));
        }
        if let Ok(Reply::Xattrs { xattrs, .. }) = &result {
            let marks = self.core.marks(xattrs);
            for (kind, mark) in marks.into_iter().enumerate() {
                match mark {
                    Some(true) => self.core.add(kind, gfid)?,
                    Some(false) => self.core.remove(kind, gfid),
                    None => {}
                }
            }
            if let Some(name) = xdata.bytes("glusterfs.xattrop-entry-delete") {
                self.core.remove_entry(gfid, trim(name));
            }
            if marks[XATTROP] == Some(false) && xdata.int("glusterfs.xattrop-purge-index").is_some_and(|n| n != 0) {
                let purged = self.in_pool(move |core| {
                    core.purge_entries(gfid);
                    Ok(Reply::done())
                });
                let _ = purged.await;
            }
        }
        drop(lane);
        result
    }

    async fn is_gone(&self, gfid: Gfid) -> bool {
        let look = Fop::Lookup { gfid, entry: None, xdata: Dict::new() };
        let found = self.child.submit(&Context::root(), look).await;
        matches!(found, Err(error) if matches!(error.errno, errno::ENOENT | errno::ESTALE))
    }

    /// Fills d_type of entries that are gfids, when heal asks for it.
    async fn fill_types(&self, entries: &mut [DirEntry]) {
        for entry in entries {
            let Some(gfid) = std::str::from_utf8(&entry.name).ok().and_then(|n| n.parse::<Gfid>().ok()) else {
                continue;
            };
            let fop = Fop::Lookup { gfid, entry: None, xdata: Dict::new() };
            if let Ok(Reply::Lookup { iatt, .. }) = self.child.submit(&Context::root(), fop).await {
                entry.d_type = iatt.file_type().map_or(0, |k| k.d_type());
            }
        }
    }

    async fn handle(&self, context: &Context, fop: Fop) -> FopResult {
        match &fop {
            Fop::Xattrop { gfid, kind, xattrs, .. } | Fop::Fxattrop { file: File { gfid, .. }, kind, xattrs, .. } => {
                let tracked = match kind {
                    XattropKind::AddArray => true,
                    XattropKind::AddArray64 => xattrs.iter().any(|(key, _)| self.core.kind_of_key(key).is_some()),
                    _ => false,
                };
                if tracked {
                    let gfid = *gfid;
                    return self.xattrop(context, gfid, fop).await;
                }
            }
            Fop::Getxattr { name, .. } if is_ours(name) => {
                let name = name.clone();
                return self.in_pool(move |core| core.getxattr(&name)).await;
            }
            Fop::Lookup { gfid, entry, xdata } => {
                if let Some(entry) = entry
                    && let Some(what) = self.core.virtual_of(entry.parent)
                {
                    return self.core.lookup_entry(what, entry);
                }
                if entry.is_none()
                    && let Some(what) = self.core.virtual_of(*gfid)
                {
                    return self.core.lookup_directory(*gfid, what, xdata);
                }
            }
            Fop::Opendir { gfid, fd, .. } => {
                if let Some(what) = self.core.virtual_of(*gfid) {
                    let directory = self.core.open_virtual(what)?;
                    self.core.state.lock().open.insert(*fd, directory);
                    return Ok(Reply::done());
                }
            }
            Fop::Readdir { file, offset, size_bytes, xdata } | Fop::Readdirp { file, offset, size_bytes, xdata } => {
                let ours = self.core.virtual_of(file.gfid).is_some()
                    || file.fd.is_some_and(|id| self.core.state.lock().open.contains_key(&id));
                if ours {
                    let (file, offset, size_bytes) = (*file, *offset, *size_bytes);
                    let mut reply = self.in_pool(move |core| core.readdir(file, offset, size_bytes)).await?;
                    if let Reply::Entries { entries, .. } = &mut reply
                        && xdata.contains("get-gfid-type")
                    {
                        self.fill_types(entries).await;
                    }
                    return Ok(reply);
                }
            }
            Fop::Releasedir { file } => {
                if let Some(id) = file.fd
                    && self.core.state.lock().open.remove(&id).is_some()
                {
                    return Ok(Reply::done());
                }
            }
            Fop::Unlink { entry, .. } => {
                if let Some(what) = self.core.virtual_of(entry.parent) {
                    return self.core.remove_virtual(what, entry, false, false);
                }
            }
            Fop::Rmdir { entry, flags, .. } => {
                if let Some(what) = self.core.virtual_of(entry.parent) {
                    let (entry, recursive) = (entry.clone(), *flags != 0);
                    return self.in_pool(move |core| core.remove_virtual(what, &entry, true, recursive)).await;
                }
            }
            _ => {}
        }
        let wants_count = match &fop {
            Fop::Lookup { xdata, .. } | Fop::Fstat { xdata, .. } => {
                xdata.text("link-count") == Some("glusterfs.xattrop_index_count")
            }
            _ => false,
        };
        let mut result = self.child.submit(context, fop).await;
        if wants_count {
            let count = i64::from(self.core.state.lock().pending > 0);
            if let Ok(reply) = &mut result {
                reply.xdata_mut().set_int("link-count", count);
            }
        }
        result
    }
}

impl Core {
    fn kind_of_key(&self, key: &[u8]) -> Option<usize> {
        let watched = |list: &[String]| list.iter().any(|prefix| key.starts_with(prefix.as_bytes()));
        if watched(&self.dirty_watchlist) {
            Some(DIRTY)
        } else if watched(&self.pending_watchlist) {
            Some(XATTROP)
        } else {
            None
        }
    }

    /// Per kind: `Some(true)` = some mark is not zero, `Some(false)` = all are, `None` = none is there.
    fn marks(&self, xattrs: &Dict) -> [Option<bool>; 2] {
        let mut marks = [None; 2];
        for (key, value) in xattrs.iter() {
            let (Some(kind), Some(raw)) = (self.kind_of_key(key), value_bytes(value)) else { continue };
            let set = raw.iter().any(|b| *b != 0);
            if let Some(mark) = marks.get_mut(kind) {
                *mark = Some(mark.unwrap_or(false) | set);
            }
        }
        marks
    }

    fn add(&self, kind: usize, gfid: Gfid) -> FopResult<()> {
        let added = self.link(kind, &self.directories[kind], gfid.to_string().as_bytes())?;
        if kind == XATTROP && added {
            let mut state = self.state.lock();
            state.pending += 1;
        }
        Ok(())
    }

    fn remove(&self, kind: usize, gfid: Gfid) {
        match rustix::fs::unlinkat(&self.directories[kind], gfid.to_string(), AtFlags::empty()) {
            Ok(()) if kind == XATTROP => {
                let mut state = self.state.lock();
                state.pending = state.pending.saturating_sub(1);
            }
            Ok(()) | Err(Errno::NOENT) => {}
            // One entry too many: heal finds nothing to do there.
            Err(e) => tracing::warn!(%gfid, error = %e, "removing from the index"),
        }
    }

    fn add_entry(&self, parent: Gfid, name: &[u8]) -> FopResult<()> {
        check_name(name)?;
        let directory = self.entries_directory(parent, true)?;
        self.link(ENTRY_CHANGES, &directory, name).map(drop)
    }

    fn remove_entry(&self, parent: Gfid, name: &[u8]) {
        if check_name(name).is_ok()
            && let Ok(directory) = self.entries_directory(parent, false)
        {
            let _ = rustix::fs::unlinkat(&directory, name, AtFlags::empty());
        }
    }

    fn purge_entries(&self, parent: Gfid) {
        let Ok(directory) = self.entries_directory(parent, false) else { return };
        if let Ok(names) = list(&directory) {
            for name in names {
                let _ = rustix::fs::unlinkat(&directory, &name[..], AtFlags::empty());
            }
        }
        let _ = rustix::fs::unlinkat(&self.directories[ENTRY_CHANGES], parent.to_string(), AtFlags::REMOVEDIR);
    }

    fn entries_directory(&self, parent: Gfid, make: bool) -> FopResult<OwnedFd> {
        let name = parent.to_string();
        let what = || format!("entry-changes of {parent}");
        if make {
            match rustix::fs::mkdirat(&self.directories[ENTRY_CHANGES], &name, Mode::from_raw_mode(0o600)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(sys::failure(e, &what())),
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directories[ENTRY_CHANGES], &name, flags, Mode::empty()).explain(what)
    }

    /// Links `name` in `directory` to the base file of `kind`; makes a base where there is none, or where it has as many
    /// links as the file system allows. `false` = it was there already.
    fn link(&self, kind: usize, directory: &OwnedFd, name: &[u8]) -> FopResult<bool> {
        let what = || format!("adding {} to the index", String::from_utf8_lossy(name));
        for _ in 0..3 {
            let base = self.base_file(kind).explain(what)?;
            match rustix::fs::linkat(&self.directories[kind], base.as_str(), directory, name, AtFlags::empty()) {
                Ok(()) => return Ok(true),
                Err(Errno::EXIST) => return Ok(false),
                Err(Errno::MLINK | Errno::NOENT) => {
                    let mut state = self.state.lock();
                    if state.bases[kind].as_deref() == Some(&base) {
                        state.bases[kind] = Some(make_base(&self.directories[kind], KINDS[kind].0).explain(what)?);
                    }
                }
                Err(e) => return Err(sys::failure(e, &what())),
            }
        }
        Err(FopError::new(errno::EIO, what()))
    }

    fn base_file(&self, kind: usize) -> Result<String, Errno> {
        let mut state = self.state.lock();
        if let Some(base) = &state.bases[kind] {
            return Ok(base.clone());
        }
        let base = make_base(&self.directories[kind], KINDS[kind].0)?;
        state.bases[kind] = Some(base.clone());
        Ok(base)
    }

    fn virtual_of(&self, gfid: Gfid) -> Option<Virtual> {
        if let Some(kind) = self.virtual_gfids.iter().position(|v| *v == gfid) {
            return Some(Virtual::Kind(kind));
        }
        self.state.lock().subdirectories.get(&gfid).map(|parent| Virtual::Entries(*parent))
    }

    fn open_virtual(&self, what: Virtual) -> FopResult<OwnedFd> {
        match what {
            Virtual::Kind(kind) => readable(&self.directories[kind]).explain(|| format!("opening {}", KINDS[kind].0)),
            Virtual::Entries(parent) => self.entries_directory(parent, false),
        }
    }

    /// What `name`, one of ours, asks.
    fn getxattr(&self, name: &[u8]) -> FopResult {
        let value = match (KINDS.iter().position(|(_, key)| key.as_bytes() == name), kind_counted(name)) {
            (Some(kind), _) => Value::Ptr(self.virtual_gfids[kind].0.to_vec().into()),
            (None, Some(kind)) => {
                let counted = scan(&self.directories[kind], KINDS[kind].0);
                Value::Uint(counted.explain(|| "counting the index".to_owned())?.1)
            }
            (None, None) => return Err(FopError::new(errno::ENODATA, "the index has no such xattr")),
        };
        Ok(Reply::Xattrs { xattrs: Dict::new().with(name.to_vec(), value), xdata: Dict::new() })
    }

    /// A virtual directory itself.
    fn lookup_directory(&self, gfid: Gfid, what: Virtual, xdata: &Dict) -> FopResult {
        let directory = self.open_virtual(what)?;
        let stat = sys::fstat(&directory).explain(|| "stat of the index".to_owned())?;
        let mut out = Dict::new();
        if xdata.contains("glusterfs.index-ia-type-get-req") {
            // ia_type_t: IA_IFREG 1, IA_IFDIR 2. Heal takes the flat ones for files, read by anonymous descriptors.
            let flat = matches!(what, Virtual::Kind(XATTROP | DIRTY));
            out.set("glusterfs.index-ia-type-get-rsp", Value::Uint(if flat { 1 } else { 2 }));
        }
        let iatt = virtual_iatt(gfid, &stat);
        Ok(Reply::Lookup { iatt: Box::new(iatt), parent: Box::default(), xdata: out })
    }

    /// A name in a virtual directory.
    fn lookup_entry(&self, what: Virtual, entry: &Entry) -> FopResult {
        check_name(&entry.name)?;
        let directory = self.open_virtual(what)?;
        let stat = rustix::fs::statat(&directory, &entry.name[..], AtFlags::SYMLINK_NOFOLLOW)
            .explain(|| format!("{} in the index", String::from_utf8_lossy(&entry.name)))?;
        let gfid = match (what, std::str::from_utf8(&entry.name).ok().and_then(|n| n.parse::<Gfid>().ok())) {
            (Virtual::Kind(ENTRY_CHANGES), Some(parent)) => self.subdirectory(parent),
            (Virtual::Kind(ENTRY_CHANGES), None) => {
                return Err(FopError::new(errno::EINVAL, "no gfid in entry-changes"));
            }
            _ => Gfid::random(),
        };
        Ok(Reply::Lookup { iatt: Box::new(virtual_iatt(gfid, &stat)), parent: Box::default(), xdata: Dict::new() })
    }

    /// The virtual gfid of `entry-changes/<parent>`: the same as long as it is remembered.
    fn subdirectory(&self, parent: Gfid) -> Gfid {
        let mut gfid = parent;
        for (byte, mask) in gfid.0.iter_mut().zip(self.virtual_gfids[ENTRY_CHANGES].0) {
            *byte ^= mask;
        }
        let mut state = self.state.lock();
        if state.subdirectories.len() >= MAX_SUBDIRECTORIES {
            state.subdirectories.clear();
        }
        state.subdirectories.insert(gfid, parent);
        gfid
    }

    fn readdir(&self, file: File, offset: u64, size_bytes: u32) -> FopResult {
        let opened = {
            let state = self.state.lock();
            match file.fd.and_then(|id| state.open.get(&id)) {
                Some(fd) => Some(readable(fd).explain(|| "the index".to_owned())?),
                None => None,
            }
        };
        let directory = match (opened, self.virtual_of(file.gfid)) {
            (Some(directory), _) => directory,
            (None, Some(what)) => self.open_virtual(what)?,
            (None, None) => return Err(FopError::new(errno::EBADF, "no such virtual directory")),
        };
        let what = || "listing the index".to_owned();
        rustix::fs::seek(&directory, rustix::fs::SeekFrom::Start(offset)).explain(what)?;
        let mut buffer: Vec<u8> = Vec::with_capacity(32 << 10);
        let mut raw = rustix::fs::RawDir::new(&directory, buffer.spare_capacity_mut());
        let budget = (size_bytes as usize).min(1 << 20);
        let mut used = 0;
        let mut entries = Vec::new();
        while let Some(found) = raw.next() {
            let found = found.explain(what)?;
            let name = found.file_name().to_bytes();
            if KINDS.iter().any(|(kind, _)| is_base(kind, name)) {
                continue;
            }
            used += 40 + name.len() + 1;
            if used > budget && !entries.is_empty() {
                break;
            }
            entries.push(DirEntry {
                ino: found.ino(),
                offset: found.next_entry_cookie(),
                d_type: 0,
                name: name.to_vec().into(),
                iatt: None,
                xdata: Dict::new(),
            });
        }
        Ok(Reply::Entries { entries, xdata: Dict::new() })
    }

    fn remove_virtual(&self, what: Virtual, entry: &Entry, directory: bool, recursive: bool) -> FopResult {
        check_name(&entry.name)?;
        let gfid = std::str::from_utf8(&entry.name).ok().and_then(|n| n.parse::<Gfid>().ok());
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        match (what, gfid) {
            (Virtual::Kind(ENTRY_CHANGES), Some(parent)) if directory => {
                if recursive {
                    self.purge_entries(parent);
                } else {
                    rustix::fs::unlinkat(&self.directories[ENTRY_CHANGES], &name, AtFlags::REMOVEDIR)
                        .explain(|| format!("removing entry-changes of {parent}"))?;
                }
            }
            (Virtual::Kind(kind @ (XATTROP | DIRTY)), Some(gfid)) => self.remove(kind, gfid),
            (Virtual::Entries(parent), _) => self.remove_entry(parent, &entry.name),
            _ => return Err(FopError::new(errno::EINVAL, format!("{name} cannot be removed from the index"))),
        }
        Ok(Reply::Removed { parent: Box::new(PrePost::default()), xdata: Dict::new() })
    }
}

impl Translator for Index {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        match &fop {
            // The common ones have nothing to do with the index.
            Fop::Read { .. } | Fop::Write { .. } | Fop::Stat { .. } | Fop::Flush { .. } | Fop::Fsync { .. } => {
                self.child.submit(context, fop)
            }
            _ => Box::pin(self.handle(context, fop)),
        }
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        self.child.set_parent(parent, child_index);
    }
}

/// Whether an xattr is the index's to answer.
fn is_ours(name: &[u8]) -> bool {
    kind_counted(name).is_some() || KINDS.iter().any(|(_, key)| key.as_bytes() == name)
}

fn kind_counted(name: &[u8]) -> Option<usize> {
    COUNTS.iter().find(|(key, _)| key.as_bytes() == name).map(|(_, kind)| *kind)
}

fn trim(name: &[u8]) -> &[u8] {
    name.strip_suffix(b"\0").unwrap_or(name)
}

fn value_bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Str(b) | Value::StrOld(b) | Value::Ptr(b) => Some(b),
        _ => None,
    }
}

fn virtual_iatt(gfid: Gfid, stat: &rustix::fs::Stat) -> Iatt {
    Iatt { ino: u64::MAX, ..iatt_from_stat(gfid, stat) }
}

/// The base file of an index, if there is one, and how many other entries there are.
fn scan(directory: &OwnedFd, kind: &str) -> Result<(Option<String>, u64), Errno> {
    let (mut base, mut others) = (None, 0);
    for entry in rustix::fs::Dir::read_from(readable(directory)?)? {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name if is_base(kind, name) => base = String::from_utf8(name.to_vec()).ok(),
            _ => others += 1,
        }
    }
    Ok((base, others))
}

/// `xattrop-<uuid>` and the like.
fn is_base(kind: &str, name: &[u8]) -> bool {
    name.strip_prefix(kind.as_bytes()).and_then(|rest| rest.strip_prefix(b"-")).is_some_and(|uuid| uuid.len() == 36)
}

fn make_base(directory: &OwnedFd, kind: &str) -> Result<String, Errno> {
    let name = format!("{kind}-{}", Gfid::random());
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name.as_str(), flags, Mode::empty())?;
    Ok(name)
}

fn readable(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn list(directory: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

fn open_or_make(path: &Path) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o600)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{InPlace, Storage, StorageOptions};
    use futures::executor::block_on;

    struct Fixture {
        path: PathBuf,
        index: Index,
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }

    fn fixture() -> Option<Fixture> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: trusted xattrs need root");
            return None;
        }
        let path = std::env::temp_dir().join(format!("ladrillo-index-{}-{}", std::process::id(), Gfid::random()));
        std::fs::create_dir_all(&path).unwrap();
        let storage = Storage::open("posix", StorageOptions::new(&path), Arc::new(InPlace)).unwrap();
        let options = Options::new()
            .with("index-base", path.join(".glusterfs/indices").to_str().unwrap())
            .with("xattrop-dirty-watchlist", "trusted.afr.dirty")
            .with("xattrop-pending-watchlist", "trusted.afr.gv0-");
        let index = Index::open("index", &options, Arc::new(InPlace), Arc::new(storage)).unwrap();
        Some(Fixture { path, index })
    }

    impl Fixture {
        fn run(&self, fop: Fop) -> FopResult {
            block_on(self.index.submit(&Context::root(), fop))
        }

        fn xattrop(&self, key: &str, counters: [i32; 3], xdata: Dict) -> FopResult {
            let raw: Vec<u8> = counters.iter().flat_map(|n| n.to_be_bytes()).collect();
            let xattrs = Dict::new().with(key.to_owned(), Value::Ptr(raw.into()));
            self.run(Fop::Xattrop { gfid: Gfid::ROOT, kind: XattropKind::AddArray, xattrs, xdata })
        }

        /// What a client reads in a virtual directory, without `.` and `..`.
        fn names(&self, gfid: Gfid, anonymous: bool) -> FopResult<Vec<String>> {
            let fd = FdId(77);
            if !anonymous {
                self.run(Fop::Opendir { gfid, fd, xdata: Dict::new() })?;
            }
            let file = File { gfid, fd: (!anonymous).then_some(fd) };
            let reply = self.run(Fop::Readdir { file, offset: 0, size_bytes: 65536, xdata: Dict::new() })?;
            let Reply::Entries { entries, .. } = reply else { panic!("no entries") };
            if !anonymous {
                self.run(Fop::Releasedir { file })?;
            }
            let names = entries.into_iter().map(|e| String::from_utf8(e.name.to_vec()).unwrap());
            Ok(names.filter(|n| n != "." && n != "..").collect())
        }

        fn virtual_gfid(&self, key: &'static str) -> Gfid {
            let reply = self.run(Fop::Getxattr { gfid: Gfid::ROOT, name: key.into(), xdata: Dict::new() }).unwrap();
            let Reply::Xattrs { xattrs, .. } = reply else { panic!("no xattrs") };
            xattrs.gfid(key).expect("16 bytes")
        }

        fn count(&self) -> i64 {
            let name = "glusterfs.xattrop_index_count";
            let reply = self.run(Fop::Getxattr { gfid: Gfid::ROOT, name: name.into(), xdata: Dict::new() }).unwrap();
            let Reply::Xattrs { xattrs, .. } = reply else { panic!("no xattrs") };
            xattrs.int(name).unwrap()
        }

        fn link_count(&self) -> i64 {
            let mut xdata = Dict::new();
            xdata.set_str("link-count", "glusterfs.xattrop_index_count");
            let reply = self.run(Fop::Lookup { gfid: Gfid::ROOT, entry: None, xdata }).unwrap();
            reply.xdata().int("link-count").unwrap()
        }
    }

    #[test]
    fn an_inode_is_indexed_exactly_while_a_mark_is_not_zero() {
        let Some(f) = fixture() else { return };
        let xattrop = f.virtual_gfid("glusterfs.xattrop_index_gfid");
        let root = vec![Gfid::ROOT.to_string()];
        assert_eq!((f.count(), f.link_count()), (0, 0));
        f.xattrop("trusted.afr.gv0-client-0", [1, 0, 0], Dict::new()).unwrap();
        assert_eq!((f.names(xattrop, true).unwrap(), f.count(), f.link_count()), (root.clone(), 1, 1));
        f.xattrop("trusted.afr.gv0-client-0", [1, 0, 0], Dict::new()).unwrap();
        f.xattrop("trusted.afr.gv0-client-0", [-1, 0, 0], Dict::new()).unwrap();
        assert_eq!(f.names(xattrop, false).unwrap(), root, "one is left");
        f.xattrop("trusted.afr.gv0-client-0", [-1, 0, 0], Dict::new()).unwrap();
        assert_eq!((f.names(xattrop, true).unwrap().len(), f.count(), f.link_count()), (0, 0, 0));
        // Marks nobody watches, and reading alone, leave no trace.
        f.xattrop("trusted.afr.other-client-0", [1, 0, 0], Dict::new()).unwrap();
        f.xattrop("trusted.afr.gv0-client-0", [0, 0, 0], Dict::new()).unwrap();
        assert_eq!(f.count(), 0);
        let dirty = f.virtual_gfid("glusterfs.xattrop_dirty_gfid");
        f.xattrop("trusted.afr.dirty", [0, 0, 1], Dict::new()).unwrap();
        assert_eq!((f.names(dirty, true).unwrap(), f.count()), (root, 0));
    }

    #[test]
    fn an_inode_that_is_gone_leaves_nothing_in_the_index() {
        let Some(f) = fixture() else { return };
        let marks = || Dict::new().with("trusted.afr.dirty", Value::Ptr(vec![255u8; 12].into()));
        let (gfid, kind) = (Gfid::random(), XattropKind::AddArray);
        let missing = f.run(Fop::Xattrop { gfid, kind, xattrs: marks(), xdata: Dict::new() });
        assert!(missing.is_err());
        let file = File { gfid, fd: Some(FdId(1)) };
        assert!(f.run(Fop::Fxattrop { file, kind, xattrs: marks(), xdata: Dict::new() }).is_err());
        assert!(f.names(f.virtual_gfid("glusterfs.xattrop_dirty_gfid"), true).unwrap().is_empty());
        // One that is there keeps its place, whatever failed.
        f.xattrop("trusted.afr.dirty", [1, 0, 0], Dict::new()).unwrap();
        let root = File { gfid: Gfid::ROOT, fd: Some(FdId(1)) };
        assert!(f.run(Fop::Fxattrop { file: root, kind, xattrs: marks(), xdata: Dict::new() }).is_err());
        assert_eq!(f.names(f.virtual_gfid("glusterfs.xattrop_dirty_gfid"), true).unwrap().len(), 1);
    }

    #[test]
    fn names_that_changed_are_kept_for_granular_heal() {
        let Some(f) = fixture() else { return };
        let key = |key: &'static str, name: &'static str| {
            let mut xdata = Dict::new();
            xdata.set_str(key, name);
            xdata
        };
        f.xattrop("trusted.afr.gv0-client-1", [0, 0, 1], key("glusterfs.xattrop-entry-create", "made")).unwrap();
        let changes = f.virtual_gfid("glusterfs.xattrop_entry_changes_gfid");
        let entry = Entry { parent: changes, name: Gfid::ROOT.to_string().into() };
        let found = f.run(Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry.clone()), xdata: Dict::new() }).unwrap();
        let Reply::Lookup { iatt, .. } = found else { panic!("no lookup") };
        assert!(iatt.is_dir());
        assert_eq!(f.names(iatt.gfid, false).unwrap(), ["made"]);
        // Heal takes a name away, then the directory.
        let name = Entry { parent: iatt.gfid, name: "made".into() };
        f.run(Fop::Unlink { entry: name, flags: 0, xdata: Dict::new() }).unwrap();
        assert!(f.names(iatt.gfid, false).unwrap().is_empty());
        f.run(Fop::Rmdir { entry, flags: 1, xdata: Dict::new() }).unwrap();
        assert_eq!(f.names(iatt.gfid, false).unwrap_err().errno, errno::ENOENT);
        // Names that leave the index are refused before anything is marked.
        let refused = f.xattrop("trusted.afr.gv0-client-1", [0, 0, 1], key("glusterfs.xattrop-entry-create", "../x"));
        assert_eq!(refused.unwrap_err().errno, errno::EINVAL);
    }

    #[test]
    fn xattrops_at_once_leave_index_and_marks_agreeing() {
        let Some(f) = fixture() else { return };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        f.xattrop("trusted.afr.gv0-client-2", [1, 0, 0], Dict::new()).unwrap();
                        f.xattrop("trusted.afr.gv0-client-2", [-1, 0, 0], Dict::new()).unwrap();
                    }
                });
            }
        });
        assert_eq!(f.count(), 0);
        f.xattrop("trusted.afr.gv0-client-2", [1, 0, 0], Dict::new()).unwrap();
        assert_eq!(f.count(), 1);
    }
}
