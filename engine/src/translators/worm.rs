//! features/worm: write once, read many.
//!
//! For a whole volume (`worm`): what exists is neither changed nor removed; new files may be written through the
//! descriptor that made them. File by file (`worm-file-level`): a file made while this is on becomes immutable
//! `auto-commit-period` after it was last changed, or when its write permissions are taken away; it is then *retained*
//! until its access time, set to `default-retention-period` from that moment, and *worm* afterwards, when it may be
//! removed if `worm-files-deletable`. States are looked at when somebody wants to change the file.
//!
//! The state is in xattrs of the file as GlusterFS 10.3 has them (features/read-only/worm.c), text with a NUL:
//! `trusted.worm_file`, `trusted.start_time` and `trusted.reten_state` (`bits/retention/auto-commit`). GlusterFS's own
//! services are not held up, and times are the brick's: a client's clock could end a retention.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{Entry, File};
use ladrillo_translator::iatt::SetattrValid;
use ladrillo_translator::option::{Options, parse_time};
use ladrillo_translator::{
    Context, Dict, FdId, Fop, FopError, FopFuture, FopResult, Gfid, Iatt, Parent, Reply, Runtime, Translator, Value,
};
use parking_lot::{Mutex, RwLock};

use super::read_only::{counts, flag, refused};

const WORM_FILE: &str = "trusted.worm_file";
const START_TIME: &str = "trusted.start_time";
const STATE: &str = "trusted.reten_state";

/// Most files under way that a brick remembers as just made. Source: our bound; beyond it a file is not marked, and said so.
const MAX_NEW: usize = 1 << 20;

#[derive(Clone, Copy)]
struct Settings {
    volume: bool,
    files: bool,
    deletable: bool,
    retention_s: i64,
    auto_commit_s: i64,
    /// Retentions can be made longer only, not shorter.
    enterprise: bool,
}

/// The translator.
pub struct Worm {
    name: String,
    child: Arc<dyn Translator>,
    runtime: Arc<dyn Runtime>,
    settings: RwLock<Settings>,
    /// Descriptors that made their file.
    new: Mutex<HashSet<FdId>>,
}

/// What [`STATE`] says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    worm: bool,
    retained: bool,
    legal_hold: bool,
    enterprise: bool,
    retention_s: i64,
    auto_commit_s: i64,
}

impl State {
    fn parse(raw: &[u8]) -> Option<State> {
        let text = std::str::from_utf8(raw.strip_suffix(b"\0").unwrap_or(raw)).ok()?;
        let mut numbers = text.splitn(3, '/').map(|n| n.parse::<i64>().ok());
        let (bits, retention_s, auto_commit_s) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let bit = |n: u32| bits >> n & 1 == 1;
        Some(State {
            worm: bit(0),
            retained: bit(1),
            legal_hold: bit(2),
            enterprise: bit(3),
            retention_s,
            auto_commit_s,
        })
    }

    fn text(&self) -> String {
        let bits = u8::from(self.worm)
            | u8::from(self.retained) << 1
            | u8::from(self.legal_hold) << 2
            | u8::from(self.enterprise) << 3;
        format!("{bits}/{}/{}\0", self.retention_s, self.auto_commit_s)
    }
}

impl Worm {
    /// Over `child`.
    ///
    /// # Errors
    /// A sentence: an option that cannot be.
    pub fn new(
        name: &str,
        options: &Options,
        runtime: Arc<dyn Runtime>,
        child: Arc<dyn Translator>,
    ) -> Result<Worm, String> {
        let settings = RwLock::new(Settings::parse(options)?);
        Ok(Worm { name: name.to_owned(), child, runtime, settings, new: Mutex::default() })
    }

    /// Takes changed options.
    ///
    /// # Errors
    /// An option that cannot be; nothing is changed then.
    pub fn reconfigure(&self, options: &Options) -> Result<(), String> {
        *self.settings.write() = Settings::parse(options)?;
        Ok(())
    }

    fn now(&self) -> i64 {
        self.runtime.wall_clock().seconds
    }

    async fn below(&self, fop: Fop) -> FopResult {
        self.child.submit(&Context::root(), fop).await
    }

    async fn xattr(&self, gfid: Gfid, name: &'static str) -> FopResult<Option<Bytes>> {
        let fop = Fop::Getxattr { gfid, name: Bytes::from_static(name.as_bytes()), xdata: Dict::new() };
        match self.below(fop).await {
            Ok(Reply::Xattrs { xattrs, .. }) => Ok(xattrs.bytes(name).cloned()),
            Err(e) if e.errno == errno::ENODATA => Ok(None),
            Err(e) => Err(e),
            Ok(_) => Err(unexpected()),
        }
    }

