//! From one graph to the next under open files: what applications talk to while volfiles change.
//!
//! Promises: an open file stays open, and what it has locked stays locked, when the graph below is replaced
//! ([`Switch::switch`]); operations under way end on the graph they began on, later ones go to the new one; the old graph
//! is left ([`Retiring::done`]) when nothing of it is in use any more: no operation, no file that the new one could not
//! open, no listing half read (its offsets are the old graph's); what it could not keep of what was written there the next
//! fsync of the file reports, and the flushes before it. Bricks see both graphs as one client where
//! protocol/client has inherited the session ([`crate::translators::client::Client::inherit`]), so that locks never
//! change hands; elsewhere a lock is given up and taken anew.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::lock::Mutex as TurnMutex;
use ladrillo_translator::error::errno::{EAGAIN, EBADF, EINVAL};
use ladrillo_translator::fop::{File, FopKind, LockCmd, LockType};
use ladrillo_translator::{
    Context, FdId, Fop, FopError, FopFuture, FopResult, Gfid, Parent, Reply, Runtime, Translator, Value,
};
use parking_lot::{Mutex, RwLock};

use crate::translators::held::{HANDED_OVER, HeldLock, HeldLocks, bytes_of};
use crate::translators::work::{Work, WorkGuard};

/// Files opened on a new graph at once.
const CONCURRENCY: usize = 32;
/// How long a listing may keep its graph.
const LISTING_GRACE: Duration = Duration::from_secs(30);
/// How long locks that the new graph does not get keep the old one.
const LOCK_GRACE: Duration = Duration::from_secs(300);
/// How often a graph that is left looks whether it is still needed.
const RETIRE_INTERVAL: Duration = Duration::from_secs(2);
/// How often a lock that bricks take for another client's is asked for anew, and the pause between.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Flags that are of the first open only.
const CREATION_FLAGS: u32 = (libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC) as u32;

/// A translator over the graph of the moment.
pub struct Switch {
    name: String,
    runtime: Arc<dyn Runtime>,
    current: RwLock<Arc<Generation>>,
    /// Graphs that are left, as long as something of them is in use.
    leaving: Mutex<Vec<Arc<Generation>>>,
    files: papaya::HashMap<FdId, Arc<OpenFile>>,
    /// Locks, each with the number of the generation it was taken in.
    locks: HeldLocks<u64>,
    one_at_a_time: TurnMutex<()>,
    strict_locks: AtomicBool,
}

/// A graph, and what goes on in it.
struct Generation {
    number: u64,
    top: Arc<dyn Translator>,
    work: Arc<Work>,
}

struct OpenFile {
    gfid: Gfid,
    flags: u32,
    directory: bool,
    /// The generation it was opened in last: what most operations look for.
    latest: AtomicU64,
    /// All generations it is open in.
    open_in: Mutex<Vec<u64>>,
    /// The generation that its listing under way comes from; 0: none.
    listing_in: AtomicU64,
    moving: TurnMutex<()>,
    /// The generations it was written in since it was last flushed there ([`bit_of`]).
    written_in: AtomicU64,
    /// What a graph that was left could not keep, until the next flush or fsync reports it.
    error: Mutex<Option<FopError>>,
    /// Held while that is being found out.
    settling: TurnMutex<()>,
    /// A strict or mandatory lock was lost: it is only to be closed.
    bad: AtomicBool,
}

/// More than 64 graphs do not live at once; should two share a bit, a flush too many is sent.
fn bit_of(number: u64) -> u64 {
    1 << (number % 64)
}

impl OpenFile {
    fn note_written(&self, number: u64) {
        if self.written_in.load(Ordering::Acquire) & bit_of(number) == 0 {
            self.written_in.fetch_or(bit_of(number), Ordering::AcqRel);
        }
    }

    /// Whether it was written there since the last [`OpenFile::take_written`].
    fn was_written(&self, number: u64) -> bool {
        self.written_in.load(Ordering::Acquire) & bit_of(number) != 0
    }

    /// The same, and from now on it was not.
    fn take_written(&self, number: u64) -> bool {
        self.written_in.load(Ordering::Acquire) & bit_of(number) != 0
            && self.written_in.fetch_and(!bit_of(number), Ordering::AcqRel) & bit_of(number) != 0
    }

    fn is_open_in(&self, number: u64) -> bool {
        self.latest.load(Ordering::Acquire) == number || self.open_in.lock().contains(&number)
    }
}

