//! features/trash: what is removed or cut off is kept in `.trashcan`, under the path it had and with the time behind its
//! name. Source of the rules: features/trash of GlusterFS 10.3.
//!
//! Kept are the last name of a file of at most `trash-max-filesize`, and the contents of a file before a truncate makes
//! it smaller; not what lies in the trash itself, under a path of `trash-eliminate-path`, or is removed by GlusterFS's
//! own services (unless `trash-internal-op`, which has a directory of its own). What cannot be kept is removed as asked,
//! and said in the log: a full disk must not keep anybody from deleting.
//!
//! Every brick keeps its own copy. So that those of a replicated volume agree, names carry the client's time, and what is
//! made here has a gfid that follows from what it is made of; GlusterFS leaves that to later lookups.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{Entry, File, PrePost};
use ladrillo_translator::option::{Options, parse_size};
use ladrillo_translator::{
    Context, Dict, FdId, Fop, FopError, FopFuture, FopResult, Gfid, Iatt, Parent, Payload, Reply, Runtime, Timespec,
    Translator, Value,
};
use parking_lot::RwLock;
use sha2::Digest;

use super::date::Date;
use super::read_only::flag;

/// The gfid of the trash directory.
const TRASH: Gfid = Gfid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
/// That of the directory in it for what GlusterFS's own services remove.
const INTERNAL: Gfid = Gfid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6]);
const INTERNAL_NAME: &str = "internal_op";
/// Answers where an inode is in the volume.
const PATH: &str = "glusterfs.ancestry.path";
/// Copied at once.
const CHUNK_BYTES: u32 = 128 << 10;
/// Longest name of an entry, in bytes.
const NAME_MAX: usize = 255;

#[derive(Clone)]
struct Settings {
    on: bool,
    internal: bool,
    directory: Bytes,
    max_bytes: u64,
    eliminate: Vec<Vec<u8>>,
}

/// The translator.
pub struct Trash {
    name: String,
    child: Arc<dyn Translator>,
    runtime: Arc<dyn Runtime>,
    settings: RwLock<Arc<Settings>>,
    /// Nobody has tried yet to make the directory, or give it its new name.
    untried: AtomicBool,
    /// Where the trash is, once that is known.
    places: RwLock<Option<Places>>,
    /// Who looks for the places; the others wait for him.
    preparing: futures::lock::Mutex<()>,
}

/// The directories of the trash.
#[derive(Clone, Copy)]
struct Places {
    trash: Gfid,
    /// What GlusterFS's own services remove, if that is kept.
    internal: Option<Gfid>,
}

impl Trash {
    /// Over `child`.
    ///
    /// # Errors
    /// A sentence: an option that cannot be.
    pub fn new(
        name: &str,
        options: &Options,
        runtime: Arc<dyn Runtime>,
        child: Arc<dyn Translator>,
    ) -> Result<Trash, String> {
        let settings = Settings::parse(options)?;
        Ok(Trash {
            name: name.to_owned(),
            child,
            runtime,
            untried: AtomicBool::new(settings.on),
            settings: RwLock::new(Arc::new(settings)),
            places: RwLock::default(),
            preparing: futures::lock::Mutex::default(),
        })
    }

    /// Takes changed options.
    ///
    /// # Errors
    /// An option that cannot be; nothing is changed then.
    pub fn reconfigure(&self, options: &Options) -> Result<(), String> {
        let settings = Settings::parse(options)?;
        let mut current = self.settings.write();
        self.untried.store(settings.on, Ordering::Release);
        *self.places.write() = None;
        *current = Arc::new(settings);
        Ok(())
    }

    async fn below(&self, fop: Fop) -> FopResult {
        self.child.submit(&Context::root(), fop).await
    }

    async fn stat(&self, gfid: Gfid) -> FopResult<Iatt> {
        match self.below(Fop::Stat { gfid, xdata: Dict::new() }).await? {
            Reply::Iatt { iatt, .. } => Ok(*iatt),
            _ => Err(unexpected()),
        }
    }