    async fn set_xattr(&self, gfid: Gfid, name: &'static str, value: String) -> FopResult<()> {
        let xattrs = Dict::new().with(name, Value::Ptr(value.into()));
        self.below(Fop::Setxattr { gfid, xattrs, flags: 0, xdata: Dict::new() }).await.map(drop)
    }

    async fn iatt(&self, gfid: Gfid) -> FopResult<Iatt> {
        match self.below(Fop::Stat { gfid, xdata: Dict::new() }).await? {
            Reply::Iatt { iatt, .. } => Ok(*iatt),
            _ => Err(unexpected()),
        }
    }

    async fn set_atime(&self, gfid: Gfid, mut iatt: Iatt, seconds: i64) -> FopResult<()> {
        iatt.atime.seconds = seconds;
        let fop =
            Fop::Setattr { gfid, iatt: Box::new(iatt), valid: SetattrValid(SetattrValid::ATIME), xdata: Dict::new() };
        self.below(fop).await.map(drop)
    }

    /// Makes the file immutable from now on.
    async fn commit(&self, gfid: Gfid, settings: Settings) -> FopResult<()> {
        let iatt = self.iatt(gfid).await?;
        self.set_atime(gfid, iatt, self.now().saturating_add(settings.retention_s)).await?;
        let state = State {
            worm: true,
            retained: true,
            legal_hold: false,
            enterprise: settings.enterprise,
            retention_s: settings.retention_s,
            auto_commit_s: settings.auto_commit_s,
        };
        self.set_xattr(gfid, STATE, state.text()).await
    }

    /// Refuses a change of a file that is immutable, or becomes so now.
    async fn check(&self, gfid: Gfid, fop: &Fop, settings: Settings) -> FopResult<()> {
        let no = |why: &str| Err(refused(fop, why));
        if self.xattr(gfid, WORM_FILE).await?.is_none() {
            return Ok(());
        }
        let Some(start) = self.xattr(gfid, START_TIME).await?.and_then(|raw| number(&raw)) else {
            return no("a worm file without the time it was made");
        };
        let iatt = self.iatt(gfid).await?;
        let now = self.now();
        let Some(raw) = self.xattr(gfid, STATE).await? else {
            let period = settings.auto_commit_s;
            if now.saturating_sub(start) < period || now.saturating_sub(iatt.mtime.seconds) < period {
                return Ok(());
            }
            self.commit(gfid, settings).await?;
            return no("the file is now write-once");
        };
        let Some(mut state) = State::parse(&raw) else { return no("a worm file of an unknown state") };
        if state.retained && now >= iatt.atime.seconds {
            let seconds = iatt.atime.seconds.saturating_sub(state.retention_s);
            state = State { retained: false, retention_s: 0, auto_commit_s: 0, ..state };
            self.set_xattr(gfid, STATE, state.text()).await?;
            self.set_atime(gfid, iatt, seconds).await?;
        }
        let removable = state.worm && !state.retained && !state.legal_hold && settings.deletable;
        if removable && matches!(fop, Fop::Unlink { .. }) {
            return Ok(());
        }
        no(if state.retained { "the file is retained" } else { "the file is write-once" })
    }