/// A graph that was left.
pub struct Retiring {
    switch: Arc<Switch>,
    generation: Arc<Generation>,
}

impl Switch {
    /// Over a first graph.
    pub fn new(name: impl Into<String>, top: Arc<dyn Translator>, runtime: Arc<dyn Runtime>) -> Arc<Switch> {
        Arc::new(Switch {
            name: name.into(),
            runtime,
            current: RwLock::new(Arc::new(Generation { number: 1, top, work: Arc::default() })),
            leaving: Mutex::default(),
            files: papaya::HashMap::new(),
            locks: HeldLocks::default(),
            one_at_a_time: TurnMutex::new(()),
            strict_locks: AtomicBool::new(false),
        })
    }

    /// Whether an open file is of no use any more when its lock was lost at a change of the graph (`strict-locks`).
    pub fn set_strict_locks(&self, strict: bool) {
        self.strict_locks.store(strict, Ordering::Release);
    }

    /// Files open.
    pub fn open_files(&self) -> usize {
        self.files.len()
    }

    /// Graphs in use: the one of the moment, and those that could not be left yet.
    pub fn graphs(&self) -> usize {
        self.leaving.lock().len() + 1
    }

    /// Goes over to `top`, which is up: files that are open are opened there first, locks follow.
    pub async fn switch(self: &Arc<Self>, top: Arc<dyn Translator>) -> Retiring {
        let _one = self.one_at_a_time.lock().await;
        let number = self.current.read().number + 1;
        let new = Arc::new(Generation { number, top, work: Arc::default() });
        self.open_all(&new).await;
        let old = {
            let mut current = self.current.write();
            let old = std::mem::replace(&mut *current, new.clone());
            self.leaving.lock().push(old.clone());
            old
        };
        // What was opened in between.
        self.open_all(&new).await;
        self.move_locks(&new, |_| true).await;
        Retiring { switch: self.clone(), generation: old }
    }

    fn enter(&self) -> (Arc<Generation>, WorkGuard) {
        let current = self.current.read();
        (current.clone(), current.work.begin())
    }

    fn generation(&self, number: u64) -> Option<Arc<Generation>> {
        let current = self.current.read().clone();
        if current.number == number {
            return Some(current);
        }
        self.leaving.lock().iter().find(|generation| generation.number == number).cloned()
    }

    fn file(&self, fd: FdId) -> Option<Arc<OpenFile>> {
        self.files.pin().get(&fd).cloned()
    }

    fn all_files(&self) -> Vec<(FdId, Arc<OpenFile>)> {
        self.files.pin().iter().map(|(fd, file)| (*fd, file.clone())).collect()
    }

    async fn open_all(&self, generation: &Arc<Generation>) {
        let open = |(fd, file): (FdId, Arc<OpenFile>)| async move {
            if let Err(error) = self.open_in(fd, &file, generation).await {
                tracing::warn!(gfid = %file.gfid, %error, "not opened on the new graph: it stays on the old one");
            }
        };
        let files: Vec<_> = self.all_files();
        futures::stream::iter(files).for_each_concurrent(CONCURRENCY, open).await;
    }

    /// Makes sure that `file` is open in `generation`.
    async fn open_in(&self, fd: FdId, file: &OpenFile, generation: &Generation) -> FopResult<()> {
        if file.is_open_in(generation.number) {
            return Ok(());
        }
        let _turn = file.moving.lock().await;
        if file.is_open_in(generation.number) {
            return Ok(());
        }
        let (gfid, xdata) = (file.gfid, Default::default());
        let context = Context { birth: self.runtime.wall_clock(), ..Context::root() };
        // A graph that has never heard of the inode learns what it needs to know first.
        let look = Fop::Lookup { gfid, entry: None, xdata: Default::default() };
        if let Err(error) = generation.top.submit(&context, look).await {
            tracing::debug!(%gfid, %error, "lookup on the new graph");
        }
        let fop = match file.directory {
            true => Fop::Opendir { gfid, fd, xdata },
            false => Fop::Open { gfid, flags: file.flags & !CREATION_FLAGS, fd, xdata },
        };
        generation.top.submit(&context, fop).await?;
        if self.files.pin().get(&fd).is_none() {
            // Released meanwhile.
            let (directory, file) = (file.directory, File { gfid, fd: Some(fd) });
            let release = release_of(file, directory);
            let _ = generation.top.submit(&context, release).await;
            return Ok(());
        }
        file.open_in.lock().push(generation.number);
        file.latest.fetch_max(generation.number, Ordering::AcqRel);
        Ok(())
    }