    async fn find(&self, entry: &Entry) -> FopResult<Option<Iatt>> {
        let fop = Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry.clone()), xdata: Dict::new() };
        match self.below(fop).await {
            Ok(Reply::Lookup { iatt, .. }) => Ok(Some(*iatt)),
            Err(e) if e.errno == errno::ENOENT => Ok(None),
            Err(e) => Err(e),
            Ok(_) => Err(unexpected()),
        }
    }

    /// The path of an inode within the volume.
    async fn path_of(&self, gfid: Gfid) -> FopResult<Vec<u8>> {
        match self.below(Fop::Getxattr { gfid, name: PATH.into(), xdata: Dict::new() }).await? {
            Reply::Xattrs { xattrs, .. } => match xattrs.get(PATH) {
                Some(Value::Str(path) | Value::StrOld(path) | Value::Ptr(path)) => {
                    Ok(path.strip_suffix(b"\0").unwrap_or(path).to_vec())
                }
                _ => Err(unexpected()),
            },
            _ => Err(unexpected()),
        }
    }

    /// Where the trash is: made, or renamed, where that has not been done. Whoever fails leaves it to the next.
    async fn places(&self, settings: &Arc<Settings>) -> FopResult<Places> {
        if let Some(places) = *self.places.read() {
            return Ok(places);
        }
        let _one = self.preparing.lock().await;
        if let Some(places) = *self.places.read() {
            return Ok(places);
        }
        self.untried.store(false, Ordering::Release);
        let places = self.prepare(settings).await?;
        let current = self.settings.read();
        if Arc::ptr_eq(&current, settings) {
            *self.places.write() = Some(places);
        }
        Ok(places)
    }

    /// Makes the trash directory, or gives it its new name. A directory of that name which somebody else made is it.
    async fn prepare(&self, settings: &Settings) -> FopResult<Places> {
        let wanted = Entry { parent: Gfid::ROOT, name: settings.directory.clone() };
        let trash = match self.find(&wanted).await? {
            Some(iatt) if iatt.is_dir() => iatt.gfid,
            Some(_) => {
                let what = format!("/{} is no directory", String::from_utf8_lossy(&settings.directory));
                return Err(FopError::new(errno::ENOTDIR, what));
            }
            None => self.place_trash(wanted).await?,
        };
        let entry = Entry { parent: trash, name: INTERNAL_NAME.into() };
        let internal = match settings.internal {
            true => Some(self.place_internal(&entry).await?),
            false => None,
        };
        Ok(Places { trash, internal })
    }

    async fn place_trash(&self, wanted: Entry) -> FopResult<Gfid> {
        match self.stat(TRASH).await {
            Ok(_) => {
                let path = self.path_of(TRASH).await?;
                let now = path.strip_prefix(b"/").unwrap_or(&path);
                if now != &wanted.name[..] && !now.contains(&b'/') {
                    let from = Entry { parent: Gfid::ROOT, name: Bytes::copy_from_slice(now) };
                    self.below(Fop::Rename { from, to: wanted, xdata: Dict::new() }).await?;
                }
                Ok(TRASH)
            }
            Err(e) if matches!(e.errno, errno::ENOENT | errno::ESTALE) => {
                self.make_directory(&wanted, TRASH, 0o755).await
            }
            Err(e) => Err(e),
        }
    }

    async fn place_internal(&self, entry: &Entry) -> FopResult<Gfid> {
        if let Some(iatt) = self.find(entry).await?.filter(Iatt::is_dir) {
            return Ok(iatt.gfid);
        }
        let gfid = match self.stat(INTERNAL).await {
            // In a trash of another name.
            Ok(_) => self.free_gfid(&[b"directory", &entry.parent.0, &entry.name]).await?,
            Err(_) => INTERNAL,
        };
        self.make_directory(entry, gfid, 0o755).await
    }

    /// Whatever fails may be for want of the trash's directories: they are looked for again.
    fn look_again(&self, error: &FopError) {
        if matches!(error.errno, errno::ENOENT | errno::ESTALE) {
            *self.places.write() = None;
        }
    }

    async fn make_directory(&self, entry: &Entry, gfid: Gfid, mode: u32) -> FopResult<Gfid> {
        let xdata = Dict::new().with("gfid-req", Value::Gfid(gfid));
        let mkdir = Fop::Mkdir { entry: entry.clone(), mode, umask: 0, xdata };
        match self.below(mkdir).await {
            Ok(Reply::Entry { iatt, .. }) => Ok(iatt.gfid),
            // Somebody else was faster, or a user has made one.
            Err(e) if e.errno == errno::EEXIST => match self.find(entry).await? {
                Some(iatt) if iatt.is_dir() => Ok(iatt.gfid),
                _ => Err(e),
            },
            Err(e) => Err(e),
            Ok(_) => Err(unexpected()),
        }
    }

    /// Whether what is at `path` is none of the trash's business.
    fn is_exempt(settings: &Settings, path: &[u8]) -> bool {
        let inside = |directory: &[u8]| {
            path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        let mut trash = b"/".to_vec();
        trash.extend_from_slice(&settings.directory);
        inside(&trash) || settings.eliminate.iter().any(|directory| inside(directory))
    }

    /// The directory of the trash that stands for `path`, made where it is not there yet.
    async fn mirror(&self, path: &[u8], internal: bool, places: Places) -> FopResult<Gfid> {
        let mut at = match (internal, places.internal) {
            (false, _) => places.trash,
            (true, Some(internal)) => internal,
            (true, None) => return Err(FopError::new(errno::ENOENT, "no directory for what services remove")),
        };
        let mut original = Gfid::ROOT;
        let mut walked = Vec::new();
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            walked.push(b'/');
            walked.extend_from_slice(name);
            let name = Bytes::copy_from_slice(name);
            let there = self.find(&Entry { parent: original, name: name.clone() }).await?;
            let mode = there.as_ref().filter(|iatt| iatt.is_dir()).map_or(0o755, Iatt::permissions);
            original = there.map_or(Gfid::NULL, |iatt| iatt.gfid);
            let entry = Entry { parent: at, name };
            at = match self.find(&entry).await? {
                Some(iatt) if iatt.is_dir() => iatt.gfid,
                Some(_) => return Err(FopError::new(errno::ENOTDIR, "a file is in the way in the trash")),
                None => {
                    let gfid = self.free_gfid(&[b"directory", &at.0, &walked]).await?;
                    self.make_directory(&entry, gfid, mode).await?
                }
            };
        }
        Ok(at)
    }

    /// A gfid that follows from `parts` and that nothing has yet.
    async fn free_gfid(&self, parts: &[&[u8]]) -> FopResult<Gfid> {
        for attempt in 0u8..=255 {
            let mut hash = sha2::Sha256::new();
            for part in parts {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            hash.update([attempt]);
            let digest = hash.finalize();
            let mut gfid = [0; 16];
            gfid.copy_from_slice(&digest[..16]);
            // As random ones are: version 4 of RFC 9562.
            gfid[6] = gfid[6] & 0x0f | 0x40;
            gfid[8] = gfid[8] & 0x3f | 0x80;
            match self.stat(Gfid(gfid)).await {
                Ok(_) => {}
                Err(e) if matches!(e.errno, errno::ENOENT | errno::ESTALE) => return Ok(Gfid(gfid)),
                Err(e) => return Err(e),
            }
        }
        Err(FopError::new(errno::EEXIST, "no gfid is free for the trash"))
    }

    /// The client's time where it tells one: then all copies agree.
    fn time(&self, context: &Context) -> Timespec {
        match context.birth.seconds {
            0 => self.runtime.wall_clock(),
            _ => context.birth,
        }
    }

    async fn unlink(
        &self,
        context: &Context,
        entry: Entry,
        flags: u32,
        xdata: Dict,
        settings: &Arc<Settings>,
    ) -> FopResult {
        let moved = match conditional(&xdata) {
            true => Ok(None),
            false => self.keep(context, &entry, settings).await,
        };
        match moved {
            Ok(Some(parent)) => {
                let mut out = Dict::new();
                for (asked, answered) in
                    [("gf_request_link_count", "gf_response_link_count"), ("get-link-count", "get-link-count")]
                {
                    if xdata.contains(asked) {
                        out.set(answered, Value::Uint(1));
                    }
                }
                Ok(Reply::Removed { parent, xdata: out })
            }
            Ok(None) => self.child.submit(context, Fop::Unlink { entry, flags, xdata }).await,
            Err(e) => {
                self.look_again(&e);
                tracing::error!(name = %String::from_utf8_lossy(&entry.name), error = %e, "removed without a copy in the trash");
                self.child.submit(context, Fop::Unlink { entry, flags, xdata }).await
            }
        }
    }

    /// Moves a file into the trash; `None` where it does not belong there.
    async fn keep(
        &self,
        context: &Context,
        entry: &Entry,
        settings: &Arc<Settings>,
    ) -> FopResult<Option<Box<PrePost>>> {
        let Some(iatt) = self.find(entry).await? else { return Ok(None) };
        // Linkto files of distribute are no files of anybody.
        let linkto = iatt.is_regular() && iatt.permissions() == 0o1000;
        if iatt.is_dir() || iatt.nlink > 1 || iatt.size_bytes > settings.max_bytes || linkto {
            return Ok(None);
        }
        let directory = self.path_of(entry.parent).await?;
        let mut path = if directory == b"/" { Vec::new() } else { directory.clone() };
        path.push(b'/');
        path.extend_from_slice(&entry.name);
        if Trash::is_exempt(settings, &path) {
            return Ok(None);
        }
        let Some(name) = stamped(&entry.name, self.time(context)) else { return Ok(None) };
        let places = self.places(settings).await?;
        let to = Entry { parent: self.mirror(&directory, context.is_internal(), places).await?, name };
        if self.find(&to).await?.is_some() {
            // Removed twice within a second: the first is kept.
            return Ok(None);
        }
        // The times of the file's directory are those of the removal.
        let mover = Context { birth: context.birth, ..Context::root() };
        match self.child.submit(&mover, Fop::Rename { from: entry.clone(), to, xdata: Dict::new() }).await? {
            Reply::Rename { from_parent, .. } => Ok(Some(from_parent)),
            _ => Err(unexpected()),
        }
    }

    /// Copies what a truncate is about to cut off.
    async fn keep_contents(
        &self,
        context: &Context,
        file: File,
        size_bytes: u64,
        settings: &Arc<Settings>,
    ) -> FopResult<()> {
        let iatt = match file.fd {
            None => self.stat(file.gfid).await?,
            Some(_) => match self.below(Fop::Fstat { file, xdata: Dict::new() }).await? {
                Reply::Iatt { iatt, .. } => *iatt,
                _ => return Err(unexpected()),
            },
        };
        let smaller = iatt.size_bytes > size_bytes && iatt.size_bytes <= settings.max_bytes;
        if !iatt.is_regular() || iatt.nlink != 1 || !smaller {
            return Ok(());
        }
        let path = self.path_of(iatt.gfid).await?;
        let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else { return Ok(()) };
        let (directory, file_name) = (&path[..slash], &path[slash + 1..]);
        if Trash::is_exempt(settings, &path) {
            return Ok(());
        }
        let time = self.time(context);
        let Some(name) = stamped(file_name, time) else { return Ok(()) };
        let places = self.places(settings).await?;
        let entry = Entry { parent: self.mirror(directory, context.is_internal(), places).await?, name };
        if self.find(&entry).await?.is_some() {
            return Ok(());
        }
        let stamp = [time.seconds.to_be_bytes(), i64::from(time.nanos).to_be_bytes()].concat();
        let gfid = self.free_gfid(&[b"contents", &iatt.gfid.0, &stamp]).await?;
        // Ids of clients count up from 1: this one is nobody's.
        let fd = FdId(u64::MAX / 2 + self.runtime.random() / 4);
        let owner = Context { uid: iatt.uid, gid: iatt.gid, birth: context.birth, ..Context::root() };
        let xdata = Dict::new().with("gfid-req", Value::Gfid(gfid));
        let flags = (libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY) as u32;
        let mode = iatt.permissions();
        let create = Fop::Create { entry: entry.clone(), flags, mode, umask: 0, fd, xdata };
        self.child.submit(&owner, create).await?;
        let target = File { gfid, fd: Some(fd) };
        let copied = self.copy(File { gfid: iatt.gfid, fd: None }, target).await;
        let _ = self.below(Fop::Release { file: target }).await;
        if copied.is_err() {
            // Half a copy is none.
            let _ = self.below(Fop::Unlink { entry, flags: 0, xdata: Dict::new() }).await;
        }
        copied
    }

    async fn copy(&self, from: File, to: File) -> FopResult<()> {
        let mut offset = 0;
        loop {
            let read = Fop::Read { file: from, offset, size_bytes: CHUNK_BYTES, flags: 0, xdata: Dict::new() };
            let data: Payload = match self.below(read).await {
                Ok(Reply::Read { data, .. }) => data,
                // An arbiter has no contents, here or there.
                Err(e) if e.errno == errno::ENOSYS => return Ok(()),
                Err(e) => return Err(e),
                Ok(_) => return Err(unexpected()),
            };
            if data.is_empty() {
                return Ok(());
            }
            let wanted = data.len();
            let write = Fop::Write { file: to, offset, data, flags: 0, xdata: Dict::new() };
            match self.below(write).await? {
                Reply::PrePost { written, .. } if written as usize == wanted => offset += wanted as u64,
                _ => return Err(FopError::new(errno::ENOSPC, "no room for a copy in the trash")),
            }
        }
    }

    async fn handle(&self, context: &Context, fop: Fop, settings: Arc<Settings>) -> FopResult {
        if self.untried.load(Ordering::Acquire)
            && let Err(e) = self.places(&settings).await
        {
            tracing::error!(error = %e, "preparing the trash directory");
        }
        if context.is_internal() && !settings.internal {
            return self.child.submit(context, fop).await;
        }
        match fop {
            Fop::Unlink { entry, flags, xdata } => self.unlink(context, entry, flags, xdata, &settings).await,
            Fop::Truncate { gfid, size_bytes, xdata } => {
                self.before_truncate(context, File { gfid, fd: None }, size_bytes, &settings).await;
                self.child.submit(context, Fop::Truncate { gfid, size_bytes, xdata }).await
            }
            Fop::Ftruncate { file, size_bytes, xdata } => {
                self.before_truncate(context, file, size_bytes, &settings).await;
                self.child.submit(context, Fop::Ftruncate { file, size_bytes, xdata }).await
            }
            Fop::Rename { from, to, xdata } => {
                self.check_own(&from, "rename").await?;
                self.child.submit(context, Fop::Rename { from, to, xdata }).await
            }
            Fop::Rmdir { entry, flags, xdata } => {
                self.check_own(&entry, "rmdir").await?;
                self.child.submit(context, Fop::Rmdir { entry, flags, xdata }).await
            }
            fop => self.child.submit(context, fop).await,
        }
    }

    async fn before_truncate(&self, context: &Context, file: File, size_bytes: u64, settings: &Arc<Settings>) {
        if let Err(e) = self.keep_contents(context, file, size_bytes, settings).await {
            self.look_again(&e);
            tracing::error!(gfid = %file.gfid, error = %e, "truncated without a copy in the trash");
        }
    }

    /// The trash directory itself stays where it is.
    async fn check_own(&self, entry: &Entry, what: &str) -> FopResult<()> {
        let places = *self.places.read();
        let trash = places.map_or(TRASH, |places| places.trash);
        let internal = places.and_then(|places| places.internal).unwrap_or(INTERNAL);
        if !entry.parent.is_root() && entry.parent != trash {
            return Ok(());
        }
        match self.find(entry).await {
            Ok(Some(iatt)) if iatt.gfid == trash || iatt.gfid == internal => {
                Err(FopError::new(errno::EPERM, format!("{what} of the trash directory")))
            }
            _ => Ok(()),
        }
    }
}