    /// The same for what a name leads to; what is not there is the fop's own business.
    async fn check_name(&self, entry: &Entry, fop: &Fop, settings: Settings) -> FopResult<()> {
        let lookup = Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry.clone()), xdata: Dict::new() };
        match self.below(lookup).await {
            Ok(Reply::Lookup { iatt, .. }) if iatt.is_regular() => self.check(iatt.gfid, fop, settings).await,
            _ => Ok(()),
        }
    }

    /// Taking away all write permissions commits a file; the access time of a retained one is the end of its retention.
    async fn check_setattr(
        &self,
        gfid: Gfid,
        wanted: &Iatt,
        valid: SetattrValid,
        fop: &Fop,
        settings: Settings,
    ) -> FopResult<()> {
        if self.xattr(gfid, WORM_FILE).await?.is_none() {
            return Ok(());
        }
        let mut raw = self.xattr(gfid, STATE).await?;
        // Once only: what is committed has the retention it has.
        if raw.is_none() && valid.has(SetattrValid::MODE) && wanted.mode & 0o222 == 0 {
            self.commit(gfid, settings).await?;
            raw = self.xattr(gfid, STATE).await?;
        }
        if !valid.has(SetattrValid::ATIME | SetattrValid::ATIME_NOW) {
            return Ok(());
        }
        let state = raw.and_then(|raw| State::parse(&raw));
        let Some(mut state) = state.filter(|state| state.retained) else { return Ok(()) };
        let end = if valid.has(SetattrValid::ATIME) { wanted.atime.seconds } else { self.now() };
        let now = self.iatt(gfid).await?;
        let earliest = if state.enterprise { now.atime.seconds } else { now.mtime.seconds };
        if end < earliest {
            return Err(refused(fop, "the retention of a file cannot be made that short"));
        }
        state.retention_s = state.retention_s.saturating_add(end.saturating_sub(now.atime.seconds));
        self.set_xattr(gfid, STATE, state.text()).await
    }

    async fn check_files(&self, fop: &Fop, settings: Settings) -> FopResult<()> {
        match fop {
            Fop::Write { file, .. }
            | Fop::Ftruncate { file, .. }
            | Fop::Fallocate { file, .. }
            | Fop::Discard { file, .. }
            | Fop::Zerofill { file, .. }
            | Fop::CopyFileRange { to: file, .. } => self.check(file.gfid, fop, settings).await,
            Fop::Truncate { gfid, .. } | Fop::Link { gfid, .. } => self.check(*gfid, fop, settings).await,
            Fop::Open { gfid, flags, .. } if flags & libc::O_TRUNC as u32 != 0 => {
                self.check(*gfid, fop, settings).await
            }
            Fop::Unlink { entry, .. } => self.check_name(entry, fop, settings).await,
            Fop::Rename { from, to, .. } => {
                self.check_name(from, fop, settings).await?;
                self.check_name(to, fop, settings).await
            }
            Fop::Setattr { gfid, iatt, valid, .. } | Fop::Fsetattr { file: File { gfid, .. }, iatt, valid, .. } => {
                self.check_setattr(*gfid, iatt, *valid, fop, settings).await
            }
            _ => Ok(()),
        }
    }

    /// CREATE: the file's clock begins to run. Where the name exists it is an open, and judged like one.
    async fn create(&self, context: &Context, fop: Fop, settings: Settings) -> FopResult {
        let Fop::Create { entry, flags: asked, fd, .. } = &fop else { return Err(unexpected()) };
        let (asked, fd, entry) = (*asked, *fd, entry.clone());
        let exclusive = libc::O_EXCL as u32;
        // A name that comes to be after it was looked for is looked for again.
        let mut again = true;
        let reply = loop {
            let mut fop = fop.clone();
            if asked & exclusive == 0 {
                let lookup = Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry.clone()), xdata: Dict::new() };
                match self.below(lookup).await {
                    Ok(Reply::Lookup { iatt, .. }) => {
                        let open = Fop::Open { gfid: iatt.gfid, flags: asked, fd, xdata: Dict::new() };
                        if settings.volume && refused_by_volume(&open) {
                            return Err(refused(&fop, "the volume is write-once (features.worm)"));
                        }
                        if settings.files {
                            self.check_files(&open, settings).await?;
                        }
                        return self.child.submit(context, fop).await;
                    }
                    Err(e) if e.errno == errno::ENOENT => {
                        if let Fop::Create { flags, .. } = &mut fop {
                            *flags |= exclusive;
                        }
                    }
                    Err(e) => return Err(e),
                    Ok(_) => return Err(unexpected()),
                }
            }
            match self.child.submit(context, fop).await {
                Err(e) if e.errno == errno::EEXIST && asked & exclusive == 0 && again => again = false,
                other => break other?,
            }
        };
        if let Reply::Entry { iatt, .. } = &reply
            && settings.files
            && self.start(iatt.gfid).await
        {
            let mut new = self.new.lock();
            match new.len() < MAX_NEW {
                true => drop(new.insert(fd)),
                false => tracing::error!(gfid = %iatt.gfid, "too many new files: this one will not become write-once"),
            }
        }
        Ok(reply)
    }

    /// PUT makes a file and closes it at once.
    async fn put(&self, context: &Context, fop: Fop) -> FopResult {
        let reply = self.child.submit(context, fop).await?;
        if let Reply::Entry { iatt, .. } = &reply
            && self.start(iatt.gfid).await
        {
            self.mark(iatt.gfid).await;
        }
        Ok(reply)
    }

    /// Notes when a file was made; whether that could be done.
    async fn start(&self, gfid: Gfid) -> bool {
        match self.set_xattr(gfid, START_TIME, format!("{}\0", self.now())).await {
            Ok(()) => true,
            Err(e) => {
                tracing::error!(%gfid, error = %e, "a new file will not become write-once");
                false
            }
        }
    }

    /// Marks a file as one that becomes write-once.
    async fn mark(&self, gfid: Gfid) {
        // A file that was unlinked while open has nothing to keep.
        if let Err(e) = self.set_xattr(gfid, WORM_FILE, "1\0".to_owned()).await
            && !matches!(e.errno, errno::ENOENT | errno::ESTALE)
        {
            tracing::error!(%gfid, error = %e, "a new file will not become write-once");
        }
    }

    async fn release(&self, context: &Context, file: File) -> FopResult {
        let made = file.fd.is_some_and(|fd| self.new.lock().remove(&fd));
        if made {
            self.mark(file.gfid).await;
        }
        self.child.submit(context, Fop::Release { file }).await
    }
}