    /// Where `fop` goes: the graph of the moment, unless a file it needs is elsewhere.
    async fn place(&self, fop: &Fop) -> FopResult<(Arc<Generation>, WorkGuard)> {
        let (generation, guard) = self.enter();
        for fd in fop.files().into_iter().flatten().filter_map(|file| file.fd) {
            let Some(file) = self.file(fd) else { continue };
            if file.bad.load(Ordering::Acquire) && !gives_up(fop) {
                return Err(FopError::new(EBADF, "the locks of this open file were lost when the graph changed"));
            }
            if let Fop::Readdir { offset, .. } | Fop::Readdirp { offset, .. } = fop {
                let listing = file.listing_in.load(Ordering::Acquire);
                if *offset != 0
                    && listing != generation.number
                    && let Some(other) = self.generation(listing)
                {
                    let guard = other.work.begin();
                    return Ok((other, guard));
                }
                file.listing_in.store(generation.number, Ordering::Release);
            }
            if let Err(error) = self.open_in(fd, &file, &generation).await {
                let elsewhere = file.open_in.lock().iter().rev().find_map(|number| self.generation(*number));
                let Some(other) = elsewhere else { return Err(error) };
                let guard = other.work.begin();
                return Ok((other, guard));
            }
        }
        Ok((generation, guard))
    }

    async fn pass(&self, context: &Context, fop: Fop) -> FopResult {
        let (generation, _guard) = self.place(&fop).await?;
        if !writes(&fop) {
            return generation.top.submit(context, fop).await;
        }
        let written = fop.files().map(|file| file.and_then(|file| file.fd).and_then(|fd| self.file(fd)));
        let note = || written.iter().flatten().for_each(|file| file.note_written(generation.number));
        note();
        let reply = generation.top.submit(context, fop).await;
        // A flush meanwhile may not have waited for it.
        note();
        reply
    }

    /// FSYNC and FLUSH go to graphs that were left, too: what is written there may yet fail.
    async fn sync(&self, context: &Context, fop: Fop) -> FopResult {
        let placed = self.place(&fop).await?;
        self.sync_on(context, fop, Ok(placed), &[]).await
    }

    async fn sync_on(
        &self,
        context: &Context,
        fop: Fop,
        placed: FopResult<(Arc<Generation>, WorkGuard)>,
        holders: &[u64],
    ) -> FopResult {
        let here = placed.as_ref().map_or(0, |(generation, _)| generation.number);
        let earlier = self.settle(context, &fop, here, holders).await;
        let (generation, _guard) = placed?;
        if fop.kind() == FopKind::Fsync
            && let Some(file) = fop.files()[0].and_then(|file| file.fd).and_then(|fd| self.file(fd))
        {
            file.take_written(generation.number);
        }
        let reply = generation.top.submit(context, fop).await;
        earlier.map_or(reply, Err)
    }

    /// Sends `fop` to all graphs but `here` where its file was written, and to `holders`; tells the first error of a
    /// write. A flush waits for no disk and may be a reader's: what it tells, the next fsync tells, too.
    async fn settle(&self, context: &Context, fop: &Fop, here: u64, holders: &[u64]) -> Option<FopError> {
        let file = fop.files()[0].and_then(|file| file.fd).and_then(|fd| self.file(fd));
        let _turn = match &file {
            Some(file) => Some(file.settling.lock().await),
            None => None,
        };
        let mut others = self.leaving.lock().clone();
        others.push(self.current.read().clone());
        let is_fsync = fop.kind() == FopKind::Fsync;
        let mut first = file.as_ref().and_then(|file| match is_fsync {
            true => file.error.lock().take(),
            false => file.error.lock().clone(),
        });
        for other in others.into_iter().filter(|other| other.number != here) {
            let written = file.as_ref().is_some_and(|file| match is_fsync {
                true => file.take_written(other.number),
                false => file.was_written(other.number),
            });
            if !written && !holders.contains(&other.number) {
                continue;
            }
            let _guard = other.work.begin();
            if let Err(error) = other.top.submit(context, fop.clone()).await
                && written
            {
                if let Some(file) = file.as_ref().filter(|_| !is_fsync) {
                    file.error.lock().get_or_insert_with(|| error.clone());
                }
                first.get_or_insert(error);
            }
        }
        first
    }

