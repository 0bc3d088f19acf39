//! Locks of applications: fcntl and flock.
//!
//! A wait can be interrupted: it then ends with EINTR at once, the brick is asked to stop waiting, and should it grant
//! the lock all the same, the lock is given back: a lock never outlives the call that failed, and what was held before it is
//! held after it. Until that is settled the owner's next lock on the same bytes waits, see [`super::abandoned`].

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{Either, select};
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{Flock, LockCmd, LockType};
use ladrillo_translator::{Context, Dict, Fop, FopError, FopResult, Reply};

use parking_lot::Mutex;

use super::abandoned::AbandonedWait;
use super::{Outcome, Request, unexpected};
use crate::executor;
use crate::front::Front;
use crate::front::answer::{self, Answer};
use crate::front::open::OpenFile;
use crate::translators::held::{HeldLock, bytes_of};

/// How long a lock that is not to wait does so for an abandoned wait of its owner to be settled.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);

/// Where an abandoned wait is noted until it is over.
type AbandonedSlot = Arc<Mutex<Option<AbandonedWait>>>;

/// The request of this unique is to end early. One that is not waiting (any more) needs nothing.
pub(super) fn interrupt(front: &Front, unique: u64) {
    // The kernel sets the lowest bit of the unique in INTERRUPT's own header only; the argument names the original.
    if let Some(waiting) = front.interrupts.lock().remove(&unique) {
        let _ = waiting.send(());
    }
}

impl Request<'_> {
    pub(super) async fn getlk(&self, fh: u64, flock: Flock) -> Outcome {
        let file = self.open_file(fh)?.file();
        let owner = owner_number(&flock);
        let reply = self.submit_as(owner, Fop::Lk { file, cmd: LockCmd::Get, flock, xdata: Dict::new() }).await?;
        match reply {
            Reply::Lk { flock, .. } => Ok(Answer::bytes(answer::file_lock(&flock))),
            reply => Err(unexpected(&reply)),
        }
    }

    pub(super) async fn setlk(&self, fh: u64, flock: Flock, wait: bool) -> Outcome {
        let file = self.open_file(fh)?;
        let wait = wait && flock.kind != LockType::Unlock;
        if !wait {
            let owner = owner_number(&flock);
            if flock.kind != LockType::Unlock {
                let over = self.front.abandoned.over(file.gfid, &flock);
                let busy = |_| FopError::new(errno::EAGAIN, "an interrupted wait of the same owner is not over yet");
                executor::timeout(SETTLE_PATIENCE, over).await.map_err(busy)?;
            }
            let context = self.front.context(self.header, owner);
            if let (LockType::Unlock, Some((start, end))) = (flock.kind, bytes_of(&flock)) {
                self.front.held.carve(file.gfid, &context.lock_owner, start, end);
            }
            let fop = Fop::Lk { file: file.file(), cmd: LockCmd::Set, flock, xdata: Dict::new() };
            let held = HeldLock::of(&context, &fop, ());
            let outcome = done(self.front.top.submit(&context, fop).await);
            if let (Ok(_), Some((gfid, lock))) = (&outcome, held) {
                self.front.held.insert(gfid, lock);
            }
            return outcome;
        }
        let (interrupt, mut interrupted) = oneshot::channel();
        let unique = self.header.unique;
        self.front.interrupts.lock().insert(unique, interrupt);
        let settled = Box::pin(self.front.abandoned.over(file.gfid, &flock));
        if let Either::Right(_) = select(settled, &mut interrupted).await {
            self.front.interrupts.lock().remove(&unique);
            return Err(interrupted_wait());
        }
        let slot = AbandonedSlot::default();
        let granted = self.wait_for(file, flock.clone(), slot.clone());
        let outcome = match select(pin!(granted), interrupted).await {
            Either::Left((result, _)) => done(result.unwrap_or_else(|_| Err(gave_up()))),
            Either::Right(_) => {
                *slot.lock() = Some(self.front.abandoned.begin(file.gfid, &flock));
                self.stop_waiting(file, flock);
                Err(interrupted_wait())
            }
        };
        self.front.interrupts.lock().remove(&unique);
        outcome
    }

    /// Waits for a lock in a task of its own. The receiver gone, a lock that is granted is given back, and only then
    /// `abandoned` emptied.
    fn wait_for(
        &self,
        file: OpenFile,
        flock: Flock,
        abandoned: AbandonedSlot,
    ) -> impl Future<Output = Result<FopResult, oneshot::Canceled>> + use<> {
        let (answer, answered) = oneshot::channel();
        let (front, context) = (self.front.clone(), self.front.context(self.header, owner_number(&flock)));
        let busy = self.front.begin();
        executor::spawn(async move {
            let _busy = busy;
            let wait = Fop::Lk { file: file.file(), cmd: LockCmd::SetWait, flock: flock.clone(), xdata: Dict::new() };
            let held = HeldLock::of(&context, &wait, ());
            let result = front.top.submit(&context, wait).await;
            let granted = result.is_ok();
            // Before the answer: what the application does next may be to give it up.
            let before = locks_under(&front, file, &flock, &context);
            if let (true, false, Some((gfid, lock))) = (granted, answer.is_canceled(), held) {
                front.held.insert(gfid, lock);
            }
            let delivered = answer.send(result).is_ok();
            if !granted || !delivered {
                give_back(&front, &context, file, &flock, granted, before).await;
            }
            abandoned.lock().take();
        });
        answered
    }

    /// Asks the bricks to end the wait (GlusterFS 10's virtual xattr `glusterfs.intrlk`).
    fn stop_waiting(&self, file: OpenFile, flock: Flock) {
        let (front, context) = (self.front.clone(), self.front.context(self.header, owner_number(&flock)));
        let busy = self.front.begin();
        executor::spawn(async move {
            let _busy = busy;
            let name = format!("glusterfs.intrlk.tposix.kblocked.{},{}-{}", flock.whence, flock.start, flock.len);
            let fop = Fop::Fgetxattr { file: file.file(), name: name.into(), xdata: Dict::new() };
            if let Err(error) = front.top.submit(&context, fop).await {
                tracing::debug!(gfid = %file.gfid, "intrlk: {error}");
            }
        });
    }
}