impl Settings {
    fn parse(options: &Options) -> Result<Settings, String> {
        let directory = options.get("trash-dir").unwrap_or(".trashcan").trim_matches('/');
        if directory.is_empty() || directory.contains('/') || matches!(directory, "." | ".." | ".glusterfs") {
            return Err(format!("option trash-dir {directory:?}: not the name of a directory"));
        }
        let max_bytes = match options.get("trash-max-filesize") {
            None => 5 << 20,
            Some(text) => parse_size(text).ok_or_else(|| format!("option trash-max-filesize {text:?}: not a size"))?,
        };
        let eliminate = options.get("trash-eliminate-path").unwrap_or("").split(',').map(str::trim);
        let eliminate = eliminate.map(|path| path.trim_matches('/')).filter(|path| !path.is_empty());
        Ok(Settings {
            on: flag(options, "trash", false)?,
            internal: flag(options, "trash-internal-op", false)?,
            directory: Bytes::copy_from_slice(directory.as_bytes()),
            max_bytes,
            eliminate: eliminate.map(|path| format!("/{path}").into_bytes()).collect(),
        })
    }
}

/// Removals with conditions of their own are storage's to judge.
fn conditional(xdata: &Dict) -> bool {
    ["unlink-only-if-dht-linkto-file", "dont-unlink-for-open-fd", "dht-get-iatt-in-xattr"]
        .iter()
        .any(|key| xdata.contains(key))
}