    async fn open(&self, context: &Context, fop: Fop) -> FopResult {
        let Some(fd) = fop.opens() else { return Err(FopError::new(EINVAL, "not an open")) };
        let (flags, directory) = match &fop {
            Fop::Create { flags, .. } | Fop::Open { flags, .. } => (*flags, false),
            _ => (0, true),
        };
        let asked = match &fop {
            Fop::Open { gfid, .. } | Fop::Opendir { gfid, .. } => Some(*gfid),
            _ => None,
        };
        let (generation, _guard) = self.enter();
        let reply = generation.top.submit(context, fop).await?;
        let created = match &reply {
            Reply::Entry { iatt, .. } => Some(iatt.gfid),
            _ => None,
        };
        let Some(gfid) = asked.or(created) else { return Ok(reply) };
        let file = OpenFile {
            gfid,
            flags,
            directory,
            latest: AtomicU64::new(generation.number),
            open_in: Mutex::new(vec![generation.number]),
            listing_in: AtomicU64::new(0),
            moving: TurnMutex::new(()),
            written_in: AtomicU64::new(0),
            error: Mutex::default(),
            settling: TurnMutex::new(()),
            bad: AtomicBool::new(false),
        };
        self.files.pin().insert(fd, Arc::new(file));
        Ok(reply)
    }

    async fn release(&self, context: &Context, fop: Fop) -> FopResult {
        let Some(fd) = fop.files()[0].and_then(|file| file.fd) else { return self.pass(context, fop).await };
        let Some(file) = self.files.pin().remove(&fd).cloned() else { return self.pass(context, fop).await };
        self.locks.forget_fd(file.gfid, fd);
        let numbers = {
            let _turn = file.moving.lock().await;
            file.open_in.lock().clone()
        };
        for generation in numbers.into_iter().filter_map(|number| self.generation(number)) {
            let _guard = generation.work.begin();
            generation.top.submit(context, fop.clone()).await?;
        }
        Ok(Reply::done())
    }

    /// Graphs other than `current` in which some of these locks were taken.
    fn holders(&self, current: u64, gfid: Gfid, wanted: impl Fn(&HeldLock<u64>) -> bool) -> Vec<Arc<Generation>> {
        if self.leaving.lock().is_empty() {
            return Vec::new();
        }
        let found = self.locks.find(|lock| lock.tag != current && wanted(lock));
        let mut numbers: Vec<u64> = found.iter().filter(|(on, _)| *on == gfid).map(|(_, lock)| lock.tag).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().filter_map(|number| self.generation(number)).collect()
    }

    async fn lock(&self, context: &Context, fop: Fop) -> FopResult {
        let Fop::Lk { file, cmd, flock, .. } = &fop else { return self.pass(context, fop).await };
        if *cmd == LockCmd::Get {
            return self.pass(context, fop).await;
        }
        let (gfid, owner) = (file.gfid, &context.lock_owner);
        let asking = self.locks.ask(gfid, owner).await;
        let (generation, guard) = self.place(&fop).await?;
        if flock.kind == LockType::Unlock {
            let bytes = bytes_of(flock);
            let overlaps = |lock: &HeldLock<u64>| {
                lock.owner() == owner && bytes.is_none_or(|(start, end)| lock.start <= end && start <= lock.end)
            };
            let elsewhere = self.holders(generation.number, gfid, overlaps);
            if let Some((start, end)) = bytes {
                self.locks.carve(gfid, owner, start, end);
            }
            for other in elsewhere {
                let _guard = other.work.begin();
                let _ = other.top.submit(context, fop.clone()).await;
            }
            return generation.top.submit(context, fop).await;
        }
        let reply = generation.top.submit(context, fop.clone()).await;
        if reply.is_ok()
            && let Some((gfid, lock)) = HeldLock::of(context, &fop, generation.number)
        {
            self.locks.insert(gfid, lock);
        }
        drop(asking);
        // It may have taken long, and the graph have changed meanwhile: locks whose owner asks for more are not moved.
        let now = self.current.read().clone();
        if self.locks.any(gfid, |lock| lock.owner() == owner && lock.tag < now.number) {
            self.move_locks(&now, |lock| lock.owner() == owner).await;
        }
        drop(guard);
        reply
    }