/// What the owner of `flock` holds of its bytes.
fn locks_under(front: &Front, file: OpenFile, flock: &Flock, context: &Context) -> Vec<HeldLock<()>> {
    let Some((start, end)) = bytes_of(flock) else { return Vec::new() };
    let overlaps = |lock: &HeldLock<()>| lock.owner() == &context.lock_owner && lock.start <= end && start <= lock.end;
    if !front.held.any(file.gfid, overlaps) {
        return Vec::new();
    }
    front.held.find(overlaps).into_iter().filter(|(gfid, _)| *gfid == file.gfid).map(|(_, lock)| lock).collect()
}

/// The end of a wait for `flock` that its owner does not know to have succeeded: it holds what it held `before`. Bricks
/// give that up while they wait for more, and a grant that came late has replaced it.
async fn give_back(
    front: &Front,
    context: &Context,
    file: OpenFile,
    flock: &Flock,
    granted: bool,
    mut before: Vec<HeldLock<()>>,
) {
    let (gfid, mut fops) = (file.gfid, Vec::new());
    before.sort_by_key(|lock| lock.start);
    if let Some((start, end)) = bytes_of(flock) {
        front.held.carve(gfid, &context.lock_owner, start, end);
        for lock in &before {
            front.held.insert(gfid, lock.clone());
        }
        // What was held first: it is exchanged for the new lock at once. Then the rest is given up.
        fops.extend(before.iter().map(|lock| lock.request(gfid)));
        if granted {
            fops.extend(gaps(start, end, &before).into_iter().map(|(start, end)| {
                let len = if end == u64::MAX { 0 } else { end - start + 1 };
                let flock = Flock { kind: LockType::Unlock, start, len, ..flock.clone() };
                Fop::Lk { file: file.file(), cmd: LockCmd::Set, flock, xdata: Dict::new() }
            }));
        }
    } else if granted {
        let flock = Flock { kind: LockType::Unlock, ..flock.clone() };
        fops.push(Fop::Lk { file: file.file(), cmd: LockCmd::Set, flock, xdata: Dict::new() });
    }
    for fop in fops {
        if let Err(error) = front.top.submit(context, fop).await {
            tracing::warn!(%gfid, "after an interrupted wait a lock is not what it was before: {error}");
        }
    }
}

/// The bytes of `start..=end` that are under none of `locks`, which are in order.
fn gaps(start: u64, end: u64, locks: &[HeldLock<()>]) -> Vec<(u64, u64)> {
    let (mut gaps, mut next) = (Vec::new(), Some(start));
    for lock in locks {
        let Some(from) = next else { break };
        if lock.start > from {
            gaps.push((from, (lock.start - 1).min(end)));
        }
        next = lock.end.checked_add(1).map(|after| after.max(from));
    }
    if let Some(from) = next.filter(|from| *from <= end) {
        gaps.push((from, end));
    }
    gaps
}

fn interrupted_wait() -> FopError {
    FopError::new(errno::EINTR, "the wait for a lock was interrupted")
}

fn gave_up() -> FopError {
    FopError::new(errno::EIO, "the wait for a lock ended without an answer")
}

fn done(result: FopResult) -> Outcome {
    match result? {
        Reply::Lk { .. } | Reply::Done { .. } => Ok(Answer::ok()),
        reply => Err(unexpected(&reply)),
    }
}

/// The lock owner as the kernel numbers it.
fn owner_number(flock: &Flock) -> Option<u64> {
    let bytes: [u8; 8] = flock.owner.0[..].try_into().ok()?;
    Some(u64::from_le_bytes(bytes))
}