/// `name_2026-11-23_083000`; `None` where that is too long.
fn stamped(name: &[u8], time: Timespec) -> Option<Bytes> {
    let Date { year, month, day, hour, minute, second } = Date::of(time.seconds);
    let stamp = format!("_{year:04}-{month:02}-{day:02}_{hour:02}{minute:02}{second:02}");
    (name.len() + stamp.len() <= NAME_MAX).then(|| [name, stamp.as_bytes()].concat().into())
}

fn unexpected() -> FopError {
    FopError::new(errno::EIO, "an answer of another kind than its question")
}

impl Translator for Trash {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        let ours = matches!(
            fop,
            Fop::Unlink { .. } | Fop::Truncate { .. } | Fop::Ftruncate { .. } | Fop::Rename { .. } | Fop::Rmdir { .. }
        );
        if !ours && !self.untried.load(Ordering::Relaxed) {
            return self.child.submit(context, fop);
        }
        let settings = self.settings.read().clone();
        match settings.on {
            true => Box::pin(self.handle(context, fop, settings)),
            false => self.child.submit(context, fop),
        }
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        self.child.set_parent(parent, child_index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translators::testing::{Bench, Clock, entry, lookup};

    fn trash(options: &Options) -> Option<(Bench, Arc<Trash>)> {
        let mut handle = None;
        let clock = Arc::new(Clock::new(1_795_421_234));
        let bench = Bench::new(|storage| {
            let made = Arc::new(Trash::new("trash", options, clock, storage).unwrap());
            handle = Some(made.clone());
            made
        })?;
        Some((bench, handle?))
    }

    fn unlink(parent: Gfid, name: &str) -> Fop {
        Fop::Unlink { entry: entry(parent, name), flags: 0, xdata: Dict::new() }
    }

    const STAMP: &str = "_2026-11-23_080714";

    #[test]
    fn removed_files_are_found_in_the_trash() {
        let Some((bench, _)) = trash(&Options::new().with("trash", "on").with("trash-max-filesize", "100")) else {
            return;
        };
        let a = bench.directory(Gfid::ROOT, "a");
        let b = bench.directory(a, "b");
        let gfid = bench.file(b, "f", b"text");
        bench.file(b, "large", &[7; 101]);
        bench.run(unlink(b, "f")).unwrap();
        bench.run(unlink(b, "large")).unwrap();
        let can = bench.path.join(".trashcan");
        assert_eq!(std::fs::read(can.join(format!("a/b/f{STAMP}"))).unwrap(), b"text");
        assert_eq!(std::fs::read_dir(can.join("a/b")).unwrap().count(), 1, "the large one is gone");
        assert_eq!(bench.iatt(b, "f").unwrap_err().errno, errno::ENOENT);
        assert_eq!(bench.run(Fop::Stat { gfid, xdata: Dict::new() }).map(|_| ()).ok(), Some(()), "the same inode");
        // Out of the trash things go for good, and the trash itself stays.
        let inside = bench.iatt(bench.iatt(TRASH, "a").unwrap().gfid, "b").unwrap().gfid;
        bench.run(unlink(inside, &format!("f{STAMP}"))).unwrap();
        assert_eq!(bench.run(Fop::Stat { gfid, xdata: Dict::new() }).unwrap_err().errno, errno::ENOENT);
        let rmdir = Fop::Rmdir { entry: entry(Gfid::ROOT, ".trashcan"), flags: 0, xdata: Dict::new() };
        assert_eq!(bench.run(rmdir).unwrap_err().errno, errno::EPERM);
        let rename =
            Fop::Rename { from: entry(Gfid::ROOT, ".trashcan"), to: entry(Gfid::ROOT, "mine"), xdata: Dict::new() };
        assert_eq!(bench.run(rename).unwrap_err().errno, errno::EPERM);
        // Another name of a file is no removal of it.
        let gfid = bench.file(Gfid::ROOT, "one", b"1");
        bench.run(Fop::Link { gfid, entry: entry(Gfid::ROOT, "two"), xdata: Dict::new() }).unwrap();
        bench.run(unlink(Gfid::ROOT, "one")).unwrap();
        assert!(!can.join(format!("one{STAMP}")).exists());
    }

    #[test]
    fn what_a_truncate_cuts_off_is_copied() {
        let Some((bench, trash)) =
            trash(&Options::new().with("trash", "on").with("trash-eliminate-path", "no/way,tmp"))
        else {
            return;
        };
        let tmp = bench.directory(Gfid::ROOT, "tmp");
        let (f, g) = (bench.file(Gfid::ROOT, "f", &[7; 300_000]), bench.file(tmp, "g", b"text"));
        let truncate = |gfid: Gfid, size_bytes: u64| Fop::Truncate { gfid, size_bytes, xdata: Dict::new() };
        bench.run(truncate(f, 400_000)).unwrap();
        bench.run(truncate(g, 0)).unwrap();
        let can = bench.path.join(".trashcan");
        assert_eq!(std::fs::read_dir(&can).unwrap().count(), 0, "larger, and exempt");
        bench.run(truncate(f, 10)).unwrap();
        let copy = std::fs::read(can.join(format!("f{STAMP}"))).unwrap();
        assert_eq!((copy.len(), &copy[299_990..300_002]), (400_000, &[7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0][..]));
        assert_eq!(bench.iatt(Gfid::ROOT, "f").unwrap().size_bytes, 10);
        bench.run(lookup(TRASH, &format!("f{STAMP}"))).unwrap();
        // Its name may change.
        let renamed = Options::new().with("trash", "on").with("trash-dir", "bin");
        trash.reconfigure(&renamed).unwrap();
        bench.run(lookup(Gfid::ROOT, "f")).unwrap();
        assert!(bench.path.join(format!("bin/f{STAMP}")).exists() && !can.exists());
        assert!(trash.reconfigure(&Options::new().with("trash-dir", "a/b")).is_err());
    }

    #[test]
    fn a_directory_of_its_name_is_the_trash_and_a_file_is_not() {
        let Some((bench, trash)) = trash(&Options::new()) else { return };
        bench.directory(Gfid::ROOT, ".trashcan");
        let on = Options::new().with("trash", "on").with("trash-internal-op", "on");
        trash.reconfigure(&on).unwrap();
        bench.file(Gfid::ROOT, "f", b"text");
        bench.run(unlink(Gfid::ROOT, "f")).unwrap();
        let can = bench.path.join(".trashcan");
        assert_eq!(std::fs::read(can.join(format!("f{STAMP}"))).unwrap(), b"text");
        let rmdir = Fop::Rmdir { entry: entry(Gfid::ROOT, ".trashcan"), flags: 0, xdata: Dict::new() };
        assert_eq!(bench.run(rmdir).unwrap_err().errno, errno::EPERM);
        // While a file is in the way nothing is kept; afterwards it is, without another change of options.
        bench.file(Gfid::ROOT, "bin", b"");
        trash.reconfigure(&on.with("trash-dir", "bin")).unwrap();
        bench.file(Gfid::ROOT, "g", b"text");
        bench.run(unlink(Gfid::ROOT, "g")).unwrap();
        bench.run(unlink(Gfid::ROOT, "bin")).unwrap();
        bench.file(Gfid::ROOT, "h", b"text");
        let healer = Context { pid: Context::PID_SELF_HEALD, ..Context::root() };
        bench.run_as(&healer, unlink(Gfid::ROOT, "h")).unwrap();
        let bin = bench.path.join("bin");
        assert_eq!(std::fs::read(bin.join(format!("internal_op/h{STAMP}"))).unwrap(), b"text");
        assert!(!bin.join(format!("g{STAMP}")).exists());
        // Taken away by heal: found missing once, made anew.
        trash.reconfigure(&Options::new().with("trash", "on").with("trash-dir", "new")).unwrap();
        bench.run(lookup(Gfid::ROOT, "f")).unwrap_err();
        let rmdir = Fop::Rmdir { entry: entry(Gfid::ROOT, "new"), flags: 1, xdata: Dict::new() };
        bench.run_as(&healer, rmdir).unwrap();
        for name in ["i", "j"] {
            bench.file(Gfid::ROOT, name, b"text");
            bench.run(unlink(Gfid::ROOT, name)).unwrap();
        }
        assert!(bench.path.join(format!("new/j{STAMP}")).exists());
    }

    #[test]
    fn services_remove_for_good_unless_told_otherwise() {
        let Some((bench, trash)) = trash(&Options::new().with("trash", "on")) else { return };
        let healer = Context { pid: Context::PID_SELF_HEALD, ..Context::root() };
        bench.file(Gfid::ROOT, "f", b"text");
        bench.run_as(&healer, unlink(Gfid::ROOT, "f")).unwrap();
        let can = bench.path.join(".trashcan");
        assert_eq!(std::fs::read_dir(&can).unwrap().count(), 0);
        trash.reconfigure(&Options::new().with("trash", "on").with("trash-internal-op", "on")).unwrap();
        bench.file(Gfid::ROOT, "f", b"text");
        bench.run_as(&healer, unlink(Gfid::ROOT, "f")).unwrap();
        assert!(can.join(format!("internal_op/f{STAMP}")).exists());
        trash.reconfigure(&Options::new()).unwrap();
        bench.file(Gfid::ROOT, "f", b"text");
        bench.run(unlink(Gfid::ROOT, "f")).unwrap();
        assert_eq!(std::fs::read_dir(&can).unwrap().count(), 1, "off");
    }

    #[test]
    fn two_copies_of_a_file_agree_about_its_place_in_the_trash() {
        let options = Options::new().with("trash", "on");
        let (Some((one, _)), Some((two, _))) = (trash(&options), trash(&options)) else { return };
        let caller = Context { birth: Timespec { seconds: 1_700_000_000, nanos: 5 }, pid: 9, ..Context::root() };
        let mut seen = Vec::new();
        let gfid = Gfid::random();
        let directory = Gfid::random();
        for bench in [&one, &two] {
            let mkdir = Fop::Mkdir {
                entry: entry(Gfid::ROOT, "d"),
                mode: 0o750,
                umask: 0,
                xdata: Dict::new().with("gfid-req", Value::Gfid(directory)),
            };
            bench.run(mkdir).unwrap();
            bench.run(crate::translators::testing::create(directory, "f", gfid, FdId(7))).unwrap();
            let file = File { gfid, fd: Some(FdId(7)) };
            bench.run(crate::translators::testing::write(file, b"text")).unwrap();
            bench.run_as(&caller, Fop::Ftruncate { file, size_bytes: 1, xdata: Dict::new() }).unwrap();
            let mirrored = bench.iatt(TRASH, "d").unwrap();
            let copy = bench.iatt(mirrored.gfid, "f_2023-11-14_221320").unwrap();
            seen.push((mirrored.gfid, mirrored.permissions(), copy.gfid, copy.size_bytes));
        }
        assert_eq!(seen[0], seen[1]);
        assert_eq!((seen[0].1, seen[0].3), (0o750, 4));
    }
}