    async fn flush(&self, context: &Context, fop: Fop) -> FopResult {
        let owner = &context.lock_owner;
        let gfid = fop.files()[0].map(|file| file.gfid).unwrap_or_default();
        let mine = |lock: &HeldLock<u64>| lock.owner() == owner;
        if owner.0.is_empty() || !self.locks.any(gfid, mine) {
            return self.sync(context, fop).await;
        }
        let _asking = self.locks.ask(gfid, owner).await;
        let placed = self.place(&fop).await;
        let here = placed.as_ref().map_or(0, |(generation, _)| generation.number);
        let holders: Vec<u64> = self.holders(here, gfid, mine).iter().map(|holder| holder.number).collect();
        self.locks.forget_owner(gfid, owner);
        self.sync_on(context, fop, placed, &holders).await
    }

    /// Takes locks of earlier graphs in `new`.
    async fn move_locks(&self, new: &Arc<Generation>, wanted: impl Fn(&HeldLock<u64>) -> bool) {
        for (gfid, lock) in self.locks.find(|lock| lock.tag < new.number && wanted(lock)) {
            let restoring = self.locks.restore().await;
            let Some(lock) = restoring.current(gfid, &lock) else { continue };
            if let Some(fd) = lock.fd
                && let Some(file) = self.file(fd)
                && self.open_in(fd, &file, new).await.is_err()
            {
                continue; // It stays where the file is.
            }
            match self.move_lock(new, gfid, &lock).await {
                Ok(()) => restoring.update(gfid, &lock, |lock| {
                    lock.tag = new.number;
                    true
                }),
                Err(NotMoved::Lost(error)) if self.strict_locks.load(Ordering::Acquire) || lock.is_mandatory() => {
                    tracing::error!(%gfid, %error, "a lock was lost at the change of the graph: its open file is bad");
                    if let Some(file) = lock.fd.and_then(|fd| self.file(fd)) {
                        file.bad.store(true, Ordering::Release);
                    }
                    restoring.update(gfid, &lock, |_| false);
                }
                Err(NotMoved::Kept(error) | NotMoved::Lost(error)) => {
                    tracing::warn!(%gfid, %error, "a lock of an application is not on the new graph yet");
                }
            }
        }
    }

    async fn hand_over(&self, gfid: Gfid, lock: &HeldLock<u64>) {
        let Some(old) = self.generation(lock.tag) else { return };
        let _guard = old.work.begin();
        let mut fop = lock.request(gfid);
        if let Fop::Lk { flock, xdata, .. } = &mut fop {
            flock.kind = LockType::Unlock;
            xdata.set(HANDED_OVER, Value::Int(1));
        }
        if let Err(error) = old.top.submit(&lock.context, fop).await {
            tracing::warn!(%gfid, %error, "the old graph does not forget a lock that the new one has");
        }
    }

    async fn move_lock(&self, new: &Generation, gfid: Gfid, lock: &HeldLock<u64>) -> Result<(), NotMoved> {
        let _guard = new.work.begin();
        match new.top.submit(&lock.context, lock.request(gfid)).await {
            Ok(_) => {
                // The old graph may live on for a while, and must not take it again when a brick comes back.
                self.hand_over(gfid, lock).await;
                return Ok(());
            }
            Err(error) if error.errno == EAGAIN => {}
            Err(error) => return Err(NotMoved::Kept(error)),
        }
        // For the bricks we are two clients: one has to let go before the other gets it.
        let mut unlock = lock.request(gfid);
        if let Fop::Lk { flock, .. } = &mut unlock {
            flock.kind = LockType::Unlock;
        }
        if let Some(old) = self.generation(lock.tag) {
            let _guard = old.work.begin();
            old.top.submit(&lock.context, unlock).await.map_err(NotMoved::Kept)?;
        }
        let mut attempt = 0;
        loop {
            match new.top.submit(&lock.context, lock.request(gfid)).await {
                Ok(_) => return Ok(()),
                Err(error) if error.errno == EAGAIN && attempt < LOCK_ATTEMPTS => attempt += 1,
                Err(error) => return Err(NotMoved::Lost(error)),
            }
            self.runtime.sleep(LOCK_PAUSE).await;
        }
    }
}

/// What a file that is bad is still good for.
fn gives_up(fop: &Fop) -> bool {
    match fop {
        Fop::Lk { flock, .. } => flock.kind == LockType::Unlock,
        _ => fop.kind() == FopKind::Flush,
    }
}

