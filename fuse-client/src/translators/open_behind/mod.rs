//! `performance/open-behind`: a file opened for reading is opened on the bricks when that is needed, and not before.
//!
//! Most files are opened, read once from end to end, and closed. Their reads are anonymous (by gfid alone): one message
//! to one brick, where an open, a flush and a release to each copy would be nine more. A file is opened on the bricks
//!
//! - before its third read, and by whatever is no read, stat or xattr read;
//! - before this client removes or replaces any name: what is open must outlive its last name;
//! - a second after it was opened here at the latest: another client's unlink finds it open then. What that client removes
//!   within the second is gone for a reader that has not read it (ESTALE), as with GlusterFS's open-behind.
//!
//! Closing any descriptor of a file gives up its process's locks on it (fcntl): where somebody has asked for some, a flush goes
//! to the bricks.
//!
//! Only where the kernel has checked permissions at open(2): elsewhere the brick's answer to OPEN is the check.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::lock::Mutex as TurnMutex;
use ladrillo_translator::error::errno::{ENOENT, ESTALE};
use ladrillo_translator::fop::{File, LockCmd};
use ladrillo_translator::option::{OptionKind, OptionSpec};
use ladrillo_translator::{
    Context, FdId, Fop, FopFuture, FopResult, Gfid, OptionError, Options, Parent, Reply, Runtime, Translator,
};

const LAZY_OPEN: OptionSpec = OptionSpec::new(
    &["lazy-open"],
    OptionKind::Bool,
    Some("yes"),
    "Open files on the bricks when that is needed; no: with open(2)",
);
const READ_AFTER_OPEN: OptionSpec = OptionSpec::new(
    &["read-after-open"],
    OptionKind::Bool,
    Some("no"),
    "The first read opens the file on the bricks, too",
);
const PASS_THROUGH: OptionSpec =
    OptionSpec::new(&["pass-through"], OptionKind::Bool, Some("false"), "Do nothing at all");

/// What a volfile may set. `use-anonymous-fd` is what is done here anyway.
pub const OPTIONS: &[OptionSpec] = &[LAZY_OPEN, READ_AFTER_OPEN, PASS_THROUGH];

/// Anonymous reads of one open file: a short one is read with one, and its end with another.
const ANONYMOUS_READS: u32 = 2;
/// How long a file may stay unopened.
const GRACE: Duration = Duration::from_secs(1);
/// How often those are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// Files opened at once.
const CONCURRENCY: usize = 32;
/// Files with locks that are told apart; beyond that every flush goes to the bricks.
const MAX_LOCKED: usize = 65_536;
/// Flags with which a file is opened at once.
const EAGER_FLAGS: u32 =
    (libc::O_ACCMODE | libc::O_TRUNC | libc::O_CREAT | libc::O_DIRECT | libc::O_SYNC | libc::O_DSYNC) as u32;

/// The translator.
pub struct OpenBehind {
    this: Weak<OpenBehind>,
    name: String,
    below: Arc<dyn Translator>,
    runtime: Arc<dyn Runtime>,
    is_lazy: AtomicBool,
    anonymous_reads: AtomicU32,
    /// Files that are, or were for a while, open here only.
    files: papaya::HashMap<FdId, Arc<Unopened>>,
    /// How many of them are open here only.
    unopened: AtomicUsize,
    /// Files on which applications have asked for locks.
    locked: papaya::HashSet<Gfid>,
    is_swept: AtomicBool,
}

/// A file whose open was put off.
struct Unopened {
    context: Context,
    gfid: Gfid,
    flags: u32,
    since: Duration,
    reads: AtomicU32,
    is_open: AtomicBool,
    /// It has no name any more: nobody but who uses it needs to hear so.
    is_gone: AtomicBool,
    turn: TurnMutex<()>,
}