impl Settings {
    fn parse(options: &Options) -> Result<Settings, String> {
        let period = |key: &str, default: i64| match options.get(key) {
            None => Ok(default),
            Some(text) => parse_time(text)
                .and_then(|s| i64::try_from(s).ok())
                .ok_or_else(|| format!("option {key} {text:?}: not a time")),
        };
        Ok(Settings {
            volume: flag(options, "worm", false)?,
            files: flag(options, "worm-file-level", false)?,
            deletable: flag(options, "worm-files-deletable", true)?,
            retention_s: period("default-retention-period", 120)?,
            auto_commit_s: period("auto-commit-period", 180)?,
            enterprise: match options.get("retention-mode") {
                None | Some("relax") => false,
                Some("enterprise") => true,
                Some(other) => return Err(format!("option retention-mode {other:?}: relax or enterprise")),
            },
        })
    }
}

fn number(raw: &[u8]) -> Option<i64> {
    std::str::from_utf8(raw.strip_suffix(b"\0").unwrap_or(raw)).ok()?.parse().ok()
}

fn unexpected() -> FopError {
    FopError::new(errno::EIO, "an answer of another kind than its question")
}

/// What a write-once volume refuses.
fn refused_by_volume(fop: &Fop) -> bool {
    match fop {
        Fop::Open { flags, .. } => flags & (libc::O_WRONLY | libc::O_RDWR | libc::O_APPEND | libc::O_TRUNC) as u32 != 0,
        Fop::Link { .. }
        | Fop::Unlink { .. }
        | Fop::Rename { .. }
        | Fop::Truncate { .. }
        | Fop::Ftruncate { .. }
        | Fop::Rmdir { .. }
        | Fop::Removexattr { .. }
        | Fop::Fremovexattr { .. }
        | Fop::Fsyncdir { .. } => true,
        Fop::Xattrop { xattrs, .. } => counts(xattrs),
        // Stock forgets that an anonymous write changes an existing file, too.
        Fop::Write { file, .. }
        | Fop::Fallocate { file, .. }
        | Fop::Discard { file, .. }
        | Fop::Zerofill { file, .. }
        | Fop::CopyFileRange { to: file, .. } => file.fd.is_none(),
        _ => false,
    }
}