/// Why a lock is not on the new graph.
enum NotMoved {
    /// The old graph has it.
    Kept(FopError),
    /// Nobody has: the old graph gave it up, and somebody else was faster.
    Lost(FopError),
}

fn writes(fop: &Fop) -> bool {
    matches!(
        fop.kind(),
        FopKind::Write
            | FopKind::CopyFileRange
            | FopKind::Ftruncate
            | FopKind::Fallocate
            | FopKind::Discard
            | FopKind::Zerofill
    )
}

fn release_of(file: File, directory: bool) -> Fop {
    if directory { Fop::Releasedir { file } } else { Fop::Release { file } }
}

impl Retiring {
    /// Finds out whether the graph has kept what was written to a file there: its next flushes and fsync report it.
    async fn sync(&self, fd: FdId, file: &OpenFile) {
        let _turn = file.settling.lock().await;
        if !file.take_written(self.generation.number) {
            return;
        }
        // A flush would wait for no disk, and what fails later would be told to nobody.
        let context = Context { birth: self.switch.runtime.wall_clock(), ..Context::root() };
        let file_there = File { gfid: file.gfid, fd: Some(fd) };
        let fop = Fop::Fsync { file: file_there, datasync: true, xdata: Default::default() };
        if let Err(error) = self.generation.top.submit(&context, fop).await {
            tracing::warn!(gfid = %file.gfid, %error, "the old graph has not kept all that was written");
            file.error.lock().get_or_insert(error);
        }
    }

    /// Completes when nothing of the graph is in use any more; its files are closed there then. The graph can be ended.
    pub async fn done(self) {
        let (this, switch, old) = (&self, &self.switch, &self.generation);
        let left_at = switch.runtime.now();
        loop {
            old.work.idle().await;
            let new = switch.current.read().clone();
            let listings_may_go_on = switch.runtime.now().saturating_sub(left_at) < LISTING_GRACE;
            let mut needed = 0;
            for (fd, file) in switch.all_files() {
                if !file.is_open_in(old.number) {
                    continue;
                }
                let is_listed = file.listing_in.load(Ordering::Acquire) == old.number && listings_may_go_on;
                if is_listed || switch.open_in(fd, &file, &new).await.is_err() {
                    needed += 1;
                }
            }
            switch.move_locks(&new, |_| true).await;
            let locked = switch.locks.find(|lock| lock.tag == old.number).len();
            let locks_may_move = switch.runtime.now().saturating_sub(left_at) < LOCK_GRACE;
            if needed == 0 && (locked == 0 || !locks_may_move) && old.work.is_idle() {
                if locked > 0 {
                    tracing::error!(locked, "locks of applications did not survive the change of the graph");
                }
                break;
            }
            switch.runtime.sleep(RETIRE_INTERVAL).await;
        }
        let files = switch.all_files();
        let sync = |(fd, file): (FdId, Arc<OpenFile>)| async move { this.sync(fd, &file).await };
        futures::stream::iter(files).for_each_concurrent(CONCURRENCY, sync).await;
        // From now on nobody finds it.
        switch.leaving.lock().retain(|generation| generation.number != old.number);
        old.work.idle().await;
        let context = Context { birth: switch.runtime.wall_clock(), ..Context::root() };
        for (fd, file) in switch.all_files() {
            let was_open = {
                let mut open_in = file.open_in.lock();
                let before = open_in.len();
                open_in.retain(|number| *number != old.number);
                open_in.len() != before
            };
            if was_open {
                let release = release_of(File { gfid: file.gfid, fd: Some(fd) }, file.directory);
                let _ = old.top.submit(&context, release).await;
            }
        }
    }
}

impl Translator for Switch {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        match fop.kind() {
            FopKind::Create | FopKind::Open | FopKind::Opendir => Box::pin(self.open(context, fop)),
            FopKind::Release | FopKind::Releasedir => Box::pin(self.release(context, fop)),
            FopKind::Lk => Box::pin(self.lock(context, fop)),
            FopKind::Fsync => Box::pin(self.sync(context, fop)),
            FopKind::Flush => Box::pin(self.flush(context, fop)),
            _ => Box::pin(self.pass(context, fop)),
        }
    }

    /// Nobody: who changes the graph hears each graph's events.
    fn set_parent(&self, _parent: Weak<dyn Parent>, _child_index: usize) {}
}