/// What the options say: whether opens are put off, and how many reads go ahead of them.
fn settings(options: &Options) -> Result<(bool, u32), OptionError> {
    let is_lazy = options.bool(&LAZY_OPEN)? && !options.bool(&PASS_THROUGH)?;
    Ok((is_lazy, if options.bool(&READ_AFTER_OPEN)? { 0 } else { ANONYMOUS_READS }))
}

impl OpenBehind {
    /// Above `below`.
    ///
    /// # Errors
    /// An option's value.
    pub fn new(
        name: impl Into<String>,
        below: Arc<dyn Translator>,
        options: &Options,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Arc<OpenBehind>, OptionError> {
        let (is_lazy, reads) = settings(options)?;
        Ok(Arc::new_cyclic(|this| OpenBehind {
            this: this.clone(),
            name: name.into(),
            below,
            runtime,
            is_lazy: AtomicBool::new(is_lazy),
            anonymous_reads: AtomicU32::new(reads),
            files: papaya::HashMap::new(),
            unopened: AtomicUsize::new(0),
            locked: papaya::HashSet::new(),
            is_swept: AtomicBool::new(false),
        }))
    }

    fn may_wait(&self, flags: u32) -> bool {
        self.is_lazy.load(Ordering::Relaxed) && flags & EAGER_FLAGS == libc::O_RDONLY as u32
    }

    fn put_off(&self, context: &Context, gfid: Gfid, flags: u32, fd: FdId) {
        let file = Unopened {
            context: context.clone(),
            gfid,
            flags,
            since: self.runtime.now(),
            reads: AtomicU32::new(0),
            is_open: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            turn: TurnMutex::new(()),
        };
        self.unopened.fetch_add(1, Ordering::AcqRel);
        self.files.pin().insert(fd, Arc::new(file));
        self.sweep();
    }

    fn find(&self, fd: FdId) -> Option<Arc<Unopened>> {
        self.files.pin().get(&fd).cloned()
    }

    async fn open(&self, fd: FdId, file: &Unopened) -> FopResult<()> {
        if file.is_open.load(Ordering::Acquire) {
            return Ok(());
        }
        let _turn = file.turn.lock().await;
        // Opened meanwhile, or closed.
        if file.is_open.load(Ordering::Acquire) || self.find(fd).is_none() {
            return Ok(());
        }
        let fop = Fop::Open { gfid: file.gfid, flags: file.flags, fd, xdata: Default::default() };
        self.below.submit(&file.context, fop).await?;
        file.is_open.store(true, Ordering::Release);
        self.unopened.fetch_sub(1, Ordering::AcqRel);
        Ok(())
    }

    /// Opens what is not, as far as it can be: who uses a file that cannot be opened is told so then.
    async fn open_all(&self, is_due: impl Fn(&Unopened) -> bool) {
        let waiting: Vec<(FdId, Arc<Unopened>)> = {
            let files = self.files.pin();
            let is_waiting =
                |file: &Unopened| !file.is_open.load(Ordering::Acquire) && !file.is_gone.load(Ordering::Relaxed);
            let due = files.iter().filter(|(_, file)| is_waiting(file) && is_due(file));
            due.map(|(fd, file)| (*fd, file.clone())).collect()
        };
        let open = |(fd, file): (FdId, Arc<Unopened>)| async move {
            if let Err(error) = self.open(fd, &file).await {
                tracing::debug!(gfid = %file.gfid, %error, "an open that was put off failed");
                file.is_gone.store(matches!(error.errno, ENOENT | ESTALE), Ordering::Relaxed);
            }
        };
        futures::stream::iter(waiting).for_each_concurrent(CONCURRENCY, open).await;
    }

    /// Sees to it that nothing stays unopened for long.
    fn sweep(&self) {
        if self.is_swept.swap(true, Ordering::AcqRel) {
            return;
        }
        let (this, runtime) = (self.this.clone(), self.runtime.clone());
        self.runtime.spawn(Box::pin(async move {
            loop {
                runtime.sleep(SWEEP_INTERVAL).await;
                let Some(this) = this.upgrade() else { return };
                let now = runtime.now();
                this.open_all(|file| now.saturating_sub(file.since) >= GRACE).await;
                if this.unopened.load(Ordering::Acquire) == 0 {
                    this.is_swept.store(false, Ordering::Release);
                    // One put off just now may have seen the sweeper still there.
                    if this.unopened.load(Ordering::Acquire) == 0 || this.is_swept.swap(true, Ordering::AcqRel) {
                        return;
                    }
                }
            }
        }));
    }

    fn may_be_locked(&self, gfid: Gfid) -> bool {
        let locked = self.locked.pin();
        locked.contains(&gfid) || locked.len() >= MAX_LOCKED
    }

    /// Notes that somebody asks for a lock.
    fn note_lock(&self, fop: &Fop) {
        if let Fop::Lk { file, cmd, .. } = fop
            && *cmd != LockCmd::Get
        {
            let locked = self.locked.pin();
            if locked.len() < MAX_LOCKED {
                locked.insert(file.gfid);
            }
        }
    }

    async fn release(&self, context: &Context, fop: Fop, fd: FdId, file: Arc<Unopened>) -> FopResult {
        self.files.pin().remove(&fd);
        // An open under way comes first.
        let _turn = file.turn.lock().await;
        if file.is_open.load(Ordering::Acquire) {
            return self.below.submit(context, fop).await;
        }
        self.unopened.fetch_sub(1, Ordering::AcqRel);
        Ok(Reply::done())
    }

    /// An operation on files of which some may not be open yet.
    async fn with_files(&self, context: &Context, mut fop: Fop) -> FopResult {
        for fd in fop.files().into_iter().flatten().filter_map(|file| file.fd) {
            let Some(file) = self.find(fd).filter(|file| !file.is_open.load(Ordering::Acquire)) else { continue };
            let goes_ahead = match &fop {
                Fop::Read { .. } => {
                    file.reads.fetch_add(1, Ordering::Relaxed) < self.anonymous_reads.load(Ordering::Relaxed)
                }
                Fop::Fstat { .. } | Fop::Fgetxattr { .. } => true,
                Fop::Flush { .. } if !self.may_be_locked(file.gfid) => return Ok(Reply::done()),
                _ => false,
            };
            if !goes_ahead {
                self.open(fd, &file).await?;
                continue;
            }
            for named in fop.files_mut().into_iter().flatten().filter(|named| named.fd == Some(fd)) {
                named.fd = None;
            }
        }
        self.below.submit(context, fop).await
    }
}

impl Translator for OpenBehind {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        self.note_lock(&fop);
        match &fop {
            Fop::Open { gfid, flags, fd, .. } if self.may_wait(*flags) => {
                self.put_off(context, *gfid, *flags, *fd);
                Box::pin(std::future::ready(Ok(Reply::done())))
            }
            Fop::Release { file: File { fd: Some(fd), .. } } => {
                // Whether it was opened late, or never.
                match self.find(*fd) {
                    Some(file) => {
                        let fd = *fd;
                        Box::pin(async move { self.release(context, fop, fd, file).await })
                    }
                    None => self.below.submit(context, fop),
                }
            }
            Fop::Unlink { .. } | Fop::Rename { .. } if self.unopened.load(Ordering::Acquire) > 0 => {
                Box::pin(async move {
                    self.open_all(|_| true).await;
                    self.below.submit(context, fop).await
                })
            }
            _ if self.unopened.load(Ordering::Acquire) > 0 && fop.files().iter().any(Option::is_some) => {
                Box::pin(self.with_files(context, fop))
            }
            _ => self.below.submit(context, fop),
        }
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        self.below.set_parent(parent, child_index);
    }

    fn reconfigure(&self, options: &Options) -> Result<bool, OptionError> {
        let (is_lazy, reads) = settings(options)?;
        self.is_lazy.store(is_lazy, Ordering::Relaxed);
        self.anonymous_reads.store(reads, Ordering::Relaxed);
        Ok(true)
    }
}