impl Translator for Worm {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        let settings = *self.settings.read();
        if context.is_internal() {
            return self.child.submit(context, fop);
        }
        if settings.volume && refused_by_volume(&fop) {
            return Box::pin(async move { Err(refused(&fop, "the volume is write-once (features.worm)")) });
        }
        match &fop {
            Fop::Release { file } => return Box::pin(self.release(context, *file)),
            Fop::Create { .. } if settings.volume || settings.files => {
                return Box::pin(self.create(context, fop, settings));
            }
            _ if !settings.files => return self.child.submit(context, fop),
            Fop::Put { .. } => return Box::pin(self.put(context, fop)),
            _ => {}
        }
        Box::pin(async move {
            self.check_files(&fop, settings).await?;
            self.child.submit(context, fop).await
        })
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        self.child.set_parent(parent, child_index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translators::testing::{Bench, Clock, create, entry, write};

    fn bench(options: &Options, clock: Arc<Clock>) -> Option<(Bench, Arc<Worm>)> {
        let mut handle = None;
        let bench = Bench::new(|storage| {
            let made = Arc::new(Worm::new("worm", options, clock, storage).unwrap());
            handle = Some(made.clone());
            made
        })?;
        Some((bench, handle?))
    }

    fn errno_of(result: FopResult) -> i32 {
        result.map_or_else(|e| e.errno, |_| 0)
    }

    #[test]
    fn a_write_once_volume_takes_new_files_only() {
        let clock = Arc::new(Clock::new(1_700_000_000));
        let Some((bench, _)) = bench(&Options::new().with("worm", "on"), clock) else { return };
        let (gfid, fd) = (Gfid::random(), FdId(1));
        let file = File { gfid, fd: Some(fd) };
        bench.run(create(Gfid::ROOT, "a", gfid, fd)).unwrap();
        bench.run(write(file, b"text")).unwrap();
        bench.run(Fop::Release { file }).unwrap();
        let x = Dict::new;
        for fop in [
            Fop::Open { gfid, flags: 2, fd: FdId(2), xdata: x() },
            write(File { gfid, fd: None }, b"other"),
            Fop::Unlink { entry: entry(Gfid::ROOT, "a"), flags: 0, xdata: x() },
            Fop::Rename { from: entry(Gfid::ROOT, "a"), to: entry(Gfid::ROOT, "b"), xdata: x() },
            Fop::Truncate { gfid, size_bytes: 0, xdata: x() },
        ] {
            assert_eq!(errno_of(bench.run(fop)), errno::EROFS);
        }
        // CREATE of what is there is an open.
        let open = |flags: u32, fd: u64| match create(Gfid::ROOT, "a", Gfid::random(), FdId(fd)) {
            Fop::Create { entry, mode, umask, fd, xdata, .. } => Fop::Create { entry, flags, mode, umask, fd, xdata },
            other => panic!("{other:?}"),
        };
        for flags in [1, 2, libc::O_TRUNC as u32] {
            assert_eq!(errno_of(bench.run(open(flags, 4))), errno::EROFS, "{flags:#o}");
        }
        assert_eq!(errno_of(bench.run(open(2 | libc::O_EXCL as u32, 4))), errno::EEXIST);
        bench.run(open(0, 4)).unwrap();
        let copy = Fop::CopyFileRange {
            from: File { gfid, fd: None },
            from_offset: 0,
            to: File { gfid, fd: None },
            to_offset: 2,
            len: 2,
            flags: 0,
            xdata: x(),
        };
        assert_eq!(errno_of(bench.run(copy)), errno::EROFS);
        bench.run(Fop::Open { gfid, flags: 0, fd: FdId(3), xdata: x() }).unwrap();
        assert_eq!(std::fs::read(bench.path.join("a")).unwrap(), b"text");
    }

    #[test]
    fn a_file_is_committed_retained_and_then_removable() {
        let clock = Arc::new(Clock::now());
        let options = Options::new()
            .with("worm-file-level", "on")
            .with("default-retention-period", "100")
            .with("auto-commit-period", "50");
        let Some((bench, worm)) = bench(&options, clock.clone()) else { return };
        let gfid = bench.file(Gfid::ROOT, "a", b"text");
        let unlink = || Fop::Unlink { entry: entry(Gfid::ROOT, "a"), flags: 0, xdata: Dict::new() };
        let anonymous = File { gfid, fd: None };
        bench.run(write(anonymous, b"more")).unwrap();
        clock.advance(60);
        assert_eq!(errno_of(bench.run(write(anonymous, b"late"))), errno::EROFS, "committed by itself");
        assert_eq!(errno_of(bench.run(unlink())), errno::EROFS, "retained");
        assert_eq!(
            errno_of(bench.run(Fop::Truncate { gfid, size_bytes: 0, xdata: Dict::new() })),
            errno::EROFS,
            "retained"
        );
        let state = futures::executor::block_on(worm.xattr(gfid, STATE)).unwrap().unwrap();
        assert_eq!(&state[..], b"3/100/50\0", "as GlusterFS writes it");
        // The end of the retention is the access time, which may be moved.
        let mut longer = bench.iatt(Gfid::ROOT, "a").unwrap();
        assert_eq!(longer.atime.seconds, clock.seconds() + 100);
        longer.atime.seconds += 50;
        let valid = SetattrValid(SetattrValid::ATIME);
        bench.run(Fop::Setattr { gfid, iatt: Box::new(longer), valid, xdata: Dict::new() }).unwrap();
        clock.advance(140);
        assert_eq!(errno_of(bench.run(unlink())), errno::EROFS, "still retained");
        clock.advance(20);
        assert_eq!(errno_of(bench.run(write(anonymous, b"late"))), errno::EROFS, "worm");
        worm.reconfigure(&Options::new().with("worm-file-level", "on").with("worm-files-deletable", "off")).unwrap();
        assert_eq!(errno_of(bench.run(unlink())), errno::EROFS, "not deletable");
        worm.reconfigure(&options).unwrap();
        bench.run(unlink()).unwrap();
    }

    #[test]
    fn neither_create_nor_put_goes_round_a_retention() {
        let clock = Arc::new(Clock::now());
        let options = Options::new().with("worm-file-level", "on").with("auto-commit-period", "50");
        let Some((bench, worm)) = bench(&options, clock.clone()) else { return };
        bench.file(Gfid::ROOT, "a", b"text");
        let xdata = Dict::new().with("gfid-req", Value::Gfid(Gfid::random()));
        let data = ladrillo_translator::Payload::copy_from_slice(b"text");
        let put = Fop::Put {
            entry: entry(Gfid::ROOT, "b"),
            mode: 0o644,
            umask: 0,
            flags: 0,
            offset: 0,
            data,
            xattrs: Dict::new(),
            xdata,
        };
        bench.run(put).unwrap();
        clock.advance(60);
        for name in ["a", "b"] {
            let truncating = |flags: u32| match create(Gfid::ROOT, name, Gfid::random(), FdId(9)) {
                Fop::Create { entry, mode, umask, fd, xdata, .. } => {
                    Fop::Create { entry, flags, mode, umask, fd, xdata }
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(errno_of(bench.run(truncating(2 | libc::O_TRUNC as u32))), errno::EROFS, "{name}");
            assert_eq!(std::fs::read(bench.path.join(name)).unwrap(), b"text");
            let gfid = bench.iatt(Gfid::ROOT, name).unwrap().gfid;
            assert!(futures::executor::block_on(worm.xattr(gfid, STATE)).unwrap().is_some(), "{name} is committed");
        }
    }

    #[test]
    fn taking_write_permissions_away_commits() {
        let clock = Arc::new(Clock::now());
        let options = Options::new().with("worm-file-level", "on").with("retention-mode", "enterprise");
        let Some((bench, worm)) = bench(&options, clock) else { return };
        let gfid = bench.file(Gfid::ROOT, "a", b"text");
        let chmod = |mode: u32| Fop::Setattr {
            gfid,
            iatt: Box::new(Iatt { mode, ..Iatt::default() }),
            valid: SetattrValid(SetattrValid::MODE),
            xdata: Dict::new(),
        };
        bench.run(chmod(0o600)).unwrap();
        assert_eq!(futures::executor::block_on(worm.xattr(gfid, STATE)).unwrap(), None);
        bench.run(chmod(0o400)).unwrap();
        assert_eq!(errno_of(bench.run(write(File { gfid, fd: None }, b"late"))), errno::EROFS);
        let mut shorter = bench.iatt(Gfid::ROOT, "a").unwrap();
        shorter.atime.seconds -= 10;
        let valid = SetattrValid(SetattrValid::ATIME);
        let fop = Fop::Setattr { gfid, iatt: Box::new(shorter), valid, xdata: Dict::new() };
        assert_eq!(errno_of(bench.run(fop)), errno::EROFS, "enterprise: never shorter");
        // Nor by another chmod, alone or with a time, after the default was made shorter.
        let end = bench.iatt(Gfid::ROOT, "a").unwrap().atime.seconds;
        let options = options.with("default-retention-period", "1");
        worm.reconfigure(&options).unwrap();
        bench.run(chmod(0o440)).unwrap();
        let both = Fop::Setattr {
            gfid,
            iatt: Box::new(Iatt { mode: 0o400, ..Iatt::default() }),
            valid: SetattrValid(SetattrValid::MODE | SetattrValid::ATIME),
            xdata: Dict::new(),
        };
        assert_eq!(errno_of(bench.run(both)), errno::EROFS);
        let touch = Fop::Setattr {
            gfid,
            iatt: Box::default(),
            valid: SetattrValid(SetattrValid::ATIME_NOW),
            xdata: Dict::new(),
        };
        assert_eq!(errno_of(bench.run(touch)), errno::EROFS, "now is sooner, too");
        assert_eq!(bench.iatt(Gfid::ROOT, "a").unwrap().atime.seconds, end);
        // Heal brings a copy up to date whatever its state.
        let healer = Context { pid: Context::PID_SELF_HEALD, ..Context::root() };
        bench.run_as(&healer, write(File { gfid, fd: None }, b"heal")).unwrap();
    }
}
